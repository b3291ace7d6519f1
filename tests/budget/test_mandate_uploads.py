"""A mandate is for one run: its uploads are counted where everything is counted, in the site's own account."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import pytest
from privfl_keys import SYSTEM, SigningKey

from privfl.budget import Budget, Charge, Limits, MemoryAccount, Purpose
from privfl.budget.ledger import Ledger
from privfl.budget.ledger_check import verify_file
from privfl.budget.ledger_export import export_json, verify_export
from privfl.dp import Cost, Trust, Unit
from privfl.errors import BudgetExceeded

NOW = 1_800_000_000_000
LIMITS = Limits(
    Unit.RECORD,
    Budget.from_epsilon_delta(8, 1e-5),
    {Purpose.TRAINING: Fraction(1)},
    {"ann": Fraction(1), "bob": Fraction(1)},
)
NONCE, OTHER = b"n" * 16, b"o" * 16


def charge(slot: int, analyst: str = "ann", nonce: bytes | None = NONCE, uploads: int = 3) -> Charge:
    mandate = None if nonce is None else (nonce, uploads)
    costs = {Unit.RECORD: Cost(Fraction(1, 1000))}
    return Charge(
        slot.to_bytes(32, "big"), Purpose.TRAINING, analyst, costs, Trust.DISTRIBUTED, f"slot {slot}", mandate=mandate
    )


def test_a_mandate_is_used_up(tmp_path: Path) -> None:
    """Three uploads and no fourth, in ledger and memory alike, whatever epoch; another mandate or analyst goes on."""
    key = SigningKey.generate(SYSTEM)
    ledger = Ledger.create(tmp_path / "l.db", key, federation="f", population="p", now=NOW)
    ledger.use(b"p" * 32, 1, LIMITS, NOW)
    for account in (ledger, MemoryAccount(LIMITS)):
        for slot in (1, 2, 3):
            account.reserve(charge(slot), NOW + slot)
        head = account.head
        with pytest.raises(BudgetExceeded, match=r"'ann' is for 3 uploads .* signs a new one"):
            account.reserve(charge(4), NOW + 4)
        assert account.head == head
        account.reserve(charge(3), NOW + 4)  # a slot that is charged already costs nothing again
        account.reserve(charge(5, nonce=OTHER), NOW + 5)
        account.reserve(charge(6, analyst="bob"), NOW + 6)
        account.reserve(charge(7, nonce=None), NOW + 7)


def test_the_count_survives_and_is_verified_by_others(tmp_path: Path) -> None:
    """After opening again it still stands; a refund gives one back; file and export verify and show the mandate."""
    key, path = SigningKey.generate(SYSTEM), tmp_path / "l.db"
    with Ledger.create(path, key, federation="f", population="p", now=NOW) as ledger:
        ledger.use(b"p" * 32, 1, LIMITS, NOW)
        for slot in (1, 2, 3):
            ledger.reserve(charge(slot), NOW + slot)
    with Ledger.open(path, key) as ledger:
        with pytest.raises(BudgetExceeded):
            ledger.reserve(charge(4), NOW + 4)
        ledger.refund(charge(3).reference, NOW + 5)
        ledger.reserve(charge(4), NOW + 6)
        with pytest.raises(BudgetExceeded):
            ledger.reserve(charge(8), NOW + 7)
    book = verify_file(path, key.verify_key).book
    exported = export_json(book)
    assert NONCE.hex().encode() in (exported if isinstance(exported, bytes) else exported.encode())
    verify_export(exported, key.verify_key)
