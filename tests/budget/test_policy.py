"""A policy has one canonical form per meaning, and every complaint about it comes at once, with its line."""

from __future__ import annotations

import json
import re
from datetime import UTC, date, datetime
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from privfl.budget import WITHOUT_NOISE, Budget, InvalidPolicy, Limits, Policy, Purpose
from privfl.budget.policy_fields import exact, largest_delta
from privfl.dp import Trust, Unit
from privfl.errors import Malformed, Misuse
from tests.budget.policies import DAY, TEXT, documents, noiseless, policy

# -- canonical form ------------------------------------------------------------------------------------------


def shuffled(value: Any, draw: st.DrawFn) -> Any:
    """The same meaning in another order: of keys, and of lists that mean sets."""
    if isinstance(value, dict):
        return {key: shuffled(value[key], draw) for key in draw(st.permutations(list(value)))}
    return draw(st.permutations(value)) if isinstance(value, list) else value


@settings(deadline=None, max_examples=60)
@given(documents(), st.data())
def test_order_and_style_do_not_change_the_hash(fields: dict[str, Any], data: st.DataObject) -> None:
    """Shuffled, in block, flow or JSON style, through YAML or as values, a policy keeps its hash."""
    one = Policy(**fields)
    other = data.draw(st.composite(lambda draw: shuffled(fields, draw))())
    for text in (
        yaml.safe_dump(other, sort_keys=False),
        yaml.safe_dump(other, default_flow_style=True, sort_keys=False, width=40),
        json.dumps(other),
        "# a comment\n\n" + yaml.safe_dump(other, default_style=None, indent=4),
    ):
        assert Policy.from_yaml(text).hash == one.hash
    assert Policy(**other) == one
    assert Policy.from_canonical(one.canonical()) == one
    assert Policy(**one.document()).hash == one.hash


@settings(deadline=None, max_examples=60)
@given(documents(), documents())
def test_another_meaning_has_another_hash(first: dict[str, Any], second: dict[str, Any]) -> None:
    """Equal hashes only for equal policies."""
    one, two = Policy(**first), Policy(**second)
    assert (one.hash == two.hash) == (one == two)


CHANGES: dict[str, Any] = {
    "federation": "others",
    "version": 4,
    "valid_from": "2026-11-21",
    "expires": "2027-11-20T00:00:01Z",
    "dataset": "Tumours",
    "schema_version": 3,
    "schema_digest": "a1" * 32,
    "population": "others",
    "subjects": 5001,
    "max_sites_per_subject": 2,
    "unit": "subject",
    "trust": "local",
    "epsilon": 4.000000000000001,
    "delta": 1.1e-5,
    "max_epsilon_per_upload": None,
    "shares": {"training": 0.7, "analytics": 0.2, "monitoring": 0.1},
    "approval": ["analytics"],
    "analysts": {},
    "window": {"days": 91, "lifetime_epsilon": 8, "lifetime_delta": 1.1e-5},
    "colluders": 0,
    "min_survivors": 4,
    "min_sites": 5,
    "min_committee": 4,
    "attempts_per_round": 4,
    "modes": ["voted", "complete"],
    "min_cell_count": 11,
    "tasks": {"logistic": {"clip": 0.5}},
    "statistics": ["mean"],
    "columns": {"age": {"lower": 0, "upper": 110.5}},
}


def test_every_field_is_in_the_hash() -> None:
    """Changing any field changes the hash; no field is forgotten here."""
    assert {*CHANGES, "without_noise"} == set(Policy.model_fields)
    base, seen = policy(), {noiseless().hash}
    for field, value in CHANGES.items():
        more = {"window": CHANGES["window"]} if field == "delta" else {}
        seen.add(policy(**{field: value, **more}).hash)
    assert len(seen) == len(CHANGES) + 1
    assert base.hash not in seen


