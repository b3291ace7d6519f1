"""``privfl wire aws init``: all of a federation's cloud, again and again until it is as it should be."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from privfl.errors import Misuse
from privfl.wires.aws.admin import Work
from privfl.wires.aws.admin_bucket import ensure_bucket
from privfl.wires.aws.admin_key import ensure_key
from privfl.wires.aws.admin_queues import ensure_queues
from privfl.wires.aws.admin_roles import check_roles, ensure_roles
from privfl.wires.aws.policies import (
    Document,
    administrator_policy,
    bucket_policy,
    key_policy,
    member_policy,
    queue_policy,
    trust_policy,
)
from privfl.wires.aws.policies_plan import Plan

__all__ = ["initialise", "policy_files"]


def initialise(work: Work, out: Path, *, create_roles: bool = False, trusted: str | None = None) -> None:
    """Make what is missing, correct what differs, and write the policies as files into ``out``.

    All of it is looked at before any of it is changed, so that what is somebody else's stops the work in time.

    Args:
        create_roles: also the members' roles, which ``trusted`` (an ARN; default: this account) may assume.

    Raises:
        Misuse: something of that name is somebody else's; a name or permission is wrong. WireError: AWS is away.
    """
    by = check_roles(work, trusted) if create_roles else None
    look = Work(work.clients, work.plan, dry=True)
    _everything(look, by)
    if work.dry:
        work.rows, work.plan = look.rows, look.plan
    else:
        _everything(work, by)
    _write(work, out, trusted)


def _everything(work: Work, by: str | None) -> None:
    ensure_key(work)
    ensure_queues(work)
    ensure_bucket(work)
    if by is not None:
        ensure_roles(work, by)


def policy_files(plan: Plan, trusted: str | None = None) -> Iterator[tuple[str, Document]]:
    """Every policy with the name of its file, below one folder."""
    by = trusted or f"arn:{plan.partition}:iam::{plan.account}:root"
    for member in plan.members:
        yield f"members/{member.name}.json", member_policy(plan, member)
        for folder, document in (
            ("queues", queue_policy(plan, member)),
            ("dead-letter-queues", queue_policy(plan, member, dead=True)),
        ):
            if document is not None:
                yield f"{folder}/{member.name}.json", document
        if plan.roles is not None and ":role/" in plan.roles:
            yield f"trust/{member.name}.json", trust_policy(plan, member, by)
    yield "bucket.json", bucket_policy(plan)
    yield "administrator.json", administrator_policy(plan)
    if plan.settings.kms_key is not None:
        yield "key.json", key_policy(plan)


def _write(work: Work, out: Path, trusted: str | None) -> None:
    for name, document in policy_files(work.plan, trusted):
        path, text = out / name, json.dumps(document, indent=2) + "\n"
        try:
            there = path.read_text(encoding="utf-8") if path.is_file() else None
            if there != text and not work.dry:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text, encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is no text"
            raise Misuse(f"{path} cannot be written ({reason}); choose another --dir") from None
        work.did("file", str(path), "kept" if there == text else "made" if there is None else "changed")
