"""Who may do what: the policies of a federation as documents that a cloud administrator can read.

Pure functions, from a :class:`Plan` to JSON. A site's may only what the wire does: receive its own queue, send to the
coordinator's, write bodies below its own prefix of the coordinator's inbox, read its own inbox. No action and no
resource is ``*`` where AWS takes a name. What refuses everybody (plain http, other encryption, a second write of one
body, strangers) lies in the policies of the queues, the bucket and the key, where no member can change it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from privfl.wires.aws.names import FEDERATION_TAG, body_prefixes, lease_key, slug
from privfl.wires.aws.policies_plan import MANY, PROBE, Participant, Plan

__all__ = [
    "Document",
    "administrator_policy",
    "bucket_policy",
    "key_policy",
    "member_policy",
    "queue_policy",
    "trust_policy",
]

Document = dict[str, Any]
VERSION = "2012-10-17"  # of the policy language
_USE = ["sqs:ReceiveMessage", "sqs:DeleteMessage", "sqs:ChangeMessageVisibility"]
# AWS asks for the same permission for one message and for a batch; emulators ask for each by its name
_OWN = ["sqs:ReceiveMessage", "sqs:DeleteMessage*", "sqs:ChangeMessageVisibility*", "sqs:GetQueueUrl",
        "sqs:GetQueueAttributes", "sqs:ListQueueTags"]  # fmt: skip
_SSE = "s3:x-amz-server-side-encryption"


def _document(statements: Iterable[Document]) -> Document:
    return {"Version": VERSION, "Statement": list(statements)}


def _allow(sid: str, actions: Sequence[str], resources: str | Sequence[str], **more: Any) -> Document:
    names = [resources] if isinstance(resources, str) else list(resources)
    return {"Sid": sid, "Effect": "Allow", "Action": list(actions), "Resource": names, **more}


def _deny(sid: str, actions: Sequence[str], resources: Sequence[str], condition: Document) -> Document:
    return {
        "Sid": sid, "Effect": "Deny", "Principal": "*", "Action": list(actions), "Resource": list(resources),
        "Condition": condition,
    }  # fmt: skip


def member_policy(plan: Plan, member: Participant) -> Document:
    """What a member's role is allowed; everything else is denied by default."""
    rules = _coordinator(plan) if member.coordinator else _site(plan, member)
    own = _allow("ReceiveOwnQueue", _OWN, plan.queue_of(member))
    allowed_by_key = plan.own_key and plan.roles is not None
    key = [] if plan.key is None or allowed_by_key else _through_services(plan)
    return _document([own, *rules, *key])


def _site(plan: Plan, site: Participant) -> list[Document]:
    to = plan.written(site, plan.coordinator)
    return [
        _allow("SendToCoordinator", ["sqs:SendMessage"], plan.queue_of(plan.coordinator)),
        _allow("WriteToCoordinator", ["s3:PutObject", "s3:AbortMultipartUpload"], plan.objects(f"{to}*")),
        _allow("ReadWhatIsAddressedHere", ["s3:GetObject"], plan.objects(f"{plan.inbox(site)}*")),
        _allow("RemoveOwnProbes", ["s3:DeleteObject"], plan.objects(f"{to}{PROBE}/*")),
    ]


def _coordinator(plan: Plan) -> list[Document]:
    coordinator = plan.coordinator
    root = body_prefixes(plan.federation, coordinator.id).everything
    own = plan.objects(f"{root}*/{coordinator.id.hex()}/*")
    put = ["s3:PutObject", "s3:AbortMultipartUpload", "s3:GetObject", "s3:DeleteObject"]  # get: to copy for the next
    lease = plan.objects(lease_key(plan.federation))
    return [
        *_to_sites(plan),
        _allow("WriteToSites", put, own),
        _allow("ReadAndDropUploads", ["s3:GetObject", "s3:DeleteObject"], plan.objects(f"{plan.inbox(coordinator)}*")),
        _allow("HoldTheLease", ["s3:GetObject", "s3:PutObject", "s3:DeleteObject"], lease),
    ]


def _to_sites(plan: Plan) -> list[Document]:
    """Each site's queue by its name; of many those with the federation's tag, but for dead letters and the probe."""
    if len(plan.sites) <= MANY:
        return [_allow("SendToSites", ["sqs:SendMessage"], [plan.queue_of(one) for one in plan.sites])]
    ours = {"StringEquals": {f"aws:ResourceTag/{FEDERATION_TAG}": slug(plan.federation)}}
    never = [plan.queue(f"{plan.everything}*-dlq"), plan.queue(plan.probe_queue)]
    return [
        _allow("SendToSites", ["sqs:SendMessage"], plan.queue(f"{plan.everything}*"), Condition=ours),
        {"Sid": "NeverToDeadLetters", "Effect": "Deny", "Action": ["sqs:SendMessage"], "Resource": never},
    ]


