"""Mask streams: AES-256-CTR read as little-endian ring words, and their addition block by block.

One key belongs to one pair (or one site's own mask) and one H0, and gives exactly one stream; the
IV is zero and byte ``o`` of the stream comes from counter ``o // 16``. The stream has no state
beyond its position, so any part of a vector can be masked or unmasked on its own, and the block
size is a matter of cache, never of bytes.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import numpy.typing as npt
from cryptography.hazmat.primitives.ciphers import Cipher, CipherContext, algorithms, modes

from privfl.errors import Misuse

__all__ = ["BLOCK_BYTES", "KEY_BYTES", "STREAM_LIMIT", "MaskStream", "Words", "apply_masks", "expand"]

KEY_BYTES = 32
STREAM_LIMIT = 2**34
# Accumulator, zeros and keystream of one block lie in a 1 MiB L2 together; 128 KiB to 1 MiB measure alike.
BLOCK_BYTES = 256 * 1024
# Every live cipher context takes about 1 KiB; more keys than this take another pass over the vector.
KEYS_PER_PASS = 1024
_AES_BLOCK = 16

Words = npt.NDArray[np.unsignedinteger]


def _context_at(key: bytes, offset: int) -> CipherContext:
    """An AES-256-CTR encryptor that stands at byte ``offset`` of the stream of ``key``."""
    if len(key) != KEY_BYTES:
        raise Misuse(f"a mask key has {KEY_BYTES} bytes, not {len(key)}; derive it under the mask label")
    counter, skip = divmod(offset, _AES_BLOCK)
    encryptor = Cipher(algorithms.AES256(key), modes.CTR(counter.to_bytes(_AES_BLOCK, "big"))).encryptor()
    if skip:
        encryptor.update(bytes(skip))
    return encryptor


def _check_span(start: int, size: int) -> None:
    if start < 0 or start + size > STREAM_LIMIT:
        raise Misuse(f"bytes {start} to {start + size} leave the mask stream of {STREAM_LIMIT} bytes; split the vector")


class MaskStream:
    """The byte stream of one mask key, read forwards from any offset.

    Args:
        key: 32 bytes, derived for one pair and one H0 and used for no second vector.
        offset_bytes: where to start; any value, also one inside an AES block.

    Raises:
        Misuse: a key of another length, or an offset outside 0..2^34.

    Source: PRG of Bonawitz et al. 2017, section 3; counter mode of NIST SP 800-38A.
    """

    __slots__ = ("_context", "_position")

    def __init__(self, key: bytes, offset_bytes: int = 0) -> None:
        _check_span(offset_bytes, 0)
        self._context = _context_at(key, offset_bytes)
        self._position = offset_bytes

    def read_into(self, out: memoryview | bytearray) -> None:
        """Overwrite ``out`` with the next ``len(out)`` bytes of the stream.

        Raises:
            Misuse: the read would pass byte 2^34 of the stream; nothing was read.
        """
        view = memoryview(out).cast("B")
        _check_span(self._position, len(view))
        self._position += len(view)
        zeros = memoryview(bytes(min(len(view), BLOCK_BYTES)))
        for start in range(0, len(view), BLOCK_BYTES):
            part = view[start : start + BLOCK_BYTES]
            self._context.update_into(zeros[: len(part)], part)

    def __reduce__(self) -> str:
        raise TypeError("a MaskStream cannot be pickled or copied")

    def __repr__(self) -> str:
        return "MaskStream(<redacted>)"


def expand(key: bytes, ring_word: int, length: int, start_word: int = 0) -> Words:
    """Return words ``start_word .. start_word + length`` of the stream of ``key``.

    Args:
        key: 32 bytes.
        ring_word: word size, 16, 32 or 64 bits.
        length: number of words; the result has shape ``(length,)``, native byte order, writable.
        start_word: first word.

    Raises:
        Misuse: another word size, a negative length or start, or a span beyond 2^34 bytes.
    """
    if ring_word not in (16, 32, 64) or length < 0:
        raise Misuse("a mask is a non-negative number of words of 16, 32 or 64 bits")
    width = ring_word // 8
    _check_span(start_word * width, length * width)
    out = bytearray(length * width)
    MaskStream(key, start_word * width).read_into(out)
    words: Words = np.frombuffer(out, dtype=f"<u{width}").astype(f"=u{width}", copy=False)
    return words


def apply_masks(
    acc: Words,
    plus: Sequence[bytes],
    minus: Sequence[bytes],
    *,
    start_word: int = 0,
    block_bytes: int = BLOCK_BYTES,
) -> None:
    """Add the streams of ``plus`` to ``acc`` and subtract those of ``minus``, in place, mod 2^w.

    Working memory is two blocks and at most :data:`KEYS_PER_PASS` cipher contexts, whatever the
    number of keys and the length of ``acc``.

    Args:
        acc: uint16, uint32 or uint64, shape ``(m,)``, native byte order, writable; modified.
        plus: keys of 32 bytes whose streams are added.
        minus: keys of 32 bytes whose streams are subtracted.
        start_word: position of ``acc[0]`` in the whole masked vector.
        block_bytes: bytes of ``acc`` worked on at a time, a multiple of 8; speed only.

    Raises:
        Misuse: a wrong array, key, start or block size; ``acc`` is unchanged.
    """
    width = acc.dtype.itemsize
    if acc.ndim != 1 or acc.dtype not in (np.uint16, np.uint32, np.uint64) or not acc.flags.writeable:
        raise Misuse("masks are applied to a writable one-dimensional uint16, uint32 or uint64 array")
    if block_bytes < 8 or block_bytes % 8:
        raise Misuse(f"block_bytes is a positive multiple of 8, not {block_bytes}")
    if any(len(key) != KEY_BYTES for key in itertools.chain(plus, minus)):
        raise Misuse(f"every mask key has {KEY_BYTES} bytes; derive them under the mask label")
    _check_span(start_word * width, acc.nbytes)
    if acc.size:
        block = min(block_bytes // width, acc.size)
        for adds, subtracts in _passes(plus, minus):
            _one_pass(acc, adds, subtracts, start_word * width, block)


def _passes(plus: Sequence[bytes], minus: Sequence[bytes]) -> Iterator[tuple[Sequence[bytes], Sequence[bytes]]]:
    for start in range(0, len(plus), KEYS_PER_PASS):
        yield plus[start : start + KEYS_PER_PASS], ()
    for start in range(0, len(minus), KEYS_PER_PASS):
        yield (), minus[start : start + KEYS_PER_PASS]


def _one_pass(acc: Words, plus: Sequence[bytes], minus: Sequence[bytes], offset: int, block: int) -> None:
    """Run every block of ``acc`` past every key; each context is made once and keeps its position."""
    adds: list[Callable[..., int]] = [_context_at(key, offset).update_into for key in plus]
    subtracts: list[Callable[..., int]] = [_context_at(key, offset).update_into for key in minus]
    zeros = memoryview(bytes(block * acc.itemsize))
    stream = np.empty(block, dtype=acc.dtype.newbyteorder("<"))  # the stream is little-endian on every machine
    scratch = stream.data.cast("B")
    add, subtract = np.add, np.subtract  # positional ``out``: nothing else happens in the inner loops
    for start in range(0, acc.size, block):
        target = acc[start : start + block]
        size = target.size
        source, sink, mask = zeros[: size * acc.itemsize], scratch[: size * acc.itemsize], stream[:size]
        for advance in adds:
            advance(source, sink)
            add(target, mask, target)
        for advance in subtracts:
            advance(source, sink)
            subtract(target, mask, target)
    stream.fill(0)
