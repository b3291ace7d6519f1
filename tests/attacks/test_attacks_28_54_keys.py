"""Attacks on keys and masks: epoch set-up, weak hybrid keys, rings, replayed entropy, guessed sums."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
from privfl_keys import SYSTEM, Label, SealingKey, SealingPublicKey, digest

from privfl.errors import Refused, Theirs, Unverified
from privfl.ring import Ring, packed_size, unpack
from privfl.secagg import Advert, Contribution, Equivocation, OpenedSum, SiteMachine, verify_transcript
from privfl.secagg.masks import BLOCK_BYTES, MaskStream, apply_masks, expand
from privfl.secagg.shamir import recover
from tests.attacks._tools_b import announced, open_blob, take
from tests.harness import LEDGER, NOW, Harness, SeededEntropy


def advertised(n: int = 5, **kind: object) -> Harness:
    """A federation after E0."""
    h = Harness.make(n, **kind)  # type: ignore[arg-type]
    scope = h.coordinator.start_epoch()
    for site in h.ids:
        h.coordinator.receive_advert(h.sites[site].advertise(scope.epoch))
    return h


def contributed(n: int = 5) -> tuple[Harness, dict[tuple[bytes, bytes], Contribution]]:
    """A federation after E1, and every contribution by (sender, recipient)."""
    h = advertised(n)
    out: dict[tuple[bytes, bytes], Contribution] = {}
    for site in h.ids:
        for message in h.sites[site].contribute(h.coordinator.adverts)[0]:
            out[message.sender, message.recipient] = message
    return h, out


def shown_to(sent: dict[tuple[bytes, bytes], Contribution], recipient: bytes) -> list[Contribution]:
    """The contributions for one site."""
    return [message for (_, to), message in sent.items() if to == recipient]


def readvertised(h: Harness, advert: Advert, signer: bytes, **changes: object) -> Advert:
    """An advert with ``changes``, signed by ``signer``."""
    body = replace(advert, **changes)  # type: ignore[arg-type]
    return replace(body, signature=h.keys[signer].sign(Label.ADVERT, body.digest))


def recontributed(h: Harness, message: Contribution, signer: bytes, **changes: object) -> Contribution:
    """A contribution with ``changes``, signed by ``signer``."""
    body = replace(message, **changes)  # type: ignore[arg-type]
    return replace(body, signature=h.keys[signer].sign(Label.CONTRIBUTION, *body.binding(), body.sealed))


# 41: two adverts or contributions in one epoch


def test_attack_41_two_adverts_of_one_site_are_evidence_at_coordinator_and_sites() -> None:
    """A corrupt site shows different epoch keys to different peers: both signed adverts come back as evidence."""
    h = advertised()
    liar, site = h.ids[0], h.ids[1]
    first = next(one for one in h.coordinator.adverts if one.site == liar)
    second = readvertised(h, first, liar, key=SealingKey.generate(SYSTEM).public.raw)
    with pytest.raises(Equivocation) as caught:
        h.coordinator.receive_advert(second)
    assert caught.value.evidence == (first.encode(), second.encode())
    assert second not in h.coordinator.adverts
    before = h.sites[site].dump()
    with pytest.raises(Equivocation) as caught:
        h.sites[site].contribute((*h.coordinator.adverts, second))
    assert caught.value.evidence == (first.encode(), second.encode())
    assert h.sites[site].dump() == before
    unsigned = replace(second, signature=bytes(64))  # a forgery must not make an honest site look two-faced
    out, excluded = h.sites[site].contribute((*h.coordinator.adverts, unsigned))
    assert len(out) == 4
    assert [peer for peer, _ in excluded] == [liar]


def test_attack_41_two_contributions_of_one_site_are_evidence_and_a_forged_one_is_not() -> None:
    """A corrupt site sends one peer two different contributions: Equivocation; one that is not its own is set aside."""
    h, sent = contributed()
    liar, site = h.ids[0], h.ids[1]
    first = sent[liar, site]
    own = next(one for one in h.coordinator.adverts if one.site == site)
    sealed = SealingPublicKey(own.key).seal(bytes(32), Label.CONTRIBUTION_SEAL, *first.binding())
    second = recontributed(h, first, liar, sealed=sealed)
    before = h.sites[site].dump()
    with pytest.raises(Equivocation) as caught:
        h.sites[site].confirm([*shown_to(sent, site), second])
    assert caught.value.evidence == (first.encode(), second.encode())
    assert h.sites[site].dump() == before
    forged = recontributed(h, first, h.ids[2], sealed=sealed)
    message, excluded = h.sites[site].confirm([*shown_to(sent, site), forged])
    assert len(message.peers) == 4 * 32
    assert [peer for peer, _ in excluded] == [liar]


def test_attack_41_two_peers_with_different_views_of_a_contribution_do_not_confirm() -> None:
    """The coordinator gives a site another contribution than its peer signed off: the pair does not confirm."""
    h, sent = contributed()
    liar, site = h.ids[0], h.ids[1]
    own = next(one for one in h.coordinator.adverts if one.site == site)
    sealed = SealingPublicKey(own.key).seal(bytes(32), Label.CONTRIBUTION_SEAL, *sent[liar, site].binding())
    changed = dict(sent)
    changed[liar, site] = recontributed(h, sent[liar, site], liar, sealed=sealed)
    for one in h.ids:
        h.coordinator.receive_confirmations(h.sites[one].confirm(shown_to(changed, one))[0])
    record, confirmations = h.coordinator.fix_record()
    with pytest.raises(Refused, match="no confirmed pair key"):
        h.sites[site].join(record, confirmations, now=NOW)


# 42: contributions signed again, forwarded; keys copied


def test_attack_42_a_contribution_signed_again_by_another_site_gives_it_no_key() -> None:
    """A corrupt site signs an honest one's sealed bytes as its own: they do not open, the pair stays without a key."""
    h, sent = contributed()
    thief, honest, site = h.ids[:3]
    stolen = recontributed(h, sent[thief, site], thief, sealed=sent[honest, site].sealed)
    shown = [stolen if message.sender == thief else message for message in shown_to(sent, site)]
    message, excluded = h.sites[site].confirm(shown)
    assert [peer for peer, _ in excluded] == [thief]
    assert thief not in {message.peers[at : at + 32] for at in range(0, len(message.peers), 32)}


