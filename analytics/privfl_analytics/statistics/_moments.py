"""Counts, means and covariances of several columns from one noisy outer product, and how far off they may be.

Everything is kept in the unit of x = (value - center)/(half·radius), in which one row has ‖x‖ ≤ 1 and the noise
of all squares is the same. What sampling adds is that of normal columns: a covariance's own sampling error needs
fourth moments, which nobody sent.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from privfl.errors import Misuse
from privfl_analytics.answer import Row
from privfl_analytics.constructions import CROSS, DIAGONAL, OUTER_BITS, Linear, Outer
from privfl_analytics.decode import BELOW_MINIMUM, RESOLVED, count_rows, interval_of, number, resolves
from privfl_analytics.statistic import Context, Noisy
from privfl_analytics.view import View

__all__ = [
    "CROSSED",
    "CROWDED",
    "ROUNDING",
    "Moments",
    "default_radius",
    "framed",
    "head",
    "moments_of",
    "outer_of",
    "remarks",
]

Floats: TypeAlias = npt.NDArray[np.float64]

#: A product's unit in squares: its noise is so many times that of a square.
CROSSED = DIAGONAL / CROSS
#: Variance that rounding to the grid alone gives a constant column at most, with a margin of 4.
ROUNDING = 4.0 ** (1 - OUTER_BITS) / 12.0
#: More shortened rows than this share are worth a warning.
CROWDED = 0.01


@dataclass(frozen=True, eq=False)
class Moments:
    """Σ z zᵀ of z = (1, x) over complete rows.

    Attributes:
        whole: float64 ``(p + 1, p + 1)``, symmetric, noisy.
        sd: noise of a diagonal entry; of any other entry CROSSED times as much.
        shortened: noisy number of rows that were shortened to ‖x‖ = 1.
        centers, units: value = center + unit·x, each of shape ``(p,)``.
    """

    whole: Floats
    sd: float
    shortened: float
    centers: Floats
    units: Floats

    @property
    def count(self) -> float:
        """Complete rows; noisy."""
        return float(self.whole[0, 0])

    @property
    def freedom(self) -> float:
        """Rows less one, at least 1."""
        return max(self.count - 1.0, 1.0)

    @cached_property
    def mean(self) -> Floats:
        """Means of x."""
        found: Floats = self.whole[0, 1:] / max(self.count, 1.0)
        return found

    @cached_property
    def cov(self) -> Floats:
        """Covariances of x, over rows less one; a variance that is rounding alone is 0."""
        found: Floats = (self.whole[1:, 1:] - np.outer(self.mean, self.whole[0, 1:])) / self.freedom
        still = np.diag(found) < 1e-12 if not self.sd else np.zeros(len(found), dtype=np.bool_)
        found[still] = found[:, still] = 0.0
        return found

    @property
    def counted(self) -> bool:
        """Whether there are rows enough to divide by their number."""
        return self.count >= 1.5 and resolves(self.count, self.sd)

    def pick(self, at: Sequence[int]) -> Moments:
        """The same of some of the columns."""
        inner = np.array(at)
        both = np.concatenate([[0], 1 + inner])
        return Moments(self.whole[np.ix_(both, both)], self.sd, self.shortened, self.centers[inner], self.units[inner])

    def noise(self, slopes: Floats) -> Floats:
        """Noise variance of functions of ``cov`` with symmetric slopes A, ``(…, p, p)``: d f = tr(A d cov)."""
        pull = slopes @ self.mean
        diagonal = np.einsum("...ii->...i", slopes) ** 2
        crossed = np.sum(slopes**2, axis=(-2, -1)) - diagonal.sum(
            -1
        )  # both (i, j) and (j, i): 2A twice, squared, is 4A²
        level = pull @ self.mean - np.einsum("...ij,ij->...", slopes, self.cov)
        parts = diagonal.sum(-1) + CROSSED**2 * (2.0 * crossed + 4.0 * (pull**2).sum(-1)) + level**2
        found: Floats = (self.sd / self.freedom) ** 2 * parts
        return found

    def sampling(self, slopes: Floats) -> Floats:
        """Sampling variance of the same functions for normal columns, 2 tr(A C A C)/(n - 1)."""
        mixed = slopes @ self.repaired
        found: Floats = 2.0 * np.einsum("...ij,...ji->...", mixed, mixed) / self.freedom
        return found

    def variance(self, slopes: Floats, context: Context) -> Floats:
        """Noise, and for intervals of the population sampling, of functions of ``cov``."""
        noise = self.noise(slopes)
        return noise + self.sampling(slopes) if context.interval == "population" else noise

    def varies(self, at: int, by: float = RESOLVED) -> bool:
        """Whether a column's variance stands out of its noise and of the grid that x is rounded to."""
        alone = self.pick([at])
        own, sd = float(alone.cov[0, 0]), math.sqrt(float(alone.noise(np.ones((1, 1)))))
        return self.counted and own > ROUNDING and resolves(own, sd, by)

    @cached_property
    def repaired(self) -> Floats:
        """The nearest covariance without a negative eigenvalue (which biases it upwards)."""
        return _semidefinite(self.cov)

    @property
    def indefinite(self) -> bool:
        """Whether noise made an eigenvalue negative by more than round-off."""
        low = float(np.linalg.eigvalsh(self.cov)[0])
        return low < -1e-9 * max(float(np.trace(self.cov)), 0.0)

    def redraw(self, context: Context, draws: int) -> Floats:
        """Replicates of ``whole``, shape ``(draws, p + 1, p + 1)``: the sample drawn anew if asked, then the noise."""
        rng, wide = context.rng, len(self.whole)
        exact = np.broadcast_to(self.whole, (draws, wide, wide)).copy()
        if context.interval == "population":
            exact[:] = self._resampled(rng, draws)
        noise = rng.standard_normal((draws, wide, wide)) * (CROSSED * self.sd)
        upper = np.triu(noise, 1)
        own = rng.standard_normal((draws, wide)) * self.sd
        exact += upper + np.swapaxes(upper, 1, 2) + own[:, :, None] * np.eye(wide)
        return exact

    def _resampled(self, rng: np.random.Generator, draws: int) -> Floats:
        """Σ z zᵀ of fresh normal rows of these means and covariances (Bartlett's decomposition)."""
        wide, rows = len(self.mean), max(self.count, 2.0)
        root = _root(self.repaired)
        lower = np.tril(rng.standard_normal((draws, wide, wide)), -1)
        degrees = np.maximum(rows - 1.0 - np.arange(wide), 1.0)
        lower += np.sqrt(rng.chisquare(degrees, (draws, wide)))[:, :, None] * np.eye(wide)
        factor = root @ lower
        mean = self.mean + rng.standard_normal((draws, wide)) @ root.T / math.sqrt(rows)
        out = np.empty((draws, wide + 1, wide + 1))
        out[:, 0, 0] = rows
        out[:, 0, 1:] = out[:, 1:, 0] = rows * mean
        out[:, 1:, 1:] = factor @ np.swapaxes(factor, 1, 2) + rows * mean[:, :, None] * mean[:, None, :]
        return out


