"""What administering a federation's cloud works with: one list of what was found and done, and errors in words.

Everything that is made carries the federation's tag. What carries another one, or none, is somebody else's: it is
refused before anything is touched, and never changed or removed.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, TypeVar

from botocore.exceptions import BotoCoreError, ClientError

from privfl.errors import Misuse
from privfl.wires.aws.errors import translated
from privfl.wires.aws.names import FEDERATION_TAG, slug
from privfl.wires.aws.policies import Document
from privfl.wires.aws.policies_plan import Participant, Plan
from privfl.wires.aws.session import Clients
from privfl.wires.settings import AwsSettings

__all__ = [
    "ABSENT",
    "NAME_TAG",
    "Administrator",
    "Row",
    "Work",
    "ask",
    "caller",
    "compact",
    "error_code",
    "foreign",
    "make_plan",
    "same",
]

T = TypeVar("T")
NAME_TAG = "privfl:name"  # of a member, so that people find its queue
Outcome = Literal["made", "changed", "kept", "removed", "noted"]
ABSENT = frozenset({
    "AWS.SimpleQueueService.NonExistentQueue", "QueueDoesNotExist", "NoSuchBucket", "NoSuchKey", "404", "NotFound",
    "NoSuchEntity", "NotFoundException", "NoSuchBucketPolicy", "NoSuchLifecycleConfiguration", "NoSuchTagSet",
    "NoSuchPublicAccessBlockConfiguration", "ServerSideEncryptionConfigurationNotFoundError", "NoSuchUpload",
})  # fmt: skip


@dataclass(frozen=True)
class Row:
    """One thing of the federation's cloud, and what was (or, in a dry run, would be) done about it."""

    kind: str
    name: str
    outcome: Outcome
    note: str = ""


@dataclass
class Work:
    """A piece of administration: with whose clients, by which plan; ``dry`` only looks. ``rows``: in order."""

    clients: Clients
    plan: Plan
    dry: bool = False
    rows: list[Row] = field(default_factory=list)

    def did(self, kind: str, name: str, outcome: Outcome, note: str = "") -> None:
        """Note one thing."""
        self.rows.append(Row(kind, name, outcome, note))

    @property
    def changed(self) -> bool:
        """Whether anything was, or would be, done."""
        return any(row.outcome in ("made", "changed", "removed") for row in self.rows)

    def fields(self) -> list[dict[str, str]]:
        """As JSON."""
        return [asdict(row) for row in self.rows]


def ask(service: str, resource: str, call: Callable[..., T], *, none: Collection[str] = (), **given: Any) -> T | None:
    """What AWS answers to ``call`` with ``given``; None for the error codes ``none``.

    Raises:
        Misuse: what the administrator has to correct, with action and resource. WireError: AWS is away.
    """
    try:
        return call(**given)
    except ClientError as error:
        if error_code(error) in none:
            return None
        raise translated(error, service, resource, opening=True) from None
    except BotoCoreError as error:
        raise translated(error, service, resource, opening=True) from None


def error_code(error: ClientError) -> str:
    """What AWS calls the error."""
    return str(error.response.get("Error", {}).get("Code", ""))


@dataclass(frozen=True)
class Administrator:
    """Who administers. ``account``: 12 digits; ``patterns``: ARNs that this person's requests come under."""

    account: str
    patterns: tuple[str, ...]


def caller(clients: Clients) -> Administrator:
    """Whose credentials these are; a session of a role counts as the role."""
    found = ask("sts", "AWS", clients.sts.get_caller_identity)
    assert found is not None
    arn, account = found["Arn"], found["Account"]
    begin, _, rest = arn.partition(":assumed-role/")
    if rest:
        role = rest.split("/")[0]
        base = begin.replace(":sts:", ":iam:")
        return Administrator(account, (f"{base}:role/*/{role}", f"{base}:role/{role}"))  # its path is not told
    return Administrator(account, (arn,))


def make_plan(
    settings: AwsSettings,
    federation: str,
    members: tuple[Participant, ...],
    who: Administrator,
    *,
    roles: str | None = None,
    administrators: tuple[str, ...] = (),
) -> Plan:
    """The plan for a roster's members; raises Misuse if the credentials are of another account than the wire's."""
    if settings.account is not None and settings.account != who.account:
        raise Misuse(
            f"these credentials are of account {who.account} and federation.yaml names {settings.account}; use that "
            "account's administrator"
        )
    return Plan(
        settings,
        federation,
        who.account,
        members,
        roles=roles or settings.role,
        administrators=administrators or who.patterns,
        plain=(settings.endpoint or "").startswith("http://"),
    )


def foreign(what: str, name: str, tags: Mapping[str, str], plan: Plan) -> None:
    """Raise Misuse unless the tags say that this thing is the federation's."""
    mark = tags.get(FEDERATION_TAG)
    if mark == slug(plan.federation):
        return
    whose = f"the federation {mark!a:.80}" if mark else "something else (it has no tag of privfl's)"
    raise Misuse(
        f"the {what} {name} is there already and belongs to {whose}; nothing was changed. Choose another bucket, "
        "prefix or name in federation.yaml, or remove it if it is of no use"
    )


def compact(document: Document | None) -> str:
    """A policy as AWS takes it; empty for none."""
    return "" if document is None else json.dumps(document, sort_keys=True, separators=(",", ":"))


def same(wanted: str, found: str) -> bool:
    """Whether two settings are the same: as JSON where they are, else as text without regard to case."""
    try:
        return bool(json.loads(wanted) == json.loads(found))
    except ValueError:
        return wanted.casefold() == found.casefold()
