"""``privfl site``: the folder of an operator who keeps the last word over a site's data."""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from privfl.cli.roles import (
    AsJson,
    Authority,
    Federation,
    Folder,
    Name,
    PassphraseFile,
    Policy,
    Rosters,
    named,
    now,
    passphrase,
    quoted,
    tell,
)
from privfl.errors import Misuse

if TYPE_CHECKING:
    from privfl.homes.site import JoinedSite, Table

__all__ = ["app"]

app = typer.Typer(help="Set up and run a site: its key, its data, its ledger.", no_args_is_help=True)


class Kind(StrEnum):
    """How a table is read."""

    CSV = "csv"
    TSV = "tsv"
    PARQUET = "parquet"
    FEATHER = "feather"
    JSONL = "jsonl"
    EXCEL = "excel"


Schema = Annotated[Path, typer.Option(help="The schema that the federation agreed on, in YAML or JSON.")]
Format = Annotated[Kind | None, typer.Option("--format", help="How the table is read; default: by its ending.")]
AllowEmpty = Annotated[bool, typer.Option("--allow-empty", help="A table without rows is no mistake.")]


@app.command(epilog="Example: privfl site init north --federation trial")
def init(
    folder: Folder,
    federation: Federation,
    name: Name = None,
    passphrase_file: PassphraseFile = None,
    as_json: AsJson = False,
) -> None:
    """Make the site's FOLDER with its key and its enrolment request.

    Running it again finishes what was interrupted.
    """
    from privfl.homes.site import SiteHome  # noqa: PLC0415 - loaded when a command runs

    word = passphrase(folder, passphrase_file, found=True)
    config = SiteHome.init(folder, named(name, folder), federation, word, now())
    _asked(folder, config.name, federation, config.fingerprint, as_json)


@app.command(epilog="Example: privfl site request north")
def request(folder: Folder, passphrase_file: PassphraseFile = None, as_json: AsJson = False) -> None:
    """Write the enrolment request of FOLDER again and show the fingerprint to read aloud."""
    from privfl.homes.site import SiteHome  # noqa: PLC0415

    made = SiteHome.request(folder, passphrase(folder, passphrase_file), now())
    _asked(folder, made.name, made.federation, made.fingerprint, as_json)


def _asked(folder: Path, name: str, federation: str, fingerprint: str, as_json: bool) -> None:
    path = folder / "request"
    tell(
        as_json,
        {"name": name, "federation": federation, "fingerprint": fingerprint, "request": str(path)},
        f"{name} (site) in {federation}: key and request are in {folder}",
        f"Fingerprint: {fingerprint}",
        f"Next: send {path} to the authority and read this fingerprint aloud, from this screen, when it calls; with "
        f"roster and policy in hand: privfl site join {quoted(folder)} --roster ROSTERS --authority FINGERPRINT "
        "--policy POLICY --wire WIRE --data TABLE --schema SCHEMA",
    )


@app.command(
    epilog="Example: privfl site join north --roster rosters --policy policy.signed --authority authority.pub "
    "--wire /mnt/shared/trial --data rows.csv --schema schema.yaml"
)
def join(
    folder: Folder,
    rosters: Rosters = None,
    authority: Authority = None,
    policy: Policy = None,
    wire: Annotated[str | None, typer.Option(help="The folder shared with the coordinator: folder:PATH.")] = None,
    table: Annotated[Path | None, typer.Option("--data", help="Table to bind in the same step.")] = None,
    schema: Annotated[Path | None, typer.Option(help="Its schema, in YAML or JSON.")] = None,
    kind: Format = None,
    allow_empty: AllowEmpty = False,
    passphrase_file: PassphraseFile = None,
    as_json: AsJson = False,
) -> None:
    """Join a federation, or take over a newer roster or policy; on any refusal nothing has changed.

    The first time, everything is needed but --data; later, what is left out stays as it is.
    """
    from privfl.homes.site import SiteHome  # noqa: PLC0415

    wanted = _table(table, schema, kind, allow_empty)
    word = passphrase(folder, passphrase_file)
    joined = SiteHome.join(
        folder, word, now(), rosters=rosters, authority=authority, policy=policy, wire=wire, table=wanted
    )
    membership, config = joined.membership, joined.config
    then = (
        f"privfl site run {quoted(folder)}"
        if config.data
        else f"privfl site data {quoted(folder)} TABLE --schema SCHEMA"
    )
    _told(joined, as_json, f"joined {config.federation}", f"Authority pinned here: {_held(joined)}", then=then)
    _warn(joined, membership.policy.valid_from_at)


