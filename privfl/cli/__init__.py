"""The command line: arguments in, tables and progress out; every failure a message and an exit code."""

from __future__ import annotations

import sys

__all__ = ["main"]


def main() -> None:
    """Entry point of the ``privfl`` command."""
    try:
        from privfl.cli.app import run  # noqa: PLC0415 - an interrupt while this loads is an interrupt as well

        run()
    except KeyboardInterrupt as interrupt:
        words = str(interrupt) or "nothing more was sent, and what was uploaded stays charged"
        sys.stderr.write(f"\nprivfl: interrupted; {words}\n")
        sys.exit(130)
