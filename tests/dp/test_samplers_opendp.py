"""The samplers against OpenDP's, drawn afresh: two-sample tests with a false alarm below 1e-7."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from scipy import stats

from privfl.dp.samplers import DiscreteGaussian, DiscreteLaplace
from privfl.entropy import SYSTEM

dp = pytest.importorskip("opendp.prelude")

DRAWS = 50_000
LEAST_P = 1e-7


def opendp_noise(kind: str, width: float) -> npt.NDArray[np.int64]:
    """Draws of OpenDP's discrete mechanism on a vector of zeros."""
    dp.enable_features("contrib")
    space = dp.vector_domain(dp.atom_domain(T=int))
    if kind == "gaussian":
        mechanism = dp.m.make_gaussian(space, dp.l2_distance(T=float), width)
    else:
        mechanism = dp.m.make_laplace(space, dp.l1_distance(T=int), width)
    return np.array(mechanism([0] * DRAWS), dtype=np.int64)


def agree(mine: npt.NDArray[np.int64], theirs: npt.NDArray[np.int64], width: float) -> bool:
    """Chi-square of homogeneity over the same bins, and a test of equal scale on |x|."""
    edges = np.unique(np.round(np.linspace(-2.5, 2.5, 41) * width).astype(np.int64))
    table = np.array([np.bincount(np.searchsorted(edges, each), minlength=edges.size + 1) for each in (mine, theirs)])
    histogram = stats.chi2_contingency(table[:, table.sum(axis=0) > 0]).pvalue
    scale = stats.ttest_ind(np.abs(mine).astype(float), np.abs(theirs).astype(float), equal_var=False).pvalue
    return bool(min(histogram, scale) > LEAST_P)


@pytest.mark.parametrize("sigma", [1.0, 7.5, 300.0, 5000.0])
def test_gaussian_agrees_with_opendp(sigma: float) -> None:
    """Same histogram and same scale as OpenDP's discrete Gaussian; a σ 5 % larger is told apart."""
    theirs = opendp_noise("gaussian", sigma)
    assert agree(DiscreteGaussian(sigma).sample(10 * DRAWS, SYSTEM), theirs, sigma)
    assert not agree(DiscreteGaussian(1.05 * sigma).sample(10 * DRAWS, SYSTEM), theirs, sigma)


@pytest.mark.parametrize("scale", [1.0, 7.5, 300.0, 5000.0])
def test_laplace_agrees_with_opendp(scale: float) -> None:
    """Same histogram and same scale as OpenDP's discrete Laplace; a scale 8 % larger is told apart."""
    theirs = opendp_noise("laplace", scale)
    assert agree(DiscreteLaplace(scale).sample(10 * DRAWS, SYSTEM), theirs, scale)
    assert not agree(DiscreteLaplace(1.08 * scale).sample(10 * DRAWS, SYSTEM), theirs, scale)
