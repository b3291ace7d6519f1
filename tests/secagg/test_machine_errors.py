"""Error paths that no honest run meets: each is typed, says what to do, shows no secret, and changes nothing."""

from __future__ import annotations

import copy
import pickle
from dataclasses import replace

import numpy as np
import pytest
from privfl_keys import Label, SealingKey, SealingPublicKey

from privfl.errors import Malformed, Misuse, PrivflError, Refused, RoundAborted, Unverified
from privfl.ring import Ring
from privfl.secagg import Accumulator, Release, SiteMachine, Transcript, read_transcript, verify_transcript
from privfl.secagg import epoch as epochs
from privfl.secagg.coordinator import layout_of
from privfl.secagg.coordinator_machine import CoordinatorMachine
from privfl.secagg.epoch import MAX_AGE_MS, MAX_ROUNDS
from privfl.secagg.messages import Ask, Confirmations, Scope, Upload
from privfl.secagg.reconstruct import Blame, UnmaskKeys, reconstruct
from privfl.secagg.site_machine import SiteState
from tests.harness import LEDGER, NOW, Harness, SeededEntropy
from tests.secagg.scene import resign, scene


def site_at(step: str) -> SiteMachine:
    """The watched site before a step."""
    machine = scene().steps[step].machine(scene().harness)
    assert isinstance(machine, SiteMachine)
    return machine


def coordinator_at(step: str) -> CoordinatorMachine:
    """The coordinator before a step."""
    machine = scene().steps[step].machine(scene().harness)
    assert isinstance(machine, CoordinatorMachine)
    return machine


def with_slot(machine: SiteMachine, **fields: object) -> SiteMachine:
    """The same site with other slot fields."""
    state = SiteState.decode(machine.dump())
    changed = replace(state, slot=replace(state.slot, **fields))  # type: ignore[arg-type]
    h = scene().harness
    return SiteMachine.load(machine.party, h.rules, h.entropy, changed.encode(), restarted=False)


# --- accumulators --------------------------------------------------------------------------------------


def test_a_spent_accumulator_takes_and_gives_nothing() -> None:
    """After unmasking the sum is gone, and a second use is the caller's mistake."""
    running = Accumulator(Ring(20, 32), 5)
    assert running.unmask([], []).tolist() == [0] * 5
    upload = scene().steps["receive"].messages[0]
    assert isinstance(upload, Upload)
    for act in (lambda: running.unmask([], []), lambda: running.add(upload.header, b"")):
        with pytest.raises(Misuse, match="another accumulator"):
            act()


# --- epochs --------------------------------------------------------------------------------------------


def test_erased_keys_open_nothing() -> None:
    """A closed epoch refuses to confirm, to vote and to upload, and says to wait."""
    machine = site_at("confirm")
    machine.close_epoch()
    with pytest.raises(Refused, match="erased"):
        epochs.EpochState.sealing_key(machine._epoch())
    with pytest.raises(Refused, match="erased"):
        _ = machine.record


def test_adverts_are_for_the_sites_own_roster() -> None:
    """An epoch under another roster or federation is refused before a key is made."""
    party = site_at("accept").party
    for scope in (Scope("test", bytes(32), 1), Scope("other", party.roster.hash, 1)):
        with pytest.raises(Refused, match="another roster"):
            epochs.advertise(party, scope, SeededEntropy(1))


def test_a_slot_needs_a_running_epoch() -> None:
    """Sites and coordinators without an epoch say so."""
    h = Harness.make(3, entropy=SeededEntropy("none"))
    with pytest.raises(Refused, match="joined no epoch"):
        _ = h.sites[h.ids[0]].record
    with pytest.raises(Misuse, match="no epoch is open"):
        _ = h.coordinator.record
    with pytest.raises(Misuse, match="no slot is announced"):
        h.coordinator.slot.current()


def test_confirmations_that_come_after_the_record_are_left_out() -> None:
    """Late confirmations of a site outside the record do not come into its transcripts (found by simulation)."""
    h = Harness.make(4, entropy=SeededEntropy("late"))
    scope = h.coordinator.start_epoch()
    said: list[Confirmations] = []
    for site in h.ids:
        h.coordinator.receive_advert(h.sites[site].advertise(scope.epoch))
    for site in h.ids:
        h.coordinator.receive_contributions(h.sites[site].contribute(h.coordinator.adverts)[0])
    for site in h.ids:
        said.append(h.sites[site].confirm(h.coordinator.contributions_for(site))[0])
    for message in said[:3]:
        h.coordinator.receive_confirmations(message)
    record, confirmations = h.coordinator.fix_record()
    h.coordinator.receive_confirmations(said[3])
    assert h.coordinator.fix_record() == (record, confirmations)
    for site in h.ids[:3]:
        h.sites[site].join(record, confirmations, now=NOW)
    _, _, transcript = h.round()
    assert len(verify_transcript(transcript, h.authority.verify_key).survivors) == 3


# --- sites ---------------------------------------------------------------------------------------------


