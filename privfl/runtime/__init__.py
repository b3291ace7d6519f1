"""Where machines, wires, accounts and data meet: sites and coordinator at work, and federations of them.

The names below are loaded when they are first used: a process that is one site needs no coordinator, and one that
Flower starts for each message should load no more than it needs.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from privfl.budget import Account, MemoryAccount
    from privfl.runtime.coordinator import CoordinatorNode, RoundResult
    from privfl.runtime.federation import Federation, Kill, Observer
    from privfl.runtime.fit import Fit, PrivacyReport, Transcripts
    from privfl.runtime.shelves import FolderShelf, MemoryShelf
    from privfl.runtime.site import SiteNode
    from privfl.runtime.store import DurableSiteStore, MemorySiteStore, SiteStore
    from privfl.runtime.terms import Permission, PolicyTerms, Terms

__all__ = [
    "Account",
    "CoordinatorNode",
    "DurableSiteStore",
    "Federation",
    "Fit",
    "FolderShelf",
    "Kill",
    "MemoryAccount",
    "MemoryShelf",
    "MemorySiteStore",
    "Observer",
    "Permission",
    "PolicyTerms",
    "PrivacyReport",
    "RoundResult",
    "SiteNode",
    "SiteStore",
    "Terms",
    "Transcripts",
]

_WHERE = {
    "privfl.budget": ("Account", "MemoryAccount"),
    "privfl.runtime.coordinator": ("CoordinatorNode", "RoundResult"),
    "privfl.runtime.federation": ("Federation", "Kill", "Observer"),
    "privfl.runtime.fit": ("Fit", "PrivacyReport", "Transcripts"),
    "privfl.runtime.shelves": ("FolderShelf", "MemoryShelf"),
    "privfl.runtime.site": ("SiteNode",),
    "privfl.runtime.store": ("DurableSiteStore", "MemorySiteStore", "SiteStore"),
    "privfl.runtime.terms": ("Permission", "PolicyTerms", "Terms"),
}


def __getattr__(name: str) -> Any:
    for module, names in _WHERE.items():
        if name in names:
            value = globals()[name] = getattr(importlib.import_module(module), name)
            return value
    raise AttributeError(f"module 'privfl.runtime' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
