"""A stretch of rows as numpy arrays, and the cells and numbers that constructions need of them.

Every function here looks at one row at a time; what several constructions share is computed once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt

from privfl.tasks import Category, Numeric
from privfl_analytics.constructions import VALUE_BITS, Axis, Bins, Classes, Is, Linear, Meets, Prefixes, Presence
from privfl_analytics.view import Score, View

__all__ = ["UNIT", "Batch", "Floats", "Ints", "score_of"]

Floats: TypeAlias = npt.NDArray[np.float64]
Ints: TypeAlias = npt.NDArray[np.int64]
Whole: TypeAlias = npt.NDArray[np.signedinteger[Any]]
T = TypeVar("T")

UNIT = 1 << VALUE_BITS
#: How near to an edge, in bins, the bin is looked up instead of computed.
_NEAR = 2.0**-20


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


class Batch:
    """Rows under the names that the schema and the study give to columns.

    Args:
        view: what is declared.
        rows: how many.
        columns: declared name → float64 with NaN for missing (not clamped), or codes; axes that SQL computed under
            the axis itself.
    """

    def __init__(self, view: View, rows: int, columns: Mapping[object, npt.NDArray[Any]]) -> None:
        self.view, self.rows, self._columns = view, rows, columns
        self._kept: dict[object, Any] = {}
        self._scores = {one.name: one for one in view.scores}

    def where(self, mask: npt.NDArray[np.bool_]) -> Batch:
        """The rows of a mask; columns are copied when they are asked for."""
        return Batch(self.view, int(np.count_nonzero(mask)), _Selected(self._columns, mask))

    def kept(self, key: object, make: Callable[[], T]) -> T:
        """What ``make`` returns, computed once for this batch."""
        if key not in self._kept:
            self._kept[key] = make()
        found: T = self._kept[key]
        return found

    def raw(self, name: str) -> npt.NDArray[Any]:
        """A column as it was read."""
        return self._columns[name]

    def number(self, name: str) -> Floats:
        """A number or score, clamped to its bounds; NaN where missing."""
        return self.kept(("number", name), lambda: self._number(name))

    def _number(self, name: str) -> Floats:
        if name in self._scores:
            return np.broadcast_to(score_of(self._scores[name], self.number), (self.rows,))
        column = self.view.numeric(name)
        return np.clip(self._columns[name], column.lower, column.upper)

    def present(self, names: Sequence[str]) -> npt.NDArray[np.bool_] | None:
        """Rows that have every one of some columns (a category's class declared); None for all of them."""
        key = ("present", *dict.fromkeys(names))
        return self.kept(key, lambda: self._present(tuple(dict.fromkeys(names))))

    def _present(self, names: tuple[str, ...]) -> npt.NDArray[np.bool_] | None:
        found: npt.NDArray[np.bool_] | None = None
        for name in names:
            column = self.view.column(name)
            if isinstance(column, Category):
                one = self._columns[name] < len(column.classes)
            else:
                value = self.number(name)
                one = value == value  # noqa: PLR0124 - NaN alone differs from itself
            found = one if found is None else found & one
        return None if found is None or found.all() else found

    def units(self, column: Linear) -> Floats:
        """t of a linear term in units of 2^-VALUE_BITS: float64 that holds integers, NaN where missing."""
        center, half = column.frame(self.view)
        return self.kept(("units", column.column, center, half), lambda: self._units(column.column, center, half))

    def _units(self, name: str, center: float, half: float) -> Floats:
        out = self.number(name) - center
        with np.errstate(over="ignore"):
            out /= half
            out *= UNIT
        np.rint(out, out=out)
        return np.clip(out, -UNIT, UNIT, out=out)

    def indicator(self, term: Is) -> Floats:
        """UNIT where the category is the class, 0 elsewhere; NaN where missing or undeclared."""
        classes = self.view.category(term.column).classes
        table = np.full(len(classes) + 2, np.nan)
        table[: len(classes)] = [UNIT * (item == term.value) for item in classes]
        return table[self._columns[term.column]]

    def cells(self, axis: Axis) -> Whole:
        """The cell of each row, of any signed integer type."""
        match axis:
            case Classes():
                return self._columns[axis.column]
            case Bins():
                return self.kept(axis, lambda: self._bins(axis))
            case Presence():
                return self.kept(axis, lambda: self._missing(axis.column).view(np.int8))
            case Meets() | Prefixes():
                return self._columns[axis]

    def _missing(self, name: str) -> npt.NDArray[np.bool_]:
        column = self.view.column(name)
        if isinstance(column, Category):
            return np.asarray(self._columns[name] == len(column.classes) + 1)
        if isinstance(column, Numeric):
            return np.isnan(self.number(name))
        return np.asarray(self._columns[name] != 0)  # text is read as one flag

    def place(self, axes: Sequence[Axis]) -> tuple[Whole, int]:
        """(flat cell of several axes, how many there are)."""
        flat: Whole | None = None
        size = 1
        for axis in axes:
            cells, count = self.cells(axis), len(axis.labels(self.view))
            flat = cells if flat is None else flat * np.int64(count) + cells
            size *= count
        return (np.zeros(self.rows, dtype=np.int64) if flat is None else flat), size

    def _bins(self, axis: Bins) -> Whole:
        edges, value = _edges(axis), self.number(axis.column)
        bins = len(axis.edges) - 1
        inverse = _even(edges)
        if inverse is None:
            found = np.minimum(np.searchsorted(edges, value, side="right") - 1, bins - 1)
        else:
            found = _computed(edges, inverse, value)
        column = self.view.numeric(axis.column)
        if edges[0] > column.lower or edges[-1] < column.upper:
            found[(value < edges[0]) | (value > edges[-1])] = bins
        found[np.isnan(value)] = bins + 1
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


def _edges(axis: Bins) -> Floats:
    return np.array(axis.edges, dtype=np.float64)


def _even(edges: Floats) -> float | None:
    """Bins per unit where all are of one width but for rounding, else None."""
    bins = len(edges) - 1
    with np.errstate(all="ignore"):
        inverse = float(bins / (edges[-1] - edges[0]))
        even = np.abs((edges - edges[0]) * inverse - np.arange(bins + 1)) < _NEAR / 4
    return inverse if np.isfinite(inverse) and inverse > 0 and bins < 1 << 16 and even.all() else None


def _computed(edges: Floats, inverse: float, value: Floats) -> Whole:
    """Bins by arithmetic, looked up where rounding could matter; anything where the value is in none of them."""
    with np.errstate(over="ignore", invalid="ignore"):
        at = (value - edges[0]) * inverse
        inside = (at >= 0) & (at < len(edges) - 1)
        if not inside.all():
            at[~inside] = 0.0
        found = at.astype(np.int64)
        at -= np.rint(at)
    np.abs(at, out=at)
    near = np.flatnonzero((at < _NEAR) | ~inside)
    if near.size:
        found[near] = np.minimum(np.searchsorted(edges, value[near], side="right") - 1, len(edges) - 2)
    return found
