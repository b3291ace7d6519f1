"""Randomised rounding, and construction D: one unconditional dithered rounding of a sum.

y = ⌊G + U⌋, once, whatever comes out; U is secret, fresh and independent of the data. Couple two
neighbouring datasets by the same U. With g the difference of their sums, each coordinate of y - y′ is
⌊g⌋ or ⌊g⌋ + 1 with mean g, so E‖y - y′‖² ≤ ‖g‖² + d/4, and by Hoeffding (the squares range over
2⌊g⌋ + 1 ≤ 2|g| + 1) it exceeds that by √(2 ln 1/β)·(‖g‖ + √d/2) with probability at most β. That is
Δ², and β is charged as δ′ with every upload. Drawing U again because of what came out would void it.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from privfl.dp.contribution import Contribution, Float64Array, Int64Array, LocalReport
from privfl.dp.sizing import dithered_delta2
from privfl.entropy import Entropy, Keystream
from privfl.errors import Misuse

__all__ = ["dithered_sum", "round_at_random"]

_BLOCK = 1 << 18


def round_at_random(values: Float64Array, stream: Keystream) -> Int64Array:
    """⌊x + U⌋ with U uniform on multiples of 2^-64 in [0, 1), fresh for each coordinate; the same shape.

    Nothing is added in floats: x is rounded up where U is above one minus its fraction, in other words
    with its own fraction as the probability, to 2^-53.

    Args:
        values: finite, below 2^62 in magnitude.
        stream: uniform words.
    """
    floors = np.floor(values)
    # Below 1 always: x - ⌊x⌋ is exact unless x is a tiny negative number, whose fraction rounds to 1.
    fractions = np.minimum(values - floors, 1.0 - 2.0**-53)
    thresholds = np.ldexp(fractions, 64).astype(np.uint64)
    ups = stream.words(values.size).reshape(values.shape) < thresholds
    out: Int64Array = floors.astype(np.int64)
    out += ups
    return out


def dithered_sum(
    total: npt.ArrayLike,
    scale: float,
    clip: float,
    max_rows: int,
    entropy: Entropy,
    *,
    report: LocalReport | None = None,
) -> Contribution:
    """Construction D, for sums that exist only as a sum (ghost clipping).

    Args:
        total: G, shape ``(d,)``, the float64 sum of at most ``max_rows`` vectors of norm at most ``clip``,
            rotated or not. Whoever sums sets a vector with NaN or infinity to zero *before* adding it: a
            sum that is not finite becomes the zero vector and is counted, but no bound covers that.
        scale: s, a power of two, so that scaling is exact.
        clip: C.
        max_rows: m, a public bound, never the true number of rows.
        entropy: for the dither, which is secret.
        report: local counts to add to.

    Returns:
        int64 of shape ``(d,)``, Δ² and ``dithered=True``, which charges β = 10^-12.

    Raises:
        Misuse: wrong shape or constants, or m·s·C does not fit.
    """
    sums = np.asarray(total, dtype=np.float64)
    if sums.ndim != 1 or not sums.size:
        raise Misuse(f"a dithered sum is one vector, not an array of shape {sums.shape}")
    delta2 = dithered_delta2(sums.size, scale, clip, max_rows)
    if np.frexp(scale)[0] != 0.5:
        raise Misuse(f"a scale of {scale} is not a power of two; scaling a sum would round it")
    if max_rows * scale * clip >= 1 << 52:
        raise Misuse("the scaled sum would lose its fractions in float64; lower the scale")
    report = LocalReport() if report is None else report
    if not np.isfinite(sums).all():
        report.nonfinite += 1
        sums = np.zeros_like(sums)
    stream = Keystream(entropy)
    out = np.empty(sums.size, dtype=np.int64)
    # A sum of at most m clipped vectors lies within; the clamp is 1-Lipschitz and keeps the cast defined.
    reach = 2.0**53
    for begin in range(0, sums.size, _BLOCK):
        part = np.clip(sums[begin : begin + _BLOCK] * scale, -reach, reach)
        out[begin : begin + _BLOCK] = round_at_random(part, stream)
    return Contribution(out, delta2, dithered=True, report=report)
