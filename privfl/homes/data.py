"""A site's table: where it is, checked once against schema and policy, and read again at each start.

Rows are never copied into the folder. What is kept is the place, the format, the site's own copy of the
schema, and the types of the columns; true counts are shown to the operator and kept nowhere. A table that was
bound for analytics alone is never read into memory: the local engine checks and sums it where it lies.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from privfl.errors import DataError, Misuse
from privfl.homes.config import DataConfig, Format, SiteConfig
from privfl.homes.files import read_bytes, write_file
from privfl.homes.tables import format_of, read_table

if TYPE_CHECKING:
    import pandas as pd

    from privfl.budget import Policy
    from privfl.tasks import BoundData, DatabaseSource, FileSource, Schema, SiteData

__all__ = ["SCHEMA", "Binding", "again", "check_schema", "keep", "load", "prepare", "read_schema"]

SCHEMA: Final = "schema.yaml"
_AGAIN = "bind the table again with: privfl site data"


@dataclass(frozen=True)
class Binding:
    """A table that fits, not yet written down. ``data`` may hold rows and true counts: for this process only.

    ``notes`` say what a table that was looked at in place holds beyond the schema: for its operator's eyes only.
    """

    config: DataConfig
    schema_text: bytes
    schema: Schema
    data: SiteData
    notes: tuple[str, ...] = ()

    @property
    def bound(self) -> BoundData:
        """The rows; raises Misuse if the table was bound for analytics alone."""
        return self.data.bound


def prepare(
    table: Path | DatabaseSource,
    schema_path: Path,
    policy: Policy | None,
    *,
    format_: Format | None = None,
    allow_empty: bool = False,
    analytics_only: bool = False,
) -> Binding:
    """Read table and schema, and check the one against the other and both against the policy; writes nothing.

    Args:
        table: path of a file, or a table of a database.
        schema_path: of the schema, in YAML or JSON. policy: in force here, if there is one yet.
        format_: one of those of :data:`privfl.homes.tables.FORMATS`; by default from the file's ending.
        allow_empty: no rows are no error.
        analytics_only: look at columns and types only; the rows stay where they are.

    Raises:
        DataError: the table cannot be read, does not fit, or is empty. Misuse: the schema does not fit the policy, or
            a library that is needed here is missing.
    """
    import yaml  # noqa: PLC0415

    from privfl.tasks import FileSource, SiteData  # noqa: PLC0415 - brings numpy

    schema = read_schema(schema_path)
    if policy is not None:
        check_schema(schema, policy)
    source: FileSource | DatabaseSource = table  # type: ignore[assignment]
    if isinstance(table, Path):
        source = FileSource(table.expanduser(), format_ or format_of(table))
    kept = FileSource(source.path.absolute(), source.format) if isinstance(source, FileSource) else source
    notes: tuple[str, ...] = ()
    if analytics_only:
        columns = _columns(schema, source)
        site, notes = SiteData(schema, kept), tuple(_engine().differences(schema, source))
    else:
        frame = _frame(schema, source)
        columns = {name: str(frame[name].dtype) for name in schema.names if name in frame.columns}
        site = SiteData.of(_bind(schema, frame, source, allow_empty), kept)
    text = yaml.safe_dump(schema.model_dump(mode="json", exclude_none=True), sort_keys=False).encode()
    config = DataConfig(
        path=str(kept.path) if isinstance(kept, FileSource) else kept.uri,
        format=kept.format if isinstance(kept, FileSource) else kept.driver,  # type: ignore[arg-type]
        table=None if isinstance(kept, FileSource) else kept.table,
        schema_sha256=hashlib.sha256(text).hexdigest(),
        columns=columns,
        allow_empty=allow_empty,
        analytics_only=analytics_only,
    )
    return Binding(config, text, schema, site, notes)


def again(bound: DataConfig, schema_path: Path) -> Binding:
    """What :func:`prepare` finds now at the place that was bound, by the folder's own schema; the same errors."""
    source = bound.source
    table = source.path if bound.table is None else source
    return prepare(
        table,  # type: ignore[arg-type]
        schema_path,
        None,
        format_=None if bound.table is not None else bound.format,  # type: ignore[arg-type]
        allow_empty=bound.allow_empty,
        analytics_only=bound.analytics_only,
    )


