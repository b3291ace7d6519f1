"""Shamir sharing of 32-byte secrets over GF(2^31 − 1), as exact matrix products.

A secret is nine 30-bit limbs, lowest first; the ninth holds the top 16 bits. Each limb is the
constant term of its own polynomial of degree t − 1 whose other coefficients are uniform in GF(p).

Sharing is the product of a public Vandermonde matrix with the coefficients, recovery that of the
Lagrange weights with the shares. Both run in float64 and are exact: the public factor is split in
two halves below 2^16, the other is centred to at most 2^30, and sums of 127 such products stay below
2^53. No value of a secret, share or coefficient selects an address or a branch.

Source: Shamir, How to share a secret, CACM 1979; limbs after Flamingo's committee sharing.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache, reduce
from typing import Protocol

import numpy as np
import numpy.typing as npt

from privfl.entropy import Entropy, Keystream
from privfl.errors import Malformed, Misuse, Unverified

__all__ = ["LIMBS", "PRIME", "SECRET_BYTES", "X_MAX", "recover", "recover_checked", "split"]

PRIME = 2**31 - 1
LIMBS = 9
SECRET_BYTES = 32
X_MAX = 2**20

_LIMB_BITS = 30
_TOP_BITS = 256 - (LIMBS - 1) * _LIMB_BITS
_TERMS = 127  # 127 * 2^30 * 2^16 < 2^53
# BLAS gets blocks of at most 2^18 multiplications: they stay in the cache, and OpenBLAS starts threads
# only above that, whose hand-over on a busy machine costs many times the product itself.
_SMALL_PRODUCT = 2**18
_BLOCK_ROWS = 200

_U8 = npt.NDArray[np.uint8]
_U32 = npt.NDArray[np.uint32]
_I64 = npt.NDArray[np.int64]
_F64 = npt.NDArray[np.float64]


class _Source(Protocol):
    def words(self, count: int) -> npt.NDArray[np.uint64]: ...


def split(secrets: _U8, xs: Sequence[int], threshold: int, entropy: Entropy) -> _U32:
    """Share each of K secrets among L holders; any ``threshold`` of them recover it, fewer learn nothing.

    Args:
        secrets: uint8, shape ``(K, 32)``.
        xs: the L holders' public evaluation points, distinct, in 1..2^20.
        threshold: t, 2 ≤ t ≤ L.
        entropy: source of the t − 1 random coefficients of every limb; 32 bytes are drawn.

    Returns:
        uint32, shape ``(L, K, 9)``; every value is below p.

    Raises:
        Misuse: a wrong shape or type, a point out of range or repeated, an impossible threshold.
    """
    points = _points(xs)
    if not 2 <= threshold <= len(points):
        raise Misuse(f"a threshold of {threshold} for {len(points)} holders is not in 2..{len(points)}")
    if secrets.ndim != 2 or secrets.shape[1] != SECRET_BYTES or secrets.dtype != np.uint8:
        raise Misuse("secrets are a uint8 array of shape (K, 32)")
    count = secrets.shape[0]
    columns = count * LIMBS
    polynomials = np.empty((threshold, columns), dtype=np.uint32)
    polynomials[0] = _to_limbs(secrets).reshape(columns)
    polynomials[1:] = _uniform(Keystream(entropy), (threshold - 1) * columns).reshape(threshold - 1, columns)
    return _product(_powers(points, threshold), polynomials).reshape(len(points), count, LIMBS)


def recover(xs: Sequence[int], shares: _U32) -> _U8:
    """Recover K secrets from exactly t shares each.

    Args:
        xs: the t holders' points, distinct, in 1..2^20.
        shares: uint32, shape ``(t, K, 9)``, row r from the holder at ``xs[r]``.

    Returns:
        uint8, shape ``(K, 32)``. Wrong shares below p mostly give a wrong secret without an error:
        compare with the commitment.

    Raises:
        Misuse: wrong shape, type or points.
        Malformed: a share value is not below p.
        Unverified: some secret has a limb out of range, so its shares lie on no honest polynomial.
    """
    secrets, valid = recover_checked(xs, shares)
    if not valid.all():
        if bool((shares >= PRIME).any()):
            raise Malformed("a share value is not below 2^31 - 1; leave its sender's shares out and recover again")
        raise Unverified(
            f"the shares of {int((~valid).sum())} of {len(valid)} secrets lie on no honest polynomial; "
            "check their Merkle paths and recover from other holders"
        )
    return secrets


def recover_checked(xs: Sequence[int], shares: _U32) -> tuple[_U8, npt.NDArray[np.bool_]]:
    """Recover K secrets and say which of them are well-formed, instead of raising.

    Arguments as in :func:`recover`.

    Returns:
        uint8 ``(K, 32)`` and bool ``(K,)``. A secret is invalid, and given as zeros, when one of its
        share values is not below p or one of its limbs is out of range; ``True`` is not yet proof.

    Raises:
        Misuse: wrong shape, type or points.
    """
    points = _points(xs)
    if shares.ndim != 3 or shares.shape[0] != len(points) or shares.shape[2] != LIMBS or shares.dtype != np.uint32:
        raise Misuse("shares are a uint32 array of shape (t, K, 9), one row for every point")
    count = shares.shape[1]
    in_field = (shares.max(axis=0) < PRIME).all(axis=1)
    weights = np.array([_weights_at_zero(points)], dtype=np.int64)
    limbs = _product(weights, shares.reshape(len(points), count * LIMBS)).reshape(count, LIMBS)
    in_range = (limbs[:, :-1] < 1 << _LIMB_BITS).all(axis=1) & (limbs[:, -1] < 1 << _TOP_BITS)
    valid = in_field & in_range
    return _from_limbs(limbs) * valid[:, None].astype(np.uint8), valid


def _points(xs: Sequence[int]) -> tuple[int, ...]:
    points = tuple(int(x) for x in xs)
    if not points or len(set(points)) != len(points) or min(points) < 1 or max(points) > X_MAX:
        raise Misuse(f"evaluation points are distinct integers in 1..{X_MAX}; take 1 + the committee position")
    return points


def _to_limbs(secrets: _U8) -> _I64:
    """uint8 ``(K, 32)`` to int64 ``(K, 9)``: limb j is bits 30j to 30j + 29 of the little-endian integer."""
    words = np.zeros((secrets.shape[0], LIMBS), dtype=np.int64)
    words[:, :8] = np.ascontiguousarray(secrets).view("<u4")
    limbs = words & ((1 << _LIMB_BITS) - 1)
    for j in range(1, LIMBS):
        low = words[:, j - 1] >> (32 - 2 * j)
        limbs[:, j] = (low | words[:, j] << (2 * j)) & ((1 << _LIMB_BITS) - 1)
    return limbs


def _from_limbs(limbs: _U32) -> _U8:
    """Inverse of :func:`_to_limbs`; bits beyond a limb's range are cut."""
    wide = limbs.astype(np.uint64)
    shift = np.arange(8, dtype=np.uint64) * np.uint64(2)
    words = (wide[:, :8] >> shift) | (wide[:, 1:] << (np.uint64(_LIMB_BITS) - shift))
    return (words & np.uint64(0xFFFFFFFF)).astype("<u4").view(np.uint8)


