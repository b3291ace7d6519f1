"""A ledger replayed: the rules that each entry must keep, and the account that they add up to.

The same rules hold when a site writes an entry and when anyone verifies one, so what verifies is what
could have been written. A book is in memory; :mod:`privfl.budget.ledger_file` keeps the bytes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Self

from privfl_keys import VerifyKey

from privfl.budget.charge import Purpose
from privfl.budget.ledger_entries import FORMAT, NO_HASH, Anchor, Entry, Kind, Opening, Sealed, Stated
from privfl.budget.limits import Limits
from privfl.budget.tally import Tally
from privfl.dp import Cost, Unit
from privfl.errors import Malformed, Refused, Theirs, Unverified

__all__ = ["CLOCK_TOLERANCE_MS", "Book"]

CLOCK_TOLERANCE_MS = 300_000


class Book:
    """Entries that follow from one another, and what they leave.

    Attributes:
        key, opening: whose ledger it is.
        entries: all of them, in order; seals: their stored bytes.
        stated, limits: of the policy in force; None before the first.
        tally: everything charged. states: by reference, the last thing that happened to it.
    """

    def __init__(self, key: VerifyKey | None = None) -> None:
        """An empty book; with a ``key`` it accepts no other site's ledger."""
        self._expected = key
        self.entries: list[Entry] = []
        self.seals: list[Sealed] = []
        self.stated: Stated | None = None
        self.limits: Limits | None = None
        self.tally = Tally()
        self.states: dict[bytes, Kind] = {}

    @classmethod
    def read(cls, rows: Iterable[tuple[int, Sealed]], key: VerifyKey | None = None) -> Self:
        """Replay stored rows (number, seal); raises Unverified, naming the first bad entry."""
        book = cls(key)
        for seq, sealed in rows:
            book.follow(seq, sealed)
        if not book.entries:
            raise Unverified("the ledger is empty: its first entry is missing; restore the file from a backup")
        return book

    @property
    def seq(self) -> int:
        """Number of the last entry; -1 before the first."""
        return len(self.entries) - 1

    @property
    def head(self) -> bytes:
        """Hash of the last entry."""
        return self.entries[-1].hash if self.entries else NO_HASH

    @property
    def time(self) -> int:
        """Time of the last entry."""
        return self.entries[-1].time if self.entries else 0

    @property
    def anchor(self) -> Anchor:
        """What someone else should remember."""
        return Anchor(self.seq, self.head)

    @property
    def policy(self) -> bytes:
        """Hash of the policy in force; zeros before the first."""
        return self.entries[-1].policy if self.entries else NO_HASH

    def live(self, reference: bytes) -> bool:
        """Whether something is charged under this reference."""
        return self.states.get(reference, Kind.REFUND) is not Kind.REFUND

    def open(self) -> Iterator[bytes]:
        """References that are reserved and neither settled, burnt nor refunded, in order of their first reservation."""
        return (reference for reference, state in self.states.items() if state is Kind.RESERVE)

    def moment(self, now: int, *, strict: bool) -> int:
        """The time of an entry made ``now``: never before the last one's.

        Raises:
            Refused: ``strict``, and the clock is more than five minutes behind the last entry.
        """
        if strict and now < self.time - CLOCK_TOLERANCE_MS:
            seconds = (self.time - now) // 1000
            raise Refused(
                f"this machine's clock is {seconds} s behind the last entry of the ledger; "
                "set the clock right (or wait, if it was ahead then), and ask again; nothing was charged"
            )
        return max(now, self.time)

    def spent(
        self,
        unit: Unit | None = None,
        *,
        purpose: Purpose | None = None,
        analyst: str | None = None,
        now: int | None = None,
    ) -> Cost | None:
        """Total charged, for life or in the window that ends ``now``; None: no finite cost in that unit."""
        chosen = unit or (self.limits.unit if self.limits else Unit.RECORD)
        factor = self.limits.sites_per_subject if self.limits else 1
        sums = self.tally.life if now is None else self.tally.within(max(now, self.time))
        return sums.total(chosen, purpose=purpose, analyst=analyst, sites_per_subject=factor)

    def follow(self, seq: int, sealed: Sealed) -> None:
        """Check one stored row and take it in; raises Unverified, naming it."""
        try:
            entry = sealed.entry()
        except Malformed as error:
            raise Unverified(f"entry {seq} is no ledger entry ({error}); it was overwritten or damaged") from None
        try:
            if entry.seq != seq:
                raise Unverified(f"it is stored as number {seq}; entries were moved")
            self.check(entry, sealed)
        except (Theirs, Refused) as error:
            because = f"it breaks the limits in force: {error}" if isinstance(error, Refused) else str(error)
            raise Unverified(f"{entry.title}: {because}") from None
        self.take(entry, sealed)

    def check(self, entry: Entry, sealed: Sealed) -> None:
        """Whether an entry may come next; nothing changes.

        Raises:
            Unverified, Malformed: it may not, or the site has not signed it.
            Refused, BudgetExceeded: the limits in force do not admit it.
        """
        if not self.entries:
            sealed.check(entry, self._check_opening(entry))
            return
        sealed.check(entry, self.key)
        if entry.seq != self.seq + 1:
            raise Unverified(f"entry {self.seq + 1} should follow here; entries were deleted, inserted or reordered")
        if entry.previous != self.head:
            raise Unverified(f"it does not continue entry {self.seq}; one of them was replaced, inserted or moved")
        if entry.time < self.time:
            raise Unverified("it is earlier than the entry before it; time never runs backwards in a ledger")
        if entry.kind not in _RULES:
            raise Unverified("a ledger has no such kind of entry, or not in this place")
        used = {name for name in _OPTIONAL if getattr(entry, name)}
        if not used <= _RULES[Kind(entry.kind)]:
            raise Unverified(f"an entry of this kind has no {', '.join(sorted(used - _RULES[Kind(entry.kind)]))}")
        self._check_kind(entry)

    def take(self, entry: Entry, sealed: Sealed) -> None:
        """Take in an entry that :meth:`check` has passed."""
        kind = Kind(entry.kind)
        if kind is Kind.OPEN:
            self.opening = Opening.decode(entry.detail)
            self.key = VerifyKey(self.opening.key)
        elif kind is Kind.POLICY:
            self.stated = Stated.decode(entry.detail)
            self.limits = self.stated.limits()
            self.tally.slide(self.limits.window_ms)
        elif kind is Kind.RESERVE:
            self.tally.add(entry.charge, entry.time)
        elif kind is Kind.REFUND:
            self.tally.remove(entry.reference)
        if kind in (Kind.RESERVE, Kind.SETTLE, Kind.BURN, Kind.REFUND):
            self.states[entry.reference] = kind
        self.entries.append(entry)
        self.seals.append(sealed)

    def remembers(self, anchor: Anchor) -> None:
        """Raise Unverified unless this ledger continues what ``anchor`` remembers."""
        if anchor.seq > self.seq:
            raise Unverified(
                f"the ledger ends with entry {self.seq}, and entry {anchor.seq} of it was seen before: its end was cut "
                "off, or the file is an older copy; put the latest file back, with every file that lies beside it"
            )
        if self.entries[anchor.seq].hash != anchor.head:
            raise Unverified(
                f"{self.entries[anchor.seq].title}: another entry was seen under this number before; the ledger was "
                "replaced by another history; put the latest file back"
            )

    def _check_opening(self, entry: Entry) -> VerifyKey:
        if entry.kind != Kind.OPEN or entry.seq != 0 or entry.previous != NO_HASH:
            raise Unverified("a ledger begins with its opening, number 0; the first entries are missing")
        if any(getattr(entry, name) for name in _OPTIONAL if name != "detail") or entry.policy != NO_HASH:
            raise Unverified("an opening says whose ledger it is and nothing else")
        opening = Opening.decode(entry.detail)
        if opening.format != FORMAT:
            raise Unverified(f"the ledger has format {opening.format} and this program reads {FORMAT}; update it")
        key = VerifyKey(opening.key)
        if self._expected is not None and key != self._expected:
            raise Unverified(
                f"this is the ledger of site {key.site_id.hex()[:16]}, not of {self._expected.site_id.hex()[:16]}; "
                "put that site's own file in its place"
            )
        return key

    def _check_kind(self, entry: Entry) -> None:
        if entry.kind == Kind.POLICY:
            self._check_policy(entry)
            return
        if entry.policy != self.policy:
            raise Unverified("it names another policy than the one in force")
        if entry.kind == Kind.RESERVE:
            self._check_reserve(entry)
        elif entry.kind != Kind.NOTE:
            state = self.states.get(entry.reference)
            if state is not Kind.RESERVE:
                was = "was never reserved" if state is None else f"has a {state} already"
                raise Unverified(f"a {entry.kind} closes an open reservation, and its reference {was}")

    def _check_policy(self, entry: Entry) -> None:
        stated = Stated.decode(entry.detail)
        stated.limits()
        if entry.policy == NO_HASH:
            raise Unverified("a policy has a hash")
        old = self.stated
        if old is None or stated.version > old.version:
            return
        if stated.version < old.version:
            raise Unverified(f"version {old.version} of the policy is in force, and {stated.version} is older")
        if entry.policy != self.policy:
            raise Unverified(f"another policy of version {stated.version} is in force; a new policy has a new version")

    def _check_reserve(self, entry: Entry) -> None:
        if self.limits is None:
            raise Unverified("there is no policy before it")
        charge = entry.charge
        if self.live(entry.reference):
            raise Unverified("its reference is reserved already")
        self.limits.admit(self.tally, charge, entry.time)


_OPTIONAL = ("reference", "purpose", "analyst", "what", "trust", "costs", "detail")
_CHARGE = frozenset({"reference", "purpose", "analyst", "what", "trust", "costs"})
_CLOSING = frozenset({"reference", "what"})
_RULES = {
    Kind.POLICY: frozenset({"detail"}),
    Kind.RESERVE: _CHARGE | {"detail"},
    Kind.SETTLE: _CLOSING,
    Kind.BURN: _CLOSING,
    Kind.REFUND: _CLOSING,
    Kind.NOTE: _CLOSING,
}
