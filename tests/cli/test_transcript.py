"""``privfl transcript verify``: public proof checked without secrets; what is not whole and sound exits with 3."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
from privfl_keys import SigningKey

from privfl.entropy import SYSTEM
from tests.cli.support import Ran, called, process

Patch = pytest.MonkeyPatch
Capture = pytest.CaptureFixture[str]


def test_a_demo_s_transcripts_verify(transcripts: list[Path]) -> None:
    """As a process, by the command that the demo prints: a row per round, and the fingerprint to compare."""
    ran = process("transcript", "verify", *transcripts)
    assert ran.code == 0
    assert "30 transcript(s) verified" in ran.out
    assert "5 of 5" in ran.out
    assert "4 of 5" in ran.out
    assert "south" in ran.out
    assert "Compare its fingerprint" in ran.err


def test_json(transcripts: list[Path], capfd: Capture, monkeypatch: Patch) -> None:
    """One object with a record per file."""
    ran = called(capfd, monkeypatch, "transcript", "verify", *transcripts[:3], "--json")
    assert (ran.code, ran.err) == (0, "")
    found = json.loads(ran.out)
    assert found["verified"] == 3 == len(found["files"])
    assert found["files"][0]["round"] == 1
    assert found["files"][0]["file"] == str(transcripts[0])


@pytest.mark.parametrize("how", ["hex", "file"])
def test_the_authority_may_be_given(how: str, transcripts: list[Path], capfd: Capture, monkeypatch: Patch) -> None:
    """As 64 digits or as a file; then there is no word about fingerprints."""
    path = transcripts[0].parent / "authority.pub"
    given = path.read_text().strip() if how == "hex" else str(path)
    ran = called(capfd, monkeypatch, "transcript", "verify", transcripts[0], "--authority", given)
    assert (ran.code, ran.err) == (0, "")


def verify(capfd: Capture, monkeypatch: Patch, *args: str | Path) -> Ran:
    """The command, as it is."""
    return called(capfd, monkeypatch, "transcript", "verify", *args)


def test_another_authority(transcripts: list[Path], capfd: Capture, monkeypatch: Patch) -> None:
    """A good key that signed another federation's roster."""
    other = SigningKey.generate(SYSTEM).verify_key.raw.hex()
    ran = verify(capfd, monkeypatch, transcripts[0], "--authority", other).failed(3, "does not verify")
    assert ran.out == ""


@pytest.mark.parametrize("given", ["", "zz", "00" * 31, "00" * 32, "00" * 33, "x" * 5000, "ä", "/nowhere"])
def test_an_authority_that_is_none(given: str, transcripts: list[Path], capfd: Capture, monkeypatch: Patch) -> None:
    """Not a key, or a weak one."""
    verify(capfd, monkeypatch, transcripts[0], "--authority", given).failed(2)


def test_no_authority_beside(transcripts: list[Path], capfd: Capture, monkeypatch: Patch) -> None:
    """The next step is in the message."""
    (transcripts[0].parent / "authority.pub").unlink()
    verify(capfd, monkeypatch, transcripts[0]).failed(2, "--authority")


def test_a_damaged_authority_file(transcripts: list[Path], capfd: Capture, monkeypatch: Patch) -> None:
    """Binary rubbish where the key should be."""
    (transcripts[0].parent / "authority.pub").write_bytes(bytes(range(256)))
    verify(capfd, monkeypatch, transcripts[0]).failed(2, "32 bytes in hexadecimal")


def test_no_such_file(tmp_path: Path, capfd: Capture, monkeypatch: Patch) -> None:
    """A missing file and a folder without transcripts are named."""
    verify(capfd, monkeypatch, tmp_path / "absent.transcript").failed(2, "there is no such file")
    verify(capfd, monkeypatch, tmp_path).failed(2, "there is no transcript in")


def test_a_folder_of_them(transcripts: list[Path], capfd: Capture, monkeypatch: Patch) -> None:
    """Its name is enough."""
    ran = verify(capfd, monkeypatch, transcripts[0].parent, "--json")
    assert (ran.code, json.loads(ran.out)["verified"]) == (0, len(transcripts))


@pytest.mark.parametrize("part", [0.0, 0.01, 0.5, 0.99])
def test_truncated(part: float, transcripts: list[Path], capfd: Capture, monkeypatch: Patch) -> None:
    """Half a file, and an empty one, are not whole."""
    data = transcripts[0].read_bytes()
    transcripts[0].write_bytes(data[: int(part * len(data))])
    verify(capfd, monkeypatch, transcripts[0]).failed(3, "is not a whole transcript")


def test_bytes_behind_the_end(transcripts: list[Path], capfd: Capture, monkeypatch: Patch) -> None:
    """Nothing may follow."""
    transcripts[0].write_bytes(transcripts[0].read_bytes() + b"\x00")
    verify(capfd, monkeypatch, transcripts[0]).failed(3)


def test_rubbish(transcripts: list[Path], capfd: Capture, monkeypatch: Patch) -> None:
    """Files of other kinds."""
    for data in (b"not a transcript", bytes(10_000), b"\x89PNG\r\n\x1a\n" * 100, b"\xff" * 100):
        transcripts[0].write_bytes(data)
        verify(capfd, monkeypatch, transcripts[0]).failed(3)


def test_corrupted(transcripts: list[Path], capfd: Capture, monkeypatch: Patch) -> None:
    """One flipped bit anywhere, forty places by seed: no file so changed verifies."""
    data, rng = transcripts[0].read_bytes(), random.Random(4)
    for _ in range(40):
        spoiled = bytearray(data)
        spoiled[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        transcripts[0].write_bytes(spoiled)
        verify(capfd, monkeypatch, transcripts[0]).failed(3, transcripts[0].name[:20])


def test_one_bad_among_good(transcripts: list[Path], capfd: Capture, monkeypatch: Patch) -> None:
    """No table of successes is printed when one file fails."""
    transcripts[1].write_bytes(transcripts[1].read_bytes()[:-1])
    for more in ([], ["--json"]):
        ran = verify(capfd, monkeypatch, *transcripts[:3], *more).failed(3)
        assert ran.out == ""
