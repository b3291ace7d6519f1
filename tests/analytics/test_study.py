"""Studies: files with the line of every complaint, what is refused before anything is spent, plans within budget."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from privfl_analytics import Query, Score, Study, bins
from privfl_analytics.jobs import read_study_file
from privfl_analytics.noise import total_cost
from privfl_analytics.study_file import read_fields, read_study
from privfl_analytics.yaml_lines import InvalidStudy

from privfl.budget import Purpose
from privfl.dp import Trust, Unit, epsilon_of_cost, mu_for_budget
from privfl.errors import BudgetExceeded, Misuse, Refused
from privfl.tasks import Schema
from tests.analytics.studies import AXES, CONDITIONS, NAMES, PLAIN, SCHEMA, TEXTS

STUDY = Study(
    "pre-training",
    (
        Query.parse("mean bmi by sex where age >= 50"),
        Query.parse("count by age/4, missing(bmi) as 'how many' weight 3"),
        Query.parse("histogram risk bins=5"),
        Query.parse("covariance age, bmi"),
    ),
    scores=(Score(name="risk", weights={"age": 0.04, "bmi": 0.1}, intercept=-4),),
    confidence=0.9,
    interval="rows",
    description="Is the cohort: fit?",
)
GOOD = STUDY.to_yaml()

# -- values and files ------------------------------------------------------------------------------------


@given(
    st.lists(
        st.tuples(st.none() | CONDITIONS, st.lists(AXES, max_size=2, unique_by=lambda axis: axis.column), NAMES),
        min_size=1,
        max_size=3,
    ),
    TEXTS,
    st.sampled_from([1, 2, 0.5, 1e-5]),
)
@settings(max_examples=80, deadline=None)
def test_a_study_reads_back_from_yaml_and_json(parts: list, description: str, weight: float) -> None:
    queries = tuple(
        Query(name=f"query {at}", condition=condition, by=tuple(by), weight=weight).mean(column)
        for at, (condition, by, column) in enumerate(parts)
    )
    study = Study("s", queries, description=description, purpose=Purpose.MONITORING)
    assert Study.from_json(study.to_json()) == study
    assert Study.from_json(study.to_json()).to_json() == study.to_json()
    assert Study.from_yaml(study.to_yaml()) == study


def test_every_form_of_a_query_in_a_file_means_the_same(tmp_path: Path) -> None:
    place = tmp_path / "study.yaml"
    place.write_text(
        """
study: forms   # a comment
queries:
  - histogram age bins=20 by sex, mean radius[0, 5, 30] where bmi > 20 as 'a' weight 2
""".replace("mean radius", "`mean radius`")
        + """
  - histogram: age
    bins: 20
    by: [sex, {mean radius: [0, 5, 30]}]
    where: bmi > 20
    name: b
    weight: 2
  - histogram: {column: age, bins: 20}
    by: ["sex", "`mean radius`[0, 5, 30]"]
    where: bmi > 20
    name: c
    weight: 2
  - count: rows
    by: mean radius
