"""A federation of folders, with sites and coordinator as real processes: forked, so that they start at once.

Every process is a real one that can be killed; only the interpreter's start and the imports are shared.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import yaml
from privfl_keys import INSECURE_TEST_COST

from privfl.clock import SystemClock
from privfl.homes.trial import Trial, dump_schema, found_trial, policy_for
from privfl.runtime.coordinator_process import Pace, run_coordinator
from privfl.runtime.jobs import Job, JobState, submit
from privfl.runtime.site_process import run_site
from tests.forking import end_with_parent
from tests.runtime.support import SCHEMA, tables

PASSPHRASE = "a passphrase for tests"
TASK: dict[str, Any] = {"label": "ill", "epsilon": 4.0, "delta": 1e-5, "rounds": 4, "schema": "schema.yaml"}
QUICK = Pace(gather=10_000, patience=10_000, grace=200)


@dataclass
class Realm:
    """One federation on disk and the processes that were started in it."""

    trial: Trial
    running: dict[str, int] = field(default_factory=dict)  # who → pid

    def task(self, **changes: Any) -> Path:
        """Write a task file."""
        path = self.trial.folder / "task.yaml"
        path.write_text(yaml.safe_dump({**TASK, **changes}))
        return path

    def submit(self, **changes: Any) -> Job:
        """Put a task into the coordinator's queue."""
        return submit(self.trial.coordinator, self.task(**changes), SystemClock().now())

    def start_site(self, name: str, **options: Any) -> int:
        """Start a site as a process of its own; ``options`` as :func:`run_site` takes them."""
        folder = self.trial.sites[name]
        return self._start(name, lambda: run_site(folder, PASSPHRASE, **{"stop": lambda: False, **options}))

    def start_sites(self) -> None:
        """Start every site that does not run."""
        for name in self.trial.sites:
            if name not in self.running:
                self.start_site(name)

    def start_coordinator(self, pace: Pace = QUICK, *, once: bool = True) -> int:
        """Start the coordinator as a process of its own; by default it ends when no job is waiting."""
        folder = self.trial.coordinator
        return self._start(
            "coordinator", lambda: run_coordinator(folder, PASSPHRASE, stop=lambda: False, pace=pace, once=once)
        )

    def _start(self, who: str, work: Callable[[], object]) -> int:
        assert who not in self.running, f"{who} runs already"
        child = os.fork()
        if child == 0:
            code = 70
            end_with_parent()
            try:
                signal.signal(signal.SIGTERM, signal.SIG_DFL)
                work()
                code = 0
            except BaseException as error:  # the exit code is all that a test sees of it
                code = getattr(error, "exit_code", 71)
                (self.trial.folder / f"{who}.error").write_text(f"{type(error).__name__}: {error}")
            finally:
                os._exit(code)
        self.running[who] = child
        return child

    def kill(self, who: str, number: int = signal.SIGKILL) -> int:
        """Kill a process and wait until it is gone; returns what waitpid says."""
        os.kill(self.running[who], number)
        return self.wait(who)

    def wait(self, who: str, seconds: float = 60.0) -> int:
        """Wait for a process to end by itself; returns what waitpid says. Kills it when time is up."""
        child, until = self.running.pop(who), time.monotonic() + seconds
        while time.monotonic() < until:
            found, status = os.waitpid(child, os.WNOHANG)
            if found:
                return status
            time.sleep(0.01)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        raise AssertionError(f"{who} did not end within {seconds} s")

    def alive(self, who: str) -> bool:
        """Whether a process still runs; one that has ended is forgotten."""
        child = self.running.get(who)
        if child is None:
            return False
        if os.waitpid(child, os.WNOHANG)[0]:
            del self.running[who]
            return False
        return True

    def finished(self, job: Job, seconds: float = 60.0) -> JobState:
        """Wait until a job is over."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            if (state := job.state()).over:
                return state
            time.sleep(0.02)
        raise AssertionError(f"the job is still {job.state().state}")

    def end(self) -> None:
        """Kill whatever still runs."""
        for who in list(self.running):
            self.kill(who)


@contextmanager
def realm(
    folder: Path,
    sites: int = 4,
    *,
    frames: Mapping[str, pd.DataFrame] | None = None,
    policy: Mapping[str, Any] | None = None,
) -> Iterator[Realm]:
    """Set up a federation below ``folder``; whatever runs at the end is killed.

    The tables lie outside the sites' folders, in ``rows/``. ``policy`` changes fields of the plain one.
    """
    now = SystemClock().now()
    rows = folder / "rows"
    rows.mkdir(parents=True)
    paths = {}
    for name, frame in (frames or tables(sites)).items():
        paths[name] = rows / f"{name}.csv"
        frame.to_csv(paths[name], index=False)
    schema = SCHEMA.model_dump(mode="json")
    dump_schema(schema, rows / "schema.yaml")
    fields = policy_for(schema, now, **(policy or {}))
    trial = found_trial(folder / "trial", paths, rows / "schema.yaml", fields, PASSPHRASE, now, cost=INSECURE_TEST_COST)
    made = Realm(trial)
    try:
        yield made
    finally:
        made.end()
