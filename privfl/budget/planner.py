"""What still fits: rounds, attempts and epsilon of training runs under a policy, after what a ledger has spent.

Everything here is a plan: a function of the policy and of public charges, never of a row. What is planned
is admitted later (:meth:`~privfl.budget.Limits.admit` asks the same of the same numbers), unless someone
else spends it first. What may be asked for is rounded down, what it costs is rounded up.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

from privfl.budget.charge import Charge, Purpose
from privfl.budget.filter import Budget, Filter
from privfl.budget.limits import Limits
from privfl.budget.tally import Tally
from privfl.dp import ZERO_COST, Cost, Trust, epsilon_of_cost, mu2_per_upload
from privfl.dp.accounting import EPSILON_SLACK, epsilon_of_mu, root_up
from privfl.dp.cost import floor_to_grid
from privfl.dp.release import SAMPLER_DELTA
from privfl.errors import Misuse

__all__ = [
    "Ceiling",
    "Room",
    "epsilon_to_ask",
    "epsilons",
    "room_for",
    "rooms",
    "uploads_that_fit",
    "whole_run",
]


@dataclass(frozen=True)
class Ceiling:
    """One limit and what is left of it; ``left`` is never negative."""

    name: str
    whole: Cost
    left: Cost


@dataclass(frozen=True)
class Room:
    """What one purpose (and analyst, if one is named) may still spend.

    Attributes:
        limits: of the policy. ceilings: every limit that a charge must pass; the total comes first.
    """

    purpose: Purpose
    analyst: str | None
    limits: Limits
    ceilings: tuple[Ceiling, ...]

    @property
    def budget(self) -> Budget:
        """The policy's total, whose δ all figures are at."""
        assert self.limits.budget is not None
        return self.limits.budget

    @property
    def left(self) -> Cost:
        """What every ceiling still holds, exact; in the policy's unit, with its factor for several sites."""
        return Cost(min(one.left.mu2 for one in self.ceilings), min(one.left.delta for one in self.ceilings))

    @property
    def binding(self) -> str:
        """Name of the ceiling with the least μ² left."""
        return min(self.ceilings, key=lambda one: one.left.mu2).name

    def factor(self, trust: Trust) -> int:
        """How many times its own μ² a release is charged, for subjects whose rows are at several sites."""
        return int(self.priced(Cost(1), trust).mu2)

    def epsilon_left(self, trust: Trust) -> float:
        """The largest ε that a single task may ask for with all of it, rounded down; 0 if nothing is left."""
        if self.left.delta < self.priced(Cost(0, SAMPLER_DELTA), trust).delta:
            return 0.0  # not even one number's δ′ fits
        return epsilon_to_ask(self.left.mu2 / self.factor(trust), self.budget.delta)

    def priced(self, cost: Cost, trust: Trust) -> Cost:
        """What an upload of this cost is charged; raises Misuse if its δ′ promises nothing."""
        return self.limits.price(Charge(bytes(32), self.purpose, self.analyst or "", {self.limits.unit: cost}, trust))

    def uploads(self, cost: Cost, trust: Trust) -> int:
        """How many uploads of this cost still fit, attempts included.

        Raises:
            Misuse: the cost is zero, so there is no number.
        """
        return self.count(self.priced(cost, trust))

    def count(self, price: Cost) -> int:
        """How many charges of ``price`` still fit; raises Misuse for a price of zero."""
        left = self.left
        return Filter(Budget(self.budget.epsilon, self.budget.delta, left.mu2, left.delta)).count(price)


def rooms(limits: Limits, tally: Tally, now: int, *, analyst: str | None = None) -> tuple[Room, ...]:
    """The room of every purpose; see :func:`room_for`."""
    return tuple(room_for(limits, tally, now, purpose, analyst=analyst) for purpose in Purpose)


