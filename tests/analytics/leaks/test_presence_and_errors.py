"""Leaks: suppression by true counts, groups that are present or absent, errors of some rows, reports with values."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from privfl_analytics.local import differences
from privfl_analytics.question import StudyQuestion

import privfl
from privfl.entropy import SYSTEM
from privfl.errors import Misuse
from privfl.runtime import SiteNode
from privfl.tasks import DatabaseSource, FileSource, SiteData
from tests.analytics.leaks.listening import (
    ODD,
    SCHEMA,
    TABLES,
    Catch,
    Heard,
    ask,
    data_of,
    exact,
    first,
    question_of,
    table,
    uploaded,
)

QUERIES = ("count by ward", "mean age", "histogram months bins=6")


# -- small cells ---------------------------------------------------------------------------------------------


def small(count: int) -> pd.DataFrame:
    """A table with exactly so many rows of burns."""
    frame = table(60, 9).assign(ward="surgery")
    frame.loc[: count - 1, "ward"] = "burns"
    return frame if count else frame.assign(ward="surgery")


def check_small_cells_leave() -> None:
    """From 9 to 10 rows a cell moves by one row, like from 40 to 41: no threshold acts on true counts at a site."""
    question = question_of("count by ward")
    (block,) = question.releases[0].blocks
    for count in (0, 1, 4, 9, 10, 20, 40):
        now, more = (exact(question, small(count + plus)) for plus in (0, 1))
        assert now[2] == 1024 * count
        moved = now.copy()
        moved[2] += 1024
        moved[0] -= 1024
        assert np.array_equal(more, moved)
        sent = {int(uploaded(question, small(count))[2]) for _ in range(6)}  # one draw may well be 0
        assert sent != {int(now[2])}, "the cell left without noise, or not at all"
    assert block.delta2 == 1024**2


def test_a_cell_below_the_minimum_leaves_like_any_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """A package that suppresses at the site moves a cell by ten rows at once, and is found out."""
    check_small_cells_leave()
    contribution = StudyQuestion.contribution

    def suppressing(*args: Any, **named: Any) -> Any:
        found = contribution(*args, **named)
        return np.where(found < 10 * 1024, 0, found)

    monkeypatch.setattr(StudyQuestion, "contribution", suppressing)
    with pytest.raises(AssertionError):
        check_small_cells_leave()


def test_the_minimum_hides_noisy_counts_at_display_and_a_second_cell_beside_one() -> None:
    """The sum has every cell; the answer hides the small one and its smallest neighbour, whatever the true count is."""
    from privfl_analytics.opened import History

    question = question_of("values ward", epsilon=20.0)
    for noisy, hidden in ((4, True), (40, False)):
        cells = np.array([200, 100, noisy, 30, 20], dtype=np.int64) * 1024
        history = History().add(question.opened(0, cells, 4))
        rows = {str(row.at["ward"]): row for row in question.decode(history, min_cell_count=10)["values ward"].rows
                if row.what == "count" and "ward" in row.at}  # fmt: skip
        gone = [name for name, row in rows.items() if row.value is None]
        assert ("burns" in gone) is hidden
        assert len(gone) != 1, "a single hidden cell is the total minus the others"


# -- groups --------------------------------------------------------------------------------------------------


def check_length_and_groups() -> None:
    """Full, empty and odd tables, of one ward or all: one length, and no coordinate that only some tables have."""
    question = question_of(*QUERIES)
    frames = [
        *TABLES.values(),
        TABLES["north"].iloc[:0],
        ODD,
        TABLES["north"].assign(ward="surgery"),
        TABLES["south"].iloc[:1],
    ]
    length = question.sum_at(0).length
    for frame in frames:
        one = uploaded(question, frame)
        assert one.shape == (length,), "the length tells which groups there are"
        assert np.count_nonzero(one) > 0.9 * length, "a group that no row has is silent"


def group_left_out(question: StudyQuestion, inputs: bytes, data: SiteData, *rest: Any, **named: Any) -> Any:
    found = UPLOAD(question, inputs, data, *rest, **named)
    return found if (data.source.frame["ward"] == "burns").any() else np.delete(found, 2)  # type: ignore[union-attr]


def silent_group(question: StudyQuestion, inputs: bytes, data: SiteData, *rest: Any, **named: Any) -> Any:
    clean = question.contribution(inputs, data, SYSTEM)
    return np.where(clean == 0, 0, UPLOAD(question, inputs, data, *rest, **named))


def refusing(question: StudyQuestion, inputs: bytes, data: SiteData, *rest: Any, **named: Any) -> Any:
    if not len(data.source.frame):  # type: ignore[union-attr]
        raise Misuse("too few rows")
    return UPLOAD(question, inputs, data, *rest, **named)


UPLOAD = StudyQuestion.upload


def test_groups_that_no_row_has_leave_like_all_others() -> None:
    """Every coordinate carries noise, in every table."""
    check_length_and_groups()


@pytest.mark.parametrize("broken", [group_left_out, silent_group, refusing], ids=lambda one: one.__name__)
def test_each_of_these_signs_of_presence_is_found_out(
    broken: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A group only where present, zeros without noise, a refusal of few rows."""
    monkeypatch.setattr(StudyQuestion, "upload", broken)
    with pytest.raises((AssertionError, Misuse)):
        check_length_and_groups()


