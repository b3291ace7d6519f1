"""Randomised Hadamard rotation: spreads a vector over its coordinates and keeps its L2 norm.

For d a power of two the rotation is H·D with D public random signs and H the orthonormal
Walsh-Hadamard matrix. For other d, with P the greatest power of two below d, it turns the first P
coordinates and then, under fresh signs, the last P. The windows cover the vector, so nothing is
padded and the rotated vector is as long as the plain one. Every coordinate of the result was last
touched by one transform of size P under fresh signs, hence (Hoeffding, union over d coordinates)

    max |y| ≤ √(2 ln(2d/p) / P) · ‖x‖    except with probability p,

where padding to 2P coordinates would give the same with 2P in place of P and up to twice the bytes.

Signs come from AES-256-CTR under a public seed that the round's announcement binds. The rotation is
for fitting a ring, not for hiding anything; no privacy rests on it.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from privfl.errors import Misuse

__all__ = ["flatness", "rotate", "unrotate", "window"]

Float64Array = npt.NDArray[np.float64]

# One step transforms up to 2^_STEP points along one axis, _STRIP columns at a time: one MiB.
_STEP = 10
_STRIP = 128


def window(length: int) -> int:
    """The transform's size: the greatest power of two that is at most ``length``.

    Raises:
        Misuse: ``length`` is less than 1.
    """
    if length < 1:
        raise Misuse(f"a vector of {length} coordinates cannot be rotated")
    return 1 << (length.bit_length() - 1)


def flatness(length: int, failure: float = 1e-6) -> float:
    """ν with max|y| ≤ ν·‖x‖ after rotation, except with probability ``failure``; at most 1.

    Args:
        length: coordinates of the vector.
        failure: probability, over the public seed, that a coordinate is larger (and saturates).
    """
    return min(1.0, math.sqrt(2 * math.log(2 * length / failure) / window(length)))


def rotate(x: npt.ArrayLike, seed: bytes) -> Float64Array:
    """Rotate a vector, or each row of a matrix.

    Args:
        x: shape ``(d,)`` or ``(n, d)``, real numbers.
        seed: 32 public bytes.

    Returns:
        A fresh float64 array of the same shape; L2 norms are kept up to round-off.

    Raises:
        Misuse: the seed does not have 32 bytes, or ``x`` has no coordinates.
    """
    out, rows = _own(x)
    length = rows.shape[1]
    first, second = _signs(seed, length)
    size = window(length)
    for row in rows:
        _flip(row[:size], first)
        _orthonormal(row[:size])
        if second is not None:
            _flip(row[-size:], second)
            _orthonormal(row[-size:])
    return out


def unrotate(y: npt.ArrayLike, seed: bytes) -> Float64Array:
    """The inverse of :func:`rotate` under the same seed; same shapes and errors."""
    out, rows = _own(y)
    length = rows.shape[1]
    first, second = _signs(seed, length)
    size = window(length)
    for row in rows:
        if second is not None:
            _orthonormal(row[-size:])
            _flip(row[-size:], second)
        _orthonormal(row[:size])
        _flip(row[:size], first)
    return out


def _own(x: npt.ArrayLike) -> tuple[Float64Array, Float64Array]:
    out = np.array(x, dtype=np.float64, order="C")
    if out.ndim not in (1, 2) or not out.shape[-1]:
        raise Misuse(f"a rotation takes a vector or the rows of a matrix, not an array of shape {out.shape}")
    return out, out.reshape(-1, out.shape[-1])


def _signs(seed: bytes, length: int) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.uint64] | None]:
    """Sign bits in place (bit 63), for the first window and, unless it is the whole, the last."""
    if len(seed) != 32:
        raise Misuse(f"a rotation seed has 32 bytes, not {len(seed)}")
    size = window(length)
    total = size if size == length else 2 * size
    encryptor = Cipher(algorithms.AES(seed), modes.CTR(bytes(16))).encryptor()
    stream = np.frombuffer(encryptor.update(bytes((total + 7) // 8)), dtype=np.uint8)
    signs = np.unpackbits(stream, count=total, bitorder="little").astype(np.uint64) << np.uint64(63)
    return signs[:size], (signs[size:] if total > size else None)


def _flip(x: Float64Array, signs: npt.NDArray[np.uint64]) -> None:
    """Negate where the sign bit is set, in place."""
    x.view(np.uint64)[...] ^= signs


def _orthonormal(x: Float64Array) -> None:
    """Orthonormal Walsh-Hadamard transform of a contiguous vector of 2^k points, in place.

    The index is cut into digits of at most ``_STEP`` bits; each digit is one pass over memory, in
    strips small enough for the cache, and all butterflies of the digit happen there.
    """
    size = x.shape[0]
    bits = size.bit_length() - 1
    passes = max(1, -(-bits // _STEP))
    low = 0
    for index in range(passes):
        digit = (bits - low) // (passes - index)
        cube = x.reshape(size >> (low + digit), 1 << digit, 1 << low)
        scale = 1.0 / math.sqrt(size) if index == passes - 1 else 1.0
        if low:
            _along_middle(cube, scale)
        else:
            _along_last(cube[:, :, 0], scale)
        low += digit


def _along_last(matrix: Float64Array, scale: float) -> None:
    """Transform each row, by strips of rows turned into columns."""
    for begin in range(0, matrix.shape[0], _STRIP):
        strip = matrix[begin : begin + _STRIP]
        strip[...] = _butterflies(np.ascontiguousarray(strip.T), scale).T


def _along_middle(cube: Float64Array, scale: float) -> None:
    """Transform along the middle axis, by strips of the last."""
    for slab in cube:
        for begin in range(0, cube.shape[2], _STRIP):
            strip = slab[:, begin : begin + _STRIP]
            strip[...] = _butterflies(np.ascontiguousarray(strip), scale)


def _butterflies(points: Float64Array, scale: float) -> Float64Array:
    """Unnormalised transform along axis 0, times ``scale``; overwrites its argument."""
    source, target = points, np.empty_like(points)
    count, width = points.shape
    span = 1
    while span < count:
        old = source.reshape(count // (2 * span), 2, span * width)
        new = target.reshape(count // (2 * span), 2, span * width)
        np.add(old[:, 0], old[:, 1], out=new[:, 0])
        np.subtract(old[:, 0], old[:, 1], out=new[:, 1])
        source, target = target, source
        span *= 2
    if scale != 1.0:
        source *= scale
    return source
