"""Plans made by calibration are admitted by the filter, and nearly exhaust it."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from privfl.budget import Budget, Filter
from privfl.dp import (
    Block,
    Cost,
    Release,
    Trust,
    Unit,
    epsilon_for,
    gaussian_cost,
    mu2_per_upload,
    noise_multiplier_for,
    rounds_for,
    sigma_for,
    split_mu2,
)
from privfl.errors import BudgetExceeded, Misuse, Refused

BUDGETS = {"epsilon": st.floats(0.1, 10), "delta": st.floats(1e-8, 1e-3)}


@settings(deadline=None, max_examples=60)
@given(uploads=st.integers(1, 200), delta2=st.integers(10**4, 10**24), **BUDGETS)
def test_planned_uploads_are_admitted_and_one_more_is_not(
    uploads: int, delta2: int, epsilon: float, delta: float
) -> None:
    """σ for T uploads: T are admitted, T + 1 are not, and the ε reported is at most the ε asked."""
    cost = gaussian_cost(delta2, sigma_for(epsilon, delta, uploads, delta2))
    state = Filter(Budget.from_epsilon_delta(epsilon, delta))
    for _ in range(uploads):
        state = state.admit(cost)
    with pytest.raises(BudgetExceeded):
        state.admit(cost)
    assert state.spent_epsilon() <= epsilon
    assert rounds_for(cost, epsilon, delta) == uploads
    assert epsilon_for(cost, uploads, delta) == state.spent_epsilon()


@given(uploads=st.integers(1, 500), **BUDGETS)
def test_monotone(uploads: int, epsilon: float, delta: float) -> None:
    """More uploads, smaller ε or smaller δ always ask for more noise."""
    base = sigma_for(epsilon, delta, uploads, 10**12)
    assert sigma_for(epsilon, delta, uploads + 1, 10**12) > base
    assert sigma_for(epsilon * 0.9, delta, uploads, 10**12) > base
    assert sigma_for(epsilon, delta * 0.5, uploads, 10**12) > base


def test_sigma_is_the_multiplier_times_sensitivity_plus_the_four() -> None:
    """σ² = z²Δ² + 4 up to the step of 2^-16."""
    z = noise_multiplier_for(1.5, 1e-5, 20)
    sigma = sigma_for(1.5, 1e-5, 20, 10**6)
    assert sigma == pytest.approx(math.sqrt(z**2 * 10**6 + 4), abs=2**-16)
    assert 20 / z**2 <= float(Budget.from_epsilon_delta(1.5, 1e-5).mu2) * (1 + 1e-12)


@given(st.fractions(0, 10, max_denominator=10**6), st.floats(0.01, 0.99))
def test_shares_never_exceed_the_whole(mu2: Fraction, share: float) -> None:
    """The blocks of one upload together cost at most what the upload may."""
    parts = split_mu2(mu2, {"a": share, "b": 1 - share})
    assert sum(parts.values()) <= mu2
    assert sum(split_mu2(mu2).values()) <= mu2


def test_metrics_take_five_percent_by_default() -> None:
    """The default split, and shares that are no split."""
    parts = split_mu2(Fraction(1))
    assert parts == {"update": Fraction(19, 20), "metrics": Fraction(1, 20)}
    for bad in ({}, {"a": 0}, {"a": 0.7, "b": 0.7}, {"a": -1, "b": 1}):
        with pytest.raises(Misuse):
            split_mu2(Fraction(1), bad)


def test_a_round_of_two_blocks_costs_its_plan() -> None:
    """Gradient and metrics, each at its share, together cost one upload's μ² and no more."""
    per_upload = mu2_per_upload(2.0, 1e-5, 30)
    sigmas = [sigma_for(2.0, 1e-5, 30, d2, share=s) for d2, s in ((10**12, 0.95), (10**9, 0.05))]
    blocks = (
        Block("gradient", 10, 10**12, 2**40, sigmas[0]),
        Block("metrics", 3, 10**9, 2**30, sigmas[1]),
    )
    release = Release(Unit.RECORD, Trust.DISTRIBUTED, blocks, min_survivors=5, colluders=1)
    assert per_upload * (1 - Fraction(1, 10**6)) < release.mu2 <= per_upload
    assert rounds_for(release.cost, 2.0, 1e-5) == 30
    assert rounds_for(release.cost, 2.0, 1e-5, attempts=2) == 15


def test_plans_that_cannot_be() -> None:
    """Nothing to plan, no share, δ′ above its slack, a free cost: each is named."""
    with pytest.raises(Misuse, match="at least one"):
        sigma_for(1, 1e-5, 0, 100)
    with pytest.raises(Misuse, match="share"):
        sigma_for(1, 1e-5, 1, 100, share=0)
    with pytest.raises(Refused, match="fewer uploads"):
        sigma_for(1, 1e-5, 10, 100, delta_prime=1e-6)
    with pytest.raises(Misuse):
        sigma_for(1, 1e-5, 10, 0)
    with pytest.raises(Misuse):
        rounds_for(Cost(0), 1, 1e-5)
    with pytest.raises(Misuse):
        epsilon_for(Cost(1), -1, 1e-5)
    assert rounds_for(Cost(1000), 1, 1e-5) == 0
    assert rounds_for(Cost(Fraction(1, 10**6), 5e-7), 1, 1e-5) == 2
