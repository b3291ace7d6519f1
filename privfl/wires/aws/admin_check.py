"""``privfl wire aws check``: with a member's own credentials, what it must be able to do, and what it must not.

Every probe is harmless even where it succeeds although it should not:

- a message that it sends says that it is a probe; whoever receives it does not take it for one of the wire's;
- a message that it receives is given back at once (its count of receptions rises by one);
- what it reads was planted for that purpose; what it writes lies below ``…/probe/`` and is removed again;
- what it tries to delete, to purge or to overrule is a key, a queue and a document that mean nothing.

So a right to purge the own queue alone stays unseen, since trying it would lose what waits there.
"""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

from botocore.exceptions import BotoCoreError, ClientError

from privfl.wires.aws.admin import ABSENT, error_code
from privfl.wires.aws.errors import Denied, translated
from privfl.wires.aws.policies_plan import PROBE, Participant, Plan
from privfl.wires.aws.session import Clients, queue_address

__all__ = ["MARK", "Probe", "Tried", "check_member", "probes"]

MARK = {"privfl": {"DataType": "String", "StringValue": PROBE}}  # the attribute that the wire's own messages have
BODY = b"privfl wire aws check"
# AWS looks at the permission first, and then refuses this: a policy has to say something
EMPTY = '{"Version":"2012-10-17","Statement":[]}'
Outcome = Literal["allowed", "denied", "absent"]


@dataclass(frozen=True)
class Probe:
    """One thing to try. ``must``: whether it has to be allowed. ``call``: what is asked of AWS."""

    must: bool
    action: str
    resource: str
    what: str
    call: Callable[[], object]


@dataclass(frozen=True)
class Tried:
    """How a probe ended. ``right``: as it has to be; ``note``: what to do if not."""

    must: bool
    action: str
    resource: str
    what: str
    outcome: Outcome
    right: bool
    note: str


def check_member(plan: Plan, member: Participant, clients: Clients) -> Iterator[Tried]:
    """Try everything for ``member``, as which ``clients`` act.

    Raises:
        Misuse: there are no credentials, or they are not taken. WireError: AWS is away.
    """
    for probe in probes(plan, member, clients):
        outcome = _outcome(probe)
        right = outcome == ("allowed" if probe.must else "denied")
        note = "" if right else _advice(probe, outcome)
        yield Tried(probe.must, probe.action, probe.resource, probe.what, outcome, right, note)


def _advice(probe: Probe, outcome: Outcome) -> str:
    if outcome == "absent":
        return "it is not there: run privfl wire aws init"
    if probe.must:
        return (
            "the member's policy (or a queue's, bucket's or key's) does not allow it: attach what init wrote, or run "
            "privfl wire aws init again if what it made was removed"
        )
    return "some policy of this member allows it: attach what init wrote, and nothing else"


def _outcome(probe: Probe) -> Outcome:
    service = probe.action.partition(":")[0]
    try:
        probe.call()
    except ClientError as error:
        if error_code(error) in ABSENT:
            return "absent"
        if error_code(error) in _PASSED:
            return "allowed"
        denied = isinstance(translated(error, service, probe.resource, opening=False), Denied)
        if denied and not error.operation_name.startswith("AssumeRole"):
            return "denied"
        raise translated(error, service, probe.resource, opening=True) from None
    except BotoCoreError as error:
        raise translated(error, service, probe.resource, opening=True) from None
    return "allowed"


# codes that only come after the permission was looked at
_PASSED = frozenset({
    "MalformedPolicy", "MalformedPolicyDocumentException", "ReceiptHandleIsInvalid", "InvalidReceiptHandle",
    "AWS.SimpleQueueService.PurgeQueueInProgress", "PurgeQueueInProgress", "PreconditionFailed", "412",
})  # fmt: skip


def probes(plan: Plan, member: Participant, clients: Clients) -> list[Probe]:
    """What to try for ``member``, in an order that people can follow."""
    trial = _Trial(plan, member, clients)
    return [*trial.must(), *trial.must_not()]


