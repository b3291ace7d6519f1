"""The memory wire: mailboxes in one process, with faults by seed where a test asks for them."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from privfl.errors import WireError

__all__ = ["Faults", "MemoryWire"]


@dataclass(frozen=True)
class Faults:
    """Chances in [0, 1] that a message is dropped, delivered twice, put out of order or damaged."""

    drop: float = 0.0
    duplicate: float = 0.0
    reorder: float = 0.0
    corrupt: float = 0.0
    seed: int = 0


@dataclass
class _Held:
    data: bytes
    done: bool = False

    def acknowledge(self) -> None:
        self.done = True


class MemoryWire:
    """A set of boxes and bodies. ``work`` is called when a receiver waits: it lets the others take their turn.

    Everything that passes is counted: ``sent_bytes`` per sender (bodies included).
    """

    def __init__(self, faults: Faults | None = None) -> None:
        self._faults = faults or Faults()
        self._chance = random.Random(self._faults.seed)  # noqa: S311 - faults in tests, no secret
        self._boxes: dict[bytes, deque[bytes]] = {}
        self._held: dict[bytes, list[_Held]] = {}
        self._bodies: dict[bytes, bytes] = {}
        self.work: Callable[[], None] = lambda: None
        self.sent_bytes: dict[bytes, int] = {}
        self.tap: Callable[[bytes, bytes], None] = lambda recipient, data: None

    def mailbox(self, own: bytes) -> MemoryMailbox:
        """The end of the wire for participant ``own``."""
        return MemoryMailbox(self, own)

    def forget_bodies(self) -> None:
        """Drop the bodies of finished rounds."""
        self._bodies.clear()

    def post(self, sender: bytes, recipient: bytes, data: bytes) -> None:
        """Carry a message, subject to the faults."""
        self.sent_bytes[sender] = self.sent_bytes.get(sender, 0) + len(data)
        self.tap(recipient, data)
        chance, faults = self._chance.random, self._faults
        box = self._boxes.setdefault(recipient, deque())
        if chance() < faults.drop:
            return
        if data and chance() < faults.corrupt:
            at = self._chance.randrange(len(data))
            data = data[:at] + bytes((data[at] ^ 1,)) + data[at + 1 :]
        for _ in range(2 if chance() < faults.duplicate else 1):
            box.insert(0, data) if chance() < faults.reorder else box.append(data)

    def store(self, sender: bytes, name: bytes, data: bytes) -> None:
        """Keep a body; the first write wins."""
        if name not in self._bodies:
            self.sent_bytes[sender] = self.sent_bytes.get(sender, 0) + len(data)
            self._bodies[name] = data

    def load(self, name: bytes) -> bytes:
        """Read a body."""
        try:
            return self._bodies[name]
        except KeyError:
            raise WireError("a body is not on the wire (yet); ask its sender to repeat it") from None

    def drop(self, name: bytes) -> None:
        """Forget a body, if it is there."""
        self._bodies.pop(name, None)

    def take(self, own: bytes) -> list[_Held]:
        """What waits in a box: what was delivered and not acknowledged, then what is new.

        The box and not its reader remembers, so that whoever opens it after a crash finds what was in work.
        """
        box = self._boxes.setdefault(own, deque())
        again = [held for held in self._held.get(own, ()) if not held.done]
        found = again + [_Held(box.popleft()) for _ in range(len(box))]
        self._held[own] = found
        return list(found)


class MemoryMailbox:
    """One end of a :class:`MemoryWire`; fulfils :class:`~privfl.wires.mailbox.Mailbox`."""

    def __init__(self, wire: MemoryWire, own: bytes) -> None:
        self._wire, self._own = wire, own

    def send(self, recipient: bytes, data: bytes) -> None:
        """See the contract."""
        self._wire.post(self._own, recipient, data)

    def receive(self, wait_ms: int) -> list[_Held]:
        """See the contract; with nothing there and time to wait, the other participants work once."""
        found = self._wire.take(self._own)
        if not found and wait_ms > 0:
            self._wire.work()
            found = self._wire.take(self._own)
        return found

    def put_body(self, sha256: bytes, data: bytes | memoryview, *, recipient: bytes | None = None) -> None:
        """See the contract."""
        self._wire.store(self._own, sha256, bytes(data))

    def get_body(self, sha256: bytes, *, size: int | None = None, sender: bytes | None = None) -> bytes:
        """See the contract."""
        data = self._wire.load(sha256)
        if size not in (None, len(data)):
            raise WireError(f"a body on the wire has {len(data)} bytes and not {size}; ask its sender to repeat it")
        return data

    def drop_body(self, sha256: bytes) -> None:
        """See the contract."""
        self._wire.drop(sha256)

    def close(self) -> None:
        """See the contract; there is nothing to let go of."""
