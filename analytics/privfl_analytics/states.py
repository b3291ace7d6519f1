"""What a statistic decides between stages, as canonical JSON: the only part of a stage's inputs that can vary."""

from __future__ import annotations

import json
from typing import Any

from privfl.errors import Malformed, Misuse
from privfl_analytics.statistic import State

__all__ = ["read_state", "state_text"]

#: A state takes at most so many characters.
MAX_STATE = 1 << 22


def state_text(state: State | None) -> str | None:
    """A state as canonical JSON; raises Misuse for what is no plain value."""
    if state is None:
        return None
    try:
        return json.dumps(state, sort_keys=True, separators=(",", ":"), allow_nan=False, default=_plain)
    except (TypeError, ValueError):
        raise Misuse("a statistic decided on something that is no finite plain value") from None


def _plain(value: Any) -> Any:
    if hasattr(value, "tolist"):
        return value.tolist()
    raise TypeError


def read_state(text: object) -> State | None:
    """Read a state; raises Malformed unless it is canonical."""
    if text is None:
        return None
    try:
        value: Any = json.loads(text) if isinstance(text, str) and len(text) <= MAX_STATE else None
        canonical = isinstance(value, dict) and state_text(value) == text
    except (ValueError, RecursionError, Misuse):
        canonical = False
    if not canonical:
        raise Malformed("the state of a query is not canonical JSON")
    state: State = value
    return state
