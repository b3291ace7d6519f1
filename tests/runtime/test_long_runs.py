"""Runs that end: rounds, targets, budgets with aborted attempts, epochs that are renewed, refusals on the way."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from privfl.budget import Charge, MemoryAccount
from privfl.errors import BudgetExceeded, Refused, RoundAborted
from privfl.learn import Logistic
from privfl.runtime import Federation, Kill
from privfl.wires import Envelope
from tests.runtime.support import QUICK, SPEC, Watch, charged, federation


def silenced(fed: Federation, monkeypatch: pytest.MonkeyPatch, kind: str, rounds: set[int]) -> None:
    """Swallow every reply of ``kind`` while the coordinator is in one of ``rounds`` (by count of opened ones + 1)."""
    post = fed._wire.post

    def posted(sender: bytes, recipient: bytes, data: bytes) -> None:
        slot = fed._coordinator.machine.slot.announcement
        if Envelope.decode(data).kind == kind and slot is not None and slot.round in rounds:
            return
        post(sender, recipient, data)

    monkeypatch.setattr(fed._wire, "post", posted)


def test_a_third_and_more_rounds_than_an_epoch_serves(monkeypatch: pytest.MonkeyPatch) -> None:
    """After a hundred rounds the keys are renewed in the middle of a run, exactly and without a gap."""
    fed, watch = federation(3), Watch().install(monkeypatch)
    fit = fed.train(Logistic(label="ill", metrics=0), **{**QUICK, "rounds": 103}, observer=watch.observe)
    assert fit.stopped == "all 103 rounds done"
    epochs = [one.epoch for one in fit.transcript.verify()]
    assert epochs == [1] * 100 + [2] * 3
    assert [one.round for one in fit.transcript.verify()] == list(range(1, 104))
    assert len(watch.sums) == 103
    assert fit.privacy.epsilon <= 8.0
    assert {len(found) for found in charged(fed).values()} == {103}


def test_an_epoch_that_cannot_be_renewed_ends_the_run_with_what_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """A refusal in the middle keeps the finished rounds."""
    monkeypatch.setattr("privfl.runtime.run.EPOCH_ROUNDS", 2)
    fed = federation(3)
    post = fed._wire.post

    def posted(sender: bytes, recipient: bytes, data: bytes) -> None:
        if fed._coordinator.machine._state.epoch < 2 or Envelope.decode(data).kind != "advert":
            post(sender, recipient, data)

    monkeypatch.setattr(fed._wire, "post", posted)
    fit = fed.train(SPEC, **{**QUICK, "rounds": 5})
    assert fit.rounds == 2
    assert fit.stopped.startswith("stopped early: ")
    assert fit.privacy.uploads == 2
    assert len(fit.transcript.verify()) == 2


def test_a_target_that_is_met_stops_and_saves_budget() -> None:
    """Fewer rounds are charged than planned, and the reason says why."""
    fed = federation(3)
    spec = Logistic(label="ill", target=0.01, metrics=0.5)
    fit = fed.train(spec, **{**QUICK, "epsilon": 60.0, "rounds": 12})
    assert fit.stopped.startswith("target reached: noisy score")
    assert 3 <= fit.rounds < 12
    assert fit.privacy.uploads == fit.rounds
    assert fit.privacy.epsilon < 60.0
    assert all(spent == pytest.approx(fit.privacy.epsilon) for spent in fit.privacy.spent.values())


@pytest.mark.parametrize("attempts", [1, 2, 3])
def test_aborted_attempts_are_paid_for(attempts: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Attempts in which members stay silent after uploads are charged like any other; the report counts them."""
    fed = federation(4)
    silenced(fed, monkeypatch, "release", {2})
    fit = fed.train(SPEC, **{**QUICK, "rounds": 6}, attempts=attempts)
    assert fit.rounds == 1
    assert f"round 2 was given up after {attempts} attempt(s)" in fit.stopped
    assert fit.privacy.uploads == 1 + attempts
    assert {len(found) for found in charged(fed).values()} == {1 + attempts}
    assert fit.privacy.epsilon == pytest.approx(fit.task.epsilon_after(1 + attempts))