class _Trial:
    """The probes of one member."""

    def __init__(self, plan: Plan, member: Participant, clients: Clients) -> None:
        self.plan, self.member, self.clients = plan, member, clients
        self.name = uuid.uuid4().hex
        sites = [one for one in plan.sites if one != member]
        self.others = sites[:1] + sites[-1:] if len(sites) > 1 else sites
        self.peers = self.others if member.coordinator else [plan.coordinator]
        self.owner: dict[str, Any] = {"Bucket": plan.settings.bucket}
        key = plan.settings.kms_key
        self.sealed: dict[str, Any] = {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": key} if key else {}

    # -- what has to work ---------------------------------------------------------------------------

    def must(self) -> Iterator[Probe]:
        """What the wire does."""
        plan, me = self.plan, self.member
        for peer in self.peers:
            yield self._send(True, peer, f"send to {peer.name}")
        yield self._receive(True, plan.queue_of(me), "receive from the own queue")
        for peer in self.peers:
            key = f"{plan.written(me, peer)}{PROBE}/{self.name}"
            yield self._put(True, key, f"write a body for {peer.name}")
            yield self._delete(True, key, "remove the probe again")
        yield self._get(
            True, plan.planted(me), "read what is addressed to it" + (", by the key" if self.sealed else "")
        )

    # -- what has to fail ---------------------------------------------------------------------------

    def must_not(self) -> Iterator[Probe]:
        """What no member may."""
        plan, me = self.plan, self.member
        strangers = self.others if me.coordinator else [plan.coordinator, *self.others]
        for one in strangers:
            yield self._receive(False, plan.queue_of(one), f"receive what is {one.name}'s")
            if one not in self.peers:
                yield self._send(False, one, f"send to {one.name}")
            yield self._get(False, plan.planted(one), f"read what is addressed to {one.name}")
            key = f"{plan.written(one, me if me.coordinator else plan.coordinator)}{PROBE}/{self.name}"
            if one.coordinator:
                key = f"{plan.written(one, me)}{PROBE}/{self.name}"
            yield self._put(False, key, f"write a body as {one.name}", tidy=True)
        yield from self._administration()

    def _administration(self) -> Iterator[Probe]:
        plan, me, sqs, s3 = self.plan, self.member, self.clients.sqs, self.clients.s3
        own, probe = plan.queue_of(me), plan.queue(plan.probe_queue)
        yield self._receive(False, plan.dlq_of(me), "receive from the dead-letter queue")
        yield self._probe(False, "sqs:PurgeQueue", probe, "empty a queue", sqs.purge_queue, QueueUrl=self._url(probe))
        unchanged = {"ReceiveMessageWaitTimeSeconds": "20"}  # what init has set
        yield self._probe(False, "sqs:SetQueueAttributes", own, "change the own queue", sqs.set_queue_attributes,
                          QueueUrl=self._url(own), Attributes=unchanged)  # fmt: skip
        yield self._probe(False, "sqs:ListQueues", plan.queue("*"), "list queues", sqs.list_queues,
                          QueueNamePrefix=plan.everything)  # fmt: skip
        yield self._probe(False, "s3:ListBucket", plan.bucket, "list the bucket", s3.list_objects_v2,
                          **self.owner, MaxKeys=1)  # fmt: skip
        yield self._probe(False, "s3:PutBucketPolicy", plan.bucket, "change the bucket's policy", s3.put_bucket_policy,
                          **self.owner, Policy=EMPTY)  # fmt: skip
        if not me.coordinator:
            for what, prefix in (("its upload", plan.written(me, plan.coordinator)),
                                 ("what it was sent", plan.written(plan.coordinator, me))):  # fmt: skip
                yield self._delete(False, f"{prefix}{self.name}", f"delete a body: {what}")
        if plan.settings.kms_key is not None:
            key = plan.key or plan.settings.kms_key
            yield self._probe(False, "kms:GenerateDataKey", key, "use the key by itself, for another purpose",
                              self.clients.kms.generate_data_key, KeyId=key, KeySpec="AES_256",
                              EncryptionContext={"purpose": PROBE})  # fmt: skip

    # -- kinds of probes ----------------------------------------------------------------------------

    def _probe(
        self, must: bool, action: str, resource: str, what: str, call: Callable[..., Any], **given: Any
    ) -> Probe:
        return Probe(must, action, resource, what, lambda: call(**given))

    def _send(self, must: bool, to: Participant, what: str) -> Probe:
        arn = self.plan.queue_of(to)
        return self._probe(must, "sqs:SendMessage", arn, what, self.clients.sqs.send_message,
                           QueueUrl=self._url(arn), MessageBody=BODY.decode(), MessageAttributes=MARK)  # fmt: skip

    def _receive(self, must: bool, arn: str, what: str) -> Probe:
        return self._probe(must, "sqs:ReceiveMessage", arn, what, self.clients.sqs.receive_message,
                           QueueUrl=self._url(arn), MaxNumberOfMessages=1, VisibilityTimeout=0,
                           WaitTimeSeconds=0)  # fmt: skip

    def _put(self, must: bool, key: str, what: str, *, tidy: bool = False) -> Probe:
        s3 = self.clients.s3

        def put() -> None:
            s3.put_object(**self.owner, **self.sealed, Key=key, Body=BODY, IfNoneMatch="*")
            if tidy:  # it should not have worked; perhaps removing it does, else the bucket's own rule will
                with contextlib.suppress(ClientError, BotoCoreError):
                    s3.delete_object(**self.owner, Key=key)

        return Probe(must, "s3:PutObject", self.plan.objects(key), what, put)

    def _get(self, must: bool, key: str, what: str) -> Probe:
        def get() -> None:
            with contextlib.closing(self.clients.s3.get_object(**self.owner, Key=key)["Body"]) as body:
                body.read()

        return Probe(must, "s3:GetObject", self.plan.objects(key), what, get)

    def _delete(self, must: bool, key: str, what: str) -> Probe:
        return self._probe(must, "s3:DeleteObject", self.plan.objects(key), what, self.clients.s3.delete_object,
                           **self.owner, Key=key)  # fmt: skip

    def _url(self, arn: str) -> str:
        """The URL of a queue, from its ARN: for that of a foreign one nobody may be asked."""
        return queue_address(self.clients, *arn.split(":")[-2:])
