"""Who a site is: a name and an Ed25519 key, a fingerprint to read aloud, and rotation with continuity."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated, ClassVar, Final

from privfl_keys.checked import Checked
from privfl_keys.encoding import Bounds, Bytes32, Bytes64, Record, Uint64
from privfl_keys.entropy import Entropy
from privfl_keys.errors import Misuse, Theirs, Unverified
from privfl_keys.labels import Label, digest
from privfl_keys.secret import Redacted
from privfl_keys.signing import SigningKey, VerifyKey

__all__ = ["Identity", "Name", "Rotation", "check_fingerprint", "check_name", "fingerprint"]

Name = Annotated[str, Bounds(1, 64)]

# ASCII only: no two names look alike, none hides a control character from whoever compares them.
_NAME: Final = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9 ._@-]{0,62}[A-Za-z0-9])?")
_GROUPS: Final = 8  # of five digits: 132 bits, beyond search for a second key with the same digits


def check_name(name: str) -> str:
    """Return ``name`` if it may name a member or a federation.

    Raises:
        Misuse: not 1 to 64 letters, digits, spaces or ``. _ @ -``, or not a letter or digit at both ends.
    """
    if not _NAME.fullmatch(name):
        raise Misuse(
            f"{name!a:.80} is no usable name: 1 to 64 ASCII letters, digits, spaces or . _ @ -, "
            "with a letter or digit at both ends"
        )
    return name


def fingerprint(key: VerifyKey) -> str:
    """Return eight groups of five digits that stand for ``key``, to compare by telephone.

    >>> from privfl_keys.signing import SigningKey
    >>> fingerprint(SigningKey.from_secret_bytes(bytes(32)).verify_key).count(" ")
    7
    """
    number = int.from_bytes(digest(Label.FINGERPRINT, key.raw), "big") % 10 ** (5 * _GROUPS)
    digits = f"{number:0{5 * _GROUPS}d}"
    return " ".join(digits[at : at + 5] for at in range(0, len(digits), 5))


def check_fingerprint(key: VerifyKey, spoken: str) -> None:
    """Compare what was said over the telephone with the fingerprint of ``key``.

    Only digits count, so spaces and dashes may be written as one likes.

    Raises:
        Unverified: they differ, or digits are missing; the key must not be enrolled.
    """
    if re.sub(r"[\s-]", "", spoken) != fingerprint(key).replace(" ", ""):
        raise Unverified(
            "the fingerprint read aloud is not that of this key; do not enrol it, and ask its owner to "
            "send its request again over another channel"
        )


@dataclass(frozen=True)
class Rotation(Checked):
    """Proof that whoever held ``old_key`` handed over to ``new_key``, and that the new key agreed.

    The second signature stops the holder of an old key from claiming somebody else's key as its next.
    """

    TAG: ClassVar[str] = "rotation"

    name: Name
    old_key: Bytes32
    new_key: Bytes32
    rotated_at: Uint64
    old_signature: Bytes64
    new_signature: Bytes64

    def check(self) -> None:
        """Raise Misuse for an unusable name."""
        check_name(self.name)

    def verify(self) -> None:
        """Raise Unverified unless both keys are sound, differ, and signed this hand-over."""
        if self.old_key == self.new_key:
            raise Unverified(f"the rotation of {self.name!a} does not change its key; ask for a new one")
        old, new = VerifyKey(self.old_key), VerifyKey(self.new_key)
        parts = (self.name, self.old_key, self.new_key, self.rotated_at)
        old.verify(self.old_signature, Label.ROTATION_OLD, *parts)
        new.verify(self.new_signature, Label.ROTATION_NEW, *parts)


@dataclass(frozen=True, repr=False)
class _StoredIdentity(Record):
    TAG: ClassVar[str] = "identity"

    name: Name
    seed: Bytes32

    def __repr__(self) -> str:
        return "_StoredIdentity(<redacted>)"


class Identity(Redacted):
    """A name and the signing key behind it. The site makes it itself; the secret never travels."""

    __slots__ = ("_key", "_name")

    def __init__(self, name: str, key: SigningKey) -> None:
        """Put ``name`` on ``key``; raises Misuse for an unusable name."""
        self._name = check_name(name)
        self._key = key

    @classmethod
    def generate(cls, name: str, entropy: Entropy) -> Identity:
        """Make a new identity from 32 bytes of ``entropy``."""
        return cls(check_name(name), SigningKey.generate(entropy))

    @classmethod
    def from_secret_bytes(cls, secret: bytes) -> Identity:
        """Load what :meth:`secret_bytes` gave; raises Misuse for anything else."""
        try:
            stored = _StoredIdentity.decode(secret)
        except Theirs:
            raise Misuse("this entry of the key store is no identity; name the entry that holds one") from None
        return cls(stored.name, SigningKey.from_secret_bytes(stored.seed))

    def secret_bytes(self) -> bytes:
        """Export name and seed, for a key store and nothing else."""
        return _StoredIdentity(self._name, self._key.secret_bytes()).encode()

    @property
    def name(self) -> str:
        """The name that the roster shows."""
        return self._name

    @property
    def key(self) -> SigningKey:
        """The signing key."""
        return self._key

    @property
    def verify_key(self) -> VerifyKey:
        """The public key."""
        return self._key.verify_key

    @property
    def site_id(self) -> bytes:
        """The 32 bytes that stand for this identity inside cryptography."""
        return self._key.verify_key.site_id

    @property
    def fingerprint(self) -> str:
        """Eight groups of five digits, to be read aloud to the authority."""
        return fingerprint(self._key.verify_key)

    def rotate(self, entropy: Entropy, rotated_at: int) -> tuple[Identity, Rotation]:
        """Make the next identity of the same name, and the proof of continuity.

        Args:
            entropy: gives the 32 bytes of the new key.
            rotated_at: milliseconds since 1970, for people who read the proof later.

        Store the new identity before the proof is sent; destroy the old one when a roster names the new.
        """
        after = Identity.generate(self._name, entropy)
        old, new = self.verify_key.raw, after.verify_key.raw
        parts = (self._name, old, new, rotated_at)
        proof = Rotation(
            name=self._name,
            old_key=old,
            new_key=new,
            rotated_at=rotated_at,
            old_signature=self._key.sign(Label.ROTATION_OLD, *parts),
            new_signature=after.key.sign(Label.ROTATION_NEW, *parts),
        )
        return after, proof

    def __repr__(self) -> str:
        return f"Identity({self._name!r}, {self.site_id.hex()[:16]}, <redacted>)"
