"""The formulas that turn public constants into scale, sensitivity, ring and noise."""

from __future__ import annotations

import math
from fractions import Fraction

import mpmath
import pytest
from hypothesis import given
from hypothesis import strategies as st

from privfl.dp.release import Block, Release
from privfl.dp.sizing import (
    bounded_delta2,
    dithered_delta2,
    factor_delta2,
    largest_x_max,
    least_scaled_clip,
    rounded_delta2,
    size_vector,
)
from privfl.dp.units import Trust, Unit
from privfl.errors import Misuse, Refused
from privfl.ring import Ring, flatness

LENGTHS = st.integers(1, 10**8)
SCALES = st.integers(-3, 40).map(lambda power: 2.0**power)
CLIPS = st.floats(1e-3, 1e3)


@pytest.mark.parametrize(
    ("length", "rounded", "dithered"),
    [(10**2, 71, 378), (10**4, 382, 606), (10**6, 3555, 3743), (10**8, 35296, 35479)],
)
def test_least_scaled_clips(length: int, rounded: int, dithered: int) -> None:
    """The table of least s·C for under 1 % inflation, and that one unit above or below decides."""
    assert round(least_scaled_clip(length)) == rounded
    assert round(least_scaled_clip(length, dithered=True)) == dithered
    for least, delta2 in (
        (rounded, lambda x: rounded_delta2(length, 1.0, x)),
        (dithered, lambda x: dithered_delta2(length, 1.0, x, 1)),
    ):
        assert math.sqrt(delta2(float(least + 1))) / (least + 1) < 1.01
        assert math.sqrt(delta2(float(least - 1))) / (least - 1) > 1.01


@given(LENGTHS, SCALES, CLIPS)
def test_rounded_sensitivity_is_the_formula_rounded_up(length: int, scale: float, clip: float) -> None:
    """⌈(sC)² + d/4 + sC + √d/2⌉, against 60 digits; never below, and above by one unit at most at a tie."""
    with mpmath.workdps(60):
        scaled = mpmath.mpf(scale) * mpmath.mpf(clip)
        exact = scaled**2 + mpmath.mpf(length) / 4 + scaled + mpmath.sqrt(length) / 2
        got = rounded_delta2(length, scale, clip)
        assert exact <= got < exact + 1 + mpmath.mpf(2) ** -32


@given(LENGTHS, SCALES, CLIPS, st.integers(1, 10**6))
def test_dithered_sensitivity_is_not_below_the_formula(length: int, scale: float, clip: float, rows: int) -> None:
    """(sC′)² + d/4 + √(2 ln 1/β)(sC′ + √d/2) with C′ = C(1 + 2m²u), at most a hair above it."""
    with mpmath.workdps(60):
        unit = mpmath.mpf(2) ** -53
        scaled = mpmath.mpf(scale) * mpmath.mpf(clip)
        wide = mpmath.sqrt(2 * mpmath.log(mpmath.mpf(10) ** 12))

        def formula(steps: int) -> mpmath.mpf:
            grown = scaled * (1 + 2 * rows * (rows + steps) * unit)
            return grown**2 + mpmath.mpf(length) / 4 + wide * (grown + mpmath.sqrt(length) / 2)

        got = dithered_delta2(length, scale, clip, rows)
        assert formula(0) <= got
        assert got <= formula(64) * (1 + mpmath.mpf(10) ** -11) + 1


@given(st.floats(1e-3, 1e3), st.integers(0, 24), st.integers(0, 24))
def test_factor_sensitivity_is_exact(clip: float, feature_bits: int, residual_bits: int) -> None:
    """⌊(C·2^(b+c))²⌋ in fractions; where nothing would be left, the caller hears of it."""
    exact = (Fraction(clip) * 2 ** (feature_bits + residual_bits)) ** 2
    if exact < 1:
        with pytest.raises(Misuse, match="rounds to nothing"):
            factor_delta2(clip, feature_bits, residual_bits)
    else:
        assert factor_delta2(clip, feature_bits, residual_bits) == exact.numerator // exact.denominator


