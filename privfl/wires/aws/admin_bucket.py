"""The bucket: private, encrypted, emptied by its own rules; and the small objects that checks read."""

from __future__ import annotations

from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from privfl.errors import Misuse
from privfl.wires.aws.admin import ABSENT, Work, ask, compact, error_code, foreign, same
from privfl.wires.aws.errors import translated
from privfl.wires.aws.names import FEDERATION_TAG, body_prefixes, slug
from privfl.wires.aws.policies import bucket_policy

__all__ = ["bucket_tags", "ensure_bucket", "ensure_policy"]

PLANTED = b"+"  # one byte, so that the rule which removes bodies can tell it from them, and it stays
_PRIVATE: Any = {
    "BlockPublicAcls": True, "IgnorePublicAcls": True, "BlockPublicPolicy": True, "RestrictPublicBuckets": True,
}  # fmt: skip


def ensure_bucket(work: Work) -> None:
    """Make the bucket and correct what differs; versions are off, since whatever is let go should be gone.

    Raises:
        Misuse: the bucket is somebody else's, or the credentials may not.
    """
    there = _ours(work)
    if not there and not work.dry:
        _make(work)
    work.did("bucket", work.plan.settings.bucket, "kept" if there else "made")
    if there or not work.dry:
        _ensure_settings(work)
        _plant(work)


def bucket_tags(work: Work) -> dict[str, str] | None:
    """The bucket's tags; None if there is no such bucket. Raises Misuse if it is in another account."""
    name, s3 = work.plan.settings.bucket, work.clients.s3
    try:
        s3.head_bucket(Bucket=name, ExpectedBucketOwner=work.plan.account)
    except ClientError as error:
        if error_code(error) in ABSENT:
            return None
        if error_code(error) in ("403", "AccessDenied"):
            raise Misuse(
                f"the bucket {name} is another account's, or these credentials lack s3:ListBucket on "
                f"{work.plan.bucket}; names of buckets are the world's, so choose one that nobody has"
            ) from None
        raise translated(error, "s3", work.plan.bucket, opening=True) from None
    except BotoCoreError as error:
        raise translated(error, "s3", work.plan.bucket, opening=True) from None
    found = ask("s3", work.plan.bucket, s3.get_bucket_tagging, Bucket=name, none=ABSENT)
    return {} if found is None else {tag["Key"]: tag["Value"] for tag in found["TagSet"]}


def _ours(work: Work) -> bool:
    """Whether the bucket is there and the federation's; an empty one that nobody has marked is taken."""
    marks = bucket_tags(work)
    if marks is None:
        return False
    name, s3 = work.plan.settings.bucket, work.clients.s3
    if not marks:
        found: Any = ask("s3", work.plan.bucket, s3.list_object_versions, Bucket=name, MaxKeys=1)
        if found is not None and not (found.get("Versions") or found.get("DeleteMarkers")):
            if not work.dry:
                _mark(work)
            work.did("bucket tags", name, "changed", "it was empty and nobody's")
            return True
    foreign("bucket", name, marks, work.plan)
    return True


def _make(work: Work) -> None:
    region, name, s3 = work.plan.settings.region, work.plan.settings.bucket, work.clients.s3
    placed: Any = {} if region == "us-east-1" else {"CreateBucketConfiguration": {"LocationConstraint": region}}
    try:  # an empty bucket without a tag is taken by the next run, should this one end here
        s3.create_bucket(Bucket=name, ObjectOwnership="BucketOwnerEnforced", **placed)
    except ClientError as error:
        if error_code(error) == "BucketAlreadyExists":
            raise Misuse(f"the bucket {name} is another account's; choose another name in federation.yaml") from None
        raise translated(error, "s3", work.plan.bucket, opening=True) from None
    except BotoCoreError as error:
        raise translated(error, "s3", work.plan.bucket, opening=True) from None
    _mark(work)


def _mark(work: Work) -> None:
    s3, name = work.clients.s3, work.plan.settings.bucket
    marks: Any = {"TagSet": [{"Key": FEDERATION_TAG, "Value": slug(work.plan.federation)}]}
    ask("s3", work.plan.bucket, s3.put_bucket_tagging, Bucket=name, Tagging=marks)


