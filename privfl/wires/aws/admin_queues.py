"""Queues: one per member, one for what it could not handle, one that nobody may touch."""

from __future__ import annotations

import json
from collections.abc import Collection
from typing import Any

from privfl.wires.aws.admin import ABSENT, NAME_TAG, Work, ask, compact, foreign, same
from privfl.wires.aws.names import FEDERATION_TAG, dlq_name, queue_name, slug, tags
from privfl.wires.aws.policies import queue_policy
from privfl.wires.aws.policies_plan import Participant

__all__ = ["ensure_queues", "our_queues", "queue_tags", "queue_url"]

# Deliveries without an acknowledgement until a message goes to the dead-letter queue. Every restart of a member, and
# every return to the queue for want of room, counts as one.
MAX_RECEIVE = 20
PAGE = 1000  # names per answer; SQS says that there are more only to whoever names a number
DAY_S, LONGEST_S = 86_400, 1_209_600
MESSAGE = 262_144  # bytes: envelopes are smaller, and SQS charges by 64 KiB


def ensure_queues(work: Work) -> None:
    """Make what is missing and correct what differs.

    Raises:
        Misuse: a queue of that name is somebody else's, or the credentials may not.
    """
    plan = work.plan
    for member in plan.members:
        named = tags(plan.federation, member.id) | {NAME_TAG: member.name}
        dead = dlq_name(plan.settings, plan.federation, member.id)
        _ensure(work, dead, named, _dead(work, member))
        _ensure(work, queue_name(plan.settings, plan.federation, member.id), named, _live(work, member))
    attributes = {**_common(work), "Policy": compact(queue_policy(plan, None))}
    _ensure(work, plan.probe_queue, {FEDERATION_TAG: slug(plan.federation)}, attributes)
    for name in sorted(our_queues(work, but=_names(work))):
        work.did("queue", name, "noted", "its member is no longer in the roster; privfl wire aws destroy removes it")


def _names(work: Work) -> set[str]:
    plan = work.plan
    made = {make(plan.settings, plan.federation, one.id) for one in plan.members for make in (queue_name, dlq_name)}
    return made | {plan.probe_queue}


def _common(work: Work) -> dict[str, str]:
    settings = work.plan.settings
    sealed = {"KmsMasterKeyId": settings.kms_key} if settings.kms_key else {"SqsManagedSseEnabled": "true"}
    return {"MaximumMessageSize": str(MESSAGE), "ReceiveMessageWaitTimeSeconds": "20", **sealed}


def _dead(work: Work, member: Participant) -> dict[str, str]:
    return {
        **_common(work),
        "MessageRetentionPeriod": str(LONGEST_S),  # counted from the first sending, so never shorter than the queue's
        "Policy": compact(queue_policy(work.plan, member, dead=True)),
    }


def _live(work: Work, member: Participant) -> dict[str, str]:
    settings = work.plan.settings
    redrive = {"deadLetterTargetArn": work.plan.dlq_of(member), "maxReceiveCount": MAX_RECEIVE}
    return {
        **_common(work),
        "VisibilityTimeout": str(settings.visibility),
        "MessageRetentionPeriod": str(min(settings.retain_days * DAY_S, LONGEST_S)),
        "RedrivePolicy": json.dumps(redrive),
        "Policy": compact(queue_policy(work.plan, member)),
    }


def _ensure(work: Work, name: str, named: dict[str, str], wanted: dict[str, str]) -> None:
    arn, sqs = work.plan.queue(name), work.clients.sqs
    url = queue_url(work, name)
    if url is None:
        given: dict[str, str] = {key: value for key, value in wanted.items() if value}
        if not work.dry:
            made: Any = {"QueueName": name, "Attributes": given, "tags": named}
            ask("sqs", arn, sqs.create_queue, **made)
        work.did("queue", name, "made")
        return
    foreign("queue", name, queue_tags(work, url), work.plan)
    found: Any = ask("sqs", arn, sqs.get_queue_attributes, QueueUrl=url, AttributeNames=["All"])
    there: dict[str, str] = found.get("Attributes", {})
    differs = {key: value for key, value in wanted.items() if not same(value, str(there.get(key, "")))}
    if set(differs) == {"Policy"} and not differs["Policy"] and _says_nothing(there["Policy"]):
        differs = {}
    if differs and not work.dry:
        ask("sqs", arn, sqs.set_queue_attributes, QueueUrl=url, Attributes=differs)
    work.did("queue", name, "changed" if differs else "kept", ", ".join(sorted(differs)))


def _says_nothing(policy: str) -> bool:
    return not policy or not json.loads(policy).get("Statement")


def queue_url(work: Work, name: str) -> str | None:
    """The URL of a queue, None if there is none."""
    sqs = work.clients.sqs
    found = ask("sqs", work.plan.queue(name), sqs.get_queue_url, QueueName=name, none=ABSENT)
    return None if found is None else found["QueueUrl"]


def queue_tags(work: Work, url: str) -> dict[str, str]:
    """The tags of a queue."""
    sqs = work.clients.sqs
    found = ask("sqs", url, sqs.list_queue_tags, QueueUrl=url, none=ABSENT)
    return {} if found is None else dict(found.get("Tags", {}))


def our_queues(work: Work, *, but: Collection[str] = ()) -> dict[str, tuple[str, dict[str, str]]]:
    """Every queue that carries the federation's tag, by name: URL and tags; ``but``: names that are passed over."""
    sqs, plan, found = work.clients.sqs, work.plan, {}
    pages = sqs.get_paginator("list_queues").paginate(
        QueueNamePrefix=plan.everything, PaginationConfig={"PageSize": PAGE}
    )
    listed = ask(
        "sqs", plan.queue(plan.everything + "*"), lambda: [u for one in pages for u in one.get("QueueUrls", [])]
    )
    for url in listed or []:
        name = url.rsplit("/", 1)[-1]
        marks = {} if name in but else queue_tags(work, url)
        if marks.get(FEDERATION_TAG) == slug(plan.federation):
            found[name] = url, marks
    return found
