"""Tables that reach DuckDB as Arrow batches: frames, and files that it does not read itself."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import duckdb
import pyarrow as pa
from pyarrow import parquet

from privfl.errors import DataError
from privfl.tasks import FileSource
from privfl_analytics.local.cells import PARTS, clean, frame_columns, split
from privfl_analytics.local.sql import Raw

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["FrameStream", "Stream", "file_stream"]

_ROWS = 1 << 16
_OPEN: Mapping[str, Callable[..., IO[Any]]] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}


class Stream(ABC):
    """A table that can be opened again and again."""

    #: Any name may be asked for: one that no row has is missing in all of them, as rows alone could tell.
    loose = False

    @property
    @abstractmethod
    def types(self) -> Mapping[str, str]:
        """Name → type, as the operator knows it."""

    @abstractmethod
    def raws(self, names: Sequence[str]) -> list[Raw]:
        """How the values of some columns are had from the columns c0, c1, … of what is opened."""

    @abstractmethod
    def open(self, names: Sequence[str]) -> pa.Table | pa.RecordBatchReader:
        """The rows with these columns."""

    def close(self) -> None:  # noqa: B027 - most have nothing to close
        """Let go of what is open."""


def named(parts: Sequence[Sequence[Any]]) -> list[tuple[str, Any]]:
    """(c0, array) for a column that is one, (c0n, …), (c0t, …), (c0w, …) for one of objects."""
    out: list[tuple[str, Any]] = []
    for at, made in enumerate(parts):
        endings = [""] if len(made) == 1 else [ending for ending, _ in PARTS]
        out += [(f"c{at}{ending}", array) for ending, array in zip(endings, made, strict=True)]
    return out


def raw_of(name: str, kind: pa.DataType) -> Raw:
    """A column of an Arrow type, under the type that DuckDB gives it."""
    connection = duckdb.connect(":memory:")
    try:
        connection.register("one", pa.table({"x": pa.array([], kind)}))
        row = connection.execute("DESCRIBE SELECT x FROM one").fetchone()
        return Raw.of_type(name, str(row[1]) if row else "")
    finally:
        connection.close()


class FrameStream(Stream):
    """A pandas frame."""

    def __init__(self, frame: pd.DataFrame) -> None:
        self._frame = frame.loc[:, [isinstance(name, str) for name in frame.columns]]
        self._made: dict[tuple[str, ...], dict[str, list[pa.Array]]] = {}

    @property
    def types(self) -> Mapping[str, str]:
        return {str(name): str(kind) for name, kind in self._frame.dtypes.items()}

    def _table(self, names: Sequence[str]) -> dict[str, list[pa.Array]]:
        twice = [name for name in names if list(self._frame.columns).count(name) > 1]
        if twice:
            raise DataError(
                f"the table has more than one column {', '.join(map(repr, twice))}; keep the one that is meant"
            )
        key = tuple(names)
        if key not in self._made:
            self._made[key] = frame_columns(self._frame, names)
        return self._made[key]

    def raws(self, names: Sequence[str]) -> list[Raw]:
        made = self._table(names).values()
        return [
            Raw.of_parts(f"c{at}") if len(one) > 1 else raw_of(f"c{at}", one[0].type) for at, one in enumerate(made)
        ]

    def open(self, names: Sequence[str]) -> pa.Table:
        columns = named(list(self._table(names).values()))
        return pa.table(dict(columns or [("nothing", pa.array([0] * len(self._frame), pa.int8()))]))


class FeatherStream(Stream):
    """An Arrow file, batch by batch."""

    def __init__(self, path: Path) -> None:
        self._path = path
        with pa.memory_map(str(path)) as held:
            schema = pa.ipc.open_file(held).schema
        self._places = {name: schema.get_field_index(name) for name in schema.names}
        self._schema = schema

    @property
    def types(self) -> Mapping[str, str]:
        return {one.name: str(one.type) for one in self._schema}

    def _kind(self, name: str) -> pa.DataType:
        return _plain(self._schema.field(name).type)

    def raws(self, names: Sequence[str]) -> list[Raw]:
        if any(place < 0 for place in (self._places[name] for name in names)):
            raise DataError("the table names a column twice; keep the one that is meant")
        return [raw_of(f"c{at}", self._kind(name)) for at, name in enumerate(names)]

    def open(self, names: Sequence[str]) -> pa.RecordBatchReader:
        schema = pa.schema([(f"c{at}", self._kind(name)) for at, name in enumerate(names)] or [("nothing", pa.int8())])

        def batches() -> Iterator[pa.RecordBatch]:
            with pa.memory_map(str(self._path)) as held:
                reader = pa.ipc.open_file(held)
                for at in range(reader.num_record_batches):
                    batch = reader.get_batch(at)
                    columns = [clean(batch.column(self._places[name])).cast(self._kind(name)) for name in names]
                    yield pa.RecordBatch.from_arrays(
                        columns or [pa.array([0] * batch.num_rows, pa.int8())], schema=schema
                    )

        return pa.RecordBatchReader.from_batches(schema, batches())


class ParquetStream(Stream):
    """A Parquet file through Arrow, for one that DuckDB refuses because a text in it is no UTF-8."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._schema = parquet.read_schema(path)

    @property
    def types(self) -> Mapping[str, str]:
        return {one.name: str(one.type) for one in self._schema}

    def raws(self, names: Sequence[str]) -> list[Raw]:
        return [raw_of(f"c{at}", _plain(self._schema.field(name).type)) for at, name in enumerate(names)]

    def open(self, names: Sequence[str]) -> pa.RecordBatchReader:
        kinds = [_plain(self._schema.field(name).type) for name in names]
        schema = pa.schema([(f"c{at}", kind) for at, kind in enumerate(kinds)] or [("nothing", pa.int8())])

        def batches() -> Iterator[pa.RecordBatch]:
            with parquet.ParquetFile(self._path) as file:
                for batch in file.iter_batches(_ROWS, columns=list(names)):
                    columns = [clean(batch.column(name)).cast(kind) for name, kind in zip(names, kinds, strict=True)]
                    yield pa.RecordBatch.from_arrays(
                        columns or [pa.array([0] * batch.num_rows, pa.int8())], schema=schema
                    )

        return pa.RecordBatchReader.from_batches(schema, batches())


