"""One federation of real processes that trains while some of its sites are killed, or slow."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import yaml

from benchmarks._processes import PASSPHRASE, Processes, Shape, found
from privfl.clock import SystemClock
from privfl.entropy import SYSTEM
from privfl.homes.coordinator import CoordinatorHome
from privfl.homes.site import SiteHome
from privfl.homes.trial import Trial
from privfl.runtime.coordinator import RoundResult
from privfl.runtime.coordinator_process import CoordinatorProcess, Pace
from privfl.runtime.jobs import submit
from privfl.runtime.site_process import SiteProcess

__all__ = ["COLLUDERS", "LEAST", "Doom", "Plan", "Timeline", "play"]

COLLUDERS, LEAST = 3, 7
SECONDS = 600.0  # a run that takes longer has failed


@dataclass(frozen=True)
class Doom:
    """What happens to one site: it is killed in round ``round`` at ``stage``, or sleeps in each round.

    ``stage`` is "reserved" (charged, nothing uploaded), "ask-vote" (uploaded, asked to vote) or "ask-release"
    (voted, asked to release). ``nap`` in seconds, before it computes.
    """

    round: int = 0
    stage: str = ""
    nap: float = 0.0


@dataclass(frozen=True)
class Plan:
    """A run: its rounds, what happens to which site, and whether the killed are started again at once."""

    rounds: int
    dooms: Mapping[str, Doom] = field(default_factory=dict)
    restart: bool = False
    pace: Pace = field(default_factory=Pace)


@dataclass(frozen=True)
class Timeline:
    """What came of it.

    Attributes:
        seconds: from the coordinator's start to its end; ready: until its first epoch was open.
        rounds: seconds of each opened round. missing: how many sites were left out of its sum. attempts: of each.
        killed: names of the sites that were.
    """

    seconds: float
    ready: float
    rounds: tuple[float, ...]
    missing: tuple[int, ...]
    attempts: tuple[int, ...]
    killed: tuple[str, ...]


class _Doomed(SiteProcess):
    """A site process that its doom awaits before it answers a request."""

    doom = Doom()

    def _show(self, doing: str) -> None:
        super()._show(doing)
        if doing and doing == self.doom.stage and self.node.at[1] == self.doom.round:
            os.kill(os.getpid(), signal.SIGKILL)


def _site(folder: Path, doom: Doom) -> None:
    def checkpoint(name: str, round_: int) -> None:
        if (name, round_) == (doom.stage, doom.round):
            os.kill(os.getpid(), signal.SIGKILL)
        if name == "accepted":
            time.sleep(doom.nap)

    clock = SystemClock()
    with SiteHome.open(folder, PASSPHRASE, clock.now()) as site:
        process = _Doomed(site, clock, SYSTEM, checkpoint)
        process.doom = doom
        process.serve(lambda: False)


def _coordinator(folder: Path, pace: Pace, log: Path) -> None:
    """Run the job that waits, and write a line per round when it is open."""
    clock = SystemClock()
    with CoordinatorHome.open(folder, PASSPHRASE, clock.now()) as home, open(log, "a") as lines:

        def line(**facts: object) -> None:
            lines.write(json.dumps({"at": time.monotonic(), **facts}) + "\n")
            lines.flush()

        def opened(number: int, result: RoundResult, bodies: Mapping[str, bytes]) -> None:
            line(round=number, missing=len(result.dropped), attempts=result.attempts)

        process = CoordinatorProcess(home, clock, pace=pace, after_round=opened)
        set_up = process.node.open_epoch

        def open_epoch(sites: tuple[bytes, ...]) -> dict[bytes, str]:
            reasons = set_up(sites)
            line(epoch=process.node.machine.record.scope.epoch)
            return reasons

        process.node.open_epoch = open_epoch  # type: ignore[assignment,method-assign]
        line(start=True)
        process.serve(lambda: False, once=True)
        line(end=True)


def play(folder: Path, shape: Shape, plan: Plan, say: Callable[[str], None]) -> Timeline:
    """Found a federation below ``folder``, start every process, train, and read off when each round was open.

    Raises:
        RuntimeError: a process ended that was not to be killed, or the run does not end.
    """
    trial = found(folder, shape, colluders=COLLUDERS, min_survivors=LEAST, min_sites=LEAST)
    task = {"label": "y", "schema": "schema.yaml", "epsilon": 4.0, "delta": 1e-5, "rounds": plan.rounds}
    path = trial.folder / "task.yaml"
    path.write_text(yaml.safe_dump({**task, "mode": "voted", "min_survivors": LEAST}))
    job = submit(trial.coordinator, path, SystemClock().now())
    processes, log = Processes(folder), folder / "rounds.jsonl"
    try:
        for name in shape.names:
            _start(processes, trial, name, plan.dooms.get(name, Doom()))
        _settled(trial, shape)
        processes.start("coordinator", lambda: _coordinator(trial.coordinator, plan.pace, log))
        killed = _watch(processes, trial, plan, log, say)
    finally:
        processes.end()
    if job.state().state != "done":
        raise RuntimeError(f"the job is {job.state().state}: {job.state().error or processes.complaint('coordinator')}")
    return _read(log, killed)


def _start(processes: Processes, trial: Trial, name: str, doom: Doom) -> None:
    processes.start(name, lambda: _site(trial.sites[name], doom))


def _settled(trial: Trial, shape: Shape) -> None:
    """Wait until every site has said that it is up: what is timed is training, not the start."""
    until = time.monotonic() + 60
    while time.monotonic() < until:
        if sum(1 for _ in trial.wire.glob("boxes/*/new/*")) >= shape.sites:
            return
        time.sleep(0.02)
    raise RuntimeError("the sites do not come up")


def _watch(processes: Processes, trial: Trial, plan: Plan, log: Path, say: Callable[[str], None]) -> list[str]:
    """Start again whoever was killed, if the plan says so, until the coordinator ends; returns who was killed."""
    killed: list[str] = []
    until = time.monotonic() + SECONDS
    while time.monotonic() < until:
        for who in processes.ended():
            if who == "coordinator":
                return killed
            if who not in plan.dooms or who in killed:
                raise RuntimeError(f"{who} ended by itself: {processes.complaint(who)}")
            killed.append(who)
            if plan.restart:
                _start(processes, trial, who, Doom())
        with contextlib.suppress(OSError):
            say(f"{max(0, log.read_text().count('round'))} of {plan.rounds} rounds, killed {len(killed)}")
        time.sleep(0.005)
    raise RuntimeError(f"the run did not end within {SECONDS:.0f} s")


def _read(log: Path, killed: list[str]) -> Timeline:
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    start, end = lines[0]["at"], lines[-1]["at"]
    ready = next(line["at"] for line in lines if "epoch" in line)
    rounds = [
        (line["at"] - before["at"], line["missing"], line["attempts"])
        for before, line in pairwise(lines)
        if "round" in line
    ]
    seconds, missing, attempts = zip(*rounds, strict=True)
    return Timeline(end - start, ready - start, seconds, missing, attempts, tuple(killed))
