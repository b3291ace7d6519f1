"""From public constants to a scale, a sensitivity, a ring and a noise: nothing here has seen a row.

A clip norm C becomes s·C integer units. Rounding to integers inflates the sensitivity (by √d/2 at
most), so s·C must be large beside √d; the ring must hold n sites' sums and their noise, so s·C must be
small beside 2^b. A scale is a power of two, which keeps every product with it exact in float64.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction

from privfl.dp.release import DITHER_BETA, MIN_SIGMA_SITE
from privfl.errors import Misuse, Refused
from privfl.ring import Ring, flatness, noise_room

__all__ = [
    "WIDTHS",
    "Sizing",
    "bounded_delta2",
    "dithered_delta2",
    "factor_delta2",
    "largest_x_max",
    "least_scaled_clip",
    "rounded_delta2",
    "size_vector",
]

#: Ring widths that are offered for vectors; 20 bits cost 2.5 bytes per parameter.
WIDTHS = (16, 20, 32, 64)
# A scaled clip beyond this makes noise slower to draw and nothing better.
_ENOUGH = 1 << 40
_ROOT = 1 << 32  # roots are rounded up to multiples of 2^-32
_Q16 = 1 << 16
_UNIT_ROUNDOFF = Fraction(1, 1 << 53)
# Roundings of one coordinate in scaling and rotating twice over up to 2^28 points, beside those of the sum.
_ROTATION_STEPS = 64


def factor_delta2(clip: float, feature_bits: int, residual_bits: int) -> int:
    """Δ² of construction F: ⌊(C·2^(b+c))²⌋, exact. ``clip`` in the unit of feature × residual.

    Raises:
        Misuse: no positive finite clip, or so few bits that Δ is below one integer unit.
    """
    delta2 = math.floor((_positive(clip, "clip") * Fraction(2) ** (feature_bits + residual_bits)) ** 2)
    if delta2 < 1:
        raise Misuse(f"a clip of {clip:g} at {feature_bits}+{residual_bits} bits rounds to nothing; use more bits")
    return delta2


def bounded_delta2(columns: int, scale: float) -> int:
    """Δ² of vectors whose ``columns`` coordinates all lie in [-scale, scale] integer units: columns·⌊scale⌋².

    Raises:
        Misuse: no column, or a scale below one unit.
    """
    whole = math.floor(_positive(scale, "scale"))
    if columns < 1 or whole < 1:
        raise Misuse("bounded columns need at least one column and a scale of at least 1")
    return columns * whole * whole


def rounded_delta2(length: int, scale: float, clip: float) -> int:
    """Δ² of constructions V and S: ⌈(sC)² + d/4 + sC + √d/2⌉.

    d/4 bounds the variance of d randomised roundings; by Hoeffding the rest lets a draw pass with
    probability at least 1 - e^-1/2.

    Args:
        length: d, coordinates of one contribution.
        scale: s, integer units per unit of the vector.
        clip: C, L2 norm of one contribution before scaling.

    Raises:
        Misuse: an argument is not positive and finite.
    """
    scaled = _scaled(length, scale, clip)
    return math.ceil(scaled**2 + Fraction(length, 4) + scaled + _root(Fraction(length)) / 2)


def dithered_delta2(length: int, scale: float, clip: float, max_rows: int) -> int:
    """Δ² of construction D, except with probability β = 10^-12 over the dither.

    ⌈(sC′)² + d/4 + √(2 ln 1/β)·(sC′ + √d/2)⌉ with C′ = C(1 + 2m(m + 64)u): each of two neighbouring sums
    of m vectors, accumulated, rotated and scaled in float64 (unit round-off u), is off by m(m + 64)uC at most.

    Args:
        length: d, coordinates of the vector that is rounded (after rotation, if there is one).
        scale: s.
        clip: C, L2 norm of each summand.
        max_rows: m, public bound on the number of summands.

    Raises:
        Misuse: an argument is not positive and finite.
    """
    if max_rows < 1:
        raise Misuse(f"a sum of {max_rows} rows is empty; declare the most rows that are summed")
    scaled = _scaled(length, scale, clip) * (1 + 2 * max_rows * (max_rows + _ROTATION_STEPS) * _UNIT_ROUNDOFF)
    spread = scaled + _root(Fraction(length)) / 2
    return math.ceil(scaled**2 + Fraction(length, 4) + _dither_deviations() * spread)


def least_scaled_clip(length: int, dithered: bool = False) -> float:
    """The s·C above which rounding inflates Δ by less than 1 %, for V and S or for D.

    The positive root of 0.0201·x² - L·x - (d/4 + L·√d/2) = 0 with L = 1 for V and S, √(2 ln 1/β) for D.

    >>> [round(least_scaled_clip(10**k)) for k in (2, 4, 6, 8)]
    [71, 382, 3555, 35296]
    """
    linear = float(_dither_deviations()) if dithered else 1.0
    constant = length / 4 + linear * math.sqrt(length) / 2
    square = 1.01**2 - 1
    return (linear + math.sqrt(linear**2 + 4 * square * constant)) / (2 * square)


def largest_x_max(ring: Ring, sites: int, sigma_site: float | Fraction, kappa: float = 8) -> int:
    """The largest x_max for which ``ring`` holds the sum of ``sites`` vectors and their noise.

    Raises:
        Misuse: an argument is negative or not finite, or ``sites`` is 0.
        Refused: the noise alone fills the ring.
    """
    room = (ring.reach - noise_room(sites, sigma_site, kappa)) // sites
    if room < 1:
        raise Refused(
            f"ring too small for the sum: the noise of {sites} sites alone fills {ring.bits} bits; "
            f"use a wider ring or a smaller scale"
        )
    return room


@dataclass(frozen=True, slots=True)
class Sizing:
    """A vector's public constants, in integer units where nothing else is said.

    Args:
        ring: where the sum lives.
        scale: s, integer units per unit of the vector; a power of two.
        delta2: squared L2 sensitivity.
        x_max: saturation of each coordinate at each site.
        sigma: total honest noise that the claim rests on; 0 without noise.
        sigma_site: what each site draws, σ/√h.
    """

    ring: Ring
    scale: float
    delta2: int
    x_max: int
    sigma: float
    sigma_site: float


def size_vector(
    *,
    clip: float,
    length: int,
    sites: int,
    noise_multiplier: float,
    honest: int = 1,
    rows: int = 1,
    rotated: bool = False,
    dithered: bool = False,
    widths: tuple[int, ...] = WIDTHS,
) -> Sizing:
    """The narrowest ring, and the largest power of two as its scale, for constructions V, S and D.

    s·C is at most (2^(b-1) - 1)/(n·r·ν + κ·z·√(n/h)); ν = 1, or after rotation :func:`privfl.ring.flatness`
    with saturation at r·ν·s·C and κ = 4 instead of 8. Without noise (z = 0) the only demand is s·C ≥ the
    least scaled clip; with noise also σ_site ≥ 4.

    Args:
        clip: C, L2 norm of one contribution.
        length: d, coordinates that are rounded.
        sites: n, the most sites whose vectors are added.
        noise_multiplier: z = σ/Δ of the total honest noise; 0 for none.
        honest: h, shares the claim rests on; 1 under local trust.
        rows: r, contributions in one site's sum for which a coordinate makes room; more may saturate.
        rotated: the vector is Hadamard-rotated before it is rounded.
        dithered: construction D with at most ``rows`` summands.
        widths: ring widths to try, narrowest first.

    Raises:
        Misuse: an argument is not positive.
        Refused: no width holds the sum at a scale fine enough.
    """
    if min(length, sites, honest, rows) < 1 or not (math.isfinite(noise_multiplier) and noise_multiplier >= 0):
        raise Misuse("length, sites, honest and rows must be at least 1, the noise multiplier finite and not negative")
    top = rows * (flatness(length) if rotated else 1.0)
    kappa = 4.0 if rotated else 8.0
    load = sites * top + kappa * noise_multiplier * math.sqrt(sites / honest)
    least = least_scaled_clip(length, dithered)
    for bits in widths:
        ring = Ring.of(bits)
        scale = _power_below(min(ring.reach / load, _ENOUGH) / float(_positive(clip, "clip")))
        while scale * clip >= least:
            delta2 = dithered_delta2(length, scale, clip, rows) if dithered else rounded_delta2(length, scale, clip)
            sigma, sigma_site = _noise(noise_multiplier, delta2, honest)
            sizing = Sizing(ring, scale, delta2, math.ceil(top * scale * clip) + rows, sigma, sigma_site)
            need = sites * sizing.x_max + noise_room(sites, sigma_site, kappa)
            if need <= ring.reach and (noise_multiplier == 0 or sigma_site >= MIN_SIGMA_SITE):
                return sizing
            scale /= 2
    raise Refused(
        f"ring too small for the sum: {sites} sites, {length} coordinates and noise multiplier {noise_multiplier:g} "
        f"need a scaled clip of at least {math.ceil(least)} and noise of at least {MIN_SIGMA_SITE} units per site, "
        f"which no ring of {' or '.join(map(str, widths))} bits has; use a wider ring, fewer rows or more noise"
    )


def _noise(multiplier: float, delta2: int, honest: int) -> tuple[float, float]:
    """(σ, σ_site), both rounded up to multiples of 2^-16 as a release does it."""
    sigma = math.ceil(multiplier * math.sqrt(delta2) * _Q16)
    square = -(-sigma * sigma // honest)
    root = math.isqrt(square)
    return sigma / _Q16, (root + (root * root < square)) / _Q16


def _power_below(value: float) -> float:
    """The greatest power of two that is at most ``value``."""
    return math.ldexp(1.0, math.frexp(value)[1] - 1)


def _dither_deviations() -> Fraction:
    """√(2 ln 1/β), rounded up by 2^-40 of itself, which covers the errors of log and sqrt."""
    return Fraction(math.sqrt(2 * math.log(1 / DITHER_BETA))) * (1 + Fraction(1, 1 << 40))


def _root(value: Fraction) -> Fraction:
    """√value, exact where it is rational with a small denominator, else rounded up to a multiple of 2^-32."""
    square = math.ceil(value * _ROOT**2)
    root = math.isqrt(square)
    return Fraction(root + (root * root < square), _ROOT)


def _scaled(length: int, scale: float, clip: float) -> Fraction:
    if length < 1:
        raise Misuse(f"a contribution of {length} coordinates is empty")
    return _positive(scale, "scale") * _positive(clip, "clip")


def _positive(value: float, name: str) -> Fraction:
    if not (math.isfinite(value) and value > 0):
        raise Misuse(f"{name} is {value}; it must be positive and finite")
    return Fraction(value)