@pytest.mark.parametrize(
    "kind", ["to another", "from another", "unsigned", "another epoch", "another advert", "to all"]
)
def test_attack_42_a_forwarded_or_readdressed_contribution_is_set_aside(kind: str) -> None:
    """The coordinator readdresses, replays or strips a contribution: it counts as missing and names its reason."""
    h, sent = contributed()
    sender, site, other = h.ids[:3]
    message = sent[sender, site]
    forged = {
        "to another": sent[sender, other],
        "from another": replace(message, sender=other),
        "unsigned": replace(message, signature=bytes(64)),
        "another epoch": recontributed(h, message, sender, scope=replace(message.scope, epoch=2)),
        "another advert": recontributed(h, message, sender, sender_advert=bytes(32)),
        "to all": recontributed(h, sent[sender, other], sender, recipient=site),
    }[kind]
    shown = [forged if one is message else one for one in shown_to(sent, site)]
    if kind == "from another":
        shown.remove(sent[other, site])
    confirmed, excluded = h.sites[site].confirm(shown)
    assert excluded
    assert sender not in {confirmed.peers[at : at + 32] for at in range(0, len(confirmed.peers), 32)}


def test_attack_42_a_copied_epoch_key_opens_nothing_and_confirms_nothing() -> None:
    """A corrupt site advertises an honest site's key as its own: it can open no contribution and confirm no pair."""
    h = advertised()
    thief, honest = h.ids[:2]
    adverts = list(h.coordinator.adverts)
    mine = next(one for one in adverts if one.site == thief)
    key = next(one for one in adverts if one.site == honest).key
    copied = readvertised(h, mine, thief, key=key)
    shown = [copied if one.site == thief else one for one in adverts]
    sent = {}
    for site in h.ids[1:]:
        for message in h.sites[site].contribute(shown)[0]:
            sent[message.sender, message.recipient] = message
    own = h.sites[thief]._state.epoch
    assert own is not None
    for site in h.ids[1:]:
        with pytest.raises(Unverified):
            own.sealing_key().open(sent[site, thief].sealed, Label.CONTRIBUTION_SEAL, *sent[site, thief].binding())
    for site in h.ids[1:]:
        confirmed, _ = h.sites[site].confirm(shown_to(sent, site))
        assert thief not in {confirmed.peers[at : at + 32] for at in range(0, len(confirmed.peers), 32)}
    epoch = h.sites[honest]._state.epoch  # and the true owner, shown the bytes, does not open them for the thief
    assert epoch is not None
    misled = sent[h.ids[2], thief]
    with pytest.raises(Unverified):
        epoch.sealing_key().open(misled.sealed, Label.CONTRIBUTION_SEAL, *sent[h.ids[2], honest].binding())


