"""The privacy filter: what may still be spent, whoever asks for it and however the question was chosen.

Admission is Σμ² ≤ μ_B² and Σδ′ ≤ δ_s, both exact. It stays valid for requests that are chosen after
seeing earlier answers (Smith and Thakurta 2022, arXiv 2210.17520), because it never looks at anything
but costs. State is a value: :meth:`Filter.admit` returns a new filter and leaves the old one alone.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Self

from privfl.dp.accounting import epsilon_of_cost, epsilon_of_mu, mu_for_budget, root_up
from privfl.dp.cost import ZERO_COST, Cost, floor_to_grid
from privfl.errors import BudgetExceeded, Misuse

__all__ = ["Budget", "Filter"]


@dataclass(frozen=True)
class Budget:
    """A total promise, turned once into the two limits of the filter.

    Args:
        epsilon, delta: the promise as people read it.
        mu2: limit on Σμ², a multiple of 10^-24.
        slack: limit on Σδ′, a tenth of δ.
    """

    epsilon: float
    delta: float
    mu2: Fraction
    slack: Fraction

    @classmethod
    def from_epsilon_delta(cls, epsilon: float, delta: float) -> Self:
        """Solve for the limits, rounded down.

        Raises:
            Misuse: ε not positive and finite, δ outside (0, 1).
        """
        mu2, slack = mu_for_budget(epsilon, delta)
        return cls(epsilon, delta, mu2, slack)

    def part(self, share: Fraction | float) -> Cost:
        """The cost that a share in [0, 1] of the budget stands for, rounded down; for sub-limits."""
        if not 0 <= share <= 1:
            raise Misuse(f"share is {float(share)}; it must lie between 0 and 1")
        portion = Fraction(share)
        return Cost(floor_to_grid(self.mu2 * portion), floor_to_grid(self.slack * portion))


@dataclass(frozen=True)
class Filter:
    """Charges so far, against one budget.

    Args:
        budget: the limits.
        spent: everything admitted, whether or not it led to a result.
    """

    budget: Budget
    spent: Cost = ZERO_COST

    @property
    def remaining(self) -> Cost:
        """What is left of both limits, exact."""
        return Cost(self.budget.mu2 - self.spent.mu2, self.budget.slack - self.spent.delta)

    def __post_init__(self) -> None:
        if self.spent.mu2 > self.budget.mu2 or self.spent.delta > self.budget.slack:
            raise BudgetExceeded("more is already spent than this budget holds; it admits nothing")

    def admits(self, cost: Cost) -> bool:
        """Whether :meth:`admit` would succeed; nothing is spent."""
        left = self.remaining
        return cost.mu2 <= left.mu2 and cost.delta <= left.delta

    def admit(self, cost: Cost) -> Filter:
        """Return the filter after this charge.

        Raises:
            BudgetExceeded: the charge does not fit; nothing is spent, and the message says what is left.
        """
        if not self.admits(cost):
            raise BudgetExceeded(self._explain(cost))
        return replace(self, spent=self.spent + cost)

    def count(self, cost: Cost) -> int:
        """How many equal charges still fit.

        Raises:
            Misuse: the charge is free, so there is no number.
        """
        left = self.remaining
        numbers = [have // ask for have, ask in ((left.mu2, cost.mu2), (left.delta, cost.delta)) if ask]
        if not numbers:
            raise Misuse("a free charge fits any number of times")
        return int(min(numbers))

    def spent_epsilon(self, delta: float | None = None) -> float:
        """ε of everything spent so far at ``delta`` (by default the budget's), rounded up.

        Raises:
            Misuse: δ outside (0, 1), or not above the δ′ already charged.
        """
        return epsilon_of_cost(self.spent, self.budget.delta if delta is None else delta)

    def _explain(self, cost: Cost) -> str:
        left, delta = self.remaining, self.budget.delta
        if cost.mu2 > left.mu2:
            times = float(cost.mu2 / left.mu2) ** 0.5 if left.mu2 else 0.0
            step = (
                f"use at least {times:.3g} times the noise, or ask for a larger budget"
                if times
                else "ask compliance for a larger budget"
            )
            asked, have = (f"{epsilon_of_mu(root_up(value), delta):.4g}" for value in (cost.mu2, left.mu2))
            return (
                f"asked: mu^2 {float(cost.mu2):.4g} (epsilon {asked} alone at delta {delta:g}); left: mu^2 "
                f"{float(left.mu2):.4g} (epsilon {have}) of {float(self.budget.mu2):.4g}; next step: {step}"
            )
        return (
            f"asked: delta' {float(cost.delta):.3g}; left: {float(left.delta):.3g} of {float(self.budget.slack):.3g}; "
            "next step: plan fewer charges of this kind, or ask compliance for a larger delta"
        )
