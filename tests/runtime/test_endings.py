"""What ends: an epoch's keys after the job, a policy's force over votes, and a run that another came between."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest

from privfl.clock import SystemClock
from privfl.errors import Malformed
from privfl.homes.site import SiteHome
from privfl.learn.checkpoint import dump_state, load_state
from privfl.secagg import SiteMachine
from tests.runtime.evil import Evil, compiled
from tests.runtime.realm import PASSPHRASE, realm
from tests.runtime.support import federation
from tests.runtime.test_processes import verified


def test_an_epoch_s_keys_are_gone_when_the_job_is_done_and_a_next_job_runs(tmp_path: Path) -> None:
    """The coordinator says that the epoch is over; every site's sealed state then holds no key of it."""
    with realm(tmp_path, 3) as world:
        for _ in range(2):
            job = world.submit(rounds=2)
            world.start_sites()
            world.start_coordinator()
            assert world.finished(job).state == "done"
            assert verified(world, job) == 2
            world.wait("coordinator")
            time.sleep(0.5)
            for name, home in world.trial.sites.items():
                world.kill(name)
                with SiteHome.open(home, PASSPHRASE, SystemClock().now(), data=False) as site:
                    dump = site.state.get("machine")
                    assert dump is not None
                    machine = SiteMachine.load(site.party, None, None, dump, restarted=True)  # type: ignore[arg-type]
                    assert machine.epoch > 0
                    assert not machine.in_epoch


def test_a_run_goes_on_in_an_epoch_of_its_own_after_another_came_between(tmp_path: Path) -> None:
    """Rounds only rise within an epoch: the interrupted job opens a new one rather than go on in the other's."""
    from privfl.homes.coordinator import CoordinatorHome
    from privfl.runtime.coordinator_process import CoordinatorProcess
    from tests.runtime.realm import QUICK

    with realm(tmp_path) as world:
        first = world.submit(rounds=12)
        world.start_sites()
        world.start_coordinator()
        time.sleep(0.8)
        world.kill("coordinator")
        between = world.submit(rounds=2)
        with CoordinatorHome.open(world.trial.coordinator, PASSPHRASE, SystemClock().now()) as home:
            process = CoordinatorProcess(home, SystemClock(), pace=QUICK)
            assert process.run(between).rounds == 2
            if not first.state().over:
                fit = process.run(first)
                assert fit.rounds >= 9, fit.stopped
                assert [one.announcement.round for one in fit.transcript] == sorted(
                    one.announcement.round for one in fit.transcript
                )


def test_nothing_is_voted_under_a_policy_that_has_expired() -> None:
    """A member whose policy ended between the announcement and the vote refuses it."""
    from dataclasses import replace

    evil = Evil.make()
    for at in range(len(evil.ids)):
        announcement = evil.announce() if at == 0 else announcement  # noqa: F821
        assert evil.invite(announcement, at=at) is not None
    node = evil.node()
    node.machine.rules = replace(node.machine.rules, expires=evil.fed._clock.now())
    from privfl.secagg import Ask

    ask = Ask(announcement, (), (), ())
    reply = evil.ask("ask-vote", ask.encode())
    assert reply is not None
    assert reply.kind == "refused"
    assert b"expired" in reply.payload


def test_a_run_s_state_comes_back_bit_for_bit() -> None:
    """Model, optimiser and history; bytes of another task are refused."""
    fed = federation(4)
    task, other = compiled(fed), compiled(fed, epsilon=4.0)
    state, rng = task.initial_state(), np.random.default_rng(1)
    for _ in range(3):
        state = task.update(state, rng.integers(-1000, 1000, task.length), 4)
        back = load_state(task, dump_state(task, state))
        assert back.round == state.round
        assert back.params.tobytes() == state.params.tobytes()
        assert [slot.tobytes() for slot in back.strategy.slots] == [slot.tobytes() for slot in state.strategy.slots]
        assert list(back.history) == list(state.history)
        assert task.model_bytes(back) == task.model_bytes(state)
    with pytest.raises(Malformed, match="another task"):
        load_state(other, dump_state(task, state))
