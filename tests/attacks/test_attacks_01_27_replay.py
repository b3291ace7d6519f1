"""Attacks by repetition: 10 replay, 11 rounds run twice or rolled back, 12 re-upload."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from privfl.errors import Refused, Unverified
from privfl.secagg import ABORT, CoordinatorMachine, Equivocation, RolledBack, Upload
from privfl.secagg.party import Party
from privfl.secagg.site import blob_hash
from tests.attacks._tools_a import (
    Slot,
    confirmed,
    forged,
    noiseless,
    ready,
    refused,
    resigned,
    signed_vote,
    state_of,
    turned_away,
    with_roster,
)
from tests.harness import LEDGER, NOW, Harness

# -- 10 -----------------------------------------------------------------------------------------------


def test_attack_10_epoch_messages_of_another_epoch_or_federation() -> None:
    """Adverts, contributions, confirmations and records of epoch 1 are shown again in epoch 2, and those of a second
    federation with the same keys: every one is left out or refused.
    """
    h = Harness.make(4)
    twin = with_roster(h, replace(h.roster, federation="twin"))
    old_adverts = {site: h.sites[site].advertise(1) for site in h.ids}
    old_sent = {site: h.sites[site].contribute(tuple(old_adverts.values()))[0] for site in h.ids}
    inbox = {site: [m for out in old_sent.values() for m in out if m.recipient == site] for site in h.ids}
    old_confirmed = {site: h.sites[site].confirm(inbox[site])[0] for site in h.ids}
    twin_adverts = {site: twin.sites[site].advertise(1) for site in h.ids}
    h.coordinator.start_epoch(1)
    record, confirmations = confirmed(h)  # epoch 2
    assert record.scope.epoch == 2
    me, rest = h.ids[0], h.ids[1:]
    shown = tuple(old_confirmed.values())
    refused(h.sites[me], Refused, "no confirmed pair key", h.sites[me].join, record, shown, now=NOW)
    stale = replace(record, adverts=tuple(old_adverts.values()))
    refused(h.sites[me], Unverified, "another epoch", h.sites[me].join, stale, confirmations, now=NOW)
    h.sites[me].join(record, confirmations, now=NOW)
    new = {site: h.sites[site].advertise(3) for site in h.ids}
    for adverts in (old_adverts, twin_adverts):
        before = h.sites[me].dump()
        out, excluded = h.sites[me].contribute([new[me], *(adverts[site] for site in rest)])
        assert (out, {site for site, _ in excluded}) == ((), set(rest))
        h.reload(me, before, restarted=False)
    h.sites[me].contribute(tuple(new.values()))
    message, excluded = h.sites[me].confirm(inbox[me])
    assert message.peers == b""
    assert {site for site, _ in excluded} == set(rest)


def test_attack_10_an_announcement_of_another_epoch() -> None:
    """A valid announcement of epoch 1 is shown again in epoch 2, as it was and with the new record's hash alone."""
    h = ready(4)
    old = h.coordinator.announce(h.plan(), (5, 0))
    h.coordinator.abandon()
    h.open_epoch()
    site = h.ids[0]
    turned_away(h, site, old, Refused, "another epoch record")
    turned_away(h, site, forged(h, old, record=h.coordinator.record.digest), Refused, "another epoch record")
    turned_away(h, site, forged(h, old, scope=h.coordinator.record.scope), Refused, "another epoch record")


def test_attack_10_headers_blobs_votes_and_releases_of_another_slot() -> None:
    """What was signed or sealed in slot 1 is put into slot 2: headers and votes are refused, a blob does not open,
    a release is not taken; the sum of slot 2 is exact all the same.
    """
    h = ready(5)
    old = Slot.run(h, (1, 0))
    old_votes = old.votes(h.ids, h.ids)
    old_release = old.release(h.ids[0], h.ids, old_votes)
    h.coordinator.abandon()
    new = Slot.run(h, (2, 0))
    member, dealer = h.ids[0], h.ids[4]
    mixed = replace(new.ask(member, h.ids), headers=(*new.headers(h.ids[:4]), *old.headers(h.ids[4:])))
    refused(h.sites[member], Unverified, "another slot", h.sites[member].vote, mixed, now=NOW)
    with pytest.raises(Unverified, match="another slot"):
        h.coordinator.receive(old.out[dealer].message, old.out[dealer].body)
    renamed = resigned(h, old.headers([dealer])[0], h.keys[h.ids[0]], h0=new.a.h0)
    with pytest.raises(Unverified, match="signature"):
        h.coordinator.receive(Upload(renamed, old.out[dealer].message.blobs), old.out[dealer].body)
    # the dealer colludes and signs a header of slot 2 that names the blobs of slot 1
    blobs = old.out[dealer].message.blobs
    header = resigned(h, new.headers([dealer])[0], blobs=b"".join(blob_hash(blob) for blob in blobs))
    new.out[dealer] = new.out[dealer]._replace(message=Upload(header, blobs))
    votes = new.votes(h.ids, h.ids)
    assert all(vote.complaints == dealer for vote in votes if vote.member != dealer)
    refused(h.sites[member], Unverified, "another slot", new.release, member, h.ids, old_votes)
    refused(h.sites[member], Unverified, "another slot", new.release, member, h.ids, (*votes[:3], old_votes[4]))
    release = new.release(member, h.ids, votes)
    assert not new.opened(release, h.ids).present[4]
    for out in new.out.values():
        h.coordinator.receive(out.message, out.body)
    h.coordinator.close()
    for vote in old_votes:
        with pytest.raises(Unverified, match="another slot"):
            h.coordinator.receive_vote(vote)
    for vote in votes:
        h.coordinator.receive_vote(vote)
    with pytest.raises(Unverified, match="another slot"):
        h.coordinator.receive_release(old_release)


