"""What a process is doing, for people who look at its folder: public facts in one small file, replaced as a whole.

The file is advice. Nothing is decided from it, so it is not synced; a reader asks the system whether the process that
wrote it still lives, and compares when that process began, so that a reused number is not mistaken for it.
"""

from __future__ import annotations

import json
import logging
import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeVar

from privfl.errors import Misuse, PrivflError
from privfl.homes.lock import holder
from privfl.runtime.alive import Process

__all__ = [
    "CoordinatorStatus",
    "Phase",
    "Process",
    "SiteSeen",
    "SiteStatus",
    "Stage",
    "StatusFile",
    "WireSeen",
    "life",
    "read_notes",
    "read_status",
    "show_failed_start",
    "write_notes",
]

log = logging.getLogger("privfl.status")

FORMAT = 1
NAME = "status.json"
NOTES = "wire-notes.json"
LARGEST = 16 * 2**20
MOST_NOTES, LONGEST_NOTE = 40, 400

Life = Literal["running", "done", "failed", "stopped", "elsewhere"]


class Stage(StrEnum):
    """What a site is doing."""

    STARTING = "starting"
    WAITING = "waiting for the coordinator"
    EPOCH = "epoch set-up"
    COMPUTING = "computing"
    UPLOADED = "uploaded"
    VOTING = "voting"
    REFUSED = "refused"
    DONE = "done"
    FAILED = "failed"


class Phase(StrEnum):
    """What a coordinator is doing."""

    STARTING = "starting"
    WAITING = "waiting for sites"
    EPOCH = "epoch set-up"
    COLLECTING = "collecting"
    VOTING = "voting"
    RELEASING = "releasing"
    DONE = "done"
    FAILED = "failed"


@dataclass(frozen=True)
class WireSeen:
    """The own end of the wire; times are milliseconds since 1970, counts are since the process began.

    Attributes:
        kind, place: such as ``aws`` and where that is. sent, received: messages; a repetition counts once.
        bytes_sent, bytes_received: of messages and bodies. last: when something passed.
        since: since when it cannot be used, None while it can. tries: in vain since then. faults: how often that was.
        fault: the last one's words. ended: when that one was over.
    """

    kind: str = ""
    place: str = ""
    sent: int = 0
    received: int = 0
    bytes_sent: int = 0
    bytes_received: int = 0
    last: int | None = None
    since: int | None = None
    tries: int = 0
    faults: int = 0
    fault: str = ""
    ended: int | None = None


@dataclass(frozen=True)
class SiteStatus:
    """What ``privfl site status`` shows; times are milliseconds since 1970. No number of rows, no value.

    Attributes:
        stage, since: what the site does, and since when. waits_for: in words.
        active: when it last did something. uploads: made since the ledger began, or since the start: the writer's word.
        refusals, refusal: how many, and the last reason. epsilon: spent so far at the policy's delta, None without
            noise; ``epsilon_by`` the same by purpose. pending: requests that wait for the operator's yes.
        error: last error. alarm: of a store or ledger that was rolled back, which no restart makes go away.
        wire: the own end of it; None in the status of an earlier version.
    """

    KIND: ClassVar[str] = "site"

    name: str
    federation: str
    process: Process
    roster: int | None = None
    policy: int | None = None
    policy_expires: int | None = None
    epoch: int | None = None
    round: int | None = None
    attempt: int | None = None
    stage: Stage = Stage.STARTING
    since: int | None = None
    waits_for: str = ""
    active: int | None = None
    uploads: int = 0
    bytes_sent: int = 0
    refusals: int = 0
    refusal: str = ""
    epsilon: float | None = None
    epsilon_total: float | None = None
    epsilon_by: Mapping[str, float] = field(default_factory=dict)
    pending: int = 0
    error: str = ""
    alarm: str = ""
    wire: WireSeen | None = None


@dataclass(frozen=True)
class SiteSeen:
    """One site as the coordinator sees it. ``seen``: when it was last heard, None if never. ``refused``: its reason.

    ``bytes_sent``: of its upload of this round. ``bytes_to``: sent to it since the coordinator began. ``missed``:
    rounds of this job whose sum it is not in.
    """

    name: str
    seen: int | None = None
    uploaded: bool = False
    late: bool = False
    refused: str = ""
    bytes_sent: int = 0
    bytes_to: int = 0
    missed: int = 0


@dataclass(frozen=True)
class CoordinatorStatus:
    """What ``privfl coordinator status`` shows; times are milliseconds since 1970. All of it is public or noised.

    Attributes:
        job, name: id of the job in hexadecimal, and its words. round, rounds: of the job, from 1; 0 before the first.
        deadline: of the present round. score: the noisy score of the last round.
        aborted: why the last attempt ended without a result.
        operators: names of sites whose operators' yes the job waits for now.
        round_began: when the present round did. last_round_ms: how long the one before it took.
        wire: the own end of it; None in the status of an earlier version.
    """

    KIND: ClassVar[str] = "coordinator"

    federation: str
    process: Process
    job: str = ""
    name: str = ""
    phase: Phase = Phase.STARTING
    since: int | None = None
    waits_for: str = ""
    epoch: int | None = None
    round: int = 0
    rounds: int = 0
    attempt: int | None = None
    deadline: int | None = None
    sites: tuple[SiteSeen, ...] = ()
    score: float | None = None
    aborted: str = ""
    error: str = ""
    operators: tuple[str, ...] = ()
    round_began: int | None = None
    last_round_ms: int | None = None
    wire: WireSeen | None = None


Status = SiteStatus | CoordinatorStatus
_S = TypeVar("_S", SiteStatus, CoordinatorStatus)


