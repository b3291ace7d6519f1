"""The policies against AWS's own logic: each member can do what the wire does, and nothing that is another's."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from typing import Any

import pytest

from privfl.errors import Misuse
from privfl.wires.aws.admin_init import policy_files
from privfl.wires.aws.names import FEDERATION_TAG, lease_key, queue_name, slug
from privfl.wires.aws.policies import (
    administrator_policy,
    bucket_policy,
    key_policy,
    member_policy,
    queue_policy,
    trust_policy,
)
from privfl.wires.aws.policies_plan import Participant, Plan
from privfl.wires.settings import AwsSettings
from tests.wires.aws.evaluator import Request, allowed

ACCOUNT = "123456789012"
ROLES = f"arn:aws:iam::{ACCOUNT}:role/privfl-{{name}}"
ADMINISTRATOR = f"arn:aws:iam::{ACCOUNT}:user/admin"
STRANGER = f"arn:aws:iam::{ACCOUNT}:role/stranger"
KEY = f"arn:aws:kms:eu-central-1:{ACCOUNT}:key/1"
SQS = ("sqs:SendMessage", "sqs:ReceiveMessage", "sqs:DeleteMessage", "sqs:ChangeMessageVisibility", "sqs:PurgeQueue",
       "sqs:SetQueueAttributes", "sqs:DeleteQueue")  # fmt: skip
S3 = ("s3:PutObject", "s3:GetObject", "s3:DeleteObject", "s3:AbortMultipartUpload", "s3:PutObjectAcl")
FIRST = {"s3:if-none-match": "*", "s3:ObjectCreationOperation": "true"}


def planned(sites: int = 3, **changes: Any) -> Plan:
    """A plan with a coordinator and some sites."""
    fields = {"region": "eu-central-1", "bucket": "bodies", **changes.pop("settings", {})}
    members = tuple(Participant(f"site{at}", bytes([at + 1]) * 32) for at in range(sites))
    hub = Participant("hub", b"\xff" * 32, coordinator=True)
    given = {"roles": ROLES, "administrators": (ADMINISTRATOR,), **changes}
    return Plan(AwsSettings(**fields), "trial", ACCOUNT, (*members, hub), **given)


def may(plan: Plan, who: Participant, action: str, resource: str, **context: str) -> bool:
    """Whether AWS would allow it, by the member's policy and those of what it acts on."""
    attached: list[Any] = []
    if action.startswith("sqs:"):
        for one in (*plan.members, None):
            for dead in (False, True):
                name = plan.queue(plan.probe_queue) if one is None else plan.dlq_of(one) if dead else plan.queue_of(one)
                if name == resource:
                    context = {f"aws:ResourceTag/{FEDERATION_TAG}": slug(plan.federation), **context}
                    attached += filter(None, [queue_policy(plan, one, dead=dead)])
    else:
        attached.append(bucket_policy(plan))
        context = {**FIRST, **context}
    request = Request(plan.principal(who) or "x", action, resource, context)
    return allowed(request, [member_policy(plan, who)], attached)


def should(plan: Plan, who: Participant, action: str, resource: str) -> bool:
    """What the wire needs, said another way than the policies say it."""
    verb, bare = action.split(":")[1], f"arn:aws:s3:::bodies/{slug('trial')}/"
    if action.startswith("sqs:"):
        if verb == "SendMessage":
            to = plan.sites if who.coordinator else (plan.coordinator,)
            return resource in [plan.queue_of(one) for one in to]
        return verb in ("ReceiveMessage", "DeleteMessage", "ChangeMessageVisibility") and resource == plan.queue_of(who)
    if resource == f"arn:aws:s3:::bodies/{lease_key('trial')}":
        return who.coordinator and verb in ("GetObject", "PutObject", "DeleteObject")
    recipient, sender, *_ = resource.removeprefix(bare).split("/")
    mine, own = recipient == who.id.hex(), sender == who.id.hex()
    if who.coordinator:
        wanted = {"GetObject": mine or own, "DeleteObject": mine or own, "PutObject": own, "AbortMultipartUpload": own}
    else:
        up = own and recipient == plan.coordinator.id.hex()
        probe = up and "/probe/" in resource
        wanted = {"GetObject": mine, "DeleteObject": probe, "PutObject": up, "AbortMultipartUpload": up}
    return wanted.get(verb, False)


