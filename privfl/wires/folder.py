"""The folder wire: a shared directory carries the mail between processes, machines or, by parcels, over an air gap.

::

    privfl-wire.json          says what this folder is
    boxes/<id>/new/…          a participant's messages; acknowledged is deleted
    boxes/<id>/packed/…       those that left in a parcel (see privfl.wires.parcel)
    boxes/<id>/odd/…          what lay there and could not be read
    boxes/<id>/here           that participant reads this folder
    bodies/<ab>/<sha-256>     bodies
    parcels/<digest>          parcels that were unpacked
    tmp/…                     what is being written

Whoever may write to the folder may fill, damage or empty it; what is read is bounded in size and number, and
nothing but a regular file inside the folder is ever opened.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import time
from dataclasses import dataclass
from pathlib import Path

from privfl.entropy import SYSTEM, Entropy
from privfl.errors import Misuse, WireError
from privfl.wires.envelope import MAX_ENVELOPE
from privfl.wires.folder_bodies import Bodies
from privfl.wires.folder_files import Tree, exists, listed, read_regular, wire_failure

__all__ = ["FolderMailbox", "FolderWire"]

MARKER = "privfl-wire.json"
FORMAT = {"format": "privfl wire folder", "version": 1}
PARTS = ("boxes", "bodies", "parcels", "tmp")
BATCH = 64  # messages per receive: 4.4 MB at most
LISTING = 10_000  # names looked at per receive; the rest come when these are gone
FIRST_PAUSE_S, LAST_PAUSE_S = 0.001, 0.025
FIRST_RETRY_S, LAST_RETRY_S = 0.05, 5.0  # until a message that was not acknowledged is shown again by one reader
SWEEP_S = 3600.0
_UNREADABLE = (errno.EACCES, errno.EPERM, errno.ELOOP, errno.ENXIO)


class FolderWire:
    """A wire in the folder ``path``; make it once with :meth:`create`.

    Raises:
        Misuse: ``path`` is no wire folder, or one of a later version.
    """

    def __init__(self, path: str | os.PathLike[str], *, entropy: Entropy = SYSTEM) -> None:
        self.path = Path(path).absolute()
        self.tree = Tree(self.path, entropy)
        self.bodies = Bodies(self.tree)
        _check_marker(self.path)

    @classmethod
    def create(cls, path: str | os.PathLike[str], *, mode: int = 0o700) -> FolderWire:
        """Make a wire folder in a new or empty directory.

        The permissions of the folder are those of everything in it. A directory that is there keeps its own; a new
        one gets ``mode`` (0o700: one user; 0o2770: a group).

        Raises:
            Misuse: there is a wire already, something else lies there, or it cannot be written.
        """
        root = Path(path)
        try:
            if not os.path.lexists(root):
                root.mkdir()
                root.chmod(mode)
            present = {entry.name for entry in root.iterdir()}
            if MARKER in present:
                raise Misuse(f"{root} is a wire folder already; use it as it is, or choose another path")
            if present - set(PARTS):
                raise Misuse(f"{root} is not empty; choose a new path or an empty folder")
            _furnish(root)
        except OSError as error:
            raise Misuse(
                f"no wire folder can be made at {root} ({error.strerror}); its parent folder must exist and be writable"
            ) from None
        return cls(root)

    def mailbox(self, own: bytes) -> FolderMailbox:
        """The end of the wire for participant ``own`` (32 bytes); raises WireError if the folder cannot be written."""
        return FolderMailbox(self, own)


def _furnish(root: Path) -> None:
    mode = root.stat().st_mode & 0o2777
    for part in PARTS:
        (root / part).mkdir(exist_ok=True)
        with contextlib.suppress(OSError):  # a file system without modes
            (root / part).chmod(mode)
    tree = Tree(root)
    with tree.spooled([json.dumps(FORMAT).encode() + b"\n"]) as name:  # the marker comes last: it says all is there
        tree.move(name, MARKER)


def _check_marker(root: Path) -> None:
    try:
        with Tree(root).inside() as folder:
            found = json.loads(read_regular(folder, MARKER, 4096) or b"")
    except PermissionError as error:
        raise Misuse(f"{root} cannot be read ({error.strerror}); check its mode and owner") from None
    except (OSError, ValueError, RecursionError):
        found = None
    if not isinstance(found, dict) or found.get("format") != FORMAT["format"]:
        raise Misuse(
            f"{root} is no privfl wire folder: mount it if it is a share, or make it: privfl wire folder create {root}"
        )
    if found.get("version") != FORMAT["version"]:
        raise Misuse(f"{root} is a wire folder of another version ({found.get('version')!a:.20}); update privfl")


def box_name(participant: bytes) -> str:
    """The folder below ``boxes`` of a participant; raises Misuse if ``participant`` is not 32 bytes."""
    if len(participant) != 32:
        raise Misuse("a participant of a wire has an id of 32 bytes")
    return participant.hex()


@dataclass(frozen=True)
class FolderDelivery:
    """One message of a box; see the contract."""

    data: bytes
    wire: FolderWire
    box: str
    name: str

    def acknowledge(self) -> None:
        """Delete the message; raises WireError if the folder does not let it go, and it comes again then."""
        box = self.wire.tree.inside("boxes", self.box, "new")
        with wire_failure(self.wire.path), box as folder, contextlib.suppress(FileNotFoundError):
            os.unlink(self.name, dir_fd=folder)


class FolderMailbox:
    """One end of a :class:`FolderWire`; fulfils :class:`~privfl.wires.mailbox.Mailbox`. One thread at a time.

    Every method raises WireError when the folder is full, closed or gone. ``receive`` waits for it to come back,
    up to its ``wait_ms``. ``odd`` counts what lay in the box and was no readable file.
    """

    def __init__(self, wire: FolderWire, own: bytes) -> None:
        self._wire, self._box, self.odd = wire, box_name(own), 0
        self._shown: dict[str, tuple[float, float]] = {}  # name: when it is shown again, how long after that
        self._pause, self._swept = FIRST_PAUSE_S, -SWEEP_S
        tree = wire.tree
        with wire_failure(wire.path):
            with tree.inside("boxes", self._box, "new", make=True):
                pass
            with tree.inside("boxes", self._box) as folder:
                known = exists(folder, "here")
            if not known:
                with tree.spooled([]) as name:
                    tree.move(name, "here", "boxes", self._box)

    def send(self, recipient: bytes, data: bytes) -> None:
        """See the contract; the message is durable when this returns."""
        if len(data) > MAX_ENVELOPE:
            raise WireError(f"a message of {len(data)} bytes is longer than any envelope; send it as a body")
        tree = self._wire.tree
        with wire_failure(self._wire.path), tree.spooled([data]) as name:
            tree.move(name, name, "boxes", box_name(recipient), "new")
        self._pause = FIRST_PAUSE_S  # an answer may come soon

    def receive(self, wait_ms: int) -> list[FolderDelivery]:
        """See the contract; at most 64 messages at once, those first that this end has not shown before.

        A message that is not acknowledged is shown again by this end after 50 ms, then after twice as long each
        time up to 5 s, and by an end that opens anew at once.
        """
        until = time.monotonic() + wait_ms / 1000
        while True:
            found, failure = self._look()
            left = until - time.monotonic()
            if found or left <= 0:
                break
            time.sleep(min(self._pause, left))
            self._pause = min(2 * self._pause, LAST_PAUSE_S)
        if failure:
            raise failure
        if found:
            self._pause = FIRST_PAUSE_S
        return found

    def put_body(self, sha256: bytes, data: bytes | memoryview, *, recipient: bytes | None = None) -> None:
        """See the contract; the body is durable when this returns."""
        self._wire.bodies.put(sha256, data)

    def get_body(self, sha256: bytes, *, size: int | None = None, sender: bytes | None = None) -> bytes:
        """See the contract; without ``size`` a body of more than 1 GiB is not read."""
        return self._wire.bodies.get(sha256, size)

    def drop_body(self, sha256: bytes) -> None:
        """See the contract."""
        self._wire.bodies.drop(sha256)

    def close(self) -> None:
        """See the contract; there is nothing to let go of."""

    def _look(self) -> tuple[list[FolderDelivery], WireError | None]:
        """What is to be shown now, or why the box cannot be read."""
        tree, now = self._wire.tree, time.monotonic()
        try:
            with wire_failure(self._wire.path):
                if now - self._swept >= SWEEP_S:
                    self._swept = now
                    tree.sweep()
                with tree.inside("boxes", self._box, "new") as folder:
                    return self._read(folder, now), None
        except WireError as error:
            return [], error

    def _read(self, folder: int, now: float) -> list[FolderDelivery]:
        names = listed(folder, LISTING)
        self._shown = {name: self._shown[name] for name in names if name in self._shown}
        due = [name for name in names if name not in self._shown or self._shown[name][0] <= now]
        found = []
        for name in sorted(due, key=lambda name: (name in self._shown, name))[:BATCH]:
            _, pause = self._shown.get(name, (0.0, FIRST_RETRY_S))
            self._shown[name] = (now + pause, min(2 * pause, LAST_RETRY_S))
            data = self._message(folder, name)
            if data is not None:
                found.append(FolderDelivery(data, self._wire, self._box, name))
        return found

    def _message(self, folder: int, name: str) -> bytes | None:
        try:
            data = read_regular(folder, name, MAX_ENVELOPE + 1)  # one byte too long is enough to be refused
        except OSError as error:
            if error.errno not in _UNREADABLE:  # another reader was quicker, or the disk fails: looked at again later
                return None
            data = None
        if data is None:
            self._set_aside(folder, name)
        return data

    def _set_aside(self, folder: int, name: str) -> None:
        """Out of the way with what is no readable file: nothing is lost that anyone could have read."""
        self.odd += 1
        tree = self._wire.tree
        with contextlib.suppress(OSError), tree.inside("boxes", self._box, "odd", make=True) as odd:
            os.rename(name, tree.name(), src_dir_fd=folder, dst_dir_fd=odd)
