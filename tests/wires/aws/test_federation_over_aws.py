"""Whole federations over SQS and S3, every member its own process: exact sums, whatever repeats, reorders or dies."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from privfl_analytics.jobs import RunSettings, asked_of
from privfl_analytics.study import Study
from privfl_keys import VerifyKey
from sklearn.linear_model import Ridge

from privfl.budget import WITHOUT_NOISE, match_transcripts, read_ledger, verify_file
from privfl.budget.ledger_entries import Kind
from privfl.clock import SystemClock
from privfl.homes.coordinator import CoordinatorHome
from privfl.homes.site import SiteHome
from privfl.learn import Averaging
from privfl.runtime.coordinator_process import Pace, run_coordinator
from privfl.runtime.jobs import Job, submit
from privfl.secagg import Transcript, read_transcript, verify_transcript
from privfl.wires.aws.mailbox import AwsMailbox
from privfl.wires.aws.probing import place_of
from privfl.wires.settings import AwsSettings
from tests.runtime.realm import PASSPHRASE, Realm, realm
from tests.runtime.support import SCHEMA, federation
from tests.wires.aws.cloud import Cloud
from tests.wires.aws.proxy import Asked, Proxy, Said, Weather, proxied

BARE = Averaging(label="age", estimator=Ridge(), unprotected=True)
EXACT: dict[str, Any] = {
    "without_noise": WITHOUT_NOISE,
    "epsilon": None,
    "delta": None,
    "tasks": {"averaging": {"clip": 1000.0}},
}
TASK: dict[str, Any] = {
    "task": "averaging",
    "label": "age",
    "epsilon": None,
    "delta": None,
    "rounds": 4,
    "options": {"estimator": json.loads(BARE.to_json())["estimator"], "unprotected": True},
}
ROUNDING = ("privfl.dp.vectors", "privfl.dp.dither")
PATIENT = Pace(gather=60_000, patience=60_000, grace=60_000)  # everybody is waited for: all are in every sum


@pytest.fixture
def _to_the_nearest(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reals are rounded to integers at random; to the nearest instead, so that two runs can be held side by side."""
    for module in ROUNDING:
        monkeypatch.setattr(f"{module}.round_at_random", lambda values, stream: np.rint(values).astype(np.int64))


@contextlib.contextmanager
def over_aws(folder: Path, aws: Cloud, **policy: Any) -> Iterator[tuple[Realm, Proxy]]:
    """Four sites and a coordinator whose folders name AWS, through a proxy that delivers twice and in any order."""
    with realm(folder, 4, policy=policy) as world, proxied(aws.emulator.endpoint) as proxy:
        weather = Weather(7)

        def mixed(asked: Asked, said: Said) -> Said:
            return weather.mixed(said) if asked.action == "ReceiveMessage" and said.status == 200 else said

        proxy.after = mixed
        repoint(world, aws, proxy.endpoint)
        yield world, proxy
        world.end()


def repoint(world: Realm, aws: Cloud, endpoint: str) -> None:
    """Let every member join again with one ``federation.yaml``; their queues are made."""
    aws.federation, path, now = "trial", world.trial.folder / "federation.yaml", SystemClock().now()
    aws.settings = AwsSettings(**{**aws.settings.model_dump(), "prefix": f"t{os.getpid()}-{aws.settings.bucket[-6:]}"})
    wire = {**aws.settings.stored(), "endpoint": endpoint}
    path.write_text(yaml.safe_dump({"federation": "trial", "wire": wire}))
    aws.made.clear()
    for home in (world.trial.coordinator, *world.trial.sites.values()):
        aws.queue(place_of(home).own)
    for home in world.trial.sites.values():
        SiteHome.join(home, PASSPHRASE, now, wire=str(path))
    CoordinatorHome.join(world.trial.coordinator, PASSPHRASE, now, wire=str(path))


def dying(patch: pytest.MonkeyPatch, at: str) -> None:
    """Processes forked from now on die by SIGKILL once: with a message received and nothing done, with the upload's
    body stored and unsaid, or with the upload said and its cause neither acknowledged nor deleted."""
    put, send, receive, seen = AwsMailbox.put_body, AwsMailbox.send, AwsMailbox.receive, list[bool]()

    def die() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def put_body(self: AwsMailbox, *args: Any, **named: Any) -> None:
        put(self, *args, **named)
        seen.append(True)
        if at == "stored":
            die()

    def sent(self: AwsMailbox, *args: Any) -> None:
        send(self, *args)
        if seen and at == "sent":
            die()

    def received(self: AwsMailbox, wait_ms: int) -> Any:
        found = receive(self, wait_ms)
        if seen and found and at == "received":
            die()
        return found

    patch.setattr(AwsMailbox, "put_body", put_body)
    patch.setattr(AwsMailbox, "send", sent)
    patch.setattr(AwsMailbox, "receive", received)


def until(what: Callable[[], object], seconds: float = 90.0) -> None:
    """Wait for something to come true."""
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, "it does not come true"
        time.sleep(0.02)


