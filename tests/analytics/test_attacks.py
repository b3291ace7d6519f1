"""A coordinator with its true key asks honest sites, in one process, for studies that claim what is not so.

Everything is refused before a charge: account and state are as before, and the reason names public things only.
"""

from __future__ import annotations

import json
import math
import tracemalloc
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from privfl_analytics import Query, Study
from privfl_analytics.descriptor import Descriptor
from privfl_analytics.opened import History
from privfl_analytics.question import StudyQuestion
from privfl_keys import Label, SigningKey, digest

from privfl.budget import Mandate, Policy, Purpose
from privfl.codec import decode, encode
from privfl.dp import Release, Trust, Unit
from privfl.entropy import SYSTEM
from privfl.errors import Malformed
from privfl.homes.trial import policy_for
from privfl.runtime import Federation, PolicyTerms
from privfl.runtime.post import Invitation, Post, Received, Refusal
from privfl.runtime.site import AT_FAULT, inputs_hash
from privfl.secagg import Announcement, SlotPlan
from privfl.tasks import Schema
from tests.analytics.studies import SCHEMA, data_of, frame
from tests.runtime.support import FixedClock, charged

SITES = ("north", "south", "east", "west")
LISTED = ("count", "mean", "sd", "median", "histogram", "frequent_values", "site_divergence", "logistic_regression",
          "heavy_hitters", "crosstab")  # fmt: skip
DEEP = 100_000


class Under(PolicyTerms):
    """A policy as the terms of a federation in one process."""

    def limits(self) -> Any:
        """For the account."""
        return self.policy.limits()


def policy(now: int, schema: Schema = SCHEMA, **changes: Any) -> Policy:
    """What compliance signed: half of the budget for analytics, none for monitoring."""
    fields = {
        "federation": "local",
        "epsilon": 20.0,
        "shares": {"analytics": 0.5, "training": 0.5},
        "statistics": list(LISTED),
        "tasks": {"logistic": {"clip": 1.0}},
        **changes,
    }
    return Policy(**policy_for(schema.model_dump(mode="json"), now, **fields))


