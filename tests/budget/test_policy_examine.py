"""A site refuses every request that its policy does not permit, and says publicly what is permitted."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from privfl.budget import ColumnUse, Policy, Purpose
from privfl.dp import Block, Release, Trust, Unit, epsilon_of_cost
from privfl.errors import Refused
from tests.budget.policies import NOW, noiseless, policy, proposal, release

STUDY: dict[str, Any] = {"purpose": Purpose.ANALYTICS, "kind": "study", "clip": None, "statistics": ("mean",)}


def refused(by: Policy, now: int = NOW, **changes: Any) -> str:
    """Why ``by`` refuses the good proposal with ``changes``."""
    with pytest.raises(Refused) as caught:
        by.examine(proposal(**changes), now)
    return str(caught.value)


def test_what_is_permitted() -> None:
    """The good proposal, and tighter ones."""
    good = policy()
    good.examine(proposal(), NOW)
    age = ColumnUse(18.0, 90.0)
    tighter: list[dict[str, Any]] = [
        {"clip": 0.1},
        {"columns": {"age": age}},
        {"columns": {"stage": ColumnUse(classes=("three", "one"))}},
        {"release": release(unit="record", trust="local", min_survivors=1, colluders=0)},
        {"release": release(unit="subject")},
        {"sites": 5, "min_survivors": 4, "release": release(min_survivors=4, colluders=2)},
        {"corrupt_bound": 2, "min_survivors": 4, "release": release(min_survivors=4, colluders=2)},
        {"attempt": 2},
        {"purpose": Purpose.ANALYTICS, "kind": "study", "clip": None, "statistics": ("mean", "histogram", "mean")},
        {"schema_digest": b"any"},
    ]
    for changes in tighter:
        good.examine(proposal(**changes), NOW)
    policy(analysts={}).examine(proposal(analyst="anybody"), NOW)
    policy(trust="local").examine(proposal(release=release(trust="local", min_survivors=1, colluders=0)), NOW)


@pytest.mark.parametrize(
    ("changes", "forbidden", "allowed"),
    [
        ({"federation": "others"}, "federation 'others'", "northern hospitals"),
        ({"kind": "linear"}, "kind 'linear'", "logistic, averaging"),
        ({"kind": "mean", "clip": None}, "kind 'mean'", "logistic, averaging"),
        ({**STUDY, "statistics": ("mean", "drift")}, "statistic 'drift'", "histogram, mean"),
        ({**STUDY, "purpose": Purpose.TRAINING}, "statistics for training", "for analytics or monitoring"),
        ({**STUDY, "clip": 0.5}, "statistics within a task", "without a clip"),
        ({**STUDY, "kind": "logistic"}, "statistics within a task of kind 'logistic'", "a study by itself"),
        ({"columns": {"age": ColumnUse(text=4)}}, "as text", "numbers within its bounds"),
        ({"columns": {"stage": ColumnUse(text=4)}}, "as text", "its classes"),
        ({"kind": "mean", "purpose": Purpose.MONITORING}, "purpose monitoring", "training, analytics"),
        ({"purpose": Purpose.ANALYTICS}, "training a model (logistic) for analytics", "for training only"),
        ({"analyst": "mallory\n"}, r"analyst 'mallory\n'", "dr-jones, lab"),
        ({"schema": ("tumours", 1)}, "schema 'tumours' version 1", "'tumours' version 2"),
        ({"schema": ("other", 2)}, "schema 'other'", "'tumours' version 2"),
        ({"clip": 0.51}, "clip 0.51", "at most 0.5"),
        ({"clip": None}, "clip None", "at most 0.5"),
        ({"clip": 0.0}, "clip 0.0", "above 0"),
        ({"clip": float("nan")}, "clip nan", "at most 0.5"),
        ({"clip": float("inf")}, "clip inf", "at most 0.5"),
        ({"columns": {"income": ColumnUse(0.0, 1.0)}}, "column 'income'", "age, malignant, stage"),
        ({"columns": {"age": ColumnUse(-1.0, 110.0)}}, "column 'age' with bounds [-1.0, 110.0]", "within [0.0, 110.0]"),
        ({"columns": {"age": ColumnUse(0.0, 110.1)}}, "bounds [0.0, 110.1]", "within [0.0, 110.0]"),
        ({"columns": {"age": ColumnUse(50.0, 50.0)}}, "bounds [50.0, 50.0]", "within"),
        ({"columns": {"age": ColumnUse(float("nan"), 1.0)}}, "bounds [nan, 1.0]", "within"),
        ({"columns": {"age": ColumnUse()}}, "without bounds", "numbers within [0, 110]"),
        ({"columns": {"age": ColumnUse(classes=(1, 2))}}, "without bounds", "numbers"),
        ({"columns": {"malignant": ColumnUse(classes=(0, 1))}}, "with other classes", "False, True"),
        ({"columns": {"malignant": ColumnUse(0.0, 1.0)}}, "with other classes", "False, True"),
        ({"columns": {"stage": ColumnUse(classes=("one", "four"))}}, "with other classes", "'one'"),
        ({"columns": {"stage": ColumnUse()}}, "with other classes", "'one'"),
        ({"sites": 3}, "3 site(s) in the cohort", "4 or more"),
        ({"min_survivors": 2}, "2 survivor(s)", "3 or more"),
        ({"corrupt_bound": 0}, "0 colluder(s) as the roster's bound", "1 or more"),
        ({"committee": 2}, "2 committee member(s)", "3 or more"),
        ({"complete": True}, "complete mode", "voted"),
        ({"attempt": 3}, "attempt 3", "3 attempts"),
        ({"attempt": -1}, "attempt -1", "3 attempts"),
        ({"release": None}, "a sum without noise", "finite cost only"),
        ({"release": release(min_survivors=4)}, "rests on 4 survivors", "3 or fewer"),
        (
            {"corrupt_bound": 2, "min_survivors": 4, "release": release(min_survivors=4)},
            "counts on 1 colluder(s)",
            "2 or more",
        ),
        ({"release": release(700.0)}, "epsilon 1.372", "allowed: 1, by more noise"),
        ({"release": release(100.0)}, "for one upload at delta 1e-05", "more noise"),
    ],
)
def test_each_refusal_names_what_is_forbidden_and_what_is_allowed(
    changes: dict[str, Any], forbidden: str, allowed: str
) -> None:
    """One reason each, with nothing of the asker's that could forge a line."""
    found = refused(policy(), **changes)
    assert forbidden in found, found
    assert allowed in found.split(forbidden)[1], found
    assert "\n" not in found
    assert found.startswith("policy version 3 does not allow this: ")


