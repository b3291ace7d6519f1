"""The currency: the curve against mpmath, the closed formulas, rounding that never favours the spender."""

from __future__ import annotations

import math
from decimal import Decimal
from fractions import Fraction

import mpmath
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from privfl.dp import (
    Cost,
    additive_mu2,
    delta_of,
    delta_only_cost,
    epsilon_of_cost,
    epsilon_of_mu,
    mu_for_budget,
    mu_of_epsilon,
    pure_epsilon_mu,
)
from privfl.dp.cost import GRID, ceil_to_grid, floor_to_grid
from privfl.errors import Malformed, Misuse

MUS = st.floats(1e-4, 40)
EPSILONS = st.floats(0, 50)
DELTAS = st.floats(1e-14, 0.5)


def exact_delta(epsilon: float, mu: float) -> mpmath.mpf:
    """The textbook formula in 80 digits."""
    with mpmath.workdps(80):
        e, m = mpmath.mpf(epsilon), mpmath.mpf(mu)
        return mpmath.ncdf(-e / m + m / 2) - mpmath.exp(e) * mpmath.ncdf(-e / m - m / 2)


@given(EPSILONS, MUS)
def test_the_curve_is_an_upper_bound_and_a_tight_one(epsilon: float, mu: float) -> None:
    """δ(ε, μ) never lies below 80-digit arithmetic and, where it matters, not a millionth above it."""
    exact, ours = exact_delta(epsilon, mu), delta_of(epsilon, mu)
    assert ours >= exact or exact < 1e-290  # below that, float64 ends
    if exact > 1e-30:
        assert ours <= exact * (1 + 1e-6)


@given(MUS, DELTAS)
def test_epsilon_is_rounded_up_and_mu_down(mu: float, delta: float) -> None:
    """ε(μ) is enough by mpmath, ε slightly less is not; the round trip never gains μ."""
    epsilon = epsilon_of_mu(mu, delta)
    assert exact_delta(epsilon, mu) <= delta
    if epsilon > 1e-6:
        assert exact_delta(epsilon * (1 - 1e-6), mu) > delta
        assert mu * (1 - 1e-6) <= mu_of_epsilon(epsilon, delta) <= mu * (1 + 1e-6)


@given(st.floats(0, 30), DELTAS)
def test_the_admissible_mu_is_admissible(epsilon: float, delta: float) -> None:
    """The μ granted for (ε, δ) keeps the promise in 80 digits, and a hair more would break it."""
    mu = mu_of_epsilon(epsilon, delta)
    assert exact_delta(epsilon, mu) <= delta
    assert delta_of(epsilon, mu) <= delta
    if mu > 1e-6:  # below, the bounded error of float64 is no longer a millionth
        assert exact_delta(epsilon, mu * (1 + 1e-6)) > delta


@pytest.mark.parametrize(
    ("epsilon", "delta", "sigma"),
    [(1, 1e-5, 3.730632), (1, 1e-6, 4.224679), (2, 1e-5, 1.993812), (8, 1e-5, 0.600229)],
)
def test_analytic_gaussian_reference(epsilon: float, delta: float, sigma: float) -> None:
    """The known σ of the analytic Gaussian mechanism (Balle and Wang 2018)."""
    assert 1 / mu_of_epsilon(epsilon, delta) == pytest.approx(sigma, rel=1e-6)


@given(st.floats(0, 20), st.floats(1e-6, 1 - 1e-6))
def test_pure_epsilon_is_covered_everywhere(epsilon: float, alpha: float) -> None:
    """The trade-off curve of pure ε lies above G_μ at every level, with equality at its corner."""
    mu = pure_epsilon_mu(epsilon)
    pure = max(0.0, 1 - math.exp(epsilon) * alpha, math.exp(-epsilon) * (1 - alpha))
    with mpmath.workdps(50):
        quantile = mpmath.sqrt(2) * mpmath.erfinv(1 - 2 * mpmath.mpf(alpha))
        assert mpmath.ncdf(quantile - mu) <= pure + mpmath.mpf(1e-12)
        corner = mpmath.ncdf(-mpmath.mpf(mu) / 2)
        assert corner <= 1 / (1 + mpmath.exp(mpmath.mpf(epsilon)))
        assert corner == pytest.approx(float(1 / (1 + mpmath.exp(epsilon))), rel=1e-6)


@given(st.integers(1, 10**30), st.floats(4, 1e12))
def test_additive_cost_is_rounded_up(delta2: int, sigma: float) -> None:
    """μ² is a multiple of 10⁻²⁴ not below Δ²/(σ² − 4), and above it by less than one such step."""
    exact, ours = Fraction(delta2) / (Fraction(sigma) ** 2 - 4), additive_mu2(delta2, sigma)
    assert exact <= ours < exact + Fraction(1, GRID)
    assert (ours * GRID).denominator == 1


