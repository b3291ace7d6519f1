"""Attacks by time: old stores, late messages, retries without noise, crashes, erased keys, counters at their ends."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from privfl_keys import Label, derive

from privfl.errors import PrivflError, Refused, Unverified
from privfl.secagg import ABORT, Announcement, Equivocation, RolledBack, Rules, SiteMachine, verify_transcript
from privfl.secagg.epoch import MAX_SEQ_GAP, ratchet
from privfl.secagg.site_machine import MAX_EPOCH_GAP, SiteState
from privfl.secagg.slot import MAX_GAP, commitment
from tests.attacks._tools_b import abort_votes, announced, certified_ask, forged_abort, take, voted
from tests.harness import DEADLINE, LEDGER, NOW, POLICY, Harness, SeededEntropy


def opened_epoch(n: int = 5, **kind: object) -> Harness:
    """A federation with one open epoch."""
    h = Harness.make(n, **kind)  # type: ignore[arg-type]
    h.open_epoch()
    return h


def noiseless(n: int) -> Harness:
    """A federation whose policy allows sums without noise, all but c sites suffice."""
    c = 1 if n == 3 else (n - 1) // 3
    return opened_epoch(n, rules=Rules(POLICY, max(n - c, c + 2), noiseless=True))


def stays_unchanged(
    h: Harness, site: bytes, announcement: Announcement, error: type[PrivflError], text: str | None = None
) -> None:
    """The site refuses with this error and keeps its state to the byte."""
    before = h.sites[site].dump()
    with pytest.raises(error, match=text):
        h.sites[site].accept(announcement, now=NOW, ledger_head=LEDGER)
    assert h.sites[site].dump() == before


# 36: a store restored from a backup, two live instances, messages after the deadline


def test_attack_36_restored_backup_is_noticed_by_the_sites_own_signature() -> None:
    """Operator restores a backup from before slot 1; the coordinator's list of heads alarms the site: RolledBack."""
    h = opened_epoch()
    victim = h.ids[1]
    backup = h.sites[victim].dump()
    h.round((1, 0))
    h.reload(victim, backup)
    announcement = h.coordinator.announce(h.plan(), (2, 0))
    stays_unchanged(h, victim, announcement, RolledBack, "older copy")
    for other in set(h.ids) - {victim}:
        h.sites[other].accept(announcement, now=NOW, ledger_head=LEDGER)


def test_attack_36_coordinator_cannot_cry_wolf_with_a_forged_head() -> None:
    """A head that the site never signed raises Unverified, not the alarm that would stop an honest site."""
    h = opened_epoch()
    victim = h.ids[1]
    h.round((1, 0))
    announcement = h.coordinator.announce(h.plan(), (2, 0))
    false = tuple(replace(head, header=b"\x01" * 32) if head.site == victim else head for head in announcement.seen)
    stays_unchanged(h, victim, announced(h, announcement, seen=false), Unverified, "header")


def test_attack_36_two_live_instances_show_themselves_and_open_one_upload_only() -> None:
    """A store copied to two live machines uploads twice: evidence at the coordinator, and fresh masks on both."""
    h = opened_epoch()
    twin = h.ids[0]
    copy = SiteMachine.load(h.party(twin), h.rules, h.entropy, h.sites[twin].dump(), restarted=True)
    announcement = h.coordinator.announce(h.plan(length=64), (1, 0))
    vectors = h.vectors(announcement)
    sent = take(h, announcement, h.ids)
    for out in sent.values():
        h.coordinator.receive(out.message, out.body)
    copy.accept(announcement, now=NOW, ledger_head=LEDGER)
    second = copy.upload(announcement, vectors[twin], now=NOW)
    first = sent[twin].message.header
    assert first.commits[:32] != second.message.header.commits[:32], "both instances drew the same own mask"
    with pytest.raises(Equivocation) as caught:
        h.coordinator.receive(second.message, second.body)
    assert caught.value.evidence == (first.encode(), second.message.header.encode())
    words = [np.frombuffer(body, "<u4") for body in (sent[twin].body, second.body)]
    assert np.count_nonzero(words[0] == words[1]) < 4, "the difference of the two uploads shows the vector"
    h.coordinator.close()
    opened, _ = h.vote_and_release()
    assert np.array_equal(opened.array(), np.sum(list(vectors.values()), axis=0))
    following = h.coordinator.announce(h.plan(), (2, 0))
    with pytest.raises(RolledBack):
        copy.accept(following, now=NOW, ledger_head=LEDGER)


