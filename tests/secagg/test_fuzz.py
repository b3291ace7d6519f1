"""Every decoder and every machine against bytes that nobody honest sends.

Decoders: any bytes in, a typed error or a value that encodes to the same bytes out. Machines: decoded
messages with changed fields, validly signed again by their sender where that helps an attacker, and
sealed contents of any kind; only ``PrivflError`` may come out, and a refusal leaves the state as it was.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from privfl_keys import Label, SealingPublicKey

from privfl.codec import Record, decode, encode
from privfl.errors import PrivflError, Theirs
from privfl.secagg import (
    Ask,
    CoordinatorMachine,
    Equivocation,
    OpenedSum,
    Release,
    SiteMachine,
    Transcript,
    Upload,
    verify_transcript,
)
from privfl.secagg.committee import SHARE_BYTES
from privfl.secagg.coordinator import layout_of
from privfl.secagg.messages import Contribution, Header, body_prefix, release_part
from privfl.secagg.shamir import PRIME
from privfl.secagg.site import blob_hash, blob_info
from tests.harness import NOW
from tests.secagg.scene import resign, resign_deep, scene

KINDS = [
    "Advert",
    "Announcement",
    "Ask",
    "Ballot",
    "Blame",
    "Confirmations",
    "Contribution",
    "CoordinatorState",
    "CoordinatorWhole",
    "EpochRecord",
    "EpochState",
    "Header",
    "MemberState",
    "OpenedSum",
    "Pair",
    "Release",
    "ReleaseNote",
    "ReleaseStub",
    "Scope",
    "SeenHead",
    "SiteState",
    "SlotState",
    "Transcript",
    "Upload",
    "Vote",
]
STEPS = [
    "accept",
    "confirm",
    "contribute",
    "finish",
    "fix record",
    "join",
    "receive",
    "receive advert",
    "receive confirmations",
    "receive contributions",
    "receive release",
    "receive vote",
    "release",
    "upload",
    "vote",
]
randoms = st.randoms(use_true_random=False)


def quick(examples: int) -> settings:
    """Seeded anew in every run, without a database of old examples."""
    return settings(max_examples=examples, deadline=None, database=None)


# --- mutations -------------------------------------------------------------------------------------

JUNK: tuple[object, ...] = (
    None,
    True,
    False,
    0,
    1,
    -1,
    2,
    31,
    65,
    2**32 - 1,
    2**32,
    2**63,
    2**64 - 1,
    2**500,
    -(2**500),
    b"",
    bytes(1),
    bytes(31),
    bytes(32),
    b"\xff" * 32,
    bytes(33),
    bytes(64),
    bytes(96),
    bytes(1216),
    b"\xff" * 1216,
    "",
    "idle",
    "active",
    "releasing",
    "x" * 201,
    (),
    ((),),
    (b"",),
)


def places(value: object, at: tuple[int, ...] = ()) -> Iterator[tuple[int, ...]]:
    """Paths of every part of a decoded value."""
    yield at
    if isinstance(value, tuple):
        for index, item in enumerate(value):
            yield from places(item, (*at, index))


def changed(value: object, path: tuple[int, ...], rnd: random.Random) -> object:
    """The value with the part at ``path`` changed."""
    if path:
        assert isinstance(value, tuple)
        head, *rest = path
        return (*value[:head], changed(value[head], tuple(rest), rnd), *value[head + 1 :])
    if rnd.random() < 0.3:
        return rnd.choice(JUNK)
    if isinstance(value, bytes):
        return mangled(value, rnd)
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value + rnd.choice((-2, -1, 1, 2, 2**31, -(2**31)))
    if isinstance(value, str):
        return value + "x"
    if isinstance(value, tuple):
        items = list(value)
        if items:
            index = rnd.randrange(len(items))
            act = rnd.randrange(4)
            if act == 0:
                del items[index]
            elif act == 1:
                items.insert(index, items[rnd.randrange(len(items))])
            elif act == 2:
                items.reverse()
            else:
                items[index] = rnd.choice(JUNK)
        return tuple(items)
    return rnd.choice(JUNK)


def mangled(data: bytes, rnd: random.Random) -> bytes:
    """Bytes flipped, cut, grown, or with 32 bytes swapped."""
    act, at = rnd.randrange(6), rnd.randrange(len(data) + 1)
    if act == 0 and at < len(data):
        return data[:at] + bytes((data[at] ^ (1 << rnd.randrange(8)),)) + data[at + 1 :]
    if act == 1:
        return data[:at]
    if act == 2:
        return data[:at] + rnd.randbytes(rnd.choice((1, 31, 32))) + data[at:]
    if act == 3:
        return data[32:] + data[:32]
    if act == 4:
        return rnd.randbytes(len(data))
    return data[:-32] + data[:32]


def mutant(record: Record, rnd: random.Random) -> object:
    """One or two changes somewhere in a record's value; leaves are likelier than their parents."""
    value: object = decode(record.encode())
    for _ in range(rnd.choice((1, 1, 2))):
        value = changed(value, rnd.choice(list(places(value))), rnd)
    return value


