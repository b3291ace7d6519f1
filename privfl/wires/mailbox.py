"""The mailbox contract: at-least-once, unordered, delayed, possibly tampered with.

A mailbox moves bytes and knows no secret. Receivers are idempotent, acknowledge only what is durable,
and verify everything; the first write of a body wins.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

__all__ = ["Delivery", "Mailbox"]


class Delivery(Protocol):
    """One received message; it comes again unless it is acknowledged."""

    @property
    def data(self) -> bytes:
        """The envelope's bytes, unverified."""
        ...

    def acknowledge(self) -> None:
        """Say that the message's effect is durable; it is not delivered again.

        Raises:
            WireError: the wire does not take it; the message comes again.
        """
        ...


class Mailbox(Protocol):
    """One participant's end of a wire."""

    def send(self, recipient: bytes, data: bytes) -> None:
        """Put an envelope's bytes into ``recipient``'s box; raises WireError if it cannot be carried."""
        ...

    def receive(self, wait_ms: int) -> Sequence[Delivery]:
        """Return what has arrived, waiting up to ``wait_ms`` if nothing has; an empty list means nothing came.

        Raises:
            WireError: the box cannot be read now; try again later.
        """
        ...

    def put_body(self, sha256: bytes, data: bytes | memoryview, *, recipient: bytes | None = None) -> None:
        """Store a body under its hash; a second write of the same name changes nothing.

        Args:
            recipient: who is to read it; a wire may keep it from everyone else. None: whoever knows its name, where a
                wire has such bodies; Misuse where it has none.
        """
        ...

    def get_body(self, sha256: bytes, *, size: int | None = None, sender: bytes | None = None) -> bytes:
        """Read a body. Its content is not checked here; whoever asked holds it against its hash.

        Args:
            sender: who named it in a message; a wire that keeps bodies by their writers looks there alone.

        Raises:
            WireError: it is not there, or ``size`` (bytes) is given and what is stored has another size; then it
                is not read, so that a wrong body costs its reader no memory.
        """
        ...

    def drop_body(self, sha256: bytes) -> None:
        """Say that a body is no longer needed, as far as this participant knows: best effort, never an error.

        A wire may keep it all the same. Dropped and put again, it is there again.
        """
        ...

    def close(self) -> None:
        """Let go of what this end holds (connections, threads); what was received and not acknowledged comes again."""
        ...
