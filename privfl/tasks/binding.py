"""A site's table bound to the schema: wrong columns are the operator's error, odd rows never are.

What the table *is* (columns, types) is checked here, before anything is spent, and shown to the operator
only. What its rows *say* never raises: after a charge is reserved nothing in a row may change what
leaves, so every odd value gets a defined reading and is counted for the site's own log.
"""

from __future__ import annotations

import datetime
import decimal
import hashlib
import html
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import numpy.typing as npt

from privfl.entropy import Entropy
from privfl.errors import DataError, Misuse
from privfl.tasks.schema import Category, Class, Numeric, Schema, Text

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["BindReport", "BoundData", "ColumnCounts", "beyond_records", "bind"]

Floats = npt.NDArray[np.float64]
Codes = npt.NDArray[np.int64]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class ColumnCounts:
    """Rows of one column that were read in a defined way; true counts, for the site's own eyes."""

    missing: int = 0
    infinite: int = 0
    outside: int = 0
    unknown: int = 0

    @property
    def clean(self) -> bool:
        """Nothing was odd."""
        return not (self.missing or self.infinite or self.outside or self.unknown)


def beyond_records(schema: Schema, rows: int) -> str:
    """What is wrong where one site's table alone has more rows than all are declared to have; "" where it has not.

    It tells a true count: for the operator's own terminal only.
    """
    if rows <= schema.records:
        return ""
    return (
        f"this table has {rows} rows, and the schema declares {schema.records} records over all sites together. "
        "Training divides by that number and cuts sums off at it, and a study's sums beyond 16 times as many are cut "
        "off, so that the federation's answers would be wrong. Have `records` corrected in the schema, and the policy "
        "that names it signed again, before this site takes part"
    )


@dataclass(frozen=True, slots=True)
class BindReport:
    """What the site's own log says about its rows. It holds true counts and must not leave the site."""

    rows: int
    columns: Mapping[str, ColumnCounts]

    def __str__(self) -> str:
        odd = [(name, counts) for name, counts in self.columns.items() if not counts.clean]
        lines = [f"{self.rows} rows bound (true counts: for this site's own log only)"]
        lines += [
            f"  {name}: {counts.missing} missing, {counts.infinite} infinite, {counts.outside} out of bounds, "
            f"{counts.unknown} of unknown class"
            for name, counts in odd
        ]
        return "\n".join(lines if odd else [*lines, "  every value present and in bounds"])

    def _repr_html_(self) -> str:
        return f"<pre>{html.escape(str(self))}</pre>"


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class BoundData:
    """Rows in public bounds and units, ready to be summed. Built by :func:`bind`.

    Attributes:
        values: float64 ``[n, p]``, one column per numeric column of the schema, ``(clamped - center) / scale``;
            0, the centre, where the value is missing.
        present: bool ``[n, p]``, False where the value is missing.
        codes: per category column int64 ``[n]``, the place of the class in its declaration; -1 for missing
            or unknown.
        report: counts for the site's own log.
        subjects: int64 ``[n]``, one number per subject of this table, -1 where a row has none; None without a
            subject column.
    """

    schema: Schema
    values: Floats
    present: npt.NDArray[np.bool_]
    codes: Mapping[str, Codes]
    report: BindReport
    subjects: Codes | None = None
    _prepared: dict[object, Any] = field(default_factory=dict)

    def __repr__(self) -> str:
        return f"BoundData({self.schema!r}, rows hidden)"

    def __reduce__(self) -> str:
        raise Misuse("bound data stays at its site and is not pickled; bind the table where it is used")

    def columns(self, names: tuple[str, ...]) -> Floats:
        """The named numeric columns, float64 ``[n, len(names)]``, in public units."""
        place = {name: at for at, name in enumerate(self.schema.numeric)}
        return self.values[:, [place[name] for name in names]]

    def prepared(self, key: object, make: Callable[[], T]) -> T:
        """What ``make`` returns, kept under ``key``: work on the rows that is the same in every round."""
        if key not in self._prepared:
            self._prepared[key] = make()
        kept: T = self._prepared[key]
        return kept

    def bounded(self, rows: int, entropy: Entropy) -> BoundData:
        """At most ``rows`` rows of each subject, none without one; the same ones for as long as the table is bound.

        Which ones follows from a keyed hash of each row's own content: a subject's rows alone decide which of them
        stay, never their place in the table or other subjects' rows.

        Args:
            rows: 1 or more. entropy: of the key, which is drawn once.

        Raises:
            Misuse: the schema names no subject column.
        """
        return self.prepared(("bounded", rows), lambda: self._bounded(rows, entropy.draw(32)))

    def _bounded(self, rows: int, key: bytes) -> BoundData:
        if self.subjects is None:
            raise Misuse("rows of one subject cannot be told apart; name the subject column in the schema")
        owned = np.flatnonzero(self.subjects >= 0)
        who = self.subjects[owned]
        many = np.bincount(who, minlength=1)[who] > rows
        order = np.zeros(len(owned), dtype=np.uint64)  # of those that all stay it does not matter
        order[many] = self._hashes(owned[many], key)
        sorted_ = np.lexsort((order, who))
        first = np.searchsorted(who[sorted_], who[sorted_], side="left")
        keep = np.sort(owned[sorted_[np.arange(len(sorted_)) - first < rows]])
        codes = {name: column[keep] for name, column in self.codes.items()}
        return BoundData(self.schema, self.values[keep], self.present[keep], codes, self.report, self.subjects[keep])

    def _hashes(self, places: Codes, key: bytes) -> npt.NDArray[np.uint64]:
        """Keyed hash of the content of some rows, uint64: rows of the same content contribute the same."""
        parts = [self.values[places], self.present[places], *(codes[places][:, None] for codes in self.codes.values())]
        content = np.hstack([np.ascontiguousarray(part).view(np.uint8) for part in parts])
        found = (hashlib.blake2b(row.tobytes(), key=key, digest_size=8).digest() for row in content)
        return np.frombuffer(b"".join(found), dtype="<u8").astype(np.uint64)

    def label(self, name: str) -> tuple[Floats, npt.NDArray[np.bool_]]:
        """Label values and where they are usable: class codes of a category, public units of a number."""
        if name in self.codes:
            codes = self.codes[name]
            return codes.astype(np.float64), codes >= 0
        place = self.schema.numeric.index(name)
        return self.values[:, place], self.present[:, place]


