"""Distances between two distributions over the same cells, and the quality of a score from its table; many at once.

Every function takes arrays whose last axis (for tables the last two) holds the cells, and works along the others.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import numpy.typing as npt

__all__ = [
    "auc",
    "brier",
    "calibration",
    "calibration_error",
    "jensen_shannon",
    "ks",
    "project",
    "psi",
    "total_variation",
    "wasserstein",
]

Floats: TypeAlias = npt.NDArray[np.float64]


def project(counts: Floats, whole: float | None = None) -> Floats:
    """The nearest table without negative cells and with the total ``whole``, as shares; Euclidean projection.

    Noise makes cells negative. Cutting them at 0 would add people that are not there; this takes them off again
    evenly. Counts without a negative cell only get divided by their total.

    Args:
        counts: (…, cells).
        whole: positive; by default each table's own total.

    Returns:
        (…, cells) that sum to 1; all equal where the total is not positive.

    Source: Duchi, Shalev-Shwartz, Singer and Chandra, ICML 2008.
    """
    own = counts.sum(axis=-1, keepdims=True)
    total = own if whole is None else np.full_like(own, whole)
    sound = total > 0
    total = np.where(sound, total, 1.0)
    falling = -np.sort(-counts, axis=-1)
    ranks = np.arange(1, counts.shape[-1] + 1)
    excess = (np.cumsum(falling, axis=-1) - total) / ranks
    last = np.maximum((falling > excess).sum(axis=-1, keepdims=True) - 1, 0)
    shares = np.maximum(counts - np.take_along_axis(excess, last, axis=-1), 0.0) / total
    plain = (counts >= 0).all(axis=-1, keepdims=True) & (np.abs(own - total) <= 1e-12 * np.abs(total))
    out = np.where(plain, counts / total, shares)
    return np.where(sound, out, 1.0 / counts.shape[-1])


def psi(p: Floats, q: Floats, least: float) -> Floats:
    """Population stability index Σ (q - p)·ln(q/p); shares below ``least`` count as ``least``."""
    p, q = np.maximum(p, least), np.maximum(q, least)
    return np.asarray(((q - p) * np.log(q / p)).sum(axis=-1))


def ks(p: Floats, q: Floats) -> Floats:
    """Kolmogorov–Smirnov distance: the largest gap between the two cumulative shares at the edges."""
    return np.asarray(np.abs(np.cumsum(q - p, axis=-1)).max(axis=-1))


def jensen_shannon(p: Floats, q: Floats, least: float = 0.0) -> Floats:
    """Jensen–Shannon divergence in bits, within [0, 1]; shares below ``least`` count as ``least``."""
    if least > 0:
        p, q = (np.maximum(one, least) for one in (p, q))
        p, q = (one / one.sum(axis=-1, keepdims=True) for one in (p, q))
    middle = (p + q) / 2
    with np.errstate(divide="ignore", invalid="ignore"):
        parts = sum(np.where(one > 0, one * np.log2(one / middle), 0.0) for one in (p, q))
    found: Floats = np.maximum(np.asarray(parts).sum(axis=-1) / 2, 0.0)
    return found


def total_variation(p: Floats, q: Floats) -> Floats:
    """Half the sum of absolute differences: the share of people who would have to change cell."""
    return np.asarray(np.abs(q - p).sum(axis=-1) / 2)


def wasserstein(p: Floats, q: Floats, middles: Floats) -> Floats:
    """Earth mover's distance with every bin's people at its middle, in the column's unit."""
    gaps = np.abs(np.cumsum(q - p, axis=-1))[..., :-1]
    return np.asarray((gaps * np.diff(middles)).sum(axis=-1))


def auc(table: Floats) -> Floats:
    """Area under the ROC curve of a table (…, bins, 2) of negatives and positives; ties within a bin count half."""
    negative, positive = table[..., 0], table[..., 1]
    below = np.cumsum(negative, axis=-1) - negative / 2
    pairs = negative.sum(axis=-1) * positive.sum(axis=-1)
    return np.asarray((positive * below).sum(axis=-1) / np.where(pairs > 0, pairs, np.nan))


def brier(table: Floats, middles: Floats) -> Floats:
    """Mean squared error of a probability that is taken as its bin's middle; table (…, bins, 2)."""
    errors = table[..., 0] * middles**2 + table[..., 1] * (1 - middles) ** 2
    return np.asarray(errors.sum(axis=-1) / table.sum(axis=(-2, -1)))


def calibration(table: Floats, middles: Floats) -> Floats:
    """Calibration in the large: observed rate minus mean predicted probability; table (…, bins, 2)."""
    total = table.sum(axis=(-2, -1))
    return np.asarray((table[..., 1].sum(axis=-1) - (table.sum(axis=-1) * middles).sum(axis=-1)) / total)


def calibration_error(table: Floats, middles: Floats) -> Floats:
    """Expected calibration error Σ share·|rate - predicted| over bins; table (…, bins, 2)."""
    gaps = np.abs(table[..., 1] - table.sum(axis=-1) * middles)
    return np.asarray(gaps.sum(axis=-1) / table.sum(axis=(-2, -1)))
