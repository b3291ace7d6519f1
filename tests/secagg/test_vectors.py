"""Known answers for every message and derivation of the protocol, made by code that shares none with privfl.

The generator writes the encoding, HKDF, mask streams and packing out by itself; here the package must
give the same bytes, verify the same signatures, and refuse every bad encoding as Malformed.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from privfl_keys import Label, SigningKey, VerifyKey, context, derive, digest

from privfl.codec import Record
from privfl.errors import Malformed
from privfl.ring import Ring, pack, to_words
from privfl.secagg import merkle, messages
from privfl.secagg import site as sites
from privfl.secagg.epoch import (
    EpochState,
    Pair,
    _pair_key,
    contribution_hash,
    ratchet,
    verify_advert,
    verify_confirmations,
)
from privfl.secagg.graph import graph_seed
from privfl.secagg.masks import apply_masks, expand
from privfl.secagg.messages import (
    ABORT,
    Advert,
    Announcement,
    Ask,
    Confirmations,
    Contribution,
    EpochRecord,
    Header,
    Release,
    SeenHead,
    Upload,
    Vote,
    body_prefix,
    split,
    survivors_hash,
)
from privfl.secagg.party import Party
from privfl.secagg.slot import check_certificate, commitment, mask_key
from privfl.secagg.transcript import OpenedSum, ReleaseStub, Transcript, verify_transcript

HERE = Path(__file__).parents[1] / "vectors"
GOOD: dict[str, Any] = json.loads((HERE / "secagg_messages.json").read_text())
BAD: list[tuple[str, str, str, int, str, int]] = json.loads((HERE / "secagg_messages_bad.json").read_text())
D: dict[str, Any] = GOOD["derivations"]
IDS = [bytes.fromhex(each) for each in GOOD["ids"]]
KINDS: dict[str, type[Record]] = {
    **{kind: getattr(messages, kind) for kind in GOOD["messages"] if hasattr(messages, kind)},
    **{kind.__name__: kind for kind in (ReleaseStub, OpenedSum, Transcript)},
}


def raw(*path: str | int) -> bytes:
    """Bytes at a path of the good file."""
    value: Any = GOOD
    for step in path:
        value = value[step]
    return bytes.fromhex(value)


def a() -> Announcement:
    """The announcement."""
    return Announcement.decode(raw("messages", "Announcement"))


def record() -> EpochRecord:
    """The epoch record."""
    return EpochRecord.decode(raw("messages", "EpochRecord"))


def transcript() -> Transcript:
    """The transcript, which holds nearly everything else."""
    return Transcript.decode(raw("messages", "Transcript"))


def header(at: int) -> Header:
    """The header of a site."""
    return Header.decode(raw("parts", "headers", at))


def party(at: int) -> Party:
    """A site with its key and the roster."""
    return Party(SigningKey.from_secret_bytes(raw("signing_seeds", at)), transcript().signed_roster.roster)


# --- encodings ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", list(GOOD["messages"]))
def test_messages_decode_and_encode_to_the_known_bytes(kind: str) -> None:
    """Each message reads back, and writes the same bytes again."""
    known = raw("messages", kind)
    message = KINDS[kind].decode(known)
    assert message.encode() == known
    assert type(message).from_value(message.to_value()) == message


def test_every_message_of_the_package_has_a_vector() -> None:
    """A new message must come with known bytes."""
    public = {name for name in messages.__all__ if isinstance(getattr(messages, name), type)}
    assert set(KINDS) == public | {"ReleaseStub", "OpenedSum", "Transcript"}
    assert set(GOOD["messages"]) == set(KINDS)


@pytest.mark.parametrize("kind", list(GOOD["messages"]))
def test_bad_encodings_are_malformed(kind: str) -> None:
    """Cut, grown, retyped, resized, non-canonical: each is refused as Malformed, by name."""
    good = raw("messages", kind)
    cases = [case for case in BAD if case[0] == kind]
    assert len(cases) >= 15
    for _, what, head, same, middle, tail in cases:
        rest = good[5:]
        bad = bytes.fromhex(head) + rest[:same] + bytes.fromhex(middle) + rest[len(rest) - tail :]
        assert bad != good, what
        try:
            KINDS[kind].decode(bad)
        except Malformed:
            continue
        pytest.fail(f"{kind} accepted: {what}")


# --- the epoch ---------------------------------------------------------------------------------------


def test_adverts_and_the_epoch_record() -> None:
    """Digests, signatures, and the record's hash."""
    r = record()
    for at, advert in enumerate(r.adverts):
        assert Advert.decode(raw("parts", "adverts", at)) == advert
        assert advert.digest == raw("derivations", "advert_digests", at)
        verify_advert(party(0), r.scope, advert)
    assert r.digest == raw("derivations", "record_hash")
    assert list(r.sites) == list(r.members) == IDS


