"""Times until an event: the Kaplan-Meier curve, from counts by bin and outcome alone.

Convention: an event in a bin happens at the bin's right edge, and whoever is censored in a bin is at risk until
then and gone after it. So without noise the curve is that of durations rounded up to the edges. At-risk counts are
never sent: they are the counts summed from the end.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, ClassVar

import numpy as np
from pydantic import Field

from privfl.errors import Misuse
from privfl.tasks import Class
from privfl_analytics.answer import Answer, Row
from privfl_analytics.constructions import Bins, Classes, Construction, Tally
from privfl_analytics.decode import (
    BELOW_MINIMUM,
    FIRM,
    NOT_RESOLVED,
    RESOLVED,
    count_rows,
    isotonic,
    z_of,
)
from privfl_analytics.statistic import Context, Noisy, State, Statistic
from privfl_analytics.statistics.binned import (
    FAINT,
    Floats,
    answered,
    band,
    cover,
    grid,
    place,
    redraw,
    variance_of,
    withheld,
)
from privfl_analytics.view import View

__all__ = ["Survival", "Timed", "at_risk", "falling", "steps"]


class Timed(Statistic):
    """Common to what asks about times: the grid of times and the class that is the event.

    Args:
        time: the column of times.
        event: the category that tells what ended them. Rows in which it or the time is missing do not count.
        happened: its class that is the event; its other declared classes are censored.
        bins: how many equal ones over the column's bounds, or their edges from its lower bound on; whoever is
            beyond them is at risk throughout.
    """

    time: str
    event: str
    happened: Class = True
    bins: Annotated[int, Field(ge=1, le=30)] | Annotated[tuple[float, ...], Field(min_length=2, max_length=31)] = 20

    def table(self, view: View, *more: str) -> Tally:
        """Counts by bin of time, class of the event, and further categories; Misuse if something does not fit."""
        times = Bins(column=self.time, edges=grid(view, self.time, self.bins))
        asked = Tally(axes=(times, *(Classes(column=name) for name in (self.event, *more))))
        asked.check(view)
        cover(view, self.time, times.edges, upper=False)
        place(view, self.event, self.happened)
        return asked

    def outcomes(self, view: View, noisy: Noisy) -> tuple[Floats, Floats]:
        """(bins + 1, 2, …) counts of events and of the censored, the last bin beyond the grid; noise of each."""
        table, at = noisy.values[:-1], place(view, self.event, self.happened)
        others = [one for one in range(len(view.category(self.event).classes)) if one != at]
        cells = np.stack([table[:, at], table[:, others].sum(axis=1)], axis=1)
        sds = np.ones_like(cells) * noisy.sd
        sds[:, 1] *= np.sqrt(len(others))
        return cells, sds


class Survival(Timed):
    """The Kaplan-Meier curve: how many go on without the event, by time.

    Args:
        at: times of which to tell the survival; by default every edge. A time within a bin has the survival of the
            edge before it.

    ``details`` of the answer: ``column``, ``times``, ``survival``, ``lower``, ``upper``; None where not shown.
    """

    name: ClassVar[str] = "survival"
    summary: ClassVar[str] = "Kaplan-Meier survival by time, and the median"
    example: ClassVar[str] = "survival months, event by treatment"

    at: Annotated[tuple[float, ...], Field(max_length=100)] = ()

    def words(self) -> str:
        """What is asked."""
        return f"the survival by {self.time} until {self.event} is {self.happened}"

    def constructions(self, view: View, stage: int = 0, state: State | None = None) -> tuple[Construction, ...]:
        """The counts by time and outcome."""
        asked = self.table(view)
        edges = grid(view, self.time, self.bins)
        wrong = [one for one in self.at if not edges[0] <= one <= edges[-1]]
        if wrong:
            raise Misuse(
                f"survival at {wrong[0]:g}: the grid of {self.time!r} goes from {edges[0]:g} to {edges[-1]:g}; "
                "ask within it or give other edges"
            )
        return (asked,)

    def precision(self, view: View, sds: Sequence[Sequence[float]], records: int) -> str:
        """Noise of the survival in the middle of the grid if everyone is at risk."""
        error = 1.96 * sds[0][0] * np.sqrt(len(grid(view, self.time, self.bins)) / 2) / records
        return f"survival ± {100 * error:.3g} % from noise while most are at risk"

    def decode(
        self, view: View, stages: Sequence[Sequence[Noisy]], states: Sequence[State | None], context: Context
    ) -> Answer:
        """Survival at each time, the median, and how many rows and events within the grid there are."""
        cells, sds = self.outcomes(view, stages[0][0])
        edges = np.array(grid(view, self.time, self.bins))
        value, se, low, high, firm, note = _curve(cells, sds, context)
        times: Floats = np.concatenate([edges[:1], edges[1 : len(value)]])
        rows = []
        for time in self.at or tuple(edges[1:]):
            step = int(np.searchsorted(edges, time, side="right")) - 1
            where: dict[str, str | float] = {self.time: float(time)}
            if step >= len(value):
                rows.append(withheld("survival", note, where))
                continue
            found = (float(se[step]), float(low[step]), float(high[step]))
            rows.append(Row("survival", float(value[step]), where, *found, note="" if step <= firm else FAINT))
        unit = view.numeric(self.time).unit
        rows.append(_median(times, (value, low, high), len(value) == len(edges), note, unit))
        counts = np.array([cells.sum(), cells[:-1, 0].sum()])
        spread = np.sqrt([np.square(sds).sum(), np.square(sds[:-1, 0]).sum()])
        rows += _totals(counts, spread, context)
        shown = [[float(one) for one in part] for part in (value, low, high)]
        empty: list[float | None] = [None] * (len(edges) - len(value))
        details = {
            "column": self.time,
            "unit": unit,
            "times": edges.tolist(),
            **{key: [*part, *empty] for key, part in zip(("survival", "lower", "upper"), shown, strict=True)},
        }
        notes = ("Events in a bin happen at its right edge; the censored of a bin are at risk until then.",)
        return answered(self, context, rows, picture="survival", notes=notes, details=details)


def at_risk(cells: Floats) -> Floats:
    """Counts summed from the end of the times: (…, bins + 1, 2) to (…, bins + 1)."""
    risk: Floats = np.flip(np.cumsum(np.flip(cells.sum(axis=-1), -1), axis=-1), -1)
    return risk


def steps(cells: Floats, bins: int) -> Floats:
    """1 - events/at risk for the first bins of tables (…, bins + 1, 2); where nobody is at risk, 1."""
    risk = at_risk(cells)[..., :bins]
    steps: Floats = 1 - np.divide(cells[..., :bins, 0], risk, out=np.zeros_like(risk), where=risk > 0)
    return steps


def _product(parts: Floats) -> Floats:
    return np.asarray(np.cumprod(parts, axis=-1), dtype=np.float64)


def falling(parts: Floats) -> Floats:
    """The product of steps as a curve that falls from 1 at most to 0 at least, the nearest to the plain product."""
    return np.clip(-isotonic(-_product(np.maximum(parts, 0.0))), 0.0, 1.0)


def _curve(cells: Floats, sds: Floats, context: Context) -> tuple[Floats, Floats, Floats, Floats, int, str]:
    """Survival at the first edges, from 1 on, with se and bounds, how many are firm, and why it is shown no further."""
    risk = at_risk(cells)[:-1]
    noise = np.sqrt(at_risk(np.square(sds)))[:-1]
    least = max(context.min_cell_count, 1)
    bins = int(np.logical_and.accumulate((risk >= RESOLVED * noise) & (risk >= least)).sum())
    note = "" if bins == len(risk) else NOT_RESOLVED if risk[bins] < RESOLVED * noise[bins] else BELOW_MINIMUM
    if not bins:
        one, zero = np.ones(1), np.zeros(1)
        return one, zero, one, one, 0, note
    value = falling(steps(cells, bins))
    se = np.sqrt(variance_of(lambda table: _product(steps(table, bins)), cells, sds, context))
    low, high = _bounds(value, se, z_of(context), bool(sds.any()))
    firm = int(np.logical_and.accumulate((risk >= FIRM * noise)[:bins]).sum())
    if firm < bins:
        drawn = _product(np.clip(steps(redraw(cells, sds, context), bins), 0.0, 2.0))
        shaky = (part[firm:] for part in band(np.clip(drawn, 0.0, 1.0), context))
        se[firm:], low[firm:], high[firm:] = shaky
        low, high = np.minimum(low, value), np.maximum(high, value)
    return (
        np.concatenate([[1.0], value]),
        np.concatenate([[0.0], se]),
        np.concatenate([[1.0], low]),
        np.concatenate([[1.0], high]),
        firm,
        note,
    )


def _bounds(value: Floats, se: Floats, z: float, noisy: bool) -> tuple[Floats, Floats]:
    """Intervals on the log(-log) scale, as is usual; plain where noise makes that scale useless, or at 0 and 1."""
    inside = (value > 0) & (value < 1)
    logs = np.log(np.where(inside, value, 0.5))
    error = se / (np.where(inside, value, 0.5) * np.abs(logs))
    usable = inside & ((error < 0.5) | (not noisy))
    widen = np.exp(np.minimum(z * error, 50.0))
    low = np.where(usable, np.exp(logs * widen), np.clip(value - z * se, 0, 1))
    high = np.where(usable, np.exp(logs / widen), np.clip(value + z * se, 0, 1))
    return low, high


def _median(times: Floats, curve: tuple[Floats, Floats, Floats], whole: bool, note: str, unit: str) -> Row:
    """The first time with survival of at most one half; its interval inverts the band."""
    value, low, high = (_first(times, part) for part in curve)
    if value is None:
        return withheld("median survival", "not reached within the grid" if whole else note, unit=unit)
    return Row("median survival", value, {}, None, low, high, unit)


def _first(times: Floats, curve: Floats) -> float | None:
    at = np.flatnonzero(curve <= 0.5 + 1e-12)  # an exact half of a product of ratios
    return float(times[at[0]]) if len(at) else None


def _totals(counts: Floats, sds: Floats, context: Context) -> list[Row]:
    """Rows and events in all; neither if the rest, which is their difference, is below the display minimum."""
    rest = counts[0] - counts[1]
    hide = context.min_cell_count > 1 and min(*counts, rest) < context.min_cell_count
    mask = np.array([hide, hide])
    return [
        row
        for what, count, sd, veil in zip(("count", "events"), counts, sds, mask, strict=True)
        for row in count_rows(what, np.array([count]), float(sd), [{}], context, mask=np.array([veil]))
    ]