def _through_services(plan: Plan, principals: Sequence[str] = ()) -> list[Document]:
    """Use of the key through S3 for this bucket, and through SQS for these queues; never by itself."""
    region, who = plan.settings.region, {"ArnLike": {"aws:PrincipalArn": list(principals)}} if principals else {}
    both = ["kms:GenerateDataKey", "kms:Decrypt"]
    bound = {
        "s3": [plan.bucket, plan.objects(f"{slug(plan.federation)}/*")],
        "sqs": [plan.queue(plan.any_member), plan.queue(plan.any_member + "-dlq")],
    }
    return [
        {
            "Sid": f"UseThrough{service.upper()}",
            "Effect": "Allow",
            **({"Principal": {"AWS": "*"}} if principals else {}),
            "Action": both,
            "Resource": ["*" if principals else plan.key],  # in a key's own policy * is this key, and has to be written
            "Condition": {
                "StringEquals": {
                    "kms:ViaService": f"{service}.{region}.amazonaws.com",
                    "kms:CallerAccount": plan.account,
                },
                "StringLike": {f"kms:EncryptionContext:aws:{service}:arn": arns},
                **who,
            },
        }
        for service, arns in bound.items()
    ]


def queue_policy(plan: Plan, member: Participant | None, *, dead: bool = False) -> Document | None:
    """Of a member's queue (``dead``: its dead-letter queue; no member: the probe queue); None if it says nothing.

    Data is refused to strangers even if another policy of the account allows it. Nothing that changes a queue's
    settings is refused here, so that nobody is locked out by a wrong name.
    """
    name = plan.queue(plan.probe_queue) if member is None else plan.dlq_of(member) if dead else plan.queue_of(member)
    rules = [] if plan.plain else [_deny("DenyPlainHttp", ["sqs:*"], [name], _PLAIN_HTTP)]
    if plan.roles is not None:
        nobody, kept = dead or member is None, list(plan.administrators)
        senders = (plan.coordinator,) if member is not None and not member.coordinator else plan.sites
        reading = kept if nobody or member is None else [*plan.principals([member]), *kept]
        sending = kept if nobody else [*plan.principals(senders), *kept]
        rules += [
            _deny("DenyStrangersReading", _USE, [name], {"ArnNotLike": {"aws:PrincipalArn": reading}}),
            _deny("DenyStrangersSending", ["sqs:SendMessage"], [name], {"ArnNotLike": {"aws:PrincipalArn": sending}}),
        ]
    return _document(rules) if rules else None


_PLAIN_HTTP: Document = {"Bool": {"aws:SecureTransport": "false"}}


def bucket_policy(plan: Plan) -> Document:
    """Of the bucket: TLS only, the bucket's encryption only, and the first write of an upload stays."""
    uploads = plan.objects(f"{plan.inbox(plan.coordinator)}*")
    kind = "AES256" if plan.key is None else "aws:kms"
    rules = [] if plan.plain else [_deny("DenyPlainHttp", ["s3:*"], [plan.bucket, plan.objects("*")], _PLAIN_HTTP)]
    rules.append(_deny("DenyOtherEncryption", ["s3:PutObject"], [plan.objects("*")], _named_but_not(_SSE, [kind])))
    if plan.key is not None:
        keys = _named_but_not(f"{_SSE}-aws-kms-key-id", _called(plan, plan.key))
        rules.append(_deny("DenyOtherKeys", ["s3:PutObject"], [plan.objects("*")], keys))
    # parts of a long body carry no condition, their completion does
    unconditional = {"Null": {"s3:if-none-match": "true"}, "Bool": {"s3:ObjectCreationOperation": "true"}}
    rules.append(_deny("FirstWriteStays", ["s3:PutObject"], [uploads], unconditional))
    return _document(rules)


def _named_but_not(key: str, values: Sequence[str]) -> Document:
    """A request names something, and none of ``values``; one that names nothing gets the bucket's default."""
    return {"Null": {key: "false"}, "StringNotEquals": {key: list(values)}}


def _called(plan: Plan, key: str) -> list[str]:
    """Every name that a request may give the key: S3 compares the one that was given, or the ARN it stands for."""
    named = str(plan.settings.kms_key)
    aliases = [f"{key.rpartition(':')[0]}:{named}"] if named.startswith("alias/") else []
    return sorted({key, key.rpartition("/")[2], named, *aliases})


def key_policy(plan: Plan) -> Document:
    """Of the key: the account manages it, members use it through S3 and SQS for this federation alone."""
    root = f"arn:{plan.partition}:iam::{plan.account}:root"
    manage = {
        "Sid": "AccountManages",
        "Effect": "Allow",
        "Principal": {"AWS": root},
        "Action": "kms:*",
        "Resource": "*",
    }
    principals = plan.principals(plan.members)
    return _document([manage, *(_through_services(plan, principals) if principals else [])])


