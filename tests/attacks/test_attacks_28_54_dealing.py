"""Attacks with false shares, blobs, releases and commitments: whoever lies is named, and nobody else."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from privfl_keys import Label, content_digest

from privfl.codec import decode
from privfl.errors import Refused, RoundAborted, Unverified
from privfl.secagg import Blame, Header, Release, TooFewShares, Upload, merkle
from privfl.secagg.committee import SHARE_BYTES
from privfl.secagg.coordinator import reply_key
from privfl.secagg.messages import release_part, split
from privfl.secagg.reconstruct import Layout
from privfl.secagg.shamir import LIMBS
from privfl.secagg.site import blob_info
from tests.attacks._tools_b import headed, off_by_one, open_blob, redeal, rerelease, take
from tests.harness import NOW, Harness


def collecting(n: int = 5, **plan: object) -> tuple[Harness, dict, np.ndarray]:
    """A slot in which everyone has uploaded but the coordinator has seen nothing yet; and the plain vectors."""
    h = Harness.make(n)
    h.open_epoch()
    announcement = h.coordinator.announce(h.plan(**plan), (1, 0))  # type: ignore[arg-type]
    return h, take(h, announcement, h.ids), h.vectors(announcement)


def deliver(h: Harness, sent: dict, forged: Upload | None = None) -> None:
    """Hand the uploads over, one of them exchanged, and fix U."""
    for site, out in sent.items():
        message = forged if forged is not None and forged.header.site == site else out.message
        h.coordinator.receive(message, out.body)
    h.coordinator.close()


def certify(h: Harness) -> dict[bytes, frozenset[bytes]]:
    """Everyone votes; returns each member's complaints."""
    complaints = {}
    for member, ask in h.asks().items():
        vote = h.sites[member].vote(ask, now=NOW)
        complaints[member] = frozenset(split(vote.complaints))
        h.coordinator.receive_vote(vote)
    return complaints


def releases(h: Harness) -> dict[bytes, Release]:
    """What honest members release."""
    return {member: h.sites[member].release(ask, now=NOW) for member, ask in h.asks().items()}


def blamed(blames: tuple[Blame, ...]) -> list[tuple[str, tuple[bytes, ...]]]:
    """Who was named, and as what."""
    return [(blame.kind, blame.sites) for blame in blames]


def proven(h: Harness, blame: Blame) -> bool:
    """A third party's check of the evidence against a member: signed release, opened parts, dealer's signed root.

    Uses public things only: the roster's keys and the evidence itself.
    """
    header, release = Header.decode(blame.evidence[0]), Release.decode(blame.evidence[1])
    shares, proofs = blame.evidence[2], blame.evidence[3]
    h.roster.require(header.site, "site").verify(header.signature, Label.HEADER, header.digest, header.ledger_head)
    h.roster.require(release.member, "site").verify(release.signature, Label.RELEASE, *release.binding())
    if (release.shares_hash, release.proofs_hash) != (release_part(shares, "shares"), release_part(proofs, "proofs")):
        return False
    topology, slot = h.coordinator.topology(), h.coordinator.slot
    layout = Layout(topology, slot.current(), slot.inside())
    dealer = [one.site for one in layout.headers].index(header.site)
    sites, x = len(layout.headers), topology.record.members.index(release.member) + 1
    salt = shares[sites + 32 * dealer : sites + 32 * dealer + 32]
    values = np.frombuffer(shares[33 * sites :], "<u4").reshape(-1, LIMBS).astype(np.uint32)
    key = merkle.leaf_key(header.h0, header.site, release.member, salt)
    start = int(layout.starts[dealer])
    leaves = {int(row): merkle.leaf(key, int(row), values[start + at]) for at, row in enumerate(layout.rows[dealer])}
    proof = decode(proofs)
    assert isinstance(proof, tuple)
    assert isinstance(proof[dealer], bytes)
    try:
        merkle.verify_multi(
            header.roots[32 * (x - 1) : 32 * x], len(header.commits) // 32, leaves, split(proof[dealer])
        )
    except Unverified:
        return True
    return False


# 35: a blob copied under another dealer, member or H0


