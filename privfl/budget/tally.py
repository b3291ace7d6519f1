"""Exact running totals of charges: for life and within a sliding window, by purpose and by analyst.

Amounts are whole numbers of 10^-24, so a charge is added or taken out in microseconds however long the
history is, and sums are exact. Costs are kept as they were charged, apart by trust: the factor for a
subject that is at several sites belongs to the limits that ask, and may change with a new policy.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from fractions import Fraction

from privfl.budget.charge import Charge, Purpose
from privfl.dp import Cost, Trust, Unit
from privfl.dp.cost import GRID
from privfl.errors import Misuse

__all__ = ["Sums", "Tally"]

_Scope = tuple[str, str]
_ALL: _Scope = ("all", "")


@dataclass(frozen=True)
class _Event:
    time: int
    scopes: tuple[_Scope, ...]
    amounts: tuple[tuple[Unit, int, int, int, int], ...]  # unit, μ² local, μ² distributed, δ′, 1 if without end
    mandate: tuple[str, bytes] | None  # analyst and nonce

    @classmethod
    def of(cls, charge: Charge, time: int) -> _Event:
        amounts = []
        for unit in Unit:
            cost = charge.costs.get(unit)
            if cost is None:
                amounts.append((unit, 0, 0, 0, 1))
                continue
            mu2, delta = _whole(cost.mu2), _whole(cost.delta)
            local = charge.trust is Trust.LOCAL
            amounts.append((unit, mu2 if local else 0, 0 if local else mu2, delta, 0))
        scopes = (_ALL, ("purpose", str(charge.purpose)), ("analyst", charge.analyst))
        mandate = None if charge.mandate is None else (charge.analyst, charge.mandate[0])
        return cls(time, scopes, tuple(amounts), mandate)


def _whole(value: Fraction) -> int:
    return value.numerator * GRID // value.denominator  # a Cost is on the grid: nothing is cut


class Sums:
    """Totals by unit, of everything, of each purpose and of each analyst."""

    def __init__(self) -> None:
        self._sums: dict[tuple[_Scope, Unit], list[int]] = defaultdict(lambda: [0, 0, 0, 0])

    def count(self, event: _Event, sign: int) -> None:
        """Add (1) or take out (-1) one event."""
        for scope in event.scopes:
            for unit, *amounts in event.amounts:
                held = self._sums[scope, unit]
                for at, amount in enumerate(amounts):
                    held[at] += sign * amount

    def total(
        self, unit: Unit, *, purpose: Purpose | None = None, analyst: str | None = None, sites_per_subject: int = 1
    ) -> Cost | None:
        """The sum in ``unit``, of one purpose or of one analyst where given; None: it has no finite cost.

        A subject at k sites multiplies μ by k where noise is shared, by √k where every site has its own.

        Raises:
            Misuse: both a purpose and an analyst; the totals are kept apart.
        """
        if purpose is not None and analyst is not None:
            raise Misuse("ask for a purpose or for an analyst; their crossing is not kept")
        scope = _ALL if purpose is None else ("purpose", str(purpose))
        local, shared, delta, endless = self._sums.get(
            (scope if analyst is None else ("analyst", analyst), unit), (0, 0, 0, 0)
        )
        k = sites_per_subject
        if endless or delta * k >= GRID:
            return None
        return Cost(Fraction(local * k + shared * k * k, GRID), Fraction(delta * k, GRID))

    def endless(self, unit: Unit) -> int:
        """How many charges have no finite cost in ``unit``."""
        return self._sums[_ALL, unit][3]

    def analysts(self) -> tuple[str, ...]:
        """Everyone who was ever charged, sorted."""
        return tuple(sorted({name for (kind, name), _ in self._sums if kind == "analyst"}))


class Tally:
    """Charges so far, in order of time; what was taken back counts nowhere.

    Args:
        window_ms: length of the sliding window, None without one.
    """

    def __init__(self, window_ms: int | None = None) -> None:
        self.life = Sums()
        self._window = window_ms
        self._events: list[_Event | None] = []  # None: taken back
        self._at: dict[bytes, int] = {}
        self._mandates: dict[tuple[str, bytes], int] = defaultdict(int)
        self._recent, self._start = Sums(), 0  # the live events from _start on are those in _recent

    def add(self, charge: Charge, time: int) -> None:
        """Count a charge, made at ``time``; times never run backwards."""
        event = _Event.of(charge, time)
        self._at[charge.reference] = len(self._events)
        self._events.append(event)
        if event.mandate is not None:
            self._mandates[event.mandate] += 1
        self.life.count(event, 1)
        self._recent.count(event, 1)

    def remove(self, reference: bytes) -> None:
        """Take a charge back, as if it had never been made."""
        at = self._at.pop(reference)
        event, self._events[at] = self._events[at], None
        if event is None:
            raise Misuse("this charge was taken back already")
        if event.mandate is not None:
            self._mandates[event.mandate] -= 1
        self.life.count(event, -1)
        if at >= self._start:
            self._recent.count(event, -1)

    def under(self, analyst: str, nonce: bytes) -> int:
        """How many charges were made under one mandate."""
        return self._mandates.get((analyst, nonce), 0)

    def slide(self, window_ms: int | None) -> None:
        """Give the window another length; the past is counted anew in it."""
        if window_ms != self._window:
            self._window, self._recent, self._start = window_ms, Sums(), 0
            for event in self._events:
                if event is not None:
                    self._recent.count(event, 1)

    def within(self, now: int) -> Sums:
        """Totals of the window (now − length, now]; those for life where there is no window.

        ``now`` may be earlier than at the last call.
        """
        if self._window is None:
            return self.life
        edge = now - self._window
        while self._start < len(self._events) and _time(self._events[self._start]) <= edge:
            self._move(self._start, -1)
            self._start += 1
        while self._start > 0 and _later(self._events[self._start - 1], edge):
            self._start -= 1
            self._move(self._start, 1)
        return self._recent

    def oldest(self) -> int | None:
        """Time of the oldest charge in the window that :meth:`within` looked at last."""
        held = (self._events[at] for at in range(self._start, len(self._events)))
        return next((event.time for event in held if event is not None), None)

    def _move(self, at: int, sign: int) -> None:
        event = self._events[at]
        if event is not None:
            self._recent.count(event, sign)


def _time(event: _Event | None) -> int:
    return -(2**63) if event is None else event.time


def _later(event: _Event | None, edge: int) -> bool:
    return event is None or event.time > edge