def test_attack_36_two_live_members_give_two_votes_as_evidence_and_no_second_certificate() -> None:
    """A member on two machines votes for U and for U': the coordinator holds evidence; U' gets no quorum."""
    h = opened_epoch()
    twin = h.ids[0]
    announcement = h.coordinator.announce(h.plan(), (1, 0))
    for out in take(h, announcement, h.ids).values():
        h.coordinator.receive(out.message, out.body)
    copy = SiteMachine.load(h.party(twin), h.rules, h.entropy, h.sites[twin].dump(), restarted=True)
    h.coordinator.close()
    asks = h.asks()
    smaller = {m: replace(ask, headers=ask.headers[:-1], blobs=ask.blobs[:-1]) for m, ask in asks.items()}
    votes = [h.sites[member].vote(asks[member], now=NOW) for member in h.ids]
    other = copy.vote(smaller[twin], now=NOW)
    for vote in votes:
        h.coordinator.receive_vote(vote)
    with pytest.raises(Equivocation):
        h.coordinator.receive_vote(other)
    for member in h.ids[1:]:
        with pytest.raises(Refused, match="votes once"):
            h.sites[member].vote(smaller[member], now=NOW)
        with pytest.raises(Unverified):
            h.sites[member].release(replace(smaller[member], votes=(other,)), now=NOW)


def test_attack_36_nothing_is_accepted_uploaded_voted_or_released_after_the_deadline() -> None:
    """A coordinator that delays every message past the deadline gets nothing, by the members' own clocks."""
    h = opened_epoch()
    late = DEADLINE + 1
    announcement = h.coordinator.announce(h.plan(), (1, 0))
    with pytest.raises(Refused, match="deadline"):
        h.sites[h.ids[0]].accept(announcement, now=late, ledger_head=LEDGER)
    vectors = h.vectors(announcement)
    slow = h.ids[0]
    h.sites[slow].accept(announcement, now=NOW, ledger_head=LEDGER)
    with pytest.raises(Refused, match="deadline"):
        h.sites[slow].upload(announcement, vectors[slow], now=late)
    for site in h.ids[1:]:
        h.upload(announcement, site, vectors[site], now=DEADLINE)
    h.coordinator.close()
    for member, ask in h.asks().items():
        with pytest.raises(Refused, match="deadline"):
            h.sites[member].vote(ask, now=late)
    for member, ask in h.asks().items():
        h.coordinator.receive_vote(h.sites[member].vote(ask, now=DEADLINE))
    for member, ask in h.asks().items():
        before = h.sites[member].dump()
        with pytest.raises(Refused, match="deadline"):
            h.sites[member].release(ask, now=late)
        assert h.sites[member].dump() == before


# 37: attempts out of order, and questions without noise


def test_attack_37_attempt_one_cannot_be_completed_after_attempt_two() -> None:
    """A coordinator that holds back attempt 0 until attempt 1 runs: members who took up 1 neither vote nor release."""
    h = opened_epoch()
    first = h.coordinator.announce(h.plan(), (1, 0))
    for out in take(h, first, h.ids).values():
        h.coordinator.receive(out.message, out.body)
    h.coordinator.close()
    unvoted = h.asks()
    votes = [h.sites[member].vote(unvoted[member], now=NOW) for member in h.ids[:-1]]
    h.coordinator.abandon()
    second = h.coordinator.announce(h.plan(), (1, 1))
    for site in h.ids:
        h.sites[site].accept(second, now=NOW, ledger_head=LEDGER)
    with pytest.raises(Refused, match="before"):
        h.sites[h.ids[-1]].vote(unvoted[h.ids[-1]], now=NOW)
    for member in h.ids:
        with pytest.raises(Refused, match="before"):
            h.sites[member].release(replace(unvoted[member], votes=tuple(votes)), now=NOW)


