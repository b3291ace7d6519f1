"""Regressions of a privacy review of analytics: no row silences a site or is taken for another person's."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from privfl_analytics import Study
from privfl_analytics.constructions import (
    Classes,
    Construction,
    Distinct,
    Linear,
    Outer,
    Prefixes,
    Presence,
    Sums,
    Tally,
)
from privfl_analytics.local import Asked, sums
from privfl_analytics.view import View
from pyarrow import feather, parquet

from privfl.entropy import SYSTEM
from privfl.errors import Misuse, Refused
from privfl.runtime.terms import check_shape
from privfl.tasks import FileSource, FrameSource, Schema, SiteData, Source


def summed(schema: Schema, source: Source, asked: Sequence[Construction], rows: int | None = None) -> list[np.ndarray]:
    wanted = [Asked(one) for one in asked]
    return sums(SiteData(schema, source), View(schema), wanted, rows=rows, entropy=SYSTEM)


@pytest.mark.parametrize("k", [32766, 32767, 40000])
def test_a_row_of_any_class_counts_where_there_are_more_classes_than_16_bits_number(k: int) -> None:
    """ICD-10 has more codes than that: one missing or undeclared code raised, and the site sent zero for all rows."""
    schema = Schema(records=10, columns={"c": {"classes": [f"K{at}" for at in range(k)]}})
    frame = pd.DataFrame({"c": pd.Series(["K1", f"K{k - 1}", "none of them", None], dtype=object)})
    (found,) = summed(schema, FrameSource(frame), [Tally(axes=(Classes(column="c"),))])
    assert np.flatnonzero(found).tolist() == [1, k - 1, k, k + 1]


@pytest.mark.parametrize("sign", [1, -1])
def test_a_whole_number_that_python_does_not_print_is_a_row_like_any_other(sign: int) -> None:
    """Python refuses to write more than 4300 digits; such a cell raised, and the site sent zero for all rows."""
    schema = Schema(records=10, columns={"a": {"lower": 0, "upper": 10}, "t": {"max_length": 5}})
    column = pd.Series([1, sign * 10**5000, sign * 10**6000], dtype=object)
    asked = [Tally(axes=(Presence(column="a"),)), Distinct(column="t")]
    numbers, values = summed(schema, FrameSource(pd.DataFrame({"a": column, "t": column})), asked)
    assert numbers.tolist() == [3 * 1024, 0]
    assert values.tolist() == [3 * 1024]


PERSONS = Schema(records=10, columns={"a": {"lower": 0, "upper": 10}}, subject="id", max_rows=1)


def broken_parquet(path: Path) -> Source:
    names = pa.array(["Müller".encode("latin-1"), "Möller".encode("latin-1")], pa.binary())
    parquet.write_table(pa.table({"id": pa.Array.from_buffers(pa.string(), 2, names.buffers()), "a": [1.0, 1.0]}), path)
    return FileSource(path, "parquet")


def broken_lines(path: Path) -> Source:
    path.write_bytes(b'{"id": "M\xfcller", "a": 1}\n{"id": "M\xf6ller", "a": 1}\n')
    return FileSource(path, "jsonl")


def test_two_persons_whose_names_are_no_utf_8_stay_two(tmp_path: Path) -> None:
    """Broken bytes were all replaced by one character: two persons became one, and either decided over both's rows."""
    halves = pd.DataFrame({"id": pd.Series(["\ud800", "\ud801"], dtype=object), "a": 1.0})
    for source in (broken_parquet(tmp_path / "p"), broken_lines(tmp_path / "j"), FrameSource(halves)):
        found = summed(PERSONS, source, [Tally(subjects=True), Tally()], rows=1)
        assert [one.tolist() for one in found] == [[2 * 1024], [2 * 1024]], source


def test_an_empty_row_of_a_sheet_is_none(tmp_path: Path) -> None:
    """Empty rows at a sheet's end are cut off by its reader; one row after them would have brought all of them in."""
    schema = Schema(records=10, columns={"a": {"lower": 0, "upper": 10}})
    for cells in ([1, None, None], [1, None, None, 2]):
        pd.DataFrame({"a": pd.Series(cells, dtype=object)}).to_excel(tmp_path / "t.xlsx", index=False)
        (found,) = summed(schema, FileSource(tmp_path / "t.xlsx", "excel"), [Tally()])
        assert found.tolist() == [1024 * sum(cell is not None for cell in cells)]


