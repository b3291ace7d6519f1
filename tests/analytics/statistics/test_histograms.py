"""Histograms and value counts: exact without noise, covered with it, nothing hidden can be subtracted."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from privfl_analytics.decode import BELOW_MINIMUM, HIDDEN_WITH, NOT_RESOLVED, hidden
from privfl_analytics.statistic import Context, Noisy
from privfl_analytics.statistics.histograms import Histogram, Values, axis_of, concealed
from privfl_analytics.view import View

from privfl.errors import Misuse
from tests.analytics.reference import answer
from tests.analytics.statistics.made import QUICK, SCHEMA, SITES, covered, frame_of, numbers, quiet

VIEW = View(SCHEMA)


@given(SITES)
@QUICK
def test_without_noise_bins_are_numpys_of_the_pooled_rows(frames: list[pd.DataFrame]) -> None:
    values = numbers(frames)
    found = answer(Histogram(column="age", bins=8), SCHEMA, frames, context=quiet())
    assert [row.value for row in found.rows[:-1]] == np.histogram(values, np.linspace(0, 100, 9))[0].tolist()
    assert found.value("count", age="missing") == sum(map(len, frames)) - len(values)
    assert "outside" not in {row.at["age"] for row in found.rows}, "nothing can lie beyond edges that span the bounds"
    inner = answer(Histogram(column="age", bins=(20.0, 30.0, 60.0)), SCHEMA, frames)
    assert [row.value for row in inner.rows[:2]] == np.histogram(values, [20, 30, 60])[0].tolist()
    assert inner.value(age="outside") == ((values < 20) | (values > 60)).sum()


@given(SITES)
@QUICK
def test_without_noise_values_are_those_of_pandas(frames: list[pd.DataFrame]) -> None:
    sex = pd.concat(frames).sex.replace("?", None)
    found = answer(Values(column="sex"), SCHEMA, frames, context=quiet())
    counts = sex.value_counts(dropna=False).to_dict()
    present = sex.notna().sum()
    for label, own in (("f", "f"), ("m", "m"), ("other", "x")):
        assert found.value("count", sex=label) == counts.get(own, 0)
        if present:
            assert found.value("share", sex=label) == pytest.approx(counts.get(own, 0) / present)
    assert found.value("count", sex="missing") == sex.isna().sum()


@pytest.mark.parametrize("interval", ["rows", "population"])
def test_intervals_cover(interval: str) -> None:
    shares = np.array([0.5, 0.3, 0.15, 0.05])

    def once(rng: np.random.Generator, what: str, cell: int) -> tuple:
        exact = rng.multinomial(800, shares)
        noisy = Noisy(exact + rng.normal(0, 12, 4), 12.0)
        found = Values(column="sex").decode(VIEW, [[noisy]], [None], Context(interval=interval, records=800, rng=rng))
        row = [row for row in found.rows if row.what == what][cell]
        whole = 800 if what == "count" else exact[:3].sum() if interval == "rows" else 800 * 0.95
        return row, exact[cell] / (1 if what == "count" else whole) if interval == "rows" else (
            800 * shares[cell] / (1 if what == "count" else whole)
        )

    covered(lambda rng: once(rng, "count", 1))
    covered(lambda rng: once(rng, "share", 1))


@given(
    st.lists(st.integers(0, 60), min_size=2, max_size=30).map(np.array),
    st.integers(1, 20),
)
@QUICK
def test_no_hidden_cell_follows_from_totals(counts: np.ndarray, minimum: int) -> None:
    mask = hidden(counts.astype(float), minimum)
    if minimum == 1:
        assert not mask.any()
        return
    assert mask[counts < minimum].all()
    assert mask.sum() != 1
    veiled = concealed(counts.astype(float), minimum)
    assert veiled.sum() != 1
    assert veiled[:-1].sum() != 1 or len(counts) == 2


@given(st.integers(2, 6), st.integers(2, 6), st.integers(0, 10_000))
@QUICK
def test_no_hidden_cell_of_a_table_stands_alone_in_its_line(rows: int, columns: int, seed: int) -> None:
    counts = np.random.default_rng(seed).integers(0, 60, (rows, columns)).astype(float)
    mask = hidden(counts, 12)
    assert mask[counts < 12].all()
    assert not (mask.sum(axis=0) == 1).any()
    assert not (mask.sum(axis=1) == 1).any()


def test_hidden_counts_are_nowhere_in_the_answer() -> None:
    frame = frame_of([{"sex": "f"}] * 50 + [{"sex": "m"}] * 3 + [{"sex": "x"}] * 20 + [{"sex": None}] * 30)
    found = answer(Values(column="sex"), SCHEMA, [frame], context=quiet(min_cell_count=10))
    notes = {(row.what, row.at["sex"]): row.note for row in found.rows}
    assert notes["count", "m"] == notes["share", "m"] == BELOW_MINIMUM
    assert notes["count", "other"] == notes["share", "other"] == HIDDEN_WITH
    assert found.details["counts"] == [50.0, None, None, 30.0]
    assert found.value("count", sex="missing") == 30


def test_what_noise_drowns_is_not_printed() -> None:
    frame = frame_of([{"age": 40.0, "sex": "f"}] * 20)
    for statistic in (Histogram(column="age"), Values(column="sex")):
        found = answer(statistic, SCHEMA, [frame], sd=1e5)
        assert {row.note for row in found.rows} == {NOT_RESOLVED}
        assert not any(found.details.get("counts", [None]))


def test_misuse_is_named() -> None:
    with pytest.raises(Misuse, match="must rise"):
        Histogram(column="age", bins=(20.0, 10.0)).constructions(VIEW)
    with pytest.raises(Misuse, match="leave its declared bounds"):
        Histogram(column="age", bins=(0.0, 120.0)).constructions(VIEW)
    with pytest.raises(Misuse, match="bins"):
        Histogram(column="age", bins=0)
    with pytest.raises(Misuse, match="heavy_hitters"):
        axis_of(VIEW, "code", 5)
    with pytest.raises(Misuse, match="declared classes"):
        Values(column="age").constructions(VIEW)
    assert "20 equal bins" in Histogram(column="age").words()
    assert "± 19.6 rows" in Histogram(column="age").precision(VIEW, [[10.0]], 1000)


def test_an_empty_catch_all_hides_no_class() -> None:
    """``other`` holds nobody: it is not told from 0, so that the minority class needs not keep it company."""
    noisy = Noisy(np.array([4570.0, 1430.0, 3.0, -2.0]), 9.0)
    found = Values(column="sex").decode(VIEW, [[noisy]], [None], quiet(min_cell_count=10))
    shown = [row.value for row in found.rows if row.what == "count"]
    assert shown[:2] == [4570.0, 1430.0]
    assert shown[2:] == [None, None]


def test_a_small_class_that_is_told_from_none_is_not_hidden_alone() -> None:
    """A class of 30 below a minimum of 40 keeps the next smallest beside it."""
    noisy = Noisy(np.array([4570.0, 30.0, 60.0, 900.0]), 2.0)
    found = Values(column="sex").decode(VIEW, [[noisy]], [None], quiet(min_cell_count=40))
    assert [row.value for row in found.rows if row.what == "count"] == [4570.0, None, None, 900.0]
