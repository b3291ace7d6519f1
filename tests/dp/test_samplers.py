"""The noise samplers from outside: statistics, known answers, determinism, refusals."""

from __future__ import annotations

import copy
import hashlib
import json
import math
from fractions import Fraction
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from privfl.dp import samplers
from privfl.dp.samplers import DiscreteGaussian, DiscreteLaplace
from privfl.entropy import SYSTEM
from privfl.errors import Misuse

Samples = npt.NDArray[np.int64]
VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "samplers.json").read_text())["cases"]
LEAST_P = 1e-6
MILLION = 1_000_000


class Key:
    """Entropy whose every draw comes from one seed; it counts the bytes asked for."""

    def __init__(self, seed: bytes) -> None:
        self._seed, self.drawn = seed, 0

    def draw(self, size: int) -> bytes:
        self.drawn += size
        return hashlib.shake_256(self._seed).digest(size)


class Raw:
    """Entropy that gives one key as it stands."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    def draw(self, size: int) -> bytes:
        assert size == len(self._key)
        return self._key


def variance_is_within_one_percent(samples: Samples, variance: float) -> bool:
    """The acceptance test of the design: on 10^6 draws ±1 % is seven standard errors."""
    values = samples.astype(np.float64)
    return bool(abs(np.mean(values * values) / variance - 1) < 0.01)


def fits(samples: Samples, edges: npt.NDArray[np.int64], cumulative: npt.NDArray[np.float64]) -> bool:
    """Chi-square of the counts in (edge, next edge] against the distribution function at the edges."""
    counts = np.bincount(np.searchsorted(edges, samples), minlength=edges.size + 1)
    expected = np.diff(cumulative, prepend=0.0, append=1.0) * samples.size
    assert expected.min() > 5
    return bool(stats.chisquare(counts, expected).pvalue > LEAST_P)


def gaussian_cumulative(sigma: float, edges: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """P(X ≤ edge) of the discrete Gaussian, summed directly."""
    reach = int(12 * sigma) + 2
    mass = np.exp(-(np.arange(-reach, reach + 1, dtype=np.float64) ** 2) / (2 * sigma**2))
    return (np.cumsum(mass) / mass.sum())[edges + reach]


def laplace_cumulative(scale: float, edges: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """P(X ≤ edge) of the discrete Laplace law, closed form."""
    q = math.exp(-1 / scale)
    return np.where(edges < 0, q ** (-edges.astype(float)) / (1 + q), 1 - q ** (edges + 1.0) / (1 + q))


def edges_for(width: float) -> npt.NDArray[np.int64]:
    return np.unique(np.round(np.linspace(-2.5, 2.5, 121) * width).astype(np.int64))


@pytest.mark.parametrize("sigma", [4.0, 20.5, 512.0, 700.0, 65536.0, 2.0**40])
def test_variance_within_one_percent_and_three_percent_off_is_caught(sigma: float) -> None:
    """A million draws have variance σ² within 1 %; samplers 3 % off, in variance or in σ, fail the same check."""
    samples = DiscreteGaussian(sigma).sample(MILLION, Key(b"variance"))
    assert variance_is_within_one_percent(samples, sigma**2)
    for wrong in (1.03, 0.97, math.sqrt(1.03), math.sqrt(0.97)):
        scaled = DiscreteGaussian(sigma * wrong).sample(MILLION, Key(b"variance"))
        assert not variance_is_within_one_percent(scaled, sigma**2)


@pytest.mark.parametrize("scale", [1.0, 30.0, 5000.0, 2.0**40])
def test_laplace_variance_within_one_percent(scale: float) -> None:
    """A million draws have the closed-form variance 2q/(1-q)²; a scale 3 % off fails (±1 % is 4.5 standard errors)."""
    variance = 2 * math.exp(-1 / scale) / math.expm1(-1 / scale) ** 2
    assert variance_is_within_one_percent(DiscreteLaplace(scale).sample(MILLION, Key(b"laplace")), variance)
    for wrong in (1.03, 0.97):
        assert not variance_is_within_one_percent(
            DiscreteLaplace(scale * wrong).sample(MILLION, Key(b"laplace")), variance
        )


@pytest.mark.parametrize("sigma", [1.0, 4.0, 20.5, 300.0, 512.0, 513.0, 3000.0])
def test_gaussian_histogram_fits_the_exact_law(sigma: float) -> None:
    """Chi-square against summed probabilities, on one table and on two; a σ off by 3 % does not fit."""
    edges = edges_for(sigma)
    samples = DiscreteGaussian(sigma).sample(MILLION, Key(b"histogram"))
    assert fits(samples, edges, gaussian_cumulative(sigma, edges))
    assert not fits(samples, edges, gaussian_cumulative(1.03 * sigma, edges))


@pytest.mark.parametrize("scale", [0.7, 9.0, 64.0, 65.0, 5000.0])
def test_laplace_histogram_fits_the_exact_law(scale: float) -> None:
    """Chi-square against the closed form, on one table and with digits; a scale off by 3 % does not fit."""
    edges = edges_for(scale)
    samples = DiscreteLaplace(scale).sample(MILLION, Key(b"histogram"))
    assert fits(samples, edges, laplace_cumulative(scale, edges))
    assert not fits(samples, edges, laplace_cumulative(1.03 * scale, edges))


@pytest.mark.parametrize("modulus", [2, 3, 16, 256])
@pytest.mark.parametrize("sampler", [DiscreteGaussian(600.0), DiscreteGaussian(2.0**40), DiscreteLaplace(2.0**20)])
def test_low_bits_are_uniform(sampler: DiscreteGaussian | DiscreteLaplace, modulus: int) -> None:
    """Wide noise is flat in its low digits, where rounded floating-point noise leaves gaps."""
    low = np.bincount(sampler.sample(MILLION, Key(b"low bits")) % modulus, minlength=modulus)
    assert stats.chisquare(low).pvalue > LEAST_P


def test_parity_of_narrow_noise_is_that_of_the_law() -> None:
    """At σ = 0.6 odd and even differ by several per cent, as the exact law says."""
    x = np.arange(-12, 13)
    mass = np.exp(-(x**2) / (2 * 0.36))
    odd = mass[x % 2 == 1].sum() / mass.sum()
    seen = int((DiscreteGaussian(0.6).sample(MILLION, Key(b"parity")) % 2).sum())
    assert abs(odd - 0.5) > 0.01
    assert stats.binomtest(seen, MILLION, odd).pvalue > LEAST_P


@pytest.mark.parametrize("sigma", [1.0, 300.0, 2.0**20])
def test_samples_do_not_depend_on_their_neighbours(sigma: float) -> None:
    """Values, sizes and parities show no correlation at lags 1 to 5, nor between two calls."""
    values = DiscreteGaussian(sigma).sample(MILLION, Key(b"one"))
    other = DiscreteGaussian(sigma).sample(MILLION, Key(b"two"))
    for view in (lambda v: v.astype(float), lambda v: v.astype(float) ** 2, lambda v: (v & 1).astype(float)):
        a, b = view(values), view(other)
        correlations = [np.corrcoef(a[lag:], a[:-lag])[0, 1] for lag in range(1, 6)]
        assert max(map(abs, [*correlations, np.corrcoef(a, b)[0, 1]])) < 5.5 / math.sqrt(MILLION)


@pytest.mark.parametrize("case", VECTORS, ids=lambda case: f"{case['kind']}-{case['parameter']}")
def test_known_answers_of_the_second_implementation(case: dict[str, object]) -> None:
    """Fixed keys give the samples of an independent slow implementation (mpmath), so no refactor changes them."""
    kind = {"gaussian": DiscreteGaussian, "laplace": DiscreteLaplace}[str(case["kind"])]
    key = Raw(bytes.fromhex(str(case["key"])))
    samples = kind(float(str(case["parameter"]))).sample(int(str(case["count"])), key)
    assert samples[:8].tolist() == case["first"]
    assert hashlib.sha256(samples.astype("<i8").tobytes()).hexdigest() == case["sha256"]


@pytest.mark.parametrize("block", [4, 64, 4096])
@pytest.mark.parametrize("sampler", [DiscreteGaussian(512.0), DiscreteGaussian(2.0**30), DiscreteLaplace(2.0**20)])
def test_samples_do_not_depend_on_the_block_size(
    sampler: DiscreteGaussian | DiscreteLaplace, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The block size is tuning only: any cut gives the same vector."""
    whole = sampler.sample(10_001, Key(b"blocks"))
    monkeypatch.setattr(samplers, "_BLOCK", block)
    assert np.array_equal(sampler.sample(10_001, Key(b"blocks")), whole)


