"""The parcel: messages and the bodies they name, in one file that is checked as a whole.

::

    "privfl parcel 1\\n"
    head                    ParcelHead: an id and when it was made
    item, content           ParcelItem: a body or a message, its size and SHA-256; then that many bytes
    …                       each body stands before the first message that names it
    end                     ParcelEnd: how many of both, and the SHA-256 of all that stands before

Records are canonical, each after its length in four bytes. There are no file names in a parcel: a body is named
by its content, a message goes to the box of the recipient in its envelope.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from io import BufferedRandom
from typing import Annotated, BinaryIO, ClassVar, TypeVar

from privfl.codec import Bounds, Bytes32, Record, Uint64
from privfl.errors import Malformed, Unverified, WireError
from privfl.wires.envelope import MAX_BODIES, MAX_ENVELOPE, BodyRef, Envelope
from privfl.wires.folder_files import CHUNK

__all__ = ["MAX_MESSAGES", "ParcelEnd", "ParcelHead", "ParcelItem", "ParcelReader", "ParcelWriter"]

MAGIC = b"privfl parcel 1\n"
MAX_MESSAGES = 100_000
MAX_RECORD = 1024
R = TypeVar("R", bound=Record)


@dataclass(frozen=True)
class ParcelHead(Record):
    """Makes two parcels of equal content differ."""

    TAG: ClassVar[str] = "parcel head"
    id: Annotated[bytes, Bounds(16, 16)]
    made: Uint64


@dataclass(frozen=True)
class ParcelItem(Record):
    """Announces the bytes that follow."""

    TAG: ClassVar[str] = "parcel item"
    message: bool
    content: BodyRef


@dataclass(frozen=True)
class ParcelEnd(Record):
    """Closes a parcel."""

    TAG: ClassVar[str] = "parcel end"
    messages: Annotated[int, Bounds(0, MAX_MESSAGES)]
    bodies: Annotated[int, Bounds(0, MAX_BODIES * MAX_MESSAGES)]
    sha256: Bytes32


class ParcelWriter:
    """Writes a parcel to ``stream``. Raises OSError as the system does."""

    def __init__(self, stream: BufferedRandom, head: ParcelHead) -> None:
        self._stream, self._digest = stream, hashlib.sha256()
        self.messages, self._bodies, self._unsound = 0, set[bytes](), set[BodyRef]()
        self._raw(MAGIC)
        self._record(head)

    @property
    def bodies(self) -> int:
        """How many bodies are in it."""
        return len(self._bodies)

    def add(self, data: bytes, refs: tuple[BodyRef, ...], chunks: Callable[[BodyRef], Iterator[bytes]]) -> bool:
        """Add a message with those of its bodies that are not in yet; False, and nothing added, if one is not sound.

        ``chunks`` reads a body in parts and raises WireError if it cannot.
        """
        at, digest, new = self._stream.tell(), self._digest.copy(), set[bytes]()
        for ref in refs:
            if ref.sha256 not in self._bodies | new:
                if ref in self._unsound or not self._body(ref, chunks):
                    self._unsound.add(ref)  # not read again for every message that names it
                    self._stream.seek(at)
                    self._stream.truncate()
                    self._digest = digest
                    return False
                new.add(ref.sha256)
        self._record(ParcelItem(True, BodyRef.of(data)))
        self._raw(data)
        self._bodies |= new
        self.messages += 1
        return True

    def end(self) -> bytes:
        """Close the parcel and return its digest."""
        digest = self._digest.digest()
        self._record(ParcelEnd(self.messages, self.bodies, digest))
        return digest

    def _body(self, ref: BodyRef, chunks: Callable[[BodyRef], Iterator[bytes]]) -> bool:
        self._record(ParcelItem(False, ref))
        found, size = hashlib.sha256(), 0
        try:
            for chunk in chunks(ref):
                size += len(chunk)
                if size > ref.size:
                    return False
                found.update(chunk)
                self._raw(chunk)
        except WireError:
            return False
        return size == ref.size and found.digest() == ref.sha256

    def _record(self, record: Record) -> None:
        data = record.encode()
        self._raw(len(data).to_bytes(4, "big") + data)

    def _raw(self, data: bytes) -> None:
        self._stream.write(data)
        self._digest.update(data)


class ParcelReader:
    """Reads a parcel from ``stream`` part by part; nothing is longer than what the file still holds.

    Raises:
        Malformed: no parcel, damaged, cut off, or longer than it says.
        Unverified: a content that is not what its item or its message says.
    """

    def __init__(self, stream: BinaryIO) -> None:
        self._stream, self._digest = stream, hashlib.sha256()
        self._left = os.fstat(stream.fileno()).st_size
        self._bodies, self._named = dict[bytes, BodyRef](), set[bytes]()
        self.messages, self.digest = 0, b""
        if self._raw(min(len(MAGIC), self._left)) != MAGIC:
            raise Malformed("it is no privfl parcel; pack it again")
        self._record(ParcelHead)

    @property
    def bodies(self) -> int:
        """How many bodies have been read."""
        return len(self._bodies)

    def items(self) -> Iterator[ParcelItem]:
        """The items in order; each one's content is to be read before the next is asked for."""
        while True:
            before = self._digest.digest()
            item = self._record(ParcelItem, ParcelEnd)
            if isinstance(item, ParcelEnd):
                if (item.messages, item.bodies, item.sha256) != (self.messages, self.bodies, before):
                    raise Malformed("its parts are not those that it was closed with; copy it again")
                if self._named != set(self._bodies):
                    raise Unverified("it carries a body that no message names")
                if self._left:
                    raise Malformed("something follows its end; copy it again")
                self.digest = before
                return
            assert isinstance(item, ParcelItem)
            yield item

    def body(self, item: ParcelItem) -> Iterator[bytes]:
        """A body's content in parts; it is verified when the last one has been taken."""
        ref = item.content
        if ref.sha256 in self._bodies:
            raise Unverified("it carries a body twice")
        if len(self._bodies) >= MAX_BODIES * MAX_MESSAGES:
            raise Malformed("it holds more bodies than its messages can name")
        self._bodies[ref.sha256] = ref
        found, left = hashlib.sha256(), ref.size
        while left:
            chunk = self._raw(min(left, CHUNK))
            found.update(chunk)
            left -= len(chunk)
            yield chunk
        if found.digest() != ref.sha256:
            raise Unverified("a body in it is not what its name says; copy it again")

    def message(self, item: ParcelItem) -> tuple[bytes, Envelope]:
        """A message and its envelope, not verified: that is its recipient's business."""
        if item.content.size > MAX_ENVELOPE:
            raise Malformed(f"a message of {item.content.size} bytes in it is longer than any envelope")
        data = self._raw(item.content.size)
        if BodyRef.of(data) != item.content:
            raise Unverified("a message in it is damaged; copy it again")
        envelope = Envelope.decode(data)
        if any(self._bodies.get(ref.sha256) != ref for ref in envelope.bodies):
            raise Unverified("it lacks a body that a message in it names")
        self._named.update(ref.sha256 for ref in envelope.bodies)
        self.messages += 1
        if self.messages > MAX_MESSAGES:
            raise Malformed(f"it holds more than {MAX_MESSAGES} messages")
        return data, envelope

    def _record(self, *types: type[Record]) -> Record:
        size = int.from_bytes(self._raw(4), "big")
        if size > MAX_RECORD:
            raise Malformed("it is damaged; copy it again")
        data = self._raw(size)
        for kind in types:
            try:
                return kind.decode(data)
            except Malformed:
                continue
        raise Malformed("it is damaged; copy it again")

    def _raw(self, size: int) -> bytes:
        if size > self._left:
            raise Malformed("it ends before its end; copy it again")
        try:
            data = self._stream.read(size)
        except OSError as error:
            raise WireError(f"it cannot be read ({error.strerror}); copy it again") from None
        if len(data) != size:
            raise Malformed("it grows shorter while it is read; copy it again")
        self._left -= size
        self._digest.update(data)
        return data
