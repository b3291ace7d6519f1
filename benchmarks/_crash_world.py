"""A federation of folders whose processes are forked from one warm parent, so that a restart takes milliseconds."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml
from privfl_keys import INSECURE_TEST_COST, Roster, SignedRoster, VerifyKey

from benchmarks._crash_child import Child, Fuse
from privfl.budget import Policy, SignedPolicy
from privfl.clock import SystemClock
from privfl.errors import PrivflError
from privfl.homes.rosters import read_rosters
from privfl.homes.site import ledger_path
from privfl.homes.trial import Trial, dump_schema, found_trial, policy_for
from privfl.learn import Schema
from privfl.runtime.coordinator_process import Pace, run_coordinator
from privfl.runtime.jobs import Job, jobs_of, submit
from privfl.runtime.site_process import run_site

__all__ = ["COORDINATOR", "Ended", "Faults", "World", "founded"]

COORDINATOR = "coordinator"
NAMES = ("north", "south", "east", "west", "central", "harbour", "hillside", "valley", "lake", "island")
PASSPHRASE = "a passphrase for crashes"  # noqa: S105 — of folders that live for minutes
PACE = Pace(gather=1_500, patience=1_000, grace=80)
ROWS = 30
SCHEMA = Schema.model_validate(
    {
        "name": "small",
        "records": 200,
        "columns": {
            "dose": {"lower": -4, "upper": 4, "center": 0, "scale": 1},
            "ill": {"classes": [False, True]},
        },
    }
)
TASK: Mapping[str, Any] = {
    "label": "ill",
    "epsilon": 0.3,
    "delta": 1e-8,
    "attempts": 3,
    "min_survivors": 3,
    "schema": "schema.yaml",
}

#: Breaks something in a child on purpose, to see that a campaign notices; called before the child starts its work.
Faults = Callable[[Child], None]


@dataclass(frozen=True)
class Ended:
    """How a process ended: where its fuse burnt, whether it was killed, and what it wrote if it ended by itself."""

    who: str
    point: str
    killed: bool
    error: str = ""


@dataclass
class World:
    """One federation on disk, and its processes.

    Attributes:
        faults: see :data:`Faults`. running: who → pid. fuses: who → the page shared with it.
        starts: how many processes were started.
    """

    trial: Trial
    faults: Faults = lambda child: None
    pace: Pace = PACE
    running: dict[str, int] = field(default_factory=dict)
    starts: int = 0

    def __post_init__(self) -> None:
        self.names = (*self.trial.sites, COORDINATOR)
        self.fuses = {who: Fuse() for who in self.names}
        self.notes = self.trial.folder.parent / "notes"
        self.notes.mkdir(exist_ok=True)
        self._read: dict[str, int] = {}
        self.signed: SignedRoster = read_rosters(self.trial.rosters)[-1]
        self.authority = VerifyKey(bytes.fromhex((self.trial.authority / "authority.pub").read_text()))
        self.policy: Policy = SignedPolicy.decode(self.trial.policy.read_bytes()).verify(self.roster, now())

    @property
    def roster(self) -> Roster:
        """Who belongs to the federation."""
        return self.signed.roster

    def folder(self, who: str) -> Path:
        """Of a site or the coordinator."""
        return self.trial.coordinator if who == COORDINATOR else self.trial.sites[who]

    def ledger(self, site: str) -> Path:
        """The file of a site's ledger."""
        return ledger_path(self.trial.sites[site], self.policy.population)

    def taps(self) -> list[tuple[str, Path]]:
        """Of every process that ever was: who it was, and the file with all that it sent; in order of their starts."""
        return [(path.name.split(".")[1], path) for path in sorted(self.notes.glob("*.tap"))]

    def points(self, who: str) -> set[str]:
        """Points that processes of ``who`` have passed; those in files that have not grown since are left out."""
        found: set[str] = set()
        for path in self.notes.glob(f"*.{who}.points"):
            size = path.stat().st_size
            if self._read.get(path.name) != size:
                self._read[path.name] = size
                found.update(path.read_text().splitlines())
        return found

    def submit(self, rounds: int, **changes: Any) -> Job:
        """Put a job into the coordinator's queue."""
        path = self.trial.folder / "task.yaml"
        path.write_text(yaml.safe_dump({**TASK, "rounds": rounds, **changes}))
        return submit(self.trial.coordinator, path, now())

    def jobs(self) -> list[Job]:
        """All jobs, oldest first."""
        return jobs_of(self.trial.coordinator)

    # -- processes ----------------------------------------------------------------------------------

    def start(self, who: str) -> None:
        """Start a process that does not run; its fuse is left as it is."""
        if who in self.running:
            raise AssertionError(f"{who} runs already")
        self.starts += 1
        stem = f"{self.starts:06d}.{who}"
        child = Child(
            who,
            self.folder(who),
            self.trial.wire,
            self.notes / f"{stem}.tap",
            self.notes / f"{stem}.points",
            self.fuses[who],
        )
        pid = os.fork()
        if pid:
            self.running[who] = pid
            return
        code = 70
        try:
            code = self._live(child)
        finally:
            os._exit(code)

    def _live(self, child: Child) -> int:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends its children itself
        logging.disable(logging.CRITICAL)
        try:
            self.faults(child)  # first, so that what they do is seen like everything else
            child.install()
            if child.who == COORDINATOR:
                run_coordinator(child.folder, PASSPHRASE, stop=lambda: False, pace=self.pace)
            else:
                run_site(
                    child.folder,
                    PASSPHRASE,
                    stop=lambda: False,
                    checkpoint=lambda name, round_: child.point(f"checkpoint {name}"),
                )
        except BaseException as error:
            (self.notes / f"{child.who}.error").write_text(f"{type(error).__name__}: {error}")
            return error.exit_code if isinstance(error, PrivflError) else 71
        return 0

    def kill(self, who: str) -> Ended:
        """Kill a process from outside, at whatever it is doing."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.running[who], signal.SIGKILL)
        _, status = os.waitpid(self.running.pop(who), 0)
        return self._ended(who, status)

    def ended(self) -> list[Ended]:
        """Processes that have ended since this was last asked."""
        found = []
        for who, pid in list(self.running.items()):
            gone, status = os.waitpid(pid, os.WNOHANG)
            if gone:
                del self.running[who]
                found.append(self._ended(who, status))
        return found

    def _ended(self, who: str, status: int) -> Ended:
        point, killed = self.fuses[who].burnt, os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
        self.fuses[who].disarm()
        error = self.notes / f"{who}.error"
        return Ended(who, point, killed, "" if killed else error.read_text() if error.exists() else f"status {status}")

    def end(self) -> None:
        """Kill whatever still runs."""
        for who in list(self.running):
            self.kill(who)


def now() -> int:
    """Milliseconds since 1970."""
    return SystemClock().now()


def _table(seed: int) -> pd.DataFrame:
    dose = np.random.default_rng(seed).normal(size=ROWS)
    return pd.DataFrame({"dose": dose, "ill": dose > 0})


@contextlib.contextmanager
def founded(folder: Path, sites: int, faults: Faults = lambda child: None, pace: Pace = PACE) -> Iterator[World]:
    """Set up a federation below the empty ``folder``; whatever runs at the end is killed."""
    folder = folder.resolve()  # /proc names what is open by its real path
    sys.stdout.flush()
    names = [*NAMES, *(f"site{number}" for number in range(len(NAMES), sites))][:sites]
    tables = {}
    for seed, name in enumerate(names):
        tables[name] = folder / f"{name}.csv"
        _table(seed).to_csv(tables[name], index=False)
    schema = SCHEMA.model_dump(mode="json")
    dump_schema(schema, folder / "schema.yaml")
    policy = policy_for(schema, now())
    trial = found_trial(
        folder / "trial", tables, folder / "schema.yaml", policy, PASSPHRASE, now(), cost=INSECURE_TEST_COST
    )
    world = World(trial, faults, pace)
    try:
        yield world
    finally:
        world.end()