def test_contributions_pair_key_and_confirmation_tags() -> None:
    """Both ends derive the known pair key from the known contributions, and the known tags from it."""
    r = record()
    there, back = (Contribution.decode(raw("parts", "contributions", way)) for way in ("0 1", "1 0"))
    assert context(Label.CONTRIBUTION_SEAL, *there.binding()) == raw("derivations", "contribution_seal_info")
    for message in (there, back):
        key = party(0).site_key(message.sender)
        key.verify(message.signature, Label.CONTRIBUTION, *message.binding(), message.sealed)
    fresh = {0: raw("derivations", "pair_key", "low_fresh"), 1: raw("derivations", "pair_key", "high_fresh")}
    for own, sent, received in ((0, there, back), (1, back, there)):
        hashed = contribution_hash(sent)
        pair = Pair(IDS[1 - own], r.adverts[1 - own].digest, fresh[own], hashed, b"", False)
        state = EpochState("contributed", r.scope, b"", r.adverts[own], (pair,), 0, None, 0)
        made = _pair_key(party(own), state, pair, received, fresh[1 - own])
        assert made == raw("derivations", "pair_key", "key")
    confirmations = Confirmations.decode(raw("messages", "Confirmations"))
    verify_confirmations(party(0).site_key(IDS[0]), r.scope, confirmations)
    tags = dict(zip(split(confirmations.peers), split(confirmations.tags), strict=True))
    assert tags[IDS[1]] == raw("derivations", "confirm_tags", 0) == derive(made, Label.CONFIRM, IDS[0])
    assert raw("derivations", "confirm_tags", 1) == derive(made, Label.CONFIRM, IDS[1])


def test_the_ratchet() -> None:
    """Keys after 0 to 3 steps, and from any of them on; graph seeds hang on the epoch."""
    keys = [bytes.fromhex(key) for key in D["ratchet"]]
    r = record()
    pair = Pair(IDS[1], b"", b"", b"", keys[0], True)
    state = EpochState("active", r.scope, b"", r.adverts[0], (pair,), 0, r, 0)
    for steps in range(4):
        moved = ratchet(state, steps)
        assert (moved.pairs[0].key, moved.position) == (keys[steps], steps)
        assert ratchet(moved, 3).pairs[0].key == keys[3]
    assert graph_seed(party(0).roster.graph_seed, r.scope.epoch) == raw("derivations", "graph_seed")


# --- the slot ----------------------------------------------------------------------------------------


class Once:
    """Entropy that gives one known draw."""

    def __init__(self, data: bytes) -> None:
        self.data = data

    def draw(self, size: int) -> bytes:
        """The draw, whole."""
        data, self.data = self.data, b""
        assert len(data) == size
        return data


def seeds() -> sites._Seeds:
    """The seeds of site 0, by the package, from the known draw and the known keys of the slot."""
    near = [(IDS[peer], raw("derivations", "slot_keys", peer - 1)) for peer in (1, 2, 3)]
    return sites._Seeds.make(a().h0, IDS[0], near, Once(raw("derivations", "self_seed", "drawn")))


def test_the_announcement_names_the_slot() -> None:
    """H0, the coordinator's signature, seen heads and ABORT votes."""
    assert a().h0 == raw("derivations", "h0")
    roster = party(0).roster
    roster.require(a().coordinator, "coordinator").verify(a().signature, Label.ANNOUNCEMENT, a().h0)
    (head,) = a().seen
    assert head == SeenHead.decode(raw("messages", "SeenHead"))
    roster.require(head.site, "site").verify(head.signature, Label.HEADER, head.header, head.ledger_head)
    assert {vote.choice for vote in a().aborts} == {ABORT}


def test_the_pair_keys_have_moved_to_the_announced_sequence_number() -> None:
    """Nineteen steps of the ratchet from the pair key give the key of the slot."""
    key = raw("derivations", "pair_key", "key")
    for _ in range(a().seq):
        key = derive(key, Label.RATCHET)
    assert key == raw("derivations", "slot_keys", 0)


