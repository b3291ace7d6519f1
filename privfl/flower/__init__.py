"""Flower: the whole federation carried by SuperLink and SuperNodes, and existing Flower apps made private.

Needs the extra ``privfl[flower]``; nothing else of privfl imports this room.
"""

from __future__ import annotations

__all__: list[str] = []
