"""What lies in a wire folder, counted for its operator."""

from __future__ import annotations

import contextlib
import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass

from privfl.errors import Misuse
from privfl.wires.folder import FolderWire
from privfl.wires.folder_files import exists, wire_failure

__all__ = ["BoxView", "WireView", "box_names", "find_box", "read_here", "survey"]

_ID = re.compile(r"[0-9a-f]{64}")
_PREFIX = re.compile(r"[0-9a-f]{6,64}")


@dataclass(frozen=True)
class BoxView:
    """A participant's box: messages and bytes that wait, when the oldest was written (ms since 1970), and the rest.

    ``packed``: messages that left in a parcel; ``odd``: what could not be read; ``here``: the participant reads
    this folder.
    """

    id: str
    waiting: int
    bytes: int
    oldest: int | None
    packed: int
    odd: int
    here: bool


@dataclass(frozen=True)
class WireView:
    """A wire folder. ``strange`` counts what lies among the boxes and is none, ``unfinished`` the files in tmp."""

    boxes: tuple[BoxView, ...]
    bodies: int
    body_bytes: int
    parcels: int
    unfinished: int
    strange: int


def survey(wire: FolderWire) -> WireView:
    """Count everything; raises WireError if the folder cannot be read."""
    with wire_failure(wire.path):
        boxes = box_names(wire)
        bodies = [one for at in range(256) for one in _files(wire, "bodies", f"{at:02x}")]
        return WireView(
            tuple(_box(wire, name) for name in boxes),
            len(bodies),
            sum(size for size, _ in bodies),
            len(list(_names(wire, "parcels"))),
            len(list(_names(wire, "tmp"))),
            len(list(_names(wire, "boxes"))) - len(boxes),
        )


def box_names(wire: FolderWire) -> list[str]:
    """The ids of all boxes, in hex, sorted."""
    return sorted(name for name in _names(wire, "boxes") if _ID.fullmatch(name))


def read_here(wire: FolderWire, box: str) -> bool:
    """Whether the participant of a box has read this folder."""
    try:
        with wire.tree.inside("boxes", box) as folder:
            return exists(folder, "here")
    except OSError:
        return False


def find_box(wire: FolderWire, prefix: str) -> bytes:
    """The participant whose box begins with ``prefix``, at least 6 hexadecimal digits; raises Misuse otherwise."""
    text = prefix.strip().lower()
    if not _PREFIX.fullmatch(text):
        raise Misuse(f"{prefix!a:.80} is no id: give at least 6 hexadecimal digits of it, or all")
    with wire_failure(wire.path):
        found = [name for name in box_names(wire) if name.startswith(text)]
    if not found:
        raise Misuse(f"no box in {wire.path} begins with {text}; see: privfl wire folder status {wire.path}")
    if len(found) > 1:
        raise Misuse(f"{len(found)} boxes in {wire.path} begin with {text}; give more digits")
    return bytes.fromhex(found[0])


def _box(wire: FolderWire, name: str) -> BoxView:
    waiting = list(_files(wire, "boxes", name, "new"))
    return BoxView(
        name,
        len(waiting),
        sum(size for size, _ in waiting),
        min((written for _, written in waiting), default=None),
        len(list(_names(wire, "boxes", name, "packed"))),
        len(list(_names(wire, "boxes", name, "odd"))),
        read_here(wire, name),
    )


def _names(wire: FolderWire, *parts: str) -> Iterator[str]:
    with contextlib.ExitStack() as stack:
        try:
            folder = stack.enter_context(wire.tree.inside(*parts))
        except OSError:
            if len(parts) == 1:  # these belong to every wire
                raise
            return
        yield from (entry.name for entry in stack.enter_context(os.scandir(folder)))


def _files(wire: FolderWire, *parts: str) -> Iterator[tuple[int, int]]:
    """Size in bytes and time of writing in milliseconds of each regular file."""
    with contextlib.suppress(OSError), wire.tree.inside(*parts) as folder, os.scandir(folder) as entries:
        for entry in entries:
            with contextlib.suppress(OSError):
                found = entry.stat(follow_symlinks=False)
                if stat.S_ISREG(found.st_mode):
                    yield found.st_size, found.st_mtime_ns // 1_000_000
