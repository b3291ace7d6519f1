"""What has come for one member: asked for by one thread, kept from coming twice by another, deleted by a third.

The poller always has one question at SQS (a long poll) while there is room; ``receive`` takes from memory, so it
returns as soon as something is there. Whatever is held stays invisible to others as long as this process lives;
whatever is acknowledged is deleted in batches, and an entry that SQS does not delete comes again and is deleted again.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from privfl.errors import PrivflError, WireError
from privfl.wires.aws.errors import Expired, speaking
from privfl.wires.aws.retry import Backoff, renew
from privfl.wires.aws.session import Clients
from privfl.wires.envelope import MAX_ENVELOPE

__all__ = ["ATTRIBUTE", "FORMAT", "AwsDelivery", "Inbox"]

log = logging.getLogger(__name__)
ATTRIBUTE, FORMAT = "privfl", "1"  # a message attribute that says what the text is
PROBED = "probe"  # what it says in a message that privfl wire aws check has sent: nobody handles that
BATCH = 64  # messages per receive: 4.4 MB at most
WAITING = 48  # messages that nobody has seen yet: no more are asked for
HELD = 256  # messages not acknowledged: beyond, those shown most often go back to the queue
REMEMBERED = 10_000  # ids of messages that were acknowledged
LONGEST_TEXT = 4 * (-(-MAX_ENVELOPE // 3))
FIRST_RETRY_S, LAST_RETRY_S = 0.05, 5.0  # until a message that was not acknowledged is shown again
AWAY_S = 60  # until one that was given back for want of room may come again
HOPELESS = 25  # receptions after which a queue evidently has no dead-letter queue: what is no message is deleted
SHOWN_S = 3.0  # a fault that lasts longer is shown to whoever receives
DELETIONS = 5  # tries of one batch
JOIN_S = 2.0


@dataclass
class _Held:
    """A message in memory. ``due``: when it is shown (again); ``pause``: how long after that."""

    data: bytes
    receipt: str
    due: float = 0.0
    pause: float = FIRST_RETRY_S
    shown: int = 0


@dataclass(frozen=True)
class AwsDelivery:
    """One message of a queue; see the contract."""

    data: bytes
    id: str = field(repr=False)
    inbox: Inbox = field(repr=False)

    def acknowledge(self) -> None:
        """Have the message deleted, at once but not waited for; one that is not deleted comes again, as ever."""
        self.inbox.acknowledge(self.id)


class Inbox:
    """The messages of the queue ``url``; threads start with the first :meth:`receive`.

    Attributes:
        odd: how many things came that were no message of privfl's; they are left to the dead-letter queue.
    """

    def __init__(self, clients: Clients, url: str) -> None:
        self._clients, self._url = clients, url
        self._settings = clients.settings
        self._held: dict[str, _Held] = {}
        self._done: OrderedDict[str, None] = OrderedDict()
        self._deletions: dict[str, str] = {}  # id → receipt
        self._change = threading.Condition()
        self._closed = threading.Event()
        self._threads: list[threading.Thread] = []
        self._fault: WireError | None = None
        self._failing: float | None = None
        self.odd = 0

    # -- for the member -----------------------------------------------------------------------------

    def receive(self, wait_ms: int) -> list[AwsDelivery]:
        """What is to be shown now, waiting up to ``wait_ms`` while that is nothing; at most 64 messages.

        A message that is not acknowledged is shown again after 50 ms, then after twice as long each time up to 5 s.

        Raises:
            WireError: the queue could not be read for some seconds; it is tried again all the while.
        """
        until = time.monotonic() + wait_ms / 1000
        with self._change:
            self._start()
            while True:
                now = time.monotonic()
                due = sorted((one.shown > 0, one.due, id_) for id_, one in self._held.items() if one.due <= now)
                if due or now >= until or self._closed.is_set():
                    break
                self._change.wait(min([until, *(one.due for one in self._held.values())]) - now)
            if not due and self._failing is not None and now - self._failing > SHOWN_S and self._fault is not None:
                raise WireError(str(self._fault))
            return [self._show(id_, now) for _, _, id_ in due[:BATCH]]

    def _show(self, id_: str, now: float) -> AwsDelivery:
        one = self._held[id_]
        one.shown += 1
        one.due, one.pause = now + one.pause, min(2 * one.pause, LAST_RETRY_S)
        self._change.notify_all()  # there may be room now
        return AwsDelivery(one.data, id_, self)

    def acknowledge(self, id_: str) -> None:
        """Let a message go; twice is harmless. Raises WireError once the mailbox is closed."""
        with self._change:
            one = self._held.pop(id_, None)
            if one is None:
                return
            if self._closed.is_set():
                raise WireError("the mailbox was closed before this message was acknowledged; it comes again")
            self._done[id_] = None
            while len(self._done) > REMEMBERED:
                self._done.popitem(last=False)
            self._deletions[id_] = one.receipt
            self._change.notify_all()

    def close(self) -> bool:
        """Delete what was acknowledged and give everything else back; whether all threads have ended.

        A poll on its way ends by itself, 20 seconds later at most, and gives back what it brings.
        """
        with self._change:
            already = self._closed.is_set()
            self._closed.set()
            self._change.notify_all()
        for thread in reversed(self._threads):  # the poller last; a long poll would be waited for in vain
            long = thread is self._threads[0] and self._settings.poll > JOIN_S
            thread.join(0 if already else 0.1 if long else JOIN_S)
        if not already:
            with self._change:
                back = [one.receipt for one in self._held.values()]
            self._give_back(back, 0)
        return not any(thread.is_alive() for thread in self._threads)

    def join(self) -> None:
        """Wait until all threads have ended."""
        for thread in self._threads:
            thread.join()

    # -- threads ------------------------------------------------------------------------------------

    def _start(self) -> None:
        if self._threads or self._closed.is_set():
            return
        for work in (self._poll, self._delete, self._beat):
            name = f"privfl-sqs{work.__name__}"
            self._threads.append(threading.Thread(target=self._kept_up, args=(work,), name=name, daemon=True))
        for thread in self._threads:
            thread.start()

    def _kept_up(self, work: Callable[[], None]) -> None:
        """Do a thread's work until the mailbox closes: one that ended unseen would stop this member for ever."""
        backoff = Backoff()
        while True:
            try:
                return work()
            except Exception as error:
                self._failed(error)
                if self._closed.wait(backoff.pause()):
                    return None

    def _poll(self) -> None:
        backoff = Backoff()
        while self._wait_for_room():
            try:
                with speaking("sqs", self._url):
                    messages = self._clients.sqs.receive_message(
                        QueueUrl=self._url,
                        MaxNumberOfMessages=10,
                        WaitTimeSeconds=self._settings.poll,
                        VisibilityTimeout=self._settings.visibility,
                        MessageAttributeNames=[ATTRIBUTE],
                        MessageSystemAttributeNames=["ApproximateReceiveCount"],
                    ).get("Messages", [])
                self._take(messages[:10])
            except Exception as error:  # whatever SQS may answer, this thread goes on
                self._failed(error)
                self._closed.wait(backoff.pause())
                continue
            backoff.reset()
            self._works()

    def _wait_for_room(self) -> bool:
        """Wait until more may be asked for; False once closed."""
        with self._change:
            while not self._closed.is_set():
                if sum(not one.shown for one in self._held.values()) < WAITING:
                    if len(self._held) < HELD:
                        return True
                    break
                self._change.wait(1.0)
            if self._closed.is_set():
                return False
            oftenest = sorted(self._held, key=lambda id_: -self._held[id_].shown)[:10]
            back = [self._held.pop(id_).receipt for id_ in oftenest]
        self._give_back(back, AWAY_S)
        return True

    def _take(self, messages: Iterable[Any]) -> None:
        hopeless: dict[str, str] = {}
        late: list[str] = []
        with self._change:
            for message in messages:
                id_, receipt = str(message.get("MessageId", "")), str(message.get("ReceiptHandle", ""))
                data = _data(message)
                if data is None:
                    probe = _kind(message) == PROBED
                    self.odd += not probe
                    if probe or _receptions(message) >= HOPELESS:
                        hopeless[id_] = receipt
                elif self._closed.is_set():
                    late.append(receipt)
                elif id_ in self._done:
                    self._deletions[id_] = receipt
                elif id_ in self._held:
                    self._held[id_].receipt = receipt  # it came twice; the newer receipt counts
                else:
                    self._held[id_] = _Held(data, receipt)
            self._deletions |= hopeless
            self._change.notify_all()
        if late:
            self._give_back(late, 0)

    def _delete(self) -> None:
        backoff, tries = Backoff(last=2.0), 0
        while True:
            with self._change:
                while not self._deletions and not self._closed.is_set():
                    self._change.wait()
                if not self._deletions:
                    return
                batch = [(id_, self._deletions.pop(id_)) for id_ in list(self._deletions)[:10]]
            failed = dict(batch)
            with self._noted():
                failed = self._batch(batch, self._clients.sqs.delete_message_batch, {})
            tries = tries + 1 if failed else 0
            if not failed or tries > DELETIONS:  # whatever is left then comes again, and is deleted then
                tries = 0
                backoff.reset()
                continue
            with self._change:
                self._deletions = {**failed, **self._deletions}
            if self._closed.wait(backoff.pause()) and tries > 1:
                return

    def _beat(self) -> None:
        """Keep everything held invisible to others."""
        every = self._settings.visibility / 3
        while not self._closed.wait(every):
            with self._change:
                held = [(id_, one.receipt) for id_, one in self._held.items()]
            visible = {"VisibilityTimeout": self._settings.visibility}
            for at in range(0, len(held), 10):
                with self._noted():
                    self._batch(held[at : at + 10], self._clients.sqs.change_message_visibility_batch, visible)

    def _give_back(self, receipts: list[str], seconds: int) -> None:
        for at in range(0, len(receipts), 10):
            batch = [(str(at), receipt) for at, receipt in enumerate(receipts[at : at + 10])]
            with contextlib.suppress(Exception):  # whatever SQS may answer, they come again by themselves
                change = self._clients.sqs.change_message_visibility_batch
                self._batch(batch, change, {"VisibilityTimeout": seconds})

    def _batch(self, batch: list[tuple[str, str]], ask: Callable[..., Any], more: dict[str, int]) -> dict[str, str]:
        """Ask for up to ten messages at once; returns those that SQS failed on and that are worth another try."""
        entries = [{"Id": str(at), "ReceiptHandle": receipt, **more} for at, (_, receipt) in enumerate(batch)]
        with speaking("sqs", self._url):
            answer = ask(QueueUrl=self._url, Entries=entries)
        failed = {}
        for entry in answer.get("Failed", ()):
            at = str(entry.get("Id", ""))
            if at.isdecimal() and int(at) < len(batch) and not entry.get("SenderFault"):
                id_, receipt = batch[int(at)]
                failed[id_] = receipt
        return failed

    # -- faults -------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _noted(self) -> Iterator[None]:
        """What a thread cannot do now is noted, and done when its turn comes again."""
        try:
            yield
        except Exception as error:  # whatever SQS may answer, this thread goes on
            if not self._closed.is_set():
                log.warning("%s", _told(error))
            if isinstance(error, Expired):
                renew(self._clients)

    def _failed(self, error: Exception) -> None:
        with self._change:
            first = self._fault is None
            self._fault = WireError(_told(error))
            self._failing = self._failing or time.monotonic()
            self._change.notify_all()
        if not self._closed.is_set():
            log.log(logging.WARNING if first else logging.INFO, "%s", _told(error))
        if isinstance(error, Expired):
            renew(self._clients)

    def _works(self) -> None:
        with self._change:
            was, self._fault, self._failing = self._fault, None, None
        if was is not None:
            log.info("the queue can be read again")


def _told(error: Exception) -> str:
    """The words of one of privfl's errors, and the kind of any other."""
    known = isinstance(error, PrivflError)
    return str(error) if known else f"what SQS answers cannot be understood ({type(error).__name__}); asked again"


def _receptions(message: Any) -> int:
    count = str(message.get("Attributes", {}).get("ApproximateReceiveCount", ""))
    return int(count) if count.isdecimal() and len(count) < 10 else 0


def _kind(message: Any) -> Any:
    """What the message says that it is."""
    return (message.get("MessageAttributes") or {}).get(ATTRIBUTE, {}).get("StringValue")


def _data(message: Any) -> bytes | None:
    """The envelope's bytes, or None for what is no message of this wire."""
    text, kind = message.get("Body"), _kind(message)
    if not isinstance(text, str) or len(text) > LONGEST_TEXT or kind != FORMAT or not message.get("MessageId"):
        return None
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return None
