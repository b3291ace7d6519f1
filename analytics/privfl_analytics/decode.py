"""Numbers with intervals from noisy sums: the shared numerics of every statistic's decoding.

A noisy sum is S̃ = S + N(0, diag sd²) with sd known. An interval for these rows has the noise alone; one for the
population has what sampling adds. Everything here is post-processing: it touches nothing but noisy sums.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from scipy.stats import norm

from privfl_analytics.answer import Row
from privfl_analytics.statistic import Context

__all__ = [
    "BELOW_MINIMUM",
    "FIRM",
    "HIDDEN_WITH",
    "NOT_RESOLVED",
    "RESOLVED",
    "Estimate",
    "Estimates",
    "bootstrap",
    "count_rows",
    "delta_method",
    "estimate",
    "estimates",
    "hidden",
    "interval_of",
    "isotonic",
    "jacobian",
    "multinomial_covariance",
    "null_p_value",
    "number",
    "percent",
    "resolves",
    "share_of",
    "telling",
    "within",
    "z_of",
]

Floats: TypeAlias = npt.NDArray[np.float64]
Bools: TypeAlias = npt.NDArray[np.bool_]

#: A denominator of fewer standard deviations of its noise is not resolved; of fewer than FIRM, bootstrapped.
RESOLVED, FIRM = 3.0, 5.0
NOT_RESOLVED = "not resolved at this budget"
BELOW_MINIMUM = "below the display minimum"
HIDDEN_WITH = "hidden beside a cell below the display minimum, which could be had by subtraction"


@dataclass(frozen=True, slots=True)
class Estimate:
    """One number with its standard error and interval, noise included."""

    value: float
    se: float
    lower: float
    upper: float


@dataclass(frozen=True, slots=True)
class Estimates:
    """Several numbers that were decoded together, each array of one shape; ``noise`` is the noise's part of ``se``."""

    value: Floats
    se: Floats
    lower: Floats
    upper: Floats
    noise: Floats

    def __getitem__(self, at: int) -> Estimate:
        return Estimate(*(float(part.ravel()[at]) for part in (self.value, self.se, self.lower, self.upper)))


# -- intervals ---------------------------------------------------------------------------


def z_of(context: Context) -> float:
    """The normal quantile of a two-sided interval, 1.96 at 95 %."""
    return float(norm.ppf(0.5 + context.confidence / 2))


def percent(context: Context) -> tuple[float, float]:
    """Lower and upper tail probability of the interval."""
    return 0.5 - context.confidence / 2, 0.5 + context.confidence / 2


def resolves(denominator: float, sd: float, by: float = RESOLVED) -> bool:
    """Whether a denominator is positive and stands out of its noise by so many standard deviations."""
    return denominator > 0 and denominator >= by * sd


def interval_of(
    value: float, se: float, context: Context, limits: tuple[float, float] = (-math.inf, math.inf)
) -> Estimate:
    """value ± z·se, cut at what is possible at all."""
    reach = z_of(context) * se
    return within(Estimate(value, se, value - reach, value + reach), limits)


def multinomial_covariance(counts: Floats) -> Floats:
    """Sampling covariance of cell counts given their total, diag(c) - c cᵀ/n; negative noisy counts are taken as 0."""
    cells = np.clip(counts.ravel(), 0.0, None)
    total = cells.sum()
    if total <= 0:
        return np.zeros((len(cells), len(cells)))
    covariance: Floats = np.diag(cells) - np.outer(cells, cells) / total
    return covariance


def jacobian(function: Callable[[Floats], Floats], values: Floats) -> Floats:
    """Central differences of ``function``, which maps arrays (…, k) to (…, m): shape (m, k)."""
    step = 1e-5 * max(1.0, float(np.abs(values).max(initial=0.0)))
    shift = step * np.eye(len(values))
    slopes: Floats = (function(values + shift) - function(values - shift)).T / (2 * step)
    return slopes


def delta_method(gradient: Floats, covariance: Floats) -> Floats:
    """Standard errors of m functions with gradients (m, k) of a vector with this covariance (k, k)."""
    gradient = np.atleast_2d(gradient)
    errors: Floats = np.sqrt(np.clip(np.einsum("mi,ij,mj->m", gradient, covariance, gradient), 0.0, None))
    return errors


