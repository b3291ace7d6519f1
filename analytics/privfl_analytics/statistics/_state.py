"""Reading what an earlier stage left: a peer may have sent it, so nothing is taken on trust."""

from __future__ import annotations

import math
from collections.abc import Sequence

from privfl.errors import Misuse
from privfl_analytics.statistic import State

__all__ = ["floats_of", "names_of"]


def floats_of(state: State, key: str, length: int, limit: float = 1e300) -> list[float]:
    """Exactly so many finite numbers of at most this magnitude.

    Raises:
        Misuse: they are not there, or are something else.
    """
    found = state.get(key)
    if not isinstance(found, list | tuple) or len(found) != length:
        raise Misuse(f"an earlier round's result should have {length} numbers {key!r} and has not; start anew")
    for one in found:
        if isinstance(one, bool) or not isinstance(one, int | float) or not math.isfinite(one) or abs(one) > limit:
            raise Misuse(f"an earlier round's {key!r} has something that is no usable number; start anew")
    return [float(one) for one in found]


def names_of(state: State, key: str, allowed: Sequence[str]) -> tuple[str, ...]:
    """Some of the allowed names; raises Misuse for anything else."""
    found = state.get(key, ())
    if not isinstance(found, list | tuple) or any(one not in allowed for one in found):
        raise Misuse(f"an earlier round's {key!r} should name some of {', '.join(allowed)}; start anew")
    return tuple(found)
