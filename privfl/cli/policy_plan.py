"""``privfl policy plan``: what a policy still lets be asked, in rounds, epsilon and people."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from privfl.clock import SystemClock
from privfl.errors import Misuse

if TYPE_CHECKING:
    from privfl.budget import Book, Policy
    from privfl.budget.planner_report import Asked, Plan

__all__ = ["EPILOG", "plan"]

EPILOG = "Example: privfl policy plan policy.yaml --ledger north --rounds 30 --plot plan.png"


def plan(
    file: Annotated[Path, typer.Argument(help="A policy in YAML, or a signed one.", show_default=False)],
    ledger: Annotated[
        Path | None, typer.Option(help="Start from what this site's folder, ledger file or export has spent.")
    ] = None,
    rounds: Annotated[list[int] | None, typer.Option(help="Rounds of a training run; may be repeated.", min=1)] = None,
    epsilon: Annotated[list[float] | None, typer.Option(help="Epsilon of a training run; may be repeated.")] = None,
    queries: Annotated[list[int] | None, typer.Option(help="How many counts are to be asked.", min=1)] = None,
    people: Annotated[list[float] | None, typer.Option(help="Each count within this many people (95 %).")] = None,
    sites: Annotated[
        int | None, typer.Option(help="Sites in a published sum; by default the policy's fewest.", min=1)
    ] = None,
    analyst: Annotated[str | None, typer.Option(help="Plan within the cap of this analyst.")] = None,
    parameters: Annotated[int, typer.Option(help="Numbers in one upload of a training run.", min=1)] = 1000,
    plot: Annotated[Path | None, typer.Option(help="Also write a plot to this .png or .svg file.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite a plot that is there.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Plan under FILE: what is left for each purpose, which training runs and how many counts it holds.

    The plan rests on the policy and the ledger's public charges alone, on no row. It promises nothing:
    another request may spend first. Every attempt at a round is charged, so runs are shown twice, with
    one attempt for each round and with as many as the policy allows.
    """
    from privfl.budget import read_policy  # noqa: PLC0415
    from privfl.budget.planner_plot import plan_picture  # noqa: PLC0415
    from privfl.budget.planner_report import Asked, make_plan  # noqa: PLC0415
    from privfl.budget.planner_values import plan_values  # noqa: PLC0415
    from privfl.budget.tally import Tally  # noqa: PLC0415

    policy = read_policy(file)[0]
    book = None if ledger is None else _book(ledger, policy)
    lists = {"rounds": rounds, "epsilons": epsilon, "queries": queries, "people": people}
    asked = Asked(
        **{name: tuple(given) for name, given in lists.items() if given},  # type: ignore[arg-type]
        sites=sites,
        analyst=analyst,
        length=parameters,
    )
    now = SystemClock().now()
    made = make_plan(
        policy, Tally() if book is None else book.tally, now if book is None else max(now, book.time), asked
    )
    if plot is not None:
        _write(plot, plan_picture(made, plot.suffix.lstrip(".").lower()), force)
    if as_json:
        about = {"file": str(file), "ledger": None if ledger is None else str(ledger)}
        typer.echo(json.dumps({**about, **plan_values(made)}))
        return
    _show(made, asked, ledger)


def _book(target: Path, policy: Policy) -> Book:
    """The verified ledger of the policy's population: in a site's folder, a folder of ledgers, a file, an export."""
    from privfl.budget import verify_export, verify_file  # noqa: PLC0415

    if target.is_dir():
        inner = target / "ledger"
        paths = sorted((inner if inner.is_dir() else target).glob("*.db"))
    else:
        paths = [target]
    books = []
    for path in paths:
        if path.suffix == ".json" and path.is_file():
            books.append(verify_export(path.read_bytes(), None).book)
        else:
            books.append(verify_file(path, None).book)
    fitting = [book for book in books if book.opening.population == policy.population]
    if not fitting:
        names = sorted({book.opening.population for book in books})
        held = f"the ledger there is of {', '.join(map(ascii, names))}" if names else "there is no ledger there"
        raise Misuse(
            f"{target}: {held}, and the policy is for the population {policy.population!r}; name the ledger of that one"
        )
    book = fitting[0]
    if len(fitting) > 1:
        raise Misuse(f"{target} holds {len(fitting)} ledgers of {policy.population!r}; name one file")
    if book.opening.federation != policy.federation:
        raise Misuse(
            f"{target} is a ledger of federation {book.opening.federation!a:.80} and the policy is for "
            f"{policy.federation!r}; name a ledger of that federation"
        )
    return book


def _write(path: Path, data: bytes, force: bool) -> None:
    from privfl.homes.files import write_file  # noqa: PLC0415

    if os.path.lexists(path) and not force:
        raise Misuse(f"{path} exists and is not overwritten; choose another name, or add --force")
    write_file(path, data, mode=0o644)


# -- for people -----------------------------------------------------------------------------------------------


def _table(title: str, *headings: str) -> Table:
    table = Table(title=f"\n{title}", title_justify="left")
    for at, heading in enumerate(headings):
        table.add_column(heading, justify="left" if at == 0 else "right")
    return table