def test_a_budget_used_up_by_attempts_ends_the_training(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two rounds took two attempts each: of six planned uploads four rounds come out, and ε stays within bounds."""
    fed = federation(4)
    kills = [Kill("north", 2), Kill("south", 2), Kill("north", 3), Kill("south", 3)]
    fit = fed.train(SPEC, **{**QUICK, "rounds": 6}, kills=kills)
    assert [one.attempt for one in fit.transcript.verify()] == [0, 1, 1, 0]
    assert fit.stopped == "the budget of 6 uploads is used up, aborted attempts included"
    assert fit.privacy.uploads == 6
    assert fit.privacy.epsilon <= 8.0
    assert {len(found) for found in charged(fed).values()} == {6}


def test_no_attempt_goes_beyond_the_planned_uploads(monkeypatch: pytest.MonkeyPatch) -> None:
    """With one upload left a failing round gets one attempt, however many were allowed."""
    fed = federation(4)
    silenced(fed, monkeypatch, "vote", {3})
    fit = fed.train(SPEC, **{**QUICK, "rounds": 3}, attempts=5)
    assert fit.rounds == 2
    assert "round 3 was given up after 1 attempt(s)" in fit.stopped
    assert fit.privacy.uploads == 3


def test_silence_from_the_start_is_an_error_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing was ever opened: the error says what was missing."""
    fed = federation(4)
    silenced(fed, monkeypatch, "vote", {1})
    with pytest.raises(RoundAborted, match="fewer than 3 committee members voted"):
        fed.train(SPEC, **QUICK)
    fed = federation(4)
    silenced(fed, monkeypatch, "upload", {1})
    with pytest.raises(RoundAborted, match="0 of 4 sites uploaded"):
        fed.train(SPEC, **QUICK)


def test_sites_whose_own_account_is_full_refuse(monkeypatch: pytest.MonkeyPatch) -> None:
    """The account decides, not the coordinator's plan: the first round everybody refuses ends the run."""
    fed = federation(4)
    reserve = MemoryAccount.reserve

    def tight(account: MemoryAccount, charge: Charge, now: int) -> bytes:
        if len(account.charges) == 2:
            raise BudgetExceeded("nothing is left")
        return reserve(account, charge, now)

    monkeypatch.setattr(MemoryAccount, "reserve", tight)
    fit = fed.train(SPEC, **{**QUICK, "rounds": 5})
    assert fit.rounds == 2
    assert fit.privacy.uploads == 3  # a refusal may have come after a charge: what was asked for counts
    assert fit.stopped == "stopped early: every site refused round 3: nothing is left"
    assert {len(found) for found in charged(fed).values()} == {2}
    monkeypatch.setattr(
        MemoryAccount, "reserve", lambda *args: (_ for _ in ()).throw(BudgetExceeded("nothing is left"))
    )
    with pytest.raises(Refused, match="every site refused round 1: nothing is left"):
        fed.train(SPEC, **QUICK)


def test_reasons_that_differ_are_told_with_who_gave_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not the first reason alone; reasons that differ in figures only, as ledgers do, are one."""
    fed = federation(4)

    def refusing(words: Callable[[int], str]) -> Callable[[MemoryAccount, Charge, int], bytes]:
        def reserve(account: MemoryAccount, charge: Charge, now: int) -> bytes:
            raise BudgetExceeded(words([site.account is account for site in fed._sites.values()].index(True)))

        return reserve

    monkeypatch.setattr(MemoryAccount, "reserve", refusing(lambda at: "full" if at else "no share for it"))
    with pytest.raises(Refused, match=r"round 1: .*\w+, \w+, \w+: full") as caught:
        fed.train(SPEC, **QUICK)
    assert "no share for it" in str(caught.value)
    monkeypatch.setattr(MemoryAccount, "reserve", refusing(lambda at: f"left: mu^2 0.1{at} at 10:0{at} UTC"))
    with pytest.raises(Refused, match=r"round 1: left: mu\^2 0\.1\d at 10:0\d UTC$"):
        fed.train(SPEC, **QUICK)


def test_some_sites_refusing_is_a_smaller_sum(monkeypatch: pytest.MonkeyPatch) -> None:
    """One site with a full account is a dropped site in voted mode; its reason is logged, its rows are in no sum."""
    fed, watch = federation(4), Watch().install(monkeypatch)
    poor = next(site for site in fed._sites.values() if site.name == "east")
    reserve = MemoryAccount.reserve

    def tight(account: MemoryAccount, charge: Charge, now: int) -> bytes:
        if account is poor.account and account.charges:
            raise BudgetExceeded("nothing is left")
        return reserve(account, charge, now)

    monkeypatch.setattr(MemoryAccount, "reserve", tight)
    fit = fed.train(SPEC, **QUICK, observer=watch.observe)
    assert fit.dropped == {2: ("east",), 3: ("east",)}
    assert fit.privacy.spent["east"] < fit.privacy.spent["north"]


def test_the_report_adds_up() -> None:
    """ε over all uploads, μ by root of sum, the fallback above it, and words that name unit, trust and both."""
    fit = federation(5).train(SPEC, **QUICK)
    privacy, release = fit.privacy, fit.task.release
    assert release is not None
    assert privacy.mu == pytest.approx(release.mu * np.sqrt(3))
    assert privacy.epsilon == fit.task.epsilon_after(3) <= 8.0 < privacy.fallback_epsilon
    assert (privacy.unit, privacy.trust, privacy.planned) == ("record", "distributed", 3)
    assert f"{privacy.delta:g}" in privacy.words
    local = federation(5).train(SPEC, **QUICK, trust="local").privacy
    assert local.fallback_epsilon == pytest.approx(local.epsilon)
