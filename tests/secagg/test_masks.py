"""Mask streams: the right AES bytes at every offset, exact sums in the ring, block size without influence."""

from __future__ import annotations

import copy
import importlib.util
import json
import pickle
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from privfl.errors import Misuse
from privfl.secagg import masks
from privfl.secagg.masks import STREAM_LIMIT, MaskStream, apply_masks, expand

VECTORS = Path(__file__).parents[1] / "vectors"
KAT = json.loads((VECTORS / "secagg_prim_masks.json").read_text())
KEYS = st.binary(min_size=32, max_size=32)
WORDS = st.sampled_from([16, 32, 64])


def read(key: bytes, offset: int, size: int) -> bytes:
    out = bytearray(size)
    MaskStream(key, offset).read_into(out)
    return bytes(out)


def test_the_vectors_are_what_their_generator_writes(tmp_path: Path) -> None:
    """The files in the repository are the generator's output, so their provenance is the generator."""
    spec = importlib.util.spec_from_file_location("make_secagg_prim", VECTORS / "make_secagg_prim.py")
    assert spec is not None
    assert spec.loader is not None
    generator = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(generator)
    generator.HERE = tmp_path
    generator.main()
    written = sorted(path.name for path in tmp_path.iterdir())
    assert len(written) == 4
    for file in written:
        assert (tmp_path / file).read_bytes() == (VECTORS / file).read_bytes(), file


@pytest.mark.parametrize("case", KAT["streams"])
def test_stream_known_answers(case: dict) -> None:
    """The stream is AES-256 of the block counter from a zero IV, at any offset up to the last byte of 2^34."""
    expected = bytes.fromhex(case["bytes"])
    assert read(bytes.fromhex(case["key"]), case["offset"], len(expected)) == expected


@pytest.mark.parametrize("case", KAT["bad"], ids=lambda case: case["what"])
def test_bad_keys_and_spans_are_refused(case: dict) -> None:
    """Keys of another length and reads outside the stream raise Misuse, never wrap round to byte 0."""
    with pytest.raises(Misuse):
        read(bytes.fromhex(case["key"]), case["offset"], case["size"])


@pytest.mark.parametrize("case", KAT["sums"], ids=lambda case: str(case["word"]))
def test_sum_known_answers(case: dict) -> None:
    """Sums and differences of masks equal plain integers mod 2^w, wrap-around included."""
    acc = np.array(case["acc"], dtype=f"u{case['word'] // 8}")
    plus, minus = ([bytes.fromhex(key) for key in case[sign]] for sign in ("plus", "minus"))
    apply_masks(acc, plus, minus, start_word=case["start_word"])
    assert acc.tolist() == case["result"]


@given(KEYS, st.integers(0, STREAM_LIMIT - 300), st.lists(st.integers(0, 70), max_size=4))
def test_seeking_and_reading_in_pieces_agree(key: bytes, offset: int, sizes: list[int]) -> None:
    """Any cut of a read, and any odd offset, gives the bytes of the one stream (attack 45)."""
    whole = read(key, offset, sum(sizes))
    stream = MaskStream(key, offset)
    pieces = []
    for size in sizes:
        out = bytearray(size)
        stream.read_into(out)
        pieces.append(bytes(out))
    assert b"".join(pieces) == whole
    if whole:
        assert read(key, offset + 1, len(whole) - 1) == whole[1:]


def test_long_reads_cross_the_inner_blocks() -> None:
    """A read longer than the working block has no seam."""
    size = 2 * masks.BLOCK_BYTES + 77
    whole = read(bytes(range(32)), 3, size)
    assert whole[-100:] == read(bytes(range(32)), 3 + size - 100, 100)
    assert whole[masks.BLOCK_BYTES - 8 :][:16] == read(bytes(range(32)), masks.BLOCK_BYTES - 5, 16)


@given(KEYS, WORDS, st.integers(0, 40), st.integers(0, 1000))
def test_expand_is_the_stream_as_little_endian_words(key: bytes, word: int, length: int, start: int) -> None:
    """Word i of a mask is bytes i·w/8 .. of the stream, lowest byte first."""
    width = word // 8
    raw = read(key, start * width, length * width)
    expected = [int.from_bytes(raw[i : i + width], "little") for i in range(0, len(raw), width)]
    words = expand(key, word, length, start)
    assert words.dtype == np.dtype(f"u{width}")
    assert words.tolist() == expected


