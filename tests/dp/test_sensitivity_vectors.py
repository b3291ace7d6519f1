"""Constructions V and S, bounded columns, and D: norms in exact integers, and D's coupling."""

from __future__ import annotations

import hashlib
import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import privfl.dp.vectors as module
from privfl.dp import dither, sizing
from privfl.dp.contribution import LocalReport
from privfl.dp.dither import dithered_sum, round_at_random
from privfl.dp.norms import clip_rows, squared_norms, within
from privfl.dp.sizing import dithered_delta2, rounded_delta2
from privfl.dp.vectors import bounded_sum, contributions, materialised, site_vector
from privfl.entropy import Keystream
from privfl.errors import Misuse

NASTY = (0.0, 0.5, -3.25, 1e-310, 1e160, math.nan, -math.inf)


class Seeded:
    """Entropy from a fixed seed, for reproducible statistics."""

    def __init__(self, seed: int) -> None:
        self._seed, self._count = seed, 0

    def draw(self, size: int) -> bytes:
        self._count += 1
        return hashlib.shake_256(f"{self._seed} {self._count}".encode()).digest(size)


class Constant:
    """In place of a keystream: every U is the same, so that what a row becomes is a function of the row."""

    def __init__(self, share: float) -> None:
        self._word = min(int(share * 2**64), 2**64 - 1)

    def words(self, count: int) -> np.ndarray:
        return np.full(count, self._word, dtype=np.uint64)


def constant_stream(monkeypatch: pytest.MonkeyPatch, share: float) -> None:
    monkeypatch.setattr(module, "Keystream", lambda entropy: Constant(share))


def norm2(array: np.ndarray) -> int:
    return sum(int(value) ** 2 for value in array.reshape(-1))


