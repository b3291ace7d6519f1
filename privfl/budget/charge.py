"""What a site is asked to let out, and what letting it out is charged for: public values, no row in them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from privfl.dp import Cost, Release, Trust, Unit

__all__ = ["Account", "Charge", "ColumnUse", "Proposal", "Purpose"]


class Purpose(StrEnum):
    """What a release is for; a policy gives each purpose a share of the budget."""

    TRAINING = "training"
    ANALYTICS = "analytics"
    MONITORING = "monitoring"


@dataclass(frozen=True)
class ColumnUse:
    """One column that a proposal reads: bounds of a number, the classes of a category, or the length of a text."""

    lower: float | None = None
    upper: float | None = None
    classes: tuple[bool | int | str, ...] = ()
    text: int | None = None


@dataclass(frozen=True)
class Proposal:
    """Everything public about one slot that a policy permits or refuses.

    Attributes:
        kind: of task, e.g. ``"logistic"``, or ``"study"``. analyst: name of who asks.
        statistics: names of all statistics of a study; empty for a task.
        schema: name and version. schema_digest: SHA-256 of all it says (``Schema.digest``), empty where unknown.
        columns: every column that is read.
        clip: bound of one unit's contribution, None where the kind has none.
        release: None without noise. costs: of one upload by unit, where the question counts them itself, since its
            parts are bounded for different units; empty where the release says it all.
        sites: in the cohort. min_survivors: fewest in an opened sum. complete: open all of the cohort or nothing.
        roster_sites, corrupt_bound, committee, committee_corrupt: N, c, L and c_L of the roster.
        round, attempt: of the slot; attempts count from 0.
    """

    federation: str
    purpose: Purpose
    analyst: str
    kind: str
    schema: tuple[str, int]
    columns: Mapping[str, ColumnUse]
    clip: float | None
    release: Release | None
    sites: int
    min_survivors: int
    complete: bool
    roster_sites: int
    corrupt_bound: int
    committee: int
    committee_corrupt: int
    round: int
    attempt: int
    statistics: tuple[str, ...] = ()
    schema_digest: bytes = b""
    costs: Mapping[Unit, Cost] = field(default_factory=dict)


@dataclass(frozen=True)
class Charge:
    """One upload's price.

    Attributes:
        reference: 32 bytes, the H0 of the slot; a second reservation of one reference costs nothing.
        costs: by unit of privacy; a unit that is missing has no finite cost. Empty without noise.
        trust: whose noise the costs rest on; None without noise.
        what: public words for people, e.g. ``"logistic 'malignant', round 3, attempt 0"``.
        policy: hash of the policy that permitted it.
        mandate: of an analyst, its 16-byte nonce and how many uploads it is for; None where none was shown.
    """

    reference: bytes
    purpose: Purpose
    analyst: str
    costs: Mapping[Unit, Cost] = field(default_factory=dict)
    trust: Trust | None = None
    what: str = ""
    policy: bytes = bytes(32)
    mandate: tuple[bytes, int] | None = None


class Account(Protocol):
    """Where a site charges itself, durably; the ledger fulfils it. Times are milliseconds since 1970."""

    @property
    def head(self) -> bytes:
        """32 bytes that stand for everything entered so far."""
        ...

    def reserve(self, charge: Charge, now: int) -> bytes:
        """Charge, durably, before anything is computed; returns the new head.

        A reference that is reserved already (and not refunded) costs nothing again and returns the present head.

        Raises:
            BudgetExceeded: it does not fit; nothing is charged.
        """
        ...

    def settle(self, reference: bytes, now: int) -> None:
        """Note that what was reserved has been computed and stored for sending; idempotent."""
        ...

    def burn(self, reference: bytes, now: int) -> None:
        """Note that what was reserved led to nothing, though rows may have been read: it stays spent; idempotent."""
        ...
