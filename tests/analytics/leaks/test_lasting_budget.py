"""Leaks: a counter of epsilon that lives in memory and resets; repetitions that cost nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from privfl_keys import SigningKey

from privfl.budget import Account, Charge, Ledger
from privfl.budget.memory import MemoryAccount
from privfl.dp import Unit
from privfl.entropy import SYSTEM
from privfl.errors import BudgetExceeded
from privfl.runtime import Terms
from tests.analytics.leaks.listening import first, question_of

NOW = 1_700_000_000_000
LIMITS = Terms("2.0", "1e-06", "record", "distributed", 3, True, False).limits()
POLICY = b"p" * 32
QUESTION = question_of("count", epsilon=0.9)


def asked(account: Account, number: int) -> None:
    """One upload of a study, charged as a site does it."""
    release = QUESTION.releases[0]
    costs = QUESTION.costs(first(QUESTION))
    name = number.to_bytes(32, "big")
    account.reserve(Charge(name, QUESTION.purpose, "", costs, release.trust, "study", POLICY), NOW + number)
    account.settle(name, NOW + number)


def check_restarts(opened: Callable[[], Account]) -> None:
    """Every question by a new process: after as many as the budget holds, the next is refused."""
    made, why = 0, ""
    try:
        for number in range(50):
            account = opened()
            try:
                asked(account, number)
            finally:
                if isinstance(account, Ledger):
                    account.close()
            made += 1
    except BudgetExceeded as error:
        why = str(error)
    budget = LIMITS.budget
    assert budget is not None
    cost = QUESTION.costs(first(QUESTION))[Unit.RECORD].mu2
    assert made == budget.mu2 // cost, f"{made} uploads where the budget holds {budget.mu2 // cost}"
    assert 1 < made < 50
    assert "left: mu^2" in why


def test_the_counter_outlives_the_process(tmp_path: Path) -> None:
    """The ledger is opened anew for each question, and counts on; a counter in memory is found out."""
    key, path = SigningKey.generate(SYSTEM), tmp_path / "ledger.db"
    Ledger.create(path, key, federation="f", population="p", now=NOW).close()
    with Ledger.open(path, key) as made:
        made.use(POLICY, 1, LIMITS, NOW)
    check_restarts(lambda: Ledger.open(path, key))
    with pytest.raises(AssertionError, match="uploads where the budget holds"):
        check_restarts(lambda: MemoryAccount(LIMITS))


def test_a_new_policy_does_not_give_back_what_was_spent(tmp_path: Path) -> None:
    """The limits of another version hold for the same sum of everything that was ever charged."""
    key, path = SigningKey.generate(SYSTEM), tmp_path / "ledger.db"
    Ledger.create(path, key, federation="f", population="p", now=NOW).close()
    with Ledger.open(path, key) as made:
        made.use(POLICY, 1, LIMITS, NOW)
        asked(made, 1)
        before = made.spent(Unit.RECORD)
        made.use(b"2" * 32, 2, LIMITS, NOW + 10)
        assert made.spent(Unit.RECORD) == before
        assert before is not None
        assert before.mu2 > 0
