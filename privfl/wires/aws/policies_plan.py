"""What a federation's cloud consists of and what its parts are called, for its policies and its administration."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from privfl.errors import Misuse
from privfl.wires.aws.names import PLANTED, bare_body_key, body_prefixes, dlq_name, queue_name, slug
from privfl.wires.settings import AwsSettings

__all__ = ["MANY", "PROBE", "Participant", "Plan"]

MANY = 25  # names of queues or roles that are listed one by one; beyond, a pattern keeps a policy within AWS's bounds
LONG = 3000  # characters of a list of names: a queue's policy has 8192 bytes for everything
PROBE = "probe"  # below a prefix: what privfl wire aws check reads and writes
_ROLE = re.compile(r"arn:aws[a-z-]*:iam::(\d{12}):(?:role|user)/[\w+=,.@/-]{1,512}", re.ASCII)


@dataclass(frozen=True)
class Participant:
    """A member of the roster that has a queue. ``id``: 32 bytes."""

    name: str
    id: bytes
    coordinator: bool = False


@dataclass(frozen=True)
class Plan:
    """What a federation's cloud consists of.

    Args:
        settings, federation: of ``federation.yaml``. account: 12 digits, whose all of it is.
        members: the sites and one coordinator. roles: ARN of a member's role or user, with ``{name}``; None: unknown.
        administrators: ARNs (``*`` allowed) that may empty dead-letter queues and send what was in them again.
        key: ARN of the key of encryption, or None. own_key: its policy is privfl's, which allows the members its
            use; otherwise their own policies have to. plain: the endpoint speaks plain http (an emulator does), so that
            what refuses plain http would refuse everyone.
    """

    settings: AwsSettings
    federation: str
    account: str
    members: tuple[Participant, ...]
    roles: str | None = None
    administrators: tuple[str, ...] = ()
    key: str | None = None
    own_key: bool = False
    plain: bool = False

    def __post_init__(self) -> None:
        if sum(one.coordinator for one in self.members) != 1:
            raise Misuse(
                "a federation over SQS and S3 has one coordinator in its roster; have the authority correct it"
            )
        for one in self.members:
            self.principal(one)

    @property
    def coordinator(self) -> Participant:
        """The member that all others write to."""
        return next(one for one in self.members if one.coordinator)

    @property
    def sites(self) -> tuple[Participant, ...]:
        """Everyone else."""
        return tuple(one for one in self.members if not one.coordinator)

    @property
    def partition(self) -> str:
        """``aws``, or what ARNs of a separate cloud begin with."""
        region = self.settings.region
        return "aws-cn" if region.startswith("cn-") else "aws-us-gov" if region.startswith("us-gov-") else "aws"

    @property
    def bucket(self) -> str:
        """ARN of the bucket."""
        return f"arn:{self.partition}:s3:::{self.settings.bucket}"

    @property
    def everything(self) -> str:
        """What the names of all queues of the federation begin with."""
        return f"{self.settings.prefix}-{slug(self.federation)}-"

    @property
    def any_member(self) -> str:
        """A pattern of the names of members' queues; a federation called like this one with an ending has others."""
        return self.everything + 32 * "?"

    @property
    def probe_queue(self) -> str:
        """Name of a queue that nobody may touch, to try what nobody may."""
        return self.everything + PROBE

    def queue(self, name: str) -> str:
        """ARN of a queue by its name."""
        return f"arn:{self.partition}:sqs:{self.settings.region}:{self.account}:{name}"

    def queue_of(self, member: Participant) -> str:
        """ARN of a member's queue."""
        return self.queue(queue_name(self.settings, self.federation, member.id))

    def dlq_of(self, member: Participant) -> str:
        """ARN of the queue for what a member could not handle."""
        return self.queue(dlq_name(self.settings, self.federation, member.id))

    def objects(self, key: str) -> str:
        """ARN of objects by key or prefix."""
        return f"{self.bucket}/{key}"

    def written(self, sender: Participant, recipient: Participant) -> str:
        """Prefix of what one member writes for another."""
        return bare_body_key(self.federation, recipient.id, sender.id)

    def inbox(self, member: Participant) -> str:
        """Prefix of what is addressed to a member."""
        return body_prefixes(self.federation, member.id).inbox

    def planted(self, member: Participant) -> str:
        """Key of an object that a member, and nobody else, can read; there for being tried."""
        return f"{self.inbox(member)}{PLANTED}"

    def principal(self, member: Participant) -> str | None:
        """ARN of a member's role or user; raises Misuse if no role can be called so."""
        if self.roles is None:
            return None
        found = self.roles.replace("{name}", member.name)
        match = _ROLE.fullmatch(found)
        if match is None:
            raise Misuse(
                f"{found!a:.200} is no ARN of a role or user; write arn:aws:iam::ACCOUNT:role/NAME, where {{name}} "
                "stands for the member's name (which then has no spaces)"
            )
        if match[1] != self.account:
            raise Misuse(
                f"{found} is in account {match[1]} and the wire is in {self.account}; a member of another account "
                "assumes a role of this one: name that under 'role' in federation.yaml, with an external_id"
            )
        return found

    def principals(self, members: Sequence[Participant]) -> list[str]:
        """ARNs of the members' roles, or one pattern if they are many; empty if unknown."""
        if self.roles is None:
            return []
        found = sorted({str(self.principal(one)) for one in members})
        if (len(found) > MANY or sum(map(len, found)) > LONG) and "{name}" in self.roles:
            return [self.roles.replace("{name}", "*")]
        return found
