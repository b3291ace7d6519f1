"""Tables of one and of two columns, made to agree with one another, and synthetic rows drawn from them.

Which tables is the analyst's choice, made before anything is seen: choosing them by the data would have to be paid.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Annotated, Any, ClassVar, TypeAlias

import numpy as np
import numpy.typing as npt
from pydantic import Field

from privfl.errors import Misuse
from privfl.tasks import Numeric
from privfl_analytics.answer import Answer, Row
from privfl_analytics.constructions import Bins, Classes, Construction, Tally
from privfl_analytics.decode import count_rows, hidden
from privfl_analytics.statistic import Context, Noisy, State, Statistic
from privfl_analytics.statistics.binned import Floats, answered, grid
from privfl_analytics.view import View

__all__ = ["Marginals"]

Bools: TypeAlias = npt.NDArray[np.bool_]


class Marginals(Statistic):
    """Counts of chosen columns and of chosen pairs of columns, with equal totals and equal margins.

    Args:
        columns: categories and numbers, each counted by itself.
        pairs: two columns each, counted together; a column of a pair need not be among ``columns``.
        bins: into how many equal bins numbers fall. edges: column → its edges instead.

    ``details`` of the answer feed :func:`privfl_analytics.synthesis.synthetic`: ``columns`` (what each cell stands
    for), ``one_way`` and ``two_way`` counts without negative ones. Cells that are not shown share their sum evenly.
    """

    name: ClassVar[str] = "marginals"
    summary: ClassVar[str] = "consistent one- and two-way tables, and synthetic data from them"
    example: ClassVar[str] = "marginals columns=[sex, ward, readmitted]"

    columns: Annotated[tuple[str, ...], Field(max_length=1000)] = ()
    pairs: Annotated[tuple[tuple[str, str], ...], Field(max_length=1000)] = ()
    bins: Annotated[int, Field(ge=1, le=1000)] = 10
    edges: dict[str, Annotated[tuple[float, ...], Field(min_length=2, max_length=1001)]] = {}  # noqa: RUF012

    def words(self) -> str:
        """What is asked."""
        tables = [*self.columns, *(f"{one} by {other}" for one, other in self.pairs)]
        return f"the tables of {', '.join(tables)}"

    def used(self) -> tuple[str, ...]:
        """Every column, each once."""
        return tuple(dict.fromkeys([*self.columns, *chain.from_iterable(self.pairs)]))

    def tables(self) -> tuple[tuple[str, ...], ...]:
        """The columns of each table; Misuse if there is none, or one twice."""
        found: tuple[tuple[str, ...], ...] = (*((one,) for one in self.columns), *self.pairs)
        if not found or len({frozenset(one) for one in found}) != len(found):
            raise Misuse("marginals need columns or pairs of two different columns, each table once")
        unknown = set(self.edges) - set(self.used())
        if unknown:
            raise Misuse(f"edges are given for {min(unknown)!r}, which stands in none of the tables")
        return found

    def axis(self, view: View, column: str) -> Classes | Bins:
        """The cells of a column; Misuse for text."""
        if isinstance(view.column(column), Numeric):
            return Bins(column=column, edges=grid(view, column, self.edges.get(column, self.bins)))
        return Classes(column=column)

    def constructions(self, view: View, stage: int = 0, state: State | None = None) -> tuple[Construction, ...]:
        """One table of counts each."""
        asked = tuple(Tally(axes=tuple(self.axis(view, column) for column in one)) for one in self.tables())
        for one in asked:
            one.check(view)
        return asked

    def decode(
        self, view: View, stages: Sequence[Sequence[Noisy]], states: Sequence[State | None], context: Context
    ) -> Answer:
        """Every cell of every table, after making them agree."""
        tables = self.tables()
        kept = {column: self._possible(view, column) for column in self.used()}
        raw = [
            noisy.values[np.ix_(*(kept[column] for column in table))]
            for table, noisy in zip(tables, stages[0], strict=True)
        ]
        sds = [noisy.sd for noisy in stages[0]]
        margins, errors, agreed = _agreed(tables, raw, sds, {column: len(at) for column, at in kept.items()})
        labels = {column: [self.axis(view, column).labels(view)[at] for at in kept[column]] for column in kept}
        least = context.min_cell_count
        veils = {column: hidden(margins[column], least) for column in margins}
        rows, two_way = [], []
        for table, counts, sd in zip(tables, agreed, sds, strict=True):
            error, veil = sd, veils[table[0]]
            if len(table) == 1:
                error = min(sd, errors[table[0]])
            else:
                veil = _veil(counts, veils[table[0]], veils[table[1]], least)
                two_way.append({"columns": list(table), "counts": _plain(counts, veil).tolist()})
            rows += _rows(table, counts, error, labels, veil, context)
        details = {
            "columns": {column: self._described(view, column) for column in kept},
            "one_way": {column: _plain(margins[column], veils[column]).tolist() for column in kept},
            "two_way": two_way,
        }
        notes = ("Tables that share columns were made to agree; the intervals are those before, at most too wide.",)
        return answered(self, context, rows, picture="table", notes=notes if any(sds) else (), details=details)

    def _possible(self, view: View, column: str) -> list[int]:
        """Cells that a row can fall in: without ``outside`` where the edges reach both bounds."""
        axis = self.axis(view, column)
        cells = list(range(len(axis.labels(view))))
        if isinstance(axis, Bins):
            bounds = view.numeric(column)
            if (axis.edges[0], axis.edges[-1]) == (bounds.lower, bounds.upper):
                cells.pop(len(axis.edges) - 1)
        return cells

    def _described(self, view: View, column: str) -> dict[str, Any]:
        """What the cells of a column stand for, plainly."""
        axis = self.axis(view, column)
        if isinstance(axis, Classes):
            return {"kind": "category", "classes": list(view.category(column).classes)}
        bounds = view.numeric(column)
        return {"kind": "numeric", "edges": list(axis.edges), "lower": bounds.lower, "upper": bounds.upper}


def _rows(
    table: tuple[str, ...],
    counts: Floats,
    sd: float,
    labels: Mapping[str, Sequence[str]],
    veil: Bools,
    context: Context,
) -> list[Row]:
    places: list[dict[str, str | float]] = [
        {column: labels[column][at] for column, at in zip(table, cell, strict=True)}
        for cell in np.ndindex(counts.shape)
    ]
    return count_rows("count", counts, sd, places, context, mask=veil, total=max(float(counts.sum()), 0.0))


def _agreed(
    tables: Sequence[tuple[str, ...]], raw: Sequence[Floats], sds: Sequence[float], sizes: Mapping[str, int]
) -> tuple[dict[str, Floats], dict[str, float], list[Floats]]:
    """Margins of every column with their noise, and all tables moved as little as need be to have those margins.

    Totals and margins are averages over all tables that tell them, weighted by how well they do; the rest of each
    table then takes the difference evenly, which keeps every cell unbiased and leaves tables without noise as they are.
    """
    if not any(sds):
        return {column: _margin(tables, raw, column) for column in sizes}, dict.fromkeys(sizes, 0.0), list(raw)
    noise = [max(sd, 1e-9 * max(sds)) for sd in sds]
    weights = np.array([1 / (table.size * sd**2) for table, sd in zip(raw, noise, strict=True)])
    whole = float(np.array([table.sum() for table in raw]) @ weights / weights.sum())
    margins, errors = {}, {}
    for column, size in sizes.items():
        found, precise = np.zeros(size), 0.0
        for table, counts, sd in zip(tables, raw, noise, strict=True):
            if column in table:
                weight = size / (counts.size * sd**2)
                found, precise = found + weight * _summed(table, counts, column), precise + weight
        found /= precise
        margins[column] = found + (whole - found.sum()) / size
        errors[column] = precise**-0.5
    agreed = []
    for table, counts in zip(tables, raw, strict=True):
        if len(table) == 1:
            agreed.append(margins[table[0]])
            continue
        height, width = counts.shape
        down = (margins[table[0]] - counts.sum(axis=1)) / width
        across = (margins[table[1]] - counts.sum(axis=0)) / height
        agreed.append(counts + down[:, None] + across - (whole - counts.sum()) / counts.size)
    return margins, errors, agreed


def _summed(table: tuple[str, ...], counts: Floats, column: str) -> Floats:
    return np.asarray(counts.sum(axis=tuple(axis for axis, name in enumerate(table) if name != column)))


def _margin(tables: Sequence[tuple[str, ...]], raw: Sequence[Floats], column: str) -> Floats:
    """That of the first table that has the column."""
    at = next(at for at, table in enumerate(tables) if column in table)
    return _summed(tables[at], raw[at], column)


def _veil(counts: Floats, above: Bools, beside: Bools, least: int) -> Bools:
    """Which cells of a table are not shown: small ones, and as many more as keep them from being had by subtraction.

    In a line whose margin is shown no cell is hidden alone; in one whose margin is hidden, one is at least.
    """
    mask: Bools = np.zeros(counts.shape, dtype=np.bool_) if least <= 1 else counts < least
    changed = least > 1
    while changed:
        changed = False
        for veil, values, margins in ((mask, counts, above), (mask.T, counts.T, beside)):
            for line, cells, margin in zip(veil, values, margins, strict=True):
                if not line.all() and (not line.any() if margin else line.sum() == 1):
                    line[np.argmin(np.where(line, np.inf, cells))] = changed = True
    return mask


def _plain(counts: Floats, veil: Bools) -> Floats:
    """Counts with no negative one among them and the same total; those that are not shown share their sum evenly."""
    out = counts.copy()
    if veil.any():
        out[veil] = out[veil].mean()
    total = max(float(out.sum()), 0.0)
    while (out < 0).any():
        out = np.maximum(out, 0.0)
        positive = out > 0
        out[positive] -= (out.sum() - total) / max(int(positive.sum()), 1)
    return out
