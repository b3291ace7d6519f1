"""``privfl profile`` and ``privfl monitor``: keep what data looked like, and see later whether it still does."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from privfl.cli.roles import AsJson, Authority, PassphraseFile, Rosters, now, passphrase, quoted, tell
from privfl.cli.running import carry_out
from privfl.cli.serve import Gather, Grace, Level, LogLevel, Patience
from privfl.dp import Trust, Unit
from privfl.errors import Misuse

if TYPE_CHECKING:
    from privfl_keys import Roster

    from privfl.tasks import Schema
    from privfl_analytics.monitor import DriftReport, Profile
    from privfl_analytics.result import StudyResult
    from privfl_analytics.study import Study
    from privfl_analytics.view import Score, View

__all__ = ["add_to", "render"]

Coordinator = Annotated[Path, typer.Option(help="The coordinator's folder.")]
SchemaFile = Annotated[Path, typer.Option("--schema", help="The public schema.")]
Epsilon = Annotated[float, typer.Option(help="Price of the counts, for every person.")]
Delta = Annotated[float, typer.Option(help="Its δ.")]
TrustIn = Annotated[Trust, typer.Option(help="Whose noise must suffice.")]
UnitOf = Annotated[Unit | None, typer.Option(help="record or subject; default: the policy's.")]
Attempts = Annotated[int, typer.Option(help="Tries, each charged.", min=1, max=100)]
MandateFile = Annotated[Path | None, typer.Option("--mandate", help="An analyst's signed request.")]
Explain = Annotated[bool, typer.Option("--explain", help="Say what it asks, costs and can tell; ask nothing.")]
Sites = Annotated[int, typer.Option(help="With --explain: sites that take part.", min=2, max=100_000)]

_STYLES = {"ok": "green", "warn": "yellow", "drift": "bold red", "unresolved": "dim"}
_NEVER = "–"


def add_to(root: typer.Typer) -> None:
    """Add the commands to ``privfl``."""
    root.command("profile")(profile)
    root.command("monitor")(monitor)


def profile(
    out: Annotated[Path, typer.Argument(metavar="PROFILE", help="File to write; never overwritten.")],
    schema: SchemaFile,
    columns: Annotated[str | None, typer.Option(help="Columns to watch, with commas between; default: all.")] = None,
    score: Annotated[str | None, typer.Option(help="The score: a column, or a YAML file of coefficients.")] = None,
    label: Annotated[str | None, typer.Option(help="The outcome that the score foretells, a category.")] = None,
    positive: Annotated[str | None, typer.Option(help="The label's class that counts as positive.")] = None,
    by: Annotated[str | None, typer.Option(help="A category: watch each of its classes, too.")] = None,
    bins: Annotated[int, typer.Option(help="Bins of a number.", min=2, max=1000)] = 10,
    model: Annotated[str, typer.Option(help="The model that it belongs to, for people.")] = "",
    signer: Annotated[Path | None, typer.Option(help="An analyst's folder; default: --coordinator.")] = None,
    coordinator: Coordinator = Path("coordinator"),
    epsilon: Epsilon = 1.0,
    delta: Delta = 1e-6,
    trust: TrustIn = Trust.DISTRIBUTED,
    unit: UnitOf = None,
    attempts: Attempts = 3,
    explain: Explain = False,
    sites: Sites = 5,
    mandate: MandateFile = None,
    patience: Patience = 60.0,
    grace: Grace = 2.0,
    gather: Gather = 30.0,
    log_level: Level = LogLevel.INFO,
    passphrase_file: PassphraseFile = None,
    as_json: AsJson = False,
) -> None:
    """Collect noisy counts of the federation's data as it is now, sign them, and write them to PROFILE.

    Do it when a model is trained; privfl monitor compares later data with it.

    Example: privfl profile model-7.profile --schema schema.yaml --epsilon 1 --model model-7
    """
    from privfl_analytics.monitor import Profile, profile_study  # noqa: PLC0415 - loaded when a command runs
    from privfl_analytics.monitor.profile import positive_class  # noqa: PLC0415

    found = _schema(schema)
    watched = None if columns is None else [name.strip() for name in columns.split(",") if name.strip()]
    scored = None if score is None else _score(score)
    study = profile_study(found, watched, score=scored, label=label, by=by, bins=bins)
    run = _Run(coordinator, epsilon, delta, trust, unit, attempts, mandate, (gather, patience, grace), log_level,
               passphrase_file, as_json)  # fmt: skip
    if explain:
        run.explain(study, found, sites)
        return
    if out.exists():
        raise Misuse(f"{out} is there already and stays as it is; choose another name")
    folder = coordinator if signer is None else signer
    word = passphrase(folder, passphrase_file)
    if label is not None and score is not None:
        view = study.view(found)
        positive_class(view, label, None if positive is None else _class(view, label, positive))
    result = run.ask(study, found)
    made = Profile.from_result(
        result,
        study.view(found),
        federation=_federation(coordinator),
        made=now(),
        model=model,
        score=scored if isinstance(scored, str) or scored is None else scored.name,
        label=label,
        positive=None if positive is None or label is None else _class(study.view(found), label, positive),
    )
    _sign(made, folder, word).save(out)
    fields = {"profile": str(out), "columns": list(made.columns), "sites": made.sites, "hash": made.hash.hex()}
    tell(as_json, {**fields, "epsilon": result.privacy.epsilon},
         f"{out} holds the profile of {', '.join(made.columns)} over {made.sites} sites: {result.privacy}",
         f"Next, when data has come in: privfl monitor {quoted(out)} --schema {quoted(schema)}")  # fmt: skip


def monitor(
    profile: Annotated[Path, typer.Argument(help="The signed profile, as privfl profile wrote it.")],
    schema: SchemaFile,
    thresholds: Annotated[Path | None, typer.Option(help="Limits in YAML; default: those of the manual.")] = None,
    history: Annotated[Path | None, typer.Option(help="File to which the outcome is appended.")] = None,
    roster: Rosters = None,
    authority: Authority = None,
    coordinator: Coordinator = Path("coordinator"),
    epsilon: Epsilon = 1.0,
    delta: Delta = 1e-6,
    trust: TrustIn = Trust.DISTRIBUTED,
    unit: UnitOf = None,
    attempts: Attempts = 3,
    explain: Explain = False,
    sites: Sites = 5,
    mandate: MandateFile = None,
    patience: Patience = 60.0,
    grace: Grace = 2.0,
    gather: Gather = 30.0,
    log_level: Level = LogLevel.INFO,
    passphrase_file: PassphraseFile = None,
    as_json: AsJson = False,
) -> None:
    """Compare the data that sites hold now with PROFILE; sites charge it to the budget for monitoring.

    Ends with 0 where nothing has drifted, 10 for a warning, 11 for drift, 12 where the noise hides it; with 1 to 6,
    as every command, where nothing could be compared.

    Example: privfl monitor model-7.profile --schema schema.yaml --thresholds limits.yaml --history model-7.jsonl
    """
    from privfl_analytics.monitor import (  # noqa: PLC0415 - loaded when a command runs
        MonitorHistory,
        Profile,
        SignedProfile,
        Thresholds,
        again,
        compare,
    )

    found, limits = _schema(schema), Thresholds() if thresholds is None else Thresholds.from_yaml(thresholds)
    past = None if history is None else MonitorHistory(history)
    known = SignedProfile.load(profile, _roster(coordinator, roster, authority, passphrase_file))
    limits.check_columns(known.columns)
    study = again(known, found)
    run = _Run(coordinator, epsilon, delta, trust, unit, attempts, mandate, (gather, patience, grace), log_level,
               passphrase_file, as_json)  # fmt: skip
    if explain:
        run.explain(study, found, sites)
        return
    result = run.ask(study, found)
    later = Profile.from_result(
        result,
        study.view(found),
        federation=known.federation,
        made=now(),
        model=known.model,
        score=known.score or None,
        label=known.label or None,
        positive=known.positive_class(study.view(found)),
    )
    report = compare(known, later, limits, epsilon=result.privacy.epsilon)
    if past is not None:
        past.append(report)
    if as_json:
        tell(True, {**report.to_value(), "privacy": str(result.privacy)})
    else:
        console = Console(file=sys.stdout)
        console.print(render(report))
        console.print(f"privacy: {result.privacy}", markup=False, highlight=False, soft_wrap=True)
    if report.exit_code:
        raise typer.Exit(report.exit_code)


def render(report: DriftReport) -> Table:
    """The findings that are judged as a table for a terminal: of groups only those that stand out."""
    table = Table(title=escape(f"{report.status}: {report.words()}"), title_justify="left", caption_justify="left")
    for heading in ("column", "group", "measure"):
        table.add_column(heading)
    for heading in ("value", "without drift", "excess", "p (Holm)", "warn", "alert"):
        table.add_column(heading, justify="right")
    table.add_column("status")
    for one in report.findings:
        if not one.judged or (one.group and one.status not in ("warn", "drift")):
            continue
        numbers = (one.value, one.null_mean, one.excess, one.p_adjusted, one.warn, one.alert)
        status = f"[{_STYLES[one.status]}]{one.status}[/]" + (f": {escape(one.note)}" if one.note else "")
        table.add_row(
            escape(one.column),
            escape(one.group),
            one.measure.replace("_", " "),
            *(_NEVER if number is None else f"{number:.3g}" for number in numbers),
            status,
        )
    table.caption = (
        "excess: what is left above noise and chance; the limits hold for it. At most "
        f"{report.level:.0%} of comparisons without drift raise any alarm."
    )
    return table


class _Run:
    """What both commands do alike: price a study, or ask it as the coordinator."""

    def __init__(
        self,
        coordinator: Path,
        epsilon: float,
        delta: float,
        trust: Trust,
        unit: Unit | None,
        attempts: int,
        mandate: Path | None,
        pace: tuple[float, float, float],
        log_level: LogLevel,
        passphrase_file: Path | None,
        as_json: bool,
    ) -> None:
        from privfl_analytics.jobs import RunSettings  # noqa: PLC0415 - loaded when a command runs

        self.settings = RunSettings().with_options(
            epsilon=epsilon, delta=delta, trust=trust, unit=unit, attempts=attempts
        )
        self.coordinator, self.mandate, self.pace, self.log_level = coordinator, mandate, pace, log_level
        self.passphrase_file, self.as_json = passphrase_file, as_json

    def explain(self, study: Study, schema: Schema, sites: int) -> None:
        """What it asks, leaves and costs."""
        chosen = self.settings
        said = study.explain(
            schema,
            sites=sites,
            epsilons=(float(chosen.epsilon or 1.0),),
            delta=float(chosen.delta or 1e-6),
            trust=chosen.trust,
            unit=chosen.unit,
            attempts=chosen.attempts,
        )
        if self.as_json:
            tell(True, {"explanation": said.to_value()})
            return
        Console(file=sys.stdout).print(str(said), markup=False, highlight=False, soft_wrap=True)

    def ask(self, study: Study, schema: Schema) -> StudyResult:
        """The result; raises what ended it."""
        from privfl_analytics.jobs import asked_of  # noqa: PLC0415 - loaded when a command runs
        from privfl_analytics.result import StudyResult  # noqa: PLC0415

        job = carry_out(asked_of(study, schema, self.settings), "study", self.coordinator, self.mandate, self.pace,
                        self.log_level, False, self.passphrase_file, self.as_json)  # fmt: skip
        assert job is not None  # it was not detached
        return StudyResult.load(job.result)


def _schema(path: Path) -> Schema:
    from privfl.tasks import Schema  # noqa: PLC0415 - loaded when a command runs

    if not path.is_file():
        raise Misuse(f"there is no schema {path}; pass the file that the consortium agreed on with --schema")
    try:
        return Schema.from_yaml(path)
    except Misuse as error:
        raise Misuse(f"{path}: {error}") from None


def _score(text: str) -> Score | str:
    """A score from a YAML file; a column's name stays one."""
    path = Path(text)
    if path.suffix not in (".yaml", ".yml", ".json"):
        return text
    from privfl.budget.policy_file import read_document  # noqa: PLC0415 - loaded when a command runs
    from privfl_analytics.view import Score  # noqa: PLC0415

    document = read_document(path)
    try:
        found = Score(**dict(document.fields))
    except Misuse as error:
        raise Misuse(f"{path}: {error}") from None
    if document.faults:
        raise Misuse("; ".join(fault.words(str(path)) for fault in document.located([])))
    return found


