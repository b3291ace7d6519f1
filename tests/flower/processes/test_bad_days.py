"""Everything of Flower's is killed at some moment, and started again; the jobs end as if nothing had been."""

from __future__ import annotations

from collections import Counter

from privfl_analytics.jobs import RunSettings, asked_of
from privfl_analytics.study import Study

from privfl.budget.ledger_check import read_ledger
from privfl.budget.ledger_entries import Kind
from privfl.clock import SystemClock
from privfl.runtime.jobs import submit
from privfl.runtime.status import CoordinatorStatus, Phase
from tests.flower.processes.town import APP, Town
from tests.runtime.support import SCHEMA

#: In which stage which site's SuperNode is killed, and whether all that it has started dies with it.
STAGES = {
    Phase.EPOCH: ("north", True),
    Phase.COLLECTING: ("south", True),
    Phase.VOTING: ("east", False),
    Phase.RELEASING: ("west", True),
}


def charged_once_per_slot(town: Town) -> None:
    """No ledger has two charges for one slot; a site that was away when the epoch began may have none."""
    for home in town.realm.trial.sites.values():
        (path,) = (home / "ledger").glob("*.db")
        slots = Counter(entry.reference for entry in read_ledger(path).entries if entry.kind == Kind.RESERVE)
        assert set(slots.values()) <= {1}


def test_a_supernode_killed_in_each_stage_comes_back_and_the_training_ends(noised: Town) -> None:
    """Epoch set-up, collecting, voting, releasing: each loses one SuperNode at once, with or without its site."""
    job = noised.realm.submit(rounds=2, mode="voted")
    run = noised.flower.start_run(APP, noised.config)
    for phase, (site, whole) in STAGES.items():
        noised.await_(lambda seen, phase=phase: seen.phase == phase, job)  # type: ignore[misc]
        noised.flower.kill_supernode(noised.nodes[site], whole=whole)
        noised.flower.replace_supernode(noised.nodes[site])  # by its old key it could come back after a minute
    outcome = noised.flower.finished(run, check=False, seconds=900)
    assert (outcome.status, job.state().state) == ("finished:completed", "done"), outcome.log
    assert noised.verified(job) == 2
    charged_once_per_slot(noised)


def test_a_stopped_serverapp_and_a_killed_superlink_cost_a_study_nothing(noised: Town) -> None:
    """The run is stopped in epoch set-up and started again; then SuperLink dies while sites upload. Its restart has
    the SuperNodes connected by themselves, and the next run goes on with the job.
    """
    asked = asked_of(Study("study", ("count",)), SCHEMA, RunSettings(epsilon=1.0, delta=1e-6, mode="complete"))
    job = submit(noised.coordinator, asked, SystemClock().now(), kind="study")
    run = noised.flower.start_run(APP, noised.config)
    noised.await_(lambda seen: seen.phase == Phase.EPOCH, job)
    noised.flower.stop_run(run)
    assert noised.flower.finished(run, check=False).status == "finished:stopped"
    noised.free()
    noised.flower.start_run(APP, noised.config)
    noised.await_(collecting, job)
    noised.flower.kill_superlink()
    noised.free()
    noised.flower.restart_superlink()
    assert noised.flower.stop_supernode(noised.nodes["north"]) == 0  # one that is stopped may come back at once
    noised.flower.restart_supernode(noised.nodes["north"], seconds=0)
    outcome = noised.flower.run(APP, noised.config, check=False, seconds=900)
    assert (outcome.status, job.state().state) == ("finished:completed", "done"), outcome.log
    assert noised.verified(job) == 1
    charged_once_per_slot(noised)


def collecting(seen: CoordinatorStatus) -> bool:
    return seen.phase == Phase.COLLECTING
