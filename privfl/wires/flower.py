"""The Flower wire: each member's mail rests in a wire folder of its own home, and a Flower app carries it.

Neither the site's nor the coordinator's process knows Flower: both read and write their own folder (the spool),
whatever carries what lies there.
"""

from __future__ import annotations

from pathlib import Path

from privfl.errors import Misuse
from privfl.wires.folder import FolderWire

__all__ = ["SPOOL", "spool_of"]

SPOOL = "flower"


def spool_of(home: Path) -> FolderWire:
    """The wire folder of a member, made if it is not there; raises Misuse if that cannot be."""
    path = home / SPOOL
    try:
        return FolderWire(path)
    except Misuse:
        return FolderWire.create(path)
