"""``privfl ledger``: shown, verified and exported without a passphrase; what does not verify exits with 3."""

from __future__ import annotations

import json
import os
from fractions import Fraction
from pathlib import Path

import pytest
from typer.testing import CliRunner

from privfl.budget import Ledger, Limits, Purpose, read_ledger
from privfl.cli.ledger import app
from privfl.dp import Unit
from tests.budget.ledgers import KEY, OTHER, POLICY, START, budget, charge, made, rewrite
from tests.budget.rounds import rounds
from tests.cli.support import Ran, called, environment, process
from tests.harness import Harness

Patch = pytest.MonkeyPatch
Capture = pytest.CaptureFixture[str]


class Command:
    """``privfl ledger`` in this process."""

    def __init__(self, capfd: Capture, monkeypatch: Patch) -> None:
        self._capfd, self._monkeypatch = capfd, monkeypatch

    def __call__(self, *args: str | Path) -> Ran:
        """Run it."""
        return called(self._capfd, self._monkeypatch, "ledger", *args)


@pytest.fixture
def ledger(capfd: Capture, monkeypatch: Patch) -> Command:
    """The command."""
    return Command(capfd, monkeypatch)


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A site's folder, with a ledger and with a state that is none."""
    folder = tmp_path / "north"
    (folder / "ledger").mkdir(parents=True)
    (folder / "state.db").write_bytes(b"sealed")
    made(folder / "ledger" / "patients.db")
    return folder


def flat(text: str) -> str:
    """Words of a table, without its lines."""
    return " ".join(text.replace("│", " ").split())


def test_show_a_site(site: Path) -> None:
    """As a process: entries, totals, the plot, the budget."""
    ran = process("ledger", "show", site)
    assert (ran.code, ran.err) == (0, "")
    assert "Ledger of patients in north" in ran.out
    assert "9 entries, verified" in flat(ran.out)
    assert "Spent per record, for life" in ran.out
    assert "analyst ann" in ran.out
    assert "Budget: epsilon 5, mu^2 100." in ran.out
    assert "Epsilon over time" in ran.out
    assert ran.out.count("*") >= 60


def test_the_plot_fits_a_narrow_terminal(site: Path) -> None:
    """No line of it is broken in two."""
    env = {**environment(), "COLUMNS": "50"}
    lines = CliRunner().invoke(app, ["show", str(site)], env=env).output.split("Epsilon over time")[1].splitlines()
    (axis,) = (line for line in lines if "+--" in line)
    assert axis.strip() == "+" + "-" * 41


def test_show_as_json(site: Path, ledger: Command) -> None:
    """One object; as many entries as asked for, with ε after each that changed it."""
    found = json.loads(ledger("show", site, "--json", "--last", "3").out)["ledgers"][0]
    assert (found["entries"], found["population"], found["open"]) == (9, "patients", 1)
    assert [entry["kind"] for entry in found["ledger"]] == ["reserve", "settle", "reserve"]
    assert found["ledger"][1]["epsilon"] is None
    assert 0 < found["ledger"][0]["epsilon"] < found["ledger"][2]["epsilon"] == found["epsilon"]
    assert found["spent"]["record"] == ["0.4", "0"]
    assert len(json.loads(ledger("show", site, "--json", "--last", "0").out)["ledgers"][0]["ledger"]) == 9


def test_show_while_the_site_runs(site: Path, ledger: Command) -> None:
    """The ledger is open for writing elsewhere; what is in it is shown, and nothing is left behind."""
    path = site / "ledger" / "patients.db"
    with Ledger.open(path, KEY) as running:
        running.reserve(charge(50), START + 10**6)
        assert json.loads(ledger("show", path, "--json").out)["ledgers"][0]["entries"] == 10
    assert [file.name for file in path.parent.iterdir()] == ["patients.db"]


def test_show_what_has_no_budget_or_a_window(tmp_path: Path, ledger: Command) -> None:
    """Before a policy, without noise, with a window: each says so, and nothing fails."""
    path = tmp_path / "x.db"
    with Ledger.create(path, KEY, federation="north", population="patients", now=START) as new:
        assert "No policy is in force." in ledger("show", path).out
        new.use(POLICY, 1, Limits(Unit.RECORD, None, noiseless=True), START)
        new.reserve(charge(1, units=(), trust=None), START)
        assert "nothing is protected" in flat(ledger("show", path).out)
        assert json.loads(ledger("show", path, "--json").out)["ledgers"][0]["epsilon"] is None
        window = Limits(Unit.RECORD, budget(1), {Purpose.TRAINING: Fraction(1)}, {}, 86_400_000, budget(9))
        new.use(POLICY, 2, window, START)
    out = flat(ledger("show", path).out)
    assert "no finite cost" in out
    assert "in any 1 days" in out
    assert "for life epsilon 5" in out


