"""A table of a database in memory, for training: the declared columns and no others, whatever else it holds.

Types decide how a column is read, never its rows. SQLite has no types for columns, so its values come as they
stand; PostgreSQL is read through ADBC, decimals as double precision, and what is neither number nor truth value
as text.
"""

from __future__ import annotations

import importlib
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from privfl.errors import DataError, Misuse
from privfl.tasks import DatabaseSource, Schema

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["frame_of"]

_WHOLE = ("smallint", "integer", "bigint")
_REAL = ("numeric", "real", "double precision")


def frame_of(source: DatabaseSource, schema: Schema) -> pd.DataFrame:
    """The columns of ``source`` that ``schema`` declares, and its subject column; those that are missing stay out.

    Raises:
        DataError: the database cannot be reached or the table not read; the message has no value of it.
        Misuse: the driver's library is missing.
    """
    read = _sqlite if source.driver == "sqlite" else _postgresql
    try:
        return read(source, schema)
    except (DataError, Misuse):
        raise
    except Exception as error:  # a driver's own words may quote a row, so only their kind is passed on
        raise DataError(
            f"{source} cannot be read ({type(error).__name__}); check address, name and permission, and for a server "
            "that PGPASSWORD or a PGPASSFILE is there if it asks for a password"
        ) from None


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _table(source: DatabaseSource) -> str:
    return ".".join(map(_quoted, source.table.split(".")))


def _wanted(source: DatabaseSource, found: Sequence[str], schema: Schema) -> list[str]:
    if not found:
        raise DataError(f"there is no {source}, or this user may not see it; check the name")
    return [name for name in schema.names if name in found]


def _sqlite(source: DatabaseSource, schema: Schema) -> pd.DataFrame:
    import pandas as pd  # noqa: PLC0415

    path = source.path
    if path is None or not path.is_file():
        raise DataError(
            f"there is no database {path}; write its whole path after sqlite://, as in sqlite:///srv/clinic.db"
        )
    with closing(sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True)) as base:
        place, _, name = source.table.rpartition(".")
        found = base.execute("SELECT name FROM pragma_table_info(?, ?)", (name, place or "main"))
        names = _wanted(source, [row[0] for row in found], schema)
        chosen = ", ".join(map(_quoted, names)) or "NULL"
        rows = base.execute(f"SELECT {chosen} FROM {_table(source)}").fetchall()  # noqa: S608 - quoted as identifiers
    # ids stay whole numbers beside missing ones: as floats two persons could become one
    kinds = {schema.subject: object}
    return pd.DataFrame(
        {name: pd.Series([row[at] for row in rows], dtype=kinds.get(name)) for at, name in enumerate(names)}
    )


def _postgresql(source: DatabaseSource, schema: Schema) -> pd.DataFrame:
    try:
        dbapi: Any = importlib.import_module("adbc_driver_postgresql.dbapi")
    except ImportError:
        raise Misuse("reading PostgreSQL needs a library that is not here; run: pip install 'privfl[sql]'") from None
    with dbapi.connect(source.uri) as base, base.cursor() as cursor:
        cursor.execute("SET default_transaction_read_only = on")
        cursor.execute(
            "SELECT attname::text, format_type(atttypid, NULL) FROM pg_attribute "
            "WHERE attrelid = to_regclass($1) AND attnum > 0 AND NOT attisdropped",
            (_table(source),),
        )
        types = dict(cursor.fetchall())
        names = _wanted(source, list(types), schema)
        types[schema.subject or ""] = "id"  # as text: as floats beside missing ones two persons could become one
        chosen = ", ".join(_expression(name, types[name]) for name in names) or "NULL"
        cursor.execute(f"SELECT {chosen} FROM {_table(source)}")  # noqa: S608 - quoted as identifiers
        frame: pd.DataFrame = cursor.fetch_arrow_table().to_pandas()
    return frame.set_axis(names, axis=1) if names else frame[[]]


def _expression(name: str, kind: str) -> str:
    """How a column is read, by its type there: ADBC hands out exact decimals and enumerations as opaque bytes."""
    if kind in (*_WHOLE, "boolean"):
        return _quoted(name)
    return f"CAST({_quoted(name)} AS {'double precision' if kind in _REAL else 'text'})"
