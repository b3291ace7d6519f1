"""A ledger as JSON for auditors: every entry readable, and every one still verifiable.

Each entry stands there twice, once in words and once as the signed bytes. :func:`verify_export` replays
the bytes and writes the export anew: a file that differs from that in any byte was edited. There are no
floats in it, so the same ledger gives the same bytes everywhere.
"""

from __future__ import annotations

import json
from typing import Any, Final

from privfl_keys import VerifyKey

from privfl.budget.ledger_book import Book
from privfl.budget.ledger_check import LedgerReport
from privfl.budget.ledger_entries import Anchor, Entry, Kind, Opening, Sealed, Stated, moment
from privfl.errors import Unverified

__all__ = ["EXPORT_FORMAT", "export_json", "verify_export"]

EXPORT_FORMAT: Final = "privfl ledger export 1"
MAX_EXPORT: Final = 2**30


def export_json(book: Book) -> bytes:
    """Write a verified ledger as JSON, UTF-8; the same bytes for the same ledger."""
    document = {
        "format": EXPORT_FORMAT,
        **LedgerReport(book).summary(),
        "ledger": [_entry_json(entry, sealed) for entry, sealed in zip(book.entries, book.seals, strict=True)],
    }
    return (json.dumps(document, indent=1, ensure_ascii=False) + "\n").encode()


def verify_export(data: bytes, key: VerifyKey | None = None, anchor: Anchor | None = None) -> LedgerReport:
    """Check an export without any secret; arguments as for :func:`~privfl.budget.ledger_check.verify_file`.

    Raises:
        Unverified: it is no export, an entry does not verify, or words do not say what the signed bytes say.
    """
    listed = _listed(data)
    rows = [(number, _sealed(number, item)) for number, item in enumerate(listed)]
    book = Book.read(rows, key)
    for entry, sealed, item in zip(book.entries, book.seals, listed, strict=True):
        if item != _entry_json(entry, sealed):
            raise Unverified(f"{entry.title}: its words do not say what its signed bytes say; the export was edited")
    if export_json(book) != data:
        raise Unverified("the export's words around the entries are not what the entries add up to; it was edited")
    if anchor is not None:
        book.remembers(anchor)
    return LedgerReport(book)


def _listed(data: bytes) -> list[dict[str, Any]]:
    try:
        if len(data) > MAX_EXPORT:
            raise ValueError
        document = json.loads(data.decode("utf-8"))
        if document["format"] != EXPORT_FORMAT:
            raise ValueError
        listed = document["ledger"]
        if not isinstance(listed, list) or not all(isinstance(item, dict) for item in listed):
            raise TypeError
    except (ValueError, TypeError, KeyError, RecursionError):
        raise Unverified("this is no export of a ledger; make one with: privfl ledger export") from None
    return listed


def _sealed(number: int, item: dict[str, Any]) -> Sealed:
    try:
        return Sealed(bytes.fromhex(item["body"]), bytes.fromhex(item["signature"]))
    except (KeyError, TypeError, ValueError):
        raise Unverified(f"entry {number} of the export has no signed bytes; export the ledger again") from None


def _entry_json(entry: Entry, sealed: Sealed) -> dict[str, Any]:
    words: dict[str, Any] = {"seq": entry.seq, "at": moment(entry.time), "time": entry.time, "kind": entry.kind}
    for name in ("purpose", "analyst", "what", "trust"):
        if getattr(entry, name):
            words[name] = getattr(entry, name)
    if entry.kind == Kind.RESERVE:
        words["costs"] = {unit: [mu2, delta] for unit, mu2, delta in entry.costs}
        if (mandate := entry.charge.mandate) is not None:
            words["mandate"] = {"nonce": mandate[0].hex(), "uploads": mandate[1]}
    if entry.reference:
        words["reference"] = entry.reference.hex()
    if entry.kind == Kind.OPEN:
        opening = Opening.decode(entry.detail)
        words["federation"], words["population"] = opening.federation, opening.population
    elif entry.kind == Kind.POLICY:
        words["limits"] = _stated_json(Stated.decode(entry.detail))
    return words | {
        "policy": entry.policy.hex(),
        "hash": entry.hash.hex(),
        "body": sealed.body.hex(),
        "signature": sealed.signature.hex(),
    }


def _stated_json(stated: Stated) -> dict[str, Any]:
    names = ("epsilon", "delta", "mu2", "delta_prime")
    return {
        "version": stated.version,
        "unit": stated.unit,
        "noiseless": stated.noiseless,
        "budget": dict(zip(names, stated.budget, strict=False)) or None,
        "lifetime": dict(zip(names, stated.lifetime, strict=False)) or None,
        "window_ms": stated.window_ms or None,
        "sites_per_subject": stated.sites_per_subject,
        "shares": dict(stated.shares),
        "analysts": dict(stated.analysts),
    }
