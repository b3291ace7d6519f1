"""A site's table: every format that reads without unpickling, bound once, and all that goes wrong with it later."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from privfl.budget import Policy
from privfl.errors import DataError, Misuse
from privfl.homes import data
from privfl.homes.config import SiteConfig
from privfl.homes.data import Binding, check_schema, keep, load, prepare
from privfl.homes.site import SiteHome
from privfl.learn import Schema
from tests.homes.scene import NOW, PASS, ROWS, SCHEMA, Scene, policy_fields, tree

FRAME = pd.DataFrame(
    {
        "age": [41.5, 77.25, None],
        "ill": [True, False, True],
        "ward": ["1", "2", "1"],
        "secret": ["x", "y", "z"],
    }
)
WARDS = SCHEMA + '  ward: {classes: ["1", "2"]}\n'


@pytest.fixture
def schema(tmp_path: Path) -> Path:
    path = tmp_path / "schema.yaml"
    path.write_text(WARDS)
    return path


WRITERS: dict[str, Callable[[Path], object]] = {
    "t.csv": lambda path: FRAME.to_csv(path, index=False),
    "t.CSV": lambda path: FRAME.to_csv(path, index=False),
    "t.csv.gz": lambda path: FRAME.to_csv(path, index=False),
    "t.tsv": lambda path: FRAME.to_csv(path, index=False, sep="\t"),
    "t.jsonl": lambda path: FRAME.to_json(path, orient="records", lines=True),
    "t.ndjson.xz": lambda path: FRAME.to_json(path, orient="records", lines=True),
    "t.parquet": FRAME.to_parquet,
    "t.feather": FRAME.to_feather,
    "t.xlsx": lambda path: FRAME.to_excel(path, index=False),
}


@pytest.mark.parametrize("name", WRITERS)
def test_every_format_reads_the_same(name: str, schema: Path, tmp_path: Path) -> None:
    """Values, missing ones, and text classes that look like numbers; columns outside the schema are not read."""
    WRITERS[name](tmp_path / name)
    binding = prepare(tmp_path / name, schema, None)
    assert binding.bound.report.rows == 3
    assert binding.bound.report.columns["age"].missing == 1
    assert binding.bound.codes["ward"].tolist() == [0, 1, 0]
    assert binding.bound.codes["ill"].tolist() == [1, 0, 1]
    assert np.allclose(binding.bound.values[:, 0], [(41.5 - 55) / 55, (77.25 - 55) / 55, 0])
    assert set(binding.config.columns) == {"age", "ill", "ward"}


def test_a_named_format_wins_over_the_ending(schema: Path, tmp_path: Path) -> None:
    """For files whose names say nothing."""
    FRAME.to_csv(tmp_path / "export.dat", index=False)
    with pytest.raises(DataError, match=r"ends in none of \.csv.*--format"):
        prepare(tmp_path / "export.dat", schema, None)
    assert prepare(tmp_path / "export.dat", schema, None, format_="csv").bound.report.rows == 3


@pytest.mark.parametrize("name", ["t.pkl", "t.pickle", "t.pkl.gz", "t.h5", "t.hdf5", "t.joblib", "t.npy"])
def test_what_unpickles_is_refused_by_name(name: str, schema: Path, tmp_path: Path) -> None:
    """With the reason; the file is not even opened."""
    with pytest.raises(DataError, match=r"unpickles, which runs the code.*CSV or Parquet"):
        prepare(tmp_path / name, schema, None)


def test_a_pickle_under_another_name_runs_nothing(schema: Path, tmp_path: Path) -> None:
    """Whatever reader it is given to."""
    marker = tmp_path / "ran"

    class Evil:
        def __reduce__(self) -> tuple[object, ...]:
            return (Path.touch, (marker,))

    for kind in ("csv", "tsv", "jsonl", "parquet", "feather", "excel"):
        (tmp_path / "t.bin").write_bytes(pickle.dumps(Evil()))
        with pytest.raises(DataError):
            prepare(tmp_path / "t.bin", schema, None, format_=kind)  # type: ignore[arg-type]
    assert not marker.exists()


def test_a_missing_library_is_named(schema: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the extra to install."""
    FRAME.to_parquet(tmp_path / "t.parquet")
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    monkeypatch.setitem(__import__("sys").modules, "pyarrow.parquet", None)
    with pytest.raises(DataError, match=r"privfl\[data\]"):
        prepare(tmp_path / "t.parquet", schema, None)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("t.csv", b"", "cannot be read as csv"),
        ("t.csv", b"age,ill,ward\n1,True,1,4711\n", "cannot be read as csv"),
        ("t.csv", b"age,ill,ward\n4711x,True,1\n", "column 'age' is .*not numbers"),
        ("t.csv", b"ill,ward\nTrue,1\n", "column 'age' is missing"),
        ("t.csv", b"\xff\xfe4711", "cannot be read as csv"),
        ("t.csv", b"age,ill,ward\n", "has no rows"),
        ("t.jsonl", b"[4711]", "cannot be read as jsonl"),
        ("t.jsonl", b'{"age": 4711}', "column 'ill' is missing"),
        ("t.jsonl", b"4711", "cannot be read as jsonl"),
        ("t.parquet", b"4711", "cannot be read as parquet"),
        ("t.xlsx", b"4711", "cannot be read as excel"),
    ],
)
def test_an_unusable_table(name: str, content: bytes, words: str, schema: Path, tmp_path: Path) -> None:
    """One sentence, and never a value of it."""
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=words) as failed:
        prepare(tmp_path / name, schema, None)
    assert "4711" not in str(failed.value)
    assert failed.value.__suppress_context__ or failed.value.__context__ is None


