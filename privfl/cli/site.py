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
    Kms,
    KmsEndpoint,
    KmsProfile,
    KmsRegion,
    Name,
    PassphraseFile,
    Policy,
    Rosters,
    federation_named,
    kept_by,
    named,
    now,
    passphrase,
    quoted,
    tell,
)
from privfl.errors import Misuse

if TYPE_CHECKING:
    from privfl.homes.config import SiteConfig
    from privfl.homes.site import JoinedSite, Table
    from privfl.tasks import DatabaseSource

__all__ = ["AsFormat", "Database", "InDatabase", "app", "named_place"]

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
AsFormat = Annotated[Kind | None, typer.Option("--format", help="How the table is read; default: by its ending.")]
AnalyticsOnly = Annotated[
    bool,
    typer.Option(
        "--analytics-only",
        help="Rows stay where they are, and may be more than fit into memory; this site cannot train on them.",
    ),
]
Database = Annotated[
    str | None,
    typer.Option(
        help="Read a table of a database: postgresql://user@host/db (no password in it) or sqlite:///the/whole/path."
    ),
]
InDatabase = Annotated[str | None, typer.Option("--table", help="Its name there, or schema.name.")]
AllowEmpty = Annotated[bool, typer.Option("--allow-empty", help="A table without rows is no mistake.")]


@app.command(epilog="Example: privfl site init north --federation trial, or with --federation federation.yaml")
def init(
    folder: Folder,
    federation: Federation,
    name: Name = None,
    kms: Kms = None,
    kms_region: KmsRegion = None,
    kms_endpoint: KmsEndpoint = None,
    kms_profile: KmsProfile = None,
    passphrase_file: PassphraseFile = None,
    as_json: AsJson = False,
) -> None:
    """Make the site's FOLDER with its key and its enrolment request.

    Running it again finishes what was interrupted. A federation.yaml names the wire too, so that join need not. With
    --kms a key of AWS KMS keeps the keys, and no passphrase is asked for, now or later.
    """
    from privfl.homes.site import SiteHome  # noqa: PLC0415 - loaded when a command runs

    federation, wire = federation_named(federation)
    keeper = kept_by(kms, kms_region, kms_endpoint, kms_profile)
    word = "" if keeper else passphrase(folder, passphrase_file, found=True)
    config = SiteHome.init(folder, named(name, folder), federation, word, now(), kms=keeper, wire=wire)
    _asked(folder, config.name, federation, config.fingerprint, as_json)


@app.command(epilog="Example: privfl site request north")
def request(folder: Folder, passphrase_file: PassphraseFile = None, as_json: AsJson = False) -> None:
    """Write the enrolment request of FOLDER again and show the fingerprint to read aloud."""
    from privfl.homes.site import SiteHome  # noqa: PLC0415

    made = SiteHome.request(folder, passphrase(folder, passphrase_file), now())
    _asked(folder, made.name, made.federation, made.fingerprint, as_json)


def _asked(folder: Path, name: str, federation: str, fingerprint: str, as_json: bool) -> None:
    from privfl.homes.config import SiteConfig  # noqa: PLC0415

    path = folder / "request"
    wire = "--wire WIRE " if SiteConfig.read(folder).wire is None else ""
    tell(
        as_json,
        {"name": name, "federation": federation, "fingerprint": fingerprint, "request": str(path)},
        f"{name} (site) in {federation}: key and request are in {folder}",
        f"Fingerprint: {fingerprint}",
        f"Next: send {path} to the authority and read this fingerprint aloud, from this screen, when it calls; with "
        f"roster and policy in hand: privfl site join {quoted(folder)} --roster ROSTERS --authority FINGERPRINT "
        f"--policy POLICY {wire}--data TABLE --schema SCHEMA",
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
    wire: Annotated[
        str | None, typer.Option(help="folder:PATH of the folder shared with the coordinator, or a federation.yaml.")
    ] = None,
    table: Annotated[Path | None, typer.Option("--data", help="Table to bind in the same step.")] = None,
    schema: Annotated[Path | None, typer.Option(help="Its schema, in YAML or JSON.")] = None,
    kind: AsFormat = None,
    allow_empty: AllowEmpty = False,
    analytics_only: AnalyticsOnly = False,
    database: Database = None,
    in_database: InDatabase = None,
    passphrase_file: PassphraseFile = None,
    as_json: AsJson = False,
) -> None:
    """Join a federation, or take over a newer roster or policy; on any refusal nothing has changed.

    The first time, everything is needed but --data; later, what is left out stays as it is.
    """
    from privfl.homes.site import SiteHome  # noqa: PLC0415

    place = named_place(table, database, in_database, "--data")
    wanted = _table(place, schema, kind, allow_empty, analytics_only)
    word = passphrase(folder, passphrase_file)
    joined = SiteHome.join(
        folder, word, now(), rosters=rosters, authority=authority, policy=policy, wire=wire, table=wanted
    )
    membership, config = joined.membership, joined.config
    then = _started(config, folder) if config.data else f"privfl site data {quoted(folder)} TABLE --schema SCHEMA"
    _told(joined, as_json, f"joined {config.federation}", f"Authority pinned here: {_held(joined)}", then=then)
    _warn(joined, membership.policy.valid_from_at)


