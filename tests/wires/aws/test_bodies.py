"""Bodies in S3: in parts and ranges, once, sealed, summed, copied for the next recipient, in memory of their size."""

from __future__ import annotations

import base64
import hashlib
import os
import tracemalloc
from collections.abc import Iterator

import pytest

from privfl.errors import Misuse, WireError
from privfl.wires.aws import bodies
from privfl.wires.aws.bodies import MIB
from privfl.wires.aws.names import body_key
from tests.wires.aws.cloud import Cloud
from tests.wires.aws.proxy import Asked, Proxy, Said, no, proxied
from tests.wires.mailbox_contract import NORTH, SOUTH

WEST = b"w" * 32


@pytest.fixture
def proxy(aws: Cloud) -> Iterator[Proxy]:
    """A proxy that changes nothing and sees everything."""
    with proxied(aws.emulator.endpoint) as found:
        yield found


@pytest.mark.parametrize("size", [5 * MIB, 5 * MIB + 1, 13 * MIB + 7])
def test_a_long_body_goes_in_parts_and_comes_in_ranges(
    aws: Cloud, proxy: Proxy, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    """Around the bound of one part, and in several: what comes back is what went in, read range by range."""
    monkeypatch.setattr(bodies, "PART", 5 * MIB)
    data = os.urandom(size)
    name = hashlib.sha256(data).digest()
    north, south = (aws.open(own, endpoint=proxy.endpoint) for own in (NORTH, SOUTH))
    north.put_body(name, memoryview(data), recipient=SOUTH)
    parts = [one for one in proxy.seen if "partNumber=" in one.path]
    assert len(parts) == (0 if size == 5 * MIB else -(-size // (5 * MIB)))
    for one in parts:
        own_sum = base64.b64encode(hashlib.sha256(one.body).digest()).decode()
        assert one.headers["x-amz-checksum-sha256"] == own_sum
    proxy.seen.clear()
    assert south.get_body(name, size=size, sender=NORTH) == data
    assert proxy.count("GET") == -(-size // (5 * MIB))
    assert all("Range" in one.headers for one in proxy.seen if one.method == "GET" and size > 5 * MIB)
    assert south.get_body(name, sender=NORTH) == data


def test_the_first_of_two_long_bodies_stays(aws: Cloud) -> None:
    """Completed under the same condition as a short one; nothing of the second upload is left in the bucket."""
    first, other = os.urandom(6 * MIB), os.urandom(6 * MIB)
    name = hashlib.sha256(first).digest()
    aws.open(NORTH).put_body(name, first, recipient=SOUTH)
    aws.open(NORTH).put_body(name, other, recipient=SOUTH)
    assert aws.open(SOUTH).get_body(name, size=len(first), sender=NORTH) == first
    assert not aws.raw.s3.list_multipart_uploads(Bucket=aws.settings.bucket).get("Uploads")


def test_an_upload_that_fails_leaves_no_parts(aws: Cloud, proxy: Proxy) -> None:
    """A part that S3 refuses ends the upload: it is aborted, and the sender is told."""
    proxy.before = lambda asked: no(asked, "AccessDenied", 403) if "partNumber=2" in asked.path else None
    data = os.urandom(6 * MIB)
    with pytest.raises(WireError, match="s3:PutObject on arn:aws:s3:::"):
        aws.open(NORTH, endpoint=proxy.endpoint).put_body(hashlib.sha256(data).digest(), data, recipient=SOUTH)
    assert not aws.raw.s3.list_multipart_uploads(Bucket=aws.settings.bucket).get("Uploads")
    assert not aws.objects()


def test_every_write_is_conditional_summed_and_sealed(aws: Cloud, proxy: Proxy) -> None:
    """Whole, in parts or copied: written only if absent, with SHA-256, under the federation's key."""
    key = aws.raw.kms.create_key()["KeyMetadata"]["Arn"]
    north = aws.open(NORTH, endpoint=proxy.endpoint, kms_key=key, account="123456789012")
    for size in (10, 100_000, 6 * MIB):
        data = os.urandom(size)
        for recipient in (SOUTH, WEST):
            north.put_body(hashlib.sha256(data).digest(), data, recipient=recipient)
    writes = [one for one in proxy.seen if one.method in ("PUT", "POST") and not one.sqs and "abort" not in one.path]
    for one in writes:
        headers = {name.lower(): text for name, text in one.headers.items()}
        assert headers["x-amz-expected-bucket-owner"] == "123456789012"
        if "partNumber" not in one.path and "uploads" not in one.path:
            assert headers["if-none-match"] == "*"
        if "uploadId" not in one.path:
            assert headers["x-amz-server-side-encryption"] == "aws:kms"
            assert headers["x-amz-server-side-encryption-aws-kms-key-id"] == key
            assert "x-amz-checksum-sha256" in headers or headers["x-amz-checksum-algorithm"] == "SHA256"
    assert len(aws.objects()) == 6
    for found in aws.objects():
        assert aws.raw.s3.head_object(Bucket=aws.settings.bucket, Key=found)["SSEKMSKeyId"] == key


def test_a_body_for_many_travels_once(aws: Cloud, proxy: Proxy) -> None:
    """S3 copies it for the second recipient; where copying is denied or its source gone, the bytes are sent again."""
    data = os.urandom(300_000)
    name = hashlib.sha256(data).digest()
    north = aws.open(NORTH, endpoint=proxy.endpoint)
    others = [bytes([who]) * 32 for who in range(5)]
    for at, who in enumerate(others[:3]):
        north.put_body(name, data, recipient=who)
        assert sum(len(one.body) for one in proxy.seen if one.method == "PUT") == len(data), at
    aws.raw.s3.delete_object(Bucket=aws.settings.bucket, Key=body_key(aws.federation, others[0], NORTH, name))
    north.put_body(name, data, recipient=others[3])
    proxy.before = lambda asked: no(asked, "AccessDenied", 403) if "x-amz-copy-source" in asked.headers else None
    north.put_body(name, data, recipient=others[4])
    for who in others[1:]:
        assert aws.open(who).get_body(name, size=len(data), sender=NORTH) == data


def test_bodies_are_dropped_where_they_were_written_and_read(aws: Cloud) -> None:
    """Who forgets a body removes every copy that it wrote, and what it read."""
    north, south = aws.open(NORTH), aws.open(SOUTH)
    data = os.urandom(100_000)
    name = hashlib.sha256(data).digest()
    for who in (SOUTH, WEST):
        north.put_body(name, data, recipient=who)
    assert len(aws.objects()) == 2
    north.drop_body(name)
    assert aws.objects() == []
    north.put_body(name, data, recipient=SOUTH)
    south.get_body(name, size=len(data), sender=NORTH)
    south.drop_body(name)
    assert aws.objects() == []


def test_a_denied_drop_is_no_error(aws: Cloud, proxy: Proxy) -> None:
    """Best effort: what may not be deleted stays."""
    proxy.before = lambda asked: no(asked, "AccessDenied", 403) if asked.method == "DELETE" else None
    north = aws.open(NORTH, endpoint=proxy.endpoint)
    north.put_body(hashlib.sha256(b"stays").digest(), b"stays", recipient=SOUTH)
    north.drop_body(hashlib.sha256(b"stays").digest())
    assert len(aws.objects()) == 1


def test_reading_takes_the_memory_of_the_body(aws: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    """A body of 24 MiB is read in ranges into one buffer that becomes the result; a wrong size takes none at all."""
    monkeypatch.setattr(bodies, "PART", 8 * MIB)
    data = os.urandom(MIB) * 24
    name = hashlib.sha256(data).digest()
    aws.open(NORTH).put_body(name, data, recipient=SOUTH)
    south = aws.open(SOUTH)
    tracemalloc.start()
    try:
        with pytest.raises(WireError, match="has 25165824 bytes and not"):
            south.get_body(name, size=200 * MIB, sender=NORTH)
        assert tracemalloc.get_traced_memory()[1] < 4 * MIB
        tracemalloc.reset_peak()
        assert south.get_body(name, size=len(data), sender=NORTH) == data
        assert tracemalloc.get_traced_memory()[1] < len(data) + 14 * MIB  # and a piece for each range on its way
    finally:
        tracemalloc.stop()


def test_a_body_replaced_between_two_ranges_is_not_mixed(
    aws: Cloud, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second range is asked of the same version as the first; another one is the wire's error."""
    monkeypatch.setattr(bodies, "PART", MIB)
    data = os.urandom(3 * MIB)
    name = hashlib.sha256(data).digest()
    aws.open(NORTH).put_body(name, data, recipient=SOUTH)
    key, replaced = body_key(aws.federation, SOUTH, NORTH, name), list[bool]()

    def replace(asked: Asked, said: Said) -> Said:
        if asked.method == "GET" and not replaced:
            replaced.append(True)
            aws.raw.s3.put_object(Bucket=aws.settings.bucket, Key=key, Body=data[::-1])
        return said

    proxy.after = replace
    with pytest.raises(WireError, match="replaced while it was read"):
        aws.open(SOUTH, endpoint=proxy.endpoint).get_body(name, size=len(data), sender=NORTH)


def test_who_reads_and_who_wrote_must_be_said(aws: Cloud) -> None:
    """The key holds both: a body for nobody is a mistake, one of unknown origin is not found."""
    with pytest.raises(Misuse, match="for one member"):
        aws.open(NORTH).put_body(bytes(32), b"")
    with pytest.raises(WireError, match="say which"):
        aws.open(NORTH).get_body(bytes(32))
