"""Where machines, wires, accounts and data meet: sites and coordinator at work, and federations of them."""

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
