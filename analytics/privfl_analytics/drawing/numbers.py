"""Numbers with intervals as dots and bars, one small scale for each kind of number; and the table for all else."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from typing import TYPE_CHECKING

from privfl_analytics.answer import Answer, Row
from privfl_analytics.drawing.base import (
    GREY,
    PALETTE,
    fresh,
    interval_words,
    new_axes,
    notes_below,
    spread,
    titled,
    with_unit,
    without_spines,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["draw_numbers", "draw_table"]

MOST_ROWS, MOST_KINDS = 40, 6


def draw_numbers(answer: Answer, axes: Axes | None) -> Axes:
    """A dot with its interval for each row; rows of another name or unit have a scale of their own below."""
    kinds: dict[tuple[str, str], list[Row]] = {}
    for row in answer.rows[:MOST_ROWS]:
        kinds.setdefault((row.what, row.unit), []).append(row)
    bare = {kind: rows[0] for kind, rows in kinds.items() if len(rows) == 1 and _bare(rows[0])}
    if len(bare) < len(kinds):  # a single number without an interval needs no scale
        kinds = {kind: rows for kind, rows in kinds.items() if kind not in bare}
    else:
        bare = {}
    shown = list(kinds.items())[:MOST_KINDS]
    heights = [len(rows) + (2.6 if len(rows) > 1 else 1.5) for _, rows in shown]
    own = axes is None
    high = 1.2 + 0.27 * sum(heights) + 0.13 * sum(1 + len(note) // 90 for note in answer.notes[:3])
    axes = new_axes(axes, 7.0, high)
    titled(axes, answer)
    left = len(answer.rows) - len(bare) - sum(len(rows) for _, rows in shown)
    extra = [interval_words(answer), *([f"{left} more numbers in the table"] if left else [])]
    if bare:
        extra.insert(0, ";  ".join(f"{what} {row.value:.4g} {unit}".strip() for (what, unit), row in bare.items()))
    if not shown:
        return draw_table(answer, axes)
    if len(shown) <= 1:
        for (what, unit), rows in shown:
            _scale(axes, rows, what, unit)
        notes_below(axes, answer, extra)
        return axes
    axes.axis("off")
    if own:
        fresh(axes, 7.0, high + 0.2)
    total, top = sum(heights), 1.0
    for (what, unit), rows in shown:
        below = (2.1 if len(rows) > 1 else 1.2) / total
        high = (len(rows) + 0.2) / total + below
        inner = axes.inset_axes((0.24, top - high + below, 0.76, high - below - 0.2 / total))
        _scale(inner, rows, what, unit, inset=True)
        top -= high + 0.3 / total
    notes_below(axes, answer, extra)
    return axes


def _bare(row: Row) -> bool:
    return row.value is not None and row.lower is None and row.upper is None and not row.at


def _scale(axes: Axes, rows: list[Row], what: str, unit: str, inset: bool = False) -> None:
    name = with_unit(what, unit)
    labels = [_label(row.at, name) for row in rows]
    for at, row in enumerate(rows):
        if row.value is None:
            axes.text(0.5, at, row.note or "not resolved", transform=axes.get_yaxis_transform(), fontsize=7.5,
                      color=GREY, va="center", ha="center", style="italic")  # fmt: skip
            axes.axhspan(at - 0.4, at + 0.4, facecolor="none", edgecolor="#dddddd", hatch="////", linewidth=0)
            continue
        low, high = spread(row)
        axes.errorbar(row.value, at, xerr=[[low], [high]], fmt="o", color=PALETTE[0], capsize=3, markersize=5)
    axes.set_yticks(range(len(rows)), labels, fontsize=8)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    if labels != [name] or not inset:
        axes.set_xlabel(name, fontsize=8)
    axes.tick_params(axis="x", labelsize=8)
    without_spines(axes)
    axes.grid(axis="y", visible=False)
    axes.grid(axis="x", color="#eeeeee", linewidth=0.8)
    if not any(row.value is not None for row in rows):
        axes.set_xticks([])
    if all(row.value is not None and 0 <= row.value <= 1 for row in rows) and what == "p-value":
        axes.set_xlim(-0.02, 1.02)


def _label(at: Mapping[str, str | float], what: str) -> str:
    cells = ", ".join(f"{key} {cell:g}" if isinstance(cell, float) else str(cell) for key, cell in at.items())
    return textwrap.shorten(cells, 34, placeholder=" …") if cells else what


def draw_table(answer: Answer, axes: Axes | None) -> Axes:
    """The first rows as a table, for answers that no picture fits."""
    frame = answer.to_frame().drop(columns=["se"]).head(20)
    frame = frame.loc[:, [not (frame[name].isna() | (frame[name].astype(str) == "")).all() for name in frame.columns]]
    axes = new_axes(axes, 8.0, 0.9 + 0.24 * (len(frame) + 1))
    axes.axis("off")
    titled(axes, answer)
    if frame.empty:
        return axes
    cells = [[_cell(value) for value in line] for line in frame.itertuples(index=False)]
    table = axes.table(cells, colLabels=list(frame.columns), loc="upper center", cellLoc="left")
    table.auto_set_font_size(False)
    table.set_fontsize(8)
    table.auto_set_column_width(list(range(len(frame.columns))))
    for (line, _), cell in table.get_celld().items():
        cell.set_edgecolor("#dddddd")
        if line == 0:
            cell.set_facecolor("#f2f2f2")
    more = len(answer.rows) - len(frame)
    notes_below(axes, answer, [f"{more} more rows"] if more > 0 else [])
    return axes


def _cell(value: object) -> str:
    text = ("–" if value != value else f"{value:.5g}") if isinstance(value, float) else str(value)  # noqa: PLR0124
    return textwrap.shorten(text, 40, placeholder=" …")
