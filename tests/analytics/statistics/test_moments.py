"""Sums, means, variances and standard deviations: exact without noise, covered with it, silent when drowned."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from privfl_analytics.constructions import Classes
from privfl_analytics.decode import BELOW_MINIMUM, NOT_RESOLVED
from privfl_analytics.statistic import Context, Noisy, Statistic
from privfl_analytics.statistics.moments import Mean, Sum
from privfl_analytics.statistics.spread import Sd, Variance, kurtosis_of
from privfl_analytics.view import View
from scipy.stats import kurtosis

from privfl.errors import Misuse
from tests.analytics.reference import answer
from tests.analytics.statistics.made import QUICK, SCHEMA, SITES, covered, frame_of, numbers, quiet

VIEW = View(SCHEMA)
STEP = 50 / 2**16


@given(SITES)
@QUICK
def test_without_noise_moments_are_those_of_the_pooled_rows(frames: list[pd.DataFrame]) -> None:
    values = numbers(frames)
    assert answer(Sum(column="age"), SCHEMA, frames).value() == pytest.approx(
        values.sum(), abs=STEP * len(values) + 1e-9
    )
    for spread in (False, True):
        found = answer(Mean(column="age", spread=spread), SCHEMA, frames, context=quiet())
        assert found.value("count") == len(values)
        assert found.value() == pytest.approx(values.mean(), abs=STEP) if len(values) else math.isnan(found.value())
    variance = answer(Variance(column="age"), SCHEMA, frames, context=quiet())
    sd = answer(Sd(column="age"), SCHEMA, frames, context=quiet())
    if len(values) < 2:
        assert variance.rows[0].note == sd.rows[0].note == "needs two rows or more"
        return
    assert variance.value() == pytest.approx(values.var(ddof=1), abs=0.3 * len(values) / (len(values) - 1))
    assert sd.value() ** 2 == pytest.approx(values.var(ddof=1), abs=0.3 * len(values) / (len(values) - 1))


def test_groups_are_pooled_sums_and_never_means_of_sites() -> None:
    """Ten rows of one site and one of another weigh ten to one."""
    rows = [{"age": 10.0, "sex": "f"}] * 10, [{"age": 90.0, "sex": "f"}, {"age": 20.0, "sex": "m"}]
    found = answer(Mean(column="age"), SCHEMA, [frame_of(list(site)) for site in rows], by=(Classes(column="sex"),))
    assert found.value("mean", sex="f") == pytest.approx(190 / 11, abs=STEP)
    assert found.value("mean", sex="m") == pytest.approx(20, abs=STEP)
    assert math.isnan(found.value("mean", sex="other"))


def test_a_constant_column_has_no_spread() -> None:
    frame = frame_of([{"age": 41.3}] * 7)
    for statistic in (Variance(column="age"), Sd(column="age")):
        assert answer(statistic, SCHEMA, [frame]).value() == 0


def test_a_second_stage_looks_closely_around_the_mean() -> None:
    """Half the budget each, and still closer than one stage where the bounds are wide."""
    values = np.random.default_rng(2).normal(30, 1.5, 2000)
    frame = frame_of([{"age": value} for value in values])
    found = answer(Sd(column="age", two_stage=True), SCHEMA, [frame], sd=1.0, context=quiet())
    once = answer(Sd(column="age"), SCHEMA, [frame], sd=1.0, context=quiet())
    assert found.rows[0].se < 0.5 * (once.rows[0].se or math.inf)
    assert found.rows[0].lower <= values.std(ddof=1) <= found.rows[0].upper
    assert "share outside the window" in {row.what for row in found.rows}
    exact = answer(Variance(column="age", two_stage=True, width=20), SCHEMA, [frame], context=quiet())
    assert exact.value() == pytest.approx(values.var(ddof=1), rel=3e-3)


def test_the_second_stage_is_planned_alike_and_refuses_odd_windows() -> None:
    asked = Variance(column="age", two_stage=True)
    planned, moved = asked.constructions(VIEW, 1), asked.constructions(VIEW, 1, {"lower": 20.0, "upper": 30.5})
    assert [one.shape(VIEW) for one in planned] == [one.shape(VIEW) for one in moved]
    assert [one.row2(VIEW) for one in planned] == [one.row2(VIEW) for one in moved]
    assert [len(stage) for stage in asked.weights(VIEW)] == [1, 2]
    odd = [{}, {"lower": 30, "upper": 20}, {"lower": -1, "upper": 20}, {"lower": "0", "upper": 20}]
    odd += [{"lower": math.nan, "upper": 2.0}, {"lower": 0, "upper": 9, "more": 1}, {"lower": True, "upper": 9}]
    for state in odd:
        with pytest.raises(Misuse, match="window"):
            asked.constructions(VIEW, 1, state)
    for noise in (0.0, 50.0, 1e9):
        state = asked.decide(VIEW, 0, [Noisy(np.array([500.0, -480.0, 400.0]), noise)], None)
        asked.constructions(VIEW, 1, state)


def tails(values: np.ndarray, sd: float, rng: np.random.Generator) -> Noisy:
    exact = np.append(np.histogram(values.clip(0, 100), np.linspace(0, 100, 65))[0], [0, 0])
    return Noisy(exact + rng.normal(0, sd, 66), sd)


def sums(values: np.ndarray, sd: float, rng: np.random.Generator) -> Noisy:
    t = np.clip(values, 0, 100) / 50 - 1
    exact = np.array([len(t), t.sum(), (2 * t * t - 1).sum()])
    return Noisy(exact + rng.normal(0, sd, 3), sd)


@pytest.mark.parametrize("interval", ["rows", "population"])
@pytest.mark.parametrize(
    ("statistic", "exact", "truth"),
    [
        (Sum(column="age", spread=True), np.sum, 2000 * 40.0),
        (Mean(column="age"), np.mean, 40.0),
        (Variance(column="age"), lambda values: values.var(ddof=1), 144.0),
        (Sd(column="age"), lambda values: values.std(ddof=1), 12.0),
    ],
    ids=["sum", "mean", "variance", "sd"],
)
def test_intervals_cover(statistic: Statistic, exact: object, truth: float, interval: str) -> None:
    def once(rng: np.random.Generator) -> tuple:
        n = rng.poisson(2000) if statistic.name == "sum" else 2000
        values = rng.normal(40, 12, n)
        context = Context(interval=interval, records=2000, rng=rng)
        found = statistic.decode(VIEW, [[sums(values, 25.0, rng), tails(values, 40.0, rng)]], [None], context)
        return found.rows[0], exact(values) if interval == "rows" else truth

    covered(once)


@pytest.mark.parametrize("population", ["gamma", "uniform"])
def test_intervals_of_variances_know_the_tails(population: str) -> None:
    """Of 40000 skewed or flat rows the sample says more than the noise, and a normal's kurtosis would be wrong."""

    def once(rng: np.random.Generator) -> tuple:
        values = rng.gamma(2, 6, 40000) if population == "gamma" else rng.uniform(20, 70, 40000)
        found = Variance(column="age").decode(
            VIEW, [[sums(values, 15.0, rng), tails(values, 20.0, rng)]], [None], Context(records=40000, rng=rng)
        )
        return found.rows[0], 72.0 if population == "gamma" else 2500 / 12

    covered(once)


