"""Whatever AWS or the way to it does, nothing is lost, nothing blocks, and nothing is shown again once it is done."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from privfl.errors import Unverified, WireError
from privfl.wires import BodyRef, check_body
from privfl.wires.aws import inbox, retry
from privfl.wires.aws.mailbox import AwsMailbox
from privfl.wires.aws.names import body_key
from tests.wires.aws.cloud import Cloud
from tests.wires.aws.proxy import Asked, Proxy, Said, Weather, no, proxied
from tests.wires.mailbox_contract import NORTH, SOUTH


@pytest.fixture
def proxy(aws: Cloud) -> Iterator[Proxy]:
    """A proxy before the emulator, which does nothing yet; both queues are there."""
    for member in (NORTH, SOUTH):
        aws.queue(member)
    with proxied(aws.emulator.endpoint) as found:
        yield found


def until(what: Callable[[], bool], seconds: float = 40.0) -> None:
    """Wait for something to come true."""
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, "it does not come true"
        time.sleep(0.02)


def taken(mailbox: AwsMailbox, least: int, seconds: float = 40.0) -> list[bytes]:
    """Receive and acknowledge until so many have come, whatever the wire says meanwhile."""
    got: list[bytes] = []
    end = time.monotonic() + seconds
    while len(set(got)) < least and time.monotonic() < end:
        try:
            found = mailbox.receive(200)
        except WireError:
            continue
        for one in found:
            got.append(one.data)
            one.acknowledge()
    return got


@pytest.mark.parametrize("seed", range(2))
def test_all_arrives_through_bad_weather(aws: Cloud, proxy: Proxy, seed: int) -> None:
    """Throttled, broken, cut, repeated and reordered: all messages and bodies arrive whole, and the queue empties."""
    weather = Weather(seed)
    north, south = (aws.open(own, endpoint=proxy.endpoint) for own in (NORTH, SOUTH))
    proxy.before, proxy.after = weather.before, weather.after
    sent = {os.urandom(600) for _ in range(25)}
    bodies = [os.urandom(200_000) for _ in range(4)]
    names = [hashlib.sha256(data).digest() for data in bodies]
    for name, data in zip(names, bodies, strict=True):
        north.put_body(name, data, recipient=SOUTH)
    for data in sent:
        north.send(SOUTH, data)
    assert set(taken(south, 25)) == sent
    for name, data in zip(names, bodies, strict=True):
        assert south.get_body(name, size=len(data), sender=NORTH) == data
    until(lambda: not taken(south, 1, 0.2) and aws.count(SOUTH) == 0)


def test_a_throttled_api_is_asked_again(aws: Cloud, proxy: Proxy) -> None:
    """Everything is throttled for a while: sending, reading and deleting take longer, and that is all."""
    north, south = (aws.open(own, endpoint=proxy.endpoint) for own in (NORTH, SOUTH))
    end = time.monotonic() + 2
    proxy.before = lambda asked: (
        None if time.monotonic() > end else no(asked, "RequestThrottled") if asked.sqs else no(asked, "SlowDown", 503)
    )
    body = os.urandom(1000)
    north.send(SOUTH, b"patience")
    north.put_body(hashlib.sha256(body).digest(), body, recipient=SOUTH)
    assert taken(south, 1) == [b"patience"]
    assert south.get_body(hashlib.sha256(body).digest(), sender=NORTH) == body


def test_a_wire_that_stays_away_is_told_and_comes_back(
    aws: Cloud, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fault that lasts is raised by receive, again and again; when it is over, mail flows at once."""
    monkeypatch.setattr(inbox, "SHOWN_S", 0.0)
    south = aws.open(SOUTH, endpoint=proxy.endpoint)
    proxy.before = lambda asked: no(asked, "AccessDenied", 403)

    told: list[str] = []

    def failing() -> bool:
        with _kept(told):
            south.receive(50)
        return bool(told)

    until(failing)
    assert "sqs:ReceiveMessage" in told[0]
    assert "privfl-trial" in told[0]
    proxy.before = lambda asked: None
    aws.open(NORTH).send(SOUTH, b"back")
    assert taken(south, 1) == [b"back"]


@contextlib.contextmanager
def _kept(words: list[str]) -> Iterator[None]:
    try:
        yield
    except WireError as error:
        words.append(str(error))


