"""The quality of a score: ROC, precision and recall, calibration; one colour for each group."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from privfl_analytics.answer import Answer, Row
from privfl_analytics.drawing.base import (
    GREY,
    Part,
    colour,
    interval_of_cell,
    interval_words,
    new_axes,
    notes_below,
    number_of_cell,
    parts_of,
    spread,
    titled,
    without_spines,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["draw_calibration", "draw_precision_recall", "draw_roc"]

_FPR = ("fpr", "false positive rate", "false_positive_rate", "x")
_TPR = ("tpr", "true positive rate", "true_positive_rate", "sensitivity", "y")
_RECALL = ("recall", "sensitivity", "tpr", "x")
_PRECISION = ("precision", "positive predictive value", "y")
_PREDICTED = ("predicted", "mean predicted", "mean score", "mean prediction", "score", "x")
_OBSERVED = ("observed", "observed rate", "rate", "fraction positive", "y")


def draw_roc(answer: Answer, axes: Axes | None) -> Axes:
    """True against false positive rate, with the diagonal of a coin and the AUC."""
    axes = _square(axes)
    axes.plot([0, 1], [0, 1], color=GREY, linewidth=0.9, linestyle="--")
    said = _lines(answer, axes, _FPR, _TPR, ("auc",), "AUC", shape="plain")
    axes.set_xlabel("false positive rate")
    axes.set_ylabel("true positive rate")
    return _finished(axes, answer, said)


def draw_precision_recall(answer: Answer, axes: Axes | None) -> Axes:
    """Precision against recall."""
    axes = _square(axes)
    said = _lines(answer, axes, _RECALL, _PRECISION, ("average precision", "ap"), "average precision", shape="step")
    for at, part in enumerate(parts_of(answer)):  # the precision of a score that tells nothing
        share = part.details.get("share")
        if isinstance(share, float):
            axes.axhline(share, color=colour(at), linewidth=0.8, linestyle="--")
    axes.set_xlabel("recall")
    axes.set_ylabel("precision")
    return _finished(axes, answer, said)


def draw_calibration(answer: Answer, axes: Axes | None) -> Axes:
    """Observed rate against mean prediction with intervals; on the diagonal a score means what it says."""
    axes = _square(axes)
    axes.plot([0, 1], [0, 1], color=GREY, linewidth=0.9, linestyle="--")
    for at, part in enumerate(parts_of(answer)):
        points = _calibrated(part)
        known = [(x, row) for x, row in points if row.value is not None]
        reach = list(zip(*(spread(row) for _, row in known), strict=True))
        if known:
            axes.errorbar([x for x, _ in known], [row.value or 0.0 for _, row in known], yerr=reach, fmt="o-",
                          color=colour(at), capsize=3, markersize=5, linewidth=1, label=part.label or "_")  # fmt: skip
        lost = [x for x, row in points if row.value is None]
        axes.plot(lost, [-0.03] * len(lost), "x", color=GREY, markersize=5, clip_on=False)
    axes.set_xlabel("mean prediction")
    axes.set_ylabel("observed rate")
    brier = next((row for row in answer.rows if "brier" in row.what.lower() and row.value is not None), None)
    return _finished(axes, answer, f"Brier score {brier.value:.3f}" if brier and brier.value is not None else "")


def _square(axes: Axes | None) -> Axes:
    axes = new_axes(axes, 5.2, 5.2)
    axes.set_xlim(-0.02, 1.02)
    axes.set_ylim(-0.02, 1.02)
    axes.set_aspect("equal")
    return axes


def _lines(
    answer: Answer,
    axes: Axes,
    xs: Sequence[str],
    ys: Sequence[str],
    areas: Sequence[str],
    area_name: str,
    shape: str,
) -> str:
    """Draw each group's curve; its area goes into the legend, of a single curve into the returned text."""
    parts, said = parts_of(answer), ""
    for at, part in enumerate(parts):
        points = _points(part, xs, ys)
        found = part.of(*areas)
        area = _area(found[0][1], area_name) if found else ""
        label = ": ".join(text for text in (part.label, area) if text) if part.label else ""
        said = area if len(parts) == 1 else ""
        if points:
            style, marker = "steps-post" if shape == "step" else "default", "." if len(points) < 40 else ""
            axes.plot(*zip(*points, strict=True), color=colour(at), linewidth=1.8, marker=marker, drawstyle=style,
                      label=label or "_")  # fmt: skip
            _spread_of(axes, part.details, len(points), at)
        elif label:
            axes.plot([], [], color=colour(at), label=label)
    if not axes.lines or not any(len(line.get_xdata()) > 2 for line in axes.lines):  # type: ignore[arg-type]
        axes.text(0.5, 0.5, "not resolved at this budget", ha="center", color=GREY, style="italic")
    return said


def _spread_of(axes: Axes, details: Mapping[str, Any], size: int, at: int) -> None:
    """A band, where the details have one over the same x."""
    low, high = details.get("lower"), details.get("upper")
    line = axes.lines[-1]
    if isinstance(low, list) and isinstance(high, list) and len(low) == len(high) == size and None not in (*low, *high):
        axes.fill_between(line.get_xdata(), low, high, color=colour(at), alpha=0.15, linewidth=0)


def _area(row: Row, name: str) -> str:
    if row.value is None:
        return f"{name} {row.note or 'not resolved'}"
    if row.lower is None or row.upper is None:
        return f"{name} {row.value:.3f}"
    return f"{name} {row.value:.3f} [{row.lower:.3f}, {row.upper:.3f}]"


def _points(part: Part, xs: Sequence[str], ys: Sequence[str]) -> list[tuple[float, float]]:
    """The curve from the details, or else from rows that carry both coordinates."""
    inner = [part.details, *(one for one in part.details.values() if isinstance(one, Mapping))]
    for details in inner:
        x, y = (next((details[key] for key in keys if isinstance(details.get(key), list)), None) for keys in (xs, ys))
        if x is not None and y is not None and len(x) == len(y):
            return [(float(one), float(two)) for one, two in zip(x, y, strict=True) if None not in (one, two)]
    first, second = part.of(*xs), part.of(*ys)
    if first and len(first) == len(second):
        both = zip(first, second, strict=True)
        return [
            (one.value, two.value) for (_, one), (_, two) in both if one.value is not None and two.value is not None
        ]
    found = []
    for at, row in second:
        x = next((number_of_cell(cell) for key, cell in at.items() if key.lower() in xs), None)
        if x is not None and row.value is not None:
            found.append((x, row.value))
    return found


def _calibrated(part: Part) -> list[tuple[float, Row]]:
    """Mean prediction and observed rate of each bin; the bin's middle where no mean is told."""
    means = {tuple(at.items()): row.value for at, row in part.of(*_PREDICTED)}
    found = []
    for at, row in part.of(*_OBSERVED):
        x = means.get(tuple(at.items()))
        cell = next(iter(at.values()), "")
        pair = interval_of_cell(cell)
        if x is None:
            x = (pair[0] + pair[1]) / 2 if pair else number_of_cell(cell)
        if x is not None:
            found.append((x, row))
    return sorted(found, key=lambda pair: pair[0])


def _finished(axes: Axes, answer: Answer, said: str) -> Axes:
    without_spines(axes)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(frameon=False, fontsize=8, loc="lower right")
    titled(axes, answer, said)
    bars = [interval_words(answer)] if any(row.lower is not None for row in answer.rows) else []
    notes_below(axes, answer, bars)
    return axes
