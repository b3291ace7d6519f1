"""Parcels join two wire folders: what one side sends the other receives; one that is not sound changes nothing."""

from __future__ import annotations

import errno
import os
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from privfl.entropy import SYSTEM
from privfl.errors import Malformed, Misuse, Theirs, Unverified, WireError
from privfl.runtime.post import Post, Received
from privfl.secagg.party import Party
from privfl.wires import BodyRef, Envelope, FolderWire, Packed, Unpacked, pack, unpack
from privfl.wires.envelope import MAX_ENVELOPE
from privfl.wires.folder_survey import survey
from privfl.wires.parcel_format import MAGIC, ParcelEnd, ParcelHead, ParcelItem, ParcelWriter
from tests.wires.mailbox_contract import NORTH, SOUTH
from tests.wires.test_envelope import COORDINATOR, ROSTER, SITES

HERE, THERE = COORDINATOR.verify_key.site_id, SITES[0].verify_key.site_id


def message(recipient: bytes = SOUTH, *bodies: bytes, payload: bytes = b"hello") -> bytes:
    """An envelope that nobody verifies here."""
    refs = tuple(BodyRef.of(body) for body in bodies)
    return Envelope("test", NORTH, recipient, "note", os.urandom(16), b"", payload, refs, bytes(64)).encode()


@pytest.fixture
def near(tmp_path: Path) -> FolderWire:
    """The folder that parcels come from."""
    return FolderWire.create(tmp_path / "near")


@pytest.fixture
def far(tmp_path: Path) -> FolderWire:
    """The folder that they go to."""
    return FolderWire.create(tmp_path / "far")


def send(wire: FolderWire, recipient: bytes = SOUTH, *bodies: bytes) -> bytes:
    """Send a message with its bodies; returns it."""
    data, mailbox = message(recipient, *bodies), wire.mailbox(NORTH)
    for body in bodies:
        mailbox.put_body(BodyRef.of(body).sha256, body)
    mailbox.send(recipient, data)
    return data


def waiting(wire: FolderWire, own: bytes = SOUTH) -> list[bytes]:
    """What an end opened anew finds, sorted; it stays there."""
    return sorted(one.data for one in wire.mailbox(own).receive(0))


def listing(wire: FolderWire) -> dict[str, bytes]:
    """Every file of a wire folder."""
    return {str(path.relative_to(wire.path)): path.read_bytes() for path in wire.path.rglob("*") if path.is_file()}


def test_a_federation_s_post_over_an_air_gap(near: FolderWire, far: FolderWire, tmp_path: Path) -> None:
    """Three exchanges of signed messages, small and large, between two parties that share no folder."""
    coordinator = Post(Party(COORDINATOR, ROSTER), near.mailbox(HERE), SYSTEM, peer_role="site")
    site = Post(Party(SITES[0], ROSTER), far.mailbox(THERE), SYSTEM, peer_role="coordinator")
    answers: list[tuple[bytes, bytes]] = []

    def answer(received: Received) -> None:
        site.send(received.sender, "upload", received.payload[::-1], reply_to=received.id, bodies=[received.body()])

    def collect(received: Received) -> None:
        answers.append((received.payload, received.body()))

    for at in range(3):
        model, payload = os.urandom(200_000), os.urandom(100_000 if at else 10)
        coordinator.send(THERE, "announce", payload, bodies=[model])
        assert site.receive(0, answer) == 0
        assert pack(near, tmp_path / f"out-{at}").messages == 1
        unpack(tmp_path / f"out-{at}", far)
        assert site.receive(0, answer) == 1
        assert pack(far, tmp_path / f"back-{at}").messages == 1
        unpack(tmp_path / f"back-{at}", near)
        assert coordinator.receive(0, collect) == 1
        assert answers.pop() == (payload[::-1], model)
    assert (coordinator.rejected, site.rejected) == (0, 0)


def test_each_message_travels_once_unless_asked_again(near: FolderWire, far: FolderWire, tmp_path: Path) -> None:
    """The next parcel holds what is new; ``again`` holds all; a body goes once per parcel, by whichever name it."""
    first, second = send(near, SOUTH, b"model", b"other"), send(near, SOUTH, b"model")
    done = pack(near, tmp_path / "1")
    assert (done.messages, done.bodies, done.left, done.read_here) == (2, 2, 0, 0)
    assert done.bytes == (tmp_path / "1").stat().st_size
    assert pack(near, tmp_path / "2") == Packed(0, 0, 0, 0, 0)
    assert not (tmp_path / "2").exists()
    third = send(near)
    assert pack(near, tmp_path / "3").messages == 1
    assert pack(near, tmp_path / "4", again=True).messages == 3
    assert unpack(tmp_path / "1", far) == Unpacked(2, 2, False)
    assert waiting(far) == sorted([first, second])
    assert unpack(tmp_path / "3", far).messages == 1
    assert waiting(far) == sorted([first, second, third])
    assert far.mailbox(SOUTH).get_body(BodyRef.of(b"model").sha256, size=5) == b"model"


