"""One canonical encoding for every byte string that is hashed, signed, sealed or sent.

A value is ``None``, a bool, an int, bytes, str, or a tuple of values; there are no floats. Each
value has exactly one encoding, and :func:`decode` refuses every other one, so equal bytes mean
equal values and a tuple's fields cannot be shifted into one another.

=========  ==========================================================================
``n t f``  None, True, False
``i j``    int ≥ 0, int < 0 (as −1 − n): one length byte, then minimal big-endian
``b s``    bytes, UTF-8 text: four length bytes, then the content
``l``      tuple: four count bytes, then the items
=========  ==========================================================================
"""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Callable
from typing import Annotated, Any, ClassVar, Self, TypeAlias, get_args, get_origin, get_type_hints

from privfl_keys.errors import Malformed, Misuse

__all__ = ["Bounds", "Bytes32", "Bytes64", "Record", "Uint32", "Uint64", "Value", "decode", "encode", "pieces"]

Value: TypeAlias = "bool | int | bytes | str | tuple[Value, ...] | None"

MAX_DEPTH = 12
MAX_INT_BYTES = 64


def encode(value: object) -> bytes:
    """Encode ``value`` canonically.

    Raises:
        Misuse: the value (or something inside it) is of a type that has no encoding.

    >>> encode(("a", 1, b"x"))
    b'l\\x00\\x00\\x00\\x03s\\x00\\x00\\x00\\x01ai\\x01\\x01b\\x00\\x00\\x00\\x01x'
    """
    return b"".join(pieces(value))


def pieces(value: object) -> list[bytes]:
    """:func:`encode` before it is put together: no long field is copied, so a large value can be hashed in parts.

    Raises:
        Misuse: the value (or something inside it) is of a type that has no encoding.
    """
    out: list[bytes] = []
    _encode(value, out, 0)
    return out


def _encode(value: object, out: list[bytes], depth: int) -> None:
    if isinstance(value, bytes):
        out.append(b"b" + len(value).to_bytes(4, "big"))
        out.append(value)
    elif isinstance(value, bool):
        out.append(b"t" if value else b"f")
    elif isinstance(value, int):
        tag, magnitude = (b"i", value) if value >= 0 else (b"j", -1 - value)
        size = (magnitude.bit_length() + 7) // 8
        if size > MAX_INT_BYTES:
            raise Misuse(f"an integer of {size} bytes has no encoding (at most {MAX_INT_BYTES})")
        out.append(tag + bytes((size,)) + magnitude.to_bytes(size, "big"))
    elif isinstance(value, str):
        try:
            raw = value.encode("utf-8")
        except UnicodeEncodeError:
            raise Misuse("text with lone surrogates has no encoding; remove them") from None
        out.append(b"s" + len(raw).to_bytes(4, "big") + raw)
    elif isinstance(value, tuple):
        if depth >= MAX_DEPTH:
            raise Misuse(f"tuples nest deeper than {MAX_DEPTH}")
        out.append(b"l" + len(value).to_bytes(4, "big"))
        for item in value:
            _encode(item, out, depth + 1)
    elif value is None:
        out.append(b"n")
    else:
        raise Misuse(f"a {type(value).__name__} has no canonical encoding")


def decode(data: bytes) -> Value:
    """Decode one canonical value that fills ``data`` exactly.

    Raises:
        Malformed: truncated, trailing, non-minimal or otherwise non-canonical bytes.
    """
    value, end = _decode(data, 0, 0)
    if end != len(data):
        raise Malformed(f"{len(data) - end} bytes follow the encoded value")
    return value


def _take(data: bytes, at: int, size: int) -> bytes:
    piece = data[at : at + size]
    if len(piece) != size:
        raise Malformed("the encoding is truncated")
    return piece


def _decode(data: bytes, at: int, depth: int) -> tuple[Value, int]:
    tag = _take(data, at, 1)
    at += 1
    if tag in (b"b", b"s"):
        size = int.from_bytes(_take(data, at, 4), "big")
        raw = _take(data, at + 4, size)
        at += 4 + size
        if tag == b"b":
            return raw, at
        try:
            return raw.decode("utf-8"), at
        except UnicodeDecodeError:
            raise Malformed("text is not UTF-8") from None
    if tag in (b"i", b"j"):
        size = _take(data, at, 1)[0]
        raw = _take(data, at + 1, size)
        if size > MAX_INT_BYTES or (size and raw[0] == 0):
            raise Malformed("an integer is not minimal or too long")
        magnitude = int.from_bytes(raw, "big")
        return (magnitude if tag == b"i" else -1 - magnitude), at + 1 + size
    if tag == b"l":
        return _decode_tuple(data, at, depth)
    simple: dict[bytes, Value] = {b"n": None, b"t": True, b"f": False}
    if tag in simple:
        return simple[tag], at
    raise Malformed(f"unknown type tag {tag!r}")


