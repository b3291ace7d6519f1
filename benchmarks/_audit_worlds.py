"""Audit A: every construction in two worlds, with and without one unit, told apart by the shift between them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np

from benchmarks._audit_bounds import Scores, gaussian_bound, pure_bound
from privfl.dp import Block, Noise, Release, Trust, Unit, sigma_of_mu2
from privfl.dp.accounting import epsilon_of_cost
from privfl.dp.contribution import Int64Array
from privfl.dp.mechanisms import contributions, dithered_sum, factor_gradient, noised
from privfl.dp.sizing import dithered_delta2, factor_delta2, rounded_delta2
from privfl.entropy import Entropy

__all__ = ["DELTA", "Outcome", "Subject", "audit", "subjects"]

DELTA = 1e-5
RISK = 1e-6  # probability that a bound is wrong
WEAKER = 4  # the broken mechanism adds this many times less noise
_DIMENSION = 8
_SCALE = 4096.0
_ROWS_AT_ONCE = 20_000

Draw = Callable[[int, bool, Entropy], Int64Array]


@dataclass(frozen=True)
class Outcome:
    """What was claimed, and what the outputs prove, with the true noise and with a quarter of it."""

    claimed: float
    lower_bound_correct: float
    lower_bound_broken: float


@dataclass(frozen=True)
class Subject:
    """A mechanism under audit.

    Args:
        name: for the table.
        release: what was announced, for one vector.
        draw: (runs, unit present?, entropy) to exact integer sums before noise, shape ``(runs, length)``.
        direction: the shift between the worlds.
    """

    name: str
    release: Release
    draw: Draw
    direction: Scores

    @property
    def claimed(self) -> float:
        """The ε that would be charged and reported."""
        if self.release.noise is Noise.LAPLACE:
            return float(sum(Fraction(block.delta1) / Fraction(block.sigma) for block in self.release.blocks))
        return epsilon_of_cost(self.release.cost, DELTA)


def scores(subject: Subject, present: bool, runs: int, weaker: int, entropy: Entropy) -> Scores:
    """Outputs projected on the shift; the noise is that of the honest shares alone."""
    (block,) = subject.release.blocks
    out = []
    for begin in range(0, runs, _ROWS_AT_ONCE):
        count = min(_ROWS_AT_ONCE, runs - begin)
        wide = replace(block, length=block.length * count, sigma=block.sigma / weaker)
        release = replace(subject.release, blocks=(wide,))
        total = np.zeros(wide.length, dtype=np.int64)
        for share in range(release.honest):
            vector = subject.draw(count, present, entropy).reshape(-1) if share == 0 else np.zeros_like(total)
            total += noised(vector, release, entropy)
        out.append(total.reshape(count, block.length).astype(np.float64) @ subject.direction)
    return np.concatenate(out)


def audit(subject: Subject, runs: int, entropy: Entropy) -> Outcome:
    """Bound the ε of one mechanism from ``runs`` outputs in each world, true and broken."""
    bounds = []
    for weaker in (1, WEAKER):
        absent, present = (scores(subject, world, runs, weaker, entropy) for world in (False, True))
        if subject.release.noise is Noise.LAPLACE:
            bounds.append(pure_bound(absent, present, RISK))
        else:
            bounds.append(gaussian_bound(absent, present, DELTA, RISK))
    return Outcome(subject.claimed, bounds[0], bounds[1])


def subjects() -> tuple[Subject, ...]:
    """Constructions F, V, S and D, under both kinds of trust, and Laplace noise; each at μ = 1 or ε = 1."""
    return (
        _factors(Trust.LOCAL),
        _factors(Trust.DISTRIBUTED),
        _vectors("V, materialised rows", Unit.RECORD, bystanders=1),
        _vectors("S, site vector", Unit.SITE, bystanders=0),
        _dithered(),
        _laplace(),
    )


def _release(
    delta2: int, length: int, trust: Trust, unit: Unit = Unit.RECORD, mu: float = 1.0, dithered: bool = False
) -> Release:
    block = Block("audited", length, delta2, 1 << 40, sigma_of_mu2(Fraction(mu) ** 2, delta2), dithered)
    return Release(unit, trust, (block,), min_survivors=5, colluders=1)


def _canary(norm: float) -> Scores:
    return np.full(_DIMENSION, norm / np.sqrt(_DIMENSION))


def _factors(trust: Trust) -> Subject:
    bits, clip = 8, 1.0
    rows = np.array([[40, -12, 7, 90, 0, 3, -60, 11], [256] * 8], dtype=np.int64)
    residuals = np.array([0.3, 5.0])
    sums = [factor_gradient(rows[:n], residuals[:n], clip, bits, bits).vector.reshape(-1) for n in (1, 2)]

    def draw(runs: int, present: bool, entropy: Entropy) -> Int64Array:
        return np.tile(sums[int(present)], (runs, 1))

    release = _release(factor_delta2(clip, bits, bits), len(sums[0]), trust)
    return Subject(f"F, factors, {trust}", release, draw, (sums[1] - sums[0]).astype(np.float64))


def _vectors(name: str, unit: Unit, bystanders: int) -> Subject:
    def draw(runs: int, present: bool, entropy: Entropy) -> Int64Array:
        total = np.zeros((runs, _DIMENSION), dtype=np.int64)
        for row in [_canary(0.7)[::-1] * 0.4] * bystanders + [_canary(9.0)] * int(present):
            total += contributions(np.tile(row, (runs, 1)), _SCALE, 1.0, entropy)
        return total

    release = _release(rounded_delta2(_DIMENSION, _SCALE, 1.0), _DIMENSION, Trust.DISTRIBUTED, unit)
    return Subject(name, release, draw, _canary(_SCALE))


def _dithered() -> Subject:
    def draw(runs: int, present: bool, entropy: Entropy) -> Int64Array:
        total = _canary(0.37) + (_canary(1.0) if present else 0.0)
        return dithered_sum(np.tile(total, runs), _SCALE, 1.0, 2, entropy).vector.reshape(runs, _DIMENSION)

    release = _release(dithered_delta2(_DIMENSION, _SCALE, 1.0, 2), _DIMENSION, Trust.DISTRIBUTED, dithered=True)
    return Subject("D, dithered sum", release, draw, _canary(_SCALE))


def _laplace() -> Subject:
    sensitivity = 64

    def draw(runs: int, present: bool, entropy: Entropy) -> Int64Array:
        return np.full((runs, 1), 1000 + sensitivity * int(present), dtype=np.int64)

    block = Block("count", 1, sensitivity**2, 1 << 40, float(sensitivity), delta1=sensitivity)
    release = Release(Unit.RECORD, Trust.LOCAL, (block,), noise=Noise.LAPLACE)
    return Subject("discrete Laplace, pure epsilon", release, draw, np.ones(1))
