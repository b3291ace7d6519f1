"""Whatever loosens a policy is shown as looser, and its reverse as tighter."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from privfl.budget import Policy
from privfl.budget.policy_diff import _COMPARE, Direction, differences
from tests.budget.policies import document, documents, noiseless, policy

LOOSER, TIGHTER, NEUTRAL = Direction.LOOSER, Direction.TIGHTER, Direction.NEUTRAL


def directions(old: Policy, new: Policy) -> dict[str, Direction]:
    """Direction by the top-level field; the loosest where parts differ."""
    found: dict[str, Direction] = {}
    for change in differences(old, new):
        top = change.field.partition(".")[0]
        found[top] = min(found.get(top, NEUTRAL), change.direction)
    return found


def test_every_field_is_compared() -> None:
    """In the order of the policy."""
    assert list(_COMPARE) == list(Policy.model_fields)


def loosened(field: str, fields: dict[str, Any]) -> Any:
    """A looser value of ``field``; None where there is none."""
    value = fields.get(field)
    less = {"colluders", "min_survivors", "min_sites", "min_committee", "min_cell_count", "max_sites_per_subject"}
    if field in less:
        return value - 1
    if field in ("epsilon", "max_epsilon_per_upload", "delta"):
        return None if value is None else value * 1.5
    if field == "shares":
        return {**value, "monitoring": 0.05}
    if field == "analysts":
        return {} if value else None
    if field == "window":
        return {**value, "lifetime_epsilon": value["lifetime_epsilon"] * 2} if value else None
    if field == "tasks":
        return {"logistic": {"clip": value["logistic"]["clip"] * 2}, "averaging": {"clip": 1.0}}
    if field == "columns":
        return {**value, "another column": {"lower": 0, "upper": 1}}
    return {
        "valid_from": "2025-12-31",
        "expires": "2029-01-01",
        "unit": "record" if value != "record" else "site",
        "dataset": "quite another",
        "schema_version": fields["schema_version"] + 1,
        "trust": "distributed" if value != "distributed" else None,
        "attempts_per_round": fields["attempts_per_round"] + 1,
        "modes": ["complete", "voted"] if len(fields["modes"]) == 1 else None,
        "statistics": [*fields["statistics"], "drift"],
        "population": "quite another",
        "schema_digest": "b2" * 32 if value else None,
        "approval": [] if value else None,
    }.get(field)


NEITHER = {"federation", "version", "subjects", "without_noise"}
ANOTHER = {
    "dataset",
    "schema_version",
    "schema_digest",
    "population",
    "unit",
}  # neither of two values allows less than the other
LOOSENABLE = sorted(set(Policy.model_fields) - NEITHER)


@settings(deadline=None, max_examples=150)
@given(documents(), st.sampled_from(LOOSENABLE))
def test_loosening_any_field_is_shown_as_looser(fields: dict[str, Any], field: str) -> None:
    """And first; the way back is never looser, but where the two allow different things."""
    changed = copy.deepcopy(fields)
    value = loosened(field, fields)
    if value is None:
        return
    changed[field] = value
    try:
        old, new = Policy(**fields), Policy(**changed)
    except Exception:  # the looser value breaks another rule: it is no policy
        return
    assert differences(old, new)[0].direction is LOOSER
    assert directions(old, new) == {field: LOOSER}
    if field not in ANOTHER:
        assert set(directions(new, old).values()) == {TIGHTER}


@pytest.mark.parametrize(
    ("field", "value", "direction"),
    [
        ("federation", "others", NEUTRAL),
        ("version", 4, NEUTRAL),
        ("version", 2, NEUTRAL),
        ("dataset", "others", LOOSER),
        ("schema_version", 9, LOOSER),
        ("schema_digest", "a1" * 32, TIGHTER),
        ("approval", ["analytics"], TIGHTER),
        ("columns", {"age": {"lower": 0, "upper": 110}, "malignant": {"max_length": 5}}, LOOSER),
        ("subjects", 4000, NEUTRAL),
        ("population", "others", LOOSER),
        ("unit", "subject", LOOSER),
        ("unit", "site", LOOSER),
        ("trust", "local", TIGHTER),
        ("max_sites_per_subject", 2, TIGHTER),
        ("max_epsilon_per_upload", None, LOOSER),
        ("max_epsilon_per_upload", 0.5, TIGHTER),
        ("analysts", {}, LOOSER),
        ("analysts", {"dr-jones": 0.5, "lab": 1, "new": 0.1}, LOOSER),
        ("analysts", {"dr-jones": 0.4, "lab": 1}, TIGHTER),
        ("analysts", {"lab": 1}, TIGHTER),
        ("shares", {"training": 0.7, "analytics": 0.1, "monitoring": 0}, TIGHTER),
        ("shares", {"training": 0.7, "analytics": 0.2}, NEUTRAL),
        ("shares", {"training": 0.6, "analytics": 0.3, "monitoring": 0}, LOOSER),
        ("window", None, TIGHTER),
        ("window", {"days": 30, "lifetime_epsilon": 8, "lifetime_delta": 1e-5}, LOOSER),
        ("window", {"days": 180, "lifetime_epsilon": 8, "lifetime_delta": 1e-5}, TIGHTER),
        ("window", {"days": 90, "lifetime_epsilon": 8, "lifetime_delta": 2e-5}, LOOSER),
        ("modes", ["complete"], LOOSER),
        ("tasks", {"logistic": {"clip": 0.6}, "averaging": {"clip": 1}}, LOOSER),
        ("tasks", {"logistic": {"clip": 0.5}}, TIGHTER),
        ("statistics", ["mean"], TIGHTER),
        ("statistics", ["mean", "histogram", "count"], LOOSER),
        ("expires", "2027-11-19", TIGHTER),
        ("valid_from", "2026-11-19", LOOSER),
    ],
)
def test_single_fields(field: str, value: Any, direction: Direction) -> None:
    """One change each, under its field."""
    assert directions(policy(), policy(**{field: value})) == {field: direction}


@pytest.mark.parametrize(
    ("name", "column", "direction"),
    [
        ("age", {"lower": 0, "upper": 111}, LOOSER),
        ("age", {"lower": -1, "upper": 110}, LOOSER),
        ("age", {"lower": 1, "upper": 110}, TIGHTER),
        ("age", {"lower": 0, "upper": 100}, TIGHTER),
        ("age", {"classes": ["young", "old"]}, LOOSER),
        ("stage", {"classes": ["one", "two"]}, TIGHTER),
        ("stage", {"classes": ["one", "two", "four"]}, LOOSER),
        ("stage", {"lower": 1, "upper": 3}, LOOSER),
        ("malignant", {"classes": [0, 1]}, LOOSER),
    ],
)
def test_columns(name: str, column: dict[str, Any], direction: Direction) -> None:
    """Bounds, classes, and a change of kind, which is always looser; true and 1 are different classes."""
    columns = {**document()["columns"], name: column}
    assert directions(policy(), policy(columns=columns)) == {"columns": direction}


def test_giving_up_noise() -> None:
    """Is looser in every line that says so, and shown first."""
    found = directions(policy(), noiseless())
    assert found["without_noise"] is LOOSER
    assert found["epsilon"] is LOOSER
    assert found["delta"] is LOOSER
    assert set(directions(noiseless(), policy(window=None)).values()) == {TIGHTER}


@settings(deadline=None, max_examples=60)
@given(documents(), documents())
def test_looser_first_and_nothing_forgotten(first: dict[str, Any], second: dict[str, Any]) -> None:
    """Sorted by direction; no change exactly for equal policies; each change in words that name its field."""
    old, new = Policy(**first), Policy(**second)
    found = differences(old, new)
    assert [change.direction for change in found] == sorted(change.direction for change in found)
    assert (not found) == (old == new)
    differing = {name for name in Policy.model_fields if getattr(old, name) != getattr(new, name)}
    assert {change.field.partition(".")[0] for change in found} == differing
    assert all(change.words.startswith(change.field.partition(".")[0]) for change in found)
