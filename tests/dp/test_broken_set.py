"""Nine ways to get it wrong that look right. Each has a detector, which the real code passes and the mistake fails."""

from __future__ import annotations

import hashlib
import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from fractions import Fraction

import numpy as np
import numpy.typing as npt
import pytest

from privfl.dp import Block, Cost, Release, Trust, Unit
from privfl.dp.mechanisms import contributions, factor_gradient, materialised, noised, site_vector
from privfl.dp.sizing import factor_delta2, rounded_delta2

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
SiteNoise = Callable[[Ints, Release, int], Ints]
TableSum = Callable[[Floats], Ints]
SAMPLES = 200_000


class Fixed:
    """Repeatable entropy: a fresh hash stream for every name."""

    def __init__(self, name: str) -> None:
        self._name, self._drawn = name, 0

    def draw(self, size: int) -> bytes:
        """The next bytes."""
        self._drawn += 1
        return hashlib.shake_256(f"{self._name}/{self._drawn}".encode()).digest(size)


def release(sigma: float = 64.0, survivors: int = 5, colluders: int = 1, length: int = SAMPLES) -> Release:
    """One Gaussian block under distributed trust."""
    block = Block("vector", length, 16, 1 << 40, sigma)
    return Release(Unit.RECORD, Trust.DISTRIBUTED, (block,), survivors, colluders)


def honest_site(vector: Ints, announced: Release, site: int) -> Ints:
    """The real code at one site."""
    return noised(vector, announced, Fixed(f"site {site}"))


# --- detectors ------------------------------------------------------------------------------------------------


def noise_reaches_its_claim(site_noise: SiteNoise, announced: Release) -> bool:
    """After c_noise colluders took theirs off, the noise left in the sum has the variance that was charged.

    2·10⁵ samples put the empirical variance within 2 % of the true one but for a chance below 10⁻⁹.
    """
    zero = np.zeros(announced.length, dtype=np.int64)
    outputs = [site_noise(zero, announced, site) for site in range(announced.min_survivors)]
    left = np.sum(outputs[1:], axis=0)  # site 0 reads the result, so it knows its own share, whatever c says
    for colluder in range(1, announced.colluders):
        left = left - outputs[colluder]
    return bool(np.var(left.astype(np.float64)) >= 0.98 * announced.blocks[0].sigma ** 2)


def noise_is_fresh(site_noise: SiteNoise, announced: Release) -> bool:
    """Noises of two uploads of one site are uncorrelated (|ρ| < 0.02 has a false alarm below 10⁻¹⁸)."""
    zero = np.zeros(announced.length, dtype=np.int64)
    first, second = (site_noise(zero, announced, upload).astype(np.float64) for upload in (0, 1))
    return bool(abs(np.corrcoef(first, second)[0, 1]) < 0.02)


def noise_is_exact_integers(site_noise: SiteNoise, announced: Release) -> bool:
    """Outputs are 64-bit integers whose eight lowest bits are fair coins, each within 7 standard deviations."""
    out = site_noise(np.zeros(announced.length, dtype=np.int64), announced, 0)
    if out.dtype != np.int64:
        return False
    ones = [float(np.mean((out >> bit) & 1)) for bit in range(8)]
    return max(abs(mean - 0.5) for mean in ones) < 7 * 0.5 / math.sqrt(out.size)


def small_tables() -> Iterator[Floats]:
    """Every table of up to three rows from a handful of awkward ones: halves, opposites, far outliers, zero, NaN."""
    rows = [(0.5, 0.5, 0.5, 0.5), (0.4, -0.4, 0.4, -0.4), (900.0, 1.0, 0.0, 0.0), (-900.0, 0.0, 0.0, 2.0),
            (0.0, 0.0, 0.0, 0.0), (math.nan, 1.0, 1.0, 1.0)]  # fmt: skip
    for size in (1, 2, 3):
        yield from (np.array(table) for table in itertools.combinations_with_replacement(rows, size))


