"""How AWS decides whether a request is allowed, for the parts of the policy language that privfl's policies use.

Written from AWS's description of its evaluation logic within one account; knows nothing of how the policies are made.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Request:
    """Who asks for what. ``context``: the keys that conditions look at."""

    principal: str
    action: str
    resource: str
    context: Mapping[str, str] = field(default_factory=dict)


def allowed(request: Request, identity: Iterable[Any], resource: Iterable[Any]) -> bool:
    """Whether one of the policies allows it and none denies it."""
    verdicts = [_verdict(request, one, attached=False) for one in identity]
    verdicts += [_verdict(request, one, attached=True) for one in resource]
    return "Deny" not in verdicts and "Allow" in verdicts


def _verdict(request: Request, document: Any, *, attached: bool) -> str | None:
    effects = {one["Effect"] for one in document["Statement"] if _applies(request, one, attached=attached)}
    return "Deny" if "Deny" in effects else "Allow" if "Allow" in effects else None


def _applies(request: Request, statement: Any, *, attached: bool) -> bool:
    if attached and not _is_principal(request.principal, statement["Principal"]):
        return False
    if not any(_like(one.lower(), request.action.lower()) for one in _many(statement["Action"])):
        return False
    if not any(_like(one, request.resource) for one in _many(statement["Resource"])):
        return False
    context = {"aws:PrincipalArn": request.principal, "aws:SecureTransport": "true", **request.context}
    return all(
        _holds(operator, context.get(key), [str(one) for one in _many(values)])
        for operator, keys in statement.get("Condition", {}).items()
        for key, values in keys.items()
    )


def _is_principal(principal: str, named: Any) -> bool:
    if named == "*":
        return True
    return any(one in ("*", principal) or one.endswith(":root") for one in _many(named["AWS"]))


def _holds(operator: str, value: str | None, wanted: list[str]) -> bool:
    if operator.startswith("ForAllValues:"):  # several are written with a comma here; none at all passes
        each = value.split(",") if value else []
        return all(_holds(operator.removeprefix("ForAllValues:"), one, wanted) for one in each)
    if operator == "Null":
        return (value is None) == (wanted == ["true"])
    if operator.endswith("IfExists"):
        return value is None or _holds(operator.removesuffix("IfExists"), value, wanted)
    if "Not" in operator:
        return value is None or not _holds(operator.replace("Not", ""), value, wanted)
    if value is None:
        return False
    if operator in ("ArnLike", "StringLike"):
        return any(_like(one, value) for one in wanted)
    assert operator in ("StringEquals", "Bool"), operator
    return value in wanted


def _like(pattern: str, text: str) -> bool:
    return re.fullmatch(re.escape(pattern).replace(r"\*", ".*").replace(r"\?", "."), text) is not None


def _many(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]
