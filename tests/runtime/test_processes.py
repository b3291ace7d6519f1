"""A federation of real processes over the folder wire: it trains, survives deaths, and goes on after a stop."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest
from privfl_keys import SigningKey, VerifyKey

from privfl.budget import Mandate, Purpose
from privfl.budget.ledger_check import verify_file
from privfl.budget.ledger_entries import Kind
from privfl.clock import SystemClock
from privfl.entropy import SYSTEM
from privfl.errors import Misuse, PrivflError
from privfl.runtime.coordinator import RoundResult
from privfl.runtime.coordinator_process import run_coordinator
from privfl.runtime.jobs import Job, submit
from privfl.runtime.site_process import run_site
from privfl.runtime.status import CoordinatorStatus, SiteStatus, life, read_status
from privfl.runtime.training import TrainingRun
from privfl.secagg import read_transcript, verify_transcript
from tests.runtime.realm import Realm, realm


def verified(world: Realm, job: Job) -> int:
    """Verify every transcript of a finished job without any secret; returns how many there are."""
    authority = VerifyKey(bytes.fromhex((world.trial.authority / "authority.pub").read_text()))
    paths = sorted((job.result / "transcripts").glob("*.transcript"))
    for path in paths:
        verify_transcript(read_transcript(path.read_bytes()), authority)
    return len(paths)


def test_processes_train_together(tmp_path: Path) -> None:
    """Four sites and a coordinator, each a process: the job is done, the transcripts and ledgers verify."""
    with realm(tmp_path) as world:
        job = world.submit()
        world.start_sites()
        world.start_coordinator()
        state = world.finished(job)
        assert state.state == "done", state
        assert verified(world, job) == 4
        world.wait("coordinator")
        for home in world.trial.sites.values():
            (ledger,) = (home / "ledger").glob("*.db")
            assert verify_file(ledger, None)


def test_a_mandate_that_does_not_hold_asks_no_site(tmp_path: Path) -> None:
    """The coordinator verifies it first: the job fails with the reason, although no site is up to refuse it."""
    with realm(tmp_path) as world:
        now = SystemClock().now()
        stranger = Mandate.sign(
            SigningKey.generate(SYSTEM),
            federation="anything",
            task=bytes(32),
            purpose=Purpose.TRAINING,
            expires=now + 60_000,
            entropy=SYSTEM,
        )
        job = submit(world.trial.coordinator, world.task(), now, mandate=stranger.encode())
        world.start_coordinator()
        state = world.finished(job)
        assert (state.state, state.exit_code) == ("failed", 3)
        assert "not signed by an analyst of this roster" in state.error


def test_a_start_that_failed_shows_in_the_status(tmp_path: Path) -> None:
    """A monitor must not go on reading that the last run ended well; whoever works in the folder keeps its own."""
    with realm(tmp_path) as world:
        north, hub, right = world.trial.sites["north"], world.trial.coordinator, world.trial.passphrase
        with pytest.raises(PrivflError):
            run_site(north, "wrong", stop=lambda: True)
        assert not (north / "status.json").exists()
        run_site(north, right, stop=lambda: True)
        run_coordinator(hub, right, stop=lambda: True)
        with pytest.raises(PrivflError):
            run_site(north, "wrong", stop=lambda: True)
        with pytest.raises(PrivflError):
            run_coordinator(hub, "wrong", stop=lambda: True)
        site = read_status(north / "status.json", SiteStatus)
        coordinator = read_status(hub / "status.json", CoordinatorStatus)
        assert life(site) == life(coordinator) == "failed"
        assert "the passphrase does not open" in site.error
        assert "the passphrase does not open" in coordinator.error
        child = world.start_site("north")
        while read_status(north / "status.json", SiteStatus).process.pid != child:
            assert world.alive("north")
            time.sleep(0.01)
        with pytest.raises(Misuse, match="another process"):
            run_site(north, right, stop=lambda: True)
        assert read_status(north / "status.json", SiteStatus).process.pid == child


def test_a_coordinator_killed_again_and_again_finishes(tmp_path: Path) -> None:
    """SIGKILL in the middle of rounds: started again it takes the open slot up where it was."""
    with realm(tmp_path) as world:
        job = world.submit(rounds=8)
        world.start_sites()
        for pause in (0.2, 0.35, 0.3, 0.4):
            world.start_coordinator()
            time.sleep(pause)
            if world.alive("coordinator"):
                world.kill("coordinator")
        world.start_coordinator()
        assert world.finished(job).state == "done"
        assert 1 <= verified(world, job) <= 8


def test_a_sum_that_was_opened_and_not_taken_is_opened_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed between the opening of a sum and the record of its run, the coordinator opens it once more.

    No round is asked for twice: each site's ledger has one charge per round.
    """
    take, here = TrainingRun.take, tmp_path / "died in round"

    def dying(run: TrainingRun, result: RoundResult) -> None:
        if run.number == 2 and not here.exists():
            here.write_text("2")
            os.kill(os.getpid(), signal.SIGKILL)
        take(run, result)

    monkeypatch.setattr(TrainingRun, "take", dying)
    with realm(tmp_path) as world:
        job = world.submit(rounds=3)
        world.start_sites()
        world.start_coordinator()
        assert os.WTERMSIG(world.wait("coordinator")) == signal.SIGKILL
        world.start_coordinator()
        assert world.finished(job).state == "done"
        assert verified(world, job) == 3
        for home in world.trial.sites.values():
            (ledger,) = (home / "ledger").glob("*.db")
            entries = verify_file(ledger, None).book.entries
            assert [entry.kind for entry in entries].count(Kind.RESERVE) == 3


def test_a_site_killed_and_restarted_is_back(tmp_path: Path) -> None:
    """One site dies in the middle of a job; the rounds go on without it, and it is in a later one."""
    with realm(tmp_path) as world:
        job = world.submit(rounds=12)
        world.start_sites()
        world.start_coordinator()
        time.sleep(0.6)
        world.kill("east")
        time.sleep(0.5)
        world.start_site("east")
        assert world.finished(job).state == "done"
        assert verified(world, job) >= 6


def test_sigterm_ends_a_site_cleanly(tmp_path: Path) -> None:
    """The process that the command line starts finishes what it has in hand and exits with 0."""
    with realm(tmp_path, 3) as world:
        stopping: list[int] = []

        def stop() -> bool:
            if not stopping:
                signal.signal(signal.SIGTERM, lambda *_: stopping.append(2))
                stopping.append(1)
            return 2 in stopping

        world.start_site("north", stop=stop)
        time.sleep(0.5)
        assert world.kill("north", signal.SIGTERM) == 0


def test_a_wire_that_goes_away_and_comes_back_costs_time_only(tmp_path: Path) -> None:
    """The shared folder vanishes in the middle of a job, as an unmounted share does; with it back, the job goes on."""
    with realm(tmp_path) as world:
        job = world.submit(rounds=10)
        world.start_sites()
        world.start_coordinator()
        time.sleep(0.6)
        away = world.trial.folder / "away"
        world.trial.wire.rename(away)
        time.sleep(1.5)
        away.rename(world.trial.wire)
        assert world.finished(job).state == "done"
        assert verified(world, job) >= 8
        assert all(world.alive(name) for name in world.trial.sites)
