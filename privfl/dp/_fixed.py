"""Integer fixed-point weights of the noise distributions, with proven error; no floating point.

A weight ``v`` in [0, K] is held as an integer near ``v · 2^256``. The bounds below are in units of the
last place (ulp), ``2^-256``. They are far smaller than the 2^-192 steps of the sampling tables, so
that what remains of the error is set by :mod:`privfl.dp._table`, not here.
"""

from __future__ import annotations

from fractions import Fraction
from math import isqrt

__all__ = ["FRACTION_BITS", "ONE", "exp_neg", "gaussian_weights", "geometric_digit_weights", "laplace_weights"]

FRACTION_BITS = 256
ONE = 1 << FRACTION_BITS
_GUARD_BITS = 64

# Where the tables are cut, in units of σ and of the Laplace scale. The mass beyond is at most
# 2·e^(-13²/2)·1.08 < 2^-120 and 2·e^-80 < 2^-114 (see samplers.py); the promise is no less than 11.7 σ.
GAUSSIAN_TAIL = 13
LAPLACE_TAIL = 80


def exp_neg(y: Fraction) -> int:
    """Return an integer within 2 of ``e^-y · 2^256``, for ``y >= 0``.

    ``y`` is halved until it is at most 2^-8, its exponential summed as a Taylor series and squared
    back. With 64 guard bits: each of at most 40 terms is off by at most 3 units, the argument by one;
    a squaring of a value ≤ 1 turns an error e into at most 2e + 2; 17 squarings make less than
    2^26 units, that is 2^-38 ulp, and the last shift cuts at most one ulp.
    """
    if y >= FRACTION_BITS:
        return 0  # e^-256 < 2^-256
    bits = FRACTION_BITS + _GUARD_BITS
    halvings = max(0, (y.numerator << 8).bit_length() - y.denominator.bit_length() + 1)
    z = (y.numerator << bits) // (y.denominator << halvings)
    total = term = 1 << bits
    order = 0
    while term:
        order += 1
        term = ((term * z) >> bits) // order
        total += -term if order & 1 else term
    for _ in range(halvings):
        total = (total * total) >> bits
    return total >> _GUARD_BITS


def gaussian_weights(sigma2: Fraction) -> list[int]:
    """Return ``exp(-x²/(2σ²)) · 2^256`` for x = 0, 1, …, M with M ≥ 13 σ; σ² rational, never rounded.

    Each weight is the one before times ``q^(2x+1)``, q = exp(-1/(2σ²)), itself kept by a product with q².
    The odd power is off by at most 3x + 2 ulp and the weight by at most 3(x+1)² ulp: below
    2^42 ulp = 2^-214 over the 2 · 6657 + 1 entries of the largest table in use (σ = 512).
    """
    last = isqrt(GAUSSIAN_TAIL**2 * sigma2.numerator // sigma2.denominator) + 1
    odd_power = exp_neg(1 / (2 * sigma2))
    square = exp_neg(1 / sigma2)
    weights = [ONE]
    for _ in range(last):
        weights.append((weights[-1] * odd_power) >> FRACTION_BITS)
        odd_power = (odd_power * square) >> FRACTION_BITS
    return weights


def laplace_weights(scale: Fraction) -> list[int]:
    """Return ``exp(-x/t) · 2^256`` for x = 0, 1, …, M with M ≥ 80 t; each is off by at most 3x ulp."""
    last = -(-LAPLACE_TAIL * scale.numerator // scale.denominator)
    return _powers(exp_neg(1 / scale), last + 1)


def geometric_digit_weights(scale: Fraction, radix: int) -> list[int]:
    """Return weights of the difference of two base-``radix`` digits of geometric variables.

    A digit a in [0, radix) has P(a) ∝ q^a, q = exp(-1/t). The difference d of two independent ones has
    P(d) ∝ Σ_a q^a · q^(a+|d|) = q^|d| · Σ_{a < radix-|d|} q^(2a), returned for |d| = 0 … radix - 1; the sums
    are added up, not subtracted, so that nothing cancels. Each weight is off by at most 8 radix² ulp
    while the sum of all is at least one.
    """
    powers = _powers(exp_neg(1 / scale), radix)
    squares = _powers(exp_neg(2 / scale), radix)
    sums = [0]
    for square in squares:
        sums.append(sums[-1] + square)
    return [(power * sums[radix - d]) >> FRACTION_BITS for d, power in enumerate(powers)]


def _powers(base: int, count: int) -> list[int]:
    powers = [ONE]
    for _ in range(count - 1):
        powers.append((powers[-1] * base) >> FRACTION_BITS)
    return powers
