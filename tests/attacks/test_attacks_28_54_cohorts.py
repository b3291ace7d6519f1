"""Attacks on who takes part: isolated victims, chosen cohorts, thresholds, certificates, two announcements."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from privfl_keys import Misuse, Roster

from privfl.errors import Refused, RoundAborted, Unverified
from privfl.secagg import Ask, Upload, Vote
from privfl.secagg.graph import required_neighbours
from privfl.secagg.messages import join
from tests.attacks._tools_b import announced, choice_of, headed, take, voted
from tests.harness import LEDGER, NOW, Harness


def voting(h: Harness, sites: list[bytes] | None = None, **plan: object) -> tuple[dict, dict]:
    """Run a slot up to the requests for votes; returns uploads and requests."""
    announcement = h.coordinator.announce(h.plan(**plan), (1, 0))  # type: ignore[arg-type]
    sent = take(h, announcement, h.ids if sites is None else sites)
    for out in sent.values():
        h.coordinator.receive(out.message, out.body)
    h.coordinator.close()
    return sent, h.asks()


# 28: contributions withheld except those of colluders


def starved(h: Harness, victim: bytes, colluders: set[bytes]) -> None:
    """Epoch set-up in which the coordinator hands the victim only the colluders' contributions."""
    scope = h.coordinator.start_epoch()
    for site in h.ids:
        h.coordinator.receive_advert(h.sites[site].advertise(scope.epoch))
    for site in h.ids:
        out, _ = h.sites[site].contribute(h.coordinator.adverts)
        h.coordinator.receive_contributions(out)
    for site in h.ids:
        shown = h.coordinator.contributions_for(site)
        if site == victim:
            shown = tuple(one for one in shown if one.sender in colluders)
        h.coordinator.receive_confirmations(h.sites[site].confirm(shown)[0])


def test_attack_28_victim_keyed_with_colluders_only_does_not_join_on_the_complete_graph() -> None:
    """E1 withheld: the victim would be masked by seeds the attacker knows; it does not join."""
    h = Harness.make(5)
    victim, colluder = h.ids[2], h.ids[0]
    starved(h, victim, {colluder})
    honest_record, confirmations = h.coordinator.fix_record()
    assert victim not in honest_record.sites
    everyone = replace(honest_record, adverts=h.coordinator.adverts, committee=join(h.ids), threshold=4)
    pair_only = replace(
        honest_record,
        adverts=tuple(one for one in h.coordinator.adverts if one.site in (victim, colluder)),
        committee=join(sorted((victim, colluder))),
        threshold=2,
    )
    before = h.sites[victim].dump()
    reasons = {"not in the epoch's record": honest_record, "no confirmed pair": everyone, "smaller than": pair_only}
    for reason, record in reasons.items():
        with pytest.raises(Refused, match=reason):
            h.sites[victim].join(record, confirmations, now=NOW)
    assert h.sites[victim].dump() == before


def test_attack_28_victim_keyed_with_colluders_only_uploads_in_no_sparse_slot() -> None:
    """Sparse graph: a neighbour without a confirmed key is never skipped; every slot that holds one is refused."""
    h = Harness.make(12, degree=6)
    victim = h.ids[5]
    starved(h, victim, set(h.ids[:3]))
    record, confirmations = h.coordinator.fix_record()
    for site in h.ids:
        h.sites[site].join(record, confirmations, now=NOW)
    announcement = h.coordinator.announce(h.plan(), (1, 0))
    keyed = {pair.peer for pair in h.sites[victim]._state.epoch.pairs if pair.confirmed}  # type: ignore[union-attr]
    near = set(h.coordinator.topology().neighbours(victim))
    assert keyed < near
    before = h.sites[victim].dump()
    with pytest.raises(Refused, match="no confirmed key"):
        h.sites[victim].accept(announcement, now=NOW, ledger_head=LEDGER)
    assert h.sites[victim].dump() == before


# 29: a sparse graph and a cohort picked around the victim


