"""A site's table as something that DuckDB scans, column by declared column, in a process that can reach nothing else.

DuckDB gets one file, under a name that this module chose, and no network, no extension and no other path. Files
that it does not read itself (feather, JSON lines, sheets), frames and databases are streamed to it as Arrow batches.
"""

# ruff: noqa: S608 - identifiers and values are quoted in sql and reading, and nothing else becomes part of a statement
from __future__ import annotations

import bz2
import csv
import gzip
import lzma
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO, Any

import duckdb
import pyarrow as pa

from privfl.errors import DataError, PrivflError
from privfl.tasks import DatabaseSource, FileSource, FrameSource, Source
from privfl_analytics.local.sql import Raw, identifier, literal
from privfl_analytics.local.streams import FrameStream, Stream, file_stream

__all__ = ["MEMORY", "Table", "Unreadable", "connect", "opened"]

#: DuckDB's own memory; what does not fit goes to encrypted files in a folder of this call, for this user alone.
MEMORY = "1GB"
_CONFIG = {
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
    "allow_community_extensions": "false",
    "temp_file_encryption": "true",
    # Without the extension httpfs, which is never loaded here, DuckDB writes encrypted files only so: their keys, which
    # are never kept, come from a generator that is not made for secrets. The folder's mode is what guards them first.
    "force_mbedtls_unsafe": "true",
    "preserve_insertion_order": "false",
}
_OPEN: Mapping[str, Callable[..., IO[Any]]] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
_SEPARATORS = {"csv": ",", "tsv": "\t"}


class Unreadable(DataError):
    """A table of which rows cannot be read the way they were tried."""


@dataclass(slots=True)
class Table:
    """An open table.

    Attributes:
        connection: DuckDB's, closed to everything else.
        types: name → type, of every column that there is, or of those that were wanted.
        raws: name → how its values are had, of those wanted.
        scan: gives what to select from; to be called anew for each statement.
    """

    connection: duckdb.DuckDBPyConnection
    types: Mapping[str, str]
    raws: Mapping[str, Raw]
    scan: Callable[[], str]
    functions: set[str] = field(default_factory=set)


def connect(folder: Path, files: Sequence[Path] = ()) -> duckdb.DuckDBPyConnection:
    """A database in memory that may read ``files``, spill into ``folder``, and nothing else."""
    connection = duckdb.connect(":memory:", config={**_CONFIG, "memory_limit": MEMORY, "temp_directory": str(folder)})
    connection.execute(f"SET allowed_paths = [{', '.join(literal(str(path)) for path in files)}]")
    connection.execute("SET enable_external_access = false")
    connection.execute("SET lock_configuration = true")
    return connection


@contextmanager
def opened(source: Source, wanted: Sequence[str] | None, *, careful: bool = False) -> Iterator[Table]:
    """The table of a source with the columns ``wanted``; None for the types of all.

    With ``careful`` a Parquet file is read by Arrow, slower, but past text that is no UTF-8.

    Raises:
        DataError: it cannot be read, or lacks a column. Never because of what a row holds, and never with a value.
    """
    with TemporaryDirectory(prefix="privfl-") as made:
        folder = Path(made)
        try:
            with _source(source, folder, wanted, careful) as table:
                yield table
        except PrivflError:
            raise
        except ImportError as error:
            raise DataError(
                f"reading this table needs {error.name}; run: pip install 'privfl[analytics,data,sql]'"
            ) from None
        except OSError as error:
            raise DataError(f"the table cannot be read ({error.strerror or type(error).__name__}); check it") from None
        except (duckdb.Error, pa.ArrowException) as error:  # their own words may quote a row
            raise Unreadable(f"the table cannot be read ({type(error).__name__}); check that it is whole") from None


@contextmanager
def _source(source: Source, folder: Path, wanted: Sequence[str] | None, careful: bool) -> Iterator[Table]:
    if isinstance(source, FileSource):
        if not source.path.is_file():
            raise DataError(f"there is no table {source.path}; check the path")
        if source.format in _SEPARATORS:
            table = _text(source, folder, wanted)
        elif source.format == "parquet" and not careful:
            table = _parquet(source, folder, wanted)
        else:
            with _streamed(file_stream(source), folder, wanted) as table:
                yield table
            return
        try:
            yield table
        finally:
            table.connection.close()
        return
    stream = FrameStream(source.frame) if isinstance(source, FrameSource) else _database(source)
    with _streamed(stream, folder, wanted) as table:
        yield table