def test_attack_35_a_blob_copied_under_another_dealer_is_complained_of_and_opens_nothing() -> None:
    """A corrupt dealer puts an honest dealer's blob, root and all, into its own header: the member cannot open it."""
    h, sent, vectors = collecting()
    thief, honest, member = h.ids[0], h.ids[1], h.ids[2]
    at = h.coordinator.record.members.index(member)
    mine, theirs = sent[thief].message, sent[honest].message
    blobs = (*mine.blobs[:at], theirs.blobs[at], *mine.blobs[at + 1 :])
    spot = slice(32 * at, 32 * at + 32)
    roots = mine.header.roots[: spot.start] + theirs.header.roots[spot] + mine.header.roots[spot.stop :]
    names = b"".join(content_digest(Label.BLOB_HASH, blob) for blob in blobs)
    deliver(h, sent, Upload(headed(h, mine.header, blobs=names, roots=roots), blobs))
    complaints = certify(h)
    assert complaints == {one: frozenset({thief} if one == member else ()) for one in h.ids}
    for release in releases(h).values():
        h.coordinator.receive_release(release)
    opened, transcript = h.coordinator.finish()
    assert np.array_equal(opened.array(), sum(vectors.values()))
    assert transcript.blames == ()


def test_attack_35_a_blob_handed_to_another_member_is_refused() -> None:
    """The coordinator shows member 2 the blob that was dealt to member 1: no vote, no release, no complaint."""
    h, sent, _ = collecting()
    deliver(h, sent)
    asks = h.asks()
    first, second = h.ids[:2]
    before = h.sites[second].dump()
    with pytest.raises(Refused, match="not the one its header names"):
        h.sites[second].vote(replace(asks[second], blobs=asks[first].blobs), now=NOW)
    assert h.sites[second].dump() == before


def test_attack_35_a_blob_of_another_slot_is_refused_or_complained_of() -> None:
    """Last slot's blob: refused as the wrong bytes if the header names others; dead if the dealer signs it anew."""
    h, sent, _ = collecting()
    deliver(h, sent)
    h.vote_and_release()
    old = {site: out.message.blobs for site, out in sent.items()}
    dealer, member = h.ids[0], h.ids[1]
    at = h.coordinator.record.members.index(member)
    announcement = h.coordinator.announce(h.plan(), (2, 0))
    sent = take(h, announcement, h.ids)
    blobs = list(sent[dealer].message.blobs)
    blobs[at] = old[dealer][at]
    names = b"".join(content_digest(Label.BLOB_HASH, blob) for blob in blobs)
    deliver(h, sent, Upload(headed(h, sent[dealer].message.header, blobs=names), tuple(blobs)))
    complaints = certify(h)
    assert complaints[member] == {dealer}
    assert not any(complaints[other] for other in h.ids if other != member)


def test_attack_35_a_blob_opens_for_its_own_slot_dealer_and_seat_only() -> None:
    """The seal itself is bound: with the right key, every other H0, dealer, member, seat or advert fails to open."""
    h, sent, _ = collecting()
    dealer, member = h.ids[0], h.ids[1]
    record, header = h.coordinator.record, sent[dealer].message.header
    at = record.members.index(member)
    epoch = h.sites[member]._state.epoch
    assert epoch is not None
    assert epoch.advert is not None
    key, blob = epoch.sealing_key(), sent[dealer].message.blobs[at]
    true = (header.h0, dealer, member, at + 1, epoch.advert.digest)
    key.open(blob, Label.BLOB, *blob_info(*true))
    for place, other in enumerate((bytes(32), h.ids[2], h.ids[3], at + 2, bytes(32))):
        false = (*true[:place], other, *true[place + 1 :])
        with pytest.raises(Unverified):
            key.open(blob, Label.BLOB, *blob_info(*false))  # type: ignore[arg-type]


# 38: dealers that frame members, and members that lie


def frame(h: Harness, sent: dict, forge: Callable[[Upload], Upload], dealer: bytes) -> tuple[Blame, ...]:
    """Run the slot with one dealer's forged upload; returns every blame that arises."""
    deliver(h, sent, forge(sent[dealer].message))
    certify(h)
    for release in releases(h).values():
        h.coordinator.receive_release(release)
    try:
        _, transcript = h.coordinator.finish()
    except TooFewShares as error:
        return error.blames
    return transcript.blames


