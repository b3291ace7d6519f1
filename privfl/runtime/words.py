"""What several sites say, in few words."""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["by_reason"]


def by_reason(reasons: Mapping[str, str]) -> list[str]:
    """Each reason once, after the names of those who gave it.

    >>> by_reason({"south": "too much", "north": "too much", "east": "expired"})
    ['east: expired', 'north, south: too much']
    """
    groups: dict[str, list[str]] = {}
    for name, why in sorted(reasons.items()):
        groups.setdefault(why, []).append(name)
    return [f"{', '.join(names)}: {why}" for why, names in groups.items()]