def _rows(table: Table, rows: Sequence[tuple[str, ...]]) -> Table:
    for row in rows:
        table.add_row(*(Text(word) for word in row))
    return table


def _show(made: Plan, asked: Asked, ledger: Path | None) -> None:
    policy, console = made.policy, Console(highlight=False)
    start = "from the start" if ledger is None else f"after what {ledger} has spent"
    console.print(
        Text(
            f"Plan under version {policy.version} of {policy.federation}, {start}: epsilon {policy.epsilon:g} at delta "
            f"{policy.delta:g} per {policy.unit}, trust {policy.trust}."
        )
    )
    console.print(_rooms(made))
    if policy.shares.get(made.rooms[0].purpose):
        console.print(_largest(made))
        console.print(_runs(made, asked))
    if made.counts:
        console.print(_counts(made))
        console.print(_within(made, asked))
    console.print(_curve(made))
    for sentence in [*_sentences(made), *(f"Mind: {note}." for note in made.notes)]:
        console.print(Text(sentence))


def _rooms(made: Plan) -> Table:
    table = _table("What is left", "for", "mu^2", "as epsilon of one task", "limited by")
    rows = [
        (str(room.purpose), f"{float(room.left.mu2):.4g}", f"{room.epsilon_left(made.policy.trust):.4g}", room.binding)
        for room in made.rooms
    ]
    return _rows(table, rows)


def _largest(made: Plan) -> Table:
    policy = made.policy
    table = _table(
        "The largest training run that fits",
        "rounds",
        "epsilon, one attempt each",
        f"epsilon, {policy.attempts_per_round} attempts each",
        "noise/clip",
    )
    rows = [
        (
            str(first.rounds),
            f"{first.epsilon:.4g}",
            f"{all_.epsilon:.4g}",
            f"{first.multiplier:.3g}, {all_.multiplier:.3g}",
        )
        for first, all_ in made.largest
    ]
    return _rows(table, rows)


def _runs(made: Plan, asked: Asked) -> Table:
    title = f"How many runs fit, with one attempt (with {made.policy.attempts_per_round}) for each round; noise/clip"
    table = _table(title, "rounds", *(f"epsilon {value:g}" for value in asked.epsilons))
    cells = {(first.rounds, first.epsilon): (first, all_) for first, all_ in made.runs}
    rows = []
    for count in asked.rounds:
        words = []
        for value in asked.epsilons:
            first, all_ = cells[count, value]
            fits = "refused" if first.fits is None else f"{first.fits} ({all_.fits})"
            words.append(f"{fits}; {first.multiplier:.3g}")
        rows.append((str(count), *words))
    return _rows(table, rows)


def _counts(made: Plan) -> Table:
    trusts = list(dict.fromkeys(trust for _, _, trust, _ in made.counts))
    title = f"Each count is within +- people (95 %), {made.cohort.sites} sites"
    table = _table(title, "for", "counts", *(f"noise {trust}" for trust in trusts))
    cells = {(purpose, queries, trust): found for purpose, queries, trust, found in made.counts}
    rows = []
    for purpose, queries in dict.fromkeys((purpose, queries) for purpose, queries, _, _ in made.counts):
        found = [cells[purpose, queries, trust] for trust in trusts]
        words = ["none fits" if one is None else f"{one.within:.1f}" for one in found]
        rows.append((str(purpose), str(queries), *words))
    return _rows(table, rows)


def _within(made: Plan, asked: Asked) -> Table:
    trusts = list(dict.fromkeys(trust for _, _, trust, _ in made.within))
    table = _table("How many counts fit", "for", "within +- people", *(f"noise {trust}" for trust in trusts))
    cells = {(purpose, people, trust): number for purpose, people, trust, number in made.within}
    purposes = dict.fromkeys(purpose for purpose, _, _, _ in made.within)
    rows = [
        (str(purpose), f"{people:g}", *(str(cells[purpose, people, trust]) for trust in trusts))
        for purpose in purposes
        for people in asked.people
    ]
    return _rows(table, rows)


def _curve(made: Plan) -> Table:
    table = _table("The same promise at other deltas", "delta", "epsilon of the budget", "epsilon of what is spent")
    rows = [
        (f"{delta:g}", *("no promise" if value is None else f"{value:.4g}" for value in values))
        for delta, *values in made.curve
    ]
    return _rows(table, rows)


def _sentences(made: Plan) -> list[str]:
    from privfl.budget.ledger_entries import moment  # noqa: PLC0415

    found = []
    if made.fallback is not None:
        found.append(
            f"Should all other sites collude, the whole budget is epsilon {made.fallback:.3g} for one site's rows."
        )
    window = made.window
    if window is not None:
        found.append(
            f"The budget is for any {window.days} days. The validity holds {window.windows} such windows: mu "
            f"{window.mu:.4g} in all, epsilon {window.epsilon:.3g} at delta {window.lifetime_delta:g}; the lifetime "
            f"cap of epsilon {window.lifetime_epsilon:g} still lets {window.whole} of them be used to the full."
        )
        ahead = "; ".join(f"{moment(then)[:10]}: {value:.3g}" for then, value in window.ahead)
        found.append(f"Left of the total if nothing more is charged, as epsilon of one task: {ahead}.")
    return found