def test_attack_29_cohort_without_the_victims_honest_neighbours_is_never_opened() -> None:
    """The coordinator leaves out the victim's neighbours but for colluders: members refuse every U that holds it."""
    h = Harness.make(24, degree=8, corrupt=4)
    h.open_epoch()
    victim = h.ids[7]
    h.coordinator.announce(h.plan(), (1, 0))
    near = h.coordinator.topology().neighbours(victim)
    h.coordinator.abandon()
    left = [site for site in h.ids if site not in near[4:]]
    assert len(left) >= h.rules.min_survivors
    assert required_neighbours(8) > 4
    announcement = h.coordinator.announce(h.plan(left, min_survivors=h.rules.min_survivors), (2, 0))
    sent = take(h, announcement, left)
    for out in sent.values():
        h.coordinator.receive(out.message, out.body)
    try:
        h.coordinator.close()
        inside = {header.site for header in h.coordinator.slot.inside()}
    except RoundAborted:
        inside = set()
    assert victim not in inside
    member = h.ids[0]
    at = h.coordinator.record.members.index(member)
    headers = tuple(sent[site].message.header for site in sorted(left))
    blobs = tuple(sent[site].message.blobs[at] for site in sorted(left))
    with pytest.raises(Refused, match="neighbours"):
        h.sites[member].vote(Ask(announcement, headers, blobs, ()), now=NOW)


def test_attack_29_a_site_computes_its_neighbours_itself_and_from_the_whole_roster() -> None:
    """A header that lists other neighbours than the epoch's graph gives is unsound, whoever chose the cohort."""
    h = Harness.make(12, degree=6)
    h.open_epoch()
    sent, asks = voting(h)
    liar, member = h.ids[3], h.ids[0]
    header = sent[liar].message.header
    others = [site for site in h.ids if site != liar][:6]
    if join(others) == header.neighbours:
        others = [site for site in h.ids if site != liar][-6:]
    forged = headed(h, header, neighbours=join(others))
    headers = tuple(forged if one.site == liar else one for one in asks[member].headers)
    with pytest.raises(Unverified, match="neighbour list"):
        h.sites[member].vote(replace(asks[member], headers=headers), now=NOW)
    h.coordinator.abandon()
    fewer = h.coordinator.announce(h.plan(h.ids[1:]), (1, 1))
    topology = h.coordinator.topology()
    full = topology.full_graph()
    for site in fewer.sites:
        assert topology.neighbours(site) == tuple(one for one in full[site] if one != h.ids[0])


# 30: t > L, c relative to the cohort


def test_attack_30_threshold_is_the_records_whatever_the_coordinator_announces() -> None:
    """t above L, below the quorum, or 'fitting' the smaller cohort: refused by every site and member."""
    h = Harness.make(7)
    h.open_epoch()
    announcement = h.coordinator.announce(h.plan(h.ids[:5]), (1, 0))
    assert announcement.threshold == 5  # from L = 7 and c = 2, though the cohort has five
    for threshold in (0, 1, 2, 3, 4, 6, 7, 8, 2**32 - 1):
        with pytest.raises(Refused, match="threshold"):
            h.sites[h.ids[0]].accept(announced(h, announcement, threshold=threshold), now=NOW, ledger_head=LEDGER)
    with pytest.raises(Misuse):
        Roster.create("f", h.roster.members, graph_seed=bytes(32), valid_from=0, valid_until=1, corrupt_bound=6)


def test_attack_30_bounds_are_absolute_not_relative_to_the_cohort() -> None:
    """N = 7, c = 2: a cohort of three 'with one corrupt' would let two colluders subtract; at least four must be in."""
    h = Harness.make(7, min_survivors=4)
    h.open_epoch()
    with pytest.raises(Refused, match="min_survivors"):
        h.coordinator.announce(h.plan(h.ids[:3], min_survivors=3), (1, 0))
    lawful = h.coordinator.announce(h.plan(h.ids[:4], min_survivors=4), (1, 0))
    for changes in ({"min_survivors": 3}, {"cohort": join(h.ids[:3]), "min_survivors": 3}, {"min_survivors": 0}):
        with pytest.raises(Refused, match="min_survivors"):
            h.sites[h.ids[0]].accept(announced(h, lawful, **changes), now=NOW, ledger_head=LEDGER)
    h.sites[h.ids[0]].accept(lawful, now=NOW, ledger_head=LEDGER)
    strict = Harness.make(7, min_survivors=6)  # the site's own policy asks for more than the protocol
    strict.open_epoch()
    announcement = strict.coordinator.announce(strict.plan(min_survivors=5), (1, 0))
    with pytest.raises(Refused, match="policy"):
        strict.sites[strict.ids[0]].accept(announcement, now=NOW, ledger_head=LEDGER)


