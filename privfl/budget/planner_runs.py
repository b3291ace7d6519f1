"""Training runs that a room holds: which ε a number of rounds leaves, and how many runs of an ε fit."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction

from privfl.budget.planner import Room, epsilon_to_ask, whole_run
from privfl.dp import ZERO_COST, Cost, Trust, epsilon_of_cost, mu_of_epsilon
from privfl.dp.accounting import root_up
from privfl.dp.cost import floor_to_grid
from privfl.dp.release import SAMPLER_DELTA
from privfl.errors import Misuse

__all__ = ["Run", "largest_run", "run_for"]


@dataclass(frozen=True)
class Run:
    """A training run that the coordinator may be asked for, and what it takes.

    Attributes:
        rounds: as in the task. attempts: charged for each of them, in the worst case that is planned for.
        epsilon: as in the task, at the policy's δ; 0 if nothing fits.
        multiplier: z = σ/Δ of each round's whole noise in the limit of fine integers, rounded up.
        cost: of one upload, as a site is charged for it.
        fits: how many such runs still fit; None where the policy's cap on one upload refuses them.
    """

    rounds: int
    attempts: int
    epsilon: float
    multiplier: float
    cost: Cost
    fits: int | None


def run_for(
    room: Room,
    epsilon: float,
    rounds: int,
    *,
    attempts: int = 1,
    trust: Trust = Trust.DISTRIBUTED,
    length: int = 1000,
    most: float | None = None,
) -> Run:
    """A run of ``rounds`` uploads at a total of ε, and how many such runs fit if every round takes ``attempts``.

    Args:
        length: coordinates of an upload, for the samplers' δ′.
        most: ε that one upload may cost at the policy's δ (``max_epsilon_per_upload``).

    Raises:
        Misuse: no round, no attempt, ε no budget.
    """
    _check(rounds, attempts)
    mu2 = floor_to_grid(whole_run(epsilon, room.budget.delta) / rounds)
    return _run(room, epsilon, rounds, attempts, Cost(mu2, length * SAMPLER_DELTA), trust, most)


def largest_run(
    room: Room,
    rounds: int,
    *,
    attempts: int = 1,
    trust: Trust = Trust.DISTRIBUTED,
    length: int = 1000,
    most: float | None = None,
) -> Run:
    """The run of ``rounds`` uploads with the largest ε that fits the room once; arguments as for :func:`run_for`."""
    _check(rounds, attempts)
    tail = length * SAMPLER_DELTA
    factor, price = room.factor(trust), room.priced(Cost(0, tail), trust)
    mu2 = room.left.mu2 / (factor * rounds * attempts)
    if most is not None:
        mu2 = min(mu2, _cap(most, price.delta, room.budget.delta) / factor)
    epsilon = epsilon_to_ask(floor_to_grid(mu2 * rounds), room.budget.delta)
    if epsilon == 0 or price.delta * rounds * attempts > room.left.delta:
        return Run(rounds, attempts, 0.0, math.inf, ZERO_COST, 0)
    return run_for(room, epsilon, rounds, attempts=attempts, trust=trust, length=length, most=most)


def _check(rounds: int, attempts: int) -> None:
    if rounds < 1 or attempts < 1:
        raise Misuse(f"{rounds} rounds of {attempts} attempts: plan at least one of each")


def _run(room: Room, epsilon: float, rounds: int, attempts: int, cost: Cost, trust: Trust, most: float | None) -> Run:
    price = room.priced(cost, trust)
    fits: int | None = None
    if most is None or epsilon_of_cost(price, room.budget.delta) <= most:
        fits = room.uploads(cost, trust) // (rounds * attempts)
    return Run(rounds, attempts, epsilon, root_up(1 / cost.mu2), price, fits)


def _cap(most: float, tail: Fraction, delta: float) -> Fraction:
    """The largest μ² of an upload with δ′ = ``tail`` whose ε at ``delta`` is at most ``most``, rounded down."""
    if tail >= Fraction(delta):
        return Fraction(0)
    mu = mu_of_epsilon(most, math.nextafter(float((Fraction(delta) - tail) / (1 - tail)), 0.0))
    while mu > 0 and epsilon_of_cost(Cost(floor_to_grid(Fraction(mu) ** 2), tail), delta) > most:
        mu *= 1 - 1e-12
    return floor_to_grid(Fraction(mu) ** 2)
