"""The filter never admits beyond its budget, whatever is asked and however it is chosen."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from privfl.budget import Budget, Filter
from privfl.dp import Cost, epsilon_of_mu
from privfl.dp.accounting import root_up
from privfl.errors import BudgetExceeded, Misuse


class Spender:
    """Asks for whatever it likes after seeing what is left; knows every trick with tiny remainders."""

    def __init__(self, data: st.DataObject) -> None:
        self._data = data

    def ask(self, left: Cost) -> Cost:
        """Choose the next charge from what is left and what was answered."""
        tiny = Fraction(1, 10**24)
        mu2 = self._data.draw(
            st.sampled_from([left.mu2, left.mu2 + tiny, left.mu2 / 2, left.mu2 / 3, tiny, Fraction(0)])
            | st.fractions(0, 3).map(abs)
        )
        delta = self._data.draw(st.sampled_from([Fraction(0), left.delta, left.delta + tiny, left.delta / 7, tiny]))
        return Cost(mu2, delta)


@settings(deadline=None)
@given(st.floats(0.05, 8), st.floats(1e-8, 1e-3), st.data())
def test_adaptive_spenders_never_get_beyond(epsilon: float, delta: float, data: st.DataObject) -> None:
    """Σμ² ≤ μ_B² and Σδ′ ≤ δ_s after any adaptively chosen sequence; refusals change nothing."""
    budget = Budget.from_epsilon_delta(epsilon, delta)
    state, spender = Filter(budget), Spender(data)
    mu2, primes = Fraction(0), Fraction(0)
    for _ in range(12):
        cost = spender.ask(state.remaining)
        fits = mu2 + cost.mu2 <= budget.mu2 and primes + cost.delta <= budget.slack
        assert state.admits(cost) is fits
        if fits:
            state, mu2, primes = state.admit(cost), mu2 + cost.mu2, primes + cost.delta
        else:
            before = state
            with pytest.raises(BudgetExceeded):
                state.admit(cost)
            assert state == before
    assert (state.spent.mu2, state.spent.delta) == (mu2, primes)
    assert mu2 <= budget.mu2
    assert primes <= budget.slack
    assert state.spent_epsilon() <= epsilon


def test_the_last_drop_can_be_spent_and_no_more() -> None:
    """The remainder is exact: all of it is admitted, then nothing but nothing."""
    state = Filter(Budget.from_epsilon_delta(1.0, 1e-6)).admit(Cost(Fraction(1, 97), 1e-9))
    state = state.admit(state.remaining)
    assert state.remaining == Cost(0)
    assert state.admits(Cost(0))
    for cost in (Cost(Fraction(1, 10**24)), Cost(0, Fraction(1, 10**24))):
        with pytest.raises(BudgetExceeded):
            state.admit(cost)


def test_state_is_a_value() -> None:
    """Admitting returns a new filter; the old one still has its money, so nothing half-happens."""
    old = Filter(Budget.from_epsilon_delta(1.0, 1e-6))
    new = old.admit(Cost(Fraction(1, 100)))
    assert old.spent == Cost(0)
    assert new.spent == Cost(Fraction(1, 100))
    with pytest.raises(AttributeError):
        new.spent = Cost(0)  # type: ignore[misc]
    with pytest.raises(BudgetExceeded):
        Filter(old.budget, Cost(10))


def test_refusals_say_what_is_asked_what_is_left_and_what_to_do() -> None:
    """Both kinds of refusal name the three things a person needs."""
    state = Filter(Budget.from_epsilon_delta(1.0, 1e-6)).admit(Cost(Fraction(1, 50)))
    with pytest.raises(
        BudgetExceeded, match=r"asked: mu\^2 1 .*left: mu\^2 0\.03.*next step: use at least 5\.\d+ times"
    ):
        state.admit(Cost(1))
    with pytest.raises(BudgetExceeded, match=r"asked: delta' 1e-06; left: 1e-07.*next step: plan fewer"):
        state.admit(Cost(0, 1e-6))
    empty = state.admit(state.remaining)
    with pytest.raises(BudgetExceeded, match="ask compliance for a larger budget"):
        empty.admit(Cost(1))


def test_counting_equal_charges() -> None:
    """``count`` is the number that admit will accept, for either limit."""
    state = Filter(Budget.from_epsilon_delta(2.0, 1e-5))
    for cost in (Cost(state.budget.mu2 / 7), Cost(Fraction(1, 10**9), 3e-7), Cost(Fraction(1, 1000), 1e-7)):
        number, walk = state.count(cost), state
        for _ in range(number):
            walk = walk.admit(cost)
        assert not walk.admits(cost)
    with pytest.raises(Misuse):
        state.count(Cost(0))


def test_parts_of_a_budget_fit_into_it() -> None:
    """Shares round down, so that sub-limits that add up to 1 never exceed the whole."""
    budget = Budget.from_epsilon_delta(3.0, 1e-5)
    thirds = budget.part(Fraction(1, 3))
    assert 3 * thirds.mu2 <= budget.mu2
    assert budget.part(1).mu2 == budget.mu2
    with pytest.raises(Misuse):
        budget.part(1.1)


@pytest.mark.parametrize(("epsilon", "delta"), [(0, 1e-5), (-1, 1e-5), (float("inf"), 1e-5), (1, 0), (1, 1), (1, -1)])
def test_budgets_that_promise_nothing(epsilon: float, delta: float) -> None:
    """No budget without a finite ε and a δ strictly between 0 and 1."""
    with pytest.raises(Misuse):
        Budget.from_epsilon_delta(epsilon, delta)


def test_spent_epsilon_is_the_curve() -> None:
    """What is shown as spent is ε(μ, δ) of the sum, with δ′ taken off δ."""
    state = Filter(Budget.from_epsilon_delta(2.0, 1e-5)).admit(Cost(Fraction(1, 25)))
    assert state.spent_epsilon(1e-5) == pytest.approx(epsilon_of_mu(0.2, 1e-5), rel=1e-9)
    with_slack = state.admit(Cost(0, 5e-7))
    assert with_slack.spent_epsilon(1e-5) > state.spent_epsilon(1e-5)
    assert with_slack.spent_epsilon(1e-5) == pytest.approx(epsilon_of_mu(root_up(Fraction(1, 25)), 9.5e-6), rel=1e-5)
