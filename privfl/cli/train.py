"""``privfl train``: a data scientist's task, run by the coordinator, followed to its result."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from privfl.cli.roles import AsJson, PassphraseFile, now, passphrase, quoted, tell
from privfl.cli.running import APPROVAL_S, carry_out, missing_rounds
from privfl.cli.serve import Gather, Grace, Level, LogLevel, Patience, Wait
from privfl.errors import Misuse, RoundAborted

if TYPE_CHECKING:
    from privfl.runtime.jobs import Job

__all__ = ["sign_mandate", "train"]


def train(
    task: Annotated[Path, typer.Argument(help="The task, in YAML: what to train, on which schema, at which cost.")],
    coordinator: Annotated[Path, typer.Option(help="The coordinator's folder.")] = Path("coordinator"),
    mandate: Annotated[Path | None, typer.Option(help="An analyst's signed request for this task.")] = None,
    detach: Annotated[bool, typer.Option("--detach", help="Put it into the queue and return.")] = False,
    patience: Patience = 60.0,
    grace: Grace = 2.0,
    gather: Gather = 30.0,
    wait: Wait = APPROVAL_S,
    log_level: Level = LogLevel.INFO,
    passphrase_file: PassphraseFile = None,
    as_json: AsJson = False,
) -> None:
    """Train what TASK describes over the sites of a federation.

    If a coordinator runs on the folder, the task is put into its queue and followed; otherwise this command is
    the coordinator until the task is done. Interrupted, it goes on with: privfl coordinator run FOLDER. Exits with 6
    if the run ended before its last round, with what was trained so far.

    Example: privfl train task.yaml --coordinator coordinator
    """
    pace = (gather, patience, grace, APPROVAL_S if wait is None else wait)
    job = carry_out(task, "train", coordinator, mandate, pace, log_level, detach, passphrase_file, as_json)
    if job is not None and _show(job, as_json):
        raise typer.Exit(RoundAborted.exit_code)


def sign_mandate(
    task: Annotated[Path, typer.Argument(help="The task or study that is to be run.")],
    analyst: Annotated[Path, typer.Option(help="The analyst's folder (privfl policy init --role analyst).")],
    roster: Annotated[Path, typer.Option(help="The file of rosters that the authority handed out.")],
    policy: Annotated[Path, typer.Option(help="The signed policy in force.")],
    out: Annotated[Path, typer.Option(help="Where to write the mandate.")] = Path("mandate"),
    days: Annotated[int, typer.Option(help="How long it is worth something.", min=1, max=366)] = 30,
    passphrase_file: PassphraseFile = None,
    as_json: AsJson = False,
) -> None:
    """Sign, as an analyst, for exactly the TASK: every upload under it is charged to the analyst's cap.

    The sites check the signature against the roster. It is for one run: as many uploads of each site as the
    task plans. Without a mandate a task counts as the coordinator's own.

    Example: privfl mandate task.yaml --analyst alice --roster rosters --policy policy.signed
    """
    from privfl.budget import Mandate  # noqa: PLC0415
    from privfl.entropy import SYSTEM  # noqa: PLC0415
    from privfl.homes.files import write_file  # noqa: PLC0415
    from privfl.homes.membership import read_policy  # noqa: PLC0415
    from privfl.homes.officer import OfficerHome  # noqa: PLC0415
    from privfl.homes.rosters import read_rosters  # noqa: PLC0415
    from privfl.runtime.jobs import job_kind, kind_of  # noqa: PLC0415

    if out.exists():
        raise Misuse(f"{out} is there already and stays as it is; give another name with --out")
    named = kind_of(task)
    kind = job_kind(named)
    members = read_rosters(roster)[-1].roster
    agreed = read_policy(policy).verify(members, now())
    compiled = kind.compile(kind.read(task), members, agreed).question
    home = OfficerHome.open(analyst, passphrase(analyst, passphrase_file))
    expires = now() + days * 86_400_000
    made = Mandate.sign(
        home.identity.key,
        federation=members.federation,
        task=compiled.id,
        purpose=compiled.purpose,
        expires=expires,
        entropy=SYSTEM,
    )
    made.verify(members, compiled.id, now())
    write_file(out, made.encode())
    tell(
        as_json,
        {"task": compiled.id.hex(), "analyst": home.identity.name, "expires": expires, "mandate": str(out)},
        f"{home.identity.name} asks for {compiled!r}",
        f"Next: privfl {'train' if named == 'train' else 'query'} {quoted(task)} --mandate {quoted(out)}",
    )


def _show(job: Job, as_json: bool) -> bool:
    """Show the result; returns whether the run ended before it was through."""
    report: dict[str, Any] = json.loads((job.result / "privacy.json").read_text(encoding="utf-8"))
    summary: dict[str, Any] = json.loads((job.result / "summary.json").read_text(encoding="utf-8"))
    result = {"job": job.id, **summary, "privacy": report, "result": str(job.result)}
    if as_json:
        typer.echo(json.dumps(result))
        return bool(summary["stopped_early"])
    console = Console(highlight=False, file=sys.stdout)
    table = Table(title=f"{summary['name']}: {summary['stopped']}", title_justify="left", show_header=False)
    table.add_row("rounds opened", str(summary["rounds"]))
    for site, rounds in missing_rounds(summary["dropped"]).items():
        table.add_row("missing", f"{site} in {rounds}")
    if summary["score"] is not None:
        table.add_row("score", f"{summary['score']:.3f} ± {summary['score_sd']:.3f} (noisy, mean of the last rounds)")
    if summary["held_out"] is not None:
        table.add_row("on held-out rows", f"{summary['held_out']:.3f}")
    epsilon = report["epsilon"]
    table.add_row("privacy", report["words"] if epsilon is not None else "none: sums without noise")
    table.add_row("result", str(job.result))
    console.print(table)
    console.print(f"Check it: privfl transcript verify {quoted(job.result / 'transcripts')}", soft_wrap=True)
    return bool(summary["stopped_early"])
