"""One entry of a ledger: what it says, its bytes, its place in the chain, the site's signature.

An entry is a canonical record. Its hash covers every field, the previous entry's hash among them, so the
hash of the last entry (the *head*) stands for the whole ledger; the site signs each hash. Costs are
decimals, exact and rounded up, so that no accountant is needed to check them.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from fractions import Fraction
from functools import cached_property
from typing import Annotated, ClassVar, Self

from privfl_keys import Label, SigningKey, VerifyKey, digest

from privfl.budget.charge import Charge, Purpose
from privfl.budget.filter import Budget
from privfl.budget.limits import Limits
from privfl.codec import Bounds, Bytes32, Record, Uint32, Uint64
from privfl.dp import Cost, Trust, Unit
from privfl.dp.cost import floor_to_grid
from privfl.errors import Malformed, Misuse, Unverified

__all__ = ["FORMAT", "Anchor", "Entry", "Kind", "Opening", "Sealed", "Stated", "moment"]

FORMAT = 1
NO_HASH = bytes(32)
_PART = re.compile(r"[0-9]{1,400}(?:/[1-9][0-9]{0,399})?")


class Kind(StrEnum):
    """What an entry does to the account."""

    OPEN = "open"  # the first entry: whose ledger, of which population
    POLICY = "policy"  # the limits from here on; what was spent stays spent
    RESERVE = "reserve"  # charged, before anything is computed
    SETTLE = "settle"  # what was reserved was computed and stored for sending
    BURN = "burn"  # reserved and used, nothing came of it; stays charged
    REFUND = "refund"  # reserved and provably never used; no longer charged
    NOTE = "note"  # words for later readers


def moment(time: int) -> str:
    """A time in milliseconds since 1970 as people read it.

    >>> moment(1_767_225_600_000)
    '2026-01-01 00:00:00 UTC'
    """
    try:
        return f"{datetime.fromtimestamp(time / 1000, UTC):%Y-%m-%d %H:%M:%S} UTC"
    except (OverflowError, ValueError, OSError):  # no calendar goes that far
        return f"millisecond {time}"


@dataclass(frozen=True)
class Anchor(Record):
    """What others remember of a ledger: the entry of this number had this hash."""

    TAG: ClassVar[str] = "ledger anchor"
    seq: Uint64
    head: Bytes32


@dataclass(frozen=True)
class Opening(Record):
    """Whose ledger this is; the first entry carries it."""

    TAG: ClassVar[str] = "ledger opening"
    format: Uint32
    key: Bytes32
    federation: Annotated[str, Bounds(1, 200)]
    population: Annotated[str, Bounds(1, 200)]


@dataclass(frozen=True)
class Mandated(Record):
    """Under which mandate something was charged; its analyst is the entry's."""

    TAG: ClassVar[str] = "mandated"
    nonce: Annotated[bytes, Bounds(16, 16)]
    uploads: Uint32


@dataclass(frozen=True)
class Stated(Record):
    """A policy's limits in public numbers: what a reader needs, and all that a verifier needs.

    ``budget`` and ``lifetime`` are (ε, δ, μ², δ′) or empty; parts are fractions; ``window_ms`` is 0 without one.
    """

    TAG: ClassVar[str] = "ledger limits"
    version: Uint64
    unit: str
    noiseless: bool
    budget: tuple[str, ...]
    lifetime: tuple[str, ...]
    window_ms: Uint64
    sites_per_subject: Uint32
    shares: tuple[tuple[str, str], ...]
    analysts: tuple[tuple[str, str], ...]

    @classmethod
    def of(cls, version: int, limits: Limits) -> Self:
        """Write limits down, budgets rounded down to the grid."""
        return cls(
            version,
            str(limits.unit),
            limits.noiseless,
            _spell(limits.budget),
            _spell(limits.lifetime),
            limits.window_ms or 0,
            limits.sites_per_subject,
            tuple(sorted((str(name), str(Fraction(part))) for name, part in limits.shares.items())),
            tuple(sorted((name, str(Fraction(part))) for name, part in limits.analysts.items())),
        )

    def limits(self) -> Limits:
        """Read them back; raises Malformed unless it is exactly what :meth:`of` writes."""
        try:
            found = Limits(
                Unit(self.unit),
                _read(self.budget),
                {Purpose(name): _part(text) for name, text in self.shares},
                {name: _part(text) for name, text in self.analysts},
                self.window_ms or None,
                _read(self.lifetime),
                self.sites_per_subject,
                self.noiseless,
            )
        except (ValueError, Misuse) as error:
            raise Malformed(f"the limits are not well stated: {error}") from None
        if self.of(self.version, found) != self:
            raise Malformed("the limits are not stated in their one spelling")
        return found


