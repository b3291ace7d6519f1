"""One committee member: a single vote per slot, and shares for the one certified survivor set.

A member keeps no dealt share between messages: each request carries the headers and the blobs
addressed to it, so that a stolen store holds votes and sealed releases, nothing to open.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, NamedTuple

import numpy as np
import numpy.typing as npt
from privfl_keys import Label, SealingPublicKey

from privfl.codec import encode
from privfl.errors import Refused, Theirs, Unverified
from privfl.secagg import merkle, shamir
from privfl.secagg.epoch import EpochState
from privfl.secagg.messages import (
    ABORT,
    Announcement,
    Ask,
    Header,
    Release,
    Slot,
    Vote,
    join,
    release_part,
    survivors_hash,
)
from privfl.secagg.party import Party, Rules, SecretRecord
from privfl.secagg.site import blob_hash, blob_info
from privfl.secagg.slot import (
    Topology,
    check_abort_certificate,
    check_announcement,
    check_certificate,
    check_gap,
    check_headers,
    check_own_rules,
)
from privfl.secagg.transitions import MEMBER_SLOT, advance

__all__ = ["Ballot", "MemberState", "abort", "fresh_member_state", "pack_release", "release", "vote", "wanted"]

SHARE_BYTES = 4 * shamir.LIMBS
KEPT_RELEASES = 2
KEPT_BALLOTS = 1024


@dataclass(frozen=True, repr=False)
class Ballot(SecretRecord):
    """What a member did in one slot."""

    TAG: ClassVar[str] = "ballot"
    round: int
    attempt: int
    h0: bytes
    stage: str
    vote: bytes
    opened: bytes  # H(U) of the release
    release: bytes  # the sealed release itself, while it may be asked for again

    @property
    def slot(self) -> Slot:
        """(round, attempt)."""
        return (self.round, self.attempt)


@dataclass(frozen=True, repr=False)
class MemberState(SecretRecord):
    """Every ballot of the epoch, oldest first; ``floor`` is the last slot taken up in any way."""

    TAG: ClassVar[str] = "member state"
    round: int
    attempt: int
    ballots: tuple[Ballot, ...]

    def ballot(self, announcement: Announcement) -> Ballot:
        """The ballot of this slot, a blank one if there is none; raises Refused for a second H0."""
        for known in self.ballots:
            if known.slot == announcement.slot:
                if known.h0 != announcement.h0:
                    raise Refused("two announcements for one slot; this member acts on the first only")
                return known
        return Ballot(announcement.round, announcement.attempt, announcement.h0, "idle", b"", b"", b"")

    def with_ballot(self, ballot: Ballot) -> MemberState:
        """The state with ``ballot`` recorded; old sealed releases are forgotten."""
        others = [known for known in self.ballots if known.slot != ballot.slot]
        recent = [*others, ballot][-KEPT_BALLOTS:]
        ballots = [
            known if at >= len(recent) - KEPT_RELEASES else replace(known, release=b"")
            for at, known in enumerate(recent)
        ]
        floor = max((self.round, self.attempt), ballot.slot)
        return MemberState(*floor, tuple(ballots))


def fresh_member_state() -> MemberState:
    """The state of a member that has never voted."""
    return MemberState(0, 0, ())


def note_accepted(state: MemberState, slot: Slot) -> MemberState:
    """Raise the floor: a party that accepted an attempt as a site acts on no earlier slot as a member."""
    return replace(state, round=slot[0], attempt=slot[1]) if slot > (state.round, state.attempt) else state


def _take_up(
    party: Party, rules: Rules, epoch: EpochState, state: MemberState, a: Announcement, now: int
) -> tuple[Topology, Ballot, int]:
    """The checks that precede every act: announcement, own policy, deadline, floor. Returns x as well."""
    record = epoch.active()
    topology = check_announcement(party.roster, record, a)
    check_own_rules(a, rules, now)
    if party.id not in record.members:
        raise Refused("this site does not sit on the committee of this epoch")
    if rules.noiseless and a.attempt > 0:
        # an ABORT vote for an attempt that was never lawful would certify the next one: check the whole chain
        check_abort_certificate(party.roster, record, a)
    if a.slot < (state.round, state.attempt):
        raise Refused(f"slot {a.slot} lies before {(state.round, state.attempt)}, which this member has taken up")
    check_gap(a, (state.round, state.attempt))
    return topology, state.ballot(a), record.members.index(party.id) + 1


def vote(
    party: Party, rules: Rules, epoch: EpochState, state: MemberState, ask: Ask, *, now: int
) -> tuple[MemberState, Vote]:
    """S2: vote for the H(U) that the shown headers give, and list the dealers whose blob is bad.

    Make the returned state durable before sending the vote. Asked again for the same U, the member
    repeats its vote; asked for another U in the same slot, it refuses.

    Raises:
        Refused: policy, deadline, floor, an inadmissible U, or a second vote.
        Unverified: a header that is not sound.
    """
    a = ask.announcement
    party.roster.check_validity(now)
    topology, ballot, x = _take_up(party, rules, epoch, state, a, now)
    if a.complete:
        raise Refused("complete mode needs no vote: the survivors are the cohort")
    stage = advance(MEMBER_SLOT, ballot.stage, "vote")
    check_headers(topology, a, ask.headers)
    choice = survivors_hash(a.h0, ask.headers)
    if ballot.vote:
        return state, _repeat(ballot, choice)
    opened = open_blobs(party, epoch, topology, a, ask, x)
    complaints = [header.site for header, dealt in zip(ask.headers, opened, strict=True) if dealt is None]
    signed = _sign_vote(party, topology, a, choice, complaints)
    return state.with_ballot(replace(ballot, stage=stage, vote=signed.encode())), signed


def abort(
    party: Party, rules: Rules, epoch: EpochState, state: MemberState, announcement: Announcement
) -> tuple[MemberState, Vote]:
    """S2: vote that nothing shall be opened in this slot; allowed after the deadline, since it opens nothing.

    Raises:
        Refused: the member has voted for a survivor set, or has released.
    """
    a = announcement
    topology, ballot, _ = _take_up(party, rules, epoch, state, a, now=a.deadline)
    stage = advance(MEMBER_SLOT, ballot.stage, "abort")
    if ballot.vote:
        return state, _repeat(ballot, ABORT)
    signed = _sign_vote(party, topology, a, ABORT, ())
    return state.with_ballot(replace(ballot, stage=stage, vote=signed.encode())), signed


def _repeat(ballot: Ballot, choice: bytes) -> Vote:
    cast = Vote.decode(ballot.vote)
    if cast.choice != choice:
        raise Refused("this member has already voted otherwise in this slot; it votes once")
    return cast


def _sign_vote(party: Party, topology: Topology, a: Announcement, choice: bytes, complaints: Sequence[bytes]) -> Vote:
    body = Vote(topology.record.scope, a.round, a.attempt, a.h0, party.id, choice, join(complaints), bytes(64))
    return replace(body, signature=party.key.sign(Label.VOTE, *body.binding()))


class Dealt(NamedTuple):
    """One opened blob: its salt and this member's shares, uint32 of shape (K, 9)."""

    salt: bytes
    shares: npt.NDArray[np.uint32]

    def __repr__(self) -> str:
        return "Dealt(<redacted>)"


