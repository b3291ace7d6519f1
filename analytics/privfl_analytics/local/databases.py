"""Tables of SQLite and PostgreSQL through ADBC, read only, as Arrow batches.

SQLite has types per value, and its driver guesses a column's from the first rows. So every value is asked for as text
with a letter before it that says what it was, which leaves nothing to guess.
"""

# ruff: noqa: S608 - identifiers and values are quoted in sql and reading, and nothing else becomes part of a statement
from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

import adbc_driver_manager
import pyarrow as pa

from privfl.errors import DataError, Misuse
from privfl.tasks import DatabaseSource
from privfl.tasks.data import holds_password
from privfl_analytics.local.cells import clean
from privfl_analytics.local.sql import Raw, identifier
from privfl_analytics.local.streams import Stream

__all__ = ["DatabaseStream", "check_uri"]

_NATIVE = {
    "int2": "SMALLINT",
    "int4": "INTEGER",
    "int8": "BIGINT",
    "float4": "FLOAT",
    "float8": "DOUBLE",
    "bool": "BOOLEAN",
}


def check_uri(uri: str) -> None:
    """Raise Misuse for a URI with a password in it."""
    if holds_password(uri):
        raise Misuse(
            "the address of the database has a password in it, and would be written to files and logs; put the "
            "password into ~/.pgpass or the environment (PGPASSWORD, PGPASSFILE) and leave it out of the address"
        )


def DatabaseStream(source: DatabaseSource) -> Stream:  # noqa: N802 - reads as the class that it picks
    """The stream of a database's table.

    Raises:
        Misuse: an unknown driver, or a password in the address.
        DataError: the database does not answer, or has no such table.
    """
    check_uri(source.uri)
    if source.driver == "sqlite":
        return _Sqlite(source)
    if source.driver == "postgresql":
        return _Postgres(source)
    raise Misuse(f"{source.driver!r} is no database here; choose sqlite or postgresql")


class _Database(Stream):
    def __init__(self, source: DatabaseSource) -> None:
        self._table = ".".join(identifier(part) for part in source.table.split(".", 1))
        self._connection: Any = None
        try:
            self._connection = self._connect(source)
            self._types = self._describe(source)
        except (adbc_driver_manager.Error, OSError) as error:  # a driver's own words may quote an address or a row
            self.close()
            raise DataError(
                f"the {source.driver} database does not answer as it should ({type(error).__name__}); check its "
                "address, that it runs, and that this user may read the table"
            ) from None
        if not self._types:
            self.close()
            raise DataError(f"the database has no table {source.table!r} with columns that this user can see")

    @property
    def types(self) -> Mapping[str, str]:
        return self._types

    def _connect(self, source: DatabaseSource) -> Any:
        raise NotImplementedError

    def _describe(self, source: DatabaseSource) -> Mapping[str, str]:
        raise NotImplementedError

    def _expression(self, name: str) -> str:
        raise NotImplementedError

    def _kind(self, name: str) -> pa.DataType:
        raise NotImplementedError

    def _fetch(self, sql: str, parameters: Sequence[str] = ()) -> list[tuple[Any, ...]]:
        with self._connection.cursor() as cursor:
            cursor.execute(sql, tuple(parameters) or None)
            found: list[tuple[Any, ...]] = cursor.fetchall()
            return found

    def open(self, names: Sequence[str]) -> pa.RecordBatchReader:
        columns = [f"{self._expression(name)} AS c{at}" for at, name in enumerate(names)] or ["'' AS nothing"]
        kinds = [self._kind(name) for name in names] or [pa.string()]
        schema = pa.schema([(column.rsplit(" ", 1)[1], kind) for column, kind in zip(columns, kinds, strict=True)])

        def batches() -> Iterator[pa.RecordBatch]:
            with self._connection.cursor() as cursor:
                cursor.execute(f"SELECT {', '.join(columns)} FROM {self._table}")
                for batch in cursor.fetch_record_batch():
                    if batch.num_rows:  # an empty one has types that nothing was there to tell
                        made = [clean(column).cast(kind) for column, kind in zip(batch.columns, kinds, strict=True)]
                        yield pa.RecordBatch.from_arrays(made, schema=schema)

        return pa.RecordBatchReader.from_batches(schema, batches())

    def close(self) -> None:
        if self._connection is not None:
            with suppress(adbc_driver_manager.Error):  # nothing was written; there is nothing to lose
                self._connection.close()
            self._connection = None


