"""Exact discrete Gaussian and discrete Laplace noise: numpy blocks, integer tables, no float noise.

P(x) ∝ exp(-x²/(2σ²)), the discrete Gaussian of Canonne, Kamath and Steinke (2020, arXiv 2004.00010), and
P(x) ∝ exp(-|x|/t), the discrete Laplace, over all integers x. Each coordinate is within total variation 2^-100 of it:

**One table** (σ ≤ 512, t ≤ 64). :class:`~privfl.dp._table.InversionTable` samples the law cut at 13 σ (80 t)
from uniform bits. The cut mass is at most 2 Σ_{x > 13σ} e^(-x²/2σ²) / max(1, σ√2π) ≤ 2·1.08·e^-84.5 < 2^-120, and
2·e^-80 < 2^-114 for Laplace; weights and thresholds add less than 2^-176. No step rounds σ: σ² is a fraction.

**Wide Gaussian**: x = x₁ + k·x₂ with σ₁ = 2k and σ₂² = σ²/k² - 4, so σ₁² + k²σ₂² = σ² exactly (the convolution of
Peikert 2010; Micciancio and Walter 2017). Completing the square, with c = xkσ₂²/σ² and 1/r² = k²/σ₁² + 1/σ₂²,

    P(x) ∝ e^(-x²/2σ²) · Σ_{y∈Z} e^(-(y-c)²/2r²).

By Poisson's formula the sum is r√2π·(1 ± η), η = 2 Σ_{j≥1} e^(-2π²r²j²), whatever c. k is chosen so that σ₂² ≥ 252,
hence r² = 1/(1/4 + 1/σ₂²) > 3.937 and η < 2^-111: every *single* probability is right up to a factor
(1+η)/(1-η), so one step adds less than 2^-110. σ₂ > 512 is split again; up to σ = 2^58 that is at most eight
steps and nine tables, in all less than 8·2^-110 + 9·2^-119 < 2^-106.

**Wide Laplace**: the difference of two geometric variables with ratio q = e^(-1/t) is discrete Laplace, and the
base-K digits of a geometric variable are independent (q^(a + Kb) = q^a·(q^K)^b). So x = Σ K^i·d_i + K^L·x_L, d_i the
difference of two digits, x_L discrete Laplace of scale t/K^L ≤ 64: exact, the tables' own error apart (< 2^-113).

These bounds speak of uniform bits. Ours are AES-256-CTR under a key from the caller's entropy; that step is
computational. Sampling is **not** constant-time: table look-ups and the rare refinements depend on the noise.
An adversary who times the site's own processor or shares its cache is outside the claim.
"""

from __future__ import annotations

import math
from fractions import Fraction
from functools import lru_cache
from numbers import Rational
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from privfl.dp._fixed import gaussian_weights, geometric_digit_weights, laplace_weights
from privfl.dp._table import InversionTable, Lanes
from privfl.entropy import Entropy, Keystream
from privfl.errors import Misuse

__all__ = ["MAX_SCALE", "MAX_SIGMA", "DiscreteGaussian", "DiscreteLaplace"]

MAX_SIGMA = 2.0**58  # 13 σ, and what the inner tables add to it, stay below 2^62
MAX_SCALE = 2.0**55  # 80 t and the digits below stay below 2^62
_TABLE_SIGMA2 = 512**2
_TABLE_SCALE = 64
_RADIX = 1024
_BLOCK = 1 << 16  # samples; indices, guide and results of one block stay in the second-level cache


class _Digit(NamedTuple):
    """One table of a sum; what was drawn before it is multiplied by ``factor``, then this is added."""

    factor: int
    table: InversionTable


class DiscreteGaussian:
    """The discrete Gaussian N_Z(0, σ²), exact (the module says in which sense).

    ``sigma`` is the standard *parameter*; the variance is at most σ² and equals it to 1e-30 for σ ≥ 2.
    A float is sampled exactly as given; a fraction or an integer is rounded up to the next float, never down.
    Building takes milliseconds once; tables are shared by all samplers of the process.

    :raises Misuse: if ``sigma`` is not a finite number in (0, 2^58].
    """

    __slots__ = ("_digits", "_sigma")

    def __init__(self, sigma: float | Fraction) -> None:
        self._sigma = _parameter("sigma", sigma, MAX_SIGMA)
        self._digits = _gaussian_digits(Fraction(self._sigma) ** 2)

    @property
    def sigma(self) -> float:
        """The standard parameter that is sampled, exactly; not below the one asked for."""
        return self._sigma

    def sample(self, size: int, entropy: Entropy) -> npt.NDArray[np.int64]:
        """Return ``size`` independent samples, int64, shape ``(size,)``; one 32-byte draw from ``entropy``.

        The same entropy gives the same samples, and a shorter vector is the beginning of a longer one.

        :raises Misuse: if ``size`` is not a non-negative integer.
        """
        return _sample(self._digits, size, entropy)

    def __repr__(self) -> str:
        return f"DiscreteGaussian(sigma={self._sigma!r})"