def test_seeds_commitments_and_mask_keys() -> None:
    """From the drawn bytes and the pair keys to b_i, s_ij, what is committed and what masks."""
    made = seeds()
    assert made.values[0] == raw("derivations", "self_seed", "seed")
    assert made.values[1] == raw("derivations", "pair_seed")
    assert made.commits[0] == raw("derivations", "commitments", "self")
    assert made.commits[1] == raw("derivations", "commitments", "pair")
    assert made.plus[:2] == [raw("derivations", "mask_keys", who) for who in ("self", "pair")]
    assert made.minus == []  # site 0 has the lowest id: it adds every pair mask
    assert b"".join(made.commits) == header(0).commits
    assert commitment(made.values[1], a().h0, IDS[0], IDS[1]) == made.commits[1]
    assert mask_key(made.values[1], a().h0, IDS[0], IDS[1]) == made.plus[1]


def test_mask_streams_start_with_the_known_words() -> None:
    """The same key read in words of 16, 32 and 64 bits."""
    for word, known in D["mask_words"].items():
        assert expand(raw("derivations", "mask_keys", "pair"), int(word), 5).tolist() == known


@pytest.mark.parametrize("at", range(4))
def test_masked_vectors_of_every_ring(at: int) -> None:
    """y_i byte for byte, for b below and equal to w, with negative coordinates."""
    case = D["masked"][at]
    ring = Ring(case["bits"], case["word"])
    values = np.array(case["values"], np.int64)
    words = to_words(values, ring)
    made = seeds()
    apply_masks(words, made.plus, made.minus)
    assert pack(words, ring) == bytes.fromhex(case["body"])
    announced = replace(a(), bits=ring.bits, word=ring.word)
    assert sites._masked(values, announced, made) == bytes.fromhex(case["body"])


def test_bodies_blobs_leaves_and_headers() -> None:
    """What a header names: the vector, the blobs, the roots, and its own digest and signature."""
    body = raw("derivations", "body_hash", "body")
    named = hashlib.sha256(body_prefix(a().h0, IDS[0], len(body)) + body).digest()
    assert named == raw("derivations", "body_hash", "hash")
    advert = record().adverts[2]
    info = context(Label.BLOB, *sites.blob_info(a().h0, IDS[0], IDS[2], 3, advert.digest))
    assert info == raw("derivations", "blob_info")
    case = D["leaf"]
    key = merkle.leaf_key(a().h0, IDS[0], IDS[2], bytes.fromhex(case["salt"]))
    assert key == bytes.fromhex(case["key"])
    assert merkle.leaf(key, case["index"], np.array(case["share"], np.uint32)) == bytes.fromhex(case["leaf"])
    upload = Upload.decode(raw("messages", "Upload"))
    assert b"".join(sites.blob_hash(blob) for blob in upload.blobs) == upload.header.blobs
    sites.verify_body(header(0), bytes.fromhex(D["masked"][1]["body"]))
    for at in range(4):
        assert header(at).digest == raw("derivations", "header_digests", at)


def test_survivors_votes_and_releases() -> None:
    """H(U), a certificate that verifies, and what a release is signed and sealed under."""
    t, r = transcript(), record()
    inside = [header(at) for at in D["survivors"]["at"]]
    choice = survivors_hash(a().h0, inside)
    assert choice == raw("derivations", "survivors", "hash") == survivors_hash(a().h0, inside[::-1])
    ask = Ask.decode(raw("messages", "Ask"))
    assert list(ask.headers) == inside == list(t.headers)
    check_certificate(party(0).roster, r, a(), choice, ask.votes)
    vote = Vote.decode(raw("messages", "Vote"))
    party(0).site_key(vote.member).verify(vote.signature, Label.VOTE, *vote.binding())
    release = Release.decode(raw("messages", "Release"))
    party(0).site_key(release.member).verify(release.signature, Label.RELEASE, *release.binding())
    assert ReleaseStub.of(release) == ReleaseStub.decode(raw("messages", "ReleaseStub"))
    for at, part in enumerate(("shares", "proofs")):
        assert context(Label.RELEASE_SEAL, a().h0, choice, IDS[0], part) == raw("derivations", "release_seal_info", at)


def test_the_sum_and_the_transcript() -> None:
    """The salted commitment opens, and the whole transcript verifies under the authority's key."""
    opened = OpenedSum.decode(raw("messages", "OpenedSum"))
    assert opened.array().tolist() == [1, -1, 2**40]
    t = transcript()
    assert opened.commitment(a().h0, t.survivors) == raw("derivations", "sum_commitment") == t.sum_commitment
    assert t.body_digest() == raw("derivations", "transcript_digest")
    assert digest(Label.ROSTER, t.signed_roster.roster.to_value()) == record().scope.roster
    proof = verify_transcript(t, VerifyKey(raw("authority")), opened)
    assert proof.survivors == ("site-0", "site-1", "site-3")
    assert (proof.votes, proof.quorum, proof.round, proof.attempt) == (3, 3, 7, 2)
