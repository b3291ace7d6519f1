"""Tables, sources and questions for the tests of the local engine."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from hypothesis import strategies as st
from privfl_analytics.conditions import All, Any_, Compare, Condition, IsMissing, Not, OneOf
from privfl_analytics.constructions import (
    Axis,
    Bins,
    Classes,
    Construction,
    Gradient,
    Is,
    Linear,
    Meets,
    One,
    Outer,
    Prefixes,
    Presence,
    Square,
    SquaredError,
    Sums,
    Tally,
)
from privfl_analytics.local import Asked, sums
from privfl_analytics.view import Score, View

from privfl.entropy import SYSTEM, Entropy
from privfl.tasks import DatabaseSource, FileSource, FrameSource, Schema, SiteData, Source
from tests.analytics.reference import total

SCHEMA = Schema(
    records=100,
    columns={
        "a": {"lower": 0, "upper": 100, "missing": (99.0, -9.0)},
        "b": {"lower": -1, "upper": 2},
        "c": {"classes": ["x", "y", "z"], "missing": ["?"]},
        "f": {"classes": [False, True]},
        "n": {"classes": [0, 1, 2], "missing": [9]},
        "t": {"max_length": 3, "alphabet": "ABC", "missing": ["-"]},
    },
    subject="who",
    max_rows=3,
)
SCORES = (
    Score(name="s", weights={"b": 2.0, "a": 0.1}, intercept=-3),
    Score(name="e", weights={"b": 1.5}, link="exp", lower=0, upper=5),
    Score(name="i", weights={"a": 1.0}, link="identity", lower=10, upper=60),
)
VIEW = View(SCHEMA, SCORES)
BY_C: tuple[Axis, ...] = (Classes(column="c"),)
AXES: tuple[Axis, ...] = (
    Classes(column="c"),
    Classes(column="f"),
    Classes(column="n"),
    Bins(column="a", edges=tuple(range(0, 101, 5))),
    Bins(column="a", edges=(10, 12, 50, 60, 70)),
    Bins(column="b", edges=tuple(np.linspace(-1, 2, 8))),
    Bins(column="s", edges=(0, 0.25, 0.5, 1)),
    *(Presence(column=name) for name in ("a", "c", "t", "s")),
    Meets(condition=Compare(column="a", operator="<=", value=40), raw=True),
    Meets(condition=Any_(parts=(IsMissing(column="t"), Compare(column="e", operator=">", value=1.5)))),
    Prefixes(column="t", size=3),
    Prefixes(column="t", size=4, candidates=("A", "B")),
    Prefixes(column="t", size=2, candidates=("AB",)),
    Prefixes(column="t", size=2, candidates=()),
)


def _gradient(link: str, by: tuple[Axis, ...] = ()) -> Gradient:
    columns, label = (Linear(column="a"), Linear(column="b", center=0, half=0.5)), Is(column="f", value=True)
    return Gradient(columns=columns, label=label, link=link, beta=(0.5, 2.0, -3.0), clip=1.5, by=by)


CONSTRUCTIONS: tuple[Construction, ...] = (
    Tally(),
    *(Tally(axes=(axis,)) for axis in AXES),
    Tally(axes=AXES[:2], by=(AXES[3],)),
    Tally(axes=(Bins(column="a", edges=(0, 25, 50, 75, 100)),), levels=3, by=BY_C),
    Sums(terms=(One(), Linear(column="a"), Square(column="a"))),
    Sums(terms=(One(), Linear(column="s", center=0.2, half=0.1), Is(column="c", value="x")), by=BY_C),
    Sums(terms=(SquaredError(column="s", label=Is(column="f", value=True)), Square(column="b", center=1, half=0.3))),
    Outer(columns=(Linear(column="a"), Linear(column="b")), by=(Classes(column="f"),)),
    Outer(columns=(Linear(column="a", center=10, half=3), Linear(column="s")), radius=2.5),
    *(_gradient(link) for link in ("identity", "logistic", "exp")),
    _gradient("logistic", BY_C),
    Gradient(columns=(Linear(column="a"),), label=Linear(column="b"), link="identity", clip=0.5),
)
WHERES: tuple[Condition | None, ...] = (
    None,
    Compare(column="a", operator=">=", value=40),
    Compare(column="s", operator="<", value=0.5),
    Compare(column="f", operator="!=", value=True),
    Not(part=All(parts=(OneOf(column="c", values=("x", "z")), IsMissing(column="a")))),
)

_FLOATS = st.one_of(st.sampled_from([0.0, 5.0, 40.0, 50.0, 99.0, 100.0, 101.0, -9.0]), st.floats(-20, 120))
#: Cells that a column of objects may have, whatever it was declared as.
ODD = st.one_of(
    st.sampled_from([None, np.nan, np.inf, -np.inf, True, False, 0, 1, 2, 9, 1.0, "1", "x", "y", "?", "w", "", " 7 "]),
    st.sampled_from(["A", "AB", "ABCA", "B-", "-", "1e3", "text", "' OR 1=1 --", "é", np.float32(0.5), np.int8(1)]),
    _FLOATS,
)


@st.composite
def odd_tables(draw: st.DrawFn, size: int = 8) -> pd.DataFrame:
    """Any cell in any column."""
    rows = draw(st.lists(st.tuples(*[ODD] * 6), max_size=size))
    frame = pd.DataFrame(rows, columns=list("abcfnt"), dtype=object)
    frame["t"] = [cell if cell is None or isinstance(cell, str) else None for cell in frame["t"]]
    frame["who"] = np.arange(len(frame)) // 3
    return frame.astype(dict.fromkeys("abcfnt", object))


@st.composite
def plain_tables(draw: st.DrawFn, size: int = 8) -> pd.DataFrame:
    """Cells of one type per column, or missing: what every kind of source can hold."""
    cell = st.tuples(
        st.one_of(st.none(), _FLOATS, st.sampled_from([np.inf, -np.inf])),
        st.one_of(st.none(), st.floats(-2, 3)),
        st.sampled_from([None, "x", "y", "z", "?", "w", "x' --", '"']),
        st.sampled_from([True, False]),
        st.sampled_from([0, 1, 2, 3, 9]),
        st.sampled_from([None, "A", "AB", "ABCA", "B-", "Ö", "-"]),
    )
    constant = draw(st.booleans())
    rows = draw(st.lists(cell, max_size=size))
    rows = [rows[0]] * len(rows) if constant and rows else rows
    frame = pd.DataFrame(rows, columns=list("abcfnt"))
    kinds = {"a": "float64", "b": "float64", "c": object, "f": bool, "n": "int64", "t": object}
    frame = frame.astype(kinds)
    for name in "ct":
        frame[name] = frame[name].where(frame[name].notna(), None)
    frame["who"] = np.arange(len(frame)) // 3
    return frame


def data_of(source: Source, view: View = VIEW) -> SiteData:
    """A site's data."""
    return SiteData(view.schema, source)