@given(
    clip=st.floats(0.01, 100),
    length=st.integers(1, 10**7),
    sites=st.integers(2, 1000),
    multiplier=st.sampled_from([0.0, 0.5, 1.0, 2.0, 5.0, 50.0]),
    share=st.floats(0.1, 1),
    rows=st.sampled_from([1, 10, 1000]),
    rotated=st.booleans(),
    dithered=st.booleans(),
)
def test_a_sizing_keeps_every_promise(
    clip: float, length: int, sites: int, multiplier: float, share: float, rows: int, rotated: bool, dithered: bool
) -> None:
    """Power-of-two scale, Δ inflated by under 1 %, σ_site ≥ 4, room for the sum and its noise, least width."""
    honest = max(1, int(share * sites))
    size = size_vector(
        clip=clip,
        length=length,
        sites=sites,
        noise_multiplier=multiplier,
        honest=honest,
        rows=rows,
        rotated=rotated,
        dithered=dithered,
    )
    assert math.frexp(size.scale)[0] == 0.5
    # The table's row count is one here; more summands widen C' by 2m²u, far below a millionth.
    assert math.sqrt(size.delta2) <= (1.01 + 1e-6) * size.scale * clip
    assert size.sigma >= multiplier * math.sqrt(size.delta2)
    assert size.sigma_site**2 * honest >= size.sigma**2 * (1 - 1e-15)
    assert multiplier == 0 or size.sigma_site >= 4
    nu = flatness(length) if rotated else 1.0
    assert size.x_max >= rows * nu * size.scale * clip
    kappa = 4.0 if rotated else 8.0
    assert Ring.fit(sites, size.x_max, size.sigma_site, kappa).bits <= size.ring.bits
    narrower = tuple(bits for bits in (16, 20, 32, 64) if bits < size.ring.bits)
    if narrower:
        with pytest.raises(Refused, match="ring too small for the sum"):
            size_vector(
                clip=clip,
                length=length,
                sites=sites,
                noise_multiplier=multiplier,
                honest=honest,
                rows=rows,
                rotated=rotated,
                dithered=dithered,
                widths=narrower,
            )


def test_a_sizing_fits_its_release() -> None:
    """σ per site as sized is what the release computes from the same block, to the last bit."""
    for honest in (2, 3, 7, 11):
        size = size_vector(clip=1.0, length=1000, sites=honest + 2, noise_multiplier=1.3, honest=honest)
        block = Block("update", 1000, size.delta2, size.x_max, size.sigma)
        release = Release(Unit.SITE, Trust.DISTRIBUTED, (block,), min_survivors=honest + 1, colluders=1)
        assert release.sigma_site(block) == size.sigma_site
        assert math.isclose(float(release.mu2), 1 / 1.3**2, rel_tol=1e-3)


def test_twenty_bits_do_what_sixteen_cannot() -> None:
    """At z = 5 and a million parameters 16 bits inflate Δ by over 5 % even rotated; 20 bits by under 0.1 %."""
    for sites, honest in ((10, 6), (100, 64), (100, 80)):
        with pytest.raises(Refused):
            size_vector(
                clip=1.0, length=10**6, sites=sites, noise_multiplier=5, honest=honest, rotated=True, widths=(16,)
            )
        load = sites * flatness(10**6) + 4 * 5 * math.sqrt(sites / honest)
        inflation = {}
        for bits in (16, 20):
            scaled = (2 ** (bits - 1) - 1) / load
            inflation[bits] = math.sqrt(rounded_delta2(10**6, 1.0, scaled)) / scaled - 1
        assert 0.05 < inflation[16] < 0.16
        assert 0.0001 < inflation[20] < 0.001
        size = size_vector(clip=1.0, length=10**6, sites=sites, noise_multiplier=5, honest=honest, rotated=True)
        assert size.ring.bits == 20


@given(st.integers(2, 64), st.integers(1, 1000), st.floats(0, 1e4), st.sampled_from([4.0, 8.0]))
def test_largest_x_max_is_largest(bits: int, sites: int, sigma: float, kappa: float) -> None:
    """It fits the ring and one more does not; where noise alone fills the ring, that is said."""
    ring = Ring.of(bits)
    try:
        room = largest_x_max(ring, sites, sigma, kappa)
    except Refused:
        assert sites == 0 or Ring.fit(sites, 1, sigma, kappa).bits > bits
        return
    assert Ring.fit(sites, room, sigma, kappa).bits <= bits
    if bits < 64:
        assert Ring.fit(sites, room + 1, sigma, kappa).bits > bits


@pytest.mark.parametrize(
    "call",
    [
        lambda: factor_delta2(0.0, 8, 8),
        lambda: factor_delta2(math.nan, 8, 8),
        lambda: rounded_delta2(0, 1.0, 1.0),
        lambda: rounded_delta2(5, math.inf, 1.0),
        lambda: dithered_delta2(5, 1.0, 1.0, 0),
        lambda: bounded_delta2(0, 4.0),
        lambda: bounded_delta2(3, 0.5),
        lambda: size_vector(clip=1.0, length=0, sites=2, noise_multiplier=1.0),
        lambda: size_vector(clip=1.0, length=5, sites=2, noise_multiplier=-1.0),
        lambda: size_vector(clip=-1.0, length=5, sites=2, noise_multiplier=1.0),
    ],
)
def test_nonsense_is_misuse(call: object) -> None:
    """Constants that cannot be are the caller's error, named before anything is computed from data."""
    with pytest.raises(Misuse):
        call()  # type: ignore[operator]
