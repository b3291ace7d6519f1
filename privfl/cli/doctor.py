"""``privfl doctor``: what is wrong with this machine or a folder, and what to do about it."""

from __future__ import annotations

import json
import os
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from privfl.runtime.doctor import Check

__all__ = ["doctor"]

_COLOURS = {"ok": "green", "warn": "yellow", "fail": "red", "skipped": "dim"}


def doctor(
    folder: Annotated[
        Path | None, typer.Argument(help="Folder of a site, coordinator, officer or authority; default: the machine.")
    ] = None,
    passphrase_file: Annotated[
        Path | None, typer.Option(help="Its first line opens the folder's keys; default: PRIVFL_PASSPHRASE.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Check this machine, and FOLDER if it is given: keys, roster, policy, ledger, data, wire, what a crash left.

    Nothing is sent and nothing is spent. Without a passphrase, keys and sealed state stay closed, and what lies in
    them is skipped; none is asked for.

    Exits with 0 if no check fails, 1 otherwise.

    Example: privfl doctor north --passphrase-file north.pass
    """
    from privfl.runtime.doctor import Verdict, examine  # noqa: PLC0415 - the help need not wait for it

    checks = list(examine(folder, passphrase=_passphrase(folder, passphrase_file)))
    failed = any(check.verdict is Verdict.FAIL for check in checks)
    if as_json:
        typer.echo(json.dumps({"ok": not failed, "checks": [asdict(check) for check in checks]}))
    else:
        _show(checks)
    raise typer.Exit(int(failed))


def _passphrase(folder: Path | None, file: Path | None) -> Callable[[], str] | None:
    """How to get the passphrase without asking; None if it was not given."""
    from privfl.homes.folder import under_kms  # noqa: PLC0415
    from privfl.homes.passphrase import VARIABLE, ask_passphrase  # noqa: PLC0415

    if folder is not None and under_kms(folder):
        return lambda: ""
    return (lambda: ask_passphrase(file)) if file is not None or os.environ.get(VARIABLE) else None


def _show(checks: list[Check]) -> None:
    table = Table(show_lines=True)
    for heading in ("check", "", "found", "next step"):
        table.add_column(heading, overflow="fold")
    for check in checks:
        verdict = Text(check.verdict.value, style=_COLOURS[check.verdict.value])
        table.add_row(Text(check.name), verdict, Text(check.found), Text(check.step or "–"))
    console = Console()
    console.print(table)
    counts = Counter(check.verdict.value for check in checks)
    console.print(", ".join(f"{counts[name]} {name}" for name in _COLOURS if counts[name]))
    if counts["fail"]:
        sys.stdout.flush()
        Console(stderr=True).print("Begin with the first that fails; later ones may follow from it.", highlight=False)
