"""Every registered statistic goes the whole way: text, file, descriptor, three sites' tables, sums, an answer."""

from __future__ import annotations

import json
import math

import pytest
from privfl_analytics import Answer, History, Query, Study, StudyQuestion
from privfl_analytics.making import names_of_statistics

from privfl.dp import Trust
from tests.analytics.studies import FRAMES, PLAIN, SCHEMA, asked

#: How each is asked for in one line.
LINES = {
    "anova": "anova bmi, stage",
    "brier": "brier risk, ill",
    "calibration": "calibration risk, ill bins=4",
    "correlation": "correlation age, bmi",
    "count": "count by sex, age/3 where bmi > 20",
    "covariance": "covariance age, bmi",
    "crosstab": "crosstab sex, ill",
    "distinct": "distinct code",
    "ecdf": "ecdf age",
    "frequent_values": "frequent_values code slots=3",
    "glm": "glm bmi, [age, `mean radius`]",
    "heavy_hitters": "heavy_hitters code",
    "histogram": "histogram age bins=[0, 20, 100] by ill",
    "linear_regression": "linear_regression bmi, [age]",
    "log_rank": "log_rank age, ill group=sex bins=5",
    "logistic_regression": "logistic_regression ill, age",
    "marginals": "marginals sex, ill",
    "mean": "mean bmi by age[0, 50, 100], missing(sex)",
    "median": "median age",
    "missing": "missing age by sex",
    "pca": "pca age, bmi",
    "poisson_regression": "poisson_regression bmi, age",
    "precision_recall": "precision_recall risk, ill",
    "profile": "profile age",
    "quality": "quality {adult: 'age >= 18', lean: 'bmi < 30 or age < 5'}",
    "quantiles": "quantiles age q=[0.1, 0.9]",
    "range": "range age",
    "roc": "roc risk, ill bins=8",
    "sd": "sd bmi",
    "site_divergence": "site_divergence age bins=3",
    "sum": "sum bmi",
    "survival": "survival age, ill bins=5",
    "t_test": "t_test bmi, sex",
    "top": "top stage k=2",
    "values": "values sex",
    "variance": "variance bmi by sex",
}
SCORES = [{"name": "risk", "weights": {"age": 0.03, "bmi": 0.05}, "intercept": -3.0}]

HEAD = f"study: all\nscores: {json.dumps(SCORES)}\nqueries:\n"


def test_there_is_an_example_of_each() -> None:
    assert set(LINES) == set(names_of_statistics())


def test_no_statistic_has_the_name_of_a_step_of_the_builder() -> None:
    assert not [name for name in names_of_statistics() if any(name in vars(one) for one in Query.__mro__)]


@pytest.mark.parametrize("name", sorted(LINES))
def test_from_a_line_to_an_answer(name: str) -> None:
    study = Study.from_yaml(f"{HEAD}  - {json.dumps(LINES[name])}\n")
    assert Study.from_yaml(study.to_yaml()) == study
    assert Study.from_json(study.to_json()) == study
    question = study.compile(SCHEMA, epsilon=200.0, **PLAIN)
    told = StudyQuestion.from_descriptor(question.descriptor())
    assert told.releases == question.releases
    local = study.queries[0].asked.local
    assert {release.trust for release in question.releases} == {Trust.LOCAL if local else Trust.DISTRIBUTED}
    said = question.explain()
    assert said.errors[study.names[0]]["200"]
    json.dumps(said.to_value())
    exact = study.compile(SCHEMA, epsilon=None, _without_noise=True, **{**PLAIN, "delta": None})
    for one in (question, exact):
        history, result = asked(one, FRAMES)
        assert len(history) == one.stages
        answer = result[study.names[0]]
        assert answer.rows
        assert all(row.value is None or not math.isnan(row.value) for row in answer.rows)
        assert Answer.from_value(json.loads(answer.to_json())).to_frame().equals(answer.to_frame())


def test_all_of_them_share_the_rounds_of_one_study() -> None:
    study = Study.from_yaml(HEAD + "".join(f"  - {json.dumps(line)}\n" for line in LINES.values()))
    assert Study.from_yaml(study.to_yaml()) == study
    question = study.compile(SCHEMA, epsilon=1000.0, **PLAIN)
    assert question.stages == max(_rounds(study, False)) + max(_rounds(study, True))
    inputs = question.next_inputs(History())
    assert inputs is not None
    history, result = asked(question)
    assert list(result) == list(study.names)
    assert len(history) == question.stages
    assert result.privacy.epsilon is not None
    assert result.privacy.epsilon <= 1000


def _rounds(study: Study, local: bool) -> list[int]:
    view = study.view(SCHEMA)
    return [query.asked.stages(view) for query in study.queries if query.asked.local is local]
