"""Policies, rosters and proposals for the tests of the budget package and of the commands."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

from hypothesis import strategies as st
from privfl_keys import SYSTEM, Member, Roster, SigningKey

from privfl.budget import WITHOUT_NOISE, ColumnUse, Policy, Proposal, Purpose
from privfl.dp import Block, Release

NOW = 1_800_000_000_000  # 2027-01-15
DAY = 86_400_000

TEXT = """\
federation: northern hospitals
version: 3
valid_from: 2026-11-20
expires: 2027-11-20
dataset: tumours
schema_version: 2
population: northern-patients
subjects: 5000
max_sites_per_subject: 1
unit: record
trust: distributed
epsilon: 4
delta: 1e-5
max_epsilon_per_upload: 1
shares:
  training: 0.7
  analytics: 0.2
  monitoring: 0
analysts:
  dr-jones: 0.5
  lab: 1
window:
  days: 90
  lifetime_epsilon: 8
  lifetime_delta: 1e-5
colluders: 1
min_survivors: 3
min_sites: 4
min_committee: 3
attempts_per_round: 3
modes: [voted]
min_cell_count: 10
tasks:
  logistic: {clip: 0.5}
  averaging: {clip: 1}
statistics: [mean, histogram]
columns:
  age: {lower: 0, upper: 110}
  malignant: {classes: [false, true]}
  stage: {classes: [one, two, three]}
"""


def document(**changes: Any) -> dict[str, Any]:
    """The fields of the policy above, with some changed; None removes one."""
    fields = copy.deepcopy(Policy.from_yaml(TEXT).document())
    fields.update(changes)
    return {name: value for name, value in fields.items() if value is not None}


def policy(**changes: Any) -> Policy:
    """The policy above, with some fields changed; None removes one."""
    return Policy(**document(**changes))


def noiseless() -> Policy:
    """A policy that lets exact sums leave."""
    return policy(without_noise=WITHOUT_NOISE, epsilon=None, delta=None, max_epsilon_per_upload=None, window=None)


def release(sigma: float = 5000.0, **changes: Any) -> Release:
    """Per record, distributed, three survivors of which one may collude; σ/Δ is 20."""
    fields = {"unit": "record", "trust": "distributed", "min_survivors": 3, "colluders": 1, **changes}
    return Release(blocks=(Block("gradient", 10, 250**2, 1 << 20, sigma),), **fields)


def proposal(**changes: Any) -> Proposal:
    """What the policy above permits, with some fields changed."""
    columns = {"age": ColumnUse(0.0, 110.0), "malignant": ColumnUse(classes=(False, True))}
    good = Proposal(
        federation="northern hospitals",
        purpose=Purpose.TRAINING,
        analyst="dr-jones",
        kind="logistic",
        schema=("tumours", 2),
        columns=columns,
        clip=0.5,
        release=release(),
        sites=4,
        min_survivors=3,
        complete=False,
        roster_sites=5,
        corrupt_bound=1,
        committee=5,
        committee_corrupt=1,
        round=1,
        attempt=0,
    )
    return replace(good, **changes)


def roster(
    officer: SigningKey,
    *roles: str,
    federation: str = "northern hospitals",
    sites: int = 5,
    valid_from: int = NOW - DAY,
    valid_until: int = NOW + 365 * DAY,
    **more: Any,
) -> Roster:
    """Some sites, and the holder of ``officer`` with ``roles`` (compliance by default) as "officer"."""
    members = [Member("officer", officer.verify_key.raw, roles or ("compliance",))]
    members += [Member(f"site {at}", SigningKey.generate(SYSTEM).verify_key.raw, ("site",)) for at in range(sites)]
    more = {"graph_seed": bytes(32), "valid_from": valid_from, "valid_until": valid_until, **more}
    return Roster.create(federation, members, **more)


_NAMES = st.from_regex(r"[a-z][a-z0-9-]{0,8}[a-z0-9]", fullmatch=True)
_NUMBERS = st.floats(-1e6, 1e6, allow_nan=False)
_BOUNDS = st.tuples(_NUMBERS, _NUMBERS).filter(lambda pair: pair[0] < pair[1])
_COLUMNS = (
    _BOUNDS.map(lambda pair: {"lower": pair[0], "upper": pair[1]})
    | st.lists(_NAMES, min_size=2, max_size=4, unique=True).map(lambda names: {"classes": names})
    | st.integers(1, 64).map(lambda most: {"max_length": most})
)


@st.composite
def documents(draw: st.DrawFn) -> dict[str, Any]:
    """The fields of any valid policy with a budget."""
    subjects = draw(st.integers(1, 10**6))
    delta = 10.0 ** -draw(st.integers(8, 12))
    epsilon = draw(st.floats(0.1, 20))
    training = draw(st.sampled_from([0.0, 0.1, 0.5, 0.7]))
    colluders = draw(st.integers(0, 4))
    survivors = max(1, colluders) + 2 + draw(st.integers(0, 3))
    fields: dict[str, Any] = {
        "federation": draw(_NAMES),
        "version": draw(st.integers(1, 9)),
        "valid_from": "2026-01-01",
        "expires": draw(st.sampled_from(["2026-06-01", "2027-01-01T12:30:00Z", "2027-01-01"])),
        "dataset": draw(_NAMES),
        "schema_version": draw(st.integers(1, 9)),
        "population": draw(_NAMES),
        "subjects": subjects,
        "max_sites_per_subject": draw(st.integers(1, 3)),
        "unit": draw(st.sampled_from(["record", "subject", "site"])),
        "trust": draw(st.sampled_from(["local", "distributed"])),
        "epsilon": epsilon,
        "delta": delta,
        "shares": {"training": training, "analytics": 0.3},
        "analysts": draw(st.dictionaries(_NAMES, st.sampled_from([0.25, 0.5, 1.0]), max_size=2)),
        "colluders": colluders,
        "min_survivors": survivors,
        "min_sites": survivors + draw(st.integers(0, 3)),
        "min_committee": draw(st.integers(2, 9)),
        "attempts_per_round": draw(st.integers(1, 5)),
        "modes": draw(st.sampled_from([["voted"], ["complete"], ["voted", "complete"]])),
        "min_cell_count": draw(st.integers(1, 50)),
        "tasks": {"logistic": {"clip": draw(st.floats(0.01, 10))}},
        "statistics": draw(st.lists(st.sampled_from(["mean", "count", "histogram"]), unique=True)),
        "columns": draw(st.dictionaries(_NAMES, _COLUMNS, min_size=1, max_size=3)),
    }
    if draw(st.booleans()):
        fields["max_epsilon_per_upload"] = epsilon / 2
    if draw(st.booleans()):
        days = draw(st.integers(1, 400))
        fields["window"] = {"days": days, "lifetime_epsilon": epsilon * 2, "lifetime_delta": delta}
    if draw(st.booleans()):
        fields["schema_digest"] = "a1" * 32
    if draw(st.booleans()):
        fields["approval"] = ["analytics"]
    return fields
