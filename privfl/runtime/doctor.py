"""The checks of ``privfl doctor``, one after the other: of this machine, and of one folder."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from privfl.clock import Clock, SystemClock
from privfl.errors import Misuse
from privfl.runtime.checks import Check, Finding, Verdict, carried_out
from privfl.runtime.doctor_folder import folder_checks
from privfl.runtime.doctor_machine import machine_checks

__all__ = ["Check", "Verdict", "examine"]


def examine(
    folder: Path | None = None, *, passphrase: str | Callable[[], str] | None = None, clock: Clock | None = None
) -> Iterator[Check]:
    """Carry out every check that applies; nothing is raised, a check that raises is a failed one.

    Args:
        folder: of a role; None examines the machine alone. What is written to try the disk goes there, else to the
            system's folder for temporary files, and is removed.
        passphrase: of the folder's key store, or how to get it; None skips what needs it.
    """
    clock = clock or SystemClock()
    place = folder if folder is not None and folder.is_dir() else Path(tempfile.gettempdir())
    yield from carried_out(machine_checks(place, clock))
    if folder is None:
        return
    try:
        given = passphrase() if callable(passphrase) else passphrase
    except Misuse as error:
        yield Check("passphrase", Verdict.FAIL, str(error), "see: privfl doctor --help")
        given = None
    try:
        yield from carried_out(_absolute(folder, clock, given))
    except OSError as error:
        yield Check("folder", Verdict.FAIL, f"{folder} cannot be read ({error.strerror})", "check its owner and mode")


def _absolute(folder: Path, clock: Clock, passphrase: str | None) -> Iterator[tuple[str, Callable[[], Finding]]]:
    return folder_checks(folder.expanduser().absolute(), clock.now(), passphrase)
