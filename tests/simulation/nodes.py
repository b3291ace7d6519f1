"""Drivers of the real machines: what is on disk, what is in memory, and in which order they change.

A step takes one message, moves the machine, and returns what to store and what to send. The world
stores first and sends second, and lets a crash fall before, between and within the two. After a crash
only the disk is left. Nothing here repeats a rule of the protocol; refusals are the machines' own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from privfl.codec import Record, decode, encode
from privfl.errors import Malformed, PrivflError
from privfl.secagg import SiteMachine
from privfl.secagg.messages import Advert, Announcement, Ask, Confirmations, Contribution, EpochRecord, Scope, Upload

__all__ = ["COORDINATOR", "Disk", "Envelope", "Send", "SiteNode", "Step", "pack", "unpack_parts"]

COORDINATOR = -1


@dataclass(frozen=True)
class Send:
    """Bytes for a node: a site's index, or the coordinator."""

    to: int
    data: bytes


@dataclass(frozen=True)
class Envelope:
    """A message as it arrives: what kind of step it asks for, and its parts."""

    kind: str
    parts: tuple[bytes, ...]


def pack(to: int, kind: str, *parts: Record | bytes | int) -> Send:
    """Address one message."""
    raw = tuple(part.encode() if isinstance(part, Record) else part for part in parts)
    return Send(to, encode((kind, *(encode(part) if isinstance(part, int) else part for part in raw))))


def unpack_parts(data: bytes) -> Envelope:
    """Read what arrived; raises Malformed for what the network broke beyond recognition."""
    value = decode(data)
    if not isinstance(value, tuple) or not value or not isinstance(value[0], str):
        raise Malformed("not an envelope")
    parts = tuple(part for part in value[1:] if isinstance(part, bytes))
    if len(parts) != len(value) - 1:
        raise Malformed("not an envelope")
    return Envelope(value[0], parts)


@dataclass
class Disk:
    """What survives a crash: the machine's last stored state, and bytes that may be sent again."""

    dump: bytes
    outbox: dict[tuple[object, ...], bytes] = field(default_factory=dict)


@dataclass
class Step:
    """What one message led to: nothing stored where the machine refused."""

    dump: bytes | None = None
    outbox: dict[tuple[object, ...], bytes] = field(default_factory=dict)
    sends: list[Send] = field(default_factory=list)
    then: Envelope | None = None  # the node's own next step, lost in a crash
    refused: PrivflError | None = None
    notes: list[Any] = field(default_factory=list)  # more to store, in the coordinator's terms


