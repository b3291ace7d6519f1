"""The key of encryption: made if ``kms_key`` names an alias that nobody has, otherwise looked at and left alone."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from privfl.errors import Misuse
from privfl.wires.aws.admin import ABSENT, Work, ask, compact, same
from privfl.wires.aws.names import FEDERATION_TAG, slug
from privfl.wires.aws.policies import key_policy
from privfl.wires.aws.policies_plan import Plan

__all__ = ["ensure_key", "find_key", "ours"]

ALIAS = "alias/"


def ensure_key(work: Work) -> None:
    """Make the key, its alias and its policy; the plan knows its ARN afterwards.

    Raises:
        Misuse: ``kms_key`` is no alias and there is no such key, or the credentials may not.
    """
    name = work.plan.settings.kms_key
    if name is None:
        return
    found = find_key(work)
    if found is not None:
        _look_at(work, name, found)
        return
    if not name.startswith(ALIAS):
        raise Misuse(
            f"there is no key {name} in this account and region; correct kms_key in federation.yaml, or write "
            "alias/NAME and it is made"
        )
    orphan = _unnamed(work)
    if work.dry:
        work.did("key", name, "made")
        return
    kms: Any = work.clients.kms
    if orphan is None:
        policy = compact(key_policy(work.plan))
        mark = [{"TagKey": FEDERATION_TAG, "TagValue": slug(work.plan.federation)}]
        told = f"privfl: bodies and messages of the federation {work.plan.federation}"
        made = ask("kms", name, kms.create_key, Policy=policy, Tags=mark, Description=told)
        assert made is not None
        orphan = made["KeyMetadata"]["Arn"]
    ask("kms", name, kms.create_alias, AliasName=name, TargetKeyId=orphan)
    work.plan = replace(work.plan, key=orphan, own_key=True)
    _rotating(work, name)
    work.did("key", name, "made", "it is renewed every year by AWS (rotation)")


def find_key(work: Work) -> dict[str, Any] | None:
    """What KMS says about the key that federation.yaml names; None if there is none."""
    name, kms = str(work.plan.settings.kms_key), work.clients.kms
    found = ask("kms", name, kms.describe_key, KeyId=name, none=ABSENT)
    return None if found is None else dict(found["KeyMetadata"])


def ours(work: Work, key: str) -> bool:
    """Whether a key carries the federation's tag."""
    kms = work.clients.kms
    found = ask("kms", key, kms.list_resource_tags, KeyId=key, none=(*ABSENT, "AccessDeniedException"))
    marks = {} if found is None else {tag["TagKey"]: tag["TagValue"] for tag in found.get("Tags", [])}
    return marks.get(FEDERATION_TAG) == slug(work.plan.federation)


def known_key(work: Work) -> Plan:
    """The plan with what is known of the key, if there is one; changes nothing."""
    if work.plan.settings.kms_key is None:
        return work.plan
    found = find_key(work)
    return work.plan if found is None else replace(work.plan, key=found["Arn"], own_key=ours(work, found["Arn"]))


def _look_at(work: Work, name: str, found: dict[str, Any]) -> None:
    arn, kms = str(found["Arn"]), work.clients.kms
    if found.get("KeyState") not in ("Enabled", None):
        raise Misuse(f"the key {name} is {str(found['KeyState']).lower()}: enable it (or cancel its deletion) first")
    mine = ours(work, arn)
    work.plan = replace(work.plan, key=arn, own_key=mine)
    if not mine:
        work.did("key", name, "noted", "it is not privfl's and stays as it is; the members' own policies allow its use")
        return
    wanted = compact(key_policy(work.plan))
    there = ask("kms", arn, kms.get_key_policy, KeyId=arn, PolicyName="default")
    differs = there is None or not same(wanted, there["Policy"])
    if differs and not work.dry:
        ask("kms", arn, kms.put_key_policy, KeyId=arn, PolicyName="default", Policy=wanted)
    turning = _rotating(work, name)
    work.did("key", name, "changed" if differs or turning else "kept", "policy" if differs else "")


def _rotating(work: Work, name: str) -> bool:
    """Have AWS renew the key every year; whether that was, or would be, changed."""
    kms, arn = work.clients.kms, str(work.plan.key)
    found = ask("kms", name, kms.get_key_rotation_status, KeyId=arn)
    if found is not None and found["KeyRotationEnabled"]:
        return False
    if not work.dry:
        ask("kms", name, kms.enable_key_rotation, KeyId=arn)
    return True


def _unnamed(work: Work) -> str | None:
    """A key that an init which broke off has made and not named yet."""
    kms = work.clients.kms
    pages = kms.get_paginator("list_keys").paginate()
    arns = ask("kms", "all keys", lambda: [key["KeyArn"] for page in pages for key in page["Keys"]]) or []
    for arn in arns:
        if ours(work, arn):
            found = ask("kms", arn, kms.describe_key, KeyId=arn)
            if found is not None and found["KeyMetadata"].get("KeyState") == "Enabled":
                return str(arn)
    return None
