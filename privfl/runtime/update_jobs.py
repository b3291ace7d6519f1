"""Jobs of an app's training: they live with the ServerApp that asks, and go on when it asks for the same again.

Such a job has a folder like every other, with its state, transcripts and result; but what it asks is in the hands of a
strategy, so that no other process can take it up.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from privfl_keys import Roster

from privfl.budget import Policy
from privfl.codec import encode
from privfl.dp import Release
from privfl.errors import Misuse, PrivflError
from privfl.learn import Schema
from privfl.learn.update_inputs import Arrays
from privfl.learn.update_plan import Wanted, plan_update
from privfl.learn.update_spec import UpdateSpec
from privfl.learn.updates import UpdateQuestion
from privfl.runtime.coordinator_process import CoordinatorProcess
from privfl.runtime.jobs import Asked, Compiled, Job, JobKind, JobState, jobs_of, submit
from privfl.runtime.run import Journal, Observer, Resumed, RunRecord, Setting, Stage
from privfl.runtime.terms import check_share
from privfl.runtime.training_jobs import least_sites
from privfl.runtime.update_report import releases_of
from privfl.runtime.update_run import Server, UpdateFit, UpdateRun

__all__ = ["LiveJob", "Request", "UpdateJobs", "compile_update", "find_job", "run_job"]

KIND = "update"


@dataclass(frozen=True)
class Request:
    """What the ServerApp's author asks for, beside the model.

    Args:
        epsilon, delta: of the whole run, per unit of the policy; both None without noise.
        rounds: of training. final: one more slot of metrics. spare: uploads for aborted attempts beyond those.
        attempts: tries of one round, each charged.
    """

    spec: UpdateSpec
    epsilon: float | None
    delta: float | None
    rounds: int
    final: bool
    spare: int
    attempts: int
    mode: str
    min_survivors: int | None
    trust: Any
    bits: int | None
    share: Any


def compile_update(request: Request, schema: Schema, roster: Roster, policy: Policy) -> Compiled:
    """Fix every public number; raises Misuse, Refused or BudgetExceeded if it cannot be run so."""
    complete, least = least_sites(request.mode, request.min_survivors, roster, policy)
    wanted = Wanted(
        request.epsilon,
        request.delta,
        request.rounds + request.final + request.spare,
        len(roster.site_ids),
        least,
        roster.corrupt_bound,
        policy.unit,
        request.trust,
        request.share,
    )
    plan, grain = plan_update(request.spec, wanted, request.bits)
    question = UpdateQuestion(schema, request.spec, plan, grain, request.rounds, final=request.final)
    check_share(question, policy)
    return Compiled(question, complete, least, request.attempts)


@dataclass
class UpdateJobs:
    """The kind of one live job; see :class:`privfl.runtime.jobs.JobKind`."""

    compiled: Compiled
    server: Server
    arrays: Arrays
    verb = "training"

    def read(self, path: Path) -> Asked:
        """Raises Misuse: such a job has no file."""
        raise Misuse("an app's training is started by its own ServerApp, not from a file")

    def compile(self, asked: Asked, roster: Roster, policy: Policy) -> Compiled:
        """As it was compiled when it was asked for."""
        return self.compiled

    def begin(
        self,
        asked: Asked,
        compiled: Compiled,
        stage: Stage,
        setting: Setting,
        observer: Observer | None,
        journal: Journal | None,
        resumed: Resumed | None,
    ) -> UpdateRun:
        """A run, from its beginning or from where it was."""
        question = compiled.question
        assert isinstance(question, UpdateQuestion)
        return UpdateRun(stage, question, setting, self.server, self.arrays, observer, journal, resumed)


@dataclass(frozen=True)
class LiveJob(Job):
    """A job whose kind is at hand."""

    live: UpdateJobs

    @property
    def kind(self) -> JobKind:
        """See :class:`~privfl.runtime.jobs.Job`."""
        return self.live


def find_job(process: CoordinatorProcess, live: UpdateJobs, settings: bytes, now: int, *, resume: bool) -> LiveJob:
    """The stopped job that asks for the very same, or a new one; other stopped jobs of apps are given up.

    Args:
        settings: whatever else makes a run the same beside question and first model, in canonical bytes.
        resume: whether a stopped job is taken up at all.
    """
    question = live.compiled.question
    raw = tuple(array.tobytes() for array in live.arrays.values())
    key = hashlib.sha256(encode(("update job", question.id, raw, settings))).hexdigest()
    found = None
    for job in jobs_of(process.home.folder):
        if job.state().over or not _is_update(job):
            continue
        if resume and found is None and job.fields.get("key") == key:
            found = job
        else:
            _give_up(process, job)
    if found is None:
        assert isinstance(question, UpdateQuestion)
        fields: Mapping[str, Any] = {"key": key, "question": question.descriptor().hex()}
        found = submit(process.home.folder, Asked(KIND, question.title, question.rounds, fields, question.schema), now)
    return LiveJob(found.folder, live)


def run_job(process: CoordinatorProcess, job: LiveJob) -> UpdateFit:
    """Run it to its end; raises PrivflError as :meth:`CoordinatorProcess.run` does."""
    fit = process.run(job)
    assert isinstance(fit, UpdateFit)
    return fit


def _is_update(job: Job) -> bool:
    try:
        return bool(job._told["kind"] == KIND)
    except (OSError, ValueError, KeyError):
        return False


@dataclass
class _Charged:
    """What a job that is given up has released; see :meth:`CoordinatorProcess._forget`."""

    question: UpdateQuestion
    charges: Mapping[int, int]

    @property
    def charged(self) -> int:
        return sum(self.charges.values())

    def released(self) -> list[tuple[Release | None, int]]:
        return releases_of(self.question, self.charges)


def _give_up(process: CoordinatorProcess, job: Job) -> None:
    stored = process.home.state.get(f"run {job.id}")
    try:
        question = UpdateQuestion.from_descriptor(bytes.fromhex(str(job.fields["question"])))
        charges = {} if stored is None else dict(RunRecord.decode(stored).charged)
        process._forget(job, _Charged(question, charges))  # type: ignore[arg-type]
    except (PrivflError, KeyError, ValueError):
        process._forget(job, None)
    job.move(JobState("failed", "given up: its app asked for another run", Misuse.exit_code, "Misuse"))
