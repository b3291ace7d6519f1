"""Whole federations carried by Flower's messages, within one process: exact sums, whatever happens on the way."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from privfl_analytics.jobs import RunSettings, asked_of
from privfl_analytics.study import Study
from privfl_keys import VerifyKey
from sklearn.linear_model import Ridge

from privfl.budget import WITHOUT_NOISE
from privfl.clock import SystemClock
from privfl.flower import server
from privfl.flower.local_grid import GridFaults
from privfl.homes.lock import holder
from privfl.learn import Averaging
from privfl.runtime.jobs import Job, submit
from privfl.secagg import read_transcript, verify_transcript
from tests.flower.carried import Carried, carried, end_site
from tests.runtime.realm import PASSPHRASE
from tests.runtime.support import SCHEMA, federation

EXACT = {"without_noise": WITHOUT_NOISE, "epsilon": None, "delta": None, "tasks": {"averaging": {"clip": 1000.0}}}
BARE = Averaging(label="age", estimator=Ridge(), unprotected=True)
ROUNDING = ("privfl.dp.vectors", "privfl.dp.dither")
TASK: dict[str, Any] = {
    "task": "averaging",
    "label": "age",
    "epsilon": None,
    "delta": None,
    "options": {"estimator": json.loads(BARE.to_json())["estimator"], "unprotected": True},
}


@pytest.fixture(autouse=True)
def _passphrase(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PRIVFL_PASSPHRASE", PASSPHRASE)


@pytest.fixture(scope="module", autouse=True)
def _to_the_nearest() -> Iterator[None]:
    """Reals are rounded to integers at random; to the nearest instead, so that two runs can be held side by side."""
    with pytest.MonkeyPatch.context() as patched:
        for module in ROUNDING:
            patched.setattr(f"{module}.round_at_random", lambda values, stream: np.rint(values).astype(np.int64))
        yield


@pytest.fixture(scope="module")
def memory(_to_the_nearest: None) -> dict[str, Any]:
    """What the memory wire makes of the same rows: the opened sums, and the model in bytes."""
    sums: dict[int, Any] = {}
    fit = federation(4).train(
        BARE,
        rounds=3,
        epsilon=None,
        delta=None,
        progress=False,
        observer=lambda number, result, bodies: sums.update({number: result.total}),
    )
    return {"sums": sums, "coef": fit.model.coef_.tobytes(), "intercept": np.asarray(fit.model.intercept_).tobytes()}


def into(sums: dict[int, Any]) -> Callable[..., None]:
    """For ``serve(after_round=...)``: keep every opened sum, by round."""
    return lambda number, result, bodies: sums.update({number: result.total})


@pytest.fixture
def world(tmp_path: Path) -> Iterator[Carried]:
    with carried(tmp_path / "world", policy=EXACT) as made:
        yield made


def same(job: Job, memory: dict[str, Any]) -> None:
    """The job is done, and its model is the memory wire's to the last bit."""
    assert job.state().state == "done", job.state().error
    model = json.loads((job.result / "model.json").read_text())
    assert np.asarray(model["coef"]).tobytes() == memory["coef"]
    assert np.asarray(model["intercept"]).tobytes() == memory["intercept"]


def spools_empty(world: Carried) -> None:
    """No letter was left behind unread."""
    for home in (world.coordinator, *world.realm.trial.sites.values()):
        for box in (home / "flower" / "boxes").iterdir():
            assert list((box / "odd").glob("*") if (box / "odd").exists() else []) == []


@pytest.mark.parametrize("threads", [False, True])
def test_sums_and_model_are_those_of_the_memory_wire(world: Carried, memory: dict[str, Any], threads: bool) -> None:
    """Every opened sum, and the model, bit for bit; every transcript verifies; no letter was odd."""
    job = world.realm.submit(**TASK, rounds=3)
    sums: dict[int, Any] = {}
    world.serve(world.grid(threads=threads), after_round=into(sums))
    same(job, memory)
    assert sums.keys() == memory["sums"].keys()
    assert all(np.array_equal(sums[number], total) for number, total in memory["sums"].items())
    authority = VerifyKey(bytes.fromhex((world.realm.trial.authority / "authority.pub").read_text()))
    paths = sorted((job.result / "transcripts").glob("*.transcript"))
    assert len(paths) == 3
    for path in paths:
        verify_transcript(read_transcript(path.read_bytes()), authority)
    spools_empty(world)


