"""What all pictures share: colours, an answer's parts, how a cell is placed, and how what is not known is shown."""

from __future__ import annotations

import math
import re
import textwrap
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from privfl.errors import Misuse
from privfl_analytics.answer import Answer, Row

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = [
    "ASIDE",
    "GREY",
    "HATCH",
    "LIGHT",
    "PALETTE",
    "Part",
    "colour",
    "fresh",
    "interval_of_cell",
    "main_what",
    "new_axes",
    "notes_below",
    "number_of_cell",
    "parts_of",
    "shares_as_percent",
    "spread",
    "titled",
    "with_unit",
    "without_spines",
]

#: Okabe and Ito's colours, told apart with every kind of colour blindness.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#B8A800")
GREY, LIGHT = "#8a8a8a", "#e4e4e4"
#: Of what is not resolved or not shown.
HATCH = "////"
#: Groups that are drawn at most; the table has all.
MOST_GROUPS = 8
#: Cells that are no place on a column's own scale, and groups of nobody in particular: drawn apart, or only in tables.
ASIDE = ("missing", "other", "outside", "unknown")
_INTERVAL = re.compile(r"^[\[(]\s*([-+0-9.einf]+)\s*,\s*([-+0-9.einf]+)\s*[\])]$", re.IGNORECASE)


@dataclass(frozen=True)
class Part:
    """One group of an answer: its label (empty without groups), its rows without the group's cells, its details."""

    label: str
    rows: tuple[tuple[Mapping[str, str | float], Row], ...]
    details: Mapping[str, Any]

    def of(self, *whats: str) -> list[tuple[Mapping[str, str | float], Row]]:
        """Rows of the first of these names that there are."""
        for what in whats:
            found = [(at, row) for at, row in self.rows if row.what.lower() == what]
            if found:
                return found
        return []


def parts_of(answer: Answer) -> list[Part]:
    """The groups of a grouped answer, or the whole.

    Groups of other and missing cells, and those without any number, are in the table alone if there are others.
    """
    groups = answer.details.get("groups")
    if not isinstance(groups, Sequence) or not groups or not all(isinstance(one, Mapping) for one in groups):
        return [Part("", tuple((dict(row.at), row) for row in answer.rows), answer.details)]
    found = []
    for one in groups:
        cells = dict(one.get("at", {}))
        rows = tuple(
            ({key: cell for key, cell in row.at.items() if key not in cells}, row)
            for row in answer.rows
            if all(row.at.get(key) == cell for key, cell in cells.items())
        )
        found.append(Part(", ".join(f"{key} {cell}" for key, cell in cells.items()), rows, one))
    known = [part for part in found if any(row.value is not None for _, row in part.rows)]
    declared = [part for part in known if not set(dict(part.details["at"]).values()) & set(ASIDE)]
    return (declared or known or found)[:MOST_GROUPS]


def new_axes(axes: Axes | None, width: float = 7.0, height: float = 4.0) -> Axes:
    """The given axes, or new ones of this size in inches; raises Misuse where matplotlib is missing."""
    try:
        from matplotlib import pyplot  # noqa: PLC0415 - heavy, and an extra
    except ImportError:
        raise Misuse("plots need matplotlib: pip install 'privfl[plots]'") from None
    if axes is None:
        _, axes = pyplot.subplots(figsize=(width, height), layout="constrained")
    return axes


def fresh(axes: Axes, width: float, height: float) -> None:
    """Resize the figure if it holds these axes alone and is of the size that :func:`new_axes` gave."""
    figure = axes.get_figure()
    if figure is not None and len(figure.axes) == 1 and hasattr(figure, "set_size_inches"):
        figure.set_size_inches(width, height)


def titled(axes: Axes, answer: Answer, extra: str = "") -> None:
    """The answer's title, wrapped to the width of the axes."""
    text = answer.title[:1].upper() + answer.title[1:]
    wide = axes.get_window_extent().width * 72 / axes.get_figure(root=True).dpi  # type: ignore[union-attr]
    lines = textwrap.wrap(text, min(72, max(24, int(wide / 5.5))), max_lines=4, placeholder=" …")
    axes.set_title("\n".join([*lines, *([extra] if extra else [])]), fontsize=10, loc="left")


