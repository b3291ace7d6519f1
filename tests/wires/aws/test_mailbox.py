"""The SQS and S3 wire keeps the mailbox contract over HTTP, in processes of their own."""

from __future__ import annotations

import pytest

from privfl.wires.aws.mailbox import AwsMailbox
from tests.wires.aws.cloud import Cloud
from tests.wires.mailbox_contract import NORTH, SOUTH, STRANGE, MailboxContract


class TestAwsWire(MailboxContract):
    """The contract; an end that is opened again is opened as after a restart."""

    PATIENCE_MS = 10_000

    @pytest.fixture(autouse=True)
    def _wire(self, aws: Cloud) -> None:
        self.aws, self.ends = aws, dict[bytes, AwsMailbox]()
        for member in (NORTH, SOUTH, *STRANGE, *(bytes([who]) * 32 for who in range(4))):
            aws.queue(member)

    def open(self, own: bytes) -> AwsMailbox:
        """A new end; the one before it is closed."""
        if own in self.ends:
            self.ends[own].close()
        self.ends[own] = self.aws.open(own)
        return self.ends[own]
