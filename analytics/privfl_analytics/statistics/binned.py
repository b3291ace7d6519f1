"""What statistics over a fixed public grid share: the grid itself, and the error of functions of noisy cells.

Cells are counts. As a sample from a population they vary like independent Poisson counts; ratios of them then
vary as under multinomial sampling. The noise adds a known variance to each.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from privfl.errors import Misuse
from privfl.tasks import Class
from privfl_analytics.answer import Answer, Row
from privfl_analytics.constructions import Classes, Is
from privfl_analytics.decode import null_p_value, percent
from privfl_analytics.statistic import Context, Statistic
from privfl_analytics.view import View

__all__ = [
    "FAINT",
    "Floats",
    "Function",
    "answered",
    "band",
    "chosen",
    "cover",
    "grid",
    "jacobian",
    "place",
    "redraw",
    "simulated",
    "variance_of",
    "withheld",
]

Floats: TypeAlias = npt.NDArray[np.float64]
#: Takes tables with one leading axis of replicates, gives (replicates, outputs).
Function: TypeAlias = Callable[[Floats], Floats]

#: Said of a number whose denominator is between RESOLVED and FIRM: that it is shown at all is partly luck.
FAINT = "stands little above the noise; its interval may be too narrow"
#: Width of the difference quotient in persons: small beside a cell of one, large beside float64's error in any table.
_STEP = 1e-4


def grid(view: View, column: str, bins: int | tuple[float, ...]) -> tuple[float, ...]:
    """The edges as given, or those of equal bins over the column's bounds; Misuse if it is no number."""
    bounds = view.numeric(column)
    if isinstance(bins, tuple):
        return bins
    return tuple(float(edge) for edge in np.linspace(bounds.lower, bounds.upper, bins + 1))


def cover(view: View, column: str, edges: Sequence[float], *, upper: bool = True) -> None:
    """Raise Misuse unless the edges start at the column's lower bound and, with ``upper``, end at its upper one."""
    bounds = view.numeric(column)
    if edges[0] != bounds.lower or (upper and edges[-1] != bounds.upper):
        end = f" and end at {bounds.upper:.12g}" if upper else ""
        raise Misuse(
            f"edges of {column!r} must start at {bounds.lower:.12g}{end}: a value beyond them could not be put in order"
        )


def place(view: View, column: str, value: Class) -> int:
    """Which declared class of a category it is; Misuse if it is none."""
    Is(column=column, value=value).check(view)
    return view.category(column).classes.index(value)


def chosen(view: View, column: str, classes: tuple[Class, ...] | None) -> dict[int, str]:
    """Places and labels of the named classes of a category, by default of all that are declared."""
    labels = Classes(column=column).labels(view)
    wanted = view.category(column).classes if classes is None else classes
    found = {place(view, column, one): str(one) for one in wanted}
    if len(found) != len(wanted):
        raise Misuse(f"name each class of {column!r} once")
    return {at: labels[at] for at in found}


def jacobian(function: Function, cells: Floats) -> Floats:
    """Derivatives by central differences, shape (outputs, cells)."""
    steps = (_STEP * np.eye(cells.size)).reshape(cells.size, *cells.shape)
    slopes: Floats = ((function(cells + steps) - function(cells - steps)) / (2 * _STEP)).T
    return slopes


def variance_of(function: Function, cells: Floats, sds: Floats | float, context: Context) -> Floats:
    """Variance of each output by the delta method: noise, and sampling where the interval is for the population."""
    variances = np.broadcast_to(np.square(sds), cells.shape)
    if context.interval == "population":
        variances = variances + np.maximum(cells, 0.0)
    found: Floats = np.square(jacobian(function, cells)) @ variances.ravel()
    return found


def redraw(cells: Floats, sds: Floats | float, context: Context) -> Floats:
    """Replicates of noisy cells, shape (draws, …): sample (for the population) and noise drawn again."""
    shape = (context.draws, *cells.shape)
    drawn = context.rng.poisson(np.maximum(cells, 0.0), shape) if context.interval == "population" else cells
    return np.asarray(drawn + context.rng.normal(0.0, 1.0, shape) * sds, dtype=np.float64)


def band(replicates: Floats, context: Context) -> tuple[Floats, Floats, Floats]:
    """Standard error, lower and upper end of the percentile interval of each output."""
    low, high = np.quantile(replicates, percent(context), axis=0)
    return np.asarray(replicates.std(axis=0)), low, high


def simulated(found: float, null: Floats, note: str = "") -> Row:
    """The row of a p-value from a simulated null, which cannot tell smaller ones than its replicates can."""
    p = null_p_value(found, null)
    least = "the least that the simulated null can tell" if p <= 1.5 / (1 + len(null)) else ""
    return Row("p-value", p, note="; ".join(filter(None, (note, least))))


def withheld(what: str, note: str, at: Mapping[str, str | float] | None = None, unit: str = "") -> Row:
    """A row without a value, and why."""
    return Row(what, None, dict(at or {}), unit=unit, note=note)


def answered(statistic: Statistic, context: Context, rows: Sequence[Row], **more: Any) -> Answer:
    """The answer with what every answer says of its context; ``more`` are further fields of it."""
    return Answer(
        title=statistic.words(),
        statistic=statistic.name,
        rows=tuple(rows),
        confidence=context.confidence,
        interval=context.interval,
        sites=context.survivors,
        records=context.records,
        **more,
    )