@dataclass
class Attack:
    """An open epoch of honest sites, and the coordinator's key and post in the test's hands."""

    fed: Federation
    terms: Under
    round: int = 0

    @classmethod
    def make(cls, rows: int = 12, **changes: Any) -> Attack:
        """Four sites under one policy."""
        clock = FixedClock()
        tables = {name: data_of(frame(rows, seed)) for seed, name in enumerate(SITES)}
        fed = Federation(tables, SCHEMA, clock=clock)
        terms = Under(policy(clock.now(), **changes))
        fed._start_nodes(terms)  # type: ignore[arg-type]
        assert fed._coordinator.open_epoch(sorted(fed._sites)) == {}
        return cls(fed, terms)

    @property
    def key(self) -> SigningKey:
        """The coordinator's identity key."""
        return self.fed._coordinator.machine.party.key

    def compiled(self, *queries: str | Query, schema: Schema = SCHEMA, **options: Any) -> StudyQuestion:
        """A consistent study."""
        named = {"purpose": options.pop("purpose", Purpose.ANALYTICS), "scores": options.pop("scores", ())}
        honest: dict[str, Any] = {"epsilon": 2.0, "delta": 1e-6, "sites": 4, "min_survivors": 3, "colluders": 1}
        return Study("asked", queries or ("count by sex",), **named).compile(schema, **{**honest, **options})  # type: ignore[arg-type]

    def announce(
        self, descriptor: bytes, inputs: bytes, length: int, forged: Mapping[str, Any] | None = None, **changes: Any
    ) -> Announcement:
        """Announce through the real machine, then change what it would not say."""
        machine = self.fed._coordinator.machine
        if machine.slot.stage in ("collecting", "voting", "releasing"):
            machine.abandon()
        self.round += 1
        plan = SlotPlan(
            digest(Label.TASK, descriptor),
            inputs_hash(inputs),
            self.terms.policy.hash,
            64,
            64,
            length,
            machine.record.sites,
            False,
            3,
            self.fed._clock.now() + 600_000,
        )
        slot = changes.pop("slot", (self.round, 0))
        made = machine.announce(replace(plan, **changes), slot)
        if not forged:
            return made
        body = replace(made, **forged)
        return replace(body, signature=self.key.sign(Label.ANNOUNCEMENT, body.h0))

    def ask(self, announcement: Announcement, descriptor: bytes, inputs: bytes, mandate: bytes = b"") -> Received:
        """One site's reply."""
        post: Post = self.fed._coordinator._post
        (site, *_), found = sorted(self.fed._sites), list[Received]()
        payload = Invitation(announcement, descriptor, inputs, mandate).encode()
        sent = post.send(site, "announce", payload)
        self.fed._sites[site].node.serve()  # type: ignore[union-attr]
        post.receive(0, found.append)
        return [one for one in found if one.reply_to == sent][-1]

    def invite(
        self,
        question: StudyQuestion,
        *,
        descriptor: bytes | None = None,
        inputs: bytes | None = None,
        mandate: bytes = b"",
        **announced: Any,
    ) -> Received:
        """Ask one site for the first stage of a study, or for what a test puts in its place."""
        descriptor = question.descriptor() if descriptor is None else descriptor
        inputs = first(question) if inputs is None else inputs
        length = announced.pop("length", question.sum_at(0).length)
        return self.ask(self.announce(descriptor, inputs, length, **announced), descriptor, inputs, mandate)

    def refused(self, *words: str, question: StudyQuestion | None = None, **invitation: Any) -> str:
        """The reason of a refusal, after checking that nothing was spent, computed or given away."""
        node = self.fed._sites[min(self.fed._sites)].node
        assert node is not None
        before, dump, uploads = charged(self.fed), node.machine.dump(), node.uploads
        reply = self.invite(question or self.compiled(), **invitation)
        assert reply.kind == "refused", f"the site answered with {reply.kind}"
        assert reply.refs == (), "a refusal carries no vector"
        assert charged(self.fed) == before, "a refusal cost budget"
        assert (node.machine.dump(), node.uploads) == (dump, uploads), "a refusal changed the site"
        reason = Refusal.decode(reply.payload).reason
        assert reason != AT_FAULT, "a peer's wrong must not read as a fault of the site"
        assert len(reason) <= 2000
        assert all(word in reason for word in words), reason
        return reason


def first(question: StudyQuestion) -> bytes:
    """Inputs of the first stage."""
    inputs = question.next_inputs(History())
    assert inputs is not None
    return inputs


@pytest.fixture(scope="module")
def sites() -> Attack:
    """One epoch for all attacks: none of them may leave a trace."""
    return Attack.make()


def test_the_honest_study_is_answered() -> None:
    """What all others are variations of is answered, and charged once."""
    sites = Attack.make()
    assert sites.invite(sites.compiled()).kind == "upload"
    assert sorted(map(len, charged(sites.fed).values())) == [0, 0, 0, 1]


# -- what the descriptor claims ------------------------------------------------------------------------------


def told(question: StudyQuestion, **fields: Any) -> bytes:
    """A descriptor with fields rewritten; a callable is applied to the value."""
    was = Descriptor.decode(question.descriptor())
    return replace(was, **{k: v(getattr(was, k)) if callable(v) else v for k, v in fields.items()}).encode()


def blocks(**changes: Any) -> Callable[[tuple[Release, ...]], tuple[Release, ...]]:
    """Releases with every block changed."""

    def change(releases: tuple[Release, ...]) -> tuple[Release, ...]:
        def made(block: Any) -> Any:
            return replace(block, **{k: v(getattr(block, k)) if callable(v) else v for k, v in changes.items()})

        return tuple(replace(one, blocks=tuple(map(made, one.blocks))) for one in releases)

    return change


def releases(**changes: Any) -> Callable[[tuple[Release, ...]], tuple[Release, ...]]:
    """Releases with a field changed."""
    return lambda found: tuple(replace(one, **changes) for one in found)


def study_of(**changes: Any) -> Callable[[str], str]:
    """The study's JSON with fields changed."""
    return lambda text: canonical({**json.loads(text), **changes})


def canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


