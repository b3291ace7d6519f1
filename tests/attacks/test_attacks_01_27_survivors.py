"""Attacks on the choice of survivors: 2, 3, 4, 5, 6, 7, 15."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from privfl_keys import Label

from privfl.errors import Malformed, Refused, RoundAborted, Unverified
from privfl.secagg import Accumulator, Equivocation
from privfl.secagg import site as site_module
from privfl.secagg.messages import ABORT, Ask
from privfl.secagg.reconstruct import reconstruct
from privfl.secagg.slot import ring_of
from tests.attacks._tools_a import (
    Slot,
    forged,
    ready,
    refused,
    reply_key,
    resigned,
    signed_vote,
    turned_away,
    upload,
)
from tests.harness import LEDGER, NOW, Harness, SeededEntropy

BYSTANDER = b"\xaa" * 32


def attempt(slot: Slot, sites: list[bytes], releases: list[Any]) -> np.ndarray[Any, Any]:
    """What a coordinator gets out of releases for ``sites``: the sum over them, or an error."""
    opened = [slot.opened(message, sites) for message in releases]
    messages = {message.member: message for message in releases}
    keys = reconstruct(slot.layout(sites), opened, reply_key(slot.h), messages.__getitem__)
    total = Accumulator(ring_of(slot.a), slot.a.length)
    for site in sites:
        total.add(slot.out[site].message.header, slot.out[site].body)
    return total.unmask(keys.plus, keys.minus)


# -- 2 ------------------------------------------------------------------------------------------------


def test_attack_02_b_and_s_shares_are_never_released_for_one_site() -> None:
    """The coordinator asks for the release of U, then for U without a site, to hold both seeds of that site.

    Every release that a member ever makes in the slot names, per site, its b or pair seeds with it, never both;
    the second request fails with the old certificate, with a forged one, and even with a genuine second one.
    """
    slot = Slot.run(ready(5))
    h, everyone, fewer = slot.h, slot.h.ids, slot.h.ids[1:]
    votes = slot.votes(everyone, everyone)
    colluders = [signed_vote(h, member, slot.a, slot.choice(fewer)) for member in everyone]
    for member in everyone:
        slot.release(member, everyone, votes)
        refused(h.sites[member], Unverified, "another survivor set", slot.release, member, fewer, votes)
        refused(h.sites[member], Unverified, "quorum", slot.release, member, fewer, colluders[:3])
        refused(h.sites[member], Refused, "already released", slot.release, member, fewer, colluders)
    for sites in (everyone, fewer):
        layout = slot.layout(sites)
        pairs = [layout.pair_of(dealer, int(row)) for dealer, rows in enumerate(layout.rows) for row in rows]
        own = {low for low, high in pairs if high is None}
        bared = {site for low, high in pairs if high is not None for site in (low, high) if site not in sites}
        assert own == set(sites)
        assert not own & bared
        assert len(pairs) == len(sites) * (1 + len(everyone) - len(sites))


def test_attack_02_a_release_survives_a_crash_and_binds_after_it() -> None:
    """The member crashes after it released: restarted, it repeats the same bytes for U and refuses any other U."""
    slot = Slot.run(ready(5))
    h, member, fewer = slot.h, slot.h.ids[0], slot.h.ids[1:]
    votes = slot.votes(h.ids, h.ids)
    first = slot.release(member, h.ids, votes)
    h.reload(member)
    assert slot.release(member, h.ids, votes).encode() == first.encode()
    genuine = [signed_vote(h, one, slot.a, slot.choice(fewer)) for one in h.ids]
    refused(h.sites[member], Refused, "already released", slot.release, member, fewer, genuine)


# -- 3, 4 ---------------------------------------------------------------------------------------------


def test_attack_03_duplicate_ids_are_refused_everywhere() -> None:
    """One id twice in a cohort, a survivor list, or the adverts shown to sites: refused, with evidence if signed."""
    slot = Slot.run(ready(4))
    h, a, member = slot.h, slot.a, slot.h.ids[0]
    twice = [*h.ids, h.ids[-1]]
    wrong = forged(h, a, cohort=b"".join(sorted(twice)), round=2, seq=2)
    turned_away(h, member, wrong, Refused, "duplicates")
    headers, blobs = slot.headers(twice), slot.ask(member, twice).blobs
    for order in (headers, headers[::-1]):
        refused(h.sites[member], Refused, "twice", h.sites[member].vote, Ask(a, order, blobs, ()), now=NOW)
    # padding U with a repeated colluder to reach min_survivors
    padded = [*h.ids[:2], h.ids[1]]
    ask = Ask(a, slot.headers(padded), slot.ask(member, padded).blobs, ())
    refused(h.sites[member], Refused, "twice", h.sites[member].vote, ask, now=NOW)


def test_attack_03_unsorted_survivors_have_no_second_hash() -> None:
    """The same survivors in another order would have the same H(U): the order is refused, not re-sorted."""
    slot = Slot.run(ready(4))
    h, member = slot.h, slot.h.ids[0]
    ask = slot.ask(member, h.ids)
    turned = replace(ask, headers=ask.headers[::-1], blobs=ask.blobs[::-1])
    refused(h.sites[member], Refused, "unsorted", h.sites[member].vote, turned, now=NOW)


def test_attack_04_unknown_ids_are_refused_everywhere() -> None:
    """An id outside roster, epoch or cohort in a cohort, a survivor list, or an advert list: refused or left out."""
    h = ready(5)
    outsider = h.ids[4]
    slot = Slot.run(h, cohort=h.ids[:4], min_survivors=4)
    a, member = slot.a, h.ids[0]
    for extra in (BYSTANDER, h.coordinator_key.verify_key.site_id):
        wrong = forged(h, a, cohort=b"".join(sorted([*a.sites, extra])), round=2, seq=2)
        turned_away(h, member, wrong, Refused, "outside")
    broken = forged(h, a, cohort=a.cohort + b"x", round=2, seq=2)
    turned_away(h, member, broken, Malformed, "remainder")
    refused(
        h.sites[outsider], Refused, "not in the announced", h.sites[outsider].accept, a, now=NOW, ledger_head=LEDGER
    )
    # a site of the epoch, but not of the cohort, signs a header for the slot
    alien = resigned(h, replace(slot.headers(h.ids[:1])[0], site=outsider))
    ask = slot.ask(member, h.ids[:4])
    more = replace(ask, headers=tuple(sorted((*ask.headers, alien), key=lambda one: one.site)), blobs=(*ask.blobs, b""))
    refused(h.sites[member], Unverified, "outside the cohort", h.sites[member].vote, more, now=NOW)
    with pytest.raises(Unverified, match="outside the cohort"):
        h.coordinator.receive(replace(slot.out[h.ids[0]].message, header=alien), slot.out[h.ids[0]].body)


def test_attack_04_adverts_of_strangers_are_left_out() -> None:
    """Somebody who is not in the roster advertises: excluded with a reason, and no share is dealt to it."""
    h, stranger = Harness.make(4), Harness.make(4)
    scope = h.coordinator.start_epoch()
    adverts = [h.sites[site].advertise(1) for site in h.ids]
    stranger.coordinator.start_epoch()
    other = stranger.sites[stranger.ids[0]].advertise(1)
    posing = replace(other, scope=scope)
    posing = replace(posing, signature=stranger.keys[stranger.ids[0]].sign(Label.ADVERT, posing.digest))
    with pytest.raises(Unverified):
        h.coordinator.receive_advert(posing)
    out, excluded = h.sites[h.ids[0]].contribute([*adverts, other, posing])
    assert [site for site, _ in excluded] == [stranger.ids[0]] * 2
    assert {message.recipient for message in out} == set(h.ids[1:])


# -- 5 ------------------------------------------------------------------------------------------------


def test_attack_05_a_site_told_that_it_is_dropped_votes_normally_and_records_it() -> None:
    """The coordinator hides an upload: the site votes and releases as any member, records the censorship across
    a crash and an epoch, and its vector stays outside the sum and hidden.
    """
    slot = Slot.run(ready(4))
    h, victim, rest = slot.h, slot.h.ids[1], [site for site in slot.h.ids if site != slot.h.ids[1]]
    votes = slot.votes(rest, h.ids)
    assert h.sites[victim].censored == (slot.a.h0,)
    assert all(h.sites[site].censored == () for site in rest)
    releases = [slot.release(member, rest, votes) for member in h.ids]
    total = attempt(slot, rest, releases[: slot.a.threshold])
    assert np.array_equal(total, sum(slot.vectors[site] for site in rest))
    slot.vote(victim, rest)  # asked again: recorded once
    h.reload(victim)
    assert h.sites[victim].censored == (slot.a.h0,)
    h.open_epoch()
    assert h.sites[victim].censored == (slot.a.h0,)


def test_attack_05_a_site_that_never_uploaded_records_nothing() -> None:
    """Honest dropout is not censorship: a silent site that votes on the others' U makes no record."""
    h = ready(4)
    h.round(dropped=h.ids[:1])
    a = h.coordinator.announce(h.plan(), (2, 0))
    h.sites[h.ids[0]].accept(a, now=NOW, ledger_head=LEDGER)  # and dies before the upload
    slot = Slot.of(h, a, h.ids[1:])
    slot.votes(h.ids[1:], h.ids)
    assert all(machine.censored == () for machine in h.sites.values())