# --- decoders ----------------------------------------------------------------------------------------


def reads_or_refuses(kind: type[Record], data: bytes) -> None:
    """The one property of a decoder."""
    try:
        record = kind.decode(data)
    except Theirs:
        return
    assert record.encode() == data


def test_the_list_of_kinds_is_whole() -> None:
    """Every record class of the package is fuzzed; a new one must be added here."""
    kinds = set()
    todo: list[type[Record]] = [Record]
    while todo:
        kind = todo.pop()
        todo += kind.__subclasses__()
        if kind.__module__.startswith("privfl.secagg") and kind.__name__ != "SecretRecord":
            kinds.add(kind.__name__)
    assert kinds == set(KINDS) == set(scene().records())


@pytest.mark.parametrize("kind", KINDS)
@quick(60)
@given(data=st.binary(max_size=400))
def test_random_bytes_decode_to_nothing_or_to_themselves(kind: str, data: bytes) -> None:
    """Raw noise, and noise behind a valid prefix, gives a typed error or a value that re-encodes identically."""
    record = scene().records()[kind]
    valid = record.encode()
    reads_or_refuses(type(record), data)
    reads_or_refuses(type(record), valid[: len(data) * 3] + data)
    reads_or_refuses(type(record), valid + data)


@pytest.mark.parametrize("kind", KINDS)
@quick(150)
@given(rnd=randoms)
def test_changed_encodings_decode_to_nothing_or_to_themselves(kind: str, rnd: random.Random) -> None:
    """Valid encodings, changed field by field or byte by byte."""
    record = scene().records()[kind]
    reads_or_refuses(type(record), encode(mutant(record, rnd)))
    reads_or_refuses(type(record), mangled(record.encode(), rnd))


# --- machines ----------------------------------------------------------------------------------------


def fed(step: str, messages: tuple[Record, ...]) -> None:
    """Give messages to a machine in the recorded state; a refusal must be typed and change nothing."""
    at = scene().steps[step]
    machine = at.machine(scene().harness)
    try:
        at.call(machine, messages)
    except PrivflError as error:
        # the coordinator keeps evidence of equivocation; "fix record" is several calls, the first may succeed
        kept = isinstance(error, Equivocation) and at.site is None
        assert kept or step == "fix record" or machine.dump() == at.dump
    machine.dump()


@pytest.mark.parametrize("step", [name for name in STEPS if name != "finish"])
@quick(120)
@given(rnd=randoms)
def test_machines_answer_changed_messages_with_typed_errors(step: str, rnd: random.Random) -> None:
    """One message of a step is changed, or dropped, doubled or swapped; half of the time it is signed again."""
    messages = list(scene().steps[step].messages)
    at = rnd.randrange(len(messages))
    if rnd.random() < 0.1:
        messages = rnd.choice(([], messages + messages, messages[::-1], messages[at:]))
        if step in ("contribute", "confirm", "receive contributions", "fix record"):
            fed(step, tuple(messages))
        return
    value, harness = mutant(messages[at], rnd), scene().harness
    try:
        record = type(messages[at]).from_value(value)
    except Theirs:
        return
    sign = rnd.randrange(3)
    messages[at] = record if sign == 0 else resign(record, harness) if sign == 1 else resign_deep(record, harness)
    fed(step, tuple(messages))


