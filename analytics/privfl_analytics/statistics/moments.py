"""Sum, mean, variance and standard deviation of a numeric column or score.

All come from Σ1, Σt and Σ(2t² - 1) of t = (x - center)/half in [-1, 1]. For the population the sums vary as those of
a Poisson number of independent rows; ratios of them then vary as they do for a fixed number of rows.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Annotated, ClassVar

import numpy as np
from pydantic import Field

from privfl.errors import Misuse
from privfl_analytics.answer import Answer, Row
from privfl_analytics.constructions import VALUE_BITS, Bins, Construction, Linear, One, Square, Sums, Tally
from privfl_analytics.decode import (
    BELOW_MINIMUM,
    NOT_RESOLVED,
    Estimate,
    count_rows,
    delta_method,
    estimate,
    jacobian,
    number,
    share_of,
    z_of,
)
from privfl_analytics.statistic import Context, Noisy, State, Statistic
from privfl_analytics.statistics.binned import Floats, answered
from privfl_analytics.view import View

__all__ = ["Mean", "Sd", "Sum", "Variance", "sampling_covariance", "window_of"]

#: A variance (of t) that rounding alone makes of a constant column.
_FLAT = 2.0 ** (1 - VALUE_BITS)
_FEW = "needs two rows or more"


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


def variance_of(sums: Floats) -> Floats:
    """The unbiased variance of t from sums (…, 3)."""
    count = sums[..., 0]
    about = (sums[..., 2] / count + 1) / 2 - np.square(sums[..., 1] / count)
    return np.asarray(about * count / (count - 1))


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


class _Moments(Statistic):
    """Common to all: the frame of t, and rows that need a resolved and large enough count."""

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


class Sum(_Moments):
    """The sum of a column over rows in which it has a value.

    Args:
        spread: also sum squares (Δ grows from √2 to √3), so that an interval for the population is not wider than it
            has to be.
    """

    name: ClassVar[str] = "sum"
    summary: ClassVar[str] = "sum of a numeric column"

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


class Mean(_Moments):
    """The mean of a column over rows in which it has a value: pooled sums, never a mean of sites' means.

    Args:
        spread: also sum squares (Δ √3 instead of √2), so that an interval for the population knows the spread. Without
            it the spread is taken as the largest that the bounds allow, and the interval is wider than it has to be.
    """

    name: ClassVar[str] = "mean"
    summary: ClassVar[str] = "mean of a numeric column"

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


class _Spread(_Moments):
    """Variance and standard deviation: one stage over the bounds, or two, the second over a window that fits."""

    column: str
    two_stage: bool = False
    width: Annotated[float, Field(ge=1, le=20)] = 4.0
    kurtosis: Annotated[float, Field(ge=1, le=1000)] = 3.0

    def stages(self, view: View) -> int:
        return 2 if self.two_stage else 1

    def constructions(self, view: View, stage: int = 0, state: State | None = None) -> tuple[Construction, ...]:
        """Σ(1, t, 2t² - 1); in a second stage over the window, and how many rows lie outside of it."""
        if stage == 0:
            return (self.sums(view, True),)
        column = view.numeric(self.column)
        window = window_of(state, column.lower, column.upper)
        return (self.sums(view, True, state), Tally(axes=(Bins(column=self.column, edges=window),)))

    def weights(self, view: View) -> Sequence[Sequence[float]]:
        """Half for each stage; of the second a tenth for the rows outside of the window."""
        return [[0.5], [0.45, 0.05]] if self.two_stage else [[1.0]]

    def decide(self, view: View, stage: int, sums: Sequence[Noisy], state: State | None) -> State:
        """A window of ``width`` noisy standard deviations, widened by what the noise leaves open."""
        column, noisy = view.numeric(self.column), sums[0]
        whole = {"lower": column.lower, "upper": column.upper}
        center, half = self.frame(view).frame(view)
        rows = Context(interval="rows")
        mean = estimate(mean_of, noisy.values, noisy.sd, rows, denominators=(0,), limits=(-1.0, 1.0))
        if mean is None or noisy.values[0] < 1.5:
            return whole
        spread = max(float(variance_of(noisy.values)), 0.0) + z_of(rows) * noise_of(noisy)
        reach = half * (self.width * math.sqrt(spread) + mean.upper - mean.value)
        reach, middle = max(reach, half / 1024), center + half * mean.value
        low, high = max(column.lower, middle - reach), min(column.upper, middle + reach)
        return {"lower": low, "upper": high} if low < high else whole

    def of_t(self, noisy: Noisy, context: Context) -> Estimate | None:
        """The variance of t; None where it is negative beyond rounding, or not resolved."""
        if noisy.values[0] < 1.5:
            return None
        found = estimate(
            variance_of,
            noisy.values,
            noisy.sd,
            context,
            sample=sampling_covariance(noisy.values, self.kurtosis),
            denominators=(0,),
        )
        if found is None or 2 * z_of(context) * noise_of(noisy) >= 1.0:
            return None
        if noisy.sd == 0 and abs(found.value) <= _FLAT:
            return Estimate(0.0, found.se, 0.0, max(found.upper, 0.0))
        if found.value <= 0:
            return None
        return Estimate(found.value, found.se, max(found.lower, 0.0), found.upper)

    def spread(self, view: View, stages: Sequence[Sequence[Noisy]], states: Sequence[State | None], context: Context
               ) -> tuple[Noisy, Estimate | None, float, str, list[str], list[Row]]:  # fmt: skip
        """The last stage's sums, variance of t, half width, why not, notes, and the share outside of the window."""
        noisy, state = stages[-1][0], states[-1] if self.two_stage else None
        _, half = self.frame(view, state).frame(view)
        found = self.of_t(noisy, context)
        why = "" if found is not None else _FEW if noisy.sd == 0 else NOT_RESOLVED
        notes, more = [], []
        if context.interval == "population":
            notes.append(f"the interval for the population takes a kurtosis of {self.kurtosis:g} (normal: 3)")
        if self.two_stage:
            column = view.numeric(self.column)
            low, high = window_of(state, column.lower, column.upper)
            cells = stages[-1][1].values
            outside = share_of(cells[:2], 1, stages[-1][1].sd, context)
            more = [number("share outside the window", outside)]
            notes.append(f"values beyond [{low:.4g}, {high:.4g}], a window chosen from noisy sums, count as its ends")
        return noisy, found, half, why, notes, more

    def nominal_errors(self, view: View, sds: Sequence[Sequence[float]], records: int) -> tuple[float, float]:
        """(variance, its standard error from noise) to expect, in the column's unit squared."""
        column, frame = view.numeric(self.column), self.frame(view)
        if self.two_stage:
            reach = self.width * column.scale
            low, high = max(column.lower, column.center - reach), min(column.upper, column.center + reach)
            frame = self.frame(view, {"lower": low, "upper": high})
        half = frame.frame(view)[1]
        slopes = jacobian(variance_of, self.nominal(view, max(records, 2), frame))
        return column.scale**2, half**2 * delta_method(slopes, np.eye(3) * sds[-1][0] ** 2).item()


