"""``privfl schema``: a draft without a value of the data, a check that quotes none, and a page of what was agreed."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import typer
import yaml
from privfl_analytics import cli_schema
from privfl_analytics.drafting import _kind, draft, kinds, subjects
from typer.testing import CliRunner

from privfl.errors import DataError, Misuse
from privfl.tasks import FileSource, Schema

FRAME = pd.DataFrame(
    {
        "patientId": ["4711-a", "4711-b", "4711-c"],
        "age": [41.5, 77.25, 63.125],
        "stage": [1, 2, 2],
        "ill": [True, False, True],
        "ward: a": ["eye", "heart", "heart"],
        "no": ["x", "y", "z"],
    }
)
VALUES = ("4711", "41.5", "77.25", "63.125", "eye", "heart")
root = typer.Typer()
cli_schema.add_to(root)


def call(*args: object, fails: type[Exception] | None = None, code: int = 0) -> str:
    """What the command printed; ``fails`` is the complaint that ends it."""
    done = CliRunner().invoke(root, [str(arg) for arg in ("schema", *args)])
    if fails is not None:
        assert isinstance(done.exception, fails), done.output
        return str(done.exception)
    assert done.exit_code == code, (done.output, done.exception)
    return done.output


def written(folder: Path, name: str = "t.csv", frame: pd.DataFrame = FRAME) -> Path:
    """A table in the format of its ending."""
    path = folder / name
    if "jsonl" in name:
        frame.to_json(path, orient="records", lines=True)
    else:
        writers: dict[str, Any] = {"csv": frame.to_csv, "tsv": frame.to_csv, "xlsx": frame.to_excel}
        more = {"sep": "\t"} if name.endswith("tsv") else {}
        frame.to_parquet(path) if "parquet" in name else writers[name.split(".")[1]](path, index=False, **more)
    return path


@pytest.mark.parametrize("name", ["t.csv", "t.tsv", "t.csv.gz", "t.jsonl", "t.jsonl.xz", "t.parquet", "t.xlsx"])
def test_a_draft_knows_names_and_types_and_no_value(name: str, tmp_path: Path) -> None:
    """From every format the same; it is refused, naming what is to be filled in, until that is done."""
    out = tmp_path / "schema.yaml"
    said = call("draft", written(tmp_path, name), "--out", out)
    text = out.read_text()
    assert not any(value in text + said for value in VALUES)
    fields = yaml.safe_load(text)
    assert list(fields["columns"]) == ["age", "stage", "ill", "ward: a", "no"]
    assert "# subject: patientId" in text
    assert "subject" not in fields
    with pytest.raises(Misuse) as failed:
        Schema.from_yaml(out)
    for words in (
        "records: not filled in yet",
        "column 'age': lower and upper not filled in yet; write what is public knowledge",
        "column 'ward: a': classes not filled in yet",
    ):
        assert words in str(failed.value)
    assert "'ill'" not in str(failed.value)
    done = text.replace("records:", "records: 900").replace("lower:", "lower: 0").replace("upper:", "upper: 110")
    done = done.replace("classes: []", "classes: [p, q]").replace("# subject: patientId", "subject: patientId")
    schema = Schema.from_yaml(done.replace("# max_rows: 1", "max_rows: 2"))
    assert (schema.subject, schema.max_rows, schema.name) == ("patientId", 2, "t")
    assert set(schema.columns) == set(fields["columns"])


def test_a_draft_on_the_screen_and_as_json(tmp_path: Path) -> None:
    """YAML that can be read back as it is; or one object with kinds and candidates."""
    path = written(tmp_path)
    assert yaml.safe_load(call("draft", path)) == yaml.safe_load(json.loads(call("draft", path, "--json"))["text"])
    found = json.loads(call("draft", path, "--json"))
    assert found["subject_candidates"] == ["patientId"]
    assert found["columns"]["age"] == "number"
    out = tmp_path / "mine"
    out.write_text("mine")
    assert "is there already" in call("draft", path, "--out", out, fails=Misuse)
    assert out.read_text() == "mine"


def test_a_draft_of_a_database(tmp_path: Path) -> None:
    """Its declared types; the schema is named after the table."""
    path = tmp_path / "clinic.db"
    with closing(sqlite3.connect(path)) as base:
        base.execute("CREATE TABLE visits (pid INTEGER, age REAL, ward TEXT, seen TIMESTAMP, ill BOOLEAN)")
        base.execute("INSERT INTO visits VALUES (4711, 41.5, 'eye', '2020-01-01', 1)")
        base.commit()
    text = call("draft", "--database", f"sqlite://{path}", "--table", "visits")
    assert not any(value in text for value in (*VALUES, "2020"))
    fields = yaml.safe_load(text)
    assert (fields["name"], list(fields["columns"])) == ("visits", ["age", "ward", "ill"])
    assert "# seen: is neither number, text nor truth value" in text
    assert "# subject: pid" in text


def test_what_cannot_be_drafted(tmp_path: Path) -> None:
    """One sentence each, without a value."""
    assert "there is no table" in call("draft", tmp_path / "none.csv", fails=DataError)
    assert "no table was named" in call("draft", fails=Misuse)
    (tmp_path / "t.jsonl").write_text("4711x")
    said = call("draft", tmp_path / "t.jsonl", fails=DataError)
    assert "cannot be read as jsonl" in said
    assert "4711" not in said
    (tmp_path / "t.csv").write_text("")
    call("draft", tmp_path / "t.csv", fails=DataError)
    (tmp_path / "e.jsonl").write_text("")
    with pytest.raises(DataError, match="has no columns"):
        kinds(FileSource(tmp_path / "e.jsonl", "jsonl"))


@pytest.mark.parametrize(
    ("told", "kind"),
    [
        ("BIGINT", "number"), ("DOUBLE", "number"), ("DECIMAL(18,3)", "number"), ("float8", "number"),
        ("int64", "number"), ("UTINYINT", "number"), ("numeric", "number"), ("REAL", "number"), ("BOOLEAN", "truth"),
        ("bool", "truth"),
        ("VARCHAR", "text"), ("large_string", "text"), ("bpchar", "text"), ("dictionary<values=string>", "text"),
        ("character varying", "text"), ("TIMESTAMP", "other"), ("DATE", "other"), ("timestamp[us]", "other"),
        ("BLOB", "other"), ("INTERVAL", "other"), ("INTEGER[]", "other"), ("any", "other"), ("", "other"),
    ],
)  # fmt: skip
def test_kinds_by_type_names(told: str, kind: str) -> None:
    """Of DuckDB, Arrow, PostgreSQL and SQLite."""
    assert _kind(told) == kind


def test_subjects_by_name_only() -> None:
    """Names that say whose row it is; not those that only contain the letters."""
    good = ["id", "ID", "pid", "patient_id", "PatientNumber", "subject", "person id", "case-id", "mrn", "personKey"]
    bad = ["age", "paid", "idea", "identity theft", "width", "valid", "ward_size", "patients", "liquid"]
    assert subjects(dict.fromkeys([*good, *bad], "text")) == tuple(good)
    assert subjects({"id": "truth", "pid": "other"}) == ()
    assert "# subject: COLUMN" in draft({"age": "number"}, "t")


# -- check and show -------------------------------------------------------------------------------------------

AGREED = """
name: visits
version: 3
records: 900
subject: patientId
max_rows: 2
columns:
  age: {lower: 0, upper: 110, unit: years, missing: [-9]}
  stage: {classes: [1, 2]}
  ill: {classes: [false, true]}
  "ward: a": {classes: [eye, heart]}
  "no": {max_length: 4}
