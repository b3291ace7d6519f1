"""From preprocessing that was fitted over the federation to a training task.

Two ways. A training task scales columns by the schema's public centre and scale and reads a missing number as the
centre: :func:`reference_schema` puts what a scaler learned there, and sites bind their tables as they are. For other
transformers, sites transform their tables with the fitted columns and bind the result by :func:`transformed_schema`.
Both are functions of noisy answers and public things, so the new schema may be published and signed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from privfl.errors import Misuse
from privfl.tasks import Category, Numeric, Schema

__all__ = ["reference_schema", "transformed_schema", "transformed_table"]

#: Places within a column's bounds at which a transformer is tried, so that every bin of it is met.
_GRID = 1025


def reference_schema(schema: Schema, scaler: Any, version: int | None = None) -> Schema:
    """The schema with a fitted StandardScaler's means and spreads as centres and scales.

    Args:
        scaler: fitted on columns by name, as :func:`privfl_analytics.fit_preprocessing` returns it.
        version: of the new schema; by default the next one.

    Raises:
        Misuse: it is not such a scaler, or names a column that is no number of the schema.
    """
    names = getattr(scaler, "feature_names_in_", None)
    means, spreads = getattr(scaler, "mean_", None), getattr(scaler, "scale_", None)
    if names is None or means is None or spreads is None:
        raise Misuse("reference ranges come from a StandardScaler that was fitted on named columns")
    columns: dict[str, Any] = dict(schema.columns)
    for name, mean, spread in zip(names, means, spreads, strict=True):
        column = columns.get(str(name))
        if not isinstance(column, Numeric):
            raise Misuse(f"the scaler knows {name!r}, which is no numeric column of {schema!r}")
        center = min(max(float(mean), column.lower), column.upper)
        columns[str(name)] = Numeric(**{**column.model_dump(), "center": center, "scale": float(spread)})
    return _renewed(schema, columns, version)


def transformed_schema(
    schema: Schema, columns: Any, keep: Sequence[str] = (), version: int | None = None, name: str | None = None
) -> Schema:
    """The schema of tables that :func:`transformed_table` makes: bounds follow from the public bounds.

    Args:
        columns: what :func:`privfl_analytics.frozen_columns` returns; every column is transformed by itself.
        keep: columns that stay as they are, such as the label.
        version, name: of the new schema; by default the next version, and the name with ``" transformed"``.

    Raises:
        Misuse: a kept column does not exist, or has the name of a transformed one.
    """
    grid = _public_grid(schema)
    found = _transformed(columns, grid)
    made: dict[str, Any] = {}
    for place, column in enumerate(found.columns):
        values = found.iloc[:, place].to_numpy(dtype=np.float64)
        low, high = float(np.nanmin(values)), float(np.nanmax(values))
        if not np.isfinite([low, high]).all():
            raise Misuse(f"the transformed column {column!r} has no finite bounds; transform it in another way")
        made[str(column)] = {"lower": low, "upper": high if high > low else low + 1.0}
    for one in keep:
        if one not in schema.columns or one in made:
            raise Misuse(f"cannot keep {one!r}: it must be a column of {schema!r} and none of the transformed ones")
        made[one] = schema.columns[one]
    return _renewed(schema, made, version, f"{schema.name} transformed" if name is None else name)


def transformed_table(columns: Any, frame: pd.DataFrame, keep: Sequence[str] = ()) -> pd.DataFrame:
    """A site's table after the fitted columns, for its own binding; it holds rows and stays at the site."""
    kept = frame[[*keep]].reset_index(drop=True)
    return pd.concat([_transformed(columns, frame), kept], axis=1)


def _transformed(columns: Any, frame: pd.DataFrame) -> pd.DataFrame:
    found = columns.transform(frame)
    found = found.toarray() if hasattr(found, "toarray") else np.asarray(found, dtype=np.float64)
    return pd.DataFrame(found, columns=[str(name) for name in columns.get_feature_names_out()])


def _public_grid(schema: Schema) -> pd.DataFrame:
    """Every column over its bounds or classes; no row of anyone."""
    cells: dict[str, Any] = {}
    for name, column in schema.columns.items():
        if isinstance(column, Numeric):
            cells[name] = np.linspace(column.lower, column.upper, _GRID)
        elif isinstance(column, Category):
            cells[name] = [column.classes[at % len(column.classes)] for at in range(_GRID)]
        else:
            cells[name] = [""] * _GRID
    return pd.DataFrame(cells)


def _renewed(schema: Schema, columns: Mapping[str, Any], version: int | None, name: str | None = None) -> Schema:
    fields = {**schema.model_dump(exclude={"columns"}), "columns": dict(columns)}
    fields["version"] = schema.version + 1 if version is None else version
    fields["name"] = schema.name if name is None else name
    return Schema.from_dict(fields)
