"""The integer tables behind the noise, held against mpmath, brute force and every kind of tie."""

from __future__ import annotations

from bisect import bisect_right
from fractions import Fraction
from itertools import pairwise

import mpmath
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from privfl.dp import samplers
from privfl.dp._fixed import ONE, exp_neg, gaussian_weights, geometric_digit_weights, laplace_weights
from privfl.dp._table import InversionTable, Lanes
from privfl.dp.samplers import MAX_SCALE, MAX_SIGMA, DiscreteGaussian, DiscreteLaplace

BITS = 400
FULL = 1 << 192
SIGMAS = ["1/20", "3/10", "1", "5/2", "373/10", "512"]
SCALES = ["1/20", "1/2", "1", "37/4", "64"]


class Scripted:
    """A lane that gives the words it was told, once each."""

    def __init__(self, words: list[int]) -> None:
        self._words = words

    def words(self, count: int) -> npt.NDArray[np.uint64]:
        taken, self._words = self._words[:count], self._words[count:]
        assert len(taken) == count, "the table read more words than the script has"
        return np.array(taken, dtype=np.uint64)

    @property
    def spent(self) -> bool:
        return not self._words


def scripted_draw(table: InversionTable, points: list[int]) -> tuple[list[int], Lanes]:
    """Draw with 192-bit uniform integers laid out over the lanes as the table reads them."""
    tops = {threshold >> 128 for threshold in table.thresholds()}
    cells = [point >> 176 for point in points]
    packed = [sum(cell << 16 * i for i, cell in enumerate(cells[at : at + 4])) for at in range(0, len(cells), 4)]
    straddled = {top >> 48 for top in tops}
    refined = [point for point in points if point >> 176 in straddled]
    # The low 16 bits of a refinement are dropped; ones there prove it.
    refinements = [((point >> 128) << 16 | 0xFFFF) & (1 << 64) - 1 for point in refined]
    tied = [point for point in refined if point >> 128 in tops]
    ties = [word for point in tied for word in (point >> 64 & (1 << 64) - 1, point & (1 << 64) - 1)]
    lanes = Lanes(Scripted(packed), Scripted(refinements), Scripted(ties))
    return table.draw(len(points), lanes).tolist(), lanes


def masses(table: InversionTable) -> list[int]:
    """The probabilities of -M … M in units of 2^-192."""
    return [high - low for low, high in pairwise([0, *table.thresholds(), FULL])]


def total_variation(table: InversionTable, law: dict[int, mpmath.mpf]) -> mpmath.mpf:
    """Half the sum of |table - law| over the union of supports; ``law`` reaches where nothing is left."""
    mine = {x - table.largest: mpmath.mpf(mass) / FULL for x, mass in enumerate(masses(table))}
    return mpmath.fsum(abs(mine.get(x, 0) - law.get(x, 0)) for x in mine.keys() | law.keys()) / 2


def gaussian_law(sigma2: Fraction) -> dict[int, mpmath.mpf]:
    """The true law up to 20 σ (2^-288 is left), by mpmath."""
    real = mpmath.mpf(sigma2.numerator) / sigma2.denominator
    reach = int(20 * mpmath.sqrt(real)) + 20
    half = [mpmath.exp(-(x * x) / (2 * real)) for x in range(reach)]
    total = 2 * mpmath.fsum(half) - 1
    return {sign * x: weight / total for x, weight in enumerate(half) for sign in (1, -1)}


@settings(max_examples=300, deadline=None)
@given(st.fractions(min_value=0, max_value=300, max_denominator=1 << 70))
def test_exponential_is_within_two_units_of_mpmath(y: Fraction) -> None:
    """The integer exponential keeps its proven bound of 2 ulp, for tiny, large and vanishing arguments."""
    with mpmath.workprec(BITS + 200):
        exact = mpmath.ldexp(mpmath.exp(-mpmath.mpf(y.numerator) / y.denominator), 256)
        assert abs(exp_neg(y) - exact) <= 2


def test_exponential_of_zero_is_one() -> None:
    """The top of the scale is met exactly, so that no weight exceeds the weight of zero."""
    assert exp_neg(Fraction(0)) == ONE