def _class(view: View, label: str, positive: str) -> object:
    """The class of this text; the text itself where there is none, which is then refused by name."""
    return next((one for one in view.category(label).classes if str(one).lower() == positive.lower()), positive)


def _federation(coordinator: Path) -> str:
    from privfl.homes.config import CoordinatorConfig  # noqa: PLC0415 - loaded when a command runs

    return CoordinatorConfig.read(coordinator).federation


def _sign(made: Profile, folder: Path, word: str) -> Any:
    """Sign with the key of an analyst's or the coordinator's folder."""
    from privfl.homes.folder import open_store  # noqa: PLC0415 - loaded when a command runs

    with open_store(folder, word) as (_, identity):
        return made.sign(identity.key)


def _roster(coordinator: Path, rosters: Path | None, authority: str | None, passphrase_file: Path | None) -> Roster:
    """The roster that profiles are verified by: of a file and a pinned authority, or the coordinator's own."""
    if rosters is not None:
        from privfl_keys import RosterBook  # noqa: PLC0415 - loaded when a command runs

        from privfl.homes.rosters import accept_chain, read_authority, read_rosters  # noqa: PLC0415

        chain, book = read_rosters(rosters), RosterBook()
        book.pin(chain[0].roster.federation, read_authority(authority, rosters.parent))
        return accept_chain(book, chain, now())
    from privfl.homes.coordinator import CoordinatorHome  # noqa: PLC0415 - loaded when a command runs
    from privfl.homes.lock import holder  # noqa: PLC0415

    if holder(coordinator) is not None:
        raise Misuse(
            f"a coordinator runs on {coordinator} and holds its roster; give the authority's file with --roster, and "
            "--authority"
        )
    with CoordinatorHome.open(coordinator, passphrase(coordinator, passphrase_file), now()) as home:
        return home.party.roster