@pytest.mark.parametrize("share", [0.0, 0.25, 0.5, 0.999])
@pytest.mark.parametrize("block", [1, 4, 1 << 18])
def test_every_pair_of_neighbouring_tables(share: float, block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """V: all tables of up to two rows of a grid, a third put in at every place; in integers, whatever the dither.

    With one dither for all, what the new row changes is its own contribution alone, so additivity is tested too.
    """
    constant_stream(monkeypatch, share)
    monkeypatch.setattr(module, "_BLOCK", block)
    rows = [*itertools.product((0.3, -2.0), (0.0, 1.7)), (math.nan, 1.0), (1e200, -1e200)]
    delta2 = rounded_delta2(2, 4.0, 1.5)
    own = {row: materialised([row], 4.0, 1.5, Seeded(0)).vector for row in rows}
    for size in (0, 1, 2):
        for table in itertools.product(rows, repeat=size):
            before = materialised(np.reshape(table, (size, 2)), 4.0, 1.5, Seeded(0)).vector
            for row, place in itertools.product(rows, range(size + 1)):
                after = materialised([*table[:place], row, *table[place:]], 4.0, 1.5, Seeded(0))
                assert after.delta2 == delta2
                assert norm2(after.vector - before) <= delta2
                assert np.array_equal(after.vector - before, own[row])


@settings(max_examples=200)
@given(
    st.lists(st.lists(st.one_of(st.floats(), st.sampled_from(NASTY)), min_size=3, max_size=3), max_size=6),
    st.integers(0, 45).map(lambda power: 2.0**power),
    st.floats(1e-2, 1e3),
    st.integers(0, 1000),
)
def test_every_contribution_is_within_and_the_sum_is_theirs(
    rows: list[list[float]], scale: float, clip: float, seed: int
) -> None:
    """Any floats: every row's integers pass ‖r‖² ≤ Δ² in Python integers, and V adds exactly those."""
    table = np.array(rows, dtype=np.float64).reshape(len(rows), 3)
    each = contributions(table, scale, clip, Seeded(seed))
    result = materialised(table, scale, clip, Seeded(seed))
    assert all(norm2(row) <= result.delta2 for row in each)
    assert result.vector.tolist() == [sum(int(value) for value in column) for column in each.T]


@given(st.lists(st.lists(st.floats(), min_size=4, max_size=4), min_size=2, max_size=8), st.data())
def test_clipping_a_row_does_not_see_the_others(rows: list[list[float]], data: st.DataObject) -> None:
    """Bit for bit the same alone as among others; the norm is at most C but for round-off; strange rows are zero."""
    place = data.draw(st.integers(0, len(rows) - 1))
    together, broken = clip_rows(np.array(rows), 0.7)
    alone, _ = clip_rows(np.array([rows[place]]), 0.7)
    assert np.array_equal(together[place], alone[0])
    assert math.hypot(*alone[0]) <= 0.7 * (1 + 1e-12)
    strange = [row for row in rows if not all(map(math.isfinite, row))]
    assert broken == len(strange)
    if rows[place] in strange:
        assert not alone.any()
    elif math.hypot(*rows[place]) <= 0.69:
        assert alone[0].tolist() == rows[place]


def test_when_tries_run_out_the_row_is_truncated(monkeypatch: pytest.MonkeyPatch) -> None:
    """A dither that always rounds away from zero never passes at the clip; trunc does, and is counted."""
    constant_stream(monkeypatch, 0.0)
    tries = []
    monkeypatch.setattr(module, "round_at_random", lambda x, s: tries.append(1) or round_at_random(x, s))
    vector = np.full(400, 1.3)
    report = LocalReport()
    result = site_vector(vector, 1.0, 26.0, Seeded(0), report=report)
    assert set(result.vector.tolist()) == {1}
    assert norm2(result.vector) <= result.delta2 < norm2(result.vector + 1)
    assert len(tries) == module.TRIES == 64
    assert report.lines() == ("unrounded: 1",)


def test_tries_do_succeed() -> None:
    """At the clip, where passing is hardest, a draw passes with 0.39 or more: no row of a thousand is truncated."""
    report = LocalReport()
    rows = np.random.default_rng(3).normal(size=(1000, 50))
    contributions(rows, 3.0, 1.0, Seeded(1), report=report)
    assert report.unrounded == report.zeroed == 0


def test_rounding_is_unbiased() -> None:
    """The mean of 400 000 roundings is x within 6 standard errors, for fractions small, large and negative."""
    draws = 400_000
    for seed, value in enumerate((0.5, 0.01, -0.3, 7.9, -1e-3, 2.0**40 + 0.25)):
        got = round_at_random(np.full(draws, value), Keystream(Seeded(seed)))
        share = value - math.floor(value)
        assert set(np.unique(got).tolist()) <= {math.floor(value), math.floor(value) + 1}
        error = abs(float(np.mean(got - math.floor(value))) - share)
        assert error <= 6 * math.sqrt(share * (1 - share) / draws) + 1e-9


def test_integers_and_edges_round_to_themselves() -> None:
    """Whole numbers never move; a tiny negative number is 0 or -1; both ends of U keep to the two neighbours."""
    values = np.array([0.0, -0.0, 5.0, -7.0, 2.0**60, -(2.0**60)])
    for share in (0.0, 0.5, 1.0):
        assert round_at_random(values, Constant(share)).tolist() == [0, 0, 5, -7, 2**60, -(2**60)]  # type: ignore[arg-type]
    assert round_at_random(np.array([-1e-300]), Constant(1.0)).tolist() == [-1]  # type: ignore[arg-type]
    assert round_at_random(np.array([-1e-300, 0.25]), Constant(0.2499)).tolist() == [0, 1]  # type: ignore[arg-type]
    assert round_at_random(np.array([0.25]), Constant(0.25)).tolist() == [0]  # type: ignore[arg-type]


@settings(max_examples=60)
@given(st.lists(st.lists(st.integers(-(2**61), 2**61), min_size=3, max_size=3), min_size=1, max_size=4))
def test_squared_norms_are_exact(rows: list[list[int]]) -> None:
    """Python integers agree on both paths, and the comparison is exact at the threshold."""
    array = np.array(rows, dtype=np.int64)
    expected = [sum(value * value for value in row) for row in rows]
    assert squared_norms(array) == expected
    assert squared_norms(array >> 40) == [sum((v >> 40) ** 2 for v in row) for row in rows]
    for row, value in zip(array, expected, strict=True):
        assert within(row[None], value).tolist() == [True]
        assert within(row[None], value - 1).tolist() == [False]


@given(st.lists(st.tuples(st.floats(), st.floats(-2, 2), st.floats(-1, 1)), max_size=8), st.floats(1, 2.0**30))
def test_bounded_columns(rows: list[tuple[float, float, float]], scale: float) -> None:
    """A row more changes the sums by its own clamped numbers: at most k·⌊s⌋² in exact integers."""
    table = np.array(rows, dtype=np.float64).reshape(len(rows), 3)
    whole = bounded_sum(table, scale)
    for place in range(len(rows)):
        less = bounded_sum(np.delete(table, place, axis=0), scale)
        own = bounded_sum(table[place : place + 1], scale)
        assert norm2(whole.vector - less.vector) <= whole.delta2 == 3 * math.floor(scale) ** 2
        assert np.array_equal(whole.vector - less.vector, own.vector)


def test_bounded_columns_at_a_broken_scale() -> None:
    """A scale that is no integer counts as its floor, at the bound too."""
    result = bounded_sum([[1.0, -1.0]], 1.5)
    assert result.vector.tolist() == [1, -1]
    assert result.delta2 == 2


def test_huge_rows_keep_their_direction() -> None:
    """A finite row whose square overflows is clipped like any other, not lost."""
    clipped, broken = clip_rows(np.array([[3e200, -4e200], [1e-320, 0.0]]), 5.0)
    assert np.allclose(clipped, [[3.0, -4.0], [0.0, 0.0]], rtol=1e-12)
    assert broken == 0


def test_bounded_columns_count_what_was_strange() -> None:
    """NaN rows add nothing, values out of bounds are clamped, and both are counted for the site alone."""
    report = LocalReport()
    result = bounded_sum([[1.0, 0.5], [math.nan, 1.0], [3.0, -0.25]], 8.0, report=report)
    assert result.vector.tolist() == [16, 2]
    assert (report.nonfinite, report.clamped) == (1, 1)


def coupled_excess(g: np.ndarray, delta2: float) -> float:
    """P(‖y - y′‖² > Δ²) over the shared dither, exactly, by all outcomes ⌊g⌋ + {0, 1}."""
    floors = np.floor(g)
    shares = g - floors
    total = 0.0
    for ups in itertools.product((0, 1), repeat=g.size):
        up = np.array(ups)
        if ((floors + up) ** 2).sum() > delta2:
            total += float(np.prod(np.where(up == 1, shares, 1 - shares)))
    return total


@pytest.mark.parametrize("beta", [0.5, 0.1, 0.01])
def test_the_bound_of_the_dithered_sum_fails_with_at_most_beta(beta: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """D: for differences g on the sphere of radius s·C, exact enumeration against the formula at larger β."""
    monkeypatch.setattr(sizing, "DITHER_BETA", beta)
    rng = np.random.default_rng(7)
    worst = 0.0
    for length, scaled in itertools.product((1, 2, 5, 9), (0.4, 1.0, 3.7)):
        delta2 = dithered_delta2(length, 1.0, scaled, 1)
        for trial in range(25):
            g = rng.normal(size=length) if trial else np.ones(length)
            g *= scaled / np.linalg.norm(g)
            worst = max(worst, coupled_excess(g, delta2))
    assert worst <= beta
    # Not idle: the same formula without its β term is exceeded more often than that somewhere.
    monkeypatch.setattr(sizing, "DITHER_BETA", 0.999999)
    bare = max(coupled_excess(np.full(9, s / 3), dithered_delta2(9, 1.0, s, 1)) for s in (1.0, 1.45, 3.7))
    assert bare > 0.1


def test_coupled_sums_stay_within(monkeypatch: pytest.MonkeyPatch) -> None:
    """D with one dither on neighbouring sums: never beyond Δ² in 300 runs of 200 coordinates, seldom far below."""
    rng = np.random.default_rng(11)
    largest = 0
    for seed in range(300):
        base = rng.normal(size=200) * 50
        step = rng.normal(size=200)
        step *= 1.0 / np.linalg.norm(step)
        first = dithered_sum(base, 16.0, 1.0, 2000, Seeded(seed))
        second = dithered_sum(base + step, 16.0, 1.0, 2000, Seeded(seed))
        assert first.dithered
        change = norm2(first.vector - second.vector)
        assert change <= first.delta2
        largest = max(largest, change)
    assert largest > 16**2


def test_the_dither_is_unconditional(monkeypatch: pytest.MonkeyPatch) -> None:
    """One word for each coordinate, whatever comes out, and a strange sum becomes a defined vector."""
    drawn = []

    class Counting(Constant):
        def words(self, count: int) -> np.ndarray:
            drawn.append(count)
            return super().words(count)

    monkeypatch.setattr(dither, "Keystream", lambda entropy: Counting(0.0))
    dithered_sum(np.full(100, 1e9), 4.0, 1.0, 10, Seeded(0))
    assert sum(drawn) == 100
    report = LocalReport()
    result = dithered_sum([1.0, math.nan], 4.0, 1.0, 10, Seeded(0), report=report)
    assert result.vector.tolist() == [0, 0]
    assert report.nonfinite == 1


def test_misuse_is_named() -> None:
    """Wrong shapes and constants are refused."""
    for call in (
        lambda: site_vector(np.ones((2, 2)), 1.0, 1.0, Seeded(0)),
        lambda: materialised(np.ones(3), 1.0, 1.0, Seeded(0)),
        lambda: materialised(np.ones((2, 2)), 2.0**61, 1.0, Seeded(0)),
        lambda: materialised(np.ones((2, 2)), 1.0, 0.0, Seeded(0)),
        lambda: bounded_sum(np.ones(3), 8.0),
        lambda: bounded_sum(np.ones((1, 3)), 2.0**31),
        lambda: dithered_sum(np.ones((2, 2)), 1.0, 1.0, 5, Seeded(0)),
        lambda: dithered_sum(np.ones(2), 3.0, 1.0, 5, Seeded(0)),
        lambda: dithered_sum(np.ones(2), 2.0**50, 1.0, 5, Seeded(0)),
    ):
        with pytest.raises(Misuse):
            call()
