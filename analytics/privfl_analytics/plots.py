"""One good plot for each kind of answer."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

from privfl_analytics.answer import Answer
from privfl_analytics.drawing.base import new_axes
from privfl_analytics.drawing.curves import draw_calibration, draw_precision_recall, draw_roc
from privfl_analytics.drawing.distributions import draw_ecdf, draw_histogram, draw_survival
from privfl_analytics.drawing.numbers import draw_numbers, draw_table
from privfl_analytics.drawing.panels import draw_drift, draw_history, draw_matrix

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["is_crossed", "plot_answer", "plot_history", "plot_study"]

_PICTURES: Mapping[str, Callable[[Answer, Axes | None], Axes]] = {
    "numbers": draw_numbers,
    "histogram": draw_histogram,
    "ecdf": draw_ecdf,
    "survival": draw_survival,
    "matrix": draw_matrix,
    "roc": draw_roc,
    "precision-recall": draw_precision_recall,
    "calibration": draw_calibration,
    "drift": draw_drift,
    "table": draw_table,
}


class _Answered(Protocol):
    @property
    def answers(self) -> Mapping[str, Answer]: ...


def plot_answer(answer: Answer, axes: Axes | None = None) -> Axes:
    """Draw ``answer`` in the way that fits it; in colours that colour-blind readers can tell apart.

    Args:
        axes: to draw into; by default those of a new figure of a fitting size.

    Raises:
        Misuse: matplotlib is not installed (the extra ``plots``).
    """
    kind = "matrix" if answer.picture == "table" and is_crossed(answer) else answer.picture
    with _plain_text():
        return _PICTURES.get(kind, draw_table)(answer, axes)


@contextmanager
def _plain_text() -> Iterator[None]:
    """A dollar in the name of a column or a class is a dollar, and begins no formula that may not even parse."""
    try:
        from matplotlib import rc_context  # noqa: PLC0415 - heavy, and an extra
    except ImportError:
        yield  # drawing says what is missing
        return
    with rc_context({"text.parse_math": False, "text.usetex": False}):
        yield


def is_crossed(answer: Answer) -> bool:
    """Whether a table's counts are over the cells of two columns, so that a map shows them better."""
    keys = {tuple(row.at) for row in answer.rows if row.what == "count"}
    return len(keys) == 1 and len(next(iter(keys))) == 2 and "groups" not in answer.details


def plot_study(result: _Answered) -> Figure:
    """Draw all answers of a study on one figure, two beside each other; raises Misuse as :func:`plot_answer`."""
    new_axes_needed = len(result.answers)
    first = new_axes(None, 6.5 * min(2, new_axes_needed), 4.6 * math.ceil(new_axes_needed / 2))
    figure: Figure = first.get_figure(root=True)  # type: ignore[assignment]
    first.remove()
    grid = figure.subplots(math.ceil(new_axes_needed / 2), min(2, new_axes_needed), squeeze=False).ravel()
    for axes, answer in zip(grid, result.answers.values(), strict=False):
        plot_answer(answer, axes)
    for axes in grid[new_axes_needed:]:
        axes.remove()
    return figure


def plot_history(
    frame: pd.DataFrame, measure: str = "psi", columns: Sequence[str] | None = None, axes: Axes | None = None
) -> Axes:
    """Draw a monitor's history (see :class:`privfl_analytics.monitor.MonitorHistory`); raises Misuse without any."""
    with _plain_text():
        return draw_history(frame, measure, columns, axes)