def test_fields_that_came_later_change_no_old_hash() -> None:
    """A policy that does not use them has the text that it had before they were there."""
    assert not {"schema_digest", "approval"} & set(policy().document())
    assert policy(approval=[]).hash == policy().hash
    assert Policy.from_canonical(policy(approval=["training"]).canonical()).approval == (Purpose.TRAINING,)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"schema_digest": "A1" * 32}, "64 hex digits in lower case"),
        ({"schema_digest": "a1"}, "privfl schema show"),
        ({"approval": ["monitoring"]}, "names monitoring, which has no share"),
        ({"approval": ["sums"]}, "write one of them"),
        ({"columns": {"code": {"max_length": 65}}}, "less than or equal to 64"),
        ({"columns": {"code": {"max_length": 4, "lower": 0, "upper": 1}}}, "{max_length: 8} alone"),
        ({"columns": {"code": {"max_length": 4, "classes": ["a", "b"]}}}, "{max_length: 8} alone"),
    ],
)
def test_what_the_new_fields_cannot_say(changes: dict[str, Any], words: str) -> None:
    """Each with what to write."""
    with pytest.raises(InvalidPolicy, match=re.escape(words)):
        policy(**changes)


def test_one_text_per_meaning() -> None:
    """-0 is 0, 4 is 4.0, a date is its midnight, an offset is its moment; true is not 1, nor 1 "1"."""
    assert (
        policy(columns={"a": {"lower": -0.0, "upper": 1}}).hash == policy(columns={"a": {"lower": 0, "upper": 1}}).hash
    )
    moments = [
        "2027-11-20",
        "2027-11-20 00:00",
        "2027-11-20T02:00:00+02:00",
        date(2027, 11, 20),
        datetime(2027, 11, 20),
    ]
    assert len({policy(expires=moment).hash for moment in moments}) == 1
    classes = [[False, True], [0, 1], ["0", "1"], ["False", "True"]]
    assert len({policy(columns={"a": {"classes": one}}).hash for one in classes}) == 4
    assert policy().expires == datetime(2027, 11, 20, tzinfo=UTC)
    assert policy().expires_at - policy().valid_from_at == 365 * DAY
    assert policy().canonical().isascii()


@pytest.mark.parametrize(
    "spoil",
    [
        lambda text: text.replace(b":", b": ", 1),
        lambda text: text.replace(b'"version":3', b'"version":3.0'),
        lambda text: text.replace(b'"epsilon":4.0', b'"epsilon":4'),
        lambda text: text.replace(b'["voted"]', b'["voted","voted"]'),
        lambda text: text.replace(b'"version":3', b'"version":3,"version":3'),
        lambda text: text.replace(b'"epsilon":4.0', b'"epsilon":NaN'),
        lambda text: text + b" ",
        lambda text: text[:-1],
        lambda text: b"[" * 100_000,
        lambda text: b"[]",
        lambda text: b'{"a":' + b"9" * 5000 + b"}",
        lambda text: b"\xff",
        lambda text: b"",
    ],
)
def test_only_the_canonical_text_is_read_back(spoil: Any) -> None:
    """Whatever else says the same, or nothing, is malformed."""
    with pytest.raises(Malformed, match="sign"):
        Policy.from_canonical(spoil(policy().canonical()))


def test_a_policy_cannot_be_changed() -> None:
    """Neither a field nor what is inside one."""
    one = policy()
    with pytest.raises(Exception, match="frozen"):
        one.version = 9  # type: ignore[misc]
    with pytest.raises(TypeError):
        one.columns["x"] = None  # type: ignore[index]
    with pytest.raises(TypeError):
        one.shares[Purpose.MONITORING] = 1.0  # type: ignore[index]


# -- complaints ----------------------------------------------------------------------------------------------


def complaints(text: str) -> str:
    """What reading ``text`` complains about."""
    with pytest.raises(InvalidPolicy) as caught:
        Policy.from_yaml(text)
    return str(caught.value)