def test_words_in_a_ledger_do_not_steer_the_terminal(tmp_path: Path, ledger: Command) -> None:
    """Neither by control characters nor by markup."""
    path = tmp_path / "x.db"
    with Ledger.create(path, KEY, federation="north", population="[red]pat\x1b[2Jients", now=START) as new:
        new.note("[bold]note\x1b]0;x\x07", START)
    for command in ("show", "verify"):
        out = ledger(command, path).out
        assert "\x1b" not in out
        assert "[red]pat" in out


@pytest.mark.parametrize("name", ["epsilon.png", "epsilon.svg"])
def test_plot(name: str, site: Path, tmp_path: Path, ledger: Command) -> None:
    """Written once; not over a file without being told to."""
    target = tmp_path / name
    assert ledger("show", site, "--plot", target).code == 0
    assert target.stat().st_size > 1000
    ledger("show", site, "--plot", target).failed(2, "--force")
    assert ledger("show", site, "--plot", target, "--force").code == 0
    ledger("show", site, "--plot", tmp_path / "epsilon.txt").failed(2, ".png or .svg")


def test_verify(site: Path, tmp_path: Path, ledger: Command) -> None:
    """A folder, a file, an export; with the key from the roster there is nothing left to compare."""
    out = tmp_path / "ledger.json"
    assert ledger("export", site, "--out", out).code == 0
    ran = ledger("verify", site, site / "ledger" / "patients.db", out)
    assert ran.code == 0
    assert "3 ledger(s) verified" in ran.out
    assert "Compare its fingerprint" in ran.err
    head = read_ledger(site / "ledger" / "patients.db").head.hex()
    ran = ledger("verify", site, out, "--key", KEY.verify_key.raw.hex(), "--anchor", f"8:{head}", "--json")
    assert (ran.code, ran.err) == (0, "")
    found = json.loads(ran.out)
    assert (found["verified"], found["files"][0]["head"], found["files"][1]["entries"]) == (2, head, 9)


def test_verify_names_what_is_wrong(site: Path, tmp_path: Path, ledger: Command) -> None:
    """The first bad entry, a shorter file than remembered, another site's; exit code 3."""
    path, out = site / "ledger" / "patients.db", tmp_path / "ledger.json"
    head = read_ledger(path).head.hex()
    ledger("export", site, "--out", out)
    ledger("verify", site, "--key", OTHER.verify_key.raw.hex()).failed(3, "is the ledger of site")
    rewrite(path, lambda rows: rows[:-1])
    ledger("verify", site, "--anchor", f"8:{head}").failed(3, "ends with entry 7, and entry 8", "older copy")
    rewrite(path, lambda rows: rows[:3] + rows[4:])
    ledger("verify", site).failed(3, "entry 4 (reserve, 2026", "entry 3 should follow")
    ledger("show", site).failed(3, "entry 4")
    out.write_text(out.read_text().replace('"0.1"', '"0.0"', 1))
    ledger("verify", out).failed(3, "entry 2 (reserve,", "the export was edited")


def test_verify_against_transcripts(tmp_path: Path, ledger: Command) -> None:
    """Every upload was charged; a ledger whose end was cut off is caught by what was published."""
    path = tmp_path / "patients.db"
    key, transcripts = rounds(path)
    folder = tmp_path / "transcripts"
    folder.mkdir()
    for number, transcript in enumerate(transcripts):
        (folder / f"{number}.transcript").write_bytes(transcript.encode())
    ran = ledger("verify", path, "--transcripts", folder, "--key", key.verify_key.raw.hex(), "--json")
    assert json.loads(ran.out)["files"][0]["matched"] == 2
    assert "uploads" in ledger("verify", path, "--transcripts", folder).out
    rewrite(path, lambda rows: rows[:4])
    ledger("verify", path, "--transcripts", folder).failed(3, "epoch 1, round 2", "no entry of this one")
    (folder / "0.transcript").write_bytes(b"x")
    ledger("verify", path, "--transcripts", folder / "0.transcript").failed(3, "not a whole transcript")
    ledger("verify", path, "--transcripts", tmp_path).failed(2, "there is no transcript in")
    ledger("verify", path, "--transcripts", folder / "none").failed(2, "no such file")


