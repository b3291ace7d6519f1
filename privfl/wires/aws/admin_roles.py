"""The members' roles, for those who want them made: one per member, to be assumed by whom the federation trusts."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from privfl.errors import Misuse
from privfl.wires.aws.admin import ABSENT, NAME_TAG, Work, ask, compact, foreign
from privfl.wires.aws.names import FEDERATION_TAG, slug
from privfl.wires.aws.policies import Document, member_policy, trust_policy

__all__ = ["INLINE", "check_roles", "ensure_roles", "role_of", "role_tags"]

INLINE = "privfl-wire"  # name of the policy within a role


def check_roles(work: Work, trusted: str | None) -> str:
    """Who may assume the roles; raises Misuse where roles cannot be made as asked."""
    plan = work.plan
    if plan.roles is None or ":role/" not in plan.roles or "{name}" not in plan.roles:
        raise Misuse(
            "to make roles their ARN has to be known: write role: arn:aws:iam::ACCOUNT:role/privfl-{name} in "
            "federation.yaml, or give --site-roles"
        )
    if plan.settings.external_id is None and trusted is None:
        raise Misuse(
            "nobody was named who may assume the roles: give --trust ARN ({name} stands for the member's name), or an "
            "external_id in federation.yaml, which then is asked of anyone in this account"
        )
    return trusted or f"arn:{plan.partition}:iam::{plan.account}:root"


def ensure_roles(work: Work, trusted: str) -> None:
    """Make each member's role with its trust policy and its policy, and correct what differs.

    Raises:
        Misuse: a role of that name is somebody else's, or the credentials may not.
    """
    iam: Any = work.clients.iam
    for member in work.plan.members:
        arn = str(work.plan.principal(member))
        path, name = role_of(arn)
        trust, policy = trust_policy(work.plan, member, trusted), member_policy(work.plan, member)
        marks = {FEDERATION_TAG: slug(work.plan.federation), NAME_TAG: member.name}
        found = ask("iam", arn, iam.get_role, RoleName=name, none=ABSENT)
        if found is None:
            if not work.dry:
                given: Any = {
                    "RoleName": name, "Path": path, "AssumeRolePolicyDocument": compact(trust),
                    "Description": f"privfl: {member.name} in {work.plan.federation}",
                    "Tags": [{"Key": key, "Value": value} for key, value in marks.items()],
                }  # fmt: skip
                ask("iam", arn, iam.create_role, **given)
                _allow(work, arn, policy)
            work.did("role", arn, "made")
            continue
        foreign("role", arn, role_tags(work, arn), work.plan)
        changed = _trusted(work, arn, found["Role"], trust) | _allow(work, arn, policy)
        work.did("role", arn, "changed" if changed else "kept")


def role_of(arn: str) -> tuple[str, str]:
    """Path and name of a role, from its ARN."""
    path, _, name = arn.partition(":role")[2].rpartition("/")
    return path + "/", name


def role_tags(work: Work, arn: str) -> dict[str, str]:
    """The tags of a role."""
    iam, name = work.clients.iam, role_of(arn)[1]
    found = ask("iam", arn, iam.list_role_tags, RoleName=name, none=ABSENT)
    return {} if found is None else {tag["Key"]: tag["Value"] for tag in found["Tags"]}


def _trusted(work: Work, arn: str, role: Mapping[str, Any], wanted: Document) -> bool:
    if _document(role.get("AssumeRolePolicyDocument")) == wanted:
        return False
    iam, name = work.clients.iam, role_of(arn)[1]
    if not work.dry:
        ask("iam", arn, iam.update_assume_role_policy, RoleName=name, PolicyDocument=compact(wanted))
    return True


def _allow(work: Work, arn: str, wanted: Document) -> bool:
    iam, name = work.clients.iam, role_of(arn)[1]
    found = ask("iam", arn, iam.get_role_policy, RoleName=name, PolicyName=INLINE, none=ABSENT)
    if found is not None and _document(found["PolicyDocument"]) == wanted:
        return False
    if not work.dry:
        given = compact(wanted)
        ask("iam", arn, iam.put_role_policy, RoleName=name, PolicyName=INLINE, PolicyDocument=given)
    return True


def _document(found: Any) -> Any:
    return json.loads(found) if isinstance(found, str) else found
