"""Where a site's rows may lie: files and databases, in memory for training or left where they are for analytics."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pyarrow.feather
import pyarrow.parquet
import pytest
from privfl_analytics import local_frames

from privfl.budget import Policy
from privfl.cli.site import named_place
from privfl.errors import DataError, Misuse
from privfl.homes.config import SiteConfig
from privfl.homes.data import SCHEMA as COPY
from privfl.homes.data import again, check_schema, keep, load, prepare
from privfl.homes.site import SiteHome, Table
from privfl.tasks import DatabaseSource, FileSource, Schema, plugins
from tests.homes.scene import NOW, PASS, SCHEMA, Scene, policy_fields, tree

VISITS = SCHEMA + "  ward: {classes: [a, b], missing: ['?']}\n  code: {max_length: 4}\nsubject: pid\nmax_rows: 2\n"


class Engine:
    """The local engine's part in binding: it looks at columns, and tells what it was asked."""

    def __init__(self) -> None:
        self.columns: Mapping[str, str] = {"age": "DOUBLE", "ill": "BOOLEAN", "secret": "VARCHAR"}
        self.wrong: tuple[str, ...] = ("column 'age' looks like another unit",)
        self.seen: list[object] = []

    def columns_of_source(self, source: object) -> Mapping[str, str]:
        self.seen.append(source)
        return self.columns

    def differences(self, schema: Schema, source: object) -> tuple[str, ...]:
        return self.wrong


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> Engine:
    """The parts that other distributions add, put in place for a test."""
    made = Engine()
    entries = {"duckdb": SimpleNamespace(load=lambda: made), "frames": SimpleNamespace(load=lambda: local_frames)}
    monkeypatch.setattr(plugins, "_found", lambda group: entries if group == "privfl.tables" else {})
    return made


@pytest.fixture
def schema(tmp_path: Path) -> Path:
    path = tmp_path / "schema.yaml"
    path.write_text(VISITS)
    return path


@pytest.fixture
def database(tmp_path: Path) -> DatabaseSource:
    """An SQLite file with a table that has more columns than the schema declares."""
    path = tmp_path / "a clinic.db"
    with closing(sqlite3.connect(path)) as base:
        base.execute('CREATE TABLE "vi""sits" (age REAL, ill INTEGER, ward TEXT, code TEXT, pid INTEGER, secret TEXT)')
        rows = [(41.5, 1, "a", "I10", 1, "s"), (None, 0, "?", "J4", 1, "t"), (200, None, "z", None, None, "u")]
        base.executemany('INSERT INTO "vi""sits" VALUES (?, ?, ?, ?, ?, ?)', rows)
        base.commit()
    return DatabaseSource.of(f"sqlite://{str(path).replace(' ', '%20')}", 'vi"sits')


def test_files_with_texts_codes_and_subjects(schema: Path, tmp_path: Path) -> None:
    """Ids keep their leading zeros, missing codes are missing, texts are checked for their type alone."""
    frame = pd.DataFrame(
        {"age": [1.0, 2, 3], "ill": [True, False, True], "ward": ["a", "?", "b"], "code": ["01", None, "A"]}
    )
    frame["pid"] = ["007", "7", None]
    for name, write in (("t.csv", frame.to_csv), ("t.parquet", frame.to_parquet)):
        write(tmp_path / name, index=False)
        binding = prepare(tmp_path / name, schema, None)
        assert binding.bound.subjects is not None
        assert binding.bound.subjects.tolist() == [0, 1, -1]
        assert binding.bound.codes["ward"].tolist() == [0, -1, 1]
        assert binding.bound.report.columns["ward"].missing == 1
        assert list(binding.config.columns) == ["age", "ill", "ward", "code", "pid"]
        assert binding.data.source == FileSource(tmp_path / name, name[2:])
    frame.drop(columns="pid").to_csv(tmp_path / "t.csv", index=False)
    with pytest.raises(DataError, match="column 'pid' is missing, which tells whose row it is"):
        prepare(tmp_path / "t.csv", schema, None)
    frame.assign(code=[1.5, 2, 3]).to_parquet(tmp_path / "t.parquet")
    with pytest.raises(DataError, match="column 'code' is float64, not text"):
        prepare(tmp_path / "t.parquet", schema, None)


