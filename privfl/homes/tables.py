"""Reading a table that an operator named, by formats that never run what the file says.

A reader's own complaint may quote a row, so only its kind is passed on. Formats that unpickle are refused by
name: reading such a file runs the code of whoever wrote it.
"""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from privfl.errors import DataError
from privfl.homes.config import Format

if TYPE_CHECKING:
    import pandas as pd

    from privfl.tasks import Schema

__all__ = ["FORMATS", "format_of", "read_table"]

FORMATS: Final[Mapping[str, Format]] = {
    ".csv": "csv",
    ".tsv": "tsv",
    ".parquet": "parquet",
    ".pq": "parquet",
    ".feather": "feather",
    ".arrow": "feather",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".xlsx": "excel",
}
_PACKED = (".gz", ".bz2", ".xz")  # of text formats; pandas unpacks them
_UNPICKLED = (".pkl", ".pickle", ".p", ".joblib", ".h5", ".hdf", ".hdf5", ".npy", ".npz")


def format_of(path: Path) -> Format:
    """The format that the file's ending names; raises DataError for one that unpickles, or an unknown one."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if any(suffix in _UNPICKLED for suffix in suffixes):
        raise DataError(
            f"{path.name} is refused: reading this format unpickles, which runs the code of whoever wrote the file; "
            "export the table as CSV or Parquet"
        )
    packed = bool(suffixes) and suffixes[-1] in _PACKED
    kind = FORMATS.get(suffixes[-2 if packed else -1]) if len(suffixes) > packed else None
    if kind is None or (packed and kind not in ("csv", "tsv", "jsonl")):
        raise DataError(
            f"{path.name} ends in none of {', '.join(FORMATS)} (text also with {', '.join(_PACKED)}); "
            "name its kind with --format, or export the table as CSV or Parquet"
        )
    return kind


def read_table(path: Path, kind: Format, schema: Schema) -> pd.DataFrame:
    """The columns of ``path`` that ``schema`` declares, and its subject column.

    Raises:
        DataError: it cannot be read; the message has no value of it.
    """
    if kind not in _READERS:
        raise DataError(f"{kind!r} is no format here; choose one of {', '.join(_READERS)}")
    if not path.is_file():
        raise DataError(f"there is no table {path}; check the path")
    try:
        frame: pd.DataFrame = _READERS[kind](path, schema)
    except DataError:
        raise
    except ImportError:
        raise DataError(f"reading {kind} needs a library that is not here; run: pip install 'privfl[data]'") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror or type(error).__name__}); check its mode") from None
    except Exception as error:  # a reader's own words may quote a row, so only their kind is passed on
        raise DataError(
            f"{path} cannot be read as {kind} ({type(error).__name__}); check the file, or name its kind with --format"
        ) from None
    return frame[[name for name in frame.columns if name in schema.names]]


def _words(schema: Schema) -> dict[str, type]:
    """Columns that hold text, and ids; in a text file "007" would otherwise be read as a number."""
    found = {name: schema.columns[name] for name in schema.categories}
    words = [name for name, column in found.items() if isinstance(getattr(column, "classes")[0], str)]  # noqa: B009
    return dict.fromkeys((*words, *schema.texts, *(() if schema.subject is None else (schema.subject,))), str)


def _text(separator: str) -> Callable[[Path, Schema], pd.DataFrame]:
    def read(path: Path, schema: Schema) -> pd.DataFrame:
        import pandas as pd  # noqa: PLC0415

        with warnings.catch_warnings():
            # A row with more fields than the header would lose one, or shift its columns by one. Only when every
            # column is read does pandas notice.
            warnings.simplefilter("error", pd.errors.ParserWarning)
            head = pd.read_csv(path, sep=separator, header=None, nrows=1, dtype=str, index_col=False)
            _check_once(head, path, schema)
            return pd.read_csv(path, sep=separator, dtype=_words(schema), index_col=False, low_memory=False)

    return read


def _check_once(head: pd.DataFrame, path: Path, schema: Schema) -> None:
    """Raise DataError for a declared column that the header names twice: pandas would rename the second in silence."""
    names = [str(name).strip() for name in head.to_numpy().reshape(-1)]
    twice = [name for name in schema.names if names.count(name) > 1]
    if twice:
        raise DataError(f"{path} has more than one column {', '.join(map(repr, twice))}; keep the one that is meant")


def _jsonl(path: Path, schema: Schema) -> pd.DataFrame:
    """One object per line, values as they stand: pandas' reader guesses dates from names and numbers from text."""
    import pandas as pd  # noqa: PLC0415

    unpack: Mapping[str, Any] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
    with unpack.get(path.suffix.lower(), open)(path, "rt", encoding="utf-8") as stream:
        rows = [json.loads(line) for line in stream if line.strip()]
    there = [name for name in schema.names if any(name in row for row in rows if _object(row))]
    kinds = {schema.subject: object}
    return pd.DataFrame({name: pd.Series([row.get(name) for row in rows], dtype=kinds.get(name)) for name in there})


def _object(row: Any) -> bool:
    if not isinstance(row, dict):
        raise ValueError  # a list or a text would answer `in` as well
    return True


def _parquet(path: Path, schema: Schema) -> pd.DataFrame:
    import pandas as pd  # noqa: PLC0415
    import pyarrow.parquet  # noqa: PLC0415

    there = pyarrow.parquet.read_schema(path).names
    frame = pd.read_parquet(path, engine="pyarrow", columns=[name for name in there if name in schema.names])
    return _whole_ids(frame, schema, lambda: pyarrow.parquet.read_table(path, columns=[schema.subject]))


def _feather(path: Path, schema: Schema) -> pd.DataFrame:
    import pandas as pd  # noqa: PLC0415
    import pyarrow.feather  # noqa: PLC0415

    there = pd.read_feather(path)
    return _whole_ids(there, schema, lambda: pyarrow.feather.read_table(path, columns=[schema.subject]))


def _whole_ids(frame: pd.DataFrame, schema: Schema, again: Callable[[], Any]) -> pd.DataFrame:
    """Ids that became floats beside missing ones are read as they stand: as floats two persons could become one."""
    if schema.subject is not None and schema.subject in frame.columns and frame[schema.subject].dtype == float:
        ids = again().column(schema.subject).to_pandas(integer_object_nulls=True)
        return frame.assign(**{schema.subject: ids.to_numpy()})
    return frame


def _excel(path: Path, schema: Schema) -> pd.DataFrame:
    import pandas as pd  # noqa: PLC0415

    _check_once(pd.read_excel(path, engine="openpyxl", header=None, nrows=1, dtype=str), path, schema)
    return pd.read_excel(path, engine="openpyxl", dtype=_words(schema))


_READERS: Final[Mapping[str, Callable[[Path, Any], Any]]] = {
    "csv": _text(","),
    "tsv": _text("\t"),
    "parquet": _parquet,
    "feather": _feather,
    "jsonl": _jsonl,
    "excel": _excel,
}
