"""What a policy says in sentences holds every figure, and each hazard where it applies and only there."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings

from privfl.budget import Policy
from privfl.budget.policy_hazards import up
from privfl.budget.policy_words import _exactly as exactly
from privfl.budget.policy_words import explain, figures
from privfl.dp import epsilon_of_mu
from tests.budget.policies import TEXT, documents, noiseless, policy


def words(one: Policy) -> str:
    """All sentences of an explanation, in one line."""
    return " ".join(sentence for section in explain(one) for sentence in section.sentences)


@settings(deadline=None, max_examples=40)
@given(documents())
def test_every_figure_is_said(fields: dict[str, Any]) -> None:
    """Whatever was written, it is read out; and nothing of Python shows through."""
    one = Policy(**fields)
    said = words(one)
    for text in (
        one.federation, one.dataset, one.population, f"{one.valid_from:%Y-%m-%d}", f"{one.expires:%Y-%m-%d %H:%M}",
        exactly(one.epsilon), exactly(one.delta), one.unit, one.trust, *one.statistics, *one.columns, *one.analysts,
        f"Version {one.version} ", f"schema version {one.schema_version}", f"{one.subjects} people",
        f"count of {one.min_cell_count}" if not one.statistics else f"at least {one.min_cell_count}.",
        f"At least {one.min_sites} sites", f"at least {one.min_survivors} in any", f"{one.min_committee} members",
        f"at most {one.attempts_per_round} time", f"{one.colluders}", f"{exactly(one.tasks['logistic'].clip)}",
    ):  # fmt: skip
        assert text in said, text
    found = figures(one)
    assert f"mu {up(found['mu'], 4)}" in said
    for purpose, share in one.shares.items():
        assert not share or f"epsilon {up(found['shares'][purpose])}" in said
    if one.window is not None:
        for name in ("mu_of_all_windows", "lifetime_epsilon", "lifetime_delta"):
            assert up(found[name], 4) in said or exactly(found[name]) in said
        assert f"{found['windows']} windows" in said
        assert up(found["epsilon_of_all_windows"]) in said
    assert "None" not in said
    assert "Unit." not in said


def test_known_figures() -> None:
    """ε = 4 at δ = 1e-5: a factor of e⁴, a coin to less than 98.3 %; five windows of 90 days in a year, √5 times μ."""
    found = figures(policy())
    said = words(policy())
    assert "factor of at most 54.6" in said
    assert "98.3 % sure" in said  # rounded up
    assert found["windows"] == 5
    assert found["mu_of_all_windows"] == pytest.approx(found["mu"] * 5**0.5)
    assert found["epsilon_of_all_windows"] == pytest.approx(epsilon_of_mu(found["mu_of_all_windows"], 9e-6), rel=0.01)
    assert found["shares"]["training"] < 4
    assert "10 % of the total is given to no purpose" in said
    assert "For monitoring: 0 % of the total, nothing; it is refused." in said


HAZARDS = {
    "The window resets": ({}, {"window": None}),
    "is large": ({}, {"epsilon": 0.5, "max_epsilon_per_upload": None, "window": None}),
    "is small": ({"epsilon": 0.5, "max_epsilon_per_upload": None, "window": None}, {}),
    "is moderate": ({"epsilon": 2, "window": None}, {}),
    "A person with two rows": ({}, {"unit": "subject"}),
    "Someone with two ids": ({"unit": "subject"}, {}),
    "For a single row in it": ({"unit": "site"}, {}),
    "so it has no finite cost per site": ({"unit": "site"}, {"unit": "subject"}),
    "must bound all rows of one person together": ({"unit": "subject"}, {}),
    "Its schema is signed with it": ({"schema_digest": "a1" * 32}, {}),
    "The display minimum": ({}, {"statistics": None}),
    "For analytics that is not enough: each request also waits": ({"approval": ["analytics"]}, {}),
    "For training these rules stand": ({"approval": ["analytics"]}, {"approval": ["training", "analytics"]}),
    "code (text of up to 6 characters)": ({"columns": {"code": {"max_length": 6}}}, {}),
    "Should all other sites collude": ({}, {"trust": "local"}),
    "at up to 3 sites": ({"max_sites_per_subject": 3}, {}),
    "An epsilon at another delta": ({}, None),
    "Noise weighs most on small groups": ({}, None),
    "exact integers": ({}, None),
    "Times are another channel": ({}, None),
    "a bound read off the data": ({}, None),
    "published from the same data without this ledger": ({}, None),
}


@pytest.mark.parametrize("hazard", HAZARDS)
def test_hazards_where_they_apply(hazard: str) -> None:
    """In the policies that have it, not in those that have not."""
    has, has_not = HAZARDS[hazard]
    assert hazard in words(policy(**has))
    if has_not is not None:
        assert hazard not in words(policy(**has_not))


def test_without_noise_is_said_loudly() -> None:
    """A warning in the first section; and no word of epsilon as a promise."""
    first = " ".join(explain(noiseless())[0].sentences)
    assert "WARNING: THIS POLICY LETS EXACT SUMS LEAVE" in first
    assert "Nobody" in words(noiseless())
    assert "costs at most epsilon" not in words(noiseless())
    assert figures(noiseless()) == {}
    assert "WARNING" not in words(Policy.from_yaml(TEXT))


def test_enormous_epsilon() -> None:
    """The odds are told by their power of ten."""
    said = words(policy(epsilon=1000, window=None))
    assert "10^435" in said
    assert "almost completely sure" in said
