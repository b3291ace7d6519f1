"""Parts that other distributions add: found by entry points, loaded only when they are asked for.

Groups: ``privfl.questions`` (tag of a descriptor → function from its bytes to a question), ``privfl.jobs``
(kind of job file → how a coordinator reads and runs it), ``privfl.tables`` (how a bound table is checked where
it lies), ``privfl.statistics`` (functions that say which statistics there are) and ``privfl.commands`` (functions
that add commands). What is installed at a site was installed by its
operator; a peer can only name what is there.
"""

from __future__ import annotations

from functools import cache
from importlib.metadata import entry_points
from typing import Any

from privfl.errors import Misuse

__all__ = ["names", "plugin"]


@cache
def _found(group: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for entry in entry_points(group=group):
        other = found.setdefault(entry.name, entry)
        if other.value != entry.value:  # which of them would be found first is anybody's guess
            raise Misuse(
                f"two installed parts both provide {entry.name!a} of {group}: {other.value} and {entry.value}; "
                "uninstall the one that is not meant"
            )
    return found


def names(group: str) -> tuple[str, ...]:
    """Names in a group, sorted."""
    return tuple(sorted(_found(group)))


def plugin(group: str, name: str) -> Any:
    """Load one.

    Raises:
        KeyError: there is none of that name.
        Misuse: it is there, and a library that it needs is not.
    """
    entry = _found(group)[name]
    try:
        return entry.load()
    except ImportError as error:
        raise Misuse(
            f"{name!a} needs a library that is not here ({error.name}): pip install 'privfl[analytics]'"
        ) from None
