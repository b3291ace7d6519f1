"""The spool keeps the mailbox contract, and its carrier loses nothing, keeps no lie and tidies up after both."""

from __future__ import annotations

import hashlib
import os
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from privfl_keys import SigningKey

from privfl.entropy import SYSTEM
from privfl.errors import Malformed, Misuse, WireError
from privfl.wires import Envelope, FolderMailbox, FolderWire
from privfl.wires.envelope import BodyRef, seal_envelope
from privfl.wires.flower import Spool, SpoolMailbox, spool_of
from privfl.wires.flower_carry import BOX_MOST, MAX_CARRIED, MAX_LETTERS, SEEN_MOST, Carrier, Load
from tests.wires.mailbox_contract import NORTH, SOUTH, MailboxContract

KEY = SigningKey.generate(SYSTEM)
NAME = "01700000000000000000-00000001-0123456789abcdef"


def anyone(envelope: Envelope) -> None:
    """Takes every envelope for genuine."""


def name(at: int) -> str:
    """The name of a letter, as a writer makes it."""
    return f"01700000000000000000-{at:08d}-0123456789abcdef"


def sealed(sender: bytes = NORTH, recipient: bytes = SOUTH, *bodies: bytes, payload: bytes = b"hi") -> bytes:
    """A letter; who carries it without a roster cannot tell that nobody's key has signed it."""
    refs = tuple(BodyRef.of(body) for body in bodies)
    return seal_envelope(
        KEY, Envelope("trial", sender, recipient, "ping", bytes(16), b"", payload, refs, bytes(64))
    ).encode()


def named(*bodies: bytes) -> dict[bytes, bytes]:
    return {hashlib.sha256(body).digest(): body for body in bodies}


class TestSpool(MailboxContract):
    """The contract; both ends in one folder, as a carrier that is always there would make it look."""

    @pytest.fixture(autouse=True)
    def _spool(self, tmp_path: Path) -> None:
        self.home = tmp_path

    def open(self, own: bytes) -> SpoolMailbox:
        return spool_of(self.home).mailbox(own)


@pytest.fixture
def north(tmp_path: Path) -> Carrier:
    (tmp_path / "north").mkdir()
    return Carrier(spool_of(tmp_path / "north"), NORTH, anyone)


@pytest.fixture
def south(tmp_path: Path) -> Carrier:
    (tmp_path / "south").mkdir()
    return Carrier(spool_of(tmp_path / "south"), SOUTH, anyone)


def read(carrier: Carrier, own: bytes) -> list[bytes]:
    """What its owner finds in the box; it is acknowledged."""
    found = carrier.spool.mailbox(own).receive(0)
    for one in found:
        one.acknowledge()
    return [one.data for one in found]


def load_of(carrier: Carrier, to: bytes) -> tuple[Load, dict[bytes, bytes]]:
    letters, more = carrier.letters(to, carrier.waiting(to))
    bodies = {ref.sha256: carrier.spool.bodies.get(ref.sha256, ref.size) for one in letters for ref in one.refs}
    return Load(carrier.own, to, tuple((one.name, one.data) for one in letters), more=more), bodies


def test_a_letter_with_its_body_gets_across_and_is_forgotten_when_confirmed(north: Carrier, south: Carrier) -> None:
    """Written, carried, taken, read; the writer's side keeps it until the other has named it."""
    body, data = os.urandom(70_000), b""
    box = north.spool.mailbox(NORTH)
    box.put_body(hashlib.sha256(body).digest(), body)
    data = sealed(NORTH, SOUTH, body)
    box.send(SOUTH, data)
    load, bodies = load_of(north, SOUTH)
    taken = south.take(NORTH, load, bodies)
    assert taken.names == [load.letters[0][0]]
    assert (taken.new, taken.refused) == (1, 0)
    assert north.waiting(SOUTH) == taken.names
    assert south.spool.bodies.get(hashlib.sha256(body).digest(), len(body)) == body
    assert read(south, SOUTH) == [data]
    north.confirmed(SOUTH, taken.names)
    assert north.waiting(SOUTH) == []


def test_a_repeated_load_is_confirmed_and_not_shown_again(north: Carrier, south: Carrier) -> None:
    """Also after the reader is done with it, and by a carrier that was started anew."""
    north.spool.mailbox(NORTH).send(SOUTH, sealed())
    load, bodies = load_of(north, SOUTH)
    first = south.take(NORTH, load, bodies)
    assert read(south, SOUTH) == [load.letters[0][1]]
    again = Carrier(spool_of(south.spool.path.parent), SOUTH, anyone).take(NORTH, load, bodies)
    assert again.names == first.names
    assert again.new == 0
    assert read(south, SOUTH) == []