@pytest.mark.parametrize("step", STEPS)
@quick(60)
@given(rnd=randoms)
def test_machines_with_a_damaged_store_fail_with_typed_errors(step: str, rnd: random.Random) -> None:
    """A state that decodes but was changed: the machine refuses, or acts, but never fails untyped."""
    at = scene().steps[step]
    value = mutant(scene().records()["CoordinatorWhole" if at.site is None else "SiteState"].decode(at.dump), rnd)
    try:
        machine = replace(at, dump=encode(value)).machine(scene().harness)
        at.call(machine, at.messages)
    except PrivflError:
        pass


@quick(100)
@given(rnd=randoms)
def test_bodies_of_any_bytes_are_refused_and_not_added(rnd: random.Random) -> None:
    """A packed vector that is not the header's is refused; signed for, it must still have the ring's size."""
    at, s = scene().steps["receive"], scene()
    message = at.messages[0]
    assert isinstance(message, Upload)
    site = message.header.site
    body = mangled(s.bodies[site], rnd)
    if rnd.random() < 0.5:
        named = hashlib.sha256(body_prefix(message.header.h0, site, len(body)) + body).digest()
        header = resign(replace(message.header, body=named), s.harness)
        assert isinstance(header, Header)
        message = replace(message, header=header)
    machine = at.machine(s.harness)
    assert isinstance(machine, CoordinatorMachine)
    try:
        machine.receive(message, body)
        assert len(body) == len(s.bodies[site])
    except Theirs:
        assert machine.dump() == at.dump


# --- what is sealed ------------------------------------------------------------------------------------


@quick(40)
@given(plain=st.binary(max_size=80) | st.binary(min_size=32, max_size=32))
def test_contributions_of_any_contents_only_exclude_their_sender(plain: bytes) -> None:
    """Validly sealed and signed contributions that hold no 32 bytes leave their sender out and nobody else."""
    at, s = scene().steps["confirm"], scene()
    first = at.messages[0]
    assert isinstance(first, Contribution)
    advert = next(a for a in s.transcript.record.adverts if a.site == at.site)
    sealed = SealingPublicKey(advert.key).seal(plain, Label.CONTRIBUTION_SEAL, *first.binding())
    forged = resign(replace(first, sealed=sealed), s.harness)
    machine = at.machine(s.harness)
    assert isinstance(machine, SiteMachine)
    message, excluded = machine.confirm((forged, *at.messages[1:]))  # type: ignore[arg-type]
    left_out = [] if len(plain) == 32 else [first.sender]
    assert [site for site, _ in excluded] == left_out
    assert len(message.peers) == 32 * (3 - len(left_out))


@quick(40)
@given(rnd=randoms)
def test_blobs_of_any_contents_lead_to_a_complaint(rnd: random.Random) -> None:
    """A dealer may seal anything: the member votes, complains, and releases the others' shares."""
    at, s = scene().steps["vote"], scene()
    ask = at.messages[0]
    assert isinstance(ask, Ask)
    record, member = s.transcript.record, at.site
    assert member is not None
    x = record.members.index(member) + 1
    advert = next(a for a in record.adverts if a.site == member)
    header = ask.headers[2]
    size = rnd.choice((0, 31, 32, 33, 32 + 4 * SHARE_BYTES, 32 + 4 * SHARE_BYTES, 500))
    info = blob_info(header.h0, header.site, member, x, advert.digest)
    blob = SealingPublicKey(advert.key).seal(rnd.randbytes(size), Label.BLOB, *info)
    if rnd.random() < 0.3:
        blob = rnd.randbytes(rnd.choice((0, 10, 1200)))
    hashes = header.blobs[: 32 * (x - 1)] + blob_hash(blob) + header.blobs[32 * x :]
    forged = resign(replace(header, blobs=hashes), s.harness)
    assert isinstance(forged, Header)
    bad = replace(ask, headers=(*ask.headers[:2], forged), blobs=(*ask.blobs[:2], blob))
    machine = at.machine(s.harness)
    assert isinstance(machine, SiteMachine)
    assert machine.vote(bad, now=NOW).complaints == header.site


