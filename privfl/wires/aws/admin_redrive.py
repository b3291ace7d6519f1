"""``privfl wire redrive``: what a member could not handle, why as far as that can be seen, and back into its queue.

By hand and not by SQS's own move task: so each message is looked at, what is none of the wire's stays behind, and a
message is deleted only after SQS has taken it again. A break leaves it in both queues, and receivers know repeats.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from privfl.errors import Malformed, Misuse, PrivflError, Theirs
from privfl.wires.aws.admin import NAME_TAG, Work, ask
from privfl.wires.aws.admin_queues import our_queues
from privfl.wires.aws.names import MEMBER_TAG
from privfl.wires.aws.policies_plan import PROBE
from privfl.wires.envelope import Envelope

__all__ = ["Dead", "Redriven", "redrive"]

HIDDEN_S = 120  # how long a message is kept from others while it is looked at
MOST = 10_000  # messages that are looked at in one go


@dataclass(frozen=True)
class Dead:
    """A message in a dead-letter queue: what it is and why it is there, its age in ms, how often it was received."""

    what: str
    why: str
    age_ms: int
    received: int
    ours: bool
    probe: bool = False


@dataclass
class Redriven:
    """What was found in, and done about, one member's dead-letter queue."""

    member: str
    queue: str
    messages: list[Dead] = field(default_factory=list)
    moved: int = 0
    dropped: int = 0
    left: int = 0

    def fields(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)


def redrive(work: Work, member: str, now: int) -> Redriven:
    """Look at the dead-letter queue of ``member`` and, unless the work is dry, move back what is the wire's.

    Args:
        member: name or the first digits (6 at least) of the id. now: milliseconds since 1970.

    Raises:
        Misuse: no such member has queues, or several. WireError: AWS is away; what was moved stays moved.
    """
    name, url, dead_name, dead_url = _queues(work, member)
    found = Redriven(name, dead_name)
    receipts: list[str] = []
    sqs, arn = work.clients.sqs, work.plan.queue(dead_name)
    try:
        for message in _messages(work, dead_url, arn):
            dead = _examined(message, now)
            found.messages.append(dead)
            receipt = str(message["ReceiptHandle"])
            if work.dry or not (dead.ours or dead.probe):
                found.left += 1
                receipts.append(receipt)
                continue
            if dead.ours:
                attributes: Any = message.get("MessageAttributes", {})
                ask("sqs", url, sqs.send_message, QueueUrl=url, MessageBody=message["Body"],
                    MessageAttributes=attributes)  # fmt: skip
                found.moved += 1
            else:
                found.dropped += 1
            ask("sqs", arn, sqs.delete_message, QueueUrl=dead_url, ReceiptHandle=receipt)
    finally:
        _give_back(work, dead_url, receipts)
    return found


def _queues(work: Work, member: str) -> tuple[str, str, str, str]:
    """Name of the member, URL of its queue, name and URL of its dead-letter queue."""
    digits = member.lower()
    known: dict[str, str] = {}
    hits = []
    queues = our_queues(work)
    for name, (url, marks) in sorted(queues.items()):
        id_, called = marks.get(MEMBER_TAG, ""), marks.get(NAME_TAG, "")
        if name.endswith("-dlq") or not id_:
            continue
        known[called or id_[:12]] = id_
        if member == called or (len(digits) >= 6 and id_.startswith(digits)):
            hits.append((called or id_[:12], url, name))
    if len(hits) != 1:
        some = ", ".join(sorted(known)) or "none"
        raise Misuse(f"{len(hits) or 'no'} member(s) {member!a:.80} have a queue here; there are: {some[:400]}")
    called, url, name = hits[0]
    dead = f"{name}-dlq"
    if dead not in queues:
        raise Misuse(f"{called} has no dead-letter queue; run privfl wire aws init, which makes it")
    return called, url, dead, queues[dead][0]


def _messages(work: Work, url: str, arn: str) -> Iterator[Mapping[str, Any]]:
    """Each message of a queue once."""
    seen: set[str] = set()
    while len(seen) < MOST:
        found: Any = ask(
            "sqs", arn, work.clients.sqs.receive_message, QueueUrl=url, MaxNumberOfMessages=10,
            VisibilityTimeout=HIDDEN_S, WaitTimeSeconds=1, MessageAttributeNames=["All"],
            MessageSystemAttributeNames=["All"],
        )  # fmt: skip
        fresh = [one for one in found.get("Messages", []) if one["MessageId"] not in seen]
        if not fresh:
            return
        seen.update(one["MessageId"] for one in fresh)
        yield from fresh


def _examined(message: Mapping[str, Any], now: int) -> Dead:
    system = message.get("Attributes", {})
    sent, received = str(system.get("SentTimestamp", "")), str(system.get("ApproximateReceiveCount", ""))
    age = max(now - int(sent), 0) if sent.isdecimal() else 0
    count = int(received) if received.isdecimal() else 0
    kind = message.get("MessageAttributes", {}).get("privfl", {}).get("StringValue")
    if kind == PROBE:
        return Dead("probe", "privfl wire aws check has sent it; nobody handles it", age, count, ours=False, probe=True)
    if kind is None:
        return Dead("foreign", "it has no mark of privfl's: somebody else sends to this queue", age, count, ours=False)
    try:
        envelope = Envelope.decode(base64.b64decode(str(message["Body"]), validate=True))
    except (binascii.Error, ValueError, Malformed, Theirs):
        return Dead("damaged", "it is no envelope", age, count, ours=False)
    except PrivflError as error:
        return Dead("damaged", str(error)[:200], age, count, ours=False)
    why = "its reader could not finish with it: see the reader's log, correct the cause, then move it back"
    what = f"{envelope.kind[:40]!a} from {envelope.sender.hex()[:12]}"
    return Dead(what, why, age, count, ours=True)


def _give_back(work: Work, url: str, receipts: list[str]) -> None:
    """Let others see what stays, at once."""
    for receipt in receipts:
        ask("sqs", url, work.clients.sqs.change_message_visibility, QueueUrl=url, ReceiptHandle=receipt,
            VisibilityTimeout=0, none=("ReceiptHandleIsInvalid", "InvalidParameterValue"))  # fmt: skip
