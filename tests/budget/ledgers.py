"""Ledgers for tests: keys, limits, charges, and rewriting a stored ledger as an attacker would."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping
from contextlib import closing
from fractions import Fraction
from pathlib import Path

from privfl_keys import SigningKey

from privfl.budget import Budget, Charge, Ledger, Limits, Purpose
from privfl.budget.ledger_entries import Entry, Sealed
from privfl.dp import Cost, Trust, Unit

START = 1_767_225_600_000  # 2026-01-01
KEY = SigningKey.from_secret_bytes(bytes(range(32)))
OTHER = SigningKey.from_secret_bytes(bytes(range(1, 33)))
POLICY, NEXT_POLICY = b"p" * 32, b"q" * 32


def budget(mu2: Fraction | int = 1, slack: Fraction | float = Fraction(1, 10**6)) -> Budget:
    """A budget with round limits; its (ε, δ) is for messages only."""
    return Budget(5.0, 1e-5, Fraction(mu2), Fraction(slack))


def limits(
    mu2: Fraction | int = 1, *, shares: Mapping[Purpose, Fraction] | None = None, unit: Unit = Unit.RECORD
) -> Limits:
    """Limits on all purposes, or on some."""
    return Limits(unit, budget(mu2), dict.fromkeys(Purpose, Fraction(1)) if shares is None else shares)


def charge(
    number: int,
    mu2: Fraction | int = Fraction(1, 10),
    *,
    purpose: Purpose = Purpose.TRAINING,
    analyst: str = "ann",
    units: tuple[Unit, ...] = tuple(Unit),
    trust: Trust | None = Trust.DISTRIBUTED,
    delta: Fraction | int = 0,
) -> Charge:
    """A charge of the same cost in each of ``units``."""
    costs = {unit: Cost(mu2, delta) for unit in units}
    return Charge(number.to_bytes(32, "big"), purpose, analyst, costs, trust, f"logistic, round {number}")


def made(path: Path, rounds: int = 4, mu2: Fraction | int = 100) -> Path:
    """A closed ledger: opening, policy, then ``rounds`` reservations, each settled; the last one is open."""
    with Ledger.create(path, KEY, federation="north", population="patients", now=START) as ledger:
        ledger.use(POLICY, 1, limits(mu2), START + 1)
        for number in range(rounds):
            ledger.reserve(charge(number), START + 1000 * number + 10)
            if number < rounds - 1:
                ledger.settle(charge(number).reference, START + 1000 * number + 20)
    return path


def stored(path: Path) -> list[tuple[int, bytes, bytes]]:
    """The raw rows."""
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute("SELECT seq, body, signature FROM entries ORDER BY seq").fetchall()


def rewrite(path: Path, change: Callable[[list[tuple[int, bytes, bytes]]], list[tuple[int, bytes, bytes]]]) -> None:
    """Replace all rows, past the triggers: what an attacker with the file can do."""
    rows = change(stored(path))
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        triggers = connection.execute("SELECT name, sql FROM sqlite_master WHERE type = 'trigger'").fetchall()
        for name, _ in triggers:
            connection.execute(f"DROP TRIGGER {name}")
        connection.execute("DELETE FROM entries")
        connection.executemany("INSERT INTO entries VALUES (?, ?, ?)", rows)
        for _, statement in triggers:
            connection.execute(statement)


def signed(entry: Entry, key: SigningKey = KEY) -> tuple[int, bytes, bytes]:
    """A row that the site itself could have signed, whether or not it follows."""
    sealed = Sealed.of(entry, key)
    return entry.seq, sealed.body, sealed.signature
