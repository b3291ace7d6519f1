"""Lower bounds on what a mechanism really costs, from its outputs alone."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from scipy.special import expit, ndtri
from scipy.stats import beta, binom

from privfl.dp import epsilon_of_mu

__all__ = ["canary_bound", "error_bounds", "gaussian_bound", "pure_bound"]

Scores = npt.NDArray[np.float64]


def upper(errors: int, runs: int, risk: float) -> float:
    """Clopper and Pearson's upper limit on a probability after ``errors`` in ``runs``, wrong with ``risk``."""
    return 1.0 if errors >= runs else float(beta.ppf(1 - risk, errors + 1, runs - errors))


def error_bounds(absent: Scores, present: Scores, risk: float) -> tuple[float, float]:
    """Upper limits on false alarms and misses of one threshold test.

    The threshold is chosen on one half of the scores and judged on the other, so that choosing costs nothing.

    Args:
        absent, present: scores without and with the unit, larger meaning "present".
        risk: probability that either limit is wrong.
    """
    half_a, half_b = len(absent) // 2, len(present) // 2
    pilot_absent, pilot_present = np.sort(absent[:half_a]), np.sort(present[:half_b])
    places = np.unique(np.concatenate([np.geomspace(1, half_a / 2, 60), half_a - np.geomspace(1, half_a / 2, 60)]))
    thresholds = pilot_absent[np.clip(places.astype(np.int64), 0, half_a - 1)]
    best, best_mu = float(thresholds[0]), -math.inf
    for threshold in thresholds:
        alarms = half_a - int(np.searchsorted(pilot_absent, threshold, side="right"))
        misses = int(np.searchsorted(pilot_present, threshold, side="right"))
        mu = _mu(upper(alarms, half_a, risk / 2), upper(misses, half_b, risk / 2))
        if mu > best_mu:
            best, best_mu = float(threshold), mu
    judged_absent, judged_present = absent[half_a:], present[half_b:]
    alarms, misses = int(np.sum(judged_absent > best)), int(np.sum(judged_present <= best))
    return upper(alarms, len(judged_absent), risk / 2), upper(misses, len(judged_present), risk / 2)


def gaussian_bound(absent: Scores, present: Scores, delta: float, risk: float) -> float:
    """ε at ``delta`` of the least Gaussian curve that the observed test does not contradict.

    A μ-Gaussian-private mechanism has Φ⁻¹(1 − false alarms) − Φ⁻¹(misses) ≤ μ for every test.
    """
    mu = _mu(*error_bounds(absent, present, risk))
    return epsilon_of_mu(mu, delta) if mu > 0 else 0.0


def pure_bound(absent: Scores, present: Scores, risk: float) -> float:
    """The least pure ε that the observed test does not contradict, in either direction."""
    alarms, misses = error_bounds(absent, present, risk)
    return max(0.0, math.log(max(1 - misses, 1e-300) / alarms), math.log(max(1 - alarms, 1e-300) / misses))


def canary_bound(canaries: int, guesses: int, correct: int, delta: float, risk: float) -> float:
    """ε from one training run with independently included canaries.

    Source: Steinke, Nasr, Jagielski 2023 (arXiv 2305.08846), theorem 5.2: of r guesses, an (ε, δ) mechanism
    has at least v right with probability at most P[B ≥ v] + 2mδ·max_i P[v − i ≤ B < v]/i, B being binomial
    with success e^ε/(1 + e^ε).
    """

    def chance(epsilon: float) -> float:
        rate = float(expit(epsilon))
        steps = np.arange(1, correct + 1)
        below = np.cumsum(binom.pmf(correct - steps, guesses, rate))
        slack = float(np.max(below / steps)) if correct else 0.0
        return float(binom.sf(correct - 1, guesses, rate)) + 2 * canaries * delta * slack

    low, high = 0.0, 30.0
    if chance(low) > risk:
        return 0.0
    while high - low > 1e-6:
        middle = (low + high) / 2
        low, high = (middle, high) if chance(middle) <= risk else (low, middle)
    return low


def _mu(alarms: float, misses: float) -> float:
    return float(-ndtri(alarms) - ndtri(misses))
