"""``privfl demo``: one object or readable tables, a folder written whole or not at all, every failure a message."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import privfl
from privfl.cli.demo import Seen, check_folder
from privfl.errors import Misuse
from privfl.learn.datasets import breast_cancer_sites
from tests.cli.support import COMMAND, Ran, called, environment

KEYS = [
    *("sites", "dropped", "rounds", "epsilon", "delta", "accuracy"),
    *("upload_bytes_per_parameter", "transcripts_verified", "seconds"),
]
WRITTEN = {"model.json", "history.csv", "privacy.json", "privfl-demo.json", "transcripts"}


def test_json_is_exactly_one_object(demo_run: tuple[Ran, Path]) -> None:
    """One line, one object, the documented keys in their order, nothing on standard error."""
    ran, _ = demo_run
    assert (ran.code, ran.err) == (0, "")
    assert len(ran.out.splitlines()) == 1
    found = json.loads(ran.out)
    assert list(found) == KEYS
    assert list(found["accuracy"]) == ["pooled", "distributed", "local", "alone"]


def test_what_the_demo_says_of_itself(demo_json: dict[str, Any]) -> None:
    """Thirty rounds within the budget, one site dead in one of them, every transcript verified."""
    assert (demo_json["sites"], demo_json["rounds"], demo_json["transcripts_verified"]) == (5, 30, 30)
    assert demo_json["dropped"] == [{"round": 12, "sites": ["south"]}]
    assert 1.9 < demo_json["epsilon"] <= 2.0
    assert demo_json["delta"] == 1e-5
    accuracy = demo_json["accuracy"]
    assert all(0.5 < value <= 1 for value in accuracy.values())
    assert accuracy["pooled"] > 0.95
    assert accuracy["distributed"] > 0.85
    assert 8 < demo_json["upload_bytes_per_parameter"] < 1000
    assert demo_json["seconds"] > 0


def test_what_lies_in_the_folder(demo_run: tuple[Ran, Path], demo_json: dict[str, Any]) -> None:
    """A model that scores what was said, the history, the report, thirty transcripts; no leftovers."""
    _, folder = demo_run
    assert {path.name for path in folder.iterdir()} == WRITTEN
    assert json.loads((folder / "privfl-demo.json").read_text()) == demo_json
    assert len(list((folder / "transcripts").glob("*.transcript"))) == 30
    _, schema, held = breast_cancer_sites(5, 1)
    model = privfl.load_model(folder / "model.json")
    score = model.score(held[list(schema.numeric)], held["malignant"])
    assert score == pytest.approx(demo_json["accuracy"]["distributed"], abs=1e-4)


def test_tables(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A reader sees who dies, how good the model is, what it cost, and what the coordinator saw."""
    ran = called(capfd, monkeypatch, "demo", "--seed", "2", "--sites", "4", "--dir", tmp_path / "out")
    assert (ran.code, ran.err) == (0, "")
    flat = " ".join(ran.out.split())
    for words in (
        "4 hospitals share",
        "east will be killed in round 4, between accepting and uploading",
        "round 4: east died, the other 3 went on",
        "How good is the model?",
        "all rows in one place, no privacy",
        "one site alone at the same epsilon",
        "What did it cost?",
        "epsilon, delta",
        "if all other sites collude",
        "What did the coordinator see?",
        "such a vector begins",
        "and the opened sum",
        "transcripts verified",
        "4 of 4",
        "privfl transcript verify",
    ):
        assert words in flat, words
    assert max(len(line) for line in ran.out.splitlines()) <= 80 + len(str(tmp_path)) + 60


BAD: dict[str, tuple[list[str], int, str]] = {
    "epsilon that is no number": (["--epsilon", "two"], 2, "'two' is not a valid float"),
    "epsilon of zero": (["--epsilon", "0"], 2, "epsilon is 0"),
    "negative epsilon": (["--epsilon", "-1"], 2, "epsilon is -1"),
    "epsilon nan": (["--epsilon", "nan"], 2, "epsilon is nan"),
    "infinite epsilon": (["--epsilon", "inf"], 2, "epsilon is inf"),
    "a budget too small for one round": (["--epsilon", "0.0001"], 5, "too small for one round"),
    "too few sites": (["--sites", "3"], 2, "needs 4 to 20"),
    "too many sites": (["--sites", "21"], 2, "needs 4 to 20"),
    "a seed below zero": (["--seed", "-3"], 2, "--seed"),
    "a seed too large": (["--seed", "99999999999"], 2, "--seed"),
    "an option that is none": (["--rounds", "3"], 2, "--rounds"),
    "a word too many": (["now"], 2, "now"),
}