@given(st.integers(0, 200), st.integers(0, 200))
def test_a_shorter_vector_is_the_beginning_of_a_longer_one(first: int, second: int) -> None:
    """The length announced does not influence what a coordinate gets."""
    sampler, least = DiscreteGaussian(2000.0), min(first, second)
    one, two = sampler.sample(first, Key(b"prefix")), sampler.sample(second, Key(b"prefix"))
    assert one.shape == (first,)
    assert one.dtype == np.int64
    assert np.array_equal(one[:least], two[:least])


def test_entropy_alone_decides_and_is_asked_once() -> None:
    """Equal entropy repeats the noise, other entropy does not, and 32 bytes are drawn whatever the size."""
    sampler, entropy = DiscreteGaussian(2.0**30), Key(b"a")
    first = sampler.sample(1000, entropy)
    assert entropy.drawn == 32
    assert np.array_equal(first, DiscreteGaussian(2.0**30).sample(1000, Key(b"a")))
    assert np.mean(first == sampler.sample(1000, Key(b"b"))) < 0.01
    assert not np.array_equal(sampler.sample(1000, SYSTEM), sampler.sample(1000, SYSTEM))


@given(st.fractions(min_value=Fraction(1, 1 << 60), max_value=1 << 40))
def test_a_fraction_is_rounded_up_to_the_next_float(value: Fraction) -> None:
    """σ and scale are never below the request, and no float fits between the request and what is sampled."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(samplers, "_gaussian_table", lambda sigma2: sigma2)
        patch.setattr(samplers, "_laplace_table", lambda scale: scale)
        patch.setattr(samplers, "_digit_table", lambda scale: scale)
        for actual in (DiscreteGaussian(value).sigma, DiscreteLaplace(value).scale):
            assert Fraction(actual) >= value
            assert Fraction(math.nextafter(actual, 0)) < value


@pytest.mark.parametrize("value", [3, 3.0, Fraction(3), np.float64(3), np.int64(3)])
def test_every_kind_of_number_means_the_same(value: float) -> None:
    """Integers, floats, fractions and numpy's scalars of one value share one law and one table."""
    sampler = DiscreteGaussian(value)
    assert sampler.sigma == 3.0
    assert type(sampler.sigma) is float or isinstance(sampler.sigma, np.float64)
    assert sampler._digits[0].table is DiscreteGaussian(3.0)._digits[0].table


