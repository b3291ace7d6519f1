"""Sites that die in the middle of a round: the rounds go on, budget may be lost, privacy never."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from privfl.errors import Misuse, RoundAborted
from privfl.runtime import Federation, Kill
from privfl.runtime.store import MemorySiteStore
from tests.runtime.support import QUICK, SPEC, Watch, charged, federation

PLACES = ("reserved", "accepted", "computed", "stored")


def train(fed: Federation, watch: Watch, monkeypatch: pytest.MonkeyPatch, **options: Any) -> Any:
    """Three rounds under watch."""
    watch.install(monkeypatch).tap(fed)
    return fed.train(SPEC, **{**QUICK, **options}, observer=watch.observe)


def one_upload_each(watch: Watch) -> None:
    """No site ever let two different uploads of one slot leave."""
    assert all(len(left) == 1 for left in watch.uploads().values())


@pytest.mark.parametrize("at", PLACES)
def test_voted_rounds_go_on_without_the_dead(at: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The round opens to the sum of the others; the dead site is charged for it and back in the next."""
    fed, watch = federation(), Watch()
    fit = train(fed, watch, monkeypatch, kills=[Kill("east", 2, at)], mode="voted")  # type: ignore[arg-type]
    assert fit.rounds == 3
    assert fit.dropped == {2: ("east",)}
    assert [one.attempt for one in fit.transcript.verify()] == [0, 0, 0]
    assert fit.transcript.verify()[1].dropped == ("east",)
    lost = fit.transcript[1].announcement.h0
    assert lost in charged(fed)["east"], "a reservation outlives a crash"
    assert {len(found) for found in charged(fed).values()} == {3}
    assert fit.privacy.spent["east"] == pytest.approx(fit.privacy.epsilon)
    one_upload_each(watch)


