"""Names of statistics that a policy permits and that nothing installed here knows: most often misspelt."""

from __future__ import annotations

from typing import TYPE_CHECKING

from privfl.declared_words import nearest
from privfl.errors import Misuse
from privfl.tasks import plugins

if TYPE_CHECKING:
    from privfl.budget import Policy

__all__ = ["unknown_statistics"]

GROUP = "privfl.statistics"


def unknown_statistics(policy: Policy) -> list[str]:
    """A sentence for each such name. Only warnings: a policy may name what another version knows."""
    if not policy.statistics:
        return []
    try:
        known = [name for part in plugins.names(GROUP) for name in plugins.plugin(GROUP, part)()]
    except Misuse:  # a library of analytics is not here, so nothing is known of its names
        return []
    found = []
    for name in policy.statistics if known else ():
        if name not in known:
            near = nearest(name, known)
            hint = f"did you mean {near}?" if near else "see: privfl study statistics"
            found.append(f"statistics names {name!r}, which nothing installed here knows; {hint}")
    return found
