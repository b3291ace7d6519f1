"""What a site must not lose: its machine and the upload it may have to repeat, in memory or on disk."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol

from privfl.errors import StorageError, Unverified
from privfl.homes.state import Items

__all__ = ["DurableSiteStore", "MemorySiteStore", "SiteStore"]

MACHINE, UPLOAD, BODY = "machine", "upload", "upload body"


class SiteStore(Protocol):
    """A site's durable state. Each call has happened, or has not, after a crash."""

    def load(self) -> bytes | None:
        """The last saved machine state."""
        ...

    def save(self, dump: bytes) -> None:
        """Make the machine state durable."""
        ...

    def save_outbox(self, dump: bytes, upload: bytes, body: bytes) -> None:
        """Make state and outgoing bytes durable together."""
        ...

    def outbox(self) -> bytes | None:
        """The last upload message that was saved."""
        ...

    def body(self) -> bytes | None:
        """The packed vector that goes with it; None if it is lost, and then nothing is sent."""
        ...

    def end_epoch(self) -> None:
        """Make what was saved before the last save unreadable, as well as the medium allows."""
        ...


class MemorySiteStore:
    """A store that outlives the node but not the process."""

    def __init__(self) -> None:
        self._dump: bytes | None = None
        self._outbox: tuple[bytes, bytes] | None = None

    def load(self) -> bytes | None:
        """See :class:`SiteStore`."""
        return self._dump

    def save(self, dump: bytes) -> None:
        """See :class:`SiteStore`."""
        self._dump = dump

    def save_outbox(self, dump: bytes, upload: bytes, body: bytes) -> None:
        """See :class:`SiteStore`."""
        self._dump, self._outbox = dump, (upload, body)

    def outbox(self) -> bytes | None:
        """See :class:`SiteStore`."""
        return self._outbox[0] if self._outbox else None

    def body(self) -> bytes | None:
        """See :class:`SiteStore`."""
        return self._outbox[1] if self._outbox else None

    def end_epoch(self) -> None:
        """See :class:`SiteStore`; nothing older is kept."""


class DurableSiteStore:
    """A :class:`SiteStore` in the sealed state, the packed vector in a file beside it.

    Args:
        state: of the site's folder. outbox: folder for the packed vector, which is masked and needs no seal.
        beside: what is saved with every change, such as the ledger's head: an older copy of the ledger put
            back in place is then noticed.
    """

    def __init__(self, state: Items, outbox: Path, beside: Callable[[], Mapping[str, bytes | None]] = dict) -> None:
        self._state, self._outbox, self._beside = state, outbox, beside

    def _get(self, name: str) -> bytes | None:
        try:
            return self._state.get(name)
        except Unverified as error:  # it is this site's own disk; no peer is to blame, and none may read why
            raise StorageError(str(error)) from None

    def load(self) -> bytes | None:
        """See :class:`SiteStore`."""
        return self._get(MACHINE)

    def save(self, dump: bytes) -> None:
        """See :class:`SiteStore`."""
        self._state.put({MACHINE: dump, **self._beside()})

    def save_outbox(self, dump: bytes, upload: bytes, body: bytes) -> None:
        """See :class:`SiteStore`.

        The body is whole before anything names it, but not synced, which would take longer than all the rest: if
        a power cut takes it, its hash does not fit, and the site is silent in this slot.
        """
        name = hashlib.sha256(body).digest()
        path = self._path(name)
        try:
            self._outbox.mkdir(mode=0o700, exist_ok=True)
            temporary = path.with_suffix(".tmp")
            temporary.write_bytes(body)
            temporary.replace(path)
        except OSError as error:
            raise StorageError(f"{path} could not be written ({error.strerror}); free some space") from None
        self._state.put({MACHINE: dump, UPLOAD: upload, BODY: name, **self._beside()})
        with contextlib.suppress(OSError):
            for path in self._outbox.iterdir():  # of earlier slots, and what a crash left
                if path != self._path(name) and path.suffix in (".body", ".tmp"):  # the folder may be a link
                    path.unlink(missing_ok=True)

    def outbox(self) -> bytes | None:
        """See :class:`SiteStore`."""
        return self._get(UPLOAD)

    def body(self) -> bytes | None:
        """See :class:`SiteStore`; None as well if the file is damaged."""
        name = self._get(BODY)
        try:
            body = b"" if name is None else self._path(name).read_bytes()
        except OSError:
            return None
        return body if hashlib.sha256(body).digest() == name else None

    def end_epoch(self) -> None:
        """See :class:`SiteStore`."""
        try:
            self._state.rotate()
        except Unverified as error:
            raise StorageError(str(error)) from None

    def _path(self, name: bytes) -> Path:
        return self._outbox / f"{name.hex()}{os.extsep}body"
