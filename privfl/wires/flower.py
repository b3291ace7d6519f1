"""The Flower wire: each member's mail rests in a wire folder of its own home, and a Flower app carries it.

Neither the site's nor the coordinator's process knows Flower: both read and write their own folder (the spool),
whatever carries what lies there (see :mod:`privfl.wires.flower_carry`).
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

from privfl.errors import Misuse, PrivflError, WireError
from privfl.wires.envelope import MAX_ENVELOPE, BodyRef, Envelope
from privfl.wires.folder import FolderMailbox, FolderWire
from privfl.wires.folder_files import listed, read_regular, wire_failure

__all__ = ["LISTING", "SPOOL", "Spool", "SpoolMailbox", "spool_of"]

SPOOL = "flower"
STALE_S = 120.0  # a body that no letter names, and that nobody has put again for so long, goes
LISTING = 10_000


class Spool(FolderWire):
    """A wire folder in a member's own home, whose bodies are tidied away once no letter names them."""

    def mailbox(self, own: bytes) -> SpoolMailbox:
        """The own end; raises WireError if the folder cannot be written."""
        return SpoolMailbox(self, own)

    def keep(self, sha256: bytes, data: bytes | memoryview) -> None:
        """Put a body; one that is there already counts as new, so that it stays until its letter is written."""
        name = sha256.hex()
        self.bodies.put(sha256, data)
        try:
            with self.tree.inside("bodies", name[:2]) as folder:
                os.utime(name, dir_fd=folder, follow_symlinks=False)
        except FileNotFoundError:  # tidied away between the two steps
            self.bodies.put(sha256, data)
        except OSError:
            return

    def sweep(self, stale_s: float = STALE_S) -> int:
        """Remove bodies that no waiting letter names and that nobody has put for ``stale_s``; returns how many."""
        before, gone = time.time() - stale_s, 0
        old = [name for name, found in self._dated() if found.st_mtime < before]
        if not old:
            return 0
        named = {ref.sha256.hex() for box in self._boxes() for ref in self._refs(box)}
        for name in old:
            if name not in named:
                with contextlib.suppress(OSError), self.tree.inside("bodies", name[:2]) as folder:
                    if os.stat(name, dir_fd=folder, follow_symlinks=False).st_mtime < before:  # put again meanwhile
                        os.unlink(name, dir_fd=folder)
                        gone += 1
        return gone

    def _dated(self) -> Iterator[tuple[str, os.stat_result]]:
        for at in range(256):
            with contextlib.suppress(OSError), self.tree.inside("bodies", f"{at:02x}") as folder:
                for name in listed(folder, LISTING):
                    with contextlib.suppress(OSError):
                        yield name, os.stat(name, dir_fd=folder, follow_symlinks=False)

    def _boxes(self) -> list[str]:
        with wire_failure(self.path), self.tree.inside("boxes") as folder:
            return [name for name in listed(folder, LISTING) if len(name) == 64]

    def _refs(self, box: str) -> Iterator[BodyRef]:
        for name in self.names(box):
            with contextlib.suppress(OSError, PrivflError):
                with self.tree.inside("boxes", box, "new") as folder:
                    data = read_regular(folder, name, MAX_ENVELOPE + 1)
                yield from Envelope.decode(data or b"").bodies

    def names(self, box: str) -> list[str]:
        """Of the letters in a box, about in the order in which they were written; raises WireError."""
        try:
            with self.tree.inside("boxes", box, "new") as folder:
                return sorted(listed(folder, LISTING))
        except FileNotFoundError:
            return []
        except OSError as error:
            raise WireError(f"{self.path} cannot be read ({error.strerror}); check its mode and mount") from None

    def stored(self) -> int:
        """Bytes of all bodies."""
        return sum(found.st_size for _, found in self._dated())


class SpoolMailbox(FolderMailbox):
    """The end of a spool."""

    _wire: Spool

    def put_body(self, sha256: bytes, data: bytes | memoryview, *, recipient: bytes | None = None) -> None:
        """See the contract; the body is durable when this returns."""
        self._wire.keep(sha256, data)


def spool_of(home: Path) -> Spool:
    """The wire folder of a member, made if it is not there; raises Misuse if that cannot be."""
    path = home / SPOOL
    with contextlib.suppress(Misuse):
        return Spool(path)
    try:
        FolderWire.create(path)
    except Misuse:
        with contextlib.suppress(Misuse):  # the carrier, or the member itself, made it just now
            return Spool(path)
        raise
    return Spool(path)