class SiteNode:
    """One site: its disk, and its machine while it runs."""

    def __init__(
        self,
        index: int,
        disk: Disk,
        load: Callable[[bytes, bool], SiteMachine],
        vector: Callable[[int, Announcement], npt.NDArray[np.int64]],
        ledger_head: bytes,
    ) -> None:
        self.index, self.disk, self._load, self._vector, self._head = index, disk, load, vector, ledger_head
        self.machine = load(disk.dump, False)
        self.up, self.skew, self.delay = True, 0, 0

    def restart(self) -> Envelope | None:
        """Come up again from the disk, and go on where the last slot was left, if the machine allows it."""
        self.machine, self.up = self._load(self.disk.dump, True), True
        self.disk.dump = self.machine.dump()
        accepted = self.disk.outbox.get(("accepted",))
        return Envelope("compute", (accepted,)) if accepted is not None else None

    def reload(self) -> None:
        """Replace the machine by its own dump, as a stateless host does between any two steps."""
        dump = self.machine.dump()
        self.machine = self._load(dump, False)
        assert self.machine.dump() == dump, "a state does not survive being dumped and loaded"

    def store(self, step: Step) -> None:
        """One transaction."""
        if step.dump is not None:
            self.disk.dump = step.dump
        self.disk.outbox.update(step.outbox)

    def step(self, envelope: Envelope, now: int) -> Step:
        """Take one message."""
        handler: Callable[[tuple[bytes, ...], int], Step] | None = getattr(self, f"_on_{envelope.kind}", None)
        if handler is None:
            return Step(refused=Malformed("an unknown kind of message"))
        before = self.machine._state
        try:
            return handler(envelope.parts, now + self.skew)
        except PrivflError as error:
            refused = error
        assert self.machine._state is before, f"a refusal changed the state: {refused}"
        return Step(refused=refused)

    def _done(self, kind: str, key: tuple[object, ...], *parts: Record | bytes | int) -> Step:
        send = pack(COORDINATOR, kind, self.index, *parts)
        return Step(self.machine.dump(), {key: send.data} if key else {}, [send])

    def _again(self, key: tuple[object, ...]) -> Step | None:
        stored = self.disk.outbox.get(key)
        return None if stored is None else Step(sends=[Send(COORDINATOR, stored)])

    def _on_epoch(self, parts: tuple[bytes, ...], _: int) -> Step:
        number = Scope.decode(one(parts)).epoch
        if number < self.machine.epoch:
            return Step(sends=[pack(COORDINATOR, "ahead", self.index, self.machine.epoch)])
        key = ("advert", number)
        return self._again(key) or self._done("advert", key, self.machine.advertise(number))

    def _on_adverts(self, parts: tuple[bytes, ...], _: int) -> Step:
        key = ("contributions", self.machine.epoch)
        if again := self._again(key):
            return again
        out, _excluded = self.machine.contribute([Advert.decode(part) for part in parts])
        return self._done("contributions", key, *out)

    def _on_inbox(self, parts: tuple[bytes, ...], _: int) -> Step:
        key = ("confirmations", self.machine.epoch)
        if again := self._again(key):
            return again
        message, _excluded = self.machine.confirm([Contribution.decode(part) for part in parts])
        return self._done("confirmations", key, message)

    def _on_record(self, parts: tuple[bytes, ...], now: int) -> Step:
        if not parts:
            raise Malformed("no record")
        record = EpochRecord.decode(parts[0])
        key = ("joined", record.digest)
        if again := self._again(key):
            return again
        self.machine.join(record, [Confirmations.decode(part) for part in parts[1:]], now=now)
        return self._done("joined", key, record.digest)

    def _on_announcement(self, parts: tuple[bytes, ...], now: int) -> Step:
        a = Announcement.decode(one(parts))
        if again := self._again(("upload", a.h0)):
            return again
        self.machine.accept(a, now=now, ledger_head=self._head)
        return Step(self.machine.dump(), {("accepted",): parts[0]}, then=Envelope("compute", parts))

    def _on_compute(self, parts: tuple[bytes, ...], now: int) -> Step:
        a = Announcement.decode(one(parts))
        if again := self._again(("upload", a.h0)):
            return again
        out = self.machine.upload(a, self._vector(self.index, a), now=now)
        self.machine.check_resend(Upload.decode(out.message.encode()))
        return self._done("upload", ("upload", a.h0), out.message, out.body)

    def _on_vote(self, parts: tuple[bytes, ...], now: int) -> Step:
        vote = self.machine.vote(Ask.decode(one(parts)), now=now)
        return self._done("vote", (), vote)

    def _on_abort(self, parts: tuple[bytes, ...], now: int) -> Step:
        del now  # an ABORT vote opens nothing, so it may come late
        return self._done("vote", (), self.machine.vote_abort(Announcement.decode(one(parts))))

    def _on_release(self, parts: tuple[bytes, ...], now: int) -> Step:
        return self._done("release", (), self.machine.release(Ask.decode(one(parts)), now=now))


def one(parts: tuple[bytes, ...]) -> bytes:
    """The only part of a message."""
    if len(parts) != 1:
        raise Malformed("a message of another shape")
    return parts[0]


def number(part: Any) -> int:
    """An integer part."""
    value = decode(part)
    if not isinstance(value, int) or isinstance(value, bool):
        raise Malformed("not a number")
    return value
