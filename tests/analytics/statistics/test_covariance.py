"""Covariances and correlations against pandas and NumPy, and what noise may do to them."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from privfl_analytics.constructions import Classes
from privfl_analytics.statistic import Context, Noisy
from privfl_analytics.statistics.covariance import Correlation, Covariance
from privfl_analytics.view import View

from privfl.errors import Misuse
from tests.analytics.reference import answer
from tests.analytics.statistics.moment_tables import NAMES, SCALES, Made, rows_of, schema_for, tables

#: Half a grid step of x is radius/2^11 scales; products of two such errors average out over rows.
GRID = 4.0 / 2**10


def off_diagonal(columns: tuple[str, ...]) -> list[tuple[str, str]]:
    return [(a, b) for at, a in enumerate(columns) for b in columns[at + 1 :]]


@settings(max_examples=15, deadline=None)
@given(made=tables())
def test_covariance_without_noise_is_the_pooled_one(made: Made) -> None:
    """Every entry equals numpy.cov of all complete rows to the grid, whatever the sites."""
    found = answer(Covariance(columns=NAMES), made.schema, made.frames)
    assert found.value("count") == len(made.complete)
    assert found.value("shortened share") == 0
    expected = np.cov(made.complete.to_numpy().T) / np.outer(SCALES, SCALES)
    matrix = np.array(found.details["matrix"]) / np.outer(SCALES, SCALES)
    np.testing.assert_allclose(matrix, expected, atol=2 * GRID)
    assert np.array(found.details["matrix"]).tolist() == np.array(found.details["matrix"]).T.tolist()


@settings(max_examples=15, deadline=None)
@given(made=tables())
def test_correlation_without_noise_is_the_pooled_one(made: Made) -> None:
    """Every pair equals pandas' corr of all complete rows to the grid."""
    found = answer(Correlation(columns=NAMES), made.schema, made.frames)
    for a, b in off_diagonal(NAMES):
        expected = made.complete.corr().loc[a, b]
        assert found.value("correlation", column=a, other=b) == pytest.approx(expected, abs=5 * GRID)


@settings(max_examples=10, deadline=None)
@given(level=st.floats(-1.5, 1.5), seed=st.integers(0, 2**32 - 1))
def test_a_constant_column_has_variance_zero_and_no_correlation(level: float, seed: int) -> None:
    """Wherever the constant lies on the grid; the other columns keep their answers."""
    frame = rows_of(np.random.default_rng(seed), 40).assign(age=50 + 12 * level)
    schema = schema_for(40)
    found = answer(Covariance(columns=NAMES), schema, [frame])
    assert found.value("covariance", column="age", other="age") == 0
    found = answer(Correlation(columns=NAMES), schema, [frame])
    assert np.isnan(found.value("correlation", column="age", other="rate"))
    assert not np.isnan(found.value("correlation", column="weight", other="rate"))


@pytest.mark.parametrize("rows", [0, 1])
def test_too_few_rows_are_not_resolved(rows: int) -> None:
    """An empty or a one-row table has a count and nothing else."""
    frame = rows_of(np.random.default_rng(1), rows)
    for asked in (Covariance(columns=NAMES), Correlation(columns=NAMES)):
        found = answer(asked, schema_for(10), [frame, frame[:0]])
        assert found.value("count") == rows
        assert all(row.value is None for row in found.rows if row.what != "count")


def test_columns_on_one_line_correlate_fully() -> None:
    """Without noise ±1 up to the grid, with an interval that has the value in it."""
    frame = rows_of(np.random.default_rng(2), 50)
    frame["pressure"] = 120 - 15 * (frame["age"] - 50) / 12
    row = answer(Correlation(columns=("age", "pressure")), schema_for(50), [frame]).rows[-1]
    assert row.value == pytest.approx(-1, abs=1e-4)
    assert row.lower <= row.value <= row.upper


def test_shortened_rows_are_counted_and_warned_of() -> None:
    """A radius of half a scale shortens most rows; the share is that of the reference and a note says so."""
    frame = rows_of(np.random.default_rng(3), 200)
    scaled = (frame.to_numpy() - [50, 120, 70, 0]) / SCALES
    found = answer(Covariance(columns=NAMES, radius=1.0), schema_for(200), [frame])
    assert found.value("shortened share") == pytest.approx(np.mean(np.linalg.norm(scaled, axis=1) > 1), abs=0.02)
    assert any("were shortened" in note for note in found.notes)


def test_drowned_correlations_are_not_resolved() -> None:
    """Forty rows under heavy noise give no number."""
    frame = rows_of(np.random.default_rng(4), 40)
    found = answer(Correlation(columns=NAMES), schema_for(40), [frame], sd=30)
    assert all(row.value is None for row in found.rows if row.what == "correlation")


