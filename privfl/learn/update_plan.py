"""Choosing the scales, the ring and the noise of an app's training: every number comes from public constants."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Final

from privfl.dp import Block, Release, Trust, Unit, epsilon_of_cost, least_scaled_clip, mu2_per_upload, sigma_of_mu2
from privfl.errors import BudgetExceeded, Misuse, Refused
from privfl.learn.planning import Layout, Plan, check_sizes
from privfl.learn.update_spec import Grain, UpdateSpec, layout_of
from privfl.ring import Ring, noise_room

__all__ = ["SHARE", "Wanted", "check_fit", "check_total", "plan_update"]

#: Share of a round's μ² for each of the blocks of weights and metrics.
SHARE: Final = Fraction(1, 20)
WIDTHS: Final = (16, 20, 32, 64)
_COARSEST = 5  # 2^5 steps per 1 of a weight or metric are the least that say something
_ENOUGH = float(1 << 40)


@dataclass(frozen=True)
class Wanted:
    """What a run is to promise, and over how many uploads of how many sites.

    Args:
        epsilon, delta: of all uploads, per ``unit``; both None for a run without noise.
        uploads: asked of each site at most. sites: in one sum at most. least: survivors of an opened sum.
        colluders: sites that may side with the coordinator.
        unit: what epsilon speaks of. A contribution is bounded for its site; counted in records or persons, each of
            which may turn it from one vector within its bounds into another, the same noise costs four times its μ².
        share: of a round's μ², for each of the blocks of weights and metrics.

    Raises:
        Misuse: anything out of range.
    """

    epsilon: float | None
    delta: float | None
    uploads: int
    sites: int
    least: int
    colluders: int = 1
    unit: Unit = Unit.SITE
    trust: Trust = Trust.DISTRIBUTED
    share: Fraction = SHARE

    def __post_init__(self) -> None:
        for name, kind in (("unit", Unit), ("trust", Trust)):
            try:
                object.__setattr__(self, name, kind(getattr(self, name)))
            except ValueError:
                raise Misuse(f"{name} is {getattr(self, name)!r}; choose {' or '.join(kind)}") from None
        check_sizes(self.uploads, self.sites)
        if (self.epsilon is None) != (self.delta is None):
            raise Misuse("epsilon and delta belong together; without noise, give neither")
        if not 0 < self.share <= Fraction(1, 4):
            raise Misuse("the share of weights and metrics lies above 0 and is at most 0.25")
        if not 1 <= self.least <= self.sites:
            raise Misuse(f"min_survivors {self.least} does not fit {self.sites} sites")

    @property
    def mu2(self) -> Fraction | None:
        """What one upload may cost, counted for its site; None without noise."""
        if self.epsilon is None or self.delta is None:
            return None
        return mu2_per_upload(self.epsilon, self.delta, self.uploads) / (1 if self.unit is Unit.SITE else 4)

    @property
    def spread(self) -> float:
        """√(sites/h): how much wider the noise of a sum is than what the claim rests on."""
        honest = 1 if self.trust is Trust.LOCAL else max(1, self.least - max(1, self.colluders))
        return math.sqrt(self.sites / honest)


def check_fit(grain: Grain, layout: Sequence[Layout], plan: Plan) -> None:
    """Raise Refused unless the ring holds the sum of all sites with its noise.

    A sum that wraps costs utility and never privacy, so that coordinates of a rotated vector need room for four
    standard deviations only.
    """
    sigmas = {} if plan.release is None else {b.name: plan.release.sigma_site(b) for b in plan.release.blocks}
    for part in layout:
        kappa = grain.kappa if part.name == "update" else 8.0
        need = plan.sites * part.x_max + noise_room(plan.sites, sigmas.get(part.name, 0.0), kappa)
        if need > plan.ring.reach:
            raise Refused(f"ring too small for the sum: {plan.sites} sites do not fit {plan.ring.bits} bits; use more")


def check_total(plan: Plan) -> None:
    """Raise BudgetExceeded unless the filter admits all uploads, δ′ and what was rounded up included."""
    if plan.release is None or plan.delta is None or plan.epsilon is None:
        return
    try:
        spent = epsilon_of_cost(plan.rounds * plan.release.cost_in(plan.unit), plan.delta)
    except Misuse as error:
        raise BudgetExceeded(f"{plan.rounds} uploads do not fit a delta of {plan.delta:g}: {error}") from None
    if spent > plan.epsilon:
        raise BudgetExceeded(f"{plan.rounds} uploads cost epsilon {spent:g} and {plan.epsilon:g} was given")


def plan_update(spec: UpdateSpec, wanted: Wanted, bits: int | None = None) -> tuple[Plan, Grain]:
    """The finest scales that a ring holds, with their noise.

    Args:
        bits: 16, 20, 32 or 64; by default 32, or 64 where 32 are too few.

    Raises:
        Misuse, Refused, BudgetExceeded: no such plan exists; the message says what to change.
    """
    if bits is not None and bits not in WIDTHS:
        raise Misuse(f"bits is {bits}; choose one of {', '.join(map(str, WIDTHS))}")
    widths = (bits,) if bits is not None else (32, 64)
    for width in widths:
        try:
            return _in_ring(spec, wanted, Ring.of(width))
        except BudgetExceeded:
            raise
        except Refused:
            if width == widths[-1]:
                raise
    raise AssertionError


def _in_ring(spec: UpdateSpec, wanted: Wanted, ring: Ring) -> tuple[Plan, Grain]:
    fine = _fine(spec, wanted, ring)
    found: list[tuple[Plan, Grain]] = []
    problem: Refused | None = None
    # a rotation costs time and makes room, of which 32 bits and more have enough as a rule
    for rotated in (False, True):
        try:
            found.append(_scaled(spec, wanted, ring, fine, rotated))
        except BudgetExceeded:
            raise
        except Refused as error:
            problem = problem or error
        if found and ring.bits >= 32:
            break
    if not found:
        assert problem is not None
        raise problem
    return max(found, key=lambda one: one[1].scale)  # the first of equals: without rotation


def _fine(spec: UpdateSpec, wanted: Wanted, ring: Ring) -> int:
    """The exponent of S: as fine as the ring holds, at most 24."""
    count, mu2 = 1 + max(len(spec.train), len(spec.evaluate)), wanted.mu2
    noise = 0.0 if mu2 is None else 8 * math.sqrt(count / float(mu2 * wanted.share)) * wanted.spread
    room = ring.reach / (wanted.sites + noise)
    fine = min(24, _power(room * (1 - 2**-10)))  # σ² is Δ²/μ² + 4: a little more than its first term
    if fine < _COARSEST:
        raise Refused(
            f"ring too small for the sum: {ring.bits} bits do not hold the weights and metrics of {wanted.sites} sites "
            "and their noise; use more bits, more epsilon, or a larger metrics_share"
        )
    return fine


def _scaled(spec: UpdateSpec, wanted: Wanted, ring: Ring, fine: int, rotated: bool) -> tuple[Plan, Grain]:
    probe, mu2 = Grain(0, fine, rotated), wanted.mu2
    noise = 0.0 if mu2 is None else math.sqrt(1 / float(mu2)) * wanted.spread
    room = ring.reach / (wanted.sites * probe.top(spec.length) + probe.kappa * noise)
    grain = replace(probe, scale=_power(min(room, _ENOUGH) / spec.clip))
    problem = ""
    for _ in range(3):  # the estimate leaves out shares and rounding, together less than a factor of four
        if math.ldexp(spec.clip, grain.scale) < least_scaled_clip(spec.length):
            problem = problem or "their scale would be too coarse"
            break
        layout = layout_of(spec, grain)
        try:
            release = None if mu2 is None else _release(layout, mu2, wanted)
            plan = Plan(wanted.epsilon, wanted.delta, wanted.uploads, wanted.sites, release, ring, wanted.unit)
            check_fit(grain, layout, plan)
        except Refused as error:
            problem = str(error)
            grain = replace(grain, scale=grain.scale - 1)
            continue
        check_total(plan)
        return plan, grain
    raise Refused(
        f"{ring.bits} bits do not hold {spec.length} parameters of {wanted.sites} sites with their noise ({problem}); "
        "use more bits, or more epsilon"
    )


def _release(layout: Sequence[Layout], mu2: Fraction, wanted: Wanted) -> Release:
    shares: Mapping[str, Fraction] = {part.name: wanted.share for part in layout if part.name != "update"}
    shares = {**shares, "update": 1 - sum(shares.values(), Fraction(0))}
    blocks = tuple(
        Block(part.name, part.length, part.delta2, part.x_max, sigma_of_mu2(mu2 * shares[part.name], part.delta2))
        for part in layout
    )
    return Release(Unit.SITE, wanted.trust, blocks, wanted.least, wanted.colluders)


def _power(value: float) -> int:
    """The exponent of the greatest power of two that is at most ``value``."""
    return math.frexp(value)[1] - 1
