"""The coordinator's slot: announce, collect, fix U, gather votes and releases, open one sum.

It is trusted with no key but the one that releases are sealed to, and holds O(m) memory: bodies,
blobs and releases lie in the caller's store and are read again, verified, when they are needed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import ClassVar

from privfl_keys import SEAL_OVERHEAD, Label, SealingKey

from privfl.codec import Record
from privfl.entropy import Entropy
from privfl.errors import Misuse, Refused, RoundAborted, Unverified
from privfl.secagg.committee import SHARE_BYTES
from privfl.secagg.messages import (
    ABORT,
    Announcement,
    Ask,
    EpochRecord,
    Header,
    Release,
    SeenHead,
    Upload,
    Vote,
    join,
)
from privfl.secagg.party import Equivocation, Party, SecretRecord
from privfl.secagg.reconstruct import Blame, Layout, OpenedRelease, TooFewShares, UnmaskKeys, open_release, reconstruct
from privfl.secagg.record import merge_disputes
from privfl.secagg.site import blob_hash
from privfl.secagg.slot import Topology, check_announcement, check_vote, complete_threshold, disputes, verify_header
from privfl.secagg.transcript import ReleaseStub
from privfl.secagg.transitions import COORDINATOR_SLOT, advance

__all__ = ["CoordinatorState", "SlotPlan", "announce", "ask", "close", "fresh_coordinator_state", "open_sum", "receive"]


@dataclass(frozen=True)
class SlotPlan:
    """What the coordinator wants to have summed; sites hold it against their own policies.

    Attributes:
        task, inputs, policy: 32-byte hashes. bits, word, length: the ring and shape of the vector.
        cohort: site ids. complete: open the whole cohort or nothing. min_survivors: ignored if complete.
        deadline: milliseconds since 1970.
    """

    task: bytes
    inputs: bytes
    policy: bytes
    bits: int
    word: int
    length: int
    cohort: Sequence[bytes]
    complete: bool
    min_survivors: int
    deadline: int


@dataclass(frozen=True)
class ReleaseNote(Record):
    """A release that lies in the store."""

    TAG: ClassVar[str] = "release note"
    member: bytes
    digest: bytes


@dataclass(frozen=True, repr=False)
class CoordinatorState(SecretRecord):
    """Everything the coordinator must not lose within a slot, and what it carries to the next."""

    TAG: ClassVar[str] = "coordinator state"
    stage: str
    seq: int
    announcement: Announcement | None
    reply_secret: bytes
    headers: tuple[Header, ...]  # sorted by site
    survivors: bytes  # ids of U, concatenated; empty until U is fixed
    votes: tuple[Vote, ...]
    releases: tuple[ReleaseNote, ...]
    blames: tuple[Blame, ...]
    evidence: tuple[tuple[bytes, bytes], ...]  # pairs of conflicting signed messages
    heads: tuple[SeenHead, ...]

    def current(self) -> Announcement:
        """The slot in hand; raises Misuse if there is none."""
        if self.announcement is None:
            raise Misuse("no slot is announced; announce one first")
        return self.announcement

    def header_of(self, site: bytes) -> Header | None:
        """The header received from ``site`` in this slot."""
        return next((header for header in self.headers if header.site == site), None)

    def inside(self) -> tuple[Header, ...]:
        """Headers of U, sorted by site."""
        chosen = _ids(self.survivors)
        return tuple(header for header in self.headers if header.site in chosen)

    @property
    def certified(self) -> bool:
        """Whether t members voted for U, so that releases can be asked for."""
        return self.stage == "releasing"


def _ids(joined: bytes) -> frozenset[bytes]:
    return frozenset(joined[at : at + 32] for at in range(0, len(joined), 32))


def fresh_coordinator_state() -> CoordinatorState:
    """The state of a coordinator that has never announced."""
    return CoordinatorState("idle", 0, None, b"", (), b"", (), (), (), (), ())


def next_seq(record: EpochRecord, state: CoordinatorState) -> int:
    """The sequence number of the next slot: rising within an epoch, from 1."""
    last = state.announcement
    return state.seq + 1 if last is not None and last.record == record.digest else 1


def announce(
    party: Party, record: EpochRecord, state: CoordinatorState, plan: SlotPlan, slot: tuple[int, int], entropy: Entropy
) -> tuple[CoordinatorState, Announcement]:
    """S0: sign an announcement for ``slot`` with a fresh key for the releases.

    A retry after an abort carries the ABORT votes that were gathered. Make the state durable first.

    Raises:
        Refused: the plan breaks a rule that every site would refuse it for, or a slot is still open.
    """
    stage = advance(COORDINATOR_SLOT, state.stage, "announce")
    seq, reply = next_seq(record, state), SealingKey.generate(entropy)
    cohort = tuple(sorted(plan.cohort))
    aborts = tuple(vote for vote in state.votes if vote.choice == ABORT) if state.stage == "aborted" else ()
    heads = {head.site: head for head in state.heads}
    body = Announcement(
        record.scope,
        record.digest,
        party.id,
        *slot,
        seq,
        entropy.draw(32),
        plan.policy,
        plan.task,
        plan.inputs,
        plan.bits,
        plan.word,
        plan.length,
        plan.complete,
        complete_threshold(record.committee_corrupt) if plan.complete else record.threshold,
        len(cohort) if plan.complete else plan.min_survivors,
        join(cohort),
        plan.deadline,
        reply.public.raw,
        tuple(heads[site] for site in cohort if site in heads),
        aborts,
        bytes(64),
    )
    signed = replace(body, signature=party.key.sign(Label.ANNOUNCEMENT, body.h0))
    check_announcement(party.roster, record, signed)
    fresh = fresh_coordinator_state()
    started = replace(
        fresh,
        stage=stage,
        seq=seq,
        announcement=signed,
        reply_secret=reply.secret_bytes(),
        evidence=state.evidence,
        heads=state.heads,
    )
    return started, signed


def receive(topology: Topology, state: CoordinatorState, message: Upload) -> tuple[CoordinatorState, bool]:
    """S1: take in a header and its blobs; returns the next state and whether the message is new.

    The caller then verifies the body against the header (:class:`~privfl.secagg.accumulate.Accumulator`
    does) before it makes the state durable.

    Raises:
        Equivocation: a second, different header of one site in this slot; the first stands.
        Unverified, Refused: the header or a blob is not sound, or U is already fixed.
    """
    a, header = state.current(), message.header
    verify_header(topology, a, header)
    most = SEAL_OVERHEAD + 32 + len(header.commits) // 32 * SHARE_BYTES
    if any(len(blob) > most for blob in message.blobs):
        raise Unverified(f"site {header.site.hex()[:8]} sent a blob that is longer than its shares; it is not carried")
    if join(blob_hash(blob) for blob in message.blobs) != header.blobs:
        raise Unverified(f"site {header.site.hex()[:8]} sent blobs that are not those of its header")
    known = state.header_of(header.site)
    if known is not None:
        if known.digest != header.digest:
            raise Equivocation(f"site {header.site.hex()[:8]} uploaded twice with different bytes", known, header)
        return state, False
    stage = advance(COORDINATOR_SLOT, state.stage, "upload")
    headers = tuple(sorted((*state.headers, header), key=lambda one: one.site))
    heads = (*(head for head in state.heads if head.site != header.site), header.head())
    return replace(state, stage=stage, headers=headers, heads=heads), True


def close(topology: Topology, state: CoordinatorState) -> tuple[CoordinatorState, tuple[bytes, ...]]:
    """Fix U: everyone who uploaded, less disputed pairs, pruned to the largest admissible set.

    Returns the next state and the sites that uploaded but fall out of U (subtract their bodies).

    Raises:
        RoundAborted: no admissible U exists; the slot is not opened.
    """
    a = state.current()
    arrived = [header.site for header in state.headers]
    differing = disputes(state.headers)
    dropped = merge_disputes(differing, topology.record.corrupt)
    blames = tuple(
        Blame("pair", pair, "their commitments to the common seed differ", _pair_evidence(state, pair))
        for pair in differing
    )
    try:
        survivors = topology.prune([site for site in arrived if site not in dropped], a.min_survivors)
        if a.complete and survivors != a.sites:
            raise Refused("complete mode needs every site of the cohort")
    except Refused as error:
        raise RoundAborted(
            f"{len(arrived)} of {len(a.sites)} sites uploaded, {len(dropped)} in dispute: {error}"
        ) from None
    stage = advance(COORDINATOR_SLOT, state.stage, "close complete" if a.complete else "close")
    out = tuple(site for site in arrived if site not in survivors)
    return replace(state, stage=stage, survivors=join(survivors), blames=(*state.blames, *blames)), out


def _pair_evidence(state: CoordinatorState, pair: tuple[bytes, bytes]) -> tuple[bytes, ...]:
    return tuple(header.encode() for header in state.headers if header.site in pair)


def abandon(state: CoordinatorState) -> CoordinatorState:
    """Give the slot up; ABORT votes may still be gathered for a retry."""
    return replace(state, stage=advance(COORDINATOR_SLOT, state.stage, "abort"), reply_secret=b"")


class Opening:
    """What opens one U, kept between messages: nothing that state and store do not give again, and never stored."""

    def __init__(self, topology: Topology, state: CoordinatorState) -> None:
        self.layout = layout_of(topology, state)
        self.opened: dict[bytes, OpenedRelease] = {}  # by the digest of the release; the first t only
        self._state = state

    @cached_property
    def key(self) -> SealingKey:
        """See :func:`reply_key`; loading it costs as much as opening three releases."""
        return reply_key(self._state)

    def open(self, message: Release, digest: bytes) -> OpenedRelease:
        """Verify and open a release, once; raises Theirs if it is not for this U."""
        known = self.opened.get(digest)
        if known is None:
            known = open_release(self.layout, self.layout.choice, self.key, message)
            if len(self.opened) < self.layout.announcement.threshold:
                self.opened[digest] = known
        return known


def ask(opening: Opening, state: CoordinatorState, member: bytes, blob_of: Callable[[Header], bytes]) -> Ask:
    """S2/S3: the request to one member; ``blob_of(header)`` reads the blob that its site dealt to this member."""
    layout = opening.layout
    votes = tuple(vote for vote in state.votes if vote.choice == layout.choice) if state.certified else ()
    if member not in layout.topology.record.members:
        raise Misuse("only committee members are asked for votes and shares")
    return Ask(state.current(), layout.headers, tuple(blob_of(header) for header in layout.headers), votes)


def receive_vote(topology: Topology, state: CoordinatorState, vote: Vote, choice: bytes) -> CoordinatorState:
    """Count a vote; at t votes for U, whose H(U) is ``choice``, the slot is certified.

    Raises:
        Equivocation: a second, different vote of one member.
        Unverified, Refused: not a committee member's vote in this slot.
    """
    a = state.current()
    check_vote(topology.roster, topology.record, vote)
    if (vote.round, vote.attempt, vote.h0) != (*a.slot, a.h0):
        raise Unverified("a vote for another slot or another announcement")
    for known in state.votes:
        if known.member == vote.member:
            if known.encode() != vote.encode():
                raise Equivocation(f"member {vote.member.hex()[:8]} voted twice in one slot", known, vote)
            return state
    stage = advance(COORDINATOR_SLOT, state.stage, "vote")
    votes = (*state.votes, vote)
    if stage == "voting" and sum(known.choice == choice for known in votes) >= a.threshold:
        stage = advance(COORDINATOR_SLOT, stage, "certify")
    return replace(state, stage=stage, votes=votes)


def receive_release(
    opening: Opening, state: CoordinatorState, message: Release, encoded: bytes
) -> tuple[CoordinatorState, bool]:
    """Note a release, which the caller stores as ``encoded`` if it is new; raises Theirs if it does not open for U."""
    stage = advance(COORDINATOR_SLOT, state.stage, "release")
    if any(note.member == message.member for note in state.releases):
        return state, False
    digest = hashlib.sha256(encoded).digest()
    opening.open(message, digest)
    return replace(state, stage=stage, releases=(*state.releases, ReleaseNote(message.member, digest))), True


def layout_of(topology: Topology, state: CoordinatorState) -> Layout:
    """Where which secret stands in the releases of this U."""
    return Layout(topology, state.current(), state.inside())


def reply_key(state: CoordinatorState) -> SealingKey:
    """The slot's key that releases are sealed to; raises Refused once it is erased."""
    if not state.reply_secret:
        raise Refused("the key of this slot is erased; it cannot be opened any more")
    return SealingKey.from_secret_bytes(state.reply_secret)


