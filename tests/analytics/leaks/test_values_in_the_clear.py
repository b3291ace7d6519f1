"""Leaks: true counts, exact extremes, exact sums, every person's times, values of single sites, all categories."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from privfl_analytics import Query
from privfl_analytics.question import StudyQuestion
from privfl_analytics.result import StudyResult
from privfl_analytics.run import StudyRun

from privfl.runtime import SiteNode
from tests.analytics.leaks.listening import QUERIES, SCHEMA, TABLES, Heard, ask, question_of

KINDS = {"a site's exact vector", "a site's vector before its mask", "a row", "an extreme", "a sum", "a person",
         "a mean of one site", "an undeclared class", "an exact figure of all rows"}  # fmt: skip


def heard_in_all(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, folder: Path, *queries: str
) -> Heard:
    """One run of a study, listened to everywhere."""
    caplog.set_level(logging.DEBUG)
    heard = Heard().listen(monkeypatch).of(TABLES)
    return heard.seen(ask(*queries), folder, caplog.records, report=len(queries) > 2)


def test_nothing_exact_and_nothing_of_one_site_is_said_anywhere(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    """Messages, bodies, logs, reprs, reports and files: no exact vector, row, extreme, sum, mean, person or class."""
    heard = heard_in_all(monkeypatch, caplog, tmp_path, *QUERIES)
    assert set(heard.catch.said) == {"a message", "a body", "a repr", "a table", "a report", "a file", "a log"}
    assert set(heard.catch.secrets) >= KINDS
    heard.check()


BROKEN: dict[str, str] = {
    "the exact vector is masked away but logged": "a site's exact vector",
    "an error quotes a class": "an undeclared class",
    "an answer carries the sites' means": "a mean of one site",
    "an answer carries the largest age": "an extreme",
    "a report has every person's times": "a row",
}


@pytest.mark.parametrize("leak", BROKEN)
def test_the_listener_hears_each_of_these_leaks(
    leak: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    """A package that is broken on purpose is found out, and for the right reason."""
    break_it(leak, monkeypatch)
    with pytest.raises(AssertionError, match=BROKEN[leak]):
        heard_in_all(monkeypatch, caplog, tmp_path, "mean age by ward", "count by ward").check()


def break_it(leak: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Give the package one leak."""
    vector, outcome, html = SiteNode._vector, StudyRun.outcome, StudyResult._repr_html_
    north = TABLES["north"]

    def logging_vector(node: SiteNode, task: Any, inputs: bytes, a: Any) -> Any:
        logging.getLogger("privfl.site").info("%s", task.contribution(inputs, node.data, node._entropy).tolist())
        return vector(node, task, inputs, a)

    def quoting_vector(node: SiteNode, task: Any, inputs: bytes, a: Any) -> Any:
        logging.getLogger("privfl.site").warning("unknown ward %s", north["ward"].unique())
        return vector(node, task, inputs, a)

    def telling(detail: Any) -> Any:
        def made(run: StudyRun, stopped: str) -> Any:
            found = outcome(run, stopped)
            answers = {k: replace(v, details={**v.details, "more": detail}) for k, v in found.answers.items()}
            return replace(found, answers=answers)

        return made

    match leak:
        case "the exact vector is masked away but logged":
            monkeypatch.setattr(SiteNode, "_vector", logging_vector)
        case "an error quotes a class":
            monkeypatch.setattr(SiteNode, "_vector", quoting_vector)
        case "an answer carries the sites' means":
            monkeypatch.setattr(StudyRun, "outcome", telling([float(one["age"].mean()) for one in TABLES.values()]))
        case "an answer carries the largest age":
            monkeypatch.setattr(StudyRun, "outcome", telling(float(north["age"].max())))
        case "a report has every person's times":
            monkeypatch.setattr(StudyResult, "_repr_html_", lambda own: html(own) + str(north["months"].tolist()))


# -- numbers that a result shows -----------------------------------------------------------------------------


def check_no_true_counts(tables: dict[str, pd.DataFrame]) -> None:
    """No shown cell, nor its sum with others, is the exact count; the chance of one is below 1 in 10⁴."""
    found = ask("count by ward", "histogram age bins=8", tables=tables, epsilon=1.0)
    pooled = pd.concat(tables.values())
    true = {ward: int((pooled["ward"] == ward).sum()) for ward in ("surgery", "oncology", "burns")}
    shown = {str(row.at["ward"]): row.value for row in found["count rows by ward"].rows if row.value is not None}
    assert shown, "nothing was resolved: the test says nothing"
    assert not any(abs(shown[ward] - count) < 1e-9 for ward, count in true.items() if ward in shown)