@pytest.mark.parametrize("name", ["t.csv", "t.parquet", "t.feather", "t.jsonl", "t.xlsx"])
def test_large_ids_stay_apart(name: str, tmp_path: Path) -> None:
    """2^53 and 2^53 + 1 beside a missing id: as floats they would be one person."""
    schema = tmp_path / "schema.yaml"
    schema.write_text("records: 9\ncolumns: {age: {lower: 0, upper: 9}}\nsubject: pid\n")
    ids = [2**53, 2**53 + 1, None]
    frame = pd.DataFrame({"age": [1, 2, 3], "pid": pd.array(ids, dtype="Int64")})
    if name.endswith("jsonl"):
        (tmp_path / name).write_text("\n".join(json.dumps({"age": 1, "pid": one}) for one in ids))
    elif name.endswith("xlsx"):
        frame.astype({"pid": "string"}).to_excel(tmp_path / name, index=False)
    elif name.endswith("csv"):
        frame.to_csv(tmp_path / name, index=False)
    else:
        table = pyarrow.table({"age": [1, 2, 3], "pid": pyarrow.array(ids)})  # without what pandas notes of types
        write = pyarrow.parquet.write_table if name.endswith("parquet") else pyarrow.feather.write_feather
        write(table, tmp_path / name)
    bound = prepare(tmp_path / name, schema, None).bound
    assert bound.subjects is not None
    assert bound.subjects.tolist() == [0, 1, -1]


def test_a_table_of_a_database(engine: Engine, schema: Path, database: DatabaseSource, tmp_path: Path) -> None:
    """Bound, written down, read back, checked again; a file format has no part in it."""
    binding = prepare(database, schema, None)
    report = binding.bound.report
    assert (report.rows, report.columns["age"].missing, report.columns["age"].outside) == (3, 1, 1)
    assert (report.columns["ward"].missing, report.columns["ward"].unknown) == (1, 1)
    assert binding.bound.subjects is not None
    assert binding.bound.subjects.tolist() == [0, 0, -1]
    kept = keep(tmp_path, SiteConfig(federation="trial", name="north", fingerprint="x"), binding)
    assert SiteConfig.read(tmp_path) == kept
    assert kept.data is not None
    assert (kept.data.format, kept.data.source) == ("sqlite", database)
    assert load(tmp_path, kept, Policy(**policy_fields())).bound.report == report
    assert again(kept.data, tmp_path / COPY).config == kept.data
    assert list(kept.data.columns) == ["age", "ill", "ward", "code", "pid"]


def test_undeclared_columns_of_a_database_are_never_read(schema: Path, database: DatabaseSource) -> None:
    """SQLite itself says which columns a statement reads."""
    read: set[str] = set()
    connect = sqlite3.connect

    def watched(*args: Any, **kwargs: Any) -> sqlite3.Connection:
        base = connect(*args, **kwargs)
        base.set_authorizer(note)
        return base

    def note(action: int, table: str | None, column: str | None, *_: object) -> int:
        if action == sqlite3.SQLITE_READ and table == 'vi"sits':
            read.add(str(column))
        return sqlite3.SQLITE_OK

    one = Schema.from_yaml(schema)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sqlite3, "connect", watched)
        assert list(local_frames.frame_of(database, one).columns) == ["age", "ill", "ward", "code", "pid"]
    assert read == {"age", "ill", "ward", "code", "pid"}


def test_a_database_that_cannot_be_read(engine: Engine, schema: Path, database: DatabaseSource, tmp_path: Path) -> None:
    """Gone, another table, no database: one sentence each, no value, and nothing is made in its place."""
    gone = DatabaseSource.of(f"sqlite://{tmp_path}/gone.db", "visits")
    with pytest.raises(DataError, match=r"there is no database .*gone\.db"):
        prepare(gone, schema, None)
    assert not (tmp_path / "gone.db").exists()
    with pytest.raises(DataError, match=r"there is no table other of .*clinic.db, or this user may not see it"):
        prepare(DatabaseSource("sqlite", database.uri, "other"), schema, None)
    (tmp_path / "gone.db").write_text("4711")
    with pytest.raises(DataError, match="cannot be read") as failed:
        prepare(gone, schema, None)
    assert "4711" not in str(failed.value)