def _monotonic_ms() -> int:
    return time.monotonic_ns() // 1_000_000


class StatusFile:
    """The one writer of a status file: a later status replaces an earlier one, never in parts.

    A write that comes sooner than ``every_ms`` after the last is held back and goes out with a later call, so a
    process calls :meth:`flush` before it waits. A file that cannot be written is told once in the log and no more.
    """

    def __init__(self, path: Path, *, every_ms: int = 50, ticks: Callable[[], int] = _monotonic_ms) -> None:
        self._path, self._every, self._ticks = path, every_ms, ticks
        self._last: int | None = None
        self._held: Status | None = None
        self._told = False

    def write(self, status: Status, *, force: bool = False) -> None:
        """Show ``status``, at once if ``force`` or if the last write is long enough ago."""
        self._held = status
        if force or self._last is None or self._ticks() - self._last >= self._every:
            self.flush()

    def flush(self) -> None:
        """Write what was held back, if anything was."""
        status, self._held = self._held, None
        if status is None:
            return
        self._last = self._ticks()
        try:
            _replaced(self._path, _encoded(status))
            self._told = False
        except OSError as error:
            if not self._told:
                self._told = True
                log.warning("the status cannot be written: %s; work goes on without it", error)


def _replaced(path: Path, data: bytes) -> None:
    temporary = path.with_name(f".{path.name}.tmp")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
    with open(descriptor, "wb") as stream:
        stream.write(data)
    os.replace(temporary, path)


def write_notes(folder: Path, notes: Sequence[str]) -> None:
    """What carries the mail of ``folder`` from outside (a Flower app) has to say, for whoever looks at its status.

    Best effort: nothing depends on it. No secret may be in it; an empty list removes what was said before.
    """
    path = folder / NOTES
    try:
        if notes:
            _replaced(path, json.dumps([_plain(str(one)[:LONGEST_NOTE]) for one in notes[:MOST_NOTES]]).encode())
        else:
            path.unlink(missing_ok=True)
    except OSError as error:
        log.debug("the notes on the wire cannot be written: %s", error)


def read_notes(folder: Path) -> tuple[str, ...]:
    """What :func:`write_notes` left; nothing if there is none or it is no such file."""
    try:
        with (folder / NOTES).open("rb") as stream:
            found = json.loads(stream.read(4 * MOST_NOTES * LONGEST_NOTE))
    except (OSError, ValueError, RecursionError):
        return ()
    return tuple(one for one in found if isinstance(one, str)) if isinstance(found, list) else ()


def as_json(status: Status) -> dict[str, Any]:
    """``status`` as JSON's plain values; a number that is not finite becomes None."""
    plain: dict[str, Any] = _plain(asdict(status))
    return plain


def _encoded(status: Status) -> bytes:
    return json.dumps({"format": FORMAT, "kind": status.KIND, "status": as_json(status)}).encode()


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()  # half a surrogate could not be read again
    if isinstance(value, Mapping):
        return {_plain(str(name)): _plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value


def read_status(path: Path, kind: type[_S]) -> _S:
    """Read a status file of ``kind``.

    Raises:
        Misuse: there is none, it is not one, or it belongs to the other role; the message says what to do.
    """
    try:
        with path.open("rb") as stream:
            data = stream.read(LARGEST + 1)
    except FileNotFoundError:
        raise Misuse(
            f"there is no status in {path.parent}; start it with: privfl {kind.KIND} run, or check the folder"
        ) from None
    except OSError as error:
        raise Misuse(f"{path} cannot be read ({error.strerror}); check the folder and its owner") from None
    damaged = f"{path} is damaged or no status of this version; the next start of privfl {kind.KIND} run replaces it"
    try:
        found = json.loads(data) if len(data) <= LARGEST else None
    except (ValueError, RecursionError):
        raise Misuse(damaged) from None
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        raise Misuse(damaged)
    if found.get("kind") != kind.KIND:
        raise Misuse(f"{path} is the status of another role; use: privfl {ascii(found.get('kind'))[1:-1]:.40} status")
    from pydantic import TypeAdapter, ValidationError  # noqa: PLC0415 - for readers only

    try:
        status: _S = TypeAdapter(kind).validate_json(json.dumps(found.get("status")), strict=True)
    except (ValidationError, ValueError):
        raise Misuse(damaged) from None
    return status


def show_failed_start(folder: Path, kind: type[_S], error: PrivflError, now: int) -> None:
    """Let the status of the last run say that the next one did not start, for monitors.

    A run that works in ``folder`` keeps its own, and a folder without a status gets none.
    """
    try:
        last = read_status(folder / NAME, kind)
        if holder(folder) is not None:
            return
    except PrivflError:
        return
    why = str(error) if isinstance(error, Misuse) else f"{type(error).__name__}: it did not start; see privfl doctor"
    stage: dict[str, Any] = {"stage": Stage.FAILED} if isinstance(last, SiteStatus) else {"phase": Phase.FAILED}
    failed = replace(last, process=Process.present(now), since=now, waits_for="", error=why, **stage)
    StatusFile(folder / NAME).write(failed, force=True)


def life(status: Status) -> Life:
    """Whether the writer of ``status`` lives: ``"stopped"`` if it ended without saying so.

    ``"elsewhere"``: it runs, or ran, on another machine, of which this one cannot tell.
    """
    last = status.stage if isinstance(status, SiteStatus) else status.phase
    if last in (Stage.DONE, Phase.DONE):
        return "done"
    if last in (Stage.FAILED, Phase.FAILED):
        return "failed"
    if not status.process.here():
        return "elsewhere"
    return "running" if status.process.lives() else "stopped"