def test_a_parcel_is_unpacked_once_unless_asked_again(near: FolderWire, far: FolderWire, tmp_path: Path) -> None:
    """Also where it was packed: nobody's message comes back to where it left."""
    sent = send(near, SOUTH, b"model")
    pack(near, tmp_path / "parcel")
    assert unpack(tmp_path / "parcel", far) == Unpacked(1, 1, False)
    before = listing(far)
    assert unpack(tmp_path / "parcel", far) == Unpacked(0, 0, True)
    assert listing(far) == before
    assert unpack(tmp_path / "parcel", near).already
    assert waiting(near) == []
    assert unpack(tmp_path / "parcel", far, again=True).messages == 1
    assert waiting(far) == [sent, sent]


def test_boxes_that_are_read_here_stay_unless_named(near: FolderWire, tmp_path: Path) -> None:
    """A folder with participants of its own keeps their mail; what was unpacked for someone is not sent back."""
    send(near, SOUTH)
    send(near, NORTH)
    done = pack(near, tmp_path / "1")
    assert (done.messages, done.read_here) == (1, 1)
    assert len(waiting(near, NORTH)) == 1
    done = pack(near, tmp_path / "2", [NORTH, NORTH])
    assert (done.messages, done.read_here) == (1, 0)
    assert waiting(near, NORTH) == []


def test_what_cannot_be_delivered_is_not_packed(near: FolderWire, far: FolderWire, tmp_path: Path) -> None:
    """No envelope, for another box, too long, a body missing, cut or false: left where it is, and counted."""
    good = send(near, SOUTH, b"shared")
    mailbox = near.mailbox(NORTH)
    false, cut = BodyRef.of(b"false"), BodyRef.of(b"cut")
    mailbox.put_body(false.sha256, b"FALSE")
    mailbox.put_body(cut.sha256, b"cu")
    bad = [b"junk", message(NORTH)]
    bad += [message(SOUTH, b"shared", body) for body in (b"missing", b"false", b"cut")]
    for data in bad:
        mailbox.send(SOUTH, data)
    box = near.path / "boxes" / SOUTH.hex() / "new"
    (box / "long").write_bytes(bytes(MAX_ENVELOPE + 1))
    (box / ".copying").write_bytes(good[:-1])
    os.mkfifo(box / "pipe")
    done = pack(near, tmp_path / "parcel")
    assert (done.messages, done.bodies, done.left) == (1, 1, 7)
    assert unpack(tmp_path / "parcel", far) == Unpacked(1, 1, False)
    assert waiting(far) == [good]
    assert [box.packed for box in survey(near).boxes] == [0, 1]


def test_a_body_that_is_there_already_is_kept(near: FolderWire, far: FolderWire, tmp_path: Path) -> None:
    """First write wins, over parcels too."""
    send(near, SOUTH, b"model")
    far.mailbox(NORTH).put_body(BodyRef.of(b"model").sha256, b"first")
    pack(near, tmp_path / "parcel")
    unpack(tmp_path / "parcel", far)
    assert far.mailbox(SOUTH).get_body(BodyRef.of(b"model").sha256) == b"first"


@pytest.fixture
def parcel(near: FolderWire, tmp_path: Path) -> bytes:
    """The bytes of a sound parcel with three messages and two bodies."""
    send(near, SOUTH, b"m" * 300)
    send(near, SOUTH, b"m" * 300, b"")
    send(near, SOUTH)
    pack(near, tmp_path / "sound")
    return (tmp_path / "sound").read_bytes()


def refused(data: bytes, far: FolderWire) -> str:
    """Check that bytes are refused as a peer's fault and nothing changes; returns why."""
    path = far.path.with_name("bad")
    path.write_bytes(data)
    before = listing(far)
    with pytest.raises((Malformed, Unverified), match="refused, nothing was changed") as caught:
        unpack(path, far)
    assert listing(far) == before
    return str(caught.value)


def test_a_parcel_that_is_cut_off_is_refused(parcel: bytes, far: FolderWire) -> None:
    """At any byte; and one with something behind it."""
    for size in range(0, len(parcel), 7):
        refused(parcel[:size], far)
    refused(parcel[:-1], far)
    assert "follows its end" in refused(parcel + b"\x00", far)


def test_a_parcel_with_a_flipped_bit_is_refused(parcel: bytes, far: FolderWire) -> None:
    """Anywhere: a stick's bad block is found before anything is touched."""
    for at in range(0, len(parcel), 5):
        refused(parcel[:at] + bytes([parcel[at] ^ 1 << at % 8]) + parcel[at + 1 :], far)


@given(st.binary(max_size=300), st.booleans())
@settings(max_examples=60, deadline=None)
def test_arbitrary_bytes_are_refused(tmp_path_factory: pytest.TempPathFactory, data: bytes, magic: bool) -> None:
    """Also behind a proper beginning."""
    folder = tmp_path_factory.mktemp("any")
    (folder / "bad").write_bytes(MAGIC * magic + data)
    with pytest.raises(Theirs):
        unpack(folder / "bad", FolderWire.create(folder / "wire"))


