"""Answers: a table with an interval on every number, what it means, and what it cost."""

from __future__ import annotations

import html
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, Self, TypeAlias

import pandas as pd

from privfl.errors import Malformed

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["Answer", "Picture", "Row", "is_number"]

#: Which plot fits: see :mod:`privfl_analytics.plots`.
Picture: TypeAlias = Literal[
    "numbers", "histogram", "ecdf", "survival", "matrix", "roc", "precision-recall", "calibration", "drift", "table"
]


@dataclass(frozen=True, slots=True)
class Row:
    """One number of an answer.

    Attributes:
        what: which number, e.g. ``"mean"``, ``"count"``, ``"p-value"``, ``"coefficient"``.
        value: the answer, None where it is not resolved or not shown.
        at: where it belongs: axis or group name → cell, e.g. ``{"age": "[40, 50)"}`` or ``{"time": 12.0}``.
        se: standard error, noise included; None where it has none.
        lower, upper: the interval; None where there is none.
        unit: of the value, e.g. ``"years"``.
        note: why there is no value, or what to mind.
    """

    what: str
    value: float | None
    at: Mapping[str, str | float] = field(default_factory=dict)
    se: float | None = None
    lower: float | None = None
    upper: float | None = None
    unit: str = ""
    note: str = ""


@dataclass(frozen=True)
class Answer:
    """What one query found.

    Attributes:
        title: in words, e.g. ``"the mean of age"``.
        statistic: its name.
        rows: every number, in order.
        picture: the plot that fits.
        confidence, interval: of the intervals, and whether for these rows or for the population.
        notes: what to mind about the whole, one sentence each.
        details: public plain values that a plot or a further step needs (edges, names, a matrix); JSON.
        sites, records: sites in the sum and the declared public size.
    """

    title: str
    statistic: str
    rows: tuple[Row, ...]
    picture: Picture = "numbers"
    confidence: float = 0.95
    interval: Literal["rows", "population"] = "population"
    notes: tuple[str, ...] = ()
    details: Mapping[str, Any] = field(default_factory=dict)
    sites: int = 0
    records: int = 0

    @property
    def resolved(self) -> bool:
        """Whether any number was resolved."""
        return any(row.value is not None for row in self.rows)

    def value(self, what: str | None = None, **at: str | float) -> float:
        """One number, NaN where it is not resolved; by default the first.

        Raises:
            KeyError: there is no such row.
        """
        for row in self.rows:
            if what in (None, row.what) and all(row.at.get(key) == cell for key, cell in at.items()):
                return math.nan if row.value is None else row.value
        raise KeyError(f"no {what!r} at {at} in the answer to {self.title!r}")

    def to_frame(self) -> pd.DataFrame:
        """One line per number: the columns of ``at``, then what, value, se, lower, upper, unit, note."""
        places = dict.fromkeys(key for row in self.rows for key in row.at)
        lines = [
            {
                **{key: row.at.get(key) for key in places},
                "what": row.what,
                "value": math.nan if row.value is None else row.value,
                "se": math.nan if row.se is None else row.se,
                "lower": math.nan if row.lower is None else row.lower,
                "upper": math.nan if row.upper is None else row.upper,
                "unit": row.unit,
                "note": row.note,
            }
            for row in self.rows
        ]
        return pd.DataFrame(lines, columns=[*places, "what", "value", "se", "lower", "upper", "unit", "note"])

    @classmethod
    def grouped(cls, title: str, parts: Sequence[tuple[Mapping[str, str], Answer]]) -> Answer:
        """One answer from the answers of all groups, each row with its group's cells in front of its own."""
        rows = tuple(replace(row, at={**group, **row.at}) for group, part in parts for row in part.rows)
        first = parts[0][1]
        notes = tuple(dict.fromkeys(note for _, part in parts for note in part.notes))
        details = {"groups": [{"at": dict(group), **dict(part.details)} for group, part in parts]}
        return replace(first, title=title, rows=rows, notes=notes, details=details)

    def plot(self, axes: Axes | None = None) -> Axes:
        """Draw the answer in the way that fits it; raises Misuse where matplotlib is missing."""
        from privfl_analytics.plots import plot_answer  # noqa: PLC0415 - heavy, and an extra

        return plot_answer(self, axes)

    def to_value(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {**asdict(self), "rows": [asdict(row) for row in self.rows]}

    @classmethod
    def from_value(cls, value: Mapping[str, Any]) -> Self:
        """Read back :meth:`to_value`; raises Malformed for anything else."""
        try:
            rows = tuple(Row(**row) for row in value["rows"])
            found = cls(**{**value, "rows": rows, "notes": tuple(value.get("notes", ()))})
            sound = _sound(found) and all(map(_sound_row, rows))
        except (KeyError, TypeError, AttributeError, OverflowError):
            sound = False
        if not sound:
            raise Malformed("this is no answer that privfl wrote")
        return found

    def to_json(self) -> str:
        """The answer as JSON text; numbers that are not there are null."""
        return json.dumps(self.to_value())

    def __repr__(self) -> str:
        said = []
        for row in self.rows[:3]:
            where = "".join(f"{cell} " for cell in row.at.values())
            value = f"{row.value:.6g}" if row.value is not None else row.note or "not resolved"
            said.append(f"{where}{row.what} {value}")
        more = f", and {len(self.rows) - 3} more" if len(self.rows) > 3 else ""
        return f"Answer({self.title}: {', '.join(said)}{more})"

    def _repr_html_(self) -> str:
        table = self.to_frame().to_html(index=False, float_format=lambda value: f"{value:.4g}", na_rep="–")
        notes = "".join(f"<p>{html.escape(note)}</p>" for note in self.notes)
        return f"<p><b>{html.escape(self.title)}</b></p>{table}{notes}"


def is_number(value: object) -> bool:
    """Whether it is a plain number; raises OverflowError for one that no float holds."""
    return isinstance(value, int | float) and not isinstance(value, bool) and isinstance(float(value), float)


def _texts(*values: object) -> bool:
    return all(isinstance(value, str) for value in values)


def _sound_row(row: Row) -> bool:
    """Whether a row that was read has the types it says; a number too large for a float raises OverflowError."""
    numbers = [one for one in (row.value, row.se, row.lower, row.upper) if one is not None]
    cells = all(isinstance(key, str) and (isinstance(one, str) or is_number(one)) for key, one in row.at.items())
    return cells and _texts(row.what, row.unit, row.note) and all(map(is_number, numbers))


def _sound(answer: Answer) -> bool:
    """The same for all but the rows."""
    return (
        _texts(answer.title, answer.statistic, answer.picture, answer.interval, *answer.notes)
        and isinstance(answer.details, Mapping)
        and all(map(is_number, (answer.confidence, answer.sites, answer.records)))
    )
