"""Cells of Python objects as Arrow columns: frames, JSON lines and sheets, whatever a cell holds.

A column of objects becomes three: its numbers, its texts, and how all but text is written; a missing cell is NULL in
all of them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from decimal import Decimal
from numbers import Real
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from pyarrow import compute

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["PARTS", "clean", "frame_columns", "split"]

#: Endings of the names of the three columns that a column of objects becomes, and their types.
PARTS: tuple[tuple[str, pa.DataType], ...] = (("n", pa.float64()), ("t", pa.string()), ("w", pa.string()))


def split(values: Iterable[Any]) -> list[pa.Array]:
    """(numbers, texts, how all but text is written) of a column of objects."""
    numbers: list[float | None] = []
    texts: list[str | None] = []
    written: list[str | None] = []
    for value in values:
        number, text, words = _parts(value)
        numbers.append(number)
        texts.append(text)
        written.append(words)
    return [pa.array(numbers, pa.float64()), _strings(texts), _strings(written)]


def _parts(value: Any) -> tuple[float | None, str | None, str | None]:
    if value is None or isinstance(value, str):
        return None, value, None
    if isinstance(value, Real | Decimal | np.bool_):
        try:
            number = float(value)
        except OverflowError:  # a whole number that no float holds
            number = math.inf if value > 0 else -math.inf  # type: ignore[operator]
        except (TypeError, ValueError):  # a signalling NaN
            return None, None, None
        return (None, None, None) if math.isnan(number) else (number, None, _written(value, number))
    try:
        if value != value:  # noqa: PLR0124 - NaT
            return None, None, None
    except Exception:
        if type(value).__name__ == "NAType":
            return None, None, None
    try:
        return None, None, str(value)
    except Exception:
        return None, None, ""


def _written(value: Any, number: float) -> str:
    """As text, as DuckDB writes it; a whole number in one way only, be it a float or not."""
    if isinstance(value, bool | np.bool_):
        return str(value).lower()
    if number.is_integer():
        return str(int(value))
    try:
        return str(value)
    except ValueError:  # Python prints no whole number of more than 4300 digits
        return hex(int(value))


def _strings(texts: Sequence[str | None]) -> pa.Array:
    try:
        return pa.array(texts, pa.string())
    except UnicodeEncodeError:  # half a surrogate pair; written so that two texts stay two, as they may name persons
        return pa.array(
            [None if one is None else one.encode(errors="backslashreplace").decode() for one in texts], pa.string()
        )


def frame_columns(frame: pd.DataFrame, names: Iterable[str]) -> dict[str, list[pa.Array]]:
    """Name → the one column that Arrow has for it, or the three of :func:`split`."""
    return {name: _series(frame[name]) for name in names}


def _series(series: pd.Series[Any]) -> list[pa.Array]:
    import pandas as pd  # noqa: PLC0415

    dtype = series.dtype
    if dtype == np.float64 or dtype in (np.dtype(np.float16), np.dtype(np.longdouble)):
        return [pa.array(series.to_numpy(np.float64))]
    if isinstance(dtype, np.dtype) and dtype.kind in "biuf":
        return [pa.array(series.to_numpy())]
    if isinstance(dtype, pd.StringDtype) or (pd.api.types.is_extension_array_dtype(dtype) and _plain(series)):
        try:
            return [clean(_whole(pa.array(series)))]
        except (pa.ArrowException, UnicodeError, TypeError, ValueError):
            pass
    return split(series.to_numpy(dtype=object))


def _plain(series: pd.Series[Any]) -> bool:
    import pandas as pd  # noqa: PLC0415

    api = pd.api.types
    return not isinstance(series.dtype, pd.CategoricalDtype) and (
        api.is_numeric_dtype(series) or api.is_bool_dtype(series)
    )


def _whole(array: Any) -> pa.Array:
    return array.combine_chunks() if isinstance(array, pa.ChunkedArray) else array


def clean(array: pa.Array) -> pa.Array:
    """The same column in a type that DuckDB reads, bytes that are no UTF-8 as escapes: two texts stay two."""
    kind = array.type
    if pa.types.is_dictionary(kind):
        return clean(array.dictionary_decode())
    if pa.types.is_float16(kind):
        return array.cast(pa.float32())
    if kind.id in (pa.lib.Type_TIMESTAMP, pa.lib.Type_DURATION) and kind.unit in ("s", "ms"):
        # DuckDB counts microseconds, of which a column of seconds can hold more than it
        return compute.binary_join_element_wise(str(kind), array.view(pa.int64()).cast(pa.string()), " ")
    if pa.types.is_string_view(kind):
        array = array.cast(pa.large_string())
    if pa.types.is_string(array.type) or pa.types.is_large_string(array.type):
        try:
            array.validate(full=True)
        except pa.ArrowInvalid:
            binary = array.cast(pa.large_binary() if pa.types.is_large_string(array.type) else pa.binary())
            return _strings(
                [None if one is None else one.decode(errors="backslashreplace") for one in binary.to_pylist()]
            )
    return array