def test_verify_the_transcripts_too(tmp_path: Path, ledger: Command) -> None:
    """With the authority's key nothing is left to compare; another authority and a ledger of no member are refused."""
    path, folder = tmp_path / "patients.db", tmp_path / "transcripts"
    harness = Harness.make(3, min_survivors=3)
    _, transcripts = rounds(path, harness=harness)
    root = harness.authority.verify_key.raw.hex()
    folder.mkdir()
    for number, transcript in enumerate(transcripts):
        (folder / f"{number}.transcript").write_bytes(transcript.encode())
    ran = ledger("verify", path, "--transcripts", folder, "--authority", root)
    assert "2 transcript(s) verified; their roster lists the key of every ledger here." in ran.out
    assert ran.err == ""
    assert json.loads(ledger("verify", path, "--transcripts", folder, "--authority", root, "--json").out)[
        "transcripts"
    ] == len(transcripts)
    ledger("verify", path, "--transcripts", folder, "--authority", KEY.verify_key.raw.hex()).failed(3, "0.transcript")
    ledger("verify", path, "--authority", root).failed(2, "give --transcripts as well")
    other = tmp_path / "other.db"
    made(other)
    ledger("verify", other, "--transcripts", folder, "--authority", root).failed(3, "other.db", "is not in roster")


def test_no_ledger_here(tmp_path: Path, ledger: Command) -> None:
    """A site that has not joined, a folder of transcripts, any other folder: each says what to do."""
    (tmp_path / "state.db").write_bytes(b"sealed")
    (tmp_path / "site.yaml").write_text("role: site\n")
    for command in ("show", "verify"):
        ledger(command, tmp_path).failed(2, "has no ledger yet", "privfl site join")
    (tmp_path / "rounds").mkdir()
    (tmp_path / "rounds" / "1.transcript").write_bytes(b"")
    ledger("verify", tmp_path / "rounds").failed(2, "give --transcripts before each")


def test_sealed_state_is_no_ledger(tmp_path: Path, ledger: Command) -> None:
    """Another role's folder, or the state in it: nobody is told to work on that database by hand."""
    (tmp_path / "coordinator.yaml").write_text("role: coordinator\n")
    (tmp_path / "state.db").write_bytes(b"SQLite format 3\0\x10\0\2\2")
    for command in ("show", "verify"):
        ledger(command, tmp_path).failed(2, "no site's folder", "name one of theirs")
        ledger(command, tmp_path / "state.db").failed(2, "sealed state and no ledger", "leave it alone")


def test_export(site: Path, tmp_path: Path, ledger: Command) -> None:
    """Whole or not at all, never over another file, and the same bytes every time."""
    out, again = tmp_path / "a.json", tmp_path / "b.json"
    ran = ledger("export", site, "--out", out, "--json")
    assert json.loads(ran.out)["bytes"] == out.stat().st_size
    assert ledger("export", out, "--out", again).code == 0
    assert out.read_bytes() == again.read_bytes()
    out.write_text("mine")
    ledger("export", site, "--out", out).failed(2, "--force")
    assert out.read_text() == "mine"
    assert ledger("export", site, "--out", out, "--force").code == 0
    assert out.read_bytes() == again.read_bytes()
    made(site / "ledger" / "staff.db")
    ledger("export", site, "--out", tmp_path / "c.json").failed(2, "holds 2 ledgers", "staff.db")
    ledger("show", site, "--plot", tmp_path / "c.png").failed(2, "name the file")
    assert len(json.loads(ledger("show", site, "--json").out)["ledgers"]) == 2


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("show", "nowhere"), "there is nothing at nowhere"),
        (("show", "."), "there is no ledger in ."),
        (("verify", "x.json", "--key", "zz"), "32 bytes in hexadecimal"),
        (("verify", "x.json", "--anchor", "zz"), "NUMBER:HASH"),
        (("verify", "x.json", "--anchor", "-1:" + "00" * 32), "NUMBER:HASH"),
        (("verify", "x.json", "--anchor", "1:00"), "NUMBER:HASH"),
        (("verify",), "Missing argument"),
        (("export", "x.json"), "--out"),
    ],
)
def test_wrong_calls(args: tuple[str, ...], words: str, tmp_path: Path, ledger: Command, monkeypatch: Patch) -> None:
    """One screen with the next step, exit code 2."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.json").write_text("{}")
    ledger(*args).failed(2, words)


def test_files_that_are_no_ledgers(tmp_path: Path, ledger: Command) -> None:
    """A text, an empty export, a folder in the place of a file."""
    (tmp_path / "x.db").write_text("no database, but long enough to be one")
    (tmp_path / "x.json").write_text("{}")
    ledger("show", tmp_path / "x.db").failed(3, "is no ledger")
    ledger("verify", tmp_path / "x.json").failed(3, "no export of a ledger")
    os.remove(tmp_path / "x.db")
    (tmp_path / "x.db").mkdir()
    ledger("show", tmp_path).failed(2, "no ledger at")


@pytest.mark.parametrize("command", ["show", "verify", "export"])
def test_help_has_an_example(command: str, ledger: Command) -> None:
    """Each command says how it is called."""
    ran = ledger(command, "--help")
    assert ran.code == 0
    assert f"Example: privfl ledger {command}" in flat(ran.out)