@pytest.mark.parametrize("wrong", ["missing", "other bytes", "shorter"])
def test_a_letter_whose_body_is_wrong_is_asked_for_again(south: Carrier, wrong: str) -> None:
    """Nothing of it is kept, and nothing said of it, so that it comes again whole; then it is taken."""
    body = os.urandom(1000)
    data, right = sealed(NORTH, SOUTH, body), named(body)
    false = {
        "missing": {},
        "other bytes": {key: os.urandom(1000) for key in right},
        "shorter": dict.fromkeys(right, body[:-1]),
    }
    load = Load(NORTH, SOUTH, ((NAME, data),))
    taken = south.take(NORTH, load, false[wrong])
    assert (taken.names, taken.new, taken.refused) == ([], 0, 1)
    assert south.unread() == []
    assert not south.spool.bodies.has(next(iter(right)))
    assert south.take(NORTH, load, right).names == [NAME]


def test_letters_of_or_for_others_are_let_go(south: Carrier) -> None:
    """A letter that its carrier can tell to be no good is counted, never shown, and not asked for again."""
    other = b"x" * 32
    letters = (
        sealed(other, SOUTH),
        sealed(NORTH, other),
        b"no envelope",
        sealed(payload=b"x" * 60_000) + b"x" * 20_000,
    )
    taken = south.take(NORTH, Load(NORTH, SOUTH, tuple((name(at), one) for at, one in enumerate(letters))), {})
    assert (len(taken.names), taken.new, taken.refused) == (4, 0, 4)
    assert south.unread() == []


def test_what_the_check_refuses_is_not_kept(tmp_path: Path) -> None:
    """With a roster at hand, a letter that is not genuine does not get as far as the box."""

    def check(envelope: Envelope) -> None:
        raise Malformed("not genuine")

    carrier = Carrier(spool_of(tmp_path), SOUTH, check)
    body = b"b" * 500
    taken = carrier.take(NORTH, Load(NORTH, SOUTH, ((NAME, sealed(NORTH, SOUTH, body)),)), named(body))
    assert taken.refused == 1
    assert carrier.unread() == []
    assert not carrier.spool.bodies.has(next(iter(named(body))))


@pytest.mark.parametrize("bad", ["../../../etc/passwd", "", ".hidden", "a" * 46, NAME + "\n", NAME.upper(), "\0" * 46])
def test_a_name_leads_nowhere(south: Carrier, bad: str) -> None:
    """Only names as writers make them are taken or confirmed."""
    assert south.take(NORTH, Load(NORTH, SOUTH, ((bad, sealed()),)), {}).names == []
    south.confirmed(NORTH, [bad])
    assert [path.name for path in south.spool.path.parent.iterdir()] == ["flower"]


def test_no_member_can_take_the_place_of_anothers_letter(south: Carrier) -> None:
    """Two members' letters of one name are two letters."""
    other = b"o" * 32
    for sender in (NORTH, other):
        assert south.take(sender, Load(sender, SOUTH, ((NAME, sealed(sender)),)), {}).new == 1
    assert len(read(south, SOUTH)) == 2


def test_a_load_has_bounds_and_the_rest_follows(north: Carrier, monkeypatch: pytest.MonkeyPatch) -> None:
    """Number of letters, their bytes, and the bytes of their bodies; one letter always goes."""
    box = north.spool.mailbox(NORTH)
    for _ in range(MAX_LETTERS + 1):
        box.send(SOUTH, sealed())
    letters, more = north.letters(SOUTH, north.waiting(SOUTH))
    assert (len(letters), more) == (MAX_LETTERS, True)
    north.confirmed(SOUTH, [one.name for one in letters])
    assert len(north.waiting(SOUTH)) == 1
    monkeypatch.setattr("privfl.wires.flower_carry.MAX_CARRIED", 1500)
    assert MAX_CARRIED > 1500
    for at in range(3):
        body = bytes([at]) * 1000
        box.put_body(hashlib.sha256(body).digest(), body)
        box.send(SOUTH, sealed(NORTH, SOUTH, body))
    assert [len(one.refs) for one in north.letters(SOUTH, north.waiting(SOUTH)[1:])[0]] == [1]


