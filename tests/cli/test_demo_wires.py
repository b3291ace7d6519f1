"""The demo over the cloud's emulator and over Flower: the same report, a death in the middle, nothing left behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from importlib.util import find_spec
from pathlib import Path

import pytest

from privfl.cli import demo_wires
from tests.cli.support import COMMAND, Ran, called, environment
from tests.cli.test_demo import KEYS, relatives, started, until

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


def processes(*words: str) -> list[int]:
    """Processes whose command line has all of these, the tests' own demo apart."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_bytes().decode(errors="replace")
        except OSError:
            continue  # it ended meanwhile
        if "\0demo\0" not in line and all(word in line for word in words):
            found.append(int(path.parent.name))
    return found


def emulators(parent: int) -> list[int]:
    """Emulators that a demo of this process id has started."""
    return processes("privfl.wires.aws.emulator", f"\0{parent}\0")


def test_over_sqs_and_s3(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Told that the cloud is made up; one dies and is back; ledgers and transcripts verify; the emulator has ended."""
    out = tmp_path / "out"
    ran = called(capfd, monkeypatch, "demo", "--wire", "aws", "--sites", "4", "--dir", out)
    assert (ran.code, ran.err) == (0, "")
    flat = " ".join(ran.out.split())
    for words in (
        "The cloud is made up: an emulator of SQS and S3",
        "south will be killed in the middle of round 3 of 4",
        "south died",
        "What do the sites' own ledgers say? (4 verified)",
        "4 of 4, with the authority's key alone",
        "Wire: aws;",
        "4 rounds in",
        "join",
    ):
        assert words in flat, words
    found = json.loads((out / "privfl-demo.json").read_text())
    assert list(found) == KEYS
    assert (found["transcripts_verified"], found["ledgers_verified"], found["wire"]["kind"]) == (4, 4, "aws")
    assert found["wire"]["messages"] > 4 * 4 * 3
    assert found["wire"]["bytes"] > 10_000
    assert "kind: " in (out / "federation" / "federation.yaml").read_text()
    assert (out / "federation" / "cloud" / "bucket.json").is_file()
    assert "AWS_ACCESS_KEY_ID" not in os.environ
    assert emulators(os.getpid()) == []
    assert relatives(out) == []


def test_an_interrupt_ends_the_emulator_too(tmp_path: Path) -> None:
    """Ctrl-C while everybody works over the made-up cloud: all of them end, and nothing is left."""
    out = tmp_path / "out"
    with started("--wire", "aws", "--dir", out) as running:
        until("the processes run", lambda: len(relatives(out)) == 6)
        assert emulators(running.pid)
        running.send_signal(signal.SIGINT)
        _, err = running.communicate(timeout=60)
        Ran(running.returncode, "", err).failed(130, "interrupted", "stays charged")
    until("the emulator has ended", lambda: not emulators(running.pid))
    assert relatives(out) == []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(find_spec("flwr") is None, reason="Flower is not installed")
def test_over_flower(tmp_path: Path) -> None:
    """SuperLink and SuperNodes with registered keys; a site dies beside its SuperNode and is back; all has ended."""
    out = tmp_path / "out"
    done = subprocess.run(
        [*COMMAND, "demo", "--wire", "flower", "--sites", "4", "--dir", str(out)],
        capture_output=True,
        text=True,
        env=environment(),
        timeout=900,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    flat = " ".join(done.stdout.split())
    for words in (
        "with TLS and registered keys",
        "there are 3 rounds",
        "south died",
        "What do the sites' own ledgers say? (4 verified)",
        "3 of 3, with the authority's key alone",
        "Wire: flower;",
    ):
        assert words in flat, words
    found = json.loads((out / "privfl-demo.json").read_text())
    assert list(found) == KEYS
    assert (found["rounds"], found["transcripts_verified"], found["wire"]["kind"]) == (3, 3, "flower")
    assert processes(str(out)) == []


@pytest.mark.skipif(find_spec("flwr") is None, reason="Flower is not installed")
def test_an_interrupt_ends_flower_too(tmp_path: Path) -> None:
    """Ctrl-C while SuperNodes start: SuperLink and all that it and they have started end, and nothing is left."""
    out = tmp_path / "out"
    with started("--wire", "flower", "--sites", "4", "--dir", out) as running:
        until("SuperNodes start", lambda: processes("flower-supernode", str(out)), 300)
        running.send_signal(signal.SIGINT)
        _, err = running.communicate(timeout=120)
        Ran(running.returncode, "", err).failed(130, "interrupted", "stays charged")
    assert processes(str(out)) == []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("wire", ["aws", "flower"])
def test_what_is_not_installed(
    wire: str, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """What to install, before anything is written."""
    monkeypatch.setattr(demo_wires, "find_spec", lambda name: None)
    ran = called(capfd, monkeypatch, "demo", "--wire", wire, "--dir", tmp_path / "out")
    ran.failed(2, "Misuse:", f"the demo over the wire {wire} needs more", f"privfl[{wire}]")
    assert list(tmp_path.iterdir()) == []


def test_a_study_needs_processes(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Nobody approves in a single process."""
    called(capfd, monkeypatch, "demo", "analytics", "--wire", "memory").failed(2, "choose --wire folder, aws or flower")
