"""A site's durable store: its machine in the sealed state, the vector it may have to repeat in a file beside it."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Callable, Mapping
from pathlib import Path

from privfl.errors import StorageError
from privfl.homes.files import write_file
from privfl.homes.state import Items

__all__ = ["DurableSiteStore"]

MACHINE, UPLOAD, BODY = "machine", "upload", "upload body"


class DurableSiteStore:
    """Fulfils :class:`~privfl.runtime.site.SiteStore` on a sealed state.

    Args:
        state: of the site's folder. outbox: folder for the packed vector, which is masked and needs no seal.
        beside: what is saved with every change, such as the ledger's head: an older copy of the ledger put
            back in place is then noticed.
    """

    def __init__(self, state: Items, outbox: Path, beside: Callable[[], Mapping[str, bytes | None]] = dict) -> None:
        self._state, self._outbox, self._beside = state, outbox, beside

    def load(self) -> bytes | None:
        """See :class:`~privfl.runtime.site.SiteStore`."""
        return self._state.get(MACHINE)

    def save(self, dump: bytes) -> None:
        """See :class:`~privfl.runtime.site.SiteStore`."""
        self._state.put({MACHINE: dump, **self._beside()})

    def save_outbox(self, dump: bytes, upload: bytes, body: bytes) -> None:
        """See :class:`~privfl.runtime.site.SiteStore`; the body is on the disk before anything names it."""
        name = hashlib.sha256(body).digest()
        try:
            self._outbox.mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            raise StorageError(f"{self._outbox} cannot be made ({error.strerror}); check the folder") from None
        write_file(self._path(name), body)
        self._state.put({MACHINE: dump, UPLOAD: upload, BODY: name, **self._beside()})
        with contextlib.suppress(OSError):
            for path in self._outbox.iterdir():  # of earlier slots, and what a crash left
                if path != self._path(name):
                    path.unlink(missing_ok=True)

    def outbox(self) -> bytes | None:
        """See :class:`~privfl.runtime.site.SiteStore`."""
        return self._state.get(UPLOAD)

    def body(self) -> bytes | None:
        """See :class:`~privfl.runtime.site.SiteStore`; None as well if the file is damaged."""
        name = self._state.get(BODY)
        try:
            body = b"" if name is None else self._path(name).read_bytes()
        except OSError:
            return None
        return body if hashlib.sha256(body).digest() == name else None

    def end_epoch(self) -> None:
        """See :class:`~privfl.runtime.site.SiteStore`."""
        self._state.rotate()

    def _path(self, name: bytes) -> Path:
        return self._outbox / f"{name.hex()}{os.extsep}body"
