"""The table of the analytics benchmark, and the same study three times: privfl, hand-written DuckDB SQL, pandas."""

# ruff: noqa: S608 - a path that this program made
from __future__ import annotations

from itertools import combinations_with_replacement
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from privfl_analytics.constructions import Construction
    from privfl_analytics.local import Asked

    from privfl.tasks import Schema

NUMBERS = tuple(f"x{at}" for at in range(20))
CLASSES = {"c0": 2, "c1": 3, "c2": 5, "c3": 8, "c4": 12, "c5": 20}
TABLES = (("c0", "c1"), ("c0", "c5"), ("c1", "c2"), ("c2", "c4"), ("c3", "c5"))
LOWER, UPPER, BINS = 0.0, 100.0, 20
_GROUP = 122_880  # rows of a row group, DuckDB's own size


def classes(name: str) -> tuple[str, ...]:
    """Declared classes of a category column."""
    return tuple(f"{name}-{at}" for at in range(CLASSES[name]))


def make(path: Path, rows: int, seed: int = 7) -> None:
    """Write the table, row group by row group: 20 numbers, five of them with missing values, and 6 categories."""
    import pyarrow as pa  # noqa: PLC0415
    import pyarrow.parquet as pq  # noqa: PLC0415

    rng = np.random.default_rng(seed)
    names = {name: pa.array(classes(name)) for name in CLASSES}
    writer = None
    for begin in range(0, rows, _GROUP):
        count = min(_GROUP, rows - begin)
        columns = {}
        shared = rng.normal(0, 5, count)
        for at, name in enumerate(NUMBERS):
            value = 50 + shared + rng.normal(0, 8 + at % 5, count)
            columns[name] = pa.array(value, mask=rng.random(count) < 0.03 if at % 4 == 0 else None)
        for name, size in CLASSES.items():
            codes = pa.array(rng.integers(0, size, count), mask=rng.random(count) < 0.01)
            columns[name] = names[name].take(codes)
        table = pa.table(columns)
        writer = writer or pq.ParquetWriter(path, table.schema)
        writer.write_table(table, row_group_size=_GROUP)
    if writer is not None:
        writer.close()


def study() -> tuple[Schema, list[Asked]]:
    """Schema and constructions: counts, missing, moments, histograms, cross-tabs, one covariance."""
    from privfl_analytics.constructions import (  # noqa: PLC0415
        Bins,
        Classes,
        Linear,
        One,
        Outer,
        Presence,
        Square,
        Sums,
        Tally,
    )
    from privfl_analytics.local import Asked  # noqa: PLC0415

    from privfl.tasks import Schema  # noqa: PLC0415

    numbers = {name: {"lower": LOWER, "upper": UPPER} for name in NUMBERS}
    columns = {**numbers, **{name: {"classes": classes(name)} for name in CLASSES}}
    schema = Schema.from_dict({"records": 1000, "columns": columns})
    edges = tuple(float(edge) for edge in np.linspace(LOWER, UPPER, BINS + 1))
    parts: list[Construction] = [Tally(), *(Tally(axes=(Presence(column=name),)) for name in (*NUMBERS, *CLASSES))]
    parts += [Sums(terms=(One(), Linear(column=name), Square(column=name))) for name in NUMBERS]
    parts += [Tally(axes=(Bins(column=name, edges=edges),)) for name in NUMBERS]
    parts += [Tally(axes=(Classes(column=one), Classes(column=other))) for one, other in TABLES]
    # As wide a frame as a study would take: few rows are shortened.
    parts.append(Outer(columns=tuple(Linear(column=name, center=50.0, half=50.0) for name in NUMBERS), radius=2.0))
    return schema, [Asked(part) for part in parts]


def run_study(path: Path) -> float:
    """The study through the local engine; what it counts as rows."""
    from privfl_analytics.local import sums  # noqa: PLC0415
    from privfl_analytics.view import View  # noqa: PLC0415

    from privfl.entropy import SYSTEM  # noqa: PLC0415
    from privfl.tasks import FileSource, SiteData  # noqa: PLC0415

    schema, asked = study()
    data = SiteData(schema, FileSource(path, "parquet"))
    found = sums(data, View(schema), asked, rows=None, entropy=SYSTEM)
    return float(found[0][0]) / 1024


def run_duckdb(path: Path) -> float:
    """The same quantities by SQL as one would write it: one statement for all sums, one per table of counts."""
    import duckdb  # noqa: PLC0415

    connection = duckdb.connect(":memory:")
    source = f"(SELECT * FROM read_parquet('{path}'))"
    clamped = {name: f"least(greatest({name}, {LOWER}), {UPPER})" for name in NUMBERS}
    whole = " AND ".join(f"{name} IS NOT NULL" for name in NUMBERS)
    every = ["count(*)", *(f"count({name})" for name in CLASSES)]
    for name in NUMBERS:
        value = f"CASE WHEN {name} IS NOT NULL THEN {clamped[name]} END"
        every += [f"count({name})", f"sum({value})", f"sum(({value}) * ({value}))"]
    row = connection.execute(f"SELECT {', '.join(every)} FROM {source}").fetchall()[0]
    pairs = [f"sum({one} * {other})" for one, other in combinations_with_replacement(NUMBERS, 2)]
    firsts = [f"sum({name})" for name in NUMBERS]
    inner = f"SELECT {', '.join(f'{sql} AS {name}' for name, sql in clamped.items())} FROM {source} WHERE {whole}"
    connection.execute(f"SELECT count(*), {', '.join([*firsts, *pairs])} FROM ({inner})").fetchall()
    width = (UPPER - LOWER) / BINS
    for name in NUMBERS:
        place = f"CAST(least(floor(({clamped[name]} - {LOWER}) / {width}), {BINS - 1}) AS TINYINT)"
        cell = f"CASE WHEN {name} IS NULL THEN {BINS} ELSE {place} END"
        connection.execute(f"SELECT {cell}, count(*) FROM {source} GROUP BY 1").fetchall()
    for one, other in TABLES:
        connection.execute(f"SELECT {one}, {other}, count(*) FROM {source} GROUP BY ALL").fetchall()
    connection.close()
    return float(row[0])


def run_pandas(path: Path) -> float:
    """The same quantities with pandas."""
    import pandas as pd  # noqa: PLC0415

    frame = pd.read_parquet(path)
    numbers = frame[list(NUMBERS)].clip(LOWER, UPPER)
    frame.isna().sum()
    numbers.agg(["count", "sum", "mean", "var"])
    edges = np.linspace(LOWER, UPPER, BINS + 1)
    for name in NUMBERS:
        pd.cut(numbers[name], edges.tolist(), right=False, include_lowest=True).value_counts(dropna=False)
    for one, other in TABLES:
        pd.crosstab(frame[one], frame[other], dropna=False)
    numbers.dropna().cov()
    return float(len(frame))
