"""Principal components from two rounds: means and spreads, then an outer product centred and scaled on them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, TypeAlias

import numpy as np
import numpy.typing as npt
from pydantic import Field

from privfl.errors import Misuse
from privfl_analytics.answer import Answer, Row
from privfl_analytics.constructions import Construction, Linear, One, Outer, Square, Sums
from privfl_analytics.decode import BELOW_MINIMUM, NOT_RESOLVED, RESOLVED, Estimate, interval_of, number, resolves, z_of
from privfl_analytics.statistic import Context, Noisy, State, Statistic
from privfl_analytics.statistics._moments import CROSSED, ROUNDING, Moments, framed, head, moments_of, outer_of, remarks
from privfl_analytics.statistics._state import floats_of, names_of
from privfl_analytics.view import View

__all__ = ["Components"]

Floats: TypeAlias = npt.NDArray[np.float64]
#: A spread is never taken for less than this share of the public scale: rows would all be shortened.
_LEAST = 1e-3


class Components(Statistic):
    """Principal components of numeric columns, over rows that have all of them.

    The first round spends a fifth of the budget on means and spreads; the second sums the outer product of columns
    that are centred and scaled on them. A column whose spread the first round does not resolve keeps its public scale.

    Args:
        columns: numeric, each once.
        components: how many to report; by default all.
        standardize: components of the correlation matrix; otherwise of the covariance matrix in raw units.
        radius: rows farther from the means than this many spreads are shortened to it; 2√p by default.
    """

    name = "pca"
    summary = "principal components: explained variance and loadings"
    example = "pca age, bmi, systolic, hba1c"
    columns: Annotated[tuple[str, ...], Field(min_length=2, max_length=200)]
    components: Annotated[int | None, Field(ge=1)] = None
    standardize: bool = True
    radius: Annotated[float | None, Field(gt=0)] = None

    def stages(self, view: View) -> int:
        return 2

    def weights(self, view: View) -> Sequence[Sequence[float]]:
        return [[1.0], [4.0]]

    def constructions(self, view: View, stage: int = 0, state: State | None = None) -> tuple[Construction, ...]:
        frames = framed(view, self.columns)
        if (self.components or 1) > len(frames):
            raise Misuse(f"{len(frames)} columns have at most {len(frames)} components; ask for fewer")
        if stage == 0:
            linear = [Linear(column=name) for name in self.columns]
            squares = [Square(column=name) for name in self.columns]
            return (Sums(terms=(One(), *linear, *squares)),)
        return (self._second(view, frames if state is None else self._frames(view, state)),)

    def decide(self, view: View, stage: int, sums: Sequence[Noisy], state: State | None) -> State:
        """Centers and spreads from the noisy sums; the public ones where they are not resolved."""
        noisy, frames = sums[0], framed(view, self.columns)
        count, wide = float(noisy.values[0]), len(frames)
        center, half, kept = [], [], []
        for at, one in enumerate(frames):
            middle, reach = Linear(column=one.column).frame(view)
            t, column = float(noisy.values[1 + at]) / max(count, 1.0), view.numeric(one.column)
            square = (float(noisy.values[1 + wide + at]) / max(count, 1.0) + 1.0) / 2.0
            spread2 = square - t * t
            sd = noisy.sd / max(count, 1.0) * math.sqrt(0.25 + 4.0 * t * t + (0.5 + square) ** 2)
            good = resolves(count, noisy.sd) and count >= 1.5 and resolves(spread2, sd)
            public_center, public_scale = one.frame(view)
            spread = reach * math.sqrt(spread2) if good else public_scale
            center.append(min(max(middle + reach * t, column.lower), column.upper) if good else public_center)
            half.append(max(spread, _LEAST * public_scale))
            if not good:
                kept.append(one.column)
        return {"center": center, "half": half, "kept": kept}

    def decode(
        self, view: View, stages: Sequence[Sequence[Noisy]], states: Sequence[State | None], context: Context
    ) -> Answer:
        state = states[1] or {}
        asked = self._second(view, self._frames(view, state))
        moments = moments_of(view, asked, stages[1][0])
        rows = head(moments, context)
        notes = [*remarks(moments, asked)]
        kept = names_of(state, "kept", self.columns)
        if kept:
            notes.append(f"The first round did not resolve the spread of {', '.join(kept)}: the public scale was used.")
        shown = moments.counted and rows[0].value is not None
        parts = _parts(moments, self.standardize) if shown else None
        note = NOT_RESOLVED if shown else rows[0].note
        if shown and parts is None:
            note = "a column is constant or its variance is not resolved at this budget"
        count = self.components or len(self.columns)
        explained, loadings = self._rows(parts, count, note, context)
        if note != BELOW_MINIMUM and any(row.value is None for row in loadings):
            notes.append("A component is shown where the gap to its neighbours stands out of the noise of the matrix.")
        details: dict[str, Any] = {
            "names": list(self.columns),
            "explained": [row.value for row in explained if row.what == "explained variance"],
            "loadings": [
                [row.value for row in loadings if row.at["component"] == k] for k in map(str, range(1, count + 1))
            ],
            "gaps": None if parts is None else parts.clear[:count].tolist(),
            "center": [float(one) for one in moments.centers] if shown else None,
        }
        return Answer(
            title=self.words(),
            statistic=self.name,
            rows=(*rows, *explained, *loadings),
            confidence=context.confidence,
            interval=context.interval,
            notes=tuple(notes),
            details=details,
            sites=context.survivors,
            records=context.records,
        )

    def words(self) -> str:
        return f"the principal components of {', '.join(self.columns)}"

    def precision(self, view: View, sds: Sequence[Sequence[float]], records: int) -> str:
        asked = self._second(view, framed(view, self.columns))
        reach = 1.96 * sds[1][0] * asked.radius**2 / records
        edge = 2 * sds[1][0] * CROSSED * math.sqrt(len(self.columns)) * asked.radius**2 / records
        return (
            f"each component's variance ± {reach:.2g} of one standardised column's, from noise alone; "
            f"components less than {RESOLVED * edge:.2g} apart are not resolved; "
            "a fifth of the budget goes to the means and spreads of the first round"
        )

    def _second(self, view: View, frames: tuple[Linear, ...]) -> Outer:
        return outer_of(view, frames, self.radius)

    def _frames(self, view: View, state: State) -> tuple[Linear, ...]:
        """The columns as the first round centred them; raises Misuse for anything that it cannot have made."""
        wide = len(self.columns)
        center, half = floats_of(state, "center", wide), floats_of(state, "half", wide)
        for name, middle, reach in zip(self.columns, center, half, strict=True):
            column = view.numeric(name)
            if not column.lower <= middle <= column.upper or not reach >= 0.5 * _LEAST * column.scale:
                raise Misuse(f"the second round's center or spread of {name!r} is none that the first can have given")
        frames = zip(self.columns, center, half, strict=True)
        return tuple(Linear(column=name, center=middle, half=reach) for name, middle, reach in frames)

    def _rows(self, parts: _Parts | None, count: int, note: str, context: Context) -> tuple[list[Row], list[Row]]:
        explained, loadings = [], []
        for k in range(count):
            place: dict[str, str | float] = {"component": str(k + 1)}
            variance = None if parts is None else parts.variance(k, context)
            share = None if parts is None or variance is None else parts.share(k, context)
            gap = None if parts is None else float(parts.clear[k])
            explained += [
                number("explained variance", variance, at=place, note="" if variance else note),
                number("explained share", share, at=place, note="" if share else note),
                Row("eigengap over noise", gap, place, note="" if parts else note),
            ]
            found = None if parts is None else parts.loadings(k, context)
            for at, name in enumerate(self.columns):
                one = None if found is None else found[at]
                loadings.append(number("loading", one, at={**place, "column": name}, note="" if one else note))
        return explained, loadings


@dataclass(frozen=True, eq=False)
class _Parts:
    """Eigenvalues, falling, and eigenvectors in columns, of the correlation or the covariance matrix.

    Attributes:
        clear: gap of each eigenvalue to its nearest neighbour, in multiples of the noise matrix's spectral norm, or
            without noise of what rounding to the grid does.
        edge: the noise matrix's spectral norm.
        units: of the matrix's columns, in x.
    """

    moments: Moments
    values: Floats
    vectors: Floats
    clear: Floats
    edge: float
    units: Floats
    standardize: bool

    def variance(self, k: int, context: Context) -> Estimate | None:
        """An eigenvalue; None where the noise of the whole matrix reaches it."""
        value = float(self.values[k])
        if not value > max(RESOLVED * self.edge / 2.0, 0.0) and not (self.edge == 0.0 and value >= 0.0):
            return None
        se = math.sqrt(max(float(self._error(self._slope(k, k)[None], context)[0]), 0.0))
        if se > 0.2 * value or se == 0.0:
            return interval_of(value, se, context, (0.0, math.inf))
        reach = z_of(context) * se / value
        return Estimate(value, se, value * math.exp(-reach), value * math.exp(reach))

    def share(self, k: int, context: Context) -> Estimate | None:
        """An eigenvalue's share of all variance; None where the sum is not above its noise."""
        total = float(self.values.sum())
        if not total > RESOLVED * self.edge:
            return None
        value = float(self.values[k]) / total
        slope = (self._slope(k, k) - value * self._shares()) / total
        se = math.sqrt(max(float(self._error(slope[None], context)[0]), 0.0))
        return interval_of(min(max(value, 0.0), 1.0), se, context, (0.0, 1.0))

    def loadings(self, k: int, context: Context) -> list[Estimate] | None:
        """An eigenvector, its largest entry positive; None where its neighbours are too near."""
        if not self.clear[k] > RESOLVED or self.variance(k, context) is None:
            return None
        vector = self.vectors[:, k]
        slopes = np.zeros((len(vector), *self.moments.cov.shape))
        for j, value in enumerate(self.values):
            if j != k:
                tilt = self._slope(j, k) / (self.values[k] - value)
                slopes += self.vectors[:, j][:, None, None] * tilt
        se = np.sqrt(np.clip(self._error(slopes, context), 0.0, None))
        return [interval_of(float(v), float(e), context, (-1.0, 1.0)) for v, e in zip(vector, se, strict=True)]

    def _slope(self, j: int, k: int) -> Floats:
        """Derivative of v_jᵀ M v_k by the covariance of x, v held, scaling by the spreads included."""
        outer = np.outer(self.vectors[:, j], self.vectors[:, k])
        symmetric: Floats = (outer + outer.T) / 2.0
        if self.standardize:
            mean = (self.values[j] + self.values[k]) / 2.0
            symmetric = symmetric - np.diag(mean * self.vectors[:, j] * self.vectors[:, k])
        return symmetric / np.outer(self.units, self.units)

    def _shares(self) -> Floats:
        """Derivative of the sum of eigenvalues: that of correlations never changes."""
        if self.standardize:
            return np.zeros_like(self.moments.cov)
        return np.diag(1.0 / self.units**2)

    def _error(self, slopes: Floats, context: Context) -> Floats:
        return self.moments.variance(slopes, context)


