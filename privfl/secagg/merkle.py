"""Merkle trees over the shares of one dealer for one committee member, in the manner of RFC 6962.

A leaf hashes 0x00 ‖ leaf key ‖ index ‖ share, an inner node 0x01 ‖ left ‖ right; the left subtree of
n leaves has the largest power of two below n, so no leaf is ever counted twice. The number of leaves
is public (the header's neighbour list fixes it) and every check is against it, so a proof has one
length only and an inner node cannot pass for a leaf.

The leaf key hides shares: without the salt in it a leaf says nothing about its share.

Source: RFC 6962, section 2.1; compact proofs for several leaves follow the same recursion.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping, Sequence, Set

import numpy as np
import numpy.typing as npt
from privfl_keys.labels import Label, digest

from privfl.errors import Misuse, Unverified
from privfl.secagg.shamir import LIMBS

__all__ = ["HASH_BYTES", "leaf", "leaf_key", "leaves", "multiproof", "path", "root", "verify", "verify_multi"]

HASH_BYTES = 32
_LEAF, _NODE = b"\x00", b"\x01"
_sha256 = hashlib.sha256


def leaf_key(h0: bytes, dealer_id: bytes, member_id: bytes, salt: bytes) -> bytes:
    """The 32-byte key of one tree: SHA-256(label, H0, dealer, member, salt)."""
    return digest(Label.LEAF_KEY, h0, dealer_id, member_id, salt)


def leaves(key: bytes, shares: npt.NDArray[np.uint32]) -> list[bytes]:
    """Leaf hashes of K shares, in order.

    Args:
        key: from :func:`leaf_key`.
        shares: uint32, shape ``(K, 9)``; row i becomes leaf i, little-endian.

    Raises:
        Misuse: another key length, shape or type.
    """
    if len(key) != HASH_BYTES or shares.ndim != 2 or shares.shape[1] != LIMBS or shares.dtype != np.uint32:
        raise Misuse("leaves are made from a 32-byte leaf key and a uint32 array of shape (K, 9)")
    rows = np.empty((len(shares), 1 + LIMBS), dtype="<u4")
    rows[:, 0] = np.arange(len(shares), dtype=np.uint32).byteswap()  # big-endian index, as in the docstring above
    rows[:, 1:] = shares
    width = rows.itemsize * rows.shape[1]
    data, prefix = rows.tobytes(), _LEAF + key
    return [_sha256(prefix + data[at : at + width]).digest() for at in range(0, len(data), width)]


def leaf(key: bytes, index: int, share: npt.NDArray[np.uint32]) -> bytes:
    """The leaf hash of one share, uint32 of shape ``(9,)``, at ``index``; equals ``leaves(...)[index]``.

    Raises:
        Misuse: another key length, shape or type, or an index outside 0..2^32 − 1.
    """
    if len(key) != HASH_BYTES or share.shape != (LIMBS,) or share.dtype != np.uint32 or not 0 <= index < 2**32:
        raise Misuse("a leaf is made from a 32-byte leaf key, an index and a uint32 array of shape (9,)")
    return _sha256(_LEAF + key + index.to_bytes(4, "big") + share.astype("<u4").tobytes()).digest()


def root(leaves: Sequence[bytes]) -> bytes:
    """The root of one or more leaves, 32 bytes.

    Raises:
        Misuse: no leaves.
    """
    if not leaves:
        raise Misuse("a tree has at least one leaf")
    level = leaves
    while len(level) > 1:
        level = _above(level)
    return level[0]


def path(leaves: Sequence[bytes], index: int) -> tuple[bytes, ...]:
    """The siblings that lead from leaf ``index`` to the root, lowest first.

    Raises:
        Misuse: no such leaf.
    """
    return multiproof(leaves, (index,))


def verify(root: bytes, leaf: bytes, index: int, count: int, path: Sequence[bytes]) -> None:
    """Check that ``leaf``, hashed by the caller from the share itself, is leaf ``index`` of ``count`` under ``root``.

    Raises:
        Unverified: it is not, or the path has another length than the tree demands.
    """
    verify_multi(root, count, {index: leaf}, path)


def multiproof(leaves: Sequence[bytes], indices: Set[int] | Sequence[int]) -> tuple[bytes, ...]:
    """The fewest nodes that, with the leaves at ``indices``, give the root; level by level, left to right.

    Raises:
        Misuse: no indices, or one that names no leaf.
    """
    known = sorted(set(indices))
    if not known or known[0] < 0 or known[-1] >= len(leaves):
        raise Misuse("a proof is for one or more leaves of the tree")
    proof: list[bytes] = []
    level = leaves
    while len(level) > 1:
        proof.extend(level[i] for i in _siblings(known, len(level)))
        level = _above(level)
        known = sorted({i >> 1 for i in known})
    return tuple(proof)


def verify_multi(root: bytes, count: int, leaves: Mapping[int, bytes], proof: Sequence[bytes]) -> None:
    """Check several leaves of a tree of ``count`` leaves against ``root`` at once.

    Args:
        root: 32 bytes, from a signed header.
        count: number of leaves of the tree, from the same header.
        leaves: index to leaf hash, computed by the caller from the shares.
        proof: what :func:`multiproof` gave for exactly these indices.

    Raises:
        Unverified: anything does not fit: an index, a length, a hash.
    """
    if not leaves or min(leaves) < 0 or max(leaves) >= count:
        raise Unverified("a proof names leaves that the tree does not have; leave its sender's shares out")
    if any(len(node) != HASH_BYTES for node in (root, *leaves.values(), *proof)):
        raise Unverified("a proof holds nodes that are not 32 bytes; leave its sender's shares out")
    nodes, used, size = dict(leaves), 0, count
    while size > 1:
        missing = _siblings(sorted(nodes), size)
        if used + len(missing) > len(proof):
            raise Unverified("a proof is too short for its tree; leave its sender's shares out")
        nodes.update(zip(missing, proof[used : used + len(missing)], strict=True))
        used += len(missing)
        nodes = {
            i >> 1: _sha256(_NODE + nodes[i] + nodes[i + 1]).digest() if i + 1 < size else nodes[i]
            for i in nodes
            if not i & 1
        }
        size = (size + 1) >> 1
    if used != len(proof) or not hmac.compare_digest(nodes[0], root):
        raise Unverified("shares do not lie under the root that their dealer signed; leave their sender's shares out")


def _siblings(known: list[int], size: int) -> list[int]:
    """The nodes that a proof supplies on a level of ``size`` nodes when those of ``known`` (sorted) are there."""
    have = set(known)
    return [i ^ 1 for i in known if i ^ 1 < size and i ^ 1 not in have]


def _above(level: Sequence[bytes]) -> list[bytes]:
    """The next level: neighbours paired, an odd last node passed up, which is RFC 6962's split at powers of two."""
    above = [_sha256(_NODE + a + b).digest() for a, b in zip(level[0::2], level[1::2], strict=False)]
    if len(level) & 1:
        above.append(level[-1])
    return above