# 43: hybrid keys with a zero X25519 part


def weak(raw: bytes, u: bytes = bytes(32)) -> bytes:
    """A hybrid key whose X25519 part adds nothing."""
    return raw[:-32] + u


WEAK_U = {
    "zero": bytes(32),
    "one": (1).to_bytes(32, "little"),
    "minus one": (2**255 - 20).to_bytes(32, "little"),
    "p": (2**255 - 19).to_bytes(32, "little"),
    "p + 1": (2**255 - 18).to_bytes(32, "little"),
    "zero with the top bit": (2**255).to_bytes(32, "little"),
}


@pytest.mark.parametrize("u", WEAK_U.values(), ids=WEAK_U.keys())
def test_attack_43_an_advert_with_a_weak_x25519_part_leaves_its_site_out(u: bytes) -> None:
    """A corrupt site's hybrid key has a part of small order: coordinator and sites refuse it, typed, and go on."""
    h = advertised()
    liar, site = h.ids[0], h.ids[1]
    mine = next(one for one in h.coordinator.adverts if one.site == liar)
    bad = readvertised(h, mine, liar, key=weak(mine.key, u))
    with pytest.raises(Unverified):
        h.coordinator.receive_advert(bad)
    shown = [bad if one.site == liar else one for one in h.coordinator.adverts]
    out, excluded = h.sites[site].contribute(shown)
    assert {message.recipient for message in out} == set(h.ids) - {liar, site}
    assert [peer for peer, _ in excluded] == [liar]


@pytest.mark.parametrize("broken", ["x25519", "ml-kem"])
def test_attack_43_an_announcement_with_a_weak_reply_key_is_refused_before_anything_is_sent(broken: str) -> None:
    """Releases would be sealed to a broken key: sites and members refuse with a typed error, state unchanged."""
    h = Harness.make(5)
    h.open_epoch()
    announcement = h.coordinator.announce(h.plan(), (1, 0))
    raw = announcement.reply_key
    key = weak(raw) if broken == "x25519" else b"\xff" * 1184 + raw[1184:]
    bad = announced(h, announcement, reply_key=key)
    site = h.ids[0]
    before = h.sites[site].dump()
    with pytest.raises(Theirs):
        h.sites[site].accept(bad, now=NOW, ledger_head=LEDGER)
    with pytest.raises(Theirs):
        h.sites[site].vote_abort(bad)
    assert h.sites[site].dump() == before
    for out in take(h, announcement, h.ids).values():
        h.coordinator.receive(out.message, out.body)
    h.coordinator.close()
    for member, ask in h.asks().items():
        before = h.sites[member].dump()
        with pytest.raises(Theirs):
            h.sites[member].vote(replace(ask, announcement=bad), now=NOW)
        with pytest.raises(Theirs):
            h.sites[member].release(replace(ask, announcement=bad), now=NOW)
        assert h.sites[member].dump() == before


def test_attack_43_a_sealed_message_with_a_zero_ephemeral_part_does_not_open() -> None:
    """The sender zeroes the X25519 half of the encapsulation: Unverified, and only that pair stays without a key."""
    h, sent = contributed()
    liar, site = h.ids[0], h.ids[1]
    sealed = sent[liar, site].sealed
    zeroed = sealed[:1088] + bytes(32) + sealed[1120:]
    bad = recontributed(h, sent[liar, site], liar, sealed=zeroed)
    shown = [bad if one.sender == liar else one for one in shown_to(sent, site)]
    confirmed, excluded = h.sites[site].confirm(shown)
    assert [peer for peer, _ in excluded] == [liar]
    assert len(confirmed.peers) == 3 * 32


# 44: b < w


