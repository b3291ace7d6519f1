"""The integers of constructions, summed over batches of rows.

What one row contributes never depends on another: every step before a sum works on one row at a time, and every sum
is of integers that float64 or int64 holds exactly, in whatever order.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from threading import Lock

import numpy as np

from privfl.dp import FactorTable, LocalReport
from privfl.dp.factors import MAX_REACH
from privfl.errors import Misuse
from privfl_analytics.constructions import (
    COUNT_SCALE,
    CROSS,
    DIAGONAL,
    OUTER_BITS,
    SQUARE,
    VALUE_BITS,
    Axis,
    Construction,
    Gradient,
    Is,
    Linear,
    One,
    Outer,
    Square,
    SquaredError,
    Sums,
    Tally,
    Term,
)
from privfl_analytics.local.batch import UNIT, Batch, Floats, Ints
from privfl_analytics.view import View

__all__ = ["Kernel", "kernel_of"]

_LIMIT = (1 << 63) - 1
_ONE = 1 << OUTER_BITS


def kernel_of(view: View, asked: Construction, report: LocalReport) -> Kernel:
    """The kernel that sums a construction."""
    match asked:
        case Tally():
            return _Counts(view, asked, report)
        case Sums():
            return _Terms(view, asked, report)
        case Outer():
            return _Products(view, asked, report)
        case Gradient():
            return _Gradients(view, asked, report)
        case _:
            raise Misuse(f"{asked.kind} is no sum over rows")


class Kernel:
    """Sums one construction; ``add`` may be called from several threads."""

    def __init__(self, view: View, asked: Construction, report: LocalReport) -> None:
        self.view, self.asked, self.report, self._lock = view, asked, report, Lock()
        self.groups = math.prod(len(axis.labels(view)) for axis in asked.by)
        self.width = math.prod(asked.inner(view))

    @abstractmethod
    def add(self, batch: Batch) -> None:
        """Count the rows of a batch in."""

    @abstractmethod
    def total(self) -> Ints:
        """The sum so far, of the construction's shape, saturated at ±(2^63 - 1)."""

    def stretches(self, batch: Batch, by: tuple[Axis, ...]) -> list[tuple[int, Batch]]:
        """(group, its rows) for every group that has any."""
        if not by:
            return [(0, batch)]
        place, size = batch.place(by)
        counts = np.bincount(place, minlength=size)
        return [(int(group), batch.where(place == group)) for group in np.flatnonzero(counts)]


class _Counts(Kernel):
    asked: Tally

    def __init__(self, view: View, asked: Tally, report: LocalReport) -> None:
        super().__init__(view, asked, report)
        axes = (*asked.by, *asked.axes)
        self._counts = np.zeros(math.prod(len(axis.labels(view)) for axis in axes), dtype=np.int64)

    def add(self, batch: Batch) -> None:
        axes = (*self.asked.by, *self.asked.axes)
        if not axes:
            with self._lock:
                self._counts[0] += batch.rows
            return
        place, size = batch.place(axes)
        if size <= 4 * batch.rows:
            found = np.bincount(place, minlength=size)
            with self._lock:
                self._counts += found
        else:
            with self._lock:
                np.add.at(self._counts, place, 1)

    def total(self) -> Ints:
        counts = self._counts
        if self.asked.levels:
            bins = 1 << (self.asked.levels - 1)
            leaves = counts.reshape(self.groups, bins + 2)
            runs = [
                leaves[:, :bins].reshape(self.groups, 1 << level, -1).sum(axis=2) for level in range(self.asked.levels)
            ]
            counts = np.concatenate([*runs, leaves[:, bins:]], axis=1)
        return counts.reshape(self.asked.shape(self.view)) * COUNT_SCALE


class _Terms(Kernel):
    asked: Sums

    def __init__(self, view: View, asked: Sums, report: LocalReport) -> None:
        super().__init__(view, asked, report)
        self._sums = np.zeros((self.groups, self.width), dtype=np.int64)

    def add(self, batch: Batch) -> None:
        mask = batch.present(self.asked.own_names())
        place = batch.place(self.asked.by)[0] if self.asked.by else None
        if place is not None and mask is not None:
            place = place[mask]
        found = np.zeros((self.groups, self.width))
        rows = batch.rows if mask is None else int(np.count_nonzero(mask))
        for at, term in enumerate(self.asked.terms):
            if place is None and isinstance(term, One):
                found[0, at] = rows * UNIT
                continue
            units = _units(batch, term)
            units = units if mask is None else units[mask]
            found[:, at] = units.sum() if place is None else np.bincount(place, units, minlength=self.groups)
        with self._lock:
            self._sums += found.astype(np.int64)

    def total(self) -> Ints:
        return self._sums.reshape(self.asked.shape(self.view))


def _units(batch: Batch, term: Term) -> Floats:
    """A term in units of 2^-VALUE_BITS: float64 that holds integers, NaN where a column is missing."""
    match term:
        case One():
            return np.full(batch.rows, float(UNIT))
        case Square():
            return batch.kept(term, lambda: _square(batch.units(term)))
        case Linear():
            return batch.units(term)
        case Is():
            return batch.indicator(term)
        case SquaredError():
            gap = np.rint(batch.number(term.column) * UNIT) - batch.indicator(term.label)
            return np.floor(gap * gap * 2.0**-VALUE_BITS)


def _square(t: Floats) -> Floats:
    out = t * t
    out *= 2.0 ** (1 - VALUE_BITS)
    np.floor(out, out=out)
    out -= UNIT
    return out


