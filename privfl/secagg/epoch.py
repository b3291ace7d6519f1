"""The epoch: fresh sealing keys, pair keys from both ends, confirmation, one fixed record, and a ratchet.

E0 advertise, E1 contribute, E2 confirm, then the record (see ``docs/protocol.md``). Every function
takes a state and returns the next one; the caller makes it durable before it sends what came with it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

from privfl_keys import Label, SealingKey, SealingPublicKey, VerifyKey, content_digest, derive, extract_and_derive

from privfl.entropy import Entropy
from privfl.errors import PrivflError, Refused, Theirs, Unverified
from privfl.secagg.messages import Advert, Confirmations, Contribution, EpochRecord, Scope, join, split
from privfl.secagg.party import Equivocation, Party, SecretRecord, Unconfirmed
from privfl.secagg.record import check_record, full_neighbours, potential_neighbours
from privfl.secagg.transitions import SITE_EPOCH, advance

__all__ = [
    "MAX_AGE_MS",
    "MAX_ROUNDS",
    "EpochState",
    "Excluded",
    "Pair",
    "advertise",
    "close",
    "confirm",
    "contribute",
    "join_epoch",
    "ratchet",
    "verify_advert",
    "verify_confirmations",
    "verify_contribution",
]

MAX_ROUNDS = 100
MAX_AGE_MS = 7 * 24 * 3600 * 1000
MAX_SEQ_GAP = 1024

Excluded = tuple[bytes, str]  # a peer's site id, and why it was left out


@dataclass(frozen=True, repr=False)
class Pair(SecretRecord):
    """What a site holds for one neighbour: its own fresh bytes until the key exists, then the key."""

    TAG: ClassVar[str] = "pair"
    peer: bytes
    advert: bytes
    fresh: bytes
    sent: bytes  # hash of the signed contribution that went out
    key: bytes
    confirmed: bool


@dataclass(frozen=True, repr=False)
class EpochState(SecretRecord):
    """One site's secrets of one epoch; ``position`` is the ratchet's place in the rising ``seq``."""

    TAG: ClassVar[str] = "epoch state"
    stage: str
    scope: Scope
    secret: bytes
    advert: Advert | None
    pairs: tuple[Pair, ...]
    position: int
    record: EpochRecord | None
    joined_at: int

    def sealing_key(self) -> SealingKey:
        """The epoch's HPKE key; raises Refused once it is erased."""
        if not self.secret:
            raise Refused("the keys of this epoch are erased; wait for the next epoch")
        return SealingKey.from_secret_bytes(self.secret)

    def active(self) -> EpochRecord:
        """The record of an epoch that this site has joined; raises Refused before and after."""
        if self.stage != "active" or self.record is None:
            raise Refused(f"the epoch is '{self.stage}' here, not active; wait until it is joined")
        return self.record


def advertise(party: Party, scope: Scope, entropy: Entropy) -> EpochState:
    """E0: make this epoch's sealing key and sign its public half. One per (epoch, site).

    Raises:
        Refused: the scope is not that of the party's roster, or the party is not a site in it.
    """
    if scope.roster != party.roster.hash or scope.federation != party.roster.federation:
        raise Refused("the epoch names another roster than this site's; fetch the current roster first")
    party.site_key(party.id)
    sealing = SealingKey.generate(entropy)
    advert = Advert(scope, party.id, sealing.public.raw, bytes(64))
    signed = replace(advert, signature=party.key.sign(Label.ADVERT, advert.digest))
    return EpochState("advertised", scope, sealing.secret_bytes(), signed, (), 0, None, 0)


def verify_advert(party: Party, scope: Scope, advert: Advert) -> None:
    """Check scope, roster membership, signature and that the key can be sealed to; raises Theirs."""
    if advert.scope != scope:
        raise Unverified("the advert is for another epoch, roster or federation")
    party.site_key(advert.site).verify(advert.signature, Label.ADVERT, advert.digest)
    SealingPublicKey(advert.key).probe()


def one_each(messages: Iterable[Advert] | Iterable[Contribution], own: str) -> None:
    """Raise Equivocation if one sender appears with two different messages."""
    first: dict[bytes, Advert | Contribution] = {}
    for message in messages:
        sender = message.site if isinstance(message, Advert) else message.sender
        known = first.setdefault(sender, message)
        if known.encode() != message.encode():
            raise Equivocation(f"site {sender.hex()[:8]} signed two different {own}s in one epoch", known, message)