@pytest.mark.parametrize("sigma", [3.999, 0, -1, math.inf, math.nan])
def test_too_little_noise_has_no_price(sigma: float) -> None:
    """Below four integer units the lemma is not claimed, so there is no formula either."""
    with pytest.raises(Misuse, match="at least 4"):
        additive_mu2(1, sigma)


def test_delta_only_release_costs_root_k_over_sigma() -> None:
    """k unit changes and an event of probability δ′: (√k/σ, δ′)."""
    cost = delta_only_cost(4, 8.0, 1e-7)
    assert cost.mu2 == Fraction(1, 16)
    assert cost.delta >= Fraction(1e-7)
    with pytest.raises(Misuse):
        delta_only_cost(0, 8.0, 1e-7)


@given(st.floats(0, 1e6), st.floats(0, 0.4), st.floats(0, 1e6), st.floats(0, 0.4))
def test_costs_add_up_exactly_and_survive_storage(a: float, b: float, c: float, d: float) -> None:
    """Sums have no rounding of their own, rounding on entry is upwards, decimals give the same cost back."""
    first, second = Cost(a, b), Cost(c, d)
    assert first.mu2 >= Fraction(a)
    assert first.delta >= Fraction(b)
    total = first + second
    assert (total.mu2, total.delta) == (first.mu2 + second.mu2, first.delta + second.delta)
    assert Cost.from_decimals(*total.to_decimals()) == total
    assert Fraction(Decimal(total.to_decimals()[0])) == total.mu2
    assert first * 3 == first + first + first if b < 0.3 else True


@pytest.mark.parametrize("text", ["", "1.", "01", "1.50", "-1", "1e3", "+1", " 1", "0." + "1" * 25, "٣", "NaN"])
def test_only_canonical_decimals_are_read_back(text: str) -> None:
    """A ledger entry has one spelling."""
    with pytest.raises(Malformed):
        Cost.from_decimals(text, "0")


@pytest.mark.parametrize("bad", [(-1, 0), (math.inf, 0), (math.nan, 0), (1, 1), (1, -1e-9)])
def test_impossible_costs_are_refused(bad: tuple[float, float]) -> None:
    """No negative, infinite or meaningless charge can be made."""
    with pytest.raises(Misuse):
        Cost(*bad)


def test_grid_rounding_brackets() -> None:
    """Up and down differ by at most one step, and not at all on the grid."""
    value = Fraction(2, 7)
    assert floor_to_grid(value) < value < ceil_to_grid(value)
    assert ceil_to_grid(value) - floor_to_grid(value) == Fraction(1, GRID)
    assert ceil_to_grid(0.5) == floor_to_grid(0.5) == Fraction(1, 2)


@given(st.floats(0.01, 12), st.floats(1e-9, 1e-2))
def test_a_budget_keeps_its_promise(epsilon: float, delta: float) -> None:
    """Spending both limits to the end gives at most (ε, δ), by mpmath: δ′ + (1 − δ′)·δ_G(ε) ≤ δ."""
    mu2, slack = mu_for_budget(epsilon, delta)
    assert slack <= Fraction(delta) / 10
    mu = float(mpmath.sqrt(mpmath.mpf(mu2.numerator) / mu2.denominator))
    total = float(slack) + (1 - float(slack)) * exact_delta(epsilon - 1e-9, mu * (1 - 1e-15))
    assert total <= delta * (1 + 1e-12)
    assert total >= delta * (1 - 1e-3)
    assert epsilon_of_cost(Cost(mu2, slack), delta) <= epsilon


def test_reports_need_a_delta_above_what_is_spent() -> None:
    """δ below the charged δ′ cannot be reported at all."""
    with pytest.raises(Misuse, match="larger delta"):
        epsilon_of_cost(Cost(1, 1e-6), 1e-6)
    for delta in (0.0, 1.0, -1.0, math.nan):
        with pytest.raises(Misuse):
            epsilon_of_mu(1.0, delta)
    for mu in (-1.0, math.inf, math.nan):
        with pytest.raises(Misuse):
            epsilon_of_mu(mu, 1e-5)


def test_nothing_spent_costs_nothing() -> None:
    """μ = 0 is ε = 0, and so is a μ so small that δ alone covers it."""
    assert epsilon_of_mu(0.0, 1e-5) == 0.0
    assert epsilon_of_mu(1e-6, 1e-5) == 0.0
    assert delta_of(1.0, 0.0) == 0.0


def test_composition_is_where_one_finds_it() -> None:
    """T Gaussian uploads are one with μ√T: the closed currency agrees with the PLD of dp-accounting."""
    from dp_accounting.pld import privacy_loss_distribution as pld

    loss = pld.from_gaussian_mechanism(5.0, value_discretization_interval=1e-4).self_compose(50)
    ours = epsilon_of_cost(50 * Cost(Fraction(1, 25)), 1e-6)
    assert ours == pytest.approx(loss.get_epsilon_for_delta(1e-6), rel=1e-3)
    assert np.isclose(ours, 7.286081, rtol=1e-6)
