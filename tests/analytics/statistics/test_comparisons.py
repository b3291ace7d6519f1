"""Group means compared: equal to SciPy without noise; with noise a 5 % test errs about 5 %."""

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from privfl_analytics.statistic import Context, Noisy
from privfl_analytics.statistics._groups import welch
from privfl_analytics.statistics.comparisons import Anova, TTest
from privfl_analytics.view import View
from scipy import stats

from privfl.errors import Misuse
from privfl.tasks import Schema
from tests.analytics.reference import answer

pytestmark = pytest.mark.filterwarnings("ignore:Precision loss occurred")  # SciPy's, where a group is constant
# Whole numbers are multiples of 2⁻⁷ of the half range: their squares are exact in fixed point.
SCHEMA = Schema(
    records=400,
    columns={
        "x": {"lower": 0, "upper": 256, "unit": "mg", "missing": [-9]},
        "g": {"classes": ["a", "b", "c"]},
        "two": {"classes": [False, True]},
    },
)
ROW = st.tuples(
    st.one_of(st.integers(0, 256).map(float), st.sampled_from([-9.0, math.nan])),
    st.sampled_from(["a", "b", "c", "unheard of", None]),
)
SITES = st.lists(st.lists(ROW, max_size=30), min_size=1, max_size=3)
FEW = settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))


def frames(sites):
    return [pd.DataFrame(rows, columns=["x", "g"]) for rows in sites]


def groups(sites, names):
    pooled = frames([[row for rows in sites for row in rows]])[0]
    kept = pooled[pooled.x.notna() & (pooled.x != -9)]
    return [kept.x[kept.g == one].to_numpy(dtype=float) for one in names]


@FEW
@given(SITES)
def test_the_t_test_is_welchs_of_the_pooled_rows(sites):
    found = answer(TTest(column="x", group="g", classes=("a", "c")), SCHEMA, frames(sites))
    a, c = groups(sites, "ac")
    if min(len(a), len(c)) < 2 or (np.ptp(a) == 0 and np.ptp(c) == 0):
        assert math.isnan(found.value("p-value"))
        return
    want = stats.ttest_ind(a, c, equal_var=False)
    assert found.value("mean", g="a") == pytest.approx(a.mean())
    assert found.value("difference") == pytest.approx(a.mean() - c.mean(), abs=1e-9)
    assert found.value("t statistic") == pytest.approx(want.statistic, rel=1e-6, abs=1e-9)
    assert found.value("degrees of freedom") == pytest.approx(want.df, rel=1e-6)
    assert found.value("p-value") == pytest.approx(want.pvalue, rel=1e-5, abs=1e-12)
    row = next(one for one in found.rows if one.what == "difference")
    low, high = want.confidence_interval(0.95)
    assert (row.lower, row.upper) == pytest.approx((low, high), rel=1e-6, abs=1e-6)


@FEW
@given(SITES)
def test_the_analysis_of_variance_is_that_of_the_pooled_rows(sites):
    found = answer(Anova(column="x", group="g"), SCHEMA, frames(sites))
    parts = groups(sites, "abc")
    if min(map(len, parts)) < 2 or max(np.ptp(one) for one in parts) < 2:
        return
    want = stats.f_oneway(*parts)
    assert found.value("F statistic") == pytest.approx(want.statistic, rel=1e-6, abs=1e-9)
    assert found.value("p-value") == pytest.approx(want.pvalue, rel=1e-5, abs=1e-12)
    assert 0 <= found.value("eta squared") <= 1


def drawn(rng, sizes, view, statistic, sd, shift=0.0):
    """A decoded answer for groups of normal values with equal means, straight from their noisy sums."""
    cells = np.zeros((5, 3))
    for at, size in enumerate(sizes):
        t = np.clip(rng.normal(0.2 + shift * at, 0.3, size), -1, 1)
        cells[at] = size, t.sum(), (2 * t**2 - 1).sum()
    noisy = Noisy(cells + rng.normal(0, sd, cells.shape), sd)
    return statistic.decode(view, [[noisy]], [None], Context(rng=rng, draws=400, records=sum(sizes)))


