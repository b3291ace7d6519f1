"""``privfl wire aws`` and ``privfl wire redrive``: a federation's queues, bucket, key and policies in AWS."""

from __future__ import annotations

import json
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from privfl.cli.roles import AsJson, Authority, PassphraseFile, now
from privfl.errors import Misuse

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from privfl_keys import Roster

    from privfl.wires.aws.admin import Row, Work
    from privfl.wires.aws.admin_check import Tried
    from privfl.wires.aws.policies_plan import Participant
    from privfl.wires.settings import AwsSettings

__all__ = ["app", "redrive"]

app = typer.Typer(help="Make, check and remove what a federation needs in AWS.", no_args_is_help=True)

File = Annotated[Path, typer.Argument(metavar="FEDERATION.yaml", help="The federation's file, with wire: kind: aws.")]
Rosters = Annotated[Path, typer.Option("--roster", help="The file of rosters that the authority handed out.")]
MaybeRosters = Annotated[
    Path | None, typer.Option("--roster", help="The file of rosters that the authority handed out.")
]
SiteRoles = Annotated[
    str | None,
    typer.Option(help="ARN of a member's role or user, {name} for its name; default: role in the file."),
]
Profile = Annotated[str | None, typer.Option(help="Profile of the local AWS configuration; default: the file's.")]
_MARKS = {"made": "+", "changed": "~", "removed": "-", "kept": "=", "noted": "!"}
WRONG = 1  # exit code of a check that finds something wrong


@app.command(
    epilog="Example: privfl wire aws init federation.yaml --roster rosters --authority authority.pub --create-roles "
    "--trust 'arn:aws:iam::111122223333:user/{name}'"
)
def init(
    file: File,
    roster: Rosters,
    authority: Authority = None,
    out: Annotated[
        Path | None, typer.Option("--dir", help="Where policies are written; default: aws/ beside FILE.")
    ] = None,
    site_roles: SiteRoles = None,
    create_roles: Annotated[bool, typer.Option("--create-roles", help="Also make the members' roles.")] = False,
    trust: Annotated[
        str | None, typer.Option(help="ARN that may assume a member's role, {name} for its name; default: the account.")
    ] = None,
    administrator: Annotated[
        list[str] | None,
        typer.Option(help="ARN that may empty dead-letter queues, * allowed; default: whoever runs this."),
    ] = None,
    profile: Profile = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be done.")] = False,
    as_json: AsJson = False,
) -> None:
    """Make the queues, the bucket, the key and the policies for a roster, or correct what differs.

    Doing it again changes nothing, and an interrupted one goes on. What belongs to something else is refused. The
    policies are written as files; attach members/NAME.json to each member's role, or let --create-roles do it.
    """
    listed = _roster(file, roster, authority)
    from privfl.wires.aws.admin_init import initialise  # noqa: PLC0415 - loaded when a command runs

    with _work(file, _members(listed), profile, dry_run, site_roles, tuple(administrator or ())) as work:
        initialise(work, out or file.parent / "aws", create_roles=create_roles, trusted=trust)
        _show(work.rows, as_json, dry=dry_run, roster=listed.version, changed=work.changed, account=work.plan.account)
        if not as_json and work.plan.roles is None:
            typer.echo("Note: without --site-roles (or role in the file) queues refuse no stranger of this account.")


@app.command(
    epilog="Example: privfl wire aws check federation.yaml --roster rosters --authority authority.pub; or at a site: "
    "privfl wire aws check federation.yaml --home north"
)
def check(
    file: File,
    roster: MaybeRosters = None,
    authority: Authority = None,
    home: Annotated[Path | None, typer.Option(help="A member's folder: try as this member, by its settings.")] = None,
    member: Annotated[list[str] | None, typer.Option(help="Only this member of the roster; may be repeated.")] = None,
    site_roles: SiteRoles = None,
    passphrase_file: PassphraseFile = None,
    profile: Profile = None,
    as_json: AsJson = False,
) -> None:
    """Try with each member's own credentials what it must be able to do, and what it must not.

    Without --home each member's role is assumed in turn. Exits with 1 if anything is not as it must be.
    """
    if home is None and roster is None:
        raise Misuse("give --roster, to try each member's role; or --home FOLDER, to try as that member")
    if home is not None and member:
        raise Misuse("--home names one member already; leave out --member")
    listed = _roster(file, roster, authority) if roster is not None else _own_roster(file, home, passphrase_file)
    found: dict[str, list[Tried]] = {}
    for one in _tried(listed, home, member):
        found[one.name] = _checked(file, listed, one, home, site_roles, profile)
        if not as_json:
            _show_tried(one.name, found[one.name])
    wrong = sum(not row.right for rows in found.values() for row in rows)
    if as_json:
        from dataclasses import asdict  # noqa: PLC0415

        told = {name: [asdict(row) for row in rows] for name, rows in found.items()}
        typer.echo(json.dumps({"ok": not wrong, "wrong": wrong, "members": told}))
    elif not wrong:
        typer.echo(f"{len(found)} member(s): each can do what it must, and nothing that was tried beyond it.")
    raise typer.Exit(WRONG if wrong else 0)


