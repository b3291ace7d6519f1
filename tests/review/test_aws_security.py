"""The SQS and S3 wire against a hostile queue, a hostile bucket, a second coordinator and whoever writes dead letters:
everything is bounded, nothing stops for ever, nothing secret is told.

The services are stand-ins of a few lines, so that they can misbehave as no emulator does.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import itertools
import os
import re
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from botocore.exceptions import ClientError
from hypothesis import given
from hypothesis import strategies as st
from privfl_keys import KeyStoreError
from privfl_keys.kms import AwsKms

from privfl.cli import wire_aws
from privfl.errors import Misuse, WireError
from privfl.wires.aws import admin_redrive, bodies, inbox, lease, retry
from privfl.wires.aws.bodies import Bodies
from privfl.wires.aws.inbox import Inbox
from privfl.wires.aws.lease import Lease
from privfl.wires.aws.mailbox import AwsMailbox
from privfl.wires.aws.names import body_key
from privfl.wires.aws.policies_plan import Participant, Plan
from privfl.wires.aws.session import Clients, account_of, queue_address
from privfl.wires.settings import AwsSettings, Place

NORTH, SOUTH = b"n" * 32, b"s" * 32
SETTINGS = AwsSettings(region="eu-central-1", bucket="bodies", visibility=1, poll=1)


def until(what: Callable[[], bool], seconds: float = 30.0) -> None:
    """Wait for something to come true."""
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, "it does not come true"
        time.sleep(0.005)


def standing_in(settings: AwsSettings = SETTINGS, **services: Any) -> Any:
    """Clients whose services are stand-ins."""
    return SimpleNamespace(settings=settings, renew=lambda: None, close=lambda: None, **services)


# -- a hostile queue --------------------------------------------------------------------------------


class Queue:
    """Hands out what it is given, ten at a time or all at once; may answer anything to the rest."""

    def __init__(self, *messages: Any, at_once: int = 10) -> None:
        self.messages, self.at_once, self.deleted = list(messages), at_once, list[str]()
        self.returned: Callable[[], Any] = dict

    def receive_message(self, **_: Any) -> Any:
        found, self.messages = self.messages[: self.at_once], self.messages[self.at_once :]
        if not found:
            time.sleep(0.01)
        return {"Messages": found}

    def delete_message_batch(self, Entries: Any, **_: Any) -> Any:
        self.deleted += [one["ReceiptHandle"] for one in Entries]
        return {}

    def change_message_visibility_batch(self, **_: Any) -> Any:
        return self.returned()


def message(number: int, kind: str = "1", **changes: Any) -> dict[str, Any]:
    text = base64.b64encode(b"%d" % number).decode()
    marked = {"privfl": {"StringValue": kind, "DataType": "String"}}
    return {
        "MessageId": f"m{number}",
        "ReceiptHandle": f"r{number}",
        "Body": text,
        "MessageAttributes": marked,
    } | changes


@contextlib.contextmanager
def reading(queue: Queue) -> Iterator[Inbox]:
    found = Inbox(standing_in(sqs=queue), "https://sqs/1/queue")
    try:
        yield found
    finally:
        found.close()
        found.join()


def broken() -> Any:
    raise RuntimeError("the connection pool is gone")


@pytest.mark.parametrize("answer", [broken, lambda: None, lambda: {"Failed": [7]}, lambda: {"Failed": 7}])
def test_no_answer_ends_the_reader(answer: Callable[[], Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """While messages go back for want of room SQS answers rubbish: what comes after is still read."""
    monkeypatch.setattr(inbox, "HELD", 20)
    monkeypatch.setattr(inbox, "WAITING", 10)
    queue = Queue(*map(message, range(80)))
    queue.returned = answer
    with reading(queue) as box:
        seen = set[bytes]()
        until(lambda: bool(seen.update(one.data for one in box.receive(10)) or b"79" in seen))
        assert all(thread.is_alive() for thread in box._threads)


def test_a_thread_that_fails_is_shown_and_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """Even a fault of its own code ends none: it is raised to the reader, and the work begins again."""
    monkeypatch.setattr(inbox, "SHOWN_S", 0.0)
    faults = iter([RuntimeError("odd")] * 3)
    wait = Inbox._wait_for_room

    def failing(self: Inbox) -> bool:
        for error in faults:
            raise error
        return wait(self)

    monkeypatch.setattr(Inbox, "_wait_for_room", failing)
    told = list[str]()
    with reading(Queue(message(1))) as box:

        def come() -> bool:
            try:
                return [one.data for one in box.receive(20)] == [b"1"]
            except WireError as error:
                told.append(str(error))
                return False

        until(come)
    assert told
    assert "odd" not in "".join(told)


def test_an_answer_of_a_hundred_thousand_takes_no_room() -> None:
    """SQS hands out ten at most; whoever sends more in its place fills no memory."""
    with reading(Queue(*map(message, range(100_000)), at_once=100_000)) as box:
        until(lambda: bool(box.receive(10)))
        assert len(box._held) <= 10


def test_probes_are_deleted_at_once_and_seen_by_nobody() -> None:
    """What the check has sent takes no place, and does not come until it is dead; a message of the wire does."""
    queue = Queue(message(1, "probe", Body="privfl wire aws check"), message(2), message(3, "2"))
    with reading(queue) as box:
        until(lambda: [one.data for one in box.receive(10)] == [b"2"])
        until(lambda: queue.deleted == ["r1"])
        assert box.odd == 1


def test_a_forked_child_neither_uses_nor_returns_what_its_parent_holds(tmp_path: Path) -> None:
    """Its threads are not there: it would wait for ever, and closing would give the parent's messages back."""
    queue = Queue(message(1))
    returned = list[bool]()
    queue.returned = lambda: returned.append(True) or {}
    box = AwsMailbox(standing_in(sqs=queue), Place(NORTH, "north", "site", "trial", tmp_path), "https://sqs/1/q")
    until(lambda: bool(box.receive(10)))
    parent, box._process = box._process, -1
    for work in (lambda: box.receive(0), lambda: box.send(SOUTH, b"x"), lambda: box.get_body(bytes(32))):
        with pytest.raises(WireError, match="open another one in the child"):
            work()
    returned.clear()
    child = AwsMailbox(standing_in(sqs=queue), box._place, "https://sqs/1/q")
    child._inbox, child._process = box._inbox, -1
    child.close()
    assert returned == []
    box._process = parent
    box.close()
    assert returned != []