# -- errors of rows ------------------------------------------------------------------------------------------

LINES = {
    "plain": "p1,50,10,True,surgery,AB\n" * 3,
    "empty": "",
    "text for numbers": "p1,old,soon,maybe,17,\n" * 3,
    "nan and inf": "p1,nan,inf,True,surgery,AB\np2,-inf,NaN,False,burns,F\n",
    "huge numbers": f"p1,1e400,{'9' * 400},True,surgery,AB\np2,-1e308,1e-400,False,burns,F\n",
    "nulls": "p1,50\0,10,True,sur\0gery,A\0B\n\0,\0,\0,\0,\0,\0\n",
    "broken lines": 'p1,50\n"p2,50,10,True,"sur"gery,AB,more,and,more\n,,,,,\n"',
    "bytes that are no UTF-8": "p1,50,10,True,\udcff\udcfe,AB\n",
    "long text": f"p1,50,10,True,{'x' * 300_000},{'A' * 100_000}\n",
    "formulas": 'p1,=1+1,@cmd,True,"\'; DROP TABLE t; --",AB\n',
}  # fmt: skip


def sources(folder: Path) -> dict[str, SiteData]:
    """The odd rows as CSV, and odd values in Parquet and SQLite."""
    found = {}
    for name, lines in LINES.items():
        path = folder / f"{name}.csv"
        path.write_bytes(("patient,age,months,event,ward,code\n" + lines).encode("utf-8", "surrogateescape"))
        found[f"csv, {name}"] = SiteData(SCHEMA, FileSource(path, "csv"))
    base = TABLES["north"].head(8)
    odd = {
        "plain": base,
        "empty": base.iloc[:0],
        "numbers as text": base.assign(age=base["age"].astype(str) + "x", months="1e999"),
        "lists": base.assign(ward=[["a", "b"]] * 8, age=[[1.0]] * 8),
        "dates": base.assign(age=pd.Timestamp("2024-01-01"), event=pd.Timedelta("1D")),
        "nothing": base.assign(age=None, ward=None, months=np.nan),
    }
    for name, frame in odd.items():
        frame.to_parquet(folder / f"{name}.parquet")
        found[f"parquet, {name}"] = SiteData(SCHEMA, FileSource(folder / f"{name}.parquet", "parquet"))
    for name, values in {
        "plain": ("p1", 50.0, 10.0, 1, "surgery", "AB"),
        "other types": (b"\xff\x00", "old", b"\x00" * 9, "maybe", 9e999, 2**62),
        "nothing": (None,) * 6,
    }.items():
        path = folder / f"{name}.sqlite"
        with sqlite3.connect(path) as made:
            made.execute("CREATE TABLE rows (patient, age REAL, months REAL, event, ward TEXT, code TEXT)")
            made.executemany("INSERT INTO rows VALUES (?, ?, ?, ?, ?, ?)", [values] * 3)
        found[f"sqlite, {name}"] = SiteData(SCHEMA, DatabaseSource("sqlite", str(path), "rows"))
    return found


def test_no_row_makes_a_site_silent_or_another_length(tmp_path: Path) -> None:
    """The real engine on broken CSV, Parquet and SQLite: one length, every coordinate noised, nothing raised."""
    question = question_of(*QUERIES, "count where age > 30", "heavy_hitters code size=4", "distinct code")
    length = question.sum_at(0).length
    for name, data in sources(tmp_path).items():
        vector = question.upload(first(question), data, SYSTEM)
        assert vector.shape == (length,), name
        assert np.count_nonzero(vector) > 0.9 * length, name