def test_other_policies_refuse_more() -> None:
    """Trust, unit and voted mode, which the base policy cannot show."""
    assert "trust distributed; allowed: local" in refused(policy(trust="local"))
    assert "voted mode; allowed: complete" in refused(policy(modes=["complete"]))
    for unit in ("subject", "site"):
        found = refused(policy(unit=unit))
        assert f"allowed: releases with a finite cost per {unit}" in found
    policy(unit="site").examine(proposal(release=release(unit="site")), NOW)


def test_a_signed_schema_and_no_other() -> None:
    """By its digest, whatever name and version a request gives; without one in the policy names decide."""
    digest = "a1" * 32
    one = policy(schema_digest=digest)
    one.examine(proposal(schema_digest=bytes.fromhex(digest)), NOW)
    for other in (b"", bytes(32)):
        assert "another schema of that name and version" in refused(one, schema_digest=other)
    assert "another schema" not in refused(one, schema=("other", 2), schema_digest=b"")


def test_text_columns() -> None:
    """As text, up to the length that is allowed, and as nothing else."""
    one = policy(columns={"code": {"max_length": 6}})
    one.examine(proposal(columns={"code": ColumnUse(text=6)}), NOW)
    assert "7 characters; allowed: 6" in refused(one, columns={"code": ColumnUse(text=7)})
    assert "0 characters" in refused(one, columns={"code": ColumnUse(text=0)})
    for use in (ColumnUse(0.0, 1.0), ColumnUse(classes=("a", "b")), ColumnUse(), ColumnUse(0.0, 1.0, text=4)):
        assert "something else than text; allowed: text of up to 6" in refused(one, columns={"code": use})