def open_blobs(
    party: Party, epoch: EpochState, topology: Topology, a: Announcement, ask: Ask, x: int
) -> list[Dealt | None]:
    """Open each dealer's blob and hold it against the root in the header; None where that fails."""
    if len(ask.blobs) != len(ask.headers):
        raise Unverified("the request does not carry one blob per header")
    key = epoch.sealing_key()
    advert = epoch.advert
    own = advert.digest if advert else b""
    out: list[Dealt | None] = []
    for header, blob in zip(ask.headers, ask.blobs, strict=True):
        count = len(header.commits) // 32
        try:
            if blob_hash(blob) != header.blobs[32 * (x - 1) : 32 * x]:
                raise Refused(
                    f"the blob of dealer {header.site.hex()[:8]} is not the one its header names; send the right bytes"
                )
            plain = key.open(blob, Label.BLOB, *blob_info(a.h0, header.site, party.id, x, own))
            out.append(_read_blob(plain, count, header, party.id, x))
        except Theirs:
            out.append(None)
    return out


def _read_blob(plain: bytes, count: int, header: Header, member: bytes, x: int) -> Dealt:
    if len(plain) != 32 + count * SHARE_BYTES:
        raise Unverified("a blob of the wrong size")
    shares = np.frombuffer(plain, "<u4", offset=32).reshape(count, shamir.LIMBS).astype(np.uint32, copy=False)
    leaves = merkle.leaves(merkle.leaf_key(header.h0, header.site, member, plain[:32]), shares)
    if merkle.root(leaves) != header.roots[32 * (x - 1) : 32 * x]:
        raise Unverified("a blob that does not open to its root")
    return Dealt(plain[:32], shares)


