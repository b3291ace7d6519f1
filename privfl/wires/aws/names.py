"""What the queues, objects and tags of a federation are called; the one place that says so.

::

    {prefix}-{slug}-{member}            a member's queue, {member}: the first 32 hex digits of its id
    {prefix}-{slug}-{member}-dlq        what it could not handle
    {slug}/{recipient}/{sender}/{hash}  a body in the bucket, ids and hash in full hex
    {slug}/coordinator/lease            which coordinator is at work

The recipient comes first, then the sender: so a policy can let a site write below ``{slug}/{coordinator}/{site}/``
alone and read below ``{slug}/{site}/`` alone.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass

from privfl.errors import Misuse
from privfl.wires.settings import AwsSettings

__all__ = [
    "FEDERATION_TAG",
    "MEMBER_TAG",
    "PLANTED",
    "Prefixes",
    "bare_body_key",
    "body_key",
    "body_prefixes",
    "dlq_name",
    "lease_key",
    "queue_name",
    "slug",
    "tags",
]

FEDERATION_TAG, MEMBER_TAG = "privfl:federation", "privfl:member"
PLANTED = "probe/planted"  # below a member's inbox: an object to be read as a trial
LONGEST_SLUG = 18  # with the longest prefix, 32 digits and "-dlq" a queue's name has the 80 characters SQS takes
_PLAIN = re.compile(r"[a-z0-9][a-z0-9-]*")
_HASHED = re.compile(r".*-[0-9a-f]{8}")


def slug(federation: str) -> str:
    """A federation's name in at most 18 of ``a-z 0-9 -``.

    A short name of these characters stays as it is; any other one is cut and gets 8 digits of its hash, so that
    two names have one slug only if they collide in those. A name that looks as if it had them gets its own.
    """
    if _PLAIN.fullmatch(federation) and len(federation) <= LONGEST_SLUG and not _HASHED.fullmatch(federation):
        return federation
    kept = re.sub(r"[^a-z0-9]+", "-", federation.lower()).strip("-")[: LONGEST_SLUG - 9].strip("-") or "f"
    return f"{kept}-{hashlib.sha256(federation.encode()).hexdigest()[:8]}"


def _hex(member: bytes) -> str:
    if len(member) != 32:
        raise Misuse("a participant of a wire has an id of 32 bytes")
    return member.hex()


def queue_name(settings: AwsSettings, federation: str, member: bytes) -> str:
    """The name of a member's queue, at most 76 characters."""
    return f"{settings.prefix}-{slug(federation)}-{_hex(member)[:32]}"


def dlq_name(settings: AwsSettings, federation: str, member: bytes) -> str:
    """The name of the queue for what a member could not handle, at most 80 characters."""
    return queue_name(settings, federation, member) + "-dlq"


def tags(federation: str, member: bytes) -> dict[str, str]:
    """The tags by which a queue is known as the one of this member (its slug and its full id)."""
    return {FEDERATION_TAG: slug(federation), MEMBER_TAG: _hex(member)}


@dataclass(frozen=True)
class Prefixes:
    """Of keys in the bucket, each with a slash at its end.

    Attributes:
        everything: of the federation. inbox: all that is addressed to a member.
    """

    everything: str
    inbox: str


def body_prefixes(federation: str, member: bytes) -> Prefixes:
    """Where the federation's objects lie, and those for ``member``."""
    return Prefixes(f"{slug(federation)}/", f"{slug(federation)}/{_hex(member)}/")


def bare_body_key(federation: str, recipient: bytes, sender: bytes) -> str:
    """The prefix, with a slash at its end, of all that ``sender`` writes for ``recipient``."""
    return f"{slug(federation)}/{_hex(recipient)}/{_hex(sender)}/"


def body_key(federation: str, recipient: bytes, sender: bytes, sha256: bytes) -> str:
    """The key of a body; ``sha256`` is its hash (32 bytes)."""
    if len(sha256) != 32:
        raise Misuse("a body's name is its SHA-256, 32 bytes")
    return bare_body_key(federation, recipient, sender) + sha256.hex()


def lease_key(federation: str) -> str:
    """The key of the object that says which coordinator is at work."""
    return f"{slug(federation)}/coordinator/lease"