def test_no_count_in_a_result_is_the_true_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Counts come with their noise; a package that sums exact counts is found out."""
    check_no_true_counts(TABLES)
    monkeypatch.setattr("privfl_analytics.question.noised", lambda vector, release, entropy: vector.copy())
    with pytest.raises(AssertionError):
        check_no_true_counts(TABLES)


def test_there_is_no_statistic_of_extremes_and_no_exact_sum_of_squares() -> None:
    """What is asked for as a range is a noised tree over public bounds; no statistic is called minimum or maximum."""
    from privfl_analytics.statistic import REGISTRY, statistic_of

    statistic_of("")
    assert not {"min", "max", "minimum", "maximum", "sum_of_squares", "rows", "raw", "times"} & set(REGISTRY)
    question = question_of("range age")
    (part, *_), (release, *_) = question.plan[0].parts, question.releases
    assert part.construction.kind == "tally"
    assert all(block.sigma > 0 for block in release.blocks)


def test_times_leave_as_declared_bins_only() -> None:
    """The vector of a survival curve has the length of its public bins, however many persons there are."""
    question = question_of("survival months, event bins=6")
    lengths = {len(question.contribution(question.inputs(0, [None]), one, question_entropy())) for one in sources()}
    assert len(lengths) == 1
    assert lengths.pop() < min(map(len, TABLES.values()))


def question_entropy() -> Any:
    from privfl.entropy import SYSTEM

    return SYSTEM


def sources() -> list[Any]:
    from tests.analytics.leaks.listening import ODD, data_of

    return [data_of(one) for one in (*TABLES.values(), TABLES["north"].iloc[:0], ODD, pd.concat([ODD] * 5))]


# -- categories ----------------------------------------------------------------------------------------------


def check_undeclared_are_one_cell() -> None:
    """Ten rows or a thousand of undeclared classes change nothing but the count of ``other``."""
    question = question_of("values ward", "count by ward")
    plain = TABLES["north"].assign(ward="surgery")
    few = plain.assign(ward=["new-1"] * 10 + ["surgery"] * (len(plain) - 10))
    many = plain.assign(ward=[f"new-{at}" for at in range(10)] + ["surgery"] * (len(plain) - 10))
    one, other = (question.contribution(question.inputs(0, [None, None]), data, question_entropy())
                  for data in map(_data, (few, many)))  # fmt: skip
    assert np.array_equal(one, other)


def _data(frame: pd.DataFrame) -> Any:
    from tests.analytics.leaks.listening import data_of

    return data_of(frame)


def test_undeclared_classes_are_counted_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """Which and how many undeclared classes there are does not leave; a package in which it did is found out."""
    check_undeclared_are_one_cell()
    contribution = StudyQuestion.contribution

    def telling(question: StudyQuestion, inputs: bytes, data: Any, *rest: Any, **named: Any) -> Any:
        return contribution(question, inputs, data, *rest, **named) + data.source.frame["ward"].nunique()

    monkeypatch.setattr(StudyQuestion, "contribution", telling)
    with pytest.raises(AssertionError):
        check_undeclared_are_one_cell()


def test_names_of_undeclared_values_need_local_trust_and_pass_a_threshold() -> None:
    """A name that few have does not leave in hundreds of uploads, one that many have does; it costs a δ of its own."""
    frame = TABLES["north"].assign(code=["AB"] * 59 + ["CDE"])
    question = question_of(Query.parse("frequent_values code slots=3"), epsilon=8.0)
    assert question.releases[0].trust == "local"
    assert question.delta0 > 0
    inputs, entropy = question.inputs(0, [None]), question_entropy()
    names = [question.upload(inputs, _data(frame), entropy) for _ in range(60)]
    length = 1 + SCHEMA.columns["code"].max_length  # type: ignore[union-attr]
    letters = [{tuple(row[1:]) for row in one[: 3 * length].reshape(3, length) if row.any()} for one in names]
    assert sum(bool(found) for found in letters) > 50
    assert all(len(found) <= 1 for found in letters), "the rare name left"
