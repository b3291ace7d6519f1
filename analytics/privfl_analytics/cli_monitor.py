"""``privfl profile`` and ``privfl monitor``: keep what data looked like, and see later whether it still does."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from privfl.cli.roles import AsJson, Authority, PassphraseFile, Rosters, now, passphrase, quoted, tell
from privfl.cli.running import APPROVAL_S
from privfl.cli.serve import Gather, Grace, Level, LogLevel, Patience, Wait
from privfl.dp import Trust
from privfl.errors import Misuse
from privfl_analytics.cli_explain import UnitOf
from privfl_analytics.cli_monitor_support import (
    Asking,
    class_named,
    federation_of,
    read_schema,
    read_score,
    render,
    roster_of,
    signed,
)

if TYPE_CHECKING:
    pass

__all__ = ["add_to"]

Coordinator = Annotated[Path, typer.Option(help="The coordinator's folder.")]
SchemaFile = Annotated[Path, typer.Option("--schema", help="The public schema.")]
Epsilon = Annotated[float, typer.Option(help="Price of the counts, for every person.")]
Delta = Annotated[float, typer.Option(help="Its δ.")]
TrustIn = Annotated[Trust, typer.Option(help="Whose noise must suffice.")]
Attempts = Annotated[int, typer.Option(help="Tries, each charged.", min=1, max=100)]
MandateFile = Annotated[Path | None, typer.Option("--mandate", help="An analyst's signed request.")]
Explain = Annotated[bool, typer.Option("--explain", help="Say what it asks, costs and can tell; ask nothing.")]
Sites = Annotated[int, typer.Option(help="With --explain: sites that take part.", min=2, max=100_000)]


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
    wait: Wait = APPROVAL_S,
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

    found = read_schema(schema)
    watched = None if columns is None else [name.strip() for name in columns.split(",") if name.strip()]
    scored = None if score is None else read_score(score)
    study = profile_study(found, watched, score=scored, label=label, by=by, bins=bins)
    pace = _pace(gather, patience, grace, wait)
    run = Asking(coordinator, epsilon, delta, trust, unit, attempts, mandate, pace, log_level, passphrase_file, as_json)
    if explain:
        run.explain(study, found, sites)
        return
    if out.exists():
        raise Misuse(f"{out} is there already and stays as it is; choose another name")
    folder = coordinator if signer is None else signer
    word = passphrase(folder, passphrase_file)
    if label is not None and score is not None:
        view = study.view(found)
        positive_class(view, label, None if positive is None else class_named(view, label, positive))
    result = run.ask(study, found)
    made = Profile.from_result(
        result,
        study.view(found),
        federation=federation_of(coordinator),
        made=now(),
        model=model,
        score=scored if isinstance(scored, str) or scored is None else scored.name,
        label=label,
        positive=None if positive is None or label is None else class_named(study.view(found), label, positive),
    )
    signed(made, folder, word).save(out)
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
    wait: Wait = APPROVAL_S,
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

    found, limits = read_schema(schema), Thresholds() if thresholds is None else Thresholds.from_yaml(thresholds)
    past = None if history is None else MonitorHistory(history)
    known = SignedProfile.load(profile, roster_of(coordinator, roster, authority, passphrase_file))
    limits.check_columns(known.columns)
    study = again(known, found)
    pace = _pace(gather, patience, grace, wait)
    run = Asking(coordinator, epsilon, delta, trust, unit, attempts, mandate, pace, log_level, passphrase_file, as_json)
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
        console.print(render(report, console.width))
        console.print(f"privacy: {result.privacy}", markup=False, highlight=False, soft_wrap=True)
    if report.exit_code:
        raise typer.Exit(report.exit_code)


def _pace(gather: float, patience: float, grace: float, wait: float | None) -> tuple[float, ...]:
    return gather, patience, grace, APPROVAL_S if wait is None else wait
