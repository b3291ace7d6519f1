"""Calibration and Brier score: equal to scikit-learn without noise; with noise intervals cover, tests keep level."""

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from privfl_analytics.statistic import Context, Noisy
from privfl_analytics.statistics.calibration import Brier, Calibration
from privfl_analytics.view import View
from sklearn.calibration import calibration_curve
from sklearn.metrics import brier_score_loss

from privfl.errors import Misuse
from privfl.tasks import Schema
from tests.analytics.reference import answer

SCHEMA = Schema(
    records=500,
    columns={
        "risk": {"lower": 0, "upper": 1, "missing": [9]},
        "ill": {"classes": [False, True]},
        "end": {"classes": ["well", "ill", "worse"]},
        "age": {"lower": 0, "upper": 100},
    },
)
# scikit-learn puts a prediction on an edge into the lower bin; so none lies on one.
RISK = st.integers(0, 1023).filter(lambda at: at % 128).map(lambda at: at / 1024)
ROW = st.tuples(
    st.one_of(RISK, st.sampled_from([9.0, math.nan])),
    st.sampled_from(["well", "ill", "worse", "unheard of", None]),
)
SITES = st.lists(st.lists(ROW, max_size=40), min_size=1, max_size=3)
FEW = settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
ASKED = {"score": "risk", "label": "end", "positive": "ill"}


def frames(sites):
    return [pd.DataFrame(rows, columns=["risk", "end"]) for rows in sites]


def pooled(sites):
    frame = frames([[row for rows in sites for row in rows]])[0]
    kept = frame[frame.risk.notna() & (frame.risk != 9) & frame.end.isin(["well", "ill", "worse"])]
    return (kept.end == "ill").to_numpy(), kept.risk.to_numpy(dtype=float)


def column(found, what):
    return [row.value for row in found.rows if row.what == what]


@FEW
@given(SITES)
def test_the_curve_is_scikit_learns_and_the_error_is_its_mean_gap(sites):
    found = answer(Calibration(**ASKED, bins=8), SCHEMA, frames(sites))
    labels, risk = pooled(sites)
    if not len(labels):
        assert not found.resolved
        return
    observed, predicted = calibration_curve(labels, risk, n_bins=8)
    assert column(found, "observed") == pytest.approx(observed.tolist())
    assert column(found, "predicted") == pytest.approx(predicted.tolist())
    bins = np.floor(risk * 8)
    gap = sum(abs((labels[bins == one] - risk[bins == one]).sum()) for one in range(8)) / len(labels)
    assert found.value("expected calibration error") == pytest.approx(gap, abs=1e-9)


@FEW
@given(SITES)
def test_the_brier_score_is_scikit_learns_to_the_grid(sites):
    found = answer(Brier(**ASKED), SCHEMA, frames(sites))
    labels, risk = pooled(sites)
    if not len(labels):
        assert math.isnan(found.value("brier score"))
        return
    assert found.value("brier score") == pytest.approx(brier_score_loss(labels, risk, labels=[False, True]), abs=2**-16)
    assert found.value("count") == len(labels)


def world(rng, size, lean=0.0):
    """Predictions, and labels that are true more often than said by ``lean``."""
    risk = rng.beta(2, 3, size)
    return risk, rng.random(size) < np.clip(risk + lean, 0, 1)


def binned(rng, risk, ill, bins, sd):
    at = np.minimum((risk * bins).astype(int), bins - 1)
    cells = np.zeros((bins + 2, 3))
    np.add.at(cells, at, np.stack([np.ones_like(risk), ill, 2 * risk - 1], axis=1))
    return Noisy(cells + rng.normal(0, sd, cells.shape), sd)


@pytest.mark.parametrize("sd", [0.0, 4.0])
def test_intervals_of_observed_shares_cover_them(sd):
    rng, view, statistic = np.random.default_rng(31), View(SCHEMA), Calibration(score="risk", label="ill", bins=5)
    risk, ill = world(rng, 200_000, 0.1)
    truth = dict(enumerate(np.bincount((risk * 5).astype(int), ill) / np.bincount((risk * 5).astype(int))))
    hits = []
    for _ in range(150):
        some = rng.integers(0, len(risk), 600)
        noisy = binned(rng, risk[some], ill[some], 5, sd)
        found = statistic.decode(view, [[noisy]], [None], Context(rng=rng, draws=20))
        for (low, high), lower, upper in zip(*(found.details[key] for key in ("edges", "lower", "upper")), strict=True):
            if high - low < 0.3:
                hits.append(lower <= truth[round(low * 5)] <= upper)
    assert 0.925 < np.mean(hits) < 0.98