@pytest.mark.parametrize(
    ("old", "new", "line", "words"),
    [
        ("version: 3", "version: 1.5", 2, "version: must be a whole number; write version: 1"),
        ("version: 3", "version: 0", 2, "greater than or equal to 1"),
        ("version: 3", "version: true", 2, "whole number"),
        ("version: 3", "version: 007", 2, "whole number"),
        ("version: 3", "version:", 2, "has no value"),
        ("version: 3", "verzion: 3", 2, "verzion: there is no such field; write version"),
        ("version: 3", "zzz: red", 2, "zzz: there is no such field; see docs/policy.md"),
        ("version: 3", "self: 3", 2, "self: there is no such field"),
        ("federation: northern hospitals", "federation: -x-", 1, "no usable name"),
        ("dataset: tumours", "dataset: no", 5, "put it in quotes"),
        ("dataset: tumours", 'dataset: "a\\u202Eb"', 5, "invisible"),
        ("dataset: tumours", 'dataset: ""', 5, "must not be empty"),
        ("population: northern-patients", "population: ../x", 7, "no usable name"),
        ("expires: 2027-11-20", "expires: 2027-02-30", 4, "no day of the calendar"),
        ("expires: 2027-11-20", "expires: tomorrow", 4, "write one like 2027-11-20"),
        ("expires: 2027-11-20", "expires: 2026-11-20", 4, "must lie after valid_from (2026-11-20)"),
        ("expires: 2027-11-20", "expires: 20271120", 4, "must be a date"),
        ("subjects: 5000", "subjects: 0", 8, "greater than or equal to 1"),
        ("unit: record", "unit: person", 10, "must be record, subject or site; write one of them"),
        ("trust: distributed", "trust: blind", 11, "must be local or distributed"),
        ("epsilon: 4", "epsilon: '4'", 12, "must be a number; write epsilon: 4"),
        ("epsilon: 4", "epsilon: 0", 12, "greater than 0"),
        ("epsilon: 4", "epsilon: .inf", 12, "must be a number"),
        ("epsilon: 4", "epsilon: 1e999", 12, "finite"),
        ("epsilon: 4", "epsilon: 1001", 12, "less than or equal to 1000"),
        ("delta: 1e-5", "delta: 1e-4", 13, "at most 1/(10 x 5000 subjects); write 2e-5 or less"),
        ("max_epsilon_per_upload: 1", "max_epsilon_per_upload: 5", 14, "more than the whole epsilon; write at most 4"),
        ("training: 0.7", "training: 0.9", 15, "shares: sum to 1.1; write shares that sum to at most 1"),
        ("training: 0.7", "training: 1.1", 16, "shares.training: must be less than or equal to 1; write shares"),
        ("training: 0.7", "trainin: 0.7", 16, "shares.trainin: must be training, analytics or monitoring"),
        ("monitoring: 0", "training: 0", 18, "shares.training: occurs a second time (first on line 16)"),
        ("dr-jones: 0.5", "dr-jones: 2", 20, "analysts.dr-jones: must be less than or equal to 1"),
        ("dr-jones: 0.5", "'?': 0.5", 20, "no usable name"),
        ("days: 90", "days: 0", 23, "window.days: must be greater than or equal to 1; write days: 90"),
        ("  days: 90\n", "", 22, "window.days: is missing; write days: 90"),
        ("lifetime_epsilon: 8", "lifetime_epsilon: 3", 22, "lifetime_epsilon is below epsilon; write at least 4"),
        ("lifetime_delta: 1e-5", "lifetime_delta: 1e-6", 22, "lifetime_delta is below delta"),
        ("lifetime_delta: 1e-5", "lifetime_delta: 1e-3", 22, "lifetime_delta must be at most 1/(10 x 5000"),
        ("lifetime_delta: 1e-5", "lifetime: 1e-5", 25, "there is no such field; write lifetime_delta"),
        ("colluders: 1", "colluders: 2", 27, "min_survivors: with 2 colluders two honest shares of noise need 4"),
        ("min_sites: 4", "min_sites: 2", 28, "write 3 or more"),
        ("modes: [voted]", "modes: [vote]", 31, "must be voted or complete"),
        ("modes: [voted]", "modes: []", 31, "must not be empty"),
        ("modes: [voted]", "modes: voted", 31, "must be a list"),
        ("modes: [voted]", "modes: [voted, voted]", 31, "names something twice"),
        ("clip: 0.5", "clip: 0", 34, "tasks.logistic.clip: must be greater than 0; write clip: 0.3"),
        ("clip: 0.5", "klip: 0.5", 34, "there is no such field; write clip"),
        ("logistic:", "forest:", 34, "must be logistic, linear, averaging or update"),
        ("logistic: {clip: 0.5}", "logistic: 0.5", 34, "must be a group of fields"),
        ("[mean, histogram]", "[Mean]", 36, "lower-case"),
        ("[mean, histogram]", "[logistic]", 36, "is a task; allow it under tasks"),
        ("{lower: 0, upper: 110}", "{lower: 110, upper: 0}", 38, "columns.age: lower 110 is not below upper 0"),
        ("{lower: 0, upper: 110}", "{lower: 0}", 38, "needs both bounds or classes"),
        ("{lower: 0, upper: 110}", "{lower: 0, upper: 1, classes: [a, b]}", 38, "bounds and classes"),
        ("[false, true]", "[false]", 39, "two or more distinct"),
        ("[false, true]", "[false, 1]", 39, "all true/false"),
        ("[false, true]", "[0.5, 1.5]", 39, "all true/false"),
        ("[one, two, three]", "[one, two, no]", 40, "'no' is read as false or true by some programs"),
        ("[one, two, three]", "[one, two, one]", 40, "distinct"),
        ("modes: [voted]", "modes: &m [voted]", 31, "anchor"),
        ("version: 3", "version: !!int 3", 2, "tag"),
        ("epsilon: 4", "epsilon: *x", 12, "alias"),
        ("dataset: tumours", "dataset: {<<: {a: 1}}", 5, "merge keys are not read"),
        ("dataset: tumours", "dataset: [[[[[[1]]]]]]", 5, "nests deeper than 5"),
        ("  dr-jones: 0.5", "\tdr-jones: 0.5", 20, "indent with spaces"),
        ("modes: [voted]", "modes: [voted", 32, "not YAML"),
        ("version: 3", "version: 3\n---\na: 1", 3, "holds one"),
        ("version: 3", "version: \x07", 2, "character that YAML does not allow"),
        ("version: 3", "? [a]\n: 3", 2, "plain text"),
    ],
)
def test_bad_input_is_named_with_its_line(old: str, new: str, line: int, words: str) -> None:
    """Each with what to write instead."""
    assert TEXT.count(old) >= 1
    found = complaints(TEXT.replace(old, new, 1))
    assert words in found, found
    assert f"policy:{line}:" in next(text for text in found.splitlines() if words in text)


