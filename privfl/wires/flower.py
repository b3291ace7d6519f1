"""The Flower wire: each member's mail rests in a wire folder of its own home, and a Flower app carries it.

Neither the site's nor the coordinator's process knows Flower: both read and write their own folder (the spool),
whatever carries what lies there (see :mod:`privfl.wires.flower_carry`).
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from privfl.errors import Misuse
from privfl.wires.folder import FolderMailbox, FolderWire

__all__ = ["SPOOL", "Spool", "SpoolMailbox", "spool_of"]

SPOOL = "flower"


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