def keep(folder: Path, config: SiteConfig, binding: Binding) -> SiteConfig:
    """Write a binding into the folder; a crash between the two files is noticed by :func:`load`."""
    write_file(folder / SCHEMA, binding.schema_text)
    updated = config.updated(data=binding.config)
    updated.write(folder)
    return updated


def load(folder: Path, config: SiteConfig, policy: Policy | None) -> SiteData:
    """The bound table, ready for questions: read into memory again, or checked where it lies.

    Rows are read now and not at the first question, so that a table that no longer fits stops the start.

    Args:
        policy: in force here; None where its operator looks at his own rows beside the process that holds it.

    Raises:
        DataError: it vanished, cannot be read, has other columns, or is empty; each with the next step.
        Misuse: nothing is bound, or the schema no longer fits the policy.
    """
    from privfl.tasks import SiteData  # noqa: PLC0415

    data = config.data
    if data is None:
        raise Misuse(f"no table is bound in {folder}; run: privfl site data {folder} TABLE --schema SCHEMA")
    text = read_bytes(folder / SCHEMA, f"the folder's own schema; {_AGAIN}")
    if hashlib.sha256(text).hexdigest() != data.schema_sha256:
        raise Misuse(f"{folder / SCHEMA} is not the schema that was bound; {_AGAIN}")
    schema = _parsed(text, folder / SCHEMA)
    if policy is not None:
        check_schema(schema, policy)
    source = data.source
    path = source.path
    if path is not None and not path.exists():
        raise DataError(f"the bound table {path} is not there; put it back, or {_AGAIN}")
    if data.analytics_only:
        _told(data, lambda: _columns(schema, source))
        return SiteData(schema, source)
    frame = _frame(schema, source)
    return SiteData.of(_told(data, lambda: _bind(schema, frame, source, data.allow_empty)), source)


def _told(data: DataConfig, check: Callable[[], Any]) -> Any:
    try:
        return check()
    except DataError as error:
        then = ", ".join(f"{name} ({dtype})" for name, dtype in data.columns.items())
        raise DataError(f"{error}. It was bound with {then}. Put the table right, or {_AGAIN}") from None


# -- reading --------------------------------------------------------------------------------------------


def _frame(schema: Schema, source: FileSource | DatabaseSource) -> pd.DataFrame:
    """The declared columns in memory."""
    from privfl.tasks import FileSource  # noqa: PLC0415

    if isinstance(source, FileSource):
        return read_table(source.path, source.format, schema)  # type: ignore[arg-type]
    frame: pd.DataFrame = _reader()(source, schema)
    return frame


def _columns(schema: Schema, source: FileSource | DatabaseSource) -> dict[str, str]:
    """Types of the declared columns, by the local engine; raises DataError unless all of them are there.

    That is all that a start depends on: what their rows say has a reading for the engine, whatever it is.
    """
    if source.path is not None and not source.path.is_file():
        raise DataError(f"there is no table {source.path}; check the path")
    found: Mapping[str, str] = _engine().columns_of_source(source)
    if missing := [name for name in schema.names if name not in found]:
        raise DataError(
            f"{source}: the table does not fit {schema!r}: column {', '.join(map(repr, missing))} is missing"
        )
    return {name: str(found[name]) for name in schema.names}


def _engine() -> Any:
    return _plugin("duckdb", "binding a table for analytics alone")


def _reader() -> Callable[[DatabaseSource, Schema], pd.DataFrame]:
    """What reads a table of a database into memory."""
    from privfl.tasks.plugins import names  # noqa: PLC0415

    kind = "frames" if "frames" in names("privfl.tables") else "duckdb"
    found = getattr(_plugin(kind, "reading a database"), "frame_of", None)
    if found is None:
        raise Misuse("the analytics part that is installed reads no database into memory; bind with --analytics-only")
    reader: Callable[[DatabaseSource, Schema], pd.DataFrame] = found
    return reader


