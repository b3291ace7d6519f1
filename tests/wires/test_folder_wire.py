"""The folder wire keeps the mailbox contract, whatever others put into the folder and whenever a writer dies."""

from __future__ import annotations

import errno
import hashlib
import os
import random
import signal
import socket
import stat
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from privfl.errors import Misuse, WireError
from privfl.wires import FolderMailbox, FolderWire
from privfl.wires.envelope import MAX_ENVELOPE
from tests.wires.mailbox_contract import NORTH, SOUTH, MailboxContract, forked


class TestFolderWire(MailboxContract):
    """The contract, every end opened through a wire of its own, as another process does."""

    @pytest.fixture(autouse=True)
    def _wire(self, tmp_path: Path) -> None:
        self.path = FolderWire.create(tmp_path / "wire").path

    def open(self, own: bytes) -> FolderMailbox:
        """A new end, on a wire opened anew."""
        return FolderWire(self.path).mailbox(own)


@pytest.fixture
def wire(tmp_path: Path) -> FolderWire:
    """A fresh wire folder."""
    return FolderWire.create(tmp_path / "wire")


def box(wire: FolderWire, folder: str = "new") -> Path:
    """Where the southern participant's messages lie."""
    return wire.path / "boxes" / SOUTH.hex() / folder


def drain(mailbox: FolderMailbox, wait_ms: int = 0) -> list[bytes]:
    """Receive and acknowledge until nothing comes."""
    got: list[bytes] = []
    while found := mailbox.receive(wait_ms):
        for one in found:
            one.acknowledge()
            got.append(one.data)
    return got


def test_messages_come_in_about_the_order_they_were_sent(wire: FolderWire) -> None:
    """Nobody rests on it, but on one machine a queue is a queue; and a batch is bounded."""
    for at in range(150):
        wire.mailbox(NORTH).send(SOUTH, b"%d" % at)
    south = wire.mailbox(SOUTH)
    assert len(south.receive(0)) == 64
    assert drain(wire.mailbox(SOUTH)) == [b"%d" % at for at in range(150)]


class Still:
    """A clock for the wire that moves when it is slept upon, or when a test says so."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.now, self.slept = 0.0, list[float]()
        patch.setattr("privfl.wires.folder.time", SimpleNamespace(sleep=self.sleep, monotonic=lambda: self.now))

    def sleep(self, seconds: float) -> None:
        """Take no time."""
        self.now += seconds
        self.slept.append(seconds)


def test_a_message_that_cannot_be_dealt_with_does_not_hold_up_the_others(
    wire: FolderWire, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A hundred messages that are never acknowledged, older than all others: the new one is still shown first."""
    for at in range(100):
        wire.mailbox(NORTH).send(SOUTH, b"stuck %d" % at)
    clock, south = Still(monkeypatch), wire.mailbox(SOUTH)
    assert len(south.receive(0)) == 64
    wire.mailbox(NORTH).send(SOUTH, b"new")
    assert b"new" in [one.data for one in south.receive(0)]
    assert south.receive(0) == []  # all were shown just now
    clock.now += 0.06
    wire.mailbox(NORTH).send(SOUTH, b"newer")
    again = [one.data for one in south.receive(0)]  # and come again, more and more rarely
    assert len(again) == 64
    assert b"newer" in again
    assert len(south.receive(0)) == 38
    clock.now += 0.06
    assert [one.data for one in south.receive(0)] == [b"newer"]
    clock.now += 0.06
    assert len(south.receive(0)) == 64


@pytest.mark.parametrize("target", ["message", "body"])
def test_a_writer_killed_at_any_moment_leaves_nothing_half_written(wire: FolderWire, target: str) -> None:
    """Thirty writers are killed at random: what is visible is whole, and a later writer is not in their way."""
    content = {bytes([at]) * 60_000 for at in range(256)}
    names = [bytes([at]) * 32 for at in range(256)]

    def write(who: int) -> None:
        mailbox = FolderWire(wire.path).mailbox(NORTH)
        while True:
            for at in range(256):
                if target == "message":
                    mailbox.send(SOUTH, bytes([at]) * 60_000)
                else:
                    mailbox.drop_body(names[at])
                    mailbox.put_body(names[at], bytes([at]) * 60_000)

    chance = random.Random(1)
    for _ in range(30):
        child = forked(write, 0)
        time.sleep(chance.uniform(0.001, 0.03))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    south = wire.mailbox(SOUTH)
    if target == "message":
        got = drain(south)
        assert got
        assert set(got) <= content
    else:
        written = 0
        for at, name in enumerate(names):
            if wire.bodies.has(name):
                assert south.get_body(name, size=60_000) == bytes([at]) * 60_000
                written += 1
            south.put_body(name, bytes([at]) * 60_000)
            assert south.get_body(name) == bytes([at]) * 60_000
        assert written


