"""Leaks: group means averaged unweighted over sites; values of single sites; code that a site did not choose."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from privfl_analytics import Query, Study
from privfl_analytics.descriptor import Descriptor
from privfl_analytics.question import StudyQuestion

import privfl
from privfl.dp import Trust
from privfl.entropy import SYSTEM
from privfl.errors import Malformed, Misuse
from tests.analytics.leaks.listening import SCHEMA, TABLES, Heard, ask, data_of, exact, first, question_of


def uneven() -> dict[str, pd.DataFrame]:
    """One large site of the old and three small ones of the young."""
    made = {}
    for at, (name, frame) in enumerate(TABLES.items()):
        many = pd.concat([frame] * (8 if at == 0 else 1), ignore_index=True)
        made[name] = many.assign(age=(80.0 if at == 0 else 30.0) + many["age"] % 7)
    return made


def check_means_are_pooled() -> None:
    """Each group's mean is that of all its rows, far from the mean of the sites' means."""
    tables = uneven()
    found = ask("mean age by ward", tables=tables, epsilon=300.0)["mean age by ward"]
    pooled = pd.concat(tables.values())
    for ward in ("surgery", "oncology"):
        true = pooled[pooled["ward"] == ward]["age"].mean()
        unweighted = np.mean([one[one["ward"] == ward]["age"].mean() for one in tables.values()])
        assert abs(true - unweighted) > 10, "the tables make no difference: the test says nothing"
        assert found.value("mean", ward=ward) == pytest.approx(true, abs=1.0)


def test_means_are_of_pooled_sums(monkeypatch: pytest.MonkeyPatch) -> None:
    """A package whose sites each count as one is found out."""
    check_means_are_pooled()
    contribution = StudyQuestion.contribution

    def one_vote_each(question: StudyQuestion, inputs: bytes, data: Any, *rest: Any, **named: Any) -> Any:
        return contribution(question, inputs, data, *rest, **named) * 60 // len(data.source.frame)

    monkeypatch.setattr(StudyQuestion, "contribution", one_vote_each)
    with pytest.raises(AssertionError):
        check_means_are_pooled()


# -- single sites --------------------------------------------------------------------------------------------


def test_single_sites_need_local_trust_and_a_stretch_each() -> None:
    """Each site brings the whole noise, fills its own stretch and leaves the others zero, also when it fails."""
    question = question_of("site_divergence ward")
    (release,) = question.releases
    assert release.trust is Trust.LOCAL
    assert release.sigma_site(release.blocks[0]) == release.blocks[0].sigma
    length = release.length
    assert question.sum_at(0).length == 4 * length
    inputs = first(question)
    for seat, frame in enumerate(TABLES.values()):
        for mine in (
            question.upload(inputs, data_of(frame), SYSTEM, seat=seat),
            question.upload(inputs, data_of(frame.iloc[:0]), SYSTEM, seat=seat),
            question.blank(inputs, SYSTEM, seat=seat),
        ):
            place = slice(seat * length, (seat + 1) * length)
            assert np.count_nonzero(mine[place]) > length / 2
            mine[place] = 0
            assert not mine.any(), "a site wrote into another one's stretch"


def test_single_sites_come_with_noise_into_the_result(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    """What a result says of a site is noised; a package that lets sites send exact stretches is found out."""

    def check() -> None:
        with pytest.MonkeyPatch.context() as patch:
            heard = Heard().listen(patch).of(TABLES)
            found = ask("site_divergence ward", epsilon=4.0)
            del heard.catch.secrets["a site's vector before its mask"]  # which is what the opened stretches are
            heard.seen(found, tmp_path, report=False).check()
            assert heard.vectors
        (numbers,) = [np.array(one) for one in [heard.vectors]]
        true = [exact(question_of("site_divergence ward"), frame) for frame in TABLES.values()]
        length = len(true[0])
        stretches = [row[at * length : (at + 1) * length] for at in range(4) for row in numbers]
        assert not any(np.array_equal(one, truth) for one in stretches for truth in true)

    check()
    monkeypatch.setattr("privfl_analytics.question.noised", lambda vector, release, entropy: vector.copy())
    with pytest.raises(AssertionError):
        check()


def test_every_other_statistic_is_a_sum_over_sites() -> None:
    """Of all statistics that there are only those marked so show single sites."""
    from privfl_analytics.statistic import REGISTRY, statistic_of

    statistic_of("")
    assert {name for name, kind in REGISTRY.items() if kind.local} == {"site_divergence", "frequent_values"}


# -- which code runs -----------------------------------------------------------------------------------------

FOREIGN = (
    {"statistic": "exec", "options": {"code": "open('/etc/passwd').read()"}},
    {"statistic": "sql", "options": {"query": "SELECT * FROM data"}},
    {"statistic": "__import__", "options": {}},
    {"statistic": "mean", "options": {"column": "age", "spread": True, "expression": "age.max()"}},
    {"statistic": "mean", "options": {"column": "age\"); SELECT * FROM streamed; --", "spread": True}},
    {"statistic": "count", "options": {"of": "rows"}, "where": "1=1 OR pg_sleep(9)"},
    {"statistic": "count", "options": {"of": "rows"}, "where": {"kind": "sql", "text": "age > 3"}},
    {"statistic": "count", "options": {"of": "rows"}, "by": [{"kind": "pickle", "data": "gASVAA=="}]},
)  # fmt: skip


@pytest.mark.parametrize("query", FOREIGN, ids=lambda one: str(one)[:60])
def test_a_peer_s_words_choose_among_installed_constructions_only(query: dict[str, Any]) -> None:
    """Nothing that a descriptor names is evaluated, imported or pasted into SQL: unknown words are no study."""
    told = Descriptor.decode(question_of("count").descriptor())
    study = json.loads(told.study)
    study["queries"] = [{**study["queries"][0], **query}]
    text = json.dumps(study, sort_keys=True, separators=(",", ":"))
    with pytest.raises(Malformed):
        StudyQuestion.from_descriptor(replace(told, study=text).encode())


def test_values_of_conditions_are_quoted() -> None:
    """A class or text that looks like SQL is compared as what it is."""
    frame = TABLES["north"]
    odd = Query.parse("count where ward in ('surgery', \"x') OR (1=1\")")
    with pytest.raises(Misuse, match="declared"):
        Study("odd", (odd,)).compile(SCHEMA, epsilon=4.0, delta=1e-6, sites=4, min_survivors=3)
    question = question_of("count where age > 50 and not (age > 50)")
    assert not exact(question, frame).any()


def test_two_questions_that_differ_in_one_person_see_two_noises_and_cost_twice() -> None:
    """Differencing: the difference of two answers has the noise of both, and both accounts are charged."""
    fed = privfl.Federation.local(TABLES, SCHEMA)
    target = float(TABLES["north"]["age"].max())
    asked = [f"count where age < {limit!r}" for limit in (100.0, target)]
    question = [question_of(one, epsilon=1.0) for one in asked]
    sigma = question[0].releases[0].sigma_site(question[0].releases[0].blocks[0]) / 1024
    assert exact(question[0], TABLES["north"]) - exact(question[1], TABLES["north"]) == 1024
    pairs = [[question[at].blank(first(question[at]), SYSTEM)[0] for at in (0, 1)] for _ in range(200)]
    assert np.std([(one - two) / 1024 for one, two in pairs]) > 1.2 * sigma, "one noise cancelled the other"
    past = []
    for one in asked:
        fed.ask(Study("a", (one,)), epsilon=1.0, delta=1e-6, progress=False)  # type: ignore[arg-type]
        past.append(sum(times * release.cost.mu2 for release, times in fed._past if release is not None))
    assert past[1] == 2 * past[0] > 0