@app.command(epilog="Example: privfl site data north rows.csv --schema schema.yaml")
def data(
    folder: Folder,
    table: Annotated[Path, typer.Argument(help="CSV, TSV, JSON lines, Parquet, Feather or Excel; it stays there.")],
    schema: Schema,
    kind: Format = None,
    allow_empty: AllowEmpty = False,
    passphrase_file: PassphraseFile = None,
    as_json: AsJson = False,
) -> None:
    """Bind TABLE to the site, checked against schema and policy; its rows are never copied.

    The true counts are shown on this terminal only; nothing keeps them.
    """
    from privfl.homes.site import SiteHome  # noqa: PLC0415

    wanted = _table(table, schema, kind, allow_empty)
    assert wanted is not None
    bound = SiteHome.bind(folder, passphrase(folder, passphrase_file), now(), wanted)
    _told(bound, as_json, f"bound to {folder}: {table}", then=f"privfl site run {quoted(folder)}")


def _table(path: Path | None, schema: Path | None, kind: Kind | None, allow_empty: bool) -> Table | None:
    from privfl.homes.site import Table  # noqa: PLC0415

    if path is None and schema is None:
        return None
    if path is None or schema is None:
        raise Misuse("--data and --schema come together: a table is bound by its schema")
    return Table(path, schema, None if kind is None else kind.value, allow_empty)


def _held(joined: JoinedSite) -> str:
    from privfl_keys import fingerprint  # noqa: PLC0415

    return fingerprint(joined.membership.authority)


def _told(joined: JoinedSite, as_json: bool, *lines: str, then: str) -> None:
    membership, config = joined.membership, joined.config
    roster, policy = membership.roster, membership.policy
    fields: dict[str, Any] = {
        "name": config.name,
        "federation": config.federation,
        "roster": roster.version,
        "policy": policy.version,
        "policy_hash": policy.hash.hex(),
        "population": policy.population,
        "authority": _held(joined),
        "wire": config.wire,
        "data": None if config.data is None else config.data.path,
    }
    found = f"Roster version {roster.version}, policy version {policy.version}, population {policy.population}"
    tell(as_json, fields, *lines, found, *_counts(joined), f"Next: {then}")


def _counts(joined: JoinedSite) -> list[str]:
    """The binding's true counts, which belong on a terminal and in no file that output is sent to."""
    if joined.bound is None:
        return []
    if not sys.stdout.isatty():
        return ["Every column fits. True counts are shown on a terminal only."]
    return [str(joined.bound.report)]


def _warn(joined: JoinedSite, valid_from: int) -> None:
    if valid_from > now():
        typer.echo("Note: the policy is not valid yet; until then whatever is asked is refused.", err=True)


@app.command(epilog="Example: privfl site ledger north")
def ledger(folder: Folder, as_json: AsJson = False) -> None:
    """Show what this site has spent; the same as privfl ledger show."""
    from privfl.cli.ledger import show  # noqa: PLC0415
    from privfl.homes.config import SiteConfig  # noqa: PLC0415
    from privfl.homes.ledgers import LEDGER  # noqa: PLC0415

    SiteConfig.read(folder)
    if not (folder / LEDGER).is_dir():
        raise Misuse(f"{folder} has no ledger yet; the first join makes it: privfl site join {quoted(folder)}")
    show(folder / LEDGER, as_json=as_json)
