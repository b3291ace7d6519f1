"""What a policy lets be spent, as the ledger enforces it: the filter with shares, caps and windows.

Every limit is one more filter over the same costs: a charge is admitted if each of them admits it, so a
share or a window never weakens the total. Costs are Gaussian-DP costs (``privacy.md``, *Accounting*).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from fractions import Fraction

from privfl.budget.charge import Charge, Purpose
from privfl.budget.filter import Budget, Filter
from privfl.budget.tally import Sums, Tally
from privfl.dp import ZERO_COST, Cost, Trust, Unit
from privfl.errors import BudgetExceeded, Misuse, Refused

__all__ = ["Limits"]


@dataclass(frozen=True)
class Limits:
    """What may be spent; a policy makes it, the ledger holds every charge against it.

    Args:
        unit: whom the budget protects.
        budget: per window if there is one, else for life; None exactly where ``noiseless``.
        shares: of the budget by purpose, in [0, 1]; a purpose that is missing has no share and is refused.
        analysts: caps by name, as parts of the budget in [0, 1]; empty: anyone, without a cap.
        window_ms: length of a sliding window in milliseconds.
        lifetime: limit on everything ever; mandatory with a window.
        sites_per_subject: at how many sites one subject's rows may be; costs are multiplied accordingly.
        noiseless: there is no budget; charges have no cost and are only recorded.

    Raises:
        Misuse: a part outside [0, 1], a window without a lifetime, a budget missing or out of place.
    """

    unit: Unit
    budget: Budget | None
    shares: Mapping[Purpose, Fraction] = field(default_factory=dict)
    analysts: Mapping[str, Fraction] = field(default_factory=dict)
    window_ms: int | None = None
    lifetime: Budget | None = None
    sites_per_subject: int = 1
    noiseless: bool = False

    def __post_init__(self) -> None:
        if (self.budget is None) != self.noiseless:
            raise Misuse("limits name a budget, or say that there is no noise; one of both")
        if self.window_ms is not None and (self.window_ms < 1 or self.lifetime is None):
            raise Misuse("a window lasts at least a millisecond and needs a lifetime budget beside it")
        if self.noiseless and (self.window_ms is not None or self.lifetime is not None):
            raise Misuse("without noise there is no budget that a window or a lifetime could hold")
        if self.sites_per_subject < 1:
            raise Misuse("a subject's rows are at one site at least")
        for name, part in [*self.shares.items(), *self.analysts.items()]:
            if not 0 <= part <= 1:
                raise Misuse(f"the part of {name} is {float(part):g}; it must lie between 0 and 1")

    def price(self, charge: Charge) -> Cost:
        """The cost of a charge in this unit, times the factor for subjects at several sites; nothing without noise.

        Where every site has its own noise, k sites compose (μ² times k); where noise is shared, a subject
        moves one sum k times as far (μ² times k²). The events of δ′ add up in both.

        Raises:
            Refused: it has no finite cost in this unit, or it has noise and there is no budget for it.
        """
        if self.noiseless:
            if charge.costs:
                raise Refused("this site's policy names no budget; a request with noise needs a policy with one")
            return ZERO_COST
        cost = charge.costs.get(self.unit)
        if cost is None:
            hint = " (of a study: ask with --unit subject)" if self.unit is Unit.SUBJECT and charge.costs else ""
            raise Refused(
                f"{charge.what or 'this request'} has no finite cost per {self.unit}, which the policy protects; "
                f"ask for a release with noise, bounded for that unit{hint}"
            )
        k = self.sites_per_subject
        if cost.delta * k >= 1:
            raise Refused(f"delta' of {float(cost.delta):g} for subjects at {k} sites promises nothing; use more noise")
        return Cost(cost.mu2 * (k if charge.trust is Trust.LOCAL else k * k), cost.delta * k)

    def admit(self, spent: Tally, charge: Charge, now: int) -> Cost:
        """Price a charge and hold it against every limit; nothing is counted.

        Args:
            spent: everything charged so far, whatever policy permitted it.
            now: milliseconds since 1970, not before the last charge.

        Returns:
            What :meth:`price` says.

        Raises:
            BudgetExceeded: it does not fit; the message says what was asked, what is left and the next step.
            Refused: no such purpose or analyst in the policy, or no finite cost.
        """
        self._check_named(charge)
        if charge.mandate is not None and spent.under(charge.analyst, charge.mandate[0]) >= charge.mandate[1]:
            raise BudgetExceeded(
                f"the mandate of {charge.analyst!a:.80} is for {charge.mandate[1]} uploads of a site, and this one has "
                "made them; next step: the analyst signs a new one (privfl mandate)"
            )
        cost = self.price(charge)
        if self.noiseless:
            return cost
        endless = spent.life.endless(self.unit)
        if endless:
            raise BudgetExceeded(
                f"{endless} earlier charge(s) in this ledger have no finite cost per {self.unit}, so no budget in that "
                "unit can still be kept and nothing is admitted; next step: ask compliance for a policy in the unit "
                "that those were charged in"
            )
        for name, budget, before in self._filters(spent, charge, now):
            try:
                _filtered(budget, before).admit(cost)
            except BudgetExceeded as error:
                raise BudgetExceeded(f"{name} does not admit {charge.what or 'this'}: {error}") from None
        return cost

    def left(self, spent: Tally, now: int) -> Cost | None:
        """What the whole budget still holds at ``now``; None without noise or where nothing can be kept any more."""
        total = spent.within(now).total(self.unit, sites_per_subject=self.sites_per_subject)
        if self.budget is None or total is None or spent.life.endless(self.unit):
            return None
        life = spent.life.total(self.unit, sites_per_subject=self.sites_per_subject)
        pairs = [(self.budget, total)] + ([(self.lifetime, life)] if self.lifetime and life else [])
        mu2 = min(max(budget.mu2 - held.mu2, Fraction(0)) for budget, held in pairs)
        return Cost(mu2, min(max(budget.slack - held.delta, Fraction(0)) for budget, held in pairs))

    def _check_named(self, charge: Charge) -> None:
        if (self.shares or not self.noiseless) and charge.purpose not in self.shares:
            raise Refused(f"the policy gives {charge.purpose} no share; ask for another purpose, or ask compliance")
        if self.analysts and charge.analyst not in self.analysts:
            raise Refused(f"the policy does not name {charge.analyst!a:.80} among its analysts; ask compliance")

    def _filters(self, spent: Tally, charge: Charge, now: int) -> Iterator[tuple[str, Budget, Cost | None]]:
        """Name, limits and what was spent of them, for each filter that a charge must pass."""
        assert self.budget is not None
        recent = spent.within(now)
        when = self._refreshes(spent)
        yield f"the budget{when}", self.budget, self._held(recent)
        share = self.shares[charge.purpose]
        yield (
            f"the share of {charge.purpose}, {float(share):.3g} of the budget{when},",
            _portion(self.budget, share),
            self._held(recent, purpose=charge.purpose),
        )
        if self.analysts:
            cap = self.analysts[charge.analyst]
            yield (
                f"the cap of {charge.analyst}, {float(cap):.3g} of the budget{when},",
                _portion(self.budget, cap),
                self._held(recent, analyst=charge.analyst),
            )
        if self.lifetime is not None:
            yield "the lifetime budget", self.lifetime, self._held(spent.life)

    def _held(self, sums: Sums, purpose: Purpose | None = None, analyst: str | None = None) -> Cost | None:
        return sums.total(self.unit, purpose=purpose, analyst=analyst, sites_per_subject=self.sites_per_subject)

    def _refreshes(self, spent: Tally) -> str:
        if self.window_ms is None:
            return ""
        words, oldest = f" of any {self.window_ms / 86_400_000:.4g} days", spent.oldest()
        if oldest is None:
            return words
        try:
            moment = datetime.fromtimestamp((oldest + self.window_ms) / 1000, UTC)
        except (OverflowError, ValueError, OSError):  # a window without an end that a calendar knows
            return words
        return f"{words} (its oldest charge leaves on {moment:%Y-%m-%d %H:%M} UTC)"


def _portion(budget: Budget, share: Fraction) -> Budget:
    part = budget.part(share)
    return Budget(budget.epsilon, budget.delta, part.mu2, part.delta)


def _filtered(budget: Budget, spent: Cost | None) -> Filter:
    if spent is None:
        raise BudgetExceeded("delta' of earlier charges adds up to 1 or more; it admits nothing")
    return Filter(budget, spent)
