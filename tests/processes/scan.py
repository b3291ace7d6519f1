"""Searching large amounts of bytes for many secrets at once, in every way in which they could be written down."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["ENCODINGS", "Patterns", "aligned", "forms", "fresh", "numbers", "vectors", "words"]

LEAST = 8  # bytes of a pattern: shorter ones would be met by chance
PART = 16  # bytes of a secret that are looked for, from its beginning and from its end: half a leak is one
BITS = 23
ODD = np.uint64(0x9E3779B97F4A7C15)
CHUNK = 2**18
BLOCK, OVERLAP = 4096, 512


def _decimal(data: bytes) -> bytes:
    return ", ".join(map(str, data)).encode()


#: How bytes may be written down, by name; each gives one text for one secret at one alignment (0, 1, 2).
ENCODINGS: Mapping[str, Any] = {
    "raw": lambda data, shift: data,
    "hex": lambda data, shift: data.hex().encode(),
    "HEX": lambda data, shift: data.hex().upper().encode(),
    "base64": lambda data, shift: aligned(base64.b64encode, data, shift),
    "base64url": lambda data, shift: aligned(base64.urlsafe_b64encode, data, shift),
    "decimal bytes": lambda data, shift: _decimal(data),
    "decimal bytes, tight": lambda data, shift: _decimal(data).replace(b" ", b""),
    "decimal, big": lambda data, shift: str(int.from_bytes(data, "big")).encode(),
    "decimal, little": lambda data, shift: str(int.from_bytes(data, "little")).encode(),
}


def aligned(coder: Any, data: bytes, shift: int) -> bytes:
    """What is the same in every base64 text that holds ``data`` after a multiple of three bytes and ``shift``."""
    padded = bytes(shift) + data
    whole: bytes = coder(padded).rstrip(b"=")
    return whole[(0, 2, 3)[shift] : len(whole) - (len(padded) % 3 != 0)]


def forms(secret: bytes) -> Iterator[bytes]:
    """Every encoding of the first and the last 16 bytes of a secret; numbers of the whole."""
    for part in {secret[:PART], secret[-PART:]}:
        for name, write in ENCODINGS.items():
            if name.startswith("decimal, "):
                continue
            for shift in range(3 if "base64" in name else 1):
                yield write(part, shift)
    for name in ("decimal, big", "decimal, little"):
        yield ENCODINGS[name](secret, 0)


def words(text: str) -> Iterator[bytes]:
    """A text as it is, in UTF-16, hex and base64."""
    for data in (text.encode(), text.encode("utf-16-le")):
        yield data
        yield data.hex().encode()
        yield data.hex().upper().encode()
        for shift in range(3):
            yield aligned(base64.b64encode, data, shift)
            yield aligned(base64.urlsafe_b64encode, data, shift)


def numbers(values: npt.NDArray[np.float64]) -> Iterator[bytes]:
    """Floats: each as text; as bytes of either width and order, two neighbours together, plain and encoded."""
    for value in values:
        text = repr(float(value)).encode()
        if len(text) >= LEAST:
            yield text[:14]
    for kind in ("<f8", ">f8", "<f4", ">f4"):
        for at in range(0, len(values) - 3, 2):
            raw = values[at : at + 4].astype(kind).tobytes()
            if len(set(raw)) >= 6:
                yield from (raw[:PART], raw[:PART].hex().encode(), raw[:PART].hex().upper().encode())
                yield from (aligned(base64.b64encode, raw[:PART], shift) for shift in range(3))
                yield from (aligned(base64.urlsafe_b64encode, raw[:PART], shift) for shift in range(3))
    for value in values:
        for kind in ("<f8", ">f8"):
            raw = np.array(value, kind).tobytes()
            if len(set(raw)) >= 6:
                yield from (raw, raw.hex().encode(), raw.hex().upper().encode())


def vectors(values: npt.NDArray[np.int64]) -> Iterator[bytes]:
    """Integers: as bytes of either width and order and as text, four neighbours at a time."""
    for at in range(max(1, len(values) - 3)):
        part = values[at : at + 4]
        if np.count_nonzero(np.abs(part) > 9) < 3:
            continue
        for kind in ("<i8", ">i8", "<i4", ">i4", "<f8"):
            raw = part.astype(kind).tobytes()[: 2 * PART]
            if len(set(raw)) < 5:
                continue
            yield from (raw, raw.hex().encode(), raw.hex().upper().encode())
            yield from (aligned(base64.b64encode, raw, shift) for shift in range(3))
            yield from (aligned(base64.urlsafe_b64encode, raw, shift) for shift in range(3))
        for gap in (", ", ",", " ", "\n"):
            yield gap.join(str(int(value)) for value in part).encode()


@dataclass
class Patterns:
    """Secrets by kind, ready to be searched for."""

    kinds: dict[str, set[bytes]] = field(default_factory=dict)
    _built: tuple[Any, ...] | None = None

    def add(self, kind: str, patterns: Iterable[bytes]) -> None:
        """Add patterns; those that are too short to mean anything are left out."""
        self.kinds.setdefault(kind, set()).update(one for one in patterns if len(one) >= LEAST)
        self._built = None

    def _index(self) -> tuple[Any, Any, Any]:
        if self._built is None:
            starts: dict[bytes, list[tuple[bytes, str]]] = {}
            for kind, patterns in self.kinds.items():
                for one in patterns:
                    starts.setdefault(one[:8], []).append((one, kind))
            keys = np.sort(np.frombuffer(b"".join(starts), dtype="<u8"))
            table = np.zeros(2**BITS, dtype=np.bool_)
            table[_hash(keys)] = True
            self._built = table, keys, starts
        return self._built  # type: ignore[return-value]

    def found(self, data: bytes) -> list[tuple[str, int]]:
        """(kind, place) of every pattern that occurs in ``data``."""
        hits = []
        for begin in range(0, max(1, len(data) - 7), CHUNK):
            for at in self._starts(data[begin : begin + CHUNK + 7]) + begin:
                for pattern, kind in self._index()[2].get(data[at : at + 8], ()):
                    if data.startswith(pattern, at):
                        hits.append((kind, int(at)))
        return hits

    def _starts(self, part: bytes) -> npt.NDArray[np.intp]:
        """Where the first eight bytes of some pattern stand."""
        if len(part) < 8:
            return np.empty(0, dtype=np.intp)
        table, keys, _ = self._index()
        windows = np.ndarray((len(part) - 7,), dtype="<u8", buffer=part, strides=(1,))
        maybe = np.flatnonzero(table[_hash(windows)])
        near = np.minimum(np.searchsorted(keys, windows[maybe]), len(keys) - 1)
        return maybe[keys[near] == windows[maybe]]


def fresh(data: bytes, seen: set[bytes]) -> Iterator[bytes]:
    """The blocks of ``data`` that were not seen before, with an overlap longer than any pattern."""
    for at in range(0, len(data), BLOCK):
        block = data[at : at + BLOCK + OVERLAP]
        name = sha256(block).digest()
        if name not in seen:
            seen.add(name)
            yield block


def _hash(windows: npt.NDArray[np.uint64]) -> npt.NDArray[np.intp]:
    with np.errstate(over="ignore"):
        return ((windows * ODD) >> np.uint64(64 - BITS)).astype(np.intp)
