"""One member's end of the SQS and S3 wire."""

from __future__ import annotations

import base64
import os
import threading
from collections.abc import Sequence

from privfl.errors import Misuse, WireError
from privfl.wires.aws.bodies import Bodies
from privfl.wires.aws.errors import speaking
from privfl.wires.aws.inbox import ATTRIBUTE, FORMAT, AwsDelivery, Inbox
from privfl.wires.aws.lease import Lease
from privfl.wires.aws.names import queue_name, tags
from privfl.wires.aws.retry import persist
from privfl.wires.aws.session import Clients, account_of, clients, queue_address
from privfl.wires.envelope import MAX_ENVELOPE
from privfl.wires.settings import AwsSettings, Place

__all__ = ["AwsMailbox", "open_checked", "own_queue"]

OPENING_S = 10.0  # what passes by itself is waited for so long when the mailbox is opened


class AwsMailbox:
    """Fulfils :class:`~privfl.wires.mailbox.Mailbox`; opened by :func:`open_checked`.

    Sending and bodies may be used by several threads, ``receive`` by one. Nothing is held across :func:`os.fork`: a
    child opens its own.
    """

    def __init__(self, made: Clients, place: Place, url: str, lease: Lease | None = None) -> None:
        self._clients, self._place, self._url = made, place, url
        self._closed, self._process = threading.Event(), os.getpid()
        self._inbox = Inbox(made, url)
        self._bodies = Bodies(made, place.federation, place.own, self._closed)
        self._lease = lease

    @property
    def odd(self) -> int:
        """How many things lay in the queue that were no message; they are left to the dead-letter queue."""
        return self._inbox.odd

    def send(self, recipient: bytes, data: bytes) -> None:
        """See the contract; SQS has stored the message when this returns."""
        if len(data) > MAX_ENVELOPE:
            raise WireError(f"a message of {len(data)} bytes is longer than any envelope; send it as a body")
        self._check()
        text = base64.b64encode(data).decode()
        url = self._url.rpartition("/")[0] + "/" + queue_name(self._clients.settings, self._place.federation, recipient)

        def send() -> None:
            self._check()  # also before each further try
            with speaking("sqs", url):
                self._clients.sqs.send_message(
                    QueueUrl=url,
                    MessageBody=text,
                    MessageAttributes={ATTRIBUTE: {"DataType": "String", "StringValue": FORMAT}},
                )

        persist(send, self._clients, closed=self._closed)

    def receive(self, wait_ms: int) -> Sequence[AwsDelivery]:
        """See the contract; at most 64 messages, those first that were not shown before."""
        self._check()
        return self._inbox.receive(wait_ms)

    def put_body(self, sha256: bytes, data: bytes | memoryview, *, recipient: bytes | None = None) -> None:
        """See the contract; raises Misuse without ``recipient``: who may read lies in the key."""
        self._check()
        self._bodies.put(sha256, data, recipient)

    def get_body(self, sha256: bytes, *, size: int | None = None, sender: bytes | None = None) -> bytes:
        """See the contract; without ``sender`` only what this end itself has written or read before."""
        self._check()
        return self._bodies.get(sha256, size, sender)

    def drop_body(self, sha256: bytes) -> None:
        """See the contract; what this end wrote or read by that name is deleted, if it may."""
        if not self._closed.is_set():
            self._bodies.drop(sha256)

    def close(self) -> None:
        """See the contract."""
        if self._closed.is_set():
            return
        self._closed.set()
        if self._process != os.getpid():
            return  # what the parent holds is the parent's
        ended = self._inbox.close()
        if self._lease is not None:
            self._lease.release()
        if ended:
            self._clients.close()
        else:
            threading.Thread(target=self._last, name="privfl-closing", daemon=True).start()

    def _last(self) -> None:
        """Close the connections when the poll that is on its way has come back."""
        self._inbox.join()
        self._clients.close()

    def _check(self) -> None:
        if self._closed.is_set():
            raise WireError("this mailbox is closed; open it again")
        if self._process != os.getpid():
            raise WireError("this mailbox was opened before the process forked; open another one in the child")
        if self._lease is not None:
            self._lease.check()

    def __repr__(self) -> str:
        return f"AwsMailbox({self._place.name!r}, {self._clients.settings})"


def open_checked(settings: AwsSettings, place: Place) -> AwsMailbox:
    """Open ``place``'s end, once queue and credentials are found to be right; a coordinator takes its lease.

    Raises:
        Misuse: no credentials or permission, no such queue or bucket, a queue of another federation or member, a clock
            that is off, a certificate that does not match, a second coordinator.
        WireError: AWS cannot be reached now.
    """
    made = clients(settings, place.name)
    try:
        url = own_queue(made, place)
        lease = None
        if place.role == "coordinator":
            lease = Lease(made, place.federation, place.home)
            lease.take()
        return AwsMailbox(made, place, url, lease)
    except BaseException:
        made.close()
        raise


def own_queue(made: Clients, place: Place) -> str:
    """The URL of the own queue, after a look at its tags; raises as :func:`open_checked`."""
    settings, name = made.settings, queue_name(made.settings, place.federation, place.own)

    def find() -> str:
        account = account_of(settings)
        with speaking("sqs", f"the queue {name}", opening=True):
            if account is None:
                url: str = made.sqs.get_queue_url(QueueName=name)["QueueUrl"]
            else:
                url = queue_address(made, account, name)
            found = made.sqs.list_queue_tags(QueueUrl=url).get("Tags", {})
        for tag, wanted in tags(place.federation, place.own).items():
            if tag not in found:
                raise Misuse(f"the queue {name} has no tag {tag}: it is none that privfl wire aws init has made; "
                             "check prefix, account and region in federation.yaml")  # fmt: skip
            if found[tag] != wanted:
                raise Misuse(f"the queue {name} belongs to another {tag.partition(':')[2]} ({found[tag]!a:.80}, not "
                             f"{wanted!r}); check federation.yaml")  # fmt: skip
        return url

    return persist(find, made, patience=OPENING_S)