def schema_of(**changes: Any) -> Callable[[str], str]:
    """The schema's JSON with fields changed."""
    return lambda text: Schema.from_dict({**json.loads(text), **changes}).to_json()


def columns_of(**changes: dict[str, Any]) -> Callable[[str], str]:
    """The schema's JSON with fields of columns changed."""

    def change(text: str) -> str:
        columns = json.loads(text)["columns"]
        made = {name: {**column, **changes.get(name, {})} for name, column in columns.items()}
        return schema_of(columns=made)(text)

    return change


def nested(text: str) -> str:
    """A study with a condition that is nested beyond any stack."""
    study = json.loads(text)
    study["queries"][0]["where"] = "DEEP"
    return canonical(study).replace('"DEEP"', '{"not":' * DEEP + "1" + "}" * DEEP)


CLAIMS: dict[str, tuple[dict[str, Any], str]] = {
    "a smaller sensitivity": ({"releases": blocks(delta2=1)}, "claims another"),
    "half the noise": ({"releases": blocks(sigma=lambda sigma: sigma / 2)}, "noise is too small"),
    "next to no noise": ({"releases": blocks(sigma=20.0)}, "noise is too small"),
    "a longer block": ({"releases": blocks(length=lambda length: length + 1)}, "claims another"),
    "a shorter block": ({"releases": blocks(length=1)}, "claims another"),
    "a larger x_max": ({"releases": blocks(x_max=lambda bound: 2 * bound)}, "claims another"),
    "a smaller x_max": ({"releases": blocks(x_max=1)}, "claims another"),
    "noise of more survivors": ({"releases": releases(min_survivors=4)}, "claims another"),
    "noise of fewer survivors": ({"min_survivors": 1}, ""),
    "no colluders": ({"colluders": 0}, ""),
    "another unit": ({"releases": releases(unit=Unit.SUBJECT)}, "claims another"),
    "another trust": ({"releases": releases(trust=Trust.LOCAL)}, "claims another"),
    "no release": ({"releases": ()}, "not one for each of its stages"),
    "a release twice": ({"releases": lambda found: found * 2}, "not one for each of its stages"),
    "no noise at all": ({"releases": (), "epsilon": None, "delta": None}, "a sum without noise; allowed"),
    "a cheaper promise": ({"epsilon": "0.01"}, "noise is too small"),
    "no end of epsilon": ({"epsilon": "1e9"}, "out of range"),
    "epsilon that is no number": ({"epsilon": "nan"}, "does not hold together"),
    "epsilon that is no end": ({"epsilon": "inf"}, "does not hold together"),
    "delta beyond one": ({"delta": "1.5"}, "delta is out of range"),
    "a threshold where nothing is named": ({"key_delta": "0.5"}, "does not go with names"),
    "another ring": ({"bits": 63}, "64-bit ring"),
    "a site of itself": ({"sites": 1, "min_survivors": 1}, ""),
    "no attempts": ({"attempts": 0}, "out of range"),
    "persons where rows were": ({"unit": "subject"}, ""),
    "sites where rows were": ({"unit": "site"}, "protects records"),
    "more rows of a person": ({"schema": schema_of(max_rows=1)}, "another schema"),
    "wider bounds under one name": (
        {"schema": columns_of(age={"upper": 1000})}, ""
    ),
    "another size": ({"schema": schema_of(records=61)}, ""),
    "more classes under one name": (
        {"schema": columns_of(sex={"classes": ["f", "m", "x"]})}, ""
    ),
    "code": ({"study": study_of(code="import os")}, "does not hold together"),
    "a study that is no JSON": ({"study": "import os"}, "does not hold together"),
    "brackets without end": ({"study": "[" * DEEP}, "does not hold together"),
    "a condition without end": ({"study": nested}, ""),
    "not in canonical form": ({"study": lambda text: text + " "}, "canonical"),
    "training's money": ({"study": study_of(purpose="training")}, "does not hold together"),
}  # fmt: skip


