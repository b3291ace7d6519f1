"""Variance and standard deviation of a numeric column or score, in one stage or two."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, ClassVar

import numpy as np
from pydantic import Field

from privfl_analytics.answer import Answer, Row
from privfl_analytics.constructions import VALUE_BITS, Bins, Construction, Tally
from privfl_analytics.decode import (
    NOT_RESOLVED,
    Estimate,
    delta_method,
    estimate,
    jacobian,
    number,
    resolves,
    share_of,
    z_of,
)
from privfl_analytics.statistic import Context, Noisy, State
from privfl_analytics.statistics.binned import Floats
from privfl_analytics.statistics.moments import Moments, mean_of, sampling_covariance, window_of
from privfl_analytics.view import View

__all__ = ["Sd", "Variance", "kurtosis_of", "variance_of"]

#: A variance (of t) that rounding alone makes of a constant column.
_FLAT = 2.0 ** (1 - VALUE_BITS)
_FEW = "needs two rows or more"
#: Bins that tell how heavy the tails are, and their part of the budget; a normal distribution's kurtosis.
_BINS, _TAILS, _NORMAL = 64, 0.1, 3.0
Kurtosis = Annotated[float | None, Field(ge=1, le=1000)]
Width = Annotated[float, Field(ge=1, le=20)]


def variance_of(sums: Floats) -> Floats:
    """The unbiased variance of t from sums (…, 3)."""
    count = sums[..., 0]
    about = (sums[..., 2] / count + 1) / 2 - np.square(sums[..., 1] / count)
    return np.asarray(about * count / (count - 1))


def kurtosis_of(sums: Noisy, tally: Noisy) -> float | None:
    """The kurtosis of t from its noisy histogram over [-1, 1]; None where it is not resolved.

    Values beyond the histogram sit at its ends. Grouping is corrected for (Sheppard).
    """
    count, spread = float(sums.values[0]), float(variance_of(sums.values)) if sums.values[0] > 1.5 else 0.0
    bins = len(tally.values) - 2
    width = 2.0 / bins
    if not resolves(count, sums.sd) or spread < width**2:
        return None
    centers = (np.arange(bins) + 0.5) * width - 1
    ends = np.array([-1.0, 1.0]) - float(mean_of(sums.values))
    fourths = np.append((centers - float(mean_of(sums.values))) ** 4, (ends**4).mean())
    grouped = float(fourths @ tally.values[:-1]) / count
    fourth = grouped - width**2 * (spread + width**2 / 12) / 2 + 7 * width**4 / 240
    se = tally.sd * math.sqrt(float(fourths @ fourths)) / count / spread**2
    kurtosis = fourth / spread**2
    return min(max(kurtosis, 1.0), 1000.0) if kurtosis > 3 * se else None


class _Spread(Moments):
    """Variance and standard deviation: one stage over the bounds, or two, the second over a window that fits.

    Args:
        two_stage: for wide bounds: half of the budget finds a window around the mean, the other half looks closely.
        width: half width of that window in (noisy) standard deviations.
        kurtosis: of the population, which its interval needs; by default a noisy histogram tells it, for a tenth of the
            budget, or it is taken as normal (3) where that is not resolved.
    """

    if TYPE_CHECKING:  # fields of both subclasses
        two_stage: bool
        width: float
        kurtosis: float | None

    def stages(self, view: View) -> int:
        return 2 if self.two_stage else 1

    def constructions(self, view: View, stage: int = 0, state: State | None = None) -> tuple[Construction, ...]:
        """Σ(1, t, 2t² - 1), and in the last stage a histogram over the same frame for its tails and what is outside."""
        column, last = view.numeric(self.column), stage + 1 == self.stages(view)
        state = state if stage else None
        sums = self.sums(view, True, state)
        if not last or not (self.two_stage or self.kurtosis is None):
            return (sums,)
        low, high = window_of(state, column.lower, column.upper)
        edges = np.linspace(low, high, (_BINS if self.kurtosis is None else 1) + 1)
        return (sums, Tally(axes=(Bins(column=self.column, edges=tuple(float(edge) for edge in edges)),)))

    def weights(self, view: View) -> Sequence[Sequence[float]]:
        """Half for each of two stages; of the last a tenth for the histogram."""
        last = [1 - _TAILS, _TAILS] if len(self.constructions(view, self.stages(view) - 1)) > 1 else [1.0]
        return [[sum(last)], last] if self.two_stage else [last]

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

    def of_t(self, noisy: Noisy, kurtosis: float, context: Context) -> Estimate | None:
        """The variance of t; None where it is negative beyond rounding, or not resolved."""
        if noisy.values[0] < 1.5:
            return None
        found = estimate(
            variance_of,
            noisy.values,
            noisy.sd,
            context,
            sample=sampling_covariance(noisy.values, kurtosis),
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
        measured = kurtosis_of(noisy, stages[-1][1]) if self.kurtosis is None else self.kurtosis
        kurtosis = _NORMAL if measured is None else measured
        found = self.of_t(noisy, kurtosis, context)
        why = "" if found is not None else _FEW if noisy.sd == 0 else NOT_RESOLVED
        notes, more = list[str](), list[Row]()
        if context.interval == "population":
            how = "as given" if self.kurtosis is not None else "from a noisy histogram"
            how = how if measured is not None else "not resolved, taken as normal"
            notes.append(f"the interval for the population has a kurtosis of {kurtosis:.3g} in it ({how})")
        if self.two_stage:
            column, tally = view.numeric(self.column), stages[-1][1]
            low, high = window_of(state, column.lower, column.upper)
            outside = share_of(tally.values[:-1], len(tally.values) - 2, tally.sd, context)
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
    """The variance (divided by n - 1) of a column."""

    name: ClassVar[str] = "variance"
    summary: ClassVar[str] = "variance of a numeric column"
    example: ClassVar[str] = "variance bmi"

    column: str
    two_stage: bool = False
    width: Width = 4.0
    kurtosis: Kurtosis = None

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
    """The standard deviation of a column: the root of its variance."""

    name: ClassVar[str] = "sd"
    summary: ClassVar[str] = "standard deviation of a numeric column"
    example: ClassVar[str] = "sd bmi two_stage=true"

    column: str
    two_stage: bool = False
    width: Width = 4.0
    kurtosis: Kurtosis = None

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
