"""Constructions V and S: materialised vectors, rounded at random and tested in integers one by one.

r = ⌊s·clip(g) + U⌋ with U uniform, drawn again while ‖r‖² > Δ² (at most 64 times), then trunc(s·clip(g)).
A draw passes with probability at least 0.39, so truncation is rarer than 10^-13. Which draw passes
depends on this contribution alone, never on a sum; S is the same on a site's single vector.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from privfl.dp.contribution import Contribution, Float64Array, Int64Array, LocalReport
from privfl.dp.dither import round_at_random
from privfl.dp.norms import clip_rows, within
from privfl.dp.sizing import bounded_delta2, rounded_delta2
from privfl.entropy import Entropy, Keystream
from privfl.errors import Misuse

__all__ = ["TRIES", "bounded_sum", "contributions", "materialised", "site_vector"]

#: Draws of one contribution before it is truncated.
TRIES = 64
_BLOCK = 1 << 18  # coordinates rounded at once
_LARGEST = 1 << 61


def contributions(
    vectors: npt.ArrayLike, scale: float, clip: float, entropy: Entropy, *, report: LocalReport | None = None
) -> Int64Array:
    """Every row's own integer contribution, not yet summed.

    Args:
        vectors: shape ``(n, d)``; a row with NaN or infinity contributes zero.
        scale: s, integer units per unit.
        clip: C, L2 norm of one contribution.
        entropy: for the rounding; it decides utility, not the guarantee.
        report: local counts to add to.

    Returns:
        int64 of shape ``(n, d)``, every row's squared norm at most ``rounded_delta2(d, scale, clip)``.

    Raises:
        Misuse: ``vectors`` is not a matrix with columns, or scale or clip do not fit.
    """
    rows = np.asarray(vectors, dtype=np.float64)
    if rows.ndim != 2 or not rows.shape[1]:
        raise Misuse(f"contributions are the rows of a matrix, not an array of shape {rows.shape}")
    delta2 = rounded_delta2(rows.shape[1], scale, clip)
    if scale * clip >= _LARGEST:
        raise Misuse(f"a scaled clip of {scale * clip:g} does not fit 64-bit words; lower the scale")
    report = LocalReport() if report is None else report
    stream = Keystream(entropy)
    out = np.empty(rows.shape, dtype=np.int64)
    step = max(1, _BLOCK // rows.shape[1])
    for begin in range(0, rows.shape[0], step):
        clipped, broken = clip_rows(rows[begin : begin + step], clip)
        report.nonfinite += broken
        np.multiply(clipped, scale, out=clipped)
        out[begin : begin + step] = _round_rows(clipped, delta2, stream, report)
    return out


def materialised(
    vectors: npt.ArrayLike, scale: float, clip: float, entropy: Entropy, *, report: LocalReport | None = None
) -> Contribution:
    """Construction V: the exact sum of :func:`contributions`; int64 of shape ``(d,)``.

    Arguments and errors as there; also Misuse for a table so long that its sum could pass 2^63.
    """
    report = LocalReport() if report is None else report
    rows = contributions(vectors, scale, clip, entropy, report=report)
    delta2 = rounded_delta2(rows.shape[1], scale, clip)
    if rows.shape[0] * (math.isqrt(delta2) + 1) < 1 << 63:
        return Contribution(rows.sum(axis=0, dtype=np.int64), delta2, report=report)
    exact = rows.astype(object).sum(axis=0)
    return Contribution(np.clip(exact, -(2**63 - 1), 2**63 - 1).astype(np.int64), delta2, report=report)


def site_vector(
    vector: npt.ArrayLike, scale: float, clip: float, entropy: Entropy, *, report: LocalReport | None = None
) -> Contribution:
    """Construction S, unit ``site``: V on the site's single vector of shape ``(d,)``.

    Raises:
        Misuse: ``vector`` is not a vector, or scale or clip do not fit.
    """
    single = np.asarray(vector, dtype=np.float64)
    if single.ndim != 1:
        raise Misuse(f"a site's contribution is one vector, not an array of shape {single.shape}")
    return materialised(single[None, :], scale, clip, entropy, report=report)


def bounded_sum(table: npt.ArrayLike, scale: float, *, report: LocalReport | None = None) -> Contribution:
    """Sums of columns whose public bounds are [-1, 1], such as (1, correct, loss/L_max).

    Each value is clamped to its bounds, multiplied by ``scale`` and truncated; a row with NaN or infinity
    contributes zero.

    Args:
        table: shape ``(n, k)``.
        scale: integer units per 1.
        report: local counts to add to.

    Returns:
        int64 of shape ``(k,)`` and Δ² = k·⌊scale⌋².

    Raises:
        Misuse: ``table`` is not a matrix with columns, or the scale does not fit.
    """
    rows = np.array(table, dtype=np.float64)
    if rows.ndim != 2 or not rows.shape[1]:
        raise Misuse(f"bounded columns are a matrix, not an array of shape {rows.shape}")
    delta2 = bounded_delta2(rows.shape[1], scale)
    whole = math.floor(scale)
    if whole >= 1 << 31:
        raise Misuse("the scale of bounded columns leaves no room for a sum in 64 bits; use less than 2^31")
    report = LocalReport() if report is None else report
    broken = ~np.isfinite(rows).all(axis=1)
    rows[broken] = 0.0
    report.nonfinite += int(np.count_nonzero(broken))
    report.clamped += int(np.count_nonzero(np.abs(rows) > 1.0))
    np.clip(rows, -1.0, 1.0, out=rows)
    sums = np.trunc(rows * float(whole)).astype(np.int64).sum(axis=0, dtype=np.int64)
    return Contribution(sums, delta2, report=report)


def _round_rows(scaled: Float64Array, delta2: int, stream: Keystream, report: LocalReport) -> Int64Array:
    """Round each row until it passes the integer test; a row's tries look at that row alone."""
    out = round_at_random(scaled, stream)
    failed = np.flatnonzero(~within(out, delta2))
    for _ in range(TRIES - 1):
        if not failed.size:
            return out
        out[failed] = round_at_random(scaled[failed], stream)
        failed = failed[~within(out[failed], delta2)]
    out[failed] = np.trunc(scaled[failed]).astype(np.int64)
    report.unrounded += int(failed.size)
    over = failed[~within(out[failed], delta2)]
    out[over] = 0
    report.zeroed += int(over.size)
    return out
