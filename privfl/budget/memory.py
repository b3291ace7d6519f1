"""An account in memory: the limits and a hash chain, for federations that live in one process."""

from __future__ import annotations

from privfl_keys import Label, digest

from privfl.budget.charge import Charge, Purpose
from privfl.budget.limits import Limits
from privfl.budget.tally import Tally
from privfl.dp import Cost, Unit, epsilon_of_cost
from privfl.errors import Misuse

__all__ = ["MemoryAccount"]


class MemoryAccount:
    """Charges against limits, forgotten with the process; fulfils :class:`~privfl.budget.Account`.

    Attributes:
        limits: what may be spent.
        head: 32 bytes that stand for everything entered so far.
        charges: what was reserved, in order.
    """

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.head = bytes(32)
        self.charges: list[Charge] = []
        self._tally = Tally(limits.window_ms)
        self._settled: dict[bytes, bool] = {}
        self._last = 0

    def reserve(self, charge: Charge, now: int) -> bytes:
        """See :class:`~privfl.budget.Account`."""
        if charge.reference in self._settled:
            return self.head
        now = max(now, self._last)
        self.limits.admit(self._tally, charge, now)
        self._tally.add(charge, now)
        self.charges.append(charge)
        self._settled[charge.reference] = False
        costs = tuple((str(unit), *cost.to_decimals()) for unit, cost in sorted(charge.costs.items()))
        self._enter("reserve", charge.reference, now, str(charge.purpose), charge.analyst, charge.what, costs)
        return self.head

    def settle(self, reference: bytes, now: int) -> None:
        """See :class:`~privfl.budget.Account`; raises Misuse if nothing was reserved under this reference."""
        settled = self._settled.get(reference)
        if settled is None:
            raise Misuse("nothing was reserved under this reference; reserve before settling")
        if not settled:
            self._settled[reference] = True
            self._enter("settle", reference, max(now, self._last))

    def burn(self, reference: bytes, now: int) -> None:
        """See :class:`~privfl.budget.Account`."""
        self.settle(reference, now)

    def spent(
        self, unit: Unit | None = None, *, purpose: Purpose | None = None, analyst: str | None = None
    ) -> Cost | None:
        """Everything charged, in ``unit`` (by default the limits'); None: it has no finite cost in it."""
        return self._tally.life.total(
            unit or self.limits.unit,
            purpose=purpose,
            analyst=analyst,
            sites_per_subject=self.limits.sites_per_subject,
        )

    def spent_epsilon(self) -> float:
        """ε of everything charged, at the budget's δ, rounded up; 0 where there is no budget."""
        budget, spent = self.limits.budget, self.spent()
        if budget is None or spent is None or not (spent.mu2 or spent.delta):
            return 0.0
        return epsilon_of_cost(spent, budget.delta)

    def _enter(self, kind: str, reference: bytes, now: int, *facts: object) -> None:
        self._last = now
        self.head = digest(Label.LEDGER, self.head, kind, reference, now, *facts)