def test_all_complaints_at_once(tmp_path: Path) -> None:
    """Of fields, between fields and of the text itself, in the order of the file, with the file's name."""
    path = tmp_path / "policy.yaml"
    bad = TEXT.replace("epsilon: 4\n", "").replace("training: 0.7", "training: 0.9").replace("clip: 0.5", "clip: yes")
    path.write_text(bad.replace("expires: 2027", "expires: 2007"))
    with pytest.raises(InvalidPolicy) as caught:
        Policy.from_yaml(path)
    lines = [line.strip() for line in str(caught.value).splitlines()]
    assert lines[0] == "4 things to correct"
    assert lines[1] == f"{path}:1: epsilon: is missing; write epsilon: 4"
    assert [line.split(":")[1] for line in lines[1:]] == ["1", "4", "14", "33"]


def test_every_required_field_is_asked_for() -> None:
    """One line alone: what is missing is listed, with an example each; more than fit are counted."""
    found = complaints("epsilon: 1\n")
    assert "and " in found.splitlines()[-1]
    assert len(found.splitlines()) <= 20
    with pytest.raises(InvalidPolicy) as caught:
        Policy()
    missing = {str(fault.place[0]) for fault in caught.value.faults}
    assert {name for name, field in Policy.model_fields.items() if field.is_required()} <= missing
    assert all("; write " in fault.text for fault in caught.value.faults)