def with_unit(name: str, unit: str | None) -> str:
    """``age [years]``; the name alone where it says the unit already.

    >>> with_unit("age", "years"), with_unit("months", "months")
    ('age [years]', 'months')
    """
    return f"{name} [{unit}]" if unit and unit.lower() != name.lower() else name


def notes_below(axes: Axes, answer: Answer, extra: Sequence[str] = (), most: int = 3) -> None:
    """Small text under the axes: what bars and bands mean, then the answer's notes."""
    said = [*extra, *answer.notes[:most]]
    if len(answer.notes) > most:
        said.append(f"and {len(answer.notes) - most} more notes beside the table")
    wide = axes.get_window_extent().width * 72 / axes.get_figure(root=True).dpi  # type: ignore[union-attr]
    lines = [line for text in said for line in textwrap.wrap(text, max(40, int(0.85 * wide / 3.5)))]
    if not lines:
        return
    if axes.axison:
        axes.set_xlabel(axes.get_xlabel() or " ")  # its place is under the tick labels, wherever they end
        place: Any = ("axes fraction", axes.xaxis.label)
    else:
        place = "axes fraction"
    axes.annotate("\n".join(lines), (0, 0), (0, -4), xycoords=place, textcoords="offset points", fontsize=7,
                  color="#555555", va="top", ha="left", annotation_clip=False)  # fmt: skip


def interval_words(answer: Answer) -> str:
    """What error bars mean."""
    whose = "these rows, noise alone" if answer.interval == "rows" else "the population, noise and sampling"
    return f"bars: {answer.confidence:.0%} intervals for {whose}"


def without_spines(axes: Axes) -> None:
    """Only the left and lower lines of the frame, and a light grid behind."""
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.set_axisbelow(True)
    axes.grid(axis="y", color="#eeeeee", linewidth=0.8)


def colour(at: int) -> str:
    """The colour of the at-th group."""
    return PALETTE[at % len(PALETTE)]


def number_of_cell(cell: str | float) -> float | None:
    """A cell that is a number, or the upper end of one that is an interval."""
    if isinstance(cell, bool):
        return None
    if isinstance(cell, int | float):
        return float(cell) if math.isfinite(cell) else None
    pair = interval_of_cell(cell)
    if pair is not None:
        return pair[1]
    try:
        found = float(cell)
    except ValueError:
        return None
    return found if math.isfinite(found) else None


def interval_of_cell(cell: str | float) -> tuple[float, float] | None:
    """The ends of ``[40, 50)``."""
    found = _INTERVAL.match(cell) if isinstance(cell, str) else None
    try:
        return (float(found[1]), float(found[2])) if found else None
    except ValueError:
        return None


def main_what(rows: Sequence[tuple[Mapping[str, str | float], Row]], *preferred: str) -> str:
    """The first preferred name that rows with a place carry, else the most frequent one."""
    names = Counter(row.what for at, row in rows if at) or Counter(row.what for _, row in rows)
    lower = {name.lower(): name for name in names}
    for name in preferred:
        if name in lower:
            return lower[name]
    return names.most_common(1)[0][0] if names else ""


def spread(row: Row) -> tuple[float, float]:
    """How far the interval reaches below and above the value; 0 where there is none."""
    if row.value is None:
        return 0.0, 0.0
    low = row.value - row.lower if row.lower is not None and math.isfinite(row.lower) else 0.0
    high = row.upper - row.value if row.upper is not None and math.isfinite(row.upper) else 0.0
    return max(0.0, low), max(0.0, high)


def shares_as_percent(axes: Axes, which: str = "y") -> None:
    """Ticks from 0 to 1 as percentages."""
    from matplotlib.ticker import PercentFormatter  # noqa: PLC0415 - an extra

    (axes.yaxis if which == "y" else axes.xaxis).set_major_formatter(PercentFormatter(1.0, decimals=0))