@pytest.mark.parametrize("at", PLACES)
def test_complete_rounds_are_tried_again_with_the_restarted_site(at: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing opens without all; the next attempt has the site back, and its cost is counted."""
    fed, watch = federation(4), Watch()
    options = {"kills": [Kill("east", 2, at)], "mode": "complete", "rounds": 4}  # type: ignore[arg-type]
    fit = train(fed, watch, monkeypatch, **options)
    assert fit.dropped == {}
    assert [one.attempt for one in fit.transcript.verify()] == [0, 1, 0]
    assert fit.stopped == "the budget of 4 uploads is used up, aborted attempts included"
    assert fit.privacy.uploads == 4
    assert {len(found) for found in charged(fed).values()} == {4}
    assert fit.privacy.epsilon <= 8.0
    one_upload_each(watch)


def test_a_site_dead_after_storing_repeats_identical_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    """The announcement comes again to the restarted site: it sends what it had stored, and draws no second noise."""
    fed, watch = federation(), Watch()
    fit = train(fed, watch, monkeypatch, kills=[Kill("east", 2, "stored")])
    slot = fit.transcript[1].announcement.h0
    east = next(site for site in fed._sites if fed.name_of(site) == "east")
    ((message, body),) = watch.uploads()[slot, east]
    assert sum(key == (slot, east) for key in watch.vectors) == 1
    assert (message, body) not in {pair for (_, site), left in watch.uploads().items() for pair in left if site != east}


@pytest.mark.parametrize("at", ["accepted", "computed"])
def test_a_site_dead_before_storing_stays_silent_in_that_slot(at: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between used(H0) and a durable upload a restart gives the slot up, although its announcement comes again."""
    fed, watch = federation(), Watch()
    fit = train(fed, watch, monkeypatch, kills=[Kill("east", 2, at)])  # type: ignore[arg-type]
    slot = fit.transcript[1].announcement.h0
    east = next(site for site in fed._sites if fed.name_of(site) == "east")
    assert (slot, east) not in watch.uploads()
    assert sum(key == (slot, east) for key in watch.vectors) == (at == "computed")


def test_a_repeated_announcement_gets_identical_bytes_and_one_charge(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every message delivered twice: each site still computes, charges and uploads once per slot."""
    fed, watch = federation(4), Watch().install(monkeypatch)
    watch.tap(fed)
    post = fed._wire.post

    def twice(sender: bytes, recipient: bytes, data: bytes) -> None:
        post(sender, recipient, data)
        post(sender, recipient, data)

    monkeypatch.setattr(fed._wire, "post", twice)
    fit = fed.train(SPEC, **QUICK, observer=watch.observe)
    assert fit.rounds == 3
    assert fit.dropped == {}
    assert {len(found) for found in charged(fed).values()} == {3}
    uploads = [one for one in watch.mail if one.kind == "upload"]
    assert len(uploads) >= 2 * 3 * 4
    one_upload_each(watch)


def test_everybody_dying_at_once_is_a_retry(monkeypatch: pytest.MonkeyPatch) -> None:
    """A round in which no site answers is aborted and tried again with all of them."""
    fed, watch = federation(4), Watch()
    kills = [Kill(name, 2, at) for name, at in zip(fed.names, PLACES, strict=True)]  # type: ignore[arg-type]
    fit = train(fed, watch, monkeypatch, kills=kills, rounds=4)
    assert [one.attempt for one in fit.transcript.verify()] == [0, 1, 0]
    assert fit.dropped == {}
    one_upload_each(watch)


def test_too_many_dead_in_the_first_round_without_another_attempt_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing was opened, so there is nothing to return: the message says how many came and how many are needed."""
    fed = federation(4)
    with pytest.raises(RoundAborted, match="2 of 4 sites uploaded"):
        train(fed, Watch(), monkeypatch, kills=[Kill("north", 1), Kill("south", 1)], attempts=1)
    assert {len(found) for found in charged(fed).values()} == {1}


def test_too_many_dead_later_end_the_run_with_what_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rounds that were opened are not thrown away."""
    fed, watch = federation(4), Watch()
    fit = train(fed, watch, monkeypatch, kills=[Kill("north", 2), Kill("south", 2)], attempts=1)
    assert fit.rounds == 1
    assert fit.stopped.startswith("stopped early: round 2 was given up after 1 attempt(s): 2 of 4 sites uploaded")
    assert fit.privacy.uploads == 2
    assert np.isfinite(fit.model.coef_).all()


def test_a_different_site_dies_in_every_round(monkeypatch: pytest.MonkeyPatch) -> None:
    """Restarts leave no trace in later rounds: keys, ratchets and heads go on from the store."""
    fed, watch = federation(), Watch()
    order = [("north", 1), ("south", 2), ("east", 3), ("west", 4), ("north", 5), ("central", 6)]
    kills = [Kill(name, number, PLACES[number % 4]) for name, number in order]  # type: ignore[arg-type]
    fit = train(fed, watch, monkeypatch, kills=kills, rounds=6)
    assert fit.dropped == {number: (name,) for name, number in order}
    assert len(fit.transcript.verify()) == 6
    one_upload_each(watch)


def test_a_store_set_back_is_noticed(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """A site restarted from an older copy of its store refuses: the coordinator shows a header it does not know."""
    fed = federation()
    east = next(site for site in fed._sites.values() if site.name == "east")
    backup: list[bytes] = []
    save, load = MemorySiteStore.save_outbox, MemorySiteStore.load

    def keep(store: MemorySiteStore, dump: bytes, upload: bytes, body: bytes) -> None:
        if store is east.store:
            backup.append(dump)
        save(store, dump, upload, body)

    monkeypatch.setattr(MemorySiteStore, "save_outbox", keep)
    monkeypatch.setattr(
        MemorySiteStore, "load", lambda store: backup[0] if store is east.store and backup else load(store)
    )
    fit = fed.train(SPEC, **{**QUICK, "rounds": 4}, kills=[Kill("east", 3, "reserved")])
    assert fit.dropped == {3: ("east",), 4: ("east",)}
    assert "the store is an older copy" in caplog.text
    assert len(fit.transcript.verify()) == 4
    assert len(charged(fed)["east"]) == 3, "refused before it was charged"


def test_killing_nobody_known_is_refused() -> None:
    """A name that is no site is a misuse before anything starts."""
    fed = federation(3)
    with pytest.raises(Misuse, match="no site 'nowhere' to kill"):
        fed.train(SPEC, **QUICK, kills=[Kill("nowhere", 1)])
    assert all(not found for found in charged(fed).values())
