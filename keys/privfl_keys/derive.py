"""Key derivation by HKDF-SHA256 (RFC 5869), always under a labelled context."""

from __future__ import annotations

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF, HKDFExpand

from privfl_keys.errors import Misuse
from privfl_keys.labels import Label, context

__all__ = ["derive", "extract_and_derive"]

_HASH_BYTES = 32
_MAX_BYTES = 255 * _HASH_BYTES


def derive(key: bytes, label: Label, *parts: object, size: int = 32) -> bytes:
    """HKDF-Expand: ``size`` bytes from a uniform ``key`` of at least 32 bytes.

    Raises:
        Misuse: the key is shorter than 32 bytes, or ``size`` is outside 1 to 8160.

    Source: RFC 5869, section 2.3; ``info`` is :func:`privfl_keys.labels.context`.
    """
    if len(key) < _HASH_BYTES:
        raise Misuse(f"a key to derive from has at least {_HASH_BYTES} uniform bytes, not {len(key)}")
    _check_size(size)
    return HKDFExpand(SHA256(), size, context(label, *parts)).derive(key)


def extract_and_derive(ikm: bytes, label: Label, *parts: object, size: int = 32) -> bytes:
    """Full HKDF with an empty salt: ``size`` bytes from input keying material of any shape.

    Raises:
        Misuse: the material is shorter than 32 bytes, or ``size`` is outside 1 to 8160.

    Source: RFC 5869, section 2.
    """
    if len(ikm) < _HASH_BYTES:
        raise Misuse(f"keying material has at least {_HASH_BYTES} bytes, not {len(ikm)}")
    _check_size(size)
    return HKDF(SHA256(), size, None, context(label, *parts)).derive(ikm)


def _check_size(size: int) -> None:
    if not 1 <= size <= _MAX_BYTES:
        raise Misuse(f"HKDF-SHA256 gives 1 to {_MAX_BYTES} bytes, not {size}")
