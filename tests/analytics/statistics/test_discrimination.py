"""Scores against classes: equal to scikit-learn on scores replaced by their bins; with noise the intervals cover."""

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from privfl_analytics.statistic import Context, Noisy
from privfl_analytics.statistics.discrimination import PrecisionRecall, Roc
from privfl_analytics.view import Score, View
from scipy import stats
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score, roc_curve

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
ROW = st.tuples(
    st.one_of(st.floats(0, 1), st.sampled_from([0.1, 0.5, 9.0, math.nan])),
    st.sampled_from(["well", "ill", "worse", "unheard of", None]),
)
SITES = st.lists(st.lists(ROW, max_size=40), min_size=1, max_size=3)
FEW = settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
ASKED = {"score": "risk", "label": "end", "positive": "ill", "bins": 8}


def frames(sites):
    return [pd.DataFrame(rows, columns=["risk", "end"]) for rows in sites]


def binned(sites):
    """Labels and bins of the rows that count."""
    pooled = frames([[row for rows in sites for row in rows]])[0]
    kept = pooled[pooled.risk.notna() & (pooled.risk != 9) & pooled.end.isin(["well", "ill", "worse"])]
    edges = np.linspace(0, 1, 9)
    at = np.clip(np.searchsorted(edges, kept.risk.to_numpy(dtype=float), side="right") - 1, 0, 7)
    return (kept.end == "ill").to_numpy(), at


@FEW
@given(SITES)
def test_roc_area_and_ks_are_those_of_the_binned_scores(sites):
    found = answer(Roc(**ASKED), SCHEMA, frames(sites))
    labels, bins = binned(sites)
    assert found.value("positives") == labels.sum()
    if labels.all() or not labels.any():
        assert math.isnan(found.value("auc"))
        return
    assert found.value("auc") == pytest.approx(roc_auc_score(labels, bins))
    with np.errstate(divide="ignore"):  # the p-value of SciPy's, which is not asked for here
        want = stats.ks_2samp(bins[labels], bins[~labels], method="asymp").statistic
    assert found.value("ks") == pytest.approx(want)
    away, hit, _ = roc_curve(labels, bins, drop_intermediate=False)
    curve = set(
        zip(
            np.round(found.details["false_positive_rate"], 9),
            np.round(found.details["true_positive_rate"], 9),
            strict=True,
        )
    )
    assert set(zip(np.round(away, 9), np.round(hit, 9), strict=True)) <= curve


@FEW
@given(SITES)
def test_average_precision_is_that_of_the_binned_scores(sites):
    found = answer(PrecisionRecall(**ASKED), SCHEMA, frames(sites))
    labels, bins = binned(sites)
    if labels.all() or not labels.any():
        assert math.isnan(found.value("average precision"))
        return
    assert found.value("average precision") == pytest.approx(average_precision_score(labels, bins))
    assert found.value("share of positives") == pytest.approx(labels.mean())
    precision, recall, thresholds = precision_recall_curve(labels, bins)
    shown = {round(float(edge) * 8): at for at, edge in enumerate(found.details["thresholds"])}
    for p, r, t in zip(precision, recall, thresholds, strict=False):
        at = shown[int(t)]
        assert (found.details["precision"][at], found.details["recall"][at]) == pytest.approx((p, r))


def test_a_score_of_the_study_can_be_judged():
    score = Score(name="model", weights={"age": 0.1}, intercept=-5.0)
    age = np.arange(20.0, 81.0)
    frame = pd.DataFrame({"age": age, "ill": age + np.tile([9, -9], 31)[:61] > 50})
    found = answer(Roc(score="model", label="ill", bins=10), SCHEMA, [frame], scores=(score,))
    bins = np.floor(10 / (1 + np.exp(5 - 0.1 * age)))
    assert found.value("auc") == pytest.approx(roc_auc_score(frame.ill, bins))


def table(rng, positives, negatives, shift=0.15):
    """(20, 2) counts of normal scores by bin."""
    hits = np.clip(rng.normal(0.5 + shift, 0.15, positives), 0, 1)
    others = np.clip(rng.normal(0.5, 0.15, negatives), 0, 1)
    edges = np.linspace(0, 1, 21)
    return np.stack([np.histogram(hits, edges)[0], np.histogram(others, edges)[0]], axis=1).astype(float)