@pytest.mark.parametrize(
    "changes", [{"corrupt": 1}, {"committee_corrupt": 1}, {"threshold": 4}, {"threshold": 8}, {"degree": 4}], ids=str
)
def test_attack_30_a_record_with_other_bounds_than_the_rosters_is_not_joined(changes: dict[str, int]) -> None:
    """The coordinator lowers c, c_L or t, or thins the graph, in the epoch record: no site joins it."""
    h = Harness.make(7)
    scope = h.coordinator.start_epoch()
    for site in h.ids:
        h.coordinator.receive_advert(h.sites[site].advertise(scope.epoch))
    for site in h.ids:
        h.coordinator.receive_contributions(h.sites[site].contribute(h.coordinator.adverts)[0])
    for site in h.ids:
        h.coordinator.receive_confirmations(h.sites[site].confirm(h.coordinator.contributions_for(site))[0])
    record, confirmations = h.coordinator.fix_record()
    with pytest.raises(Refused):
        h.sites[h.ids[0]].join(replace(record, **changes), confirmations, now=NOW)  # type: ignore[arg-type]
    h.sites[h.ids[0]].join(record, confirmations, now=NOW)


# 31: three sites


def test_attack_31_three_sites_with_c_0_and_two_survivors_break_under_one_colluder() -> None:
    """Told that no site colludes, N = 3 opens sums of two: one colluder reads the other's vector. By name only."""
    h = Harness.make(3, corrupt="no site colludes", min_survivors=2)
    h.open_epoch()
    victim, colluder, dropped = h.ids
    announcement = h.coordinator.announce(h.plan(), (1, 0))
    vectors = h.vectors(announcement)
    for site in (victim, colluder):
        h.upload(announcement, site, vectors[site])
    h.coordinator.close()
    opened, _ = h.vote_and_release(silent=[dropped])
    assert np.array_equal(opened.array() - vectors[colluder], vectors[victim])


def test_attack_31_three_sites_by_default_never_open_a_sum_of_two() -> None:
    """The defaults c = 1, min = 3: no plan, announcement or survivor set of two gets past site or member."""
    h = Harness.make(3)
    with pytest.raises(Misuse, match="no site colludes"):
        Roster.create("f", h.roster.members, graph_seed=bytes(32), valid_from=0, valid_until=1, corrupt_bound=0)
    h.open_epoch()
    with pytest.raises(Refused, match="min_survivors"):
        h.coordinator.announce(h.plan(min_survivors=2), (1, 0))
    announcement = h.coordinator.announce(h.plan(complete=True), (1, 0))
    for changes in ({"complete": False, "min_survivors": 2, "threshold": 3}, {"min_survivors": 2}):
        with pytest.raises(Refused, match="min_survivors"):
            h.sites[h.ids[0]].accept(announced(h, announcement, **changes), now=NOW, ledger_head=LEDGER)
    pair = announced(h, announcement, cohort=join(h.ids[:2]), min_survivors=2)
    with pytest.raises(Refused, match="min_survivors"):
        h.sites[h.ids[0]].accept(pair, now=NOW, ledger_head=LEDGER)
    sent = take(h, announcement, h.ids)
    for out in sent.values():
        h.coordinator.receive(out.message, out.body)
    h.coordinator.close()
    ask = h.coordinator.ask(h.ids[0])
    with pytest.raises(Refused, match="whole cohort"):
        h.sites[h.ids[0]].release(replace(ask, headers=ask.headers[:2], blobs=ask.blobs[:2]), now=NOW)


