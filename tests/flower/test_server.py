"""The ServerApp: where it finds its coordinator, what makes it fail, and that it goes on where it was."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from flwr.app import Context, RecordDict
from flwr.serverapp import ServerApp

import privfl.flower
from privfl.errors import Misuse, PrivflError
from privfl.flower.server import app, coordinator_app, serve
from privfl.homes.coordinator import CoordinatorHome
from privfl.homes.lock import Lock
from privfl.runtime.coordinator_process import Pace
from privfl.runtime.jobs import jobs_of
from privfl.runtime.status import CoordinatorStatus, read_status
from tests.flower.carried import FAST, PACE, Carried, carried
from tests.runtime.realm import PASSPHRASE


@pytest.fixture(scope="module")
def town(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Carried]:
    with carried(tmp_path_factory.mktemp("world") / "world", 3) as made:
        yield made


@pytest.fixture
def world(town: Carried, monkeypatch: pytest.MonkeyPatch) -> Carried:
    monkeypatch.setenv("PRIVFL_PASSPHRASE", PASSPHRASE)
    monkeypatch.delenv("PRIVFL_COORDINATOR", raising=False)
    return town


def context(**config: Any) -> Context:
    return Context(1, 0, {}, RecordDict(), {name.replace("_", "-"): value for name, value in config.items()})


def test_no_coordinator_no_folder_no_passphrase(
    world: Carried, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Each says what to set and where."""
    grid = world.grid({})
    with pytest.raises(Misuse, match=r"privfl-coordinator.*PRIVFL_COORDINATOR"):
        serve(grid, context(privfl_coordinator=""))
    with pytest.raises(Misuse, match="there is no folder"):
        serve(grid, context(privfl_coordinator=str(tmp_path / "none")))
    with pytest.raises(PrivflError, match="passphrase"):
        serve(grid, context(privfl_coordinator=str(world.coordinator)), passphrase="another passphrase")
    monkeypatch.delenv("PRIVFL_PASSPHRASE")
    with pytest.raises(Misuse, match="PRIVFL_PASSPHRASE"):
        serve(grid, context(privfl_coordinator=str(world.coordinator)))


def test_a_coordinator_over_another_wire_is_refused(world: Carried, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its sites would never be heard: said at once, with the command that changes it."""
    now, told = int(time.time() * 1000), world.realm.trial.folder.parent / "federation.yaml"
    CoordinatorHome.join(world.coordinator, PASSPHRASE, now, wire=f"folder:{world.realm.trial.wire}")
    try:
        with pytest.raises(Misuse, match="kind: flower"):
            serve(world.grid({}), context(privfl_coordinator=str(world.coordinator)))
    finally:
        CoordinatorHome.join(world.coordinator, PASSPHRASE, now, wire=str(told))


def test_two_coordinators_on_one_folder(world: Carried) -> None:
    """The second run is refused, and its message names the process of the first."""
    with Lock(world.coordinator), pytest.raises(Misuse, match=r"another process \(pid \d+\)"):
        serve(world.grid({}), context(privfl_coordinator=str(world.coordinator)))


def test_a_run_with_nothing_to_do_ends(world: Carried) -> None:
    """No job waits: the app ends at once, and well."""
    serve(world.grid({}), context(privfl_coordinator=str(world.coordinator)), **FAST)
    assert read_status(world.coordinator / "status.json", CoordinatorStatus).phase == "done"


def test_a_job_that_fails_makes_the_run_fail(world: Carried) -> None:
    """The message names the job, its reason, and what the courier saw of the nodes."""
    job = world.realm.submit(rounds=1, epsilon=1.0)
    grid = world.grid({1: {}})  # a node without a site
    with pytest.raises(PrivflError, match=rf"job {job.id} failed: .*sites are up.*this node names no site"):
        serve(grid, context(privfl_coordinator=str(world.coordinator)), pace=Pace(gather=700), **FAST)
    assert job.state().state == "failed"
    serve(grid, context(privfl_coordinator=str(world.coordinator)), **FAST)  # it is no failure of the next run


def test_the_runs_configuration_is_enough(world: Carried, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A task named by ``privfl-task`` is submitted and done; folder by the environment, passphrase from a file."""
    secret = tmp_path / "passphrase"
    secret.write_text(PASSPHRASE + "\n")
    secret.chmod(0o600)
    monkeypatch.setenv("PRIVFL_COORDINATOR", str(world.coordinator))
    task = world.realm.task(rounds=1, epsilon=1.0)
    monkeypatch.delenv("PRIVFL_PASSPHRASE")
    monkeypatch.setenv("PRIVFL_PASSPHRASE_FILE", str(secret))
    logs: list[str] = []
    monkeypatch.setattr("privfl.flower.server.configure", lambda form, **rest: logs.append(form))
    made = coordinator_app(pace=PACE, **FAST)
    assert isinstance(app, ServerApp)
    before = len(jobs_of(world.coordinator))
    made(world.grid(), context(privfl_task=str(task), privfl_log="json"))
    jobs = jobs_of(world.coordinator)
    assert len(jobs) == before + 1
    assert jobs[-1].state().state == "done"
    assert logs == ["json"]


def test_it_stays_for_more_jobs_if_told_to(world: Carried) -> None:
    """``privfl-serve``: a job that is submitted while it runs is done, and then it is stopped."""
    stop = threading.Event()
    told = context(privfl_coordinator=str(world.coordinator), privfl_serve=True)
    thread = threading.Thread(
        target=serve, args=(world.grid(), told), kwargs={"stop": stop.is_set, "pace": PACE, **FAST}
    )
    thread.start()
    job = world.realm.submit(rounds=1, epsilon=1.0)
    try:
        assert world.realm.finished(job, 120).state == "done"
    finally:
        stop.set()
        thread.join(30)
    assert not thread.is_alive()


def test_names_of_the_package_are_loaded_when_used() -> None:
    """The public face, and nothing else."""
    assert all(getattr(privfl.flower, name) is not None for name in privfl.flower.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        privfl.flower.nothing  # noqa: B018