@app.command(
    epilog="Example: privfl site data north rows.csv --schema schema.yaml; or: privfl site data north --schema "
    "schema.yaml --database postgresql://reader@localhost/clinic --table public.visits --analytics-only"
)
def data(
    folder: Folder,
    schema: Schema,
    table: Annotated[
        Path | None, typer.Argument(help="CSV, TSV, JSON lines, Parquet, Feather or Excel; it stays there.")
    ] = None,
    kind: AsFormat = None,
    allow_empty: AllowEmpty = False,
    analytics_only: AnalyticsOnly = False,
    database: Database = None,
    in_database: InDatabase = None,
    passphrase_file: PassphraseFile = None,
    as_json: AsJson = False,
) -> None:
    """Bind TABLE to the site, checked against schema and policy; its rows are never copied.

    The true counts are shown on this terminal only; nothing keeps them. Columns that the schema does not declare are
    never read. With --analytics-only no row is kept in memory: the table is looked at where it lies.
    """
    from privfl.homes.site import SiteHome  # noqa: PLC0415

    place = named_place(table, database, in_database, "TABLE")
    if place is None:
        raise Misuse("nothing was named to bind; give the TABLE's path, or --database and --table")
    wanted = _table(place, schema, kind, allow_empty, analytics_only)
    assert wanted is not None
    bound = SiteHome.bind(folder, passphrase(folder, passphrase_file), now(), wanted)
    _told(bound, as_json, f"bound to {folder}: {place}", then=_started(bound.config, folder))


def named_place(path: Path | None, database: str | None, table: str | None, name: str) -> Path | DatabaseSource | None:
    """The one place that was named, by a path or as a table of a database."""
    from privfl.tasks import DatabaseSource  # noqa: PLC0415

    if (database is None) != (table is None):
        raise Misuse("--database and --table come together: where the database is, and which table of it is meant")
    if database is None or table is None:
        return path
    if path is not None:
        raise Misuse(f"give {name} or --database with --table, and not both: a site has one table")
    return DatabaseSource.of(database, table)


def _table(
    place: Path | DatabaseSource | None, schema: Path | None, kind: Kind | None, allow_empty: bool, analytics_only: bool
) -> Table | None:
    from privfl.homes.site import Table  # noqa: PLC0415

    if place is None and schema is None:
        return None
    if place is None or schema is None:
        raise Misuse("--data and --schema come together: a table is bound by its schema")
    if kind is not None and not isinstance(place, Path):
        raise Misuse("--format is for files; leave it out with --database")
    return Table(place, schema, None if kind is None else kind.value, allow_empty, analytics_only)


def _held(joined: JoinedSite) -> str:
    from privfl_keys import fingerprint  # noqa: PLC0415

    return fingerprint(joined.membership.authority)


def _started(config: SiteConfig, folder: Path) -> str:
    """How the site is started; over Flower its SuperNode's app does that."""
    if config.wire is not None and config.wire.kind == "flower":
        return f"start this site's SuperNode with --node-config 'privfl-site=\"{folder.absolute()}\"' (docs/flower.md)"
    return f"privfl site run {quoted(folder)}"


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
        "wire": str(config.wire),
        "data": None if config.data is None else config.data.path,
    }
    found = f"Roster version {roster.version}, policy version {policy.version}, population {policy.population}"
    tell(as_json, fields, *lines, found, *_counts(joined), f"Next: {then}")


def _counts(joined: JoinedSite) -> list[str]:
    """The binding's true counts, which belong on a terminal and in no file that output is sent to."""
    if joined.bound is None:
        return _alone(joined) if joined.alone else []
    if not sys.stdout.isatty():
        return ["Every column fits. True counts are shown on a terminal only."]
    from privfl.tasks import beyond_records  # noqa: PLC0415 - loaded already by the binding

    wrong = beyond_records(joined.bound.schema, joined.bound.report.rows)
    return [str(joined.bound.report), *([f"  Mind: {wrong}"] if wrong else [])]


def _alone(joined: JoinedSite) -> list[str]:
    """How a table that stays where it is differs, which follows from its rows and belongs on a terminal."""
    lines = ["Bound for analytics alone: every column is there, and the rows stay where they are."]
    if not sys.stdout.isatty():
        return [*lines, "How they differ from the schema is shown on a terminal only."]
    return [*lines, *(f"  Mind: {note}" for note in joined.notes)]


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