@pytest.mark.parametrize(
    ("uri", "table", "words"),
    [
        ("postgresql://me:hunter2@host/db", "t", "set PGPASSWORD, or PGPASSFILE"),
        ("postgresql://me@host/db?sslmode=require&password=hunter2", "t", "set PGPASSWORD"),
        ("postgresql://host/db?sslPassword=hunter2", "t", "password in it is refused"),
        ("mysql://host/db", "t", "'mysql' is no database here"),
        ("sqlite://host/path", "t", "sqlite:///absolute/path"),
        ("sqlite:///", "t", "sqlite:///absolute/path"),
        ("rows.db", "t", "write postgresql://"),
        ("postgresql://[::1/db", "t", "no address of a database"),
        ("postgresql://host/db", "a.b.c", "no name of a table"),
        ("postgresql://host/db", "a.", "no name of a table"),
        ("postgresql://host/db", "a\nb", "no name of a table"),
    ],
)
def test_addresses_that_are_refused(uri: str, table: str, words: str) -> None:
    """With advice, and without repeating a password."""
    with pytest.raises(Misuse, match=words) as failed:
        DatabaseSource.of(uri, table)
    assert "hunter2" not in str(failed.value)


def test_addresses_that_are_read() -> None:
    """Servers as they stand; an SQLite file by its absolute path, with one leading blank or more slashes."""
    server = DatabaseSource.of("postgresql://me@host:5433/db?sslmode=require", "clinic.visits")
    assert (server.driver, server.path) == ("postgresql", None)
    assert str(server) == "table clinic.visits of postgresql://me@host:5433/db?sslmode=require"
    for uri in ("sqlite:///data/a%20b.db", "sqlite:////data/a%20b.db"):
        assert DatabaseSource.of(uri, "t").path == Path("/data/a b.db")


def test_what_the_command_line_may_name(tmp_path: Path) -> None:
    """One place: a path, or a database with a table of it."""
    assert named_place(tmp_path, None, None, "TABLE") == tmp_path
    assert named_place(None, "sqlite:///x.db", "t", "TABLE") == DatabaseSource.of("sqlite:///x.db", "t")
    assert named_place(None, None, None, "TABLE") is None
    for args in ((None, "sqlite:///x.db", None), (None, None, "t")):
        with pytest.raises(Misuse, match="--database and --table come together"):
            named_place(*args, "TABLE")
    with pytest.raises(Misuse, match="TABLE or --database with --table, and not both"):
        named_place(tmp_path, "sqlite:///x.db", "t", "TABLE")


# -- for analytics alone --------------------------------------------------------------------------------------


def test_a_table_for_analytics_alone_is_never_read_into_memory(engine: Engine, scene: Scene) -> None:
    """Checked by the engine at binding and at each start; training on it is refused with what to do."""
    scene.join()
    folder, table = scene.folder("north"), scene.table()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("privfl.homes.data.read_table", None)
        joined = SiteHome.bind(folder, PASS, NOW, Table(table.path, table.schema, analytics_only=True))
        assert (joined.bound, joined.alone, joined.notes) == (None, True, engine.wrong)
        assert joined.config.data is not None
        assert joined.config.data.columns == {"age": "DOUBLE", "ill": "BOOLEAN"}
        with SiteHome.open(folder, PASS, NOW) as site:
            assert site.data.source == FileSource(Path(table.path), "csv")  # type: ignore[arg-type]
            with pytest.raises(Misuse, match="bind it without --analytics-only to train"):
                _ = site.bound
    assert len(engine.seen) == 2
    engine.columns = {"age": "DOUBLE"}
    with pytest.raises(DataError, match=r"column 'ill' is missing\. It was bound with age .DOUBLE"):
        SiteHome.open(folder, PASS, NOW)
    before = tree(folder)
    with pytest.raises(DataError, match=r"does not fit.*column 'ill' is missing"):
        SiteHome.bind(folder, PASS, NOW, Table(table.path, table.schema, analytics_only=True))
    assert tree(folder) == before
    (scene.root / "rows.csv").unlink()
    with pytest.raises(DataError, match="is not there; put it back, or bind"):
        SiteHome.open(folder, PASS, NOW)