@given(st.integers(0, 100), st.floats(2, 6), st.integers(40, 60))
@QUICK
def test_the_kurtosis_of_a_histogram_is_that_of_the_values(seed: int, shape: float, mean: int) -> None:
    rng = np.random.default_rng(seed)
    values = (mean + 6 * (rng.gamma(shape, 1, 3000) - shape)).clip(0, 100)
    found = kurtosis_of(sums(values, 0.0, rng), tails(values, 0.0, rng))
    assert found == pytest.approx(kurtosis(values, fisher=False), rel=0.05)


def test_a_drowned_kurtosis_is_taken_as_normal_and_a_given_one_saves_the_histogram() -> None:
    rng = np.random.default_rng(1)
    values = rng.normal(50, 10, 500)
    stage = [sums(values, 5.0, rng), tails(values, 100.0, rng)]
    assert "taken as normal" in Variance(column="age").decode(VIEW, [stage], [None], Context(rng=rng)).notes[0]
    given_ = Variance(column="age", kurtosis=9)
    assert len(given_.constructions(VIEW)) == 1
    assert given_.weights(VIEW) == [[1.0]]
    assert "as given" in given_.decode(VIEW, [stage[:1]], [None], Context(rng=rng)).notes[0]


def test_a_weak_denominator_is_bootstrapped_and_still_covers() -> None:
    """A count of three to five standard deviations of its noise: no delta method."""
    hits, resolved = 0, 0
    for run in range(300):
        rng = np.random.default_rng(run)
        noisy = sums(rng.normal(60, 10, 200), 45.0, rng)
        context = Context(rng=rng, records=200, draws=400)
        row = Mean(column="age").decode(VIEW, [[noisy]], [None], context).rows[0]
        if row.value is not None:
            resolved, hits = resolved + 1, hits + (row.lower <= 60 <= row.upper)
    assert resolved > 100
    assert hits / resolved > 0.92


def test_what_noise_drowns_is_not_printed() -> None:
    frame = frame_of([{"age": 40.0}, {"age": 60.0}] * 10)
    for statistic in (Sum(column="age"), Mean(column="age"), Variance(column="age"), Sd(column="age", two_stage=True)):
        found = answer(statistic, SCHEMA, [frame], sd=1e5)
        assert found.rows[0].value is None
        assert found.rows[0].note == NOT_RESOLVED
    negative = Noisy(np.array([1000.0, 0.0, -1100.0]), 5.0)
    for statistic in (Variance(column="age"), Sd(column="age")):
        row = statistic.decode(VIEW, [[negative, Noisy(np.zeros(66), 5.0)]], [None], quiet()).rows[0]
        assert (row.value, row.note) == (None, NOT_RESOLVED)


def test_few_rows_are_hidden_with_everything_said_of_them() -> None:
    found = answer(Mean(column="age"), SCHEMA, [frame_of([{"age": 40.0}] * 4)], context=quiet(min_cell_count=10))
    assert {row.note for row in found.rows} == {BELOW_MINIMUM}
    assert not found.resolved


def test_misuse_is_named() -> None:
    with pytest.raises(Misuse, match="number is needed"):
        Mean(column="sex").constructions(VIEW)
    with pytest.raises(Misuse, match="did you mean 'age'"):
        Sum(column="agee").constructions(VIEW)
    with pytest.raises(Misuse, match="no such field"):
        Mean(column="age", sprad=True)


def test_precision_is_in_the_columns_unit_and_right() -> None:
    """The announced error of a mean is that of its answer."""
    said = Mean(column="age").precision(VIEW, [[10.0]], 1000)
    assert said == "the mean ± 0.98 years"
    frame = frame_of([{"age": 50.0}] * 100)
    row = answer(Mean(column="age", spread=False), SCHEMA, [frame] * 10, sd=10 / math.sqrt(2), context=quiet()).rows[0]
    assert 1.96 * row.se == pytest.approx(0.98, rel=0.1)
    assert "as declared" in Sd(column="age").precision(VIEW, [[10.0]], 1000)
    assert "±" in Variance(column="age", two_stage=True).precision(VIEW, [[10.0], [10.0, 10.0]], 1000)