def _parts(moments: Moments, standardize: bool) -> _Parts | None:
    """Decompose; None where a column does not vary enough to be scaled by its spread."""
    wide = len(moments.cov)
    if standardize and not all(moments.varies(at) for at in range(wide)):
        return None
    units = np.sqrt(np.diag(moments.cov)) if standardize else 1.0 / moments.units
    matrix = moments.cov / np.outer(units, units)
    values, vectors = np.linalg.eigh(matrix)
    values[np.abs(values) < 1e-12 * np.abs(values).max()] = 0.0
    values, vectors = values[::-1].copy(), vectors[:, ::-1].copy()
    vectors *= np.sign(vectors[np.abs(vectors).argmax(axis=0), np.arange(wide)])
    # Spectral norm of the noise: at most that of even noise in the column of the largest unit.
    edge = 2.0 * math.sqrt(wide) * CROSSED * moments.sd / moments.freedom * float(np.max(1.0 / units) ** 2)
    steps = values[:-1] - values[1:]
    gaps = np.minimum(np.append(np.inf, steps), np.append(steps, np.inf))
    rounded = math.sqrt(wide * ROUNDING / moments.count) * float(np.max(np.sqrt(np.diag(matrix)) / units))
    floor = max(edge, rounded)
    return _Parts(moments, values, vectors, gaps / floor, edge, units, standardize)