def test_expired_credentials_are_looked_for_anew(aws: Cloud, proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    """AWS calls the token expired until other credentials are found: then sending, bodies and reading go on."""
    north, south = (aws.open(own, endpoint=proxy.endpoint) for own in (NORTH, SOUTH))

    def expired(asked: Asked) -> Said | None:
        if "NEWKEY" in asked.headers.get("Authorization", ""):
            return None
        return no(asked, "ExpiredToken") if not asked.sqs else no(asked, "ExpiredTokenException", 403)

    proxy.before = expired
    with monkeypatch.context() as hasty:
        hasty.setattr(retry, "PATIENCE_S", 0.3)
        with pytest.raises(WireError, match="expired"):
            north.send(SOUTH, b"too early")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIANEWKEY0000000000")
    body = os.urandom(100)
    north.send(SOUTH, b"renewed")
    north.put_body(hashlib.sha256(body).digest(), body, recipient=SOUTH)
    assert taken(south, 1) == [b"renewed"]
    assert south.get_body(hashlib.sha256(body).digest(), sender=NORTH) == body


def test_a_clock_that_is_off_is_told(aws: Cloud, proxy: Proxy) -> None:
    """A clock put wrong while the mailbox is open makes every request a WireError with the difference."""
    north = aws.open(NORTH, endpoint=proxy.endpoint)
    proxy.before = lambda asked: no(asked, "RequestTimeTooSkewed", 403, Date="Mon, 01 Jan 2024 00:00:00 GMT")
    with pytest.raises(WireError, match=r"clock is off by \d+ seconds \(ahead\); set the clock"):
        north.send(SOUTH, b"late")


def test_deletions_that_fail_are_repeated(aws: Cloud, proxy: Proxy) -> None:
    """Of every batch some entries fail: what was acknowledged is never shown again, and the queue empties."""
    north, south = aws.open(NORTH), aws.open(SOUTH, endpoint=proxy.endpoint)
    failures = Weather(5)

    def some(asked: Asked) -> Said | None:
        if asked.action != "DeleteMessageBatch":
            return None
        entries = json.loads(asked.body)["Entries"]
        if failures.draw() < 0.3:
            return no(asked, "InternalError", 500)
        bad = [one for one in entries if failures.draw() < 0.4]
        good = [one for one in entries if one not in bad]
        done = {"Successful": [], "Failed": []}
        if good:
            body = json.dumps({**json.loads(asked.body), "Entries": good}).encode()
            headers = {k: v for k, v in asked.headers.items() if k.lower() != "content-length"}
            done = {"Failed": []} | json.loads(proxy.forward(Asked(asked.method, asked.path, headers, body)).body)
        done["Failed"] += [{"Id": one["Id"], "Code": "InternalError", "SenderFault": False} for one in bad]
        return Said(200, {"Content-Type": "application/x-amz-json-1.0"}, json.dumps(done).encode())

    proxy.before = some
    sent = sorted(os.urandom(50) for _ in range(30))
    for data in sent:
        north.send(SOUTH, data)
    assert sorted(taken(south, 30)) == sent
    until(lambda: aws.count(SOUTH) == 0)
    assert list(south.receive(100)) == []


def test_a_slow_reader_keeps_what_it_holds(aws: Cloud, proxy: Proxy) -> None:
    """Visibility ends several times over while a message is handled: the heartbeat keeps it from coming again."""
    south = aws.open(SOUTH, endpoint=proxy.endpoint, visibility=1)
    aws.open(NORTH).send(SOUTH, b"slowly")
    (delivery,) = _first(south)
    until(lambda: proxy.count("ChangeMessageVisibilityBatch") >= 8)
    assert proxy.delivered == 1
    delivery.acknowledge()
    until(lambda: aws.count(SOUTH) == 0)


def test_without_the_heartbeat_it_would_come_twice(aws: Cloud, proxy: Proxy) -> None:
    """The heartbeat is stopped on the way: SQS delivers again, the reader sees one message and deletes it for good."""
    south = aws.open(SOUTH, endpoint=proxy.endpoint, visibility=1)
    proxy.before = lambda asked: no(asked, "InternalError", 500) if "Visibility" in asked.action else None
    aws.open(NORTH).send(SOUTH, b"slowly")
    (delivery,) = _first(south)
    until(lambda: proxy.delivered >= 3)
    delivery.acknowledge()
    until(lambda: aws.count(SOUTH) == 0)
    assert list(south.receive(100)) == []


def _first(mailbox: AwsMailbox) -> list[inbox.AwsDelivery]:
    end = time.monotonic() + 30
    while time.monotonic() < end:
        if found := mailbox.receive(200):
            return list(found)
    raise AssertionError("nothing came")


def test_what_is_no_message_blocks_nobody(aws: Cloud) -> None:
    """Text that is no base64, too long, or without privfl's attribute is counted and ends in the dead-letter queue."""
    aws.odd_after = 2
    north, south = aws.open(NORTH), aws.open(SOUTH, visibility=1)
    url, ours = aws.queue(SOUTH), {"privfl": {"DataType": "String", "StringValue": "1"}}
    aws.raw.sqs.send_message(QueueUrl=url, MessageBody="not base64!", MessageAttributes=ours)
    aws.raw.sqs.send_message(QueueUrl=url, MessageBody="A" * 200_000, MessageAttributes=ours)
    aws.raw.sqs.send_message(QueueUrl=url, MessageBody="AAAA")
    aws.raw.sqs.send_message(
        QueueUrl=url, MessageBody="AAAA", MessageAttributes={"privfl": {"DataType": "String", "StringValue": "2"}}
    )
    for at in range(12):
        north.send(SOUTH, b"%d" % at)
    assert sorted(taken(south, 12)) == sorted(b"%d" % at for at in range(12))
    until(lambda: not south.receive(100) and aws.count(SOUTH, dead=True) == 4)
    assert aws.count(SOUTH) == 0
    assert south.odd >= 4


def test_more_than_can_be_held_comes_in_turn(aws: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader that acknowledges nothing yet holds a bounded number, and gets all the same what comes after."""
    aws.odd_after = 1000
    monkeypatch.setattr(inbox, "HELD", 20)
    monkeypatch.setattr(inbox, "WAITING", 10)
    monkeypatch.setattr(inbox, "AWAY_S", 3)
    north, south = aws.open(NORTH), aws.open(SOUTH)
    sent = {b"%d" % at for at in range(45)}
    for data in sent:
        north.send(SOUTH, data)
    seen: set[bytes] = set()

    def all_seen() -> bool:
        seen.update(one.data for one in south.receive(50))
        assert len(south._inbox._held) <= 30
        return seen == sent

    until(all_seen)
    assert set(taken(south, 45)) == sent


def test_what_was_not_acknowledged_is_given_back_at_once(aws: Cloud) -> None:
    """Closed, a mailbox returns what it holds long before its visibility has run out; its threads end."""
    before = set(threading.enumerate())
    south = aws.open(SOUTH, visibility=3600)
    aws.open(NORTH).send(SOUTH, b"next")
    (delivery,) = _first(south)
    south.close()
    with pytest.raises(WireError, match="closed"):
        delivery.acknowledge()
    with pytest.raises(WireError, match="closed"):
        south.receive(0)
    until(lambda: not {one for one in set(threading.enumerate()) - before if one.name.startswith("privfl-")})
    assert taken(aws.open(SOUTH), 1) == [b"next"]


def test_a_body_that_is_cut_is_fetched_again(aws: Cloud, proxy: Proxy) -> None:
    """Answers that end before their time are no body; the next attempt counts."""
    body = os.urandom(3 << 20)
    name = hashlib.sha256(body).digest()
    aws.open(NORTH).put_body(name, body, recipient=SOUTH)
    south, tries = aws.open(SOUTH, endpoint=proxy.endpoint), [1000, 1, None, len(body) - 1]
    proxy.after = lambda asked, said: (
        Said(said.status, said.headers, said.body, cut=tries.pop(0)) if asked.method == "GET" and tries else said
    )
    assert south.get_body(name, size=len(body), sender=NORTH) == body
    assert not tries


def test_a_body_that_was_overwritten_is_found_out(aws: Cloud) -> None:
    """Whoever owns the bucket may replace a body: another size is not read, the same size fails against its hash."""
    body = os.urandom(5000)
    ref = BodyRef.of(body)
    aws.open(NORTH).put_body(ref.sha256, body, recipient=SOUTH)
    south, key = aws.open(SOUTH), body_key(aws.federation, SOUTH, NORTH, ref.sha256)
    aws.raw.s3.put_object(Bucket=aws.settings.bucket, Key=key, Body=b"x" * 5001)
    with pytest.raises(WireError, match="5001 bytes and not 5000"):
        south.get_body(ref.sha256, size=ref.size, sender=NORTH)
    aws.raw.s3.put_object(Bucket=aws.settings.bucket, Key=key, Body=b"x" * 5000)
    with pytest.raises(Unverified):
        check_body(ref, south.get_body(ref.sha256, size=ref.size, sender=NORTH))


def test_an_answer_that_cannot_be_understood_ends_no_thread(aws: Cloud, proxy: Proxy) -> None:
    """Rubbish instead of messages is a fault like any other: the next answer counts."""
    rubbish = [b"[]", b"{", b'{"Messages": {"MessageId": 3}}', b'{"Messages": [7, null, {"MessageId": []}]}', b"\xff"]
    headers = {"Content-Type": "application/x-amz-json-1.0"}

    def odd(asked: Asked) -> Said | None:
        return Said(200, headers, rubbish.pop()) if asked.action == "ReceiveMessage" and rubbish else None

    proxy.before = odd
    aws.open(NORTH).send(SOUTH, b"after all")
    assert taken(aws.open(SOUTH, endpoint=proxy.endpoint), 1) == [b"after all"]
    assert not rubbish
