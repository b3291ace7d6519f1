"""Jobs of training: a task file, compiled for a roster under a policy, and run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from privfl_keys import Roster

from privfl.budget import Policy
from privfl.dp import Unit
from privfl.errors import Misuse
from privfl.learn import Schema, Task
from privfl.runtime.jobs import Asked, Compiled, TaskFile, read_task
from privfl.runtime.run import Journal, Observer, Resumed, Setting, Stage
from privfl.runtime.terms import check_share
from privfl.runtime.training import TrainingRun

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["TRAINING", "compile_task", "least_sites"]


def least_sites(mode: str, asked: int | None, roster: Roster, policy: Policy) -> tuple[bool, int]:
    """Whether a run is in complete mode, and the least survivors; raises Misuse for a number that cannot be."""
    sites = len(roster.site_ids)
    complete = mode == "complete" or (mode == "auto" and sites == 3)
    least = sites if complete else max(asked or roster.default_min_survivors, policy.min_survivors)
    if not roster.corrupt_bound + 2 <= least <= sites:
        raise Misuse(f"min_survivors {least} is outside [{roster.corrupt_bound + 2}, {sites}] for this roster")
    return complete, least


def compile_task(asked: TaskFile, schema: Schema, roster: Roster, policy: Policy) -> tuple[Task, bool, int]:
    """Fix every public number of a task: the task, whether it runs in complete mode, and the least survivors.

    Raises:
        Misuse, Refused, DataError, BudgetExceeded: the task cannot be run so; nothing was asked of any site.
    """
    complete, least = least_sites(asked.mode, asked.min_survivors, roster, policy)
    spec = asked.spec()
    persons = policy.unit is Unit.SUBJECT and Unit.SUBJECT in spec.UNITS
    task = spec.compile(
        schema,
        epsilon=asked.epsilon,
        delta=asked.delta,
        rounds=asked.rounds,
        trust=asked.trust,
        unit=asked.unit or (Unit.SUBJECT if persons else None),
        sites=len(roster.site_ids),
        min_survivors=least,
        colluders=roster.corrupt_bound,
        bits=asked.bits,
    )
    check_share(task, policy)
    return task, complete, least


class _Training:
    """See :class:`privfl.runtime.jobs.JobKind`."""

    verb = "training"

    def read(self, path: Path) -> Asked:
        """Read a task file and the schema beside it."""
        task, schema = read_task(path)
        fields = task.model_dump(mode="json", by_alias=True)
        if task.held_out is not None:
            fields["held_out"] = str((path.parent / task.held_out).expanduser().absolute())
        name = fields["name"] = task.name or path.stem
        return Asked("train", name, task.rounds, fields, schema)

    def compile(self, asked: Asked, roster: Roster, policy: Policy) -> Compiled:
        """See :func:`compile_task`."""
        file = TaskFile(**asked.fields)
        task, complete, least = compile_task(file, asked.schema, roster, policy)
        return Compiled(task, complete, least, file.attempts)

    def begin(
        self,
        asked: Asked,
        compiled: Compiled,
        stage: Stage,
        setting: Setting,
        observer: Observer | None,
        journal: Journal | None,
        resumed: Resumed | None,
    ) -> TrainingRun:
        """A run of rounds on the task."""
        task, held_out = compiled.question, _held_out(TaskFile(**asked.fields))
        assert isinstance(task, Task)
        return TrainingRun(stage, task, setting, held_out, observer, journal, resumed)


TRAINING = _Training()


def _held_out(asked: TaskFile) -> pd.DataFrame | None:
    if asked.held_out is None:
        return None
    import pandas as pd  # noqa: PLC0415

    path = Path(asked.held_out)
    try:
        return pd.read_parquet(path) if path.suffix in (".parquet", ".pq") else pd.read_csv(path)
    except (OSError, ValueError, ImportError) as error:
        raise Misuse(f"the held-out table {path} cannot be read ({type(error).__name__}); check the file") from None