def _ensure_settings(work: Work) -> None:
    bucket: dict[str, Any] = {"Bucket": work.plan.settings.bucket, "ExpectedBucketOwner": work.plan.account}
    s3: Any = work.clients.s3
    key = work.plan.settings.kms_key
    sealed: dict[str, Any] = {"SSEAlgorithm": "aws:kms", "KMSMasterKeyID": key} if key else {"SSEAlgorithm": "AES256"}
    encrypted = {"Rules": [{"ApplyServerSideEncryptionByDefault": sealed, "BucketKeyEnabled": bool(key)}]}
    for what, get, field, put, wanted in (
        ("public access", "get_public_access_block", "PublicAccessBlockConfiguration", "put_public_access_block",
         _PRIVATE),
        ("encryption", "get_bucket_encryption", "ServerSideEncryptionConfiguration", "put_bucket_encryption",
         encrypted),
        ("lifecycle", "get_bucket_lifecycle_configuration", "", "put_bucket_lifecycle_configuration",
         {"Rules": _rules(work)}),
    ):  # fmt: skip
        found = ask("s3", work.plan.bucket, getattr(s3, get), **bucket, none=ABSENT) or {}
        there = (found.get(field) if field else {"Rules": found.get("Rules")}) or {}
        differs = not _covers(there, wanted)
        if differs and not work.dry:
            given = {field or "LifecycleConfiguration": wanted}
            ask("s3", work.plan.bucket, getattr(s3, put), **bucket, **given)
        work.did(f"bucket {what}", bucket["Bucket"], "changed" if differs else "kept")
    versions = ask("s3", work.plan.bucket, s3.get_bucket_versioning, **bucket) or {}
    if versions.get("Status") == "Enabled":
        work.did("bucket versions", bucket["Bucket"], "noted", "they are on: what is deleted stays, and is charged")
    ensure_policy(work, bucket)


def ensure_policy(work: Work, bucket: dict[str, Any]) -> None:
    """Put the bucket's policy into place, unless it would refuse everybody."""
    name, s3 = bucket["Bucket"], work.clients.s3
    if work.plan.plain:
        work.did("bucket policy", name, "noted", "not set: over plain http it would refuse everybody; it is in a file")
        return
    wanted = compact(bucket_policy(work.plan))
    found = ask("s3", work.plan.bucket, s3.get_bucket_policy, **bucket, none=ABSENT)
    differs = found is None or not same(wanted, found["Policy"])
    if differs and not work.dry:
        ask("s3", work.plan.bucket, s3.put_bucket_policy, **bucket, Policy=wanted)
    work.did("bucket policy", name, "changed" if differs else "kept")


def _rules(work: Work) -> list[dict[str, Any]]:
    prefix = f"{slug(work.plan.federation)}/"
    return [
        {
            "ID": "privfl-bodies",
            "Status": "Enabled",
            "Filter": {"And": {"Prefix": prefix, "ObjectSizeGreaterThan": len(PLANTED)}},
            "Expiration": {"Days": work.plan.settings.retain_days},
        },
        {
            "ID": "privfl-unfinished",
            "Status": "Enabled",
            "Filter": {"Prefix": prefix},
            "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": 1},
        },
    ]


def _plant(work: Work) -> None:
    """An object for each member that it, and nobody else, can read."""
    s3, name = work.clients.s3, work.plan.settings.bucket
    made = 0
    for member in work.plan.members:
        key = work.plan.planted(member)
        arn = work.plan.objects(key)
        if ask("s3", arn, s3.head_object, Bucket=name, Key=key, none=ABSENT) is None:
            made += 1
            if not work.dry:
                ask("s3", arn, s3.put_object, Bucket=name, Key=key, Body=PLANTED, IfNoneMatch="*")
    note = "what privfl wire aws check reads"
    work.did("objects", body_prefixes(work.plan.federation, bytes(32)).everything, "made" if made else "kept", note)


def _covers(there: Any, wanted: Any) -> bool:
    """Whether everything wanted is there; AWS adds fields of its own, and other stores know no sizes in rules."""
    if isinstance(wanted, dict):
        wanted = {name: value for name, value in wanted.items() if name != "ObjectSizeGreaterThan"}
        return isinstance(there, dict) and all(_covers(there.get(name), value) for name, value in wanted.items())
    if isinstance(wanted, list):
        return isinstance(there, list) and len(there) == len(wanted) and all(map(_covers, there, wanted))
    return bool(there == wanted) or (wanted is False and there is None)