def test_what_killed_writers_left_is_removed_after_a_day(wire: FolderWire) -> None:
    """Not sooner: a body of gigabytes takes its time."""
    old, young = wire.path / "tmp" / "old", wire.path / "tmp" / "young"
    for path, age in ((old, 25), (young, 23)):
        path.write_bytes(b"half")
        os.utime(path, (time.time() - age * 3600,) * 2)
    (wire.path / "tmp" / "folder").mkdir()
    wire.mailbox(SOUTH).receive(0)
    assert not old.exists()
    assert young.exists()


def as_pipe(path: Path) -> None:
    """A reader that opens it waits for ever."""
    os.mkfifo(path)


def as_socket(path: Path) -> None:
    """Bound by a short name: addresses are at most 108 bytes."""
    here = os.open(path.parent, os.O_RDONLY)
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(f"/proc/self/fd/{here}/{path.name}")
    os.close(here)


def as_folder(path: Path) -> None:
    """Not empty."""
    (path / "within").mkdir(parents=True)


def as_link(path: Path) -> None:
    """To a file outside that the reader may read and delete."""
    secret = next(folder for folder in path.parents if folder.name == "wire").parent / "secret"
    secret.write_bytes(b"secret")
    path.symlink_to(secret)


def as_loop(path: Path) -> None:
    """To itself."""
    path.symlink_to(path)


def as_unreadable(path: Path) -> None:
    """Of someone who keeps others out."""
    path.write_bytes(b"closed")
    path.chmod(0)


ODD = [as_pipe, as_socket, as_folder, as_link, as_loop, as_unreadable]


