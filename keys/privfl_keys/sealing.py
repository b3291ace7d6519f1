"""Sealing to one recipient by hybrid post-quantum HPKE (RFC 9180, base mode).

The suite is KEM MLKEM768_X25519 (X-Wing, code point 0x647A), HKDF-SHA256 and ChaCha20-Poly1305.
The KEM is a draft: its code point is part of the version label and a fixed ciphertext in the test
vectors notices a change. There is no associated data in pyca's interface, so everything that a
ciphertext is bound to (sender, recipient, round) goes into ``info`` as a labelled context.
Base mode says nothing about the sender; a signature over the ciphertext does.
"""

from __future__ import annotations

from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey, MLKEM768PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hpke import (
    AEAD,
    KDF,
    KEM,
    MLKEM768X25519PrivateKey,
    MLKEM768X25519PublicKey,
    Suite,
)

from privfl_keys.entropy import Entropy
from privfl_keys.errors import Misuse, Unverified
from privfl_keys.labels import Label, context
from privfl_keys.secret import Redacted

__all__ = ["SEALING_KEY_BYTES", "SEAL_OVERHEAD", "SealingKey", "SealingPublicKey"]

SECRET_BYTES: Final = 96  # ML-KEM-768 seed (d ‖ z, 64) ‖ X25519 scalar (32)
_MLKEM_BYTES: Final = 1184
SEALING_KEY_BYTES: Final = _MLKEM_BYTES + 32
SEAL_OVERHEAD: Final = 1088 + 32 + 16  # ML-KEM ciphertext, X25519 ephemeral, Poly1305 tag

_SUITE: Final = Suite(KEM.MLKEM768_X25519, KDF.HKDF_SHA256, AEAD.CHACHA20_POLY1305)

_P: Final = 2**255 - 19
# Canonical u of order dividing 8 on Curve25519 or its twist: X25519 with them is always zero.
_SMALL_ORDER_U: Final = frozenset(
    int.from_bytes(bytes.fromhex(u), "little")
    for u in (
        "00" * 32,
        "01" + "00" * 31,
        "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
        "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
        "ec" + "ff" * 30 + "7f",
    )
)


class SealingPublicKey:
    """A hybrid public key: 1 184 bytes of ML-KEM-768, then 32 bytes of X25519.

    Raises:
        Unverified: another length, an ML-KEM part that fails the modulus check of FIPS 203, or an
            X25519 part that is non-canonical or of small order (it would add nothing).
    """

    def __init__(self, raw: bytes) -> None:
        if len(raw) != SEALING_KEY_BYTES:
            raise Unverified(f"a sealing key has {SEALING_KEY_BYTES} bytes, not {len(raw)}")
        self._raw = bytes(raw)
        u = int.from_bytes(self._raw[_MLKEM_BYTES:], "little")
        if u >= _P or u in _SMALL_ORDER_U:
            raise Unverified("the X25519 part of this sealing key is non-canonical or of small order; refuse its owner")
        try:
            mlkem = MLKEM768PublicKey.from_public_bytes(self._raw[:_MLKEM_BYTES])
        except ValueError:
            raise Unverified("the ML-KEM part of this sealing key is malformed; refuse its owner") from None
        self._key = MLKEM768X25519PublicKey(mlkem, X25519PublicKey.from_public_bytes(self._raw[_MLKEM_BYTES:]))

    @property
    def raw(self) -> bytes:
        """The 1 216 bytes."""
        return self._raw

    def seal(self, plaintext: bytes, label: Label, *parts: object) -> bytes:
        """Encrypt to the key's owner, bound to ``context(label, *parts)``; adds 1 136 bytes.

        The ephemeral randomness is drawn by pyca/cryptography from the operating system.
        """
        return _SUITE.encrypt(plaintext, self._key, context(label, *parts))

    def probe(self) -> None:
        """Seal one empty message as a test, when a key is received.

        Raises:
            Unverified: the library cannot seal to this key; exclude its owner before a round needs it.
        """
        try:
            self.seal(b"", Label.PROBE)
        except ValueError:
            raise Unverified("nothing can be sealed to this key; refuse its owner") from None

    def __eq__(self, other: object) -> bool:
        return self._raw == other._raw if isinstance(other, SealingPublicKey) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._raw)

    def __repr__(self) -> str:
        return f"SealingPublicKey({self._raw[-32:].hex()})"


class SealingKey(Redacted):
    """A hybrid private key, made per epoch and dropped with it; exported only by :meth:`secret_bytes`."""

    __slots__ = ("_key", "_public", "_secret")

    def __init__(self, secret: bytes) -> None:
        """Load a 96-byte secret: ML-KEM-768 seed (64), X25519 scalar (32); raises Misuse for another length."""
        if len(secret) != SECRET_BYTES:
            raise Misuse(f"a sealing secret has {SECRET_BYTES} bytes, not {len(secret)}")
        mlkem = MLKEM768PrivateKey.from_seed_bytes(secret[:64])
        x25519 = X25519PrivateKey.from_private_bytes(secret[64:])
        self._secret = bytes(secret)
        self._key = MLKEM768X25519PrivateKey(mlkem, x25519)
        self._public = SealingPublicKey(
            mlkem.public_key().public_bytes_raw() + x25519.public_key().public_bytes_raw(),
        )

    @classmethod
    def generate(cls, entropy: Entropy) -> SealingKey:
        """Make a key from 96 bytes of ``entropy``."""
        return cls(entropy.draw(SECRET_BYTES))

    @classmethod
    def from_secret_bytes(cls, secret: bytes) -> SealingKey:
        """Load what :meth:`secret_bytes` gave; raises Misuse for another length."""
        return cls(secret)

    def secret_bytes(self) -> bytes:
        """Export the 96-byte secret, for the durable store of an epoch and nothing else."""
        return self._secret

    @property
    def public(self) -> SealingPublicKey:
        """The public half."""
        return self._public

    def open(self, ciphertext: bytes, label: Label, *parts: object) -> bytes:
        """Decrypt what was sealed to this key under exactly ``context(label, *parts)``.

        Raises:
            Unverified: damaged, truncated, sealed to another key, or bound to another context.
            KeyboardInterrupt: Ctrl-C fell into the work of the library.
        """
        info = context(label, *parts)
        try:
            return _SUITE.decrypt(ciphertext, self._key, info)
        except (InvalidTag, ValueError):
            pass
        try:
            _SUITE.decrypt(ciphertext, self._key, info)
        except (InvalidTag, ValueError):
            raise Unverified(f"this {label!s} does not open: damaged, or sealed to another key or context") from None
        # pyca reports whatever a signal handler raises inside it as a bad tag; its sender must not be blamed for that
        raise KeyboardInterrupt