def noisy(rng, cells, sd):
    """The sums as the server has them: False, True, other, missing by bin, outside, missing."""
    out = np.zeros((22, 4))
    out[:20, 1], out[:20, 0] = cells[:, 0], cells[:, 1]
    return Noisy(out + rng.normal(0, sd, out.shape), sd)


def auc(cells):
    below = np.cumsum(cells[:, 1]) - cells[:, 1] / 2
    return (cells[:, 0] * below).sum() / cells[:, 0].sum() / cells[:, 1].sum()


@pytest.mark.parametrize(
    ("sd", "sizes", "interval"),
    [
        (0.0, (120, 200), "population"),
        (4.0, (150, 300), "population"),
        (4.0, (150, 300), "rows"),
        (8.0, (150, 300), "rows"),
    ],
)
def test_the_interval_of_the_area_covers_it(sd, sizes, interval):
    """At the largest noise the positives stand at four standard deviations: bootstrapped."""
    rng, view, statistic = np.random.default_rng(21), View(SCHEMA), Roc(score="risk", label="ill")
    target = auc(table(rng, 1_000_000, 1_000_000))
    hits = []
    for _ in range(400):
        cells = table(rng, *sizes)
        context = Context(rng=rng, draws=200, interval=interval)
        row = statistic.decode(view, [[noisy(rng, cells, sd)]], [None], context).rows[0]
        if row.value is not None:
            hits.append(row.lower <= (auc(cells) if interval == "rows" else target) <= row.upper)
    assert len(hits) > 300
    assert 0.92 < np.mean(hits) < 0.98


def test_ks_is_not_pushed_up_by_noise():
    rng, view, statistic = np.random.default_rng(22), View(SCHEMA), Roc(score="risk", label="ill")
    cells = table(rng, 400, 600)
    shares = np.cumsum(cells / cells.sum(axis=0), axis=0)
    exact = np.abs(shares[:, 0] - shares[:, 1]).max()
    context = Context(rng=rng, draws=200, interval="rows")
    found = [statistic.decode(view, [[noisy(rng, cells, 10.0)]], [None], context).rows[1] for _ in range(200)]
    assert np.mean([row.value for row in found]) == pytest.approx(exact, abs=0.02)
    assert np.mean([row.lower <= exact <= row.upper for row in found]) > 0.9


@pytest.mark.parametrize("sd", [0.0, 4.0])
def test_the_interval_of_the_average_precision_covers_it(sd):
    rng, view, statistic = np.random.default_rng(23), View(SCHEMA), PrecisionRecall(score="risk", label="ill")
    target = statistic.decode(view, [[noisy(rng, table(rng, 400_000, 800_000), 0.0)]], [None], Context(rng=rng)).value(
        "average precision"
    )
    hits = []
    for _ in range(400):
        ill = rng.binomial(900, 1 / 3)  # the share of positives is drawn too
        found = statistic.decode(
            view, [[noisy(rng, table(rng, ill, 900 - ill), sd)]], [None], Context(rng=rng, draws=9)
        )
        hits.append(found.rows[0].lower <= target <= found.rows[0].upper)
    assert 0.91 < np.mean(hits) < 0.98


@pytest.mark.parametrize("kind", [Roc, PrecisionRecall])
def test_absurd_noise_is_not_resolved(kind):
    frame = pd.DataFrame({"risk": np.linspace(0, 1, 80), "end": ["well", "ill"] * 40})
    found = answer(kind(**ASKED), SCHEMA, [frame], sd=1e5, rng=np.random.default_rng(2))
    assert not found.resolved


def test_few_positives_are_hidden_with_what_is_made_of_them():
    frame = pd.DataFrame({"risk": np.linspace(0, 1, 40), "end": ["ill"] * 4 + ["well"] * 36})
    found = answer(Roc(**ASKED), SCHEMA, [frame], context=Context(min_cell_count=5))
    assert [found.rows[0].note, math.isnan(found.value("positives"))] == ["below the display minimum", True]
    assert "true_positive_rate" not in found.details


def test_what_does_not_fit_is_refused_in_words():
    view = View(SCHEMA)
    with pytest.raises(Misuse, match="must start at 0 and end at 1"):
        Roc(score="risk", label="ill", bins=(0, 0.5, 0.9)).constructions(view)
    with pytest.raises(Misuse, match="no declared class"):
        Roc(score="risk", label="end").constructions(view)
    with pytest.raises(Misuse, match="did you mean"):
        PrecisionRecall(score="riks", label="ill").constructions(view)
