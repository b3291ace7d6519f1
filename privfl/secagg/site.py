"""One site in a slot: accept an announcement, upload one masked vector, once.

``accept`` moves the ratchet and records used(H0); only when that state is durable may the site
compute its vector and call ``upload``. What ``upload`` returns is durable before a byte of it leaves.
A site that restarts between the two stays silent in that slot.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, NamedTuple

import numpy as np
import numpy.typing as npt
from privfl_keys import Label, SealingPublicKey, VerifyKey, content_digest, derive, digest

from privfl.entropy import Entropy
from privfl.errors import Misuse, Refused, Unverified
from privfl.ring import pack, to_words
from privfl.secagg import merkle, shamir
from privfl.secagg.epoch import MAX_AGE_MS, MAX_ROUNDS, EpochState, ratchet
from privfl.secagg.masks import apply_masks
from privfl.secagg.messages import Announcement, Header, SeenHead, Upload, body_prefix, join, split
from privfl.secagg.party import Party, RolledBack, Rules, SecretRecord
from privfl.secagg.slot import (
    Topology,
    check_abort_certificate,
    check_announcement,
    check_gap,
    check_own_rules,
    commitment,
    mask_key,
    ring_of,
)
from privfl.secagg.transitions import SITE_SLOT, advance

__all__ = [
    "Outgoing",
    "SlotEntropy",
    "SlotState",
    "accept",
    "acknowledge",
    "check_resend",
    "fresh_slot_state",
    "restart",
    "upload",
]

KEPT_HEADS = 1024
GENESIS = bytes(32)


@dataclass(frozen=True, repr=False)
class SlotState(SecretRecord):
    """What a site must remember between slots, across epochs.

    ``round``/``attempt`` are the last accepted slot and ``h0`` its only H0: together they are used(H0),
    because slots only ever rise. ``heads`` are the digests of this site's own headers, newest last.
    """

    TAG: ClassVar[str] = "slot state"
    stage: str
    round: int
    attempt: int
    seq: int
    h0: bytes
    ledger_head: bytes
    outbox: bytes  # hash of the Upload that may be resent; empty if there is none
    heads: bytes
    rounds: int  # accepted in this epoch
    answered: bytes  # hashes of questions, in a policy without noise
    retry: bytes = b""  # what a certified retry of this round may repeat, see _repeatable
    censored: bytes = b""  # H0 of slots where it uploaded and was shown a survivor set without it


class Outgoing(NamedTuple):
    """What leaves after ``upload``: the message, and the packed vector that its header names."""

    message: Upload
    body: bytes


def fresh_slot_state() -> SlotState:
    """The state of a site that has never taken part."""
    return SlotState("idle", 0, 0, 0, b"", GENESIS, b"", b"", 0, b"")


def accept(
    party: Party,
    rules: Rules,
    epoch: EpochState,
    state: SlotState,
    announcement: Announcement,
    *,
    now: int,
    ledger_head: bytes,
) -> tuple[EpochState, SlotState]:
    """S0: check an announcement against roster, own rules and own history; record used(H0).

    The caller has already reserved the budget: ``ledger_head`` is its 32-byte proof. Make both
    returned states durable in one transaction before computing anything.

    Raises:
        Refused: a rule of protocol or policy forbids it; nothing changed.
        Unverified: not signed by a coordinator of the roster.
        RolledBack: the coordinator shows a header of this site that its store does not know.
    """
    a, record = announcement, epoch.active()
    party.roster.check_validity(now)
    topology = check_announcement(party.roster, record, a)
    check_own_rules(a, rules, now)
    stage = advance(SITE_SLOT, state.stage, "accept")
    _check_own_head(party.key.verify_key, state, a)
    _check_progress(epoch, state, a, now)
    if party.id not in a.sites:
        raise Refused("this site is not in the announced cohort")
    _usable_keys(epoch, topology, party.id)
    if rules.noiseless:
        _check_noiseless(party, rules, state, a, topology)
    moved = ratchet(epoch, a.seq)
    used = replace(
        state,
        stage=stage,
        round=a.round,
        attempt=a.attempt,
        seq=a.seq,
        h0=a.h0,
        ledger_head=ledger_head,
        outbox=b"",
        rounds=state.rounds + (a.round != state.round),
        answered=_with_question(state.answered, a) if rules.noiseless else state.answered,
        retry=_repeatable(a),
    )
    return moved, used


def _check_own_head(key: VerifyKey, state: SlotState, a: Announcement) -> None:
    for head in a.seen:
        if head.site != key.site_id:
            continue
        key.verify(head.signature, Label.HEADER, head.header, head.ledger_head)
        if head.header not in split(state.heads):
            raise RolledBack(
                "the coordinator shows a header signed by this site that its store does not know: the store is an "
                "older copy. Stop this site, tell the compliance officer, settle what its account lacks, then "
                "acknowledge the head and rejoin with the next epoch",
                head,
            )


def _check_progress(epoch: EpochState, state: SlotState, a: Announcement, now: int) -> None:
    last = (state.round, state.attempt)
    if a.slot <= last:
        raise Refused(f"slot {a.slot} is not after {last}, the last one this site accepted")
    check_gap(a, last)
    if a.seq <= state.seq:
        raise Refused(f"sequence number {a.seq} does not rise above {state.seq}")
    if a.round != state.round and state.rounds >= MAX_ROUNDS:
        raise Refused(f"this epoch has served {MAX_ROUNDS} rounds; the coordinator must start the next one")
    if now - epoch.joined_at > MAX_AGE_MS:
        raise Refused("this epoch is older than seven days; the coordinator must start the next one")


def _check_noiseless(party: Party, rules: Rules, state: SlotState, a: Announcement, topology: Topology) -> None:
    if a.attempt > 0:
        check_abort_certificate(party.roster, topology.record, a)
        if a.round == state.round and state.retry in (_question(a), _repeatable(a)):
            return  # a certified retry of the slot that this site answered before
    if _question(a) in split(state.answered):
        raise Refused(
            "a task without noise is answered once per data version; ask for a policy with noise to repeat it"
        )


def _question(a: Announcement) -> bytes:
    """What is asked: the task together with the model or other input it is asked about."""
    return digest(Label.QUESTION, a.task, a.inputs)


def _repeatable(a: Announcement) -> bytes:
    """What a retry after ``a`` must ask again: the same question, and after complete mode of the same cohort.

    Complete mode opens with fewer members than an ABORT certificate leaves over, so there the certificate
    does not prove that nothing was opened; the same sum a second time tells nothing new.
    """
    return _question(a) + (digest(Label.COHORT, a.cohort) if a.complete else b"")


def _with_question(answered: bytes, a: Announcement) -> bytes:
    return answered if _question(a) in split(answered) else answered + _question(a)


def _usable_keys(epoch: EpochState, topology: Topology, own: bytes) -> list[tuple[bytes, bytes]]:
    """(neighbour, pair key) for every neighbour in the cohort; a missing one is never skipped."""
    keys = {pair.peer: pair.key for pair in epoch.pairs if pair.confirmed and pair.key}
    near = topology.neighbours(own)
    if not near or any(peer not in keys for peer in near):
        raise Refused("this site holds no confirmed key for some neighbour in the cohort; it does not upload without")
    return [(peer, keys[peer]) for peer in near]


def upload(
    party: Party,
    epoch: EpochState,
    state: SlotState,
    announcement: Announcement,
    vector: npt.NDArray[np.int64],
    entropy: Entropy,
    *,
    now: int,
) -> tuple[EpochState, SlotState, Outgoing]:
    """S1: mask the vector, share the seeds with the committee, sign the header.

    Args:
        vector: int64, shape ``(announcement.length,)``: already clipped, saturated and noised.

    The returned states know neither seeds nor shares nor the vector, and their pair keys have moved
    past this slot. Make them and the outgoing bytes durable, then send; repeats resend these bytes.

    Raises:
        Refused: this H0 was not accepted, was already uploaded, or the deadline has passed.
        Misuse: the vector has another length or type.
    """
    a, record = announcement, epoch.active()
    if state.h0 != a.h0:
        raise Refused("this announcement was not accepted by this site; nothing is uploaded for it")
    stage = advance(SITE_SLOT, state.stage, "upload")
    if now > a.deadline:
        raise Refused("the deadline has passed by this site's clock; nothing is uploaded")
    if vector.dtype != np.int64 or vector.shape != (a.length,):
        raise Misuse(f"the vector must be int64 of shape ({a.length},), not {vector.dtype} {vector.shape}")
    topology = check_announcement(party.roster, record, a)
    near = _usable_keys(epoch, topology, party.id)
    seeds = _Seeds.make(a.h0, party.id, near, entropy)
    body = _masked(vector, a, seeds)
    header, blobs = _deal(party, topology, a, seeds, body, state, SlotEntropy(entropy, Label.DEALING, a.h0, party.id))
    message = Upload(header, tuple(blobs))
    heads = (state.heads + header.digest)[-32 * KEPT_HEADS :]
    done = replace(state, stage=stage, outbox=upload_hash(message), heads=heads)
    return ratchet(epoch, a.seq + 1), done, Outgoing(message, body)


def upload_hash(message: Upload) -> bytes:
    """Names the stored upload that may be resent."""
    return content_digest(Label.UPLOAD_HASH, message.header.encode())


@dataclass(frozen=True, repr=False)
class SlotEntropy:
    """Entropy for one use by one site in one slot: a replayed source repeats nothing across H0.

    The same coefficients under two seeds would show every member the difference of the seeds, so that
    one opened slot opens the other; the same noise in two sums would cancel.
    """

    source: Entropy
    label: Label
    h0: bytes
    own: bytes

    def draw(self, size: int) -> bytes:
        """Return ``size`` bytes, at most 8 160."""
        return derive(self.source.draw(32), self.label, self.h0, self.own, size=size)


class _Seeds(NamedTuple):
    """b_i first, then s_ij per neighbour, with what is derived from each."""

    values: list[bytes]
    commits: list[bytes]
    plus: list[bytes]
    minus: list[bytes]
    neighbours: tuple[bytes, ...]

    def __repr__(self) -> str:
        return "_Seeds(<redacted>)"

    @staticmethod
    def make(h0: bytes, own: bytes, near: Sequence[tuple[bytes, bytes]], entropy: Entropy) -> _Seeds:
        # H0 goes into b_i as well, so that a replayed entropy source repeats no mask across slots
        b = derive(entropy.draw(32), Label.SELF_SEED, h0, own)
        out = _Seeds([b], [commitment(b, h0, own)], [mask_key(b, h0, own)], [], tuple(peer for peer, _ in near))
        for peer, key in near:
            low, high = (own, peer) if own < peer else (peer, own)
            s = derive(key, Label.PAIR_SEED, h0, low, high)
            out.values.append(s)
            out.commits.append(commitment(s, h0, low, high))
            (out.plus if own == low else out.minus).append(mask_key(s, h0, low, high))
        return out


def _masked(vector: npt.NDArray[np.int64], a: Announcement, seeds: _Seeds) -> bytes:
    ring = ring_of(a)
    words: npt.NDArray[Any] = to_words(vector, ring)
    apply_masks(words, seeds.plus, seeds.minus)
    return pack(words, ring)


def _deal(
    party: Party, topology: Topology, a: Announcement, seeds: _Seeds, body: bytes, state: SlotState, entropy: Entropy
) -> tuple[Header, list[bytes]]:
    record = topology.record
    members = record.members
    xs = range(1, len(members) + 1)
    secrets = np.frombuffer(b"".join(seeds.values), np.uint8).reshape(-1, 32)
    shares = shamir.split(secrets, xs, a.threshold, entropy)
    adverts = {advert.site: advert for advert in record.adverts}
    blobs, roots = [], []
    for x, member, own_shares in zip(xs, members, shares, strict=True):
        salt = entropy.draw(32)
        roots.append(merkle.root(merkle.leaves(merkle.leaf_key(a.h0, party.id, member, salt), own_shares)))
        advert = adverts.get(member)
        if advert is None:  # a fixed committee's member that is absent from this epoch can open nothing
            blobs.append(b"")
            continue
        plain = salt + own_shares.astype("<u4", copy=False).tobytes()
        info = blob_info(a.h0, party.id, member, x, advert.digest)
        blobs.append(sealing_key(advert.key).seal(plain, Label.BLOB, *info))
    digest = hashlib.sha256(body_prefix(a.h0, party.id, len(body)))
    digest.update(body)
    header = Header(
        a.h0,
        party.id,
        digest.digest(),
        join(seeds.neighbours),
        join(seeds.commits),
        join(blob_hash(blob) for blob in blobs),
        join(roots),
        state.heads[-32:] or GENESIS,
        state.ledger_head,
        bytes(64),
    )
    signature = party.key.sign(Label.HEADER, header.digest, header.ledger_head)
    return replace(header, signature=signature), blobs


def blob_info(h0: bytes, dealer: bytes, member: bytes, x: int, advert: bytes) -> tuple[object, ...]:
    """What a blob's seal is bound to: it opens under no other slot, dealer, member, position or key."""
    return (h0, dealer, member, x, advert)