def wanted(topology: Topology, survivors: Sequence[bytes]) -> list[npt.NDArray[np.intp]]:
    """Per survivor, sorted, the indices of its dealt secrets that are released: b_u, and s_uj for each dropped j.

    Never both seeds that protect one site: b_u for u in U, and pair seeds only towards sites outside U,
    from the survivor's own dealing.
    """
    inside = frozenset(survivors)
    out = []
    for site in survivors:
        gone = [at for at, peer in enumerate(topology.neighbours(site), start=1) if peer not in inside]
        out.append(np.array([0, *gone], dtype=np.intp))
    return out


def release(
    party: Party, rules: Rules, epoch: EpochState, state: MemberState, ask: Ask, *, now: int
) -> tuple[MemberState, Release]:
    """S3: release this member's shares for the certified U, even if it voted otherwise.

    Make the returned state durable before sending; asked again for the same U it repeats the bytes.

    Raises:
        Refused: policy, deadline, floor, an inadmissible U, or another U than the one released for.
        Unverified: the certificate or a header is not sound.
    """
    a = ask.announcement
    party.roster.check_validity(now)
    topology, ballot, x = _take_up(party, rules, epoch, state, a, now)
    stage = advance(MEMBER_SLOT, ballot.stage, "release")
    check_headers(topology, a, ask.headers)
    choice = survivors_hash(a.h0, ask.headers)
    if a.complete and ballot.vote:
        raise Refused("this member has voted to abort this slot; it releases nothing for it")
    if not a.complete:
        check_certificate(party.roster, topology.record, a, choice, ask.votes)
    if ballot.opened:
        if ballot.opened != choice or not ballot.release:
            raise Refused("this member has already released for this slot")
        return state, Release.decode(ballot.release)
    opened = open_blobs(party, epoch, topology, a, ask, x)
    shares, proofs = pack_release(topology, a, ask.headers, opened, party.id)
    message = _seal_release(party, a, choice, shares, proofs)
    done = replace(ballot, stage=stage, opened=choice, release=message.encode())
    return state.with_ballot(done), message


def pack_release(
    topology: Topology, a: Announcement, headers: Sequence[Header], opened: Sequence[Dealt | None], member: bytes
) -> tuple[bytes, bytes]:
    """Lay out a release: one presence byte per survivor, the salts, the shares; and apart, the Merkle proofs.

    The layout follows from the epoch record and U alone, so the coordinator reads it without parsing.
    """
    indices = wanted(topology, [header.site for header in headers])
    present = bytes(dealt is not None for dealt in opened)
    salts = b"".join(dealt.salt if dealt else bytes(32) for dealt in opened)
    pieces, proofs = [], []
    for header, dealt, rows in zip(headers, opened, indices, strict=True):
        if dealt is None:
            pieces.append(bytes(len(rows) * SHARE_BYTES))
            proofs.append(b"")
            continue
        pieces.append(dealt.shares[rows].astype("<u4", copy=False).tobytes())
        leaves = merkle.leaves(merkle.leaf_key(a.h0, header.site, member, dealt.salt), dealt.shares)
        proofs.append(join(merkle.multiproof(leaves, [int(row) for row in rows])))
    return present + salts + b"".join(pieces), encode(tuple(proofs))


def _seal_release(party: Party, a: Announcement, choice: bytes, shares: bytes, proofs: bytes) -> Release:
    key = SealingPublicKey(a.reply_key)
    info = (a.h0, choice, party.id)
    body = Release(
        a.h0,
        choice,
        party.id,
        release_part(shares, "shares"),
        release_part(proofs, "proofs"),
        key.seal(shares, Label.RELEASE_SEAL, *info, "shares"),
        key.seal(proofs, Label.RELEASE_SEAL, *info, "proofs"),
        bytes(64),
    )
    return replace(body, signature=party.key.sign(Label.RELEASE, *body.binding()))
