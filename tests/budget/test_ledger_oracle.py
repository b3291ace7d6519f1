"""Any sequence of requests, closings, restarts and new policies, against the filter in plain sums of fractions."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from privfl.budget import Charge, Ledger, Limits, Purpose, verify_file
from privfl.dp import Trust, Unit
from privfl.errors import Misuse, Refused
from tests.budget.ledgers import KEY, START, budget, charge

TENTHS = st.integers(0, 6).map(lambda tenths: Fraction(tenths, 10))
PARTS = st.sampled_from([Fraction(1, 3), Fraction(1, 2), Fraction(1)])
BOUNDS = st.builds(
    lambda unit, mu2, shares, analysts, window, lifetime, sites: Limits(
        unit, budget(mu2), shares, analysts, window, budget(lifetime) if window else None, sites
    ),
    st.sampled_from(Unit),
    st.sampled_from([Fraction(1, 2), Fraction(1), Fraction(3)]),
    st.dictionaries(st.sampled_from(Purpose), PARTS, min_size=1),
    st.dictionaries(st.sampled_from(["ann", "bob"]), PARTS),
    st.sampled_from([None, None, 50, 200]),
    st.sampled_from([Fraction(2), Fraction(5)]),
    st.sampled_from([1, 1, 2]),
)
UNITS = st.sampled_from([tuple(Unit), tuple(Unit), tuple(Unit), (Unit.RECORD,), (Unit.RECORD, Unit.SUBJECT)])


@dataclass
class Spent:
    """One charge as the oracle remembers it."""

    charge: Charge
    time: int
    state: str = "reserve"


@dataclass
class Oracle:
    """The rules, written down a second time: plain lists, plain sums."""

    bounds: Limits
    spent: list[Spent] = field(default_factory=list)
    time: int = START

    def cost(self, one: Charge) -> Fraction | None:
        """μ² in the unit in force, with the factor for several sites; None where there is none."""
        cost, k = one.costs.get(self.bounds.unit), self.bounds.sites_per_subject
        return None if cost is None else cost.mu2 * (k if one.trust is Trust.LOCAL else k * k)

    def admits(self, one: Charge, now: int) -> bool:
        """Whether it fits every limit."""
        bounds, live = self.bounds, [past for past in self.spent if past.state != "refund"]
        if one.purpose not in bounds.shares or (bounds.analysts and one.analyst not in bounds.analysts):
            return False
        asked = self.cost(one)
        if asked is None or any(self.cost(past.charge) is None for past in live):
            return False
        edge = -1 if bounds.window_ms is None else now - bounds.window_ms

        def fits(limit: Fraction, past: list[Spent]) -> bool:
            return sum((self.cost(p.charge) or Fraction(0) for p in past), asked) <= limit

        recent = [past for past in live if past.time > edge]
        assert bounds.budget is not None
        whole = bounds.budget.mu2
        grid = 10**24
        checks = [
            fits(whole, recent),
            fits(
                Fraction(int(whole * bounds.shares[one.purpose] * grid), grid),
                [past for past in recent if past.charge.purpose is one.purpose],
            ),
            bounds.lifetime is None or fits(bounds.lifetime.mu2, live),
        ]
        if bounds.analysts:
            cap = Fraction(int(whole * bounds.analysts[one.analyst] * grid), grid)
            checks.append(fits(cap, [past for past in recent if past.charge.analyst == one.analyst]))
        return all(checks)


class Requests(RuleBasedStateMachine):
    """A ledger and the oracle side by side."""

    @initialize(bounds=BOUNDS)
    def begin(self, bounds: Limits) -> None:
        """A new ledger with a first policy."""
        self.folder = tempfile.TemporaryDirectory()
        self.path = Path(self.folder.name) / "patients.db"
        self.ledger = Ledger.create(self.path, KEY, federation="north", population="patients", now=START)
        self.ledger.use((1).to_bytes(32, "big"), 1, bounds, START)
        self.oracle, self.version, self.now, self.number = Oracle(bounds), 1, START, 0

    @rule(
        mu2=TENTHS,
        purpose=st.sampled_from(Purpose),
        analyst=st.sampled_from(["ann", "bob", "eve"]),
        units=UNITS,
        trust=st.sampled_from([Trust.LOCAL, Trust.DISTRIBUTED]),
        wait=st.integers(-20, 120),
    )
    def reserve(
        self, mu2: Fraction, purpose: Purpose, analyst: str, units: tuple[Unit, ...], trust: Trust, wait: int
    ) -> None:
        """Admitted exactly where the oracle says so; a refusal changes nothing."""
        self.now += wait
        self.number += 1
        one = charge(self.number, mu2, purpose=purpose, analyst=analyst, units=units, trust=trust)
        when, head = max(self.now, self.oracle.time), self.ledger.head
        if self.oracle.admits(one, when):
            assert self.ledger.reserve(one, self.now) != head
            self.oracle.spent.append(Spent(one, when))
            self.oracle.time = when
            return
        try:
            self.ledger.reserve(one, self.now)
        except Refused:
            assert self.ledger.head == head
        else:
            raise AssertionError("admitted what the oracle refuses")

    @rule(pick=st.integers(0, 100), kind=st.sampled_from(["settle", "burn", "refund", "reserve"]))
    def close(self, pick: int, kind: str) -> None:
        """Settle, burn, refund or reserve again something that was reserved at some time."""
        if not self.oracle.spent:
            return
        past = self.oracle.spent[pick % len(self.oracle.spent)]
        live = [p for p in self.oracle.spent if p.charge.reference == past.charge.reference][-1]
        before = len(self.ledger.entries())
        if kind == "reserve":
            if live.state == "refund":
                fits = self.oracle.admits(past.charge, max(self.now, self.oracle.time))
                try:
                    self.ledger.reserve(past.charge, self.now)
                    assert fits
                    self.oracle.time = max(self.now, self.oracle.time)
                    self.oracle.spent.append(Spent(past.charge, self.oracle.time))
                except Refused:
                    assert not fits
            else:
                self.ledger.reserve(past.charge, self.now)
                assert len(self.ledger.entries()) == before
            return
        try:
            getattr(self.ledger, kind)(past.charge.reference, self.now)
        except Misuse:
            assert live.state not in ("reserve", kind)
            return
        if len(self.ledger.entries()) > before:
            assert live.state == "reserve"
            live.state = kind
            self.oracle.time = max(self.now, self.oracle.time)

    @rule(accepted=st.integers(0, 30), stored=st.integers(0, 30), reopen=st.booleans())
    def restart(self, accepted: int, stored: int, reopen: bool) -> None:
        """What was open is closed by what the site durably knows."""
        if reopen:
            anchor = self.ledger.anchor
            self.ledger.close()
            self.ledger = Ledger.open(self.path, KEY, anchor=anchor)
        names = [number.to_bytes(32, "big") for number in (accepted, stored)]
        for entry in self.ledger.recover(names[0], names[1], self.now):
            past = [p for p in self.oracle.spent if p.charge.reference == entry.reference][-1]
            assert past.state == "reserve"
            newest = self.oracle.spent[-1].charge.reference  # older ones were left open while the site went on
            never_used = entry.reference == newest and entry.reference not in names
            past.state = "settle" if entry.reference == names[1] else "refund" if never_used else "burn"
            assert entry.kind == past.state
            self.oracle.time = max(self.now, self.oracle.time)
        assert all(past.state != "reserve" for past in self.oracle.spent)

    @rule(bounds=BOUNDS)
    def new_policy(self, bounds: Limits) -> None:
        """New limits, another unit, window or factor: the past stays."""
        self.version += 1
        self.ledger.use(self.version.to_bytes(32, "big"), self.version, bounds, self.now)
        self.oracle.bounds, self.oracle.time = bounds, max(self.now, self.oracle.time)

    @invariant()
    def totals_agree(self) -> None:
        """In the unit in force, for life."""
        if not hasattr(self, "oracle"):
            return
        costs = [self.oracle.cost(past.charge) for past in self.oracle.spent if past.state != "refund"]
        total = self.ledger.spent()
        if any(cost is None for cost in costs):
            assert total is None
        else:
            assert total is not None
            assert total.mu2 == sum((cost or Fraction(0) for cost in costs), Fraction(0))

    def teardown(self) -> None:
        """Whatever happened, the file verifies, and says the same."""
        if hasattr(self, "ledger"):
            head = self.ledger.head
            self.ledger.close()
            assert verify_file(self.path, KEY.verify_key).book.head == head
            self.folder.cleanup()


TestRequests = Requests.TestCase
TestRequests.settings = settings(max_examples=30, stateful_step_count=25, deadline=None)
