"""Several processes, one ledger file: every change is one exclusive transaction on the newest state.

A transaction first reads and verifies what other processes entered, then checks, signs and inserts; what
is in memory is believed again only after the commit. Whatever fails in between changes nothing.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from privfl_keys import SigningKey

from privfl.budget.ledger_book import Book
from privfl.budget.ledger_entries import Entry, Kind, Sealed
from privfl.budget.ledger_file import append, begin, connect, guarded, identity, rows_from
from privfl.errors import Misuse, PrivflError, Unverified

__all__ = ["Chain"]


LONGEST_SLOT_MS = 7 * 86_400_000


class Chain:
    """An open ledger file, and the book of what this process knows to be in it."""

    def __init__(self, path: Path, key: SigningKey) -> None:
        """Open the file; it is verified by the first transaction."""
        self.path, self._key = path, key
        self._connection = connect(path, write=True)
        self._file, self._process = identity(path), os.getpid()
        self._book: Book | None = None  # None: what is known may be half done; read the file again

    @property
    def known(self) -> Book:
        """What this process knows; other processes may have entered more."""
        if self._book is None:
            with self.transaction() as book:
                return book
        return self._book

    def close(self) -> None:
        """Close the file; nothing is left to be written."""
        self._connection.close()

    def enter(self, book: Book, kind: Kind, now: int, *, policy: bytes | None = None, **fields: Any) -> Entry:
        """Check, sign, insert and take in one entry; the transaction that is under way makes it durable."""
        time = book.moment(now, strict=False)
        if kind not in (Kind.POLICY, Kind.RESERVE):  # a clock that jumps ahead here must not lock the ledger for years
            time = min(time, book.time + LONGEST_SLOT_MS)
        entry = Entry(book.seq + 1, book.head, time, kind.value, policy=policy or book.policy, **fields)
        sealed = Sealed.of(entry, self._key)
        book.check(entry, sealed)
        append(self._connection, entry.seq, sealed)
        book.take(entry, sealed)
        return entry

    @contextlib.contextmanager
    def transaction(self, now: int | None = None) -> Iterator[Book]:
        """The file for this process alone, and the book of all that is in it; commits at the end, or changes nothing.

        Where ``now`` is given, a clock that is behind the ledger is refused.
        """
        if os.getpid() != self._process:
            raise Misuse("a ledger is not taken along into a forked process; open it there")
        with guarded(self.path):
            if identity(self.path) != self._file:
                raise Unverified(f"{self.path} was swapped for another file while this site runs; restart the site")
            try:
                begin(self._connection, write=True)
                known, self._book = self._book, None  # until the end, what is in memory may be half done
                book = self._caught_up(known)
                before = book.seq
                try:
                    if now is not None:
                        book.moment(now, strict=True)
                    yield book
                except PrivflError:
                    self._book = book if book.seq == before else None
                    raise
                self._connection.execute("COMMIT")
                self._book = book
            finally:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")

    def _caught_up(self, book: Book | None) -> Book:
        """Take in what other processes entered since."""
        if book is None:
            return Book.read(rows_from(self._connection, 0), self._key.verify_key)
        rows = rows_from(self._connection, book.seq)
        if not rows or rows[0] != (book.seq, book.seals[-1]):
            raise Unverified(
                f"{book.entries[-1].title}: it was in the ledger a moment ago and is gone or altered; stop the site "
                "and put the latest file back"
            )
        for seq, sealed in rows[1:]:
            book.follow(seq, sealed)
        return book
