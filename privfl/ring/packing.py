"""Ring vectors as a dense little-endian bit stream: coordinate i lies in bits [i·b, (i+1)·b).

Bit j of the stream is bit j mod 8 of byte j // 8. The last byte's unused high bits are zero and are
demanded to be zero, so a vector has one encoding. Any multiple of eight coordinates ends on a whole
byte, which lets both ends work block by block and keep O(block) beside the stream itself.

Words that fill their bits are a plain copy. Other widths go through groups of 64 / gcd(b, 64)
coordinates, which fill whole 64-bit words: one shift and one OR for each place in the group, over
all groups of a block at once.
"""

from __future__ import annotations

from math import gcd

import numpy as np
import numpy.typing as npt

from privfl.errors import Malformed, Misuse
from privfl.ring.words import Ring, WordArray, check_words

__all__ = ["BLOCK", "check_packed", "pack", "pack_into", "packed_size", "unpack", "unpack_block"]

# Coordinates per inner step: half a MiB of 64-bit words, which stays near the core and leaves the
# calls of a step (about three per place in the group) long enough to hide their cost.
# A multiple of 64, hence of every group length.
BLOCK = 1 << 16

_Words64 = npt.NDArray[np.uint64]


def packed_size(length: int, ring: Ring) -> int:
    """Bytes that ``length`` coordinates take: ⌈length·bits / 8⌉."""
    if length < 0:
        raise Misuse(f"a vector of {length} coordinates does not exist")
    return (length * ring.bits + 7) // 8


def pack(words: WordArray, ring: Ring) -> bytes:
    """Pack a vector; bits above ``ring.bits`` are left out.

    Args:
        words: shape ``(m,)``, the ring's words.
        ring: the ring.

    Returns:
        ``packed_size(m, ring)`` bytes.

    Raises:
        Misuse: wrong word or shape.
    """
    check_words(words, ring)
    if ring.bits == ring.word and words.ndim == 1:
        return words.tobytes()
    out = np.empty(packed_size(words.size, ring), dtype=np.uint8)
    pack_into(words, ring, out.data)
    return out.tobytes()


def pack_into(words: WordArray, ring: Ring, out: bytearray | memoryview, start: int = 0) -> int:
    """Pack a slice of a longer vector to its place in the stream, and return the bytes written.

    Args:
        words: shape ``(count,)``, coordinates ``start`` to ``start + count`` of the vector. Unless they
            are its last, ``count`` is a multiple of 8; otherwise the last byte is padded with zeros.
        ring: the ring.
        out: writable buffer of the whole stream.
        start: place of the first coordinate, a multiple of 8.

    Raises:
        Misuse: wrong word, shape or place, or the buffer ends before the slice does.
    """
    check_words(words, ring)
    if words.ndim != 1:
        raise Misuse(f"only vectors are packed; this array has {words.ndim} axes")
    first = _byte_place(start, ring)
    size = packed_size(words.size, ring)
    stream = np.frombuffer(out, dtype=np.uint8)
    if first + size > stream.size:
        raise Misuse(f"the buffer of {stream.size} bytes ends before coordinate {start + words.size}")
    target = stream[first : first + size]
    if ring.bits == ring.word:
        target[:] = np.ascontiguousarray(words).view(np.uint8)
        return size
    for begin in range(0, words.size, BLOCK):
        part = words[begin : begin + BLOCK]
        place = begin // 8 * ring.bits
        target[place : place + packed_size(part.size, ring)] = _squeeze(part, ring)
    return size


def unpack(data: bytes | memoryview, ring: Ring, length: int) -> WordArray:
    """The inverse of :func:`pack`: a fresh array of ``length`` words with zero bits above ``ring.bits``.

    Raises:
        Malformed: the stream has another size, or its padding bits are not zero.
    """
    check_packed(data, ring, length)
    out: WordArray = np.empty(length, dtype=ring.dtype)
    step = length if ring.bits == ring.word else BLOCK
    for begin in range(0, length, max(step, 1)):
        count = min(step, length - begin)
        out[begin : begin + count] = unpack_block(data, ring, begin, count)
    return out


