"""Ed25519 signatures (RFC 8032) over labelled contexts.

pyca/cryptography loads any 32 bytes as a public key. For the eight points of small order a single
fixed signature verifies for every message, and a key with two encodings would be two identities,
so :class:`VerifyKey` refuses both before a key is used for anything.
"""

from __future__ import annotations

from functools import cached_property, lru_cache
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from privfl_keys.entropy import Entropy
from privfl_keys.errors import Misuse, Unverified
from privfl_keys.labels import Label, context, digest
from privfl_keys.secret import Redacted

__all__ = ["SigningKey", "VerifyKey"]

KEY_BYTES: Final = 32
SIGNATURE_BYTES: Final = 64

_P: Final = 2**255 - 19
_D: Final = -121665 * pow(121666, -1, _P) % _P
# y of a point of order 8; the other small-order points have y in {0, 1, -1, -y8}.
_Y8: Final = int.from_bytes(bytes.fromhex("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05"), "little")
_SMALL_ORDER_Y: Final = frozenset({0, 1, _P - 1, _Y8, _P - _Y8})


class VerifyKey:
    """An Ed25519 public key that was checked when it was loaded.

    Raises:
        Unverified: not 32 bytes, a non-canonical encoding (y ≥ p), not a point of the curve, or a
            point of small order.
    """

    def __init__(self, raw: bytes) -> None:
        self._key, self._raw, self._site_id = _load(bytes(raw))

    @property
    def raw(self) -> bytes:
        """The 32 bytes of RFC 8032."""
        return self._raw

    @property
    def site_id(self) -> bytes:
        """32 bytes that stand for the owner inside cryptography: SHA-256(label, key)."""
        return self._site_id

    def verify(self, signature: bytes, label: Label, *parts: object) -> None:
        """Check ``signature`` over ``context(label, *parts)``.

        Raises:
            Unverified: it is not this key's signature over exactly that.
        """
        try:
            self._key.verify(signature, context(label, *parts))
        except InvalidSignature:
            raise Unverified(
                f"this signature for {label!s} is not by {self._site_id.hex()[:16]} over these bytes; refuse it"
            ) from None

    def __eq__(self, other: object) -> bool:
        return self._raw == other._raw if isinstance(other, VerifyKey) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._raw)

    def __repr__(self) -> str:
        return f"VerifyKey({self._raw.hex()})"

    def __reduce__(self) -> tuple[type[VerifyKey], tuple[bytes]]:
        return VerifyKey, (self._raw,)


class SigningKey(Redacted):
    """An Ed25519 private key; redacted, unpicklable, exported only by :meth:`secret_bytes`."""

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._key = key

    @classmethod
    def generate(cls, entropy: Entropy) -> SigningKey:
        """Make a key from 32 bytes of ``entropy``."""
        return cls.from_secret_bytes(entropy.draw(KEY_BYTES))

    @classmethod
    def from_secret_bytes(cls, secret: bytes) -> SigningKey:
        """Load the 32-byte seed that :meth:`secret_bytes` gave; raises Misuse for another length."""
        if len(secret) != KEY_BYTES:
            raise Misuse(f"an Ed25519 secret has {KEY_BYTES} bytes, not {len(secret)}")
        return cls(Ed25519PrivateKey.from_private_bytes(secret))

    def secret_bytes(self) -> bytes:
        """Export the 32-byte seed, for a key store and nothing else."""
        return self._key.private_bytes_raw()

    @cached_property
    def verify_key(self) -> VerifyKey:
        """The public half."""
        return VerifyKey(self._key.public_key().public_bytes_raw())

    def sign(self, label: Label, *parts: object) -> bytes:
        """Return the 64-byte signature over ``context(label, *parts)``."""
        return self._key.sign(context(label, *parts))


@lru_cache(maxsize=4096)  # a round verifies under the same few hundred keys again and again
def _load(raw: bytes) -> tuple[Ed25519PublicKey, bytes, bytes]:
    if len(raw) != KEY_BYTES:
        raise Unverified(f"an Ed25519 public key has {KEY_BYTES} bytes, not {len(raw)}")
    y = int.from_bytes(raw, "little") & (2**255 - 1)  # bit 255 is the sign of x
    if y >= _P:
        raise Unverified("this Ed25519 public key is not canonically encoded; its owner must make a new one")
    if y in _SMALL_ORDER_Y:
        raise Unverified("this Ed25519 public key is a point of small order and proves nothing; refuse its owner")
    # RFC 8032, 5.1.3: x² = (y² − 1)/(dy² + 1) must be a square, and u/v is one iff uv is.
    if pow((y * y - 1) * (_D * y * y + 1), (_P - 1) // 2, _P) != 1:
        raise Unverified("this Ed25519 public key is not a point of the curve; its owner must make a new one")
    return Ed25519PublicKey.from_public_bytes(raw), raw, digest(Label.SITE_ID, raw)