def bootstrap(
    function: Callable[[Floats], Floats], values: Floats, covariance: Floats, context: Context
) -> Estimates | None:
    """Parametric bootstrap: redraw the sums, decode identically, take percentiles; None where decoding often fails.

    Args:
        function: maps sums (…, k) to numbers (…, m), NaN where there is none.
        covariance: of sample and noise together, (k, k).
    """
    draws = values + context.rng.standard_normal((context.draws, len(values))) @ _root(covariance).T
    with np.errstate(all="ignore"):
        decoded, value = function(draws), function(values)
    if not np.isfinite(value).all() or (~np.isfinite(decoded)).mean(axis=0).max(initial=0.0) > 0.05:
        return None
    decoded = np.where(np.isfinite(decoded), decoded, np.nan)
    lower, upper = np.nanquantile(decoded, percent(context), axis=0)
    spread = (upper - lower) / (2 * z_of(context))  # a ratio's draws have no standard deviation
    return Estimates(value, spread, lower, upper, spread)


def _root(covariance: Floats) -> Floats:
    """A with A Aᵀ = covariance; of one that noise made indefinite, of its nearest semidefinite one."""
    values, vectors = np.linalg.eigh(covariance)
    root: Floats = vectors * np.sqrt(np.clip(values, 0.0, None))
    return root


def estimates(
    function: Callable[[Floats], Floats],
    values: Floats,
    sds: float | Floats,
    context: Context,
    *,
    sample: Floats | None = None,
    denominators: Sequence[int | Floats] = (),
) -> Estimates | None:
    """Numbers that are functions of noisy sums, by the rules of the design; None where not resolved.

    Delta method where every denominator stands above FIRM sds of its noise, parametric bootstrap above RESOLVED.

    Args:
        function: maps sums (…, k) to numbers (…, m), vectorised over leading axes.
        sds: noise of each sum.
        sample: sampling covariance (k, k) of the sums; used for intervals of the population only.
        denominators: which of the sums are divided by; weights (k,) stand for a weighted sum of them.
    """
    noise = np.broadcast_to(np.asarray(sds, dtype=np.float64), values.shape)
    below = [np.eye(len(values))[one] if isinstance(one, int) else one for one in denominators]
    stand = [(float(one @ values), math.hypot(*(one * noise))) for one in below]
    if not all(resolves(value, sd) for value, sd in stand):
        return None
    covariance = np.diag(noise**2)
    if sample is not None and context.interval == "population":
        covariance = covariance + sample
    if not all(resolves(value, sd, FIRM) for value, sd in stand):
        return bootstrap(function, values, covariance, context)
    with np.errstate(all="ignore"):
        value, slopes = function(values), jacobian(function, values)
        se = delta_method(slopes, covariance)
    if not (np.isfinite(value).all() and np.isfinite(se).all()):
        return None
    reach = z_of(context) * se
    return Estimates(value, se, value - reach, value + reach, delta_method(slopes, np.diag(noise**2)))


def estimate(
    function: Callable[[Floats], Floats],
    values: Floats,
    sds: float | Floats,
    context: Context,
    *,
    sample: Floats | None = None,
    denominators: Sequence[int | Floats] = (),
    limits: tuple[float, float] = (-math.inf, math.inf),
) -> Estimate | None:
    """:func:`estimates` of a function that maps (…, k) to (…), cut at the ``limits`` of what is possible.

    None also where noise alone would make the interval as wide as the limits: it would say nothing.
    """
    found = estimates(
        lambda sums: np.asarray(function(sums))[..., None],
        values,
        sds,
        context,
        sample=sample,
        denominators=denominators,
    )
    low, high = limits
    if found is None or 2 * z_of(context) * float(found.noise[0]) >= high - low:
        return None
    return within(found[0], limits)


def within(one: Estimate, limits: tuple[float, float]) -> Estimate:
    """An estimate cut at what is possible at all, which costs no coverage."""
    low, high = limits
    return Estimate(
        min(max(one.value, low), high), one.se, min(max(one.lower, low), high), max(min(one.upper, high), low)
    )


def share_of(counts: Floats, cell: int, sd: float, context: Context) -> Estimate | None:
    """The share of one cell in the sum of all, in [0, 1]; None where the sum is not resolved."""
    rest = float(counts.sum() - counts[cell])
    cells, sds = np.array([counts[cell], rest]), sd * np.sqrt([1.0, max(len(counts) - 1, 0)])
    return estimate(
        lambda sums: sums[..., 0] / sums.sum(axis=-1),
        cells,
        sds,
        context,
        sample=multinomial_covariance(cells),
        denominators=(np.ones(2),),
        limits=(0.0, 1.0),
    )


