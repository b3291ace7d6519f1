"""Descriptive statistics from tables to answers: the real engine gives what the row-by-row oracle gives."""

from __future__ import annotations

import math

import pandas as pd
import pytest
from privfl_analytics.query import Query
from privfl_analytics.statistic import Context, Statistic
from privfl_analytics.statistics.counts import Count, Distinct, Missing
from privfl_analytics.statistics.frequent import FrequentValues, HeavyHitters, TopK
from privfl_analytics.statistics.histograms import Histogram, Values
from privfl_analytics.statistics.moments import Mean, Sum
from privfl_analytics.statistics.quality import Quality
from privfl_analytics.statistics.quantiles import Ecdf, Median, Quantiles, Range
from privfl_analytics.statistics.sites import SiteDivergence
from privfl_analytics.statistics.spread import Sd, Variance
from privfl_analytics.statistics.tables import Crosstab
from privfl_analytics.study import Study

from tests.analytics.reference import answer
from tests.analytics.studies import FRAMES, PLAIN, SCHEMA, asked

SUMMED: tuple[Statistic, ...] = (
    Count(),
    Missing(column="age"),
    Distinct(column="code"),
    Sum(column="bmi", spread=True),
    Mean(column="age"),
    Variance(column="bmi"),
    Sd(column="bmi", two_stage=True),
    Histogram(column="age", bins=7),
    Values(column="sex"),
    Quantiles(column="bmi"),
    Median(column="age", refine=True),
    Range(column="bmi"),
    Ecdf(column="age", levels=5),
    TopK(column="sex", k=2),
    HeavyHitters(column="code"),
    Crosstab(first="sex", second="stage"),
    Quality(columns=("age", "sex", "code"), rules={"adult": "age >= 18"}),
)
LOCAL: tuple[Statistic, ...] = (FrequentValues(column="code"), SiteDivergence(column="sex"))


def study_of(*statistics: Statistic) -> Study:
    return Study("all", tuple(Query().asking(one).named(f"q{at}") for at, one in enumerate(statistics)))


def test_without_noise_every_answer_is_the_oracles() -> None:
    question = study_of(*SUMMED).compile(SCHEMA, **{**PLAIN, "epsilon": None, "delta": None, "_without_noise": True})
    _, result = asked(question)
    for at, statistic in enumerate(SUMMED):
        found = result.answers[f"q{at}"]
        expected = answer(statistic, SCHEMA, FRAMES, context=Context(survivors=3, records=SCHEMA.records))
        assert [(row.what, row.at, row.note) for row in found.rows] == [
            (row.what, row.at, row.note) for row in expected.rows
        ]
        for mine, its in zip(found.rows, expected.rows, strict=True):
            assert mine.value == (None if its.value is None else pytest.approx(its.value, abs=1e-9))


def test_what_sites_send_by_themselves_is_read() -> None:
    question = study_of(*LOCAL).compile(SCHEMA, **{**PLAIN, "epsilon": None, "delta": None, "_without_noise": True})
    _, result = asked(question)
    texts = pd.concat(FRAMES).code.value_counts()
    named = {row.at["code"]: row.value for row in result.answers["q0"].rows}
    assert named == dict(texts.items())
    for at, frame in enumerate(FRAMES):
        shares = frame.sex.value_counts(normalize=True)
        share = result.answers["q1"].value("share", site=str(at + 1), sex="f")
        assert share == pytest.approx(shares.get("f", 0.0), nan_ok=bool(frame.sex.isna().all()))


@pytest.mark.parametrize("epsilon", [6.0, 100.0])
def test_a_private_study_of_everything_runs_and_says_what_is_not_resolved(epsilon: float) -> None:
    question = study_of(*SUMMED).compile(SCHEMA, epsilon=epsilon, **PLAIN)
    assert "±" in str(question.explain())
    _, result = asked(question)
    for found in result.answers.values():
        assert all(row.value is not None or row.note for row in found.rows)
        assert all(row.value is None or math.isfinite(row.value) for row in found.rows)
