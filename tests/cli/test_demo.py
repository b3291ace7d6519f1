"""``privfl demo``: one object or readable tables, a folder written whole or not at all, every failure a message."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import privfl
from privfl.cli import demo_wires
from privfl.cli.demo_children import Children, end_with_parent, raised_again
from privfl.cli.demo_folder import check_folder, users_folder
from privfl.cli.demo_outcome import LedgerFound, Seen
from privfl.cli.demo_show import _fate
from privfl.errors import BudgetExceeded, Misuse, PrivflError, Unverified
from privfl.learn.datasets import breast_cancer_sites
from tests.cli.support import COMMAND, Ran, called, environment

KEYS = [
    *("sites", "dropped", "rounds", "epsilon", "delta", "accuracy"),
    *("upload_bytes_per_parameter", "transcripts_verified", "ledgers_verified", "spent", "wire", "seconds"),
]
NAMES = ["north", "south", "east", "west", "central"]
RESULTS = {"model.json", "history.csv", "privacy.json", "privfl-demo.json", "transcripts"}
MEMORY = ("--wire", "memory")


@pytest.mark.parametrize("which", ["demo_run", "memory_run"])
def test_json_is_exactly_one_object(which: str, request: pytest.FixtureRequest) -> None:
    """One line, one object, the documented keys in their order, nothing on standard error."""
    ran, _ = request.getfixturevalue(which)
    assert (ran.code, ran.err) == (0, "")
    assert len(ran.out.splitlines()) == 1
    found = json.loads(ran.out)
    assert list(found) == KEYS
    assert list(found["accuracy"]) == ["pooled", "distributed", "local", "alone"]
    assert list(found["spent"]) == NAMES


def test_what_the_demo_says_of_itself(demo_json: dict[str, Any]) -> None:
    """Thirty rounds within the budget, a killed process missing from a sum, every transcript and ledger verified."""
    assert (demo_json["sites"], demo_json["rounds"], demo_json["transcripts_verified"]) == (5, 30, 30)
    assert demo_json["ledgers_verified"] == 5
    missed = [found["round"] for found in demo_json["dropped"] if "south" in found["sites"]]
    assert missed
    assert missed[0] >= 12
    assert 1.9 < demo_json["epsilon"] <= 2.0
    assert demo_json["delta"] == 1e-5
    assert all(1.5 < spent <= 2.0 for spent in demo_json["spent"].values())
    accuracy = demo_json["accuracy"]
    assert all(0.5 < value <= 1 for value in accuracy.values())
    assert accuracy["pooled"] > 0.95
    assert accuracy["distributed"] > 0.85
    assert 8 < demo_json["upload_bytes_per_parameter"] < 1000
    assert demo_json["seconds"] > 0


def test_what_the_memory_demo_says_of_itself(memory_run: tuple[Ran, Path]) -> None:
    """The same run in one process: no ledgers on disk, and the death is exactly where it was announced."""
    found = json.loads(memory_run[0].out)
    assert found["dropped"] == [{"round": 12, "sites": ["south"]}]
    assert found["ledgers_verified"] == 0
    assert all(spent == found["epsilon"] for spent in found["spent"].values())


def test_what_lies_in_the_folder(demo_run: tuple[Ran, Path], demo_json: dict[str, Any]) -> None:
    """A model that scores what was said, the history, the report, thirty transcripts, all roles; no leftovers."""
    _, folder = demo_run
    assert {path.name for path in folder.iterdir()} == {*RESULTS, "federation", "rows", "passphrase"}
    assert stat.S_IMODE((folder / "passphrase").stat().st_mode) == 0o600
    roles = {"authority", "coordinator", "officer", "wire", "policy.signed", "schema.yaml", "task.yaml"}
    assert {path.name for path in (folder / "federation").iterdir()} == {*roles, *NAMES}
    assert json.loads((folder / "privfl-demo.json").read_text()) == demo_json
    assert len(list((folder / "transcripts").glob("*.transcript"))) == 30
    _, schema, held = breast_cancer_sites(5, 1)
    model = privfl.load_model(folder / "model.json")
    score = model.score(held[list(schema.numeric)], held["malignant"])
    assert score == pytest.approx(demo_json["accuracy"]["distributed"], abs=1e-4)


def test_going_on_with_what_is_left(
    demo_run: tuple[Ran, Path], capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The steps that the demo prints work on its folder; the killed site's ledger covers what it uploaded."""
    _, folder = demo_run
    south = folder / "federation" / "south"
    monkeypatch.delenv("PRIVFL_PASSPHRASE", raising=False)
    ran = called(capfd, monkeypatch, "ledger", "verify", south, "--transcripts", folder / "transcripts", "--json")
    (found,) = json.loads(ran.out)["files"]
    assert 0 < found["matched"] < 30
    assert found["open"] == 0
    assert found["counts"]["reserve"] >= 29
    for command in (["ledger", "show", south], ["policy", "explain", folder / "federation" / "policy.signed"]):
        assert called(capfd, monkeypatch, *command).code == 0
    status = json.loads(called(capfd, monkeypatch, "site", "status", south, "--json").out)
    assert (status["life"], status["round"]) == ("done", 30)