# -- 6 ------------------------------------------------------------------------------------------------


def test_attack_06_two_survivor_sets_for_one_slot() -> None:
    """The coordinator shows a member U and then U′: one vote, whatever crashes between; its reply is repeated."""
    slot = Slot.run(ready(5))
    h, first, second = slot.h, slot.h.ids, slot.h.ids[1:]
    for member in h.ids:
        before = h.sites[member].dump()
        cast = slot.vote(member, first)
        refused(h.sites[member], Refused, "votes once", slot.vote, member, second)
        refused(h.sites[member], Refused, "votes once", h.sites[member].vote_abort, slot.a)
        h.reload(member)  # crash after the vote was durable
        refused(h.sites[member], Refused, "votes once", slot.vote, member, second)
        assert slot.vote(member, first).encode() == cast.encode()
        if member == h.ids[0]:
            stored = h.sites[member].dump()
            h.reload(member, before)  # crash before it was durable: nothing was sent, so any U may be voted
            assert slot.vote(member, second).choice != cast.choice
            h.reload(member, stored)


def test_attack_06_after_abort_no_survivor_set_is_voted() -> None:
    """A member that voted ABORT votes for no U, across a crash; after a release it does not vote ABORT either."""
    slot = Slot.run(ready(4))
    h, member = slot.h, slot.h.ids[0]
    assert h.sites[member].vote_abort(slot.a).choice == ABORT
    h.reload(member)
    refused(h.sites[member], Refused, "votes once", slot.vote, member, h.ids)
    votes = [signed_vote(h, one, slot.a, slot.choice(h.ids)) for one in h.ids]
    fresh = h.ids[1]
    slot.release(fresh, h.ids, votes)
    refused(h.sites[fresh], Refused, "abort", h.sites[fresh].vote_abort, slot.a)


