"""What travels in the secure-aggregation protocol, as canonical records.

Lists of 32-byte values (site ids, hashes, commitments) are concatenated into one bytes field: a
header of a thousand-site round stays small in memory and decodes in one step. Signatures cover the
digest of everything else in the record; the digest methods below are the only place that says how.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, ClassVar

from privfl_keys import Label, content_digest, context, digest

from privfl.codec import Bounds, Bytes32, Bytes64, Record, Uint32, Uint64
from privfl.errors import Malformed

__all__ = [
    "ABORT",
    "Advert",
    "Announcement",
    "Ask",
    "Confirmations",
    "Contribution",
    "EpochRecord",
    "Header",
    "Release",
    "Scope",
    "SeenHead",
    "Slot",
    "Upload",
    "Vote",
    "join",
    "split",
    "survivors_hash",
]

ID = 32
MAX_SITES = 4096
ABORT = bytes(32)  # the vote that no survivor set shall be opened; no SHA-256 output in practice

Ids = Annotated[bytes, Bounds(0, ID * MAX_SITES)]
Slot = tuple[int, int]  # (round, attempt), compared lexicographically


def join(items: Iterable[bytes]) -> bytes:
    """Concatenate 32-byte values."""
    return b"".join(items)


def split(data: bytes) -> tuple[bytes, ...]:
    """Cut a concatenation into 32-byte values; raises Malformed on a remainder."""
    if len(data) % ID:
        raise Malformed("a list of 32-byte values has a remainder")
    return tuple(data[at : at + ID] for at in range(0, len(data), ID))


@dataclass(frozen=True)
class Scope(Record):
    """Which epoch of which federation under which roster."""

    TAG: ClassVar[str] = "scope"
    federation: Annotated[str, Bounds(1, 200)]
    roster: Bytes32
    epoch: Uint32


@dataclass(frozen=True)
class Advert(Record):
    """E0: a site's sealing key for one epoch."""

    TAG: ClassVar[str] = "advert"
    scope: Scope
    site: Bytes32
    key: Annotated[bytes, Bounds(1216, 1216)]
    signature: Bytes64

    @cached_property
    def digest(self) -> bytes:
        """Hash of the body, without the signature."""
        return digest(Label.ADVERT, self.scope.to_value(), self.site, self.key)


@dataclass(frozen=True)
class Contribution(Record):
    """E1: 32 fresh bytes from ``sender`` for the pair key, sealed to ``recipient``."""

    TAG: ClassVar[str] = "contribution"
    scope: Scope
    sender: Bytes32
    recipient: Bytes32
    sender_advert: Bytes32
    recipient_advert: Bytes32
    sealed: Annotated[bytes, Bounds(1, 4096)]
    signature: Bytes64

    def binding(self) -> tuple[object, ...]:
        """What the seal's ``info`` and the signature both cover."""
        return (self.scope.to_value(), self.sender, self.recipient, self.sender_advert, self.recipient_advert)


@dataclass(frozen=True)
class Confirmations(Record):
    """E2: per peer, a tag that only a holder of the pair key can make; ``tags`` follows ``peers``."""

    TAG: ClassVar[str] = "confirmations"
    scope: Scope
    site: Bytes32
    peers: Ids
    tags: Ids
    signature: Bytes64

    def binding(self) -> tuple[object, ...]:
        """What the signature covers."""
        return (self.scope.to_value(), self.site, self.peers, self.tags)


@dataclass(frozen=True)
class EpochRecord(Record):
    """Who is in the epoch, who sits on its committee, and its numbers; fixed once."""

    TAG: ClassVar[str] = "epoch record"
    scope: Scope
    adverts: tuple[Advert, ...]
    committee: Ids
    corrupt: Uint32
    committee_corrupt: Uint32
    threshold: Uint32
    degree: Uint32  # 0: complete graph

    @cached_property
    def digest(self) -> bytes:
        """The epoch record hash that every H0 carries."""
        return digest(Label.EPOCH_RECORD, self.to_value())

    @cached_property
    def sites(self) -> tuple[bytes, ...]:
        """Site ids of the adverts, in the record's order (sorted)."""
        return tuple(advert.site for advert in self.adverts)

    @cached_property
    def members(self) -> tuple[bytes, ...]:
        """Committee members in order; member at position p holds shares at x = p + 1."""
        return split(self.committee)


@dataclass(frozen=True)
class SeenHead(Record):
    """The last header of a site that the coordinator saw, as the site itself signed it."""

    TAG: ClassVar[str] = "seen head"
    site: Bytes32
    header: Bytes32
    ledger_head: Bytes32
    signature: Bytes64