def bind(schema: Schema, frame: pd.DataFrame) -> BoundData:
    """Read ``frame`` by ``schema``: columns checked, values clamped, centred and scaled.

    NaN and missing values read as the centre of a feature and as "no label" of a label; infinities and
    values out of bounds as the bound; classes that were not declared as unknown. All are counted in
    ``report`` and none is an error; a declared missing code reads as missing. Columns that the schema does not
    declare are ignored; text columns are looked at for their type only, as nothing that needs rows in memory uses them.

    Args:
        schema: the federation's public agreement.
        frame: one row per record; may be empty, since the number of rows is private.

    Raises:
        DataError: not a DataFrame, or columns missing, doubled or of another type; all listed, no values.
    """
    import pandas as pd  # noqa: PLC0415 - slow to load, and seldom needed

    if not isinstance(frame, pd.DataFrame):
        raise DataError(f"expected a pandas DataFrame, not a {type(frame).__name__}")
    complaints = [text for name in schema.names if (text := _mismatch(schema, frame, name))]
    if complaints:
        raise DataError(f"the table does not fit {schema!r}: " + "; ".join(complaints))
    counts: dict[str, ColumnCounts] = {}
    values = np.zeros((len(frame), len(schema.numeric)))
    present = np.ones(values.shape, dtype=np.bool_)
    codes: dict[str, Codes] = {}
    for name, column in schema.columns.items():
        if isinstance(column, Category):
            codes[name], counts[name] = _encode(frame[name], column)
        elif isinstance(column, Numeric):
            place = schema.numeric.index(name)
            values[:, place], present[:, place], counts[name] = _scale(frame[name], column)
    subjects = None if schema.subject is None else _subjects(frame[schema.subject])
    return BoundData(schema, values, present, codes, BindReport(len(frame), counts), subjects)


