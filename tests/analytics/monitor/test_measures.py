"""Distances and qualities against SciPy, scikit-learn and plain definitions."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from privfl_analytics.monitor import measures
from scipy.optimize import minimize
from scipy.spatial.distance import jensenshannon
from scipy.stats import ks_2samp, wasserstein_distance
from sklearn.metrics import brier_score_loss, roc_auc_score

QUICK = settings(max_examples=60, deadline=None)
_CELLS = arrays.arrays(np.float64, 7, elements=st.integers(1, 500).map(float))


@QUICK
@given(_CELLS, _CELLS)
def test_distances_equal_scipy_s(first: np.ndarray, second: np.ndarray) -> None:
    """PSI by its formula; KS, Jensen-Shannon and Wasserstein by SciPy, on the same cells."""
    p, q = first / first.sum(), second / second.sum()
    middles = np.arange(7) * 2.5 + 1
    assert measures.psi(p, q, 0.0) == pytest.approx(sum((b - a) * np.log(b / a) for a, b in zip(p, q, strict=True)))
    assert measures.jensen_shannon(p, q) == pytest.approx(jensenshannon(p, q, base=2) ** 2, abs=1e-12)
    assert measures.wasserstein(p, q, middles) == pytest.approx(wasserstein_distance(middles, middles, p, q))
    assert measures.total_variation(p, q) == pytest.approx(np.abs(p - q).sum() / 2)
    rows = [np.repeat(middles, one.astype(int)) for one in (first, second)]
    assert measures.ks(p, q) == pytest.approx(ks_2samp(*rows).statistic)


def test_distances_of_a_distribution_from_itself_are_zero_even_with_empty_cells() -> None:
    """Zeros give no infinities."""
    p, q = np.array([0.5, 0.5, 0.0]), np.array([0.0, 0.5, 0.5])
    for one in (measures.psi(p, p, 1e-4), measures.jensen_shannon(p, p), measures.ks(p, p)):
        assert one == 0
    assert measures.jensen_shannon(p, q) == pytest.approx(jensenshannon(p, q, base=2) ** 2)
    assert np.isfinite(measures.psi(p, q, 1e-4))


@QUICK
@given(arrays.arrays(np.int64, (6, 2), elements=st.integers(1, 40)))
def test_qualities_equal_scikit_learn_s(table: np.ndarray) -> None:
    """AUC and Brier of the table are those of its rows, every score at its bin's middle."""
    middles = (np.arange(6) + 0.5) / 6
    scores = np.concatenate([np.repeat(middles, table[:, at]) for at in (0, 1)])
    labels = np.repeat([0, 1], table.sum(axis=0))
    shares = table / table.sum()
    assert measures.auc(shares) == pytest.approx(roc_auc_score(labels, scores))
    assert measures.brier(shares, middles) == pytest.approx(brier_score_loss(labels, scores))
    assert measures.calibration(shares, middles) == pytest.approx(labels.mean() - scores.mean())
    gaps = [abs(labels[scores == one].mean() - one) * (scores == one).mean() for one in middles]
    assert measures.calibration_error(shares, middles) == pytest.approx(sum(gaps))


@settings(max_examples=15, deadline=None)
@given(arrays.arrays(np.float64, 5, elements=st.integers(-30, 100).map(float)))
def test_the_projection_is_the_nearest_table_of_its_total(counts: np.ndarray) -> None:
    """Against SciPy's constrained minimiser."""
    if counts.sum() <= 1:
        return
    shares = measures.project(counts)
    assert shares.sum() == pytest.approx(1)
    assert (shares >= 0).all()
    total = counts.sum()
    found = minimize(
        lambda x: ((x - counts / total) ** 2).sum(),
        np.full(5, 0.2),
        bounds=[(0, 1)] * 5,
        constraints={"type": "eq", "fun": lambda x: x.sum() - 1},
        options={"ftol": 1e-14, "maxiter": 500},
    )
    assert ((shares - counts / total) ** 2).sum() <= found.fun + 1e-6


def test_a_projection_onto_another_total() -> None:
    """What noise added everywhere is taken off everywhere; without noise nothing changes."""
    counts = np.array([100.0, 50.0, 20.0, 20.0])
    assert measures.project(counts, 150.0) == pytest.approx(np.array([90, 40, 10, 10]) / 150)
    assert measures.project(counts, 190.0).tolist() == (counts / 190).tolist()
    assert measures.project(np.array([100.0, 50.0, 4.0, 0.0]), 150.0)[3] == 0


def test_a_stack_is_measured_like_its_parts() -> None:
    """The null is simulated in one go."""
    rng = np.random.default_rng(3)
    p, q = rng.dirichlet(np.ones(5), 4), rng.dirichlet(np.ones(5), 4)
    for measure in (measures.ks, measures.jensen_shannon, measures.total_variation):
        assert measure(p, q) == pytest.approx([float(measure(a, b)) for a, b in zip(p, q, strict=True)])
    stack = rng.normal(5, 10, (6, 5))
    assert measures.project(stack) == pytest.approx(np.stack([measures.project(one) for one in stack]))
