"""A site's table: where it is, checked once against schema and policy, and read again at each start.

Rows are never copied into the folder. What is kept is the path, the format, the site's own copy of the
schema, and the types of the columns; true counts are shown to the operator and kept nowhere.
"""

from __future__ import annotations

import hashlib
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
    from privfl.learn import BoundData, Schema

__all__ = ["SCHEMA", "Binding", "check_schema", "keep", "load", "prepare"]

SCHEMA: Final = "schema.yaml"
_AGAIN = "bind the table again with: privfl site data"


@dataclass(frozen=True)
class Binding:
    """A table that fits, not yet written down. ``bound`` holds rows and true counts: for this process only."""

    config: DataConfig
    schema_text: bytes
    schema: Schema
    bound: BoundData


def prepare(
    path: Path, schema_path: Path, policy: Policy | None, *, format_: Format | None = None, allow_empty: bool = False
) -> Binding:
    """Read table and schema, and check the one against the other and both against the policy; writes nothing.

    Args:
        path: of the table. schema_path: of the schema, in YAML or JSON. policy: in force here, if there is one yet.
        format_: one of those of :data:`privfl.homes.tables.FORMATS`; by default from the file's ending.
        allow_empty: no rows are no error.

    Raises:
        DataError: the table cannot be read, does not fit, or is empty. Misuse: the schema does not fit the policy.
    """
    import yaml  # noqa: PLC0415

    schema = _schema(read_bytes(schema_path, "the schema that the federation agreed on"), schema_path)
    if policy is not None:
        check_schema(schema, policy)
    kind = format_ or format_of(path)
    frame = read_table(path, kind, schema)
    bound = _bind(schema, frame, path, allow_empty)
    text = yaml.safe_dump(schema.model_dump(mode="json"), sort_keys=False).encode()
    config = DataConfig(
        path=str(path.expanduser().absolute()),
        format=kind,
        schema_sha256=hashlib.sha256(text).hexdigest(),
        columns={name: str(frame[name].dtype) for name in schema.columns if name in frame.columns},
        allow_empty=allow_empty,
    )
    return Binding(config, text, schema, bound)


def keep(folder: Path, config: SiteConfig, binding: Binding) -> SiteConfig:
    """Write a binding into the folder; a crash between the two files is noticed by :func:`load`."""
    write_file(folder / SCHEMA, binding.schema_text)
    updated = config.updated(data=binding.config)
    updated.write(folder)
    return updated


def load(folder: Path, config: SiteConfig, policy: Policy) -> BoundData:
    """Read the bound table again.

    Raises:
        DataError: it vanished, cannot be read, has other columns, or is empty; each with the next step.
        Misuse: nothing is bound, or the schema no longer fits the policy.
    """
    data = config.data
    if data is None:
        raise Misuse(f"no table is bound in {folder}; run: privfl site data {folder} TABLE --schema SCHEMA")
    text = read_bytes(folder / SCHEMA, f"the folder's own schema; {_AGAIN}")
    if hashlib.sha256(text).hexdigest() != data.schema_sha256:
        raise Misuse(f"{folder / SCHEMA} is not the schema that was bound; {_AGAIN}")
    schema = _schema(text, folder / SCHEMA)
    check_schema(schema, policy)
    path = Path(data.path)
    if not path.exists():
        raise DataError(f"the bound table {path} is not there; put it back, or {_AGAIN}")
    frame = read_table(path, data.format, schema)
    try:
        return _bind(schema, frame, path, data.allow_empty)
    except DataError as error:
        then = ", ".join(f"{name} ({dtype})" for name, dtype in data.columns.items())
        raise DataError(f"{error}. It was bound with {then}. Put the table right, or {_AGAIN}") from None


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
    if column.kind == "category":
        known = {(type(item), item) for item in allowed.classes}
        return None if {(type(item), item) for item in column.classes} <= known else "has classes it does not allow"
    if allowed.lower is None or allowed.upper is None:
        return "is a number here and a category there"
    if not allowed.lower <= column.lower < column.upper <= allowed.upper:
        return f"has bounds [{column.lower:g}, {column.upper:g}], it allows [{allowed.lower:g}, {allowed.upper:g}]"
    return None


def _schema(text: bytes, path: Path) -> Schema:
    from privfl.learn import Schema  # noqa: PLC0415 - brings numpy

    try:
        return Schema.from_yaml(text.decode("utf-8"))
    except UnicodeDecodeError:
        raise Misuse(f"{path}: a schema is UTF-8 text in YAML or JSON") from None
    except Misuse as error:
        raise Misuse(f"{path}: {error}") from None


def _bind(schema: Schema, frame: pd.DataFrame, path: Path, allow_empty: bool) -> BoundData:
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
        frame = frame.reindex(columns=list(schema.columns))
    kinds = {name: "float64" if name in schema.numeric else "object" for name in frame.columns}
    return frame.astype(kinds)
