"""Audit B: one training run with a thousand canaries, each in its own direction and there by the toss of a coin."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from benchmarks._audit_bounds import Scores, canary_bound
from benchmarks._audit_worlds import DELTA, WEAKER, Outcome
from privfl.dp import Block, Release, Trust, Unit, epsilon_for, sigma_for
from privfl.dp.mechanisms import materialised, noised
from privfl.dp.sizing import rounded_delta2
from privfl.entropy import Entropy

__all__ = ["Plan", "audit_training", "guess"]

RISK = 0.05  # per run; the bounds of all runs are averaged
_SCALE = 4096.0
_X_MAX = 1 << 40


@dataclass(frozen=True)
class Plan:
    """A training run: logistic regression beside ``canaries`` extra directions, ``rounds`` noisy full-batch steps.

    Args:
        canaries: how many units are included with probability 1/2 each.
        guesses: how many of them the auditor names, half as present and half as absent; fixed beforehand.
        rounds: uploads that are charged.
        epsilon: total ε at δ = 1e-5 that the noise is calibrated to.
    """

    canaries: int = 1024
    guesses: int = 200
    rounds: int = 5
    epsilon: float = 2.0
    rows: int = 100
    features: int = 16

    def release(self) -> Release:
        """The upload of every round: five sites, one of which colludes and takes its noise off."""
        length = self.canaries + self.features
        delta2 = rounded_delta2(length, _SCALE, 1.0)
        sigma = sigma_for(self.epsilon, DELTA, self.rounds, delta2, delta_prime=1e-12)
        block = Block("gradient", length, delta2, _X_MAX, sigma)
        return Release(Unit.RECORD, Trust.DISTRIBUTED, (block,), min_survivors=5, colluders=1)


def train(
    plan: Plan, release: Release, included: npt.NDArray[np.bool_], rng: np.random.Generator, entropy: Entropy
) -> Scores:
    """Train once and return each canary's score: what all rounds together show in its direction."""
    features = rng.normal(size=(plan.rows, plan.features))
    labels = (features @ rng.normal(size=plan.features) > 0).astype(np.float64)
    theta = np.zeros(plan.features)
    planted = np.eye(plan.canaries, plan.canaries + plan.features)[included]
    seen = np.zeros(plan.canaries)
    for _ in range(plan.rounds):
        residuals = 1 / (1 + np.exp(-features @ theta)) - labels
        honest = np.hstack([np.zeros((plan.rows, plan.canaries)), features * residuals[:, None]])
        total = materialised(np.vstack([planted, honest]), _SCALE, 1.0, entropy).vector
        noisy = noised(total, release, entropy)
        for _ in range(release.honest - 1):
            noisy = noisy + noised(np.zeros_like(total), release, entropy)
        gradient = noisy / _SCALE
        theta -= gradient[plan.canaries :] / plan.rows
        seen += gradient[: plan.canaries]
    return seen


def guess(seen: Scores, included: npt.NDArray[np.bool_], guesses: int) -> int:
    """Name the highest scores present and the lowest absent; return how many guesses were right."""
    order = np.argsort(seen)
    absent, present = order[: guesses // 2], order[len(order) - guesses // 2 :]
    return int(np.sum(~included[absent]) + np.sum(included[present]))


def audit_training(plan: Plan, runs: int, seed: int, entropy: Entropy) -> Outcome:
    """Average the bound over ``runs`` trainings, with the calibrated noise and with a quarter of it."""
    release = plan.release()
    (block,) = release.blocks
    means = []
    for weaker in (1, WEAKER):
        used = replace(release, blocks=(replace(block, sigma=block.sigma / weaker),))
        rng = np.random.default_rng(seed)
        bounds = []
        for _ in range(runs):
            included = rng.integers(0, 2, plan.canaries).astype(np.bool_)
            right = guess(train(plan, used, included, rng, entropy), included, plan.guesses)
            bounds.append(canary_bound(plan.canaries, plan.guesses, right, DELTA, RISK))
        means.append(float(np.mean(bounds)))
    return Outcome(epsilon_for(release.cost, plan.rounds, DELTA), means[0], means[1])
