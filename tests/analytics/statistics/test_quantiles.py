"""Ranks from a tree: its algebra, quantiles to the grid without noise, coverage with it."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from privfl_analytics.constructions import Classes
from privfl_analytics.decode import BELOW_MINIMUM, NOT_RESOLVED
from privfl_analytics.statistic import Context, Noisy
from privfl_analytics.statistics._tree import consistent, prefix_errors
from privfl_analytics.statistics.quantiles import Ecdf, Median, Quantiles, Range
from privfl_analytics.view import View
from scipy.stats import gamma

from privfl.errors import Misuse
from tests.analytics.reference import answer
from tests.analytics.statistics.made import QUICK, SCHEMA, SITES, covered, frame_of, numbers, quiet

VIEW = View(SCHEMA)


@given(st.integers(1, 6), st.integers(0, 1000))
@settings(max_examples=20, deadline=None)
def test_the_tree_is_least_squares_with_its_exact_errors(levels: int, seed: int) -> None:
    bins = 1 << (levels - 1)
    design = np.concatenate([np.kron(np.eye(1 << level), np.ones((1, bins >> level))) for level in range(levels)])
    nodes = np.random.default_rng(seed).normal(0, 1, (3, len(design)))
    inverse = np.linalg.inv(design.T @ design)
    assert np.allclose(consistent(nodes, levels), nodes @ design @ inverse)
    prefix = np.tril(np.ones((bins + 1, bins)), -1)
    covariance = prefix @ inverse @ prefix.T
    variance, whole, total = prefix_errors(levels)
    assert np.allclose(variance, np.diag(covariance))
    assert np.allclose(whole, covariance[-1])
    assert total == pytest.approx(covariance[-1, -1])


@given(SITES)
@QUICK
def test_without_noise_quantiles_are_right_to_a_bin(frames: list[pd.DataFrame]) -> None:
    values, bin_ = numbers(frames), 100 / 64
    found = answer(Quantiles(column="age", q=(0.05, 0.5, 0.9), levels=7), SCHEMA, frames, context=quiet())
    assert found.value("count") == len(values)
    for q in (0.05, 0.5, 0.9):
        row = next(row for row in found.rows if row.at == {"q": q})
        if not len(values):
            assert row.value is None
            continue
        low, high = (np.quantile(values, q, method=way) for way in ("inverted_cdf", "higher"))
        if math.isclose(q * len(values), round(q * len(values))):
            high = np.sort(values)[min(round(q * len(values)), len(values) - 1)]
        assert low - bin_ <= row.value <= high + bin_
        assert row.lower <= low + 1e-9
        assert row.upper >= low - 1e-9


@given(SITES)
@QUICK
def test_without_noise_the_distribution_function_is_that_of_the_pooled_rows(frames: list[pd.DataFrame]) -> None:
    values = numbers(frames)
    found = answer(Ecdf(column="age", levels=5), SCHEMA, frames, context=quiet())
    for row in found.rows[:-1]:
        if len(values):
            assert row.value == pytest.approx((values < row.at["age"]).mean())
        else:
            assert row.value is None


def tree(values: np.ndarray, edges: tuple[float, ...], sd: float, rng: np.random.Generator) -> Noisy:
    counts = np.histogram(values, edges)[0].astype(float)
    nodes = []
    while True:
        nodes.insert(0, counts)
        if len(counts) == 1:
            break
        counts = counts[0::2] + counts[1::2]
    exact = np.concatenate([*nodes, [0, 0]])
    return Noisy(exact + rng.normal(0, sd, len(exact)), sd)


@pytest.mark.parametrize("interval", ["rows", "population"])
@pytest.mark.parametrize("q", [0.05, 0.25, 0.5])
@pytest.mark.parametrize("whole", [False, True], ids=["continuous", "whole years"])
def test_intervals_of_quantiles_cover(q: float, interval: str, whole: bool) -> None:
    asked = Quantiles(column="age", q=(q,), levels=9)
    edges, population = asked.edges(VIEW), gamma(9, scale=5).ppf(q)

    def once(rng: np.random.Generator) -> tuple:
        values = rng.gamma(9, 5, 2000).clip(0, 100)
        values = values.round() if whole else values
        found = asked.decode(
            VIEW, [[tree(values, edges, 30.0, rng)]], [None], Context(interval=interval, records=2000, rng=rng)
        )
        exact = np.quantile(values, q, method="inverted_cdf")
        return found.rows[0], exact if interval == "rows" else population.round() if whole else population

    covered(once, 200, over=whole)


@pytest.mark.parametrize("interval", ["rows", "population"])
def test_intervals_of_the_distribution_function_cover(interval: str) -> None:
    asked = Ecdf(column="age")
    edges = asked.edges(VIEW)

    def once(rng: np.random.Generator) -> tuple:
        values = rng.uniform(0, 100, 3000)
        found = asked.decode(
            VIEW, [[tree(values, edges, 20.0, rng)]], [None], Context(interval=interval, records=3000, rng=rng)
        )
        row = found.rows[20]
        return row, (values < row.at["age"]).mean() if interval == "rows" else row.at["age"] / 100

    covered(once)


def test_a_second_round_looks_closer_and_is_planned_alike() -> None:
    asked = Median(column="age", levels=6, refine=True)
    planned, moved = asked.constructions(VIEW, 1)[0], asked.constructions(VIEW, 1, {"lower": 20.0, "upper": 30.5})[0]
    assert (planned.shape(VIEW), planned.row2(VIEW)) == (moved.shape(VIEW), moved.row2(VIEW))
    values = np.random.default_rng(5).normal(63, 2, 1500)
    frame = frame_of([{"age": value} for value in values])
    fine = answer(asked, SCHEMA, [frame], sd=1.0, context=quiet())
    rough = answer(Median(column="age", levels=6), SCHEMA, [frame], sd=1.0, context=quiet())
    assert fine.rows[0].lower <= np.median(values) <= fine.rows[0].upper
    assert fine.rows[0].upper - fine.rows[0].lower < (rough.rows[0].upper - rough.rows[0].lower) / 2
    for state in ({}, {"lower": 3, "upper": 2}, {"lower": 0, "upper": 101}, {"lower": "a", "upper": 2}):
        with pytest.raises(Misuse, match="window"):
            asked.constructions(VIEW, 1, state)
    for ends in ((0, 100), (0, 1e-9), (100 - 1e-9, 100), (50, 50.0000001)):  # edges always rise within the bounds
        asked.constructions(VIEW, 1, {"lower": ends[0], "upper": ends[1]})
    drowned = Noisy(np.random.default_rng(0).normal(0, 1e5, 65), 1e5)
    assert asked.decide(VIEW, 0, [drowned], None) == {"lower": 0.0, "upper": 100.0}


def test_what_noise_drowns_is_not_printed() -> None:
    frame = frame_of([{"age": 40.0}, {"age": 60.0}] * 10)
    for statistic in (
        Quantiles(column="age"),
        Median(column="age", refine=True),
        Range(column="age"),
        Ecdf(column="age"),
    ):
        found = answer(statistic, SCHEMA, [frame], sd=1e5)
        assert not found.resolved
        assert {row.note for row in found.rows} == {NOT_RESOLVED}


def test_a_quantile_with_few_rows_beyond_it_is_hidden() -> None:
    """The 95th percentile of 40 rows is told by two of them."""
    frame = frame_of([{"age": float(age)} for age in range(40)])
    found = answer(Range(column="age"), SCHEMA, [frame], context=quiet(min_cell_count=5))
    assert {row.what: row.note for row in found.rows[:2]} == {"p5": BELOW_MINIMUM, "p95": BELOW_MINIMUM}
    assert answer(Median(column="age"), SCHEMA, [frame], context=quiet(min_cell_count=5)).resolved
    tiny = answer(Median(column="age"), SCHEMA, [frame.head(3)], context=quiet(min_cell_count=5))
    assert not tiny.resolved


def test_steps_of_the_distribution_function_have_the_minimum_of_rows() -> None:
    frame = frame_of([{"age": float(age)} for age in [1, 2, 3, *range(20, 60), 98, 99]])
    found = answer(Ecdf(column="age", levels=7), SCHEMA, [frame], context=quiet(min_cell_count=5))
    shares = [row.value * 45 for row in found.rows[:-1]]
    assert min(np.diff([0, *shares, 45])) >= 5 - 1e-9


def test_by_groups_and_with_the_sugar() -> None:
    rows = [{"age": float(age), "sex": "f" if age < 50 else "m"} for age in range(100)]
    found = answer(Median(column="age"), SCHEMA, [frame_of(rows)], by=(Classes(column="sex"),), context=quiet())
    assert found.value("median", sex="f") == pytest.approx(24.5, abs=0.5)
    assert found.value("median", sex="m") == pytest.approx(74.5, abs=0.5)
    spread = answer(Range(column="age", low=0.1, high=0.9), SCHEMA, [frame_of(rows)], context=quiet())
    assert [row.what for row in spread.rows] == ["p10", "p90", "count"]
    assert list(Quantiles.model_fields)[:2] == ["column", "q"]


def test_misuse_is_named_and_precision_is_in_the_columns_unit() -> None:
    with pytest.raises(Misuse, match="must rise"):
        Quantiles(column="age", q=(0.5, 0.25))
    with pytest.raises(Misuse, match="smaller share"):
        Range(column="age", low=0.9, high=0.1)
    with pytest.raises(Misuse, match="number is needed"):
        Median(column="sex").constructions(VIEW)
    with pytest.raises(Misuse, match="q"):
        Quantiles(column="age", q=(0.0,))
    assert "years" in Quantiles(column="age").precision(VIEW, [[10.0]], 1000)
    assert "percentage points" in Ecdf(column="age").precision(VIEW, [[10.0]], 1000)
