"""Construction F: exhaustive neighbours, exact sums, and rows that do not see one another."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import privfl.dp.factors as module
from privfl.dp.contribution import LocalReport
from privfl.dp.factors import FactorTable, factor_gradient
from privfl.errors import Misuse

NASTY = (0.0, -0.0, 1e-300, -0.3, 0.7, 1.0, 37.5, -1e20, 1e200, math.nan, math.inf, -math.inf)
FEATURES = tuple(itertools.product((-4, 0, 1, 3), repeat=2))


def norm2(array: np.ndarray) -> int:
    return sum(int(value) ** 2 for value in array.reshape(-1))


def gradient(
    rows: list[tuple[tuple[int, ...], tuple[float, ...]]], clip: float, bits: int = 3
) -> tuple[np.ndarray, int]:
    columns, outputs = 2, len(rows[0][1]) if rows else 2
    features = np.array([row[0] for row in rows], dtype=np.int64).reshape(len(rows), columns)
    residuals = np.array([row[1] for row in rows], dtype=np.float64).reshape(len(rows), outputs)
    result = factor_gradient(features, residuals, clip, 2, bits)
    return result.vector, result.delta2


@pytest.mark.parametrize("clip", [0.1, 0.5, 1.0, 7.3])
def test_every_single_record_stays_within(clip: float) -> None:
    """Every record of the grid, NaN and infinities included, moves the empty sum by at most Δ, in exact integers."""
    for features in FEATURES:
        for residuals in itertools.product(NASTY, repeat=2):
            vector, delta2 = gradient([(features, residuals)], clip)
            assert norm2(vector) <= delta2


@pytest.mark.parametrize("step", [1, 2, 8192])
def test_every_pair_of_neighbouring_tables(step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """All tables of up to two records of a grid, one more put in at every place: ‖ΔG‖² ≤ Δ², whatever the blocks."""
    monkeypatch.setattr(module, "_CACHE_ROWS", step)
    records = [
        ((f, g), (r, s)) for f, g in ((0, 0), (4, -3), (1, 2)) for r, s in ((0.2, -5.0), (math.nan, 1.0), (1e9, 0))
    ]
    for size in (0, 1, 2):
        for table in itertools.product(records, repeat=size):
            before, delta2 = gradient(list(table), 0.8)
            for record, place in itertools.product(records, range(size + 1)):
                after, same = gradient([*table[:place], record, *table[place:]], 0.8)
                assert same == delta2
                assert norm2(after - before) <= delta2


FLOATS = st.floats(allow_nan=True, allow_infinity=True)


@settings(max_examples=150)
@given(
    st.integers(1, 4),
    st.integers(1, 3),
    st.integers(1, 20),
    st.floats(0.01, 100),
    st.data(),
)
def test_a_sum_is_the_sum_of_its_records(
    columns: int, outputs: int, bits: int, clip: float, data: st.DataObject
) -> None:
    """G of a table equals the Python-integer sum of G of its single records; each is within Δ²."""
    rows = data.draw(st.integers(0, 8))
    cells = st.integers(-(2**10), 2**10)
    features = np.array(
        data.draw(st.lists(st.lists(cells, min_size=columns, max_size=columns), min_size=rows, max_size=rows)),
        dtype=np.int64,
    ).reshape(rows, columns)
    residuals = np.array(
        data.draw(st.lists(st.lists(FLOATS, min_size=outputs, max_size=outputs), min_size=rows, max_size=rows)),
        dtype=np.float64,
    ).reshape(rows, outputs)
    whole = factor_gradient(features, residuals, clip, 10, bits)
    total = np.zeros((columns, outputs), dtype=object)
    for place in range(rows):
        single = factor_gradient(features[place : place + 1], residuals[place : place + 1], clip, 10, bits)
        assert norm2(single.vector) <= single.delta2 == whole.delta2
        total += single.vector.astype(object)
    assert np.array_equal(whole.vector.astype(object), total)


@pytest.mark.parametrize(("feature_bits", "residual_bits"), [(10, 10), (20, 20), (24, 27)])
def test_the_float_path_is_bit_exact_across_blocks(feature_bits: int, residual_bits: int) -> None:
    """Against X̃ᵀR̃ in Python integers, with Δ so near 2^53 that a block holds 2^13, 2^12 or only a few records."""
    rng = np.random.default_rng(feature_bits)
    rows = 20_000 if feature_bits < 24 else 200
    features = np.rint(rng.uniform(-1, 1, (rows, 3)) * 2**feature_bits).astype(np.int64)
    residuals = rng.standard_t(2, (rows, 2))
    table = FactorTable(features, feature_bits)
    result = table.gradient(residuals, 0.9, residual_bits)
    kept = table._clip_residuals(slice(0, rows), residuals, result.delta2, residual_bits, LocalReport())
    exact = features.astype(object).T @ np.array([[int(value) for value in row] for row in kept], dtype=object)
    assert np.array_equal(result.vector.astype(object), exact)
    assert max(abs(int(value)) for value in result.vector.reshape(-1)) > 2**feature_bits


def test_unclipped_residuals_are_truncated_and_clipped_ones_nearly_reach_the_bound() -> None:
    """Small residuals come through as trunc(2^c·ρ); large ones use all of Δ but a unit, in their own direction."""
    features = np.array([[1000, -200], [3, 4]], dtype=np.int64)
    table = FactorTable(features, 10)
    small = np.array([[1e-3, -2e-3], [0.4, -0.3]])
    got = table.gradient(small, 50.0, 16)
    assert np.array_equal(got.vector, features.T @ np.trunc(small * 2**16).astype(np.int64))
    large = np.array([[3e3, -4e3], [1e9, 1e9]])
    for place in (0, 1):
        single = FactorTable(features[place : place + 1], 10).gradient(large[place : place + 1], 1.0, 16)
        roots = math.sqrt(norm2(features[place]))
        assert math.sqrt(single.delta2) - 2 * roots <= math.sqrt(norm2(single.vector)) <= math.sqrt(single.delta2)


@pytest.mark.parametrize("power", [10, 26, 40, 52])
def test_the_last_word_is_an_integer_comparison(power: int) -> None:
    """‖r̃‖²·N = Δ² is kept and Δ² - 1 < ‖r̃‖²·N is zeroed, where float64 cannot tell the two apart."""
    for feature, residual in ((1, 1 << power), (1 << (power // 2), (1 << (power - power // 2)) - 1)):
        table = FactorTable(np.array([[feature]], dtype=np.int64), 0)
        square = (feature * residual) ** 2
        for delta2, zeroed in ((square, 0), (square - 1, 1), (square + 1, 0)):
            kept = np.array([[float(residual)]])
            report = LocalReport()
            table._zero_failures(slice(0, 1), kept, delta2, report)
            assert report.zeroed == zeroed
            assert kept[0, 0] == (0.0 if zeroed else residual)


def test_aiming_too_high_costs_the_record_and_not_the_guarantee(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the float scaling broken on purpose, the integer test still keeps every record within Δ."""
    monkeypatch.setattr(module, "_AIM", 1.5)
    rng = np.random.default_rng(9)
    features = rng.integers(-100, 100, (50, 3))
    residuals = rng.normal(size=(50, 2)) * 100
    report = LocalReport()
    for place in range(50):
        one = slice(place, place + 1)
        single = factor_gradient(features[one], residuals[one], 1.0, 7, 10, report=report)
        assert norm2(single.vector) <= single.delta2
    assert report.zeroed > 40


