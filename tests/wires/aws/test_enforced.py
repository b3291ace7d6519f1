"""Whole federations with IAM enforced by the emulator, each member with its own role and the policies that init wrote.

The emulator knows nothing of conditions and of queues', bucket's and key's policies; those are tried in test_policies.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from privfl.clock import SystemClock
from privfl.homes.coordinator import CoordinatorHome
from privfl.homes.site import SiteHome
from privfl.runtime.coordinator_process import Pace, run_coordinator
from privfl.runtime.site_process import run_site
from privfl.wires.aws import probe
from privfl.wires.aws.admin import Work, caller, make_plan
from privfl.wires.aws.admin_destroy import destroy
from privfl.wires.aws.admin_redrive import redrive
from privfl.wires.aws.emulator import Emulator, emulator
from privfl.wires.aws.errors import permission
from privfl.wires.aws.policies import administrator_policy, member_policy
from privfl.wires.aws.policies_plan import Participant, Plan
from privfl.wires.aws.probing import place_of
from privfl.wires.settings import AwsSettings
from tests.runtime.realm import PASSPHRASE, Realm, realm
from tests.wires.aws.admin_cloud import ACCOUNT, Place, founded

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")
PATIENT = Pace(gather=60_000, patience=60_000, grace=60_000)


@pytest.fixture(scope="module")
def emulated() -> Iterator[Emulator]:
    """An emulator of these tests alone."""
    with emulator() as found, found.at_hand():
        yield found


def keys_of(place: Place, name: str) -> dict[str, str]:
    """The environment of a member: the keys of a user that may assume the member's role, and nothing else."""
    iam = place.own.iam
    iam.create_user(UserName=name)
    role = str(place.plan.principal(place.member(name)))
    rule = {"Effect": "Allow", "Action": ["sts:AssumeRole"], "Resource": [role]}
    document = json.dumps({"Version": "2012-10-17", "Statement": [rule]})
    iam.put_user_policy(UserName=name, PolicyName="assume", PolicyDocument=document)
    made = iam.create_access_key(UserName=name)["AccessKey"]
    return {"AWS_ACCESS_KEY_ID": made["AccessKeyId"], "AWS_SECRET_ACCESS_KEY": made["SecretAccessKey"]}


def members(world: Realm, more: int) -> tuple[Participant, ...]:
    """The realm's, and some that never do anything."""
    found = [Participant(name, place_of(home).own) for name, home in world.trial.sites.items()]
    place = place_of(world.trial.coordinator)
    hub = Participant(place.name, place.own, coordinator=True)
    return (hub, *found, *(Participant(f"idle{at}", at.to_bytes(32, "big")) for at in range(1, more + 1)))


def made(world: Realm, emulated: Emulator, folder: Path, more: int) -> Place:
    """The realm's cloud, by init, and its members joined to it."""
    given: dict[str, Any] = {"visibility": 5, "poll": 1, "kms_key": None if more else "alias/trial"}
    place = founded(emulated, folder / "aws", prefix=f"e{os.getpid()}-{more}", **given)
    place.plan = make_plan(place.plan.settings, "trial", members(world, more), caller(place.own))
    place.init()
    path, now = folder / "federation.yaml", SystemClock().now()
    path.write_text(yaml.safe_dump({"federation": "trial", "wire": place.plan.settings.stored()}))
    for home in world.trial.sites.values():
        SiteHome.join(home, PASSPHRASE, now, wire=str(path))
    CoordinatorHome.join(world.trial.coordinator, PASSPHRASE, now, wire=str(path))
    return place


@pytest.mark.parametrize("more", [0, 23])
def test_a_federation_works_with_the_policies_that_init_wrote(tmp_path: Path, emulated: Emulator, more: int) -> None:
    """Each member its own process, user and role: trained to the end, nothing left over, and probed.

    With 26 sites in the roster the coordinator's policy names queues by a pattern.
    """
    with realm(tmp_path / "realm", 3) as world:
        place = made(world, emulated, tmp_path, more)
        hub = world.trial.coordinator
        homes = {place_of(hub).name: hub, **world.trial.sites}
        keys = {name: keys_of(place, name) for name in homes}

        def work(name: str) -> Any:
            os.environ.update(keys[name])
            if homes[name] == hub:
                return run_coordinator(hub, PASSPHRASE, stop=lambda: False, pace=PATIENT, once=True)
            return run_site(homes[name], PASSPHRASE, stop=lambda: False)

        job = world.submit(rounds=1, epsilon=4.0)
        emulated.enforce()
        try:
            for name in homes:
                world._start("coordinator" if homes[name] == hub else name, lambda name=name: work(name))
            world.wait("coordinator", 120)
            told = [path.read_text() for path in world.trial.folder.glob("*.error")]
            assert job.state().state == "done", (job.state(), told)
            with pytest.MonkeyPatch.context() as patch:
                for name, home in homes.items():
                    for variable, value in keys[name].items():
                        patch.setenv(variable, value)
                    assert probe(place.plan.settings, home).endswith("can be read")
            world.end()
        finally:
            emulated.enforce(10**9)
        left = [one["Key"] for one in place.own.s3.list_objects_v2(Bucket=place.bucket)["Contents"]]
        assert not [key for key in left if key.startswith(f"trial/{place_of(hub).own.hex()}/") and "probe" not in key]
        place.own.close()


@pytest.mark.parametrize("sites", [3, 30, 200])
def test_the_emulator_reads_the_coordinators_policy_as_aws_does(sites: int) -> None:
    """However many sites there are, each one's queue can be written, and no dead-letter queue and no probe queue."""
    from moto.iam.access_control import IAMPolicy, PermissionResult

    settings = AwsSettings(region="eu-central-1", bucket="bodies")
    names = tuple(Participant(f"site{at}", at.to_bytes(32, "big")) for at in range(1, sites + 1))
    plan = Plan(settings, "trial", ACCOUNT, (Participant("hub", b"\xff" * 32, coordinator=True), *names))
    policy = IAMPolicy(json.dumps(member_policy(plan, plan.coordinator)))
    for site in plan.sites:
        assert policy.is_action_permitted("sqs:SendMessage", plan.queue_of(site)) == PermissionResult.PERMITTED
        for queue in (plan.dlq_of(site), plan.queue(plan.probe_queue)):
            assert policy.is_action_permitted("sqs:SendMessage", queue) != PermissionResult.PERMITTED
        assert policy.is_action_permitted("sqs:ReceiveMessage", plan.queue_of(site)) != PermissionResult.PERMITTED


def test_the_administrators_policy_names_all_that_is_asked(tmp_path: Path, emulated: Emulator) -> None:
    """Every request of init, check, redrive and destroy needs a permission that administrator.json gives."""
    place, asked = founded(emulated, tmp_path / "aws", kms_key="alias/trial"), set[str]()

    def noted(service: str) -> Any:
        return lambda model, **_: asked.add(permission(service, model.name))

    for service in ("sqs", "s3", "kms", "iam"):
        getattr(place.own, service).meta.events.register("before-call", noted(service))
    place.init()
    place.init()
    place.own.s3.create_multipart_upload(Bucket=place.bucket, Key="trial/a")
    redrive(Work(place.own, place.plan), "north", 0)
    destroy(Work(place.own, place.plan))
    wanted = asked | {
        "s3:DeleteObjectVersion",
        "s3:PutBucketPolicy",
        "s3:GetBucketPolicy",
        "s3:PutBucketOwnershipControls",
    }
    allowed = {action for rule in administrator_policy(place.plan)["Statement"] for action in rule["Action"]}
    assert wanted - allowed == set()
    place.own.close()