class Forger:
    """Writes parcels whose every part is well-formed."""

    def __init__(self, path: Path) -> None:
        self.path, self.stream = path, open(path, "x+b")  # noqa: SIM115 - closed by end()
        self.writer = ParcelWriter(self.stream, ParcelHead(bytes(16), 0))

    def item(self, is_message: bool, data: bytes, ref: BodyRef | None = None) -> Forger:
        """An item as one likes it."""
        self.writer._record(ParcelItem(is_message, ref or BodyRef.of(data)))
        self.writer._raw(data)
        return self

    def end(self, messages: int, bodies: int) -> bytes:
        """Close it with the right digest; returns its bytes."""
        self.writer._record(ParcelEnd(messages, bodies, self.writer._digest.digest()))
        self.stream.close()
        return self.path.read_bytes()


HUGE = BodyRef(bytes(32), 2**35)


def test_a_forged_parcel_is_refused(far: FolderWire, tmp_path: Path) -> None:
    """Absurd sizes, doubled, unnamed, missing or false bodies, wrong counts, no envelopes."""

    def forger() -> Forger:
        return Forger(tmp_path / os.urandom(8).hex())

    plain, named = message(), message(SOUTH, b"body")
    assert "ends before its end" in refused(forger().item(False, b"", HUGE).end(0, 1), far)
    assert "longer than any envelope" in refused(forger().item(True, bytes(MAX_ENVELOPE + 1)).end(1, 0), far)
    assert "twice" in refused(forger().item(False, b"body").item(False, b"body").item(True, named).end(1, 1), far)
    assert "no message names" in refused(forger().item(False, b"body").item(True, plain).end(1, 1), far)
    assert "lacks a body" in refused(forger().item(True, named).end(1, 0), far)
    assert "lacks a body" in refused(forger().item(True, named).item(False, b"body").end(1, 1), far)
    false = BodyRef(BodyRef.of(b"body").sha256, 5)
    assert "not what its name says" in refused(forger().item(False, b"BODY!", false).item(True, named).end(1, 1), far)
    assert "damaged" in refused(forger().item(True, plain, replace(BodyRef.of(plain), sha256=bytes(32))).end(1, 0), far)
    assert "closed with" in refused(forger().item(True, plain).end(2, 0), far)
    refused(forger().item(True, b"no envelope").end(1, 0), far)
    (tmp_path / "good").write_bytes(forger().item(False, b"body").item(True, named).end(1, 1))
    assert unpack(tmp_path / "good", far) == Unpacked(1, 1, False)


def test_a_parcel_that_is_no_file_is_the_caller_s_mistake(far: FolderWire, tmp_path: Path) -> None:
    """Missing, a folder, a pipe, a link; and a parcel is never written over something."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to(tmp_path / "pipe")
    for name in ("none", "far", "pipe", "link", "none/none", "nul\x00"):
        with pytest.raises(Misuse):
            unpack(tmp_path / name, far)
    for name in ("far", "pipe", "link"):
        with pytest.raises(Misuse, match="not overwritten"):
            pack(far, tmp_path / name)


def test_a_full_stick_marks_nothing(
    near: FolderWire, far: FolderWire, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No space for the parcel, or for what is in it: no half a file, and the same again when there is space."""
    sent = send(near, SOUTH, b"model")

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(WireError, match="no message was marked"):
            pack(near, tmp_path / "parcel")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["far", "near"]
    with pytest.raises(WireError, match="could not be written"):
        pack(near, tmp_path / "none" / "parcel")
    assert pack(near, tmp_path / "parcel").messages == 1
    before = listing(far)
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(WireError, match="is full"):
            unpack(tmp_path / "parcel", far)
    assert listing(far) == before
    assert not unpack(tmp_path / "parcel", far).already
    assert waiting(far) == [sent]


def test_what_was_packed_is_forgotten_after_a_month(near: FolderWire, tmp_path: Path) -> None:
    """Until then it can be packed again."""
    send(near)
    pack(near, tmp_path / "1")
    (packed,) = (near.path / "boxes" / SOUTH.hex() / "packed").iterdir()
    pack(near, tmp_path / "2")
    assert packed.exists()
    os.utime(packed, (0, 0))
    pack(near, tmp_path / "3")
    assert not packed.exists()


def test_without_hard_links_a_parcel_is_renamed(
    near: FolderWire, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stick with FAT."""
    send(near)

    def refused(*args: object, **names: object) -> None:
        raise OSError(errno.EPERM, "no links")

    monkeypatch.setattr(os, "link", refused)
    assert pack(near, tmp_path / "parcel").messages == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["near", "parcel"]


def test_large_bodies_are_streamed(near: FolderWire, far: FolderWire, tmp_path: Path) -> None:
    """40 MiB in pieces of 1 MiB come out as they went in, without as much memory."""
    import tracemalloc

    body = os.urandom(1 << 20) * 40
    send(near, SOUTH, body)
    tracemalloc.start()
    try:
        pack(near, tmp_path / "parcel")
        unpack(tmp_path / "parcel", far)
        assert tracemalloc.get_traced_memory()[1] < 10 << 20
    finally:
        tracemalloc.stop()
    assert far.mailbox(SOUTH).get_body(BodyRef.of(body).sha256, size=len(body)) == body