@pytest.mark.parametrize("victims", [1, 2])
@pytest.mark.parametrize("how", ["garbage blob", "shares off the root", "too short"])
def test_attack_38_a_dealer_whose_blob_does_not_open_frames_nobody(how: str, victims: int) -> None:
    """Bad blobs to c_L members or to more: they complain, never are named; above c_L the dealer is."""
    h, sent, _ = collecting()
    dealer, targets = h.ids[2], h.ids[:victims]

    def forge(upload: Upload) -> Upload:
        if how == "garbage blob":
            return redeal(h, upload, {}, right_root=False, garble=targets)
        edit = off_by_one if how == "shares off the root" else lambda shares: shares[:-1]
        return redeal(h, upload, dict.fromkeys(targets, edit), right_root=False)

    blames = frame(h, sent, forge, dealer)
    assert set(blamed(blames)) <= {("dealer", (dealer,))}
    assert bool(blames) == (victims > h.coordinator.record.committee_corrupt)
    if victims == 1:
        assert h.coordinator.slot.stage == "done"


@pytest.mark.parametrize("victims", [1, 2, 5])
def test_attack_39_inconsistent_dealing_under_right_roots_names_the_dealer_alone(victims: int) -> None:
    """Wrong shares under roots that fit them: members hold what was signed, so only the dealer is named."""
    h, sent, _ = collecting()
    dealer = h.ids[2]
    targets = dict.fromkeys(h.ids[:victims], off_by_one)
    blames = frame(h, sent, lambda upload: redeal(h, upload, targets, right_root=True), dealer)
    assert blamed(blames) == [("dealer", (dealer,))]
    assert h.coordinator.slot.stage == "releasing"
    h.coordinator.abandon()
    rest = [site for site in h.ids if site != dealer]
    total, expected, _ = h.round((1, 1), cohort=rest)
    assert np.array_equal(total, expected)


def test_attack_39_commitment_to_another_seed_names_the_dealer_alone() -> None:
    """Consistent shares of one seed, a signed commitment to another: the dealer is named, no member."""
    h, sent, _ = collecting()
    dealer = h.ids[0]

    def forge(upload: Upload) -> Upload:
        commits = bytes(32) + upload.header.commits[32:]
        return Upload(headed(h, upload.header, commits=commits), upload.blobs)

    assert blamed(frame(h, sent, forge, dealer)) == [("dealer", (dealer,))]


def lying(h: Harness, release: Release, dealer: int, kind: str) -> Release:
    """A member's release with false shares of one dealer."""
    sites = len(h.coordinator.slot.inside())
    place = 33 * sites + dealer * SHARE_BYTES  # without dropout each dealer has one row

    def shares(plain: bytes) -> bytes:
        if kind == "false salt":
            at = sites + 32 * dealer
            return plain[:at] + bytes(32) + plain[at + 32 :]
        return plain[:place] + bytes(SHARE_BYTES) + plain[place + SHARE_BYTES :]

    def proofs(value: tuple) -> object:
        return b"no list" if kind == "no proofs" else value

    return rerelease(h, release, shares=shares, proofs=proofs)


@pytest.mark.parametrize("kind", ["false share", "false salt and share", "no proofs"])
def test_attack_38_a_lying_member_is_named_with_proof_and_the_sum_is_right(kind: str) -> None:
    """One member releases a share that its dealer never dealt: survived by a further share, named, provable."""
    h, sent, vectors = collecting()
    deliver(h, sent)
    certify(h)
    liar = h.coordinator.record.members[0]
    for member, release in releases(h).items():
        told = lying(h, release, 3, kind) if member == liar else release
        h.coordinator.receive_release(told)
    opened, transcript = h.coordinator.finish()
    assert np.array_equal(opened.array(), sum(vectors.values()))
    assert blamed(transcript.blames) == [("member", (liar,))]
    blame = h.coordinator.slot.blames[0]
    if kind != "no proofs":
        assert proven(h, blame)


def test_attack_38_evidence_of_a_lie_does_not_fit_an_honest_member() -> None:
    """The third party's check refuses the same accusation against a member whose shares lie under the root."""
    h, sent, _ = collecting()
    deliver(h, sent)
    certify(h)
    every = releases(h)
    liar, honest = h.coordinator.record.members[:2]
    for member, release in every.items():
        h.coordinator.receive_release(lying(h, release, 3, "false share") if member == liar else release)
    before = h.coordinator.slot
    h.coordinator.finish()
    blame = h.coordinator.slot.blames[0]
    key, release = reply_key(before), every[honest]
    info = (release.h0, release.survivors, honest)
    parts = tuple(
        key.open(sealed, Label.RELEASE_SEAL, *info, name)
        for sealed, name in ((release.sealed_shares, "shares"), (release.sealed_proofs, "proofs"))
    )
    assert not proven(h, replace(blame, sites=(honest,), evidence=(blame.evidence[0], release.encode(), *parts)))
    swapped = (blame.evidence[0], release.encode(), *blame.evidence[2:])
    assert not proven(h, replace(blame, sites=(honest,), evidence=swapped))


