"""What the coordinator is asked: a task file, kept as a job in its folder until it has a result.

A job is a folder below ``jobs/`` that appears whole or not at all. Its ``state.json`` tells how far it is;
what is needed to go on after a stop lies in the coordinator's sealed state and in ``transcripts/``.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, Protocol

import yaml
from privfl_keys import Roster
from pydantic import Field

from privfl.budget import Policy
from privfl.declared import Declared
from privfl.dp import Trust, Unit
from privfl.entropy import SYSTEM
from privfl.errors import Misuse, Refused
from privfl.homes.files import storage, write_file
from privfl.homes.lock import holder
from privfl.learn import Averaging, Linear, Logistic, Schema, Spec
from privfl.runtime.run import Journal, Observer, Outcome, Resumed, Run, Setting, Stage
from privfl.tasks import Question
from privfl.tasks.plugins import plugin

__all__ = [
    "Asked",
    "Compiled",
    "Job",
    "JobKind",
    "JobState",
    "TaskFile",
    "cancel_job",
    "job_kind",
    "jobs_of",
    "kind_of",
    "read_fields",
    "read_task",
    "schema_beside",
    "submit",
]

FOLDER = "jobs"
KINDS: Mapping[str, type[Logistic] | type[Linear] | type[Averaging]] = {
    "logistic": Logistic,
    "linear": Linear,
    "averaging": Averaging,
}
_ID = re.compile(r"[0-9]{8}-[0-9]{6}-[0-9a-f]{6}")


class TaskFile(Declared):
    """A training task as a data scientist writes it, in YAML.

    Args:
        name: for people. task: logistic, linear or averaging. label: column to predict. features: by default all
            numeric columns but the label. schema: file of the public schema, beside the task file.
        epsilon, delta: the whole run's promise; without both, only an averaging that is ``unprotected`` by name.
        rounds: uploads per site that the budget is spread over. attempts: tries per round, each charged.
        trust: distributed or local. mode: voted, complete, or auto (complete for three sites).
        min_survivors: least sites in a sum; by default the policy's.
        bits: width of the ring, if it is fixed.
        unit: of privacy; by default the task's own (record), ``subject`` where the schema names the subject.
        options: further settings of the task, such as ``clip`` or ``optimiser``.
        held_out: a table that the coordinator holds itself, evaluated each round without noise.
    """

    name: str = Field(default="", max_length=200)
    task: Literal["logistic", "linear", "averaging"] = "logistic"
    label: str
    features: tuple[str, ...] | None = None
    schema_file: str = Field(alias="schema")
    epsilon: float | None = Field(default=None, gt=0)
    delta: float | None = Field(default=None, gt=0, lt=1)
    rounds: int = Field(default=30, ge=1, le=100_000)
    attempts: int = Field(default=3, ge=1, le=100)
    trust: Trust = Trust.DISTRIBUTED
    mode: Literal["auto", "voted", "complete"] = "auto"
    min_survivors: int | None = None
    bits: int | None = None
    options: dict[str, Any] = Field(default_factory=dict)
    held_out: str | None = None

    unit: Unit | None = None

    def spec(self) -> Spec:
        """The specification; raises Misuse for options that it does not take."""
        return KINDS[self.task](label=self.label, features=self.features, **self.options)


@dataclass(frozen=True)
class Asked:
    """A job before it has a folder: plain fields that its kind understands, and the public schema.

    Attributes:
        rounds: it is to take, for progress.
    """

    kind: str
    name: str
    rounds: int
    fields: Mapping[str, Any]
    schema: Schema


@dataclass(frozen=True)
class Compiled:
    """A question with every public number fixed, and how it is to be run."""

    question: Question
    complete: bool
    least: int
    attempts: int


class JobKind(Protocol):
    """How a coordinator reads, compiles and runs one kind of job; others than training come by entry points."""

    verb: str

    def read(self, path: Path) -> Asked:
        """Read a job file; raises Misuse naming the place and what to write."""
        ...

    def compile(self, asked: Asked, roster: Roster, policy: Policy) -> Compiled:
        """Fix every public number; raises Misuse, Refused, DataError or BudgetExceeded if it cannot be run so."""
        ...

    def begin(
        self,
        asked: Asked,
        compiled: Compiled,
        stage: Stage,
        setting: Setting,
        observer: Observer | None,
        journal: Journal | None,
        resumed: Resumed | None,
    ) -> Run[Outcome]:
        """A run, from its beginning or from where it was."""
        ...


def job_kind(name: str) -> JobKind:
    """The kind of this name; raises Misuse for one that is not installed here."""
    if name == "train":
        from privfl.runtime.training_jobs import TRAINING  # noqa: PLC0415 - it builds on this module

        return TRAINING
    try:
        kind: JobKind = plugin("privfl.jobs", name)
    except KeyError:
        raise Misuse(f"no part of this installation runs jobs of kind {name!a:.80}") from None
    return kind


@dataclass(frozen=True)
class JobState:
    """How far a job is: queued, running, done or failed; ``error`` and ``exit_code`` say how it failed."""

    state: Literal["queued", "running", "done", "failed"]
    error: str = ""
    exit_code: int = 0
    kind: str = ""

    @property
    def over(self) -> bool:
        """Whether nothing more will happen."""
        return self.state in ("done", "failed")


@dataclass(frozen=True)
class Job:
    """One job's folder."""

    folder: Path

    @property
    def id(self) -> str:
        """Its name, which sorts by time."""
        return self.folder.name

    @property
    def kind(self) -> JobKind:
        """How it is read, compiled and run; raises Misuse for one that is not installed here."""
        return job_kind(str(self._told["kind"]))

    @property
    def fields(self) -> Mapping[str, Any]:
        """What is asked, as plain values."""
        fields: Mapping[str, Any] = self._told["fields"]
        return fields

    @property
    def name(self) -> str:
        """For people."""
        return str(self._told["name"])

    @property
    def rounds(self) -> int:
        """Rounds that it is to take."""
        return int(self._told["rounds"])

    @property
    def verb(self) -> str:
        """What it does, in a word for a progress bar."""
        return self.kind.verb

    @property
    def _told(self) -> Mapping[str, Any]:
        told: Mapping[str, Any] = json.loads((self.folder / "job.json").read_text(encoding="utf-8"))
        return told

    @property
    def schema(self) -> Schema:
        """The public schema that came with it."""
        return Schema.from_json((self.folder / "schema.json").read_text(encoding="utf-8"))

    @property
    def asked(self) -> Asked:
        """All of it."""
        told = self._told
        return Asked(told["kind"], told["name"], int(told["rounds"]), told["fields"], self.schema)

    @property
    def mandate(self) -> bytes:
        """The analyst's signed request, empty where the coordinator asks for itself."""
        path = self.folder / "mandate"
        return path.read_bytes() if path.exists() else b""

    @property
    def result(self) -> Path:
        """Where model, history, privacy report and transcripts are written."""
        return self.folder / "result"

    def state(self) -> JobState:
        """How far it is."""
        try:
            return JobState(**json.loads((self.folder / "state.json").read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            return JobState("queued")

    def move(self, state: JobState) -> None:
        """Note how far it is, durably."""
        write_file(self.folder / "state.json", json.dumps(asdict(state)).encode())


def read_fields(path: Path) -> Mapping[str, Any]:
    """A mapping from a YAML file; raises Misuse naming the line of what is no YAML."""
    try:
        fields = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise Misuse(f"there is no task file {path}; check the path") from None
    except OSError as error:
        raise Misuse(f"{path} cannot be read ({error.strerror})") from None
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        mark = getattr(error, "problem_mark", None)
        raise Misuse(f"{path}{f', line {mark.line + 1}' if mark else ''}: this is not YAML") from None
    if not isinstance(fields, dict) or not all(isinstance(key, str) for key in fields):
        raise Misuse(f"{path}: expected fields with values, such as 'task: logistic' and 'label: ill'")
    return fields


def kind_of(path: Path) -> str:
    """Which kind of job a file describes: one with queries is a study, any other a task of training."""
    return "study" if "queries" in read_fields(path) else "train"


def read_task(path: Path) -> tuple[TaskFile, Schema]:
    """Read a task file and the schema that it names; raises Misuse naming the field and what to write."""
    fields = read_fields(path)
    try:
        task = TaskFile(**fields)
        task.spec()
    except Misuse as error:
        raise Misuse(f"{path}: {error}") from None
    if task.held_out is not None and not (path.parent / task.held_out).expanduser().is_file():
        raise Misuse(f"{path}: held_out: there is no file {path.parent / task.held_out}")
    return task, schema_beside(path, task.schema_file)


def schema_beside(path: Path, name: str) -> Schema:
    """The schema that a job file names; raises Misuse if it is not there or is none."""
    schema = (path.parent / name).expanduser()
    if not schema.is_file():
        raise Misuse(f"{path}: schema: there is no file {schema}")
    try:
        return Schema.from_yaml(schema)
    except Misuse as error:
        raise Misuse(f"{schema}: {error}") from None


def submit(home: Path, path: Path | Asked, now: int, *, mandate: bytes = b"", kind: str = "train") -> Job:
    """Put a job file (or what was read of one) into the coordinator's queue; nothing is asked of any site yet.

    Raises:
        Misuse: the file, its schema or its options are wrong, or ``home`` is no coordinator's folder.
        StorageError: the folder cannot be written.
    """
    asked = path if isinstance(path, Asked) else job_kind(kind).read(path)
    if not (home / "coordinator.yaml").exists():
        raise Misuse(f"{home} is no coordinator's folder; give one with --coordinator")
    told = {"kind": asked.kind, "name": asked.name, "rounds": asked.rounds, "fields": asked.fields}
    stamp = datetime.fromtimestamp(now / 1000, UTC).strftime("%Y%m%d-%H%M%S")
    name = f"{stamp}-{now % 1000:03d}{SYSTEM.draw(2).hex()[:3]}"  # sorts by time
    with storage(home / FOLDER):
        staged = home / FOLDER / f".{name}"
        staged.mkdir(parents=True, mode=0o700)
        try:
            write_file(staged / "job.json", json.dumps(told, indent=2).encode())
            write_file(staged / "schema.json", asked.schema.to_json().encode())
            if mandate:
                write_file(staged / "mandate", mandate)
            os.replace(staged, home / FOLDER / name)
        except BaseException:
            shutil.rmtree(staged, ignore_errors=True)
            raise
    return Job(home / FOLDER / name)


def jobs_of(home: Path) -> list[Job]:
    """All jobs of a coordinator's folder, oldest first."""
    folder = home / FOLDER
    names = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    return [Job(folder / name) for name in names if _ID.fullmatch(name)]


def cancel_job(home: Path, name: str) -> None:
    """Take a job out of the queue.

    Raises:
        Misuse: there is none of that name, it is over, or a coordinator is at work on it.
    """
    job = next((one for one in jobs_of(home) if one.id == name), None)
    if job is None:
        raise Misuse(f"there is no job {name!a:.80} in {home}; see: privfl coordinator jobs {home}")
    state = job.state()
    if state.over:
        raise Misuse(f"job {name} is {state.state} already; there is nothing to cancel")
    if state.state == "running" and holder(home) is not None:
        raise Misuse(f"a coordinator is at work on job {name}; stop it first, then cancel")
    job.move(JobState("failed", "cancelled by the operator", Refused.exit_code, "Refused"))
