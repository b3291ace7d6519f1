"""A stretch of rows as numpy arrays, and the cells and numbers that constructions need of them.

Every function here looks at one row at a time; what several constructions share is computed once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt

from privfl.tasks import Category, Numeric
from privfl_analytics.constructions import (
    VALUE_BITS,
    Axis,
    Bins,
    Classes,
    Is,
    Linear,
    Meets,
    One,
    Prefixes,
    Presence,
    Square,
    SquaredError,
    Term,
)
from privfl_analytics.view import Score, View

__all__ = ["UNIT", "Batch", "Cells", "Floats", "Ints", "Space", "Terms", "score_of"]

Floats: TypeAlias = npt.NDArray[np.float64]
Ints: TypeAlias = npt.NDArray[np.int64]
Whole: TypeAlias = npt.NDArray[np.signedinteger[Any]]
T = TypeVar("T")

UNIT = 1 << VALUE_BITS
#: How near to an edge, in bins, the bin is looked up instead of computed.
_NEAR = 2.0**-20
#: Below it, dividing by a power of two could round.
_NORMAL = 2.0**-900


def score_of(score: Score, values: Callable[[str], Floats]) -> Floats:
    """A score, NaN where one of its columns is missing; ``values`` gives clamped numbers, NaN for missing."""
    with np.errstate(all="ignore"):
        total: Floats = np.float64(score.intercept)  # type: ignore[assignment]
        for name, weight in score.weights.items():
            total = total + weight * values(name)
        if score.link == "logistic":
            total = 1.0 / (1.0 + np.exp(-total))
        elif score.link == "exp":
            total = np.exp(total)
        return np.clip(total, score.lower, score.upper)


class Space:
    """Arrays that one thread uses again for every batch, as taking them from the system costs more than filling them.

    ``mark`` and ``back`` give back what was taken in between.
    """

    def __init__(self) -> None:
        self._held: list[Floats] = []
        self._used = 0

    def floats(self, rows: int) -> Floats:
        """An array of so many rows with anything in it, until the space goes back."""
        if self._used == len(self._held) or self._held[self._used].size < rows:
            self._held[self._used : self._used + 1] = [np.empty(rows)]
        self._used += 1
        return self._held[self._used - 1][:rows]

    def mark(self) -> int:
        """Where the space stands."""
        return self._used

    def back(self, mark: int = 0) -> None:
        """Give back what was taken since a mark."""
        self._used = mark


class Batch:
    """Rows under the names that the schema and the study give to columns.

    Args:
        view: what is declared.
        rows: how many.
        columns: declared name → float64 with NaN for missing (not clamped), codes, or for text 1 where it is missing;
            axes that SQL computed under the axis itself.
        space: of the thread; what a batch has made is lost with it.
    """

    __slots__ = ("_columns", "_kept", "rows", "space", "view")

    def __init__(self, view: View, rows: int, columns: Mapping[object, npt.NDArray[Any]], space: Space) -> None:
        self.view, self.rows, self._columns, self.space = view, rows, columns, space
        self._kept: dict[object, Any] = {}

    def where(self, mask: npt.NDArray[np.bool_]) -> Batch:
        """The rows of a mask; columns are copied when they are asked for."""
        return Batch(self.view, int(np.count_nonzero(mask)), _Selected(self._columns, mask), self.space)

    def complete(self, names: tuple[str, ...]) -> Batch:
        """The rows that have every one of some columns (of a category, a declared class)."""
        key = ("complete", names)
        if key not in self._kept:
            masks = [mask for name in names if (mask := self._has(name)) is not None]
            self._kept[key] = self.where(np.logical_and.reduce(masks)) if masks else self
        found: Batch = self._kept[key]
        return found

    def _has(self, name: str) -> npt.NDArray[np.bool_] | None:
        """Rows that have a value; None for all of them."""
        key = ("has", name)
        if key not in self._kept:
            column = self.view.columns[name]
            if isinstance(column, Category):
                mask = self._columns[name] < len(column.classes)
            else:
                value = self.number(name)
                mask = value == value  # noqa: PLR0124 - NaN alone differs from itself
            self._kept[key] = None if mask.all() else mask
        found: npt.NDArray[np.bool_] | None = self._kept[key]
        return found

    def column(self, key: object) -> npt.NDArray[Any]:
        """A column as it was read."""
        return self._columns[key]

    def number(self, name: str) -> Floats:
        """A number or score, clamped to its bounds; NaN where missing."""
        if name not in self._kept:
            self._kept[name] = self._number(name)
        found: Floats = self._kept[name]
        return found

    def _number(self, name: str) -> Floats:
        column = self.view.schema.columns.get(name)
        if isinstance(column, Numeric):
            out = self.space.floats(self.rows)
            return np.clip(self._columns[name], column.lower, column.upper, out=out)
        score = next(one for one in self.view.scores if one.name == name)
        return np.broadcast_to(score_of(score, self.number), (self.rows,))

    def missing(self, name: str) -> npt.NDArray[np.bool_]:
        """Rows in which the value is missing; an undeclared class is not."""
        column = self.view.columns[name]
        if isinstance(column, Category):
            return np.asarray(self._columns[name] == len(column.classes) + 1)
        if isinstance(column, Numeric):
            return np.isnan(self.number(name))
        return np.asarray(self._columns[name] != 0)

    def kept(self, key: object, make: Callable[[Batch], T]) -> T:
        """What ``make`` returns for this batch, computed once."""
        if key not in self._kept:
            self._kept[key] = make(self)
        found: T = self._kept[key]
        return found


class _Selected(Mapping[object, npt.NDArray[Any]]):
    """Columns of the rows of a mask, each copied once and only if asked for."""

    def __init__(self, columns: Mapping[object, npt.NDArray[Any]], mask: npt.NDArray[np.bool_]) -> None:
        self._columns, self._mask = columns, mask
        self._made: dict[object, npt.NDArray[Any]] = {}

    def __getitem__(self, key: object) -> npt.NDArray[Any]:
        if key not in self._made:
            self._made[key] = self._columns[key][self._mask]
        return self._made[key]

    def __iter__(self) -> Any:
        return iter(self._columns)

    def __len__(self) -> int:
        return len(self._columns)


class Cells:
    """The cell of an axis that each row is in, of any signed integer type; prepared once for a study."""

    def __init__(self, view: View, axis: Axis) -> None:
        self.axis, self.size = axis, len(axis.labels(view))
        if isinstance(axis, Bins):
            column = view.numeric(axis.column)
            self._edges = np.array(axis.edges, dtype=np.float64)
            self._inverse = _even(self._edges)
            self._beyond = self._edges[0] > column.lower or self._edges[-1] < column.upper

    def of(self, batch: Batch) -> Whole:
        """The cells of a batch's rows."""
        axis = self.axis
        if isinstance(axis, Classes):
            return batch.column(axis.column)
        if isinstance(axis, Meets | Prefixes):
            return batch.column(axis)
        made: Whole = batch.kept(self, self._bins if isinstance(axis, Bins) else self._presence)
        return made

    def counts(self, batch: Batch) -> Ints:
        """How many rows of a batch are in each cell."""
        axis = self.axis
        if isinstance(axis, Presence):
            missing = int(np.count_nonzero(batch.missing(axis.column)))
            return np.array([batch.rows - missing, missing])
        if not isinstance(axis, Bins):
            return np.bincount(self.of(batch), minlength=self.size)
        rows = batch.complete((axis.column,))
        found = np.bincount(self.of(rows), minlength=self.size)
        found[-1] = batch.rows - rows.rows
        return found

    def _presence(self, batch: Batch) -> Whole:
        found: Whole = batch.missing(self.axis.column).view(np.int8)  # type: ignore[union-attr]
        return found

    def _bins(self, batch: Batch) -> Whole:
        value, bins = batch.number(self.axis.column), self.size - 2  # type: ignore[union-attr]
        missing = np.isnan(value)
        some = bool(missing.any())
        filled = np.where(missing, self._edges[0], value) if some else value
        if self._beyond:
            outside = (filled < self._edges[0]) | (filled > self._edges[-1])
            filled = np.where(outside, self._edges[0], filled)
        if self._inverse is None:
            found = np.searchsorted(self._edges, filled, side="right") - 1
        else:
            found = self._computed(filled, batch.space)
        np.minimum(found, bins - 1, out=found)
        if self._beyond:
            found[outside] = bins
        if some:
            found[missing] = bins + 1
        return found

    def _computed(self, value: Floats, space: Space) -> Whole:
        """Bins by arithmetic, looked up where rounding could matter."""
        found = space.floats(value.size).view(np.int64)
        mark = space.mark()
        at = np.subtract(value, self._edges[0], out=space.floats(value.size))
        at *= self._inverse
        np.copyto(found, at, casting="unsafe")
        at -= np.rint(at, out=space.floats(value.size))
        np.abs(at, out=at)
        if at.min(initial=1.0) < _NEAR:
            near = np.flatnonzero(at < _NEAR)
            found[near] = np.searchsorted(self._edges, value[near], side="right") - 1
        space.back(mark)
        return found


