"""The statistic behind a reference profile: a column's noisy counts over cells that stay the same for years."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, ClassVar

import numpy as np
from pydantic import Field

from privfl.errors import Misuse
from privfl.tasks import Category, Numeric
from privfl_analytics.answer import Answer, Row
from privfl_analytics.constructions import COUNT_SCALE, Axis, Bins, Classes, Construction, Tally
from privfl_analytics.decode import BELOW_MINIMUM
from privfl_analytics.statistic import Context, Noisy, State, Statistic
from privfl_analytics.view import View

__all__ = ["DEFAULT_BINS", "ProfileCounts"]

DEFAULT_BINS = 10


class ProfileCounts(Statistic):
    """Counts of a column's public bins or classes, its missing values among them, optionally crossed with a label.

    Args:
        column: numeric (or a score), or a category.
        bins: of a number, equally wide over its bounds.
        edges: of a number's bins, instead of ``bins``; within its bounds.
        label: a category whose classes cross the bins, for the quality of a score.
    """

    name: ClassVar[str] = "profile"
    summary: ClassVar[str] = "noisy counts over fixed public cells, kept to compare later data with"
    example: ClassVar[str] = "profile age bins=10"
    rows_only: ClassVar[bool] = True

    column: str
    bins: Annotated[int, Field(ge=2, le=1000)] = DEFAULT_BINS
    edges: tuple[float, ...] = ()
    label: str | None = None

    def axes(self, view: View) -> tuple[Axis, ...]:
        """The column's axis, then the label's."""
        column = view.column(self.column)
        if isinstance(column, Numeric):
            edges = self.edges or tuple(float(edge) for edge in np.linspace(column.lower, column.upper, self.bins + 1))
            first: Axis = Bins(column=self.column, edges=edges)
        elif isinstance(column, Category):
            if self.edges:
                raise Misuse(f"column {self.column!r} is a category and has classes, no bins; leave edges away")
            first = Classes(column=self.column)
        else:
            raise Misuse(f"column {self.column!r} is text, which has no fixed cells; declare it as a category")
        return (first,) if self.label is None else (first, Classes(column=self.label))

    def constructions(self, view: View, stage: int = 0, state: State | None = None) -> tuple[Construction, ...]:
        return (Tally(axes=self.axes(view)),)

    def decode(
        self, view: View, stages: Sequence[Sequence[Noisy]], states: Sequence[State | None], context: Context
    ) -> Answer:
        axes, noisy = self.axes(view), stages[0][0]
        labels, values = list(axes[0].labels(view)), noisy.values
        edges = list(axes[0].edges) if isinstance(axes[0], Bins) else None
        if edges is not None:
            column = view.numeric(self.column)
            if (edges[0], edges[-1]) == (column.lower, column.upper):  # nobody can be outside: that cell is all noise
                values = np.delete(values, labels.index("outside"), axis=0)
                labels.remove("outside")
        counts = np.rint(values * COUNT_SCALE).astype(np.int64)
        # The display rule holds here too: what is hidden is 0 in the profile, and a comparison's null does the same.
        floor = context.min_cell_count if context.min_cell_count > 1 else 0
        if floor:
            counts[counts < floor * COUNT_SCALE] = 0
        names = [labels, *(list(axis.labels(view)) for axis in axes[1:])]
        columns = [self.column, *([self.label] if self.label else [])]
        rows = tuple(
            self._row(
                dict(zip(columns, (name[at] for name, at in zip(names, place, strict=True)), strict=True)),
                int(count),
                noisy.sd,
                bool(floor),
            )
            for place, count in np.ndenumerate(counts)
        )
        units = [getattr(view.column(name), "unit", "") for name in columns]
        details = {
            "profile": {
                "axes": [
                    {"column": name, "unit": unit, "labels": cells, "edges": edges if at == 0 else None}
                    for at, (name, unit, cells) in enumerate(zip(columns, units, names, strict=True))
                ],
                "counts": counts.ravel().tolist(),
                "sd": noisy.sd,
                "floor": floor,
            },
            "edges": edges,
            "unit": units[0],
        }
        return Answer(
            self.words(),
            self.name,
            rows,
            "histogram",
            context.confidence,
            "rows",
            details=details,
            sites=context.survivors,
            records=context.records,
        )

    @staticmethod
    def _row(at: dict[str, str], count: int, sd: float, hides: bool) -> Row:
        if hides and count == 0:
            return Row("count", None, at, note=BELOW_MINIMUM)
        value, half = count / COUNT_SCALE, 1.96 * sd
        return Row("count", value, at, sd, value - half, value + half)

    def words(self) -> str:
        """For people."""
        crossed = f" by {self.label}" if self.label else ""
        return f"counts of {self.column}{crossed} over fixed cells, for a reference profile"
