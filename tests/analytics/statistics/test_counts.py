"""Counts of rows, persons, missing and different values: exact without noise, honest with it."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from privfl_analytics.conditions import Compare
from privfl_analytics.decode import BELOW_MINIMUM, NOT_RESOLVED
from privfl_analytics.statistic import Context, Noisy
from privfl_analytics.statistics.counts import Count, Distinct, Missing
from privfl_analytics.view import View

from privfl.errors import Misuse
from privfl.tasks import Schema
from tests.analytics.reference import answer
from tests.analytics.statistics.made import QUICK, SCHEMA, SITES, covered, frame_of, quiet

VIEW = View(SCHEMA)


@given(SITES)
@QUICK
def test_without_noise_counts_are_those_of_the_pooled_table(frames: list[pd.DataFrame]) -> None:
    pooled = pd.concat(frames)
    assert answer(Count(), SCHEMA, frames).value("count") == len(pooled)
    old = Compare(column="age", operator=">=", value=50)
    assert answer(Count(), SCHEMA, frames, where=old).value() == ((pooled.age >= 50) & (pooled.age != 999)).sum()
    found = answer(Missing(column="age"), SCHEMA, frames)
    empty = (pooled.age.isna() | (pooled.age == 999)).sum()
    assert (found.value("present"), found.value("missing")) == (len(pooled) - empty, empty)
    if len(pooled):
        assert found.value("share missing") == pytest.approx(empty / len(pooled))
    else:
        assert np.isnan(found.value("share missing"))


@given(SITES)
@QUICK
def test_distinct_values_are_summed_over_sites_and_the_answer_says_so(frames: list[pd.DataFrame]) -> None:
    found = answer(Distinct(column="code"), SCHEMA, frames)
    assert found.value() == sum(frame.code.nunique() for frame in frames)
    assert "not the union" in found.notes[0]
    assert found.interval == "rows"


def test_persons_count_once_at_a_site_and_need_a_subject() -> None:
    schema = Schema(records=10, subject="id", max_rows=3, columns={"age": {"lower": 0, "upper": 100}})
    frame = pd.DataFrame({"id": ["p", "p", "q", None], "age": [1.0, 2.0, 3.0, 4.0]})
    assert answer(Count(of="subjects"), schema, [frame], rows=3).value() == 2
    assert answer(Count(), schema, [frame], rows=3).value() == 3
    with pytest.raises(Misuse, match="subject column"):
        Count(of="subjects").constructions(VIEW)
    with pytest.raises(Misuse, match="rows"):
        Count(of="everything")


@pytest.mark.parametrize("interval", ["rows", "population"])
def test_intervals_of_counts_and_shares_cover(interval: str) -> None:
    def count(rng: np.random.Generator) -> tuple:
        exact = rng.poisson(400)
        noisy = Noisy(np.array([exact + rng.normal(0, 15)]), 15.0)
        context = Context(interval=interval, records=1000, rng=rng)
        return Count().decode(VIEW, [[noisy]], [None], context).rows[0], exact if interval == "rows" else 400

    def share(rng: np.random.Generator) -> tuple:
        missing = rng.binomial(500, 0.2)
        noisy = Noisy(np.array([500 - missing, missing]) + rng.normal(0, 15, 2), 15.0)
        found = Missing(column="age").decode(VIEW, [[noisy]], [None], Context(interval=interval, records=1000, rng=rng))
        return found.rows[2], missing / 500 if interval == "rows" else 0.2

    covered(count)
    covered(share)


def test_absurd_noise_resolves_nothing() -> None:
    for statistic in (Count(), Missing(column="age"), Distinct(column="code")):
        found = answer(statistic, SCHEMA, [frame_of([])], sd=1e6)
        assert not found.resolved
        assert {row.note for row in found.rows} == {NOT_RESOLVED}


def test_a_hidden_count_hides_its_complement_and_the_share() -> None:
    noisy = Noisy(np.array([400.0, 3.0]), 1.0)
    found = Missing(column="age").decode(VIEW, [[noisy]], [None], quiet(min_cell_count=10))
    assert [row.value for row in found.rows] == [None, None, None]
    assert found.rows[1].note == BELOW_MINIMUM


def test_precision_and_words_name_the_column() -> None:
    assert "age" in Missing(column="age").words()
    assert "percentage points" in Missing(column="age").precision(VIEW, [[5.0]], 1000)
    assert Count(of="subjects").words() == "the number of persons"
    assert not Distinct(column="code").group_axes(VIEW)
