"""Survival: equal to lifelines on durations rounded up to the grid; with noise intervals cover, tests keep level."""

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from lifelines import KaplanMeierFitter
from lifelines.statistics import logrank_test, multivariate_logrank_test
from privfl_analytics.statistic import Context, Noisy
from privfl_analytics.statistics.log_rank import LogRank
from privfl_analytics.statistics.survival import Survival
from privfl_analytics.view import View

from privfl.errors import Misuse
from privfl.tasks import Schema
from tests.analytics.reference import answer

pytestmark = pytest.mark.filterwarnings("ignore:Starting with pandas version 4")  # from within lifelines
SCHEMA = Schema(
    records=500,
    columns={
        "months": {"lower": 0, "upper": 30, "unit": "months", "missing": [-1]},
        "dead": {"classes": [False, True]},
        "end": {"classes": ["died", "moved", "study over"]},
        "arm": {"classes": ["a", "b", "c"]},
    },
)
EDGES = tuple(float(edge) for edge in range(0, 25, 2))  # times beyond 24 are at risk throughout
ROW = st.tuples(
    st.one_of(st.floats(0, 30), st.integers(0, 30).map(float), st.sampled_from([-1.0, math.nan])),
    st.sampled_from(["died", "died", "moved", "study over", "unheard of", None]),
    st.sampled_from(["a", "b", "b", "elsewhere", None]),
)
SITES = st.lists(st.lists(ROW, max_size=40), min_size=1, max_size=3)
FEW = settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
ASKED = {"time": "months", "event": "end", "happened": "died", "bins": EDGES}


def frames(sites):
    return [pd.DataFrame(rows, columns=["months", "end", "arm"]) for rows in sites]


def binned(sites):
    """Rows that count, their durations at the right edges of their bins, beyond the grid at its end and censored."""
    pooled = frames([[row for rows in sites for row in rows]])[0]
    kept = pooled[pooled.months.notna() & (pooled.months != -1) & pooled.end.isin(["died", "moved", "study over"])]
    times = kept.months.to_numpy(dtype=float)
    edges = np.array(EDGES)
    right = edges[np.clip(np.searchsorted(edges, times, side="right"), 1, len(edges) - 1)]
    beyond = times > edges[-1]
    return kept, np.where(beyond, 30.0, right), ((kept.end == "died").to_numpy() & ~beyond)


@FEW
@given(SITES)
def test_the_curve_is_kaplan_and_meiers_of_the_rounded_durations(sites):
    found = answer(Survival(**ASKED), SCHEMA, frames(sites))
    _, times, events = binned(sites)
    if not len(times):
        assert all(row.value is None for row in found.rows if row.what == "survival")
        return
    oracle = KaplanMeierFitter().fit(times, events)
    band = oracle.confidence_interval_
    for edge in EDGES[1:]:
        row = next(one for one in found.rows if one.what == "survival" and one.at["months"] == edge)
        if not (times >= edge).any():
            assert row.value is None
            continue
        assert row.value == pytest.approx(float(oracle.predict(edge)), abs=1e-9)
        if 0 < row.value < 1:
            low, high = band[band.index <= edge].iloc[-1]
            assert (row.lower, row.upper) == pytest.approx((low, high), abs=1e-4)
    middle = oracle.median_survival_time_
    shown = [row for row in found.rows if row.what == "survival" and row.value is not None]
    ties = any(abs(row.value - 0.5) < 1e-9 for row in shown)  # there the oracle's logarithms decide
    if shown and shown[-1].value < 0.5 and not ties:
        assert found.value("median survival") == middle
    assert found.value("count") == len(times)
    assert found.value("events") == events.sum()


@FEW
@given(SITES)
def test_the_test_of_two_groups_is_the_log_rank_test(sites):
    found = answer(LogRank(**ASKED, group="arm", classes=("a", "b")), SCHEMA, frames(sites))
    kept, times, events = binned(sites)
    a, b = (kept.arm == "a").to_numpy(), (kept.arm == "b").to_numpy()
    if not a.any() or not b.any():
        assert math.isnan(found.value("p-value"))
        return
    if math.isnan(found.value("p-value")):
        assert "no events" in found.rows[-1].note
        return
    want = logrank_test(times[a], times[b], events[a], events[b])
    assert found.value("chi-square") == pytest.approx(want.test_statistic, rel=1e-6, abs=1e-9)
    assert found.value("p-value") == pytest.approx(want.p_value, rel=1e-6)
    assert found.value("events", arm="a") == events[a].sum()


def test_three_groups_have_two_degrees_of_freedom():
    rng = np.random.default_rng(3)
    rows = [(float(rng.integers(0, 29)), rng.choice(["died", "moved"]), one) for one in "abc" for _ in range(40)]
    found = answer(LogRank(**ASKED, group="arm"), SCHEMA, frames([rows]))
    kept, times, events = binned([rows])
    want = multivariate_logrank_test(times, kept.arm, events)
    assert found.value("degrees of freedom") == 2
    assert found.value("chi-square") == pytest.approx(want.test_statistic, rel=1e-6)


def world(rng, size, rate=0.05, drop=0.02):
    """(13, 2) counts by bin and outcome of exponential times with exponential censoring."""
    died, left = rng.exponential(1 / rate, size), rng.exponential(1 / drop, size)
    at = np.searchsorted(np.array(EDGES), np.minimum(died, left), side="right") - 1
    table = np.zeros((13, 2))
    np.add.at(table, (np.minimum(at, 12), (died > left).astype(int)), 1)
    return table


