"""Maps of pairs of columns, the drift panel, and monitoring over time."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from privfl.errors import Misuse
from privfl_analytics.answer import Answer
from privfl_analytics.drawing.base import (
    GREY,
    HATCH,
    PALETTE,
    colour,
    fresh,
    new_axes,
    notes_below,
    parts_of,
    titled,
    with_unit,
    without_spines,
)
from privfl_analytics.drawing.numbers import draw_table

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

__all__ = ["draw_drift", "draw_history", "draw_matrix"]

#: Matrices up to this size have their numbers in them.
ANNOTATED = 12
STATUS_COLOURS = {"ok": "#009E73", "warn": "#E69F00", "drift": "#D55E00", "unresolved": "#b0b0b0"}


def draw_matrix(answer: Answer, axes: Axes | None) -> Axes:
    """A map in colours that part at 0; numbers inside while they can be read; hatched where not resolved."""
    part = parts_of(answer)[0]
    across, down, values = _matrix(part.details, part.rows)
    if not values.size:
        return draw_table(answer, axes)
    size = max(len(across), len(down))
    own = axes is None
    axes = new_axes(axes, 5.5, 4.8)
    if own and size > 6:
        fresh(axes, min(14.0, 3.0 + 0.5 * size), min(13.0, 2.3 + 0.5 * size))
    correlation = answer.statistic == "correlation"
    plain = values[np.isfinite(values)]
    reach = 1.0 if correlation else float(np.abs(plain).max(initial=0.0)) or 1.0
    axes.set_facecolor("#f3f3f3")
    negative = correlation or bool((plain < 0).any())
    image = axes.imshow(np.ma.masked_invalid(values), cmap="RdBu_r" if negative else "Blues",
                        vmin=-reach if negative else 0.0, vmax=reach)  # fmt: skip
    for line, column in np.argwhere(~np.isfinite(values)):
        axes.fill_between([column - 0.5, column + 0.5], line - 0.5, line + 0.5, facecolor="none", edgecolor="#c4c4c4",
                          hatch=HATCH, linewidth=0)  # fmt: skip
    if size <= ANNOTATED:
        for line, column in np.argwhere(np.isfinite(values)):
            value = values[line, column]
            text = f"{value:.2f}" if correlation else f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
            axes.text(column, line, text, ha="center", va="center", fontsize=8 if size < 9 else 6.5,
                      color="white" if abs(value) > 0.62 * reach else "#222222")  # fmt: skip
    axes.set_xticks(range(len(across)), across, fontsize=8, rotation=40, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(down)), down, fontsize=8)
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.figure.colorbar(image, cax=axes.inset_axes((1.03, 0.0, 0.04, 1.0)), label=_named_values(answer))
    titled(axes, answer, part.label)
    lost = ["hatched: not resolved at this budget"] if not np.isfinite(values).all() else []
    notes_below(axes, answer, lost)
    return axes


def _named_values(answer: Answer) -> str:
    """What the map's colours are, with the unit if all have one."""
    first = next((row for row in answer.rows if len(row.at) == 2), None)
    if first is None or answer.statistic in ("correlation", "covariance"):
        return answer.statistic
    return with_unit(first.what, first.unit)


def _matrix(
    details: Mapping[str, Any], rows: Sequence[tuple[Mapping[str, str | float], Any]]
) -> tuple[list[str], list[str], Any]:
    """Names across and down, and float64 values with NaN where there is none."""
    names, matrix = details.get("names"), details.get("matrix")
    if isinstance(names, list) and isinstance(matrix, list) and len(names) == len(matrix):
        values = np.array([[math.nan if one is None else one for one in line] for line in matrix], dtype=np.float64)
        return list(map(str, names)), list(map(str, names)), values
    placed = [(list(map(str, at.values())), row) for at, row in rows if len(at) == 2]
    what = placed[0][1].what if placed else ""
    placed = [(cells, row) for cells, row in placed if row.what == what]
    down = list(dict.fromkeys(cells[0] for cells, _ in placed))
    across = list(dict.fromkeys(cells[1] for cells, _ in placed))
    values = np.full((len(down), len(across)), math.nan)
    for cells, row in placed:
        if row.value is not None:
            values[down.index(cells[0]), across.index(cells[1])] = row.value
    return across, down, values