@pytest.mark.parametrize(
    "value", [0, -1.0, math.nan, math.inf, -math.inf, 2.0**59, 1e300, Fraction(10) ** 400, "3", None, 3j]
)
def test_impossible_parameters_are_refused(value: object) -> None:
    """Zero, negative, non-finite, too large and non-numbers raise Misuse and name the parameter."""
    with pytest.raises(Misuse, match="sigma must be"):
        DiscreteGaussian(value)  # type: ignore[arg-type]
    with pytest.raises(Misuse, match="scale must be"):
        DiscreteLaplace(value)  # type: ignore[arg-type]


@pytest.mark.parametrize("size", [-1, 2.5, "3", True, None])
def test_impossible_sizes_are_refused(size: object) -> None:
    """A size that is not a non-negative integer raises Misuse before any entropy is drawn."""
    entropy = Key(b"size")
    with pytest.raises(Misuse, match="number of samples"):
        DiscreteGaussian(4.0).sample(size, entropy)  # type: ignore[arg-type]
    assert entropy.drawn == 0


@pytest.mark.parametrize("sigma", [5e-324, 1e-9, 2.0**-20])
def test_vanishing_noise_is_zero(sigma: float) -> None:
    """A σ for which every other value has probability below 2^-180 is accepted and gives zeros."""
    assert not DiscreteGaussian(sigma).sample(100, Key(b"tiny")).any()


def test_reprs_show_the_parameter_and_nothing_drawn() -> None:
    """A sampler keeps no sample and its repr, also after use and copying, is its public parameter."""
    gaussian, laplace = DiscreteGaussian(4.5), DiscreteLaplace(2.0)
    gaussian.sample(10, Key(b"repr"))
    assert repr(copy.copy(gaussian)) == "DiscreteGaussian(sigma=4.5)"
    assert repr(laplace) == "DiscreteLaplace(scale=2.0)"
    assert repr(samplers.Lanes.open(Key(b"lanes"))) == "Lanes(<redacted>)"