def _plugin(name: str, what: str) -> Any:
    from privfl.tasks.plugins import plugin  # noqa: PLC0415

    try:
        return plugin("privfl.tables", name)
    except KeyError:
        raise Misuse(f"{what} needs the analytics part; run: pip install 'privfl[analytics,sql]'") from None


# -- schema and policy ----------------------------------------------------------------------------------


def check_schema(schema: Schema, policy: Policy) -> None:
    """Raise Misuse unless ``schema`` is of the policy's dataset and within its bounds and classes.

    A column that the policy does not name may be there; it is never read.
    """
    complaints = []
    if (schema.name, schema.version) != (policy.dataset, policy.schema_version):
        complaints.append(
            f"it is {schema.name!r} version {schema.version}, the policy is for {policy.dataset!r} "
            f"version {policy.schema_version}"
        )
    elif policy.schema_digest is not None and schema.digest.hex() != policy.schema_digest:
        complaints.append(
            f"its content is not what was signed: its digest begins with {schema.digest.hex()[:16]}, the policy's with "
            f"{policy.schema_digest[:16]}"
        )
    for name, column in schema.columns.items():
        allowed = policy.columns.get(name)
        if allowed is not None and (why := _beyond(column, allowed)):
            complaints.append(f"column {name!r} {why}")
    if not set(schema.columns) & set(policy.columns):
        complaints.append("the policy allows none of its columns")
    if complaints:
        raise Misuse(
            "the schema does not fit the policy: "
            + "; ".join(complaints)
            + "; bind with the schema that compliance named, or join with a policy for this one"
        )


def _beyond(column: Any, allowed: Any) -> str | None:
    if allowed.max_length is not None or column.kind == "text":
        if allowed.max_length is None:
            return f"is text here and a {'category' if allowed.classes else 'number'} there"
        if column.kind != "text":
            return f"is a {'category' if column.kind == 'category' else 'number'} here and text there"
        if column.max_length > allowed.max_length:
            return f"is text of up to {column.max_length} characters, it allows {allowed.max_length}"
        return None
    if column.kind == "category":
        known = {(type(item), item) for item in allowed.classes}
        return None if {(type(item), item) for item in column.classes} <= known else "has classes it does not allow"
    if allowed.lower is None or allowed.upper is None:
        return "is a number here and a category there"
    if not allowed.lower <= column.lower < column.upper <= allowed.upper:
        return f"has bounds [{column.lower:g}, {column.upper:g}], it allows [{allowed.lower:g}, {allowed.upper:g}]"
    return None


def read_schema(path: Path) -> Schema:
    """The schema in a file, in YAML or JSON; raises Misuse naming the file, and every complaint by its column."""
    return _parsed(read_bytes(path, "the schema that the federation agreed on"), path)


def _parsed(text: bytes, path: Path) -> Schema:
    from privfl.tasks import Schema  # noqa: PLC0415 - brings numpy

    try:
        return Schema.from_yaml(text.decode("utf-8"))
    except UnicodeDecodeError:
        raise Misuse(f"{path}: a schema is UTF-8 text in YAML or JSON") from None
    except Misuse as error:
        raise Misuse(f"{path}: {error}") from None


def _bind(schema: Schema, frame: pd.DataFrame, path: object, allow_empty: bool) -> BoundData:
    if not len(frame):
        if not allow_empty:
            raise DataError(
                f"{path} has no rows, or none of the schema's columns; name the right file, or bind it with "
                "--allow-empty if this site has none for now"
            )
        frame = _typed(frame, schema)
    try:
        return schema.bind(frame)
    except DataError as error:
        raise DataError(f"{path}: {error}") from None


def _typed(frame: pd.DataFrame, schema: Schema) -> pd.DataFrame:
    """Without a row, text formats tell no types, and JSON lines not even columns."""
    if not len(frame.columns):
        frame = frame.reindex(columns=list(schema.names))
    kinds = {name: "float64" if name in schema.numeric else "object" for name in frame.columns}
    return frame.astype(kinds)