@pytest.mark.parametrize("case", CLAIMS)
def test_no_descriptor_claims_what_its_study_does_not_give(case: str, sites: Attack) -> None:
    """A site computes sensitivity, length, bound, noise and price itself; every other claim is refused."""
    changes, words = CLAIMS[case]
    question = sites.compiled()
    sites.refused(words, question=question, descriptor=told(question, **changes))


MORE_SENSITIVE = Schema(**{**SCHEMA.model_dump(mode="json"), "max_rows": 1})


def test_a_schema_of_the_same_name_with_fewer_rows_per_person(sites: Attack) -> None:
    """Consistent in itself, half the sensitivity: the rows were bound to another schema, so it is refused."""
    question = sites.compiled(schema=MORE_SENSITIVE, unit=Unit.SUBJECT)
    sites.refused("another schema", question=question)


# -- names of values -----------------------------------------------------------------------------------------


def test_names_do_not_leave_by_a_lower_threshold(sites: Attack) -> None:
    """δ₀ sets the threshold: a larger one is beyond the slack that epsilon and delta give, or beyond the budget."""
    query = Query.parse("frequent_values code slots=3")
    question = sites.compiled(query, epsilon=8.0, trust="local")
    honest = float(Descriptor.decode(question.descriptor()).key_delta or 0)
    assert 0 < honest < 1e-6
    for other in (2.5 * honest, 0.001, 0.5, 0.999999):
        sites.refused(question=question, descriptor=told(question, key_delta=repr(other)))
    for none in (None, "0.0", "-0.1", "1.0", "nan"):
        sites.refused(question=question, descriptor=told(question, key_delta=none))
    dear = sites.compiled(query, epsilon=8.0, delta=0.3, trust="local")
    sites.refused("left: ", question=dear)


# -- what the policy says ------------------------------------------------------------------------------------

FORBIDDEN: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "a statistic that is not listed": ({}, {"queries": ("variance age",)}, "statistic 'variance'; allowed: count"),
    "one of many that is not listed": ({}, {"queries": ("count", "pca age, bmi"), "epsilon": 5.0}, "statistic 'pca'"),
    "a purpose without a share": ({}, {"purpose": Purpose.MONITORING}, "purpose monitoring, which has no share"),
    "single sites by a column that is not named": (
        {"columns": {"age": {"lower": 0, "upper": 100}}}, {"queries": ("site_divergence sex",)}, "column 'sex'"
    ),
    "single sites that the policy does not list": (
        {"statistics": ["count"]}, {"queries": ("site_divergence sex",)}, "statistic 'site_divergence'; allowed: count"
    ),
    "names that the policy does not list": (
        {"statistics": ["count"]}, {"queries": ("frequent_values code slots=2",), "epsilon": 8.0},
        "statistic 'frequent_values'; allowed: count",
    ),
    "a column in a filter": (
        {"columns": {"age": {"lower": 0, "upper": 100}}}, {"queries": ("count where bmi > 20",)}, "column 'bmi'"
    ),
    "a column in a group": ({"columns": {"age": {"lower": 0, "upper": 100}}}, {}, "column 'sex'"),
    "rows where persons are protected": ({"unit": "subject"}, {}, "finite cost per subject"),
    "noise that rests on more than may open": ({}, {"min_survivors": 4}, "rests on 4 survivors"),
    "local noise is asked for and shared comes": ({"trust": "local"}, {}, "trust distributed; allowed: local"),
    "dearer than one upload may be": ({"max_epsilon_per_upload": 1.0}, {}, "for one upload"),
    "more than the share": ({"shares": {"analytics": 0.01}}, {}, "the share of analytics"),
    "more than is left": ({"epsilon": 1.0}, {}, "left: mu^2"),
    "another dataset": ({"dataset": "elsewhere"}, {}, "allowed: 'elsewhere'"),
    "another schema of that name": ({"schema_digest": "ab" * 32}, {}, "another schema of that name and version"),
    "an analyst who is not listed": ({"analysts": {"alice": 0.5}}, {}, "analyst 'coordinator', who is not listed"),
    "only complete sums": ({"modes": ["complete"]}, {}, "does not allow voted"),
    "expired": ({"expires": "2023-11-14"}, {}, "expired"),
}  # fmt: skip