def _decode_tuple(data: bytes, at: int, depth: int) -> tuple[Value, int]:
    if depth >= MAX_DEPTH:
        raise Malformed(f"tuples nest deeper than {MAX_DEPTH}")
    count = int.from_bytes(_take(data, at, 4), "big")
    at += 4
    if count > len(data) - at:  # every item takes at least one byte
        raise Malformed("the encoding is truncated")
    items: list[Value] = []
    for _ in range(count):
        item, at = _decode(data, at, depth + 1)
        items.append(item)
    return tuple(items), at


@dataclasses.dataclass(frozen=True)
class Bounds:
    """Limits of a field: the value of an int, or the length of bytes, text or a tuple."""

    low: int
    high: int

    def check(self, value: object, name: str) -> None:
        """Raise Malformed if ``value`` (or its length) is outside the limits."""
        size = value if isinstance(value, int) else len(typing.cast("bytes", value))
        if not self.low <= size <= self.high:
            raise Malformed(f"{name} is {size}, outside [{self.low}, {self.high}]")


Bytes32 = Annotated[bytes, Bounds(32, 32)]
Bytes64 = Annotated[bytes, Bounds(64, 64)]
Uint32 = Annotated[int, Bounds(0, 2**32 - 1)]
Uint64 = Annotated[int, Bounds(0, 2**64 - 1)]


class Record:
    """Base of frozen dataclasses that travel: a tuple of their tag and fields, checked on the way in.

    A subclass sets ``TAG`` and annotates its fields with int, bytes, str, bool, ``X | None``,
    ``tuple[X, ...]``, ``tuple[X, Y]``, other records, or ``Annotated[..., Bounds(...)]``.
    """

    TAG: ClassVar[str]

    def to_value(self) -> tuple[Value, ...]:
        """Return the record as an encodable tuple that starts with its tag."""
        names = _fields(type(self))
        return (self.TAG, *(_lower(getattr(self, name)) for name, _ in names))

    def encode(self) -> bytes:
        """Return the canonical bytes of the record."""
        return encode(self.to_value())

    @classmethod
    def from_value(cls, value: object) -> Self:
        """Build the record from a decoded tuple.

        Raises:
            Malformed: another tag, another number of fields, a field of another type or size.
        """
        fields = _fields(cls)
        if not isinstance(value, tuple) or len(value) != len(fields) + 1 or value[0] != cls.TAG:
            raise Malformed(f"this is not a {cls.TAG} record")
        arguments = {
            name: lift(item, f"{cls.TAG}.{name}") for (name, lift), item in zip(fields, value[1:], strict=True)
        }
        return cls(**arguments)

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """Decode canonical bytes; raises Malformed for anything else."""
        return cls.from_value(decode(data))


def _lower(value: object) -> Value:
    if isinstance(value, Record):
        return value.to_value()
    if isinstance(value, tuple):
        return tuple(_lower(item) for item in value)
    return typing.cast("Value", value)


_Lift: TypeAlias = Callable[[object, str], Any]


_FIELDS: dict[type, tuple[tuple[str, _Lift], ...]] = {}


def _fields(cls: type) -> tuple[tuple[str, _Lift], ...]:
    known = _FIELDS.get(cls)
    if known is None:
        hints = get_type_hints(cls, include_extras=True)
        known = tuple((field.name, _lifter(hints[field.name])) for field in dataclasses.fields(cls))
        _FIELDS[cls] = known
    return known


def _lifter(hint: Any) -> _Lift:
    origin = get_origin(hint)
    if origin is Annotated:
        return _bounded(_lifter(get_args(hint)[0]), [note for note in get_args(hint)[1:] if isinstance(note, Bounds)])
    if origin in (types.UnionType, typing.Union):
        (inner,) = (arg for arg in get_args(hint) if arg is not types.NoneType)
        lift = _lifter(inner)
        return lambda value, name: None if value is None else lift(value, name)
    if origin is tuple:
        return _tuple_lifter(get_args(hint))
    if isinstance(hint, type) and issubclass(hint, Record):
        return lambda value, name: hint.from_value(value)
    return _scalar(hint)


def _bounded(lift: _Lift, bounds: list[Bounds]) -> _Lift:
    def checked(value: object, name: str) -> Any:
        lifted = lift(value, name)
        for bound in bounds:
            bound.check(lifted, name)
        return lifted

    return checked


def _tuple_lifter(args: tuple[Any, ...]) -> _Lift:
    if len(args) == 2 and args[1] is Ellipsis:
        lift = _lifter(args[0])

        def many(value: object, name: str) -> Any:
            if not isinstance(value, tuple):
                raise Malformed(f"{name} is not a list")
            return tuple(lift(item, name) for item in value)

        return many
    lifts = [_lifter(arg) for arg in args]

    def fixed(value: object, name: str) -> Any:
        if not isinstance(value, tuple) or len(value) != len(lifts):
            raise Malformed(f"{name} is not a list of {len(lifts)}")
        return tuple(lift(item, name) for lift, item in zip(lifts, value, strict=True))

    return fixed


def _scalar(kind: type) -> _Lift:
    def exact(value: object, name: str) -> Any:
        if type(value) is not kind:
            raise Malformed(f"{name} is a {type(value).__name__}, not {kind.__name__}")
        return value

    return exact
