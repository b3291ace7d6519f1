"""What a round of an app's training is asked with: the model's arrays and the records beside them, as canonical bytes.

The app's own server may put numbers, text and lists into a round's configuration; they travel as plain values of
the one encoding, bounded, and nothing that arrives is ever unpickled. Arrays have the public names, shapes and types
of the question; only their numbers travel.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Final, TypeAlias

import numpy as np
import numpy.typing as npt

from privfl.codec import Bounds, Record, decode, encode
from privfl.errors import Malformed, Misuse

__all__ = ["ArrayShape", "Arrays", "Ask", "Inputs", "Scalar", "Setting", "read_inputs", "shapes_of"]

Scalar: TypeAlias = "bool | int | float | str | bytes"
Setting: TypeAlias = "Scalar | list[bool] | list[int] | list[float] | list[str] | list[bytes]"
Arrays: TypeAlias = "dict[str, npt.NDArray[Any]]"

#: Types of number that can be averaged, by their little-endian names.
DTYPES: Final = ("<f2", "<f4", "<f8", "|i1", "<i2", "<i4", "<i8", "|u1", "<u2", "<u4", "<u8")
MAX_ARRAYS: Final = 100_000
MAX_SETTINGS: Final = 10_000
MAX_CONFIG: Final = 1 << 20  # bytes of one ask
_KIND = re.compile(r"(?:train|evaluate)(?:\.[A-Za-z_][A-Za-z0-9_]{0,99})?")
_INT = 1 << 63


@dataclass(frozen=True)
class ArrayShape(Record):
    """One array of the model: name, shape and type; public."""

    TAG: ClassVar[str] = "array"

    name: Annotated[str, Bounds(0, 500)]
    shape: Annotated[tuple[Annotated[int, Bounds(0, 1 << 32)], ...], Bounds(0, 32)]
    dtype: str

    @property
    def size(self) -> int:
        """Numbers in it."""
        return math.prod(self.shape)

    @property
    def bytes(self) -> int:
        """Bytes that they take."""
        return self.size * np.dtype(self.dtype).itemsize


def shapes_of(arrays: Mapping[str, npt.NDArray[Any]]) -> tuple[ArrayShape, ...]:
    """Names, shapes and types of a model.

    Raises:
        Misuse: an array of something that cannot be averaged (text, complex numbers, objects).
    """
    found = []
    for name, array in arrays.items():
        dtype = np.dtype(array.dtype).newbyteorder("<").str
        if dtype not in DTYPES:
            raise Misuse(f"array {name!a:.80} holds {array.dtype}, which cannot be averaged; send numbers only")
        found.append(ArrayShape(name, tuple(int(size) for size in array.shape), dtype))
    return tuple(found)


@dataclass(frozen=True)
class Ask:
    """One call of an app's function, as the app's own server words it.

    Attributes:
        kind: ``train`` or ``evaluate``, perhaps with an action: ``train.warmup``.
        records: in order, name → settings; None where the model's arrays stand.
    """

    kind: str
    records: tuple[tuple[str, Mapping[str, Setting] | None], ...]

    def __post_init__(self) -> None:
        if not _KIND.fullmatch(self.kind):
            raise Misuse(f"{self.kind!a:.80} is no kind of call; train and evaluate are, with an action behind a dot")
        names = [name for name, _ in self.records]
        if len(set(names)) != len(names) or sum(record is None for _, record in self.records) != 1:
            raise Misuse("a call takes the model's arrays once, and no two records of one name")

    def to_value(self) -> tuple[Any, ...]:
        """As it travels.

        Raises:
            Misuse: a value of a type that does not travel, or too much of it.
        """
        items = tuple(
            (name, None if record is None else tuple((key, _lowered(value)) for key, value in record.items()))
            for name, record in self.records
        )
        value = (self.kind, items)
        if sum(len(record or ()) for _, record in items) > MAX_SETTINGS or len(encode(value)) > MAX_CONFIG:
            raise Misuse(
                f"the configuration of a round is more than {MAX_CONFIG >> 20} MiB; send large things as arrays"
            )
        return value

    @classmethod
    def from_value(cls, value: object) -> Ask:
        """Read what :meth:`to_value` made; raises Malformed for anything else."""
        match value:
            case (str(kind), tuple(items)) if len(items) <= MAX_SETTINGS:
                try:
                    return cls(kind, tuple(_record(item) for item in items))
                except Misuse as error:
                    raise Malformed(f"a call of an app's function: {error}") from None
            case _:
                raise Malformed("this is no call of an app's function")


@dataclass(frozen=True)
class Inputs:
    """What a slot is asked with.

    Attributes:
        round: number of the round, from 1. arrays: the model that is sent out.
        train, evaluate: the calls; without ``train`` it is a slot of metrics alone, after the last round.
    """

    round: int
    arrays: Arrays
    train: Ask | None
    evaluate: Ask | None

    TAG: ClassVar[str] = "update inputs"

    def encode(self) -> bytes:
        """Canonical bytes; raises Misuse as :meth:`Ask.to_value`."""
        raw = tuple(_little(array).tobytes() for array in self.arrays.values())
        asks = tuple(None if ask is None else ask.to_value() for ask in (self.train, self.evaluate))
        return encode((self.TAG, self.round, raw, *asks))


def read_inputs(data: bytes, shapes: Sequence[ArrayShape]) -> Inputs:
    """Read a slot's inputs for a model of these shapes; the arrays are read-only views of ``data``'s copy.

    Raises:
        Malformed: not canonical, another number of bytes, numbers that are not finite, or nothing to do.
    """
    match decode(data):
        case (Inputs.TAG, int(number), tuple(raw), train, evaluate) if number >= 1 and len(raw) == len(shapes):
            pass
        case _:
            raise Malformed(f"these are no inputs for a model of {len(shapes)} arrays")
    arrays: Arrays = {}
    for shape, part in zip(shapes, raw, strict=True):
        if not isinstance(part, bytes) or len(part) != shape.bytes:
            raise Malformed(f"array {shape.name!a:.80} does not have {shape.bytes} bytes")
        try:
            array = np.frombuffer(part, dtype=shape.dtype).reshape(shape.shape)
        except ValueError:  # empty, and of a shape that NumPy does not count
            raise Malformed(f"array {shape.name!a:.80} has a shape that cannot be") from None
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise Malformed("a model must have finite parameters")
        arrays[shape.name] = array
    calls = [None if value is None else Ask.from_value(value) for value in (train, evaluate)]
    for call, kind in zip(calls, ("train", "evaluate"), strict=True):
        if call is not None and call.kind.partition(".")[0] != kind:
            raise Malformed(f"a call of {call.kind} stands where {kind} belongs")
    if calls == [None, None]:
        raise Malformed("inputs that ask for neither training nor evaluation")
    # what a call's own encoding admits is only bounded types: encoded again it must be the same bytes
    for call, value in zip(calls, (train, evaluate), strict=True):
        try:
            if call is not None and call.to_value() != value:
                raise Malformed("a call of an app's function is not in its canonical form")
        except Misuse as error:
            raise Malformed(f"a call of an app's function: {error}") from None
    return Inputs(number, arrays, calls[0], calls[1])


def _little(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    return np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))


def _lowered(value: object) -> Any:
    if isinstance(value, list):
        if len(value) > MAX_SETTINGS:
            raise Misuse(f"a list of {len(value)} settings is too long; send large things as arrays")
        if any(isinstance(item, list) for item in value):
            raise Misuse("a list of lists is no setting")
        return ("l", *(_lowered(item) for item in value))
    if isinstance(value, bool | bytes | str):
        return value
    if isinstance(value, int) and -_INT <= value < _INT:
        return value
    if isinstance(value, float):
        return ("f", repr(float(value)))
    raise Misuse(
        f"a setting of type {type(value).__name__} does not travel; use numbers, text, bytes, or lists of them"
    )


def _record(item: object) -> tuple[str, Mapping[str, Setting] | None]:
    match item:
        case (str(name), None) if len(name) <= 500:
            return name, None
        case (str(name), tuple(pairs)) if len(name) <= 500 and len(pairs) <= MAX_SETTINGS:
            found: dict[str, Setting] = {}
            for pair in pairs:
                match pair:
                    case (str(key), value) if len(key) <= 500 and key not in found:
                        found[key] = _raised(value)
                    case _:
                        raise Malformed("a setting is a name and a value, each name once")
            return name, found
        case _:
            raise Malformed("a record is a name and its settings")


def _raised(value: object) -> Any:
    match value:
        case ("l", *items):
            raised = [_raised(item) for item in items if not (isinstance(item, tuple) and item[:1] == ("l",))]
            if len(raised) != len(items) or len({type(item) for item in raised}) > 1:
                raise Malformed("a list of settings holds values of one type")
            return raised
        case ("f", str(text)):
            try:
                number = float(text)
            except ValueError:
                raise Malformed("a setting is no number") from None
            if repr(number) != text:
                raise Malformed("a number is not at its shortest")
            return number
        case bool() | int() | str() | bytes():
            return value
        case _:
            raise Malformed("a setting is a number, text, bytes, or a list of them")