def test_attack_38_proofs_damaged_on_the_way_frame_no_honest_member() -> None:
    """A corrupt member makes proofs necessary and the wire damages an honest member's: an erasure, and no name."""
    h, sent, _ = collecting()
    deliver(h, sent)
    certify(h)
    every = releases(h)
    liar, damaged = h.coordinator.record.members[:2]
    for member, release in every.items():
        if member == liar:
            told = lying(h, release, 3, "false share")
        elif member == damaged:
            told = replace(release, sealed_proofs=release.sealed_proofs[:-1] + bytes([release.sealed_proofs[-1] ^ 1]))
        else:
            told = release
        h.coordinator.receive_release(told)
    with pytest.raises(TooFewShares) as caught:
        h.coordinator.finish()
    assert blamed(caught.value.blames) == [("member", (liar,))]


def test_attack_38_complaints_of_corrupt_members_alone_name_no_dealer() -> None:
    """c_L corrupt members claim that an honest dealer's blobs did not open: too few to name it, and the sum stands."""
    h, sent, vectors = collecting(7)
    deliver(h, sent)
    certify(h)
    corrupt = h.ids[: h.coordinator.record.committee_corrupt]
    for member, release in releases(h).items():
        told = rerelease(h, release, shares=lambda plain: bytes([0]) + plain[1:]) if member in corrupt else release
        h.coordinator.receive_release(told)
    opened, transcript = h.coordinator.finish()
    assert np.array_equal(opened.array(), sum(vectors.values()))
    assert transcript.blames == ()


# 40: disputed pairs


def dispute(h: Harness, sent: dict, liar: bytes, victims: list[bytes]) -> Upload:
    """The liar signs other commitments to the seeds it shares with the victims."""
    header = sent[liar].message.header
    commits = bytearray(header.commits)
    for victim in victims:
        at = 1 + split(header.neighbours).index(victim)
        commits[32 * at : 32 * at + 32] = b"\x07" * 32
    return Upload(headed(h, header, commits=bytes(commits)), sent[liar].message.blobs)


def test_attack_40_a_disputed_pair_is_dropped_by_the_coordinator_and_the_rest_is_summed() -> None:
    """One end of a pair signs another commitment: both ends leave U, the pair is named with both headers."""
    h, sent, vectors = collecting(7)
    liar, victim = h.ids[0], h.ids[3]
    deliver(h, sent, dispute(h, sent, liar, [victim]))
    inside = [header.site for header in h.coordinator.slot.inside()]
    assert inside == [site for site in h.ids if site not in (liar, victim)]
    opened, transcript = h.vote_and_release()
    assert np.array_equal(opened.array(), sum(vectors[site] for site in inside))
    assert blamed(transcript.blames) == [("pair", tuple(sorted((liar, victim))))]
    headers = {header.encode() for header in h.coordinator.slot.headers if header.site in (liar, victim)}
    assert set(h.coordinator.slot.blames[0].evidence) == headers


def test_attack_40_a_site_that_disputes_with_many_falls_alone() -> None:
    """More than c disputes can only come from a corrupt site: it is dropped, its victims stay."""
    h, sent, vectors = collecting(7)
    liar, victims = h.ids[0], h.ids[1:4]
    assert len(victims) > h.coordinator.record.corrupt
    deliver(h, sent, dispute(h, sent, liar, victims))
    assert [header.site for header in h.coordinator.slot.inside()] == h.ids[1:]
    opened, _ = h.vote_and_release()
    assert np.array_equal(opened.array(), sum(vectors[site] for site in h.ids[1:]))


