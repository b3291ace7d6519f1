"""Fixed point by public constants: each cell alone, every value defined."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from privfl.errors import Misuse
from privfl.ring import Column, dequantise, quantise, quantise_columns

COLUMNS = (Column(0.0, 10.0, center=5.0, scale=2.0), Column(-1.0, 1.0))


@given(
    st.lists(st.tuples(st.floats(allow_nan=True), st.floats(allow_nan=True)), min_size=1, max_size=20),
    st.integers(0, 30),
)
def test_every_cell_is_defined_and_bounded(rows: list[tuple[float, float]], bits: int) -> None:
    """NaN is the center, infinities and strays are clamped, the rest is the nearest multiple of 2^-bits."""
    result = quantise_columns(rows, COLUMNS, bits)
    missing = clamped = 0
    for row, out in zip(rows, result.values.tolist(), strict=True):
        for cell, value, column in zip(row, out, COLUMNS, strict=True):
            assert abs(value) <= math.ceil(column.reach * 2**bits)
            if math.isnan(cell):
                missing += 1
                assert value == 0
                continue
            inside = min(max(cell, column.lower), column.upper)
            clamped += inside != cell
            exact = (Fraction(inside) - Fraction(column.center)) / Fraction(column.scale) * 2**bits
            assert abs(exact - value) <= Fraction(1, 2) + Fraction(1, 1 << 10)
    assert (result.missing, result.clamped) == (missing, clamped)


@given(st.lists(st.tuples(st.floats(), st.floats()), min_size=2, max_size=10), st.data())
def test_rows_do_not_see_one_another(rows: list[tuple[float, float]], data: st.DataObject) -> None:
    """A row's integers are the same alone as among others."""
    place = data.draw(st.integers(0, len(rows) - 1))
    together = quantise_columns(rows, COLUMNS, 12).values[place]
    alone = quantise_columns([rows[place]], COLUMNS, 12).values[0]
    assert np.array_equal(together, alone)


@given(st.lists(st.integers(-(2**40), 2**40), max_size=10), st.integers(0, 12))
def test_quantise_undoes_dequantise(values: list[int], bits: int) -> None:
    """Integers survive the way to float64 and back."""
    integers = np.array(values, dtype=np.int64)
    assert np.array_equal(quantise(dequantise(integers, bits), bits), integers)


def test_nothing_of_the_table_is_shown() -> None:
    """The repr of a quantised table has no cell in it, and the table given is left as it was."""
    table = np.array([[7.0, math.nan]])
    result = quantise_columns(table, COLUMNS, 8)
    assert "redacted" in repr(result)
    assert "256" not in repr(result)
    assert math.isnan(table[0, 1])


@pytest.mark.parametrize(
    "make",
    [
        lambda: Column(1.0, 0.0),
        lambda: Column(0.0, math.inf),
        lambda: Column(0.0, 1.0, scale=0.0),
        lambda: Column(0.0, 1.0, center=math.nan),
        lambda: quantise_columns([[1.0]], COLUMNS, 8),
        lambda: quantise_columns([1.0, 2.0], COLUMNS, 8),
        lambda: quantise_columns([[1.0, 1.0]], COLUMNS, 53),
        lambda: quantise_columns([[1.0]], [Column(0.0, 2.0**30)], 30),
        lambda: quantise([math.nan], 4),
        lambda: quantise([2.0**53], 0),
        lambda: dequantise(np.array([1.0]), 4),  # type: ignore[arg-type]
    ],
)
def test_wrong_constants_are_misuse(make: object) -> None:
    """Constants that cannot be, or that leave float64's exact integers, are refused before any row is read."""
    with pytest.raises(Misuse):
        make()  # type: ignore[operator]