@app.command(epilog="Example: privfl wire aws destroy federation.yaml --roster rosters --authority authority.pub --yes")
def destroy(
    file: File,
    roster: Rosters,
    authority: Authority = None,
    site_roles: SiteRoles = None,
    yes: Annotated[bool, typer.Option("--yes", help="Really remove it.")] = False,
    profile: Profile = None,
    as_json: AsJson = False,
) -> None:
    """Remove the queues, the bucket with all that is in it, the roles and the key that init made, by their tags.

    Without --yes it only shows what it would remove, and exits with 2. Doing it again is harmless.
    """
    listed = _roster(file, roster, authority)
    from privfl.wires.aws.admin_destroy import destroy as remove  # noqa: PLC0415

    with _work(file, _members(listed), profile, not yes, site_roles) as work:
        remove(work)
        _show(work.rows, as_json, dry=not yes, roster=listed.version, changed=work.changed, account=work.plan.account)
        if not yes and work.changed:
            raise Misuse("nothing was removed; to remove this with everything in it, add --yes")


@app.command(epilog="Example: privfl wire aws rewrap north")
def rewrap(
    folder: Annotated[Path, typer.Argument(help="A folder whose keys are under KMS (made with --kms).")],
    as_json: AsJson = False,
) -> None:
    """Seal the keys of FOLDER under a new data key of the KMS key that its configuration names now."""
    from privfl.homes.config import role_of  # noqa: PLC0415
    from privfl.homes.folder import open_kms_store  # noqa: PLC0415

    if role_of(folder) is None:
        raise Misuse(f"{folder} is no folder of a member; check the path")
    store = open_kms_store(folder)
    try:
        key = store.rewrap()
    finally:
        store.close()
    if as_json:
        typer.echo(json.dumps({"folder": str(folder), "key": key}))
        return
    typer.echo(
        f"The keys of {folder} are sealed under a new data key, wrapped by {key}. Delete old copies of the file."
    )


