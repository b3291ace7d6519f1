"""The integers of constructions, summed over batches of rows.

What one row contributes never depends on another: every step before a sum works on one row at a time, and every sum
is of integers that float64 or int64 holds exactly, in whatever order.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from threading import Lock, local

import numpy as np
import numpy.typing as npt

from privfl.dp import FactorTable, LocalReport
from privfl.dp.factors import MAX_REACH
from privfl.errors import Misuse
from privfl_analytics.constructions import (
    COUNT_SCALE,
    CROSS,
    DIAGONAL,
    OUTER_BITS,
    SQUARE,
    Axis,
    Construction,
    Gradient,
    Outer,
    Sums,
    Tally,
)
from privfl_analytics.local.batch import UNIT, Batch, Cells, Floats, Ints, Terms, Whole
from privfl_analytics.view import View

__all__ = ["Kernel", "Readers", "kernel_of"]

_LIMIT = (1 << 63) - 1
_ONE = 1 << OUTER_BITS
#: Rows of which all columns of an outer product are in the cache together.
_BLOCK = 1 << 12


def kernel_of(readers: Readers, asked: Construction) -> Kernel:
    """The kernel that sums a construction."""
    match asked:
        case Tally():
            return _Counts(readers, asked)
        case Sums():
            return _Terms(readers, asked)
        case Outer():
            return _Products(readers, asked)
        case Gradient():
            return _Gradients(readers, asked)
        case _:
            raise Misuse(f"{asked.kind} is no sum over rows")


class Readers:
    """What kernels of one study share: each axis prepared once, and looked at once per batch."""

    def __init__(self, view: View, report: LocalReport) -> None:
        self.view, self.report, self.lock = view, report, Lock()
        self._cells: dict[Axis, Cells] = {}

    def cells(self, axis: Axis) -> Cells:
        """The reader of an axis."""
        if axis not in self._cells:
            self._cells[axis] = Cells(self.view, axis)
        return self._cells[axis]


class Kernel:
    """Sums one construction; ``add`` may be called from several threads."""

    def __init__(self, readers: Readers, asked: Construction) -> None:
        self.view, self.report, self._lock = readers.view, readers.report, readers.lock
        self.shape = asked.shape(self.view)
        self.width = math.prod(asked.inner(self.view))
        self._by = [readers.cells(axis) for axis in asked.by]
        self.groups = math.prod(cells.size for cells in self._by)

    @abstractmethod
    def add(self, batch: Batch) -> None:
        """Count the rows of a batch in."""

    @abstractmethod
    def total(self) -> Ints:
        """The sum so far, of the construction's shape, saturated at ±(2^63 - 1)."""

    def stretches(self, batch: Batch) -> list[tuple[int, Batch]]:
        """(group, its rows) for every group that has any."""
        if not self._by:
            return [(0, batch)]
        place = _place(self._by, batch)
        counts = np.bincount(place, minlength=self.groups)
        return [(int(group), batch.where(place == group)) for group in np.flatnonzero(counts)]


def _place(axes: Sequence[Cells], batch: Batch) -> Whole:
    """The flat cell of several axes, at least one."""
    flat = axes[0].of(batch)
    for cells in axes[1:]:
        flat = flat * np.int64(cells.size) + cells.of(batch)
    return flat


class _Counts(Kernel):
    def __init__(self, readers: Readers, asked: Tally) -> None:
        super().__init__(readers, asked)
        self._axes = [*self._by, *(readers.cells(axis) for axis in asked.axes)]
        self._levels = asked.levels
        self._counts = np.zeros(math.prod(cells.size for cells in self._axes), dtype=np.int64)

    def add(self, batch: Batch) -> None:
        size = self._counts.size
        if len(self._axes) == 1:
            found: Ints = self._axes[0].counts(batch)
        elif not self._axes:
            found = np.array([batch.rows])
        else:
            place = _place(self._axes, batch)
            if size > 4 * batch.rows:
                with self._lock:
                    np.add.at(self._counts, place, 1)
                return
            found = np.bincount(place, minlength=size)
        with self._lock:
            self._counts += found

    def total(self) -> Ints:
        counts = self._counts
        if self._levels:
            bins = 1 << (self._levels - 1)
            leaves = counts.reshape(self.groups, bins + 2)
            runs = [leaves[:, :bins].reshape(self.groups, 1 << level, -1).sum(axis=2) for level in range(self._levels)]
            counts = np.concatenate([*runs, leaves[:, bins:]], axis=1)
        return counts.reshape(self.shape) * COUNT_SCALE