def test_attack_40_members_refuse_a_survivor_set_that_keeps_a_disputed_pair() -> None:
    """A malicious coordinator keeps both ends in U: no vote, and no release on another certificate."""
    h, sent, _ = collecting(7)
    liar, victim = h.ids[0], h.ids[3]
    deliver(h, sent, dispute(h, sent, liar, [victim]))
    state = h.coordinator.slot
    honest = {member: h.coordinator.ask(member) for member in h.ids}
    votes = [h.sites[member].vote(honest[member], now=NOW) for member in h.ids]
    for at, member in enumerate(h.coordinator.record.members):
        blobs = tuple(
            (dispute(h, sent, liar, [victim]) if header.site == liar else sent[header.site].message).blobs[at]
            for header in state.headers
        )
        everyone = replace(honest[member], headers=state.headers, blobs=blobs)
        before = h.sites[member].dump()
        with pytest.raises(Refused, match="different seeds"):
            h.sites[member].vote(everyone, now=NOW)
        with pytest.raises(Refused, match="different seeds"):
            h.sites[member].release(replace(everyone, votes=tuple(votes)), now=NOW)
        assert h.sites[member].dump() == before


def test_attack_40_disputes_that_leave_too_few_abort_the_slot() -> None:
    """N = 5, c = 1: dropping a pair would leave three of at least four: nothing is opened."""
    h, sent, _ = collecting(5)
    forged = dispute(h, sent, h.ids[0], [h.ids[3]])
    with pytest.raises(RoundAborted, match="2 in dispute"):
        deliver(h, sent, forged)
    assert h.coordinator.slot.stage == "collecting"


# 49: shares of one pair seed from two dealings


def test_attack_49_shares_from_the_other_ends_dealing_are_erasures_and_named() -> None:
    """A member releases s_ij out of i's blob (i dropped, upload late) where j's was asked: off j's root, survived."""
    h, sent, vectors = collecting(5)
    gone, survivor, liar = h.ids[0], h.ids[2], h.coordinator.record.members[1]
    late = sent.pop(gone)
    deliver(h, sent)
    certify(h)
    at = h.coordinator.record.members.index(liar)
    _, dealt = open_blob(h, late.message.header, liar, late.message.blobs[at])
    theirs = dealt[1 + split(late.message.header.neighbours).index(survivor)]
    inside = [header.site for header in h.coordinator.slot.inside()]
    layout = Layout(h.coordinator.topology(), h.coordinator.slot.current(), h.coordinator.slot.inside())
    row = int(layout.starts[inside.index(survivor)]) + 1
    place = 33 * len(inside) + row * SHARE_BYTES

    def mixed(plain: bytes) -> bytes:
        return plain[:place] + theirs.astype("<u4").tobytes() + plain[place + SHARE_BYTES :]

    assert layout.pair_of(inside.index(survivor), int(layout.rows[inside.index(survivor)][1])) == (gone, survivor)
    for member, release in releases(h).items():
        h.coordinator.receive_release(rerelease(h, release, shares=mixed) if member == liar else release)
    opened, transcript = h.coordinator.finish()
    assert np.array_equal(opened.array(), sum(vectors[site] for site in inside))
    assert blamed(transcript.blames) == [("member", (liar,))]


def test_attack_49_members_open_no_blob_of_a_dealer_outside_the_survivors() -> None:
    """The coordinator slips a dropped site's blob into the request: refused whole; releases hold j's dealing only."""
    h, sent, _ = collecting(5)
    gone, member = h.ids[0], h.ids[1]
    late = sent.pop(gone)
    deliver(h, sent)
    ask = h.coordinator.ask(member)
    at = h.coordinator.record.members.index(member)
    with pytest.raises(Unverified, match="one blob per header"):
        h.sites[member].vote(replace(ask, blobs=(*ask.blobs, late.message.blobs[at])), now=NOW)
    instead = (late.message.blobs[at], *ask.blobs[1:])
    with pytest.raises(Refused, match="not the one its header names"):
        h.sites[member].vote(replace(ask, blobs=instead), now=NOW)


def test_attack_49_two_dealings_of_one_seed_share_no_polynomial() -> None:
    """i's and j's shares of the same s_ij differ everywhere, so a share of one dealing never helps the other."""
    h, sent, _ = collecting(5)
    i, j = h.ids[0], h.ids[1]
    for at, member in enumerate(h.coordinator.record.members):
        rows = []
        for dealer, peer in ((i, j), (j, i)):
            message = sent[dealer].message
            _, shares = open_blob(h, message.header, member, message.blobs[at])
            rows.append(shares[1 + split(message.header.neighbours).index(peer)])
        assert np.all(rows[0] != rows[1])
