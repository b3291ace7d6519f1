"""Flower: the whole federation carried by SuperLink and SuperNodes, and existing Flower apps made private.

Needs the extra ``privfl[flower]``; nothing else of privfl imports this room. The names below are loaded when they are
first used: Flower starts a process for each message, which should load no more than it needs.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

_WHERE = {
    "Courier": "privfl.flower.courier",
    "LocalGrid": "privfl.flower.local_grid",
    "PrivateResult": "privfl.flower.private_strategy",
    "PrivateStrategy": "privfl.flower.private_strategy",
    "coordinator_app": "privfl.flower.server",
    "private": "privfl.flower.private_app",
    "serve": "privfl.flower.server",
    "site_app": "privfl.flower.client",
}

__all__ = [
    "Courier",
    "LocalGrid",
    "PrivateResult",
    "PrivateStrategy",
    "coordinator_app",
    "private",
    "serve",
    "site_app",
]

if TYPE_CHECKING:
    from privfl.flower.client import site_app
    from privfl.flower.courier import Courier
    from privfl.flower.local_grid import LocalGrid
    from privfl.flower.private_app import private
    from privfl.flower.private_strategy import PrivateResult, PrivateStrategy
    from privfl.flower.server import coordinator_app, serve


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'privfl.flower' has no attribute {name!r}")
    value = getattr(importlib.import_module(_WHERE[name]), name)
    globals()[name] = value
    return value
