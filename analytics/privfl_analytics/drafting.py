"""A first draft of a schema from the names and types of one table's columns; never from its values.

What only people can know stays empty: bounds, classes, the number of records. Such a draft is refused by name
until each is filled in.
"""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import re
import warnings
from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from typing import Any, Literal, TypeAlias

from privfl.cli.policy_draft import scalar
from privfl.errors import DataError
from privfl.tasks import DatabaseSource, FileSource

__all__ = ["Kind", "draft", "kinds", "name_of", "subjects"]

Kind: TypeAlias = Literal["number", "truth", "text", "other"]

_PACKED: Mapping[str, Any] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
_ROWS = 1000  # of an untyped file, from which only kinds are taken
_NUMBER = re.compile(
    r"(u?(tiny|small|big|huge)?int(eger)?\d*|float\d*|double( precision)?|real|half_?float|decimal\d*|numeric|number)\b"
)
_TRUTH = re.compile(r"bool(ean)?\b")
_TEXT = re.compile(r"(large_|utf8_)?(string|varchar|text|char|bpchar|name|enum|citext|clob)|dictionary|character")
_SUBJECT = re.compile(
    r"(^|[\W_])(id|pid|mrn|nhs|ssn|ehr|eid|guid|uuid|person|patient|subject|participant|client|member|respondent)"
    r"([\W_]*(id|no|nr|nummer|number|code|key|ref|identifier))?$"
)
_HEAD = """\
# First draft of a schema, from the names and types of the columns of one table: no value of it is in here.
# It is refused until every empty field is filled in. Fill in what is public knowledge, agreed with the other
# sites, and never what is read off the rows; take out the columns that nobody needs. Then:
#   privfl schema check DATA --schema FILE        each site's operator sees how his table differs
#   privfl policy new POLICY --schema FILE        signing the policy signs this schema
"""


def kinds(source: FileSource | DatabaseSource) -> dict[str, Kind]:
    """What each column holds, by its type alone; of text files by the type that their first rows have.

    Raises:
        DataError: the table cannot be read, or has no columns.
    """
    if isinstance(source, FileSource) and source.format in ("csv", "tsv", "jsonl", "excel"):
        found = _sniffed(source)
    else:
        from privfl_analytics.local import columns_of_source  # noqa: PLC0415 - brings DuckDB

        found = {name: _kind(kind) for name, kind in columns_of_source(source).items()}
    if not found:
        raise DataError(f"{source} has no columns; check that it is the right table")
    return found


def _kind(told: str) -> Kind:
    name = told.lower()
    if name.endswith("[]"):
        return "other"
    kinds: tuple[tuple[re.Pattern[str], Kind], ...] = ((_NUMBER, "number"), (_TRUTH, "truth"), (_TEXT, "text"))
    return next((kind for pattern, kind in kinds if pattern.match(name)), "other")


def _sniffed(source: FileSource) -> dict[str, Kind]:
    import pandas as pd  # noqa: PLC0415

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of odd rows, which binding looks at
            frame = _head(source, pd)
    except ImportError:
        raise DataError(f"reading {source.format} needs a library; run: pip install 'privfl[data]'") from None
    except Exception as error:  # a reader's own words may quote a row, so only their kind is passed on
        raise DataError(
            f"{source} cannot be read as {source.format} ({type(error).__name__}); check the file"
        ) from None
    return {str(name): _of_dtype(frame.dtypes.iloc[at], pd) for at, name in enumerate(frame.columns)}


def _head(source: FileSource, pd: Any) -> Any:
    path = source.path
    if source.format == "excel":
        return pd.read_excel(path, engine="openpyxl", nrows=_ROWS)
    if source.format == "jsonl":
        with _PACKED.get(path.suffix.lower(), open)(path, "rt", encoding="utf-8") as stream:
            rows = [json.loads(line) for line in islice(stream, _ROWS) if line.strip()]
        return pd.DataFrame(rows)
    return pd.read_csv(path, sep="," if source.format == "csv" else "\t", nrows=_ROWS, index_col=False)


def _of_dtype(dtype: Any, pd: Any) -> Kind:
    if pd.api.types.is_bool_dtype(dtype):
        return "truth"
    if pd.api.types.is_numeric_dtype(dtype) and not pd.api.types.is_complex_dtype(dtype):
        return "number"
    return "text" if pd.api.types.is_string_dtype(dtype) or pd.api.types.is_object_dtype(dtype) else "other"


def subjects(names: Mapping[str, Kind]) -> tuple[str, ...]:
    """Columns whose name, and nothing else, says that they may tell whose row it is."""
    spelled = {name: re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower() for name in names}
    return tuple(name for name, kind in names.items() if kind in ("number", "text") and _SUBJECT.search(spelled[name]))


def draft(names: Mapping[str, Kind], name: str) -> str:
    """The draft as YAML text: a schema as soon as its empty fields are filled in.

    Args:
        names: kinds by column, as :func:`kinds` finds them. name: of the schema.
    """
    who = subjects(names)
    lines = [_HEAD, f"name: {scalar(name)}", "version: 1", "records:    # rough public number over all sites together"]
    if who:
        lines += [
            "# Whose row it is, for the protection of people and not only of rows. By their names these may tell it;",
            "# such columns are never asked for. Take the marks of one away, or leave them if rows have no persons.",
            *(f"# subject: {scalar(one)}" for one in who),
            "# max_rows: 1    # rows of one person that any question uses at most",
        ]
    else:
        lines += [
            "# subject: COLUMN    # whose row it is, if rows have persons: the column of their ids",
            "# max_rows: 1",
        ]
    lines.append("columns:")
    for column, kind in names.items():
        if column not in who:
            lines += [f"  {line}" for line in _column(scalar(column), kind)]
    return "\n".join(lines) + "\n"


def _column(name: str, kind: Kind) -> list[str]:
    if kind == "number":
        return [
            f"{name}:",
            "  lower:    # the least value that makes sense; what lies below counts as this",
            "  upper:    # the largest",
            '  unit: ""    # for people: years, mmol/L',
            "  # center: , scale: a public mean and spread, if one is known; missing: [-9], codes of missing values",
        ]
    if kind == "truth":
        return [f"{name}:", "  classes: [false, true]"]
    if kind == "text":
        return [
            f"{name}:",
            "  classes: []    # every value that may occur, agreed on; of codes without a list write max_length: 8",
            "  # missing: [unknown]    # values that stand for a missing one",
        ]
    return [f"# {name}: is neither number, text nor truth value; derive one from it, such as years from a date"]


def name_of(source: FileSource | DatabaseSource) -> str:
    """A name for the schema, from that of the table."""
    text = source.table.split(".")[-1] if isinstance(source, DatabaseSource) else Path(source.path).name.split(".")[0]
    return re.sub(r"[^A-Za-z0-9_-]+", "-", text).strip("-") or "table"
