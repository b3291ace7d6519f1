"""The shared numerics of intervals: delta method, bootstrap, and when a number is not resolved."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from privfl_analytics.decode import (
    NOT_RESOLVED,
    bootstrap,
    count_rows,
    estimate,
    estimates,
    isotonic,
    jacobian,
    multinomial_covariance,
    null_p_value,
    number,
    resolves,
    share_of,
    z_of,
)
from privfl_analytics.statistic import Context

ROWS = Context(interval="rows", rng=np.random.default_rng(1), records=1000)


def ratio(sums: np.ndarray) -> np.ndarray:
    return sums[..., 1] / sums[..., 0]


@given(st.floats(-3, 3), st.floats(-3, 3), st.floats(1, 1e6))
@settings(max_examples=30, deadline=None)
def test_slopes_are_those_of_calculus(a: float, b: float, size: float) -> None:
    values = np.array([size, a * size, b * size])
    slopes = jacobian(lambda sums: sums[..., 1] * sums[..., 2] / sums[..., 0] ** 2, values)
    expected = np.array([-2 * a * b, b, a]) / size
    assert np.allclose(slopes, expected, rtol=1e-4, atol=1e-4 / size)


def test_the_method_follows_from_how_far_a_denominator_stands_out() -> None:
    """Above five standard deviations slopes, above three draws, below nothing."""
    firm = estimate(ratio, np.array([100.0, 30.0]), 10.0, ROWS, denominators=(0,))
    assert firm.se == pytest.approx(10 * math.hypot(1, 0.3) / 100)
    assert firm.upper - firm.value == pytest.approx(firm.value - firm.lower)
    weak = estimate(ratio, np.array([40.0, 12.0]), 10.0, ROWS, denominators=(0,))
    assert weak.upper - weak.value > 1.1 * (weak.value - weak.lower), "a ratio's interval is not symmetric"
    assert estimate(ratio, np.array([29.0, 12.0]), 10.0, ROWS, denominators=(0,)) is None
    assert estimate(ratio, np.array([-50.0, 12.0]), 0.0, ROWS, denominators=(0,)) is None
    summed = (np.array([1.0, 1.0]),)
    assert estimate(ratio, np.array([29.0, 20.0]), 10.0, ROWS, denominators=summed) is not None
    assert not resolves(0.0, 0.0)


def test_without_noise_an_interval_for_these_rows_is_a_point() -> None:
    found = estimate(ratio, np.array([100.0, 30.0]), 0.0, ROWS, sample=np.eye(2), denominators=(0,))
    assert (found.value, found.se, found.lower, found.upper) == (0.3, 0.0, 0.3, 0.3)
    population = Context(rng=np.random.default_rng(1))
    assert estimate(ratio, np.array([100.0, 30.0]), 0.0, population, sample=np.eye(2), denominators=(0,)).se > 0


def test_an_interval_as_wide_as_what_is_possible_is_not_resolved() -> None:
    assert estimate(ratio, np.array([100.0, 30.0]), 18.0, ROWS, denominators=(0,), limits=(0.0, 0.5)) is None
    cut = estimate(ratio, np.array([100.0, 5.0]), 10.0, ROWS, denominators=(0,), limits=(0.0, 1.0))
    assert cut.lower == 0.0


def test_bootstrap_and_slopes_agree_where_both_hold() -> None:
    values, covariance = np.array([1000.0, 300.0]), np.diag([100.0, 100.0])
    drawn = bootstrap(lambda sums: ratio(sums)[..., None], values, covariance, Context(rng=np.random.default_rng(2)))
    assert drawn.se[0] == pytest.approx(10 * math.hypot(1, 0.3) / 1000, rel=0.08)
    failing = bootstrap(
        lambda sums: np.where(sums[..., :1] > 1000, sums[..., :1], np.nan), values, covariance, ROWS
    )  # half of the draws cannot be decoded
    assert failing is None


def test_several_numbers_share_one_decoding() -> None:
    found = estimates(lambda sums: np.stack([ratio(sums), sums[..., 0]], axis=-1), np.array([100.0, 30.0]), 1.0, ROWS)
    assert found[1].value == 100
    assert found[1].se == pytest.approx(1.0)
    assert found.noise[1] == pytest.approx(1.0)


@given(st.lists(st.integers(0, 50), min_size=2, max_size=6), st.integers(0, 100))
@settings(max_examples=20, deadline=None)
def test_cells_of_a_fixed_total_vary_like_a_multinomial(cells: list[int], seed: int) -> None:
    covariance = multinomial_covariance(np.array(cells, dtype=float))
    assert np.allclose(covariance.sum(axis=0), 0)
    assert (np.linalg.eigvalsh(covariance) > -1e-9).all()
    if sum(cells):
        assert covariance[0, 0] == pytest.approx(cells[0] * (1 - cells[0] / sum(cells)))


def test_counts_are_never_shown_below_zero_and_absurd_ones_not_at_all() -> None:
    row = count_rows("count", np.array([-7.0]), 5.0, [{}], ROWS)[0]
    assert (row.value, row.lower) == (0.0, 0.0)
    assert row.upper == pytest.approx(-7 + 1.96 * 5, abs=0.01)
    assert count_rows("count", np.array([500.0]), 400.0, [{}], ROWS)[0].note == NOT_RESOLVED
    assert number("mean", None).note == NOT_RESOLVED
    assert share_of(np.array([3.0, 1.0]), 0, 50.0, ROWS) is None


def test_small_things() -> None:
    assert z_of(ROWS) == pytest.approx(1.959964)
    assert list(isotonic(np.array([1.0, 3.0, 2.0, 4.0]))) == [1.0, 2.5, 2.5, 4.0]
    assert null_p_value(9.0, np.arange(9.0)) == pytest.approx(0.1), "never zero"
