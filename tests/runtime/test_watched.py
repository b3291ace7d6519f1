"""A watched mailbox is a mailbox; it counts once what passes, and knows whether its wire can be used."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import pytest

from privfl.errors import WireError
from privfl.runtime.status import WireSeen
from privfl.runtime.watched import WatchedMailbox
from privfl.wires.memory import MemoryWire
from tests.wires.mailbox_contract import NORTH, SOUTH, MailboxContract

BODY = b"b" * 1000
NAME = hashlib.sha256(BODY).digest()


class Hand:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.time = 1000

    def now(self) -> int:
        return self.time

    def advance(self, milliseconds: int) -> None:
        self.time += milliseconds


class Moody:
    """A mailbox whose wire can be taken away."""

    def __init__(self, inner: Any) -> None:
        self.inner, self.away, self.own_word = inner, False, "mine"

    def __getattr__(self, name: str) -> Any:
        if self.away:
            raise WireError(f"no {name} now")
        return getattr(self.inner, name)


@pytest.fixture
def clock() -> Hand:
    return Hand()


def pair(clock: Hand) -> tuple[WatchedMailbox, Moody, WatchedMailbox, list[WireSeen]]:
    """North with a wire that comes and goes, what it said of changes, and the south."""
    wire, told = MemoryWire(), list[WireSeen]()
    moody = Moody(wire.mailbox(NORTH))
    north = WatchedMailbox(moody, clock, "memory", "here", lambda: told.append(north.seen))
    return north, moody, WatchedMailbox(wire.mailbox(SOUTH), clock, "memory", "here"), told


class TestWatchedMailbox(MailboxContract):
    """The contract, kept."""

    PROCESSES = False

    @pytest.fixture(autouse=True)
    def _wire(self) -> None:
        self.wire = MemoryWire()

    def open(self, own: bytes) -> WatchedMailbox:
        """A new end of the same wire, watched."""
        return WatchedMailbox(self.wire.mailbox(own), Hand(), "memory", "here")


def taken(mailbox: WatchedMailbox) -> Sequence[Any]:
    """What is there."""
    return mailbox.receive(0)


def test_what_passes_is_counted_once(clock: Hand) -> None:
    """Messages when they are acknowledged, however often shown or acknowledged; bodies when they pass."""
    north, _, south, told = pair(clock)
    north.put_body(NAME, memoryview(BODY), recipient=SOUTH)
    north.send(SOUTH, b"x" * 10)
    (found,) = taken(south)
    assert (found.data, south.seen.received) == (b"x" * 10, 0)
    assert south.get_body(NAME, size=1000, sender=NORTH) == BODY
    clock.advance(5)
    found.acknowledge()
    found.acknowledge()
    assert (north.seen.sent, north.seen.bytes_sent, north.to) == (1, 1010, {SOUTH: 1010})
    assert (south.seen.received, south.seen.bytes_received, south.seen.last) == (1, 1010, 1005)
    assert (north.seen.kind, north.seen.place, told) == ("memory", "here", [])


def test_faults_are_told_at_once_and_remembered(clock: Hand) -> None:
    """Since when, how often tried, the words; then that it is over, with the words kept."""
    north, moody, _, told = pair(clock)
    moody.away = True
    for _ in range(3):
        clock.advance(10)
        with pytest.raises(WireError):
            north.receive(0)
    assert north.away
    assert [(one.since, one.tries, one.fault) for one in told] == [(1010, n, "no receive now") for n in (1, 2, 3)]
    moody.away = False
    north.receive(0)
    assert not north.away
    assert (told[-1].since, told[-1].faults, told[-1].ended, told[-1].fault) == (None, 1, 1030, "no receive now")
    moody.away = True
    with pytest.raises(WireError):
        north.send(SOUTH, b"")
    assert (told[-1].since, told[-1].tries, told[-1].faults, told[-1].sent) == (1030, 1, 2, 0)


def test_a_missing_body_is_no_fault_of_the_wire(clock: Hand) -> None:
    """Its writer may not be done."""
    north, _, _, told = pair(clock)
    with pytest.raises(WireError):
        north.get_body(NAME, sender=SOUTH)
    assert not north.away
    assert told == []


def test_what_a_wire_has_beside(clock: Hand) -> None:
    """It is reached through the watch."""
    assert pair(clock)[0].own_word == "mine"
