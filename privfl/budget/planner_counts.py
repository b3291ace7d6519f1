"""How far noise moves a published count, and how many counts within ± k people a room holds.

A count moves by at most 1 when one person (or row) is added or removed, so Δ = 1; a histogram over
disjoint cells costs the same as one count and every cell has this error. Noise is the exact integer
Gaussian with at least 4 units per site, a person being :data:`COUNT_UNITS` units. What is said here is
the noise alone: clipping, missing values and the chance in who is a patient come on top.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property

from privfl.budget.planner import Room
from privfl.dp import Block, Cost, Release, Trust, Unit, epsilon_of_cost, sigma_of_mu2
from privfl.dp.cost import floor_to_grid
from privfl.dp.release import MIN_SIGMA_SITE
from privfl.errors import Misuse

__all__ = ["COUNT_UNITS", "NORMAL_95", "Cohort", "Counts", "counts_for", "counts_within"]

#: Two-sided 95 % of the normal law, rounded up.
NORMAL_95 = 1.96
#: Integer units of one person, as studies count.
COUNT_UNITS = 1024
_FAR = 2**50


@dataclass(frozen=True)
class Cohort:
    """Whose noise is added up.

    Attributes:
        sites: how many are in the published sum. min_survivors, colluders: as in the policy; what
            ``distributed`` trust rests on is ``min_survivors − max(1, colluders)`` honest shares.
    """

    sites: int
    min_survivors: int
    colluders: int

    def __post_init__(self) -> None:
        if not 1 <= self.min_survivors <= self.sites:
            raise Misuse(f"{self.sites} sites: the policy opens no sum of fewer than {self.min_survivors}")

    def release(self, unit: Unit, trust: Trust, sigma: float) -> Release:
        """One count with noise of ``sigma`` people in all."""
        fewest = self.min_survivors if trust is Trust.DISTRIBUTED else 1
        block = Block("count", 1, COUNT_UNITS**2, _FAR, COUNT_UNITS * sigma)
        return Release(unit, trust, (block,), fewest, self.colluders if trust is Trust.DISTRIBUTED else 0)

    def honest(self, trust: Trust) -> int:
        """h: how many shares of noise the promise rests on."""
        return self.min_survivors - max(1, self.colluders) if trust is Trust.DISTRIBUTED else 1


@dataclass(frozen=True)
class Counts:
    """Some equal counts and their error.

    Attributes:
        queries: how many. attempts: charged for each in the worst case. trust: whose noise.
        release: of one count. price: as a site is charged for it.
        error: standard error of one published count, in people; ``within``: 95 of 100 counts are off by at most this.
        alone: what one count costs a site's own people if all other sites collude. delta: at which ε is told.
    """

    queries: int
    attempts: int
    trust: Trust
    release: Release
    price: Cost
    error: float
    alone: Cost
    delta: float

    @cached_property
    def epsilon(self) -> float:
        """ε of all of them together, rounded up."""
        return epsilon_of_cost(self.queries * self.price, self.delta)

    @cached_property
    def fallback(self) -> float:
        """The same for one site's people if all other sites collude."""
        return epsilon_of_cost(self.queries * self.alone, self.delta)

    @property
    def within(self) -> float:
        """±, in people, for 95 of 100 counts."""
        return NORMAL_95 * self.error


def counts_for(room: Room, cohort: Cohort, queries: int, trust: Trust, *, attempts: int = 1) -> Counts | None:
    """The least noise with which ``queries`` counts fit the room; None if no noise is enough.

    Args:
        attempts: charged for each query, in the worst case that is planned for.

    Raises:
        Misuse: no query or attempt, or a unit for which a count has no bound.
    """
    if queries < 1 or attempts < 1:
        raise Misuse(f"{queries} queries of {attempts} attempts: plan at least one of each")
    unit, delta = room.limits.unit, room.budget.delta
    if unit is Unit.SITE:
        raise Misuse(
            "a count of people has no bound of 1 per site; counts are planned for the units record and subject"
        )
    charges, tail = queries * attempts, cohort.release(unit, trust, 2.0**40).delta
    mu2 = floor_to_grid(room.left.mu2 / (room.factor(trust) * charges))
    if not mu2:
        return None
    # Not less than 4 units for each site: such a count then costs less than its part.
    least = MIN_SIGMA_SITE * math.sqrt(cohort.honest(trust)) * (1 + 2.0**-40)
    release = cohort.release(unit, trust, max(sigma_of_mu2(mu2, COUNT_UNITS**2), least) / COUNT_UNITS)
    if room.uploads(release.cost, trust) < charges:
        return None
    price, site = room.priced(release.cost, trust), release.sigma_site(release.blocks[0])
    alone = room.priced(Cost(floor_to_grid(Fraction(release.fallback_mu) ** 2) + Fraction(1, 10**24), tail), trust)
    return Counts(
        queries,
        attempts,
        trust,
        release,
        price,
        site * math.sqrt(cohort.sites) / COUNT_UNITS,
        alone,
        delta,
    )


def counts_within(room: Room, cohort: Cohort, people: float, trust: Trust, *, attempts: int = 1) -> int:
    """How many counts fit, each within ± ``people`` for 95 of 100; arguments as for :func:`counts_for`.

    Raises:
        Misuse: ``people`` not positive and finite.
    """
    if not 0 < people < math.inf:
        raise Misuse(f"an error of {people} people cannot be planned; name a positive number")

    def good(queries: int) -> bool:
        found = counts_for(room, cohort, queries, trust, attempts=attempts)
        return found is not None and found.within <= people

    if not good(1):
        return 0
    low, high = 1, 2
    while good(high):
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if good(middle) else (low, middle)
    return low