class DiscreteLaplace:
    """The discrete Laplace law P(x) ∝ exp(-|x|/scale), exact (the module says in which sense).

    Rounding and caching are those of :class:`DiscreteGaussian`.

    :raises Misuse: if ``scale`` is not a finite number in (0, 2^55].
    """

    __slots__ = ("_digits", "_scale")

    def __init__(self, scale: float | Fraction) -> None:
        self._scale = _parameter("scale", scale, MAX_SCALE)
        self._digits = _laplace_digits(Fraction(self._scale))

    @property
    def scale(self) -> float:
        """The scale that is sampled, exactly; not below the one asked for."""
        return self._scale

    def sample(self, size: int, entropy: Entropy) -> npt.NDArray[np.int64]:
        """Return ``size`` independent samples; as :meth:`DiscreteGaussian.sample`."""
        return _sample(self._digits, size, entropy)

    def __repr__(self) -> str:
        return f"DiscreteLaplace(scale={self._scale!r})"


def _parameter(name: str, value: float | Fraction, largest: float) -> float:
    """Return the least float not below ``value``."""
    if not isinstance(value, float | Rational):
        raise Misuse(f"{name} must be a float, an integer or a fraction, not {type(value).__name__}")
    if isinstance(value, float) and not math.isfinite(value):
        raise Misuse(f"{name} must be finite, not {value}")
    if not 0 < value <= largest:
        raise Misuse(f"{name} must be above 0 and at most 2^{int(math.log2(largest))}; choose it in integer units")
    exact = Fraction(value) if isinstance(value, float) else Fraction(int(value.numerator), int(value.denominator))
    nearest = float(exact)
    return math.nextafter(nearest, math.inf) if Fraction(nearest) < exact else nearest


def _sample(digits: tuple[_Digit, ...], size: int, entropy: Entropy) -> npt.NDArray[np.int64]:
    if isinstance(size, bool) or not isinstance(size, int | np.integer) or size < 0:
        raise Misuse(f"the number of samples must be an integer ≥ 0, not {size!r}")
    root = Keystream(entropy)
    lanes = [Lanes.open(root) for _ in digits]
    out = np.zeros(size, dtype=np.int64)
    for start in range(0, int(size), _BLOCK):
        block = out[start : start + _BLOCK]
        for digit, lane in zip(digits, lanes, strict=True):
            if digit.factor != 1:
                block *= digit.factor
            block += digit.table.draw(block.size, lane)
    return out


def _gaussian_digits(sigma2: Fraction) -> tuple[_Digit, ...]:
    """Split σ² into tables, widest step first (Horner's order)."""
    inner: list[_Digit] = []
    while sigma2 > _TABLE_SIGMA2:
        # k near √(σ/2) gives two tables of about one size; k ≤ 256 keeps them small. Always σ₂² ≥ 252.
        factor = 1 << min(8, (int(sigma2).bit_length() + 1) // 4)
        inner.append(_Digit(factor, _gaussian_table(Fraction(4 * factor**2))))
        sigma2 = sigma2 / factor**2 - 4
    return (_Digit(1, _gaussian_table(sigma2)), *reversed(inner))


def _laplace_digits(scale: Fraction) -> tuple[_Digit, ...]:
    """Split the scale into base-1024 digits, highest first."""
    inner: list[_Digit] = []
    while scale > _TABLE_SCALE:
        inner.append(_Digit(_RADIX, _digit_table(scale)))
        scale /= _RADIX
    return (_Digit(1, _laplace_table(scale)), *reversed(inner))


# Parameters are public, so that caching by them tells nothing; a table takes at most half a megabyte.
@lru_cache(maxsize=32)
def _gaussian_table(sigma2: Fraction) -> InversionTable:
    return InversionTable(gaussian_weights(sigma2))


@lru_cache(maxsize=16)
def _laplace_table(scale: Fraction) -> InversionTable:
    return InversionTable(laplace_weights(scale))


@lru_cache(maxsize=16)
def _digit_table(scale: Fraction) -> InversionTable:
    return InversionTable(geometric_digit_weights(scale, _RADIX))