def test_a_t_test_that_ignored_the_noise_would_err_far_more_often():
    """Why the noise is in the null: the same noisy sums, taken for exact ones."""
    rng, errors = np.random.default_rng(4), []
    for _ in range(800):
        t = rng.normal(0.2, 0.3, (2, 100))
        cells = np.stack([np.full(2, 100.0), t.sum(axis=1), (2 * t**2 - 1).sum(axis=1)], axis=1)
        found, freedom, _ = welch(cells + rng.normal(0, 3, cells.shape), 0.0)
        errors.append(2 * stats.t.sf(abs(found), freedom) < 0.05)
    assert np.mean(errors) > 0.12


@pytest.mark.parametrize("sd", [8.0, 15.0])
def test_a_t_test_of_5_percent_errs_in_3_to_7_percent_whatever_the_noise(sd):
    rng, view, statistic = np.random.default_rng(5), View(SCHEMA), TTest(column="x", group="g", classes=("a", "b"))
    p = np.array([drawn(rng, (90, 150), view, statistic, sd).value("p-value") for _ in range(1200)])
    assert 0.03 < np.mean(p < 0.05) < 0.07


def test_a_t_test_with_weak_groups_still_keeps_its_level():
    """Counts between three and five standard deviations: the null is simulated."""
    rng, view, statistic = np.random.default_rng(6), View(SCHEMA), TTest(column="x", group="g", classes=("a", "b"))
    p = np.array([drawn(rng, (80, 100), view, statistic, 20.0).value("p-value") for _ in range(500)])
    assert 0.02 < np.mean(p[~np.isnan(p)] < 0.05) < 0.08


@pytest.mark.parametrize("sd", [3.0, 8.0, 15.0])
def test_an_analysis_of_variance_of_5_percent_errs_in_3_to_7_percent(sd):
    """At the largest noise the spread within groups is drowned, and the spread between them is judged alone."""
    rng, view, statistic = np.random.default_rng(7), View(SCHEMA), Anova(column="x", group="g")
    p = np.array([drawn(rng, (90, 150, 120), view, statistic, sd).value("p-value") for _ in range(900)])
    assert 0.03 < np.mean(p < 0.05) < 0.07


def test_the_interval_of_a_difference_covers_it():
    rng, view, statistic = np.random.default_rng(8), View(SCHEMA), TTest(column="x", group="g", classes=("a", "b"))
    hits = []
    for _ in range(500):
        found = drawn(rng, (200, 250), view, statistic, 6.0, shift=-0.1)
        row = next(one for one in found.rows if one.what == "difference")
        hits.append(row.lower <= 12.8 <= row.upper)
    assert 0.92 < np.mean(hits) < 0.98


@pytest.mark.parametrize("statistic", [TTest(column="x", group="two"), Anova(column="x", group="two")])
def test_absurd_noise_is_not_resolved(statistic):
    frame = pd.DataFrame({"x": np.arange(100.0), "two": [True, False] * 50})
    found = answer(statistic, SCHEMA, [frame], sd=1e4)
    assert not [row for row in found.rows if row.value is not None and row.what != "count"]
    assert all("not resolved" in row.note for row in found.rows if row.value is None)


def test_small_groups_are_hidden_with_what_is_made_of_them():
    frame = pd.DataFrame({"x": np.arange(40.0), "two": [True] * 4 + [False] * 36})
    found = answer(TTest(column="x", group="two"), SCHEMA, [frame], context=Context(min_cell_count=5))
    assert math.isnan(found.value("count", two="True"))
    assert math.isnan(found.value("mean", two="True"))
    assert math.isnan(found.value("p-value"))
    assert found.rows[-1].note == "below the display minimum"


def test_groups_that_cannot_be_compared_are_refused_in_words():
    view = View(SCHEMA)
    with pytest.raises(Misuse, match="name two"):
        TTest(column="x", group="g").constructions(view)
    with pytest.raises(Misuse, match="no declared class"):
        TTest(column="x", group="g", classes=("a", "d")).constructions(view)
    with pytest.raises(Misuse, match="once"):
        TTest(column="x", group="g", classes=("a", "a")).constructions(view)
    with pytest.raises(Misuse, match="two or more"):
        Anova(column="x", group="g", classes=("a",)).constructions(view)
    with pytest.raises(Misuse, match="number is needed"):
        Anova(column="g", group="two").constructions(view)