class _Products(Kernel):
    asked: Outer

    def __init__(self, view: View, asked: Outer, report: LocalReport) -> None:
        super().__init__(view, asked, report)
        width = len(asked.columns) + 1
        self._frames = [(one.column, *one.frame(view)) for one in asked.columns]
        self._sums = np.zeros((self.groups, width, width), dtype=np.int64)
        self._short = np.zeros(self.groups, dtype=np.int64)

    def add(self, batch: Batch) -> None:
        for group, rows in self.stretches(batch, self.asked.by):
            z, short = self._rows(rows)
            found = np.matmul(z, z.T).astype(np.int64)
            with self._lock:
                self._sums[group] += found
                self._short[group] += short

    def _rows(self, batch: Batch) -> tuple[Floats, int]:
        """(z̃ with one row per column, zero where nothing counts; how many were shortened)."""
        z = np.empty((len(self._frames) + 1, batch.rows))
        norm2 = np.zeros(batch.rows)
        for row, (name, center, half) in zip(z[1:], self._frames, strict=True):
            np.subtract(batch.number(name), center, out=row)
            with np.errstate(over="ignore"):
                row /= half
                row /= self.asked.radius
                row *= _ONE
            np.rint(row, out=row)
            np.clip(row, -(2.0**20), 2.0**20, out=row)
            norm2 += row * row
        z[0] = _ONE
        flags = norm2 > SQUARE
        keep = norm2 == norm2  # noqa: PLR0124 - NaN where a column is missing
        if flags.any():
            with np.errstate(divide="ignore"):
                factor = np.where(flags, _ONE * (1.0 - 2.0**-40) / np.sqrt(norm2), 1.0)
            after = np.zeros(batch.rows)
            for row in z[1:]:
                row *= factor
                np.trunc(row, out=row)
                after += row * row
            broken = after > SQUARE
            if broken.any():
                flags &= ~broken
                keep &= ~broken
                with self._lock:
                    self.report.zeroed += int(np.count_nonzero(broken))
        return (z if keep.all() else z[:, keep]), int(np.count_nonzero(flags))

    def total(self) -> Ints:
        width = self._sums.shape[1]
        upper = np.triu_indices(width)
        factors = np.where(upper[0] == upper[1], DIAGONAL, CROSS)
        products = self._sums[:, upper[0], upper[1]].astype(object) * factors
        flags = self._short.astype(object)[:, None] * (DIAGONAL * SQUARE // 2)
        return _saturated(np.concatenate([products, flags], axis=1)).reshape(self.asked.shape(self.view))


class _Gradients(Kernel):
    asked: Gradient

    def __init__(self, view: View, asked: Gradient, report: LocalReport) -> None:
        super().__init__(view, asked, report)
        scale = 1 << asked.feature_bits
        self._frames, reach = [], [float(scale)]
        for one in asked.columns:
            center, half = one.frame(view)
            bounds = view.numeric(one.column)
            self._frames.append((one.column, center, half))
            with np.errstate(over="ignore"):
                reach.append(
                    float(np.rint(np.float64(max(bounds.upper - center, center - bounds.lower)) / half * scale))
                )
        self._reach, self._scale = np.array(reach), float(scale)
        self._beta = np.array(asked.beta or [0.0] * len(reach))[:, None]
        self._sums = np.zeros((self.groups, self.width), dtype=object)
        bound = asked.reach(view)
        # Here, from public numbers, and not where a row would decide it.
        if not self._reach.sum() <= MAX_REACH or bound >= 1 << 53:
            raise Misuse("the features or the clip of this model leave no room below 2^53; use fewer bits")
        self._step = max(1, ((1 << 62) - 1) // (bound + 1))  # so that no block saturates

    def add(self, batch: Batch) -> None:
        names = tuple(one.column for one in self.asked.columns)
        mask = batch.present((*names, *self.asked.label.names()))
        batch = batch if mask is None else batch.where(mask)
        for group, rows in self.stretches(batch, self.asked.by):
            features = np.empty((rows.rows, len(self._frames) + 1))
            features[:, 0] = self._scale
            for at, (name, center, half) in enumerate(self._frames, 1):
                features[:, at] = np.rint((rows.number(name) - center) / half * self._scale)
            target = _units(rows, self.asked.label)
            for begin in range(0, rows.rows, self._step):
                self._block(group, features[begin : begin + self._step], target[begin : begin + self._step])

    def _block(self, group: int, features: Floats, target: Floats) -> None:
        table, report = FactorTable(features, self.asked.feature_bits), LocalReport()
        with np.errstate(all="ignore"):
            eta = table.predictors(self._beta, self._reach)[:, 0]
            if self.asked.link == "identity":
                mean = eta
            elif self.asked.link == "logistic":
                mean = 0.5 * (1 + np.tanh(0.5 * eta))
            else:
                mean = np.exp(eta)
            residual = mean - target / UNIT
        found = table.gradient(residual, self.asked.clip, self.asked.residual_bits, report=report)
        with self._lock:
            self._sums[group] += found.vector[:, 0]
            self.report.nonfinite += report.nonfinite
            self.report.zeroed += report.zeroed

    def total(self) -> Ints:
        return _saturated(self._sums).reshape(self.asked.shape(self.view))


def _saturated(exact: np.ndarray) -> Ints:  # type: ignore[type-arg]
    """Python integers, saturated to int64."""
    return np.clip(exact, -_LIMIT, _LIMIT).astype(np.int64)
