"""Shares, caps, windows and lifetime: every limit is a filter of its own, and none weakens another."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from privfl.budget import Budget, Charge, Limits, MemoryAccount, Purpose
from privfl.budget.tally import Tally
from privfl.dp import Cost, Trust, Unit
from privfl.errors import BudgetExceeded, Misuse, Refused
from tests.budget.ledgers import budget, charge, limits

ALL = dict.fromkeys(Purpose, Fraction(1))
DAY = 86_400_000


def spend(bounds: Limits, *charges: Charge, step: int = 1) -> Tally:
    """A tally of admitted charges, ``step`` ms apart from time 1 on."""
    tally = Tally(bounds.window_ms)
    for number, one in enumerate(charges):
        bounds.admit(tally, one, 1 + number * step)
        tally.add(one, 1 + number * step)
    return tally


def test_the_total_binds_to_the_last_drop() -> None:
    """Ten tenths fit, then nothing; the message says what was asked, what is left and what to do."""
    bounds = limits(1)
    tally = spend(bounds, *(charge(n) for n in range(9)))
    with pytest.raises(
        BudgetExceeded, match=r"the budget does not admit .*asked: mu\^2 0.11.*left: mu\^2 0.1 .*next step"
    ):
        bounds.admit(tally, charge(9, Fraction(11, 100)), 20)
    tally.add(charge(9), 20)
    with pytest.raises(BudgetExceeded, match=r"left: mu\^2 0 "):
        bounds.admit(tally, charge(10, Fraction(1, 10**24)), 21)
    assert bounds.left(tally, 21) == Cost(0, Fraction(1, 10**6))


def test_delta_prime_is_held_too() -> None:
    """Σδ′ ≤ δ_s, by itself."""
    bounds = limits(1)
    tally = spend(bounds, charge(0, 0, delta=Fraction(1, 10**6)))
    with pytest.raises(BudgetExceeded, match="delta'"):
        bounds.admit(tally, charge(1, 0, delta=Fraction(1, 10**24)), 5)


def test_shares_and_caps_bind_beside_the_total() -> None:
    """One purpose or analyst being spent says nothing about another; colluding analysts meet the total."""
    bounds = Limits(
        Unit.RECORD,
        budget(1),
        {Purpose.TRAINING: Fraction(1, 2), Purpose.ANALYTICS: Fraction(1)},
        {"ann": Fraction(2, 5), "bob": Fraction(1)},
    )
    tally = spend(bounds, *(charge(n) for n in range(4)))
    with pytest.raises(BudgetExceeded, match=r"the cap of ann, 0.4 of the budget,"):
        bounds.admit(tally, charge(5), 9)
    bounds.admit(tally, charge(5, analyst="bob"), 9)
    tally.add(charge(5, analyst="bob"), 9)
    with pytest.raises(BudgetExceeded, match=r"the share of training, 0.5 of the budget,"):
        bounds.admit(tally, charge(6, analyst="bob"), 9)
    bounds.admit(tally, charge(6, Fraction(1, 2), analyst="bob", purpose=Purpose.ANALYTICS), 9)
    with pytest.raises(BudgetExceeded, match=r"^the budget does not"):
        bounds.admit(tally, charge(6, Fraction(6, 10), analyst="bob", purpose=Purpose.ANALYTICS), 9)
    with pytest.raises(Refused, match="gives monitoring no share"):
        bounds.admit(tally, charge(7, analyst="bob", purpose=Purpose.MONITORING), 9)
    with pytest.raises(Refused, match="does not name 'eve'"):
        bounds.admit(tally, charge(7, analyst="eve"), 9)


def test_a_window_frees_what_has_left_it_and_the_lifetime_never_does() -> None:
    """A charge leaves the window exactly one length later."""
    bounds = Limits(Unit.RECORD, budget(1), ALL, window_ms=DAY, lifetime=budget(2))
    tally = spend(bounds, charge(0, 1))
    with pytest.raises(BudgetExceeded, match=r"of any 1 days .its oldest charge leaves on 1970-01-02"):
        bounds.admit(tally, charge(1, 1), DAY)
    bounds.admit(tally, charge(1, 1), DAY + 1)
    tally.add(charge(1, 1), DAY + 1)
    with pytest.raises(BudgetExceeded, match="the lifetime budget"):
        bounds.admit(tally, charge(2, Fraction(1, 10)), 100 * DAY)


@pytest.mark.parametrize(("trust", "factor"), [(Trust.DISTRIBUTED, 9), (Trust.LOCAL, 3), (None, 9)])
def test_a_subject_at_several_sites_costs_more(trust: Trust | None, factor: int) -> None:
    """μ times k with shared noise, times √k with each site's own; δ′ times k; totals alike."""
    bounds = Limits(Unit.SUBJECT, budget(10), ALL, sites_per_subject=3)
    one = charge(0, Fraction(1, 10), trust=trust, delta=Fraction(1, 10**9))
    assert bounds.price(one) == Cost(Fraction(factor, 10), Fraction(3, 10**9))
    tally = spend(bounds, one)
    assert tally.life.total(Unit.SUBJECT, sites_per_subject=3) == bounds.price(one)
    with pytest.raises(Refused, match="promises nothing"):
        bounds.price(charge(1, 0, delta=Fraction(1, 2)))