"""


@pytest.fixture
def agreed(tmp_path: Path) -> Path:
    path = tmp_path / "agreed.yaml"
    path.write_text(AGREED)
    return path


@pytest.mark.parametrize("name", ["t.csv", "t.parquet"])
def test_a_table_that_fits(name: str, agreed: Path, tmp_path: Path) -> None:
    """Exit code 0, and what comes next."""
    said = call("check", written(tmp_path, name), "--schema", agreed)
    assert f"{tmp_path / name} fits schema visits version 3." in said
    assert f"Next: privfl site data FOLDER {tmp_path / name} --schema {agreed}" in " ".join(said.split())
    found = json.loads(call("check", tmp_path / name, "--schema", agreed, "--json"))
    assert (found["fits"], found["differences"]) == (True, [])
    assert found["digest"] == Schema.from_yaml(agreed).digest.hex()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda f: f.drop(columns="age"), "column 'age' is missing"),
        (lambda f: f.drop(columns="patientId"), "subject column 'patientId' is missing"),
        (lambda f: f.assign(age=f["age"] * 12), "column 'age' looks like another unit (the schema says years)"),
        (lambda f: f.assign(age=["eye", "eye", "eye"]), "column 'age' has nothing in it that is a number"),
        (
            lambda f: f.assign(**{"ward: a": ["eye", "heart", "4711"]}),
            "column 'ward: a' has values that are no declared",
        ),
    ],
)
def test_a_table_that_differs(change: Any, words: str, agreed: Path, tmp_path: Path) -> None:
    """In plain words, exit code 2, and never a value."""
    path = written(tmp_path, "t.csv", change(FRAME))
    said = call("check", path, "--schema", agreed, code=2)
    assert words in " ".join(said.split()), said
    assert not any(value in said for value in VALUES)
    found = json.loads(call("check", path, "--schema", agreed, "--json", code=2))
    assert not found["fits"]
    assert any(words in one for one in found["differences"])


def test_show(agreed: Path) -> None:
    """Every column, whose rows, and the digest that a policy signs."""
    said = call("show", agreed)
    for words in ("visits version 3", "0 to 110", "years", "eye, heart", "-9", "'patientId'", "up to 4 characters"):
        assert words in " ".join(said.split()), said
    assert Schema.from_yaml(agreed).digest.hex() in said
    found = json.loads(call("show", agreed, "--json"))
    assert found.pop("digest") == Schema.from_yaml(agreed).digest.hex()
    assert Schema.from_dict(found) == Schema.from_yaml(agreed)


def test_help_has_an_example() -> None:
    """For every command."""
    for name in ("draft", "check", "show"):
        assert f"Example: privfl schema {name}" in " ".join(call(name, "--help").split())