def test_an_epoch_serves_a_hundred_rounds_and_seven_days() -> None:
    """Past either limit a site accepts no round; a retry of the last round is still one of the hundred."""
    at = scene().steps["accept"]
    a = at.messages[0]
    full = with_slot(site_at("accept"), rounds=MAX_ROUNDS)
    with pytest.raises(Refused, match=f"{MAX_ROUNDS} rounds"):
        full.accept(a, now=NOW, ledger_head=LEDGER)  # type: ignore[arg-type]
    retry = with_slot(site_at("accept"), rounds=MAX_ROUNDS, round=2, attempt=-1)
    retry.accept(a, now=NOW, ledger_head=LEDGER)  # type: ignore[arg-type]
    late = resign(replace(a, deadline=2**50), scene().harness)  # type: ignore[type-var]
    machine = site_at("accept")
    with pytest.raises(Refused, match="seven days"):
        machine.accept(late, now=NOW + MAX_AGE_MS + 1, ledger_head=LEDGER)  # type: ignore[arg-type]
    machine.accept(late, now=NOW + MAX_AGE_MS, ledger_head=LEDGER)  # type: ignore[arg-type]


def test_examine_says_what_accept_would_and_changes_nothing() -> None:
    """A dry run before the budget is reserved."""
    a = scene().steps["accept"].messages[0]
    machine = site_at("accept")
    before = machine.dump()
    machine.examine(a, now=NOW)  # type: ignore[arg-type]
    assert machine.dump() == before
    with pytest.raises(Refused, match="deadline"):
        machine.examine(a, now=a.deadline + 1)  # type: ignore[arg-type,attr-defined]


@pytest.mark.parametrize(
    "vector",
    [np.zeros(8, np.int32), np.zeros(8), np.zeros(7, np.int64), np.zeros((8, 1), np.int64), np.zeros(8, np.uint64)],
)
def test_vectors_of_another_shape_or_type_are_the_callers_mistake(vector: np.ndarray) -> None:
    """Nothing is masked, and the slot may still be served with the right vector."""
    a = scene().steps["upload"].messages[0]
    machine = site_at("upload")
    before = machine.dump()
    with pytest.raises(Misuse, match="int64 of shape"):
        machine.upload(a, vector, now=NOW)  # type: ignore[arg-type]
    assert machine.dump() == before
    machine.upload(a, np.zeros(8, np.int64), now=NOW)  # type: ignore[arg-type]


def test_only_the_stored_bytes_are_sent_again() -> None:
    """A resend of another site's, another slot's or a changed upload is refused."""
    h, s = scene().harness, scene()
    mine, other = h.sites[h.ids[1]], s.steps["receive"].messages[0]
    assert isinstance(other, Upload)
    with pytest.raises(Refused, match="not the bytes"):
        mine.check_resend(other)


# --- members -------------------------------------------------------------------------------------------


def test_complete_mode_has_no_votes() -> None:
    """Asked for a vote in complete mode, a member says that there is nothing to vote on."""
    h = Harness.make(3, entropy=SeededEntropy("complete"))
    h.open_epoch()
    a = h.coordinator.announce(h.plan(complete=True), (1, 0))
    vectors = h.vectors(a)
    for site in h.ids:
        h.upload(a, site, vectors[site])
    h.coordinator.close()
    with pytest.raises(Refused, match="needs no vote"):
        h.sites[h.ids[0]].vote(h.coordinator.ask(h.ids[0]), now=NOW)


def test_complete_mode_opens_everyone_or_nothing() -> None:
    """One missing upload ends the slot with a typed abort that counts who came."""
    h = Harness.make(3, entropy=SeededEntropy("incomplete"))
    h.open_epoch()
    a = h.coordinator.announce(h.plan(complete=True), (1, 0))
    vectors = h.vectors(a)
    for site in h.ids[:2]:
        h.upload(a, site, vectors[site])
    with pytest.raises(RoundAborted, match="2 of 3 sites uploaded"):
        h.coordinator.close()
    assert h.coordinator.slot.stage == "collecting"


def test_only_members_are_asked() -> None:
    """Asking a site outside the committee is the coordinator's own mistake."""
    with pytest.raises(Misuse, match="only committee members"):
        coordinator_at("receive release").ask(bytes(32))


def test_a_request_carries_one_blob_per_header() -> None:
    """A request with a blob too few or too many is refused whole, for votes and for releases."""
    for step in ("vote", "release"):
        ask = scene().steps[step].messages[0]
        assert isinstance(ask, Ask)
        for blobs in (ask.blobs[:-1], (*ask.blobs, b"")):
            machine = site_at(step)
            act = machine.vote if step == "vote" else machine.release
            with pytest.raises(Unverified, match="one blob per header"):
                act(replace(ask, blobs=blobs), now=NOW)


# --- the coordinator -----------------------------------------------------------------------------------


def test_a_store_that_lost_something_is_named() -> None:
    """A body missing from the shelf after a restart ends the slot with a message that says which and what to do."""
    at = scene().steps["finish"]
    for lost in ("/body", "/release/"):
        shelf = {name: data for name, data in at.shelf.items() if lost not in name}
        machine = replace(at, shelf=shelf).machine(scene().harness)
        assert isinstance(machine, CoordinatorMachine)
        before = machine.dump()
        with pytest.raises(Misuse, match="abandon this slot"):
            machine.finish()
        assert machine.dump() == before
        machine.abandon()
        assert machine.slot.stage == "aborted"


