"""``privfl schema``: draft one, hold a table against it, show it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from privfl.cli.roles import AsJson, quoted, tell
from privfl.cli.site import AsFormat, Database, InDatabase, named_place
from privfl.errors import DataError, Misuse

if TYPE_CHECKING:
    from privfl.cli.site import Kind
    from privfl.tasks import Column, DatabaseSource, FileSource

__all__ = ["add_to", "app"]

app = typer.Typer(no_args_is_help=True, help="The public schema: draft it, hold a table against it, show it.")

Data = Annotated[Path | None, typer.Argument(help="CSV, TSV, JSON lines, Parquet, Feather or Excel.")]
SchemaFile = Annotated[Path, typer.Option("--schema", help="The schema, in YAML or JSON.")]

#: What ``schema check`` ends with where a table differs, as wrong input does.
DIFFERS = 2


def add_to(root: typer.Typer) -> None:
    """Add ``privfl schema``."""
    root.add_typer(app, name="schema")


@app.command(
    "draft",
    epilog="Example: privfl schema draft rows.csv --out schema.yaml; or: privfl schema draft "
    "--database postgresql://reader@localhost/clinic --table public.visits --out schema.yaml",
)
def draft_(
    data: Data = None,
    out: Annotated[Path | None, typer.Option(help="File to write; never overwritten. Default: the screen.")] = None,
    kind: AsFormat = None,
    database: Database = None,
    in_database: InDatabase = None,
    as_json: AsJson = False,
) -> None:
    """Write a first draft of a schema from the names and types of DATA's columns, never from its values.

    Bounds, classes and the number of records are left empty: people fill them in from public knowledge, and until
    then the draft is refused with a message that names each.
    """
    from privfl_analytics import drafting  # noqa: PLC0415 - loaded when a command runs

    source = _source(data, kind, database, in_database)
    if out is not None and (out.exists() or out.is_symlink()):
        raise Misuse(f"{out} is there already and stays as it is; choose another name")
    names = drafting.kinds(source)
    text = drafting.draft(names, drafting.name_of(source))
    if out is not None:
        from privfl.homes.files import write_file  # noqa: PLC0415

        write_file(out, text.encode(), mode=0o644)
    elif not as_json:
        typer.echo(text, nl=False)
        return
    who = drafting.subjects(names)
    fields = {"schema": None if out is None else str(out), "columns": names, "subject_candidates": who}
    tell(
        as_json,
        {**fields, **({"text": text} if out is None else {})},
        f"Wrote {out}: {len(names)} columns by name and type, no value of the table.",
        f"Next: fill in what is empty, with the other sites; then privfl schema check DATA --schema {quoted(out)}",
    )


@app.command(epilog="Example: privfl schema check rows.csv --schema schema.yaml")
def check(
    schema: SchemaFile,
    data: Data = None,
    kind: AsFormat = None,
    database: Database = None,
    in_database: InDatabase = None,
    as_json: AsJson = False,
) -> None:
    """List how DATA differs from the schema, for this site's own operator: exit code 2 if it does, else 0.

    The list follows from the rows (another unit by magnitude, values that are no declared class) and never quotes
    one. Keep it on this screen: it belongs to nobody else.
    """
    from privfl.homes.data import read_schema  # noqa: PLC0415
    from privfl_analytics.local import differences  # noqa: PLC0415 - brings DuckDB

    agreed = read_schema(schema)
    source = _source(data, kind, database, in_database)
    found = differences(agreed, source)
    table, asked = source if data is None else data, f"schema {agreed.name} version {agreed.version}"
    fields = {"table": str(source), "schema": str(schema), "digest": agreed.digest.hex(), "fits": not found}
    if found:
        lines = [f"{table} differs from {asked} in {len(found)} way(s):", *(f"  - {one}" for one in found)]
        then = "Next: put the table right where it is wrong; where the schema is wrong, tell those who agree on it"
    else:
        bind = "--database URL --table NAME" if data is None else quoted(data)
        lines, then = [f"{table} fits {asked}."], f"Next: privfl site data FOLDER {bind} --schema {quoted(schema)}"
    tell(as_json, {**fields, "differences": list(found)}, *lines, then)
    if found:
        raise typer.Exit(DIFFERS)


@app.command(epilog="Example: privfl schema show schema.yaml")
def show(
    schema: Annotated[Path, typer.Argument(help="The schema, in YAML or JSON.")],
    as_json: AsJson = False,
) -> None:
    """Show a schema as a table, with the digest by which a policy signs it."""
    from privfl.homes.data import read_schema  # noqa: PLC0415

    one = read_schema(schema)
    if as_json:
        typer.echo(json.dumps({**one.model_dump(mode="json"), "digest": one.digest.hex()}))
        return
    table = Table(
        title=f"{escape(one.name)} version {one.version}, {one.records} records declared", title_justify="left"
    )
    for heading in ("column", "kind", "says", "unit", "center, scale", "missing"):
        table.add_column(heading, overflow="fold")
    for name, column in one.columns.items():
        table.add_row(*(escape(text) for text in (name, column.kind, *_row(column))))
    console = Console()
    console.print(table)
    whose = f"subject {one.subject!r}, at most {one.max_rows} row(s) of each" if one.subject else "no subject column"
    for line in (f"Whose row: {whose}", f"Digest: {one.digest.hex()}"):
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def _row(column: Column) -> tuple[str, str, str, str]:
    missing = ", ".join(map(_plain, column.missing))
    if column.kind == "numeric":
        says = f"{column.lower:g} to {column.upper:g}"
        return says, column.unit, f"{column.center:g}, {column.scale:g}", missing
    if column.kind == "category":
        return ", ".join(map(_plain, column.classes)), "", "", missing
    return f"up to {column.max_length} characters of {column.alphabet}", "", "", missing


def _plain(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _source(
    data: Path | None, kind: Kind | None, database: str | None, table: str | None
) -> FileSource | DatabaseSource:
    """The one table that was named."""
    from privfl.homes.tables import format_of  # noqa: PLC0415
    from privfl.tasks import FileSource  # noqa: PLC0415

    place = named_place(data, database, table, "DATA")
    if place is None:
        raise Misuse("no table was named; give DATA, the path of a file, or --database and --table")
    if not isinstance(place, Path):
        if kind is not None:
            raise Misuse("--format is for files; leave it out with --database")
        return place
    path = place.expanduser().absolute()
    if not path.is_file():
        raise DataError(f"there is no table {path}; check the path")
    return FileSource(path, kind.value if kind is not None else format_of(path))
