"""``privfl wire aws destroy``: what carries the federation's tag goes, and nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from privfl.errors import WireError
from privfl.wires.aws.admin import ABSENT, Work, ask, foreign
from privfl.wires.aws.admin_bucket import bucket_tags
from privfl.wires.aws.admin_key import find_key, ours
from privfl.wires.aws.admin_queues import our_queues
from privfl.wires.aws.admin_roles import INLINE, role_of, role_tags
from privfl.wires.aws.names import FEDERATION_TAG, slug

__all__ = ["DELETION_DAYS", "destroy"]

DELETION_DAYS = 30  # until KMS deletes a key for good; until then it can be had back
AT_ONCE = 1000  # objects per request


def destroy(work: Work) -> None:
    """Remove queues, bucket with all that is in it, roles, and schedule the key's deletion; twice is harmless.

    Raises:
        Misuse: the bucket of that name is somebody else's, or the credentials may not. WireError: AWS is away.
    """
    _bucket(work)
    for name, (url, _) in sorted(our_queues(work).items()):
        if not work.dry:
            ask("sqs", work.plan.queue(name), work.clients.sqs.delete_queue, QueueUrl=url, none=ABSENT)
        work.did("queue", name, "removed")
    _roles(work)
    _key(work)


def _bucket(work: Work) -> None:
    marks = bucket_tags(work)
    if marks is None:
        return
    name, s3 = work.plan.settings.bucket, work.clients.s3
    foreign("bucket", name, marks, work.plan)
    objects = uploads = 0
    for batch in _objects(work):
        objects += len(batch)
        if not work.dry:
            gone: Any = {"Objects": batch, "Quiet": True}
            found: Any = ask("s3", work.plan.objects("*"), s3.delete_objects, Bucket=name, Delete=gone)
            if failed := found.get("Errors"):
                code = str(failed[0].get("Code"))[:100]
                raise WireError(f"{len(failed)} objects of {name} stay ({code}); run the command again")
    for upload in _uploads(work):
        uploads += 1
        if not work.dry:
            ask("s3", work.plan.objects(upload["Key"]), s3.abort_multipart_upload, Bucket=name, none=ABSENT, **upload)
    if not work.dry:
        ask("s3", work.plan.bucket, s3.delete_bucket, Bucket=name, none=ABSENT)
    work.did("bucket", name, "removed", f"with {objects} object(s) and {uploads} unfinished upload(s)")


def _objects(work: Work) -> Iterator[list[Any]]:
    """Every object in every version, by the thousand."""
    name, s3 = work.plan.settings.bucket, work.clients.s3
    pages = iter(s3.get_paginator("list_object_versions").paginate(Bucket=name))
    while True:
        page: Any = ask("s3", work.plan.bucket, lambda: next(pages, None))
        if page is None:
            return
        both = [*page.get("Versions", []), *page.get("DeleteMarkers", [])]
        found = [{"Key": one["Key"], "VersionId": one["VersionId"]} for one in both]
        for at in range(0, len(found), AT_ONCE):
            yield found[at : at + AT_ONCE]


def _uploads(work: Work) -> list[dict[str, Any]]:
    name, s3 = work.plan.settings.bucket, work.clients.s3
    pages = s3.get_paginator("list_multipart_uploads").paginate(Bucket=name)
    listed: Any = ask("s3", work.plan.bucket, lambda: [one for page in pages for one in page.get("Uploads", [])])
    return [{"Key": one["Key"], "UploadId": one["UploadId"]} for one in listed or []]


def _roles(work: Work) -> None:
    """The roles that init made, also of members that have left the roster since."""
    roles, iam = work.plan.roles, work.clients.iam
    if roles is None or ":role/" not in roles or "{name}" not in roles:
        return
    before, _, after = role_of(roles)[1].partition("{name}")
    pages = iam.get_paginator("list_roles").paginate(PathPrefix=role_of(roles)[0])
    found: Any = ask("iam", roles, lambda: [role for page in pages for role in page["Roles"]])
    for role in found or []:
        name, arn = role["RoleName"], role["Arn"]
        if not (name.startswith(before) and name.endswith(after)):
            continue
        if role_tags(work, arn).get(FEDERATION_TAG) != slug(work.plan.federation):
            continue
        if not work.dry:
            ask("iam", arn, iam.delete_role_policy, RoleName=name, PolicyName=INLINE, none=ABSENT)
            ask("iam", arn, iam.delete_role, RoleName=name, none=ABSENT)
        work.did("role", arn, "removed")


def _key(work: Work) -> None:
    name, kms = work.plan.settings.kms_key, work.clients.kms
    found = None if name is None else find_key(work)
    if name is None or found is None:
        return
    arn = str(found["Arn"])
    if not ours(work, arn):
        work.did("key", name, "noted", "it is not privfl's and stays")
        return
    waiting = found.get("KeyState") == "PendingDeletion"
    if not work.dry:
        if not waiting:
            ask("kms", arn, kms.schedule_key_deletion, KeyId=str(found["KeyId"]), PendingWindowInDays=DELETION_DAYS)
        if name.startswith("alias/"):
            ask("kms", name, kms.delete_alias, AliasName=name, none=ABSENT)
    work.did("key", name, "removed", f"KMS deletes it in {DELETION_DAYS} days; until then it can be had back")