def everything(plan: Plan) -> list[tuple[str, str]]:
    """Every action on every queue and on a body, a probe and a lease between every two members."""
    queues = [plan.queue_of(one) for one in plan.members] + [plan.dlq_of(one) for one in plan.members]
    keys = [lease_key(plan.federation)]
    for sender, recipient in itertools.permutations(plan.members, 2):
        keys += [plan.written(sender, recipient) + "a" * 64, plan.written(sender, recipient) + "probe/x"]
    bodies = [plan.objects(key) for key in keys]
    return [
        *itertools.product(SQS, [*queues, plan.queue(plan.probe_queue)]),
        *itertools.product(S3, bodies),
    ]


@pytest.mark.parametrize("settings", [{}, {"kms_key": "alias/trial"}])
def test_exactly_what_the_wire_needs(settings: dict[str, str]) -> None:
    """Every action on every queue and object of a federation is allowed to a member just if the wire needs it."""
    plan = planned(settings=settings, key=KEY if settings else None)
    for who in plan.members:
        for action, resource in everything(plan):
            assert may(plan, who, action, resource) == should(plan, who, action, resource), (who, action, resource)


def test_many_sites_stay_within_bounds_and_apart() -> None:
    """With 200 sites the documents fit into what AWS takes, and a site still reaches no other site."""
    plan = planned(200, settings={"kms_key": "alias/trial"}, key=KEY, own_key=True)
    sizes = {name: len(json.dumps(document, separators=(",", ":"))) for name, document in policy_files(plan)}
    for name, size in sizes.items():
        bound = 20_480 if name == "bucket.json" else 32_768 if name == "key.json" else 6_144
        assert size <= bound, (name, size)
    one, other, hub = plan.sites[0], plan.sites[150], plan.coordinator
    for action, resource in (
        ("sqs:SendMessage", plan.queue_of(other)),
        ("sqs:ReceiveMessage", plan.queue_of(other)),
        ("s3:GetObject", plan.objects(plan.written(hub, other) + "a")),
        ("s3:PutObject", plan.objects(plan.written(other, hub) + "a")),
    ):
        assert not may(plan, one, action, resource)
    for site in plan.sites:
        assert may(plan, hub, "sqs:SendMessage", plan.queue_of(site))
        assert may(plan, site, "sqs:SendMessage", plan.queue_of(hub))
    assert not may(plan, hub, "sqs:ReceiveMessage", plan.queue_of(one))
    assert not may(plan, hub, "sqs:SendMessage", plan.dlq_of(one))
    bare = replace(plan, roles=None)  # where no queue refuses strangers, the member's own policy has to
    assert may(bare, hub, "sqs:SendMessage", plan.queue_of(one))
    assert not may(bare, hub, "sqs:SendMessage", plan.dlq_of(one))
    assert not may(bare, hub, "sqs:SendMessage", plan.queue(plan.probe_queue))


def test_a_stranger_with_every_right_of_its_own_is_refused_by_the_queues() -> None:
    """A role of the same account that may do everything reads and sends nothing; administrators may."""
    plan = planned()
    full = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]}
    for member, dead in itertools.product((*plan.members, None), (False, True)):
        policy = queue_policy(plan, member, dead=dead)
        for action in ("sqs:ReceiveMessage", "sqs:DeleteMessage", "sqs:SendMessage"):
            arn = policy["Statement"][0]["Resource"][0] if policy else ""
            assert not allowed(Request(STRANGER, action, arn), [full], [policy])
            assert allowed(Request(ADMINISTRATOR, action, arn), [full], [policy])
        assert allowed(Request(STRANGER, "sqs:SetQueueAttributes", arn), [full], [policy])  # nobody is locked out


def test_plain_http_is_refused_to_everyone() -> None:
    """Without TLS neither a member nor an administrator gets at queue or bucket."""
    plan, plain = planned(), {"aws:SecureTransport": "false"}
    site, hub = plan.sites[0], plan.coordinator
    assert may(plan, site, "sqs:ReceiveMessage", plan.queue_of(site))
    assert not may(plan, site, "sqs:ReceiveMessage", plan.queue_of(site), **plain)
    key = plan.objects(plan.written(hub, site) + "a")
    assert may(plan, site, "s3:GetObject", key)
    assert not may(plan, site, "s3:GetObject", key, **plain)