class _Sqlite(_Database):
    def _connect(self, source: DatabaseSource) -> Any:
        import adbc_driver_sqlite.dbapi as sqlite  # noqa: PLC0415

        path = Path(source.uri.removeprefix("file:").split("?", 1)[0] if source.uri.startswith("file:") else source.uri)
        if not path.is_file():
            raise DataError(f"there is no SQLite file {path}; check the address")
        return sqlite.connect(f"file:{quote(str(path.resolve()))}?mode=ro", autocommit=True)

    def _describe(self, source: DatabaseSource) -> Mapping[str, str]:
        schema, table = source.table.split(".", 1) if "." in source.table else ("main", source.table)
        rows = self._fetch("SELECT name, type FROM pragma_table_info(?, ?)", (table, schema))
        return {str(name): str(kind) or "any" for name, kind in rows}

    def _expression(self, name: str) -> str:
        column = identifier(name)
        whole = f"abs({column}) >= 9007199254740992.0 AND abs({column}) < 9200000000000000000.0"  # as an integer is
        real = f"CASE WHEN {whole} THEN CAST(CAST({column} AS INTEGER) AS TEXT) ELSE printf('%!.17g', {column}) END"
        return (
            f"CASE typeof({column}) WHEN 'integer' THEN 'n' || CAST({column} AS TEXT) WHEN 'text' THEN 't' || {column} "
            f"WHEN 'real' THEN 'n' || {real} WHEN 'blob' THEN 'b' || hex({column}) ELSE '' END"
        )

    def _kind(self, name: str) -> pa.DataType:
        return pa.string()

    def raws(self, names: Sequence[str]) -> list[Raw]:
        return [_tagged(f"c{at}") for at in range(len(names))]


def _tagged(name: str) -> Raw:
    """A column of text with a letter before it: n number, t text, b anything else, nothing for missing."""
    rest, first = f"substr({name}, 2)", f"left({name}, 1)"
    number = f"CASE WHEN {first} = 'n' THEN TRY_CAST({rest} AS DOUBLE) END"
    # 1 and 1.0 are one value; from 2^53 on two whole numbers may be one double.
    small = f"CASE WHEN abs({number}) < 9007199254740992 THEN 'n' || CAST({number} + 0.0 AS VARCHAR) END"
    large = f"CASE WHEN abs({number}) >= 9007199254740992 THEN 'n' || CAST(TRY_CAST({rest} AS HUGEINT) AS VARCHAR) END"
    whole = f"COALESCE({small}, {large}, {name})"
    return Raw(number, f"CASE WHEN {first} = 't' THEN {rest} END", f"({name} <> '')", whole, rest)


class _Postgres(_Database):
    _made: dict[str, tuple[str, str]]

    def _connect(self, source: DatabaseSource) -> Any:
        import adbc_driver_postgresql.dbapi as postgresql  # noqa: PLC0415

        connection = postgresql.connect(source.uri, autocommit=True)
        with connection.cursor() as cursor:
            cursor.execute("SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY")
        return connection

    def _describe(self, source: DatabaseSource) -> Mapping[str, str]:
        rows = self._fetch(
            "SELECT a.attname::text, t.typname::text, t.typcategory::text FROM pg_catalog.pg_attribute a "
            "JOIN pg_catalog.pg_type t ON t.oid = a.atttypid "
            "WHERE a.attrelid = to_regclass($1) AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum",
            (self._table,),
        )
        self._made = {str(name): (str(kind), str(category)) for name, kind, category in rows}
        return {name: kind for name, (kind, _) in self._made.items()}

    def _expression(self, name: str) -> str:
        kind = self._made[name][0]
        if kind in _NATIVE:
            return identifier(name)
        if kind == "numeric":  # 1 and 1.0 are one number, and one person where they are a person's
            return f"trim_scale({identifier(name)})::text"
        return f"{identifier(name)}::text"

    def _kind(self, name: str) -> pa.DataType:
        kinds = {
            "int2": pa.int16(),
            "int4": pa.int32(),
            "int8": pa.int64(),
            "float4": pa.float32(),
            "float8": pa.float64(),
            "bool": pa.bool_(),
        }
        return kinds.get(self._made[name][0], pa.string())

    def raws(self, names: Sequence[str]) -> list[Raw]:
        return [self._raw(f"c{at}", *self._made[name]) for at, name in enumerate(names)]

    @staticmethod
    def _raw(name: str, kind: str, category: str) -> Raw:
        if kind in _NATIVE:
            return Raw.of_type(name, _NATIVE[kind])
        made = Raw.of_type(name, "VARCHAR" if category in "SE" else "OTHER")
        if category not in "NB":
            return made
        number = f"CAST(TRY_CAST({name} AS BOOLEAN) AS DOUBLE)" if category == "B" else f"TRY_CAST({name} AS DOUBLE)"
        return Raw(number, None, f"({name} IS NOT NULL AND {name} <> 'NaN')", name, name)
