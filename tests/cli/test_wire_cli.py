"""``privfl wire folder``: made, looked at, packed and unpacked by command, with one object on request."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from privfl.wires import BodyRef, Envelope, FolderWire
from tests.cli.support import Ran, called, process

NORTH, SOUTH = b"n" * 32, b"s" * 32
Command = Callable[..., Ran]


@pytest.fixture
def folder(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Command:
    """``privfl wire folder`` in this process."""
    return lambda *args: called(capfd, monkeypatch, "wire", "folder", *args)


@pytest.fixture
def wire(tmp_path: Path) -> FolderWire:
    """A wire with a message for the south and a body."""
    wire = FolderWire.create(tmp_path / "wire")
    send(wire, SOUTH)
    return wire


def send(wire: FolderWire, recipient: bytes) -> None:
    """A message that names a body of 2,000 bytes."""
    body, mailbox = b"b" * 2000, wire.mailbox(NORTH)
    ref = BodyRef.of(body)
    mailbox.put_body(ref.sha256, body)
    mailbox.send(
        recipient, Envelope("f", NORTH, recipient, "note", os.urandom(16), b"", b"", (ref,), bytes(64)).encode()
    )


def test_create(tmp_path: Path, folder: Command) -> None:
    """For one user, or for a group; what passes is said plainly."""
    ran = folder("create", tmp_path / "own")
    assert ran.code == 0
    assert "forge nothing" in ran.out
    ran = folder("create", tmp_path / "shared", "--group", "--json")
    assert json.loads(ran.out) == {"wire": str(tmp_path / "shared")}
    assert stat.S_IMODE((tmp_path / "own").stat().st_mode) == 0o700
    assert stat.S_IMODE((tmp_path / "shared" / "boxes").stat().st_mode) == 0o2770
    folder("create", tmp_path / "own").failed(2, "already")
    folder("create", tmp_path / "none" / "wire").failed(2, "parent folder")


def test_status(wire: FolderWire, folder: Command) -> None:
    """A row per box; the same in numbers."""
    (wire.path / "boxes" / "stray").touch()
    ran = folder("status", wire.path)
    assert (ran.code, ran.err) == (0, "")
    assert all(word in ran.out for word in (SOUTH.hex()[:12], "2 box(es)", "1 body(ies), 2.0 KiB", "1 thing(s)"))
    found = json.loads(folder("status", wire.path, "--json").out)
    north, south = found["boxes"]
    assert (north["waiting"], north["here"], north["oldest"]) == (0, True, None)
    assert (south["id"], south["waiting"], south["packed"], south["here"]) == (SOUTH.hex(), 1, 0, False)
    assert 0 <= found["now"] - south["oldest"] < 3_600_000
    assert (found["bodies"], found["body_bytes"], found["strange"]) == (1, 2000, 1)


def test_a_message_is_carried(wire: FolderWire, tmp_path: Path) -> None:
    """As processes, with the command that packing prints."""
    other, out = FolderWire.create(tmp_path / "other"), tmp_path / "out.parcel"
    ran = process("wire", "folder", "pack", wire.path, "--out", out)
    assert ran.code == 0, ran.err
    assert "Packed 1 message(s) and 1 body(ies)" in ran.out
    assert "unpack out.parcel" in ran.out
    ran = process("wire", "folder", "unpack", out, other.path)
    assert "Unpacked 1 message(s) and 1 body(ies)" in ran.out
    assert len(other.mailbox(SOUTH).receive(0)) == 1


def test_packing_and_unpacking_in_json(wire: FolderWire, tmp_path: Path, folder: Command) -> None:
    """Nothing to carry is no failure; repeated on request."""
    other, out = FolderWire.create(tmp_path / "other"), tmp_path / "out"
    found = json.loads(folder("pack", wire.path, "--out", out, "--for", "all", "--json").out)
    size = out.stat().st_size
    assert found == {"parcel": str(out), "messages": 1, "bodies": 1, "bytes": size, "left": 0, "read_here": 0}
    ran = folder("pack", wire.path, "--out", tmp_path / "2", "--json")
    assert (ran.code, json.loads(ran.out)["parcel"]) == (0, None)
    assert "no parcel was written" in folder("pack", wire.path, "--out", tmp_path / "2").out
    found = json.loads(folder("unpack", out, other.path, "--json").out)
    assert found == {"parcel": str(out), "messages": 1, "bodies": 1, "already": False}
    assert "nothing was done" in folder("unpack", out, other.path).out
    assert json.loads(folder("unpack", out, other.path, "--again", "--json").out)["messages"] == 1
    assert json.loads(folder("pack", wire.path, "--out", tmp_path / "2", "--again", "--json").out)["messages"] == 1


def test_recipients_by_their_first_digits(wire: FolderWire, tmp_path: Path, folder: Command) -> None:
    """At least six, of one box; a box that is read here only by name."""
    send(wire, NORTH)
    send(wire, SOUTH[:4] + bytes(28))
    ran = folder("pack", wire.path, "--out", tmp_path / "1", "--for", SOUTH.hex()[:10].upper(), "--for", NORTH.hex())
    assert "Packed 2 message(s)" in ran.out, ran.err
    ran = folder("pack", wire.path, "--out", tmp_path / "2")
    assert "Packed 1 message(s)" in ran.out
    send(wire, NORTH)
    ran = folder("pack", wire.path, "--out", tmp_path / "3")
    assert "1 box(es) are read in" in ran.out
    out = ("--out", tmp_path / "4", "--for")
    folder("pack", wire.path, *out, SOUTH.hex()[:6]).failed(2, "2 boxes", "more digits")
    folder("pack", wire.path, *out, "abcdef").failed(2, "no box", "status")
    for bad in ("7373", "../../", "zzzzzz", "7" * 65, ""):
        folder("pack", wire.path, *out, bad).failed(2, "at least 6")
    folder("pack", wire.path, *out, "all", "--for", NORTH.hex()).failed(2, "stands alone")


def test_what_is_wrong_is_named(wire: FolderWire, tmp_path: Path, folder: Command) -> None:
    """No wire, no parcel, a damaged one, a target that exists."""
    folder("status", tmp_path / "none").failed(2, "no privfl wire folder", "wire folder create")
    folder("pack", tmp_path, "--out", tmp_path / "1").failed(2, "no privfl wire folder")
    folder("unpack", tmp_path / "none", wire.path).failed(2, "cannot be opened")
    folder("pack", wire.path, "--out", wire.path).failed(2, "not overwritten")
    (tmp_path / "bad").write_bytes(b"x" * 1000)
    folder("unpack", tmp_path / "bad", wire.path).failed(3, "refused, nothing was changed", "no privfl parcel")
    (wire.path / "boxes").rename(tmp_path / "gone")
    folder("status", wire.path).failed(4, "lacks a part")


@pytest.mark.parametrize("command", ["create", "status", "pack", "unpack"])
def test_help_has_an_example(command: str, folder: Command) -> None:
    """Each command shows how it is called."""
    assert f"Example: privfl wire folder {command}" in " ".join(folder(command, "--help").out.split())
