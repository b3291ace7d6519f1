"""Ranks from a dyadic tree of noisy counts: every level tells something about every prefix, and all is used.

The nodes' noise is independent and of one size, so the least-squares counts that are consistent (each node is the sum
of its children) are the best linear unbiased ones. Source: Hay, Rastogi, Miklau and Suciu, PVLDB 2010.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Self

import numpy as np

from privfl_analytics.decode import Estimate, Floats, isotonic, resolves, z_of
from privfl_analytics.statistic import Context, Noisy

__all__ = ["Ranks", "consistent", "prefix_errors", "rank_variance"]

#: Redrawn noise for the error of a rank; 100 tell it to 7 %.
_DRAWS = 100


def consistent(nodes: Floats, levels: int) -> Floats:
    """Least-squares counts of the 2^(levels-1) leaves from the nodes of all levels, root first.

    Args:
        nodes: (…, 2^levels - 1) noisy counts, level after level.
    """
    tree = [nodes[..., (1 << level) - 1 : (1 << (level + 1)) - 1] for level in range(levels)]
    merged = [tree[-1]]
    for height in range(2, levels + 1):  # upwards: a node's own count and the sum of its children, weighted
        below = merged[-1][..., 0::2] + merged[-1][..., 1::2]
        own = (1 << (height - 1)) / ((1 << height) - 1)
        merged.append(own * tree[levels - height] + (1 - own) * below)
    fitted = merged[-1]
    for level in range(1, levels):  # downwards: what a parent has too much is shared by its two children
        children = merged[levels - 1 - level]
        excess = (fitted - children[..., 0::2] - children[..., 1::2]) / 2
        fitted = children + np.repeat(excess, 2, axis=-1)
    return fitted


@lru_cache(maxsize=32)
def prefix_errors(levels: int) -> tuple[Floats, Floats, float]:
    """Error of the fitted prefix counts for noise of variance 1 in each node.

    Returns:
        variance of the count before each of the 2^(levels-1) + 1 edges, its covariance with the whole count, and the
        variance of the whole. (A node adds one observation of its subtree's sum: rank-one updates, from the leaves up.)
    """
    variance, whole, total = np.array([0.0, 1.0]), np.array([0.0, 1.0]), 1.0
    for _ in range(1, levels):
        joined = np.concatenate([variance, total + variance[1:]])
        along = np.concatenate([whole, total + whole[1:]])
        pair = 1 + 2 * total
        variance, whole, total = joined - along**2 / pair, along / pair, 2 * total / pair
    return variance, whole, total


def rank_variance(levels: int, share: float, at: int | slice = slice(None)) -> Floats:
    """Variance of (fitted count below edges) - share·total, for noise of variance 1 in each node."""
    variance, whole, total = prefix_errors(levels)
    return np.clip(variance[at] - 2 * share * whole[at] + share**2 * total, 0.0, None)


@dataclass(frozen=True, eq=False)
class Ranks:
    """How many values lie below each edge, from a tree's noisy nodes.

    Attributes:
        edges: float64 (bins + 1,), rising.
        raw: unbiased counts below each edge, best linear from all levels; rank: the nearest rising ones.
        levels, sd: of the tree.
    """

    edges: Floats
    raw: Floats
    rank: Floats
    levels: int
    sd: float

    @classmethod
    def of(cls, noisy: Noisy, edges: Sequence[float], levels: int) -> Self:
        """Fit the tree's nodes; the last two coordinates, outside and missing, are no part of it."""
        leaves = consistent(noisy.values[: (1 << levels) - 1], levels)
        raw = np.concatenate([[0.0], np.cumsum(leaves)])
        total = max(float(raw[-1]), 0.0)
        rank = raw if noisy.sd == 0 else np.clip(isotonic(raw), 0.0, total)
        rank = np.concatenate([[0.0], rank[1:-1], [total]])
        return cls(np.asarray(edges, dtype=np.float64), raw, rank, levels, noisy.sd)

    @property
    def total(self) -> float:
        """All values, noisy."""
        return float(self.raw[-1])

    @property
    def total_sd(self) -> float:
        """Noise of the total."""
        return self.sd * math.sqrt(prefix_errors(self.levels)[2])

    @property
    def resolved(self) -> bool:
        """Whether the total stands out of its noise."""
        return resolves(self.total, self.total_sd)

    def errors(self, share: float) -> Floats:
        """Noise of (count below each edge) - share·total."""
        return self.sd * np.sqrt(rank_variance(self.levels, share))

    def value(self, share: float) -> float:
        """Where a share of all values lies below, linear within a bin; the middle of where nothing lies."""
        target, rank, edges = share * max(self.total, 0.0), self.rank, self.edges
        first = int(np.clip(np.searchsorted(rank, target, "left"), 1, len(rank) - 1))
        last = int(np.clip(np.searchsorted(rank, target, "right"), 1, len(rank) - 1))
        ends = []
        for at in (first, last):
            step = rank[at] - rank[at - 1]
            part = (target - rank[at - 1]) / step if step > 0 else 0.0
            ends.append(edges[at - 1] + min(max(part, 0.0), 1.0) * (edges[at] - edges[at - 1]))
        return float(sum(ends) / 2)

    def spread(self, shares: Sequence[float], context: Context) -> list[float]:
        """Noise of the *fitted* count below each quantile, less its share of the total, from redrawn noise.

        Rising fits are steadier than the raw counts, by how much depends on the curve: it is taken as the fitted one.
        """
        if self.sd == 0:
            return [0.0] * len(shares)
        shape = (min(context.draws, _DRAWS), (1 << self.levels) - 1)
        noise = np.cumsum(consistent(context.rng.normal(0.0, self.sd, shape), self.levels), axis=-1)
        places, gaps = [self.value(share) for share in shares], []
        for one in noise:
            raw = self.rank + np.concatenate([[0.0], one])
            fitted = np.interp(places, self.edges, np.clip(isotonic(raw), 0.0, max(raw[-1], 0.0)))
            gaps.append(fitted - np.asarray(shares) * raw[-1])
        return [float(sd) for sd in np.sqrt(np.mean(np.square(gaps), axis=0))]

    def end(self, target: float, reach: float, upward: bool) -> float:
        """Where the fitted count is ``target``: an end of an interval whose ranks have this standard error.

        Within a bin it is interpolated, unless the bin holds a step (many equal values, or more rows than the error
        tells apart): then the bin counts as a whole.
        """
        if target <= 0 or target >= self.rank[-1]:
            return float(self.edges[-1 if target > 0 else 0])
        at = int(np.clip(np.searchsorted(self.rank, target, "right" if upward else "left"), 1, len(self.rank) - 1))
        steps = np.diff(self.rank)
        step, near = float(steps[at - 1]), np.concatenate([steps[max(at - 3, 0) : at - 1], steps[at : at + 2]])
        stands_out = step > 2 * float(near.mean()) and step > reach / 2
        if step <= 0 or step > 4 * reach or stands_out:
            return float(self.edges[at if upward else at - 1])
        part = (target - float(self.rank[at - 1])) / step
        return float(self.edges[at - 1] + part * (self.edges[at] - self.edges[at - 1]))

    def between(self, share: float, width: float, error: float) -> tuple[float, float]:
        """Where the rank may be the asked one, within ``width`` standard errors."""
        target = share * self.total
        return self.end(target - width * error, error, False), self.end(target + width * error, error, True)

    def quantile(self, share: float, noise: float, context: Context) -> Estimate | None:
        """The quantile with its interval (Woodruff); None where noise alone leaves it anywhere within the bounds.

        Args:
            noise: of the rank, from :meth:`spread`.
        """
        z = z_of(context)
        if not self.resolved or (noise > 0 and self.between(share, z, noise) == (self.edges[0], self.edges[-1])):
            return None
        sampling = self.total * share * (1 - share) if context.interval == "population" else 0.0
        lower, upper = self.between(share, z, math.hypot(noise, math.sqrt(sampling)))
        value = self.value(share)
        lower, upper = min(lower, value), max(upper, value)
        return Estimate(value, (upper - lower) / (2 * z), lower, upper)