# 32: two H0 in one slot


def test_attack_32_site_uploads_for_the_first_of_two_announcements_only() -> None:
    """Two models under one slot number: a site that took up one refuses the other, even with a higher seq."""
    h = Harness.make(5)
    h.open_epoch()
    first = h.coordinator.announce(h.plan(), (1, 0))
    site = h.ids[0]
    h.sites[site].accept(first, now=NOW, ledger_head=LEDGER)
    for other in (announced(h, first, task=b"z" * 32), announced(h, first, task=b"z" * 32, seq=first.seq + 1)):
        before = h.sites[site].dump()
        with pytest.raises(Refused, match="not after"):
            h.sites[site].accept(other, now=NOW, ledger_head=LEDGER)
        with pytest.raises(Refused, match="not accepted"):
            h.sites[site].upload(other, h.vectors(other)[site], now=NOW)
        assert h.sites[site].dump() == before


def test_attack_32_two_cohort_halves_under_two_h0_get_no_certificate() -> None:
    """The coordinator runs the slot twice, over two halves of the committee: honest members act on one H0 only."""
    h = Harness.make(7)
    h.open_epoch()
    first = h.coordinator.announce(h.plan(h.ids[:6], min_survivors=5), (1, 0))
    twin = h.reload_coordinator(h.coordinator.dump())
    second = announced(h, first, cohort=join(h.ids[1:]))
    sent = {a.h0: take(h, a, sites) for a, sites in ((first, h.ids[:3]), (second, h.ids[3:]))}
    assert all(len(uploads) < first.min_survivors for uploads in sent.values())
    for out in sent[first.h0].values():
        twin.receive(out.message, out.body)
    with pytest.raises(RoundAborted):
        twin.close()
    for out in sent[second.h0].values():
        with pytest.raises(Unverified, match="another slot"):
            twin.receive(out.message, out.body)


def test_attack_32_member_votes_aborts_and_releases_under_one_h0_per_slot() -> None:
    """A member shown a complete slot under one H0 and asked about another H0 of that slot refuses every act."""
    h = Harness.make(5)
    h.open_epoch()
    _, asks = voting(h)
    member = h.ids[0]
    other = announced(h, asks[member].announcement, task=b"z" * 32)
    h.sites[member].vote(asks[member], now=NOW)
    before = h.sites[member].dump()
    headers = tuple(headed(h, header, h0=other.h0) for header in asks[member].headers)
    with pytest.raises(Refused, match="two announcements"):
        h.sites[member].vote(replace(asks[member], announcement=other, headers=headers), now=NOW)
    with pytest.raises(Refused, match="two announcements"):
        h.sites[member].vote_abort(other)
    with pytest.raises(Refused, match="two announcements"):
        h.sites[member].release(replace(asks[member], announcement=other, headers=headers), now=NOW)
    assert h.sites[member].dump() == before


# 33: certificates of repeated, foreign or other votes


def test_attack_33_certificate_of_repeated_foreign_or_misplaced_votes_releases_nothing() -> None:
    """t − 1 votes padded by a copy, an absent site's, the coordinator's, an unsigned, an ABORT or an old vote."""
    h = Harness.make(7)
    h.open_epoch(h.ids[:6])
    outsider = h.ids[6]
    _, asks = voting(h, h.ids[:6])
    members = list(asks)
    threshold = h.coordinator.record.threshold
    votes = [h.sites[one].vote(asks[one], now=NOW) for one in members]
    few, last = votes[: threshold - 1], votes[threshold - 1]
    padding = {
        "a copy": few[0],
        "an absent site": voted(h, last, member=outsider),
        "the coordinator": replace(last, member=h.coordinator_key.verify_key.site_id),
        "unsigned": replace(last, signature=bytes(64)),
        "another's signature": replace(last, signature=few[0].signature),
        "another U": voted(h, last, choice=b"\x05" * 32),
        "ABORT": voted(h, last, choice=bytes(32)),
        "another attempt": voted(h, last, attempt=1),
        "another round": voted(h, last, round=2),
        "another H0": voted(h, last, h0=b"\x05" * 32),
        "another epoch": voted(h, last, scope=replace(last.scope, epoch=2)),
    }
    member = members[-1]
    before = h.sites[member].dump()
    assert choice_of(asks[member]) == last.choice
    for name, vote in padding.items():
        for certificate in ((*few, vote), (vote, *few), tuple(few)):
            with pytest.raises(Unverified):
                h.sites[member].release(replace(asks[member], votes=certificate), now=NOW)
            assert h.sites[member].dump() == before, name
    with pytest.raises(Unverified):  # enough true votes, and still no place for a repeated one
        h.sites[member].release(replace(asks[member], votes=(*votes, votes[0])), now=NOW)
    h.sites[member].release(replace(asks[member], votes=(*few, last)), now=NOW)


