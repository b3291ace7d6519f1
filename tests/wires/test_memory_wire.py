"""The memory wire keeps the mailbox contract, and its faults are what they say and replay by seed."""

from __future__ import annotations

from collections import Counter

import pytest

from privfl.wires import Faults, MemoryWire
from privfl.wires.memory import MemoryMailbox
from tests.wires.mailbox_contract import NORTH, SOUTH, MailboxContract

MESSAGES = [bytes([at, 255 - at]) * 20 for at in range(200)]


class TestMemoryWire(MailboxContract):
    """The contract on a wire without faults."""

    PROCESSES = False

    @pytest.fixture(autouse=True)
    def _wire(self) -> None:
        self.wire = MemoryWire()

    def open(self, own: bytes) -> MemoryMailbox:
        """A new end of the same wire."""
        return self.wire.mailbox(own)


class TestReorderingMemoryWire(MailboxContract):
    """The contract where messages overtake one another: nothing in it rests on order."""

    PROCESSES = False

    @pytest.fixture(autouse=True)
    def _wire(self) -> None:
        self.wire = MemoryWire(Faults(reorder=0.5, seed=3))

    def open(self, own: bytes) -> MemoryMailbox:
        """A new end of the same wire."""
        return self.wire.mailbox(own)


def carried(faults: Faults) -> list[bytes]:
    """What arrives of 200 messages."""
    wire = MemoryWire(faults)
    for data in MESSAGES:
        wire.mailbox(NORTH).send(SOUTH, data)
    return [one.data for one in wire.mailbox(SOUTH).receive(0)]


def test_without_faults_everything_arrives_in_order() -> None:
    """The plain wire is a queue."""
    assert carried(Faults()) == MESSAGES


@pytest.mark.parametrize("chance", [0.1, 0.5])
def test_dropped_messages_are_gone_and_nothing_else_changes(chance: float) -> None:
    """What is left is a subsequence of about the right length (binomial, 7 deviations)."""
    got = carried(Faults(drop=chance, seed=1))
    rest = iter(MESSAGES)
    assert all(any(data == sent for sent in rest) for data in got)
    assert abs(len(got) - 200 * (1 - chance)) < 7 * (200 * chance * (1 - chance)) ** 0.5


def test_duplicates_come_twice_and_complete() -> None:
    """Every message arrives once or twice."""
    counts = Counter(carried(Faults(duplicate=0.5, seed=1)))
    assert set(counts) == set(MESSAGES)
    assert set(counts.values()) == {1, 2}


def test_reordering_moves_and_loses_nothing() -> None:
    """The same messages in another order."""
    got = carried(Faults(reorder=0.5, seed=1))
    assert got != MESSAGES
    assert sorted(got) == sorted(MESSAGES)


def test_damage_is_one_bit_of_a_message() -> None:
    """A corrupt message differs from the one sent in exactly one bit."""
    got = carried(Faults(corrupt=0.5, seed=1))
    flips = [
        sum((a ^ b).bit_count() for a, b in zip(data, sent, strict=True))
        for data, sent in zip(got, MESSAGES, strict=True)
    ]
    assert set(flips) == {0, 1}


def test_a_seed_replays_its_faults() -> None:
    """Two wires with one seed do the same; another seed does otherwise."""
    faults = {"drop": 0.2, "duplicate": 0.2, "reorder": 0.2, "corrupt": 0.2}
    assert carried(Faults(**faults, seed=7)) == carried(Faults(**faults, seed=7))
    assert carried(Faults(**faults, seed=7)) != carried(Faults(**faults, seed=8))


def test_waiting_lets_the_others_work_and_counts_what_is_sent() -> None:
    """A receiver that waits at an empty box gives the others their turn; bytes are counted by sender, bodies once."""
    wire = MemoryWire()
    wire.work = lambda: wire.mailbox(NORTH).send(SOUTH, b"12345")
    assert wire.mailbox(SOUTH).receive(0) == []
    assert [one.data for one in wire.mailbox(SOUTH).receive(1)] == [b"12345"]
    wire.mailbox(NORTH).put_body(b"h" * 32, b"123")
    wire.mailbox(NORTH).put_body(b"h" * 32, b"123")
    assert wire.sent_bytes == {NORTH: 8}
    wire.forget_bodies()
    with pytest.raises(Exception, match="not on the wire"):
        wire.mailbox(SOUTH).get_body(b"h" * 32)
