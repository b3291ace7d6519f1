"""Attacks on keys, rosters and the epoch's choices: 8, 9, 20, 22."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from privfl_keys import Label, Member, Roster, RosterBook, SealingPublicKey, SignedRoster, SigningKey, VerifyKey

from privfl.errors import Misuse, Refused, Theirs, Unverified
from privfl.secagg import Rules, SiteMachine, Upload
from privfl.secagg.messages import join, survivors_hash
from tests.attacks._tools_a import (
    BLANK,
    Slot,
    confirmed,
    forged,
    ready,
    refused,
    resigned,
    signed_vote,
    turned_away,
    with_roster,
)
from tests.harness import LEDGER, NOW, POLICY, Harness, SeededEntropy

P = 2**255 - 19
Y8 = int.from_bytes(bytes.fromhex("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05"), "little")


def successor(h: Harness, **changes: Any) -> Roster:
    """The authority's next roster."""
    return h.roster.succeed(graph_seed=b"g" * 32, valid_from=0, valid_until=10**15, **changes)


# -- 8 ------------------------------------------------------------------------------------------------


def test_attack_08_record_with_other_numbers_committee_or_graph() -> None:
    """The coordinator fixes a record with its own t, c, c_L, graph, committee or order: no site joins, and each
    joins the honest record afterwards.
    """
    h = Harness.make(7)
    record, confirmations = confirmed(h)
    turned = tuple(reversed(record.adverts))
    changes: tuple[dict[str, Any], ...] = (
        {"threshold": record.threshold - 1},
        {"threshold": 2},
        {"threshold": record.threshold + 1},
        {"corrupt": 0},
        {"corrupt": record.corrupt + 1},
        {"committee_corrupt": 0},
        {"degree": 4},
        {"committee": record.committee[32:]},
        {"committee": record.committee[: 32 * 3]},
        {"committee": join(reversed(record.members))},
        {"committee": record.committee + record.committee[-32:]},
        {"committee": record.committee[:-32] + b"\xff" * 32},
        {"committee": b""},
        {"adverts": turned},
        {"adverts": (*record.adverts, record.adverts[-1])},
        {"adverts": record.adverts[:3], "committee": record.committee[: 32 * 3]},
        {"scope": replace(record.scope, epoch=2)},
        {"scope": replace(record.scope, federation="other")},
    )
    for change in changes:
        for site in (h.ids[0], h.ids[6]):
            machine = h.sites[site]
            bad = replace(record, **change)
            refused(machine, (Refused, Theirs), None, machine.join, bad, confirmations, now=NOW)
    for site in h.ids:
        assert h.sites[site].join(record, confirmations, now=NOW) == ()
        refused(h.sites[site], Refused, "join", h.sites[site].join, record, confirmations, now=NOW)


def test_attack_08_records_over_fewer_sites_keep_the_absolute_bound() -> None:
    """A record that lists only some of the willing sites lowers neither c nor the least number of honest sites."""
    h = Harness.make(10)  # c = 3
    record, confirmations = confirmed(h)
    few = record.adverts[:5]
    committee = join(advert.site for advert in few)
    for corrupt, committee_corrupt, t in ((1, 1, 4), (3, 1, 4), (3, 3, 4), (1, 3, 5)):
        bad = replace(record, adverts=few, committee=committee, corrupt=corrupt)
        bad = replace(bad, committee_corrupt=committee_corrupt, threshold=t)
        refused(h.sites[h.ids[0]], Refused, "bounds", h.sites[h.ids[0]].join, bad, confirmations, now=NOW)
    four = replace(record, adverts=few[:4], committee=committee[: 32 * 4], committee_corrupt=3, threshold=4)
    refused(h.sites[h.ids[0]], Refused, "smaller than", h.sites[h.ids[0]].join, four, confirmations, now=NOW)
    five = replace(record, adverts=few, committee=committee, threshold=5)
    h.sites[h.ids[0]].join(five, confirmations, now=NOW)  # lawful: t = 5 of 5, at least c + 2 sites in a sum
    assert h.sites[h.ids[0]].record.threshold == 5