def draw_drift(answer: Answer, axes: Axes | None) -> Axes:
    """For each judged measure what is left above noise and chance, in units of its alert limit, with its noise."""
    findings = [one for one in answer.details.get("findings", ()) if isinstance(one, Mapping) and one.get("judged")]
    if not findings:
        return draw_table(answer, axes)
    shown = _foremost(findings)
    axes = new_axes(axes, 7.5, 1.3 + 0.26 * len(shown))
    for at, one in enumerate(shown):
        alert = float(one["alert"])
        if one["value"] is None:
            axes.text(1.0, at, one["note"] or "not resolved", fontsize=7.5, color=GREY, style="italic", va="center",
                      ha="center")  # fmt: skip
            continue
        reach = float(one["null_reach"]) / alert
        axes.barh(at, min(reach, 2.4), height=0.72, color="#ededed", edgecolor="#cfcfcf", linewidth=0.6, zorder=1)
        x = float(one["excess"]) / alert
        axes.plot([0, min(max(x, 0.0), 2.5)], [at, at], color=STATUS_COLOURS[one["status"]], linewidth=1.6, zorder=2)
        axes.plot(min(max(x, 0.0), 2.5), at, ">" if x > 2.5 else "o", color=STATUS_COLOURS[one["status"]], markersize=6,
                  zorder=3)  # fmt: skip
        axes.plot(float(one["warn"]) / alert, at, "|", color="#E69F00", markersize=11, markeredgewidth=1.6, zorder=2)
        axes.text(2.58, at, f"{one['value']:+.3g}" if one["value"] < 0 else f"{one['value']:.3g}", fontsize=7.5,
                  va="center")  # fmt: skip
    axes.axvline(1.0, color="#D55E00", linewidth=1, linestyle="--", zorder=0)
    axes.axvline(0.0, color="#444444", linewidth=0.8)
    axes.set_xlim(-0.05, 2.9)
    axes.set_ylim(len(shown) - 0.4, -0.6)
    axes.set_yticks(range(len(shown)), [_named(one) for one in shown], fontsize=8)
    axes.set_xticks([0, 0.5, 1, 1.5, 2, 2.5])
    axes.set_xlabel("what is left above noise and chance, in units of the alert limit")
    handles = [axes.plot([], [], "o", color=tint, label=status)[0] for status, tint in STATUS_COLOURS.items()]
    axes.legend(handles=handles, ncol=4, frameon=False, fontsize=7.5, loc="lower right", bbox_to_anchor=(1.0, 1.0))
    without_spines(axes)
    axes.grid(axis="y", visible=False)
    titled(axes, answer)
    words = ["grey: how far noise and chance reach without drift; tick: warning; dashed: alert; at the right: the "
             "measure itself"]  # fmt: skip
    if len(shown) < len(findings):
        words.append(f"{len(findings) - len(shown)} more measures in the table")
    notes_below(axes, answer, words)
    return axes


def _foremost(findings: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """One line per column, group and family of measures: the one that stands out most; alarms of groups, at most 40."""
    rank = {"drift": 0, "warn": 1, "unresolved": 2, "ok": 3}
    best: dict[tuple[str, str, str], Mapping[str, Any]] = {}
    for one in findings:
        if one["group"] and one["status"] not in ("drift", "warn"):
            continue
        family = (
            ""
            if one["measure"] in ("psi", "ks", "jensen_shannon", "total_variation", "wasserstein")
            else one["measure"]
        )
        key, old = (one["column"], one["group"], family), best.get((one["column"], one["group"], family))
        if old is None or (rank[one["status"]], -_size(one)) < (rank[old["status"]], -_size(old)):
            best[key] = one
    return list(best.values())[:40]


def _size(one: Mapping[str, Any]) -> float:
    return float(one["excess"]) / float(one["alert"]) if one["excess"] is not None else -math.inf


def _named(one: Mapping[str, Any]) -> str:
    group = f" ({one['group']})" if one["group"] else ""
    return f"{one['column']}{group}: {str(one['measure']).replace('_', ' ')}"


def draw_history(frame: pd.DataFrame, measure: str, columns: Sequence[str] | None, axes: Axes | None) -> Axes:
    """What is left of a measure above noise and chance by date, a line for each column; raises Misuse without any."""
    found = frame[frame["measure"] == measure]
    names = list(columns) if columns is not None else list(dict.fromkeys(found["column"]))
    if found.empty or not set(names) & set(found["column"]):
        known = ", ".join(dict.fromkeys(frame["measure"])) or "nothing yet"
        raise Misuse(f"the history has no {measure!r} of {', '.join(names) or 'any column'}; there is {known}")
    axes = new_axes(axes, 8.0, 3.8)
    for at, name in enumerate(names):
        one = found[found["column"] == name]
        tint = colour(at) if at < len(PALETTE) else "#bbbbbb"
        axes.plot(
            one.index, one["excess"].astype(float), color=tint, linewidth=1.3, label=name if at < len(PALETTE) else "_"
        )
        for status, edge in STATUS_COLOURS.items():
            some = one[one["status"] == status]
            axes.plot(some.index, some["excess"].astype(float), "o", color=edge, markersize=6, markeredgecolor="white")
    limits = found["alert"].dropna()
    if not limits.empty:
        axes.axhline(float(limits.iloc[-1]), color="#D55E00", linewidth=1, linestyle="--", label="alert limit")
    axes.axhline(0, color="#444444", linewidth=0.8)
    axes.set_ylabel(f"{measure.replace('_', ' ')} above noise and chance")
    axes.legend(frameon=False, fontsize=8, ncol=3)
    without_spines(axes)
    axes.figure.autofmt_xdate(rotation=30) if hasattr(axes.figure, "autofmt_xdate") else None
    axes.set_title("Drift over time (dots: status of the column)", fontsize=10, loc="left")
    return axes