def test_attack_37_noiseless_retry_needs_the_abort_votes_of_a_quorum() -> None:
    """Without noise, attempt 1 without t true ABORT votes for attempt 0 would be a second sum to subtract."""
    h = noiseless(5)
    threshold = h.coordinator.record.threshold
    first = h.coordinator.announce(h.plan(), (1, 0))
    take(h, first, h.ids)
    votes = abort_votes(h, first, h.ids)
    assert {vote.choice for vote in votes} == {ABORT}
    h.coordinator.abandon()
    retry = h.coordinator.announce(h.plan(), (1, 1))
    victim = h.ids[2]
    few, twice = votes[: threshold - 1], (*votes[: threshold - 1], votes[0])
    elsewhere = [
        tuple(voted(h, vote, **other) for vote in votes)
        for other in ({"attempt": 1}, {"round": 9}, {"choice": b"\x01" * 32})
    ]
    for aborts in ((), few, twice, *elsewhere):
        stays_unchanged(h, victim, announced(h, retry, aborts=aborts), Refused, "ABORT votes")
    unsigned = (*few, replace(votes[-1], signature=bytes(64)))
    stays_unchanged(h, victim, announced(h, retry, aborts=unsigned), Unverified, "vote")
    h.sites[victim].accept(announced(h, retry, aborts=votes[:threshold]), now=NOW, ledger_head=LEDGER)


def opened_once(h: Harness) -> Announcement:
    """A noiseless question, asked in round 1 and answered with a sum."""
    announcement = h.coordinator.announce(h.plan(), (1, 0))
    for out in take(h, announcement, h.ids).values():
        h.coordinator.receive(out.message, out.body)
    h.coordinator.close()
    h.vote_and_release()
    return announcement


def test_attack_37_answered_question_is_not_answered_again_by_skipping_an_attempt() -> None:
    """After the sum of attempt 0, aborts of an empty attempt 1 must not open the door to attempt 2 over A∖{i}."""
    h = noiseless(5)
    opened_once(h)
    empty = h.coordinator.announce(h.plan(), (1, 1))
    for member in h.ids[1:]:
        with pytest.raises(Refused, match="ABORT votes"):
            h.sites[member].vote_abort(empty)
    votes = (forged_abort(h, empty, h.ids[0]),)
    h.coordinator.abandon()
    again = h.coordinator.announce(h.plan(h.ids[:-1]), (1, 2))
    stays_unchanged(h, h.ids[1], announced(h, again, aborts=votes), Refused, "ABORT votes")


def test_attack_37_answered_question_is_not_answered_again_in_the_next_epoch() -> None:
    """A new epoch starts counting anew: slot (0, 1) with aborts of (0, 0) is no retry of anything answered there."""
    h = noiseless(5)
    opened_once(h)
    h.open_epoch()
    empty = h.coordinator.announce(h.plan(), (0, 0))
    votes = abort_votes(h, empty, h.ids)
    h.coordinator.abandon()
    again = h.coordinator.announce(h.plan(h.ids[:-1]), (0, 1))
    stays_unchanged(h, h.ids[0], announced(h, again, aborts=votes), Refused, "answered once")


def test_attack_37_retry_of_another_question_does_not_reopen_an_answered_one() -> None:
    """Question 1 is answered; question 2 is aborted; its retry must ask question 2, not question 1 again."""
    h = noiseless(5)
    opened_once(h)
    other = h.coordinator.announce(h.plan(task=b"u" * 32), (2, 0))
    for site in h.ids:
        h.sites[site].accept(other, now=NOW, ledger_head=LEDGER)
    votes = abort_votes(h, other, h.ids)
    h.coordinator.abandon()
    again = announced(h, h.coordinator.announce(h.plan(), (2, 1)), aborts=votes)
    stays_unchanged(h, h.ids[0], again, Refused, "answered once")
    h.sites[h.ids[0]].accept(announced(h, again, task=b"u" * 32), now=NOW, ledger_head=LEDGER)


def test_attack_37_complete_mode_does_not_release_after_voting_abort() -> None:
    """Complete mode needs no certificate, so ABORT votes first and releases after would give a sum and a retry."""
    h = noiseless(3)
    announcement = h.coordinator.announce(h.plan(complete=True), (1, 0))
    for out in take(h, announcement, h.ids).values():
        h.coordinator.receive(out.message, out.body)
    h.coordinator.close()
    asks = h.asks()
    abort_votes(h, announcement, h.ids)
    for member in h.ids:
        with pytest.raises(Refused, match="abort"):
            h.sites[member].release(asks[member], now=NOW)