def open_sum(
    opening: Opening, state: CoordinatorState, stored: Callable[[ReleaseNote], bytes]
) -> tuple[CoordinatorState, UnmaskKeys, tuple[ReleaseStub, ...]]:
    """S4: reconstruct the seeds of U; returns the mask keys that the accumulator needs, and what members signed.

    Args:
        stored: reads a release again, as it was stored.

    Raises:
        TooFewShares: with the blames; ask further members and call again.
        Unverified: the store returned another release than the one it was given.
    """
    stage, layout = advance(COORDINATOR_SLOT, state.stage, "finish"), opening.layout
    notes = {note.member: note for note in state.releases}

    def read(member: bytes) -> Release:
        note = notes[member]
        encoded = stored(note)
        if hashlib.sha256(encoded).digest() != note.digest:
            raise Unverified("the store returned another release than the one received")
        return Release.decode(encoded)

    stubs, opened = [], []
    for at, note in enumerate(state.releases):
        message = read(note.member)
        stubs.append(ReleaseStub.of(message))
        if at < layout.announcement.threshold:
            opened.append(opening.open(message, note.digest))
    try:
        keys = reconstruct(layout, opened, opening.key, read)
    except TooFewShares:
        if len(opened) == len(state.releases):
            raise
        opened += [opening.open(read(note.member), note.digest) for note in state.releases[len(opened) :]]
        keys = reconstruct(layout, opened, opening.key, read)
    done = replace(state, stage=stage, reply_secret=b"", blames=(*state.blames, *keys.blames))
    return done, keys, tuple(sorted(stubs, key=lambda stub: stub.member))