@pytest.mark.parametrize(("name", "content"), [("t.csv", "age,ill,ward\n"), ("t.jsonl", "")])
def test_no_rows_where_that_is_meant(name: str, content: str, schema: Path, tmp_path: Path) -> None:
    """Bound, loaded, and summed as nothing."""
    (tmp_path / name).write_text(content)
    assert prepare(tmp_path / name, schema, None, allow_empty=True).bound.report.rows == 0


def test_a_missing_table_or_schema(schema: Path, tmp_path: Path) -> None:
    """Each is named."""
    with pytest.raises(DataError, match="there is no table"):
        prepare(tmp_path / "none.csv", schema, None)
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(DataError, match="there is no table"):
        prepare(tmp_path / "folder.csv", schema, None)
    FRAME.to_csv(tmp_path / "t.csv")
    with pytest.raises(Misuse, match="there is no file"):
        prepare(tmp_path / "t.csv", tmp_path / "none.yaml", None)
    for text, words in (("\xff", "UTF-8"), ("a: [", "YAML"), ("records: 0\ncolumns: {}", "at least one record")):
        schema.write_bytes(text.encode("latin-1"))
        with pytest.raises(Misuse, match=words) as failed:
            prepare(tmp_path / "t.csv", schema, None)
        assert str(schema) in str(failed.value)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"name": "other"}, "the policy is for 'tumours' version 1"),
        ({"version": 2}, "it is 'tumours' version 2"),
        ({"columns": {"age": {"lower": -1, "upper": 50}}}, "column 'age' has bounds"),
        ({"columns": {"age": {"classes": [1, 2]}}}, "column 'age' has classes"),
        ({"columns": {"ill": {"lower": 0, "upper": 1}}}, "column 'ill' is a number here and a category there"),
        ({"columns": {"ill": {"classes": [0, 1]}}}, "column 'ill' has classes"),
        ({"columns": {"other": {"lower": 0, "upper": 1}}}, "allows none of its columns"),
    ],
)
def test_a_schema_beyond_the_policy(changes: dict[str, object], words: str) -> None:
    """Named, with what the policy allows."""
    policy = Policy(**policy_fields())
    fields = {"name": "tumours", "version": 1, "records": 10, "columns": {"age": {"lower": 0, "upper": 110}}}
    check_schema(Schema.from_dict(fields), policy)
    check_schema(
        Schema.from_dict({**fields, "columns": {"age": {"lower": 5, "upper": 10}, "x": {"lower": 0, "upper": 1}}}),
        policy,
    )
    with pytest.raises(Misuse, match=words):
        check_schema(Schema.from_dict({**fields, **changes}), policy)


