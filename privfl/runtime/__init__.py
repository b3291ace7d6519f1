"""Where machines, wires, accounts and data meet: sites and coordinator at work, and federations of them."""

from privfl.runtime.coordinator import CoordinatorNode, MemoryShelf, RoundResult
from privfl.runtime.federation import Federation, Kill, Observer
from privfl.runtime.fit import Fit, PrivacyReport, Transcripts
from privfl.runtime.site import MemorySiteStore, SiteNode, SiteStore
from privfl.runtime.terms import Account, MemoryAccount, Terms

__all__ = [
    "Account",
    "CoordinatorNode",
    "Federation",
    "Fit",
    "Kill",
    "MemoryAccount",
    "MemoryShelf",
    "MemorySiteStore",
    "Observer",
    "PrivacyReport",
    "RoundResult",
    "SiteNode",
    "SiteStore",
    "Terms",
    "Transcripts",
]
