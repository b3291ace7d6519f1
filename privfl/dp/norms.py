"""Squared L2 norms in exact integers, and clipping in floats.

Clipping in float64 only aims; what holds the guarantee is the integer test after rounding.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from privfl.dp.contribution import Float64Array, Int64Array
from privfl.errors import Misuse

__all__ = ["clip_rows", "squared_norms", "within"]

_LIMB = 21
_CHUNK = 1 << 20  # coordinates; 2^20 products of two 21-bit limbs stay below 2^62


def squared_norms(rows: Int64Array) -> list[int]:
    """Exact squared L2 norms of the rows of an int64 matrix, as Python integers.

    Raises:
        Misuse: a magnitude of 2^62 or more, which no construction makes.
    """
    if _short(rows):
        return [int(value) for value in np.einsum("ij,ij->i", rows, rows)]
    totals = [0] * rows.shape[0]
    for begin in range(0, rows.shape[1], _CHUNK):
        part = np.abs(rows[:, begin : begin + _CHUNK])
        limbs = [(part >> (_LIMB * place)) & ((1 << _LIMB) - 1) for place in range(3)]
        for i, left in enumerate(limbs):
            for j, right in enumerate(limbs):
                for row, value in enumerate(np.einsum("ij,ij->i", left, right)):
                    totals[row] += int(value) << (_LIMB * (i + j))
    return totals


def within(rows: Int64Array, delta2: int) -> npt.NDArray[np.bool_]:
    """Which rows have ‖row‖² ≤ delta2, in exact integers; shape ``(n,)``."""
    if _short(rows):
        short: npt.NDArray[np.bool_] = np.einsum("ij,ij->i", rows, rows) <= min(delta2, (1 << 63) - 1)
        return short
    return np.array([norm2 <= delta2 for norm2 in squared_norms(rows)], dtype=np.bool_)


def _short(rows: Int64Array) -> bool:
    """Whether every squared norm fits int64 for sure."""
    largest = max(int(rows.max()), -int(rows.min())) if rows.size else 0
    if largest >= 1 << 62:
        raise Misuse("a contribution has a coordinate of 2^62 or more; lower the scale")
    return largest * largest * int(rows.shape[1]) < 1 << 63


def clip_rows(rows: Float64Array, clip: float) -> tuple[Float64Array, int]:
    """Scale each row to L2 norm at most ``clip``, up to round-off; rows with NaN or infinity become zero.

    Args:
        rows: shape ``(n, d)``.
        clip: positive and finite.

    Returns:
        A fresh array, and the number of rows that were not finite (for the site's own log).
    """
    out = np.array(rows, dtype=np.float64, order="C")
    largest = np.max(np.abs(out), axis=1, initial=0.0)
    broken = ~np.isfinite(largest)
    out[broken] = 0.0
    # Rows whose squares could overflow are brought to unit size first; direction is all that is left.
    huge = ~broken & (largest > 1e100)
    out[huge] *= (clip / largest[huge])[:, None]
    norms = np.sqrt(np.einsum("ij,ij->i", out, out))
    over = norms > clip
    out[over] *= (clip / norms[over])[:, None]
    return out, int(np.count_nonzero(broken))
