"""Newton steps of a generalised linear model whose curvature is that of normal features.

The sites sum Σ z zᵀ once and then gradients only. X'X/4 bounds the curvature of a logistic model, and X'X times the
largest mean that of a Poisson one, but steps by such bounds are slow wherever the mean is far from its steepest. With
features taken as normal of the (noisy) mean and covariance, the gradient and the curvature at any coefficients follow
from one-dimensional integrals over the linear predictor; at zero coefficients the curvature is the bound itself. A
step solves the model of this surrogate so that it explains the gradient just seen (Jordan, Lee and Yang 2019,
"Communication-efficient distributed statistical inference", with normal features in the place of one site's rows).
Where it settles, the true gradient is zero: a wrong curvature makes steps slower, not answers other. What gradients
change by from step to step corrects it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

__all__ = ["Surrogate", "step_limit"]

Floats: TypeAlias = npt.NDArray[np.float64]
Link: TypeAlias = Literal["logistic", "exp"]

_NODES, _WEIGHTS = np.polynomial.hermite_e.hermegauss(48)
_WEIGHTS = _WEIGHTS / _WEIGHTS.sum()
#: Predictors are not followed beyond this: exp of it is more than any declared mean.
_FAR = 30.0
_INNER, _HALVINGS = 40, 30


def step_limit(link: Link) -> float:
    """How far one step may move the linear predictor, in its root mean square over rows."""
    return 4.0 if link == "logistic" else 2.0


@dataclass(frozen=True, eq=False)
class Surrogate:
    """A model over ``count`` rows of normal features.

    Attributes:
        link: of the mean.
        count: rows. mean, cov: of the features, shapes ``(p,)`` and ``(p, p)``; the latter positive definite.
        ridge: penalty ridge·count·‖slopes‖²/2.
    """

    link: Link
    count: float
    mean: Floats
    cov: Floats
    ridge: float = 0.0

    @property
    def gram(self) -> Floats:
        """Second moments of z = (1, x), shape ``(p + 1, p + 1)``."""
        z = np.append(1.0, self.mean)
        found: Floats = np.outer(z, z)
        found[1:, 1:] += self.cov
        return found

    def penalty(self, beta: Floats) -> Floats:
        """Gradient of the penalty."""
        found: Floats = self.ridge * self.count * np.append(0.0, beta[1:])
        return found

    def value(self, beta: Floats) -> float:
        """Σ b(z·beta) over the rows, with b' the mean; penalised."""
        eta, _, _ = self._predictor(beta)
        level = np.logaddexp(0.0, eta) if self.link == "logistic" else np.exp(eta)
        return self.count * float(_WEIGHTS @ level + 0.5 * self.ridge * beta[1:] @ beta[1:])

    def gradient(self, beta: Floats) -> Floats:
        """Σ mean·z, penalised."""
        eta, along, _ = self._predictor(beta)
        levels = _WEIGHTS * self._mean(eta)
        found: Floats = self.count * np.append(levels.sum(), levels @ along) + self.penalty(beta)
        return found

    def curvature(self, beta: Floats, *, penalised: bool = True) -> Floats:
        """Σ mean'·z zᵀ."""
        eta, along, across = self._predictor(beta)
        mean = self._mean(eta)
        levels = _WEIGHTS * (mean * (1.0 - mean) if self.link == "logistic" else mean)
        z = np.column_stack([np.ones(len(along)), along])
        found: Floats = (z * levels[:, None]).T @ z
        found[1:, 1:] += levels.sum() * across
        found *= self.count
        if penalised:
            inner = np.arange(1, len(found))
            found[inner, inner] += self.ridge * self.count
        return found

    def eased(self, beta: Floats) -> Floats:
        """The penalised curvature, kept from vanishing where all means are at their ends."""
        found: Floats = self.curvature(beta) + 1e-9 * self.count * self.gram
        return found

    def step(self, beta: Floats, gradient: Floats) -> Floats:
        """Coefficients at which the surrogate explains the penalised gradient seen at ``beta``."""
        target = self.gradient(beta) - gradient
        at, gram, limit = beta.copy(), self.gram, step_limit(self.link)
        level = self.value(at) - target @ at
        for _ in range(_INNER):
            slope = self.gradient(at) - target
            move: Floats = np.asarray(-np.linalg.solve(self.eased(at), slope), dtype=np.float64)
            move = move * min(1.0, 1.0 / max(_length(gram, move), 1e-300))
            fraction = 1.0
            for _ in range(_HALVINGS):
                tried = at + fraction * move
                reached = self.value(tried) - target @ tried
                if reached <= level:
                    break
                fraction /= 2.0
            else:
                break
            at, level = tried, reached
            gone = _length(gram, at - beta)
            if gone > limit:
                return beta + (at - beta) * (limit / gone)
            if fraction * _length(gram, move) < 1e-12:
                break
        return at

    def decrement(self, beta: Floats, gradient: Floats) -> float:
        """gᵀH⁻¹g of the penalised gradient: how far off in squared standard errors."""
        pulled = gradient + self.penalty(beta)
        return float(pulled @ np.linalg.solve(self.eased(beta), pulled))

    def _predictor(self, beta: Floats) -> tuple[Floats, Floats, Floats]:
        """Nodes of the linear predictor, mean features at each, and the features' covariance given it."""
        lean = self.cov @ beta[1:]
        spread2 = float(beta[1:] @ lean)
        middle = float(beta[0] + self.mean @ beta[1:])
        if spread2 < 1e-18:
            eta, along, across = np.full(len(_NODES), middle), np.tile(self.mean, (len(_NODES), 1)), self.cov
        else:
            spread = np.sqrt(spread2)
            eta = middle + spread * _NODES
            along = self.mean + np.outer(_NODES, lean / spread)
            across = self.cov - np.outer(lean, lean) / spread2
        return np.clip(eta, -_FAR, _FAR), along, across

    def _mean(self, eta: Floats) -> Floats:
        found: Floats = 0.5 * (1.0 + np.tanh(0.5 * eta)) if self.link == "logistic" else np.exp(eta)
        return found


def _length(gram: Floats, move: Floats) -> float:
    return math.sqrt(max(float(move @ gram @ move), 0.0))