def test_attack_37_few_releases_of_complete_mode_and_the_others_aborts_do_not_make_a_retry() -> None:
    """N = 4, complete: c_L + 1 = 2 members release, one of them corrupt; three ABORT votes exist and must not do."""
    h = noiseless(4)
    corrupt, honest, *rest = h.ids
    announcement = h.coordinator.announce(h.plan(complete=True), (1, 0))
    for out in take(h, announcement, h.ids).values():
        h.coordinator.receive(out.message, out.body)
    h.coordinator.close()
    asks = h.asks()
    for member in (corrupt, honest):
        h.coordinator.receive_release(h.sites[member].release(asks[member], now=NOW))
    with pytest.raises(Refused):
        h.sites[honest].vote_abort(announcement)
    votes = (*abort_votes(h, announcement, rest), forged_abort(h, announcement, corrupt))
    assert len(votes) == h.coordinator.record.threshold
    h.coordinator.finish()
    for fewer in (h.plan(h.ids[:-1], complete=True), h.plan(), h.plan(h.ids[:-1])):
        again = h.coordinator.announce(fewer, (1, 1))
        stays_unchanged(h, honest, announced(h, again, aborts=votes), Refused, "answered once")
        h.coordinator.abandon()
    same = h.coordinator.announce(h.plan(complete=True), (1, 1))
    h.sites[honest].accept(announced(h, same, aborts=votes), now=NOW, ledger_head=LEDGER)


# 46: a crash at each write between used(H0) and sending


def test_attack_46_crash_at_each_write_lets_at_most_one_byte_string_out() -> None:
    """The site is restarted from every state it ever stored, and asked again: nothing but the first bytes leaves."""
    h = opened_epoch()
    site = h.ids[0]
    announcement = h.coordinator.announce(h.plan(), (1, 0))
    vector = h.vectors(announcement)[site]
    h.sites[site].accept(announcement, now=NOW, ledger_head=LEDGER)
    accepted = h.sites[site].dump()
    out = h.sites[site].upload(announcement, vector, now=NOW)
    uploaded = h.sites[site].dump()
    leaving = {out.message.encode() + out.body}

    crashed = h.reload(site, accepted)  # used(H0) is stored, the upload is not: silent for good
    with pytest.raises(Refused):
        crashed.upload(announcement, vector, now=NOW)
    with pytest.raises(Refused):
        crashed.check_resend(out.message)
    with pytest.raises(Refused, match="not after"):
        crashed.accept(announcement, now=NOW, ledger_head=LEDGER)
    again = h.reload(site, crashed.dump())
    with pytest.raises(Refused):
        again.upload(announcement, vector, now=NOW)

    resumed = h.reload(site, uploaded)  # the upload is stored: the same bytes, and only they, go out again
    resumed.check_resend(out.message)
    leaving.add(out.message.encode() + out.body)
    with pytest.raises(Refused):
        resumed.upload(announcement, vector, now=NOW)
    other = replace(out.message, header=replace(out.message.header, body=bytes(32)))
    with pytest.raises(Refused, match="not the bytes"):
        resumed.check_resend(other)
    assert len(leaving) == 1


def test_attack_46_a_silent_site_takes_part_in_the_next_slot() -> None:
    """The crash costs one slot, not the epoch; and the old slot stays closed."""
    h = opened_epoch()
    site = h.ids[0]
    first = h.coordinator.announce(h.plan(), (1, 0))
    vectors = h.vectors(first)
    for other in h.ids[1:]:
        h.upload(first, other, vectors[other])
    h.sites[site].accept(first, now=NOW, ledger_head=LEDGER)
    h.reload(site)
    h.coordinator.close()
    opened, _ = h.vote_and_release()
    assert np.array_equal(opened.array(), sum(vectors[other] for other in h.ids[1:]))
    total, expected, transcript = h.round((2, 0))
    assert np.array_equal(total, expected)
    assert len(transcript.headers) == 5