def test_training_and_a_study_with_noise(tmp_path: Path) -> None:
    """Both kinds of job in one Flower run, in noise, under one policy."""
    policy = {"shares": {"analytics": 0.5, "training": 0.5}, "statistics": ["count", "mean"], "min_cell_count": 5}
    with carried(tmp_path / "world", policy=policy) as world:
        training = world.realm.submit(rounds=2, epsilon=2.0)
        asked = asked_of(Study("study", ("count",)), SCHEMA, RunSettings(epsilon=1.0, delta=1e-6))
        study = submit(world.coordinator, asked, SystemClock().now(), kind="study")
        world.serve(world.grid())
        assert [job.state().state for job in (training, study)] == ["done", "done"]


@pytest.mark.parametrize("seed", range(3))
def test_nothing_is_lost_or_counted_twice_by_a_faulty_way(world: Carried, memory: dict[str, Any], seed: int) -> None:
    """Messages and replies that are lost, repeated, late, or come back as errors cost time and nothing else."""
    job = world.realm.submit(**TASK, rounds=3)
    faults = GridFaults(seed, lose=0.08, lose_reply=0.08, twice=0.1, error=0.08, late=0.2, late_s=0.05)
    grid = world.grid(threads=True, faults=faults)
    sums: dict[int, Any] = {}
    world.serve(grid, patience=1.0, after_round=into(sums))
    same(job, memory)
    assert all(np.array_equal(sums[number], total) for number, total in memory["sums"].items())


def test_stopped_anywhere_the_next_run_goes_on(world: Carried, memory: dict[str, Any]) -> None:
    """A ServerApp that is stopped after every few messages, in whatever phase, ends with the same model."""
    job = world.realm.submit(**TASK, rounds=3)
    runs = 0
    while not job.state().over:
        runs += 1
        assert runs < 40
        grid = world.grid()
        world.serve(grid, stop=lambda grid=grid, most=12 + 4 * runs: grid.handled >= most)  # type: ignore[misc]
        grid.close()
    same(job, memory)
    assert runs > 2


def test_a_run_that_flower_ends_fails_and_its_job_does_not(world: Carried, memory: dict[str, Any]) -> None:
    """``flwr stop`` in the middle: the run says so, the job stays, and the next run finishes it."""
    job = world.realm.submit(**TASK, rounds=3)
    grid = world.grid()
    pull = grid.pull_messages

    class Ended(BaseException):
        pass

    def pulled(ids: Any) -> Any:
        if grid.handled > 20:
            raise Ended
        return pull(ids)

    grid.pull_messages = pulled  # type: ignore[method-assign]
    with pytest.raises(server.WireError, match="run the app again, and they go on"):
        world.serve(grid)
    assert job.state().state == "running"
    world.serve(world.grid())
    same(job, memory)


def test_a_node_that_leaves_and_comes_back_as_another(world: Carried, memory: dict[str, Any]) -> None:
    """A SuperNode without its own key gets a new id at each start; its site goes on in the same folder."""
    job = world.realm.submit(**TASK, rounds=3)
    grid, moved = world.grid(), [False]
    config = world.nodes()[2]

    def seen(node: int, message: Any) -> None:
        if grid.handled == 22 and not moved[0]:
            moved[0] = True
            grid.take_away(2)
            grid.add(77, config)

    grid.seen = seen
    world.serve(grid)
    assert moved == [True]
    same(job, memory)


def test_a_resident_site_is_started_stays_up_and_is_started_again(tmp_path: Path) -> None:
    """Its process is its own, outlives messages, and when it is killed the next message starts another."""
    with carried(tmp_path / "world", 3, resident=True) as world:
        job = world.realm.submit(rounds=1, epsilon=1.0)
        world.serve(world.grid(threads=True))
        assert job.state().state == "done", job.state().error
        homes = list(world.realm.trial.sites.values())
        first = [holder(home) for home in homes]
        assert all(pid and pid != os.getpid() and os.getsid(pid) == pid for pid in first)
        assert PASSPHRASE not in "".join((Path("/proc") / str(pid) / "cmdline").read_text() for pid in first)
        assert end_site(homes[0])
        until = time.monotonic() + 20
        while holder(homes[0]) is not None and time.monotonic() < until:
            time.sleep(0.01)
        again = world.realm.submit(rounds=1, epsilon=1.0)
        world.serve(world.grid(threads=True))
        assert again.state().state == "done", again.state().error
        second = [holder(home) for home in homes]
        assert second[1:] == first[1:]
        assert second[0] not in (None, first[0])