def test_attack_10_votes_of_another_epoch_or_round_make_no_certificate() -> None:
    """U votes and ABORT votes with the right (round, attempt) but of the epoch before, or of another round: refused."""
    h = ready(4, rules=noiseless(3))
    first = Slot.run(h, (1, 0))
    old_aborts = tuple(h.sites[member].vote_abort(first.a) for member in h.ids)
    wrong_round = forged(h, first.a, round=2, attempt=1, seq=2, aborts=old_aborts)
    turned_away(h, h.ids[0], wrong_round, Refused, "carries 0")
    wrong_attempt = forged(h, first.a, attempt=2, seq=2, aborts=old_aborts)
    turned_away(h, h.ids[0], wrong_attempt, Refused, "carries 0")
    doubled = forged(h, first.a, attempt=1, seq=2, aborts=old_aborts[:2] * 4)
    turned_away(h, h.ids[0], doubled, Refused, "carries 2")
    h.coordinator.abandon()
    h.open_epoch()
    again = h.coordinator.announce(h.plan(task=b"T" * 32), (1, 0))
    retry = forged(h, again, attempt=1, seq=again.seq + 1, aborts=old_aborts)
    turned_away(h, h.ids[0], retry, Unverified, "another epoch")
    slot = Slot.of(h, again)
    wrongs: tuple[dict[str, Any], ...] = ({"round": 2}, {"attempt": 1}, {"h0": first.a.h0}, {"choice": ABORT})
    for wrong in wrongs:
        other = [signed_vote(h, one, again, **{"choice": slot.choice(h.ids), **wrong}) for one in h.ids]
        refused(h.sites[h.ids[0]], Unverified, "another slot", slot.release, h.ids[0], h.ids, other)
    moved = [signed_vote(h, one, again, slot.choice(h.ids), scope=first.a.scope) for one in h.ids]
    refused(h.sites[h.ids[0]], Unverified, "another epoch", slot.release, h.ids[0], h.ids, moved)


# -- 11 -----------------------------------------------------------------------------------------------


def test_attack_11_a_round_run_twice() -> None:
    """The coordinator, or its store rolled back, announces a slot again: the same bytes, other bytes, an earlier
    attempt or round, a seq that does not rise; a site takes none of them, restarted or not.
    """
    h = ready(4)
    backup = h.coordinator.dump()
    slot = Slot.run(h, (5, 3))
    site = h.ids[0]
    party = Party(h.coordinator_key, h.roster)
    rolled = CoordinatorMachine.load(party, h.signed, h.entropy, h.shelf, backup)
    again = rolled.announce(h.plan(), (5, 3))
    assert again.h0 != slot.a.h0
    for _ in range(2):
        turned_away(h, site, slot.a, Refused, "not after")
        turned_away(h, site, again, Refused, "not after")
        for at in ((5, 2), (4, 9), (0, 0), (1, 1000)):
            turned_away(h, site, forged(h, slot.a, round=at[0], attempt=at[1], seq=9), Refused, "not after")
        for seq in (0, 1):
            turned_away(h, site, forged(h, slot.a, round=6, attempt=0, seq=seq), Refused, "does not rise")
        h.reload(site)
    before, other = state_of(h.sites[site]).slot, forged(h, slot.a, round=6, attempt=0, seq=2)
    h.sites[site].accept(other, now=NOW, ledger_head=LEDGER)
    assert (before.round, before.attempt, state_of(h.sites[site]).slot.round) == (5, 3, 6)


def test_attack_11_jumps_are_bounded() -> None:
    """One announcement with an extreme round, attempt or seq would end the epoch for good: gaps are at most 1024."""
    h = ready(4)
    a = h.coordinator.announce(h.plan(), (1, 0))
    site = h.ids[0]
    for change in ({"round": 1025}, {"round": 2**32 - 1}, {"attempt": 1025}, {"attempt": 2**32 - 1}):
        turned_away(h, site, forged(h, a, None, **change), Refused, "jumps")
    for seq in (1025, 2**64 - 1):
        turned_away(h, site, forged(h, a, seq=seq), Refused, "must lie in")
    refused(h.sites[site], Refused, "does not follow", h.sites[site].advertise, 1026)
    h.sites[site].accept(forged(h, a, round=1024, attempt=1024, seq=1024), now=NOW, ledger_head=LEDGER)