def _semidefinite(matrix: Floats) -> Floats:
    values, vectors = np.linalg.eigh(matrix)
    found: Floats = (vectors * np.clip(values, 0.0, None)) @ vectors.T
    return found if values[0] < 0 else matrix


def _root(matrix: Floats) -> Floats:
    values, vectors = np.linalg.eigh(matrix)
    found: Floats = vectors * np.sqrt(np.clip(values, 0.0, None))
    return found


# -- what is asked --------------------------------------------------------------------------


def framed(view: View, names: Sequence[str]) -> tuple[Linear, ...]:
    """Each column by the schema's public center and scale; raises Misuse for other kinds and for one named twice."""
    if len(set(names)) != len(names):
        twice = next(name for name in names if list(names).count(name) > 1)
        raise Misuse(f"column {twice!r} is named twice; name each column once")
    columns = [(name, view.numeric(name)) for name in names]
    return tuple(Linear(column=name, center=column.center, half=column.scale) for name, column in columns)


def default_radius(view: View, columns: Sequence[Linear]) -> float:
    """2√p scales, which few rows of p columns pass; less where the bounds allow none so far. A public number.

    Larger keeps more outlying rows whole, smaller has less noise.
    """
    reach2 = 0.0
    for one in columns:
        (center, half), column = one.frame(view), view.numeric(one.column)
        reach2 += (max(column.upper - center, center - column.lower) / half) ** 2
    # A row on the bounds is not shortened for having been rounded up in every column.
    farthest = math.sqrt(reach2) / (1.0 - min(0.5, math.sqrt(len(columns)) * 2.0 ** -(OUTER_BITS + 1)))
    return min(2.0 * math.sqrt(len(columns)), farthest)


def outer_of(view: View, columns: tuple[Linear, ...], radius: float | None) -> Outer:
    """The outer product over columns, at the asked radius or the default one."""
    return Outer(columns=columns, radius=default_radius(view, columns) if radius is None else radius)


def moments_of(view: View, asked: Outer, noisy: Noisy) -> Moments:
    """Decode the sums of ``asked``; shape ``asked.inner(view)``."""
    wide = len(asked.columns) + 1
    whole = np.zeros((wide, wide))
    rows, columns = np.triu_indices(wide)
    whole[rows, columns] = noisy.values[:-1] * np.where(rows == columns, 1.0, CROSSED)
    whole[columns, rows] = whole[rows, columns]
    frames = np.array([one.frame(view) for one in asked.columns])
    return Moments(whole, noisy.sd, 2.0 * float(noisy.values[-1]), frames[:, 0], frames[:, 1] * asked.radius)


# -- what every such answer says ------------------------------------------------------------


def head(moments: Moments, context: Context) -> list[Row]:
    """The rows "count" (complete rows) and "shortened share"."""
    rows = count_rows("count", np.array([moments.count]), moments.sd, [{}], context)
    if rows[0].value is None or not moments.counted:
        return [*rows, number("shortened share", None, note=rows[0].note)]
    if context.min_cell_count > 1 and moments.shortened < context.min_cell_count:
        return [*rows, number("shortened share", None, note=BELOW_MINIMUM)]
    share = moments.shortened / moments.count
    se = math.hypot(2.0, share) * moments.sd / moments.count
    if context.interval == "population":
        se = math.hypot(se, math.sqrt(max(share * (1.0 - share), 0.0) / moments.count))
    found = interval_of(share, se, context, (0.0, 1.0))
    return [*rows, number("shortened share", replace(found, value=min(max(share, 0.0), 1.0)))]


def remarks(moments: Moments, asked: Outer) -> tuple[str, ...]:
    """What to mind about rows that were left out or shortened."""
    said = [
        "Only rows that have every column are used.",
        f"A row farther than {asked.radius:.3g} scales from the centers is shortened to that; what this biases is "
        "outside the intervals.",
    ]
    if moments.counted and moments.shortened > CROWDED * moments.count + RESOLVED * 2.0 * moments.sd:
        share = 100.0 * moments.shortened / moments.count
        said.append(f"About {share:.2g} % of the rows were shortened: ask with a larger radius, or wider scales.")
    return tuple(said)
