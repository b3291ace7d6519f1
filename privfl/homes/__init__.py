"""One folder per role: keys, sealed state, roster, policy, ledger and the binding of a site's data.

The names below are loaded when they are first used, so that asking for a passphrase needs no numpy.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

_WHERE = {
    "AuthorityHome": "authority",
    "CoordinatorHome": "coordinator",
    "Lock": "lock",
    "OfficerHome": "officer",
    "OpenCoordinator": "coordinator",
    "OpenSite": "site",
    "RosterTerms": "drafting",
    "SiteHome": "site",
    "State": "state",
    "Table": "site",
    "ask_passphrase": "passphrase",
    "read_rosters": "rosters",
}

__all__ = [
    "AuthorityHome",
    "CoordinatorHome",
    "Lock",
    "OfficerHome",
    "OpenCoordinator",
    "OpenSite",
    "RosterTerms",
    "SiteHome",
    "State",
    "Table",
    "ask_passphrase",
    "read_rosters",
]

if TYPE_CHECKING:
    from privfl.homes.authority import AuthorityHome
    from privfl.homes.coordinator import CoordinatorHome, OpenCoordinator
    from privfl.homes.drafting import RosterTerms
    from privfl.homes.lock import Lock
    from privfl.homes.officer import OfficerHome
    from privfl.homes.passphrase import ask_passphrase
    from privfl.homes.rosters import read_rosters
    from privfl.homes.site import OpenSite, SiteHome, Table
    from privfl.homes.state import State


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'privfl.homes' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"privfl.homes.{_WHERE[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
