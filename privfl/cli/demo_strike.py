"""Killing a site in the middle of a round, and starting it again for the next.

The middle of a round lasts a few milliseconds. To hit it, the victim is let go on for an instant at a time; between
two of them its ledger is read, and only if that shows a round that is charged and not settled, for the second time
where there are rounds enough, is the process killed.
"""

from __future__ import annotations

import re
import sqlite3
import time
from contextlib import closing
from enum import Enum, auto
from pathlib import Path
from typing import TYPE_CHECKING

from privfl.cli.demo_children import deferred
from privfl.cli.demo_outcome import Death
from privfl.errors import Misuse, PrivflError

if TYPE_CHECKING:
    from privfl.cli.demo_wires import Scene, Victim
    from privfl.runtime.alive import Process
    from privfl.runtime.status import SiteStatus

__all__ = ["Strike", "open_round"]

SLICE, SELDOM = 0.002, 0.02  # seconds that the victim goes on between looks; between looks while there is time
GREETING_S = 3.0  # at most, from a site's first status until it has greeted and answered what waited for it
_ROUND = re.compile(r"\bround (\d{1,9})\b")


def open_round(ledger: Path) -> int | None:
    """The round whose reservation is the ledger's last entry, neither settled nor burnt; None if there is none.

    Read without waiting: a ledger in the middle of a commit counts as none.
    """
    from privfl.budget.ledger_entries import Kind, Sealed  # noqa: PLC0415

    try:
        with closing(sqlite3.connect(f"{ledger.resolve().as_uri()}?mode=ro", uri=True, timeout=0)) as connection:
            query = "SELECT body, signature FROM entries ORDER BY seq DESC LIMIT 1"
            entry = Sealed(*connection.execute(query).fetchone()).entry()
    except (sqlite3.Error, TypeError, PrivflError):
        return None
    found = _ROUND.search(entry.what)
    return int(found[1]) if entry.kind == Kind.RESERVE and found else None


class _Stage(Enum):
    WAITING = auto()
    ARMED = auto()
    STARTING = auto()
    GREETING = auto()
    BACK = auto()


class Strike:
    """One death, from ``round`` on; :meth:`step` is called often and does what is due.

    With ``sure`` the charge was seen open before, so that most likely rows were read and it will be burnt.

    Attributes:
        death: once it has happened.
    """

    def __init__(self, scene: Scene, name: str, victim: Victim, round: int, *, sure: bool = True) -> None:
        self._folder, self._coordinator = scene.trial.sites[name], scene.trial.coordinator
        self._name, self._victim, self._round, self._pause = name, victim, round, scene.pause
        self._stage, self._since, self._sure = _Stage.WAITING, 0.0, sure
        self._seen: int | None = None  # the open round at the last look
        self._killed: Process | None = None
        self.death: Death | None = None

    def step(self) -> float:
        """Do what is due; returns after how many seconds to come back."""
        if self._stage is _Stage.WAITING:
            if self._reached():
                self._stage = _Stage.ARMED
        elif self._stage is _Stage.ARMED:
            self._strike()
            return 0.0
        elif self._stage is _Stage.STARTING:
            if self._status() is not None:
                self._stage, self._since = _Stage.GREETING, time.monotonic()
        elif self._stage is _Stage.GREETING and (self._at_work() or time.monotonic() - self._since > GREETING_S):
            self.rest()
        return SELDOM

    def rest(self) -> None:
        """Nothing more is done; everybody goes on."""
        if self._stage is _Stage.ARMED:
            self._victim.thaw()
        self._stage = _Stage.BACK
        self._pause.unlink(missing_ok=True)

    def _reached(self) -> bool:
        from privfl.runtime.status import NAME, CoordinatorStatus, read_status  # noqa: PLC0415

        try:
            return read_status(self._coordinator / NAME, CoordinatorStatus).round >= self._round - 1
        except Misuse:
            return False  # not written yet

    def _status(self) -> SiteStatus | None:
        """What the restarted victim says of itself, once it does."""
        from privfl.runtime.status import NAME, SiteStatus, read_status  # noqa: PLC0415

        try:
            status = read_status(self._folder / NAME, SiteStatus)
        except Misuse:
            return None
        return status if status.process != self._killed and status.process.lives() else None

    def _at_work(self) -> bool:
        """Whether it has answered the invitation that its death left unanswered; its greeting went out before."""
        status = self._status()
        return status is not None and status.refusals + status.uploads > 0

    def _strike(self) -> None:
        (ledger,) = (self._folder / "ledger").glob("*.db")
        with deferred():
            self._victim.thaw()
            time.sleep(SLICE)
            if not self._victim.freeze():
                return
            hit, before = open_round(ledger), self._seen
            self._seen = hit
            if hit is None or hit < self._round or (self._sure and hit != before):  # not open, or only just
                return
            self._pause.touch()  # between this round and the next
            found = self._status()
            self._killed = found.process if found is not None else None
            self._victim.kill()
            self.death, self._stage = Death(self._name, hit), _Stage.STARTING
        self._victim.restart()