@pytest.mark.parametrize(("bad", "both"), [(1, False), (2, False), (3, True)])
def test_attack_06_rolled_back_members_break_the_slot_only_beyond_the_bound(bad: int, both: bool) -> None:
    """Members restored from backups (``bad`` of 5, c_L = 1, t = 4) vote for two U; 2t − L = 3 of them are needed.

    Honest members are split as well as the coordinator can. Up to two double voters give one certificate at
    most; three give two, and the difference of the two sums is one site's vector: the bound is tight.
    """
    slot = Slot.run(ready(5))
    h, first, second = slot.h, slot.h.ids, slot.h.ids[1:]
    twins, honest = h.ids[:bad], h.ids[bad:]
    stored = {member: h.sites[member].dump() for member in h.ids}
    half = (len(honest) + 1) // 2
    groups = (first, [*twins, *honest[:half]]), (second, [*twins, *honest[half:]])
    certified = 0
    sums = []
    for sites, voters in groups:
        for member in twins:
            h.reload(member, stored[member], restarted=False)
        votes = slot.votes(sites, voters)
        releases = []
        for member in voters:
            try:
                releases.append(slot.release(member, sites, votes))
            except Unverified:
                assert len(votes) < slot.a.threshold
        if len(votes) >= slot.a.threshold:
            certified += 1
            sums.append(attempt(slot, list(sites), releases))
    assert certified == 2 if both else certified <= 1
    if both:
        assert np.array_equal(sums[0] - sums[1], slot.vectors[h.ids[0]])


