"""Lemma 1 of docs/privacy.md, σ² − 4, computed from exact probabilities instead of trusted."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest

from privfl.dp import delta_of

Pmf = npt.NDArray[np.longdouble]
EPSILONS = np.linspace(0, 6, 121)


def gaussian_pmf(sigma: float) -> Pmf:
    """The discrete Gaussian on [−n, n], n = 14σ: what is cut off is below 2^-140."""
    n = math.ceil(14 * sigma)
    x = np.arange(-n, n + 1, dtype=np.longdouble)
    weights = np.exp(-x * x / (2 * np.longdouble(sigma) ** 2))
    return np.asarray(weights / weights.sum(), dtype=np.longdouble)


def sum_of_shares(sigma_site: float, shares: int) -> Pmf:
    """The exact law of ``shares`` independent discrete Gaussians added up."""
    out = one = gaussian_pmf(sigma_site)
    for _ in range(shares - 1):
        out = np.convolve(out, one)
    return out


def true_delta(pmf: Pmf, shift: int, epsilon: float) -> float:
    """δ(ε) between the law and its translate: the sum of the positive parts of P − e^ε·Q."""
    p = np.concatenate([pmf, np.zeros(shift, dtype=np.longdouble)])
    q = np.concatenate([np.zeros(shift, dtype=np.longdouble), pmf])
    return float(np.maximum(p - np.exp(np.longdouble(epsilon)) * q, 0).sum())


def ratios(pmf: Pmf, shift: int, variance: float) -> npt.NDArray[np.float64]:
    """True δ over the δ of a Gaussian of that variance, for every ε where it is not negligible."""
    pairs = [(true_delta(pmf, shift, e), delta_of(e, shift / math.sqrt(variance))) for e in EPSILONS]
    return np.array([true / claimed for true, claimed in pairs if true > 1e-13])


@pytest.mark.parametrize("sigma", [4.0, 4.5, 6.0, 9.0, 20.0])
@pytest.mark.parametrize("shift", [1, 2, 3, 5, 11])
def test_sigma_squared_minus_four_covers_one_share(sigma: float, shift: int) -> None:
    """Discrete Gaussian noise is never worse than continuous noise of variance σ² − 4."""
    assert ratios(gaussian_pmf(sigma), shift, sigma**2 - 4).max() <= 1


@pytest.mark.parametrize("shares", [2, 3, 5])
@pytest.mark.parametrize("shift", [1, 3, 8])
def test_sigma_squared_minus_four_covers_a_sum_of_shares(shares: int, shift: int) -> None:
    """The sum of honest shares, each at the least σ of 4, is covered by h·σ² − 4 as well."""
    pmf = sum_of_shares(4.0, shares)
    assert ratios(pmf, shift, shares * 16.0 - 4).max() <= 1


@pytest.mark.parametrize("split", [(1, 1), (2, 1), (1, 1, 1)])
def test_the_lemma_holds_for_vectors(split: tuple[int, ...]) -> None:
    """A shift spread over coordinates costs by its L2 norm alone."""
    sigma = 4.0
    one, padded = gaussian_pmf(sigma), max(split)
    p = q = np.ones(1, dtype=np.longdouble)
    for shift in split:
        zeros = np.zeros(padded, dtype=np.longdouble)
        p = np.outer(p, np.concatenate([one, zeros])).ravel()
        q = np.outer(q, np.roll(np.concatenate([one, zeros]), shift)).ravel()
    mu = math.sqrt(sum(shift**2 for shift in split) / (sigma**2 - 4))
    for epsilon in (0.0, 0.3, 1.0, 2.5):
        true = float(np.maximum(p - np.exp(np.longdouble(epsilon)) * q, 0).sum())
        assert true <= delta_of(epsilon, mu)


@pytest.mark.parametrize(("sigma", "shift", "excess"), [(4.0, 2, 1.12), (6.0, 2, 1.05), (8.0, 4, 1.02)])
def test_plain_sigma_would_understate(sigma: float, shift: int, excess: float) -> None:
    """Without the 4 the claim is false: the true δ exceeds the Gaussian's by up to 12 %."""
    assert ratios(gaussian_pmf(sigma), shift, sigma**2).max() > excess


@pytest.mark.parametrize("centre", [0.0, 0.25, 0.5, 0.81])
def test_rounding_with_deviation_two_has_a_flat_normaliser(centre: float) -> None:
    """The step of the proof: Σ_z e^(−(z−y)²/8) = 2√(2π)·(1 ± 1.1e-34) for every real y."""
    import mpmath

    with mpmath.workdps(60):
        total = mpmath.nsum(lambda z: mpmath.exp(-((z - mpmath.mpf(centre)) ** 2) / 8), [-mpmath.inf, mpmath.inf])
        assert abs(total / (2 * mpmath.sqrt(2 * mpmath.pi)) - 1) < 1.1e-34
