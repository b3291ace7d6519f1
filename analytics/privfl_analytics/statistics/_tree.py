"""Ranks from a dyadic tree of noisy counts: every level tells something about every prefix, and all is used.

The nodes' noise is independent and of one size, so the least-squares counts that are consistent (each node is the sum
of its children) are the best linear unbiased ones. Source: Hay, Rastogi, Miklau and Suciu, PVLDB 2010.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

__all__ = ["consistent", "prefix_errors"]

Floats: TypeAlias = npt.NDArray[np.float64]


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
