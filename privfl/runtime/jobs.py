"""What the coordinator is asked to train: a task file, kept as a job in its folder until it has a result.

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
from typing import Any, Literal

import yaml
from pydantic import Field

from privfl.declared import Declared
from privfl.dp import Trust
from privfl.entropy import SYSTEM
from privfl.errors import Misuse, Refused
from privfl.homes.files import storage, write_file
from privfl.homes.lock import holder
from privfl.learn import Averaging, Linear, Logistic, Schema, Spec

__all__ = ["Job", "JobState", "TaskFile", "cancel_job", "jobs_of", "read_task", "submit"]

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

    def spec(self) -> Spec:
        """The specification; raises Misuse for options that it does not take."""
        return KINDS[self.task](label=self.label, features=self.features, **self.options)


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
    def task(self) -> TaskFile:
        """What is asked."""
        return TaskFile(**json.loads((self.folder / "task.json").read_text(encoding="utf-8")))

    @property
    def schema(self) -> Schema:
        """The public schema that came with it."""
        return Schema.from_json((self.folder / "schema.json").read_text(encoding="utf-8"))

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


def read_task(path: Path) -> tuple[TaskFile, Schema]:
    """Read a task file and the schema that it names; raises Misuse naming the field and what to write."""
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
    try:
        task = TaskFile(**fields)
        task.spec()
    except Misuse as error:
        raise Misuse(f"{path}: {error}") from None
    schema = (path.parent / task.schema_file).expanduser()
    if not schema.is_file():
        raise Misuse(f"{path}: schema: there is no file {schema}")
    if task.held_out is not None and not (path.parent / task.held_out).expanduser().is_file():
        raise Misuse(f"{path}: held_out: there is no file {path.parent / task.held_out}")
    try:
        return task, Schema.from_yaml(schema)
    except Misuse as error:
        raise Misuse(f"{schema}: {error}") from None


def submit(home: Path, path: Path, now: int, *, mandate: bytes = b"") -> Job:
    """Put a task file into the coordinator's queue; nothing is asked of any site yet.

    Raises:
        Misuse: the file, its schema or its options are wrong, or ``home`` is no coordinator's folder.
        StorageError: the folder cannot be written.
    """
    task, schema = read_task(path)
    if not (home / "coordinator.yaml").exists():
        raise Misuse(f"{home} is no coordinator's folder; give one with --coordinator")
    fields = task.model_dump(mode="json", by_alias=True)
    if task.held_out is not None:
        fields["held_out"] = str((path.parent / task.held_out).expanduser().absolute())
    fields["name"] = task.name or path.stem
    stamp = datetime.fromtimestamp(now / 1000, UTC).strftime("%Y%m%d-%H%M%S")
    name = f"{stamp}-{now % 1000:03d}{SYSTEM.draw(2).hex()[:3]}"  # sorts by time
    with storage(home / FOLDER):
        staged = home / FOLDER / f".{name}"
        staged.mkdir(parents=True, mode=0o700)
        try:
            write_file(staged / "task.json", json.dumps(fields, indent=2).encode())
            write_file(staged / "schema.json", schema.to_json().encode())
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
