"""The public agreement on a table: what it accepts, what it refuses, and how it travels."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest

from privfl.errors import Misuse, PrivflError
from privfl.learn import Category, Numeric, Schema

COLUMNS = {
    "age": {"lower": 0, "upper": 110, "center": 45, "scale": 20, "unit": "years"},
    "dose": {"lower": -2.5, "upper": 7.5},
    "ill": {"classes": [False, True]},
    "ward": {"classes": ["a", "b", "c"]},
}


def test_reference_range_defaults_to_middle_and_half_width() -> None:
    """Without a declared centre and scale the bounds give them, and never the data."""
    dose = Schema(records=10, columns=COLUMNS).columns["dose"]
    assert isinstance(dose, Numeric)
    assert (dose.center, dose.scale) == (2.5, 5.0)


def test_json_round_trip_is_exact_and_keeps_the_order_of_columns() -> None:
    """Two parties that exchange the text hold equal schemas and equal text."""
    schema = Schema(name="t", version=3, records=1000, columns=COLUMNS)
    again = Schema.from_json(schema.to_json())
    assert again == schema
    assert again.to_json() == schema.to_json()
    assert list(again.columns) == list(COLUMNS)
    assert (schema.numeric, schema.categories) == (("age", "dose"), ("ill", "ward"))


@pytest.mark.parametrize(
    ("bad", "named"),
    [
        ({"lower": 5, "upper": 3}, "lower"),
        ({"lower": 0, "upper": 1, "center": 2}, "center"),
        ({"lower": 0, "upper": 1, "scale": 0}, "scale"),
        ({"lower": 0, "upper": float("inf")}, "finite"),
        ({"lower": float("nan"), "upper": 1}, "finite"),
        ({"lower": 0}, "upper"),
        ({"lower": 0, "upper": 1, "mean": 0.5}, "mean"),
        ({"classes": ["one"]}, "two or more"),
        ({"classes": ["one", "one"]}, "distinct"),
        ({"classes": ["one", 2]}, "all"),
        ("numeric", "mapping"),
    ],
)
def test_a_bad_column_is_named_in_a_typed_error(bad: object, named: str) -> None:
    """Every complaint names its column and its cause, within privfl's error tree."""
    with pytest.raises(Misuse, match=named) as caught:
        Schema(records=10, columns={"fine": {"lower": 0, "upper": 1}, "odd": bad})
    assert "odd" in str(caught.value)


def test_all_bad_columns_are_listed_at_once() -> None:
    """The author of a schema sees every complaint in one go."""
    with pytest.raises(Misuse) as caught:
        Schema(records=10, columns={"one": {"lower": 1, "upper": 0}, "two": {"classes": []}})
    assert "one" in str(caught.value)
    assert "two" in str(caught.value)


@pytest.mark.parametrize("fields", [{"records": 0}, {"columns": {}}, {"records": "many"}, {"rows": 3}])
def test_a_schema_needs_a_size_and_columns(fields: dict[str, object]) -> None:
    """A declared size below one, no columns and unknown fields are refused."""
    with pytest.raises(Misuse):
        Schema(**{"records": 10, "columns": COLUMNS, **fields})


@pytest.mark.parametrize("text", ["", "[]", "3", "{", '{"records": 10}', '{"records": 1e400, "columns": {}}'])
def test_broken_json_is_a_typed_error(text: str) -> None:
    """Truncated or foreign text never escapes as another exception."""
    with pytest.raises(PrivflError):
        Schema.from_json(text)


def test_yaml_reads_the_same_schema_or_says_what_to_install() -> None:
    """YAML is optional; without PyYAML the error names the remedy."""
    text = "records: 10\ncolumns:\n  age: {lower: 0, upper: 110}\n  ill: {classes: [false, true]}\n"
    if importlib.util.find_spec("yaml") is None:
        with pytest.raises(Misuse, match="pyyaml"):
            Schema.from_yaml(text)
        return
    expected = Schema(records=10, columns={"age": {"lower": 0, "upper": 110}, "ill": {"classes": [False, True]}})
    assert Schema.from_yaml(text) == expected
    for broken in ("[1", "- 1", "records: 10"):
        with pytest.raises(Misuse):
            Schema.from_yaml(broken)


def test_numpy_classes_become_plain_values() -> None:
    """Classes taken from an array compare and encode like declared ones."""
    assert Category(classes=np.array([0, 1, 2])) == Category(classes=(0, 1, 2))
    assert type(Category(classes=tuple(np.array([0, 1])))).__name__ == "Category"


def test_a_schema_is_frozen() -> None:
    """Nobody changes a bound after it was agreed on."""
    with pytest.raises(ValueError, match="frozen"):
        Schema(records=10, columns=COLUMNS).records = 11  # type: ignore[misc]
