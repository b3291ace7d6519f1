"""Construction F: sums of outer products x̃ᵢ r̃ᵢᵀ, clipped per record, exact in integers, at BLAS speed.

Gradients of generalised linear models, moments and covariances are sums of such factors. The squared
L2 norm of one is N·‖r̃‖² with N = ‖x̃‖², so a record is clipped through its short residual alone:

    r̃ = trunc(a·ρ),  a = min(2^c, (1 - 2^-40)·Δ/(√N·‖ρ‖)),  Δ = C·2^(b+c),

kept if ‖r̃‖²·N ≤ Δ² in exact integers, zero otherwise. Then every coordinate of every factor is at
most Δ in magnitude, any partial sum over at most 2^53/Δ records is an integer below 2^53, and float64
matrix products are exact whatever their order. Larger tables are cut into blocks of rows.

What a record contributes must depend on that record alone. A float matrix product breaks this: BLAS rounds a
row by where it stands and by how many rows there are. Predictions therefore come from
:meth:`FactorTable.predictors`, in integers; after it only steps that look at one row at a time follow.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from privfl.dp.contribution import Contribution, Float64Array, Int64Array, LocalReport
from privfl.dp.sizing import factor_delta2
from privfl.errors import Misuse

__all__ = ["MAX_REACH", "FactorTable", "factor_gradient"]

#: Most that the largest features of all columns may add up to, in units of 2^-feature_bits: see ``predictors``.
MAX_REACH = 1 << 50
_EXACT = 1 << 53
_CACHE_ROWS = 1 << 13
_AIM = 1.0 - 2.0**-40


class FactorTable:
    """A site's fixed-point features, prepared once and used every round.

    Args:
        features: X̃, shape ``(n, d)``, integers in units of 2^-feature_bits (int64, or float64 that holds
            integers), as :func:`privfl.ring.quantise_columns` makes them.
        feature_bits: b.

    Raises:
        Misuse: wrong shape or type, or float64 features that are not integers below 2^53.
    """

    __slots__ = ("_features", "_inverse_roots", "_norms2", "feature_bits")

    def __init__(self, features: Int64Array | Float64Array, feature_bits: int) -> None:
        if features.ndim != 2 or features.dtype not in (np.int64, np.float64):
            raise Misuse("features are a matrix of int64, or of float64 that holds integers; quantise them first")
        held = np.array(features, dtype=np.float64, order="C")
        if held.size and not (np.all(np.abs(held) < _EXACT) and np.array_equal(held, np.rint(held))):
            raise Misuse("features must be integers below 2^53; quantise them with the columns' public bounds")
        self.feature_bits = feature_bits
        self._features = held
        # Off by d·2^-53 of itself where it is not exact; the test below allows for that.
        self._norms2 = np.einsum("ij,ij->i", held, held)
        with np.errstate(divide="ignore"):
            self._inverse_roots = np.where(self._norms2 > 0, 1.0 / np.sqrt(self._norms2), 0.0)

    def __repr__(self) -> str:
        return f"FactorTable(columns={self._features.shape[1]}, <redacted>)"

    def predictors(self, params: Float64Array, reach: Float64Array) -> Float64Array:
        """X·p, each row's by itself: no bit of a row's result depends on other rows or on their number.

        A model whose terms cancel would turn the rounding of a float product into any number at all, and one
        record more would move the contributions of others. Here the parameters are first rounded to a grid
        that depends on public numbers only and on which every partial sum is an integer below 2^53.

        Args:
            params: public and finite, shape ``(d, k)``, in units of one feature.
            reach: for every column the largest magnitude that public bounds allow its features, shape ``(d,)``,
                integers in units of 2^-feature_bits.

        Returns:
            float64 ``[n, k]``; infinite where a prediction overflows. Parameters keep at least 52 bits less
            those of Σ reach, relative to the largest.

        Raises:
            Misuse: shapes differ, parameters are not finite, or Σ reach is above 2^50.
        """
        columns = self._features.shape[1]
        if params.ndim != 2 or params.shape[0] != columns or reach.shape != (columns,):
            raise Misuse(f"parameters of shape {params.shape} do not belong to {columns} feature columns")
        if not np.isfinite(params).all() or not reach.sum() <= MAX_REACH:
            raise Misuse("predictions need finite parameters and features that leave room below 2^53; use fewer bits")
        used = np.where(reach[:, None] > 0, params, 0.0)
        largest = float(np.max(np.abs(used), initial=0.0))
        if largest == 0.0:
            return np.zeros((self._features.shape[0], params.shape[1]))
        used /= largest
        load = float((reach[:, None] * np.abs(used)).sum(axis=0).max())  # between 1 and 2^50
        exponent = 52 - math.frexp(load)[1]
        # At most 2^52, and half a unit of rounding for each unit of reach: below 2^53.
        whole = np.matmul(self._features, np.rint(np.ldexp(used, exponent)))
        with np.errstate(over="ignore"):
            out: Float64Array = np.ldexp(whole, -exponent - self.feature_bits) * largest
        return out

    def gradient(
        self, residuals: npt.ArrayLike, clip: float, residual_bits: int, *, report: LocalReport | None = None
    ) -> Contribution:
        """The exact sum of the clipped factors.

        Args:
            residuals: ρ, shape ``(n,)`` or ``(n, k)``; a row with NaN or infinity contributes zero.
            clip: C, L2 norm of one record's factor in the unit of feature × residual.
            residual_bits: c, fractional bits of an unclipped residual.
            report: local counts to add to.

        Returns:
            int64 of shape ``(d, k)`` in units of 2^-(b+c), and Δ².

        Raises:
            Misuse: shapes differ, or Δ is so large that not even one record is exact.
        """
        rho = np.asarray(residuals, dtype=np.float64)
        rho = rho[:, None] if rho.ndim == 1 else rho
        rows, columns = self._features.shape
        if rho.ndim != 2 or rho.shape[0] != rows:
            raise Misuse(f"residuals of shape {rho.shape} do not belong to these features; one row per record")
        delta2 = factor_delta2(clip, self.feature_bits, residual_bits)
        bound = math.isqrt(delta2)
        step = min(_CACHE_ROWS, _EXACT // (bound + 1))
        if step < 1:
            raise Misuse(f"a clip of {clip:g} at {self.feature_bits}+{residual_bits} bits passes 2^53; use fewer bits")
        report = LocalReport() if report is None else report
        total = np.zeros((columns, rho.shape[1]), dtype=np.int64)
        # Below 2^62 int64 cannot overflow. A table beyond that goes on in Python integers, and the exact
        # sum is then saturated, which changes no coordinate's sensitivity; wrapping would.
        wide = rows * (bound + 1) >= 1 << 62
        exact = total.astype(object) if wide else total
        for begin in range(0, rows, step):
            part = slice(begin, begin + step)
            kept = self._clip_residuals(part, rho[part], delta2, residual_bits, report)
            exact += np.matmul(self._features[part].T, kept).astype(np.int64)
        if wide:
            exact = np.clip(exact, -(2**63 - 1), 2**63 - 1).astype(np.int64)
        return Contribution(exact, delta2, report=report)

    def _clip_residuals(
        self, part: slice, rho: Float64Array, delta2: int, residual_bits: int, report: LocalReport
    ) -> Float64Array:
        """R̃ of a block of rows: float64 that holds integers; every row passes the integer test."""
        norms2, inverse = self._norms2[part], self._inverse_roots[part]
        # NaN and infinity are met here on purpose and become zero rows below.
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            lengths2 = np.einsum("ij,ij->i", rho, rho)
            factor = (_AIM * math.sqrt(delta2)) * inverse / np.sqrt(lengths2)
            factor = np.fmin(factor, 2.0**residual_bits)
            kept: Float64Array = rho * factor[:, None]
        np.trunc(kept, out=kept)
        # A record without features, or whose residual's square overflows, adds nothing either.
        broken = ~np.isfinite(lengths2)
        report.nonfinite += int(np.count_nonzero(broken))
        kept[broken | (norms2 == 0)] = 0.0
        self._zero_failures(part, kept, delta2, report)
        return kept

    def _zero_failures(self, part: slice, kept: Float64Array, delta2: int, report: LocalReport) -> None:
        """Zero the rows with ‖r̃‖²·N > Δ²; in place.

        A product of float sums of squares that stays below Δ² by more than all their round-off proves the
        integer inequality; aiming 2^-40 low makes that the rule. What is left is decided in integers.
        """
        slack = (kept.shape[1] + self._features.shape[1] + 16) * 2.0**-52
        with np.errstate(over="ignore"):
            products = np.einsum("ij,ij->i", kept, kept) * self._norms2[part]
        for row in np.flatnonzero(~(products <= float(delta2) * (1.0 - slack))):
            features = [int(value) for value in self._features[part.start + row]]
            residual = [int(value) for value in kept[row]]
            if sum(x * x for x in features) * sum(r * r for r in residual) > delta2:
                kept[row] = 0.0
                report.zeroed += 1


def factor_gradient(
    features: Int64Array | Float64Array,
    residuals: npt.ArrayLike,
    clip: float,
    feature_bits: int,
    residual_bits: int,
    *,
    report: LocalReport | None = None,
) -> Contribution:
    """:meth:`FactorTable.gradient` for a table that is used once; the same arguments and errors."""
    return FactorTable(features, feature_bits).gradient(residuals, clip, residual_bits, report=report)