@pytest.mark.parametrize(("bits", "word"), [(20, 32), (11, 16), (40, 64), (31, 32), (16, 16), (63, 64)])
def test_attack_44_nothing_above_bit_b_leaves_and_negative_values_sum_right(bits: int, word: int) -> None:
    """q and q + 2^b of one site, all entropy equal, give the same bytes: no sign extension ever reaches the wire."""
    h = Harness.make(3, entropy=SeededEntropy(bits))
    h.open_epoch()
    announcement = h.coordinator.announce(h.plan(bits=bits, word=word, length=40, complete=True), (1, 0))
    site, limit = h.ids[0], 2 ** (bits - 3)
    vector = np.random.default_rng(bits).integers(-limit, 0, 40)
    bodies = []
    for q in (vector, vector + 2 ** min(bits, 62)):
        twin = SiteMachine.load(h.party(site), h.rules, SeededEntropy(7), h.sites[site].dump(), restarted=False)
        twin.accept(announcement, now=NOW, ledger_head=LEDGER)
        bodies.append(twin.upload(announcement, q, now=NOW).body)
    if bits <= 62:
        assert bodies[0] == bodies[1]
    ring = Ring(bits, word)
    assert len(bodies[0]) == packed_size(40, ring)
    assert int(unpack(bodies[0], ring, 40).max()) <= ring.mask
    vectors = {one: np.random.default_rng(at).integers(-limit, 1, 40) for at, one in enumerate(h.ids)}
    for one in h.ids:
        h.upload(announcement, one, vectors[one])
    h.coordinator.close()
    opened, _ = h.vote_and_release()
    assert opened.array().tolist() == np.sum(list(vectors.values()), axis=0).tolist()


# 45: seeking in a mask stream


@pytest.mark.parametrize("word", [16, 32, 64])
def test_attack_45_seek_at_odd_offsets_gives_the_same_stream(word: int) -> None:
    """Reading from any byte or word gives exactly the bytes that lie there in the whole stream, never others."""
    key = digest(Label.MASK, word)
    whole = expand(key, word, 6_000)
    data = whole.astype(f"<u{word // 8}").tobytes()
    for start in (0, 1, 2, 3, 5, 7, 8, 15, 16, 17, 31, 33, 4095, 4097):
        assert np.array_equal(expand(key, word, 77, start), whole[start : start + 77])
        out = bytearray(101)
        MaskStream(key, start).read_into(out)
        assert bytes(out) == data[start : start + 101]
    stream, pieces = MaskStream(key), []
    for size in (1, 15, 16, 17, 1000, 3):
        piece = bytearray(size)
        stream.read_into(piece)
        pieces.append(bytes(piece))
    assert b"".join(pieces) == data[: sum(map(len, pieces))]


@pytest.mark.parametrize("word", [16, 32, 64])
def test_attack_45_block_size_and_split_points_do_not_change_masked_words(word: int) -> None:
    """A vector masked in any blocks, or in two halves at an odd word, is the same vector: no stream is used twice."""
    plus, minus = [digest(Label.MASK, at) for at in range(3)], [digest(Label.MASK, "m")]
    length = 10_007
    start = np.arange(length).astype(f"u{word // 8}")
    expected = start.copy()
    apply_masks(expected, plus, minus)
    plain = start.copy()
    for key in plus:
        plain += expand(key, word, length)
    plain -= expand(minus[0], word, length)
    assert np.array_equal(plain, expected)
    for block in (8, 16, 24, 1000, 4096, BLOCK_BYTES):
        again = start.copy()
        apply_masks(again, plus, minus, block_bytes=block)
        assert np.array_equal(again, expected)
    for cut in (1, 7, 5001, length - 1):
        again = start.copy()
        apply_masks(again[cut:], plus, minus, start_word=cut)
        apply_masks(again[:cut], plus, minus)
        assert np.array_equal(again, expected)


# 47: replayed entropy


class Replayed:
    """An entropy source that starts again from the same point: a cloned machine, a snapshot, a broken generator."""

    def __init__(self) -> None:
        self._fresh = SeededEntropy("same")

    def rewind(self) -> None:
        """Everything that was drawn will be drawn again."""
        self._fresh = SeededEntropy("same")

    def draw(self, size: int) -> bytes:
        """The next bytes of the one stream."""
        return self._fresh.draw(size)


def two_slots_of_replayed_entropy() -> tuple[Harness, bytes, list, list]:
    """One site uploads the same vector in two slots, its entropy rewound before each."""
    h = Harness.make(5)
    h.open_epoch()
    site, source = h.ids[0], Replayed()
    h.sites[site] = SiteMachine.load(h.party(site), h.rules, source, h.sites[site].dump(), restarted=False)
    outs, shares = [], []
    vector = np.arange(64)
    for number in (1, 2):
        announcement = h.coordinator.announce(h.plan(length=64), (number, 0))
        h.sites[site].accept(announcement, now=NOW, ledger_head=LEDGER)
        source.rewind()
        out = h.sites[site].upload(announcement, vector, now=NOW)
        outs.append(out)
        shares.append(
            [
                open_blob(h, out.message.header, member, blob)
                for member, blob in zip(h.coordinator.record.members, out.message.blobs, strict=True)
            ]
        )
        h.coordinator.abandon()
    return h, site, outs, shares