def test_strange_records_add_nothing_and_are_counted_here_only() -> None:
    """NaN, infinity, an empty feature row: a defined zero, no error, and a count that does not show."""
    features = np.array([[5, 1], [5, 1], [0, 0], [5, 1]], dtype=np.int64)
    report = LocalReport()
    residuals = np.array([math.nan, -math.inf, 3.0, 0.25])
    result = factor_gradient(features, residuals, 1.0, 4, 8, report=report)
    assert result.vector.tolist() == [[5 * 64], [64]] or norm2(result.vector) <= result.delta2
    alone = factor_gradient(features[3:], residuals[3:], 1.0, 4, 8)
    assert np.array_equal(result.vector, alone.vector)
    assert report.nonfinite == 2
    assert report.lines() == ("nonfinite: 2",)
    assert "2" not in repr(report)


def test_sums_beyond_64_bits_saturate_and_do_not_wrap(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where n·Δ passes 2^62 the sum goes on in Python integers; a wrapped sum would undo the sensitivity."""
    rows = 5000
    features = np.full((rows, 1), 1 << 26, dtype=np.int64)
    result = factor_gradient(features, np.ones(rows), 1.0, 26, 26)
    assert result.vector[0, 0] > 0
    each = factor_gradient(features[:1], np.ones(1), 1.0, 26, 26).vector[0, 0]
    assert int(result.vector[0, 0]) == min(rows * int(each), 2**63 - 1) == 2**63 - 1


def test_a_table_is_a_copy_and_shows_nothing() -> None:
    """Changing the caller's array later changes nothing; reprs hold no feature; contributions do not travel."""
    import pickle

    features = np.array([[123, 456]], dtype=np.int64)
    table = FactorTable(features, 9)
    first = table.gradient([0.5], 10.0, 10)
    features[:] = 0
    second = table.gradient([0.5], 10.0, 10)
    assert np.array_equal(first.vector, second.vector)
    assert "123" not in repr(table)
    assert str(first.vector[0, 0]) not in repr(first)
    with pytest.raises(TypeError):
        pickle.dumps(first)


def test_float_features_must_be_integers() -> None:
    """A float table is taken only if it holds integers; bits beyond float64, wrong shapes and types are refused."""
    assert factor_gradient(np.array([[2.0]]), [1.0], 1.0, 1, 4).vector.dtype == np.int64
    for features in (np.array([[0.5]]), np.array([[math.nan]]), np.array([[2.0**53]]), np.array([1.0])):
        with pytest.raises(Misuse):
            FactorTable(features, 4)
    with pytest.raises(Misuse):
        FactorTable(np.array([[1]], dtype=np.int32), 4)  # type: ignore[arg-type]
    table = FactorTable(np.array([[1]], dtype=np.int64), 30)
    with pytest.raises(Misuse, match="2\\^53"):
        table.gradient([1.0], 1.0, 30)
    with pytest.raises(Misuse, match="one row per record"):
        table.gradient([1.0, 2.0], 1.0, 3)