def _mismatch(schema: Schema, frame: pd.DataFrame, name: str) -> str | None:
    import pandas as pd  # noqa: PLC0415 - slow to load, and seldom needed

    found = [column for column in frame.columns if column == name]
    if not found and name == schema.subject:
        return f"column {name!r} is missing, which tells whose row it is (the schema's subject)"
    if not found:
        return f"column {name!r} is missing"
    if len(found) > 1:
        return f"column {name!r} occurs {len(found)} times"
    if name == schema.subject:
        return None  # ids may be numbers or text of any kind
    series, column = frame[name], schema.columns[name]
    if isinstance(column, Numeric):
        fits = pd.api.types.is_numeric_dtype(series.dtype) and not pd.api.types.is_complex_dtype(series.dtype)
        return None if fits else f"column {name!r} is {series.dtype}, not numbers"
    if isinstance(column, Text):
        return None if _could_hold(series, str) else f"column {name!r} is {series.dtype}, not text"
    kind = type(column.classes[0])
    if _could_hold(series, kind):
        return None
    return f"column {name!r} is {series.dtype}, its classes are {kind.__name__}"


def _could_hold(series: pd.Series[Any], kind: type[Class]) -> bool:
    import pandas as pd  # noqa: PLC0415 - slow to load, and seldom needed

    # Decided by the column's type alone: an all-missing or mixed object column is read row by row.
    dtype = series.dtype
    if isinstance(dtype, pd.CategoricalDtype):
        dtype = dtype.categories.dtype
    if pd.api.types.is_object_dtype(dtype):
        return True
    if pd.api.types.is_string_dtype(dtype):
        return kind is str
    if pd.api.types.is_bool_dtype(dtype):
        return kind is bool
    # a column of 0 and 1 serves for true and false; missing values turn whole numbers into floats
    return bool(pd.api.types.is_numeric_dtype(dtype)) and kind in (int, bool)


def _scale(series: pd.Series[Any], column: Numeric) -> tuple[Floats, npt.NDArray[np.bool_], ColumnCounts]:
    raw = series.to_numpy(dtype=np.float64, na_value=np.nan)
    present = ~(np.isnan(raw) | np.isin(raw, column.missing))
    infinite = present & np.isinf(raw)
    outside = present & ~infinite & ((raw < column.lower) | (raw > column.upper))
    filled = np.where(present, raw, column.center)
    scaled = (np.clip(filled, column.lower, column.upper) - column.center) / column.scale
    return scaled, present, ColumnCounts(int((~present).sum()), int(infinite.sum()), int(outside.sum()))


def _encode(series: pd.Series[Any], column: Category) -> tuple[Codes, ColumnCounts]:
    missing = series.isna().to_numpy(dtype=np.bool_)
    place = {_key(item): code for code, item in enumerate(column.classes)}
    place |= {_key(item): -2 for item in column.missing}
    found = (place.get(_key(item), -1) for item in series.to_numpy(dtype=object))
    read = np.fromiter(found, np.int64, len(series))
    missing = missing | (read == -2)
    codes = np.where(missing, -1, read)
    return codes, ColumnCounts(missing=int(missing.sum()), unknown=int(((codes < 0) & ~missing).sum()))


def _subjects(series: pd.Series[Any]) -> Codes:
    """One number per id, -1 for a missing or blank one. Ids that are neither number nor text count as missing."""
    items = series.to_numpy(dtype=object)
    gone = series.isna().to_numpy(dtype=np.bool_)
    keys = (None if nothing else _id(item) for item, nothing in zip(items, gone, strict=True))
    seen: dict[object, int] = {}
    found = (-1 if key is None else seen.setdefault(key, len(seen)) for key in keys)
    return np.fromiter(found, np.int64, len(items))


def _id(item: Any) -> tuple[str, object] | None:
    if isinstance(item, np.generic):
        item = item.item()
    if isinstance(item, str):
        return ("text", item) if item.strip() else None
    if isinstance(item, bool | int | float):
        return ("number", item)
    return ("text", str(item)) if isinstance(item, uuid.UUID | datetime.date | decimal.Decimal) else None


def _key(item: Any) -> tuple[str, object]:
    """What a cell is compared by: True and 1 and 1.0 are one, so that a label stored as 0/1 reads as meant."""
    if isinstance(item, np.generic):
        item = item.item()
    if isinstance(item, int | float):
        return ("number", item)
    return ("text", item) if isinstance(item, str) else ("other", None)
