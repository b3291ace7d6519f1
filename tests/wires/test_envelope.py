"""Envelopes and the post that opens them: nothing reaches a handler unless a roster member signed it for us."""

from __future__ import annotations

import hashlib
import os
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from privfl_keys import Member, Roster, SigningKey

from privfl.entropy import SYSTEM
from privfl.errors import Malformed, PrivflError, Unverified, WireError
from privfl.runtime.post import Post, Received
from privfl.secagg.party import Party
from privfl.wires import INLINE_LIMIT, BodyRef, Envelope, MemoryWire, check_body, open_envelope, seal_envelope
from tests.harness import SeededEntropy

ENTROPY = SeededEntropy("envelopes")
AUTHORITY, COORDINATOR, STRANGER = (SigningKey.generate(ENTROPY) for _ in range(3))
SITES = [SigningKey.generate(ENTROPY) for _ in range(3)]
ROSTER = Roster.create(
    "test",
    [Member("coordinator", COORDINATOR.verify_key.raw, ("coordinator",))]
    + [Member(f"site-{at}", key.verify_key.raw, ("site",)) for at, key in enumerate(SITES)],
    graph_seed=bytes(32),
    valid_from=0,
    valid_until=10**15,
)
HERE = SITES[0].verify_key.site_id


def envelope(key: SigningKey = COORDINATOR, **changes: object) -> Envelope:
    """A sound envelope from ``key`` to the first site, changed before it is signed."""
    bare = Envelope("test", key.verify_key.site_id, HERE, "announce", os.urandom(16), b"", b"payload", (), bytes(64))
    return seal_envelope(key, replace(bare, **changes))  # type: ignore[arg-type]


class Desk:
    """The first site's post on a wire, and what its handler was given."""

    def __init__(self) -> None:
        self.wire = MemoryWire()
        self.post = Post(Party(SITES[0], ROSTER), self.wire.mailbox(HERE), SYSTEM, peer_role="coordinator")
        self.coordinator = Post(Party(COORDINATOR, ROSTER), self.wire.mailbox(b"c" * 32), SYSTEM, peer_role="site")
        self.got: list[Received] = []

    def deliver(self, data: bytes) -> list[Received]:
        """Put bytes into the box and serve; returns all that was handled so far."""
        self.wire.mailbox(b"x" * 32).send(HERE, data)
        self.post.receive(0, self.got.append)
        return self.got


@pytest.fixture
def desk() -> Desk:
    """A fresh wire."""
    return Desk()


def test_a_sound_envelope_is_handled(desk: Desk) -> None:
    """The case that all others are held against."""
    (got,) = desk.deliver(envelope().encode())
    assert (got.sender, got.kind, got.payload) == (COORDINATOR.verify_key.site_id, "announce", b"payload")
    assert desk.post.rejected == 0


REJECTED = {
    "a stranger": envelope(STRANGER),
    "a site in the coordinator's place": envelope(SITES[1]),
    "the coordinator's name under another's signature": replace(
        envelope(SITES[1]), sender=COORDINATOR.verify_key.site_id
    ),
    "another federation": envelope(federation="other"),
    "another recipient": envelope(recipient=SITES[1].verify_key.site_id),
    "no signature": replace(envelope(), signature=bytes(64)),
    "a signature of another message": replace(envelope(), signature=envelope(payload=b"x").signature),
    "a changed payload": replace(envelope(), payload=b"Payload"),
    "a changed kind": replace(envelope(), kind="ask-vote"),
    "a changed id": replace(envelope(), id=bytes(16)),
    "a changed reply": replace(envelope(), reply_to=bytes(16)),
    "an added body": replace(envelope(), bodies=(BodyRef.of(b"x"),)),
    "a large message without its body": envelope(kind="announce+"),
}


@pytest.mark.parametrize("why", REJECTED)
def test_what_does_not_verify_is_dropped_and_counted(desk: Desk, why: str) -> None:
    """Forged, misdirected and tampered envelopes reach no handler, get no answer and stay in no box."""
    assert desk.deliver(REJECTED[why].encode()) == []
    assert desk.post.rejected == 1
    assert set(desk.wire.sent_bytes) == {b"x" * 32}
    assert desk.deliver(envelope().encode()) != []


def test_every_truncation_is_dropped(desk: Desk) -> None:
    """No prefix of an envelope is an envelope, nor one with bytes after it."""
    whole = envelope().encode()
    for size in range(len(whole)):
        assert desk.deliver(whole[:size]) == []
    assert desk.deliver(whole + b"\x00") == []
    assert desk.deliver(whole) != []