class TestLater:
    """After binding: the file is read again at each start, and what changed is said."""

    @pytest.fixture
    def bound(self, scene: Scene) -> Scene:
        scene.join(table=scene.table())
        return scene

    def opened(self, scene: Scene) -> int:
        with SiteHome.open(scene.folder("north"), PASS, NOW) as site:
            return site.bound.report.rows

    def test_more_rows_are_taken(self, bound: Scene) -> None:
        (bound.root / "rows.csv").write_text(ROWS + "12,False,q\n")
        assert self.opened(bound) == 4

    @pytest.mark.parametrize(
        ("rows", "words"),
        [
            (None, "is not there; put it back, or bind"),
            ("age,sick\n1,True\n", "column 'ill' is missing.*It was bound with age"),
            ("age,ill\nx,True\n", "not numbers.*It was bound with"),
            ("age,ill\n", "has no rows"),
            ("", "cannot be read as csv"),
        ],
    )
    def test_vanished_changed_or_empty(self, bound: Scene, rows: str | None, words: str) -> None:
        path = bound.root / "rows.csv"
        path.unlink() if rows is None else path.write_text(rows)
        with pytest.raises(DataError, match=words):
            self.opened(bound)
        path.write_text(ROWS)
        assert self.opened(bound) == 3

    def test_a_refused_binding_leaves_the_old_one(self, bound: Scene) -> None:
        before = tree(bound.folder("north"))
        for rows, words in (("age\n1\n", "'ill' is missing"), ("age,ill\n", "no rows")):
            with pytest.raises(DataError, match=words):
                SiteHome.bind(bound.folder("north"), PASS, NOW, bound.table(rows, "new.csv"))
        assert tree(bound.folder("north")) == before
        SiteHome.bind(bound.folder("north"), PASS, NOW, bound.table("age,ill\n", "new.csv", allow_empty=True))
        assert self.opened(bound) == 0

    def test_a_schema_that_was_edited_in_place(self, bound: Scene) -> None:
        with open(bound.folder("north") / "schema.yaml", "a") as stream:
            stream.write("# widened\n")
        with pytest.raises(Misuse, match=r"schema\.yaml is not the schema that was bound"):
            self.opened(bound)
        (bound.folder("north") / "schema.yaml").unlink()
        with pytest.raises(Misuse, match=r"no file .*schema\.yaml"):
            self.opened(bound)

    def test_nothing_bound(self, scene: Scene) -> None:
        scene.join()
        with pytest.raises(Misuse, match="privfl site data"):
            self.opened(scene)
        with pytest.raises(Misuse, match="has not joined yet"):
            SiteHome.bind(scene.folder("south"), PASS, NOW, scene.table())

    def test_a_crash_between_the_two_files(self, bound: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
        """New schema, old configuration: said, and finished by the same command."""
        folder, table = bound.folder("north"), bound.table("age,ill\n3,True\n", "new.csv")
        table.schema.write_text(SCHEMA.replace("600", "700"))
        with monkeypatch.context() as crash:
            crash.setattr(SiteConfig, "write", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
            with pytest.raises(KeyboardInterrupt):
                SiteHome.bind(folder, PASS, NOW, table)
        with pytest.raises(Misuse, match="not the schema that was bound"):
            self.opened(bound)
        SiteHome.bind(folder, PASS, NOW, table)
        assert self.opened(bound) == 1

    def test_no_row_or_count_stays_in_the_folder(self, bound: Scene) -> None:
        """Neither the rows, nor how many, nor a value."""
        assert self.opened(bound) == 3
        for name, content in tree(bound.folder("north")).items():
            for value in (b"41.5", b"77.25", b"63.125", b"rows bound"):
                assert value not in content, name


def test_keep_and_load_are_inverse(schema: Path, tmp_path: Path) -> None:
    """What is written down reads back, with an absolute path."""
    FRAME.to_csv(tmp_path / "t.csv", index=False)
    binding = prepare(tmp_path / "t.csv", schema, None)
    assert isinstance(binding, Binding)
    config = SiteConfig(federation="trial", name="north", fingerprint="x")
    kept = keep(tmp_path, config, binding)
    assert SiteConfig.read(tmp_path) == kept
    assert kept.data is not None
    assert Path(kept.data.path).is_absolute()
    assert (tmp_path / data.SCHEMA).read_bytes() == binding.schema_text
    assert load(tmp_path, kept, Policy(**policy_fields())).bound.report == binding.bound.report
