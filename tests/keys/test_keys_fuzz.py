"""Every decoder of the keys package meets hostile bytes: a typed error or an honest value, nothing else."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from privfl_keys import (
    EnrolmentRequest,
    Equivocation,
    Identity,
    Member,
    Record,
    Roster,
    RosterBook,
    Rotation,
    ScryptCost,
    SealingKey,
    SealingPublicKey,
    SignedRoster,
    SigningKey,
    Theirs,
    Unverified,
    VerifyKey,
    encode,
)
from privfl_keys.storefile import StoreFile

SETTINGS = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
AUTHORITY = SigningKey.from_secret_bytes(b"a" * 32)


class Fixed:
    def draw(self, size: int) -> bytes:
        return bytes(range(size))


def examples() -> list[Record]:
    sites = [Identity(f"site {i}", SigningKey.from_secret_bytes(bytes([i]) * 32)) for i in range(4)]
    auditor = Member("a", AUTHORITY.verify_key.raw, ("auditor",), SealingKey(bytes(96)).public.raw)
    members = [Member(site.name, site.verify_key.raw, ("site",)) for site in sites]
    roster = Roster.create("trial", members, graph_seed=bytes(32), valid_from=0, valid_until=9)
    _, proof = sites[0].rotate(Fixed(), 5)
    second = roster.succeed(graph_seed=b"g" * 32, valid_from=0, valid_until=9, rotations=[proof])
    rival = roster.succeed(graph_seed=b"h" * 32, valid_from=0, valid_until=9)
    return [
        members[0],
        auditor,
        proof,
        EnrolmentRequest.create(sites[0], "trial", 5),
        roster,
        second,
        second.sign(AUTHORITY),
        Equivocation(second.sign(AUTHORITY), rival.sign(AUTHORITY)),
        ScryptCost(),
        StoreFile(ScryptCost(), bytes(32), bytes(12), bytes(40), bytes(32)),
    ]


EXAMPLES = examples()
by_kind = pytest.mark.parametrize("record", EXAMPLES, ids=lambda record: type(record).__name__)


@by_kind
def test_examples_come_back_equal(record: Record) -> None:
    """The seeds of the fuzzing are valid: decode ∘ encode is the identity."""
    assert type(record).decode(record.encode()) == record


@by_kind
@SETTINGS
@given(data=st.binary(max_size=200))
def test_random_bytes(record: Record, data: bytes) -> None:
    """Random bytes are Theirs, never another exception."""
    with pytest.raises(Theirs):
        type(record).decode(data)


@by_kind
@SETTINGS
@given(choice=st.data())
def test_single_byte_mutations(record: Record, choice: st.DataObject) -> None:
    """One changed byte is Theirs, or a different record that encodes to exactly those bytes."""
    raw = bytearray(record.encode())
    raw[choice.draw(st.integers(0, len(raw) - 1))] ^= choice.draw(st.integers(1, 255))
    try:
        other = type(record).decode(bytes(raw))
    except Theirs:
        return
    assert other != record
    assert other.encode() == bytes(raw)


@by_kind
def test_cuts_and_extensions(record: Record) -> None:
    """Every truncation and any trailing byte is Theirs."""
    raw = record.encode()
    step = max(1, len(raw) // 200)
    for size in range(0, len(raw), step):
        with pytest.raises(Theirs):
            type(record).decode(raw[:size])
    with pytest.raises(Theirs):
        type(record).decode(raw + b"n")


scalars = st.none() | st.booleans() | st.integers(-5, 2**70) | st.binary(max_size=40) | st.text(max_size=5)
values = st.recursive(scalars, lambda inner: st.lists(inner, max_size=4).map(tuple), max_leaves=8)


@by_kind
@SETTINGS
@given(choice=st.data())
def test_swapped_fields(record: Record, choice: st.DataObject) -> None:
    """A well-encoded tuple with any field replaced by any value is Theirs or an honest record."""
    fields = list(record.to_value())
    fields[choice.draw(st.integers(0, len(fields) - 1))] = choice.draw(values)
    raw = encode(tuple(fields))
    try:
        other = type(record).decode(raw)
    except Theirs:
        return
    assert other.encode() == raw


SIGNED: list[tuple[str, Record, Callable[[Any], object]]] = [
    ("rotation", EXAMPLES[2], Rotation.verify),
    ("request", EXAMPLES[3], EnrolmentRequest.verify),
    ("roster", EXAMPLES[6], lambda record: SignedRoster.verify(record, AUTHORITY.verify_key)),
    ("equivocation", EXAMPLES[7], lambda record: Equivocation.verify(record, AUTHORITY.verify_key)),
]


@pytest.mark.parametrize(("record", "verify"), [case[1:] for case in SIGNED], ids=[case[0] for case in SIGNED])
def test_no_mutation_of_a_signed_record_verifies(record: Record, verify: Callable[[Any], object]) -> None:
    """Flip one bit of each byte in turn: not decoded, or not verified. The original does verify."""
    verify(record)
    raw = record.encode()
    for at in range(len(raw)):
        mutated = bytearray(raw)
        mutated[at] ^= 1 << at % 8
        with pytest.raises(Theirs):
            verify(type(record).decode(bytes(mutated)))


@SETTINGS
@given(st.binary(max_size=80))
def test_books_and_raw_keys(data: bytes) -> None:
    """Loading a book or a raw key from random bytes is Theirs, or a key with those very bytes."""
    with pytest.raises(Theirs):
        RosterBook.load(data)
    with pytest.raises(Unverified):
        SealingPublicKey(data)
    try:
        assert VerifyKey(data).raw == data
    except Unverified:
        return