# -- a hostile bucket -------------------------------------------------------------------------------


class Body:
    """A body that never ends, or ends after ``left`` bytes."""

    def __init__(self, left: int = 10**12) -> None:
        self.left, self.read, self.closed = left, 0, False

    def readinto(self, room: memoryview) -> int:
        count = min(len(room), self.left)
        room[:count] = b"x" * count
        self.left, self.read = self.left - count, self.read + count
        return count

    def close(self) -> None:
        self.closed = True


ODD = [
    {"ETag": "e"}, {"ETag": "e", "ContentLength": -5}, {"ETag": "e", "ContentLength": "many"},
    {"ETag": "e", "ContentLength": None}, {"ContentLength": 7, "ContentRange": "bytes 0-6/" + "9" * 15, "ETag": "e"},
    {"ETag": "e", "ContentLength": 10**15}, {"ETag": "e", "ContentLength": 7, "ContentRange": 7},
]  # fmt: skip


@pytest.mark.parametrize("answer", ODD)
def test_odd_lengths_are_the_wires_error_and_cost_nothing(answer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """No length, a negative one, another one, of another range: told as a fault of the wire before a byte is read."""
    monkeypatch.setattr(retry, "PATIENCE_S", 0.05)
    body = Body()
    store = SimpleNamespace(get_object=lambda **_: {**answer, "Body": body}, head_object=lambda **_: answer)
    for size in (8, None):
        with pytest.raises(WireError):
            Bodies(standing_in(s3=store), "trial", NORTH).get(bytes(32), size, SOUTH)
    assert body.read == 0


def test_a_range_that_is_ignored_is_not_taken_for_the_part(monkeypatch: pytest.MonkeyPatch) -> None:
    """200 with the whole body where a range was asked for; and a body that grows or never ends is read to its size."""
    monkeypatch.setattr(retry, "PATIENCE_S", 0.05)
    monkeypatch.setattr(bodies, "PART", 100)
    whole = Body()
    store = SimpleNamespace(get_object=lambda **_: {"ContentLength": 250, "ETag": "e", "Body": whole})
    with pytest.raises(WireError):
        Bodies(standing_in(s3=store), "trial", NORTH).get(bytes(32), 250, SOUTH)
    assert whole.read == 0
    endless = Body()
    store = SimpleNamespace(get_object=lambda **_: {"ContentLength": 90, "ETag": "e", "Body": endless})
    assert Bodies(standing_in(s3=store), "trial", NORTH).get(bytes(32), 90, SOUTH) == b"x" * 90
    assert (endless.read, endless.closed) == (90, True)


def test_an_answer_without_fields_is_no_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither for writing, in one piece or in parts, nor for sending."""
    monkeypatch.setattr(retry, "PATIENCE_S", 0.05)
    monkeypatch.setattr(bodies, "MIB", 1)
    empty = SimpleNamespace(create_multipart_upload=lambda **_: {}, put_object=lambda **_: None)
    data = b"x" * 200
    with pytest.raises(WireError, match="cannot be understood"):
        Bodies(standing_in(s3=empty), "trial", NORTH).put(hashlib.sha256(data).digest(), data, SOUTH)


def test_a_site_cannot_have_the_model_deleted_that_others_are_to_read() -> None:
    """It puts something else under the model's name into its own place, and names it in a message: the coordinator
    finds it false and drops it, and nothing else; the model goes when the round is over."""
    model, deleted = os.urandom(100), list[str]()
    name, east = hashlib.sha256(model).digest(), b"e" * 32
    false = {"ContentLength": 100, "ETag": "e"}
    store = SimpleNamespace(
        put_object=lambda **_: {}, get_object=lambda **_: {**false, "Body": Body(100)},
        delete_object=lambda Key, **_: deleted.append(Key),
    )  # fmt: skip
    hub = Bodies(standing_in(s3=store), "trial", b"h" * 32)
    for recipient in (NORTH, SOUTH, east):
        hub.put(name, model, recipient)
    hub.get(name, 100, SOUTH)
    hub.drop(name)
    assert deleted == [body_key("trial", b"h" * 32, SOUTH, name)]
    hub.drop(name)
    assert set(deleted[1:]) == {body_key("trial", one, b"h" * 32, name) for one in (NORTH, SOUTH, east)}


# -- two coordinators -------------------------------------------------------------------------------


class Store:
    """One object with S3's conditions; ``fails``: what writing raises meanwhile."""

    def __init__(self) -> None:
        self.object: tuple[str, bytes] | None = None
        self.numbers, self.fails, self.writes = itertools.count(), list[Exception](), 0

    def put_object(self, Body: bytes, IfMatch: str = "", IfNoneMatch: str = "", **_: Any) -> Any:
        self.writes += 1
        if self.fails:
            raise self.fails[0]
        there = self.object[0] if self.object else None
        if (IfNoneMatch and there is not None) or (IfMatch and there != IfMatch):
            raise ClientError({"Error": {"Code": "PreconditionFailed"}}, "PutObject")
        self.object = f"e{next(self.numbers)}", Body
        return {"ETag": self.object[0]}

    def get_object(self, **_: Any) -> Any:
        if self.object is None:
            raise ClientError({"Error": {"Code": "NoSuchKey"}}, "GetObject")
        etag, data = self.object
        return {"ETag": etag, "Body": SimpleNamespace(read=lambda n: data[:n], close=lambda: None)}

    def delete_object(self, **_: Any) -> None:
        self.object = None


def test_the_first_stops_before_a_second_may_begin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Asleep or cut off, by a clock that goes on while a computer sleeps; when it wakes it does nothing, and then it
    is told. Whoever may take over has waited longer than the first would work."""
    now, store = [0.0], Store()
    monkeypatch.setattr(lease, "_running", lambda: now[0])
    monkeypatch.setattr(Lease, "_renew", lambda self: None)
    made = standing_in(SETTINGS.model_copy(update={"visibility": 43_200}), s3=store)
    (tmp_path / "copy").mkdir()
    first, second = Lease(made, "trial", tmp_path), Lease(made, "trial", tmp_path / "copy")
    first.take()
    first.check()
    worked = list[float]()

    def wait(seconds: float) -> bool:
        with contextlib.suppress(WireError):
            first.check()
            worked.append(now[0])
        now[0] += seconds
        return False

    monkeypatch.setattr(second._ended, "wait", wait)
    second.take()
    assert max(worked) <= lease.LONGEST_S < now[0] < lease.LONGEST_S + 2
    second.check()
    with pytest.raises(WireError, match="could not be renewed"):
        first.check()
    assert not first._still()
    with pytest.raises(Misuse, match="another coordinator"):
        first.check()


def test_renewing_goes_on_whatever_s3_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Faults of any kind for longer than the lease lasts: work stops, and goes on when it is renewed."""
    monkeypatch.setattr(lease, "SHORTEST_S", 0.0)
    store = Store()
    held = Lease(standing_in(s3=store), "trial", tmp_path)
    held.take()

    def stopped() -> bool:
        try:
            held.check()
        except WireError:
            return True
        return False

    for error in (RuntimeError("closed"), KeyError("ETag"), OSError("gone")):
        store.fails = [error]
        until(stopped)
        store.fails = []
        until(lambda: not stopped())
    held.release()
    assert store.object is None
    assert not any(thread.name == "privfl-lease" and thread.is_alive() for thread in threading.enumerate())


def test_nothing_is_sent_while_another_may_coordinate(tmp_path: Path) -> None:
    """Neither a first try nor a further one."""
    sent = list[bytes]()
    queue = SimpleNamespace(send_message=lambda **_: sent.append(b""))
    held: Any = SimpleNamespace(check=lambda: (_ for _ in ()).throw(WireError("not renewed")), release=lambda: None)
    box = AwsMailbox(standing_in(sqs=queue), Place(NORTH, "hub", "coordinator", "trial", tmp_path), "https://q/q", held)
    for work in (lambda: box.send(SOUTH, b"x"), lambda: box.put_body(bytes(32), b"", recipient=SOUTH)):
        with pytest.raises(WireError, match="not renewed"):
            work()
    assert sent == []
    box.close()


# -- names ------------------------------------------------------------------------------------------

names = st.text(alphabet="abT1-_. ", min_size=1, max_size=22)
ids = st.binary(min_size=32, max_size=32)


@given(names, names, ids)
def test_no_pattern_of_one_federation_meets_a_queue_or_body_of_another(one: str, other: str, member: bytes) -> None:
    """Prefixes of one another, case, letters left out: neither the key's context nor a prefix reaches across."""
    hub = Participant("hub", b"\xff" * 32, coordinator=True)
    made, foreign = (Plan(SETTINGS, name, "123456789012", (hub, Participant("n", member))) for name in (one, other))
    if one == other:
        return
    for suffix in ("", "-dlq"):
        pattern = re.escape(made.any_member + suffix).replace(r"\?", ".")
        for queue in (foreign.queue_of(hub), foreign.dlq_of(hub)):
            assert not re.fullmatch(pattern, queue.rsplit(":", 1)[-1])
    assert not foreign.inbox(hub).startswith(made.inbox(hub).split("/")[0] + "/")


# -- what is told -----------------------------------------------------------------------------------


def test_a_dead_letter_with_markup_is_shown_as_text(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Whoever can send to a queue chooses the words of its envelope; they are no commands for the terminal."""
    dead = admin_redrive.Dead("'[/x]' from 00", "[bold", 0, 1, ours=True)
    found = admin_redrive.Redriven("north", "queue", [dead])
    monkeypatch.setattr(wire_aws, "_settings", lambda _: None)
    monkeypatch.setattr(wire_aws, "_work", lambda *_: contextlib.nullcontext())
    monkeypatch.setattr(admin_redrive, "redrive", lambda *_: found)
    wire_aws.redrive(tmp_path, "north")
    assert "[/x]" in capsys.readouterr().out


def test_an_endpoint_of_the_environment_shows_no_password(monkeypatch: pytest.MonkeyPatch) -> None:
    """federation.yaml takes none with a password; the environment may hold one, which no message and no URL shows."""
    for name, value in {"AWS_ACCESS_KEY_ID": "AKIAX", "AWS_SECRET_ACCESS_KEY": "s3cr3t"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://user:hunter2@127.0.0.1:9")
    made = Clients(SETTINGS, "north")
    assert queue_address(made, "123456789012", "q") == "http://127.0.0.1:9/123456789012/q"
    made.close()
    with pytest.raises(KeyStoreError, match=r"127\.0\.0\.1:9") as told:
        AwsKms("alias/x", region="eu-central-1").new_data_key({"member": "north"})
    assert "hunter2" not in str(told.value)


@pytest.mark.parametrize("plain", [b"", b"short", bytes(64), None])
def test_a_data_key_of_another_length_is_refused_in_words(plain: Any) -> None:
    """Whoever may encrypt by the key can wrap anything in the member's name; that is no traceback."""
    kms = AwsKms("alias/x")
    kms._made = SimpleNamespace(
        decrypt=lambda **_: {"Plaintext": plain}, generate_data_key=lambda **_: {"Plaintext": plain}
    )
    with pytest.raises(KeyStoreError, match="is no data key"):
        kms.unwrap(b"wrapped", "key", {})
    with pytest.raises(KeyStoreError, match="is no data key"):
        kms.new_data_key({})


def test_the_account_is_the_settings_or_the_roles() -> None:
    """Whichever says so: then a bucket that somebody else has made by that name takes no body."""
    role = SETTINGS.model_copy(update={"role": "arn:aws:iam::210987654321:role/privfl-{name}"})
    assert account_of(SETTINGS) is None
    assert account_of(role) == "210987654321"
    assert account_of(role.model_copy(update={"account": "123456789012"})) == "123456789012"
    made = standing_in(role)
    assert Bodies(made, "trial", NORTH)._bucket["ExpectedBucketOwner"] == "210987654321"
