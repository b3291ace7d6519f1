"""A site's table bound to the schema: wrong columns are the operator's error, odd rows never are.

What the table *is* (columns, types) is checked here, before anything is spent, and shown to the operator
only. What its rows *say* never raises: after a charge is reserved nothing in a row may change what
leaves, so every odd value gets a defined reading and is counted for the site's own log.
"""

from __future__ import annotations

import html
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import pandas as pd

from privfl.errors import DataError, Misuse
from privfl.tasks.schema import Category, Class, Numeric, Schema, Text

__all__ = ["BindReport", "BoundData", "ColumnCounts", "bind"]

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
    """

    schema: Schema
    values: Floats
    present: npt.NDArray[np.bool_]
    codes: Mapping[str, Codes]
    report: BindReport
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
    ``report`` and none is an error. Columns that the schema does not declare are ignored.

    Args:
        schema: the federation's public agreement.
        frame: one row per record; may be empty, since the number of rows is private.

    Raises:
        DataError: not a DataFrame, or columns missing, doubled or of another type; all listed, no values.
    """
    if not isinstance(frame, pd.DataFrame):
        raise DataError(f"expected a pandas DataFrame, not a {type(frame).__name__}")
    complaints = [text for name in schema.columns if (text := _mismatch(schema, frame, name))]
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
    return BoundData(schema, values, present, codes, BindReport(len(frame), counts))


def _mismatch(schema: Schema, frame: pd.DataFrame, name: str) -> str | None:
    found = [column for column in frame.columns if column == name]
    if not found:
        return f"column {name!r} is missing"
    if len(found) > 1:
        return f"column {name!r} occurs {len(found)} times"
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
    present = ~np.isnan(raw)
    infinite = np.isinf(raw)
    outside = present & ~infinite & ((raw < column.lower) | (raw > column.upper))
    filled = np.where(present, raw, column.center)
    scaled = (np.clip(filled, column.lower, column.upper) - column.center) / column.scale
    return scaled, present, ColumnCounts(int((~present).sum()), int(infinite.sum()), int(outside.sum()))


def _encode(series: pd.Series[Any], column: Category) -> tuple[Codes, ColumnCounts]:
    missing = series.isna().to_numpy(dtype=np.bool_)
    place = {_key(item): code for code, item in enumerate(column.classes)}
    found = (place.get(_key(item), -1) for item in series.to_numpy(dtype=object))
    codes = np.where(missing, -1, np.fromiter(found, np.int64, len(series)))
    return codes, ColumnCounts(missing=int(missing.sum()), unknown=int(((codes < 0) & ~missing).sum()))


def _key(item: Any) -> tuple[str, object]:
    """What a cell is compared by: True and 1 and 1.0 are one, so that a label stored as 0/1 reads as meant."""
    if isinstance(item, np.generic):
        item = item.item()
    if isinstance(item, int | float):
        return ("number", item)
    return ("text", item) if isinstance(item, str) else ("other", None)