def test_costs_that_the_question_counts_itself() -> None:
    """They are the price, in the policy's unit; a unit that is missing has none."""
    cheap, dear = release().cost, release(300.0).cost
    by_subject = policy(unit="subject")
    by_subject.examine(proposal(costs={Unit.SUBJECT: cheap}), NOW)
    assert "no finite cost for the unit subject" in refused(by_subject, costs={Unit.RECORD: cheap})
    assert "for one upload" in refused(policy(), costs={Unit.RECORD: dear})
    policy().examine(proposal(release=release(300.0), costs={Unit.RECORD: cheap}), NOW)


def test_noise_and_no_noise() -> None:
    """A policy without noise permits exact sums only, since it has no budget to charge."""
    noiseless().examine(proposal(release=None), NOW)
    assert "a release with noise" in refused(noiseless())


def test_validity() -> None:
    """Refused before, from the first millisecond of the expiry on, and never in between."""
    one = policy()
    for now in (one.valid_from_at, one.expires_at - 1):
        one.examine(proposal(), now)
    assert "valid from 2026-11-20 00:00 UTC on" in refused(one, one.valid_from_at - 1)
    assert "expired on 2027-11-20" in refused(one, one.expires_at)
    assert "correct the clock" in refused(one, 10**17)
    assert "wait" in refused(one, 0)


def test_several_reasons_come_together_and_are_bounded() -> None:
    """All of a few; of thousands the first six, and how many more."""
    found = refused(policy(), sites=2, complete=True, attempt=9)
    assert all(words in found for words in ("cohort", "complete mode", "attempt 9"))
    many = {f"column {at} {'x' * 1000}": ColumnUse(0.0, 1.0) for at in range(1000)}
    found = refused(policy(), columns=many)
    assert found.endswith("and 994 more reasons")
    assert len(found) < 2000


def test_several_sites_per_subject_cost_more() -> None:
    """What one upload may cost is told after the factor: k under shared noise, √k under a site's own."""
    shared, own = release(2000.0), release(2000.0, trust="local", min_survivors=1, colluders=0)
    cost = shared.cost
    for k, noise, factor in ((1, shared, 1), (3, shared, 9), (3, own, 3)):
        epsilon = epsilon_of_cost(type(cost)(factor * cost.mu2, k * cost.delta), 1e-5)
        for cap, fits in ((epsilon * 1.001, True), (epsilon * 0.999, False)):
            judge = policy(max_sites_per_subject=k, max_epsilon_per_upload=cap)
            if fits:
                judge.examine(proposal(release=noise), NOW)
            else:
                assert "for one upload" in refused(judge, release=noise)


def test_delta_beyond_the_whole() -> None:
    """An upload whose δ′ alone is above δ is refused in words, not by an error of arithmetic."""
    tiny = policy(delta=1e-15, window=None)
    block = Block("sum", 10, 250**2, 1 << 20, 5000.0, dithered=True)
    dithered = Release(Unit.RECORD, Trust.DISTRIBUTED, (block,), 3, 1)
    assert "an upload whose delta' of 1e-12 is above delta 1e-15" in refused(tiny, release=dithered)


@settings(deadline=None, max_examples=80)
@given(
    st.integers(0, 9), st.integers(0, 9), st.integers(0, 4), st.integers(0, 9), st.booleans(), st.integers(-1, 9),
    st.floats(allow_nan=True), st.floats(allow_nan=True), st.floats(allow_nan=True),
)  # fmt: skip
def test_nothing_looser_ever_passes(
    sites: int, least: int, c: int, committee: int, complete: bool, attempt: int, clip: float, low: float, high: float
) -> None:
    """Whatever numbers are asked for, what passes is within every bound of the policy."""
    asked = proposal(
        sites=sites, min_survivors=least, corrupt_bound=c, committee=committee, complete=complete, attempt=attempt,
        clip=clip, columns={"age": ColumnUse(low, high)},
    )  # fmt: skip
    try:
        policy().examine(asked, NOW)
    except Refused:
        return
    assert sites >= 4
    assert least >= 3
    assert c == 1
    assert committee >= 3
    assert not complete
    assert 0 <= attempt < 3
    assert 0 < clip <= 0.5
    assert 0 <= low < high <= 110