class _Terms(Kernel):
    def __init__(self, readers: Readers, asked: Sums) -> None:
        super().__init__(readers, asked)
        self._names = tuple(dict.fromkeys(asked.own_names()))
        self._terms = [Terms(self.view, term) for term in asked.terms]
        self._sums = np.zeros((self.groups, self.width), dtype=np.int64)

    def add(self, batch: Batch) -> None:
        rows = batch.complete(self._names)
        found = np.zeros((self.groups, self.width))
        place = _place(self._by, rows) if self._by else None
        for at, term in enumerate(self._terms):
            units = term.of(rows)
            if place is not None:
                one = np.bincount(place, units, minlength=self.groups)
                found[:, at] = one * UNIT if units is None else one
            else:
                found[0, at] = rows.rows * UNIT if units is None else units.sum()
        with self._lock:
            self._sums += found.astype(np.int64)

    def total(self) -> Ints:
        return self._sums.reshape(self.shape)


class _Products(Kernel):
    def __init__(self, readers: Readers, asked: Outer) -> None:
        super().__init__(readers, asked)
        frames = [(one.column, *one.frame(self.view)) for one in asked.columns]
        width = len(frames) + 1
        self._names, self._radius = [name for name, _, _ in frames], asked.radius
        self._centers = [center for _, center, _ in frames]
        self._halves = np.array([half for _, _, half in frames])[:, None]
        self._sums = np.zeros((self.groups, width, width), dtype=np.int64)
        self._short = np.zeros(self.groups, dtype=np.int64)
        self._own = local()  # each thread's z, which would else be taken from the system and given back every time

    def add(self, batch: Batch) -> None:
        for group, rows in self.stretches(batch):
            numbers = [rows.number(name) for name in self._names]
            found, short, broken = np.zeros(self._sums.shape[1:]), 0, 0
            for begin in range(0, rows.rows, _BLOCK):
                z, shortened, zeroed = self._rows([value[begin : begin + _BLOCK] for value in numbers])
                found += np.matmul(z, z.T)
                short += shortened
                broken += zeroed
            with self._lock:
                self._sums[group] += found.astype(np.int64)
                self._short[group] += short
                self.report.zeroed += broken

    def _rows(self, numbers: Sequence[Floats]) -> tuple[Floats, int, int]:
        """(z̃ with one row per column, zero where nothing counts; how many were shortened, and how many failed)."""
        if not hasattr(self._own, "z"):
            self._own.z = np.empty((len(numbers) + 1, _BLOCK))
        z: Floats = self._own.z[:, : numbers[0].size]
        z[0], x = _ONE, z[1:]
        for row, value, center in zip(x, numbers, self._centers, strict=True):
            np.subtract(value, center, out=row)
        with np.errstate(over="ignore"):
            x /= self._halves
            if self._radius != 1.0:
                x /= self._radius
            x *= _ONE
        np.rint(x, out=x)
        np.clip(x, -(2.0**20), 2.0**20, out=x)
        norm2 = np.einsum("ij,ij->j", x, x)
        flags, keep = norm2 > SQUARE, norm2 == norm2  # noqa: PLR0124 - NaN where a column is missing
        broken = 0
        if flags.any():
            with np.errstate(divide="ignore"):
                x *= np.where(flags, _ONE * (1.0 - 2.0**-40) / np.sqrt(norm2), 1.0)
            np.trunc(x, out=x)
            failed = np.einsum("ij,ij->j", x, x) > SQUARE
            if failed.any():
                flags &= ~failed
                keep &= ~failed
                broken = int(np.count_nonzero(failed))
        if not keep.all():
            z[:, np.flatnonzero(~keep)] = 0.0
        return z, int(np.count_nonzero(flags)), broken

    def total(self) -> Ints:
        width = self._sums.shape[1]
        upper = np.triu_indices(width)
        factors = np.where(upper[0] == upper[1], DIAGONAL, CROSS)
        products = self._sums[:, upper[0], upper[1]].astype(object) * factors
        flags = self._short.astype(object)[:, None] * (DIAGONAL * SQUARE // 2)
        return _saturated(np.concatenate([products, flags], axis=1)).reshape(self.shape)


class _Gradients(Kernel):
    def __init__(self, readers: Readers, asked: Gradient) -> None:
        super().__init__(readers, asked)
        self.asked, view, self._label = asked, self.view, Terms(self.view, asked.label)
        self._names = tuple(dict.fromkeys(asked.own_names()))
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
        for group, rows in self.stretches(batch.complete(self._names)):
            features = np.empty((rows.rows, len(self._frames) + 1))
            features[:, 0] = self._scale
            for at, (name, center, half) in enumerate(self._frames, 1):
                features[:, at] = np.rint((rows.number(name) - center) / half * self._scale)
            target = np.asarray(self._label.of(rows))
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
        return _saturated(self._sums).reshape(self.shape)


def _saturated(exact: npt.NDArray[np.object_]) -> Ints:
    """Python integers, saturated to int64."""
    return np.asarray(np.clip(exact, -_LIMIT, _LIMIT), dtype=np.int64)