def contribute(
    party: Party, state: EpochState, adverts: Sequence[Advert], entropy: Entropy
) -> tuple[EpochState, tuple[Contribution, ...], tuple[Excluded, ...]]:
    """E1: seal 32 fresh bytes to every neighbour whose advert verifies.

    Returns the next state, one contribution per neighbour, and the peers left out with the reason.

    Raises:
        Equivocation: a *validly signed* pair of different adverts of one site.
        Refused: not in the state for it.
    """
    stage = advance(SITE_EPOCH, state.stage, "contribute")
    valid, excluded = _verified_adverts(party, state.scope, adverts)
    own = state.advert
    if own is None or own.site not in valid or valid[own.site].digest != own.digest:
        raise Refused("the coordinator's list does not hold this site's own advert; nothing was sent")
    near = potential_neighbours(party.roster, state.scope, party.id)
    pairs, out = [], []
    for peer in sorted(near & valid.keys()):
        advert, fresh = valid[peer], entropy.draw(32)
        message = Contribution(state.scope, party.id, peer, own.digest, advert.digest, b"-", bytes(64))
        sealed = SealingPublicKey(advert.key).seal(fresh, Label.CONTRIBUTION_SEAL, *message.binding())
        signature = party.key.sign(Label.CONTRIBUTION, *message.binding(), sealed)
        message = replace(message, sealed=sealed, signature=signature)
        out.append(message)
        pairs.append(Pair(peer, advert.digest, fresh, contribution_hash(message), b"", False))
    return replace(state, stage=stage, pairs=tuple(pairs)), tuple(out), tuple(excluded)


def contribution_hash(message: Contribution) -> bytes:
    """Hash of a signed contribution; both of a pair's go into its key."""
    return content_digest(Label.CONTRIBUTION_HASH, message.encode())


def _verified_adverts(
    party: Party, scope: Scope, adverts: Sequence[Advert]
) -> tuple[dict[bytes, Advert], list[Excluded]]:
    valid: list[Advert] = []
    excluded: list[Excluded] = []
    for advert in adverts:
        try:
            verify_advert(party, scope, advert)
            valid.append(advert)
        except Theirs as error:
            excluded.append((advert.site, str(error)))
    one_each(valid, "advert")
    return {advert.site: advert for advert in valid}, excluded


def confirm(
    party: Party, state: EpochState, contributions: Sequence[Contribution]
) -> tuple[EpochState, Confirmations, tuple[Excluded, ...]]:
    """E2: derive each pair key from both ends' bytes and sign the list of confirmation tags.

    A peer whose contribution is missing or does not open stays without a key; it is reported, and
    no slot with it in the neighbourhood will be joined.

    Raises:
        Equivocation: a validly signed pair of different contributions of one site.
    """
    stage = advance(SITE_EPOCH, state.stage, "confirm")
    valid, excluded = _verified_contributions(party, state, contributions)
    sealing, pairs = state.sealing_key(), []
    for pair in state.pairs:
        message = valid.get(pair.peer)
        key = b""
        if message is not None:
            try:
                theirs = sealing.open(message.sealed, Label.CONTRIBUTION_SEAL, *message.binding())
                key = _pair_key(party, state, pair, message, theirs)
            except Theirs as error:
                excluded.append((pair.peer, str(error)))
        pairs.append(replace(pair, fresh=b"", key=key))
    usable = [pair for pair in pairs if pair.key]
    tags = join(derive(pair.key, Label.CONFIRM, party.id) for pair in usable)
    body = Confirmations(state.scope, party.id, join(pair.peer for pair in usable), tags, bytes(64))
    signed = replace(body, signature=party.key.sign(Label.CONFIRMATION, *body.binding()))
    return replace(state, stage=stage, pairs=tuple(pairs)), signed, tuple(excluded)


def _verified_contributions(
    party: Party, state: EpochState, contributions: Sequence[Contribution]
) -> tuple[dict[bytes, Contribution], list[Excluded]]:
    adverts = {pair.peer: pair.advert for pair in state.pairs}
    if state.advert is not None:
        adverts[party.id] = state.advert.digest
    valid: list[Contribution] = []
    excluded: list[Excluded] = []
    for message in contributions:
        try:
            if message.recipient != party.id:
                raise Unverified("a contribution for another recipient")
            verify_contribution(party, state.scope, adverts, message)
            valid.append(message)
        except Theirs as error:
            excluded.append((message.sender, str(error)))
    one_each(valid, "contribution")
    return {message.sender: message for message in valid}, excluded


def verify_contribution(party: Party, scope: Scope, adverts: Mapping[bytes, bytes], message: Contribution) -> None:
    """Check that a contribution is its sender's, for a neighbour, this epoch and these adverts; raises Theirs.

    Args:
        adverts: site id to advert digest, of every site that counts.
    """
    ends = (adverts.get(message.sender), adverts.get(message.recipient))
    if message.scope != scope or ends != (message.sender_advert, message.recipient_advert):
        raise Unverified("a contribution for another epoch or advert")
    near = full_neighbours(party.roster, scope, message.sender)
    if message.sender == message.recipient or (near is not None and message.recipient not in near):
        raise Unverified("a contribution from a site that is no neighbour of its recipient")
    key = party.site_key(message.sender)
    key.verify(message.signature, Label.CONTRIBUTION, *message.binding(), message.sealed)