def test_attack_08_other_policy_mode_or_minimum_than_the_sites_own() -> None:
    """An announcement under another policy hash, in a mode the party did not agree to, or with a lower minimum: a
    site does not accept it, and a member that did not upload neither votes nor releases, certificate or not.
    """
    for rules, complete in (
        (Rules(b"q" * 32, 4), False),
        (Rules(POLICY, 4, allow_voted=False), False),
        (Rules(POLICY, 4, allow_complete=False), True),
        (Rules(POLICY, 5), False),
    ):
        h = ready(5, min_survivors=4)
        site, rest = h.ids[0], h.ids[1:]
        slot = Slot.run(h, sites=rest, complete=complete, cohort=rest, min_survivors=4)
        strict = h.sites[site] = SiteMachine.load(h.party(site), rules, h.entropy, h.sites[site].dump(), restarted=True)
        turned_away(h, site, slot.a, Refused, "policy")
        votes = [signed_vote(h, one, slot.a, slot.choice(rest)) for one in rest]
        if not complete:
            refused(strict, Refused, "policy", slot.vote, site, rest)
        refused(strict, Refused, "policy", slot.release, site, rest, votes)
        refused(strict, Refused, "policy", strict.vote_abort, slot.a)


def test_attack_08_fixed_committee_with_absent_members_is_not_refilled() -> None:
    """The roster seats 9 of 66; two are absent. The coordinator cannot seat others or shrink t, an absent seat gets
    no blob that anybody could open, and the seven present ones open the exact sum.
    """
    h = Harness.make(66, committee=9, degree=12, corrupt=5, min_survivors=44, entropy=SeededEntropy("seats"))
    seats = list(h.roster.committee)
    absent, gone = seats[2:4], set(seats[2:4])
    here = [site for site in h.ids if site not in gone]
    h.open_epoch(here)
    record = h.coordinator.record
    assert (list(record.members), record.threshold) == (seats, (9 + record.committee_corrupt) // 2 + 1)
    a = h.coordinator.announce(h.plan(), (1, 0))
    vectors = h.vectors(a)
    for site in a.sites:
        h.upload(a, site, vectors[site])
    h.coordinator.close()
    ask = h.coordinator.ask(absent[0])
    assert set(ask.blobs) == {b""}
    usurper = next(site for site in here if site not in seats)
    posing = replace(ask, blobs=h.coordinator.ask(seats[0]).blobs)
    refused(h.sites[usurper], Refused, "committee", h.sites[usurper].vote, posing, now=NOW)
    fake = signed_vote(h, usurper, a, ask_choice(h))
    with pytest.raises(Unverified, match="outside the committee"):
        h.coordinator.receive_vote(fake)
    for member in seats:
        if member not in gone:
            h.coordinator.receive_vote(h.sites[member].vote(h.coordinator.ask(member), now=NOW))
    for member in seats:
        if member not in gone:
            h.coordinator.receive_release(h.sites[member].release(h.coordinator.ask(member), now=NOW))
    total = h.coordinator.finish()[0].array()
    assert np.array_equal(total, sum(vectors[header.site] for header in h.coordinator.slot.inside()))


def ask_choice(h: Harness) -> bytes:
    """H(U) of the slot in hand."""
    return survivors_hash(h.coordinator.slot.current().h0, h.coordinator.slot.inside())


# -- 9 ------------------------------------------------------------------------------------------------


def test_attack_09_substituted_or_unsigned_epoch_keys() -> None:
    """The coordinator puts its own sealing key under a victim's id (unsigned, self-signed, signed by a colluder):
    the others seal nothing to it, and the victim notices that its own advert is missing.
    """
    h = Harness.make(4)
    h.coordinator.start_epoch()
    adverts = {site: h.sites[site].advertise(1) for site in h.ids}
    victim, colluder = h.ids[0], h.ids[3]
    for key in (h.coordinator_key, h.keys[colluder], SigningKey.generate(SeededEntropy(5)), None):
        swapped = replace(adverts[victim], key=adverts[colluder].key, signature=BLANK)
        if key is not None:
            swapped = replace(swapped, signature=key.sign(Label.ADVERT, swapped.digest))
        shown = [swapped, *(adverts[site] for site in h.ids[1:])]
        before = h.sites[h.ids[1]].dump()
        out, excluded = h.sites[h.ids[1]].contribute(shown)
        assert [site for site, _ in excluded] == [victim]
        assert {message.recipient for message in out} == set(h.ids[2:])
        h.reload(h.ids[1], before)
        refused(h.sites[victim], Refused, "own advert", h.sites[victim].contribute, shown)
        with pytest.raises(Unverified):
            h.coordinator.receive_advert(swapped)


def test_attack_09_substituted_or_unsigned_contributions() -> None:
    """A contribution signed by the wrong key, by none, or with another sealed part gives no pair key."""
    h = Harness.make(4)
    h.coordinator.start_epoch()
    for site in h.ids:
        h.coordinator.receive_advert(h.sites[site].advertise(1))
    sent = {site: h.sites[site].contribute(h.coordinator.adverts)[0] for site in h.ids}
    me, peer = h.ids[0], h.ids[1]
    honest = next(message for message in sent[peer] if message.recipient == me)
    other = next(message for message in sent[peer] if message.recipient == h.ids[2])
    rest = [message for site in h.ids[2:] for message in sent[site] if message.recipient == me]
    forger = h.keys[h.ids[3]]
    resealed = replace(honest, sealed=honest.sealed[:-1] + bytes([honest.sealed[-1] ^ 1]))
    for bad in (
        replace(honest, signature=BLANK),
        replace(honest, signature=forger.sign(Label.CONTRIBUTION, *honest.binding(), honest.sealed)),
        resealed,
        replace(resealed, signature=h.keys[peer].sign(Label.CONTRIBUTION, *honest.binding(), resealed.sealed)),
        other,
        replace(other, recipient=me, signature=honest.signature),
    ):
        before = h.sites[me].dump()
        message, excluded = h.sites[me].confirm([bad, *rest])
        assert [site for site, _ in excluded] == [peer]
        assert peer not in [message.peers[at : at + 32] for at in range(0, len(message.peers), 32)]
        h.reload(me, before, restarted=False)


def test_attack_09_announcements_and_headers_under_wrong_keys() -> None:
    """Announcements signed by a site, a stranger or nobody, and headers signed by another site: refused."""
    slot = Slot.run(ready(4))
    h, a, site = slot.h, slot.a, slot.h.ids[0]
    stranger = SigningKey.generate(SeededEntropy(6))
    for key in (h.keys[site], stranger, h.authority):
        turned_away(h, site, forged(h, a, key, round=2, seq=2), Unverified, None)
        named = forged(h, a, key, round=2, seq=2, coordinator=key.verify_key.site_id)
        turned_away(h, site, named, Unverified, None)
    turned_away(h, site, replace(a, round=2, seq=2), Unverified, None)
    good = slot.headers(h.ids[1:2])[0]
    for bad in (replace(good, signature=BLANK), resigned(h, good, h.keys[h.ids[2]]), resigned(h, good, stranger)):
        ask = slot.ask(site, h.ids)
        ask = replace(ask, headers=(ask.headers[0], bad, *ask.headers[2:]))
        refused(h.sites[site], Unverified, "signature", h.sites[site].vote, ask, now=NOW)
        with pytest.raises(Unverified, match="signature"):
            h.coordinator.receive(Upload(bad, slot.out[h.ids[1]].message.blobs), slot.out[h.ids[1]].body)


def test_attack_09_an_expired_roster_serves_nothing() -> None:
    """The roster runs out in the middle of a slot: no join, accept, vote or release at or after that time."""
    h = Harness.make(4)
    end = NOW + 10
    h = with_roster(h, replace(h.roster, valid_until=end))
    record, confirmations = confirmed(h)
    site = h.ids[0]
    refused(h.sites[site], Unverified, "expired", h.sites[site].join, record, confirmations, now=end)
    for one in h.ids:
        h.sites[one].join(record, confirmations, now=NOW)
    a = h.coordinator.announce(h.plan(), (1, 0))
    refused(h.sites[site], Unverified, "expired", h.sites[site].accept, a, now=end, ledger_head=LEDGER)
    slot = Slot.of(h, a)
    refused(h.sites[site], Unverified, "expired", h.sites[site].vote, slot.ask(site, h.ids), now=end)
    votes = slot.votes(h.ids, h.ids)
    ask = slot.ask(site, h.ids, votes)
    refused(h.sites[site], Unverified, "expired", h.sites[site].release, ask, now=end)
    assert h.sites[site].release(ask, now=end - 1).member == site


def test_attack_09_a_revoked_site_or_coordinator_is_out_at_once() -> None:
    """The authority revokes a site, or the coordinator's key: sites that hold the new roster go on in no old epoch,
    seal nothing to the revoked site, and accept nothing that the old coordinator signed.
    """
    slot = Slot.run(ready(5))
    h, gone = slot.h, slot.h.ids[4]
    new = with_roster(h, successor(h, revoke=[gone]))
    site = h.ids[0]
    turned_away(new, site, forged(h, slot.a, round=2, seq=2), Refused, "another roster")
    refused(new.sites[site], Refused, "another roster", new.sites[site].vote, slot.ask(site, h.ids), now=NOW)
    votes = [signed_vote(h, one, slot.a, slot.choice(h.ids)) for one in h.ids]
    ask = slot.ask(site, h.ids, votes)
    refused(new.sites[site], Refused, "another roster", new.sites[site].release, ask, now=NOW)
    refused(new.sites[gone], Unverified, "revoked", new.sites[gone].advertise, 2)
    stay = h.ids[:4]
    adverts = [new.sites[one].advertise(2) for one in stay]
    late = replace(h.sites[gone].advertise(2), scope=adverts[0].scope)
    late = replace(late, signature=h.keys[gone].sign(Label.ADVERT, late.digest))
    out, excluded = new.sites[site].contribute([*adverts, late])
    assert [one for one, _ in excluded] == [gone]
    assert gone not in {message.recipient for message in out}
    fresh = SigningKey.generate(SeededEntropy(8))
    members = [m for m in h.roster.members if "coordinator" not in m.roles]
    members.append(Member("coordinator 2", fresh.verify_key.raw, ("coordinator",)))
    turned = with_roster(h, successor(h, members=members, revoke=[h.coordinator_key.verify_key.site_id]))
    turned.coordinator_key = fresh
    moved = forged(turned, slot.a, h.coordinator_key, round=2, seq=2)
    turned_away(turned, site, moved, Unverified, "revoked")


# -- 20 -----------------------------------------------------------------------------------------------


def test_attack_20_roster_rollback_gap_and_equivocation() -> None:
    """Old, skipped, forked or doubly signed rosters: refused by a site's book, across a restart, with evidence."""
    h = Harness.make(5)
    book = RosterBook()
    book.pin("test", h.authority.verify_key)
    one = h.signed
    two = successor(h, revoke=[h.ids[0]]).sign(h.authority)
    other = successor(h, revoke=[h.ids[1]]).sign(h.authority)
    three = two.roster.succeed(graph_seed=b"k" * 32, valid_from=0, valid_until=10**15).sign(h.authority)
    book.accept(one, now=NOW)
    for bad, why in ((three, "missing"), (SignedRoster(two.roster, other.signature), "signature")):
        with pytest.raises(Unverified, match=why):
            book.accept(bad, now=NOW)
    impostor = SigningKey.generate(SeededEntropy(9))
    with pytest.raises(Unverified):
        book.accept(two.roster.sign(impostor), now=NOW)
    book.accept(two, now=NOW)
    book = RosterBook.load(book.dump())
    with pytest.raises(Unverified, match="older"):
        book.accept(one, now=NOW)
    with pytest.raises(Unverified, match="two rosters"):
        book.accept(other, now=NOW)
    book.evidence[0].verify(h.authority.verify_key)
    assert book.current("test", NOW).hash == two.roster.hash


def test_attack_20_sites_under_two_rosters_share_no_key() -> None:
    """The authority (or a thief of its key) shows two rosters: sites exclude every advert made under the other."""
    h = Harness.make(6)
    left = with_roster(h, successor(h, revoke=[h.ids[5]]))
    right = with_roster(h, successor(h, revoke=[h.ids[0]]))
    a = {site: left.sites[site].advertise(1) for site in h.ids[1:3]}
    b = {site: right.sites[site].advertise(1) for site in h.ids[3:5]}
    for group, own, alien in ((left, a, b), (right, b, a)):
        for site in own:
            out, excluded = group.sites[site].contribute([*a.values(), *b.values()])
            assert {one for one, _ in excluded} == set(alien)
            assert {message.recipient for message in out} == set(own) - {site}


def test_attack_20_sybils_need_the_authority() -> None:
    """The coordinator invents members, doubles one under two names, or seats itself: no such roster verifies."""
    h = Harness.make(4)
    fresh = [SigningKey.generate(SeededEntropy(seed)) for seed in range(3)]
    sybils = [Member(f"sybil-{at}", key.verify_key.raw, ("site",)) for at, key in enumerate(fresh)]
    packed = successor(h, members=[*h.roster.members, *sybils])
    signature = h.coordinator_key.sign(Label.ROSTER_SIGNED, packed.hash)
    for forgery in (h.signed.signature, signature, BLANK):
        with pytest.raises(Unverified):
            SignedRoster(packed, forgery).verify(h.authority.verify_key)
    with pytest.raises(Misuse, match="appears twice"):
        replace(h.roster, members=(*h.roster.members, replace(h.roster.members[-1], name="again")))
    with pytest.raises(Misuse, match="share a name"):
        successor(h, members=[*h.roster.members, replace(sybils[0], name="SITE-1")])
    with pytest.raises(Misuse, match="coordinator"):
        Member("both", fresh[0].verify_key.raw, ("coordinator", "site"))
    h.coordinator.start_epoch()
    adverts = [h.sites[site].advertise(1) for site in h.ids]
    alien = replace(adverts[0], site=fresh[0].verify_key.site_id)
    alien = replace(alien, signature=fresh[0].sign(Label.ADVERT, alien.digest))
    out, excluded = h.sites[h.ids[0]].contribute([*adverts, alien])
    assert [site for site, _ in excluded] == [alien.site]
    assert len(out) == 3


# -- 22 -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("y", [0, 1, P - 1, Y8, P - Y8, *range(P, 1 << 255)])
@pytest.mark.parametrize("sign", [0, 1 << 255])
def test_attack_22_small_order_and_non_canonical_ed25519_keys(y: int, sign: int) -> None:
    """A key of small order verifies one signature for every message: neither alone nor in a roster is it loaded;
    nor is any of the encodings of y at or above p, under which a key would be two identities.
    """
    raw = (y | sign).to_bytes(32, "little")
    with pytest.raises(Unverified):
        VerifyKey(raw)
    with pytest.raises(Unverified):
        Member("weak", raw, ("site",))


@pytest.mark.parametrize(
    "u", ["00" * 32, "01" + "00" * 31, "ec" + "ff" * 30 + "7f", "ed" + "ff" * 30 + "7f", "ee" + "ff" * 30 + "7f"]
)
def test_attack_22_small_order_x25519_in_adverts_and_reply_keys(u: str) -> None:
    """A colluder advertises a hybrid key whose X25519 part is of small order, or the coordinator announces one: the
    first is left out by every site, the second is not accepted.
    """
    h, weak = ready(4), bytes.fromhex(u)
    site, good = h.ids[0], h.coordinator.announce(h.plan(), (1, 0))
    turned_away(h, site, forged(h, good, reply_key=good.reply_key[:-32] + weak), Unverified, "X25519")
    adverts = [h.sites[one].advertise(2) for one in h.ids]
    poor = replace(adverts[3], key=adverts[3].key[:-32] + weak)
    poor = replace(poor, signature=h.keys[h.ids[3]].sign(Label.ADVERT, poor.digest))
    out, excluded = h.sites[site].contribute([*adverts[:3], poor])
    assert [one for one, _ in excluded] == [h.ids[3]]
    assert len(out) == 2


def test_attack_22_all_zero_key_material() -> None:
    """All-zero signing, verifying and sealing keys, signatures and pair contributions: refused or unusable."""
    with pytest.raises(Unverified):
        VerifyKey(bytes(32))
    with pytest.raises(Unverified):
        SealingPublicKey(bytes(1216))
    h = Harness.make(4)
    adverts = [h.sites[site].advertise(1) for site in h.ids]
    blank = replace(adverts[1], key=bytes(1216))
    blank = replace(blank, signature=h.keys[h.ids[1]].sign(Label.ADVERT, blank.digest))
    out, excluded = h.sites[h.ids[0]].contribute([adverts[0], blank, *adverts[2:]])
    assert [one for one, _ in excluded] == [h.ids[1]]
    assert len(out) == 2
    full = replace(adverts[1], signature=BLANK)
    assert [one for one, _ in h.sites[h.ids[2]].contribute([adverts[0], full, *adverts[2:]])[1]] == [h.ids[1]]