@pytest.mark.parametrize("case", FORBIDDEN)
def test_what_the_policy_forbids_is_refused_before_a_charge(case: str) -> None:
    """Each study is consistent in itself; the site's policy, or what is left of its budget, forbids it."""
    changes, asked, words = FORBIDDEN[case]
    sites = Attack.make(**changes)
    sites.refused(words, question=sites.compiled(*asked.pop("queries", ()), **asked))


def test_a_mandate_of_somebody_else_is_refused(sites: Attack) -> None:
    """Signed by the coordinator, by a stranger, for another purpose, or no mandate: nobody is charged."""
    question = sites.compiled()
    expires = sites.fed._clock.now() + 10_000
    for key in (sites.key, SigningKey.generate(SYSTEM)):
        signed = Mandate.sign(
            key, federation="local", task=question.id, purpose=Purpose.MONITORING, expires=expires, entropy=SYSTEM
        )
        sites.refused("not signed by an analyst", question=question, mandate=signed.encode())
    sites.refused(question=question, mandate=b"yes")


# -- what the announcement says ------------------------------------------------------------------------------

ANNOUNCED: dict[str, tuple[dict[str, Any], str]] = {
    "another length": ({"length": 7}, "not that of the task"),
    "a length beyond memory": ({"length": 2**24 + 1}, ""),
    "a smaller ring": ({"bits": 63}, "not that of the task"),
    "fewer survivors": ({"forged": {"min_survivors": 2}}, "min_survivors 2"),
    "another policy": ({"policy": bytes(32)}, "another policy"),
    "other inputs": ({"forged": {"inputs": b"i" * 32}}, "not the one that the announcement names"),
    "another study": ({"forged": {"task": b"t" * 32}}, "not the one that the announcement names"),
    "a deadline that has passed": ({"deadline": 1}, "deadline"),
    "too many attempts": ({"slot": (2000, 3)}, ""),
}


@pytest.mark.parametrize("case", ANNOUNCED)
def test_announcements_that_do_not_fit_the_study(case: str) -> None:
    """Each is signed by the true coordinator."""
    changes, words = ANNOUNCED[case]
    try:
        made = Attack.make()
        made.refused(words, **dict(changes))
    except Malformed:
        assert case == "a length beyond memory", "only an impossible announcement cannot even be written"


def test_replayed_announcements_cost_and_say_nothing_new() -> None:
    """The same one again gets the same bytes without a charge; the same slot for another stage is refused."""
    sites = Attack.make()
    question = sites.compiled("sd age two_stage=true")
    descriptor, inputs = question.descriptor(), first(question)
    made = sites.announce(descriptor, inputs, question.sum_at(0).length)
    once = sites.ask(made, descriptor, inputs)
    before = charged(sites.fed)
    again = sites.ask(made, descriptor, inputs)
    assert (once.kind, again.kind) == ("upload", "upload")
    assert once.payload == again.payload
    assert charged(sites.fed) == before
    body = replace(made, nonce=b"n" * 32, seq=made.seq + 1)
    forged = replace(body, signature=sites.key.sign(Label.ANNOUNCEMENT, body.h0))
    refused = sites.ask(forged, descriptor, inputs)
    assert (refused.kind, charged(sites.fed)) == ("refused", before)
    assert "not after" in Refusal.decode(refused.payload).reason


# -- states: what earlier stages are said to have decided ----------------------------------------------------

STAGED = {
    "sd": "sd age two_stage=true",
    "median": "median age refine=true",
    "logistic": "logistic_regression ill features=[age, bmi]",
    "prefixes": "heavy_hitters code",
    "variance": "variance bmi two_stage=true",
}
ODD: tuple[Any, ...] = (
    math.nan, math.inf, -math.inf, 1e308, -1e308, 1e-308, 0, -1, 10**400, 2**63, True, None, "", "A", "x" * 5000,
    "nan", [], [[]], [0.0], [1e308] * 3, [1e308] * 5, ["A"] * 5, ["Z", "Y"], {}, {"a": 1}, "\0",
    [[0.0] * 1000] * 10, [None] * 3,
)  # fmt: skip


