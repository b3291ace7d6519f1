"""The dense bit stream, against an oracle that shifts one Python integer."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import privfl.ring.packing as packing
from privfl.errors import Malformed, Misuse
from privfl.ring import Ring, check_packed, pack, pack_into, packed_size, to_words, unpack, unpack_block

RINGS = st.integers(1, 64).flatmap(
    lambda bits: st.sampled_from([word for word in (16, 32, 64) if word >= bits]).map(lambda word: Ring(bits, word))
)


def oracle(words: np.ndarray, bits: int) -> bytes:
    """Coordinate i in bits [i·b, (i+1)·b) of one little-endian integer."""
    total = 0
    for place, word in enumerate(words):
        total |= (int(word) % (1 << bits)) << (place * bits)
    return total.to_bytes((len(words) * bits + 7) // 8, "little")


def random_words(ring: Ring, length: int, seed: int = 0) -> np.ndarray:
    values = np.random.default_rng(seed).integers(0, 1 << ring.word, length, dtype=f"u{ring.word // 8}")
    return values.astype(ring.dtype)


@pytest.mark.parametrize("bits", range(1, 65))
def test_every_width_matches_the_oracle_and_comes_back(bits: int) -> None:
    """Byte-exact at all widths, lengths around the group sizes; bits at or above b are absent."""
    ring = Ring.of(bits)
    for length in (0, 1, 2, 7, 8, 9, 63, 64, 65, 131):
        words = random_words(ring, length, bits)
        data = pack(words, ring)
        assert data == oracle(words, bits)
        assert len(data) == packed_size(length, ring)
        back = unpack(data, ring, length)
        assert back.dtype == ring.dtype
        assert back.tolist() == [int(word) % ring.modulus for word in words]


@given(RINGS, st.lists(st.integers(-(2**63), 2**63 - 1), max_size=70))
def test_negative_values_leave_no_sign_bits(ring: Ring, values: list[int]) -> None:
    """A sign-extended word packs as its residue mod 2^b, so b < w tells nothing more."""
    words = to_words(np.array(values, dtype=np.int64), ring)
    data = pack(words, ring)
    assert data == oracle(np.array(values, dtype=object), ring.bits)
    assert unpack(data, ring, len(values)).tolist() == [value % ring.modulus for value in values]


@pytest.mark.parametrize("bits", [1, 11, 16, 19, 20, 24, 32, 37, 63, 64])
@pytest.mark.parametrize("length", [0, 500, 1000])
def test_block_by_block_is_the_whole(bits: int, length: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Any cut at multiples of 8, and any inner block, gives the same bytes and the same words."""
    ring = Ring.of(bits)
    words = random_words(ring, length)
    whole = pack(words, ring)
    monkeypatch.setattr(packing, "BLOCK", 64)
    assert pack(words, ring) == whole
    for step in (8, 24, 136):
        stream = bytearray(packed_size(length, ring))
        parts = []
        for start in range(0, length, step):
            pack_into(words[start : start + step], ring, stream, start)
            count = min(step, length - start)
            parts.append(unpack_block(whole, ring, start, count))
        assert bytes(stream) == whole
        if parts:
            assert np.array_equal(np.concatenate(parts), unpack(whole, ring, length))


def test_blocks_add_up_to_the_sum() -> None:
    """Unpack-and-add by blocks equals the sum of the vectors mod 2^b; full words need no copy."""
    for bits in (16, 20, 64):
        ring = Ring.of(bits)
        vectors = [random_words(ring, 1000, seed) for seed in range(4)]
        total = np.zeros(1000, dtype=ring.dtype)
        for vector in vectors:
            data = pack(vector, ring)
            for start in range(0, 1000, 96):
                part = total[start : start + 96]
                part += unpack_block(data, ring, start, part.size)
        expected = [sum(int(vector[place]) for vector in vectors) % ring.modulus for place in range(1000)]
        assert [int(word) % ring.modulus for word in total] == expected


def test_packing_does_not_touch_its_argument_and_unpacking_is_writable() -> None:
    """Words stay as they were; a fresh array comes back, also where a plain copy would do."""
    for bits in (13, 16, 20, 32, 64):
        ring = Ring.of(bits)
        words = random_words(ring, 100)
        before = words.copy()
        back = unpack(pack(words, ring), ring, 100)
        assert np.array_equal(words, before)
        back += ring.dtype.type(1)


def test_strided_words_pack_as_their_copy() -> None:
    """A slice with a stride is packed as what it holds."""
    for bits in (16, 20):
        ring = Ring.of(bits)
        words = random_words(ring, 64)
        assert pack(words[::2], ring) == pack(words[::2].copy(), ring)


@given(RINGS, st.integers(0, 40), st.integers(-3, 3).filter(bool))
def test_another_size_is_malformed(ring: Ring, length: int, off: int) -> None:
    """Truncated and extended streams are refused."""
    data = bytes(max(0, packed_size(length, ring) + off))
    if len(data) != packed_size(length, ring):
        with pytest.raises(Malformed, match="bytes where"):
            unpack(data, ring, length)


@given(RINGS, st.integers(1, 40), st.data())
def test_padding_bits_must_be_zero(ring: Ring, length: int, data: st.DataObject) -> None:
    """Each single padding bit is refused, so that a vector has one encoding."""
    used = length * ring.bits % 8
    if not used:
        return
    stream = bytearray(packed_size(length, ring))
    unpack(bytes(stream), ring, length)
    stream[-1] |= 1 << data.draw(st.integers(used, 7))
    with pytest.raises(Malformed, match="padding"):
        check_packed(bytes(stream), ring, length)


@settings(max_examples=300)
@given(RINGS, st.binary(max_size=80), st.integers(0, 50))
def test_any_bytes_are_a_vector_or_malformed(ring: Ring, data: bytes, length: int) -> None:
    """Whatever unpacks packs to the same bytes; everything else is Malformed and nothing else."""
    try:
        words = unpack(data, ring, length)
    except Malformed:
        return
    assert pack(words, ring) == data
    assert unpack(memoryview(data), ring, length).tolist() == words.tolist()


def test_misuse_is_named() -> None:
    """Places off the byte grid, foreign words, short buffers and matrices are the caller's errors."""
    ring = Ring.of(20)
    words = random_words(ring, 16)
    with pytest.raises(Misuse, match="multiples of 8"):
        unpack_block(pack(words, ring), ring, 4, 4)
    with pytest.raises(Misuse, match="multiples of 8"):
        pack_into(words, ring, bytearray(40), 3)
    with pytest.raises(Misuse, match="ends before"):
        pack_into(words, ring, bytearray(39))
    with pytest.raises(Misuse, match="words of 32"):
        pack(words.astype(np.uint16), ring)
    for any_ring in (ring, Ring.of(32)):
        with pytest.raises(Misuse, match="vectors"):
            pack(random_words(any_ring, 16).reshape(4, 4), any_ring)
    with pytest.raises(Malformed, match="ends before"):
        unpack_block(pack(words, ring), ring, 8, 9)
    with pytest.raises(Misuse):
        packed_size(-1, ring)
