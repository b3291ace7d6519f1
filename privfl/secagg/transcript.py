"""The public transcript of one opened slot, verified by anyone without a secret.

It proves who took part, under which roster, epoch and announcement, which U was opened by which
quorum, and that the commitments inside U agree. It does not prove the sum itself: the sum is bound by
a salted commitment whose salt is given only together with the sum.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import numpy.typing as npt
from privfl_keys import Label, SignedRoster, SigningKey, VerifyKey, content_digest, digest

from privfl.codec import Bytes32, Bytes64, Record
from privfl.errors import Malformed, PrivflError, Unverified
from privfl.secagg.epoch import verify_confirmations
from privfl.secagg.messages import Advert, Announcement, Confirmations, EpochRecord, Header, Release, Vote, split
from privfl.secagg.messages import survivors_hash as hash_of_survivors
from privfl.secagg.reconstruct import Blame, Layout
from privfl.secagg.record import check_record, potential_neighbours
from privfl.secagg.slot import Topology, check_announcement, check_certificate, check_headers, check_vote

__all__ = ["OpenedSum", "ReleaseStub", "Transcript", "Verified", "seal_sum", "verify_transcript"]


@dataclass(frozen=True)
class ReleaseStub(Record):
    """What a member signed about its release, without the release."""

    TAG: ClassVar[str] = "release stub"
    member: Bytes32
    shares_hash: Bytes32
    proofs_hash: Bytes32
    signature: Bytes64

    @staticmethod
    def of(message: Release) -> ReleaseStub:
        """The stub of a release."""
        return ReleaseStub(message.member, message.shares_hash, message.proofs_hash, message.signature)


@dataclass(frozen=True)
class OpenedSum(Record):
    """The sum with what opens its commitment; given to whoever may see the result, not published."""

    TAG: ClassVar[str] = "opened sum"
    salt: Bytes32
    values: bytes  # int64, little-endian

    def array(self) -> npt.NDArray[np.int64]:
        """The sum, int64; raises Malformed if the bytes are not whole integers."""
        if len(self.values) % 8:
            raise Malformed("an opened sum does not hold whole 64-bit integers; fetch it again")
        return np.frombuffer(self.values, "<i8").astype(np.int64)

    def commitment(self, h0: bytes, survivors: bytes) -> bytes:
        """The salted commitment that the transcript carries."""
        return digest(Label.SUM, h0, survivors, self.salt, content_digest(Label.SUM_VALUES, self.values))

    def __repr__(self) -> str:
        return f"OpenedSum({len(self.values) // 8} values)"


def seal_sum(values: npt.NDArray[np.int64], salt: bytes) -> OpenedSum:
    """Pair a sum with a fresh 32-byte salt."""
    return OpenedSum(salt, values.astype("<i8", copy=False).tobytes())


@dataclass(frozen=True)
class Transcript(Record):
    """See the module's docstring; ``signature`` is the coordinator's, over everything else."""

    TAG: ClassVar[str] = "transcript"
    signed_roster: SignedRoster
    record: EpochRecord
    confirmations: tuple[Confirmations, ...]
    announcement: Announcement
    headers: tuple[Header, ...]
    votes: tuple[Vote, ...]
    releases: tuple[ReleaseStub, ...]
    seeds: bytes
    sum_commitment: Bytes32
    blames: tuple[Blame, ...]
    evidence: tuple[tuple[bytes, bytes], ...]
    signature: Bytes64

    @property
    def survivors(self) -> bytes:
        """H(U)."""
        return hash_of_survivors(self.announcement.h0, self.headers)

    def body_digest(self) -> bytes:
        """What the coordinator signs."""
        return digest(Label.TRANSCRIPT, *self.to_value()[:-1])

    def signed(self, key: SigningKey) -> Transcript:
        """The transcript with the coordinator's signature."""
        return replace(self, signature=key.sign(Label.TRANSCRIPT, self.body_digest()))


@dataclass(frozen=True)
class Verified:
    """What a verified transcript proves, for people to read.

    ``blamed`` alone is not proven: it is whom the coordinator says it can convict, and it must show how.
    """

    federation: str
    epoch: int
    round: int
    attempt: int
    cohort: tuple[str, ...]
    survivors: tuple[str, ...]
    dropped: tuple[str, ...]
    complete: bool
    quorum: int
    votes: int
    releases: int
    blamed: tuple[str, ...]


def verify_transcript(transcript: Transcript, authority: VerifyKey, opened: OpenedSum | None = None) -> Verified:
    """Check everything that can be checked without a secret.

    Args:
        authority: the federation's root key, known from the key ceremony, never from the file.
        opened: the sum, where the verifier was given it.

    Raises:
        Unverified: some part does not verify; the message says which.
    """
    t = transcript
    try:
        return _verify(t, authority, opened)
    except Unverified:
        raise
    except PrivflError as error:
        raise Unverified(f"the transcript breaks a rule of the protocol: {error}") from error


