"""A site's terms and its account: what is agreed has a name, what is charged stays charged."""

from __future__ import annotations

from dataclasses import fields, replace

import pytest

from privfl.budget import Budget, Charge, Purpose
from privfl.dp import Cost, Trust, Unit
from privfl.errors import BudgetExceeded, Refused
from privfl.runtime import MemoryAccount, Terms

TERMS = Terms("2.0", "1e-05", "record", "distributed", 4, True, False)
BUDGET = Budget.from_epsilon_delta(2.0, 1e-5)


def test_every_term_is_in_the_name() -> None:
    """Two terms that differ in anything have different hashes, so that announcements under them differ."""
    others = {
        "epsilon": "2.1",
        "delta": "1e-06",
        "unit": "site",
        "trust": "local",
        "min_survivors": 5,
        "allow_voted": False,
        "allow_complete": True,
    }
    assert {field.name for field in fields(Terms)} == set(others)
    hashes = {TERMS.hash} | {replace(TERMS, **{name: value}).hash for name, value in others.items()}
    assert len(hashes) == 8
    assert Terms.decode(TERMS.encode()) == TERMS


def test_what_the_machine_enforces_comes_from_the_terms() -> None:
    """The rules of secure aggregation are those of the terms, noiselessness included."""
    rules = TERMS.rules()
    assert (rules.policy, rules.min_survivors, rules.allow_voted, rules.allow_complete) == (TERMS.hash, 4, True, False)
    assert not rules.noiseless
    silent = replace(TERMS, epsilon="", delta="")
    assert silent.rules().noiseless
    assert silent.limits().budget is None
    assert TERMS.limits().budget == Budget.from_epsilon_delta(2.0, 1e-5)


def charge(reference: bytes, cost: Cost | None) -> Charge:
    return Charge(reference, Purpose.TRAINING, "", {} if cost is None else {Unit.RECORD: cost}, Trust.DISTRIBUTED)


def test_a_slot_is_charged_once_and_heads_chain() -> None:
    """The same H0 again costs nothing; each charge moves the head, in an order that the head tells."""
    account, other = (MemoryAccount(TERMS.limits()) for _ in range(2))
    cost = Cost(BUDGET.mu2 / 10, 0)
    first = account.reserve(charge(b"a" * 32, cost), 1)
    assert account.reserve(charge(b"a" * 32, cost), 2) == first == account.head
    second = account.reserve(charge(b"b" * 32, cost), 3)
    assert len({bytes(32), first, second}) == 3
    assert other.reserve(charge(b"b" * 32, cost), 1) != other.reserve(charge(b"a" * 32, cost), 2) != second
    assert len(account.charges) == 2


def test_what_does_not_fit_changes_nothing() -> None:
    """After a refusal the account is as before, and a smaller charge still fits."""
    account, whole = MemoryAccount(TERMS.limits()), BUDGET.mu2
    account.reserve(charge(b"a" * 32, Cost(whole * 2 / 5, 0)), 1)
    before = (account.head, list(account.charges), account.spent())
    with pytest.raises(BudgetExceeded):
        account.reserve(charge(b"b" * 32, Cost(whole, 0)), 2)
    assert (account.head, account.charges, account.spent()) == before
    account.reserve(charge(b"c" * 32, Cost(whole * 2 / 5, 0)), 3)
    with pytest.raises(BudgetExceeded):
        account.reserve(charge(b"d" * 32, Cost(whole / 4, 0)), 4)


def test_an_account_without_budget_takes_no_noise() -> None:
    """Terms without a budget note each slot and refuse whatever has a price."""
    account = MemoryAccount(replace(TERMS, epsilon="", delta="").limits())
    assert account.reserve(charge(b"a" * 32, None), 1) == account.head != bytes(32)
    with pytest.raises(Refused, match="no budget"):
        account.reserve(charge(b"b" * 32, Cost(1, 0)), 2)
    assert len(account.charges) == 1