def test_a_store_that_lies_is_found_out() -> None:
    """Bytes that are not those received are refused when they are read again."""
    at = scene().steps["finish"]
    for wrong in ("/body", "/release/"):
        shelf = {name: data[::-1] if wrong in name else data for name, data in at.shelf.items()}
        machine = replace(at, shelf=shelf).machine(scene().harness)
        assert isinstance(machine, CoordinatorMachine)
        with pytest.raises((Unverified, Malformed)):
            machine.finish()


def test_a_release_must_hold_what_its_signature_names() -> None:
    """Sealed contents other than the signed hash are refused though they open."""
    at = scene().steps["receive release"]
    honest, machine = at.messages[0], coordinator_at("receive release")
    assert isinstance(honest, Release)
    a = machine.slot.current()
    info = (a.h0, honest.survivors, honest.member, "shares")
    layout = layout_of(machine.topology(), machine.slot)
    plain = bytes(33 * len(layout.headers) + 36 * layout.total)
    forged = replace(honest, sealed_shares=SealingPublicKey(a.reply_key).seal(plain, Label.RELEASE_SEAL, *info))
    before = machine.dump()
    with pytest.raises(Unverified, match="what its signature names"):
        machine.receive_release(forged)
    assert machine.dump() == before


def test_reconstruction_asks_for_enough_releases() -> None:
    """Fewer than t releases give the number that is missing, and no secret."""
    machine = coordinator_at("finish")
    layout = layout_of(machine.topology(), machine.slot)

    def none(_: bytes) -> Release:
        raise AssertionError("no proof is needed before there are t releases")

    with pytest.raises(RoundAborted, match="0 releases of the 3 needed"):
        reconstruct(layout, [], SealingKey.generate(SeededEntropy(2)), none)


# --- transcripts ---------------------------------------------------------------------------------------


def resigned(**fields: object) -> Transcript:
    """The transcript with other fields, signed again by its coordinator."""
    changed = replace(scene().transcript, **fields)  # type: ignore[arg-type]
    return changed.signed(scene().harness.coordinator_key)


def test_a_transcript_shows_a_quorum_of_releases() -> None:
    """Fewer releases than the threshold could not have opened the sum."""
    t = scene().transcript
    with pytest.raises(Unverified, match="cannot open what needs 3"):
        verify_transcript(resigned(releases=t.releases[:2]), scene().harness.authority.verify_key)


def test_a_transcript_shows_both_ends_of_every_confirmed_pair() -> None:
    """A record whose sites have not confirmed each other is refused, though all else is signed."""
    t, h = scene().transcript, scene().harness
    first = t.confirmations[0]
    fewer = resign(replace(first, peers=first.peers[32:], tags=first.tags[32:]), h)
    assert isinstance(fewer, Confirmations)
    with pytest.raises(Unverified, match="not confirmed their pair key"):
        verify_transcript(resigned(confirmations=(fewer, *t.confirmations[1:])), h.authority.verify_key)


def test_files_that_are_no_transcript_are_malformed() -> None:
    """Reading is decoding; a transcript comes back as it was."""
    t = scene().transcript
    assert read_transcript(t.encode()) == t
    for data in (b"", b"{}", t.encode()[:-1], t.record.encode()):
        with pytest.raises(Malformed):
            read_transcript(data)


# --- nothing secret is shown ------------------------------------------------------------------------------


def test_representations_show_no_secret() -> None:
    """Machines, states, keys, blames and sums say what they are and nothing else."""
    s = scene()
    site, leader = site_at("release"), coordinator_at("finish")
    secrets = [pair.key for pair in site._epoch().pairs] + [site._epoch().secret[:16], leader.slot.reply_secret[:16]]
    shown = [
        repr(site),
        repr(leader),
        repr(site._state),
        repr(site._epoch()),
        repr(site._state.slot),
        repr(site._state.member),
        repr(leader.slot),
        repr(s.opened),
        repr(UnmaskKeys([secrets[0]], [], b"", ())),
        repr(Blame("member", (s.harness.ids[0],), "why", (secrets[0],))),
    ]
    for text in shown:
        assert len(text) < 200
        for secret in secrets:
            assert secret.hex() not in text
            assert repr(secret)[2:-1] not in text


def test_secret_states_are_not_pickled() -> None:
    """A state leaves as dump() and in no other way."""
    state = site_at("release")._state
    for act in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="cannot be pickled"):
            act(state)


def test_every_message_at_every_moment_gives_typed_errors_only() -> None:
    """All recorded messages meet all recorded states of their machine: done, or refused with a message."""
    steps, refusals = scene().steps.values(), 0
    for step in steps:
        for other in steps:
            if (step.site is None) != (other.site is None):
                continue
            try:
                other.call(step.machine(scene().harness), other.messages)
            except PrivflError as error:
                refusals += bool(str(error))
    assert refusals > 50
