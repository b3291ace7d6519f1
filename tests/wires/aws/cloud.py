"""A federation's queues and bucket in the emulator, and mailboxes that are closed when the test ends."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from privfl.wires.aws.emulator import Emulator
from privfl.wires.aws.mailbox import AwsMailbox, open_checked
from privfl.wires.aws.names import dlq_name, queue_name, tags
from privfl.wires.aws.session import Clients, clients
from privfl.wires.settings import AwsSettings, Place

NUMBERS = itertools.count()


@dataclass
class Cloud:
    """What one federation has in the emulator.

    Attributes:
        settings: of its wire; short times. raw: clients that nothing of privfl's stands before.
        odd_after: receptions after which a message goes to the dead-letter queue.
    """

    emulator: Emulator
    settings: AwsSettings
    raw: Clients
    federation: str
    home: Path
    odd_after: int = 20
    opened: list[AwsMailbox] = field(default_factory=list)
    made: set[bytes] = field(default_factory=set)

    def queue(self, member: bytes, **changed: str) -> str:
        """A member's queue with its dead-letter queue, made if it is not there; returns its URL."""
        sqs = self.raw.sqs
        name = queue_name(self.settings, self.federation, member)
        if member not in self.made:
            dead = sqs.create_queue(QueueName=dlq_name(self.settings, self.federation, member))["QueueUrl"]
            arn = sqs.get_queue_attributes(QueueUrl=dead, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
            redrive = json.dumps({"deadLetterTargetArn": arn, "maxReceiveCount": self.odd_after})
            sqs.create_queue(
                QueueName=name,
                Attributes={"RedrivePolicy": redrive},
                tags={**tags(self.federation, member), **changed},
            )
            self.made.add(member)
        return sqs.get_queue_url(QueueName=name)["QueueUrl"]

    def count(self, member: bytes, *, dead: bool = False) -> int:
        """How many messages a member's queue (or its dead-letter queue) has, seen by nobody or in flight."""
        url = self.queue(member) + ("-dlq" if dead else "")
        names: Any = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
        found = self.raw.sqs.get_queue_attributes(QueueUrl=url, AttributeNames=names)["Attributes"]
        return sum(int(number) for number in found.values())

    def place(self, own: bytes, role: str = "site", name: str = "north") -> Place:
        """A member's place."""
        return Place(own, name, role, self.federation, self.home)

    def open(self, own: bytes, *, acting: str = "site", **changes: Any) -> AwsMailbox:
        """A member's mailbox; ``acting``: as site or coordinator; ``changes`` of the settings."""
        self.queue(own)
        settings = AwsSettings(**{**self.settings.model_dump(), **changes})
        found = open_checked(settings, self.place(own, acting))
        self.opened.append(found)
        return found

    def objects(self) -> list[str]:
        """The keys in the bucket."""
        found = self.raw.s3.list_objects_v2(Bucket=self.settings.bucket, Prefix="")
        return [one["Key"] for one in found.get("Contents", [])]


@contextlib.contextmanager
def cloud(emulator: Emulator, **changes: Any) -> Iterator[Cloud]:
    """A federation with a bucket of its own; inside :meth:`Emulator.at_hand`."""
    number = f"{os.getpid()}-{next(NUMBERS)}"
    fields = {
        "region": "eu-central-1",
        "bucket": f"bodies-{number}",
        "endpoint": emulator.endpoint,
        "visibility": 2,
        "poll": 1,
        "part_mib": 5,
    }
    settings = AwsSettings(**{**fields, **changes})
    raw = clients(settings, "raw")
    raw.s3.create_bucket(Bucket=settings.bucket, CreateBucketConfiguration={"LocationConstraint": "eu-central-1"})
    with tempfile.TemporaryDirectory() as home:
        found = Cloud(emulator, settings, raw, f"trial-{number}", Path(home))
        try:
            yield found
        finally:
            with ThreadPoolExecutor(8) as pool:
                list(pool.map(AwsMailbox.close, found.opened))
            raw.close()