def test_the_box_takes_no_more_than_it_holds(south: Carrier, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever sends faster than the reader reads is told nothing, and sends it again."""
    assert BOX_MOST > 3
    monkeypatch.setattr("privfl.wires.flower_carry.BOX_MOST", 3)
    load = Load(NORTH, SOUTH, tuple((name(at), sealed()) for at in range(5)))
    assert len(south.take(NORTH, load, {}).names) == 3
    assert len(read(south, SOUTH)) == 3
    assert len(south.take(NORTH, load, {}).names) == 5
    assert len(read(south, SOUTH)) == 2


def test_names_that_came_are_forgotten_in_time(south: Carrier, monkeypatch: pytest.MonkeyPatch) -> None:
    """The list of what came in does not grow for ever, and keeps the newest."""
    assert SEEN_MOST >= 1000
    monkeypatch.setattr("privfl.wires.flower_carry.SEEN_MOST", 8)
    for at in range(30):
        south.take(NORTH, Load(NORTH, SOUTH, ((name(at), sealed()),)), {})
    seen = os.listdir(south.spool.path / "boxes" / SOUTH.hex() / "seen")
    assert 4 <= len(seen) <= 8
    assert any(one.startswith(name(29)) for one in seen)


def test_a_letter_whose_body_its_writer_has_dropped_is_over(north: Carrier) -> None:
    """What a body was for is over when it is dropped; the letter does not keep the others waiting."""
    body, box = b"b" * 5000, north.spool.mailbox(NORTH)
    sha256 = hashlib.sha256(body).digest()
    box.put_body(sha256, body)
    box.send(SOUTH, sealed(NORTH, SOUTH, body))
    box.drop_body(sha256)
    assert north.letters(SOUTH, north.waiting(SOUTH)) == ([], False)
    assert north.waiting(SOUTH) == []


def test_bodies_go_when_no_letter_names_them(north: Carrier) -> None:
    """Not before they are old, not while a letter waits, and a body that is put again counts as new."""
    box, bodies = north.spool.mailbox(NORTH), [bytes([at]) * 2000 for at in range(3)]
    hashes = [hashlib.sha256(body).digest() for body in bodies]
    for sha256, body in zip(hashes, bodies, strict=True):
        box.put_body(sha256, body)
    box.send(SOUTH, sealed(NORTH, SOUTH, bodies[0]))
    assert north.spool.sweep() == 0
    for sha256 in hashes:
        path = north.spool.path / "bodies" / sha256.hex()[:2] / sha256.hex()
        os.utime(path, (time.time() - 1000,) * 2)
    box.put_body(hashes[1], bodies[1])
    assert north.spool.sweep() == 1
    assert [north.spool.bodies.has(sha256) for sha256 in hashes] == [True, True, False]
    north.confirmed(SOUTH, north.waiting(SOUTH))
    assert north.spool.sweep() == 1


def test_what_is_no_letter_does_not_stand_in_the_way(north: Carrier) -> None:
    """A directory, a link or half a letter in the box is passed over."""
    box = north.spool.mailbox(NORTH)
    box.send(SOUTH, sealed())
    folder = north.spool.path / "boxes" / SOUTH.hex() / "new"
    (folder / name(1)).mkdir()
    (folder / name(2)).symlink_to("/etc/hostname")
    (folder / name(3)).write_bytes(sealed()[:-5])
    (folder / name(4)).write_bytes(b"x" * 200_000)
    assert len(north.letters(SOUTH, north.waiting(SOUTH))[0]) == 1


def test_a_folder_that_cannot_be_used_says_so(north: Carrier) -> None:
    """A spool that is gone is a fault of the wire, in words."""
    (north.spool.path / "boxes").rename(north.spool.path / "away")
    with pytest.raises(WireError, match=r"lacks a part|cannot be read"):
        north.take(SOUTH, Load(SOUTH, NORTH, ((NAME, sealed(SOUTH, NORTH)),)), {})


def test_a_spool_is_made_once_by_whoever_comes_first(tmp_path: Path) -> None:
    """Either side may come first; a folder of something else is refused."""
    made = spool_of(tmp_path)
    assert isinstance(made, Spool)
    assert spool_of(tmp_path).path == made.path == tmp_path / "flower"
    assert isinstance(FolderWire(made.path).mailbox(NORTH), FolderMailbox)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "flower").write_text("a file")
    with pytest.raises(Misuse, match="no wire folder can be made"):
        spool_of(tmp_path / "other")


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=400))
def test_no_bytes_break_the_reader_of_loads(data: bytes) -> None:
    """Whatever comes is a load or Malformed."""
    try:
        assert Load.decode(data).encode() == data
    except Malformed:
        return


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.one_of(st.just(NAME), st.text(max_size=50)), st.binary(max_size=300)), max_size=5),
    st.dictionaries(st.binary(max_size=40), st.binary(max_size=50), max_size=3),
)
def test_no_letters_break_the_taker(tmp_path_factory: pytest.TempPathFactory, letters: list, bodies: dict) -> None:  # type: ignore[type-arg]
    """Garbage for letters and bodies is counted, and nothing of it is kept."""
    carrier = Carrier(spool_of(tmp_path_factory.mktemp("hostile")), SOUTH, anyone)
    taken = carrier.take(NORTH, Load(NORTH, SOUTH, tuple(letters)), bodies)
    assert taken.new == 0
    assert carrier.unread() == []
    assert taken.refused == len(letters)