def sensitivity_is_kept(table_sum: TableSum, delta2: int) -> bool:
    """Exhaustive: leaving out any row of any small table moves the sum by at most Δ, in exact integers."""
    for table in small_tables():
        whole = table_sum(table)
        for row in range(len(table)):
            shift = [int(value) for value in (whole - table_sum(np.delete(table, row, axis=0))).reshape(-1)]
            if sum(value * value for value in shift) > delta2:
                return False
    return True


def the_number_of_rows_is_nowhere(table_sum: TableSum) -> bool:
    """A row that contributes nothing changes nothing, and a row's contribution does not depend on the others."""
    row = np.array([[0.3, 0.1, -0.2, 0.9]])
    alone = table_sum(row) - table_sum(row[:0])
    for table in small_tables():
        extended = table_sum(np.vstack([table, row])) - table_sum(table)
        padded = table_sum(np.vstack([table, np.zeros((1, 4))]))
        if not (np.array_equal(extended, alone) and np.array_equal(padded, table_sum(table))):
            return False
    return True


def price_covers_the_worst_record(averaged: Callable[[Floats], Ints], cost: Cost, sigma: float) -> bool:
    """μ·√(σ² − 4), the shift that was paid for, is not less than the worst shift one record causes."""
    paid2 = cost.mu2 * (Fraction(sigma) ** 2 - 4)
    tables = [table for table in small_tables() if np.isfinite(table).all()]
    pairs = ((table, np.delete(table, row, axis=0)) for table in tables if len(table) > 1 for row in range(len(table)))
    worst2 = max(int(np.sum((averaged(with_row) - averaged(without)) ** 2)) for with_row, without in pairs)
    return worst2 <= paid2


# --- the real code passes -------------------------------------------------------------------------------------

SCALE_BITS, CLIP = 6, 1.0
DELTA2 = factor_delta2(CLIP, SCALE_BITS, 0)


def factors(table: Floats) -> Ints:
    """The real construction F, one residual of 1 per row; features in units of 2^-6, bounded to ±2^20."""
    features = np.rint(np.nan_to_num(table) * 2**SCALE_BITS)
    weights = np.where(np.isnan(table).any(axis=1), np.nan, 1.0)
    return factor_gradient(features, weights, CLIP, SCALE_BITS, 0).vector.reshape(-1)


@pytest.mark.parametrize(("survivors", "colluders"), [(3, 0), (5, 1), (5, 3)])
def test_real_noise_reaches_its_claim(survivors: int, colluders: int) -> None:
    """The shares of h honest sites add up to the σ that was charged."""
    assert noise_reaches_its_claim(honest_site, release(64.0, survivors, colluders))


def test_real_noise_is_fresh_and_exact() -> None:
    """Two uploads are independent, and the low bits are fair from σ = 64 to σ = 2^50."""
    assert noise_is_fresh(honest_site, release())
    for sigma in (64.0, 2.0**34, 2.0**50):
        assert noise_is_exact_integers(honest_site, release(sigma * 2, 5, 1))


def test_real_sums_keep_their_sensitivity_and_hide_their_length() -> None:
    """F over all small tables; V row by row, its sum being exactly the sum of its rows."""
    assert sensitivity_is_kept(factors, DELTA2)
    assert the_number_of_rows_is_nowhere(factors)
    bound = rounded_delta2(4, 64.0, CLIP)
    for table in small_tables():
        rows = contributions(table, 64.0, CLIP, Fixed("rounding"))
        assert max(int(np.sum(row * row)) for row in rows) <= bound
        assert np.array_equal(materialised(table, 64.0, CLIP, Fixed("rounding")).vector, rows.sum(axis=0))


def clipped_average(table: Floats) -> Ints:
    """A site's averaged update, clipped as one vector by the real construction S."""
    return site_vector(table.mean(axis=0), 2.0**10, CLIP, Fixed("site")).vector


def averaging_release() -> Release:
    """The release that goes with :func:`clipped_average`."""
    block = Block("update", 4, rounded_delta2(4, 2.0**10, CLIP), 1 << 40, 4096.0)
    return Release(Unit.SITE, Trust.LOCAL, (block,))


def test_real_price_of_site_clipping_covers_records() -> None:
    """Counted for records, a site-clipped event is charged at 2Δ."""
    announced = averaging_release()
    assert price_covers_the_worst_record(clipped_average, announced.cost_in(Unit.RECORD), announced.blocks[0].sigma)