@given(at=st.integers(0, 10_000), bit=st.integers(0, 7))
@settings(max_examples=200, deadline=None)
def test_every_flipped_bit_is_noticed(at: int, bit: int) -> None:
    """One changed bit anywhere in an envelope makes it worthless."""
    data = bytearray(envelope().encode())
    data[at % len(data)] ^= 1 << bit
    assert Desk().deliver(bytes(data)) == []


@given(st.binary(max_size=400))
@settings(max_examples=200, deadline=None)
def test_arbitrary_bytes_are_dropped(data: bytes) -> None:
    """Whatever lies in the box, the post survives it."""
    desk = Desk()
    assert desk.deliver(data) == []
    assert desk.post.rejected == 1


@pytest.mark.parametrize(
    "changes",
    [
        {"payload": bytes(INLINE_LIMIT + 1)},
        {"kind": ""},
        {"kind": "k" * 41},
        {"id": bytes(15)},
        {"reply_to": bytes(17)},
        {"federation": "f" * 201},
        {"federation": ""},
        {"bodies": (BodyRef(bytes(32), 2**35 + 1),)},
        {"bodies": tuple(BodyRef.of(bytes([at])) for at in range(9))},
    ],
)
def test_fields_out_of_bounds_are_malformed(desk: Desk, changes: dict[str, object]) -> None:
    """What no honest sender can make is neither encoded nor read."""
    with pytest.raises((Malformed, PrivflError)):
        Envelope.decode(envelope(**changes).encode())


def test_what_is_longer_than_any_envelope_is_not_decoded(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Anyone may fill a box; nobody makes the reader decode megabytes, or fetch a body of another size."""
    data = bytes(INLINE_LIMIT + 4097)
    with pytest.raises(Malformed, match="longer than any envelope"):
        open_envelope(data, ROSTER, HERE, "coordinator")
    assert desk.deliver(data) == []
    assert desk.post.rejected == 1
    huge = BodyRef(bytes(32), 2**30 + 1)
    monkeypatch.setattr(desk.wire, "load", lambda name: pytest.fail("a body was fetched"))
    assert desk.deliver(envelope(kind="announce+", bodies=(huge,)).encode()) == []
    (got,) = desk.deliver(envelope(bodies=(huge,)).encode())
    with pytest.raises(Unverified, match="another size"):
        got.body(size=100)


@pytest.mark.parametrize("size", [0, 1, INLINE_LIMIT, INLINE_LIMIT + 1, 3 * INLINE_LIMIT])
def test_payloads_of_any_size_travel(desk: Desk, size: int) -> None:
    """Beyond 64 KiB a payload goes as a body, so that every envelope fits any queue."""
    longest = 0

    def tap(recipient: bytes, data: bytes) -> None:
        nonlocal longest
        longest = max(longest, len(data))

    desk.wire.tap = tap
    payload, body = os.urandom(size), os.urandom(100)
    desk.coordinator.send(HERE, "announce", payload, bodies=[body])
    desk.post.receive(0, desk.got.append)
    (got,) = desk.got
    assert (got.kind, got.payload, got.body()) == ("announce", payload, body)
    assert longest < INLINE_LIMIT + 1024
    with pytest.raises(Unverified, match="lacks a body"):
        got.body(1)


@pytest.mark.parametrize("lie", [b"", b"other", b"body!" * 100])
def test_a_store_that_lies_is_found_out(desk: Desk, lie: bytes) -> None:
    """A body is held against its size before it is read and its hash after; a wrong one is never handed on."""
    body = b"body?" * 100
    desk.wire.mailbox(HERE).put_body(hashlib.sha256(body).digest(), lie)  # first write wins
    desk.coordinator.send(HERE, "upload", b"", bodies=[body])
    desk.post.receive(0, desk.got.append)
    if len(lie) == len(body):
        with pytest.raises(Unverified, match="not the one its envelope names"):
            desk.got[0].body()
    else:
        with pytest.raises(WireError, match="bytes and not 500"):
            desk.got[0].body()
    with pytest.raises(Unverified):
        check_body(BodyRef.of(body), lie)
    assert check_body(BodyRef.of(body), body) == body


def test_a_missing_body_is_the_wire_s_fault(desk: Desk) -> None:
    """A body that is not there yet is no lie of its sender."""
    (got,) = desk.deliver(envelope(bodies=(BodyRef.of(b"late"),)).encode())
    with pytest.raises(WireError):
        got.body()


def test_ids_are_fresh() -> None:
    """Two messages of the same content are two messages."""
    desk = Desk()
    assert len({desk.coordinator.send(HERE, "record", b"same") for _ in range(100)}) == 100