"""
    )
    study = Study.from_yaml(place)
    one, two, three, four = study.queries
    assert one.named("x") == two.named("x") == three.named("x")
    assert four.by[0].column == "mean radius"


@pytest.mark.parametrize(
    ("line", "text", "said"),
    [
        (1, "queries: [count]", "a study needs a name"),
        (1, "study: x", "asks at least one query"),
        (2, "study: x\nqueries: count", "must be a list"),
        (2, "study: x\nqueris: [count]", "did you mean queries?"),
        (3, "study: x\nqueries:\n  - meen: age", "did you mean mean?"),
        (3, "study: x\nqueries:\n  - meen age", "did you mean mean?"),
        (4, "study: x\nqueries:\n  - count\n  - 5", "a query is one line"),
        (4, "study: x\nqueries:\n  - mean: age\n    colour: 3", "colour: there is no such field"),
        (5, "study: x\nqueries:\n  - histogram:\n      column: age\n      bins: -3", "bins"),
        (5, "study: x\nqueries:\n  - mean: age\n    name: a\n    where: age >> 5", "cannot read 'age >> 5'"),
        (4, "study: x\nqueries:\n  - mean: age\n    by: [sex, {age: [x]}]", "edges"),
        (4, "study: x\nqueries:\n  - mean: age\n    by: {a: 1, b: 2}", "write a column"),
        (4, "study: x\nqueries:\n  - mean: age\n    weight: lots", "weight is 'lots'"),
        (4, "study: x\nqueries:\n  - mean: age\n    name: 5", "is no name"),
        (5, "study: x\nqueries:\n  - count as 'a'\n  - mean: age\n    name: a", "query 1 is named 'a' already"),
        (4, "study: x\nqueries:\n  - mean: age\n    count: rows", "mean is asked already"),
        (3, "study: x\nscores:\n  - {name: s, weights: {}}\nqueries: [count]", "weights"),
        (2, "study: x\nstudy: y\nqueries: [count]", "occurs a second time (first on line 1)"),
        (2, "study: x\nqueries: [count", "not YAML"),
        (2, "study: x\n\tqueries: [count]", "a tab"),
        (2, "study: x\nqueries: &a [count]", "anchors and aliases"),
        (2, "study: x\nqueries: !!set [count]", "tag"),
        (2, "study: x\nconfidence:\nqueries: [count]", "has no value"),
        (3, "study: x\nqueries:\n- mean: no", "is read as false or true"),
        (2, "study: x\nconfidence: 95\nqueries: [count]", "confidence is 95"),
        (2, "study: x\npurpose: training\nqueries: [count]", "choose analytics or monitoring"),
        (2, "study: x\nqueries: [" + "[" * 20 + "]" * 20 + "]", "nests deeper"),
        (1, "- study", "must be a list of fields"),
    ],
)
def test_every_complaint_names_its_line(line: int, text: str, said: str) -> None:
    with pytest.raises(InvalidStudy) as caught:
        Study.from_yaml(text)
    assert (line, True) in [(one.line, said in one.words("study")) for one in caught.value.complaints], caught.value


def test_all_complaints_come_at_once_in_order() -> None:
    with pytest.raises(InvalidStudy) as caught:
        Study.from_yaml("study: x\nqueries:\n- meen: age\n- mean: age\n  where: a b\n- mean: age\n  wight: 3\nqu: 1")
    assert [one.line for one in caught.value.complaints] == [3, 5, 7, 8]
    assert str(caught.value).startswith("4 things to correct\n  study:3: queries.1.meen: ")


def test_with_the_schema_wrong_columns_have_their_line_too() -> None:
    text = "study: x\nqueries:\n  - mean age\n  - mean agee\n  - mean: bmi\n    where: bmi > 1000\n"
    with pytest.raises(InvalidStudy) as caught:
        read_study(text, SCHEMA)
    assert [one.line for one in caught.value.complaints] == [4, 5]
    assert read_study(GOOD, SCHEMA) == STUDY


def test_further_fields_are_for_those_who_ask_for_them() -> None:
    study, more = read_fields(GOOD + "run: {epsilon: 1.5}\n", extra=("run",))
    assert (study, more) == (STUDY, {"run": {"epsilon": 1.5}})
    with pytest.raises(InvalidStudy, match="there is no such field"):
        read_study(GOOD + "run: {epsilon: 1.5}\n")


def test_a_study_file_s_settings_and_columns_have_their_lines(tmp_path: Path) -> None:
    """A wrong setting of the run, and a column that the schema beside it does not have."""
    path = tmp_path / "study.yaml"
    path.write_text("study: x\nepsilon: -1\nattempts: many\nqueries:\n  - meen age\n", encoding="utf-8")
    with pytest.raises(InvalidStudy) as caught:
        read_study_file(path)
    assert [one.line for one in caught.value.complaints] == [2, 3, 5]
    assert "study.yaml:2: epsilon: write a number above 0" in str(caught.value)
    fields = SCHEMA.model_dump(mode="json", exclude_none=True)
    (tmp_path / "schema.yaml").write_text(json.dumps(fields), encoding="utf-8")
    path.write_text("study: x\nschema: schema.yaml\nqueries:\n  - count\n  - mean aeg\n", encoding="utf-8")
    with pytest.raises(InvalidStudy, match=r"study\.yaml:5: .*did you mean 'age'"):
        read_study_file(path)
    path.write_text("study: x\nschema: schema.yaml\nqueries: [mean age]\n", encoding="utf-8")
    assert read_study_file(path)[2] == SCHEMA
    with pytest.raises(InvalidStudy, match=r"study\.yaml:3"):
        read_study_file(path, Schema.model_validate({**fields, "columns": {"sex": fields["columns"]["sex"]}}))


def test_queries_may_be_lines_in_any_form() -> None:
    """A line, a list of both, a mapping of both; anything else is refused in words."""
    named = Study("s", {"a": "mean age", "b": Query().count()})
    assert named.names == ("a", "b")
    assert Study("s", "count").with_queries("mean age").names == ("count rows", "mean age")
    with pytest.raises(Misuse, match="is no query"):
        Study("s", [3])  # type: ignore[list-item]


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(Misuse, match="cannot be read"):
        Study.from_yaml(tmp_path / "none.yaml")
    (tmp_path / "latin.yaml").write_bytes(b"study: \xff")
    with pytest.raises(Misuse, match="not UTF-8"):
        Study.from_yaml(tmp_path / "latin.yaml")


def test_names_are_made_once_each_and_given_ones_must_differ() -> None:
    study = Study("s", ("count", "count", "count as 'count rows 2'"))
    assert study.names == ("count rows", "count rows 3", "count rows 2")
    with pytest.raises(Misuse, match="two queries are named 'a'"):
        Study("s", ("count as 'a'", "mean age as 'a'"))
    assert Study("s", {"n": Query().count()}).names == ("n",)
    with pytest.raises(Misuse, match="a study of 0 queries"):
        Study("s", ())


# -- compilation -----------------------------------------------------------------------------------------

WRONG = [
    ({"epsilon": 0}, Misuse, "epsilon is 0; it must be a positive number up to 1000; at least"),
    ({"epsilon": -1.0}, Misuse, "epsilon is -1"),
    ({"epsilon": float("nan")}, Misuse, "epsilon is nan"),
    ({"epsilon": 1e9}, Misuse, "up to 1000"),
    ({"epsilon": None}, Misuse, "needs epsilon and delta"),
    ({"epsilon": 0.001}, BudgetExceeded, "too small to resolve"),
    ({"delta": 1.0}, Misuse, "delta is 1"),
    ({"delta": 1e-30}, Refused, "larger delta"),
    ({"sites": 1, "min_survivors": 1}, Misuse, "one site only"),
    ({"unit": "site"}, Misuse, "record or subject"),
    ({"trust": "blind"}, Misuse, "local or distributed"),
    ({"min_survivors": 2, "colluders": 1}, Refused, "honest noise share"),
    ({"min_survivors": 4}, Misuse, "do not fit 3 sites"),
    ({"attempts": 0}, Misuse, "attempts is 0"),
]


@pytest.mark.parametrize(("change", "kind", "said"), WRONG)
def test_what_is_refused_before_anything_is_spent(change: dict, kind: type[Exception], said: str) -> None:
    with pytest.raises(kind) as caught:
        STUDY.compile(SCHEMA, **{"epsilon": 4.0, **PLAIN, **change})
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("study", "said"),
    [
        ("mean agee", "query 'mean agee': there is no column 'agee'"),
        ("mean sex", "a number is needed"),
        ("histogram age bins=[0, 500]", "leave its declared bounds"),
        ("count by age", "age/5"),
        ("count where stage == 5", "is no declared class"),
    ],
)
def test_queries_that_do_not_fit_are_named(study: str, said: str) -> None:
    with pytest.raises(Misuse) as caught:
        Study("s", (study,)).compile(SCHEMA, epsilon=4.0, **PLAIN)
    assert said in str(caught.value)


def test_a_schema_without_persons_protects_none() -> None:
    schema = Schema(records=100, columns={"age": {"lower": 0, "upper": 100}})
    with pytest.raises(Misuse, match="names no subject column"):
        Study("s", ("mean age",)).compile(schema, epsilon=4.0, unit="subject", **PLAIN)


def test_vectors_that_are_too_long_are_refused() -> None:
    axes = [bins(name, 1000) for name in ("age", "bmi", "mean radius")]
    with pytest.raises(Misuse, match="use fewer bins"):
        Study("s", (Query().group_by(*axes).count(),)).compile(SCHEMA, epsilon=4.0, **PLAIN)


def test_too_many_records_for_the_ring() -> None:
    schema = Schema(records=10**18, columns={"age": {"lower": 0, "upper": 100}})
    with pytest.raises(Refused, match="too long for the ring"):
        Study("s", ("mean age",)).compile(schema, epsilon=4.0, **PLAIN)


@given(st.floats(1.5, 50), st.sampled_from(["record", "subject"]), st.sampled_from(["local", "distributed"]))
@settings(max_examples=25, deadline=None)
def test_a_plan_stays_within_its_budget_and_wastes_little(epsilon: float, unit: str, trust: str) -> None:
    try:
        question = STUDY.compile(SCHEMA, epsilon=epsilon, unit=unit, trust=trust, **PLAIN)
    except BudgetExceeded:
        return
    mu2, slack = mu_for_budget(epsilon, 1e-6)
    spent = total_cost(question.plan, question.releases, question.delta0, question.rows)
    assert spent.mu2 <= mu2
    assert spent.delta <= slack
    assert epsilon_of_cost(spent, 1e-6) <= epsilon
    assert spent.mu2 >= mu2 * Fraction(99, 100)
    assert sum(part.share for stage in question.plan for part in stage.parts) == 1
    # the ledger's charge is the plan's
    charged = [price.costs[Unit(unit)] for price in question.prices()]
    assert [cost.mu2 for cost in charged] == [release.mu2 for release in question.releases]
    assert sum(cost.mu2 for cost in charged) == spent.mu2
    assert {release.trust for release in question.releases} == {Trust(trust)}
    assert {release.unit for release in question.releases} == {Unit(unit)}


def test_a_site_alone_asks_itself_under_its_own_noise() -> None:
    alone = {"epsilon": 8.0, "delta": 1e-6, "sites": 1, "trust": "local"}
    (release,) = Study("s", ("count",)).compile(SCHEMA, **alone).releases
    assert release.honest == 1
    with pytest.raises(Misuse, match="one site only"):
        Study("s", ("count",)).compile(SCHEMA, **{**alone, "trust": "distributed"})


def test_json_of_no_sense_is_refused() -> None:
    deep = '{"kind":"not","part":' * 900 + '{"kind":"missing","column":"a"}' + "}" * 900
    text = Study("s", ("count",)).to_json().replace('"where":null', f'"where":{deep}')
    for bad in (text, "[" * 9000, "{}", "[]", "5", "", STUDY.to_json()[:-1], STUDY.to_json().replace("mean", "meen")):
        with pytest.raises(Misuse):
            Study.from_json(bad)


def test_weights_divide_the_budget() -> None:
    question = Study("s", ("count as 'a'", "count as 'b' weight 3")).compile(SCHEMA, epsilon=2.0, **PLAIN)
    a, b = question.releases[0].blocks
    assert (a.sigma / b.sigma) ** 2 == pytest.approx(3, rel=1e-3)


def test_the_least_epsilon_that_is_named_is_enough_and_little_less_is_not() -> None:
    study = Study("s", ("count", "mean age by sex"))
    with pytest.raises(BudgetExceeded) as caught:
        study.compile(SCHEMA, epsilon=0.01, **PLAIN)
    least = float(str(caught.value).rpartition("at least ")[2].split()[0])
    study.compile(SCHEMA, epsilon=least, **PLAIN)
    with pytest.raises(BudgetExceeded):
        study.compile(SCHEMA, epsilon=0.9 * least, **PLAIN)


def test_a_generous_budget_still_has_noise() -> None:
    question = STUDY.compile(SCHEMA, epsilon=1000.0, **PLAIN)
    assert all(release.sigma_site(block) >= 4 for release in question.releases for block in release.blocks)


def test_without_noise_is_a_switch_of_its_own() -> None:
    with pytest.raises(Misuse, match="no epsilon and no delta"):
        STUDY.compile(SCHEMA, epsilon=1.0, _without_noise=True, **PLAIN)
    sizes = {**PLAIN, "delta": None}
    question = STUDY.compile(SCHEMA, epsilon=None, _without_noise=True, **sizes)
    assert question.sum_at(0).release is None
    assert not question.prices()
