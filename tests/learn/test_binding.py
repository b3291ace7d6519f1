"""A table bound to the schema: wrong columns are errors, odd rows are defined readings."""

from __future__ import annotations

import pickle

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from privfl.errors import DataError, Misuse
from privfl.learn import Schema

SCHEMA = Schema(
    records=100,
    columns={
        "age": {"lower": 0, "upper": 110, "center": 50, "scale": 20},
        "dose": {"lower": -1, "upper": 1},
        "ill": {"classes": [False, True]},
        "ward": {"classes": ["a", "b", "c"]},
        "grade": {"classes": [1, 2, 3]},
    },
)


def table(**columns: object) -> pd.DataFrame:
    """Three plain rows, with some columns replaced."""
    plain = {
        "age": [30.0, 50.0, 70.0],
        "dose": [0.0, 0.5, 1.0],
        "ill": [True, False, True],
        "ward": ["a", "b", "c"],
        "grade": [1, 2, 3],
    }
    return pd.DataFrame({**plain, **columns})


def test_values_are_centred_and_scaled_by_public_constants() -> None:
    """The reading of a row depends on the schema and that row only."""
    bound = SCHEMA.bind(table())
    np.testing.assert_array_equal(bound.columns(("age",))[:, 0], [-1.0, 0.0, 1.0])
    np.testing.assert_array_equal(bound.codes["ward"], [0, 1, 2])
    np.testing.assert_array_equal(bound.codes["ill"], [1, 0, 1])
    assert all(counts.clean for counts in bound.report.columns.values())


def test_odd_values_are_read_as_defined_and_counted() -> None:
    """NaN is the centre, infinity and excess are the bound, other classes are unknown; none is an error."""
    bound = SCHEMA.bind(
        table(
            age=[np.nan, np.inf, 500.0], dose=[-np.inf, -7.0, 0.0], ill=pd.array([None, True, False], dtype="boolean"),
            ward=["a", "z", None], grade=[1.0, np.nan, 9.0],
        )
    )  # fmt: skip
    np.testing.assert_array_equal(bound.columns(("age",))[:, 0], [0.0, 3.0, 3.0])
    np.testing.assert_array_equal(bound.columns(("dose",))[:, 0], [-1.0, -1.0, 0.0])
    np.testing.assert_array_equal(bound.codes["ill"], [-1, 1, 0])
    np.testing.assert_array_equal(bound.codes["ward"], [0, -1, -1])
    np.testing.assert_array_equal(bound.codes["grade"], [0, -1, -1])
    counts = bound.report.columns
    assert (counts["age"].missing, counts["age"].infinite, counts["age"].outside) == (1, 1, 1)
    assert (counts["ward"].unknown, counts["ward"].missing) == (1, 1)
    assert (counts["grade"].unknown, counts["grade"].missing) == (1, 1)
    assert counts["ill"].missing == 1
    assert "1 missing, 1 infinite" in str(bound.report)
    assert "<pre>" in bound.report._repr_html_()


def test_a_label_of_0_and_1_reads_as_false_and_true() -> None:
    """A boolean class stored as numbers means what it says; so do categoricals and text columns."""
    assert SCHEMA.bind(table(ill=[1, 0, 1])).codes["ill"].tolist() == [1, 0, 1]
    assert SCHEMA.bind(table(ill=[1.0, 0.0, np.nan])).codes["ill"].tolist() == [1, 0, -1]
    assert SCHEMA.bind(table(ward=pd.Categorical(["c", "a", "q"]))).codes["ward"].tolist() == [2, 0, -1]
    assert SCHEMA.bind(table(ward=pd.array(["c", None, "b"], dtype="string"))).codes["ward"].tolist() == [2, -1, 1]


def test_all_differences_are_listed_and_no_value_is_shown() -> None:
    """The operator sees every mismatch at once; the message holds no cell."""
    frame = table(dose=["secret", "b", "c"], ward=[4711, 2, 3]).drop(columns="age")
    with pytest.raises(DataError) as caught:
        SCHEMA.bind(frame)
    text = str(caught.value)
    assert all(part in text for part in ("'age' is missing", "'dose'", "'ward'"))
    assert "secret" not in text
    assert "4711" not in text


def test_a_missing_label_or_a_doubled_column_is_an_error() -> None:
    """Structure is checked before anything is spent."""
    with pytest.raises(DataError, match="'ill' is missing"):
        SCHEMA.bind(table().drop(columns="ill"))
    doubled = pd.concat([table(), table()[["age"]]], axis=1)
    with pytest.raises(DataError, match="occurs 2 times"):
        SCHEMA.bind(doubled)
    with pytest.raises(DataError, match="DataFrame"):
        SCHEMA.bind([1, 2, 3])  # type: ignore[arg-type]


def test_an_empty_table_binds() -> None:
    """The number of rows is private, and zero is a number."""
    bound = SCHEMA.bind(table().iloc[:0])
    assert bound.values.shape == (0, 2)
    assert bound.codes["ward"].shape == (0,)


def test_bound_data_shows_and_sends_nothing() -> None:
    """Neither repr nor pickle carries rows or their number away."""
    bound = SCHEMA.bind(table(age=[12.345, 50, 70]))
    assert "12.345" not in repr(bound)
    assert "rows hidden" in repr(bound)
    with pytest.raises(Misuse):
        pickle.dumps(bound)


cells = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=3), st.tuples(st.integers()))


@given(
    numbers=st.lists(st.floats(width=32, allow_nan=True, allow_infinity=True), min_size=3, max_size=3),
    labels=st.lists(cells, min_size=3, max_size=3),
)
def test_no_cell_ever_raises(numbers: list[float], labels: list[object]) -> None:
    """Whatever rows hold, binding succeeds and every reading is within public bounds."""
    frame = table(age=numbers, ward=pd.Series(labels, dtype=object), ill=pd.Series(labels, dtype=object))
    bound = SCHEMA.bind(frame)
    assert np.isfinite(bound.values).all()
    assert np.abs(bound.columns(("age",))).max() <= 3.0
    assert ((bound.codes["ward"] >= -1) & (bound.codes["ward"] < 3)).all()
    assert bound.report.rows == 3


@given(place=st.integers(0, 2), value=st.floats(allow_nan=True, allow_infinity=True))
def test_one_row_never_changes_the_reading_of_another(place: int, value: float) -> None:
    """Readings are row by row, so that one record moves the sum by its own contribution only."""
    ages = [30.0, 50.0, 70.0]
    ages[place] = value
    before, after = SCHEMA.bind(table()), SCHEMA.bind(table(age=ages))
    others = [row for row in range(3) if row != place]
    np.testing.assert_array_equal(before.values[others], after.values[others])