def noise_of(noisy: Noisy) -> float:
    """Standard deviation that noise alone gives the variance of t, by the delta method."""
    return delta_method(jacobian(variance_of, noisy.values), np.eye(3) * noisy.sd**2).item()


class Variance(_Spread):
    """The variance (divided by n - 1) of a column.

    Args:
        two_stage: for wide bounds: half of the budget finds a window around the mean, the other half looks closely.
        width: half width of that window in (noisy) standard deviations.
        kurtosis: of the population, which the interval for it needs and three sums do not tell; 3 is the normal one.
    """

    name: ClassVar[str] = "variance"
    summary: ClassVar[str] = "variance of a numeric column"

    def decode(
        self, view: View, stages: Sequence[Sequence[Noisy]], states: Sequence[State | None], context: Context
    ) -> Answer:
        """Rows ``variance`` and ``count``; a negative variance is not resolved."""
        noisy, found, half, why, notes, more = self.spread(view, stages, states, context)
        unit = view.numeric(self.column).unit
        if found is not None:
            square = half * half
            found = Estimate(found.value * square, found.se * square, found.lower * square, found.upper * square)
        row = number("variance", found, unit=f"{unit}²" if unit else "", note=why)
        return self.finish(view, noisy, row, context, notes, more)

    def words(self) -> str:
        return f"the variance of {self.column}{', in two stages' if self.two_stage else ''}"

    def precision(self, view: View, sds: Sequence[Sequence[float]], records: int) -> str:
        variance, se = self.nominal_errors(view, sds, records)
        return f"a variance of {variance:.3g} (as declared) ± {1.96 * se:.3g}"


class Sd(_Spread):
    """The standard deviation of a column: the root of :class:`Variance`, with the same options."""

    name: ClassVar[str] = "sd"
    summary: ClassVar[str] = "standard deviation of a numeric column"

    def decode(
        self, view: View, stages: Sequence[Sequence[Noisy]], states: Sequence[State | None], context: Context
    ) -> Answer:
        """Rows ``sd`` and ``count``; the interval is the root of the variance's."""
        noisy, found, half, why, notes, more = self.spread(view, stages, states, context)
        if found is not None:
            root = math.sqrt(found.value)
            se = found.se / (2 * root) if root > 0 else 0.0
            ends = math.sqrt(found.lower), math.sqrt(found.upper)
            found = Estimate(half * root, half * se, half * ends[0], half * ends[1])
        row = number("sd", found, unit=view.numeric(self.column).unit, note=why)
        return self.finish(view, noisy, row, context, notes, more)

    def words(self) -> str:
        return f"the standard deviation of {self.column}{', in two stages' if self.two_stage else ''}"

    def precision(self, view: View, sds: Sequence[Sequence[float]], records: int) -> str:
        variance, se = self.nominal_errors(view, sds, records)
        unit, root = view.numeric(self.column).unit, math.sqrt(variance)
        return f"a standard deviation of {root:.3g} (as declared) ± {1.96 * se / (2 * root):.3g} {unit}".rstrip()