@quick(80)
@given(rnd=randoms)
def test_releases_of_any_contents_are_refused_or_survived(rnd: random.Random) -> None:
    """A member may seal any shares and proofs: the sum comes out exact, or the slot says why not; always typed.

    One of four members lies, at t = 3 and with three releases in store, so a wrong share stops the
    opening until the fourth release is there; then the sum must be exact and only the liar is named.
    """
    at, s = scene().steps["finish"], scene()
    machine = at.machine(s.harness)
    assert isinstance(machine, CoordinatorMachine)
    stored = f"{machine.slot.current().h0.hex()}/release/"
    messages = [Release.decode(data) for name, data in sorted(at.shelf.items()) if name.startswith(stored)]
    fresh = scene().steps["receive release"]
    early = replace(fresh, dump=first_release_dump()).machine(s.harness)
    assert isinstance(early, CoordinatorMachine)
    liar = messages.pop(rnd.randrange(len(messages)))
    forged = lie(early, liar, rnd)
    accepted = True
    try:
        early.receive_release(forged)
    except Theirs:
        accepted = False
    for message in messages:
        early.receive_release(message)
    opened, transcript = early.finish()
    assert np.array_equal(opened.array(), s.opened.array())
    assert {site for blame in transcript.blames for site in blame.sites} <= ({liar.member} if accepted else set())


def first_release_dump() -> bytes:
    """The coordinator's state when the slot was certified and no release had come."""
    at = scene().steps["receive release"]
    machine = at.machine(scene().harness)
    assert isinstance(machine, CoordinatorMachine)
    state = machine._state
    return replace(state, slot=replace(state.slot, releases=())).encode()


def lie(machine: CoordinatorMachine, honest: Release, rnd: random.Random) -> Release:
    """A release with random contents, sealed and signed as it should be."""
    s = scene()
    a, layout = machine.slot.current(), layout_of(machine.topology(), machine.slot)
    sites = len(layout.headers)
    values = np.array([rnd.randrange(2**32 if rnd.random() < 0.1 else PRIME) for _ in range(9 * layout.total)], "<u4")
    present = bytes(rnd.choice((0, 1, 1, 1, 1, 1, 2 if rnd.random() < 0.1 else 1)) for _ in range(sites))
    shares = present + rnd.randbytes(32 * sites) + values.tobytes()
    if rnd.random() < 0.1:
        shares = mangled(shares, rnd)
    proofs = rnd.choice(
        (b"", rnd.randbytes(40), encode(()), encode((b"",) * sites), encode(1), encode((rnd.randbytes(64),) * sites))
    )
    key, info = SealingPublicKey(a.reply_key), (a.h0, honest.survivors, honest.member)
    forged = replace(
        honest,
        shares_hash=release_part(shares, "shares"),
        proofs_hash=release_part(proofs, "proofs") if rnd.random() < 0.8 else bytes(32),
        sealed_shares=key.seal(shares, Label.RELEASE_SEAL, *info, "shares"),
        sealed_proofs=key.seal(proofs, Label.RELEASE_SEAL, *info, "proofs") if rnd.random() < 0.8 else b"x",
    )
    signed = resign(forged, s.harness)
    assert isinstance(signed, Release)
    return signed


# --- transcripts and sums --------------------------------------------------------------------------------


@quick(150)
@given(rnd=randoms)
def test_a_changed_transcript_never_verifies_and_fails_typed(rnd: random.Random) -> None:
    """Any change, re-signed by the coordinator or not: Unverified or Malformed, or the very same contents."""
    s = scene()
    try:
        changed_one = Transcript.from_value(mutant(s.transcript, rnd))
        if rnd.random() < 0.5:
            resigned = resign(changed_one, s.harness)
            assert isinstance(resigned, Transcript)
            changed_one = resigned
            verify_transcript(changed_one, s.harness.authority.verify_key, s.opened)
        else:
            verify_transcript(changed_one, s.harness.authority.verify_key, s.opened)
            assert changed_one == s.transcript
    except Theirs:
        pass


@quick(100)
@given(salt=st.binary(min_size=32, max_size=32), values=st.binary(max_size=40))
def test_an_opened_sum_of_any_bytes_reads_as_integers_or_is_refused(salt: bytes, values: bytes) -> None:
    """A file that decodes as an opened sum but does not hold whole integers is refused, typed."""
    opened = OpenedSum(salt, values)
    try:
        data = OpenedSum.decode(opened.encode())
        assert len(data.array()) * 8 == len(values)
    except Theirs:
        assert len(values) % 8
