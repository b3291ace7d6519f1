"""The site's own ledger: charges are durable here before anything is computed, and stay.

One file per site and population; several processes of the site may hold it open. Nothing is entered that
would not verify, and :meth:`Ledger.reserve` returns only after the entry is on the disk.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from privfl_keys import SigningKey

from privfl.budget.charge import Charge, Purpose
from privfl.budget.ledger_book import Book
from privfl.budget.ledger_chain import Chain
from privfl.budget.ledger_entries import (
    FORMAT,
    NO_HASH,
    Anchor,
    Entry,
    Kind,
    Mandated,
    Opening,
    Sealed,
    Stated,
    cost_rows,
)
from privfl.budget.ledger_file import create_file
from privfl.budget.limits import Limits
from privfl.dp import Cost, Unit
from privfl.errors import Misuse, Refused

__all__ = ["Ledger"]


class Ledger:
    """An account in a file; fulfils :class:`~privfl.budget.Account` once :meth:`use` has named the limits."""

    def __init__(self, chain: Chain) -> None:
        """Internal; use :meth:`create` or :meth:`open`."""
        self._chain = chain

    @property
    def path(self) -> Path:
        """Of the file."""
        return self._chain.path

    @classmethod
    def create(
        cls, path: str | os.PathLike[str], key: SigningKey, *, federation: str, population: str, now: int
    ) -> Ledger:
        """Make a new ledger in a new file and open it.

        Args:
            federation, population: whose budget it keeps; population is the name space of subject ids.
            now: milliseconds since 1970.

        Raises:
            Misuse: something is at ``path`` already, or the folder cannot be written.
        """
        opening = Opening(FORMAT, key.verify_key.raw, federation, population)
        first = Entry(0, NO_HASH, now, Kind.OPEN.value, detail=opening.encode())
        sealed = Sealed.of(first, key)
        Book().follow(0, sealed)
        create_file(Path(path), sealed)
        return cls.open(path, key)

    @classmethod
    def open(cls, path: str | os.PathLike[str], key: SigningKey, *, anchor: Anchor | None = None) -> Ledger:
        """Open and verify the whole chain.

        Args:
            anchor: the latest that is remembered elsewhere; an older copy of the file is refused by it.

        Raises:
            Misuse: no such file, or it may not be written.
            Unverified: it does not verify; the message names the first bad entry.
            StorageError: another process keeps it locked.
        """
        chain = Chain(Path(path), key)
        try:
            with chain.transaction() as book:
                if anchor is not None:
                    book.remembers(anchor)
        except BaseException:
            chain.close()
            raise
        return cls(chain)

    @property
    def head(self) -> bytes:
        """Hash of the last entry that this process knows."""
        return self._chain.known.head

    @property
    def anchor(self) -> Anchor:
        """The same with its number, for others to remember."""
        return self._chain.known.anchor

    @property
    def opening(self) -> Opening:
        """Site, federation and population."""
        return self._chain.known.opening

    @property
    def policy(self) -> tuple[int, bytes] | None:
        """Version and hash of the policy in force, None before the first."""
        book = self._chain.known
        return None if book.stated is None else (book.stated.version, book.policy)

    @property
    def limits(self) -> Limits | None:
        """Limits in force, None before the first policy."""
        return self._chain.known.limits

    def entries(self) -> Sequence[Entry]:
        """Everything entered, in order."""
        return tuple(self._chain.known.entries)

    def open_reservations(self) -> tuple[bytes, ...]:
        """References that are reserved and not yet settled, burnt or refunded."""
        return tuple(self._chain.known.open())

    def spent(
        self,
        unit: Unit | None = None,
        *,
        purpose: Purpose | None = None,
        analyst: str | None = None,
        now: int | None = None,
    ) -> Cost | None:
        """Total charged in ``unit`` (by default the policy's), of one purpose or analyst where given.

        For life; with ``now``, in the policy's window that ends then. None: no finite cost in that unit.
        """
        return self._chain.known.spent(unit, purpose=purpose, analyst=analyst, now=now)

    def use(self, policy_hash: bytes, version: int, limits: Limits, now: int) -> None:
        """Put a policy's limits in force; nothing is entered if they are already. What was spent stays spent.

        Raises:
            Refused: it is older than the policy in force, another policy of the same version, or the clock is wrong.
            Misuse: ``policy_hash`` is not 32 bytes, or limits that have no exact statement.
        """
        if len(policy_hash) != 32 or policy_hash == NO_HASH:
            raise Misuse("the hash of a policy has 32 bytes")
        stated = Stated.of(version, limits)
        with self._chain.transaction(now) as book:
            if (book.stated, book.policy) == (stated, policy_hash):
                return
            held = book.stated
            if held is not None and (
                version < held.version or (version == held.version and policy_hash != book.policy)
            ):
                raise Refused(
                    f"version {held.version} of the policy is in force in this ledger, and this is "
                    f"{'older' if version < held.version else 'another of the same version'}; "
                    "ask the compliance officer for one with a higher version"
                )
            self._chain.enter(book, Kind.POLICY, now, policy=policy_hash, detail=stated.encode())

    def reserve(self, charge: Charge, now: int) -> bytes:
        """See :class:`~privfl.budget.Account`; durable when it returns.

        Raises:
            BudgetExceeded: it does not fit.
            Refused: no policy is in force, another one permitted this, no finite cost, the clock is wrong.
            StorageError: the disk is full or read-only, or another process keeps the file locked.
            Misuse: a reference that is not 32 bytes, or words that are too long.
            Unverified: the file is not what this process left.
        """
        if len(charge.reference) != 32:
            raise Misuse("a charge is for a slot, by the 32 bytes of its H0")
        with self._chain.transaction(now) as book:
            if book.live(charge.reference):
                return book.head
            if book.limits is None:
                raise Refused("no policy is in force in this ledger; sign one and load it, then ask again")
            if charge.policy not in (book.policy, NO_HASH):
                raise Refused("this was permitted by another policy than the one in force; ask again under that one")
            # first, so that a cost too large to be written down is over the budget and no fault of this ledger
            book.limits.admit(book.tally, charge, book.moment(now, strict=False))
            self._chain.enter(
                book,
                Kind.RESERVE,
                now,
                reference=charge.reference,
                purpose=charge.purpose.value,
                analyst=charge.analyst,
                what=charge.what,
                trust=charge.trust.value if charge.trust else "",
                costs=cost_rows(charge.costs),
                detail=b"" if charge.mandate is None else Mandated(*charge.mandate).encode(),
            )
        return self.head

    def settle(self, reference: bytes, now: int) -> None:
        """See :class:`~privfl.budget.Account`; raises Misuse if nothing is reserved under this reference."""
        self._close_one(Kind.SETTLE, reference, now)

    def burn(self, reference: bytes, now: int) -> None:
        """Note that nothing came of a reservation whose rows may have been read; it stays charged; idempotent."""
        self._close_one(Kind.BURN, reference, now)

    def refund(self, reference: bytes, now: int, because: str = "never used; nothing was computed") -> None:
        """Take back a reservation of which the caller knows that nothing was used; raises Misuse if it is closed."""
        self._close_one(Kind.REFUND, reference, now, because)

    def note(self, text: str, now: int, reference: bytes = b"") -> None:
        """Leave words for later readers, about a slot where ``reference`` names one."""
        with self._chain.transaction() as book:
            self._chain.enter(book, Kind.NOTE, now, reference=reference, what=text)

    def recover(self, accepted: bytes | None, stored: bytes | None, now: int) -> list[Entry]:
        """Close what a crash left open, and return the entries that did; called once after a start.

        Args:
            accepted: the last H0 that the site durably recorded as used.
            stored: the H0 of its durable outbox; what it names was computed and is settled.
                A reservation that is only accepted is burnt; one that is neither was never used and is refunded,
                unless another was made after it: then the site went on, and nothing proves what became of it.
        """
        with self._chain.transaction() as book:
            done = []
            reserved = (entry.reference for entry in reversed(book.entries) if entry.kind == Kind.RESERVE)
            newest = next(reserved, None)
            for reference in tuple(book.open()):
                if reference == stored:
                    kind, because = Kind.SETTLE, "found stored after a restart"
                elif reference == accepted:
                    kind, because = Kind.BURN, "accepted and not stored before a restart"
                elif reference != newest:
                    kind, because = Kind.BURN, "left open while the site went on; it may have been used"
                else:
                    kind, because = Kind.REFUND, "never used before a restart"
                done.append(self._chain.enter(book, kind, now, reference=reference, what=because))
        return done

    def close(self) -> None:
        """Close the file; nothing is left to be written."""
        self._chain.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Ledger({str(self.path)!r})"

    def _close_one(self, kind: Kind, reference: bytes, now: int, because: str = "") -> None:
        with self._chain.transaction() as book:
            state = book.states.get(reference)
            if state is kind or (kind is Kind.BURN and state is Kind.SETTLE):
                return
            if state is not Kind.RESERVE:
                was = "nothing is reserved under this reference" if state is None else f"this reference has a {state}"
                raise Misuse(f"{was}; a {kind} closes an open reservation")
            self._chain.enter(book, kind, now, reference=reference, what=because)
