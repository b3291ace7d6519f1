"""One call of an app's function between two processes of a site, and its answer: a bounded head, then plain numbers.

The site's process asks, the app's process answers. What the app's process says is taken as what a function returned:
names, shapes and numbers of bytes are those of the question, faults are a few fixed words, and nothing is unpickled.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt

from privfl.codec import decode, encode
from privfl.errors import Malformed
from privfl.learn.update_answers import Answer, Fault, number_of
from privfl.learn.update_inputs import DTYPES, MAX_ARRAYS, Arrays, ArrayShape, Ask, shapes_of

__all__ = ["FAULTS", "Read", "answer_parts", "call_parts", "fault_parts", "read_answer", "read_call"]

MAX_HEAD: Final = 1 << 22  # bytes: a call's settings (1 MiB) and the names of its arrays, or an answer's metrics
MAX_BYTES: Final = 1 << 30  # of all arrays of a call
MAX_METRICS: Final = 10_000
MAX_NAME: Final = 500
CALL, ANSWER, FAULT = "app call", "app answer", "app fault"

#: Why a function's answer counts for nothing, as the site's log says it; the app's own log says more.
FAULTS: Final[Mapping[str, str]] = {
    "missing": "the app has no such function",
    "failed": "the function raised, or ended in another way than by returning; the node's own log names the kind",
    "answer": "the function did not return what Flower would average; the node's own log says what",
    "arrays": "its arrays have other names or shapes than the model's, or hold no numbers",
    "metrics": "it returned more metrics than can be read",
}

#: Reads exactly so many bytes into what is given; raises OSError or EOFError.
Read: TypeAlias = "Callable[[memoryview], None]"
Parts: TypeAlias = "Iterator[bytes | memoryview]"


def call_parts(ask: Ask, arrays: Mapping[str, npt.NDArray[Any]]) -> Parts:
    """The bytes of a call, in pieces."""
    shapes = tuple((shape.name, shape.shape, shape.dtype) for shape in shapes_of(arrays))
    yield from _head((CALL, ask.to_value(), shapes))
    for array in arrays.values():
        yield _bytes(array, array.dtype.newbyteorder("<"))


def read_call(read: Read) -> tuple[Ask, Arrays]:
    """The call, and arrays of its own; raises Malformed, or what ``read`` raises."""
    match _read_head(read):
        case (str(tag), ask, tuple(told)) if tag == CALL and len(told) <= MAX_ARRAYS:
            shapes = [_shape(one) for one in told]
        case _:
            raise Malformed("this is no call of an app's function")
    if len({shape.name for shape in shapes}) != len(shapes) or sum(shape.bytes for shape in shapes) > MAX_BYTES:
        raise Malformed("a call with two arrays of one name, or more than any model has")
    return Ask.from_value(ask), {shape.name: _array(read, shape.shape, shape.dtype) for shape in shapes}


def answer_parts(answer: Answer, ask: Ask, shapes: Sequence[ArrayShape]) -> Parts:
    """The bytes of an answer, in pieces; the first one decides whether it is one, or a fault.

    Every type of number is kept as it is where the encoding knows it, so that the site computes with the same bits;
    others (bool, extended precision) go as the float64 that the site would make of them.
    """
    arrays = [] if ask.kind.partition(".")[0] != "train" else _ordered(answer.arrays, shapes)
    metrics = {name: number_of(value) for name, value in answer.metrics.items()}
    told = [
        (name, struct.pack("<d", value))
        for name, value in metrics.items()
        if value is not None and isinstance(name, str) and len(name) <= MAX_NAME
    ]
    if arrays is None:
        yield from fault_parts("arrays")
    elif len(told) > MAX_METRICS:
        yield from fault_parts("metrics")
    else:
        yield from _head((ANSWER, tuple(array.dtype.str for array in arrays), tuple(told)))
        for array in arrays:
            yield _bytes(array, array.dtype)


def fault_parts(word: str) -> Parts:
    """The bytes of a fault."""
    yield from _head((FAULT, word))


def read_answer(read: Read, ask: Ask, shapes: Sequence[ArrayShape]) -> Answer:
    """What the app's process says of a call with arrays of these shapes.

    Raises:
        Fault: it says that there is no answer, or what it says is none. What ``read`` raises.
    """
    expected = shapes if ask.kind.partition(".")[0] == "train" else ()
    try:
        match _read_head(read):
            case (str(tag), str(word)) if tag == FAULT and word in FAULTS:
                raise Fault(FAULTS[word])
            case (str(tag), tuple(types), tuple(told)) if (
                tag == ANSWER and len(types) == len(expected) and len(told) <= MAX_METRICS
            ):
                metrics = dict(_metric(one) for one in told)
            case _:
                raise Malformed("neither an answer nor a fault")
        if not all(isinstance(one, str) and one in DTYPES for one in types):
            raise Malformed("an array of another type of number")
    except Malformed:
        raise Fault("its process said what is no answer") from None
    pairs = zip(expected, types, strict=True)
    return Answer({shape.name: _array(read, shape.shape, dtype) for shape, dtype in pairs}, metrics)


def _ordered(arrays: Mapping[str, Any], shapes: Sequence[ArrayShape]) -> list[npt.NDArray[Any]] | None:
    """The arrays in the model's order, each of a type that travels; None if they are not the model's."""
    if set(arrays) != {shape.name for shape in shapes}:
        return None
    found = []
    for shape in shapes:
        array = np.asarray(arrays[shape.name])
        if array.shape != shape.shape or array.dtype.kind not in "fiub":
            return None
        kept = array.dtype.newbyteorder("<")
        with np.errstate(all="ignore"):
            found.append(np.ascontiguousarray(array, dtype=kept if kept.str in DTYPES else "<f8"))
    return found


def _metric(one: object) -> tuple[str, float]:
    match one:
        case (str(name), bytes(packed)) if len(name) <= MAX_NAME and len(packed) == 8:
            value: float = struct.unpack("<d", packed)[0]
            if math.isfinite(value):
                return name, value
    raise Malformed("a metric is a name and a finite number")


def _shape(one: object) -> ArrayShape:
    match one:
        case (str(name), tuple(sizes), str(dtype)) if len(name) <= MAX_NAME and len(sizes) <= 32 and dtype in DTYPES:
            if all(isinstance(size, int) and 0 <= size < 1 << 32 for size in sizes):
                return ArrayShape(name, sizes, dtype)
    raise Malformed("an array is told by its name, shape and type")


def _array(read: Read, shape: Sequence[int], dtype: str) -> npt.NDArray[Any]:
    array = np.empty(shape, dtype=dtype)
    if array.size:
        read(array.reshape(-1).data.cast("B"))
    return array


def _bytes(array: npt.NDArray[Any], dtype: npt.DTypeLike) -> memoryview:
    whole = np.ascontiguousarray(array, dtype=dtype).reshape(-1)
    return whole.data.cast("B") if whole.size else memoryview(b"")


def _head(value: Any) -> Parts:
    data = encode(value)
    if len(data) > MAX_HEAD:
        raise Fault("it has longer names than can be told")
    yield struct.pack("<I", len(data)) + data


def _read_head(read: Read) -> Any:
    size = bytearray(4)
    read(memoryview(size))
    (length,) = struct.unpack("<I", size)
    if length > MAX_HEAD:
        raise Malformed("a head longer than any")
    data = bytearray(length)
    read(memoryview(data))
    return decode(bytes(data))