@pytest.mark.parametrize("sigma", SIGMAS)
def test_gaussian_table_is_the_true_law_to_2_to_the_minus_119(sigma: str) -> None:
    """Total variation between the stored integers and the discrete Gaussian, cut tails included, by mpmath."""
    sigma2 = Fraction(sigma) ** 2
    table = InversionTable(gaussian_weights(sigma2))
    with mpmath.workprec(BITS):
        assert total_variation(table, gaussian_law(sigma2)) < mpmath.mpf(2) ** -119
    assert table.largest >= 13 * Fraction(sigma)


@pytest.mark.parametrize("scale", SCALES)
def test_laplace_table_is_the_true_law_to_2_to_the_minus_113(scale: str) -> None:
    """Total variation to the closed form (1-q)/(1+q)·q^|x|, cut tails included, by mpmath."""
    t = Fraction(scale)
    table = InversionTable(laplace_weights(t))
    with mpmath.workprec(BITS):
        q = mpmath.exp(-mpmath.mpf(t.denominator) / t.numerator)
        reach = int(200 * t) + 20
        law = {x: (1 - q) / (1 + q) * q ** abs(x) for x in range(-reach, reach + 1)}
        assert total_variation(table, law) < mpmath.mpf(2) ** -113


@pytest.mark.parametrize(("scale", "radix"), [("3", 2), ("100", 16), ("1099511627776", 64)])
def test_digit_table_is_the_difference_of_two_digits(scale: str, radix: int) -> None:
    """The closed sum equals the brute-force law of a - b for two independent cut geometric digits."""
    table = InversionTable(geometric_digit_weights(Fraction(scale), radix))
    with mpmath.workprec(BITS):
        digit = [mpmath.exp(-a / mpmath.mpf(int(scale))) for a in range(radix)]
        total = mpmath.fsum(digit)
        law: dict[int, mpmath.mpf] = {}
        for a, p in enumerate(digit):
            for b, r in enumerate(digit):
                law[a - b] = law.get(a - b, mpmath.mpf(0)) + p * r / total**2
        assert total_variation(table, law) < mpmath.mpf(2) ** -175


