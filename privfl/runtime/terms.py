"""What a site has agreed to, and its own account of what it has spent.

In a federation of processes these come from a signed policy and a tamper-evident ledger; here they are
the same questions asked of values. A site answers them itself, before anything is computed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Protocol

from privfl_keys import Label, Roster, digest

from privfl.budget import Budget, Filter
from privfl.codec import Record
from privfl.dp import Cost, Trust, Unit
from privfl.errors import Refused, Unverified
from privfl.learn import Task
from privfl.secagg import Announcement, Rules

__all__ = ["Account", "MemoryAccount", "Terms"]


@dataclass(frozen=True)
class Terms(Record):
    """The privacy terms of one site; a request may tighten them, never loosen them.

    Attributes:
        epsilon, delta: total budget, as the shortest text that reads back the same; empty for a federation
            that runs without noise, which must be asked for by name.
        unit, trust: what is protected, and on whose noise it may rest. ``local`` is stricter than
            ``distributed`` and is accepted by either.
        min_survivors: least number of sites in any opened sum.
        allow_voted, allow_complete: modes of opening a sum.
    """

    TAG: ClassVar[str] = "terms"
    epsilon: str
    delta: str
    unit: str
    trust: str
    min_survivors: int
    allow_voted: bool
    allow_complete: bool

    @property
    def hash(self) -> bytes:
        """32 bytes that every announcement names."""
        return digest(Label.POLICY, *self.to_value())

    @property
    def noiseless(self) -> bool:
        """Whether sums without noise were agreed to."""
        return not self.epsilon

    @property
    def budget(self) -> Budget | None:
        """The budget, None without noise."""
        return None if self.noiseless else Budget.from_epsilon_delta(float(self.epsilon), float(self.delta))

    def rules(self) -> Rules:
        """What the secure-aggregation machine enforces of these terms."""
        return Rules(self.hash, self.min_survivors, self.allow_voted, self.allow_complete, self.noiseless)

    def price(self, roster: Roster, announcement: Announcement, task: Task) -> Cost | None:
        """Check a task against these terms and return what one upload costs; None without noise.

        Raises:
            Refused: other trust or unit, fewer honest noise shares than the claim needs, another ring or length.
            Unverified: the task is not the one that the announcement names.
        """
        a = announcement
        if task.id != a.task:
            raise Unverified("the task is not the one that the announcement names")
        if (a.bits, a.word, a.length) != (task.ring.bits, task.ring.word, task.length):
            raise Refused("the announced ring or length is not that of the task")
        if len(a.sites) > task.plan.sites:
            raise Refused(f"the task's ring holds {task.plan.sites} sites and the cohort has {len(a.sites)}")
        release = task.release
        if release is None:
            if not self.noiseless:
                raise Refused("the task has no noise and this site's terms do not allow that")
            return None
        if self.noiseless:
            raise Refused("this site's terms name no budget; a task with noise needs one")
        if release.trust is not Trust.LOCAL and self.trust != release.trust:
            raise Refused(f"the task asks for trust {release.trust} and this site's terms are {self.trust}")
        if release.trust is Trust.DISTRIBUTED:
            if release.min_survivors > a.min_survivors:
                raise Refused(
                    f"the noise rests on {release.min_survivors} survivors and the slot may open with {a.min_survivors}"
                )
            if max(1, release.colluders) < max(1, roster.corrupt_bound):
                raise Refused(
                    f"the task counts {release.colluders} colluding sites and the roster bounds them by "
                    f"{roster.corrupt_bound}"
                )
        return release.cost_in(Unit(self.unit))


class Account(Protocol):
    """Where a site charges itself; a ledger fulfils it."""

    def reserve(self, h0: bytes, cost: Cost | None) -> bytes:
        """Charge ``cost`` for the slot ``h0``, durably, and return the 32-byte head of the account.

        Raises:
            BudgetExceeded: it does not fit; nothing is charged.
        """
        ...


class MemoryAccount:
    """An account in memory: the privacy filter and a hash chain over its entries."""

    def __init__(self, budget: Budget | None) -> None:
        self.filter = None if budget is None else Filter(budget)
        self.head = bytes(32)
        self.charges: list[tuple[bytes, Cost | None]] = []

    def reserve(self, h0: bytes, cost: Cost | None) -> bytes:
        """See :class:`Account`. A slot that is charged already costs nothing again."""
        if any(known == h0 for known, _ in self.charges):
            return self.head
        if cost is not None:
            if self.filter is None:
                raise Refused("this site's terms name no budget; a task with noise needs one")
            self.filter = self.filter.admit(cost)
        self.charges.append((h0, cost))
        amount = ("", "") if cost is None else (str(cost.mu2), str(cost.delta))
        self.head = digest(Label.LEDGER, self.head, h0, *amount)
        return self.head