def test_the_sites_can_be_operated_further(
    demo_run: tuple[Ran, Path], capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The passphrase that lies in the folder opens every party's store; another one does not."""
    _, folder = demo_run
    for word, code in (((folder / "passphrase").read_text().strip(), 0), ("some other words", 2)):
        monkeypatch.setenv("PRIVFL_PASSPHRASE", word)
        assert called(capfd, monkeypatch, "site", "request", folder / "federation" / "south").code == code


def test_no_process_is_left(demo_run: tuple[Ran, Path]) -> None:
    """Whoever served below the folder has ended."""
    assert relatives(demo_run[1]) == []


def relatives(folder: Path) -> list[int]:
    """Processes that were given a path below ``folder``, the tests themselves apart."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().split(b"\0")
        except OSError:
            continue  # it ended meanwhile
        inside = [word for word in words if word.startswith(f"{folder}/federation".encode())]
        if inside:
            found.append(int(path.parent.name))
    return found


def test_tables(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A reader sees who dies, how good the model is, what it cost, and what the coordinator saw."""
    ran = called(capfd, monkeypatch, "demo", *MEMORY, "--seed", "2", "--sites", "4", "--dir", tmp_path / "out")
    assert (ran.code, ran.err) == (0, "")
    flat = " ".join(ran.out.split())
    for words in (
        "4 hospitals share",
        "east will be killed in round 2, between accepting and uploading",
        "round 2: east died, the other 3 went on",
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
        "Wire: memory; nothing left this process.",
    ):
        assert words in flat, words
    assert max(len(line) for line in ran.out.splitlines()) <= 80 + len(str(tmp_path)) + 60


BAD: dict[str, tuple[list[str], int, str]] = {
    "epsilon that is no number": (["--epsilon", "two"], 2, "'two' is not a valid float"),
    "epsilon of zero": (["--epsilon", "0"], 2, "epsilon is 0"),
    "negative epsilon": (["--epsilon", "-1"], 2, "epsilon is -1"),
    "epsilon nan": (["--epsilon", "nan"], 2, "epsilon is nan"),
    "infinite epsilon": (["--epsilon", "inf"], 2, "epsilon is inf"),
    "an epsilon that protects nobody": (["--epsilon", "1001"], 2, "epsilon"),
    "a wire that is none": (["--wire", "pigeon"], 2, "pigeon"),
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
    assert called(capfd, monkeypatch, "demo", *MEMORY, "--json", "--dir", folder, "--seed", "1").code == 0
    first = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    called(capfd, monkeypatch, "demo", "--dir", folder, "--epsilon", "0.0001").failed(5)
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == first
    again = called(capfd, monkeypatch, "demo", *MEMORY, "--json", "--dir", folder, "--seed", "3", "--sites", "4")
    assert again.code == 0
    assert {path.name for path in folder.iterdir()} == RESULTS
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


def started(*args: str | Path) -> subprocess.Popen[str]:
    """A demo as a process, that has said its first line."""
    pipe = subprocess.PIPE
    running = subprocess.Popen(
        [*COMMAND, "demo", *map(str, args)], stdout=pipe, stderr=pipe, text=True, env=environment()
    )
    assert running.stdout is not None
    assert "hospitals share" in running.stdout.readline()
    return running


def until(what: str, holds: Any, seconds: float = 60.0) -> None:
    """Wait until ``holds()``."""
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, what
        time.sleep(0.05)


def test_an_interrupt_ends_with_a_message(tmp_path: Path) -> None:
    """Ctrl-C in the middle of a training in one process: exit code 130, one line, no traceback, nothing written."""
    with started(*MEMORY, "--dir", tmp_path / "out") as running:
        running.send_signal(signal.SIGINT)
        _, err = running.communicate(timeout=60)
        Ran(running.returncode, "", err).failed(130, "interrupted", "stays charged")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("when", ["founding", "running"])
def test_an_interrupt_ends_every_process(when: str, tmp_path: Path) -> None:
    """Ctrl-C while the folders are made, and while processes work: all of them end, and nothing is left."""
    out = tmp_path / "out"
    with started("--dir", out) as running:
        if when == "founding":
            until("the folders are being made", (out / "federation").exists)
        else:
            until("the processes run", lambda: len(relatives(out)) == 6)
        running.send_signal(signal.SIGINT)
        _, err = running.communicate(timeout=60)
        Ran(running.returncode, "", err).failed(130, "interrupted", "stays charged")
    assert relatives(out) == []
    assert list(tmp_path.iterdir()) == []


def test_a_killed_demo_leaves_no_process(tmp_path: Path) -> None:
    """SIGKILL leaves it no time to clean up: its processes end by themselves, and the next demo takes the folder."""
    out = tmp_path / "out"
    with started("--dir", out) as running:
        until("the processes run", lambda: len(relatives(out)) == 6)
        running.kill()
    until("all have ended", lambda: not relatives(out))
    check_folder(out)
    with users_folder(out) as place:
        assert not (place / "federation").exists()


def test_what_was_there_comes_back_after_a_failure(tmp_path: Path) -> None:
    """A demo that fails, or is killed and followed by one that fails, leaves an earlier one's folders as they were."""
    out = tmp_path / "out"

    def work(name: str) -> None:
        with users_folder(out) as place:
            assert not (place / "federation").exists()
            (place / "federation").mkdir()
            (place / "federation" / name).touch()
            if name == "failed":
                raise BudgetExceeded("no")

    work("first")
    for _ in range(2):
        with pytest.raises(BudgetExceeded):
            work("failed")
        assert (out / "federation" / "first").exists()
    with users_folder(out) as place:  # one that is killed never leaves this block
        (place / "federation").mkdir()
        with pytest.raises(BudgetExceeded):
            work("failed")
        assert (out / "federation" / "first").exists()
        work("last")
    assert [path.name for path in (out / "federation").iterdir()] == ["last"]
    assert {path.name for path in out.iterdir()} == {"federation", "privfl-demo.json"}


def test_a_process_that_cannot_start(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """One site's process ends at its start: its own message and exit code, no success, nothing left."""
    start = demo_wires.start_site

    def misled(scene: demo_wires.Scene, name: str) -> None:
        if name == "east":
            for path in (scene.trial.sites[name] / "ledger").glob("*.db"):
                path.write_bytes(b"not a ledger")
        start(scene, name)

    monkeypatch.setattr(demo_wires, "start_site", misled)
    ran = called(capfd, monkeypatch, "demo", "--json", "--dir", tmp_path / "out")
    ran.failed(3, "Unverified", "the process of east ended by itself (exit code 3)", "ledger")
    assert ran.out == ""
    assert list(tmp_path.iterdir()) == []


def test_children_and_their_errors(tmp_path: Path) -> None:
    """How a child ended is told in its own words; one that is stopped is ended as well."""
    python = (sys.executable, "-c")
    with Children(tmp_path, "secret words") as children:
        children.start("calm", "import time; time.sleep(60)", command=python)
        os.kill(children["calm"].pid, signal.SIGSTOP)
        children.check({})
        children.start("silent", "raise SystemExit(7)", command=python)
        assert children["silent"].wait() == 7
        with pytest.raises(PrivflError, match=r"silent ended by itself \(exit code 7\): it said nothing") as caught:
            children.check({})
        assert caught.value.exit_code == 7
        children.check({"silent": 7})
        children.start("silent", "import os; os.kill(os.getpid(), 9)", command=python)
        assert children["silent"].wait() == -9
        with pytest.raises(PrivflError, match=r"signal 9"):
            children.check({})
        calm = children["calm"]
    assert calm.returncode is not None
    assert isinstance(raised_again("Unverified", "no"), Unverified)
    assert raised_again("annotations", "no", 4).exit_code == 4


def test_a_process_is_told_when_its_parent_is_another(monkeypatch: pytest.MonkeyPatch) -> None:
    """A child that begins after its parent was killed ends at once."""
    code = "from privfl.cli.demo_children import end_with_parent; end_with_parent()"
    for parent, expected in ((os.getpid(), 0), (os.getpid() + 1, 1)):
        environ = {**os.environ, "PRIVFL_DEMO_PARENT": str(parent)}
        assert subprocess.run([sys.executable, "-c", code], env=environ, check=False).returncode == expected
    assert callable(end_with_parent)


def test_the_fate_of_a_charge_is_told() -> None:
    """Burnt, refunded or settled, by what the ledger says."""

    def told(settled: int, burnt: int, refunded: int) -> str:
        return _fate(LedgerFound("south", 60, 29, settled, burnt, refunded, 1.9), 12)

    assert "was burnt" in told(29, 1, 0)
    assert "was refunded" in told(29, 0, 1)
    assert "too late" not in told(29, 0, 1)
    assert "was refunded" in told(30, 0, 1)
    assert "too late" in told(30, 0, 1)
    assert "was settled" in told(30, 0, 0)


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
    assert Seen.of(json.loads(json.dumps(seen.plain()))) == seen
