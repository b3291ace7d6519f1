"""Histograms with intervals, cumulative shares and survival curves with bands; one colour for each group."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from privfl_analytics.answer import Answer, Row
from privfl_analytics.drawing.base import (
    ASIDE,
    GREY,
    HATCH,
    LIGHT,
    Part,
    colour,
    fresh,
    interval_of_cell,
    interval_words,
    main_what,
    new_axes,
    notes_below,
    number_of_cell,
    parts_of,
    shares_as_percent,
    spread,
    titled,
    with_unit,
    without_spines,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["draw_ecdf", "draw_histogram", "draw_survival"]


def draw_histogram(answer: Answer, axes: Axes | None) -> Axes:
    """Bars with intervals; what stands beside the scale (missing, other) apart and pale; what is not known hatched."""
    series, key, what = _series(answer)
    cells = list(dict.fromkeys(cell for _, rows in series for cell in rows))
    cells = [cell for cell in cells if str(cell) not in ASIDE] + [cell for cell in cells if str(cell) in ASIDE]
    axes = new_axes(axes)
    if len(cells) > 14:
        fresh(axes, min(14.0, 5 + 0.2 * len(cells)), 4.0)
    apart = [at + (0.6 if str(cell) in ASIDE else 0.0) for at, cell in enumerate(cells)]
    width = 0.86 / max(1, len(series))
    unknown = False
    for place, (label, rows) in enumerate(series):
        found = [(x, str(cell), rows[cell]) for x, cell in zip(apart, cells, strict=True) if cell in rows]
        shift = (place - (len(series) - 1) / 2) * width
        unknown = _bars(axes, found, shift, width, place, label) or unknown
    _ticks(axes, apart, cells)
    unit = next((row.unit for _, row in _all(series) if row.unit), "")
    edges_unit = _unit(answer)
    axes.set_xlabel(with_unit(key, edges_unit))
    axes.set_ylabel(with_unit(what, unit))
    axes.axhline(0, color="#444444", linewidth=0.8)
    axes.margins(x=0.02)
    if len(series) > 1:
        axes.legend(frameon=False, fontsize=8)
    without_spines(axes)
    titled(axes, answer)
    notes_below(axes, answer, [interval_words(answer) + ("; hatched: not resolved or not shown" if unknown else "")])
    return axes


def _series(answer: Answer) -> tuple[list[tuple[str, dict[str | float, Row]]], str, str]:
    """Label → cell → row for each group, the axis' name and what the bars are."""
    parts = parts_of(answer)
    what = main_what([row for part in parts for row in part.rows], "count", "share", "noisy count")
    placed = [(at, row) for part in parts for at, row in part.rows if row.what == what and at]
    keys = list(dict.fromkeys(key for at, _ in placed for key in at))
    if not keys:  # nothing has a place: one bar for each kind of number
        return [("", {row.what: row for row in answer.rows})], "", "value"
    if len(keys) > 1 and len(parts) == 1:  # a table of two columns: the second one makes the groups
        seconds = list(dict.fromkeys(at.get(keys[1]) for at, _ in placed))
        by = [
            (f"{keys[1]} {cell}", {at[keys[0]]: row for at, row in placed if keys[0] in at and at.get(keys[1]) == cell})
            for cell in seconds
        ]
        plain = [(label, rows) for (label, rows), cell in zip(by, seconds, strict=True) if rows and cell not in ASIDE]
        return (plain or by)[:8], keys[0], what
    series = [
        (part.label, {at[keys[0]]: row for at, row in part.rows if row.what == what and keys[0] in at})
        for part in parts
    ]
    return series, keys[0], what


def _unit(answer: Answer) -> str:
    """The column's unit, from the details or those of the first group."""
    return str(parts_of(answer)[0].details.get("unit") or "")


def _all(series: Sequence[tuple[str, Mapping[str | float, Row]]]) -> list[tuple[str, Row]]:
    return [(label, row) for label, rows in series for row in rows.values()]


def _bars(
    axes: Axes, found: Sequence[tuple[float, str, Row]], shift: float, width: float, place: int, label: str
) -> bool:
    """Draw one group's bars; whether something in it is not known."""
    known = [(x + shift, cell, row) for x, cell, row in found if row.value is not None]
    if known:
        values = [row.value or 0.0 for _, _, row in known]
        bars = axes.bar(
            [x for x, _, _ in known],
            values,
            width,
            color=[LIGHT if cell in ASIDE else colour(place) for _, cell, _ in known],
            edgecolor=colour(place),
            linewidth=0.8,
            alpha=0.85,
        )
        bars.set_label(label or "_")
        reach = np.array([spread(row) for _, _, row in known]).T
        axes.errorbar(
            [x for x, _, _ in known], values, yerr=reach, fmt="none", ecolor="#333333", elinewidth=1, capsize=2
        )
    lost = [x + shift for x, _, row in found if row.value is None]
    for x in lost:
        axes.axvspan(x - width / 2, x + width / 2, facecolor="#f7f7f7", edgecolor="#c8c8c8", hatch=HATCH, linewidth=0)
    return bool(lost)