def noisy(rng, tables, sd):
    """The sums as the server has them: died, moved, study over, other, missing by bin, outside, missing."""
    cells = np.zeros((14, 5, *tables.shape[2:]))
    cells[:13, :2] = tables
    return Noisy(cells + rng.normal(0, sd, cells.shape), sd)


@pytest.mark.parametrize(("sd", "interval"), [(0.0, "population"), (4.0, "population"), (4.0, "rows")])
def test_the_interval_of_survival_at_a_time_covers_it(sd, interval):
    """Within the population: of what the binned curve estimates, which is the share that passes an edge at risk."""
    rng, view, statistic = np.random.default_rng(4), View(SCHEMA), Survival(**ASKED, at=(12.0,))
    exact = world(rng, 2_000_000)
    target = np.cumprod(1 - exact[:12, 0] / np.flip(np.cumsum(np.flip(exact.sum(axis=1))))[:12])[5]
    hits = []
    for _ in range(400):
        table = world(rng, 400)
        if interval == "rows":
            target = np.cumprod(1 - table[:12, 0] / np.flip(np.cumsum(np.flip(table.sum(axis=1))))[:12])[5]
        context = Context(rng=rng, draws=200, interval=interval)
        row = statistic.decode(view, [[noisy(rng, table, sd)]], [None], context).rows[0]
        hits.append(row.lower <= target <= row.upper)
    assert 0.92 < np.mean(hits) < 0.98


@pytest.mark.parametrize("sd", [3.0, 8.0])
def test_a_log_rank_test_of_5_percent_errs_in_3_to_7_percent(sd):
    """Noise of 8 is about what most cells hold: 500 people in 13 bins, two outcomes and two groups."""
    rng, view = np.random.default_rng(12), View(SCHEMA)
    statistic = LogRank(**ASKED, group="arm", classes=("a", "b"))
    p = []
    for _ in range(400):
        table = np.zeros((13, 2, 5))
        table[..., 0], table[..., 1] = world(rng, 200), world(rng, 300, drop=0.04)
        context = Context(rng=rng, draws=300)
        p.append(statistic.decode(view, [[noisy(rng, table, sd)]], [None], context).value("p-value"))
    assert 0.03 < np.nanmean(np.array(p) < 0.05) < 0.07


def test_a_log_rank_test_finds_a_difference():
    rng, view = np.random.default_rng(13), View(SCHEMA)
    table = np.zeros((13, 2, 5))
    table[..., 0], table[..., 1] = world(rng, 300), world(rng, 300, rate=0.12)
    statistic = LogRank(**ASKED, group="arm", classes=("a", "b"))
    assert statistic.decode(view, [[noisy(rng, table, 3.0)]], [None], Context(rng=rng)).value("p-value") < 0.01


@pytest.mark.parametrize(
    "statistic",
    [
        Survival(**ASKED),
        Survival(**ASKED, at=(6, 12)),
        LogRank(**ASKED, group="arm"),
        Survival(time="months", event="dead"),
    ],
)
def test_absurd_noise_is_not_resolved(statistic):
    frame = pd.DataFrame({"months": [5.0, 20.0] * 20, "end": ["died", "moved"] * 20, "dead": True, "arm": "a"})
    found = answer(statistic, SCHEMA, [frame], sd=1e5, rng=np.random.default_rng(2))
    assert not found.resolved
    assert all("not resolved" in row.note for row in found.rows)


def test_a_curve_stops_where_too_few_are_at_risk():
    frame = pd.DataFrame({"months": [3.0] * 20 + [15.0] * 3, "end": "died"})
    found = answer(Survival(**ASKED), SCHEMA, [frame], context=Context(min_cell_count=5))
    assert found.value("survival", months=4.0) == pytest.approx(3 / 23)
    row = next(one for one in found.rows if one.at.get("months") == 6.0)
    assert (row.value, row.note) == (None, "below the display minimum")
    assert found.details["survival"][:3] == [1.0, 1.0, pytest.approx(3 / 23)]
    assert found.details["survival"][3] is None


def test_survival_that_stands_little_above_the_noise_says_so():
    rng, view = np.random.default_rng(14), View(SCHEMA)
    rows = [
        row
        for _ in range(30)
        for row in Survival(**ASKED)
        .decode(view, [[noisy(rng, world(rng, 400), 15.0)]], [None], Context(rng=rng, draws=50))
        .rows
        if row.what == "survival"
    ]
    notes = {row.note for row in rows if row.value is not None}
    assert notes == {"", "stands little above the noise; its interval may be too narrow"}
    assert {row.note for row in rows if row.value is None} == {"not resolved at this budget"}


def test_a_time_within_a_bin_has_the_survival_of_the_edge_before():
    frame = pd.DataFrame({"months": [3.0, 9.0, 29.0, 29.0], "end": "died"})
    found = answer(Survival(**ASKED, at=(3.9, 4.0, 24.0)), SCHEMA, [frame])
    assert [found.value("survival", months=one) for one in (3.9, 4.0, 24.0)] == pytest.approx([1.0, 0.75, 0.5])
    assert found.value("median survival") == 10.0


def test_what_does_not_fit_is_refused_in_words():
    view = View(SCHEMA)
    with pytest.raises(Misuse, match="no declared class"):
        Survival(time="months", event="end").constructions(view)
    with pytest.raises(Misuse, match="must start at 0"):
        Survival(time="months", event="dead", bins=(2, 4)).constructions(view)
    with pytest.raises(Misuse, match="ask within it"):
        Survival(time="months", event="dead", bins=(0, 4), at=(5,)).constructions(view)
    with pytest.raises(Misuse, match="30"):
        Survival(time="months", event="dead", bins=31)
    with pytest.raises(Misuse, match="two or more"):
        LogRank(time="months", event="dead", group="arm", classes=("a",)).constructions(view)