def test_a_site_opened_without_its_table(scene: Scene) -> None:
    """Neither table nor rows; with it, both."""
    scene.join(table=scene.table())
    with (
        SiteHome.open(scene.folder("north"), PASS, NOW, data=False) as site,
        pytest.raises(Misuse, match="opened without its data"),
    ):
        _ = site.data
    with SiteHome.open(scene.folder("north"), PASS, NOW) as site:
        assert site.data.bound is site.bound


def test_without_the_analytics_part(schema: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is missing is named, with what to install."""
    monkeypatch.setattr(plugins, "_found", lambda group: {})
    (tmp_path / "t.csv").write_text("age\n1\n")
    with pytest.raises(Misuse, match=r"analytics alone needs the analytics part.*privfl\[analytics,sql\]"):
        prepare(tmp_path / "t.csv", schema, None, analytics_only=True)
    with pytest.raises(Misuse, match="reading a database needs the analytics part"):
        prepare(DatabaseSource.of("sqlite:///x.db", "t"), schema, None)


# -- schema and policy ----------------------------------------------------------------------------------------


def test_a_schema_that_was_not_signed_is_not_bound(schema: Path, tmp_path: Path) -> None:
    """The policy's digest decides, whatever the name says; the order of columns means nothing."""
    one = Schema.from_yaml(schema)
    signed = Policy(**policy_fields(schema_digest=one.digest.hex()))
    check_schema(one, signed)
    turned = one.model_copy(update={"columns": dict(reversed(one.columns.items()))})
    assert turned.digest == one.digest
    check_schema(turned, signed)
    for other in (
        one.model_copy(update={"records": 601}),
        one.model_copy(update={"max_rows": 3}),
        Schema.from_yaml(SCHEMA),
    ):
        assert other.digest != one.digest
        with pytest.raises(Misuse, match="its content is not what was signed"):
            check_schema(other, signed)


@pytest.mark.parametrize(
    ("columns", "allowed", "words"),
    [
        ({"max_length": 4}, {"max_length": 4}, None),
        ({"max_length": 5}, {"max_length": 4}, "is text of up to 5 characters, it allows 4"),
        ({"max_length": 4}, {"lower": 0, "upper": 1}, "is text here and a number there"),
        ({"max_length": 4}, {"classes": ["a", "b"]}, "is text here and a category there"),
        ({"lower": 0, "upper": 1}, {"max_length": 4}, "is a number here and text there"),
        ({"classes": ["a", "b"]}, {"max_length": 4}, "is a category here and text there"),
    ],
)
def test_text_columns_against_the_policy(columns: Any, allowed: Any, words: str | None) -> None:
    """As text on both sides, and no longer than allowed."""
    one = Schema(name="tumours", version=1, records=10, columns={"c": columns})
    signed = Policy(**policy_fields(columns={"c": allowed}))
    if words is None:
        check_schema(one, signed)
    else:
        with pytest.raises(Misuse, match=words):
            check_schema(one, signed)


def test_the_real_engine_looks_at_every_place(
    schema: Path, database: DatabaseSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Columns and types of a file and of a database, and what differs, without a value of either."""
    import privfl_analytics.local as real

    entries = {"duckdb": SimpleNamespace(load=lambda: real)}
    monkeypatch.setattr(plugins, "_found", lambda group: entries if group == "privfl.tables" else {})
    columns = {
        "age": [500.0, 600, 700],
        "ill": [True, False, True],
        "ward": ["a", "4711", "b"],
        "code": ["x", "y", "z"],
    }
    pd.DataFrame({**columns, "pid": [1, 2, 3], "secret": ["s", "t", "u"]}).to_parquet(tmp_path / "t.parquet")
    for place in (tmp_path / "t.parquet", database):
        binding = prepare(place, schema, None, analytics_only=True)
        assert list(binding.config.columns) == ["age", "ill", "ward", "code", "pid"]
        assert any("'ward' has values that are no declared class" in note for note in binding.notes), binding.notes
        assert "4711" not in " ".join(binding.notes)
        assert again(binding.config, schema).config == binding.config
