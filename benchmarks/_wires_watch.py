"""What a wire does in a round, by the clock that all processes of a machine share: calls, messages, requests by HTTP.

Each process writes down when it was in which call of its mailbox, and when a request of it was with AWS's emulator.
From all of them together, :func:`account` says for every moment of a round who was at work.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from privfl.wires import Delivery, Mailbox

__all__ = ["Log", "Watched", "account", "gaps", "watch_http"]

Span = tuple[float, float]
POLL = "sqs ReceiveMessage"
BODY = "s3 GET (body, by pieces)"
UNAWAITED = (
    "sqs DeleteMessageBatch",
    "sqs ChangeMessageVisibility",
    "sqs ChangeMessageVisibilityBatch",
)  # nobody waits
EMPTY = 64  # bytes: an answer without a message


@dataclass
class Log:
    """Of one process; ``who`` is its member's id in hex.

    Attributes:
        calls: (call of the mailbox, began, ended, bytes); of the calling thread.
        sent: (message's hash, recipient, accepted by the wire). seen: (message's hash, when receive() was called, when
            it returned); the first time only.
        requests: (operation, began, ended, bytes sent, bytes received); of any thread.
    """

    who: str
    calls: list[tuple[str, float, float, int]] = field(default_factory=list)
    sent: list[tuple[str, str, float]] = field(default_factory=list)
    seen: list[tuple[str, float, float]] = field(default_factory=list)
    requests: list[tuple[str, float, float, int, int]] = field(default_factory=list)

    def write(self, folder: Path) -> None:
        """As a file of its own."""
        (folder / f"{self.who}.json").write_text(json.dumps(self.__dict__))

    @classmethod
    def read(cls, folder: Path) -> list[Log]:
        """All that were written."""
        return [cls(**json.loads(path.read_text())) for path in sorted(folder.glob("*.json"))]


class Watched:
    """A mailbox that writes down in a log what is asked of it; fulfils :class:`~privfl.wires.Mailbox`."""

    def __init__(self, inner: Mailbox, log: Log) -> None:
        self._inner, self.log = inner, log
        self._known: set[str] = set()

    def _timed(self, name: str, size: int, call: Callable[[], Any]) -> Any:
        began = time.monotonic()
        try:
            return call()
        finally:
            self.log.calls.append((name, began, time.monotonic(), size))

    def send(self, recipient: bytes, data: bytes) -> None:
        """See the contract."""
        self._timed("send", len(data), lambda: self._inner.send(recipient, data))
        self.log.sent.append((_name(data), recipient.hex(), self.log.calls[-1][2]))

    def receive(self, wait_ms: int) -> list[Delivery]:
        """See the contract."""
        found = self._timed("receive", 0, lambda: self._inner.receive(wait_ms))
        _, began, ended, _ = self.log.calls[-1]
        for delivery in found:
            name = _name(delivery.data)
            if name not in self._known:
                self._known.add(name)
                self.log.seen.append((name, began, ended))
        return [_Delivery(delivery, self) for delivery in found]

    def put_body(self, sha256: bytes, data: bytes | memoryview, *, recipient: bytes | None = None) -> None:
        """See the contract."""
        self._timed("put_body", len(data), lambda: self._inner.put_body(sha256, data, recipient=recipient))

    def get_body(self, sha256: bytes, *, size: int | None = None, sender: bytes | None = None) -> bytes:
        """See the contract."""
        found: bytes = self._timed(
            "get_body", size or 0, lambda: self._inner.get_body(sha256, size=size, sender=sender)
        )
        return found

    def drop_body(self, sha256: bytes) -> None:
        """See the contract."""
        self._timed("drop_body", 0, lambda: self._inner.drop_body(sha256))

    def close(self) -> None:
        """See the contract."""
        self._inner.close()


@dataclass(frozen=True)
class _Delivery:
    inner: Delivery
    mailbox: Watched

    @property
    def data(self) -> bytes:
        return self.inner.data

    def acknowledge(self) -> None:
        self.mailbox._timed("acknowledge", 0, self.inner.acknowledge)


def _name(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:32]


@contextlib.contextmanager
def watch_http(log: Log) -> Iterator[None]:
    """Write down every request that this process makes through botocore, the reading of streamed bodies included."""
    from botocore.httpsession import URLLib3Session  # noqa: PLC0415 - an extra
    from botocore.response import StreamingBody  # noqa: PLC0415

    session, streamed = cast("Any", URLLib3Session), cast("Any", StreamingBody)
    send, read, readinto = session.send, streamed.read, streamed.readinto

    def watched(one: Any, request: Any) -> Any:
        began = time.monotonic()
        answer = send(one, request)
        came = 0 if request.stream_output else len(answer.content)
        log.requests.append((_operation(request), began, time.monotonic(), _size(request.body), came))
        return answer

    def timed(body: Any, method: Callable[..., Any], *given: Any) -> Any:
        began = time.monotonic()
        found = method(body, *given)
        log.requests.append((BODY, began, time.monotonic(), 0, found if isinstance(found, int) else len(found)))
        return found

    session.send = watched
    streamed.read = lambda body, amt=None: timed(body, read, amt)
    streamed.readinto = lambda body, room: timed(body, readinto, room)
    try:
        yield
    finally:
        session.send, streamed.read, streamed.readinto = send, read, readinto


def _size(body: Any) -> int:
    if body is None:
        return 0
    if isinstance(body, bytes | bytearray | str):
        return len(body)
    if isinstance(body, memoryview):
        return body.nbytes
    at = body.tell()
    end: int = body.seek(0, 2)
    body.seek(at)
    return end


def _operation(request: Any) -> str:
    target = request.headers.get("X-Amz-Target", "")
    target = target.decode() if isinstance(target, bytes) else target
    if target:
        service, _, name = target.partition(".")
        return f"{service.removeprefix('Amazon').lower()} {name}"
    copied = "x-amz-copy-source" in {str(name).lower() for name in request.headers}
    return f"s3 {request.method}{' (copy)' if copied else ''}"


# -- what it comes to ---------------------------------------------------------------------------------


def merged(spans: Iterable[Span], within: Span) -> list[Span]:
    """The moments that lie in any of ``spans`` and in ``within``, as spans that do not touch."""
    found: list[Span] = []
    for began, ended in sorted((max(a, within[0]), min(b, within[1])) for a, b in spans):
        if ended <= began:
            continue
        if found and began <= found[-1][1]:
            found[-1] = found[-1][0], max(found[-1][1], ended)
        else:
            found.append((began, ended))
    return found


def outside(spans: Sequence[Span], within: Span) -> list[Span]:
    """The moments of ``within`` that lie in none of ``spans``, which do not touch each other."""
    edges = [within[0], *(edge for span in spans for edge in span), within[1]]
    return [(a, b) for a, b in zip(edges[::2], edges[1::2], strict=True) if b > a]


def length(spans: Iterable[Span]) -> float:
    """Seconds of spans that do not touch."""
    return sum(ended - began for began, ended in spans)


def account(logs: Sequence[Log], within: Span) -> dict[str, float]:
    """Who was at work in each moment of a round, seconds that add up to its length.

    ``emulator``: a request was with it that somebody waited for; of polls only from when the message was there until
    it came.
    ``computing``: otherwise, somebody was outside all calls of the mailbox, in privfl's own protocol.
    ``wire``: otherwise, somebody was in a call of the mailbox other than receive. ``waiting``: nobody did anything.
    Beside them ``requests`` and ``computing_all``: the same summed over processes, which overlap.
    """
    asked = merged(_with_emulator(logs), within)
    busy = [outside(merged([(a, b) for _, a, b, _ in log.calls], within), _living(log, within)) for log in logs]
    wire = [(a, b) for log in logs for name, a, b, _ in log.calls if name != "receive"]
    until_wire = merged([*asked, *(span for one in busy for span in one)], within)
    all_of_it = merged([*until_wire, *wire], within)
    total, emulator, computing = within[1] - within[0], length(asked), length(until_wire)
    return {
        "seconds": total,
        "emulator": emulator,
        "computing": computing - emulator,
        "wire": length(all_of_it) - computing,
        "waiting": total - length(all_of_it),
        "requests": sum(min(b, within[1]) - max(a, within[0]) for a, b in _with_emulator(logs) if _touch(a, b, within)),
        "computing_all": sum(length(one) for one in busy),
    }


def _touch(began: float, ended: float, within: Span) -> bool:
    return min(ended, within[1]) > max(began, within[0])


def _living(log: Log, within: Span) -> Span:
    """The part of ``within`` that this process has calls on both sides of: it may have begun or ended inside."""
    if not log.calls:
        return within[0], within[0]
    first, last = min(a for _, a, _, _ in log.calls), max(b for _, _, b, _ in log.calls)
    began = max(within[0], first)
    return began, max(began, min(within[1], last))


def _with_emulator(logs: Sequence[Log]) -> list[Span]:
    """Spans of requests that somebody waits for. A poll waits for a message that is not there yet: nobody's work."""
    accepted = defaultdict(list)
    for log in logs:
        for _, recipient, at in log.sent:
            accepted[recipient].append(at)
    found = []
    for log in logs:
        for operation, began, ended, _, came in log.requests:
            if operation in UNAWAITED:
                continue
            if operation != POLL:
                found.append((began, ended))
            elif came > EMPTY:
                there = [at for at in accepted[log.who] if at <= ended]
                found.append((max(began, max(there, default=began)), ended))
    return found


def gaps(logs: Sequence[Log], within: Span) -> list[float]:
    """For each message of a round: seconds from when it was accepted, and asked for, until it was handed out."""
    accepted = {name: at for log in logs for name, _, at in log.sent if within[0] <= at <= within[1]}
    found = []
    for log in logs:
        for name, asked, handed in log.seen:
            if name in accepted and handed <= within[1]:
                found.append(max(0.0, handed - max(accepted[name], asked)))
    return found