@pytest.mark.parametrize("text", ["", "- a\n- b\n", "text", "42", "[]"])
def test_what_is_no_mapping(text: str) -> None:
    """Is told how a policy begins."""
    assert "must be a list of fields" in complaints(text)


def test_unreadable_files(tmp_path: Path) -> None:
    """Missing, a folder, not UTF-8, far too large: one line each, with the path."""
    (tmp_path / "bytes").write_bytes(b"a: \xff")
    (tmp_path / "large").write_bytes(b"#" * (1 << 20) + b"##")
    for name, words in (("none", "cannot be read"), (".", "cannot be read"), ("bytes", "UTF-8"), ("large", "larger")):
        with pytest.raises(Misuse, match=words):
            Policy.from_yaml(tmp_path / name)


def test_without_noise_only_by_name() -> None:
    """The one sentence, and then no budget beside it."""
    assert noiseless().noiseless
    assert not policy().noiseless
    with pytest.raises(InvalidPolicy, match="only one sentence grants this"):
        policy(without_noise="yes please", epsilon=None, delta=None, max_epsilon_per_upload=None, window=None)
    with pytest.raises(InvalidPolicy) as caught:
        policy(without_noise=WITHOUT_NOISE)
    assert {fault.place for fault in caught.value.faults} == {
        ("epsilon",), ("delta",), ("max_epsilon_per_upload",), ("window",)
    }  # fmt: skip


def test_nothing_to_ask() -> None:
    """Neither tasks nor statistics, or shares of nothing."""
    with pytest.raises(InvalidPolicy, match="neither tasks nor statistics"):
        policy(tasks={}, statistics=[])
    with pytest.raises(InvalidPolicy, match="give nothing"):
        policy(shares={"training": 0})
    assert policy(tasks={}, statistics=["mean"]).tasks == {}


@given(st.integers(1, 10**11))
def test_the_advised_delta_is_accepted(subjects: int) -> None:
    """One digit, at most 1/(10·subjects), and more than half of it."""
    advised = exact(float(largest_delta(subjects)))
    assert advised * 10 * subjects <= 1 < advised * 21 * subjects


def test_the_exact_decimals_of_shares() -> None:
    """0.7 + 0.2 + 0.1 is 1, whatever floats say."""
    assert policy(shares={"training": 0.7, "analytics": 0.2, "monitoring": 0.1})
    assert exact(0.1) == Fraction(1, 10)
    assert exact(1e-7) == Fraction(1, 10**7)


def test_limits() -> None:
    """What the account gets: exact shares, milliseconds, budgets; nothing of a budget without noise."""
    found = policy(max_sites_per_subject=2).limits()
    assert found == Limits(
        unit=Unit.RECORD,
        budget=Budget.from_epsilon_delta(4, 1e-5),
        shares={Purpose.TRAINING: Fraction(7, 10), Purpose.ANALYTICS: Fraction(1, 5), Purpose.MONITORING: Fraction(0)},
        analysts={"dr-jones": Fraction(1, 2), "lab": Fraction(1)},
        window_ms=90 * DAY,
        lifetime=Budget.from_epsilon_delta(8, 1e-5),
        sites_per_subject=2,
    )
    assert policy().windows == 5
    assert policy(window=None).limits().window_ms is None
    assert noiseless().limits().noiseless
    assert noiseless().limits().budget is None


def test_what_others_read() -> None:
    """Modes and trust, as the machines ask for them."""
    assert (policy().allow_voted, policy().allow_complete) == (True, False)
    assert policy(modes=["complete"]).allow_complete
    assert policy().trust is Trust.DISTRIBUTED
