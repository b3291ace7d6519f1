"""The envelope: what every wire carries, signed by its sender, small enough for any queue.

A payload larger than 64 KiB, and every vector, travels as a body: the envelope names it by size and
SHA-256, so that a store which lies is found out when the body is read.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import Annotated, ClassVar

from privfl_keys import Label, Roster, SigningKey, digest

from privfl.codec import Bounds, Bytes32, Bytes64, Record
from privfl.errors import Malformed, Unverified

__all__ = ["INLINE_LIMIT", "BodyRef", "Envelope", "check_body", "open_envelope", "seal_envelope"]

INLINE_LIMIT = 64 * 1024
MAX_BODIES = 8
MAX_ENVELOPE = INLINE_LIMIT + 4096  # anyone may fill a box: what is longer is not even decoded


@dataclass(frozen=True)
class BodyRef(Record):
    """Names a body by its content."""

    TAG: ClassVar[str] = "body"
    sha256: Bytes32
    size: Annotated[int, Bounds(0, 2**35)]

    @classmethod
    def of(cls, data: bytes | memoryview) -> BodyRef:
        """The reference of ``data``."""
        return cls(hashlib.sha256(data).digest(), len(data))


def check_body(ref: BodyRef, data: bytes) -> bytes:
    """Return ``data`` if it is what ``ref`` names; raises Unverified otherwise."""
    if len(data) != ref.size or hashlib.sha256(data).digest() != ref.sha256:
        raise Unverified("a body on the wire is not the one its envelope names; it is fetched again")
    return data


@dataclass(frozen=True)
class Envelope(Record):
    """One signed message. ``id`` is fresh; ``reply_to`` is the id of what it answers, or empty."""

    TAG: ClassVar[str] = "envelope"
    federation: Annotated[str, Bounds(1, 200)]
    sender: Bytes32
    recipient: Bytes32
    kind: Annotated[str, Bounds(1, 40)]
    id: Annotated[bytes, Bounds(16, 16)]
    reply_to: Annotated[bytes, Bounds(0, 16)]
    payload: Annotated[bytes, Bounds(0, INLINE_LIMIT)]
    bodies: Annotated[tuple[BodyRef, ...], Bounds(0, MAX_BODIES)]
    signature: Bytes64

    def signed_digest(self) -> bytes:
        """What the signature covers."""
        return digest(Label.ENVELOPE, *self.to_value()[:-1])

    def verify(self, roster: Roster, role: str) -> None:
        """Check federation, sender's role and signature; raises Unverified."""
        if self.federation != roster.federation:
            raise Unverified("a message of another federation")
        roster.require(self.sender, role).verify(self.signature, Label.ENVELOPE, self.signed_digest())


def open_envelope(data: bytes, roster: Roster, recipient: bytes, role: str) -> Envelope:
    """Decode and verify what lay in a box.

    Raises:
        Malformed: too long, or no envelope.
        Unverified: for someone else, of another federation, or not signed by a member with ``role``.
    """
    if len(data) > MAX_ENVELOPE:
        raise Malformed(f"a message of {len(data)} bytes is longer than any envelope ({MAX_ENVELOPE})")
    envelope = Envelope.decode(data)
    if envelope.recipient != recipient:
        raise Unverified("a message for someone else")
    envelope.verify(roster, role)
    return envelope


def seal_envelope(key: SigningKey, bare: Envelope) -> Envelope:
    """Sign an envelope."""
    return replace(bare, signature=key.sign(Label.ENVELOPE, bare.signed_digest()))