def trust_policy(plan: Plan, member: Participant, trusted: str) -> Document:
    """Who may assume a member's role: ``trusted`` (an ARN, ``{name}`` allowed), with the ExternalId if there is one."""
    settings = plan.settings
    tags = {f"aws:RequestTag/{name}": text.replace("{name}", member.name)
            for name, text in sorted(settings.session_tags.items())}  # fmt: skip
    equal = dict(tags)
    if settings.external_id is not None:
        equal["sts:ExternalId"] = settings.external_id.replace("{name}", member.name)
    rule: Document = {
        "Sid": "OnlyThisMember",
        "Effect": "Allow",
        "Principal": {"AWS": trusted.replace("{name}", member.name)},
        "Action": ["sts:AssumeRole", "sts:TagSession"] if tags else ["sts:AssumeRole"],
    }
    bound: Document = {"StringEquals": equal} if equal else {}
    if tags:  # and no others, which policies elsewhere may look at
        bound["ForAllValues:StringEquals"] = {"aws:TagKeys": sorted(settings.session_tags)}
    return _document([rule | ({"Condition": bound} if bound else {})])


def administrator_policy(plan: Plan) -> Document:
    """What init, check, destroy and redrive need; for whoever runs them, and for nobody else."""
    queue = ["Create", "Delete", "Tag"]
    sqs = [f"sqs:{verb}Queue" for verb in queue] + [f"sqs:{name}" for name in _QUEUE_ACTIONS]
    rules = [
        _allow("Queues", [*sqs, *_USE, "sqs:SendMessage"], plan.queue(plan.everything + "*")),
        _allow("ListQueues", ["sqs:ListQueues"], plan.queue("*")),
        _allow("Bucket", [f"s3:{name}" for name in _BUCKET_ACTIONS], plan.bucket),
        _allow("Bodies", [f"s3:{name}" for name in _OBJECT_ACTIONS], plan.objects("*")),
    ]
    if plan.settings.kms_key is not None:
        some = [plan.key] if plan.key else [f"arn:{plan.partition}:kms:{plan.settings.region}:{plan.account}:key/*"]
        alias = f"arn:{plan.partition}:kms:{plan.settings.region}:{plan.account}:alias/*"
        rules += [
            _allow(
                "MakeTheKey", ["kms:CreateKey", "kms:ListKeys", "kms:ListAliases"], "*"
            ),  # AWS takes no resource here
            _allow("TheKey", [f"kms:{name}" for name in _KEY_ACTIONS], [*some, alias]),
        ]
    if plan.roles is not None:
        roles = plan.principals(plan.members)
        rules += [
            _allow("Roles", [f"iam:{name}" for name in _ROLE_ACTIONS], roles),
            _allow("ListRoles", ["iam:ListRoles"], f"arn:{plan.partition}:iam::{plan.account}:role/*"),
            _allow("TryAsMembers", ["sts:AssumeRole", "sts:TagSession"], roles),
        ]
    return _document(rules)


_QUEUE_ACTIONS = ("GetQueueUrl", "GetQueueAttributes", "SetQueueAttributes", "ListQueueTags")
_BUCKET_ACTIONS = ("CreateBucket", "DeleteBucket", "ListBucket", "ListBucketVersions", "ListBucketMultipartUploads",
                   "GetBucketTagging", "PutBucketTagging", "GetBucketPolicy", "PutBucketPolicy", "GetBucketVersioning",
                   "GetEncryptionConfiguration", "PutEncryptionConfiguration", "GetLifecycleConfiguration",
                   "PutLifecycleConfiguration", "GetBucketPublicAccessBlock", "PutBucketPublicAccessBlock",
                   "PutBucketOwnershipControls")  # fmt: skip
_OBJECT_ACTIONS = ("GetObject", "PutObject", "DeleteObject", "DeleteObjectVersion", "AbortMultipartUpload")
_KEY_ACTIONS = ("DescribeKey", "ListResourceTags", "TagResource", "GetKeyPolicy", "PutKeyPolicy", "CreateAlias",
                "DeleteAlias", "GetKeyRotationStatus", "EnableKeyRotation", "ScheduleKeyDeletion", "GenerateDataKey",
                "Decrypt")  # fmt: skip
_ROLE_ACTIONS = ("CreateRole", "DeleteRole", "GetRole", "TagRole", "ListRoleTags", "UpdateAssumeRolePolicy",
                 "PutRolePolicy", "GetRolePolicy", "DeleteRolePolicy", "ListRolePolicies")  # fmt: skip
