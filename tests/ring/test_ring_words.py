"""Rings, their words, and what a sum in them comes to."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from privfl.errors import Misuse, Refused
from privfl.ring import Ring, centred, noise_room, reduce, to_words

RINGS = st.integers(1, 64).flatmap(
    lambda bits: st.sampled_from([word for word in (16, 32, 64) if word >= bits]).map(lambda word: Ring(bits, word))
)


def signed(value: int, bits: int) -> int:
    """The oracle: two's complement of the low bits, in Python integers."""
    low = value % (1 << bits)
    return low - (1 << bits) if low >> (bits - 1) else low


def int64(value: int) -> int:
    return signed(value, 64)


@given(RINGS, st.lists(st.integers(-(2**63), 2**63 - 1), max_size=20))
def test_words_and_back_agree_with_python_integers(ring: Ring, values: list[int]) -> None:
    """A value's word is the value mod 2^w; centring is two's complement of its low b bits."""
    words = to_words(np.array(values, dtype=np.int64), ring)
    assert words.dtype.itemsize * 8 == ring.word
    assert [int(word) for word in words] == [value % (1 << ring.word) for value in values]
    before = words.copy()
    assert centred(words, ring).tolist() == [signed(value, ring.bits) for value in values]
    assert np.array_equal(words, before)


@given(RINGS, st.lists(st.lists(st.integers(-(2**63), 2**63 - 1), min_size=3, max_size=3), min_size=1, max_size=6))
def test_a_sum_of_words_is_exact_within_reach_and_wraps_by_the_modulus_beyond(
    ring: Ring, rows: list[list[int]]
) -> None:
    """Words added mod 2^w and cut once give the integer sum mod 2^b, negative values included."""
    total = np.zeros(3, dtype=ring.dtype)
    for row in rows:
        total += to_words(np.array(row, dtype=np.int64), ring)
    true = [sum(column) for column in zip(*rows, strict=True)]
    got = centred(reduce(total, ring), ring).tolist()
    assert got == [signed(value, ring.bits) for value in true]
    for value, result in zip(true, got, strict=True):
        assert (result - value) % ring.modulus == 0
        if abs(value) <= ring.reach:
            assert result == value


@given(RINGS, st.integers(0, 2**64 - 1), st.integers(-(2**63), 2**63 - 1))
def test_a_mask_over_the_whole_word_leaves_nothing_of_the_sign(ring: Ring, mask: int, value: int) -> None:
    """The masked word runs through every residue mod 2^w as the mask does: value and mask only meet as a sum."""
    masked = to_words(np.array([value], dtype=np.int64), ring) + np.array([mask % (1 << ring.word)], dtype=ring.dtype)
    assert int(masked[0]) == (value + mask) % (1 << ring.word)
    unmasked = masked - np.array([mask % (1 << ring.word)], dtype=ring.dtype)
    assert centred(unmasked, ring)[0] == signed(value, ring.bits)


@pytest.mark.parametrize("bits", range(1, 65))
def test_reduce_clears_the_high_bits_in_place(bits: int) -> None:
    """After the cut no bit at or above b is left, even from sign extension."""
    ring = Ring.of(bits)
    words = to_words(np.array([-1, -2, 1 << 15, 5], dtype=np.int64), ring)
    assert reduce(words, ring) is words
    assert all(int(word) >> bits == 0 for word in words)


@given(
    st.integers(1, 2000),
    st.integers(0, 2**40),
    st.floats(0, 2**40, allow_nan=False),
    st.sampled_from([0.0, 4.0, 8.0]),
)
def test_fit_is_the_least_ring_that_holds_the_sum(sites: int, x_max: int, sigma: float, kappa: float) -> None:
    """2^b ≥ 2(n·x_max + κσ√n) + 1 holds at b and fails at b - 1, in exact arithmetic on both sides."""
    ring = Ring.fit(sites, x_max, sigma, kappa)

    def holds(bits: int) -> bool:
        rest = Fraction(2**bits - 1, 2) - sites * x_max
        return rest >= 0 and rest**2 >= Fraction(kappa) ** 2 * Fraction(sigma) ** 2 * sites

    # The noise is rounded up to a whole unit first, hence one unit of grace on the lower side.
    assert holds(ring.bits)
    assert (
        ring.bits == 1
        or not holds(ring.bits - 1)
        or (2 ** (ring.bits - 1) - 1) // 2 < sites * x_max + noise_room(sites, sigma, kappa)
    )
    assert ring.word == min(word for word in (16, 32, 64) if word >= ring.bits)


def test_fit_at_its_edges() -> None:
    """No noise, one bit to spare and none; 64 bits are the most and the refusal says what to change."""
    assert Ring.fit(1, 0, 0).bits == 1
    assert Ring.fit(1, 1, 0) == Ring(2, 16)
    assert Ring.fit(2, 2**14 - 1, 0) == Ring(16, 16)
    assert Ring.fit(4, 2**14, 0) == Ring(18, 32)
    assert Ring.fit(1, 2**63 - 1, 0) == Ring(64, 64)
    assert [noise_room(sites, 1.0, 8.0) for sites in (1, 2, 3, 4)] == [8, 12, 14, 16]
    assert noise_room(5, 2.0**-40, 1.0) == 1
    with pytest.raises(Refused, match="ring too small for the sum"):
        Ring.fit(1, 2**63, 0)
    with pytest.raises(Refused, match="ring too small for the sum"):
        Ring.fit(100, 1, 2.0**60)


@pytest.mark.parametrize(
    ("sites", "sigma", "kappa"), [(0, 1.0, 8.0), (1, -1.0, 8.0), (1, float("nan"), 8.0), (1, 1.0, float("inf"))]
)
def test_fit_refuses_nonsense(sites: int, sigma: float, kappa: float) -> None:
    """Arguments that are no sizes are the caller's error."""
    with pytest.raises(Misuse):
        Ring.fit(sites, 1, sigma, kappa)


@pytest.mark.parametrize(("bits", "word"), [(0, 16), (17, 16), (33, 32), (65, 64), (8, 8), (-1, 64)])
def test_rings_that_do_not_exist(bits: int, word: int) -> None:
    """Width and word are checked when the ring is made."""
    with pytest.raises(Misuse):
        Ring(bits, word)


def test_wrong_types_are_refused() -> None:
    """Floats and foreign words never slip into the ring by a cast."""
    with pytest.raises(Misuse, match="int64"):
        to_words(np.array([1.5]), Ring(16, 16))  # type: ignore[arg-type]
    with pytest.raises(Misuse, match="words of 16"):
        centred(np.array([1], dtype=np.uint32), Ring(16, 16))
    with pytest.raises(Misuse, match="words of 16"):
        reduce(np.array([1], dtype=np.uint32), Ring(16, 16))
