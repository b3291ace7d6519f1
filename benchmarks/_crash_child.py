"""What a process of a crash campaign is given right after its fork: a tap on all that it sends, and places to die at.

The product has no switch for this. In the child alone, functions of ``os`` and the connections of ``sqlite3`` are
wrapped so that they pass a named point before and after every durable write, and the wire's end so that bytes are
noted before they go out. Everything else runs as it is. Linux only: what a descriptor names is read from /proc.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import signal
import sqlite3
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from privfl.errors import PrivflError
from privfl.runtime.post import Invitation, Post, Received
from privfl.wires.folder import FolderMailbox

__all__ = ["Child", "Fuse", "Tapped", "read_tap"]

PAGE = 4096
_HALF = PAGE // 2
_RECORD = struct.Struct("<cBBI")
OPERATIONS = ("fsync", "replace", "rename", "link", "unlink", "pwrite")


class Fuse:
    """Memory shared by a parent and one child: where the child is to die, and where it did."""

    def __init__(self) -> None:
        self._page = mmap.mmap(-1, PAGE)

    def arm(self, point: str, count: int = 1) -> None:
        """Let the child die when it passes ``point`` (``doing|name``, ``*|name``) for the ``count``-th time."""
        name = point.encode()
        self._page[4 : 6 + len(name)] = struct.pack("<H", len(name)) + name
        self._page[:4] = struct.pack("<I", count)

    def disarm(self) -> None:
        """Let the child live, and forget where an earlier one died."""
        self._page[:4] = bytes(4)
        self._page[_HALF : _HALF + 2] = bytes(2)

    def passes(self, doing: str, name: str) -> bool:
        """Asked by the child at each point: whether it is the one to die at."""
        (count,) = struct.unpack("<I", self._page[:4])
        if not count:
            return False
        (size,) = struct.unpack("<H", self._page[4:6])
        target = self._page[6 : 6 + size].decode()
        if target not in (f"{doing}|{name}", f"*|{name}"):
            return False
        self._page[:4] = struct.pack("<I", count - 1)
        return bool(count == 1)

    def burn(self, point: str) -> None:
        """Noted by the child with its last breath."""
        name = point.encode()
        self._page[_HALF : _HALF + 2 + len(name)] = struct.pack("<H", len(name)) + name

    @property
    def burnt(self) -> str:
        """The point at which the child died; empty if it died otherwise."""
        (size,) = struct.unpack("<H", self._page[_HALF : _HALF + 2])
        return self._page[_HALF + 2 : _HALF + 2 + size].decode()


class Tapped(NamedTuple):
    """One thing that was about to go out: a message (``M``) to ``recipient``, or a body (``B``).

    ``about`` is the H0 of the invitation that was being answered, empty if there was none.
    """

    kind: bytes
    recipient: bytes
    about: bytes
    data: bytes


def read_tap(path: Path) -> Iterator[Tapped]:
    """Everything in one process's tap; a last record that was cut by the process's death had not gone out."""
    data, at = path.read_bytes(), 0
    while at + _RECORD.size <= len(data):
        kind, recipient, about, size = _RECORD.unpack_from(data, at)
        at += _RECORD.size
        end = at + recipient + about + size
        if end > len(data):
            return
        yield Tapped(
            kind, data[at : at + recipient], data[at + recipient : at + recipient + about], data[end - size : end]
        )
        at = end


@dataclass
class Child:
    """One process that may be killed, from the inside.

    Attributes:
        who: name of the site, or ``coordinator``. folder: of its role. wire: the shared folder.
        tap, seen: files of this process alone, for what it sends and for the points that it passes.
        doing: the request in hand, by its kind; else ``start``, ``idle`` or ``acknowledge``.
    """

    who: str
    folder: Path
    wire: Path
    tap: Path
    seen: Path
    fuse: Fuse

    def __post_init__(self) -> None:
        self.doing, self._about, self._sending = "start", b"", ""
        self._passed: set[str] = set()
        self._real = {name: getattr(os, name) for name in OPERATIONS}

    def install(self) -> None:
        """Wrap what writes and what sends, in this process only."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        self._tap, self._seen = os.open(self.tap, flags, 0o600), os.open(self.seen, flags, 0o600)
        for name in OPERATIONS:
            setattr(os, name, self._operation(name))
        self._tap_wire()
        self._watch_post()
        self._hook_sqlite()

    def point(self, name: str) -> None:
        """Pass a point; nothing after it happens if it is the one to die at."""
        full = f"{self.doing}|{name}"
        if full not in self._passed:
            self._passed.add(full)
            os.write(self._seen, f"{full}\n".encode())
        if self.fuse.passes(self.doing, name):
            self.fuse.burn(full)
            os.kill(os.getpid(), signal.SIGKILL)

    # -- durable writes -----------------------------------------------------------------------------

    def _operation(self, name: str) -> Callable[..., Any]:
        real = self._real[name]

        def wrapped(*arguments: Any, **named: Any) -> Any:
            point = f"{self._subject(name, arguments, named)} {name}"
            self.point(f"{point}, before")
            result = real(*arguments, **named)
            self.point(f"{point}, after")
            return result

        return wrapped

    def _subject(self, name: str, arguments: tuple[Any, ...], named: dict[str, Any]) -> str:
        """What kind of file an operation is about: its target where it has two."""
        if name in ("fsync", "pwrite"):
            path = Path(os.readlink(f"/proc/self/fd/{arguments[0]}"))
            folder = " folder" if path.is_dir() else ""
            return f"{self._kind(path)}{folder}"
        at = named.get("dst_dir_fd" if name in ("link", "rename") else "dir_fd")
        last = os.fsdecode(arguments[0] if name == "unlink" else arguments[1])
        return self._kind(Path(os.readlink(f"/proc/self/fd/{at}"), last) if at is not None else Path(last))

    def _kind(self, path: Path) -> str:
        if path.is_relative_to(self.wire):
            parts = path.relative_to(self.wire).parts
            if parts[:1] == ("tmp",):
                return f"spooled {self._sending}".strip()
            return {"boxes": "message", "bodies": "body"}.get(parts[0], "wire") if parts else "wire"
        if not path.is_relative_to(self.folder):
            return "other"
        return _plain(next(iter(path.relative_to(self.folder).parts), "home"))

    def _hook_sqlite(self) -> None:
        child, connect = self, sqlite3.connect

        class Hooked(sqlite3.Connection):
            what = "database"

            def execute(self, sql: str, *parameters: Any) -> sqlite3.Cursor:
                name = {"COMMIT": "commit", "PRAGMA wal_checkpoint(TRUNCATE)": "checkpoint"}.get(sql)
                if name is None:
                    return super().execute(sql, *parameters)
                child.point(f"{self.what} {name}, before")
                cursor = super().execute(sql, *parameters)
                child.point(f"{self.what} {name}, after")
                return cursor

        def hooked(database: Any, *arguments: Any, **named: Any) -> sqlite3.Connection:
            connection: Hooked = connect(database, *arguments, **{**named, "factory": Hooked})
            connection.what = "state" if "state.db" in str(database) else "ledger"
            return connection

        sqlite3.connect = hooked  # type: ignore[assignment]

    # -- the wire -----------------------------------------------------------------------------------

    def _note(self, kind: bytes, recipient: bytes, data: bytes | memoryview) -> None:
        data = bytes(data)
        record = _RECORD.pack(kind, len(recipient), len(self._about), len(data)) + recipient + self._about + data
        while record:
            record = record[os.write(self._tap, record) :]

    def _tap_wire(self) -> None:
        send, put_body = FolderMailbox.send, FolderMailbox.put_body

        def tapped_send(mailbox: FolderMailbox, recipient: bytes, data: bytes) -> None:
            self._note(b"M", recipient, data)
            with self._as("message"):
                send(mailbox, recipient, data)

        def tapped_body(
            mailbox: FolderMailbox, sha256: bytes, data: bytes | memoryview, *, recipient: bytes | None = None
        ) -> None:
            self._note(b"B", b"", data)
            with self._as("body"):
                put_body(mailbox, sha256, data, recipient=recipient)

        FolderMailbox.send = tapped_send  # type: ignore[method-assign, assignment]
        FolderMailbox.put_body = tapped_body  # type: ignore[method-assign, assignment]

    @contextlib.contextmanager
    def _as(self, sending: str) -> Iterator[None]:
        self._sending = sending
        try:
            yield
        finally:
            self._sending = ""

    def _watch_post(self) -> None:
        """Know which request is in hand, so that points and bodies can be told apart by it."""
        receive = Post.receive

        def watched(post: Post, wait_ms: int, handle: Callable[[Received], None], **named: Any) -> int:
            def handled(received: Received) -> None:
                self.doing, self._about = received.kind, _slot_of(received)
                try:
                    handle(received)
                finally:
                    self.doing, self._about = "acknowledge", b""

            self.doing = "idle"
            try:
                return receive(post, wait_ms, handled, **named)
            finally:
                self.doing = "idle"

        Post.receive = watched  # type: ignore[method-assign, assignment]


def _plain(first: str) -> str:
    """What lies below the first part of a path in a role's folder, without what makes it unique."""
    names = {"state.key": "state key", "status.json": "status", "jobs": "job"} | {
        name: name for name in ("outbox", "shelf", "lock")
    }
    return next((plain for known, plain in names.items() if known in first), first if first == "home" else "other")


def _slot_of(received: Received) -> bytes:
    if received.kind != "announce":
        return b""
    try:
        return Invitation.decode(received.payload).announcement.h0
    except PrivflError:
        return b""