def _pair_key(party: Party, state: EpochState, pair: Pair, message: Contribution, theirs: bytes) -> bytes:
    if len(theirs) != 32:
        raise Unverified("a contribution does not hold 32 bytes")
    own = state.advert.digest if state.advert else b""
    received = contribution_hash(message)
    mine = (party.id, pair.fresh, own, pair.sent)
    other = (pair.peer, theirs, pair.advert, received)
    low, high = sorted((mine, other))
    return extract_and_derive(
        low[1] + high[1],
        Label.PAIR_KEY,
        state.scope.to_value(),
        low[0],
        high[0],
        low[2],
        high[2],
        low[3],
        high[3],
    )


def join_epoch(
    party: Party, state: EpochState, record: EpochRecord, confirmations: Sequence[Confirmations], now: int
) -> tuple[EpochState, tuple[Excluded, ...]]:
    """Accept the epoch's record, once, after checking it against the roster and every confirmation.

    On the complete graph every site of the record must be a confirmed peer; on a sparse graph a
    neighbour that is not stays unusable, and slots that contain it are refused.

    Raises:
        Refused: the record breaks a rule of the roster.
        Unconfirmed: it leaves an unconfirmed pair in a complete graph.
        Theirs: a confirmation whose signature does not verify is reported among the excluded instead.
    """
    stage = advance(SITE_EPOCH, state.stage, "join")
    party.roster.check_validity(now)
    check_record(party.roster, record, state.scope, lambda advert: verify_advert(party, state.scope, advert))
    by_site = {advert.site: advert for advert in record.adverts}
    own = by_site.get(party.id)
    if own is None or state.advert is None or own.digest != state.advert.digest:
        raise Refused("this site is not in the epoch's record; it waits for the next epoch")
    tags, excluded = _verified_tags(party, state.scope, confirmations)
    pairs = []
    for pair in state.pairs:
        there = by_site.get(pair.peer)
        good = (
            bool(pair.key)
            and there is not None
            and there.digest == pair.advert
            and tags.get(pair.peer, b"") == derive(pair.key, Label.CONFIRM, pair.peer)
        )
        if there is not None and not good:
            excluded.append((pair.peer, "no confirmed pair key"))
        pairs.append(replace(pair, confirmed=good, key=pair.key if good else b""))
    confirmed = {pair.peer for pair in pairs if pair.confirmed}
    if not record.degree and (unmet := set(record.sites) - {party.id} - confirmed):
        raise Unconfirmed(unmet)
    return replace(state, stage=stage, pairs=tuple(pairs), record=record, joined_at=now), tuple(excluded)


def _verified_tags(
    party: Party, scope: Scope, confirmations: Sequence[Confirmations]
) -> tuple[Mapping[bytes, bytes], list[Excluded]]:
    """Each peer's tag for this site, from the confirmations that verify."""
    tags: dict[bytes, bytes] = {}
    excluded: list[Excluded] = []
    for message in confirmations:
        try:
            verify_confirmations(party.site_key(message.site), scope, message)
        except PrivflError as error:
            excluded.append((message.site, str(error)))
            continue
        listed = dict(zip(split(message.peers), split(message.tags), strict=True))
        if party.id in listed:
            tags[message.site] = listed[party.id]
    return tags, excluded


def verify_confirmations(key: VerifyKey, scope: Scope, message: Confirmations) -> None:
    """Check scope, shape and signature of one site's confirmations; raises Theirs."""
    # the length is checked before anyone splits the lists, so that one site cannot stop all others
    if message.scope != scope or len(message.peers) != len(message.tags) or len(message.peers) % 32:
        raise Unverified("confirmations for another epoch, or of another shape")
    key.verify(message.signature, Label.CONFIRMATION, *message.binding())


def ratchet(state: EpochState, seq: int) -> EpochState:
    """Move every pair key forward until it serves slot ``seq``, and forget the way back.

    Raises:
        Refused: ``seq`` lies behind the ratchet, or more than 1024 ahead of it.
    """
    steps = seq - state.position
    if not 0 <= steps <= MAX_SEQ_GAP:
        raise Refused(f"sequence number {seq} must lie in [{state.position}, {state.position + MAX_SEQ_GAP}]")
    pairs = []
    for pair in state.pairs:
        key = pair.key
        for _ in range(steps if key else 0):
            key = derive(key, Label.RATCHET)
        pairs.append(replace(pair, key=key))
    return replace(state, pairs=tuple(pairs), position=seq)


def close(state: EpochState) -> EpochState:
    """End the epoch: every secret is gone from the state that replaces this one."""
    return replace(state, stage=advance(SITE_EPOCH, state.stage, "close"), secret=b"", pairs=())