def test_no_finite_cost_is_refused_and_remembered() -> None:
    """Neither such a request, nor anything after such a past, under whatever policy of that unit."""
    bounds = limits(unit=Unit.SUBJECT)
    with pytest.raises(Refused, match=r"no finite cost per subject.*ask with --unit subject"):
        bounds.admit(Tally(), charge(0, units=(Unit.RECORD,)), 1)
    tally = spend(limits(), charge(0, units=(Unit.RECORD,)))
    with pytest.raises(BudgetExceeded, match=r"1 earlier charge\(s\) .* no finite cost per subject"):
        bounds.admit(tally, charge(1), 2)
    assert bounds.left(tally, 2) is None
    limits().admit(tally, charge(1), 2)
    tally.remove(charge(0).reference)
    bounds.admit(tally, charge(1), 2)


def test_without_noise_charges_are_only_recorded() -> None:
    """No budget, no price; a request with noise is refused, and a budget afterwards admits nothing."""
    bounds = Limits(Unit.RECORD, None, ALL, noiseless=True)
    plain = charge(0, units=(), trust=None)
    assert bounds.admit(Tally(), plain, 1) == Cost(0)
    with pytest.raises(Refused, match="names no budget"):
        bounds.admit(Tally(), charge(1), 1)
    tally = spend(bounds, plain)
    with pytest.raises(BudgetExceeded, match="no finite cost"):
        limits().admit(tally, charge(1), 2)


def test_a_smaller_budget_than_what_is_spent_admits_nothing() -> None:
    """A new policy cannot make room by counting less."""
    tally = spend(limits(1), *(charge(n) for n in range(8)))
    with pytest.raises(BudgetExceeded, match="more is already spent"):
        limits(Fraction(1, 2)).admit(tally, charge(9, 0), 20)
    assert limits(Fraction(1, 2)).left(tally, 20) == Cost(0, Fraction(1, 10**6))


@pytest.mark.parametrize(
    "wrong",
    [
        {"budget": None},
        {"noiseless": True},
        {"window_ms": DAY},
        {"window_ms": 0, "lifetime": budget()},
        {"sites_per_subject": 0},
        {"shares": {Purpose.TRAINING: Fraction(3, 2)}},
        {"analysts": {"ann": Fraction(-1, 2)}},
        {"budget": None, "noiseless": True, "lifetime": budget()},
    ],
)
def test_limits_that_are_none(wrong: dict[str, object]) -> None:
    """Refused when made."""
    with pytest.raises(Misuse):
        Limits(**({"unit": Unit.RECORD, "budget": budget(), "shares": ALL} | wrong))  # type: ignore[arg-type]


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.tuples(st.integers(0, 40), st.integers(0, 9), st.booleans()), max_size=25),
    st.integers(1, 60),
    st.lists(st.integers(-30, 60), max_size=8),
)
def test_windows_slide_both_ways(steps: list[tuple[int, int, bool]], window: int, looks: list[int]) -> None:
    """Totals at any time asked for, in any order, are those of a plain sum over the window."""
    tally, now, past = Tally(window), 0, dict[int, tuple[int, int]]()
    for number, (wait, mu2, back) in enumerate(steps):
        now += wait
        tally.add(charge(number, mu2), now)
        past[number] = (now, mu2)
        if back:
            gone = min(past)
            tally.remove(charge(gone).reference)
            del past[gone]
        for look in looks:
            held = sum(cost for time, cost in past.values() if time > now + look - window)
            assert tally.within(now + look).total(Unit.RECORD) == Cost(held)
        assert tally.life.total(Unit.RECORD, purpose=Purpose.TRAINING) == Cost(sum(c for _, c in past.values()))
        if looks:
            inside = [time for time, _ in past.values() if time > now + looks[-1] - window]
            assert tally.oldest() == min(inside, default=None)


def test_the_account_in_memory_keeps_the_same_limits() -> None:
    """Reserved once, never above the budget, and every entry changes the head."""
    account = MemoryAccount(limits(Fraction(1, 4)))
    first = account.reserve(charge(0), 5)
    assert account.reserve(charge(0), 6) == first == account.head
    account.settle(charge(0).reference, 7)
    settled = account.head
    account.settle(charge(0).reference, 8)
    assert account.head == settled != first
    assert account.reserve(charge(1), 1) != settled  # an earlier clock is no earlier entry
    with pytest.raises(BudgetExceeded):
        account.reserve(charge(2), 9)
    with pytest.raises(Misuse, match="nothing was reserved"):
        account.settle(charge(2).reference, 9)
    assert account.spent() == Cost(Fraction(1, 5)) == account.spent(purpose=Purpose.TRAINING)
    assert account.spent(analyst="bob") == Cost(0)
    assert 0 < account.spent_epsilon() < 5
    assert MemoryAccount(limits()).spent_epsilon() == 0
    assert isinstance(account.limits.budget, Budget)
