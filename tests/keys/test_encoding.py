"""The canonical encoding and the labels in front of it: one value, one byte string, both ways."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st
from privfl_keys import (
    VERSION,
    Bounds,
    Bytes32,
    Label,
    Malformed,
    Misuse,
    Record,
    Uint32,
    context,
    decode,
    digest,
    encode,
)

scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**512), 2**512 - 1)
    | st.binary(max_size=40)
    | st.text(st.characters(exclude_categories=("Cs",)), max_size=20)
)
values = st.recursive(scalars, lambda inner: st.lists(inner, max_size=4).map(tuple), max_leaves=12)


def same(a: object, b: object) -> bool:
    """Equality that tells True from 1."""
    if isinstance(a, tuple) and isinstance(b, tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return type(a) is type(b) and a == b


def untagged(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    ((kind, content),) = value.items()
    read = {"bytes": bytes.fromhex, "int": int, "tuple": lambda items: tuple(map(untagged, items))}
    return read[kind](content)


@given(values)
def test_decoding_returns_what_was_encoded(value: object) -> None:
    """decode ∘ encode is the identity, types included."""
    assert same(decode(encode(value)), value)


@given(values, values)
def test_two_values_never_share_an_encoding(a: object, b: object) -> None:
    """Encoding is injective, and even prefix-free, so concatenation cannot shift fields."""
    assert same(a, b) == (encode(a) == encode(b))
    assert same(a, b) or not encode(a).startswith(encode(b))


@given(st.binary(max_size=60))
def test_any_bytes_are_refused_or_canonical(data: bytes) -> None:
    """Whatever decodes encodes back to the same bytes: there is no second encoding of anything."""
    try:
        value = decode(data)
    except Malformed:
        return
    assert encode(value) == data


@given(values, st.data())
def test_mutated_encodings_are_refused_or_canonical(value: object, data: st.DataObject) -> None:
    """One changed byte gives Malformed, or the canonical bytes of another value."""
    raw = bytearray(encode(value))
    at = data.draw(st.integers(0, len(raw) - 1))
    raw[at] ^= data.draw(st.integers(1, 255))
    try:
        other = decode(bytes(raw))
    except Malformed:
        return
    assert encode(other) == bytes(raw)
    assert not same(other, value)


def test_vectors_both_good_and_bad(vectors: Any) -> None:
    """Pins the format; every listed non-canonical byte string is refused."""
    content = vectors("encoding")
    for case in content["good"]:
        value = untagged(case["value"])
        assert encode(value).hex() == case["hex"]
        assert same(decode(bytes.fromhex(case["hex"])), value)
    for case in content["bad"]:
        with pytest.raises(Malformed):
            decode(bytes.fromhex(case["hex"]))
    assert len(content["bad"]) >= 20


@pytest.mark.parametrize("value", [1.0, [1], {"a": 1}, {1}, bytearray(b"x"), (1, (2.5,)), object(), 2**512])
def test_values_without_an_encoding_are_refused(value: object) -> None:
    """No silent conversion: floats, lists and oversized ints are the caller's mistake."""
    with pytest.raises(Misuse):
        encode(value)


def test_nesting_is_bounded_both_ways() -> None:
    """The deepest tuple that encodes also decodes; one more is refused on either side."""
    value: tuple[Any, ...] = ()
    for _ in range(11):
        value = (value,)
    assert decode(encode(value)) == value
    with pytest.raises(Misuse):
        encode((value,))
    with pytest.raises(Malformed):
        decode(b"l\x00\x00\x00\x01" + encode(value))


@dataclass(frozen=True)
class Inner(Record):
    TAG: ClassVar[str] = "inner"
    count: Uint32


@dataclass(frozen=True)
class Outer(Record):
    TAG: ClassVar[str] = "outer"
    key: Bytes32
    name: Annotated[str, Bounds(1, 5)]
    inner: Inner | None
    many: tuple[Inner, ...]
    pair: tuple[int, bytes]
    flag: bool


OUTER = Outer(bytes(32), "abc", Inner(3), (Inner(0), Inner(2**32 - 1)), (-1, b"x"), True)


def test_records_survive_the_wire() -> None:
    """A record with optional, nested, repeated and paired fields comes back equal."""
    assert Outer.decode(OUTER.encode()) == OUTER


@pytest.mark.parametrize(
    ("field", "value"),
    [
        (0, "other tag"),
        (1, bytes(31)),
        (2, ""),
        (2, "too long"),
        (2, b"abc"),
        (3, 3),
        (3, ("inner", -1)),
        (4, None),
        (4, (("inner", 2**32),)),
        (4, (("inner", True),)),
        (5, (1,)),
        (5, (True, b"")),
        (6, 1),
    ],
)
def test_records_check_every_field(field: int, value: object) -> None:
    """A wrong tag, type, length, range or bool-for-int in any field is Malformed."""
    raw = list(OUTER.to_value())
    raw[field] = value  # type: ignore[call-overload]
    with pytest.raises(Malformed):
        Outer.decode(encode(tuple(raw)))


def test_records_check_their_number_of_fields() -> None:
    """Neither a missing nor an extra field is tolerated."""
    for raw in (OUTER.to_value()[:-1], (*OUTER.to_value(), None), (), None, 7):
        with pytest.raises(Malformed):
            Outer.decode(encode(raw))


def test_labels_are_distinct() -> None:
    """No two purposes share a label, so no hash or signature can stand for another."""
    assert len({str(label) for label in Label}) == len(list(Label)) == len(Label.__members__)
    assert len({context(label) for label in Label}) == len(list(Label))


def test_contexts_start_with_label_and_version() -> None:
    """What is hashed is (label, version, parts...), so another version is another hash."""
    assert decode(context(Label.H0, 1, b"x")) == ("H0", VERSION, 1, b"x")


@given(st.sampled_from(Label), st.sampled_from(Label), st.lists(scalars, max_size=3), st.lists(scalars, max_size=3))
def test_contexts_are_injective(a: Label, b: Label, left: list[object], right: list[object]) -> None:
    """Two contexts are equal only if label and every part are; digests follow."""
    equal = a is b and same(tuple(left), tuple(right))
    assert (context(a, *left) == context(b, *right)) == equal
    assert (digest(a, *left) == digest(b, *right)) == equal
