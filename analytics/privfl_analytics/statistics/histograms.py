"""Counts by public bins of a number, and by declared classes of a category."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, TypeAlias

import numpy as np
from pydantic import Field

from privfl.errors import Misuse
from privfl.tasks import Category, Numeric
from privfl_analytics.answer import Answer
from privfl_analytics.constructions import Axis, Bins, Classes, Construction, Tally
from privfl_analytics.decode import NOT_RESOLVED, Bools, Floats, count_rows, hidden, number, share_of, telling
from privfl_analytics.statistic import Context, Noisy, State, Statistic
from privfl_analytics.statistics.binned import answered
from privfl_analytics.view import View

__all__ = ["Edges", "Histogram", "Values", "axis_of", "cells_shown", "concealed", "edges_of", "shown_or_none"]

#: A number of equal bins over the declared bounds, or the edges themselves.
Edges: TypeAlias = Annotated[int, Field(ge=1, le=100_000)] | Annotated[tuple[float, ...], Field(min_length=2)]


def edges_of(view: View, column: str, bins: Edges) -> tuple[float, ...]:
    """The edges as given, or of equal bins over the column's bounds."""
    bounds = view.numeric(column)
    if isinstance(bins, tuple):
        return bins
    return tuple(float(edge) for edge in np.linspace(bounds.lower, bounds.upper, bins + 1))


def axis_of(view: View, column: str, bins: Edges) -> Bins | Classes:
    """Bins of a number or score, classes of a category; Misuse for text."""
    declared = view.column(column)
    if isinstance(declared, Numeric):
        axis: Bins | Classes = Bins(column=column, edges=edges_of(view, column, bins))
    elif isinstance(declared, Category):
        axis = Classes(column=column)
    else:
        raise Misuse(
            f"column {column!r} is text, whose values are not declared; ask for heavy_hitters, or declare classes"
        )
    axis.check(view)
    return axis


def cells_shown(view: View, axis: Axis) -> list[int]:
    """Cells of an axis that can hold a row: ``outside`` cannot where the edges span the bounds."""
    cells = range(len(axis.labels(view)))
    if isinstance(axis, Bins):
        bounds = view.numeric(axis.column)
        if axis.edges[0] == bounds.lower and axis.edges[-1] == bounds.upper:
            return [cell for cell in cells if cell != len(axis.edges) - 1]
    return list(cells)


def concealed(counts: Floats, minimum: int, sd: float = 0.0) -> Bools:
    """Which cells of a histogram are hidden, its last being the missing values.

    Neither the number of rows nor that of present values, less what is shown, gives a hidden one that is told from 0.
    """
    mask = hidden(counts, minimum, sd)
    present = mask[:-1]
    alone = present.sum() == 1 and len(present) > 1
    if alone and telling(present, counts[:-1], sd).any():
        present[int(np.argmin(np.where(present, np.inf, counts[:-1])))] = True
    return mask


def shown_or_none(counts: Floats, mask: Bools) -> list[float | None]:
    """Counts as plain values, None where they are hidden."""
    return [None if veil else value for value, veil in zip(counts.tolist(), mask.tolist(), strict=True)]


class Histogram(Statistic):
    """How many rows lie in each of some public bins.

    Args:
        column: a number or a score.
        bins: how many equal bins over the declared bounds, or rising edges within them.
    """

    name: ClassVar[str] = "histogram"
    summary: ClassVar[str] = "counts of a number by public bins"
    example: ClassVar[str] = "histogram age bins=20 by sex"

    column: str
    bins: Edges = 20

    def axis(self, view: View) -> Bins:
        """The bins; raises Misuse unless the column is a number and the edges fit it."""
        axis = Bins(column=self.column, edges=edges_of(view, self.column, self.bins))
        axis.check(view)
        return axis

    def constructions(self, view: View, stage: int = 0, state: State | None = None) -> tuple[Construction, ...]:
        """One cell per bin, ``outside``, ``missing``."""
        return (Tally(axes=(self.axis(view),)),)

    def decode(
        self, view: View, stages: Sequence[Sequence[Noisy]], states: Sequence[State | None], context: Context
    ) -> Answer:
        """A row ``count`` for each bin, then ``outside`` (where it can occur) and ``missing``."""
        found, axis = stages[0][0], self.axis(view)
        cells, labels = cells_shown(view, axis), axis.labels(view)
        counts = found.values[cells]
        mask = concealed(counts, context.min_cell_count, found.sd)
        places: list[dict[str, str | float]] = [{self.column: labels[cell]} for cell in cells]
        total = float(np.clip(counts, 0, None).sum())
        rows = count_rows("count", counts, found.sd, places, context, mask=mask, total=total)
        details: dict[str, Any] = {
            "edges": list(axis.edges),
            "unit": view.numeric(self.column).unit,
            "sd": found.sd,
        }
        return answered(self, context, rows, picture="histogram", details=details)

    def words(self) -> str:
        bins = f"{self.bins} equal bins" if isinstance(self.bins, int) else f"{len(self.bins) - 1} given bins"
        return f"the histogram of {self.column} in {bins}"

    def precision(self, view: View, sds: Sequence[Sequence[float]], records: int) -> str:
        sd, bins = sds[0][0], len(self.axis(view).edges) - 1
        return f"each bin ± {1.96 * sd:.3g} rows, where {records / bins:.3g} are to be expected"


class _OfClasses(Statistic):
    """Counts of a category's classes, ``other`` and ``missing``.

    Args:
        column: a category.
    """

    column: str

    def constructions(self, view: View, stage: int = 0, state: State | None = None) -> tuple[Construction, ...]:
        """One cell per class, ``other``, ``missing``."""
        asked = Tally(axes=(Classes(column=self.column),))
        asked.check(view)
        return (asked,)

    def precision(self, view: View, sds: Sequence[Sequence[float]], records: int) -> str:
        sd = sds[0][0]
        return f"each class ± {1.96 * sd:.3g} rows, its share ± {196 * sd / records:.2g} percentage points"


class Values(_OfClasses):
    """How often each declared class of a category occurs, and its share of the rows that have a value."""

    name: ClassVar[str] = "values"
    summary: ClassVar[str] = "counts and shares of a category's classes (label balance)"
    example: ClassVar[str] = "values ward"

    def decode(
        self, view: View, stages: Sequence[Sequence[Noisy]], states: Sequence[State | None], context: Context
    ) -> Answer:
        """Rows ``count`` for each class, ``other`` and ``missing``, then ``share`` for all but ``missing``."""
        found, labels = stages[0][0], Classes(column=self.column).labels(view)
        mask = concealed(found.values, context.min_cell_count, found.sd)
        places: list[dict[str, str | float]] = [{self.column: label} for label in labels]
        total = float(np.clip(found.values, 0, None).sum())
        rows = count_rows("count", found.values, found.sd, places, context, mask=mask, total=total)
        for cell, count in enumerate(rows[:-1]):
            shown = count.value is not None
            share = share_of(found.values[:-1], cell, found.sd, context) if shown else None
            rows.append(number("share", share, at=places[cell], note=count.note))
        details: dict[str, Any] = {"classes": list(labels), "counts": shown_or_none(found.values, mask), "sd": found.sd}
        if rows[0].note == NOT_RESOLVED:
            details["counts"] = [None] * len(labels)
        return answered(self, context, rows, picture="histogram", details=details)

    def words(self) -> str:
        return f"how often each declared class of {self.column} occurs"
