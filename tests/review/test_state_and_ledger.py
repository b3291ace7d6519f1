"""Attacks on state and ledger that a review found to work once, each held down by the code that stopped it."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest
from privfl_keys import SecretBytes

from privfl.budget import Charge, Ledger, MemoryAccount
from privfl.budget.ledger_check import read_ledger
from privfl.dp import Cost, Trust, Unit
from privfl.errors import BudgetExceeded, Misuse, StorageError, Unverified
from privfl.homes.state import State
from privfl.runtime.post import Refusal
from tests.budget.ledgers import KEY, POLICY, START, charge, limits, made, rewrite
from tests.runtime.evil import Evil


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    """An empty ledger with a budget of 1."""
    made = Ledger.create(tmp_path / "l.db", KEY, federation="north", population="patients", now=START)
    made.use(POLICY, 1, limits(), START)
    return made


def test_what_was_left_open_while_the_site_went_on_is_never_refunded(ledger: Ledger) -> None:
    """A settlement that failed leaves a reservation open although its upload may have left; a later slot hides it."""
    ledger.reserve(charge(1), START)
    ledger.reserve(charge(2), START)
    ledger.reserve(charge(3), START)
    ledger.settle(charge(2).reference, START)
    done = ledger.recover(charge(2).reference, charge(2).reference, START)
    assert [(entry.reference, entry.kind) for entry in done] == [
        (charge(1).reference, "burn"),
        (charge(3).reference, "refund"),  # the newest, and neither accepted nor stored: nothing can have left
    ]
    spent = ledger.spent()
    assert spent is not None
    assert spent.mu2 == Fraction(2, 10)


def test_a_cost_too_large_to_be_written_down_is_over_the_budget_and_no_fault_of_the_ledger(ledger: Ledger) -> None:
    """It made the site's own ledger look broken, so that one announcement stopped the site at every start."""
    costs = {Unit.RECORD: Cost(10**31)}
    asked = Charge(bytes(32), charge(1).purpose, "ann", costs, Trust.DISTRIBUTED, "linear")
    with pytest.raises(BudgetExceeded, match="left"):
        ledger.reserve(asked, START)
    ledger.reserve(charge(1), START)


def test_a_row_put_before_the_first_is_named(tmp_path: Path) -> None:
    """Rows are numbered from 0, and a reader that began there saw nothing of what lay before."""
    path = made(tmp_path / "l.db")
    rewrite(path, lambda rows: [(-1, *rows[0][1:]), *rows])
    with pytest.raises(Unverified, match="moved"):
        read_ledger(path, KEY.verify_key)
    with pytest.raises(Unverified, match="moved"):
        Ledger.open(path, KEY)


class Failing(MemoryAccount):
    """An account that cannot be written for a while: no file descriptor is left, or its file is moved away."""

    broken = False

    def settle(self, reference: bytes, now: int) -> None:
        """See :class:`MemoryAccount`."""
        if self.broken:
            raise Misuse("/srv/north/ledger/patients.db: Too many open files")
        super().settle(reference, now)


def test_a_settlement_that_fails_stops_the_site_before_anything_is_sent() -> None:
    """The site used to go on, sent its upload when asked again, and got the charge back at its next start."""
    evil = Evil.make()
    node = evil.node()
    node.account = account = Failing(evil.terms.limits())
    account.broken = True
    announcement = evil.announce()
    with pytest.raises(StorageError, match="stops"):
        evil.invite(announcement)
    with pytest.raises(StorageError, match="stops"):
        node.serve()  # the message was not acknowledged, and the upload lies in the outbox by now
    account.broken = False
    reply = evil.invite(announcement)
    assert reply is not None
    assert reply.kind == "upload"
    assert account._settled == {announcement.h0: True}


def test_an_upload_is_not_repeated_under_a_policy_that_came_since() -> None:
    """A crash before sending, then a join with another policy: what was computed under the old one stays here."""
    evil = Evil.make()
    announcement = evil.announce()
    first = evil.invite(announcement)
    assert first is not None
    assert first.kind == "upload"
    evil.node().terms = replace(evil.terms, epsilon="0.5")
    reply = evil.invite(announcement)
    assert reply is not None
    assert reply.kind == "refused"
    assert "another policy" in Refusal.decode(reply.payload).reason


def rows_of(folder: Path) -> dict[str, tuple[str, int, bytes]]:
    """The raw rows of a sealed state, as whoever has the file reads them."""
    with closing(sqlite3.connect(folder / "state.db")) as database:
        return {row[0]: row for row in database.execute("SELECT * FROM items")}


@pytest.mark.parametrize("how", ["put back", "removed", "added"])
def test_one_value_of_the_sealed_state_cannot_be_turned_back_alone(tmp_path: Path, how: str) -> None:
    """Every value was sealed by itself: the ledger's anchor could be put back together with an older ledger."""
    key, owner = SecretBytes(bytes(32)), bytes(32)
    with closing(State.create(tmp_path, key, owner)) as state:
        state.put({"ledger": b"entry 2", "machine": b"slot 1", "gone": b"alarm"})
        old = rows_of(tmp_path)
        state.put({"ledger": b"entry 8", "machine": b"slot 3", "gone": None})
        assert state.get("gone") is None
    with closing(sqlite3.connect(tmp_path / "state.db")) as database:
        name = "gone" if how == "added" else "ledger"
        database.execute("DELETE FROM items WHERE name = ?", (name,))
        if how != "removed":
            database.execute("INSERT INTO items VALUES (?, ?, ?)", old[name])
        database.commit()
    with closing(State.open(tmp_path, key, owner)) as state:
        assert state.get("machine") == b"slot 3"
        with pytest.raises(Unverified, match="put back"):
            state.get(name)
        with pytest.raises(Unverified, match="put back"):
            state.rotate()  # nor does sealing again make it sound