def test_attack_46_members_repeat_vote_and_release_after_a_crash() -> None:
    """A member that crashes after storing sends the same vote and the same sealed release, never another."""
    h = opened_epoch()
    announcement = h.coordinator.announce(h.plan(), (1, 0))
    for out in take(h, announcement, h.ids).values():
        h.coordinator.receive(out.message, out.body)
    h.coordinator.close()
    asks, member = h.asks(), h.ids[0]
    votes = {one: h.sites[one].vote(asks[one], now=NOW) for one in h.ids}
    assert h.reload(member).vote(asks[member], now=NOW) == votes[member]
    ask = certified_ask(h, member, tuple(votes.values()))
    release = h.sites[member].release(ask, now=NOW)
    assert h.reload(member).release(ask, now=NOW).encode() == release.encode()


# 50: what is erased stays erased


def pair_commits(
    h: Harness, site: bytes, header_h0: bytes, commits: bytes, neighbours: bytes
) -> dict[bytes, tuple[bytes, bytes, bytes]]:
    """Commitment to each s_ij of a header, with (H0, lo, hi)."""
    out = {}
    for at in range(0, len(neighbours), 32):
        peer = neighbours[at : at + 32]
        low, high = sorted((site, peer))
        out[commits[at + 32 : at + 64]] = (header_h0, low, high)
    return out


def derivable(dump: bytes, targets: dict[bytes, tuple[bytes, bytes, bytes]], steps: int = 2) -> int:
    """How many committed pair seeds follow from some 32-byte window of a dump, as seed or as pair key."""
    found = set()
    contexts = set(targets.values())
    windows = {dump[at : at + 32] for at in range(len(dump) - 31)}
    for window in windows:
        key = window
        for step in range(steps + 1):
            for h0, low, high in contexts:
                seed = derive(key, Label.PAIR_SEED, h0, low, high)
                found |= {commitment(one, h0, low, high) for one in (seed, key)} & targets.keys()
            if step < steps:
                key = derive(key, Label.RATCHET)
    return len(found)


def test_attack_50_a_stolen_store_gives_no_pair_seed_of_an_earlier_or_the_same_slot() -> None:
    """A thief tries every 32-byte window of the site's state as pair key or seed; only before upload does it work."""
    h = opened_epoch(3, min_survivors=3, entropy=SeededEntropy(50))
    site = h.ids[0]
    fresh = h.sites[site].dump()
    states, targets = {}, {}
    for seq in (1, 2):
        announcement = h.coordinator.announce(h.plan(), (seq, 0))
        vectors = h.vectors(announcement)
        h.sites[site].accept(announcement, now=NOW, ledger_head=LEDGER)
        states[seq, "accepted"] = h.sites[site].dump()
        out = h.sites[site].upload(announcement, vectors[site], now=NOW)
        states[seq, "uploaded"] = h.sites[site].dump()
        header = out.message.header
        targets[seq] = pair_commits(h, site, announcement.h0, header.commits, header.neighbours)
        self_target = header.commits[:32]
        windows = {states[seq, "uploaded"][at : at + 32] for at in range(len(states[seq, "uploaded"]) - 31)}
        assert all(commitment(window, announcement.h0, site) != self_target for window in windows)
        h.coordinator.receive(out.message, out.body)
        for other in h.ids[1:]:
            h.upload(announcement, other, vectors[other])
        h.coordinator.close()
        h.vote_and_release()
    assert derivable(fresh, targets[1]) == 2, "the control must find the seeds, or the search proves nothing"
    assert derivable(states[1, "accepted"], targets[1], steps=0) == 2
    assert derivable(states[1, "uploaded"], targets[1], steps=0) == 0
    assert derivable(states[2, "accepted"], targets[1], steps=0) == 0
    assert derivable(states[2, "uploaded"], targets[1] | targets[2], steps=0) == 0
    assert derivable(h.sites[site].dump(), targets[1] | targets[2]) == 0


# 51: jumps and counters at their ends


def through_the_wire(announcement: Announcement) -> Announcement:
    """What arrives at a site."""
    return Announcement.decode(announcement.encode())


