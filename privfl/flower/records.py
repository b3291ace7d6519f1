"""A load of mail as Flower's records: the letters in one configuration value, each body an array of bytes."""

from __future__ import annotations

import re
from collections.abc import Iterable

from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict

from privfl.errors import Malformed
from privfl.wires.flower_carry import MAX_BODIES, Load

__all__ = ["BODIES", "array_of", "packed", "unpacked"]

LOAD, BODIES = "privfl", "privfl.bodies"
KIND = "privfl.bytes"
_SHA256 = re.compile(r"[0-9a-f]{64}")


def array_of(data: bytes) -> Array:
    """A body as an array; one object may stand in several loads, and Flower then hashes and stores it once."""
    return Array("uint8", (len(data),), KIND, data)


def packed(load: Load, bodies: Iterable[tuple[bytes, Array]]) -> RecordDict:
    """The content of a message; ``bodies`` are (SHA-256, array)."""
    arrays = ArrayRecord()
    for sha256, array in bodies:
        arrays[sha256.hex()] = array
    return RecordDict({LOAD: ConfigRecord({"load": load.encode()}), BODIES: arrays})


def unpacked(content: RecordDict) -> tuple[Load, dict[bytes, bytes]]:
    """What :func:`packed` made, from whoever sent it; the bodies are not held against their names here.

    Raises:
        Malformed: it is no load, or has parts of other kinds; records of other names are passed over.
    """
    head, arrays = content.get(LOAD), content.get(BODIES)
    if not isinstance(head, ConfigRecord) or not isinstance(arrays, ArrayRecord):
        raise Malformed("a message without the records of a load")
    encoded = head.get("load")
    if not isinstance(encoded, bytes):
        raise Malformed("a load that is no bytes")
    if len(arrays) > MAX_BODIES:
        raise Malformed(f"a load with {len(arrays)} bodies, more than its letters can name")
    bodies: dict[bytes, bytes] = {}
    for name, array in arrays.items():
        if not _SHA256.fullmatch(name) or array.dtype != "uint8" or array.stype != KIND:
            raise Malformed("a load with an array that is no body")
        if not isinstance(array.data, bytes):
            raise Malformed("a load with a body that is no bytes")
        bodies[bytes.fromhex(name)] = array.data
    return Load.decode(encoded), bodies
