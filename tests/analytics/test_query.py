"""The builder: frozen values, every registered statistic as a method, complaints as early as possible."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from privfl_analytics import Query, bins, col
from privfl_analytics.conditions import All, Compare, Condition, IsMissing, Not, OneOf
from privfl_analytics.constructions import Bins, Classes
from privfl_analytics.making import names_of_statistics
from privfl_analytics.predicates import condition_of
from privfl_analytics.view import View

from privfl.errors import Misuse
from tests.analytics.studies import AXES, CONDITIONS, SCHEMA


class Cohort:
    """Anything with a schema, such as a federation."""

    schema = SCHEMA


def test_building_leaves_what_was_there() -> None:
    base = Query(SCHEMA)
    older = base.where("age >= 50")
    assert base.condition is None
    assert older.group_by("sex").by == (Classes(column="sex"),)
    assert older.by == ()
    assert older.mean("age").where(sex="f") == base.where("age >= 50", sex="f").mean("age")


def test_every_registered_statistic_is_a_method() -> None:
    assert {"count", "mean", "variance"} <= set(names_of_statistics())
    for name in names_of_statistics():
        assert callable(getattr(Query(), name))
        assert name in dir(Query())


def test_unknown_statistics_say_what_is_near() -> None:
    with pytest.raises(Misuse, match=r"did you mean mean\?"):
        Query().meen("age")
    assert not hasattr(Query(), "meen")
    with pytest.raises(Misuse, match=r"did you mean where\?"):
        Query().wher("age >= 5")
    with pytest.raises(Misuse, match="mean: colum: there is no such field; did you mean column"):
        Query().mean(colum="age")
    with pytest.raises(Misuse, match="column is given twice"):
        Query().mean("age", column="age")
    with pytest.raises(Misuse, match="mean takes one column"):
        Query().mean("age", "range", 3, 4, 5, 6, 7)
    with pytest.raises(Misuse, match="at most"):
        Query().mean("age", True, 3, 4, 5, 6, 7)
    with pytest.raises(Misuse, match=r"did you mean mean\?"):
        Query().MEAN("age")


def test_one_query_asks_one_thing() -> None:
    with pytest.raises(Misuse, match="asks for the mean of age already"):
        Query().mean("age").count()
    with pytest.raises(Misuse, match="asks for nothing yet"):
        _ = Query().asked


@pytest.mark.parametrize("cohort", [SCHEMA, Cohort()])
def test_with_a_cohort_complaints_come_at_once(cohort: object) -> None:
    with pytest.raises(Misuse, match="is no declared class of 'sex'"):
        Query(cohort).where(sex="female")
    with pytest.raises(Misuse, match="the bounds of 'age' are"):
        Query(cohort).where(col("age") > 200)
    with pytest.raises(Misuse, match="leave its declared bounds"):
        Query(cohort).group_by(bins("age", [0, 200]))
    Query(cohort).where("risk > 0.5")  # may be a score of the study


@pytest.mark.parametrize(
    ("query", "said"),
    [
        (Query().group_by("age").count(), "age/5"),
        (Query().group_by("agee").count(), "did you mean 'age'"),
        (Query().mean("sex"), "a number is needed"),
        (Query().where("code == 'A'").count(), "cannot be filtered"),
        (Query().where("sex >= 'f'").count(), "compare it with == or !="),
        (Query().group_by("sex").distinct("code"), "group"),
    ],
)
def test_what_does_not_fit_the_schema(query: Query, said: str) -> None:
    with pytest.raises(Misuse) as caught:
        query.check(View(SCHEMA))
    assert said in str(caught.value)


def test_predicates_combine_and_are_never_true_or_false() -> None:
    both = (col("age") >= 50) & ~col("bmi").is_missing() & (col("sex") == "f")
    assert both.condition == All(
        parts=(
            Compare(column="age", operator=">=", value=50),
            Not(part=IsMissing(column="bmi")),
            Compare(column="sex", operator="==", value="f"),
        )
    )
    assert (col("sex").one_of("f", "m")).condition == OneOf(column="sex", values=("f", "m"))
    with pytest.raises(Misuse, match="combine conditions with &"):
        bool(col("age") >= 50 and col("sex") == "f")
    with pytest.raises(Misuse, match="is no condition"):
        condition_of(5)  # type: ignore[arg-type]
    assert Query().where(ward=["a", "b"]).condition == OneOf(column="ward", values=("a", "b"))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda q: q.named(""), "is no name"),
        (lambda q: q.named("a\nb"), "is no name"),
        (lambda q: q.named("x" * 101), "is no name"),
        (lambda q: q.weighted(0), "weight is 0"),
        (lambda q: q.weighted(float("nan")), "weight is nan"),
        (lambda q: q.group_by(), "group_by needs a column"),
        (lambda q: q.where(), "where needs a condition"),
        (lambda q: q.group_by("sex", "sex"), "twice"),
        (lambda q: Query("mean age"), "Query.parse"),
    ],
)
def test_what_no_query_can_have(change: object, said: str) -> None:
    with pytest.raises(Misuse) as caught:
        change(Query().count())  # type: ignore[operator]
    assert said in str(caught.value)


@given(st.none() | CONDITIONS, st.lists(AXES, max_size=2, unique_by=lambda axis: axis.column), st.floats(1e-3, 1e3))
@settings(max_examples=60, deadline=None)
def test_plain_values_read_back(condition: Condition | None, by: list, weight: float) -> None:
    query = Query(name="x", condition=condition, by=tuple(by), weight=weight).mean("age")
    value = json.loads(json.dumps(query.to_value()))
    back = Query.from_value(value)
    assert back == query
    assert back.to_value() == value


def test_bins_of_equal_width_take_the_bounds_of_the_schema() -> None:
    query = Query().group_by(bins("age", 4)).count()
    assert query.axes(View(SCHEMA)) == (Bins(column="age", edges=(0, 25, 50, 75, 100)),)


def test_names_say_what_is_asked() -> None:
    assert Query.parse("mean age by sex").title == "mean age by sex"
    words = Query.parse("mean age by sex where bmi > 20").words()
    assert words == "the mean of age, for every group of sex, among rows where bmi > 20"
    assert repr(Query().where("age > 5")) == "Query(nothing asked yet, where age > 5)"