@pytest.mark.parametrize("sd", [0.0, 8.0])
def test_a_perfect_score_fails_its_test_in_3_to_7_percent(sd):
    rng, view, statistic = np.random.default_rng(32), View(SCHEMA), Calibration(score="risk", label="ill", bins=5)
    p = []
    for _ in range(500):
        noisy = binned(rng, *world(rng, 500), 5, sd)
        p.append(statistic.decode(view, [[noisy]], [None], Context(rng=rng, draws=300)).value("p-value"))
    assert 0.03 < np.mean(np.array(p) < 0.05) < 0.07


def test_noise_does_not_push_up_the_calibration_error():
    rng, view, statistic = np.random.default_rng(33), View(SCHEMA), Calibration(score="risk", label="ill", bins=5)
    risk, ill = world(rng, 1000, 0.1)
    exact = statistic.decode(view, [[binned(rng, risk, ill, 5, 0.0)]], [None], Context(rng=rng))
    context = Context(rng=rng, draws=200, interval="rows")
    found = [statistic.decode(view, [[binned(rng, risk, ill, 5, 9.0)]], [None], context) for _ in range(150)]
    want = exact.value("expected calibration error")
    assert np.mean([one.value("expected calibration error") for one in found]) == pytest.approx(want, abs=0.01)
    rows = [next(row for row in one.rows if row.what == "expected calibration error") for one in found]
    assert np.mean([row.lower <= want <= row.upper for row in rows]) > 0.92


@pytest.mark.parametrize(("sd", "interval"), [(0.0, "population"), (6.0, "population"), (6.0, "rows")])
def test_the_interval_of_the_brier_score_covers_it(sd, interval):
    rng, view, statistic = np.random.default_rng(34), View(SCHEMA), Brier(score="risk", label="ill")
    risk, ill = world(rng, 1_000_000)
    target, hits = np.mean((risk - ill) ** 2), []
    for _ in range(400):
        r, y = world(rng, 400)
        sums = np.array([400.0, ((r - y) ** 2).sum()])
        stages = [[Noisy(sums + rng.normal(0, sd, 2), sd), binned(rng, r, y, 10, 3 * sd)]]
        row = statistic.decode(view, stages, [None], Context(rng=rng, interval=interval)).rows[0]
        hits.append(row.lower <= (sums[1] / 400 if interval == "rows" else target) <= row.upper)
    assert 0.925 < np.mean(hits) < 0.98


@pytest.mark.parametrize("kind", [Calibration, Brier])
def test_absurd_noise_is_not_resolved(kind):
    frame = pd.DataFrame({"risk": np.linspace(0, 0.99, 80), "end": ["well", "ill"] * 40})
    for seed in range(10):
        found = answer(kind(**ASKED), SCHEMA, [frame], sd=1e5, rng=np.random.default_rng(seed))
        assert all(row.value is None for row in found.rows if row.what not in ("count",))
        assert "not resolved" in found.rows[0].note


def test_thin_bins_are_merged_until_none_is_below_the_display_minimum():
    frame = pd.DataFrame({"risk": [0.05] * 3 + [0.15] * 4 + [0.55] * 20 + [0.95] * 2, "end": "ill"})
    found = answer(Calibration(**ASKED), SCHEMA, [frame], context=Context(min_cell_count=5))
    assert column(found, "count") == [7, 22]
    assert np.array(found.details["edges"]) == pytest.approx(np.array([[0, 0.2], [0.2, 1.0]]))
    alone = answer(Calibration(**ASKED), SCHEMA, [frame[:3]], context=Context(min_cell_count=5))
    assert [row.note for row in alone.rows] == ["below the display minimum"] * 2


def test_what_does_not_fit_is_refused_in_words():
    view = View(SCHEMA)
    for kind in (Brier, Calibration):
        with pytest.raises(Misuse, match="taken for a probability"):
            kind(score="age", label="ill").constructions(view)
        with pytest.raises(Misuse, match="no declared class"):
            kind(score="risk", label="end").constructions(view)
