"""Covariances and correlations of several columns from one outer product."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from typing import Annotated, Any, ClassVar, TypeAlias

import numpy as np
import numpy.typing as npt
from pydantic import Field

from privfl.errors import Misuse
from privfl_analytics.answer import Answer
from privfl_analytics.constructions import Outer
from privfl_analytics.decode import FIRM, Estimate, bootstrap, interval_of, number, z_of
from privfl_analytics.statistic import Context, Noisy, State, Statistic
from privfl_analytics.statistics._moments import CROSSED, Moments, framed, head, moments_of, outer_of, remarks
from privfl_analytics.view import View

__all__ = ["Correlation", "Covariance"]

Floats: TypeAlias = npt.NDArray[np.float64]
#: A correlation whose noise reaches so far towards ±1 has no usable Fisher transform.
_NEAR_ONE = 3.0


class _Pairs(Statistic):
    """Common to both.

    Args:
        columns: numeric, each once.
        radius: rows farther from the public centers, in public scales, are shortened to it; by default 2√p of p
            columns, or less where the bounds reach less far.
    """

    columns: Annotated[tuple[str, ...], Field(min_length=1, max_length=500)]
    radius: Annotated[float | None, Field(gt=0)] = None
    #: Pairs of a column with itself too.
    own: ClassVar[bool]

    def constructions(self, view: View, stage: int = 0, state: State | None = None) -> tuple[Outer]:
        if not self.own and len(self.columns) < 2:
            raise Misuse(f"a {self.name} is between two columns or more; name another one")
        return (outer_of(view, framed(view, self.columns), self.radius),)

    def decode(
        self, view: View, stages: Sequence[Sequence[Noisy]], states: Sequence[State | None], context: Context
    ) -> Answer:
        (asked,) = self.constructions(view)
        moments = moments_of(view, asked, stages[0][0])
        rows = head(moments, context)
        shown = moments.counted and rows[0].value is not None
        wide = len(self.columns)
        matrix: list[list[float | None]] = [
            [None if self.own else float(i == j) for j in range(wide)] for i in range(wide)
        ]
        for i, j in self._places():
            found = self._entry(moments, i, j, context) if shown else None
            unit = self._unit(view, self.columns[i], self.columns[j])
            at: dict[str, str | float] = {"column": self.columns[i], "other": self.columns[j]}
            rows.append(number(self.name, found, at=at, unit=unit, note="" if shown else rows[0].note))
            matrix[i][j] = matrix[j][i] = None if found is None else found.value
        details: dict[str, Any] = {"names": list(self.columns), "matrix": matrix, "radius": asked.radius}
        notes = list(remarks(moments, asked))
        if context.interval == "population":
            notes.append("Intervals take the columns for normal: heavy tails make them too short.")
        if shown and moments.indefinite:
            details["repaired"] = self._matrix(moments).tolist()
            notes.append(
                "Noise left the matrix with a negative eigenvalue. The numbers are as they came, without bias; "
                "details['repaired'] is the nearest matrix without one, which is biased."
            )
        return Answer(
            title=self.words(),
            statistic=self.name,
            rows=tuple(rows),
            picture="matrix",
            confidence=context.confidence,
            interval=context.interval,
            notes=tuple(notes),
            details=details,
            sites=context.survivors,
            records=context.records,
        )

    def words(self) -> str:
        return f"the {self.name} of {', '.join(self.columns)}"

    def _places(self) -> Iterator[tuple[int, int]]:
        wide = len(self.columns)
        return ((i, j) for i in range(wide) for j in range(i if self.own else i + 1, wide))

    @abstractmethod
    def _entry(self, moments: Moments, i: int, j: int, context: Context) -> Estimate | None:
        """The number of a pair, None where not resolved."""

    @abstractmethod
    def _matrix(self, moments: Moments) -> Floats:
        """The whole matrix without negative eigenvalues."""

    def _unit(self, view: View, one: str, other: str) -> str:
        return ""


class Covariance(_Pairs):
    """Sample covariances (over rows less one) of every pair of columns, each with itself too, in raw units."""

    name = "covariance"
    summary = "covariances and variances of several numeric columns"
    example = "covariance age, bmi, systolic"
    own = True

    def _entry(self, moments: Moments, i: int, j: int, context: Context) -> Estimate | None:
        pair = moments.pick([i, j])
        slope = np.array([[0.0, 0.5], [0.5, 0.0]]) if i != j else np.array([[1.0, 0.0], [0.0, 0.0]])
        unit = float(moments.units[i] * moments.units[j])
        value = float(pair.cov[0, 1 if i != j else 0])
        if i == j and value < 0:
            return None
        se = math.sqrt(float(pair.variance(slope, context)))
        if context.interval == "population" and i == j and se > 0 and value > FIRM * se:
            # The logarithm of a variance is the more nearly normal one.
            reach = z_of(context) * se / value
            found = Estimate(value, se, value * math.exp(-reach), value * math.exp(reach))
        else:
            found = interval_of(value, se, context, (0.0, math.inf) if i == j else (-math.inf, math.inf))
        return Estimate(unit * found.value, unit * found.se, unit * found.lower, unit * found.upper)

    def _matrix(self, moments: Moments) -> Floats:
        found: Floats = moments.repaired * np.outer(moments.units, moments.units)
        return found

    def _unit(self, view: View, one: str, other: str) -> str:
        units = [view.numeric(name).unit for name in (one, other)]
        if not all(units):
            return ""
        return f"{units[0]}²" if units[0] == units[1] else "·".join(units)

    def precision(self, view: View, sds: Sequence[Sequence[float]], records: int) -> str:
        (asked,) = self.constructions(view)
        reach = 1.96 * sds[0][0] * CROSSED * asked.radius**2 / records
        return f"each covariance ± {reach:.2g} of the product of the two scales, from noise alone"


class Correlation(_Pairs):
    """Pearson correlations of every pair of columns, over rows that have all of them."""

    name = "correlation"
    summary = "Pearson correlations of several numeric columns"
    example = "correlation age, bmi, systolic"
    own = False

    def _entry(self, moments: Moments, i: int, j: int, context: Context) -> Estimate | None:
        if not (moments.varies(i) and moments.varies(j)):
            return None
        pair = moments.pick([i, j])
        one, cross, other = float(pair.cov[0, 0]), float(pair.cov[0, 1]), float(pair.cov[1, 1])
        r = cross / math.sqrt(one * other)
        slope = np.array([[-r / (2 * one), 0.5 / math.sqrt(one * other)], [0.0, -r / (2 * other)]])
        slope[1, 0] = slope[0, 1]
        noise = math.sqrt(float(pair.noise(slope)))
        if abs(r) < 1 and _NEAR_ONE * noise < 1 - abs(r) and moments.varies(i, FIRM) and moments.varies(j, FIRM):
            return _fisher(r, noise, moments.count, context)
        if noise == 0.0:  # exactly on a line
            r = max(-1.0, min(1.0, r))
            return Estimate(r, 0.0, r, r)
        return _redrawn(pair, np.array([one, cross, other]), context)

    def _matrix(self, moments: Moments) -> Floats:
        spread = np.sqrt(np.clip(np.diag(moments.repaired), 1e-300, None))
        found: Floats = moments.repaired / np.outer(spread, spread)
        np.fill_diagonal(found, 1.0)
        return found

    def precision(self, view: View, sds: Sequence[Sequence[float]], records: int) -> str:
        (asked,) = self.constructions(view)
        reach = 1.96 * sds[0][0] * CROSSED * asked.radius**2 / records
        return f"each correlation ± {reach:.2g} from noise alone, where columns spread as their scales say"


def _fisher(r: float, noise: float, rows: float, context: Context) -> Estimate:
    """Fisher's z: sampling variance 1/(n - 3), and the noise of r carried over."""
    free = 1.0 - r * r
    drawn = 1.0 / max(rows - 3.0, 1.0) if context.interval == "population" else 0.0
    reach = z_of(context) * math.sqrt(drawn + (noise / free) ** 2)
    se = math.hypot(noise, free / math.sqrt(max(rows - 1.0, 1.0)) if drawn else 0.0)
    return Estimate(r, se, math.tanh(math.atanh(r) - reach), math.tanh(math.atanh(r) + reach))


def _redrawn(pair: Moments, values: Floats, context: Context) -> Estimate | None:
    """Parametric bootstrap of two variances and a covariance; what passes ±1 ends there."""
    ends = np.array([[[1.0, 0.0], [0.0, 0.0]], [[0.0, 0.5], [0.5, 0.0]], [[0.0, 0.0], [0.0, 1.0]]])
    both = ends[:, None] + ends[None, :]
    single, sums = pair.variance(ends, context), pair.variance(both, context)
    covariance = (sums - single[:, None] - single[None, :]) / 2.0
    np.fill_diagonal(covariance, single)

    def correlation(parts: Floats) -> Floats:
        scale = np.sqrt(np.where((parts[..., 0] > 0) & (parts[..., 2] > 0), parts[..., 0] * parts[..., 2], np.nan))
        clipped: Floats = np.clip(parts[..., 1] / scale, -1.0, 1.0)[..., None]
        return clipped

    found = bootstrap(correlation, values, covariance, context)
    return None if found is None else found[0]