@dataclass(frozen=True)
class Vote(Record):
    """S2: one committee member's only vote in a slot, for one H(U) or for ABORT."""

    TAG: ClassVar[str] = "vote"
    scope: Scope
    round: Uint32
    attempt: Uint32
    h0: Bytes32
    member: Bytes32
    choice: Bytes32
    complaints: Ids
    signature: Bytes64

    def binding(self) -> tuple[object, ...]:
        """What the signature covers."""
        return (
            self.scope.to_value(),
            self.round,
            self.attempt,
            self.h0,
            self.member,
            self.choice,
            self.complaints,
        )


@dataclass(frozen=True)
class Announcement(Record):
    """S0: everything a slot is about; H0 is the hash of all of it."""

    TAG: ClassVar[str] = "announcement"
    scope: Scope
    record: Bytes32
    coordinator: Bytes32
    round: Uint32
    attempt: Uint32
    seq: Uint64
    nonce: Bytes32
    policy: Bytes32
    task: Bytes32
    inputs: Bytes32
    bits: Annotated[int, Bounds(1, 64)]
    word: Annotated[int, Bounds(16, 64)]
    length: Annotated[int, Bounds(1, 2**34 // 2)]
    complete: bool
    threshold: Uint32
    min_survivors: Uint32
    cohort: Ids
    deadline: Uint64
    reply_key: Annotated[bytes, Bounds(1216, 1216)]
    seen: tuple[SeenHead, ...]
    aborts: tuple[Vote, ...]
    signature: Bytes64

    @cached_property
    def h0(self) -> bytes:
        """Hash of the announcement's body; names the slot and every choice in it."""
        return digest(Label.H0, *self.to_value()[:-1])

    @cached_property
    def sites(self) -> tuple[bytes, ...]:
        """Site ids of the cohort."""
        return split(self.cohort)

    @property
    def slot(self) -> Slot:
        """(round, attempt)."""
        return (self.round, self.attempt)


@dataclass(frozen=True)
class Header(Record):
    """S1: what a site signs about its one upload in a slot.

    ``commits`` holds the commitment to b_i and then one per neighbour, in the order of
    ``neighbours``; ``blobs`` and ``roots`` follow the committee's order.
    """

    TAG: ClassVar[str] = "header"
    h0: Bytes32
    site: Bytes32
    body: Bytes32
    neighbours: Ids
    commits: Ids
    blobs: Ids
    roots: Ids
    previous: Bytes32
    ledger_head: Bytes32
    signature: Bytes64

    @cached_property
    def digest(self) -> bytes:
        """Hash of the header's body, without the signature."""
        return digest(Label.HEADER_HASH, *self.to_value()[:-1])

    def head(self) -> SeenHead:
        """The compact form that later announcements carry."""
        return SeenHead(self.site, self.digest, self.ledger_head, self.signature)


@dataclass(frozen=True)
class Upload(Record):
    """S1: header and blobs; the packed vector travels beside them, named by ``header.body``."""

    TAG: ClassVar[str] = "upload"
    header: Header
    blobs: tuple[bytes, ...]


@dataclass(frozen=True)
class Ask(Record):
    """S2 and S3, coordinator to one member: the headers of U and the blobs addressed to it.

    Without votes it asks for a vote; with a certificate of votes (or in complete mode) for a release.
    """

    TAG: ClassVar[str] = "ask"
    announcement: Announcement
    headers: tuple[Header, ...]
    blobs: tuple[bytes, ...]
    votes: tuple[Vote, ...]


@dataclass(frozen=True)
class Release(Record):
    """S3: a member's shares for one U, sealed to the coordinator's key of the slot.

    The Merkle proofs travel as a second sealed part that is opened only where a share is wrong;
    the signature covers the hashes of both plaintexts, so that a lie is evidence.
    """

    TAG: ClassVar[str] = "release"
    h0: Bytes32
    survivors: Bytes32
    member: Bytes32
    shares_hash: Bytes32
    proofs_hash: Bytes32
    sealed_shares: bytes
    sealed_proofs: bytes
    signature: Bytes64

    def binding(self) -> tuple[object, ...]:
        """What the signature covers."""
        return (self.h0, self.survivors, self.member, self.shares_hash, self.proofs_hash)


def release_part(plain: bytes, name: str) -> bytes:
    """Hash of one plaintext part of a release, ``shares`` or ``proofs``, as the member signs it."""
    return content_digest(Label.RELEASE_PART, plain, name)


def survivors_hash(h0: bytes, headers: Iterable[Header]) -> bytes:
    """H(U): binds each survivor's id to the body of its header, in id order."""
    ordered = sorted(headers, key=lambda header: header.site)
    return digest(Label.SURVIVORS, h0, *(part for header in ordered for part in (header.site, header.digest)))


def body_prefix(h0: bytes, site: bytes, size: int) -> bytes:
    """What precedes the packed vector in the hash that the header carries as ``body``."""
    return context(Label.BODY, h0, site, size)
