"""Answers as tables for a terminal."""

from __future__ import annotations

from rich.markup import escape
from rich.table import Table

from privfl.runtime.plain import visible
from privfl_analytics.answer import Answer, Row

__all__ = ["answer_table", "number"]

#: Lines of one table; a longer answer is shown in part, and whole in files.
MAX_LINES = 60


def number(value: float | None) -> str:
    """A number in at most five significant digits, a dash where there is none."""
    if value is None:
        return "–"
    return f"{value:,.0f}" if abs(value) >= 10_000 else f"{value:.5g}"


def answer_table(name: str, answer: Answer) -> Table:
    """One line per number: where, what, value, interval, unit and note."""
    places = list(dict.fromkeys(key for row in answer.rows for key in row.at))
    percent = f"{100 * answer.confidence:g} %"
    whose = "these rows" if answer.interval == "rows" else "the population"
    table = Table(title=_text(f"{name}: {answer.title}"), title_justify="left", caption_justify="left")
    for heading in (*places, "what", "value", f"{percent} interval", "unit", "note"):
        table.add_column(_text(heading), justify="right" if heading == "value" else "left")
    for row in answer.rows[:MAX_LINES]:
        cells = (_cell(row, place) for place in places)
        table.add_row(*cells, _text(row.what), number(row.value), _interval(row), _text(row.unit), _text(row.note))
    said = (
        [f"intervals are for {whose} and include the noise"]
        if any(row.lower is not None for row in answer.rows)
        else []
    )
    if len(answer.rows) > MAX_LINES:
        said.append(f"{len(answer.rows) - MAX_LINES} more numbers are in the saved result")
    table.caption = "\n".join(map(_text, [*said, *answer.notes]))
    return table


def _cell(row: Row, place: str) -> str:
    at = row.at.get(place)
    return "" if at is None else _text(at if isinstance(at, str) else f"{at:g}")


def _text(words: str) -> str:
    return escape(visible(words))


def _interval(row: Row) -> str:
    if row.lower is None or row.upper is None:
        return ""
    return f"{number(row.lower)} to {number(row.upper)}"
