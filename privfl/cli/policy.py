"""``privfl policy``: write, check, explain, sign and compare policies. Other modules may add commands to ``app``."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from privfl.cli import policy_new as new
from privfl.cli import policy_plan
from privfl.cli.policy_statistics import unknown_statistics
from privfl.clock import SystemClock
from privfl.errors import Misuse, Refused

if TYPE_CHECKING:
    from privfl_keys import Roster

    from privfl.budget import Policy
    from privfl.budget.policy_diff import Change

__all__ = ["app"]

app = typer.Typer(help="Write, explain, sign and compare policies (compliance).", no_args_is_help=True)

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
File = Annotated[Path, typer.Argument(help="A policy in YAML, or a signed one.", show_default=False)]
RosterFile = Annotated[Path | None, typer.Option("--roster", help="The roster file, to compare the numbers with.")]

app.command("new", epilog=new.EPILOG)(new.new)
app.command("plan", epilog=policy_plan.EPILOG)(policy_plan.plan)


@app.command(epilog="Example: privfl policy check policy.yaml --roster rosters")
def check(file: File, roster: RosterFile = None, as_json: Json = False) -> None:
    """Check FILE: every complaint with its line. With --roster also whether the two agree and who signed.

    Exits with 2 for a policy that is none, 3 for a signature that does not hold, 5 for a disagreement.
    """
    from privfl.budget import read_policy  # noqa: PLC0415

    policy, signed = read_policy(file)
    now, verified = SystemClock().now(), False
    unknown: list[str] = []
    if roster is not None:
        book = _roster(roster, now)
        policy.agrees_with(book)
        names = {member.name for member in book.members}
        unknown = [name for name in policy.analysts if name not in names]
        if signed is not None:
            signed.verify(book, now)
            verified = True
    notes = _notes(policy, now)
    if unknown:
        notes.append(
            f"analysts names {', '.join(unknown)}, whom this roster does not list: nobody can use that part yet"
        )
    if as_json:
        about = {"signed": signed is not None, "verified": verified, "notes": notes}
        typer.echo(json.dumps({"file": str(file), **_about(policy), **about}))
        return
    state = "signed and verified" if verified else "signed, not verified" if signed is not None else "not signed"
    typer.echo(f"{file}: version {policy.version} of {policy.federation}, hash {policy.hash.hex()[:16]}, {state}.")
    for note in notes:
        typer.echo(f"Mind: {note}")


def _about(policy: Policy) -> dict[str, Any]:
    return {
        "federation": policy.federation,
        "version": policy.version,
        "hash": policy.hash.hex(),
        "valid_from": policy.valid_from_at,
        "expires": policy.expires_at,
        "noiseless": policy.noiseless,
    }


def _notes(policy: Policy, now: int) -> list[str]:
    from privfl.budget.examine import check_in_force  # noqa: PLC0415

    notes = []
    try:
        check_in_force(policy, now)
    except Refused as error:
        notes.append(str(error))
    if policy.noiseless:
        notes.append("it lets exact sums leave; no one is protected by noise")
    return [*notes, *unknown_statistics(policy)]


@app.command(epilog="Example: privfl policy explain policy.yaml")
def explain(file: File, as_json: Json = False) -> None:
    """Say in sentences what FILE permits, whom it protects how well, and what to beware of."""
    from privfl.budget import read_policy  # noqa: PLC0415
    from privfl.budget.policy_words import explain as sections  # noqa: PLC0415
    from privfl.budget.policy_words import figures  # noqa: PLC0415

    policy, signed = read_policy(file)
    found = sections(policy)
    if as_json:
        listing = [{"title": section.title, "sentences": section.sentences} for section in found]
        about = {
            "signed": signed is not None, "figures": figures(policy), "sections": listing,
            "notes": unknown_statistics(policy),
        }  # fmt: skip
        typer.echo(json.dumps({"file": str(file), **_about(policy), **about}))
        return
    console = Console(highlight=False)
    for section in found:
        console.print(Text(section.title, style="bold"))
        for sentence in section.sentences:
            console.print(Padding(Text(sentence), (0, 0, 0, 2)))
        console.print()
    for note in unknown_statistics(policy):
        console.print(Text(f"Mind: {note}"))
    console.print(Text(f"Hash: {policy.hash.hex()}"), soft_wrap=True)
    if signed is not None:
        console.print("The file is signed; this command does not verify by whom: privfl policy check --roster.")


@app.command(epilog="Example: privfl policy sign policy.yaml --officer ./compliance --roster rosters")
def sign(
    file: Annotated[Path, typer.Argument(help="The policy in YAML.", show_default=False)],
    officer: Annotated[Path, typer.Option(help="The compliance officer's folder.")],
    roster: Annotated[Path, typer.Option(help="The roster file that the authority hands out.")],
    out: Annotated[Path | None, typer.Option(help="The signed policy to write; by default FILE.signed.")] = None,
    passphrase_file: Annotated[Path | None, typer.Option(help="First line: the folder's passphrase.")] = None,
    as_json: Json = False,
) -> None:
    """Sign FILE with the officer's key, after comparing it with the roster.

    Refuses a policy that has expired or that disagrees with the roster, and a key without the role compliance.
    """
    from privfl.budget import SignedPolicy, read_policy  # noqa: PLC0415
    from privfl.budget.examine import check_expiry  # noqa: PLC0415
    from privfl.homes.files import write_file  # noqa: PLC0415
    from privfl.homes.officer import OfficerHome  # noqa: PLC0415
    from privfl.homes.passphrase import ask_passphrase  # noqa: PLC0415

    target = out if out is not None else file.with_name(file.name + ".signed")
    if target.exists() or target.is_symlink():
        raise Misuse(f"{target} is there already and stays as it is; choose another name with --out")
    policy, before = read_policy(file)
    if before is not None:
        raise Misuse(f"{file} is signed already; sign the YAML file it was made from")
    now = SystemClock().now()
    book = _roster(roster, now)
    policy.agrees_with(book)
    check_expiry(policy, now)
    home = OfficerHome.open(officer, ask_passphrase(passphrase_file, folder=officer))
    signed = SignedPolicy.sign(policy, home.identity.key)
    signed.verify(book, now)  # what every site will ask
    write_file(target, signed.encode(), mode=0o644)
    name = book.member(signed.officer).name
    if as_json:
        typer.echo(json.dumps({"signed": str(target), "officer": name, **_about(policy)}))
        return
    typer.echo(f"{name} signed version {policy.version} of {policy.federation} in {target}, hash {policy.hash.hex()}.")
    typer.echo(
        "Hand it to every site and to the coordinator; each checks the signature, the roster and the version for"
    )
    typer.echo(f"itself. They take it over with: privfl site join FOLDER --policy {shlex.quote(target.name)}")


def _roster(path: Path, now: int) -> Roster:
    """The last roster of a file, valid now. Who signed it each site checks for itself, with its pinned authority."""
    from privfl.homes.rosters import read_rosters  # noqa: PLC0415

    roster = read_rosters(path)[-1].roster
    roster.check_validity(now)
    return roster


@app.command(epilog="Example: privfl policy diff old.yaml new.yaml --fail-on-looser")
def diff(
    old: File,
    new_: Annotated[Path, typer.Argument(metavar="NEW", help="The policy that is to follow.", show_default=False)],
    fail_on_looser: Annotated[
        bool, typer.Option("--fail-on-looser", help="Exit with 1 if anything is looser.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Show what changes from OLD to NEW, in YAML or signed: what gets looser first, then tighter, then the rest."""
    from privfl.budget import read_policy  # noqa: PLC0415
    from privfl.budget.policy_diff import Direction, differences  # noqa: PLC0415

    changes = differences(read_policy(old)[0], read_policy(new_)[0])
    looser = [change for change in changes if change.direction is Direction.LOOSER]
    if as_json:
        by_word = {
            direction.word: [{"field": one.field, "words": one.words} for one in changes if one.direction is direction]
            for direction in Direction
        }
        typer.echo(json.dumps({"old": str(old), "new": str(new_), **by_word}))
    else:
        _show(changes)
    if looser and fail_on_looser:
        raise typer.Exit(1)


def _show(changes: tuple[Change, ...]) -> None:
    if not changes:
        typer.echo("The two policies mean the same.")
        return
    table = Table(title=f"{len(changes)} change(s)", title_justify="left", show_lines=False)
    table.add_column("")
    table.add_column("what changes", overflow="fold")
    styles = {"looser": "bold red", "tighter": "green", "neutral": ""}
    for change in changes:
        word = change.direction.word
        table.add_row(Text(word, style=styles[word]), Text(change.words))
    Console().print(table)