def test_the_bucket_takes_its_own_encryption_and_first_writes_only() -> None:
    """Another encryption or key, or a second write, is refused; parts of a long body need no condition."""
    sse = "s3:x-amz-server-side-encryption"
    sealed = planned(settings={"kms_key": "alias/trial"}, key=KEY)
    site = sealed.sites[0]
    key = sealed.objects(sealed.written(site, sealed.coordinator) + "a")
    assert may(sealed, site, "s3:PutObject", key)
    assert may(sealed, site, "s3:PutObject", key, **{sse: "aws:kms", f"{sse}-aws-kms-key-id": KEY})
    assert not may(sealed, site, "s3:PutObject", key, **{sse: "AES256"})
    assert not may(sealed, site, "s3:PutObject", key, **{sse: "aws:kms", f"{sse}-aws-kms-key-id": KEY + "2"})
    plain = planned()
    assert may(plain, site, "s3:PutObject", key, **{sse: "AES256"})
    assert not may(plain, site, "s3:PutObject", key, **{sse: "aws:kms"})
    part = Request(str(plain.principal(site)), "s3:PutObject", key, {"s3:ObjectCreationOperation": "false"})
    assert allowed(part, [member_policy(plain, site)], [bucket_policy(plain)])
    again = Request(str(plain.principal(site)), "s3:PutObject", key, {"s3:ObjectCreationOperation": "true"})
    assert not allowed(again, [member_policy(plain, site)], [bucket_policy(plain)])


@pytest.mark.parametrize("own_key", [True, False])
def test_the_key_serves_this_federation_alone(own_key: bool) -> None:
    """Members use it through S3 and SQS for this bucket and these queues; not by themselves, not for others."""
    plan = planned(settings={"kms_key": "alias/trial"}, key=KEY, own_key=own_key)
    site = plan.sites[0]
    s3 = {"kms:ViaService": "s3.eu-central-1.amazonaws.com", "kms:CallerAccount": ACCOUNT}
    queue = {"kms:ViaService": "sqs.eu-central-1.amazonaws.com", "kms:CallerAccount": ACCOUNT}
    bucket, body = "kms:EncryptionContext:aws:s3:arn", plan.objects("trial/x")

    def used(who: str, **context: str) -> bool:
        request = Request(who, "kms:Decrypt", KEY, context)
        rule = [one for one in key_policy(plan)["Statement"] if one["Sid"] != "AccountManages"]  # needs a policy of one
        return allowed(request, [member_policy(plan, site)], [{"Statement": rule}] if own_key else [])

    me = str(plan.principal(site))
    assert used(me, **s3, **{bucket: plan.bucket})
    assert used(me, **s3, **{bucket: body})
    assert used(me, **queue, **{"kms:EncryptionContext:aws:sqs:arn": plan.queue_of(site)})
    assert not used(me, **{"kms:CallerAccount": ACCOUNT})
    assert not used(me, **{bucket: plan.bucket, "kms:CallerAccount": ACCOUNT})
    assert not used(me, **s3, **{bucket: "arn:aws:s3:::other"})
    assert not used(me, **s3, **{bucket: plan.objects("trial2/x")})
    assert not used(me, **queue, **{"kms:EncryptionContext:aws:sqs:arn": plan.queue("privfl-trial-2-" + 32 * "a")})
    assert not own_key or not used(STRANGER, **s3, **{bucket: plan.bucket})


def test_no_star_where_a_name_can_stand() -> None:
    """No member's policy has an action or a resource that is *, or an action of a whole service."""
    plan = planned(settings={"kms_key": "alias/trial"}, key=KEY)
    for who in plan.members:
        for statement in member_policy(plan, who)["Statement"]:
            assert statement["Effect"] == "Allow"
            assert not any(action.endswith(":*") or action == "*" for action in statement["Action"])
            assert all(resource.count(":") >= 5 and resource != "*" for resource in statement["Resource"])
    stars = [one["Sid"] for one in administrator_policy(plan)["Statement"] if "*" in one["Resource"]]
    assert stars == ["MakeTheKey"]  # AWS takes no other resource for it


def test_trust_asks_for_the_external_id_and_the_tags() -> None:
    """A role is assumed by the one who was named, with the ExternalId and the session tags of the settings."""
    plan = planned(settings={"external_id": "trial-{name}", "session_tags": {"privfl": "{name}"}})
    site = plan.sites[0]
    document = trust_policy(plan, site, "arn:aws:iam::999999999999:user/{name}")
    by = "arn:aws:iam::999999999999:user/site0"
    document["Statement"][0]["Resource"] = "*"  # a trust policy has none
    right = {"sts:ExternalId": "trial-site0", "aws:RequestTag/privfl": "site0", "aws:TagKeys": "privfl"}
    for action in ("sts:AssumeRole", "sts:TagSession"):
        assert allowed(Request(by, action, "role", right), [], [document])
    for context in ({}, {**right, "sts:ExternalId": "trial-site1"}, {**right, "aws:RequestTag/privfl": "site1"},
                    {**right, "aws:TagKeys": "privfl,department"}):  # fmt: skip
        assert not allowed(Request(by, "sts:AssumeRole", "role", context), [], [document])
    assert not allowed(Request(by + "1", "sts:AssumeRole", "role", right), [], [document])


