"""Parcels: messages of a wire folder carried to another one by hand, over an air gap.

Both ways are safe to repeat. What was taken moves to ``packed`` once the parcel is durable, and a parcel that was
unpacked, or packed here, is not unpacked again. A parcel that is not sound to its last byte changes nothing.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from privfl.entropy import SYSTEM, Entropy
from privfl.errors import Malformed, Misuse, Theirs, WireError
from privfl.wires.envelope import MAX_ENVELOPE, BodyRef, Envelope
from privfl.wires.folder import FolderWire, box_name
from privfl.wires.folder_files import CHUNK, exists, listed, read_regular, wire_failure
from privfl.wires.folder_survey import box_names, read_here
from privfl.wires.parcel_files import land, new_file, opened
from privfl.wires.parcel_format import MAX_MESSAGES, ParcelHead, ParcelReader, ParcelWriter

__all__ = ["Packed", "Unpacked", "pack", "unpack"]

MAX_LISTED = 1_000_000
PACKED_DAYS = 30  # how long messages that left in a parcel are kept to be packed again


@dataclass(frozen=True)
class Packed:
    """What went into a parcel; ``left`` messages stayed: no envelope, or a body is missing or wrong.

    ``read_here`` counts the boxes with mail that were passed over because their participants read this folder.
    """

    messages: int
    bodies: int
    bytes: int
    left: int
    read_here: int


@dataclass(frozen=True)
class Unpacked:
    """What came out of a parcel; ``already``: it has been here before, nothing was done."""

    messages: int
    bodies: int
    already: bool


def pack(
    wire: FolderWire,
    out: str | os.PathLike[str],
    boxes: Sequence[bytes] | None = None,
    *,
    again: bool = False,
    entropy: Entropy = SYSTEM,
) -> Packed:
    """Write the messages of ``boxes``, with the bodies that they name, to the new file ``out``.

    Args:
        wire: where they are taken from.
        out: the parcel; not written if there is nothing to carry.
        boxes: ids of the recipients; None for all who have not read this folder themselves.
        again: also what left in earlier parcels (of the last 30 days).
        entropy: for names.

    Raises:
        Misuse: ``out`` exists.
        WireError: the parcel cannot be written; nothing was marked then.
    """
    target = Path(out)
    if os.path.lexists(target):
        raise Misuse(f"{target} exists and is not overwritten; choose another path")
    with wire_failure(wire.path):
        everyone = box_names(wire) if boxes is None else list(dict.fromkeys(map(box_name, boxes)))
    chosen = [box for box in everyone if boxes or not read_here(wire, box)]
    taken: list[tuple[str, str]] = []
    folders = ("new", "packed") if again else ("new",)
    done, digest = _write(target, entropy, lambda writer: _fill(wire, writer, chosen, folders, taken))
    if done.messages:
        _mark(wire, digest.hex())
        _move(wire, taken)
    _forget(wire, chosen)
    passed_over = set(everyone) - set(chosen)
    return replace(done, read_here=sum(1 for box in passed_over if _listed(wire, box, "new")))


def _write(target: Path, entropy: Entropy, fill: Callable[[ParcelWriter], int]) -> tuple[Packed, bytes]:
    """Write what ``fill`` puts in, whole or not at all; returns what is in it and its digest."""
    temporary = target.with_name(f".{target.name}.{entropy.draw(4).hex()}.tmp")
    try:
        with new_file(temporary) as stream:
            writer = ParcelWriter(stream, ParcelHead(entropy.draw(16), time.time_ns() // 1_000_000))
            left = fill(writer)
            digest = writer.end()
        size = temporary.stat().st_size if writer.messages else 0
        if writer.messages:
            land(temporary, target)
    except OSError as error:
        raise WireError(f"the parcel {target} could not be written ({error.strerror}); no message was marked") from None
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()
    return Packed(writer.messages, writer.bodies, size, left, 0), digest


def unpack(path: str | os.PathLike[str], wire: FolderWire, *, again: bool = False) -> Unpacked:
    """Put a parcel's messages and bodies into ``wire``; their recipients count as reading this folder then.

    Args:
        path: the parcel.
        wire: where it is unpacked.
        again: also if it has been unpacked, or packed, here before.

    Raises:
        Misuse: there is no such file.
        Malformed, Unverified: it is not a sound parcel; nothing was changed.
        WireError: the folder cannot be written.
    """
    staged: list[str] = []
    bodies: list[tuple[str, bytes]] = []
    messages: list[tuple[str, str]] = []
    try:
        with wire_failure(wire.path), opened(Path(path)) as stream:
            reader = ParcelReader(stream)
            for item in reader.items():
                if item.message:
                    data, envelope = reader.message(item)
                    staged.append(wire.tree.spool([data]))
                    messages.append((staged[-1], envelope.recipient.hex()))
                elif wire.bodies.has(item.content.sha256):
                    for _ in reader.body(item):
                        pass
                else:
                    staged.append(wire.tree.spool(reader.body(item)))
                    bodies.append((staged[-1], item.content.sha256))
            if not again and _known(wire, reader.digest.hex()):
                return Unpacked(0, 0, True)
            _install(wire, bodies, messages)
            _mark(wire, reader.digest.hex())
    except Theirs as error:
        raise type(error)(f"the parcel {path} is refused, nothing was changed: {error}") from None
    finally:
        wire.tree.discard(staged)
    return Unpacked(reader.messages, reader.bodies, False)


def _install(wire: FolderWire, bodies: list[tuple[str, bytes]], messages: list[tuple[str, str]]) -> None:
    for name, sha256 in bodies:
        wire.bodies.place(name, sha256)
    for box in {box for _, box in messages}:
        wire.mailbox(bytes.fromhex(box))  # read here from now on
    for name, box in messages:
        wire.tree.move(name, name, "boxes", box, "new")


def _fill(
    wire: FolderWire, writer: ParcelWriter, boxes: list[str], folders: Sequence[str], taken: list[tuple[str, str]]
) -> int:
    """Write the messages of ``boxes``; those from ``new`` are added to ``taken``. Returns how many were left."""
    left = 0
    for box in boxes:
        for folder in folders:
            for name in _listed(wire, box, folder):
                found = _message(wire, box, folder, name) if writer.messages < MAX_MESSAGES else None
                if found is None or not writer.add(*found, partial(_chunks, wire)):
                    left += 1
                elif folder == "new":
                    taken.append((box, name))
    return left


def _listed(wire: FolderWire, box: str, folder: str) -> list[str]:
    try:
        with wire.tree.inside("boxes", box, folder) as descriptor:
            return sorted(listed(descriptor, MAX_LISTED))
    except OSError:
        return []


def _message(wire: FolderWire, box: str, folder: str, name: str) -> tuple[bytes, tuple[BodyRef, ...]] | None:
    """A message and the bodies that it names; None if it is no envelope for that box."""
    try:
        with wire.tree.inside("boxes", box, folder) as descriptor:
            data = read_regular(descriptor, name, MAX_ENVELOPE + 1)
        if data is None or len(data) > MAX_ENVELOPE:
            return None
        envelope = Envelope.decode(data)
    except (OSError, Malformed):
        return None
    return (data, envelope.bodies) if envelope.recipient.hex() == box else None


def _chunks(wire: FolderWire, ref: BodyRef) -> Iterator[bytes]:
    with wire.bodies.open(ref.sha256) as descriptor:
        if os.fstat(descriptor).st_size != ref.size:
            raise WireError("a body has another size than its message says")
        while chunk := os.read(descriptor, CHUNK):
            yield chunk


def _move(wire: FolderWire, taken: list[tuple[str, str]]) -> None:
    """What was taken is not taken again; where that fails it is, which does no harm."""
    for box, name in taken:
        with (
            contextlib.suppress(OSError),
            wire.tree.inside("boxes", box, "new") as source,
            wire.tree.inside("boxes", box, "packed", make=True) as target,
        ):
            os.rename(name, name, src_dir_fd=source, dst_dir_fd=target)


def _forget(wire: FolderWire, boxes: list[str]) -> None:
    before = time.time() - PACKED_DAYS * 24 * 3600
    for box in boxes:
        for name in _listed(wire, box, "packed"):
            with contextlib.suppress(OSError), wire.tree.inside("boxes", box, "packed") as folder:
                if os.stat(name, dir_fd=folder, follow_symlinks=False).st_mtime < before:
                    os.unlink(name, dir_fd=folder)


def _mark(wire: FolderWire, digest: str) -> None:
    with contextlib.suppress(OSError), wire.tree.spooled([]) as name:
        wire.tree.move(name, digest, "parcels")


def _known(wire: FolderWire, digest: str) -> bool:
    with wire.tree.inside("parcels") as folder:
        return exists(folder, digest)
