"""Sums of (1, t, 2t² - 1) by group: their moments, what noise adds to them, and their replicates."""

from __future__ import annotations

import numpy as np

from privfl_analytics.decode import BELOW_MINIMUM, NOT_RESOLVED, RESOLVED
from privfl_analytics.statistic import Context
from privfl_analytics.statistics.binned import Floats

__all__ = ["between_noise", "mean_noise", "moments", "redrawn", "split", "weak", "welch", "within_noise"]


def weak(n: float, sd: float, context: Context) -> str:
    """Why a group's mean cannot be shown; empty if it can."""
    if n < RESOLVED * sd:
        return NOT_RESOLVED
    if context.min_cell_count > 1 and n < context.min_cell_count:
        return BELOW_MINIMUM
    return "fewer than two rows in a group" if n < 2 else ""


def moments(cells: Floats) -> tuple[Floats, Floats, Floats]:
    """n, mean and sample variance of t from (…, 3) sums; a count that noise made too small is taken for 1 + 2⁻¹⁰."""
    n = np.maximum(cells[..., 0], 1 + 2.0**-10)
    mean = cells[..., 1] / n
    square = (cells[..., 2] + cells[..., 0]) / 2
    return n, mean, (square - n * mean**2) / (n - 1)


def mean_noise(n: Floats, mean: Floats, sd: float) -> Floats:
    """Variance that noise adds to Σt/n: both carry it."""
    return np.asarray((sd / n) ** 2 * (1 + mean**2), dtype=np.float64)


def welch(cells: Floats, sd: float) -> tuple[Floats, Floats, Floats]:
    """t, degrees of freedom and standard error from (…, 2, 3) sums. The noise's variance is known: it adds none."""
    n, mean, variance = moments(cells)
    parts = np.maximum(variance, 0.0) / n
    noise = mean_noise(n, mean, sd)
    whole = (parts + noise).sum(axis=-1)
    with np.errstate(divide="ignore", invalid="ignore"):
        freedom = whole**2 / (parts**2 / (n - 1)).sum(axis=-1)
        t = (mean[..., 0] - mean[..., 1]) / np.sqrt(whole)
    return t, np.minimum(np.nan_to_num(freedom, nan=np.inf, posinf=1e9), 1e9), np.sqrt(whole)


def split(cells: Floats) -> tuple[Floats, Floats, Floats]:
    """Sums of squares within and between groups, and the degrees of freedom within, from (…, groups, 3) sums."""
    n, mean, variance = moments(cells)
    pooled = (n * mean).sum(axis=-1) / n.sum(axis=-1)
    within = ((n - 1) * variance).sum(axis=-1)
    return within, (n * (mean - pooled[..., None]) ** 2).sum(axis=-1), (n - 1).sum(axis=-1)


def between_noise(cells: Floats, sd: float) -> float:
    """What noise adds on average to the sum of squares between groups."""
    n, mean, _ = moments(cells)
    return float((n * (1 - n / n.sum()) * mean_noise(n, mean, sd)).sum())


def within_noise(cells: Floats, sd: float) -> float:
    """Standard deviation of the noise in the sum of squares within groups, Σ (Σt² - (Σt)²/n)."""
    _, mean, _ = moments(cells)
    return float(sd * np.sqrt((0.25 + 4 * mean**2 + (0.5 + mean**2) ** 2).sum()))


def redrawn(cells: Floats, sd: float, context: Context, *, equal: bool = False) -> Floats:
    """Replicates (draws, groups, 3): sample and noise redrawn; with ``equal`` all groups have one mean.

    A test is about the population, so its null always redraws the sample; an interval for these rows does not.
    """
    n, mean, variance = moments(cells)
    shape, rng = (context.draws, len(cells)), context.rng
    variance = np.maximum(variance, 0.0)
    drawn, spread = np.broadcast_to(mean, shape), np.broadcast_to(variance, shape)
    if equal:
        drawn = np.broadcast_to((n * mean).sum() / n.sum(), shape)
    if equal or context.interval == "population":
        drawn = drawn + rng.normal(0.0, 1.0, shape) * np.sqrt(variance / n)
        spread = variance * rng.chisquare(np.broadcast_to(n - 1, shape)) / (n - 1)
    square = (n - 1) * spread + n * drawn**2
    sums = np.stack([np.broadcast_to(n, shape), n * drawn, 2 * square - n], axis=-1)
    return np.asarray(sums + rng.normal(0.0, sd, sums.shape), dtype=np.float64)