def test_two_federations_in_one_account_do_not_meet() -> None:
    """Members with the same ids in another federation reach nothing of this one, even if its name begins alike."""
    for sites, name in itertools.product((2, 30), ("trial2", "trial-2")):
        plan = planned(sites)
        other = Plan(plan.settings, name, ACCOUNT, planned(2).members, roles=ROLES)
        for who, (action, resource) in itertools.product((plan.sites[0], plan.coordinator), everything(other)):
            tagged = FIRST | {f"aws:ResourceTag/{FEDERATION_TAG}": slug(name)}
            assert not allowed(Request("x", action, resource, tagged), [member_policy(plan, who)], [])
    assert queue_name(plan.settings, "trial", bytes(32)) != queue_name(plan.settings, "trial2", bytes(32))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"roles": "privfl-{name}"}, "no ARN of a role or user"),
        ({"roles": "arn:aws:iam::999999999999:role/privfl-{name}"}, "is in account 999999999999"),
    ],
)
def test_roles_that_cannot_be(changes: dict[str, str], says: str) -> None:
    """A pattern that is no ARN, or is another account's, is a mistake to be told."""
    with pytest.raises(Misuse, match=says):
        planned(**changes)


def test_a_federation_has_one_coordinator() -> None:
    """Neither none nor two."""
    plan = planned()
    for members in (plan.sites, (*plan.members, Participant("hub2", b"\xee" * 32, coordinator=True))):
        with pytest.raises(Misuse, match="one coordinator"):
            Plan(plan.settings, "trial", ACCOUNT, members)


def test_names_without_a_role_and_at_an_emulator() -> None:
    """Without known roles queues refuse no stranger, and over plain http nothing refuses plain http."""
    plan = planned(roles=None, settings={"kms_key": "alias/trial"}, key=KEY, own_key=True)
    policy = queue_policy(plan, plan.sites[0])
    assert policy is not None
    assert [one["Sid"] for one in policy["Statement"]] == ["DenyPlainHttp"]
    assert any("kms:Decrypt" in one["Action"] for one in member_policy(plan, plan.sites[0])["Statement"])
    assert queue_policy(planned(roles=None, plain=True), plan.sites[0]) is None
    assert "DenyPlainHttp" not in json.dumps(bucket_policy(planned(plain=True)))


def test_the_longest_names_fit() -> None:
    """25 sites listed one by one, with names, prefix and role paths as long as they may be, stay within all bounds."""
    long = Plan(
        AwsSettings(region="ap-southeast-1", bucket="b" * 63, prefix="p" * 24, kms_key="alias/" + "k" * 200),
        "A federation with a name that is cut",
        ACCOUNT,
        (*(Participant(f"{at:02d}" + "n" * 46, bytes([at + 1]) * 32) for at in range(25)), planned().coordinator),
        roles=f"arn:aws:iam::{ACCOUNT}:role/" + "path/" * 90 + "privfl-{name}",
        administrators=(ADMINISTRATOR,),
        key=KEY,
    )
    for name, document in policy_files(long):
        size = len(json.dumps(document, separators=(",", ":")))
        assert size <= (8_192 if "queue" in name else 20_480 if name == "bucket.json" else 6_144), (name, size)


def test_the_key_may_be_named_in_any_way_and_no_other() -> None:
    """S3 compares what a request called the key, or what that stands for: id, ARN, alias and alias's ARN will do."""
    sse = "s3:x-amz-server-side-encryption"
    plan = planned(settings={"kms_key": "alias/trial"}, key=KEY)
    key = plan.objects(plan.written(plan.sites[0], plan.coordinator) + "a")
    alias = f"arn:aws:kms:eu-central-1:{ACCOUNT}:alias/trial"
    for name, right in ((KEY, True), ("1", True), ("alias/trial", True), (alias, True), ("alias/other", False)):
        given = {sse: "aws:kms", f"{sse}-aws-kms-key-id": name}
        assert may(plan, plan.sites[0], "s3:PutObject", key, **given) == right