def staged(name: str, sites: Attack) -> tuple[StudyQuestion, dict[str, Any]]:
    """A study of several stages and the honest state of its second one."""
    question = sites.compiled(STAGED[name], epsilon=8.0)
    exact = [question.contribution(first(question), data_of(frame(30, seed)), SYSTEM) for seed in range(4)]
    history = History().add(question.opened(0, sum(exact), 4))
    inputs = question.next_inputs(history)
    assert inputs is not None
    _, _, (text,) = decode(inputs)  # type: ignore[misc]
    return question, json.loads(text)  # type: ignore[arg-type]


def changed(state: Any) -> Iterator[Any]:
    """The state with each of its leaves, and each of its values, replaced by everything odd."""
    yield from ODD
    if isinstance(state, dict):
        yield {**state, "more": 1}
        for name in state:
            yield {key: value for key, value in state.items() if key != name}
            for inner in changed(state[name]):
                yield {**state, name: inner}
    elif isinstance(state, list) and state:
        yield [*state, state[0]]
        yield state[1:]
        for inner in ODD:
            yield [inner, *state[1:]]


def raw(question: StudyQuestion, state: Any, stage: int = 1) -> bytes:
    """Inputs with any state, also one that no honest coordinator could write."""
    return encode(("study stage", stage, (canonical(state),)))


