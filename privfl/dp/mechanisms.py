"""The last step at a site: contributions put in a release's order, saturated, noised, ready to mask.

The constructions themselves are :mod:`privfl.dp.factors` (F), :mod:`privfl.dp.vectors` (V, S) and
:mod:`privfl.dp.dither` (D). After them a vector is only ever saturated coordinate by coordinate, which
is 1-Lipschitz and therefore harmless, and given exact noise: nothing here rounds, clips or tests a sum.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

import numpy as np

from privfl.dp.contribution import Contribution, Int64Array, LocalReport
from privfl.dp.dither import dithered_sum
from privfl.dp.factors import MAX_REACH, FactorTable, factor_gradient
from privfl.dp.release import Block, Release
from privfl.dp.samplers import DiscreteGaussian, DiscreteLaplace
from privfl.dp.units import Noise
from privfl.dp.vectors import bounded_sum, contributions, materialised, site_vector
from privfl.entropy import Entropy, Keystream
from privfl.errors import Misuse

__all__ = [
    "MAX_REACH",
    "Contribution",
    "FactorTable",
    "LocalReport",
    "assemble",
    "bounded_sum",
    "contributions",
    "dithered_sum",
    "factor_gradient",
    "materialised",
    "noised",
    "saturate",
    "site_vector",
]

_CHUNK = 1 << 18


def assemble(parts: Sequence[Contribution], release: Release) -> Int64Array:
    """Put contributions one after another, as the release's blocks announce them.

    Args:
        parts: one contribution for each block, in order; each is flattened in C order.
        release: what was announced and charged.

    Returns:
        int64 of shape ``(release.length,)``.

    Raises:
        Misuse: a contribution has another length than its block, a larger sensitivity than was charged, or
            was dithered where no δ′ for that was charged.
    """
    if len(parts) != len(release.blocks):
        raise Misuse(f"{len(parts)} contributions do not fill {len(release.blocks)} blocks")
    for part, block in zip(parts, release.blocks, strict=True):
        if part.vector.size != block.length:
            raise Misuse(f"block {block.name} announces {block.length} coordinates, not {part.vector.size}")
        if part.delta2 > block.delta2 or (part.dithered and not block.dithered):
            raise Misuse(f"block {block.name} was charged for a smaller sensitivity than it has; announce its own")
        if release.noise is Noise.LAPLACE and part.delta1 > block.delta1:
            raise Misuse(f"block {block.name} was charged for a smaller L1 sensitivity than it has; announce its own")
    return np.concatenate([part.vector.reshape(-1) for part in parts])


def saturate(vector: Int64Array, x_max: int, *, report: LocalReport | None = None) -> Int64Array:
    """Bound every coordinate to ±x_max; a fresh array. Saturated coordinates are counted locally.

    Raises:
        Misuse: ``vector`` is not int64, or ``x_max`` is not positive.
    """
    if vector.dtype != np.int64:
        raise Misuse(f"only exact integers are saturated and noised, not {vector.dtype}; use a construction")
    if x_max < 1:
        raise Misuse(f"x_max is {x_max}; it must be positive")
    bound = min(x_max, (1 << 63) - 1)
    out = np.clip(vector, -bound, bound)
    if report is not None:
        report.saturated += int(np.count_nonzero(out != vector))
    return out


def noised(vector: Int64Array, release: Release, entropy: Entropy, *, report: LocalReport | None = None) -> Int64Array:
    """Saturate each block at its ±x_max and add the site's share of exact discrete noise.

    Args:
        vector: int64 of shape ``(release.length,)``, as :func:`assemble` makes it.
        release: blocks, their bounds and the noise each site draws.
        entropy: one 32-byte draw, which must be fresh: a draw that is used twice cancels the noise.
        report: local counts to add to.

    Returns:
        A fresh int64 array; what lies beyond 64 bits wraps, as it would in the ring.

    Raises:
        Misuse: wrong type or shape.
    """
    if vector.shape != (release.length,):
        raise Misuse(f"a vector of shape {vector.shape} does not fill a release of {release.length} coordinates")
    stream = Keystream(entropy)
    out = np.empty(release.length, dtype=np.int64)
    begin = 0
    for block in release.blocks:
        sampler = _sampler(block, release)
        for place in range(begin, begin + block.length, _CHUNK):
            end = min(place + _CHUNK, begin + block.length)
            part = saturate(vector[place:end], block.x_max, report=report)
            np.add(part, sampler.sample(end - place, stream), out=out[place:end])
        begin += block.length
    return out


def _sampler(block: Block, release: Release) -> DiscreteGaussian | DiscreteLaplace:
    sigma = Fraction(release.sigma_site(block))
    return DiscreteLaplace(sigma) if release.noise is Noise.LAPLACE else DiscreteGaussian(sigma)
