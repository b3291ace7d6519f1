"""``privfl query``, ``privfl study`` and what else analytics adds to the command line."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from privfl.cli.roles import AsJson, PassphraseFile, quoted, tell
from privfl.cli.running import APPROVAL_S, carry_out
from privfl.cli.serve import Gather, Grace, Level, LogLevel, Patience, Wait
from privfl.dp import Trust
from privfl.errors import Misuse, RoundAborted
from privfl_analytics import cli_monitor, cli_schema
from privfl_analytics.cli_explain import UnitOf, show_explanation

if TYPE_CHECKING:
    from privfl.tasks import Schema
    from privfl_analytics.jobs import RunSettings
    from privfl_analytics.result import StudyResult
    from privfl_analytics.study import Study

__all__ = ["add_to"]

Coordinator = Annotated[Path, typer.Option(help="The coordinator's folder.")]
SchemaFile = Annotated[Path | None, typer.Option("--schema", help="The public schema; default: the file's own.")]
Epsilon = Annotated[float | None, typer.Option(help="Price of one opening of every round; default: the file's own.")]
Delta = Annotated[float | None, typer.Option(help="Its δ, at most 1/(10 x subjects).")]
TrustIn = Annotated[Trust | None, typer.Option(help="Whose noise must suffice; default: distributed.")]
Attempts = Annotated[int | None, typer.Option(help="Tries per round, each charged.", min=1, max=100)]
MandateFile = Annotated[Path | None, typer.Option("--mandate", help="An analyst's signed request for this study.")]
Detach = Annotated[bool, typer.Option("--detach", help="Put it into the queue and return.")]
Html = Annotated[Path | None, typer.Option("--html", help="Also write a self-contained report.")]
Explain = Annotated[bool, typer.Option("--explain", help="Say what it asks, costs and can tell; ask nothing.")]
Sites = Annotated[int, typer.Option(help="With --explain: sites that take part.", min=2, max=100_000)]

#: What --explain compares where no ε was given.
BUDGETS = (0.25, 0.5, 1.0, 2.0, 4.0)

studies = typer.Typer(no_args_is_help=True, help="Ask many questions in one round, under one noise budget.")


def add_to(root: typer.Typer) -> None:
    """Add the commands to ``privfl``."""
    root.command("query")(query)
    studies.command("run")(query)
    root.add_typer(studies, name="study")
    cli_monitor.add_to(root)
    cli_schema.add_to(root)


def query(
    what: Annotated[str, typer.Argument(metavar="FILE|EXPR", help="A study file, or a query in one line.")],
    coordinator: Coordinator = Path("coordinator"),
    schema: SchemaFile = None,
    epsilon: Epsilon = None,
    delta: Delta = None,
    trust: TrustIn = None,
    unit: UnitOf = None,
    attempts: Attempts = None,
    explain: Explain = False,
    sites: Sites = 5,
    mandate: MandateFile = None,
    detach: Detach = False,
    html: Html = None,
    patience: Patience = 60.0,
    grace: Grace = 2.0,
    gather: Gather = 30.0,
    wait: Wait = APPROVAL_S,
    log_level: Level = LogLevel.INFO,
    passphrase_file: PassphraseFile = None,
    as_json: AsJson = False,
) -> None:
    """Ask FILE or EXPR of all sites of a federation, and show the answers with their intervals.

    Every site checks the question against its signed policy, charges its own ledger, adds its noise and masks it;
    only the sum is opened. With --explain nothing is asked and nothing spent.

    Example: privfl query "mean age by sex where age >= 50" --schema schema.yaml --epsilon 1 --delta 1e-6

    Example: privfl study run study.yaml --html report.html
    """
    study, settings, found = _asked(what, schema)
    settings = settings.with_options(epsilon=epsilon, delta=delta, trust=trust, unit=unit, attempts=attempts)
    if explain:
        show_explanation(study, found, settings, sites, BUDGETS, as_json)
        return
    pace = (gather, patience, grace, APPROVAL_S if wait is None else wait)
    _run(study, found, settings, coordinator, mandate, pace, log_level, detach, html, passphrase_file, as_json)


@studies.command("statistics")
def list_statistics(
    name: Annotated[str | None, typer.Argument(help="Only this one, with all its fields.")] = None,
    as_json: AsJson = False,
) -> None:
    """List every statistic that can be asked for, and what it is called in policies; or say all about NAME.

    Example: privfl study statistics

    Example: privfl study statistics quantiles
    """
    from rich.table import Table  # noqa: PLC0415

    from privfl_analytics.statistic import REGISTRY, statistic_of  # noqa: PLC0415

    if name is not None:
        from privfl_analytics.reference import reference  # noqa: PLC0415

        said = reference(name)
        tell(as_json, said.to_value(), f"{said.name}: {said.summary}", "", str(said))
        return
    statistic_of("")  # loads them all
    if as_json:
        tell(True, {"statistics": {name: kind.summary for name, kind in sorted(REGISTRY.items())}})
        return
    table = Table("statistic", "what it is", "fields", title="Statistics", title_justify="left")
    for one, kind in sorted(REGISTRY.items()):
        table.add_row(one, kind.summary, ", ".join(kind.model_fields))
    Console(file=sys.stdout).print(table)


@studies.command("report")
def report(
    result: Annotated[Path, typer.Argument(help="A folder in which a study's result was saved.")],
    html: Annotated[Path | None, typer.Option("--html", help="Write a self-contained report there.")] = None,
    as_json: AsJson = False,
) -> None:
    """Show a saved result again, or write its report.

    Example: privfl study report coordinator/jobs/20261120-151900-123abc/result --html report.html
    """
    from privfl_analytics.result import StudyResult  # noqa: PLC0415

    found = StudyResult.load(result)
    written = None if html is None else found.to_html(html)
    if as_json:
        tell(True, {**found.to_value(), "html": None if written is None else str(written)})
        return
    show_answers(found)
    if written is not None:
        typer.echo(f"report: {written}")


def _asked(what: str, schema: Path | None) -> tuple[Study, RunSettings, Schema]:
    """A study from a file or a line, how it is to be run, and the schema it is about."""
    from privfl.runtime.jobs import schema_beside  # noqa: PLC0415
    from privfl_analytics.jobs import RunSettings, read_study_file  # noqa: PLC0415
    from privfl_analytics.query import Query  # noqa: PLC0415
    from privfl_analytics.study import Study  # noqa: PLC0415

    if schema is not None and not schema.is_file():
        raise Misuse(f"--schema: there is no file {schema}")
    path, found = Path(what), None if schema is None else schema_beside(Path("here"), str(schema))
    if path.suffix in (".yaml", ".yml", ".json") or (len(what) < 256 and path.is_file()):
        study, settings, found = read_study_file(path, found)
    else:
        study, settings = Study("query", (Query.parse(what),)), RunSettings()
    if found is None:
        raise Misuse(
            "the public schema is needed: pass --schema schema.yaml, or write schema: schema.yaml into the study's file"
        )
    return study, settings, found


def _run(
    study: Study,
    schema: Schema,
    settings: RunSettings,
    coordinator: Path,
    mandate: Path | None,
    pace: tuple[float, ...],
    log_level: LogLevel,
    detach: bool,
    html: Path | None,
    passphrase_file: Path | None,
    as_json: bool,
) -> None:
    from privfl_analytics.jobs import asked_of  # noqa: PLC0415
    from privfl_analytics.result import StudyResult  # noqa: PLC0415

    asked = asked_of(study, schema, settings)
    job = carry_out(asked, "study", coordinator, mandate, pace, log_level, detach, passphrase_file, as_json)
    if job is None:
        return
    found = StudyResult.load(job.result)
    figures: dict[str, Any] = json.loads((job.result / "summary.json").read_text(encoding="utf-8"))
    written = None if html is None else found.to_html(html)
    if as_json:
        value = {"job": job.id, **figures, **found.to_value(), "result": str(job.result)}
        tell(True, {**value, "html": None if written is None else str(written)})
    else:
        show_answers(found)
        typer.echo(f"result: {job.result}")
        typer.echo(f"Check it: privfl transcript verify {quoted(job.result / 'transcripts')}")
        if written is not None:
            typer.echo(f"report: {written}")
    if figures["stopped_early"]:
        raise typer.Exit(RoundAborted.exit_code)


def show_answers(found: StudyResult) -> None:
    """Every answer as a table, and what they cost, on standard output."""
    from privfl_analytics.tables import answer_table  # noqa: PLC0415

    console = Console(file=sys.stdout)
    for name, answer in found.answers.items():
        console.print(answer_table(name, answer))
    console.print(f"privacy: {found.privacy}", markup=False, highlight=False, soft_wrap=True)
    console.print(f"sites in the sums: {', '.join(map(str, found.survivors))}", markup=False, highlight=False)
