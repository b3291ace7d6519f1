"""Tasks in the coordinator's queue: in order, whole or not there, and taken out when nobody wants them any more."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
import yaml

from privfl.clock import SystemClock
from privfl.errors import BudgetExceeded, Misuse
from privfl.homes.coordinator import CoordinatorHome
from privfl.runtime.jobs import JobState, cancel_job, jobs_of, read_task, submit
from privfl.runtime.training_jobs import compile_task
from tests.cli.support import called
from tests.runtime.realm import PASSPHRASE, TASK, realm
from tests.runtime.test_processes import verified


def test_jobs_are_run_in_the_order_in_which_they_came(tmp_path: Path) -> None:
    """Ids sort by time, milliseconds included; what is half copied is no job."""
    with realm(tmp_path, 3) as world:
        now = SystemClock().now()
        made = [submit(world.trial.coordinator, world.task(name=f"task {at}"), now + at).id for at in range(5)]
        (world.trial.coordinator / "jobs" / ".20260101-000000-000000").mkdir()
        assert [job.id for job in jobs_of(world.trial.coordinator)] == made
        assert [job.name for job in jobs_of(world.trial.coordinator)] == [f"task {at}" for at in range(5)]


def test_a_cancelled_task_is_not_run(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that waits and one that was interrupted are taken out; what was charged stays; the next one runs."""
    with realm(tmp_path) as world:
        home = world.trial.coordinator
        first, second = world.submit(rounds=30), world.submit(rounds=2)
        world.start_sites()
        world.start_coordinator()
        time.sleep(0.8)
        world.kill("coordinator")
        third = world.submit(rounds=2)
        for job in (first, second):
            assert called(capfd, monkeypatch, "coordinator", "cancel", home, job.id).code == 0
        with pytest.raises(Misuse, match="nothing to cancel"):
            cancel_job(home, first.id)
        with pytest.raises(Misuse, match="no job"):
            cancel_job(home, "20260101-000000-000000")
        world.start_coordinator()
        assert world.finished(third).state == "done"
        assert verified(world, third) == 2
        listed = json.loads(called(capfd, monkeypatch, "coordinator", "jobs", home, "--json").out)["jobs"]
        assert [one["state"] for one in listed] == ["failed", "failed", "done"]
        assert "cancelled" in listed[0]["error"]
        assert first.state() == JobState("failed", "cancelled by the operator", 5, "Refused")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"label": None}, "label"),
        ({"taks": "logistic"}, "did you mean task"),
        ({"task": "forest"}, "task"),
        ({"epsilon": -1}, "epsilon"),
        ({"rounds": 0}, "rounds"),
        ({"options": {"clipp": 1}}, "clipp"),
        ({"schema": "nowhere.yaml"}, "there is no file"),
        ({"held_out": "nowhere.csv"}, "there is no file"),
    ],
)
def test_a_wrong_task_file_is_named_by_its_field(changes: dict[str, object], words: str, tmp_path: Path) -> None:
    """Nothing is put into the queue, and the message says what to correct."""
    fields = {**TASK, **changes}
    (tmp_path / "schema.yaml").write_text("records: 10\ncolumns: {ill: {classes: [false, true]}}\n")
    path = tmp_path / "task.yaml"
    path.write_text(yaml.safe_dump({name: value for name, value in fields.items() if value is not None}))
    with pytest.raises(Misuse, match=words):
        read_task(path)


def test_what_the_policy_can_never_hold_is_refused_at_once(tmp_path: Path) -> None:
    """A task whose rounds together exceed the share of training is refused before any site is asked."""
    with (
        realm(tmp_path, 4, policy={"shares": {"training": 0.5}}) as world,
        CoordinatorHome.open(world.trial.coordinator, PASSPHRASE, SystemClock().now()) as home,
    ):
        fits, schema = read_task(world.task(epsilon=4.0))
        compile_task(fits, schema, home.party.roster, home.policy)
        greedy, schema = read_task(world.task(epsilon=8.0))
        with pytest.raises(BudgetExceeded, match="privfl policy plan"):
            compile_task(greedy, schema, home.party.roster, home.policy)