def redrive(
    file: File,
    member: Annotated[str, typer.Option(help="Whose dead-letter queue: name, or 6 digits or more of the id.")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only look.")] = False,
    profile: Profile = None,
    as_json: AsJson = False,
) -> None:
    """Show what a member could not handle, and move it back into its queue.

    Messages that are none of the wire's stay in the dead-letter queue; probes of privfl wire aws check are dropped.
    """
    _settings(file)
    from privfl.wires.aws.admin_redrive import redrive as again  # noqa: PLC0415

    with _work(file, None, profile, dry_run, None) as work:
        found = again(work, member, now())
    if as_json:
        typer.echo(json.dumps(found.fields()))
        return
    console = Console()
    if found.messages:
        table = Table(title=f"{len(found.messages)} message(s) in {found.queue}", title_justify="left")
        for heading in ("message", "age", "received", "why"):
            table.add_column(heading, overflow="fold")
        for one in found.messages:
            table.add_row(Text(one.what), f"{one.age_ms // 60_000} min", str(one.received), Text(one.why))
        console.print(table)
    would = "would be " if dry_run else ""
    ours = sum(one.ours for one in found.messages) if dry_run else found.moved
    typer.echo(f"{found.member}: {ours} {would}moved back, {found.dropped} probe(s) dropped, "
               f"{len(found.messages) - ours - found.dropped} left.")  # fmt: skip


# -- who and where ----------------------------------------------------------------------------------


def _settings(file: Path) -> tuple[str, AwsSettings]:
    from privfl.wires.settings import AwsSettings, check_extra, read_federation  # noqa: PLC0415

    found = read_federation(file)
    if not isinstance(found.wire, AwsSettings):
        raise Misuse(f"{file}: this is about wires of kind aws, and this file's is {found.wire.kind}")
    check_extra("boto3", "aws")  # before anything that needs it is loaded
    return found.federation, found.wire


def _roster(file: Path, rosters: Path, authority: str | None) -> Roster:
    """The roster in force, verified from the first version on."""
    from privfl_keys import RosterBook  # noqa: PLC0415

    from privfl.homes.rosters import accept_chain, read_authority, read_rosters  # noqa: PLC0415

    federation, _ = _settings(file)
    chain, key = read_rosters(rosters), read_authority(authority, rosters.parent)
    if chain[0].roster.federation != federation:
        raise Misuse(f"{rosters} is of the federation {chain[0].roster.federation!r} and {file} of {federation!r}")
    book = RosterBook()
    book.pin(federation, key)
    return accept_chain(book, chain, now())


def _own_roster(file: Path, home: Path | None, passphrase_file: Path | None) -> Roster:
    """The roster that a member has accepted."""
    from privfl.cli.roles import passphrase  # noqa: PLC0415
    from privfl.homes.config import role_of  # noqa: PLC0415
    from privfl.homes.folder import open_state, open_store  # noqa: PLC0415
    from privfl.homes.membership import recall  # noqa: PLC0415

    assert home is not None
    kind = role_of(home)
    if kind is None:
        raise Misuse(f"{home} is no folder of a member; check --home")
    config = kind.read(home)
    federation, _ = _settings(file)
    if config.federation != federation:
        raise Misuse(f"{home} belongs to {config.federation!r} and {file} is of {federation!r}; check the paths")
    with open_store(home, passphrase(home, passphrase_file)) as (store, identity):
        state = open_state(home, store, identity)
    try:
        return recall(state, config, identity, now()).roster
    finally:
        state.close()


def _members(roster: Roster) -> tuple[Participant, ...]:
    """Who has a queue: sites and the coordinator."""
    from privfl.wires.aws.policies_plan import Participant  # noqa: PLC0415

    return tuple(
        Participant(one.name, one.site_id, "coordinator" in one.roles)
        for one in sorted(roster.members, key=lambda one: one.name)
        if {"site", "coordinator"} & set(one.roles)
    )


@contextmanager
def _work(
    file: Path,
    members: tuple[Participant, ...] | None,
    profile: str | None,
    dry: bool,
    roles: str | None,
    administrators: tuple[str, ...] = (),
) -> Iterator[Work]:
    """What an administrator works with: own credentials, not a member's."""
    from privfl.wires.aws.admin import Work, caller, make_plan  # noqa: PLC0415
    from privfl.wires.aws.policies_plan import Participant  # noqa: PLC0415
    from privfl.wires.aws.session import clients  # noqa: PLC0415

    federation, settings = _settings(file)
    own = settings.model_copy(update={"role": None, **({"profile": profile} if profile else {})})
    made = clients(own, "administrator")
    try:
        nobody = (Participant("coordinator", bytes(32), coordinator=True),)
        who = caller(made)
        told = make_plan(settings, federation, members or nobody, who, roles=roles, administrators=administrators)
        yield Work(made, told, dry)
    finally:
        made.close()


def _tried(roster: Roster, home: Path | None, chosen: Sequence[str] | None) -> list[Participant]:
    members = _members(roster)
    if home is not None:
        from privfl.homes.config import role_of  # noqa: PLC0415

        kind = role_of(home)
        chosen = [kind.read(home).name] if kind is not None else [str(home)]
    if not chosen:
        return list(members)
    known = {one.name: one for one in members}
    if missing := [name for name in chosen if name not in known]:
        raise Misuse(f"{missing[0]!a:.80} is no site or coordinator of this roster; there are: {', '.join(known)}")
    return [known[name] for name in chosen]


def _checked(
    file: Path, roster: Roster, member: Participant, home: Path | None, roles: str | None, profile: str | None
) -> list[Tried]:
    from privfl.wires.aws.admin import caller, make_plan  # noqa: PLC0415
    from privfl.wires.aws.admin_check import check_member  # noqa: PLC0415
    from privfl.wires.aws.session import clients  # noqa: PLC0415

    federation, settings = _settings(file)
    changes: dict[str, Any] = {"profile": profile} if profile else {}
    if home is None:
        changes["role"] = roles or settings.role
        if changes["role"] is None:
            raise Misuse("no role of the members is known; give --site-roles, or try at the member with --home")
        if ":role/" not in changes["role"]:
            raise Misuse(f"{changes['role']} cannot be assumed; try at the member with --home")
    made = clients(settings.model_copy(update=changes), member.name)
    try:
        return list(check_member(make_plan(settings, federation, _members(roster), caller(made)), member, made))
    finally:
        made.close()


# -- how it is said ---------------------------------------------------------------------------------


def _show(rows: Sequence[Row], as_json: bool, *, dry: bool, changed: bool, **fields: Any) -> None:
    if as_json:
        from dataclasses import asdict  # noqa: PLC0415

        typer.echo(json.dumps({"dry_run": dry, "changed": changed, **fields, "done": [asdict(row) for row in rows]}))
        return
    for row in rows:
        note = f"  ({row.note})" if row.note else ""
        typer.echo(f"{_MARKS[row.outcome]} {row.kind} {row.name}{note}")
    if not changed:
        typer.echo("Everything is as it should be; nothing was changed." if rows else "There is nothing of it.")
    elif dry:
        typer.echo("Nothing was done: + would be made, ~ changed, - removed.")
    else:
        typer.echo("+ made, ~ changed, - removed, = as it was, ! to be known")


def _show_tried(name: str, rows: Sequence[Tried]) -> None:
    table = Table(title=name, title_justify="left")
    for heading in ("", "action", "what", "is", "verdict"):
        table.add_column(heading, overflow="fold")
    for row in rows:
        verdict = "ok" if row.right else "WRONG"
        table.add_row("must" if row.must else "must not", row.action, row.what, row.outcome, verdict)
    Console().print(table, highlight=False)
    for row in rows:
        if not row.right:  # below the table, where a long ARN can be copied
            typer.echo(f"WRONG: {row.action} on {row.resource}: {row.note}")
