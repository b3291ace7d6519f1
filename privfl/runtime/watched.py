"""The own end of a wire, watched: what passed, whether it can be used now, and since when not."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from privfl.clock import Clock
from privfl.errors import WireError
from privfl.runtime.status import WireSeen
from privfl.wires.mailbox import Delivery, Mailbox

__all__ = ["WatchedMailbox"]


class WatchedMailbox:
    """A mailbox that counts what passes through ``mailbox`` and remembers its last fault; it changes nothing.

    A message counts as received when it is acknowledged, so that one which is shown again counts once. A body that is
    not there (yet) is no fault of the wire: its sender may still be writing it.

    Args:
        kind, place: of the wire, for people. changed: called when the wire becomes unusable, fails again, or is back.
    """

    def __init__(
        self, mailbox: Mailbox, clock: Clock, kind: str, place: str, changed: Callable[[], None] = lambda: None
    ) -> None:
        self._inner, self._clock, self._changed = mailbox, clock, changed
        self._kind, self._place = kind, place
        self._sent = self._received = self._bytes_sent = self._bytes_received = 0
        self._since: int | None = None
        self._tries = self._faults = 0
        self._fault = ""
        self._ended: int | None = None
        self._last: int | None = None
        self.to: dict[bytes, int] = {}  # recipient → bytes
        self.seen = self._looked()

    def _looked(self) -> WireSeen:
        return WireSeen(
            kind=self._kind,
            place=self._place,
            sent=self._sent,
            received=self._received,
            bytes_sent=self._bytes_sent,
            bytes_received=self._bytes_received,
            last=self._last,
            since=self._since,
            tries=self._tries,
            faults=self._faults,
            fault=self._fault,
            ended=self._ended,
        )

    def __getattr__(self, name: str) -> Any:
        """What this kind of wire has beside the contract."""
        if name.startswith("_"):  # not while this object is being made
            raise AttributeError(name)
        return getattr(self._inner, name)

    @property
    def away(self) -> bool:
        """Whether the last thing tried did not work."""
        return self._since is not None

    @contextmanager
    def _tried(self) -> Iterator[None]:
        try:
            yield
        except WireError as error:
            if self._since is None:
                self._since, self._tries, self._ended = self._clock.now(), 0, None
                self._faults += 1
            self._tries += 1
            self._fault = str(error)
            self.seen = self._looked()
            self._changed()
            raise
        if self._since is not None:
            self._since, self._ended = None, self._clock.now()
            self.seen = self._looked()
            self._changed()

    def _passed(self, *, sent: int = 0, received: int = 0, out: int = 0, into: int = 0) -> None:
        self._sent += sent
        self._received += received
        self._bytes_sent += out
        self._bytes_received += into
        self._last = self._clock.now()
        self.seen = self._looked()

    def send(self, recipient: bytes, data: bytes) -> None:
        """See :class:`Mailbox`."""
        with self._tried():
            self._inner.send(recipient, data)
        self.to[recipient] = self.to.get(recipient, 0) + len(data)
        self._passed(sent=1, out=len(data))

    def receive(self, wait_ms: int) -> Sequence[Delivery]:
        """See :class:`Mailbox`."""
        with self._tried():
            found = self._inner.receive(wait_ms)
        return [_Watched(one, self) for one in found]

    def put_body(self, sha256: bytes, data: bytes | memoryview, *, recipient: bytes | None = None) -> None:
        """See :class:`Mailbox`."""
        with self._tried():
            self._inner.put_body(sha256, data, recipient=recipient)
        size = data.nbytes if isinstance(data, memoryview) else len(data)
        if recipient is not None:
            self.to[recipient] = self.to.get(recipient, 0) + size
        self._passed(out=size)

    def get_body(self, sha256: bytes, *, size: int | None = None, sender: bytes | None = None) -> bytes:
        """See :class:`Mailbox`."""
        body = self._inner.get_body(sha256, size=size, sender=sender)
        self._passed(into=len(body))
        return body

    def drop_body(self, sha256: bytes) -> None:
        """See :class:`Mailbox`."""
        self._inner.drop_body(sha256)

    def close(self) -> None:
        """See :class:`Mailbox`."""
        self._inner.close()


class _Watched:
    """A delivery that is counted once it is acknowledged."""

    def __init__(self, inner: Delivery, mailbox: WatchedMailbox) -> None:
        self._inner, self._mailbox = inner, mailbox
        self._counted = False

    @property
    def data(self) -> bytes:
        return self._inner.data

    def acknowledge(self) -> None:
        with self._mailbox._tried():
            self._inner.acknowledge()
        if not self._counted:
            self._counted = True
            self._mailbox._passed(received=1, into=len(self._inner.data))
