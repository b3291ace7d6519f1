"""Studies as jobs of a coordinator: what a study file says about its run, compiled for a roster under a policy."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from privfl_keys import Roster
from pydantic import Field

from privfl.budget import Policy
from privfl.declared import Declared
from privfl.dp import Trust, Unit
from privfl.errors import Misuse
from privfl.runtime.jobs import Asked, Compiled, schema_beside
from privfl.runtime.run import Journal, Observer, Resumed, Setting, Stage
from privfl.runtime.terms import check_share
from privfl.runtime.training_jobs import least_sites
from privfl.tasks import Schema
from privfl_analytics.layout import stages_of
from privfl_analytics.question import StudyQuestion
from privfl_analytics.run import StudyRun
from privfl_analytics.study import Study
from privfl_analytics.study_file import read_fields

__all__ = ["STUDY", "RunSettings", "asked_of", "read_study_file"]


class RunSettings(Declared):
    """How a study is to be run: further fields of its file, or the options of a command.

    Args:
        schema: file of the public schema, beside the study file.
        epsilon, delta: the price of one opening of every stage; a repeated attempt costs its stage again.
        trust: distributed or local. unit: record or subject; by default the policy's.
        mode: voted, complete, or auto (complete for three sites). min_survivors: by default the policy's.
        attempts: tries per stage, each charged.
    """

    schema_file: str | None = Field(default=None, alias="schema")
    epsilon: float | None = Field(default=None, gt=0)
    delta: float | None = Field(default=None, gt=0, lt=1)
    trust: Trust = Trust.DISTRIBUTED
    unit: Unit | None = None
    mode: Literal["auto", "voted", "complete"] = "auto"
    min_survivors: int | None = Field(default=None, ge=2)
    attempts: int = Field(default=3, ge=1, le=100)

    def with_options(self, **options: Any) -> RunSettings:
        """With what a command says; options that are None leave the file's word."""
        said = {name: value for name, value in options.items() if value is not None}
        return RunSettings(**{**self.model_dump(by_alias=True), **said})


def read_study_file(path: Path, schema: Schema | None = None) -> tuple[Study, RunSettings, Schema | None]:
    """A study, how it is to be run and the schema it is about, from one file.

    Args:
        schema: instead of the one that the file names.

    Raises:
        Misuse: with the line of every complaint, those about the schema's columns too.
    """
    if not path.exists():
        raise Misuse(f"there is no study file {path}; check the path, or write the query itself in quotes")
    names = tuple(field.alias or name for name, field in RunSettings.model_fields.items())
    study, said = read_fields(path, schema, names, RunSettings)
    settings = RunSettings(**said)
    if schema is None and settings.schema_file is not None:
        schema = schema_beside(path, settings.schema_file)
        read_fields(path, schema, names)
    return study, settings, schema


def asked_of(study: Study, schema: Schema, settings: RunSettings) -> Asked:
    """A job; raises Misuse where the study does not fit the schema or the budget is missing."""
    if settings.epsilon is None or settings.delta is None:
        raise Misuse("a study needs a budget: write epsilon and delta into its file, or pass --epsilon and --delta")
    stages = len(stages_of(study, study.view(schema)))
    fields = {"study": study.to_value(), **settings.model_dump(mode="json", by_alias=True)}
    return Asked("study", study.name, stages, fields, schema)


class _Studies:
    """See :class:`privfl.runtime.jobs.JobKind`."""

    verb = "asking"

    def read(self, path: Path) -> Asked:
        """Read a study file and the schema beside it."""
        study, settings, schema = read_study_file(path)
        if schema is None:
            raise Misuse(f"{path}: a study needs its schema: write schema: FILE")
        return asked_of(study, schema, settings)

    def compile(self, asked: Asked, roster: Roster, policy: Policy) -> Compiled:
        """Fix every public number; raises as :meth:`Study.compile`, and BudgetExceeded beyond the policy's share."""
        fields = dict(asked.fields)
        study, settings = Study.from_value(fields.pop("study")), RunSettings(**fields)
        complete, least = least_sites(settings.mode, settings.min_survivors, roster, policy)
        question = study.compile(
            asked.schema,
            epsilon=settings.epsilon,
            delta=settings.delta,
            sites=len(roster.site_ids),
            trust=settings.trust,
            unit=settings.unit or (policy.unit if policy.unit is Unit.SUBJECT else Unit.RECORD),
            min_survivors=least,
            colluders=roster.corrupt_bound,
            attempts=settings.attempts,
        )
        check_share(question, policy)
        return Compiled(question, complete, least, settings.attempts)

    def begin(
        self,
        asked: Asked,
        compiled: Compiled,
        stage: Stage,
        setting: Setting,
        observer: Observer | None,
        journal: Journal | None,
        resumed: Resumed | None,
    ) -> StudyRun:
        """A run of the study's stages."""
        question = compiled.question
        assert isinstance(question, StudyQuestion)
        return StudyRun(stage, question, setting, observer, journal, resumed)


STUDY = _Studies()