# --- the broken set fails -------------------------------------------------------------------------------------


def only_one_share(vector: Ints, announced: Release, site: int) -> Ints:
    """All but one site trust the others to add noise."""
    return honest_site(vector, announced, site) if site == 1 else vector


def sigma_over_n(vector: Ints, announced: Release, site: int) -> Ints:
    """Standard deviations divided as if they added up."""
    return scaled_noise(vector, announced, site, 1 / announced.min_survivors)


def colluder_ignored(vector: Ints, announced: Release, site: int) -> Ints:
    """σ/√n with c_noise = 0: right until the one who reads the result subtracts his own."""
    return scaled_noise(vector, announced, site, 1 / math.sqrt(announced.min_survivors))


def scaled_noise(vector: Ints, announced: Release, site: int, factor: float) -> Ints:
    """Exact noise of ``factor``·σ, drawn by the real code under local trust."""
    block = replace(announced.blocks[0], sigma=announced.blocks[0].sigma * factor)
    return honest_site(vector, Release(announced.unit, Trust.LOCAL, (block,)), site)


@pytest.mark.parametrize("broken", [only_one_share, sigma_over_n, colluder_ignored])
def test_missing_noise_is_caught(broken: SiteNoise) -> None:
    """One share only; σ/n; a colluder who subtracts his own share."""
    assert not noise_reaches_its_claim(broken, release(64.0, 3, 0))


def test_the_same_noise_twice_is_caught() -> None:
    """A generator restored from a snapshot repeats its draw."""
    assert not noise_is_fresh(lambda vector, announced, upload: honest_site(vector, announced, 0), release())


@pytest.mark.parametrize("kind", [np.float64, np.float32])
@pytest.mark.parametrize("rounded", [False, True])
def test_float_noise_is_caught(kind: type[np.float64] | type[np.float32], rounded: bool) -> None:
    """Unrounded by its type; rounded by its low bits, which are empty once σ outgrows the mantissa."""

    def broken(vector: Ints, announced: Release, site: int) -> Ints:
        normal = np.random.default_rng(site).standard_normal(vector.size, dtype=kind)
        noisy = vector + normal * kind(announced.blocks[0].sigma)
        return np.rint(noisy).astype(np.int64) if rounded else noisy  # type: ignore[return-value]

    assert not noise_is_exact_integers(broken, release(2.0**56))


def test_rounding_after_summing_is_caught() -> None:
    """Clipped in floats, added, then rounded: one row of norm Δ moves the integers further than Δ.

    The control differs in the order only (each row truncated, then added) and passes at the same Δ.
    """

    def clipped(table: Floats) -> Floats:
        rows = np.nan_to_num(table)
        norms = np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-300)
        return np.asarray(rows * np.minimum(1.0, 1.0 / norms) * 1.5)

    assert sensitivity_is_kept(lambda table: np.trunc(clipped(table)).astype(np.int64).sum(axis=0), math.floor(1.5**2))
    assert not sensitivity_is_kept(
        lambda table: np.rint(clipped(table).sum(axis=0)).astype(np.int64), math.floor(1.5**2)
    )


def test_an_unclipped_row_is_caught() -> None:
    """The same sums without the clip."""
    assert not sensitivity_is_kept(
        lambda table: np.rint(np.nan_to_num(table) * 64).astype(np.int64).sum(axis=0), DELTA2
    )


def test_a_true_n_in_a_divisor_is_caught() -> None:
    """A mean scaled back by a public size still knows how many rows there were."""

    def broken(table: Floats) -> Ints:
        return np.rint(factors(table) * 100.0 / max(len(table), 1)).astype(np.int64)

    assert not the_number_of_rows_is_nowhere(broken)


def test_site_clipping_charged_at_delta_to_records_is_caught() -> None:
    """The mean may swing from one end of the ball to the other: 2Δ, not Δ."""
    announced = averaging_release()
    assert not price_covers_the_worst_record(clipped_average, announced.cost, announced.blocks[0].sigma)
