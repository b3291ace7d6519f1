"""A clock that jumps ahead while a slot is closed must not lock the ledger until then."""

from __future__ import annotations

from pathlib import Path

from privfl.budget import Ledger
from tests.budget.ledgers import KEY, POLICY, START, charge, limits

YEAR = 365 * 86_400_000


def test_a_jump_ahead_at_settling_costs_a_week_at_most(tmp_path: Path) -> None:
    """Settled five years ahead, the entry is dated a week on; with the clock right again the site goes on then."""
    with Ledger.create(tmp_path / "l.db", KEY, federation="north", population="patients", now=START) as ledger:
        ledger.use(POLICY, 1, limits(100), START)
        ledger.reserve(charge(1), START + 10)
        ledger.settle(charge(1).reference, START + 5 * YEAR)
        assert ledger.entries()[-1].time == START + 10 + 7 * 86_400_000
        ledger.reserve(charge(2), START + 8 * 86_400_000)