@pytest.mark.parametrize("sigma", [513.0, 700.25, 65536.0])
def test_wide_gaussian_probabilities_are_right_to_2_to_the_minus_110(sigma: float) -> None:
    """The sum of two tables meets the true P(x), each x on its own, for x out to 6 σ: the convolution argument."""
    outer, inner = DiscreteGaussian(sigma)._digits
    wide, narrow = masses(outer.table), masses(inner.table)
    with mpmath.workprec(BITS):
        # Poisson's formula gives the normaliser: σ√2π up to e^(-2π²σ²), nothing at this precision.
        total = mpmath.mpf(sigma) * mpmath.sqrt(2 * mpmath.pi)
        for x in [0, 1, inner.factor // 2, inner.factor - 1, *(int(sigma * step / 7) for step in range(1, 43))]:
            mine = 0
            for y in range(-outer.table.largest, outer.table.largest + 1):
                low = x - inner.factor * y
                if abs(low) <= inner.table.largest:
                    mine += wide[y + outer.table.largest] * narrow[low + inner.table.largest]
            true = mpmath.exp(-(mpmath.mpf(x) ** 2) / (2 * mpmath.mpf(sigma) ** 2)) / total
            assert abs(mpmath.mpf(mine) / FULL**2 / true - 1) < mpmath.mpf(2) ** -109.5


@pytest.mark.parametrize("scale", [64.5, 5000.0])
def test_wide_laplace_probabilities_are_exact(scale: float) -> None:
    """The sum of a scaled table and one digit difference is the discrete Laplace law, pointwise to 2^-113."""
    outer, inner = DiscreteLaplace(scale)._digits
    wide, narrow = masses(outer.table), masses(inner.table)
    with mpmath.workprec(BITS):
        q = mpmath.exp(-1 / mpmath.mpf(scale))
        for x in [0, 1, 17, 1023, 1024, 1025, 5000, 20_000]:
            mine = sum(
                wide[y + outer.table.largest] * narrow[x - 1024 * y + 1023]
                for y in range(-outer.table.largest, outer.table.largest + 1)
                if abs(x - 1024 * y) < 1024
            )
            true = (1 - q) / (1 + q) * q**x
            assert abs(mpmath.mpf(mine) / FULL**2 - true) < mpmath.mpf(2) ** -113 * true + mpmath.mpf(2) ** -170


@settings(max_examples=400, deadline=None)
@given(st.floats(min_value=2.0**-20, max_value=MAX_SIGMA))
def test_parts_add_up_to_the_variance_exactly(sigma: float) -> None:
    """σ² is the exact rational sum of the tables' parameters, each table within the sizes the proof assumes."""
    seen: list[Fraction] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(samplers, "_gaussian_table", lambda sigma2: seen.append(sigma2) or sigma2)
        digits = samplers._gaussian_digits(Fraction(sigma) ** 2)
    variance, reach = Fraction(0), 0
    for position, (factor, sigma2) in enumerate(digits):
        if position:
            assert variance >= 252
            assert sigma2 == 4 * factor**2
        variance = variance * factor**2 + sigma2
        reach = reach * factor + int(13 * float(sigma2) ** 0.5) + 2
        assert sigma2 <= 512**2
    assert variance == Fraction(sigma) ** 2
    assert len(digits) <= 9
    assert reach < 1 << 62


@settings(max_examples=200, deadline=None)
@given(st.floats(min_value=2.0**-20, max_value=MAX_SCALE))
def test_laplace_digits_rebuild_the_scale_and_fit_a_word(scale: float) -> None:
    """The radix expansion multiplies back to the scale exactly and no sum can leave 62 bits."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(samplers, "_laplace_table", lambda t: t)
        patch.setattr(samplers, "_digit_table", lambda t: t)
        (_, top), *digits = samplers._laplace_digits(Fraction(scale))
    reach = 80 * top + 1
    assert top <= 64
    for position, (factor, own) in enumerate(digits, start=1):
        assert own == top * 1024**position
        reach = reach * factor + 1023
    assert top * 1024 ** len(digits) == Fraction(scale)
    assert reach < 1 << 62


@pytest.mark.parametrize("sigma2", [Fraction(1, 400), Fraction(1), Fraction(25)])
def test_ties_are_settled_exactly_at_every_threshold(sigma2: Fraction) -> None:
    """The 192-bit points just below, at and just above each threshold fall on the right sides of it."""
    table = InversionTable(gaussian_weights(sigma2))
    thresholds = table.thresholds()
    points = [point for threshold in thresholds for point in (threshold - 1, threshold, min(threshold + 1, FULL - 1))]
    drawn, lanes = scripted_draw(table, points)
    assert drawn == [bisect_right(thresholds, point) - table.largest for point in points]
    # Thresholds 2^-64 apart or less share their leading word in the tails, so that runs were met too.
    assert table.largest == 1 or len({threshold >> 128 for threshold in thresholds}) < len(thresholds)
    assert all(lane.spent for lane in lanes if isinstance(lane, Scripted))


TABLE = InversionTable(gaussian_weights(Fraction(9)))


@settings(max_examples=300, deadline=None)
@given(st.lists(st.integers(0, FULL - 1), min_size=1, max_size=9))
def test_draw_inverts_the_distribution_function(points: list[int]) -> None:
    """For any uniform 192-bit integers a draw is the exact inverse of the table, whatever the bits' path."""
    drawn, _ = scripted_draw(TABLE, points)
    assert drawn == [bisect_right(TABLE.thresholds(), point) - TABLE.largest for point in points]


@pytest.mark.parametrize("weights", [gaussian_weights(Fraction(50)), geometric_digit_weights(Fraction(9), 32)])
def test_tables_are_symmetric_and_rise(weights: list[int]) -> None:
    """P(x) = P(-x) holds in the stored integers and no value in the support has probability zero or less."""
    mass = masses(InversionTable(weights))
    assert mass == mass[::-1]
    assert min(mass[1:-1]) >= 0
    assert sum(mass) == FULL


@pytest.mark.parametrize("size", [1, 1 << 15])
def test_table_sizes_out_of_range_are_refused(size: int) -> None:
    """A table that the 16-bit answers could not hold is refused, never wrapped around."""
    with pytest.raises(ValueError, match="between 2 and 32767"):
        InversionTable([ONE] * size)