def proven(world: Realm, job: Job) -> list[tuple[str, Transcript]]:
    """The transcripts of a job, verified by the authority's public key alone."""
    authority = VerifyKey(bytes.fromhex((world.trial.authority / "authority.pub").read_text()))
    paths = sorted((job.result / "transcripts").glob("*.transcript"))
    found = [(path.name, read_transcript(path.read_bytes())) for path in paths]
    for _, transcript in found:
        verify_transcript(transcript, authority)
    return found


def charged(world: Realm, transcripts: list[tuple[str, Transcript]]) -> dict[str, int]:
    """How many slots each site's verified ledger charges, none of them twice, and every upload among them."""
    count = {}
    for name, home in world.trial.sites.items():
        (path,) = (home / "ledger").glob("*.db")
        assert verify_file(path, None)
        book = read_ledger(path)
        slots = [entry.reference for entry in book.entries if entry.kind == Kind.RESERVE]
        assert len(slots) == len(set(slots))
        assert match_transcripts(book, transcripts) <= len(slots)
        count[name] = len(slots)
    return count


@pytest.mark.usefixtures("_to_the_nearest")
def test_sums_are_exact_although_a_site_dies_at_every_step(
    tmp_path: Path, aws: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed between download, upload and deletion, amid repeats: sums and model are the memory wire's."""
    plain: dict[int, Any] = {}
    fit = federation(4).train(
        BARE, rounds=4, epsilon=None, delta=None, progress=False,
        observer=lambda number, result, bodies: plain.update({number: result.total}),
    )  # fmt: skip
    with over_aws(tmp_path / "realm", aws, **EXACT) as (world, proxy):

        def kept(number: int, result: Any, bodies: Any) -> None:
            np.save(tmp_path / f"sum-{number}.npy", result.total)

        job, hub = world.submit(**TASK), world.trial.coordinator
        serve = partial(run_coordinator, hub, PASSPHRASE, stop=lambda: False, pace=PATIENT, once=True)
        for name in ("north", "south", "west"):
            world.start_site(name)
        world._start("coordinator", lambda: serve(after_round=kept))
        for at in ("stored", "sent", "received"):
            with monkeypatch.context() as patch:
                dying(patch, at)
                world.start_site("east")
            assert os.WTERMSIG(world.wait("east", 90)) == signal.SIGKILL, at
        world.start_site("east")
        state = world.finished(job, 120)
        assert state.state == "done", state
        world.wait("coordinator")
        found = {number: np.load(tmp_path / f"sum-{number}.npy") for number in plain}
        assert all(np.array_equal(found[number], total) for number, total in plain.items())
        model = json.loads((job.result / "model.json").read_text())
        assert np.asarray(model["coef"]).tobytes() == fit.model.coef_.tobytes()
        transcripts = proven(world, job)
        assert [len(one.headers) for _, one in transcripts] == [4] * 4
        assert set(charged(world, transcripts).values()) == {4}
        assert proxy.delivered > 0


def test_training_and_a_study_with_noise(tmp_path: Path, aws: Cloud) -> None:
    """A logistic model and a count, one after the other: ledgers charge each slot once, no body is left over."""
    policy = {"shares": {"analytics": 0.5, "training": 0.5}, "statistics": ["count"], "min_cell_count": 5}
    with over_aws(tmp_path / "realm", aws, **policy) as (world, proxy):
        proxy.after = lambda asked, said: said  # a message repeated late brings its body again, for the bucket's rule
        jobs = [world.submit(rounds=3, epsilon=2.0)]
        asked = asked_of(Study("study", ("count",)), SCHEMA, RunSettings(epsilon=1.0, delta=1e-6))
        jobs.append(submit(world.trial.coordinator, asked, SystemClock().now(), kind="study"))
        world.start_sites()
        world.start_coordinator(PATIENT)
        states = [world.finished(job, 120) for job in jobs]
        assert [state.state for state in states] == ["done", "done"], states
        world.wait("coordinator")
        transcripts = [one for job in jobs for one in proven(world, job)]
        assert len(transcripts) == 4
        assert set(charged(world, transcripts).values()) == {4}
        coordinator = place_of(world.trial.coordinator).own.hex()
        assert not [key for key in aws.objects() if key.startswith(f"trial/{coordinator}/")]


def test_a_coordinator_killed_goes_on_and_a_second_one_is_refused(tmp_path: Path, aws: Cloud) -> None:
    """SIGKILL amid rounds: started again from its folder it takes its own lease; a copy elsewhere is told who works."""
    with over_aws(tmp_path / "realm", aws) as (world, _):
        job = world.submit(rounds=6, epsilon=2.0)
        world.start_sites()
        world.start_coordinator(PATIENT)
        until(lambda: list((job.folder / "transcripts").glob("*")) if (job.folder / "transcripts").is_dir() else False)
        world.kill("coordinator")
        world.start_coordinator(PATIENT)
        assert world.finished(job, 120).state == "done"
        transcripts = proven(world, job)
        assert {len(one.headers) for _, one in transcripts} <= {3, 4}
        assert all(len(transcripts) <= count <= 7 for count in charged(world, transcripts).values())
