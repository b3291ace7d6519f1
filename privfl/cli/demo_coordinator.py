"""The demo's coordinator process: ``privfl coordinator run --once``, with someone looking over its shoulder.

It runs the same code on the same folder. What is added is a record of every packed vector that passed
through its hands, and a pause between two rounds while the demo's killed site starts again.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from privfl.cli.demo_children import end_with_parent
from privfl.cli.demo_outcome import Seen
from privfl.errors import PrivflError

__all__ = ["looking", "main"]

LONGEST_PAUSE = 60.0


def main() -> None:
    """Arguments: the coordinator's folder, the file of what was seen, the file whose presence asks for a pause."""
    end_with_parent()
    folder, seen_file, pause = map(Path, sys.argv[1:4])
    try:
        _run(folder, seen_file, pause)
    except PrivflError as error:
        sys.stderr.write(f"privfl: {type(error).__name__}: {error}\n")
        sys.exit(error.exit_code)


def looking(seen_file: Path, pause: Path) -> Callable[[int, Any, Mapping[str, bytes]], None]:
    """Called after each round: notes what passed through in ``seen_file``, then waits while there is ``pause``."""
    seen = Seen()

    def look(number: int, result: Any, bodies: Mapping[str, bytes]) -> None:
        seen.observe(number, result, bodies)
        temporary = seen_file.with_suffix(".tmp")
        temporary.write_text(json.dumps(seen.plain()), encoding="ascii")
        temporary.replace(seen_file)
        until = time.monotonic() + LONGEST_PAUSE
        while pause.exists() and time.monotonic() < until:
            time.sleep(0.01)

    return look


def _run(folder: Path, seen_file: Path, pause: Path) -> None:
    from privfl.cli.serve import LogFormat, LogLevel, logging_to  # noqa: PLC0415 - after the arguments
    from privfl.homes.passphrase import ask_passphrase  # noqa: PLC0415
    from privfl.runtime.coordinator_process import Pace, run_coordinator  # noqa: PLC0415

    logging_to(folder, "coordinator", LogFormat.TEXT, LogLevel.INFO)
    run_coordinator(
        folder,
        ask_passphrase(None, folder=folder),
        stop=lambda: False,  # SIGTERM ends it at once
        pace=Pace(gather=60_000, patience=20_000, grace=500),
        once=True,
        after_round=looking(seen_file, pause),
    )


if __name__ == "__main__":
    main()