def _verify(t: Transcript, authority: VerifyKey, opened: OpenedSum | None) -> Verified:
    roster = t.signed_roster.verify(authority)
    if t.record.scope.roster != roster.hash or t.record.scope.federation != roster.federation:
        raise Unverified("the epoch record is not of this roster")
    a = t.announcement
    roster.require(a.coordinator, "coordinator").verify(t.signature, Label.TRANSCRIPT, t.body_digest())

    def check_advert(advert: Advert) -> None:
        if advert.scope != t.record.scope:
            raise Unverified("the epoch record holds an advert of another epoch")
        roster.require(advert.site, "site").verify(advert.signature, Label.ADVERT, advert.digest)

    check_record(roster, t.record, t.record.scope, check_advert)
    _check_confirmations(t)
    topology = check_announcement(roster, t.record, a)
    check_headers(topology, a, t.headers)
    _check_votes(t)
    _check_releases(t, topology)
    _check_blames(t)
    if opened is not None and opened.commitment(a.h0, t.survivors) != t.sum_commitment:
        raise Unverified("this sum is not the one that the transcript commits to")
    names = {member.site_id: member.name for member in roster.members}
    inside = {header.site for header in t.headers}
    return Verified(
        roster.federation,
        a.scope.epoch,
        a.round,
        a.attempt,
        tuple(names[site] for site in a.sites),
        tuple(names[site] for site in a.sites if site in inside),
        tuple(names[site] for site in a.sites if site not in inside),
        a.complete,
        a.threshold,
        sum(vote.choice == t.survivors for vote in t.votes),
        len(t.releases),
        tuple(names.get(site, site.hex()[:8]) for blame in t.blames for site in blame.sites),
    )


def _check_confirmations(t: Transcript) -> None:
    roster, listed = t.signed_roster.roster, dict[bytes, frozenset[bytes]]()
    _check_order([message.site for message in t.confirmations], "confirmations")
    for message in t.confirmations:
        verify_confirmations(roster.require(message.site, "site"), t.record.scope, message)
        listed[message.site] = frozenset(split(message.peers))
    if set(listed) != set(t.record.sites):
        raise Unverified("the confirmations are not exactly those of the sites in the epoch record")
    for site, peers in listed.items():
        near = potential_neighbours(roster, t.record.scope, site) & listed.keys()
        unconfirmed = any(other not in peers or site not in listed[other] for other in near)
        if unconfirmed and not t.record.degree:
            raise Unverified("two sites of the epoch record have not confirmed their pair key")


def _check_order(signers: list[bytes], what: str) -> None:
    if signers != sorted(set(signers)):
        raise Unverified(f"the {what} are not sorted by who signed them, or someone's appear twice")


def _check_votes(t: Transcript) -> None:
    """Every vote shown is one of this slot, one per member; in voted mode t of them are for U."""
    roster, choice, a = t.signed_roster.roster, t.survivors, t.announcement
    _check_order([vote.member for vote in t.votes], "votes")
    for vote in t.votes:
        check_vote(roster, t.record, vote)
        if (vote.round, vote.attempt, vote.h0) != (*a.slot, a.h0):
            raise Unverified("a vote of another slot is listed")
    if not a.complete:
        check_certificate(roster, t.record, a, choice, [vote for vote in t.votes if vote.choice == choice])


def _check_releases(t: Transcript, topology: Topology) -> None:
    roster, choice, h0 = t.signed_roster.roster, t.survivors, t.announcement.h0
    members = [stub.member for stub in t.releases]
    _check_order(members, "releases")
    if not set(members) <= set(t.record.members):
        raise Unverified("a release is listed that is not of a committee member")
    if len(members) < t.announcement.threshold:
        raise Unverified(f"{len(members)} releases cannot open what needs {t.announcement.threshold}")
    for stub in t.releases:
        key = roster.require(stub.member, "site")
        key.verify(stub.signature, Label.RELEASE, h0, choice, stub.member, stub.shares_hash, stub.proofs_hash)
    if len(t.seeds) != 32 * Layout(topology, t.announcement, t.headers).total:
        raise Malformed("the list of seed hashes has the wrong length")


def _check_blames(t: Transcript) -> None:
    """A blame names sites of the roster in a known way; its evidence may hold opened shares and is never published."""
    for blame in t.blames:
        if blame.kind not in ("member", "dealer", "pair") or not blame.sites or blame.evidence:
            raise Unverified("a blame is of no known kind, names nobody, or publishes its evidence")
        for site in blame.sites:
            t.signed_roster.roster.require(site, "site")


def read_transcript(data: bytes) -> Transcript:
    """Decode a transcript file; raises Malformed for anything else."""
    return Transcript.decode(data)


def stubs(releases: Sequence[Release]) -> tuple[ReleaseStub, ...]:
    """Stubs of releases, by member id."""
    return tuple(sorted((ReleaseStub.of(message) for message in releases), key=lambda stub: stub.member))