def _spell(budget: Budget | None) -> tuple[str, ...]:
    if budget is None:
        return ()
    mu2, slack = Cost(floor_to_grid(budget.mu2), floor_to_grid(budget.slack)).to_decimals()
    return (repr(float(budget.epsilon)), repr(float(budget.delta)), mu2, slack)


def _read(texts: tuple[str, ...]) -> Budget | None:
    if not texts:
        return None
    epsilon, delta, mu2, slack = texts
    limits, numbers = Cost.from_decimals(mu2, slack), (float(epsilon), float(delta))
    if not (0 < numbers[0] < math.inf and 0 < numbers[1] < 1):
        raise Malformed("a budget has an epsilon above 0 and a delta between 0 and 1")
    return Budget(*numbers, limits.mu2, limits.delta)


def _part(text: str) -> Fraction:
    if _PART.fullmatch(text) is None:
        raise Malformed("a part of the budget is not a fraction")
    return Fraction(text)


@dataclass(frozen=True)
class Entry(Record):
    """See the module's docstring.

    Attributes:
        seq, previous: place in the chain; 0 and zeros for the first.
        time: milliseconds since 1970, never before the previous entry's.
        reference: H0 of the slot, for kinds that concern one; else empty.
        purpose, analyst, what, trust, costs: of the charge; costs are (unit, μ², δ′), sorted by unit.
        policy: hash of the policy in force; zeros before the first.
        detail: an encoded :class:`Opening`, :class:`Stated` or, of a charge, :class:`Mandated`; else empty.
    """

    TAG: ClassVar[str] = "ledger entry"
    seq: Uint64
    previous: Bytes32
    time: Uint64
    kind: Annotated[str, Bounds(1, 16)]
    reference: Annotated[bytes, Bounds(0, 32)] = b""
    purpose: Annotated[str, Bounds(0, 32)] = ""
    analyst: Annotated[str, Bounds(0, 200)] = ""
    what: Annotated[str, Bounds(0, 2000)] = ""
    trust: Annotated[str, Bounds(0, 32)] = ""
    costs: tuple[tuple[str, str, str], ...] = ()
    policy: Bytes32 = NO_HASH
    detail: Annotated[bytes, Bounds(0, 2**20)] = b""

    @cached_property
    def hash(self) -> bytes:
        """32 bytes for this entry and all before it."""
        return digest(Label.LEDGER, *self.to_value())

    @property
    def title(self) -> str:
        """How messages name an entry, e.g. ``entry 17 (reserve, 2026-01-01 00:00:00 UTC)``."""
        return f"entry {self.seq} ({self.kind!a:.18}, {moment(self.time)})".replace("'", "")

    @cached_property
    def charge(self) -> Charge:
        """What a reservation charges; raises Malformed unless every field has its one spelling."""
        try:
            costs = {Unit(unit): Cost.from_decimals(mu2, delta) for unit, mu2, delta in self.costs}
            purpose, trust = Purpose(self.purpose), Trust(self.trust) if self.trust else None
        except (ValueError, Misuse) as error:
            raise Malformed(f"its charge is not well stated: {error}") from None
        if [unit for unit, _, _ in self.costs] != sorted(costs) or len(self.reference) != 32:
            raise Malformed("its costs are not sorted by unit, or it names no slot")
        under = Mandated.decode(self.detail) if self.detail else None
        mandate = None if under is None else (under.nonce, under.uploads)
        return Charge(self.reference, purpose, self.analyst, costs, trust, self.what, self.policy, mandate)


def cost_rows(costs: Mapping[Unit, Cost]) -> tuple[tuple[str, str, str], ...]:
    """Costs as an entry carries them."""
    return tuple((str(unit), *cost.to_decimals()) for unit, cost in sorted(costs.items()))


@dataclass(frozen=True)
class Sealed:
    """An entry as it is stored: its bytes and the site's signature over its hash."""

    body: bytes
    signature: bytes

    @classmethod
    def of(cls, entry: Entry, key: SigningKey) -> Self:
        """Sign an entry; raises Misuse where a field is too long to be read back."""
        body = entry.encode()
        try:
            Entry.decode(body)
        except Malformed as error:
            raise Misuse(f"this cannot be entered in a ledger: {error}; shorten it") from None
        return cls(body, key.sign(Label.LEDGER_ENTRY, entry.hash))

    def entry(self) -> Entry:
        """Decode it; raises Malformed. The signature is for :meth:`check`."""
        return Entry.decode(self.body)

    def check(self, entry: Entry, key: VerifyKey) -> None:
        """Raise Unverified unless the signature is ``key``'s over this entry."""
        try:
            key.verify(self.signature, Label.LEDGER_ENTRY, entry.hash)
        except Unverified:
            raise Unverified("its signature is not this site's; the entry was edited or forged") from None
