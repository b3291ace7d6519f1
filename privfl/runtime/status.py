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
from collections.abc import Callable, Mapping
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
    "life",
    "read_status",
    "show_failed_start",
]

log = logging.getLogger("privfl.status")

FORMAT = 1
NAME = "status.json"
LARGEST = 16 * 2**20

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
class SiteStatus:
    """What ``privfl site status`` shows; times are milliseconds since 1970. No number of rows, no value.

    Attributes:
        stage, since: what the site does, and since when. waits_for: in words.
        active: when it last did something. uploads: made since the ledger began, or since the start: the writer's word.
        refusals, refusal: how many, and the last reason. epsilon: spent so far at the policy's delta, None without
            noise; ``epsilon_by`` the same by purpose. pending: requests that wait for the operator's yes.
        error: last error. alarm: of a store or ledger that was rolled back, which no restart makes go away.
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


@dataclass(frozen=True)
class SiteSeen:
    """One site as the coordinator sees it. ``seen``: when it was last heard, None if never. ``refused``: its reason."""

    name: str
    seen: int | None = None
    uploaded: bool = False
    late: bool = False
    refused: str = ""
    bytes_sent: int = 0


@dataclass(frozen=True)
class CoordinatorStatus:
    """What ``privfl coordinator status`` shows; times are milliseconds since 1970. All of it is public or noised.

    Attributes:
        job, name: id of the job in hexadecimal, and its words. round, rounds: of the job, from 1; 0 before the first.
        deadline: of the present round. score: the noisy score of the last round.
        aborted: why the last attempt ended without a result.
        operators: names of sites whose operators' yes the job waits for now.
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
        temporary = self._path.with_name(f".{self._path.name}.tmp")
        try:
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
            with open(descriptor, "wb") as stream:
                stream.write(_encoded(status))
            os.replace(temporary, self._path)
            self._told = False
        except OSError as error:
            if not self._told:
                self._told = True
                log.warning("the status cannot be written: %s; work goes on without it", error)


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