def test_attack_47_replayed_entropy_repeats_no_mask_across_two_h0() -> None:
    """The same draws in two slots: own mask, pair masks and commitments differ, the difference hides the vector."""
    _, _, outs, _ = two_slots_of_replayed_entropy()
    first, second = (out.message.header for out in outs)
    pairs = itertools.product(range(0, len(first.commits), 32), repeat=2)
    assert all(first.commits[a : a + 32] != second.commits[b : b + 32] for a, b in pairs)
    words = [np.frombuffer(out.body, "<u4") for out in outs]
    assert np.count_nonzero(words[0] == words[1]) < 4


def test_attack_47_replayed_entropy_repeats_no_seed_across_two_h0() -> None:
    """A seed that the committee opens in slot 1 (b, or s towards a dropped site) is no seed of slot 2."""
    h, _, _, shares = two_slots_of_replayed_entropy()
    threshold = h.coordinator.record.threshold
    seeds = [
        {seed.tobytes() for seed in recover(range(1, threshold + 1), np.stack([rows for _, rows in one[:threshold]]))}
        for one in shares
    ]
    assert [len(one) for one in seeds] == [5, 5]
    assert seeds[0].isdisjoint(seeds[1])


def test_attack_47_replayed_entropy_repeats_no_sharing_polynomial_across_two_h0() -> None:
    """One member's two shares of b must not differ by b − b′: a seed opened in slot 1 would open slot 2 as well.

    With the same coefficients under two constant terms, share(1) − share(2) = secret(1) − secret(2) at every
    x, so the differences that two members hold would be equal.
    """
    _, _, _, shares = two_slots_of_replayed_entropy()
    prime = 2**31 - 1
    differences = []
    for (_, old), (_, new) in zip(*shares, strict=True):
        differences.append((old.astype(np.int64) - new.astype(np.int64)) % prime)
    for one, other in itertools.combinations(differences, 2):
        assert np.count_nonzero(one == other) <= 1


# 48: guessing the sum


def test_attack_48_a_one_bit_sum_is_not_found_from_its_commitment_without_the_salt() -> None:
    """Everybody holds the transcript; every candidate sum is tried with every public 32 bytes as salt: no match."""
    h = Harness.make(3)
    h.open_epoch()
    announcement = h.coordinator.announce(h.plan(length=1, complete=True), (1, 0))
    for at, site in enumerate(h.ids):
        h.upload(announcement, site, np.array([at == 0], dtype=np.int64))
    h.coordinator.close()
    opened, transcript = h.vote_and_release()
    public = transcript.encode()
    salts = {public[at : at + 32] for at in range(len(public) - 31)} | {bytes(32), b"\xff" * 32}
    h0, survivors = announcement.h0, transcript.survivors
    guesses = [np.array([bit], "<i8").tobytes() for bit in (0, 1)]
    assert opened.values == guesses[1]
    assert opened.salt not in salts
    for salt, values in itertools.product(salts, guesses):
        assert OpenedSum(salt, values).commitment(h0, survivors) != transcript.sum_commitment
    assert opened.commitment(h0, survivors) == transcript.sum_commitment
    verify_transcript(transcript, h.authority.verify_key, opened)
    for false in (OpenedSum(opened.salt, guesses[0]), OpenedSum(bytes(32), guesses[1])):
        with pytest.raises(Unverified, match="commits"):
            verify_transcript(transcript, h.authority.verify_key, false)


def test_attack_48_equal_sums_of_two_slots_have_unrelated_commitments_and_salts() -> None:
    """The same count in two rounds cannot be recognised, nor one round's opening shown for the other."""
    h = Harness.make(3)
    h.open_epoch()
    seen = []
    for number in (1, 2):
        announcement = h.coordinator.announce(h.plan(length=1, complete=True), (number, 0))
        for site in h.ids:
            h.upload(announcement, site, np.array([1], dtype=np.int64))
        h.coordinator.close()
        seen.append(h.vote_and_release())
    (first, one), (second, two) = seen
    assert first.values == second.values
    assert first.salt != second.salt
    assert one.sum_commitment != two.sum_commitment
    h0 = [one.announcement.h0, two.announcement.h0]
    bound = {first.commitment(a, b) for a in h0 for b in (one.survivors, two.survivors)}
    assert len(bound) == 4, "an opening must speak of one slot and one survivor set only"
    with pytest.raises(Unverified):
        verify_transcript(two, h.authority.verify_key, first)