def test_an_indefinite_matrix_is_repaired_beside_and_said() -> None:
    """The numbers stay as they came; details have the nearest matrix without negative eigenvalues."""
    frame = rows_of(np.random.default_rng(5), 300)
    frame["rate"] = (frame["age"] - 50) / 12
    found = answer(Covariance(columns=NAMES), schema_for(300), [frame], sd=3, rng=np.random.default_rng(1))
    assert np.linalg.eigvalsh(np.array(found.details["repaired"])).min() > -1e-9
    assert any("negative eigenvalue" in note for note in found.notes)


@pytest.mark.parametrize("interval", ["rows", "population"])
@pytest.mark.parametrize("sd", [2.0, 7.0])
def test_intervals_cover(interval: str, sd: float) -> None:
    """About 95 of 100 intervals hold the truth, of these rows or of the population, where noise is small or large."""
    rng, hit, asked = np.random.default_rng(6), 0, 0
    view, statistic = View(schema_for(900)), Correlation(columns=("age", "pressure"))
    construction = statistic.constructions(view)[0]
    noise = sd * construction.row2(view) ** 0.5 / construction.scale
    for _ in range(300):
        x = 0.8 * rng.multivariate_normal([0, 0], [[1, 0.6], [0.6, 1]], 900)
        truth = 0.6 if interval == "population" else np.corrcoef(x.T)[0, 1]
        z = np.column_stack([np.ones(900), np.rint(x / construction.radius * 1024) / 1024])
        z[:, 1:] /= np.maximum(1, np.linalg.norm(z[:, 1:], axis=1))[:, None]
        products = (z.T @ z)[np.triu_indices(3)] * np.where(np.eye(3)[np.triu_indices(3)], 1, 41 / 29)
        values = np.append(products, 0) + rng.normal(0, noise, 7)
        context = Context(interval=interval, rng=rng, records=900)
        row = statistic.decode(view, [[Noisy(values, noise)]], [None], context).rows[-1]
        if row.value is not None:
            asked += 1
            hit += row.lower <= truth <= row.upper
    assert asked > 200
    assert 0.91 < hit / asked < 0.985


def test_unknown_columns_are_refused_in_words() -> None:
    """Before anything is asked: a name that is not there, one twice, one that is no number, one alone."""
    view = View(schema_for(10, sex={"classes": ["f", "m"]}))
    for columns, said in (
        (("age", "wieght"), "did you mean 'weight'"),
        (("age", "age"), "twice"),
        (("age", "sex"), "a number is needed"),
        (("age",), "two columns"),
    ):
        with pytest.raises(Misuse, match=said):
            Correlation(columns=columns).constructions(view)
    with pytest.raises(Misuse, match="radius"):
        Covariance(columns=NAMES, radius=-1)


def test_units_and_words() -> None:
    """Variances are in squared units; the title names the columns."""
    frame = pd.DataFrame({"age": [50.0, 60.0, 40.0], "rate": [0.0, 1.0, -1.0]})
    schema = schema_for(3)
    columns = {**schema.columns, "age": schema.columns["age"].model_copy(update={"unit": "years"})}
    found = answer(Covariance(columns=("age", "rate")), schema.model_copy(update={"columns": columns}), [frame])
    assert found.rows[2].unit == "years²"
    assert found.rows[3].unit == ""
    assert found.title == "the covariance of age, rate"


def test_below_the_display_minimum_nothing_is_shown() -> None:
    """Not the count, nor the share of shortened rows, nor a moment, and details have none either."""
    frame = rows_of(np.random.default_rng(7), 30)
    found = answer(Covariance(columns=NAMES), schema_for(30), [frame], context=Context(min_cell_count=40, records=30))
    assert all(row.value is None and "minimum" in row.note for row in found.rows)
    assert not any(one for line in found.details["matrix"] for one in line)
    few = answer(Covariance(columns=NAMES), schema_for(30), [frame], context=Context(min_cell_count=5, records=30))
    assert few.value("count") == 30
    assert np.isnan(few.value("shortened share"))


def test_by_groups_each_group_is_its_own() -> None:
    """A group's matrix is that of its rows; a group without rows is not resolved."""
    frame = rows_of(np.random.default_rng(8), 90).assign(sex=["f", "m", "f"] * 30)
    schema = schema_for(90, sex={"classes": ["f", "m"]})
    found = answer(Correlation(columns=("age", "pressure")), schema, [frame], by=(Classes(column="sex"),))
    for sex in ("f", "m"):
        expected = frame[frame["sex"] == sex][["age", "pressure"]].corr().iloc[0, 1]
        assert found.value("correlation", sex=sex) == pytest.approx(expected, abs=5 * GRID)
    assert np.isnan(found.value("correlation", sex="missing"))