@pytest.mark.parametrize(
    "changes",
    [
        {"round": 2**32 - 1},
        {"round": 1 + MAX_GAP + 1},
        {"attempt": 2**32 - 1},
        {"attempt": MAX_GAP + 1},
        {"round": 2**32 - 1, "attempt": 2**32 - 1},
        {"seq": 2**64 - 1},
        {"seq": MAX_SEQ_GAP + 1},
        {"seq": 0},
    ],
    ids=str,
)
def test_attack_51_a_jump_of_a_counter_is_refused_and_changes_nothing(changes: dict[str, int]) -> None:
    """A coordinator burns slot numbers or ratchet steps by one announcement at the end of a counter: refused."""
    h = opened_epoch()
    announcement = h.coordinator.announce(h.plan(), (1, 0))
    stays_unchanged(h, h.ids[0], through_the_wire(announced(h, announcement, **changes)), Refused)
    h.sites[h.ids[0]].accept(announcement, now=NOW, ledger_head=LEDGER)


@pytest.mark.parametrize(
    ("field", "value"), [("round", 2**32), ("attempt", 2**32), ("seq", 2**64), ("deadline", 2**64)]
)
def test_attack_51_a_counter_beyond_its_width_does_not_decode(field: str, value: int) -> None:
    """One more than the largest counter is no announcement at all."""
    h = opened_epoch(3)
    announcement = announced(h, h.coordinator.announce(h.plan(), (1, 0)), **{field: value})
    with pytest.raises(PrivflError, match=field):
        through_the_wire(announcement)


def test_attack_51_epoch_numbers_do_not_go_back_repeat_or_jump() -> None:
    """A coordinator that names an old, the same or a far epoch gets no second advert of it and burns no numbers."""
    h = opened_epoch()
    h.open_epoch()
    machine = h.sites[h.ids[0]]
    assert machine.epoch == 2
    before = machine.dump()
    for number in (0, 1, 2, 2 + MAX_EPOCH_GAP + 1, 2**32 - 1, 2**32, -1):
        with pytest.raises(Refused, match="epoch"):
            machine.advertise(number)
    assert machine.dump() == before


def test_attack_51_the_last_slot_of_all_counters_works_and_nothing_follows_it() -> None:
    """At round 2^32 − 1 and seq 2^64 − 1 a slot still opens; afterwards every announcement is refused, typed."""
    h = opened_epoch(3)
    near = 2**64 - 2
    for site in h.ids:
        state = SiteState.decode(h.sites[site].dump())
        assert state.epoch is not None
        epoch = replace(state.epoch, position=near)
        slot = replace(state.slot, round=2**32 - 2, seq=near)
        h.reload(site, replace(state, epoch=epoch, slot=slot).encode())
    whole = h.coordinator._state
    h.coordinator._state = replace(whole, slot=replace(whole.slot, seq=near))
    announcement = h.coordinator.announce(h.plan(complete=True), (2**32 - 1, 0))
    announcement = announced(h, announcement, seq=2**64 - 1)
    whole = h.coordinator._state
    h.coordinator._state = replace(whole, slot=replace(whole.slot, announcement=announcement))
    vectors = h.vectors(announcement)
    for site in h.ids:
        h.upload(through_the_wire(announcement), site, vectors[site])
        h.reload(site)
    h.coordinator.close()
    opened, transcript = h.vote_and_release()
    assert np.array_equal(opened.array(), np.sum(list(vectors.values()), axis=0))
    verify_transcript(transcript, h.authority.verify_key, opened)
    for changes in ({"attempt": 1}, {"attempt": 1, "seq": 0}, {"attempt": 2**32 - 1}, {"round": 0, "attempt": 1}):
        stays_unchanged(h, h.ids[0], through_the_wire(announced(h, announcement, **changes)), Refused)


def test_attack_51_the_ratchet_goes_neither_back_nor_far() -> None:
    """The pair keys' position rises by at most 1024, whatever the announcement said."""
    h = opened_epoch(3)
    epoch = h.sites[h.ids[0]]._state.epoch
    assert epoch is not None
    moved = ratchet(epoch, MAX_SEQ_GAP)
    assert moved.position == MAX_SEQ_GAP
    for seq in (MAX_SEQ_GAP - 1, 0, 2 * MAX_SEQ_GAP + 1, 2**64 - 1):
        with pytest.raises(Refused, match="sequence number"):
            ratchet(moved, seq)