def _even(edges: Floats) -> float | None:
    """Bins per unit where all are of one width but for rounding, else None."""
    bins = len(edges) - 1
    with np.errstate(all="ignore"):
        inverse = float(bins / (edges[-1] - edges[0]))
        even = np.abs((edges - edges[0]) * inverse - np.arange(bins + 1)) < _NEAR / 4
    return inverse if np.isfinite(inverse) and inverse > 0 and bins < 1 << 16 and even.all() else None


class Terms:
    """A term's integers, in units of 2^-VALUE_BITS, for rows that have its columns: float64 that holds integers."""

    def __init__(self, view: View, term: Term) -> None:
        self.term = term
        if isinstance(term, Linear):
            column = view.numeric(term.column)
            center, half = term.frame(view)
            self._frame = (center, half)
            # The same quotient as (x - center)/half·2^VALUE_BITS: powers of two do not round.
            self._step = half / UNIT
            with np.errstate(over="ignore"):
                self._clips = bool(max(column.upper - center, center - column.lower) > half) or self._step < _NORMAL

    def of(self, batch: Batch) -> Floats | None:
        """The units of each row; None for 1 everywhere."""
        term = self.term
        match term:
            case One():
                return None
            case Square():
                return batch.kept(("square", term.column, self._frame), self._square)
            case Linear():
                return batch.kept(("linear", term.column, self._frame), self._linear)
            case Is():
                return _indicator(batch, term)
            case SquaredError():
                gap = np.rint(batch.number(term.column) * UNIT) - _indicator(batch, term.label)
                return np.floor(gap * gap * 2.0**-VALUE_BITS)

    def _linear(self, batch: Batch) -> Floats:
        column: str = self.term.column  # type: ignore[union-attr]
        out = np.subtract(batch.number(column), self._frame[0], out=batch.space.floats(batch.rows))
        with np.errstate(over="ignore"):
            if self._step < _NORMAL:
                out /= self._frame[1]
                out *= UNIT
            else:
                out /= self._step
        np.rint(out, out=out)
        return np.clip(out, -UNIT, UNIT, out=out) if self._clips else out

    def _square(self, batch: Batch) -> Floats:
        column: str = self.term.column  # type: ignore[union-attr]
        t = batch.kept(("linear", column, self._frame), self._linear)
        out = np.multiply(t, t, out=batch.space.floats(batch.rows))
        out *= 2.0 ** (1 - VALUE_BITS)
        np.floor(out, out=out)
        out -= UNIT
        return out


def _indicator(batch: Batch, term: Is) -> Floats:
    classes = batch.view.category(term.column).classes
    table = np.full(len(classes) + 2, np.nan)
    table[: len(classes)] = [UNIT * (item == term.value) for item in classes]
    found: Floats = table[batch.column(term.column)]
    return found
