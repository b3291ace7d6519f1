"""Where the coordinator keeps what is too large for its state: bodies, blobs and releases of the slot in hand."""

from __future__ import annotations

import shutil
from pathlib import Path

from privfl.errors import StorageError

__all__ = ["FolderShelf", "MemoryShelf"]


class MemoryShelf:
    """The coordinator's store in memory; first write of a name wins."""

    def __init__(self) -> None:
        self._items: dict[str, bytes] = {}

    def put(self, name: str, data: bytes | memoryview) -> None:
        """Store a copy."""
        self._items.setdefault(name, bytes(data))

    def get(self, name: str) -> bytes:
        """Return what was stored; raises KeyError."""
        return self._items[name]

    def bodies(self, h0: bytes) -> dict[str, bytes]:
        """The packed vectors received in a slot, by site id in hex: all that the coordinator sees of them."""
        ends = {name: name.split("/") for name in self._items if name.endswith("/body")}
        return {parts[1]: self._items[name] for name, parts in ends.items() if parts[0] == h0.hex()}

    def clear(self) -> None:
        """Forget the bodies, blobs and releases of finished slots."""
        self._items.clear()


class FolderShelf:
    """The coordinator's store on disk. First write of a name wins, and nothing half written is ever seen.

    Not synced: what a power cut takes is missed when it is read, and costs the slot in hand, no privacy.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def put(self, name: str, data: bytes | memoryview) -> None:
        """Store ``data``; raises StorageError if the disk does not take it."""
        path = self._folder / name
        if path.exists():
            return
        temporary = path.with_name(f".{path.name}.tmp")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary.write_bytes(data)
            temporary.replace(path)
        except OSError as error:
            temporary.unlink(missing_ok=True)
            raise StorageError(f"{path} could not be written ({error.strerror}); free some space") from None

    def get(self, name: str) -> bytes:
        """Return what was stored; raises KeyError."""
        try:
            return (self._folder / name).read_bytes()
        except OSError:
            raise KeyError(name) from None

    def bodies(self, h0: bytes) -> dict[str, bytes]:
        """See :class:`MemoryShelf`."""
        found = (self._folder / h0.hex()).glob("*/*/body")
        return {path.parent.parent.name: path.read_bytes() for path in found}

    def clear(self) -> None:
        """See :class:`MemoryShelf`."""
        shutil.rmtree(self._folder, ignore_errors=True)
