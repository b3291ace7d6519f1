"""DP-SGD with Poisson batches: a block of steps priced once, whole, in the one currency.

The exact privacy loss distribution comes from dp-accounting; it is then covered by the least
Gaussian curve, so that the filter may compose the block with anything chosen later.
"""

from __future__ import annotations

import math
from fractions import Fraction
from typing import TYPE_CHECKING, Protocol, cast

from privfl.dp.accounting import additive_mu2, delta_curve, mu_of_epsilon
from privfl.dp.cost import Cost
from privfl.errors import Misuse

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    import numpy.typing as npt

__all__ = ["MAX_PARTS", "dp_sgd_cost", "dp_sgd_parts", "effective_multiplier"]

#: Conversion of one block costs 0.2 % in ε, of five 4 %; beyond, the currency is the wrong one.
MAX_PARTS = 5
_GRID_STEP = 1e-3
_PLD_STEP = 1e-4
_EPSILON_LIMIT = 200.0
_LEAST_MULTIPLIER = 0.2
_MARGIN = 1e-12


class _LossDistribution(Protocol):
    def self_compose(self, num_times: int) -> _LossDistribution: ...
    def get_epsilon_for_delta(self, delta: float) -> float: ...
    def get_delta_for_epsilon(self, epsilon: Sequence[float]) -> Sequence[float]: ...


def effective_multiplier(delta2: int, sigma: Fraction | float) -> float:
    """The continuous noise multiplier √(σ² − 4)/Δ that integer Gaussian noise stands for, rounded down.

    Raises:
        Misuse: σ below 4 integer units or Δ² below 1.
    """
    if delta2 < 1:
        raise Misuse("delta2 must be at least 1")
    return math.nextafter(1 / math.sqrt(additive_mu2(delta2, sigma)), 0.0)


def dp_sgd_cost(q: float, z: float, steps: int, delta_prime: float) -> Cost:
    """The cost of ``steps`` steps with Poisson batches, reserved whole, attempts included.

    Finds the least μ such that for all ε ≥ 0 and both directions of add/remove
    δ_PLD(ε) ≤ δ′ + (1 − δ′)·δ_G(ε; μ).

    Args:
        q: sampling probability of each unit, in (0, 1].
        z: effective noise multiplier, see :func:`effective_multiplier`.
        steps: number of steps T ≥ 1.
        delta_prime: δ′ given up in the conversion, at most a tenth of the total δ; unused when q = 1.

    Raises:
        Misuse: an argument out of range, or so little noise that ε exceeds 200.

    Source: docs/privacy.md, "Subsampled steps"; PLD of Koskela et al. 2021 by dp-accounting.
    """
    if not 0 < q <= 1 or not 0 < z < math.inf or steps < 1:
        raise Misuse(f"q = {q}, z = {z}, steps = {steps}: need 0 < q <= 1, z > 0 and at least one step")
    if q == 1:
        return Cost(Fraction(steps) / Fraction(z) ** 2)
    if not 0 < delta_prime < 0.1:
        raise Misuse(f"delta_prime is {delta_prime}; give up a positive part below a tenth, e.g. a tenth of delta")
    if z < _LEAST_MULTIPLIER:
        raise Misuse(f"z = {z} is hardly any noise: add noise (at least {_LEAST_MULTIPLIER}) before asking its cost")
    epsilons, deltas = _profile(q, z, steps, delta_prime)
    return Cost(Fraction(_least_mu(epsilons, deltas, delta_prime)) ** 2, delta_prime)


def dp_sgd_parts(q: float, z: float, steps: int, delta_prime: float, parts: int) -> tuple[Cost, ...]:
    """Costs of ``parts`` consecutive sub-blocks of nearly equal length, each reserved whole.

    Args:
        delta_prime: δ′ of all parts together.

    Raises:
        Misuse: more than five parts, or more parts than steps.
    """
    if not 1 <= parts <= min(MAX_PARTS, steps):
        raise Misuse(f"{parts} parts of {steps} steps: choose 1 to {min(MAX_PARTS, steps)}; more would cost too much")
    short, longer = divmod(steps, parts)
    known = {length: dp_sgd_cost(q, z, length, delta_prime / parts) for length in {short, short + bool(longer)}}
    return tuple(known[short + (index < longer)] for index in range(parts))


def _profile(
    q: float, z: float, steps: int, delta_prime: float
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """ε on a grid from 0 until δ ≤ δ′, and pessimistic δ there."""
    import numpy as np  # noqa: PLC0415
    from dp_accounting.pld import privacy_loss_distribution  # noqa: PLC0415

    loss = cast(
        "_LossDistribution",
        privacy_loss_distribution.from_gaussian_mechanism(
            z, sensitivity=1.0, sampling_prob=q, value_discretization_interval=_PLD_STEP
        ),
    ).self_compose(steps)
    # Fourier transforms leave noise of either sign in the tail, growing with the number of steps (a negative
    # mass of 4e-13 was seen at 14 thousand steps, 3e-12 at 200 thousand): it is added, and delta' must dwarf it.
    noise = 1e-13 + 1e-16 * steps
    if delta_prime < 10 * noise:
        raise Misuse(f"delta_prime {delta_prime:g} is below what the accountant resolves; give up {10 * noise:.1g}")
    top = loss.get_epsilon_for_delta(delta_prime - 2 * noise)
    if not top < _EPSILON_LIMIT:
        raise Misuse(f"z = {z} over {steps} steps exceeds epsilon {_EPSILON_LIMIT:g}: add noise or take fewer steps")
    epsilons = np.arange(0.0, max(top, 0.0) + 3 * _GRID_STEP, _GRID_STEP)
    deltas = np.asarray(loss.get_delta_for_epsilon(list(epsilons)), dtype=np.float64)
    return epsilons, deltas + noise


def _least_mu(epsilons: npt.NDArray[np.float64], deltas: npt.NDArray[np.float64], delta_prime: float) -> float:
    """Both curves fall with ε: a grid cell is safe if δ at its left end is covered at its right end."""
    import numpy as np  # noqa: PLC0415

    wanted = (deltas[:-1] - delta_prime) / (1 - delta_prime)
    if deltas[-1] > delta_prime:
        raise Misuse("the loss distribution was cut before its tail fell below delta_prime")
    right = epsilons[1:][wanted > 0]
    wanted = wanted[wanted > 0]
    if not len(wanted):
        return 0.0

    def covered(mu: float) -> bool:
        # delta_curve rounds up by 1e-12; ask for a little more than is needed.
        return bool(np.all(delta_curve(right, mu) >= wanted * (1 + 8 * _MARGIN)))

    low, high = mu_of_epsilon(float(right[0]), float(wanted[0])), 1.0
    while not covered(high):
        high *= 2
    low = min(low, high)
    while high - low > 1e-9 * high:
        middle = (low + high) / 2
        low, high = (low, middle) if covered(middle) else (middle, high)
    return high
