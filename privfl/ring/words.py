"""The ring Z_2^b and the machine words that hold it.

Values and masks are added modulo 2^w in whole words; only the *sum* is cut to its low ``b`` bits.
Because 2^b divides 2^w the cut sum is the sum modulo 2^b, whatever lay above bit b on the way. A
sign-extended word must never be masked in its low b bits alone: its high bits would tell the sign.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt

from privfl.errors import Misuse, Refused

__all__ = ["WORDS", "Int64Array", "Ring", "WordArray", "centred", "noise_room", "reduce", "to_words"]

WORDS = (16, 32, 64)

Int64Array = npt.NDArray[np.int64]
# One of uint16, uint32, uint64; a union of array types buys no safety that the ring does not check.
WordArray = npt.NDArray[Any]

_UNSIGNED: dict[int, np.dtype[Any]] = {16: np.dtype("<u2"), 32: np.dtype("<u4"), 64: np.dtype("<u8")}
_SIGNED: dict[int, np.dtype[Any]] = {16: np.dtype("<i2"), 32: np.dtype("<i4"), 64: np.dtype("<i8")}


@dataclass(frozen=True, slots=True)
class Ring:
    """Integers modulo 2^bits, stored in unsigned words of ``word`` bits.

    Args:
        bits: 1 to 64, the width that is hashed and packed.
        word: 16, 32 or 64, at least ``bits``; storage and addition only.

    Raises:
        Misuse: the two do not fit together.
    """

    bits: int
    word: int

    def __post_init__(self) -> None:
        if self.word not in WORDS or not 1 <= self.bits <= self.word:
            raise Misuse(
                f"a ring of {self.bits} bits in words of {self.word} does not exist; "
                f"words have 16, 32 or 64 bits and hold 1 to that many"
            )

    @property
    def dtype(self) -> np.dtype[Any]:
        """The unsigned word, little-endian."""
        return _UNSIGNED[self.word]

    @property
    def signed(self) -> np.dtype[Any]:
        """The signed word of the same width."""
        return _SIGNED[self.word]

    @property
    def modulus(self) -> int:
        """2^bits."""
        return 1 << self.bits

    @property
    def mask(self) -> int:
        """2^bits - 1, the low bits that count."""
        return (1 << self.bits) - 1

    @property
    def reach(self) -> int:
        """2^(bits-1) - 1: sums in [-reach, reach] come back exact."""
        return (1 << (self.bits - 1)) - 1

    @staticmethod
    def of(bits: int) -> Ring:
        """The ring of ``bits`` bits in the least word that holds it.

        Raises:
            Misuse: ``bits`` is not in 1 to 64.
        """
        return Ring(bits, next((word for word in WORDS if word >= bits), 64))

    @staticmethod
    def fit(sites: int, x_max: int, sigma_site: float | Fraction, kappa: float = 8) -> Ring:
        """The least ring in which the sum of ``sites`` saturated, noised vectors does not wrap.

        The least b with 2^b >= 2(sites·x_max + kappa·sigma_site·√sites) + 1, in exact arithmetic. A sum
        beyond it wraps, which costs utility and never privacy.

        Args:
            sites: number of contributions that may be added.
            x_max: public bound at which each coordinate of each contribution saturates, integer units.
            sigma_site: standard deviation of one site's noise, integer units; 0 where there is none.
            kappa: standard deviations of total noise to leave room for.

        Raises:
            Misuse: an argument is negative or not finite, or ``sites`` is 0.
            Refused: even 64 bits are too small for the sum.
        """
        need = 2 * (sites * x_max + noise_room(sites, sigma_site, kappa)) + 1
        bits = max(1, (need - 1).bit_length())
        if bits > 64:
            raise Refused(
                f"ring too small for the sum: {sites} sites with coordinates up to {x_max} need {bits} bits "
                f"and 64 is the most; lower the scale, the clip norm or the noise"
            )
        return Ring.of(bits)


def noise_room(sites: int, sigma_site: float | Fraction, kappa: float) -> int:
    """⌈kappa·sigma_site·√sites⌉ in exact arithmetic, integer units.

    Raises:
        Misuse: an argument is negative or not finite, or ``sites`` is 0.
    """
    if sites < 1:
        raise Misuse(f"a sum of {sites} sites is empty; name at least one")
    if not (math.isfinite(sigma_site) and math.isfinite(kappa) and sigma_site >= 0 and kappa >= 0):
        raise Misuse("sigma_site and kappa must be finite and not negative")
    square = Fraction(kappa) ** 2 * Fraction(sigma_site) ** 2 * sites
    whole = -(-square.numerator // square.denominator)
    root = math.isqrt(whole)
    return root + (root * root < whole)


def to_words(values: Int64Array, ring: Ring) -> WordArray:
    """Signed integers as words modulo 2^w, sign bits kept; a fresh array of the same shape.

    Args:
        values: int64; what lies outside the word wraps.
        ring: the ring.

    Raises:
        Misuse: ``values`` is not int64.
    """
    if values.dtype != np.int64:
        raise Misuse(f"ring words are made from int64, not {values.dtype}; quantise first")
    words: WordArray = values.astype(ring.dtype)
    return words


def reduce(words: WordArray, ring: Ring) -> WordArray:
    """Cut words to their low ``bits`` bits, in place, and return them.

    Raises:
        Misuse: the array's words are not the ring's.
    """
    check_words(words, ring)
    if ring.bits < ring.word:
        np.bitwise_and(words, ring.dtype.type(ring.mask), out=words)
    return words


def centred(words: WordArray, ring: Ring) -> Int64Array:
    """Two's complement of the low ``bits`` bits: int64 in [-2^(bits-1), 2^(bits-1) - 1], same shape.

    Raises:
        Misuse: the array's words are not the ring's.
    """
    check_words(words, ring)
    if ring.bits == ring.word:
        return words.view(ring.signed).astype(np.int64)
    shift = ring.dtype.type(ring.word - ring.bits)
    signed = np.left_shift(words, shift).view(ring.signed)
    np.right_shift(signed, ring.signed.type(ring.word - ring.bits), out=signed)
    out: Int64Array = signed.astype(np.int64)
    return out


def check_words(words: WordArray, ring: Ring) -> None:
    """Raise Misuse unless ``words`` holds the ring's words."""
    if words.dtype != ring.dtype:
        raise Misuse(f"an array of {words.dtype} does not hold words of {ring.word} bits")
