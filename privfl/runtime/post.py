"""Sending and receiving signed envelopes over a mailbox, and the kinds of message there are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

from privfl.codec import Record
from privfl.entropy import Entropy
from privfl.errors import Malformed, PrivflError, Unverified, WireError
from privfl.secagg import Advert, Announcement, Confirmations, Contribution, EpochRecord
from privfl.secagg.messages import Ids
from privfl.secagg.party import Party
from privfl.wires import INLINE_LIMIT, BodyRef, Envelope, Mailbox, check_body, open_envelope, seal_envelope

__all__ = ["Adverts", "Contributions", "Invitation", "Joining", "OpenEpoch", "Post", "Received", "Refusal", "Unmet"]

MAX_PAYLOAD = 2**30  # the largest model is half of this


@dataclass(frozen=True)
class OpenEpoch(Record):
    """Coordinator to site: advertise for this epoch."""

    TAG: ClassVar[str] = "open epoch"
    epoch: int


@dataclass(frozen=True)
class Adverts(Record):
    """Coordinator to site: everybody's adverts."""

    TAG: ClassVar[str] = "adverts"
    adverts: tuple[Advert, ...]


@dataclass(frozen=True)
class Contributions(Record):
    """Site to coordinator: all its contributions; coordinator to site: all that are for it."""

    TAG: ClassVar[str] = "contributions"
    contributions: tuple[Contribution, ...]


@dataclass(frozen=True)
class Joining(Record):
    """Coordinator to site: the epoch record and what it rests on."""

    TAG: ClassVar[str] = "joining"
    record: EpochRecord
    confirmations: tuple[Confirmations, ...]


@dataclass(frozen=True)
class Unmet(Record):
    """Site to coordinator: the sites of the record that hold no pair key with it, ids concatenated."""

    TAG: ClassVar[str] = "unmet"
    epoch: int
    peers: Ids


@dataclass(frozen=True)
class Invitation(Record):
    """Coordinator to site: a slot, with the task and the model that its hashes name."""

    TAG: ClassVar[str] = "invitation"
    announcement: Announcement
    task: bytes
    inputs: bytes


@dataclass(frozen=True)
class Refusal(Record):
    """Site to coordinator: why a request was refused; a function of public things only."""

    TAG: ClassVar[str] = "refusal"
    reason: str


@dataclass(frozen=True)
class Received:
    """A verified message with its payload; ``bodies`` are read only when asked for."""

    sender: bytes
    kind: str
    id: bytes
    reply_to: bytes
    payload: bytes
    refs: tuple[BodyRef, ...]
    read: Callable[[BodyRef], bytes]

    def body(self, at: int = 0, *, size: int | None = None) -> bytes:
        """Read and verify one body beside the payload; with ``size`` another size is refused before it is read."""
        if at >= len(self.refs) or size not in (None, self.refs[at].size):
            raise Unverified("the message lacks a body that its kind needs, or the body has another size")
        return self.read(self.refs[at])


class Post:
    """One participant's signed post over a mailbox."""

    def __init__(self, party: Party, mailbox: Mailbox, entropy: Entropy, *, peer_role: str) -> None:
        self.party, self._mailbox, self._entropy, self._peer_role = party, mailbox, entropy, peer_role
        self.rejected = 0

    def send(
        self,
        recipient: bytes,
        kind: str,
        payload: bytes,
        *,
        reply_to: bytes = b"",
        bodies: Sequence[bytes | memoryview] = (),
    ) -> bytes:
        """Sign and send; a large payload goes as the first body. Returns the message's id."""
        large = len(payload) > INLINE_LIMIT
        parts = [payload, *bodies] if large else list(bodies)
        refs = tuple(BodyRef.of(part) for part in parts)
        for ref, part in zip(refs, parts, strict=True):
            self._mailbox.put_body(ref.sha256, part)
        bare = Envelope(
            self.party.roster.federation,
            self.party.id,
            recipient,
            f"{kind}+" if large else kind,
            self._entropy.draw(16),
            reply_to,
            b"" if large else payload,
            refs,
            bytes(64),
        )
        self._mailbox.send(recipient, seal_envelope(self.party.key, bare).encode())
        return bare.id

    def receive(self, wait_ms: int, handle: Callable[[Received], None]) -> int:
        """Hand each verified message to ``handle`` and acknowledge it after; returns how many were dealt with.

        A message that does not verify is counted and dropped: it cannot be answered, its sender is unknown.
        One whose body is not on the wire yet (WireError, also from ``handle``) is left to be delivered again.
        """
        done = 0
        for delivery in self._mailbox.receive(wait_ms):
            try:
                received = self._open(delivery.data)
            except WireError:
                continue
            except PrivflError:
                self.rejected += 1
            else:
                try:
                    handle(received)
                except WireError:
                    continue
            delivery.acknowledge()
            done += 1
        return done

    def _open(self, data: bytes) -> Received:
        envelope = open_envelope(data, self.party.roster, self.party.id, self._peer_role)
        refs, payload, kind = envelope.bodies, envelope.payload, envelope.kind
        if kind.endswith("+"):
            if not refs:
                raise Unverified("a large message without its body")
            if refs[0].size > MAX_PAYLOAD:
                raise Malformed(f"a message of {refs[0].size} bytes is longer than any needs to be ({MAX_PAYLOAD})")
            payload, refs, kind = self._read(refs[0]), refs[1:], kind[:-1]
        return Received(envelope.sender, kind, envelope.id, envelope.reply_to, payload, refs, self._read)

    def _read(self, ref: BodyRef) -> bytes:
        return check_body(ref, self._mailbox.get_body(ref.sha256, size=ref.size))