def run(
    source: Source,
    asked: Sequence[Asked],
    *,
    view: View = VIEW,
    rows: int | None = None,
    entropy: Entropy = SYSTEM,
) -> list[np.ndarray]:
    """The engine's sums."""
    return sums(data_of(source, view), view, asked, rows=rows, entropy=entropy)


def same_as_reference(
    source: Source, frame: pd.DataFrame, asked: Sequence[Asked], *, view: View = VIEW, rows: int | None = None
) -> None:
    """Assert that every sum equals the row-by-row oracle."""
    for one, found in zip(asked, run(source, asked, view=view, rows=rows), strict=True):
        wanted = total(view, frame, one.construction, one.where, rows)
        assert found.dtype == np.int64
        assert found.shape == one.construction.shape(view)
        assert (found.astype(object) == wanted).all(), one


def written(frame: pd.DataFrame, kind: str, folder: Path) -> Source:
    """The frame in a file or a database of some kind; rows of a text file that would be blank stay distinct."""
    path = folder / f"table.{kind}"
    if path.exists():
        path.unlink()
    if kind == "frame":
        return FrameSource(frame)
    if kind == "csv":
        frame.to_csv(path, index=False)
    elif kind == "tsv":
        frame.to_csv(path, index=False, sep="\t")
    elif kind == "parquet":
        frame.to_parquet(path, index=False)
    elif kind == "feather":
        frame.to_feather(path)
    elif kind == "jsonl":
        path.write_text("".join(f"{json.dumps(_plain(row))}\n" for row in frame.to_dict("records")))
    elif kind == "excel":
        frame.to_excel(path.with_suffix(".xlsx"), index=False)
        return FileSource(path.with_suffix(".xlsx"), "excel")
    else:
        with sqlite3.connect(path) as connection:
            frame.to_sql("the table", connection, index=False)
        connection.close()
        return DatabaseSource("sqlite", str(path), "the table")
    return FileSource(path, kind)


def _plain(row: dict[Any, Any]) -> dict[str, Any]:
    return {str(name): cell.item() if isinstance(cell, np.generic) else cell for name, cell in row.items()}


class Fixed:
    """Entropy that always gives the same bytes."""

    def __init__(self, seed: int) -> None:
        self._seed = seed

    def draw(self, size: int) -> bytes:
        return np.random.default_rng(self._seed).bytes(size)
