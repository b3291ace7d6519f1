"""A federation's cloud made by privfl itself, in the emulator, with users that assume its members' roles."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
from collections.abc import Iterator
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

    @contextlib.contextmanager
    def acting(self, name: str, monkeypatch: Any) -> Iterator[Clients]:
        """As a member: a user that may assume the roles it is trusted for, and nothing else; policies are enforced."""
        iam = self.own.iam
        iam.create_user(UserName=name)
        document = {"Effect": "Allow", "Action": ["sts:AssumeRole", "sts:TagSession"], "Resource": ["*"]}
        iam.put_user_policy(UserName=name, PolicyName="assume", PolicyDocument=json.dumps({"Statement": [document]}))
        key = iam.create_access_key(UserName=name)["AccessKey"]
        with monkeypatch.context() as patch:
            patch.setenv("AWS_ACCESS_KEY_ID", key["AccessKeyId"])
            patch.setenv("AWS_SECRET_ACCESS_KEY", key["SecretAccessKey"])
            self.emulator.enforce()
            made = clients(self.plan.settings, name)
            try:
                yield made
            finally:
                made.close()
                self.emulator.enforce(10**9)


def founded(emulator: Emulator, out: Path, **changes: Any) -> Place:
    """A federation of a coordinator and three sites, not made yet; everything in the emulator is forgotten."""
    emulator.reset()
    settings = AwsSettings(**{
        "region": "eu-central-1", "bucket": f"bodies-{os.getpid()}-{next(NUMBERS)}", "endpoint": emulator.endpoint,
        "role": ROLE, "external_id": "trial-{name}", **changes,
    })  # fmt: skip
    own = clients(settings.model_copy(update={"role": None}), "administrator")
    names = ("north", "south", "east")
    sites = tuple(Participant(name, bytes([at + 1]) * 32) for at, name in enumerate(names))
    members = (Participant("hub", b"\xff" * 32, coordinator=True), *sites)
    return Place(emulator, own, make_plan(settings, "trial", members, caller(own)), out)
