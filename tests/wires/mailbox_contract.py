"""The mailbox contract as tests: a wire subclasses :class:`MailboxContract` and says how an end is opened.

A wire that passes may lose nothing that was not acknowledged, shows nobody another's mail, and keeps the
first body of a name. Who writes a body says for whom, who reads one says whose. Order, delay and repetition are
its own business.
"""

from __future__ import annotations

import hashlib
import os
import signal
import warnings
from collections.abc import Callable

import pytest

from privfl.errors import WireError
from privfl.wires import Delivery, Mailbox
from privfl.wires.envelope import MAX_ENVELOPE

NORTH, SOUTH = b"n" * 32, b"s" * 32
STRANGE = [bytes(32), b"\xff" * 32, b"/../" * 8, b"\x00\n*?'\"\\:" * 4]  # ids are any bytes


class MailboxContract:
    """Inherit from this, override :meth:`open`, and collect the tests."""

    #: The longest a wire may take until a message that was sent is received.
    PATIENCE_MS = 5_000

    #: Whether ends opened in several processes belong to one wire.
    PROCESSES = True

    def open(self, own: bytes) -> Mailbox:
        """Open (or open again, as after a restart) one participant's end of one and the same wire."""
        raise NotImplementedError

    def collect(self, mailbox: Mailbox, least: int, *, acknowledge: bool = True) -> list[Delivery]:
        """Receive until ``least`` messages are there."""
        found: list[Delivery] = []
        for _ in range(50):
            for delivery in mailbox.receive(self.PATIENCE_MS // 50):
                found.append(delivery)
                if acknowledge:
                    delivery.acknowledge()
            if len(found) >= least:
                break
        return found

    def test_a_message_arrives_as_it_was_sent(self) -> None:
        """Bytes come out as they went in, for its recipient alone."""
        data = os.urandom(1000)
        self.open(NORTH).send(SOUTH, data)
        assert {one.data for one in self.collect(self.open(SOUTH), 1)} == {data}
        assert self.open(NORTH).receive(0) == []

    def test_every_message_arrives(self) -> None:
        """Fifty messages are all delivered, in whatever order, whoever sent them."""
        sent = {os.urandom(64) for _ in range(50)}
        for at, data in enumerate(sorted(sent)):
            self.open(NORTH if at % 2 else SOUTH).send(SOUTH, data)
        assert {one.data for one in self.collect(self.open(SOUTH), 50)} == sent

    def test_nothing_comes_back_once_it_is_acknowledged(self) -> None:
        """An acknowledged message is gone, for this end and for one opened later; twice acknowledged is harmless."""
        self.open(NORTH).send(SOUTH, b"once")
        mailbox = self.open(SOUTH)
        (delivery,) = self.collect(mailbox, 1)
        delivery.acknowledge()
        assert list(mailbox.receive(0)) == []
        assert list(self.open(SOUTH).receive(0)) == []

    def test_what_is_not_acknowledged_comes_again(self) -> None:
        """A reader that dies before its effect is durable finds the message again, at the same end or a new one."""
        self.open(NORTH).send(SOUTH, b"again")
        mailbox = self.open(SOUTH)
        assert [one.data for one in self.collect(mailbox, 1, acknowledge=False)] == [b"again"]
        assert [one.data for one in self.collect(mailbox, 1, acknowledge=False)] == [b"again"]
        assert [one.data for one in self.collect(self.open(SOUTH), 1)] == [b"again"]
        assert list(self.open(SOUTH).receive(0)) == []

    def test_acknowledging_one_keeps_the_others(self) -> None:
        """Acknowledgement is per message."""
        for data in (b"one", b"two", b"three"):
            self.open(NORTH).send(SOUTH, data)
        for delivery in self.collect(self.open(SOUTH), 3, acknowledge=False):
            if delivery.data == b"two":
                delivery.acknowledge()
        assert {one.data for one in self.collect(self.open(SOUTH), 2)} == {b"one", b"three"}

    def test_an_empty_box_is_an_empty_list(self) -> None:
        """Nothing there is no error, waiting or not."""
        mailbox = self.open(SOUTH)
        assert list(mailbox.receive(0)) == []
        assert list(mailbox.receive(1)) == []

    @pytest.mark.parametrize("size", [0, 1, 65_537, 1 << 20])
    def test_a_body_comes_back_whole(self, size: int) -> None:
        """Bodies of any size are read by whoever knows the name; a view of memory is as good as bytes."""
        data = os.urandom(size)
        name = hashlib.sha256(data).digest()
        self.open(NORTH).put_body(name, memoryview(bytearray(data)), recipient=SOUTH)
        assert self.open(SOUTH).get_body(name, sender=NORTH) == data

    def test_the_first_write_of_a_body_wins(self) -> None:
        """A second write under the same name changes nothing and is no error, whoever makes it."""
        name = hashlib.sha256(b"first").digest()
        self.open(NORTH).put_body(name, b"first", recipient=SOUTH)
        self.open(NORTH).put_body(name, b"other", recipient=SOUTH)
        self.open(SOUTH).put_body(name, b"third", recipient=SOUTH)
        assert self.open(SOUTH).get_body(name, sender=NORTH) == b"first"

    def test_a_body_is_copied(self) -> None:
        """A sender that reuses its buffer does not change what was stored."""
        buffer = bytearray(b"before")
        name = hashlib.sha256(buffer).digest()
        self.open(NORTH).put_body(name, memoryview(buffer), recipient=SOUTH)
        buffer[:] = b"after!"
        assert self.open(SOUTH).get_body(name, sender=NORTH) == b"before"

    def test_a_missing_body_is_the_wire_s_error(self) -> None:
        """A name that nobody wrote raises WireError."""
        with pytest.raises(WireError):
            self.open(SOUTH).get_body(hashlib.sha256(os.urandom(8)).digest(), sender=NORTH)

    @pytest.mark.parametrize("size", [0, 4, 6, 1 << 40])
    def test_a_body_of_another_size_is_not_read(self, size: int) -> None:
        """Who knows the size says so, and a wrong body is the wire's error before it takes any memory."""
        name = hashlib.sha256(b"right").digest()
        self.open(NORTH).put_body(name, b"right", recipient=SOUTH)
        with pytest.raises(WireError):
            self.open(SOUTH).get_body(name, size=size, sender=NORTH)
        assert self.open(SOUTH).get_body(name, size=5, sender=NORTH) == b"right"

    def test_a_body_is_dropped_as_often_as_one_likes(self) -> None:
        """Dropping is no error for a body that is there, gone, or never was; a dropped name can be written again."""
        name, other = hashlib.sha256(b"body").digest(), hashlib.sha256(b"other").digest()
        north, south = self.open(NORTH), self.open(SOUTH)
        south.drop_body(name)
        for _ in range(2):
            north.put_body(name, b"body", recipient=SOUTH)
            north.put_body(other, b"other", recipient=SOUTH)
            assert south.get_body(name, size=4, sender=NORTH) == b"body"
            south.drop_body(name)
            north.drop_body(name)
            assert south.get_body(other, sender=NORTH) == b"other"

    def test_a_body_of_eight_mebibytes_comes_back_whole(self) -> None:
        """As large as a real model's vector."""
        data = os.urandom(1 << 20) * 8
        name = hashlib.sha256(data).digest()
        self.open(NORTH).put_body(name, data, recipient=SOUTH)
        assert self.open(SOUTH).get_body(name, size=len(data), sender=NORTH) == data

    @pytest.mark.parametrize("participant", STRANGE)
    def test_ids_and_names_are_any_bytes(self, participant: bytes) -> None:
        """Nothing in an id or a body's name means anything to the wire."""
        self.open(NORTH).send(participant, participant)
        assert {one.data for one in self.collect(self.open(participant), 1)} == {participant}
        self.open(participant).put_body(participant, b"named", recipient=NORTH)
        assert self.open(NORTH).get_body(participant, size=5, sender=participant) == b"named"

    def test_the_longest_envelope_passes(self) -> None:
        """Whatever fits an envelope fits the wire."""
        data = os.urandom(MAX_ENVELOPE)
        self.open(NORTH).send(SOUTH, data)
        assert [one.data for one in self.collect(self.open(SOUTH), 1)] == [data]

    def test_messages_sent_meanwhile_are_not_lost(self) -> None:
        """A reader that acknowledges while more arrives gets every one."""
        north, south, got = self.open(NORTH), self.open(SOUTH), set[bytes]()
        for at in range(20):
            north.send(SOUTH, b"%d" % at)
            if at % 3 == 0:
                got |= {one.data for one in self.collect(south, 1)}
        while len(got) < 20 and (more := self.collect(south, 1)):
            got |= {one.data for one in more}
        assert got == {b"%d" % at for at in range(20)}

    def test_many_send_at_once(self) -> None:
        """Senders in processes of their own, where the wire reaches that far: every message arrives whole."""

        def send(who: int) -> None:
            mailbox = self.open(bytes([who]) * 32)
            for at in range(20):
                mailbox.send(SOUTH, bytes([who, at]) * 500)

        self.at_once(send, 4)
        sent = {bytes([who, at]) * 500 for who in range(4) for at in range(20)}
        assert {one.data for one in self.collect(self.open(SOUTH), 80)} == sent

    def test_of_many_writers_of_a_body_one_wins_whole(self) -> None:
        """Who comes first is open; that one of them does, whole and for good, is not."""
        name = hashlib.sha256(b"contended").digest()

        def write(who: int) -> None:
            self.open(NORTH).put_body(name, bytes([who]) * 300_000, recipient=SOUTH)

        self.at_once(write, 4)
        won = self.open(SOUTH).get_body(name, sender=NORTH)
        assert won in {bytes([who]) * 300_000 for who in range(4)}
        self.open(NORTH).put_body(name, b"late", recipient=SOUTH)
        assert self.open(SOUTH).get_body(name, size=300_000, sender=NORTH) == won

    def test_a_reader_killed_before_it_acknowledges(self) -> None:
        """What it held comes again to the one started in its place."""
        self.open(NORTH).send(SOUTH, b"held")

        def die(who: int) -> None:
            assert [one.data for one in self.collect(self.open(SOUTH), 1, acknowledge=False)] == [b"held"]
            if self.PROCESSES:
                os.kill(os.getpid(), signal.SIGKILL)

        self.at_once(die, 1, code=-signal.SIGKILL)
        assert [one.data for one in self.collect(self.open(SOUTH), 1)] == [b"held"]

    def at_once(self, work: Callable[[int], None], count: int, *, code: int = 0) -> None:
        """Run ``work(0 … count − 1)`` in forked processes that end with ``code``, or in turn on a wire in memory."""
        if not self.PROCESSES:
            for who in range(count):
                work(who)
            return
        children = [forked(work, who) for who in range(count)]
        assert [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children] == [code] * count


def forked(work: Callable[[int], None], who: int) -> int:
    """Start ``work(who)`` in a process of its own, which exits with 1 if it raises; returns its id."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # libraries' idle threads; the child calls nothing of them
        child = os.fork()
    if child == 0:
        code = 1
        try:
            work(who)
            code = 0
        finally:
            os._exit(code)
    return child