def null_p_value(observed: float, null: Floats) -> float:
    """Share of simulated null statistics at least as large as the observed one, itself counted: never 0."""
    return float((1 + np.count_nonzero(null >= observed)) / (1 + len(null)))


# -- display -------------------------------------------------------------------------------


def telling(mask: Bools, counts: Floats, sd: float) -> Bools:
    """Which hidden counts a difference could tell: those that are told from 0 by three deviations of the noise.

    ``other`` and ``missing`` are empty in most tables; if such a cell wanted company, a class would be hidden for it.
    """
    return mask & (counts >= RESOLVED * sd) if sd > 0 else mask


def hidden(counts: Floats, minimum: int, sd: float = 0.0) -> Bools:
    """Which noisy counts are not shown: those below the minimum, and beside a single one its smallest neighbour.

    In every line along every axis no cell is hidden alone (but one that tells nothing), so that no total of a line
    minus what is shown gives one. A minimum of 1 hides nothing: which counts are 0 is then no secret.

    Args:
        sd: of the noise; see :func:`telling`. With 0 every hidden count is telling.
    """
    if minimum <= 1:
        return np.zeros(counts.shape, dtype=np.bool_)
    mask: Bools = counts < minimum
    order = np.arange(counts.size).reshape(counts.shape)
    lines = [
        np.unravel_index(line, counts.shape)
        for axis in range(counts.ndim)
        for line in np.moveaxis(order, axis, -1).reshape(-1, counts.shape[axis])
    ]
    changed = True
    while changed:
        changed = False
        for line in lines:
            alone = mask[line].sum() == 1 and len(mask[line]) > 1
            if alone and telling(mask[line], counts[line], sd).any():
                smallest = np.argmin(np.where(mask[line], np.inf, counts[line]))
                mask[tuple(index[smallest] for index in line)] = True
                changed = True
    return mask


def number(
    what: str, found: Estimate | None, *, at: dict[str, str | float] | None = None, unit: str = "", note: str = ""
) -> Row:
    """A row of an answer; without an estimate one that says why (by default: not resolved)."""
    if found is None:
        return Row(what, None, at=at or {}, unit=unit, note=note or NOT_RESOLVED)
    return Row(what, found.value, at or {}, found.se, found.lower, found.upper, unit, note)


def count_rows(
    what: str,
    counts: Floats,
    sd: float,
    places: Sequence[dict[str, str | float]],
    context: Context,
    *,
    mask: Bools | None = None,
    total: float | None = None,
    unit: str = "rows",
) -> list[Row]:
    """Rows of noisy counts: hidden ones without a number, negative ones shown as 0, intervals cut at 0.

    Args:
        places: ``at`` of each count. mask: which are hidden; by default those of :func:`hidden`.
        total: rows of which these are cells: sampling is then multinomial; else each count is Poisson.
    """
    flat = counts.ravel()
    veiled = (hidden(flat, context.min_cell_count, sd) if mask is None else mask).ravel()
    rows = []
    for count, veil, at in zip(flat.tolist(), veiled.tolist(), places, strict=True):
        if 2 * z_of(context) * sd > max(context.records, count):  # the interval would span all declared records
            rows.append(number(what, None, at=at, unit=unit))
            continue
        if veil:
            note = BELOW_MINIMUM if count < context.min_cell_count else HIDDEN_WITH
            rows.append(number(what, None, at=at, unit=unit, note=note))
            continue
        drawn = 0.0
        if context.interval == "population":
            drawn = max(count, 0.0) * (max(0.0, 1.0 - count / total) if total is not None and total > 0 else 1.0)
        found = interval_of(count, math.sqrt(drawn + sd * sd), context, (0.0, math.inf))
        rows.append(number(what, found, at=at, unit=unit))
    return rows


def isotonic(values: Floats, weights: Floats | None = None) -> Floats:
    """The nearest rising sequence in weighted least squares (pool adjacent violators)."""
    from scipy.optimize import isotonic_regression  # noqa: PLC0415 - heavy, and seldom needed

    fitted: Floats = np.asarray(isotonic_regression(values, weights=weights).x)
    return fitted