def test_attack_11_a_site_whose_store_was_rolled_back_stops() -> None:
    """A site's store is restored from before its upload; the honest coordinator shows its newer head: RolledBack,
    in this epoch and the next, though the site could otherwise accept. Forged heads and heads of others do nothing.
    """
    h = ready(4)
    site, other = h.ids[0], h.ids[1]
    stored = h.sites[site].dump()
    h.round((1, 0))
    kept = h.sites[site].dump()
    h.reload(site, stored)
    a = h.coordinator.announce(h.plan(), (2, 0))
    mine = next(head for head in a.seen if head.site == site)
    turned_away(h, site, a, RolledBack, "older copy")
    refused(h.sites[site], RolledBack, "older copy", h.sites[site].examine, a, now=NOW)
    for forgery in (replace(mine, header=b"z" * 32), replace(mine, ledger_head=b"z" * 32)):
        turned_away(h, site, forged(h, a, seen=(forgery,)), Unverified, "signature")
    others = tuple(head for head in a.seen if head.site != site)
    turned_away(h, site, forged(h, a, seen=(*others, mine)), RolledBack, None)  # also as the last of several
    turned_away(h, site, forged(h, a, seen=(mine, mine)), RolledBack, None)
    h.coordinator.abandon()
    h.open_epoch()
    turned_away(h, site, h.coordinator.announce(h.plan(), (1, 0)), RolledBack, "older copy")
    h.coordinator.abandon()
    # the store in order: the same head is known, in the next epoch too, and rounds go on
    fine = ready(4)
    fine.round((1, 0))
    fine.open_epoch()
    for number in (1, 2):
        total, expected, _ = fine.round((number, 0))
        assert np.array_equal(total, expected)
    assert h.sites[other].censored == ()
    assert len(kept) > len(stored)


def test_attack_11_a_headless_rollback_still_gives_no_second_vote_after_the_floor() -> None:
    """The coordinator withholds heads: a member that took up slot 2, as a site only, acts in no slot before it."""
    h = ready(4)
    first = Slot.run(h, (1, 0))
    second = forged(h, first.a, round=2, seq=2, seen=())
    for member in h.ids:
        h.sites[member].accept(second, now=NOW, ledger_head=LEDGER)
        h.reload(member)
        refused(h.sites[member], Refused, "lies before", first.vote, member, h.ids)
        refused(h.sites[member], Refused, "lies before", h.sites[member].vote_abort, first.a)
        votes = [signed_vote(h, one, first.a, first.choice(h.ids)) for one in h.ids]
        refused(h.sites[member], Refused, "lies before", first.release, member, h.ids, votes)


# -- 12 -----------------------------------------------------------------------------------------------


def test_attack_12_a_second_upload_with_other_bytes() -> None:
    """A corrupt site uploads again with another vector, other blobs or another signed header: the first stands, the
    two headers are kept as evidence, and the sum is that of the first.
    """
    h = ready(4)
    slot = Slot.run(h)
    corrupt = h.ids[2]
    for out in slot.out.values():
        assert h.coordinator.receive(out.message, out.body)
    good = slot.out[corrupt]
    header = good.message.header
    assert not h.coordinator.receive(good.message, good.body[::-1])  # a repeat adds nothing, whatever follows it
    with pytest.raises(Unverified, match="blobs"):
        h.coordinator.receive(Upload(header, good.message.blobs[::-1]), good.body)
    other = resigned(h, header, body=b"x" * 32)
    for _ in range(3):
        with pytest.raises(Equivocation, match="twice"):
            h.coordinator.receive(Upload(other, good.message.blobs), good.body)
    assert h.coordinator.slot.evidence == ((header.encode(), other.encode()),)
    h.coordinator.close()
    opened, transcript = h.vote_and_release()
    assert np.array_equal(opened.array(), sum(slot.vectors.values()))
    assert transcript.evidence == ((header.encode(), other.encode()),)


def test_attack_12_the_site_resends_the_stored_bytes_or_nothing() -> None:
    """A site's driver is made to send something else as its repeat, before or after a crash: refused."""
    slot = Slot.run(ready(4))
    h, site = slot.h, slot.h.ids[0]
    sent = slot.out[site].message
    changed = Upload(resigned(h, sent.header, body=b"x" * 32), sent.blobs)
    for _ in range(2):
        h.sites[site].check_resend(sent)
        refused(h.sites[site], Refused, "not the bytes", h.sites[site].check_resend, changed)
        refused(h.sites[site], Refused, "not the bytes", h.sites[site].check_resend, slot.out[h.ids[1]].message)
        h.reload(site)
    h.sites[site].accept(forged(h, slot.a, round=2, seq=2), now=NOW, ledger_head=LEDGER)
    refused(h.sites[site], Refused, "resend", h.sites[site].check_resend, sent)