@given(
    st.lists(KEYS, max_size=3),
    st.lists(KEYS, max_size=3),
    WORDS,
    st.integers(0, 60),
    st.integers(0, 50),
    st.sampled_from([8, 16, 24, 40, 128, masks.BLOCK_BYTES]),
    st.integers(0, 60),
    st.randoms(use_true_random=False),
)
@settings(deadline=None)
def test_masks_against_plain_integers(plus, minus, word, length, start, block, cut, rng) -> None:
    """The result is the integer sum mod 2^w; block size, and masking a vector in two parts, change nothing."""
    values = [rng.getrandbits(word) for _ in range(length)]
    expected = [
        (
            value
            + sum(int(expand(key, word, length, start)[i]) for key in plus)
            - sum(int(expand(key, word, length, start)[i]) for key in minus)
        )
        % 2**word
        for i, value in enumerate(values)
    ]
    acc = np.array(values, dtype=f"u{word // 8}")
    apply_masks(acc, plus, minus, start_word=start, block_bytes=block)
    assert acc.tolist() == expected
    parts = np.array(values, dtype=f"u{word // 8}")
    cut = min(cut, length)
    apply_masks(parts[:cut], plus, minus, start_word=start, block_bytes=block)
    apply_masks(parts[cut:], plus, minus, start_word=start + cut)
    assert parts.tolist() == expected
    apply_masks(acc, minus, plus, start_word=start)
    assert acc.tolist() == values


def test_more_keys_than_one_pass_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys beyond one pass are neither lost nor used twice."""
    keys = [bytes([i]) * 32 for i in range(23)]
    expected, acc = np.zeros(100, np.uint32), np.zeros(100, np.uint32)
    apply_masks(expected, keys[:13], keys[13:])
    monkeypatch.setattr(masks, "KEYS_PER_PASS", 4)
    apply_masks(acc, keys[:13], keys[13:], block_bytes=64)
    assert (acc == expected).all()


def test_a_strided_view_is_masked_in_place() -> None:
    """A view onto a larger array receives the mask; its surroundings stay."""
    whole = np.zeros((2, 50), np.uint32)
    apply_masks(whole.T[:, 1], [bytes(32)], [])
    assert (whole[1] == expand(bytes(32), 32, 50)).all()
    assert not whole[0].any()


def test_working_memory_does_not_grow_with_the_vector() -> None:
    """Scratch is two blocks, whatever the length: O(m) means the vector itself."""
    acc = np.zeros(4_000_000, np.uint32)
    tracemalloc.start()
    apply_masks(acc, [bytes(32)], [bytes([1]) * 32])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 3 * masks.BLOCK_BYTES


@pytest.mark.parametrize(
    ("acc", "keys", "options"),
    [
        (np.zeros(4, np.int32), [bytes(32)], {}),
        (np.zeros(4, np.uint8), [bytes(32)], {}),
        (np.zeros(4, np.float64), [bytes(32)], {}),
        (np.zeros(4, ">u4"), [bytes(32)], {}),
        (np.zeros((2, 2), np.uint32), [bytes(32)], {}),
        (np.broadcast_to(np.uint32(0), (4,)), [bytes(32)], {}),
        (np.zeros(4, np.uint32), [bytes(32), bytes(31)], {}),
        (np.zeros(4, np.uint32), [bytes(32)], {"block_bytes": 0}),
        (np.zeros(4, np.uint32), [bytes(32)], {"block_bytes": 12}),
        (np.zeros(4, np.uint32), [bytes(32)], {"start_word": -1}),
        (np.zeros(4, np.uint32), [bytes(32)], {"start_word": 2**32 - 3}),
    ],
)
def test_wrong_calls_leave_the_vector_alone(acc: np.ndarray, keys: list[bytes], options: dict) -> None:
    """Every wrong argument is refused before the first word is touched."""
    for plus, minus in ((keys, []), ([], keys)):
        with pytest.raises(Misuse):
            apply_masks(acc, plus, minus, **options)
    assert not acc.any()


def test_expand_refuses_other_words_and_lengths() -> None:
    """Only words of 16, 32 and 64 bits exist, and only inside the stream."""
    for word, length, start in ((8, 1, 0), (31, 1, 0), (32, -1, 0), (32, 1, -1), (64, 2, 2**31 - 1)):
        with pytest.raises(Misuse):
            expand(bytes(32), word, length, start)


def test_a_stream_shows_and_copies_nothing() -> None:
    """A stream cannot be pickled or copied, and its repr has no key in it."""
    stream = MaskStream(b"k" * 32)
    assert repr(stream) == "MaskStream(<redacted>)"
    for duplicate in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError):
            duplicate(stream)
