"""Secure aggregation: one masked upload per site, one release by a committee, one sum opened.

Pure: entropy and time are arguments, and every state is a value that is dumped and loaded as bytes.
``docs/protocol.md`` holds the argument; :class:`SiteMachine` and :class:`CoordinatorMachine` are the door.
"""

from privfl.secagg.accumulate import Accumulator
from privfl.secagg.coordinator import SlotPlan
from privfl.secagg.coordinator_machine import CoordinatorMachine, Shelf
from privfl.secagg.graph import check_degree, degree_for
from privfl.secagg.messages import (
    ABORT,
    Advert,
    Announcement,
    Ask,
    Confirmations,
    Contribution,
    EpochRecord,
    Header,
    Release,
    Scope,
    Upload,
    Vote,
)
from privfl.secagg.party import Equivocation, Party, RolledBack, Rules, Unconfirmed
from privfl.secagg.reconstruct import Blame, TooFewShares
from privfl.secagg.site import Outgoing, SlotEntropy
from privfl.secagg.site_machine import SiteMachine
from privfl.secagg.transcript import OpenedSum, Transcript, Verified, read_transcript, verify_transcript
from privfl.secagg.transitions import TABLES, mermaid

__all__ = [
    "ABORT",
    "TABLES",
    "Accumulator",
    "Advert",
    "Announcement",
    "Ask",
    "Blame",
    "Confirmations",
    "Contribution",
    "CoordinatorMachine",
    "EpochRecord",
    "Equivocation",
    "Header",
    "OpenedSum",
    "Outgoing",
    "Party",
    "Release",
    "RolledBack",
    "Rules",
    "Scope",
    "Shelf",
    "SiteMachine",
    "SlotEntropy",
    "SlotPlan",
    "TooFewShares",
    "Transcript",
    "Unconfirmed",
    "Upload",
    "Verified",
    "Vote",
    "check_degree",
    "degree_for",
    "mermaid",
    "read_transcript",
    "verify_transcript",
]