def unpack_block(data: bytes | memoryview, ring: Ring, start: int, count: int) -> WordArray:
    """Coordinates ``start`` to ``start + count`` of a packed stream.

    Only the block is looked at: a stream that comes from elsewhere is first put through
    :func:`check_packed`. The result may be a read-only view of ``data``.

    Args:
        data: the whole stream.
        ring: the ring.
        start: first coordinate, a multiple of 8.
        count: number of coordinates, any.

    Raises:
        Misuse: ``start`` is not a multiple of 8.
        Malformed: the stream ends before the block does.
    """
    first = _byte_place(start, ring)
    size = packed_size(count, ring)
    held = memoryview(data).nbytes
    if first + size > held:
        raise Malformed(f"a packed vector of {held} bytes ends before coordinate {start + count}")
    if ring.bits == ring.word:
        whole: WordArray = np.frombuffer(data, dtype=ring.dtype, count=count, offset=first)
        return whole
    out: WordArray = np.empty(count, dtype=ring.dtype)
    for begin in range(0, count, BLOCK):
        part = min(BLOCK, count - begin)
        place = first + begin // 8 * ring.bits
        chunk = np.frombuffer(data, dtype=np.uint8, count=packed_size(part, ring), offset=place)
        out[begin : begin + part] = _spread(chunk, ring, part)
    return out


def check_packed(data: bytes | memoryview, ring: Ring, length: int) -> None:
    """Demand the one encoding: exact size, zero padding bits.

    Raises:
        Malformed: either fails.
    """
    octets = memoryview(data).cast("B")
    size = packed_size(length, ring)
    if octets.nbytes != size:
        raise Malformed(f"a packed vector has {octets.nbytes} bytes where {length} coordinates take {size}")
    used = length * ring.bits % 8
    if used and octets[-1] >> used:
        raise Malformed("the padding bits of a packed vector are not zero")


def _byte_place(start: int, ring: Ring) -> int:
    if start < 0 or start % 8:
        raise Misuse(f"blocks of a packed vector start at multiples of 8 coordinates, not at {start}")
    return start // 8 * ring.bits


def _group(ring: Ring) -> tuple[int, int]:
    """Coordinates and 64-bit words of the least group that ends on a word."""
    common = gcd(ring.bits, 64)
    return 64 // common, ring.bits // common


def _squeeze(words: WordArray, ring: Ring) -> npt.NDArray[np.uint8]:
    """Pack one block; returns its bytes."""
    bits = ring.bits
    per_group, per_stream = _group(ring)
    groups = -(-words.size // per_group)
    wide: _Words64 = np.zeros((groups, per_group), dtype="<u8")
    np.bitwise_and(words, ring.dtype.type(ring.mask), out=wide.reshape(-1)[: words.size], casting="unsafe")
    columns = np.ascontiguousarray(wide.T)
    out: _Words64 = np.zeros((per_stream, groups), dtype="<u8")
    for j in range(per_group):
        word, offset = divmod(j * bits, 64)
        out[word] |= columns[j] << np.uint64(offset)
        if offset + bits > 64:
            out[word + 1] |= columns[j] >> np.uint64(64 - offset)
    return np.ascontiguousarray(out.T).view(np.uint8).reshape(-1)[: packed_size(words.size, ring)]


def _spread(chunk: npt.NDArray[np.uint8], ring: Ring, count: int) -> WordArray:
    """Unpack one block of ``count`` coordinates."""
    bits = ring.bits
    per_group, per_stream = _group(ring)
    groups = -(-count // per_group)
    stream = np.zeros(groups * per_stream * 8, dtype=np.uint8)
    stream[: chunk.size] = chunk
    columns: _Words64 = np.ascontiguousarray(stream.view("<u8").reshape(groups, per_stream).T)
    out: WordArray = np.empty((groups, per_group), dtype=ring.dtype)
    mask = np.uint64(ring.mask)
    for j in range(per_group):
        word, offset = divmod(j * bits, 64)
        value = columns[word] >> np.uint64(offset)
        if offset + bits > 64:
            value |= columns[word + 1] << np.uint64(64 - offset)
        value &= mask
        out[:, j] = value
    return out.reshape(-1)[:count]
