"""Checking a ledger without a secret: the chain by itself, against what others remember, against transcripts.

A ledger proves what its site charged, in which order, under which limits; only the site can extend it. It
cannot prove by itself that its newest entries are all there: that is what an anchor is for, and the heads
that the site signed into its uploads.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from privfl_keys import Label, VerifyKey

from privfl.budget.charge import Purpose
from privfl.budget.ledger_book import Book
from privfl.budget.ledger_entries import Anchor, Entry, Kind
from privfl.budget.ledger_file import read_rows
from privfl.dp import Cost, Unit
from privfl.errors import Unverified
from privfl.secagg import Header, Transcript

__all__ = ["LedgerReport", "match_transcripts", "read_ledger", "verify_file"]


@dataclass(frozen=True)
class LedgerReport:
    """A ledger that verified.

    Attributes:
        book: everything in it.
        matched: how many uploads in public transcripts were found charged in it.
    """

    book: Book
    matched: int = 0

    def summary(self) -> dict[str, Any]:
        """Whose it is, where it ends and what it adds up to, as plain values; costs are [μ², δ′] or None.

        ``spent`` is by unit, ``purposes`` and ``analysts`` are in the policy's unit; all for life, with the
        policy's factor for subjects at several sites.
        """
        book, opening = self.book, self.book.opening
        counts = Counter(entry.kind for entry in book.entries)
        limits = book.limits
        return {
            "site": book.key.site_id.hex(),
            "key": opening.key.hex(),
            "federation": opening.federation,
            "population": opening.population,
            "entries": len(book.entries),
            "seq": book.seq,
            "head": book.head.hex(),
            "first_time": book.entries[0].time,
            "last_time": book.time,
            "policy_version": book.stated.version if book.stated else None,
            "policy": book.policy.hex() if book.stated else None,
            "unit": str(limits.unit) if limits else None,
            "noiseless": bool(limits and limits.noiseless),
            "counts": {kind.value: counts[kind.value] for kind in Kind},
            "open": sum(1 for _ in book.open()),
            "spent": {unit.value: _decimals(book.spent(unit)) for unit in Unit},
            "purposes": {purpose.value: _decimals(book.spent(purpose=purpose)) for purpose in Purpose},
            "analysts": {name: _decimals(book.spent(analyst=name)) for name in book.tally.life.analysts()},
        }


def _decimals(cost: Cost | None) -> list[str] | None:
    return None if cost is None else list(cost.to_decimals())


def read_ledger(path: str | os.PathLike[str], key: VerifyKey | None = None) -> Book:
    """Read and verify a ledger file, read-only; it may be in use.

    Args:
        key: the site's, from the roster. Without one the ledger is held against the key that it names itself.

    Raises:
        Misuse: the file cannot be read.
        Unverified: it does not verify; the message names the first bad entry.
    """
    return Book.read(read_rows(Path(path)), key)


def verify_file(path: str | os.PathLike[str], key: VerifyKey | None, anchor: Anchor | None = None) -> LedgerReport:
    """Verify a ledger file without any secret; see :func:`read_ledger`.

    Args:
        anchor: what is remembered of it elsewhere; a shorter or different ledger is refused.
    """
    book = read_ledger(path, key)
    if anchor is not None:
        book.remembers(anchor)
    return LedgerReport(book)


def match_transcripts(book: Book, transcripts: Iterable[tuple[str, Transcript]]) -> int:
    """Hold every upload of this site in public transcripts against its ledger; returns how many there were.

    The site itself signed each header, so this needs nobody else's key.

    Args:
        transcripts: with a name for messages.

    Raises:
        Unverified: an upload that was not charged, or was refunded, or a head that is not in this ledger.
    """
    numbers = {entry.hash: entry.seq for entry in book.entries}
    charged = {entry.reference: entry for entry in book.entries if entry.kind == Kind.RESERVE}  # the last one of each
    count = 0
    for name, transcript in transcripts:
        a = transcript.announcement
        for header in transcript.headers:
            if header.site != book.key.site_id:
                continue
            where = f"{name}: this site's upload in epoch {a.scope.epoch}, round {a.round}, attempt {a.attempt}"
            if header.h0 != a.h0:
                raise Unverified(f"{where} is of another announcement; fetch the transcript again")
            book.key.verify(header.signature, Label.HEADER, header.digest, header.ledger_head)
            _match(book, header, numbers.get(header.ledger_head), charged.get(header.h0), where)
            count += 1
    return count


def _match(book: Book, header: Header, seen: int | None, entry: Entry | None, where: str) -> None:
    if seen is None:
        raise Unverified(
            f"{where} carries the head {header.ledger_head.hex()[:16]} of a ledger, which is no entry of this one: its "
            "end was cut off, or it is an older or another ledger; ask the site for the latest file"
        )
    if entry is None:
        raise Unverified(f"{where} was never charged in this ledger; ask the site why")
    state = book.states[header.h0]
    if state is Kind.REFUND:
        last = next(e for e in reversed(book.entries) if e.reference == header.h0 and e.kind == Kind.REFUND)
        raise Unverified(f"{last.title}: it refunds a reservation that was used; {where} was made with it")
    if seen < entry.seq:
        raise Unverified(f"{entry.title}: charged only after {where} was signed; nothing may be computed before")
