"""Queries and conditions as text: what is written reads back, and what cannot be read is pointed at."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from privfl_analytics.conditions import All, Any_, Compare, Condition, IsMissing, Not, OneOf
from privfl_analytics.constructions import Bins, Classes, Presence
from privfl_analytics.parsing import axis_text, condition_text, parse_axis, parse_condition, parse_query
from privfl_analytics.predicates import simplified
from privfl_analytics.query import Cut, Query

from privfl.errors import Misuse
from tests.analytics.studies import AXES, CONDITIONS

QUICK = settings(max_examples=150, deadline=None)


def at_least(value: float, column: str = "age") -> Compare:
    return Compare(column=column, operator=">=", value=value)


F = Compare(column="sex", operator="==", value="f")


@given(CONDITIONS)
@QUICK
def test_a_condition_reads_back_as_it_was_written(condition: Condition) -> None:
    plain = simplified(condition)
    read = parse_condition(condition_text(plain))
    assert read == plain
    assert read.model_dump_json() == plain.model_dump_json()  # true is not 1, 1 is not 1.0


@given(AXES)
@QUICK
def test_an_axis_reads_back_as_it_was_written(axis: Classes | Bins | Cut | Presence) -> None:
    text = axis_text(axis)
    assert text is not None
    assert parse_axis(text) == axis


@given(st.one_of(st.text(max_size=40), st.lists(st.sampled_from(
    ["age", "and", "not", "(", ")", ">=", "5", "'f'", "in", "is", "missing", "mean", "by", ",", "=", "[", "]", "where"]
), max_size=12).map(" ".join)))  # fmt: skip
@example("(" * 500)
@example("not " * 500 + "x == 1")
@example("age == 1e999")
@settings(max_examples=300, deadline=None)
def test_no_text_does_anything_but_read_or_raise_misuse(text: str) -> None:
    for read in (parse_condition, parse_axis, parse_query):
        with suppress(Misuse):
            read(text)


@pytest.mark.parametrize(
    ("text", "condition"),
    [
        ("age >= 50 and sex == 'f'", All(parts=(at_least(50), F))),
        ('age>=50 AND sex="f"', All(parts=(at_least(50), F))),
        ("50 <= age", at_least(50)),
        (
            "40 <= age < 60",
            All(parts=(at_least(40), Compare(column="age", operator="<", value=60))),
        ),
        (
            "sex == 'f' or age >= 50 and bmi is missing",
            Any_(parts=(F, All(parts=(at_least(50), IsMissing(column="bmi"))))),
        ),
        (
            "not sex == 'f' and age >= 50",
            All(parts=(Not(part=F), at_least(50))),
        ),
        ("not (sex == 'f' or age >= 50)", Not(part=Any_(parts=(F, at_least(50))))),
        ("sex not in ('f', 'm')", Not(part=OneOf(column="sex", values=("f", "m")))),
        ("bmi is not missing", Not(part=IsMissing(column="bmi"))),
        ("`mean radius` >= 1.5", at_least(1.5, "mean radius")),
        ("ill == true", Compare(column="ill", operator="==", value=True)),
        ("x == -1e-3", Compare(column="x", operator="==", value=-0.001)),
        ("name == 'O''Brien'", Compare(column="name", operator="==", value="O'Brien")),
    ],
)
def test_conditions_mean_what_they_say(text: str, condition: Condition) -> None:
    assert parse_condition(text) == condition


def test_a_query_in_text_is_the_one_of_the_builder() -> None:
    text = "mean bmi by sex, age/4, stage where age >= 50 and sex == 'f' as 'older women' weight 2.5"
    built = (
        Query()
        .where(at_least(50), F)
        .group_by("sex", Cut(column="age", count=4), "stage")
        .mean("bmi")
        .named("older women")
        .weighted(2.5)
    )
    assert parse_query(text) == built
    assert parse_query("count by age[0, 40, 100], missing(bmi)") == Query().count().group_by(
        Bins(column="age", edges=(0, 40, 100)), Presence(column="bmi")
    )
    assert parse_query("covariance age, bmi") == Query().covariance("age", "bmi")
    assert parse_query("histogram age bins=20") == Query().histogram("age", bins=20)
    assert parse_query("histogram column=age, bins=[0, 50, 100]") == Query().histogram("age", bins=[0, 50, 100])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("age >> 50", "at '> 50' (character 6): a number"),
        ("sex == f", "put a class into quotes: 'f'"),
        ("50 > 4", "a column must stand on one side"),
        ("age", "at its end: a comparison is expected"),
        ("age in 5", "'(' is expected"),
        ("stage in (1.5)", "a class is a whole number"),
        ("age is 5", "'missing' is expected"),
        ("sex == 'f", 'at "\'f"'),
        ("age > 5)", "at ')' (character 8): this is more than fits"),
        ("age > 5; drop", "at '; drop'"),
        ("", "at its end"),
        ("and > 5", "the name of a column is expected"),
    ],
)
def test_what_cannot_be_read_is_pointed_at(text: str, said: str) -> None:
    with pytest.raises(Misuse) as caught:
        parse_condition(text)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("meen age", "there is no statistic 'meen'; did you mean mean?"),
        ("", "the name of a statistic is expected"),
        ("mean age were age > 5", "at 'were age > 5'"),
        ("mean age colum=age", "mean: "),
        ("histogram age bins=20 bins=30", "bins is given twice"),
        ("histogram bins=20, age", "values come before options"),
        ("count by age/", "a whole number is expected"),
        ("count by age[0, x]", "a number is expected"),
        ("count weight f", "a number is expected"),
        ("mean", "name a column: mean age"),
        ("covariance", "name columns: covariance age, bmi, systolic"),
        ("mean age, bmi", "mean takes one column"),
        ("count rows, age", "count takes one value"),
        ("crosstab age", "second is missing; write for example: crosstab ward, readmitted"),
        (
            "histogram age bins=0",
            "bins: write a whole number from 1 to 100000, or edges in brackets, such as [0, 40, 65",
        ),
        ("quantiles age q=0.5", "write q=[0.5]"),
        ("quantiles age q=[2]", "q: write a list of numbers above 0 and below 1 in brackets, such as [0.5]"),
        ("quantiles age q=[]", "q: write at least 1: a list"),
        ("glm bmi, [age] family=x", "family: write one of gaussian, binomial, poisson"),
        ("MEAN age", "did you mean mean?"),
    ],
)
def test_queries_that_cannot_be_read(text: str, said: str) -> None:
    with pytest.raises(Misuse) as caught:
        parse_query(text)
    assert said in str(caught.value)
