"""How many: rows or persons, missing values, and different values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar, Literal

from privfl_analytics import constructions as built
from privfl_analytics.answer import Answer
from privfl_analytics.constructions import Construction, Presence, Tally
from privfl_analytics.decode import NOT_RESOLVED, count_rows, hidden, number, share_of
from privfl_analytics.statistic import Context, Noisy, State, Statistic
from privfl_analytics.statistics.binned import answered
from privfl_analytics.view import View

__all__ = ["Count", "Distinct", "Missing"]


class Count(Statistic):
    """How many rows, or persons.

    Args:
        of: ``rows``, or ``subjects``: different persons of each site, which needs a schema that names its subject.
    """

    name: ClassVar[str] = "count"
    summary: ClassVar[str] = "number of rows, or of persons"
    example: ClassVar[str] = "count by ward"

    of: Literal["rows", "subjects"] = "rows"

    def constructions(self, view: View, stage: int = 0, state: State | None = None) -> tuple[Construction, ...]:
        """One counter."""
        asked = Tally(subjects=self.of == "subjects")
        asked.check(view)
        return (asked,)

    def decode(
        self, view: View, stages: Sequence[Sequence[Noisy]], states: Sequence[State | None], context: Context
    ) -> Answer:
        """One row: ``count``."""
        found = stages[0][0]
        unit = "rows" if self.of == "rows" else "persons"
        rows = count_rows("count", found.values, found.sd, [{}], context, unit=unit)
        notes = ["for the population: what another sample of the same kind would have (Poisson)"]
        if context.interval == "rows":
            notes = []
        if self.of == "subjects":
            notes.append("a person who is at two sites counts at each of them")
        return answered(self, context, rows, notes=tuple(notes))

    def words(self) -> str:
        return f"the number of {'rows' if self.of == 'rows' else 'persons'}"


class Missing(Statistic):
    """How many rows have a value in a column, how many have none, and the missing share.

    Args:
        column: of any kind, or a score.
    """

    name: ClassVar[str] = "missing"
    summary: ClassVar[str] = "present and missing values of a column"
    example: ClassVar[str] = "missing systolic"

    column: str

    def constructions(self, view: View, stage: int = 0, state: State | None = None) -> tuple[Construction, ...]:
        """Two cells."""
        asked = Tally(axes=(Presence(column=self.column),))
        asked.check(view)
        return (asked,)

    def decode(
        self, view: View, stages: Sequence[Sequence[Noisy]], states: Sequence[State | None], context: Context
    ) -> Answer:
        """Rows ``present``, ``missing`` and ``share missing``; of a hidden one both, as a total gives the other."""
        found = stages[0][0]
        counts = found.values
        veiled = hidden(counts, context.min_cell_count, found.sd)
        total = float(counts.sum())
        rows = [
            row
            for at, what in enumerate(("present", "missing"))
            for row in count_rows(
                what, counts[at : at + 1], found.sd, [{}], context, mask=veiled[at : at + 1], total=total
            )
        ]
        share = None
        if not veiled.any() and rows[0].note != NOT_RESOLVED:
            share = share_of(counts, 1, found.sd, context)
        note = rows[1].note or rows[0].note
        return answered(self, context, [*rows, number("share missing", share, note=note)])

    def words(self) -> str:
        return f"present and missing values of {self.column}"

    def precision(self, view: View, sds: Sequence[Sequence[float]], records: int) -> str:
        sd = sds[0][0]
        return f"each count ± {1.96 * sd:.3g}, the missing share ± {196 * sd / records:.2g} percentage points"


class Distinct(Statistic):
    """How many different values of a column each site has, summed over sites.

    A value at two sites counts twice: the number of values in the union is no sum, and sketches for it drown in noise.

    Args:
        column: of any kind.
    """

    name: ClassVar[str] = "distinct"
    summary: ClassVar[str] = "different values of a column, summed over sites (not their union)"
    example: ClassVar[str] = "distinct diagnosis"
    rows_only: ClassVar[bool] = True

    column: str

    def constructions(self, view: View, stage: int = 0, state: State | None = None) -> tuple[Construction, ...]:
        """One counter of values."""
        asked = built.Distinct(column=self.column)
        asked.check(view)
        return (asked,)

    def decode(
        self, view: View, stages: Sequence[Sequence[Noisy]], states: Sequence[State | None], context: Context
    ) -> Answer:
        """One row: ``distinct values``; the interval is for these rows, as new rows bring values nobody has seen."""
        found = stages[0][0]
        only = replace(context, interval="rows")
        rows = count_rows("distinct values", found.values, found.sd, [{}], only, unit="values")
        note = (
            "the sum over sites, not the union: a value that two sites have counts twice. The union is no sum of what "
            "sites know alone; sketches are not offered, as they drown in the noise; the interval is for these rows"
        )
        return answered(self, only, rows, notes=(note,))

    def words(self) -> str:
        return f"the number of different values of {self.column}, summed over sites"

    def group_axes(self, view: View) -> bool:
        """Never: one row may make a value appear in one group only."""
        return False
