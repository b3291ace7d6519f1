"""What a part of a crash campaign is given, and what comes of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from benchmarks._crash_checks import FINDINGS, Finding
from benchmarks._crash_plan import Doom
from benchmarks._crash_world import PACE, Faults
from privfl.runtime.coordinator_process import Pace

__all__ = ["Chapter", "Outcome"]

PATIENCE = 90.0  # seconds for an undisturbed job


@dataclass(frozen=True)
class Chapter:
    """One federation's share of a campaign.

    Attributes:
        kills: at least so many deaths, and at most twice as many if ``wanted``, points of sites, take longer.
        coordinator: whether it dies as well. script: see :class:`Plan`.
        faults: what is broken on purpose. rehearsed: whether an undisturbed job comes first, so that the plan
        knows where there is to die; a script knows that itself.
        rounds: of each job. patience: seconds for the jobs that are left at the end.
    """

    seed: str
    kills: int
    sites: int = 5
    coordinator: bool = True
    wanted: Collection[str] = ()
    script: Sequence[Doom] = ()
    faults: Faults = lambda child: None
    pace: Pace = PACE
    rehearsed: bool = True
    rounds: int = 8
    patience: float = PATIENCE


@dataclass
class Outcome:
    """What came of it; outcomes add up.

    Attributes:
        overdue: deaths of those that did not come to their point in time, counted as at random instants.
        findings: broken promises. stopped: processes that ended by themselves, or a ledger that did not verify.
        finished: whether the undisturbed job at the end was done in full.
    """

    deaths: Counter[str] = field(default_factory=Counter)
    rounds: int = 0
    uploads: int = 0
    messages: int = 0
    restarts: int = 0
    coordinator_kills: int = 0
    overdue: int = 0
    findings: list[Finding] = field(default_factory=list)
    stopped: list[str] = field(default_factory=list)
    finished: bool = True

    @property
    def kills(self) -> int:
        """How many deaths there were."""
        return self.deaths.total()

    def count(self, kind: str) -> int:
        """How many findings of one kind."""
        return sum(one.kind == kind for one in self.findings)

    @property
    def sound(self) -> bool:
        """Whether nothing at all was wrong."""
        return not self.findings and not self.stopped and self.finished

    def add(self, other: Outcome) -> None:
        """Take in the outcome of another chapter."""
        self.deaths += other.deaths
        for name in (
            "rounds",
            "uploads",
            "messages",
            "restarts",
            "coordinator_kills",
            "overdue",
            "findings",
            "stopped",
        ):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.finished = self.finished and other.finished

    def figures(self) -> dict[str, object]:
        """As plain values."""
        counts = {kind: self.count(kind) for kind in FINDINGS}
        return {
            "kills": self.kills,
            "rounds_completed": self.rounds,
            **counts,
            "coordinator_kills": self.coordinator_kills,
            "overdue": self.overdue,
            "restarts": self.restarts,
            "uploads": self.uploads,
            "messages": self.messages,
            "went_on": self.finished,
            "stopped": self.stopped,
            "findings": [f"{one.kind}: {one.who}: {one.text}" for one in self.findings],
            "by_point": dict(sorted(self.deaths.items())),
        }
