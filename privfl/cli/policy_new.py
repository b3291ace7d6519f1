"""``privfl policy new``: a policy from options, questions and defaults."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from privfl.cli.policy_draft import (
    Answers,
    Question,
    asked,
    column,
    columns,
    default,
    draft,
    from_schema,
    mapping,
    pairs,
    scalar,
)
from privfl.cli.policy_statistics import unknown_statistics
from privfl.cli.roles import quoted
from privfl.clock import SystemClock
from privfl.errors import Misuse

if TYPE_CHECKING:
    from privfl.budget import Policy

__all__ = ["EPILOG", "new"]

EPILOG = (
    "Example: privfl policy new policy.yaml --schema schema.yaml --federation northern-hospitals "
    "--epsilon 4 --task logistic=0.3 --yes"
)
Say = str | None
Count = int | None
Real = float | None
Many = list[str] | None


def _pair(metavar: str, text: str) -> Any:
    return typer.Option(metavar=metavar, help=text + " (repeat)")


def new(
    file: Annotated[Path, typer.Argument(help="The file to write; never overwritten.")],
    schema: Annotated[Path | None, typer.Option(help="Take columns, dataset and size from this schema.")] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Ask nothing; take the default of what is not given.")] = False,
    federation: Annotated[Say, typer.Option(help="Name of the federation, as in its roster.")] = None,
    version: Annotated[Count, typer.Option(help="Counts up with every change.")] = None,
    valid_from: Annotated[Say, typer.Option(help="First day, YYYY-MM-DD (UTC).")] = None,
    expires: Annotated[Say, typer.Option(help="Day on which it ends, YYYY-MM-DD (UTC).")] = None,
    dataset: Annotated[Say, typer.Option(help="Name of the schema.")] = None,
    schema_version: Annotated[Count, typer.Option(help="Version of the schema.")] = None,
    schema_digest: Annotated[
        Say, typer.Option(help="Digest of the one schema that may be read; --schema fills it in.")
    ] = None,
    population: Annotated[Say, typer.Option(help="Whose ids the data use; one ledger per site and population.")] = None,
    subjects: Annotated[Count, typer.Option(help="Declared public number of people.")] = None,
    max_sites_per_subject: Annotated[Count, typer.Option(help="At how many sites one person may be.")] = None,
    unit: Annotated[Say, typer.Option(help="record, subject or site.")] = None,
    trust: Annotated[Say, typer.Option(help="distributed or local.")] = None,
    epsilon: Annotated[Real, typer.Option(help="The total promise.")] = None,
    delta: Annotated[Real, typer.Option(help="With epsilon; at most 1/(10 x subjects).")] = None,
    without_noise: Annotated[bool, typer.Option("--without-noise", help="Exact sums; protects no one.")] = False,
    max_epsilon_per_upload: Annotated[Real, typer.Option(help="Cap on one upload alone.")] = None,
    share: Annotated[Many, _pair("PURPOSE=PART", "Share of the total")] = None,
    approval: Annotated[
        Many, typer.Option(metavar="PURPOSE", help="Each site's operator says yes to every request for it (repeat)")
    ] = None,
    analyst: Annotated[Many, _pair("NAME=PART", "Who may ask, and his cap")] = None,
    window_days: Annotated[Count, typer.Option(help="Length of a sliding window that refreshes the total.")] = None,
    lifetime_epsilon: Annotated[Real, typer.Option(help="Cap for life, with a window.")] = None,
    lifetime_delta: Annotated[Real, typer.Option(help="Its delta.")] = None,
    colluders: Annotated[Count, typer.Option(help="Sites that may side with the coordinator.")] = None,
    min_survivors: Annotated[Count, typer.Option(help="Least sites in an opened sum.")] = None,
    min_sites: Annotated[Count, typer.Option(help="Least sites in a round.")] = None,
    min_committee: Annotated[Count, typer.Option(help="Least committee members.")] = None,
    attempts_per_round: Annotated[Count, typer.Option(help="Tries per round, each charged.")] = None,
    mode: Annotated[Many, typer.Option(help="voted or complete (repeat)")] = None,
    min_cell_count: Annotated[Count, typer.Option(help="Least noisy count that is shown.")] = None,
    task: Annotated[list[str] | None, _pair("KIND=CLIP", "Allowed training and its largest clip")] = None,
    statistic: Annotated[Many, typer.Option(help="Name of a statistic (repeat)")] = None,
    column_: Annotated[
        list[str] | None,
        typer.Option("--column", metavar="NAME=LOW:HIGH", help="or NAME=CLASS,CLASS or NAME=text:LENGTH (repeat)"),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Write a commented policy FILE: asks on a terminal for what no option says. See docs/policy.md."""
    if file.exists() or file.is_symlink():
        raise Misuse(f"{file} is there already and stays as it is; choose another name")
    given: dict[str, Any] = {
        "version": version, "schema_version": schema_version, "subjects": subjects, "epsilon": epsilon, "delta": delta,
        "max_sites_per_subject": max_sites_per_subject, "max_epsilon_per_upload": max_epsilon_per_upload,
        "colluders": colluders, "min_survivors": min_survivors, "min_sites": min_sites, "min_committee": min_committee,
        "attempts_per_round": attempts_per_round, "min_cell_count": min_cell_count,
        "valid_from": valid_from, "expires": expires, "unit": unit, "trust": trust,
    }  # fmt: skip
    names = {"federation": federation, "dataset": dataset, "population": population}
    answers = from_schema(schema) if schema is not None else {}
    if (dataset, schema_version) != (None, None):
        answers.pop("schema_digest", None)  # it is about another schema then
    if schema_digest is not None:
        answers["schema_digest"] = json.dumps(schema_digest)
    answers |= {field: str(value) for field, value in given.items() if value is not None}
    answers |= {field: scalar(value) for field, value in names.items() if value is not None}
    window = {"days": window_days, "lifetime_epsilon": lifetime_epsilon, "lifetime_delta": lifetime_delta}
    several = {
        "shares": mapping(pairs(share or [], "--share")),
        "approval": f"[{', '.join(approval)}]" if approval else "",
        "analysts": mapping(pairs(analyst or [], "--analyst")),
        "window": mapping({name: str(value) for name, value in window.items() if value is not None}),
        "modes": f"[{', '.join(mode)}]" if mode else "",
        "tasks": mapping({name: f"{{clip: {clip}}}" for name, clip in pairs(task or [], "--task").items()}),
        "statistics": f"[{', '.join(map(scalar, statistic))}]" if statistic else "",
        "columns": columns({name: column(value) for name, value in pairs(column_ or [], "--column").items()}),
    }
    answers |= {field: value for field, value in several.items() if value}
    if without_noise:
        from privfl.budget import WITHOUT_NOISE  # noqa: PLC0415

        answers["without_noise"] = scalar(WITHOUT_NOISE)
    policy = _complete(answers, yes)
    from privfl.homes.files import write_file  # noqa: PLC0415

    write_file(file, draft(answers).encode(), mode=0o644)
    notes = unknown_statistics(policy)
    if as_json:
        about = {"policy": str(file), "version": policy.version, "hash": policy.hash.hex(), "notes": notes}
        typer.echo(json.dumps(about))
    else:
        for note in notes:
            typer.echo(f"Mind: {note}")
        typer.echo(f"Wrote {file}. Read it, change it, and see what it means: privfl policy explain {quoted(file)}")