def _database(source: DatabaseSource) -> Stream:
    from privfl_analytics.local.databases import DatabaseStream  # noqa: PLC0415 - drivers only some sites have

    return DatabaseStream(source)


def need(there: Sequence[str], wanted: Sequence[str] | None) -> tuple[str, ...]:
    """The wanted columns; raises DataError for one that the table lacks or has twice."""
    names = tuple(dict.fromkeys(there)) if wanted is None else tuple(wanted)
    lacking = [name for name in names if name not in there]
    if lacking:
        raise DataError(f"the table lacks column {', '.join(map(repr, lacking))}; see what differs from the schema")
    twice = [name for name in names if list(there).count(name) > 1]
    if twice and wanted is not None:
        raise DataError(f"the table has more than one column {', '.join(map(repr, twice))}; keep the one that is meant")
    return names


def _link(source: FileSource, folder: Path, ending: str) -> Path:
    """The file under a name without anything that DuckDB reads a meaning into (wildcards, schemes, partitions)."""
    suffix = source.path.suffix.lower()
    if suffix in (".bz2", ".xz"):
        link = folder / f"table{ending}"
        with _OPEN[suffix](source.path, "rb") as packed, link.open("wb") as out:
            shutil.copyfileobj(packed, out, 1 << 20)
        return link
    link = folder / f"table{ending}{'.gz' if suffix == '.gz' else ''}"
    os.symlink(source.path.resolve(), link)
    return link


def _text(source: FileSource, folder: Path, wanted: Sequence[str] | None) -> Table:
    """A text file: every field as text, so that nothing about it is guessed from rows.

    A line with too few fields is filled with missing ones, fields too many are ignored, and so is a line that cannot
    be read at all. One thread reads: several would guess where a line begins, and guess wrong beside a broken one.
    """
    separator, link = _SEPARATORS[source.format], _link(source, folder, ".csv")
    with _OPEN.get(link.suffix, open)(link, "rt", encoding="utf-8-sig", errors="replace", newline="") as stream:
        try:
            header = next(csv.reader(stream, delimiter=separator), [])
        except csv.Error:
            raise DataError("the first line of the table cannot be read; it must name the columns") from None
    names = need(header, wanted)
    made = ", ".join(f"'c{at}': 'VARCHAR'" for at in range(len(header)))
    scan = (
        f"read_csv({literal(str(link))}, auto_detect=false, header=true, delim={literal(separator)}, quote='\"', "
        f"escape='\"', columns={{{made}}}, null_padding=true, ignore_errors=true, strict_mode=false, parallel=false, "
        f"compression={literal('gzip' if link.suffix == '.gz' else 'none')})"
    )
    raws = {name: Raw.of_type(f"c{header.index(name)}", "VARCHAR", loose=True) for name in names}
    return Table(connect(folder, [link]), dict.fromkeys(names, "text of a file"), raws, lambda: scan)


def _parquet(source: FileSource, folder: Path, wanted: Sequence[str] | None) -> Table:
    link = _link(source, folder, ".parquet")
    connection = connect(folder, [link])
    scan = f"read_parquet({literal(str(link))}, hive_partitioning=false)"
    types = {str(row[0]): str(row[1]) for row in connection.execute(f"DESCRIBE SELECT * FROM {scan}").fetchall()}
    names = need(list(types), wanted)
    raws = {name: Raw.of_type(identifier(name), types[name]) for name in names}
    return Table(connection, types, raws, lambda: scan)


@contextmanager
def _streamed(stream: Stream, folder: Path, wanted: Sequence[str] | None) -> Iterator[Table]:
    """A table that arrives as Arrow batches; each scan opens it anew."""
    connection = connect(folder)
    try:
        types = {} if stream.loose and wanted is not None else stream.types
        names = tuple(wanted) if stream.loose and wanted is not None else need(list(types), wanted)
        raws = dict(zip(names, stream.raws(names), strict=True))

        def scan() -> str:
            connection.register("streamed", stream.open(names))
            return "streamed"

        yield Table(connection, types or dict.fromkeys(names, "JSON"), raws, scan)
    finally:
        connection.close()
        stream.close()