def _ticks(axes: Axes, places: Sequence[float], cells: Sequence[str | float]) -> None:
    """Edges between bars for bins, names under bars for classes; turned where they would touch."""
    bins = [interval_of_cell(cell) for cell in cells]
    numbered = [(x, pair) for x, pair in zip(places, bins, strict=True) if pair is not None]
    if len(numbered) > 1:
        step = max(1, math.ceil(len(numbered) / 16))
        ticks = [(x - 0.5, f"{pair[0]:.4g}") for x, pair in numbered][::step]
        if len(numbered) % step == 0:
            ticks.append((numbered[-1][0] + 0.5, f"{numbered[-1][1][1]:.4g}"))
        ticks += [(x, str(cell)) for x, cell, pair in zip(places, cells, bins, strict=True) if pair is None]
    else:
        ticks = [(x, str(cell)) for x, cell in zip(places, cells, strict=True)]
    turned = max((len(text) for _, text in ticks), default=0) * len(ticks) > 90
    axes.set_xticks([x for x, _ in ticks], [text[:24] for _, text in ticks], fontsize=8)
    if turned:
        axes.tick_params(axis="x", rotation=45)
        for text in axes.get_xticklabels():
            text.set_horizontalalignment("right")
            text.set_rotation_mode("anchor")


def _curve(part: Part, *preferred: str) -> tuple[str, list[tuple[float, Row]], str]:
    """The axis' name, points in order of x, and what they are."""
    what = main_what(part.rows, *preferred)
    found, name = [], ""
    for at, row in part.rows:
        if row.what != what or not at:
            continue
        key, cell = next(iter(at.items()))
        x = number_of_cell(cell)
        if x is not None:
            name = key
            found.append((x, row))
    return name, sorted(found, key=lambda pair: pair[0]), what


def _band(
    axes: Axes, points: Sequence[tuple[float, Row]], at: int, label: str, start: tuple[float, float] | None
) -> None:
    known = [(x, row.value, row.lower, row.upper) for x, row in points if row.value is not None]
    if start is not None and known and start[0] < known[0][0]:
        known.insert(0, (start[0], start[1], start[1], start[1]))
    if not known:
        return
    x = [one[0] for one in known]
    axes.step(x, [one[1] for one in known], where="post", color=colour(at), linewidth=1.8, label=label or "_")
    low = [one[1] if one[2] is None else one[2] for one in known]
    high = [one[1] if one[3] is None else one[3] for one in known]
    axes.fill_between(x, low, high, step="post", color=colour(at), alpha=0.18, linewidth=0)


def _lost(axes: Axes, points: Sequence[tuple[float, Row]], only: bool) -> bool:
    """Mark where nothing is resolved, from the last known place before it; among several curves one just ends."""
    xs = [x for x, _ in points]
    lost = [at for at, (_, row) in enumerate(points) if row.value is None]
    for at in lost if only else ():
        left = xs[at - 1] if at else xs[at]
        axes.axvspan(left, xs[at], facecolor="#f7f7f7", edgecolor="#d5d5d5", hatch=HATCH, linewidth=0, zorder=0)
    return bool(lost)


def draw_ecdf(answer: Answer, axes: Axes | None) -> Axes:
    """Cumulative shares as steps with a band; quantiles, where there are some, as dots with bars across."""
    axes = new_axes(axes)
    unknown, name, unit = False, "", ""
    parts = parts_of(answer)
    for at, part in enumerate(parts):
        key, points, _ = _curve(part, "share below", "cumulative share")
        name = key or name
        _band(axes, points, at, part.label, None)
        unknown = _lost(axes, points, len(parts) == 1) or unknown
        unit = next((str(row.unit) for _, row in part.of("quantile", "median") if row.unit), unit)
        for place, row in part.of("quantile"):
            level = number_of_cell(next(iter(place.values()), ""))
            if row.value is not None and level is not None:
                low, high = spread(row)
                axes.errorbar(
                    row.value, level, xerr=[[low], [high]], fmt="o", color=colour(at), capsize=3, markersize=4
                )
    axes.set_ylim(-0.02, 1.02)
    shares_as_percent(axes)
    unit = unit or _unit(answer)
    axes.set_xlabel(with_unit(name, unit))
    axes.set_ylabel("cumulative share")
    return _finished(axes, answer, unknown)


def draw_survival(answer: Answer, axes: Axes | None) -> Axes:
    """Survival curves with bands, starting from everyone at time 0."""
    axes = new_axes(axes)
    unknown, name, unit = False, "time", _unit(answer)
    parts = parts_of(answer)
    for at, part in enumerate(parts):
        key, points, _ = _curve(part, "survival", "surviving share", "survival probability")
        points = _from_details(part.details, points)
        name = str(part.details.get("column") or "") or key or name
        unit = unit or str(part.details.get("unit") or "")
        _band(axes, points, at, part.label, (0.0, 1.0))
        unknown = _lost(axes, points, len(parts) == 1) or unknown
    axes.set_ylim(-0.02, 1.04)
    axes.set_xlim(left=0)
    shares_as_percent(axes)
    axes.axhline(0.5, color=GREY, linewidth=0.7, linestyle=":")
    axes.set_xlabel(with_unit(name, unit))
    axes.set_ylabel("surviving share")
    return _finished(axes, answer, unknown)


def _from_details(details: Mapping[str, Any], points: list[tuple[float, Row]]) -> list[tuple[float, Row]]:
    """Every edge of the curve, where the rows tell only some times of it."""
    columns = [details.get(key) for key in ("times", "survival", "lower", "upper")]
    if not all(isinstance(one, list) for one in columns) or len({len(one or ()) for one in columns}) != 1:
        return points
    lines = zip(*(one or () for one in columns), strict=True)
    return [(float(x), Row("survival", value, lower=low, upper=high)) for x, value, low, high in lines]


def _finished(axes: Axes, answer: Answer, unknown: bool) -> Axes:
    without_spines(axes)
    if len(axes.get_legend_handles_labels()[0]) > 0:
        axes.legend(frameon=False, fontsize=8)
    titled(axes, answer)
    words = interval_words(answer).replace("bars", "bands", 1)
    notes_below(axes, answer, [words + ("; not resolved where it is hatched or a curve ends" if unknown else "")])
    return axes