def _complete(answers: Answers, yes: bool) -> Policy:
    """Fill in what is missing, by questions or defaults, until it is a policy."""
    from privfl.budget import InvalidPolicy, Policy  # noqa: PLC0415

    terminal, now, missing = not yes and _on_terminal(), SystemClock().now(), []
    for question in asked(answers):
        if question.field in answers:
            continue
        usual = default(question, answers, now)
        if terminal:
            answers[question.field] = _ask(question, usual)
        elif usual is None or not yes:
            missing.append(question.field)
        else:
            answers[question.field] = usual
    if missing and not yes:
        raise Misuse("there is no terminal to ask on; add --yes for the defaults, or run the command on a terminal")
    if missing:
        options = {"columns": "column (or --schema)"}
        derived = {"population", "delta"}  # their defaults follow from others
        names = ", ".join("--" + options.get(one, one).replace("_", "-") for one in missing if one not in derived)
        raise Misuse(f"these have no default and must be given: {names}")
    while True:
        try:
            return Policy.from_yaml(draft(answers))
        except InvalidPolicy as error:
            again = [
                one for one in asked(answers) if one.field in {fault.place[0] for fault in error.faults if fault.place}
            ]
            if not terminal or not again:
                raise
            typer.echo(str(error), err=True)
            for question in again:
                answers[question.field] = _ask(question, answers[question.field])


def _ask(question: Question, usual: str | None) -> str:
    answer = str(typer.prompt(question.asked, default=usual, show_default=bool(usual), err=True)).strip()
    is_name = question.field in ("federation", "dataset", "population")
    return scalar(answer) if is_name and answer != usual else answer


def _on_terminal() -> bool:
    return sys.stdin is not None and sys.stdin.isatty()
