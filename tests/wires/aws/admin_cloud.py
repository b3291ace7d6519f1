"""A federation's cloud made by privfl itself, in the emulator, with users that assume its members' roles."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from privfl.wires.aws.admin import Row, Work, caller, make_plan
from privfl.wires.aws.admin_init import initialise
from privfl.wires.aws.emulator import Emulator
from privfl.wires.aws.policies_plan import Participant, Plan
from privfl.wires.aws.session import Clients, clients
from privfl.wires.settings import AwsSettings

ACCOUNT = "123456789012"  # the emulator's
NUMBERS = itertools.count()
ROLE = f"arn:aws:iam::{ACCOUNT}:role/privfl-{{name}}"
USER = f"arn:aws:iam::{ACCOUNT}:user/{{name}}"


@dataclass
class Place:
    """A federation to be made: whose clients administer it, by which plan, where its policies go."""

    emulator: Emulator
    own: Clients
    plan: Plan
    out: Path

    def init(self, *, dry: bool = False, roles: bool = True, plan: Plan | None = None) -> list[Row]:
        """Make it; returns what was done."""
        work = Work(self.own, plan or self.plan, dry)
        initialise(work, self.out, create_roles=roles, trusted=USER if roles else None)
        if not dry and plan is None:
            self.plan = work.plan
        return work.rows

    @property
    def bucket(self) -> str:
        """Its name."""
        return self.plan.settings.bucket

    def member(self, name: str) -> Participant:
        """One by its name."""
        return next(one for one in self.plan.members if one.name == name)

    def credentials(self, name: str, patch: Any) -> Clients:
        """As a member: a user that may assume the role that trusts it, and nothing else."""
        iam = self.own.iam
        iam.create_user(UserName=name)
        document = {"Effect": "Allow", "Action": ["sts:AssumeRole", "sts:TagSession"], "Resource": ["*"]}
        iam.put_user_policy(UserName=name, PolicyName="assume", PolicyDocument=_policy(document))
        key = iam.create_access_key(UserName=name)["AccessKey"]
        with patch.context() as while_assumed:
            while_assumed.setenv("AWS_ACCESS_KEY_ID", key["AccessKeyId"])
            while_assumed.setenv("AWS_SECRET_ACCESS_KEY", key["SecretAccessKey"])
            made = clients(self.plan.settings, name)
            made.sts.get_caller_identity()
            for service in ("s3", "sqs", "kms"):
                getattr(made, service)
        return made

    @contextlib.contextmanager
    def free(self) -> Iterator[None]:
        """Nothing is enforced for a while: the administrator looks or acts."""
        self.emulator.enforce(10**9)
        try:
            yield
        finally:
            self.emulator.enforce()

    @contextlib.contextmanager
    def allowed(self, name: str, document: Any) -> Iterator[None]:
        """A member's role has another policy for a while."""
        given: dict[str, Any] = {"RoleName": f"privfl-{name}", "PolicyName": "privfl-wire"}
        with self.free():
            before = self.own.iam.get_role_policy(**given)["PolicyDocument"]
            self.own.iam.put_role_policy(**given, PolicyDocument=json.dumps(document))
        try:
            yield
        finally:
            with self.free():
                self.own.iam.put_role_policy(**given, PolicyDocument=json.dumps(before))

    def url(self, member: Participant) -> str:
        """The URL of a member's queue."""
        return self.own.sqs.get_queue_url(QueueName=self.plan.queue_of(member).rsplit(":", 1)[-1])["QueueUrl"]

    def settings(self) -> Any:
        """What probes could have changed: settings of queues and bucket, objects."""
        found: list[Any] = []
        for one in self.plan.members:
            attributes: Any = self.own.sqs.get_queue_attributes(QueueUrl=self.url(one), AttributeNames=["All"])
            steady = attributes["Attributes"].items()
            found.append({k: v for k, v in steady if "Timestamp" not in k and "Approximate" not in k})
        listed = self.own.s3.list_objects_v2(Bucket=self.bucket)["Contents"]
        return found, [one["Key"] for one in listed], Work(self.own, self.plan).rows


def _policy(statement: Any) -> str:
    return json.dumps({"Version": "2012-10-17", "Statement": [statement]})


def founded(emulator: Emulator, out: Path, names: Sequence[str] = ("north", "south"), **changes: Any) -> Place:
    """A federation of a coordinator and some sites, not made yet; everything in the emulator is forgotten."""
    emulator.reset()
    settings = AwsSettings(**{
        "region": "eu-central-1", "bucket": f"bodies-{os.getpid()}-{next(NUMBERS)}", "endpoint": emulator.endpoint,
        "role": ROLE, "external_id": "trial-{name}", **changes,
    })  # fmt: skip
    own = clients(settings.model_copy(update={"role": None}), "administrator")
    sites = tuple(Participant(name, bytes([at + 1]) * 32) for at, name in enumerate(names))
    members = (Participant("hub", b"\xff" * 32, coordinator=True), *sites)
    return Place(emulator, own, make_plan(settings, "trial", members, caller(own)), out)
