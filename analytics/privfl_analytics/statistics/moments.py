"""Sum and mean of a numeric column or score, and what variances share with them.

All come from Σ1, Σt and Σ(2t² - 1) of t = (x - center)/half in [-1, 1]. For the population the sums vary as those of
a Poisson number of independent rows; ratios of them then vary as they do for a fixed number of rows.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import ClassVar

import numpy as np

from privfl.errors import Misuse
from privfl_analytics.answer import Answer, Row
from privfl_analytics.constructions import Construction, Linear, One, Square, Sums
from privfl_analytics.decode import (
    BELOW_MINIMUM,
    count_rows,
    delta_method,
    estimate,
    jacobian,
    number,
    z_of,
)
from privfl_analytics.statistic import Context, Noisy, State, Statistic
from privfl_analytics.statistics.binned import Floats, answered
from privfl_analytics.view import View

__all__ = ["Mean", "Moments", "Sum", "mean_of", "sampling_covariance", "window_of"]


def sampling_covariance(sums: Floats, kurtosis: float = 3.0) -> Floats:
    """Σ v vᵀ over rows, v = (1, t) or (1, t, 2t² - 1), as far as the sums tell it.

    Without squares t² is taken as 1, its largest (Bhatia and Davis): intervals are then too wide, never too narrow.
    Third moments are those of a symmetric distribution, fourth ones those of the given kurtosis.
    """
    count = max(float(sums[0]), 0.0)
    mean = min(max(float(sums[1]) / count, -1.0), 1.0) if count > 0 else 0.0
    if len(sums) == 2:
        return count * np.array([[1.0, mean], [mean, 1.0]])
    second = min(max((float(sums[2]) / count + 1) / 2, mean * mean), 1.0) if count > 0 else 0.0
    spread = second - mean * mean
    third = mean**3 + 3 * mean * spread
    fourth = min(mean**4 + 6 * mean**2 * spread + kurtosis * spread**2, second)
    moments = np.array([1.0, mean, second, third, fourth])
    powers = moments[np.add.outer(range(3), range(3))]  # E of (1, t, t²) by itself
    change = np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [-1.0, 0.0, 2.0]])
    return np.asarray(count * change @ powers @ change.T)


def mean_of(sums: Floats) -> Floats:
    """E t from sums (…, k)."""
    return np.asarray(sums[..., 1] / sums[..., 0])


def window_of(state: State | None, lower: float, upper: float) -> tuple[float, float]:
    """The public window of a second stage; by default the bounds.

    Raises:
        Misuse: not two rising numbers within the bounds.
    """
    if state is None:
        return lower, upper
    ends = [state.get("lower"), state.get("upper")] if isinstance(state, Mapping) and len(state) == 2 else []
    if not all(type(end) in (int, float) for end in ends) or not ends:
        raise Misuse("the second stage needs a window: a lower and an upper number, and nothing else")
    low, high = float(ends[0]), float(ends[1])  # type: ignore[arg-type]
    if not lower <= low < high <= upper:
        raise Misuse(f"the window [{low:g}, {high:g}] of the second stage leaves the bounds [{lower:g}, {upper:g}]")
    return low, high


class Moments(Statistic):
    """Common to all: the frame of t, and rows that need a resolved and large enough count.

    Args:
        column: a number or a score.
    """

    column: str

    def frame(self, view: View, state: State | None = None) -> Linear:
        """The frame of t: over the column's bounds, or a window within them."""
        column = view.numeric(self.column)
        if state is None:
            return Linear(column=self.column)
        low, high = window_of(state, column.lower, column.upper)
        return Linear(column=self.column, center=(low + high) / 2, half=(high - low) / 2)

    def sums(self, view: View, squares: bool, state: State | None = None) -> Sums:
        """Σ(1, t[, 2t² - 1])."""
        frame = self.frame(view, state)
        terms = (One(), frame, Square(**{**dict(frame), "kind": "square"})) if squares else (One(), frame)
        asked = Sums(terms=terms)
        asked.check(view)
        return asked

    def finish(
        self,
        view: View,
        noisy: Noisy,
        found: Row,
        context: Context,
        notes: Sequence[str] = (),
        more: Sequence[Row] = (),
    ) -> Answer:
        """The answer: the number, then how many rows have a value; both hidden below the display minimum."""
        counted = count_rows("count", noisy.values[:1], noisy.sd, [{}], context)[0]
        if counted.note == BELOW_MINIMUM:
            found, more = Row(found.what, None, unit=found.unit, note=BELOW_MINIMUM), ()
        column = view.numeric(self.column)
        bounds = f"values beyond the declared bounds [{column.lower:g}, {column.upper:g}] count as the bound"
        return answered(self, context, [found, counted, *more], notes=(*notes, bounds))

    def nominal(self, view: View, records: int, frame: Linear) -> Floats:
        """The sums to expect of so many rows, by the schema's public centre and scale."""
        column, (center, half) = view.numeric(self.column), frame.frame(view)
        mean, spread = (column.center - center) / half, min(column.scale / half, 1.0)
        return records * np.array([1.0, mean, 2 * (mean**2 + spread**2) - 1])


