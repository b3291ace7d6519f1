"""Sending and receiving signed envelopes over a mailbox, and the kinds of message there are."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

from privfl.clock import Clock, SystemClock
from privfl.codec import Bytes32, Record
from privfl.entropy import Entropy
from privfl.errors import Malformed, PrivflError, Unverified, WireError
from privfl.secagg import Advert, Announcement, Confirmations, Contribution, EpochRecord
from privfl.secagg.messages import Ids
from privfl.secagg.party import Party
from privfl.wires import INLINE_LIMIT, BodyRef, Delivery, Envelope, Mailbox, check_body, open_envelope, seal_envelope

__all__ = [
    "Adverts",
    "Contributions",
    "Hello",
    "Invitation",
    "Joining",
    "OpenEpoch",
    "Ping",
    "Post",
    "Received",
    "Refusal",
    "Unmet",
]

MAX_PAYLOAD = 2**30  # the largest model is half of this
MAX_HELD = 2**28  # payloads taken in at once: many messages may name one large body
LATE_BODY_MS = 600_000


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
    """Coordinator to site: a slot, with the task and the model that its hashes name, and who asks for it.

    ``mandate`` is an analyst's signed request for the task; empty where the coordinator asks for itself.
    """

    TAG: ClassVar[str] = "invitation"
    announcement: Announcement
    task: bytes
    inputs: bytes
    mandate: bytes = b""


@dataclass(frozen=True)
class Ping(Record):
    """Coordinator to site: are you up?"""

    TAG: ClassVar[str] = "ping"


@dataclass(frozen=True)
class Hello(Record):
    """Site to coordinator: this site is up, by this roster and policy; says nothing about its data."""

    TAG: ClassVar[str] = "hello"
    roster: Bytes32
    policy: Bytes32
    epoch: int  # last one joined, 0 for none


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

    def __init__(
        self, party: Party, mailbox: Mailbox, entropy: Entropy, *, peer_role: str, clock: Clock | None = None
    ) -> None:
        self.party, self._mailbox, self._entropy, self._clock = party, mailbox, entropy, clock or SystemClock()
        self._peer_role = peer_role
        self._late: dict[bytes, int] = {}  # messages without their body, and since when
        self._bodies: set[bytes] = set()  # on the wire, as far as this participant has seen
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
            self._mailbox.put_body(ref.sha256, part, recipient=recipient)
        self._remember(refs)
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

    def receive(
        self,
        wait_ms: int,
        handle: Callable[[Received], None],
        *,
        order: Callable[[list[Received]], list[Received]] = list,
        commit: Callable[[], None] = lambda: None,
    ) -> int:
        """Hand each verified message to ``handle``, make the effects durable, then acknowledge; returns how many.

        A message that does not verify is counted and dropped: it cannot be answered, its sender is unknown.
        One whose body is not on the wire yet (WireError, also from ``handle``) is left to be delivered again,
        for ten minutes at most.

        Args:
            wait_ms: how long to wait if nothing is there.
            order: puts what has come in together into the order of handling; by default as delivered.
            commit: called once after the last ``handle`` and before the first acknowledgement.
        """
        found: list[tuple[Received, Delivery]] = []
        rejected = held = 0
        for delivery in self._mailbox.receive(wait_ms):
            if held > MAX_HELD:
                break  # the others come again when these are gone
            try:
                received = self._open(delivery.data)
                held += len(received.payload)
                found.append((received, delivery))
            except WireError:
                rejected += self._given_up(delivery)
            except PrivflError:
                rejected += 1
                delivery.acknowledge()
        deliveries = {id(received): delivery for received, delivery in found}
        done: list[Delivery] = []
        for received in order([received for received, _ in found]):
            delivery = deliveries[id(received)]
            try:
                handle(received)
            except WireError:
                rejected += self._given_up(delivery)
                continue
            done.append(delivery)
            if self._late:
                self._late.pop(hashlib.sha256(delivery.data).digest(), None)
        if done:
            commit()
        for delivery in done:
            delivery.acknowledge()
        self.rejected += rejected
        return len(done) + rejected

    def _remember(self, refs: Sequence[BodyRef]) -> None:
        if self._peer_role == "site":  # the coordinator tidies up; a site does not know who still reads
            self._bodies.update(ref.sha256 for ref in refs)

    def drop_bodies(self) -> None:
        """Let the wire forget every body that was sent or read through this post: what they were for is over."""
        for name in self._bodies:
            self._mailbox.drop_body(name)
        self._bodies.clear()

    def _given_up(self, delivery: Delivery) -> bool:
        """Whether a message whose body is still not there was let go, so that it does not come for ever."""
        now, name = self._clock.now(), hashlib.sha256(delivery.data).digest()
        if now - self._late.setdefault(name, now) < LATE_BODY_MS:
            return False
        del self._late[name]
        delivery.acknowledge()
        return True

    def _open(self, data: bytes) -> Received:
        envelope = open_envelope(data, self.party.roster, self.party.id, self._peer_role)
        refs, payload, kind = envelope.bodies, envelope.payload, envelope.kind
        if kind.endswith("+"):
            if not refs:
                raise Unverified("a large message without its body")
            if refs[0].size > MAX_PAYLOAD:
                raise Malformed(f"a message of {refs[0].size} bytes is longer than any needs to be ({MAX_PAYLOAD})")
            payload, refs, kind = self._read(refs[0], envelope.sender), refs[1:], kind[:-1]
        read = partial(self._read, sender=envelope.sender)
        return Received(envelope.sender, kind, envelope.id, envelope.reply_to, payload, refs, read)

    def _read(self, ref: BodyRef, sender: bytes) -> bytes:
        self._remember((ref,))
        try:
            return check_body(ref, self._mailbox.get_body(ref.sha256, size=ref.size, sender=sender))
        except Unverified:
            self._mailbox.drop_body(ref.sha256)  # the first write wins: a false one would keep the true one out
            raise