@pytest.mark.parametrize("case", BAD)
@pytest.mark.parametrize("form", ["tables", "json"])
def test_wrong_arguments(
    case: str, form: str, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A message, the documented exit code, and no folder; with --json nothing at all on standard output."""
    args, code, words = BAD[case]
    more = ["--json"] if form == "json" else []
    ran = called(capfd, monkeypatch, "demo", *args, *more, "--dir", tmp_path / "out").failed(code, words)
    assert not (tmp_path / "out").exists()
    assert list(tmp_path.iterdir()) == []
    if form == "json":
        assert ran.out == ""


def places(tmp_path: Path) -> dict[str, Path]:
    """Folders that cannot be written to, even by root."""
    (tmp_path / "file").write_text("in the way")
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "thesis.txt").write_text("three years of work")
    return {
        "a file": tmp_path / "file",
        "below a file": tmp_path / "file" / "out",
        "the process table": Path("/proc/privfl-demo"),
        "a folder of someone else's": tmp_path / "foreign",
        "a name that is too long": tmp_path / ("x" * 300),
    }


PLACES = ["a file", "below a file", "the process table", "a folder of someone else's", "a name that is too long"]


@pytest.mark.parametrize("place", PLACES)
def test_folders_that_will_not_do(
    place: str, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Found out before the training starts, said by name, and everything there is as it was."""
    folder = places(tmp_path)[place]
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    called(capfd, monkeypatch, "demo", "--dir", folder).failed(2, "choose a")
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_again_into_the_same_folder(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A second demo replaces the first; one that fails leaves the first as it was."""
    folder = tmp_path / "out"
    assert called(capfd, monkeypatch, "demo", "--json", "--dir", folder, "--seed", "1").code == 0
    first = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    called(capfd, monkeypatch, "demo", "--dir", folder, "--epsilon", "0.0001").failed(5)
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == first
    again = called(capfd, monkeypatch, "demo", "--json", "--dir", folder, "--seed", "3", "--sites", "4")
    assert again.code == 0
    assert {path.name for path in folder.iterdir()} == WRITTEN
    assert json.loads((folder / "privfl-demo.json").read_text())["sites"] == 4
    second = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert len(second) == len(first)
    assert all(second[path] != data for path, data in first.items() if path.suffix == ".transcript")


def test_an_empty_folder_and_an_earlier_demo_are_fine(tmp_path: Path) -> None:
    """What may be used is not touched by looking at it."""
    check_folder(tmp_path)
    check_folder(tmp_path / "a" / "b")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "privfl-demo.json").write_text("{}")
    check_folder(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["privfl-demo.json"]
    (tmp_path / "privfl-demo.json").rename(tmp_path / "other.json")
    with pytest.raises(Misuse, match="holds no earlier demo"):
        check_folder(tmp_path)


@pytest.mark.parametrize("pause", [0.0, 1.0])
def test_an_interrupt_ends_with_a_message(pause: float, tmp_path: Path) -> None:
    """Ctrl-C in the middle of a training: exit code 130, one line, no traceback, nothing written."""
    args = [*COMMAND, "demo", "--dir", str(tmp_path / "out")]
    pipe = subprocess.PIPE
    with subprocess.Popen(args, stdout=pipe, stderr=pipe, text=True, env=environment()) as running:
        assert running.stdout is not None
        assert "hospitals share" in running.stdout.readline()
        time.sleep(pause)
        running.send_signal(signal.SIGINT)
        _, err = running.communicate(timeout=60)
        Ran(running.returncode, "", err).failed(130, "interrupted", "stays charged")
    assert list(tmp_path.iterdir()) == []


def test_uniformity_is_judged() -> None:
    """The p-value shown as proof is one: uniform bytes pass, a vector that is not masked fails."""
    rng = np.random.default_rng(5)
    seen, plain = Seen(), Seen()

    class Result:
        total = np.arange(3)

    for number in range(20):
        seen.observe(number, Result, {"a": rng.bytes(500), "b": rng.bytes(500)})
        plain.observe(number, Result, {"a": np.arange(125, dtype="<i4").tobytes()})
    assert seen.vectors == 40
    assert seen.uniformity() > 1e-6
    assert plain.uniformity() < 1e-6
    assert seen.example is not None
    assert seen.example[2] == [0, 1, 2]