class Sum(Moments):
    """The sum of a column over rows in which it has a value.

    Args:
        spread: also sum squares (Δ grows from √2 to √3), so that an interval for the population is not wider than it
            has to be.
    """

    name: ClassVar[str] = "sum"
    summary: ClassVar[str] = "sum of a numeric column"
    example: ClassVar[str] = "sum months"

    column: str
    spread: bool = False

    def constructions(self, view: View, stage: int = 0, state: State | None = None) -> tuple[Construction, ...]:
        """Σ(1, t), with ``spread`` squares too."""
        return (self.sums(view, self.spread),)

    def decode(
        self, view: View, stages: Sequence[Sequence[Noisy]], states: Sequence[State | None], context: Context
    ) -> Answer:
        """Rows ``sum`` and ``count``. A sum is resolved unless its noise is as large as all declared records' range."""
        noisy, column = stages[0][0], view.numeric(self.column)
        center, half = self.frame(view).frame(view)
        reach = max(context.records, 1) * max(abs(column.lower), abs(column.upper))
        found = estimate(
            lambda sums: np.asarray(center * sums[..., 0] + half * sums[..., 1]),
            noisy.values,
            noisy.sd,
            context,
            sample=sampling_covariance(noisy.values),
        )
        if found is not None and z_of(context) * noisy.sd * math.hypot(center, half) >= reach:
            found = None
        return self.finish(view, noisy, number("sum", found, unit=column.unit), context)

    def words(self) -> str:
        return f"the sum of {self.column}"

    def precision(self, view: View, sds: Sequence[Sequence[float]], records: int) -> str:
        unit = view.numeric(self.column).unit
        return f"the sum ± {1.96 * sds[0][0] * math.hypot(*self.frame(view).frame(view)):.3g} {unit}".rstrip()


class Mean(Moments):
    """The mean of a column over rows in which it has a value: pooled sums, never a mean of sites' means.

    Args:
        spread: also sum squares (Δ √3 instead of √2), so that an interval for the population knows the spread. Without
            it the spread is taken as the largest that the bounds allow, and the interval is wider than it has to be.
    """

    name: ClassVar[str] = "mean"
    summary: ClassVar[str] = "mean of a numeric column"
    example: ClassVar[str] = "mean age by sex where age >= 50"

    column: str
    spread: bool = True

    def constructions(self, view: View, stage: int = 0, state: State | None = None) -> tuple[Construction, ...]:
        """Σ(1, t), with ``spread`` squares too."""
        return (self.sums(view, self.spread),)

    def decode(
        self, view: View, stages: Sequence[Sequence[Noisy]], states: Sequence[State | None], context: Context
    ) -> Answer:
        """Rows ``mean`` and ``count``."""
        noisy, column = stages[0][0], view.numeric(self.column)
        center, half = self.frame(view).frame(view)
        found = estimate(
            lambda sums: center + half * mean_of(sums),
            noisy.values,
            noisy.sd,
            context,
            sample=sampling_covariance(noisy.values),
            denominators=(0,),
            limits=(column.lower, column.upper),
        )
        notes = () if self.spread or context.interval == "rows" else ("the spread is taken as large as bounds allow",)
        return self.finish(view, noisy, number("mean", found, unit=column.unit), context, notes)

    def words(self) -> str:
        return f"the mean of {self.column}"

    def precision(self, view: View, sds: Sequence[Sequence[float]], records: int) -> str:
        frame = self.frame(view)
        sums = self.nominal(view, records, frame)[: 3 if self.spread else 2]
        se = delta_method(jacobian(mean_of, sums), np.eye(len(sums)) * sds[0][0] ** 2)
        return f"the mean ± {1.96 * frame.frame(view)[1] * se.item():.3g} {view.numeric(self.column).unit}".rstrip()