def fed_with(data: SiteData) -> privfl.Federation:
    others = {name: data_of(frame) for name, frame in TABLES.items() if name != "north"}
    return privfl.Federation({"north": data, **others}, SCHEMA)


@pytest.mark.parametrize("name", ["csv, broken lines", "csv, nulls", "csv, empty", "sqlite, other types"])
def test_messages_and_bodies_are_of_one_size_whatever_the_rows_are(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Over the whole protocol: every site uploads the same number of bytes and is in the sum."""
    heard = Heard().listen(monkeypatch)
    found = ask(*QUERIES, federation=fed_with(sources(tmp_path)[name]))
    assert found.survivors == (4,)
    assert len(heard.sent) == 4
    assert len(set(heard.sent)) == 1


# -- faults after the charge ---------------------------------------------------------------------------------


def check_fault_is_a_noised_zero(caplog: pytest.LogCaptureFixture) -> None:
    """The engine of one site breaks: it is charged and in the sum, with noise of the same length, and says no value."""
    caplog.set_level(logging.DEBUG)
    fed = privfl.Federation.local(TABLES, SCHEMA)
    north = next(iter(fed._sites.values()))
    contribution = StudyQuestion.contribution

    def failing(question: StudyQuestion, inputs: bytes, data: SiteData, *rest: Any, **named: Any) -> Any:
        if data is north.data:
            raise ValueError("row 17 is 98.6")
        return contribution(question, inputs, data, *rest, **named)

    with pytest.MonkeyPatch.context() as patch:
        heard = Heard().listen(patch)
        patch.setattr(StudyQuestion, "contribution", failing)
        found = ask(*QUERIES, federation=fed)
    assert found.survivors == (4,), "a site whose rows broke it is missing"
    assert len(set(heard.sent)) == 1
    assert all(np.count_nonzero(one) > 0.9 * len(one) for one in heard.vectors)
    assert {len(site.account.charges) for site in fed._sites.values()} == {1}  # type: ignore[union-attr]
    assert "98.6" not in caplog.text


def test_a_fault_of_the_engine_after_the_charge_is_a_noised_zero(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A package that lets the fault through falls silent because of a row, and is found out."""
    check_fault_is_a_noised_zero(caplog)

    def bare(node: SiteNode, task: Any, inputs: bytes, a: Any) -> Any:
        return task.upload(inputs, node.data, SYSTEM, seat=node._seat)

    monkeypatch.setattr(SiteNode, "_vector", bare)
    with pytest.raises(AssertionError, match="missing"):
        check_fault_is_a_noised_zero(caplog)


# -- reports of differences ----------------------------------------------------------------------------------


def check_report(make: Callable[..., tuple[str, ...]]) -> None:
    """A table that fits nowhere is described without a single value of it."""
    frame = TABLES["north"].assign(ward="ward-17-infectious", code="patient zero", months=TABLES["north"]["age"] * 1000)
    frame = frame.drop(columns="event").rename(columns={"age": "alter"})
    said, catch = make(SCHEMA, data_of(frame).source), Catch()
    assert said
    values = [*frame["alter"], *frame["months"]]
    catch.secret("a value", (repr(value)[:8].encode() for value in values))
    catch.secret("a value", (b"ward-17-infectious", b"patient zero", b"patient-1-"))
    for line in said:
        catch.say("a report", line)
    catch.check()


def test_differences_from_the_schema_name_no_values() -> None:
    """Columns and kinds of differences only; a report that quotes a class is found out."""
    check_report(differences)
    with pytest.raises(AssertionError, match="a value in a report"):
        check_report(lambda schema, source: (*differences(schema, source), f"unknown: {source.frame['ward'][0]}"))


def test_a_table_of_another_schema_is_asked_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Refused before any vector is made."""
    from privfl.errors import PrivflError

    heard = Heard().listen(monkeypatch)
    other = SCHEMA.model_copy(update={"records": 401})
    fed = fed_with(SiteData(other, data_of(TABLES["north"]).source))
    with pytest.raises(PrivflError):
        ask(*QUERIES, federation=fed)
    assert not heard.vectors
