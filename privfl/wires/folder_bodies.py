"""Bodies in a wire folder: one file per content, named by its SHA-256, first write wins."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

from privfl.errors import Misuse, WireError
from privfl.wires.folder_files import Tree, exists, open_regular, wire_failure

__all__ = ["Bodies"]

UNSIZED = 1 << 30  # the longest body read by one who does not know its size


class Bodies:
    """The bodies of one wire folder. Every method raises WireError when the folder is full, closed or gone."""

    def __init__(self, tree: Tree) -> None:
        self._tree = tree

    def has(self, sha256: bytes) -> bool:
        """Whether anything has that name."""
        try:
            with self._tree.inside(*_folder(sha256)) as folder:
                return exists(folder, sha256.hex())
        except OSError:
            return False

    @contextlib.contextmanager
    def open(self, sha256: bytes) -> Iterator[int]:
        """A body's descriptor, a regular file; raises WireError if there is none."""
        with wire_failure(self._tree.root), contextlib.ExitStack() as stack:
            try:
                folder = stack.enter_context(self._tree.inside(*_folder(sha256)))
                descriptor = open_regular(folder, sha256.hex())
            except FileNotFoundError:
                raise WireError("a body is not on the wire (yet); ask its sender to repeat it") from None
            if descriptor is None:
                raise WireError(f"the body {sha256.hex()} in {self._tree.root} is no regular file; remove it")
            stack.callback(os.close, descriptor)
            yield descriptor

    def put(self, sha256: bytes, data: bytes | memoryview) -> None:
        """Write a body durably, unless it is there."""
        if not self.has(sha256):
            with wire_failure(self._tree.root), self._tree.spooled([data]) as name:
                self.place(name, sha256)

    def place(self, spooled: str, sha256: bytes) -> None:
        """Make a spooled file a body, unless it is there. Raises OSError as the system does."""
        self._tree.keep_first(spooled, sha256.hex(), *_folder(sha256))

    def get(self, sha256: bytes, size: int | None) -> bytes:
        """Read a body; another ``size`` than the one given (bytes) is a WireError before anything is read."""
        with self.open(sha256) as descriptor:
            stored = os.fstat(descriptor).st_size
            if size not in (None, stored):
                raise WireError(f"a body on the wire has {stored} bytes and not {size}; ask its sender to repeat it")
            if size is None and stored > UNSIZED:
                raise WireError(f"a body on the wire has {stored} bytes; whoever wants that much says so beforehand")
            with open(descriptor, "rb", buffering=0, closefd=False) as stream:
                data = stream.read(stored)
                while len(data) < stored and (more := stream.read(stored - len(data))):
                    data += more
        if len(data) != stored:
            raise WireError("a body on the wire changes while it is read; ask its sender to repeat it")
        return data

    def drop(self, sha256: bytes) -> None:
        """Remove a body if that can be done."""
        with contextlib.suppress(OSError), self._tree.inside(*_folder(sha256)) as folder:
            os.unlink(sha256.hex(), dir_fd=folder)


def _folder(sha256: bytes) -> tuple[str, str]:
    if len(sha256) != 32:
        raise Misuse("a body is named by its SHA-256, 32 bytes")
    return "bodies", sha256[:1].hex()