# 34: the same ids, another header


def test_attack_34_same_survivors_with_another_header_are_another_survivor_set() -> None:
    """A corrupt site signs two headers and the coordinator shows each to half of the members: no quorum for either."""
    h = Harness.make(5)
    h.open_epoch()
    sent, asks = voting(h)
    twofold = h.ids[4]
    header = sent[twofold].message.header
    other = headed(h, header, body=b"\x09" * 32)
    swapped = {
        member: replace(ask, headers=tuple(other if one.site == twofold else one for one in ask.headers))
        for member, ask in asks.items()
    }
    assert choice_of(swapped[h.ids[0]]) != choice_of(asks[h.ids[0]])
    first: list[Vote] = [h.sites[one].vote(asks[one], now=NOW) for one in h.ids[:3]]
    second = [h.sites[one].vote(swapped[one], now=NOW) for one in h.ids[3:]]
    second.append(voted(h, h.sites[twofold].vote(swapped[twofold], now=NOW), member=twofold))
    for member in h.ids[:4]:
        with pytest.raises(Unverified):
            h.sites[member].release(replace(swapped[member], votes=tuple(first)), now=NOW)
        with pytest.raises(Unverified):
            h.sites[member].release(replace(asks[member], votes=(*first, *second[:1])), now=NOW)
        with pytest.raises(Unverified):
            h.sites[member].release(replace(swapped[member], votes=tuple(second)), now=NOW)
    with pytest.raises(Refused, match="votes once"):
        h.sites[h.ids[0]].vote(swapped[h.ids[0]], now=NOW)


def test_attack_34_a_certificate_does_not_cover_a_header_exchanged_after_the_vote() -> None:
    """t votes for the true headers; the coordinator exchanges one header before asking for shares: refused."""
    h = Harness.make(5)
    h.open_epoch()
    sent, asks = voting(h)
    votes = tuple(h.sites[one].vote(asks[one], now=NOW) for one in h.ids)
    other = headed(h, sent[h.ids[1]].message.header, ledger_head=b"\x03" * 32)
    member = h.ids[0]
    headers = tuple(other if one.site == other.site else one for one in asks[member].headers)
    with pytest.raises(Unverified, match="another survivor set"):
        h.sites[member].release(replace(asks[member], headers=headers, votes=votes), now=NOW)
    unsigned = tuple(replace(one, body=b"\x09" * 32) if one.site == other.site else one for one in headers)
    with pytest.raises(Unverified, match="signature"):
        h.sites[member].release(replace(asks[member], headers=unsigned, votes=votes), now=NOW)


def test_attack_34_the_same_header_under_another_signature_is_the_same_survivor_set() -> None:
    """H(U) binds header bodies, not signatures: no signer can split the votes by signing one body twice."""
    h = Harness.make(5)
    h.open_epoch()
    sent, asks = voting(h)
    member, header = h.ids[0], sent[h.ids[1]].message.header
    again = replace(header, signature=bytes(64))
    headers = tuple(again if one.site == header.site else one for one in asks[member].headers)
    assert choice_of(replace(asks[member], headers=headers)) == choice_of(asks[member])
    assert not h.coordinator.receive(Upload(header, sent[h.ids[1]].message.blobs), sent[h.ids[1]].body)