def test_attack_06_double_votes_are_kept_as_evidence() -> None:
    """A corrupt member votes for two U: the first vote stands, and both go into the coordinator's state, once."""
    h = ready(5)
    a = h.coordinator.announce(h.plan(), (1, 0))
    vectors = h.vectors(a)
    for site in h.ids:
        h.upload(a, site, vectors[site])
    h.coordinator.close()
    member = h.ids[0]
    first = h.sites[member].vote(h.coordinator.ask(member), now=NOW)
    second = signed_vote(h, member, a)
    h.coordinator.receive_vote(first)
    for _ in range(2):
        with pytest.raises(Equivocation) as caught:
            h.coordinator.receive_vote(second)
    assert caught.value.evidence == (first.encode(), second.encode())
    h.reload_coordinator()
    assert h.coordinator.slot.evidence == (caught.value.evidence,)
    opened, transcript = h.vote_and_release()
    assert np.array_equal(opened.array(), sum(vectors.values()))
    assert transcript.evidence == (caught.value.evidence,)


# -- 7 ------------------------------------------------------------------------------------------------


def test_attack_07_survivors_or_threshold_below_policy() -> None:
    """The coordinator announces t or min below the rules, or shows a U below min: nobody accepts, votes or releases."""
    h = ready(7)  # c = 2, t = 5, min 5
    slot = Slot.run(h)
    a, member = slot.a, h.ids[6]
    machine = h.sites[member]
    changes: tuple[dict[str, Any], ...] = (
        {"threshold": 4},
        {"threshold": 1},
        {"threshold": 0},
        {"threshold": 8},
        {"min_survivors": 4},  # c + 2, but below the policy of this site
        {"min_survivors": 3},
        {"min_survivors": 8},
        {"complete": True},
        {"complete": True, "threshold": 3},
        {"complete": True, "min_survivors": 7},
    )
    for change in changes:
        wrong = forged(h, a, None, round=2, seq=2, **change)
        refused(machine, Refused, None, machine.accept, wrong, now=NOW, ledger_head=LEDGER)
    few = h.ids[:4]
    refused(machine, Refused, "fewer than the 5", slot.vote, member, few)
    votes = [signed_vote(h, one, a, slot.choice(few)) for one in h.ids]
    refused(machine, Refused, "fewer than the 5", slot.release, member, few, votes)
    weak = forged(h, a, min_survivors=4)  # the members are shown a weaker announcement than the sites
    ask = replace(slot.ask(member, few), announcement=weak)
    refused(machine, Refused, "below this site's policy", machine.vote, ask, now=NOW)
    cert = [signed_vote(h, one, a, slot.choice(h.ids)) for one in h.ids[: a.threshold - 1]]
    refused(machine, Unverified, "quorum", slot.release, member, h.ids, cert)


