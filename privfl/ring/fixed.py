"""Fixed-point numbers: from a table's columns to integers, by public constants alone.

A column is declared with bounds, a center and a scale (a reference range, say); none of them may be
computed from the rows. A value is clamped to the bounds, moved by the center, divided by the scale
and rounded to a multiple of 2^-bits. Each cell is looked at alone, so a row's integers do not depend
on any other row.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from privfl.errors import Misuse
from privfl.ring.words import Int64Array

__all__ = ["Column", "Quantised", "dequantise", "quantise", "quantise_columns"]

# Integers up to here are exact in float64, where the products over them are formed.
_EXACT = 1 << 53


@dataclass(frozen=True, slots=True)
class Column:
    """Public constants of one column.

    Args:
        lower, upper: bounds in the column's own unit; values outside are clamped.
        center, scale: the value that becomes 0 and the distance that becomes 1.

    Raises:
        Misuse: a constant is not finite, the bounds are not in order, or the scale is not positive.
    """

    lower: float
    upper: float
    center: float = 0.0
    scale: float = 1.0

    def __post_init__(self) -> None:
        if not all(map(math.isfinite, (self.lower, self.upper, self.center, self.scale))):
            raise Misuse("a column's bounds, center and scale must be finite; declare reference values")
        if self.lower > self.upper or self.scale <= 0:
            raise Misuse("a column needs lower <= upper and a positive scale")

    @property
    def reach(self) -> float:
        """The largest magnitude after centering and scaling."""
        return max(abs(self.lower - self.center), abs(self.upper - self.center)) / self.scale


@dataclass(frozen=True, slots=True, repr=False)
class Quantised:
    """A quantised table and, for the site's own log only, how many cells were not plain values."""

    values: Int64Array
    missing: int
    clamped: int

    def __repr__(self) -> str:
        return f"Quantised(columns={self.values.shape[-1]}, <redacted>)"


def quantise_columns(table: npt.ArrayLike, columns: Sequence[Column], bits: int) -> Quantised:
    """Clamp, center, scale and round a table to multiples of 2^-bits.

    NaN becomes 0, which is the column's center; infinities are clamped like any value out of bounds.

    Args:
        table: shape ``(n, d)``, real numbers.
        columns: the d columns' public constants.
        bits: fractional bits, 0 to 52.

    Returns:
        int64 values of shape ``(n, d)``, each at most ⌈reach·2^bits⌉ in magnitude, and the two counts.

    Raises:
        Misuse: shapes differ, or a column's reach at ``bits`` bits is not exact in float64.
    """
    cells = np.array(table, dtype=np.float64)
    if cells.ndim != 2 or cells.shape[1] != len(columns):
        raise Misuse(f"a table of shape {cells.shape} does not have the {len(columns)} declared columns")
    _check_bits(bits)
    if any(column.reach * 2.0**bits >= _EXACT for column in columns):
        raise Misuse(f"a column's bounds do not fit {bits} fractional bits; declare fewer bits or a larger scale")
    lower = np.array([column.lower for column in columns])
    upper = np.array([column.upper for column in columns])
    absent = np.isnan(cells)
    clamped = int(np.count_nonzero((cells < lower) | (cells > upper)))
    np.clip(cells, lower, upper, out=cells)
    cells -= np.array([column.center for column in columns])
    cells /= np.array([column.scale for column in columns])
    cells[absent] = 0.0
    return Quantised(np.rint(cells * 2.0**bits).astype(np.int64), int(np.count_nonzero(absent)), clamped)


def quantise(values: npt.ArrayLike, bits: int) -> Int64Array:
    """Round public constants (bounds, thresholds, start weights) to multiples of 2^-bits; any shape.

    Raises:
        Misuse: a value is not finite or not exact in int64 at ``bits`` bits.
    """
    _check_bits(bits)
    scaled = np.asarray(values, dtype=np.float64) * 2.0**bits
    if not np.all(np.abs(scaled) < _EXACT):
        raise Misuse(f"a value is not finite or does not fit {bits} fractional bits")
    return np.rint(scaled).astype(np.int64)


def dequantise(values: Int64Array, bits: int) -> npt.NDArray[np.float64]:
    """Integers in units of 2^-bits as float64; the same shape.

    Raises:
        Misuse: ``values`` is not int64.
    """
    if values.dtype != np.int64:
        raise Misuse(f"fixed-point numbers are int64, not {values.dtype}")
    return values.astype(np.float64) * 2.0**-bits


def _check_bits(bits: int) -> None:
    if not 0 <= bits <= 52:
        raise Misuse(f"{bits} fractional bits are not offered; use 0 to 52")