def blob_hash(blob: bytes) -> bytes:
    """Hash of a sealed blob, as the header lists it."""
    return content_digest(Label.BLOB_HASH, blob)


_SEALING: dict[bytes, SealingPublicKey] = {}


def sealing_key(raw: bytes) -> SealingPublicKey:
    """A parsed sealing key; parsing is kept, because a site seals to the same members every round."""
    known = _SEALING.get(raw)
    if known is None:
        if len(_SEALING) > 4096:
            _SEALING.clear()
        known = _SEALING[raw] = SealingPublicKey(raw)
    return known


def check_resend(state: SlotState, message: Upload) -> None:
    """A resend is allowed only for the very bytes of the last upload; raises Refused otherwise."""
    advance(SITE_SLOT, state.stage, "resend")
    if upload_hash(message) != state.outbox:
        raise Refused("these are not the bytes that this site uploaded in its last slot; they are not sent")


def note_survivors(state: SlotState, own: bytes, announcement: Announcement, headers: Sequence[Header]) -> SlotState:
    """Record a survivor set that leaves out this site's upload: it came late, or the coordinator hides it."""
    left_out = state.h0 == announcement.h0 and state.outbox and all(header.site != own for header in headers)
    if not left_out or state.h0 in split(state.censored):
        return state
    return replace(state, censored=(state.censored + state.h0)[-32 * KEPT_HEADS :])


def acknowledge(key: VerifyKey, state: SlotState, head: SeenHead) -> SlotState:
    """Know a header of one's own again that the store had lost; raises Unverified if it is not one's own."""
    key.verify(head.signature, Label.HEADER, head.header, head.ledger_head)
    return replace(state, heads=(state.heads + head.header)[-32 * KEPT_HEADS :])


def restart(state: SlotState) -> SlotState:
    """What a site is after a crash: silent in a slot that it had accepted but not durably uploaded."""
    if (state.stage, "restart") not in SITE_SLOT:
        return state
    return replace(state, stage=advance(SITE_SLOT, state.stage, "restart"))


def verify_body(header: Header, body: bytes | memoryview) -> None:
    """Check a packed vector against the hash in its header; raises Unverified."""
    digest = hashlib.sha256(body_prefix(header.h0, header.site, len(body)))
    digest.update(body)
    if digest.digest() != header.body:
        raise Unverified(f"the vector of site {header.site.hex()[:8]} is not the one its header names; fetch it again")