@pytest.mark.parametrize("kind", ODD)
def test_what_is_no_file_is_put_aside(
    wire: FolderWire, kind: Callable[[Path], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither opened nor waited for nor followed; counted, moved out of the way, and the mail goes on."""
    south, opened = wire.mailbox(SOUTH), os.open

    def closed(name: str, *args: int, **names: int) -> int:
        if name == "000":  # root would be let in
            raise PermissionError(errno.EACCES, "closed")
        return opened(name, *args, **names)

    monkeypatch.setattr(os, "open", closed)
    kind(box(wire) / "000")
    wire.mailbox(NORTH).send(SOUTH, b"mail")
    assert drain(south) == [b"mail"]
    assert south.odd == 1
    assert os.listdir(box(wire)) == []
    assert len(os.listdir(box(wire, "odd"))) == 1
    if kind is as_link:
        assert (wire.path.parent / "secret").read_bytes() == b"secret"


@pytest.mark.parametrize("kind", ODD[:-1])
def test_a_body_that_is_no_file_is_no_body(wire: FolderWire, kind: Callable[[Path], None]) -> None:
    """A WireError, at once."""
    south, name = wire.mailbox(SOUTH), hashlib.sha256(b"secret").digest()
    wire.mailbox(NORTH).put_body(name, b"secret")
    path = wire.path / "bodies" / name.hex()[:2] / name.hex()
    path.unlink()
    kind(path)
    with pytest.raises(WireError):
        south.get_body(name, size=6)
    with pytest.raises(WireError):
        south.get_body(name)
    south.drop_body(name)


@pytest.mark.parametrize("part", ["boxes", "box", "new"])
def test_a_folder_that_is_a_link_is_not_entered(wire: FolderWire, tmp_path: Path, part: str) -> None:
    """Nobody makes a reader read, and by acknowledging delete, what lies outside; nor a writer write there."""
    south = wire.mailbox(SOUTH)
    outside = tmp_path / "outside"
    for folder in (outside, outside / "new", outside / SOUTH.hex() / "new"):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "mine").write_bytes(b"mine")
    before = sorted(outside.rglob("*"))
    path = {"boxes": wire.path / "boxes", "box": box(wire).parent, "new": box(wire)}[part]
    path.rename(wire.path / "gone")
    path.symlink_to(outside)
    with pytest.raises(WireError, match="lacks a part"):
        south.receive(0)
    with pytest.raises(WireError):
        wire.mailbox(NORTH).send(SOUTH, b"x")
    assert sorted(outside.rglob("*")) == before


def test_an_oversized_message_is_cut_and_can_be_refused(wire: FolderWire) -> None:
    """A file of a terabyte (with a hole) costs no more than the longest envelope and a byte; then it is gone."""
    south = wire.mailbox(SOUTH)
    with open(box(wire) / "huge", "wb") as stream:
        stream.truncate(1 << 40)
    assert [len(data) for data in drain(south)] == [MAX_ENVELOPE + 1]
    assert os.listdir(box(wire)) == []


def test_what_is_longer_than_any_envelope_is_not_sent(wire: FolderWire) -> None:
    """It would arrive cut."""
    with pytest.raises(WireError, match="longer than any envelope"):
        wire.mailbox(NORTH).send(SOUTH, bytes(MAX_ENVELOPE + 1))


def test_what_another_program_is_copying_is_left_alone(wire: FolderWire) -> None:
    """Half files of rsync and Syncthing begin with a dot; they are neither delivered nor removed."""
    south = wire.mailbox(SOUTH)
    half = box(wire) / ".syncthing.0001.tmp"
    half.write_bytes(b"hal")
    assert drain(south) == []
    half.rename(box(wire) / "0001")
    assert drain(south) == [b"hal"]


def test_an_oversized_body_is_not_read(wire: FolderWire) -> None:
    """Neither with a size nor without."""
    south, name = wire.mailbox(SOUTH), bytes(32)
    south.put_body(name, b"")
    with open(wire.path / "bodies" / "00" / name.hex(), "wb") as stream:
        stream.truncate(1 << 40)
    for size in (None, 10):
        with pytest.raises(WireError, match="1099511627776 bytes"):
            south.get_body(name, size=size)


def test_thousands_of_junk_files_are_worked_off(wire: FolderWire) -> None:
    """In bounded batches, with names of any bytes."""
    south, names = wire.mailbox(SOUTH), os.fsencode(box(wire))
    for at in range(2_000):
        name = b"%d" % at + bytes(byte for byte in (at % 251 + 1, 255, 10) if byte != ord("/"))
        with open(os.path.join(names, name), "wb"):
            pass
    wire.mailbox(NORTH).send(SOUTH, b"mail")
    got = drain(south)
    assert len(got) == 2_001
    assert b"mail" in got
    assert os.listdir(box(wire)) == []


@given(st.lists(st.binary(max_size=200), max_size=6), st.binary(min_size=1, max_size=20))
@settings(max_examples=50, deadline=None)
def test_any_bytes_under_any_name_are_delivered_once(contents: list[bytes], name: bytes) -> None:
    """The reader above the wire judges them."""
    name = name.replace(b"/", b"_").replace(b"\x00", b"_")
    with tempfile.TemporaryDirectory() as folder:
        wire = FolderWire.create(Path(folder) / "wire")
        south = wire.mailbox(SOUTH)
        for at, content in enumerate(contents):
            with open(os.path.join(os.fsencode(box(wire)), b"%d" % at + name), "wb") as stream:
                stream.write(content)
        assert sorted(drain(south)) == sorted(contents)
        assert drain(wire.mailbox(SOUTH)) == []


def test_a_folder_that_is_no_wire_is_the_caller_s_mistake(tmp_path: Path) -> None:
    """The next step is named; and nothing is made where something else lies."""
    for path in (tmp_path, tmp_path / "none"):
        with pytest.raises(Misuse, match="privfl wire folder create"):
            FolderWire(path)
    (tmp_path / "data.csv").touch()
    with pytest.raises(Misuse, match="not empty"):
        FolderWire.create(tmp_path)
    with pytest.raises(Misuse, match="parent folder"):
        FolderWire.create(tmp_path / "none" / "wire")
    wire = FolderWire.create(tmp_path / "wire")
    with pytest.raises(Misuse, match="already"):
        FolderWire.create(wire.path)
    with pytest.raises(Misuse, match="32 bytes"):
        wire.mailbox(b"short")
    with pytest.raises(Misuse, match="32 bytes"):
        wire.mailbox(NORTH).get_body(b"../../..")


def test_a_folder_that_keeps_one_out_says_so(wire: FolderWire, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is a wire folder all the same; making another would not help."""

    def closed(*args: object, **names: object) -> int:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(os, "open", closed)
    with pytest.raises(Misuse, match=r"cannot be read \(Permission denied\); check its mode"):
        FolderWire(wire.path)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"format": "other"}', b"[" * 4096, b"\xff"])
def test_a_damaged_marker_is_none(wire: FolderWire, content: bytes) -> None:
    """Whatever lies there, the message is the same."""
    (wire.path / "privfl-wire.json").write_bytes(content)
    with pytest.raises(Misuse, match="no privfl wire folder"):
        FolderWire(wire.path)


def test_a_later_version_is_left_alone(wire: FolderWire) -> None:
    """The marker says so."""
    (wire.path / "privfl-wire.json").write_text('{"format": "privfl wire folder", "version": 2}')
    with pytest.raises(Misuse, match="another version"):
        FolderWire(wire.path)


def test_creating_half_way_can_be_repeated(tmp_path: Path) -> None:
    """A folder without its marker is no wire yet; creating it again completes it."""
    (tmp_path / "wire" / "boxes").mkdir(parents=True)
    (tmp_path / "wire" / "tmp").mkdir()
    assert drain(FolderWire.create(tmp_path / "wire").mailbox(SOUTH)) == []


def test_a_vanished_folder_is_waited_for(wire: FolderWire) -> None:
    """An unmounted share is the wire's error, and nothing is written in its place; a reader bridges a short gap."""
    south, away = wire.mailbox(SOUTH), wire.path.with_name("away")
    wire.path.rename(away)
    wire.path.mkdir()  # the empty mount point
    for call in (
        lambda: south.receive(0),
        lambda: south.receive(5),
        lambda: south.send(NORTH, b"x"),
        lambda: south.put_body(bytes(32), b"x"),
        lambda: south.get_body(bytes(32)),
    ):
        with pytest.raises(WireError):
            call()
    south.drop_body(bytes(32))
    assert list(wire.path.iterdir()) == []

    def mount() -> None:
        wire.path.rmdir()
        away.rename(wire.path)
        FolderWire(wire.path).mailbox(NORTH).send(SOUTH, b"back")

    timer = threading.Timer(0.05, mount)
    timer.start()
    assert [one.data for one in south.receive(20_000)] == [b"back"]
    timer.join()


@pytest.mark.parametrize(("code", "words"), [("ENOSPC", "is full"), ("EROFS", "check its mode"), ("EIO", "try again")])
def test_a_disk_that_fails_is_the_wire_s_error(
    wire: FolderWire, code: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full, closed or broken disk: cause and next step are named, and no file is left behind."""
    south = wire.mailbox(SOUTH)

    def failing(descriptor: int) -> None:
        raise OSError(getattr(errno, code), os.strerror(getattr(errno, code)))

    monkeypatch.setattr(os, "fsync", failing)
    with pytest.raises(WireError, match=words):
        south.send(SOUTH, b"x" * 100)
    with pytest.raises(WireError, match=words):
        south.put_body(bytes(32), b"x" * 100)
    monkeypatch.undo()
    assert list((wire.path / "tmp").iterdir()) == []
    assert drain(south) == []
    assert not wire.bodies.has(bytes(32))


def test_without_hard_links_the_first_body_still_wins(wire: FolderWire, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a stick with FAT."""

    def refused(*args: object, **names: object) -> None:
        raise OSError(errno.EPERM, "no links")

    monkeypatch.setattr(os, "link", refused)
    south = wire.mailbox(SOUTH)
    south.put_body(bytes(32), b"first")
    monkeypatch.setattr(type(wire.bodies), "has", lambda bodies, name: False)  # written just now
    south.put_body(bytes(32), b"second")
    assert south.get_body(bytes(32)) == b"first"
    assert list((wire.path / "tmp").iterdir()) == []


@pytest.mark.parametrize(("mode", "folders", "files"), [(0o700, 0o700, 0o600), (0o2770, 0o2770, 0o660)])
def test_permissions_are_those_of_the_folder(tmp_path: Path, mode: int, folders: int, files: int) -> None:
    """Whatever the umask of each participant: the folder's owner decides once."""
    for umask in (0o077, 0o000):
        before = os.umask(umask)
        try:
            wire = FolderWire.create(tmp_path / f"{umask}", mode=mode)
            wire.mailbox(NORTH).send(SOUTH, b"x")
            wire.mailbox(SOUTH).put_body(bytes(32), b"x")
        finally:
            os.umask(before)
        for path in wire.path.rglob("*"):
            assert stat.S_IMODE(path.stat().st_mode) == (folders if path.is_dir() else files), path


def test_an_idle_reader_sleeps(wire: FolderWire, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pauses double from 1 ms to 25 ms, across calls, and are short again after something was sent or came."""
    clock, south = Still(monkeypatch), wire.mailbox(SOUTH)
    assert south.receive(100) == []
    assert clock.slept[:5] == pytest.approx([0.001, 0.002, 0.004, 0.008, 0.016])
    south.receive(1000)
    assert clock.slept[-2] == 0.025
    assert len(clock.slept) < 60
    clock.slept.clear()
    south.send(NORTH, b"question")
    south.receive(1)
    assert clock.slept == pytest.approx([0.001])
