"""Least squares on noisy second moments: coefficients, their covariance with the noise in it, raw units, rows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from scipy.stats import t as student

from privfl_analytics.answer import Row
from privfl_analytics.constructions import Linear
from privfl_analytics.decode import FIRM, NOT_RESOLVED, RESOLVED, Estimate, number, percent
from privfl_analytics.statistic import Context
from privfl_analytics.statistics._moments import CROSSED, ROUNDING, Moments
from privfl_analytics.view import View

__all__ = [
    "Fit",
    "coefficient_rows",
    "collinear",
    "least_squares",
    "listed",
    "separated",
    "terms",
    "to_raw",
    "units_of",
]

Floats: TypeAlias = npt.NDArray[np.float64]
#: Replicates are decoded in blocks of so many numbers.
_BLOCK = 1 << 22


@dataclass(frozen=True, eq=False)
class Fit:
    """A linear model in raw units, intercept first.

    Attributes:
        coefficients: estimates with standard errors and intervals, shape ``(p + 1,)``.
        explained: R². residual: standard deviation of the residuals, raw units.
        freedom: degrees of freedom of the intervals; infinite for normal ones.
    """

    coefficients: tuple[Estimate, ...]
    explained: Estimate
    residual: float
    freedom: float


def collinear(moments: Moments, ridge: float = 0.0) -> bool:
    """Whether some mix of the columns varies by no more than rounding to the grid does."""
    if not moments.counted or moments.count < len(moments.cov) + 1.5:
        return True
    return ridge == 0.0 and float(np.linalg.eigvalsh(moments.cov)[0]) <= ROUNDING


def separated(moments: Moments, ridge: float = 0.0, by: float = RESOLVED) -> bool:
    """Whether the least varying mix of the columns stands out of the noise of the whole matrix.

    Args:
        ridge: added to every variance, in the unit of x.
    """
    if collinear(moments, ridge):
        return False
    least = float(np.linalg.eigvalsh(moments.cov)[0]) * moments.freedom + ridge * moments.count
    return least > 0 and least >= by * moments.sd * math.sqrt(len(moments.cov))


def listed(value: Floats, se: Floats, lower: Floats, upper: Floats) -> tuple[Estimate, ...]:
    """Estimates from arrays of one shape ``(m,)``."""
    columns = (part.tolist() for part in (value, se, lower, upper))
    return tuple(Estimate(*parts) for parts in zip(*columns, strict=True))


def to_raw(features: Sequence[tuple[float, float]], label: tuple[float, float]) -> tuple[Floats, Floats]:
    """(T, c) such that raw coefficients, intercept first, are T θ + c.

    Args:
        features: (center, unit) of each; label: the same.
    """
    (center, unit), wide = label, len(features)
    transform = np.zeros((wide + 1, wide + 1))
    for at, (middle, step) in enumerate(features, 1):
        transform[at, at] = unit / step
        transform[0, at] = -unit * middle / step
    transform[0, 0] = unit
    shift = np.zeros(wide + 1)
    shift[0] = center
    return transform, shift


def least_squares(moments: Moments, ridge: float, context: Context) -> Fit | None:
    """Regress the last column on the others; None where not resolved.

    Well above the noise by first-order errors: (X'X)⁻¹(σ² X'X + N)(X'X)⁻¹ with N the noise of the normal equations at
    the solution. Otherwise by a parametric bootstrap that redraws sample and noise and solves again.

    Args:
        ridge: added to the variance of every feature, in the unit of x.
    """
    features = moments.pick(range(len(moments.cov) - 1))
    if not separated(features, ridge):
        return None
    transform, shift = to_raw(
        [(float(c), float(u)) for c, u in zip(features.centers, features.units, strict=True)],
        (float(moments.centers[-1]), float(moments.units[-1])),
    )
    theta = _solve(moments.whole, ridge)
    spare = moments.count - len(theta)
    left = _residual(moments.whole, theta)
    raw = transform @ theta + shift
    freedom = max(spare, 1.0) if context.interval == "population" and not moments.sd else math.inf
    firm = separated(features, ridge, FIRM) and left > 0
    if firm:
        covariance = (
            transform @ _first_order(moments, theta, ridge, max(left, 0.0) / max(spare, 1.0), context) @ transform.T
        )
        se = np.sqrt(np.clip(np.diag(covariance), 0.0, None))
        reach = float(student.ppf(percent(context)[1], freedom)) * se
        found = listed(raw, se, raw - reach, raw + reach)
    if not firm or (explained := _explained(moments, theta, context)) is None:
        drawn, shares = _bootstrapped(moments, ridge, context)
        if not firm:
            found = _percentiles(raw, drawn @ transform.T + shift, context)
        share = _share(moments.whole, theta)
        ends = _percentiles(np.array([share]), shares[:, None], context)[0]
        explained = _between(ends)
    return Fit(found, explained, float(moments.units[-1]) * math.sqrt(max(left, 0.0) / max(spare, 1.0)), freedom)


def _solve(whole: Floats, ridge: float) -> Floats:
    """θ of the normal equations, over leading axes; the last column is the label."""
    gram = whole[..., :-1, :-1].copy()
    inner = np.arange(1, gram.shape[-1])
    gram[..., inner, inner] += ridge * whole[..., :1, 0]
    found: Floats = np.asarray(np.linalg.solve(gram, whole[..., :-1, -1:]), dtype=np.float64)[..., 0]
    return found


def _residual(whole: Floats, theta: Floats) -> Any:
    """Residual sum of squares, over leading axes."""
    weights = np.concatenate([-theta, np.ones((*theta.shape[:-1], 1))], axis=-1)
    return np.einsum("...i,...ij,...j->...", weights, whole, weights)


def _share(whole: Floats, theta: Floats) -> Any:
    """R², over leading axes; within [-1, 1]."""
    spread = whole[..., -1, -1] - whole[..., 0, -1] ** 2 / whole[..., 0, 0]
    with np.errstate(all="ignore"):
        return np.clip(1.0 - _residual(whole, theta) / np.where(spread > 0, spread, np.nan), -1.0, 1.0)


def _first_order(moments: Moments, theta: Floats, ridge: float, residual: float, context: Context) -> Floats:
    """Covariance of θ from the noise of the normal equations and, for the population, from sampling."""
    gram = moments.whole[:-1, :-1]
    eased = gram.copy()
    inner = np.arange(1, len(gram))
    eased[inner, inner] += ridge * moments.count
    weights = np.append(-theta, 1.0)
    heavy = weights**2
    # Entry (i, j) of the noise meets equations i and j: they share it.
    noise = CROSSED**2 * np.outer(weights[:-1], weights[:-1])
    np.fill_diagonal(noise, CROSSED**2 * (heavy.sum() - heavy[:-1]) + heavy[:-1])
    middle: Floats = moments.sd**2 * noise
    if context.interval == "population":
        middle = middle + residual * gram
    inverse = np.linalg.inv(eased)
    found: Floats = inverse @ middle @ inverse
    return found


def _explained(moments: Moments, theta: Floats, context: Context) -> Estimate | None:
    """R² by the delta method; None where it is too near 0 or 1 for that."""
    total = float(moments.cov[-1, -1])
    if not moments.varies(len(moments.cov) - 1, FIRM):
        return None
    share = float(_share(moments.whole, theta))
    weights = np.append(-theta[1:], 1.0)
    slope = -np.outer(weights, weights) / total
    slope[-1, -1] += (1.0 - share) / total
    se = math.sqrt(float(moments.variance(slope, context)))
    if moments.sd and not FIRM * se < min(share, 1.0 - share):
        return None
    reach = 0.0 if se == 0.0 else float(student.ppf(percent(context)[1], math.inf)) * se
    return _between(Estimate(share, se, share - reach, share + reach))


def _between(found: Estimate) -> Estimate:
    """Within what a share can be."""
    value, lower, upper = (min(max(one, 0.0), 1.0) for one in (found.value, found.lower, found.upper))
    return Estimate(value, found.se, lower, upper)


def _bootstrapped(moments: Moments, ridge: float, context: Context) -> tuple[Floats, Floats]:
    """Replicates of θ ``(draws, p + 1)`` and of R² ``(draws,)``."""
    block = max(1, min(context.draws, _BLOCK // moments.whole.size))
    thetas, shares = [], []
    for begin in range(0, context.draws, block):
        whole = moments.redraw(context, min(block, context.draws - begin))
        theta = _solve(whole, ridge)
        thetas.append(theta)
        shares.append(_share(whole, theta))
    return np.concatenate(thetas), np.concatenate(shares)


def _percentiles(value: Floats, drawn: Floats, context: Context) -> tuple[Estimate, ...]:
    """Percentile intervals; standard errors from the middle 68 %, which a replicate near a pole does not spoil."""
    lower, upper = np.nanquantile(drawn, percent(context), axis=0)
    low, high = np.nanquantile(drawn, (0.1587, 0.8413), axis=0)
    return listed(value, (high - low) / 2.0, np.minimum(lower, value), np.maximum(upper, value))


# -- rows ------------------------------------------------------------------------------------


def terms(features: Sequence[str]) -> tuple[str, ...]:
    """Names of the coefficients."""
    return ("intercept", *features)


def units_of(view: View, features: Sequence[Linear], label: str) -> tuple[str, ...]:
    """Units of the coefficients, where the schema names both."""
    below = [view.numeric(one.column).unit for one in features]
    return (label, *(f"{label}/{unit}" if label and unit else "" for unit in below))


def coefficient_rows(
    names: Sequence[str],
    units: Sequence[str],
    found: Sequence[Estimate] | None,
    freedom: float,
    context: Context,
    note: str = NOT_RESOLVED,
) -> list[Row]:
    """Rows "coefficient" and, for the population, "p-value" (of the coefficient being 0, noise in it) by term."""
    rows = [
        number(
            "coefficient",
            None if found is None else found[at],
            at={"term": name},
            unit=unit,
            note="" if found else note,
        )
        for at, (name, unit) in enumerate(zip(names, units, strict=True))
    ]
    if found is None or context.interval != "population":
        return rows
    for at, name in enumerate(names):
        one = found[at]
        tail = 2.0 * float(student.sf(abs(one.value) / one.se, freedom)) if one.se > 0 else None
        rows.append(Row("p-value", tail, at={"term": name}, note="" if tail is not None else NOT_RESOLVED))
    return rows