def _plain(kind: pa.DataType) -> pa.DataType:
    """The type of a column after :func:`clean`."""
    return _plain(kind.value_type) if pa.types.is_dictionary(kind) else clean(pa.array([], kind)).type


class LinesStream(Stream):
    """JSON lines: one object each; a line that is none is ignored."""

    loose = True

    def __init__(self, path: Path) -> None:
        self._path = path

    @property
    def types(self) -> Mapping[str, str]:
        found: dict[str, str] = {}
        for row in self._rows():
            found |= {name: "JSON" for name in row if name not in found}
        return found

    def _rows(self) -> Iterator[dict[str, Any]]:
        unpack = _OPEN.get(self._path.suffix.lower(), open)
        with unpack(self._path, "rt", encoding="utf-8-sig", errors="surrogateescape") as stream:
            for line in stream:
                try:
                    row = json.loads(line)
                except (ValueError, RecursionError):
                    continue
                if isinstance(row, dict):
                    yield row

    def raws(self, names: Sequence[str]) -> list[Raw]:
        return [Raw.of_parts(f"c{at}") for at in range(len(names))]

    def open(self, names: Sequence[str]) -> pa.RecordBatchReader:
        fields = [(f"c{at}{ending}", kind) for at in range(len(names)) for ending, kind in PARTS]
        schema = pa.schema(fields or [("nothing", pa.int8())])

        def batches() -> Iterator[pa.RecordBatch]:
            rows = self._rows()
            while part := list(islice(rows, _ROWS)):
                columns = [array for name in names for array in split(row.get(name) for row in part)]
                yield pa.RecordBatch.from_arrays(columns or [pa.array([0] * len(part), pa.int8())], schema=schema)

        return pa.RecordBatchReader.from_batches(schema, batches())


def file_stream(source: FileSource) -> Stream:
    """The stream of a file that DuckDB does not read itself.

    Raises:
        DataError: an unknown format, or a file that is not of it.
    """
    if source.format == "parquet":
        return ParquetStream(source.path)
    if source.format == "feather":
        return FeatherStream(source.path)
    if source.format == "jsonl":
        return LinesStream(source.path)
    if source.format == "excel":
        return FrameStream(_sheet(source.path))
    raise DataError(f"{source.format!r} is no format here; export the table as CSV or Parquet")


def _sheet(path: Path) -> pd.DataFrame:
    import pandas as pd  # noqa: PLC0415

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            # empty rows at the end of a sheet are cut off: they would count as soon as one row more follows them
            return pd.read_excel(path, engine="openpyxl", dtype=object).dropna(how="all")
    except (ImportError, OSError):
        raise
    except Exception as error:  # a reader's own words may quote a row
        raise DataError(f"{path} cannot be read as excel ({type(error).__name__}); check the file") from None