def _uniform(source: _Source, count: int) -> _U32:
    """``count`` values uniform in GF(p): 31 bits each, drawn again while they equal p (odds 2^-31)."""
    values = _draw(source, count)
    while (again := np.flatnonzero(values == PRIME)).size:
        values[again] = _draw(source, again.size)
    return values


def _draw(source: _Source, count: int) -> _U32:
    words = source.words((count + 1) // 2).astype("<u8", copy=False).view("<u4")
    return (words[:count] & np.uint32(PRIME)).astype(np.uint32, copy=False)


def _fold(values: _I64) -> _I64:
    """One Mersenne step, v mod 2^31 + ⌊v / 2^31⌋: the same residue; ``values`` is spent."""
    folded = values & PRIME
    values >>= 31
    folded += values
    return folded


def _canonical(values: _I64) -> _U32:
    """The residue in 0..p − 1 of 0 ≤ v ≤ (p − 1)^2, without a branch; ``values`` is spent."""
    folded = _fold(values).astype(np.uint32)  # at most 2p − 3
    reduced: _U32 = np.minimum(folded, folded - np.uint32(PRIME))  # below p the difference wraps to the larger
    return reduced


@lru_cache(maxsize=16)
def _powers(points: tuple[int, ...], count: int) -> _I64:
    """``x^0 .. x^(count-1)`` mod p for every point, shape ``(L, count)``; public, so worth keeping."""
    powers = np.ones((len(points), count), dtype=np.int64)
    step = np.array(points, dtype=np.int64)[:, None]
    done = 1
    while done < count:  # doubling; step = x^done
        upper = min(2 * done, count)
        powers[:, done:upper] = _canonical(powers[:, : upper - done] * step)
        step, done = _canonical(step * step).astype(np.int64), 2 * done
    powers.flags.writeable = False
    return powers


@lru_cache(maxsize=64)
def _weights_at_zero(points: tuple[int, ...]) -> tuple[int, ...]:
    """Lagrange weights: f(0) = Σ w_r f(x_r) for every f of degree below len(points); all public."""
    x = np.array(points, dtype=np.int64)
    factors = (x[None, :] - x[:, None]) % PRIME
    np.fill_diagonal(factors, x)  # row r: x_r times every x_s − x_r
    while (width := factors.shape[1]) > 1:  # multiply the columns together by halves
        half = width // 2
        paired = _canonical(factors[:, :half] * factors[:, half : 2 * half]).astype(np.int64)
        factors = np.concatenate([paired, factors[:, 2 * half :]], axis=1)
    everything = reduce(lambda a, b: a * b % PRIME, points)
    return tuple(everything * pow(int(divisor), -1, PRIME) % PRIME for divisor in factors[:, 0])


def _product(public: _I64, values: _U32) -> _U32:
    """``public @ values`` mod p, exact; ``(R, t)`` in 0..p − 1 by ``(t, C)`` in 0..2^31, t ≤ 1000.

    Values are centred by taking 2^30 off each; its share of the result, 2^30 times the row sum, is
    added back at the end.
    """
    (rows, terms), columns = public.shape, values.shape[1]
    span = min(terms, _TERMS)
    halves = _row_blocks(np.concatenate([public >> 16, public & 0xFFFF]))
    width = min(max(columns, 1), _SMALL_PRODUCT // (span * halves.shape[1]))
    # A multiple of p keeps every sum positive: a block of terms adds less than 2^54 in magnitude, so the
    # total stays between 0 and 2^61.7 < (p − 1)^2.
    offset = ((public.sum(axis=1, keepdims=True) % PRIME) << _LIMB_BITS) + (PRIME << 29)
    out = np.empty((rows, columns), dtype=np.uint32)
    for start in range(0, columns, width):
        tile = values[:, start : start + width].astype(np.float64)
        tile -= float(1 << _LIMB_BITS)
        total = np.broadcast_to(offset, (rows, tile.shape[1])).copy()
        for first in range(0, terms, span):
            exact = (halves[:, :, first : first + span] @ tile[first : first + span]).reshape(-1, tile.shape[1])
            high = _fold(exact[:rows].astype(np.int64))
            high <<= 16
            total += high
            total += exact[rows : 2 * rows].astype(np.int64)
        out[:, start : start + width] = _canonical(total)
    return out


def _row_blocks(matrix: _I64) -> _F64:
    """``(R, t)`` as float64 ``(blocks, at most 64, t)``, the last block filled up with zeros."""
    rows, terms = matrix.shape
    blocks = -(-rows // _BLOCK_ROWS)
    height = -(-rows // blocks)
    padded = np.zeros((blocks * height, terms))
    padded[:rows] = matrix
    return padded.reshape(blocks, height, terms)
