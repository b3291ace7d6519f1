"""What a site's rows are called where an app loads them itself: the policy's own words for them."""

from __future__ import annotations

from pathlib import Path

from privfl.budget import Policy
from privfl.errors import Misuse
from privfl.tasks.schema import Category, Column, Numeric, Schema, Text

__all__ = ["app_schema"]


def app_schema(policy: Policy, pinned: Path | None = None) -> Schema:
    """The schema under which an app answers, the same at every member that holds this policy.

    A policy that pins a schema by its digest has exactly that one, from a file; otherwise name, version and allowed
    columns are the policy's. privfl reads no column of an app's rows, so none of them bounds anything.

    Args:
        pinned: file of the schema, needed where the policy names a digest.

    Raises:
        Misuse: the file is needed and missing, or is another schema than the policy's.
    """
    if policy.schema_digest is None:
        columns = {name: _column(allowed) for name, allowed in policy.columns.items()}
        return Schema(name=policy.dataset, version=policy.schema_version, records=policy.subjects, columns=columns)
    if pinned is None or not pinned.is_file():
        raise Misuse(
            f"the policy pins its schema by the digest {policy.schema_digest[:16]}…; name that file: at a site "
            "by the node's configuration privfl-schema, at the coordinator by schema="
        )
    schema = Schema.from_yaml(pinned)
    if schema.digest.hex() != policy.schema_digest:
        raise Misuse(f"{pinned} is not the schema that the policy pins; its digest is {schema.digest.hex()[:16]}…")
    return schema


def _column(allowed: object) -> Column:
    classes, length = getattr(allowed, "classes", ()), getattr(allowed, "max_length", None)
    if length is not None:
        return Text(max_length=length)
    if classes:
        return Category(classes=tuple(classes))
    return Numeric(lower=allowed.lower, upper=allowed.upper)  # type: ignore[attr-defined,call-arg]