def room_for(limits: Limits, tally: Tally, now: int, purpose: Purpose, *, analyst: str | None = None) -> Room:
    """What ``purpose`` may still spend at ``now`` (milliseconds since 1970).

    Args:
        tally: everything charged so far; its window becomes that of the limits.
        analyst: whose cap is to be counted as well; None leaves caps out.

    Raises:
        Misuse: there is no budget, or the policy does not name the analyst.
    """
    if limits.budget is None:
        raise Misuse("this policy lets exact sums leave; there is no budget to plan, and nobody is protected by one")
    if analyst is not None and limits.analysts and analyst not in limits.analysts:
        raise Misuse(f"the policy does not name {analyst!a:.80}; its analysts are {', '.join(limits.analysts)}")
    tally.slide(limits.window_ms)
    recent, unit, k = tally.within(now), limits.unit, limits.sites_per_subject
    if tally.life.endless(unit):
        nothing = Ceiling(f"earlier charges without a finite cost per {unit}", limits.budget.part(1), ZERO_COST)
        return Room(purpose, analyst, limits, (nothing,))
    share = limits.budget.part(limits.shares.get(purpose, Fraction(0)))
    found = [
        _ceiling("the total", limits.budget.part(1), recent.total(unit, sites_per_subject=k)),
        _ceiling(f"the share of {purpose}", share, recent.total(unit, purpose=purpose, sites_per_subject=k)),
    ]
    if analyst is not None and limits.analysts:
        cap = limits.budget.part(limits.analysts[analyst])
        found.append(_ceiling(f"the cap of {analyst}", cap, recent.total(unit, analyst=analyst, sites_per_subject=k)))
    if limits.lifetime is not None:
        life = tally.life.total(unit, sites_per_subject=k)
        found.append(_ceiling("the lifetime budget", limits.lifetime.part(1), life))
    return Room(purpose, analyst, limits, tuple(found))


def _ceiling(name: str, whole: Cost, spent: Cost | None) -> Ceiling:
    # a limit that a stricter policy has lowered below what is spent admits nothing
    if spent is None or spent.mu2 > whole.mu2 or spent.delta > whole.delta:
        return Ceiling(name, whole, ZERO_COST)
    return Ceiling(name, whole, Cost(whole.mu2 - spent.mu2, whole.delta - spent.delta))


def uploads_that_fit(limits: Limits, tally: Tally, charge: Charge, now: int) -> int:
    """How many charges like ``charge`` would be admitted at ``now``, one after another.

    Raises:
        Misuse: there is no budget, the analyst is not named, or the charge is free.
        Refused: it has no finite cost in the policy's unit.
    """
    room = room_for(limits, tally, now, charge.purpose, analyst=charge.analyst)
    return room.count(limits.price(charge))


def epsilon_to_ask(mu2: Fraction, delta: float) -> float:
    """The largest ε, to four digits, whose (ε, δ) is turned into at most ``mu2`` when a task is compiled; 0 if none.

    >>> epsilon_to_ask(mu2_per_upload(2.0, 1e-5, 1), 1e-5)
    2.0
    """
    if mu2 <= 0:
        return 0.0
    rest = math.nextafter(delta - float(floor_to_grid(Fraction(delta) / 10)), 1.0)
    top = epsilon_of_mu(root_up(mu2), rest) + EPSILON_SLACK
    digit = 10.0 ** (math.floor(math.log10(top)) - 3)
    steps = round(top / digit) + 1
    while steps > 0:
        epsilon = float(f"{steps * digit:.4g}")
        if epsilon > 2 * EPSILON_SLACK and epsilon <= top * (1 + 1e-9) and whole_run(epsilon, delta) <= mu2:
            return epsilon
        steps -= 1
        if steps * digit < top * 0.99:  # below what can be asked for at all
            break
    return 0.0


@lru_cache(maxsize=1024)
def whole_run(epsilon: float, delta: float) -> Fraction:
    """μ² of a whole run; a part of it, rounded down, is ``mu2_per_upload`` of so many rounds."""
    return mu2_per_upload(epsilon, delta, 1)


def epsilons(cost: Cost, deltas: Iterable[float]) -> tuple[tuple[float, float | None], ...]:
    """ε of a total at each δ, rounded up; None where δ is not above the δ′ in it."""
    return tuple((delta, epsilon_of_cost(cost, delta) if cost.delta < delta else None) for delta in deltas)