@pytest.mark.parametrize("name", STAGED)
def test_no_state_moves_a_row_beyond_its_sensitivity(name: str, sites: Attack) -> None:
    """Of hundreds of odd states each is refused, or every row stays within bounds, length and finite work."""
    question, honest = staged(name, sites)
    rows = [data_of(one) for one in odd_rows()]
    release, length = question.release(1), question.sum_at(1).length
    assert release is not None
    accepted: dict[Any, bytes] = {}
    refused = 0
    for state in (honest, *changed(honest)):
        inputs = raw(question, state)
        try:
            accepted.setdefault(question.read_inputs(inputs).constructions, inputs)
        except Malformed:
            refused += 1
    assert refused > 20
    step = max(1, len(accepted) // 12)
    for inputs in [*accepted.values()][::step]:
        for row in rows:
            vector = question.contribution(inputs, row, SYSTEM)
            assert vector.shape == (length,)
            begin = 0
            for block in release.blocks:
                part = vector[begin : begin + block.length].astype(object)
                assert int((part * part).sum()) <= block.delta2, (inputs, block.name)
                begin += block.length


def odd_rows() -> list[pd.DataFrame]:
    """Single rows at and beyond every bound."""
    base = frame(1, 5)
    ages = (0.0, 100.0, 50.0, -1e308, 1e308, math.nan, math.inf)
    return [
        base.assign(age=age, bmi=bmi, sex=sex)
        for age, bmi, sex in zip(ages, (10, 60, 1e308, -9, 30, 20, 0.1), "fmxfmfm", strict=True)
    ]


@pytest.mark.parametrize("name", ["sd", "logistic", "prefixes"])
def test_states_and_stages_that_do_not_belong_are_refused_at_the_site(name: str, sites: Attack) -> None:
    """A state of another statistic, in the first stage, none in the second, another stage's number, deep JSON."""
    question, honest = staged(name, sites)
    others = [staged(other, sites)[1] for other in ("sd", "logistic", "prefixes") if other != name]
    length = question.sum_at(1).length
    deep = encode(("study stage", 1, ("[" * DEEP + "]" * DEEP,)))
    nested_state = encode(("study stage", 1, ('{"a":' * DEEP + "1" + "}" * DEEP,)))
    wrong = [raw(question, honest, 0), raw(question, honest, 7), raw(question, honest, -1)]
    wrong += [raw(question, other) for other in others]
    wrong += [
        encode(("study stage", 1, (None,))),
        encode(("study stage", 1, ())),
        deep,
        nested_state,
        b"",
        b"\xff" * 99,
    ]
    wrong += [
        encode(("study stage", 1, (json.dumps(honest, indent=1),))),
        encode(("study stage", 1, (canonical(honest),) * 2)),
    ]
    wrong += [raw(question, dict.fromkeys(honest, math.nan))]
    for inputs in wrong:
        sites.refused(question=question, inputs=inputs, length=length)


def test_a_stage_s_vector_is_not_announced_for_another(sites: Attack) -> None:
    """The second stage's inputs under the first one's length are refused, and the other way round."""
    question, honest = staged("prefixes", sites)
    lengths = [question.sum_at(stage).length for stage in range(question.stages)]
    for stage, inputs in ((0, first(question)), (1, raw(question, honest))):
        sites.refused("not that of the task", question=question, inputs=inputs, length=lengths[stage] + 1)


# -- single sites --------------------------------------------------------------------------------------------


def test_stretches_of_single_sites_are_under_their_own_noise_only(sites: Attack) -> None:
    """No descriptor gives a stage of single sites shared noise, or less noise than one site alone needs."""
    question = sites.compiled("site_divergence sex")
    (release,) = question.releases
    assert release.trust is Trust.LOCAL
    assert question.sum_at(0).own == 4
    for change in (releases(trust=Trust.DISTRIBUTED), releases(trust=Trust.DISTRIBUTED, min_survivors=4),
                   blocks(sigma=lambda sigma: sigma / 2)):  # fmt: skip
        sites.refused(question=question, descriptor=told(question, releases=change))
    sites.refused("not that of the task", question=question, length=release.length)


# -- bombs ---------------------------------------------------------------------------------------------------

BOMBS: dict[str, tuple[str, dict[str, Any], int]] = {
    "three thousand million cells": (
        "crosstab", {"first": "age", "second": "bmi", "first_bins": 4000, "second_bins": 4000, "test": True}, 200
    ),
    "thousands of queries": ("histogram", {"column": "age", "bins": 2}, 5000),
    "a bin for every grain": ("histogram", {"column": "age", "bins": 2**31}, 1),
    "bins without end": ("histogram", {"column": "age", "bins": 10**4000}, 1),
    "no bins": ("histogram", {"column": "age", "bins": 0}, 1),
    "a tree without end": ("median", {"column": "age", "levels": 63, "refine": False}, 1),
    "a table of tables": (
        "crosstab", {"first": "age", "second": "bmi", "first_bins": 100_000, "second_bins": 100_000, "test": True}, 1
    ),
    "names without end": ("frequent_values", {"column": "code", "slots": 10**9}, 1),
    "prefixes without end": ("heavy_hitters", {"column": "code", "size": 10**9, "length": 10**9}, 1),
    "steps without end": (
        "logistic_regression",
        {"label": "ill", "features": ["age"], "positive": None, "steps": 10**9, "clip": None, "ridge": 0},
        1,
    ),
    "columns without end": ("covariance", {"columns": ["age"] * 200_000, "radius": None}, 1),
}  # fmt: skip


def bomb(text: str, case: str) -> str:
    """The study with other queries in the place of its one."""
    statistic, options, count = BOMBS[case]
    study = json.loads(text)
    (query,) = study["queries"]
    made = [{**query, "statistic": statistic, "options": options, "name": f"q{at}"} for at in range(count)]
    return canonical({**study, "queries": made})


@pytest.mark.parametrize("case", BOMBS)
def test_what_would_fill_a_site_s_memory_is_refused_without_filling_it(case: str, sites: Attack) -> None:
    """Beyond the longest upload, or beyond a field's bound: refused after at most some dozen megabytes of work."""
    honest = sites.compiled("histogram age bins=10")
    data = told(honest, study=lambda text: bomb(text, case))
    tracemalloc.start()
    try:
        sites.refused(question=honest, descriptor=data)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 200 * 2**20


def test_the_numbers_of_the_last_refusals_are_public(sites: Attack) -> None:
    """What the coordinator was told is the same on tables that have nothing in common."""
    reasons = []
    for tables in ({}, {"rows": 0}):
        where = Attack.make(**tables)
        reasons.append([
            where.refused(question=where.compiled("variance age")),
            where.refused(descriptor=told(where.compiled(), releases=blocks(delta2=1))),
            where.refused(question=where.compiled(epsilon=900.0)),
        ])  # fmt: skip
    assert reasons[0] == reasons[1]
    assert np.size(reasons) == 6