@pytest.mark.parametrize("frame", [{"center": -1.7e308}, {"center": 1.7e308, "half": 1.0}])
def test_a_frame_in_which_a_value_overflows_is_no_frame(frame: dict[str, float]) -> None:
    """∞/∞ passed the clip, and one row moved a sum by 2^63 instead of 2^16."""
    view = View(Schema(records=10, columns={"b": {"lower": -8e307, "upper": 8e307}}))
    for asked in (Sums(terms=(Linear(column="b", **frame),)), Outer(columns=(Linear(column="b", **frame),))):
        with pytest.raises(Misuse, match="too far from the bounds"):
            asked.check(view)


def broken_list() -> pa.Array:
    raw = pa.array([b"fine", b"\xff\xfe"], pa.binary())
    return pa.ListArray.from_arrays(pa.array([0, 1, 2]), pa.Array.from_buffers(pa.string(), 2, raw.buffers()))


@pytest.mark.parametrize("kind", ["parquet", "feather"])
@pytest.mark.parametrize(
    "column",
    [
        broken_list(),
        pa.array([0, 2**63 - 1]).view(pa.time64("us")),
        pa.array([0, 2**63 - 1]).view(pa.timestamp("ms", tz="UTC")),
        pa.array([0, 2**63 - 1]).view(pa.duration("s")),
    ],
    ids=["list", "time", "timestamp", "duration"],
)
def test_no_value_of_an_odd_type_stops_a_study(column: pa.Array, kind: str, tmp_path: Path) -> None:
    """A time beyond 24 hours, or broken text in a list, raised or was read from foreign memory; nothing else left."""
    names, path = ("c", "n", "t", "id"), tmp_path / "table"
    schema = Schema(
        records=10,
        columns={"c": {"classes": ["x", "y"]}, "n": {"lower": 0, "upper": 10}, "t": {"max_length": 4}},
        subject="id",
    )
    try:
        table = pa.table(dict.fromkeys(names, column))
        parquet.write_table(table, path) if kind == "parquet" else feather.write_feather(table, str(path))
    except pa.ArrowException:
        pytest.skip("this type cannot be in such a file")
    asked = [Tally(axes=(Classes(column="c"),)), Tally(axes=(Presence(column="t"),)), Distinct(column="t"), Tally()]
    codes, texts, values, rows = (one.tolist() for one in summed(schema, FileSource(path, kind), [*asked], rows=1))
    assert (codes, texts, values, rows) == ([0, 0, 2048, 0], [2048, 0], [2048], [2048])


def test_a_study_without_room_for_every_site_of_the_roster_costs_nothing() -> None:
    """A site beyond the last stretch failed after its charge, and its zero vector failed as well."""
    study = Study("names", ("frequent_values t",))
    schema = Schema(records=10_000, columns={"t": {"max_length": 2, "alphabet": "AB"}})
    question = study.compile(schema, epsilon=4.0, delta=1e-6, sites=3, min_survivors=3)
    total = question.sum_at(0)
    a: Any = SimpleNamespace(
        task=question.id, bits=total.ring.bits, word=total.ring.word, length=total.length, sites=range(3)
    )
    roster: Any = SimpleNamespace(site_ids=range(3))
    check_shape(a, question, total, roster)
    roster.site_ids = range(4)
    with pytest.raises(Refused, match="room for 3 sites' own answers"):
        check_shape(a, question, total, roster)


@pytest.mark.parametrize("cells", [[120, 7], [True, False]])
@pytest.mark.parametrize("odd", [None, "A", 0.5])
def test_no_row_changes_how_the_others_are_written(cells: list[int], odd: object) -> None:
    """A missing code made pandas keep whole ones as floats, and "120" became "120.0" in every other row."""
    schema = Schema(records=10, columns={"t": {"max_length": 8, "alphabet": "0123456789truefals.A"}})
    axis = Prefixes(column="t", size=1, candidates=("120" if cells[0] == 120 else "true",))
    asked, before, after = [Tally(axes=(axis,))], pd.Series(cells), pd.Series([*cells, odd])
    (plain,), (mixed,) = (summed(schema, FrameSource(pd.DataFrame({"t": one})), asked) for one in (before, after))
    (alone,) = summed(schema, FrameSource(pd.DataFrame({"t": pd.Series([odd], dtype=object)})), asked)
    assert np.array_equal(mixed, plain + alone)
    assert plain[-2] == 1024