def test_attack_07_the_honest_coordinator_opens_nothing_below_the_minimum() -> None:
    """One upload too few: the coordinator's machine aborts, and the slot cannot be driven on."""
    h = ready(5)
    a = h.coordinator.announce(h.plan(), (1, 0))
    for site in h.ids[:3]:
        h.upload(a, site, np.zeros(8, np.int64))
    with pytest.raises(RoundAborted, match="3 of 5"):
        h.coordinator.close()
    h.coordinator.abandon()
    with pytest.raises(Refused, match="finish"):
        h.coordinator.finish()
    assert h.coordinator.slot.reply_secret == b""


# -- 15 -----------------------------------------------------------------------------------------------


def test_attack_15_two_models_in_one_slot_give_at_most_one_certificate() -> None:
    """The coordinator signs two announcements for one slot and shows half of the sites each.

    Sites accept one; members act on the first H0 they see; of all splits at most one reaches t votes. The seeds
    under the two H0 have nothing in common.
    """
    h = ready(5)
    one = h.coordinator.announce(h.plan(), (1, 0))
    two = forged(h, one, inputs=b"j" * 32)
    assert one.slot == two.slot
    left, right = Slot.of(h, one, h.ids[:3]), Slot.of(h, two, h.ids[3:])
    for site in h.ids[:3]:
        turned_away(h, site, two, Refused, "not after")
    # neither side has enough uploads; a rich coordinator would need every site twice
    for slot, member in ((left, h.ids[0]), (right, h.ids[4])):
        refused(h.sites[member], Refused, "fewer than", slot.vote, member, list(slot.out))
    commits = [
        header.commits[at : at + 32]
        for slot in (left, right)
        for header in slot.headers(slot.out)
        for at in range(0, len(header.commits), 32)
    ]
    shared = len(commits) - len(set(commits))
    assert shared == 3 + 1  # pairs inside {0, 1, 2} and {3, 4}; none across the two H0


def test_attack_15_seeds_under_two_announcements_are_unrelated(monkeypatch: pytest.MonkeyPatch) -> None:
    """A site's store is rolled back, so that it uploads under two H0 of one slot and seq from the same pair keys: no
    seed of one upload is a seed of the other, also when its entropy repeats.
    """
    made: list[list[bytes]] = []
    make = site_module._Seeds.make

    def spied(*args: Any) -> Any:
        seeds = make(*args)
        made.append(seeds.values)
        return seeds

    monkeypatch.setattr(site_module._Seeds, "make", staticmethod(spied))
    h = ready(4)
    one = h.coordinator.announce(h.plan(), (1, 0))
    two = forged(h, one, nonce=b"n" * 32)
    victim, stored = h.ids[0], h.sites[h.ids[0]].dump()
    for a in (one, two):
        h.entropy = SeededEntropy("replayed")
        h.reload(victim, stored, restarted=False)
        upload(h, victim, a, np.zeros(8, np.int64))
    assert [len(seeds) for seeds in made] == [4, 4]
    assert len(set(made[0] + made[1])) == 8


def test_attack_15_a_member_acts_on_one_announcement_per_slot() -> None:
    """With every site's upload under both H0 (twins by rollback), honest members still act on the first H0 only."""
    h = ready(5)
    one = h.coordinator.announce(h.plan(), (1, 0))
    two = forged(h, one, inputs=b"j" * 32)
    stored = {site: h.sites[site].dump() for site in h.ids}
    left = Slot.of(h, one)
    for site in h.ids:
        h.reload(site, stored[site], restarted=False)
    right = Slot.of(h, two)
    voted = {member: left.vote(member, h.ids) for member in h.ids[:3]}
    for member in h.ids[:3]:
        refused(h.sites[member], Refused, "two announcements", right.vote, member, h.ids)
        refused(h.sites[member], Refused, "two announcements", h.sites[member].vote_abort, two)
        votes = [signed_vote(h, other, two, right.choice(h.ids)) for other in h.ids]
        refused(h.sites[member], Refused, "two announcements", right.release, member, h.ids, votes)
    others = right.votes(h.ids, h.ids[3:])
    assert len(voted) < one.threshold
    assert len(others) < one.threshold
