"""Turning a budget into noise, noise into ε, and a budget into a number of rounds.

All plans are for the filter of :mod:`privfl.budget`: what is planned here is admitted there.
"""

from __future__ import annotations

import math
from fractions import Fraction

from privfl.dp.accounting import epsilon_of_cost, mu_for_budget, root_up
from privfl.dp.cost import Cost, floor_to_grid
from privfl.dp.subsampled import dp_sgd_cost
from privfl.errors import Misuse, Refused

__all__ = [
    "METRICS_SHARE",
    "dp_sgd_multiplier_for",
    "epsilon_for",
    "mu2_per_upload",
    "noise_multiplier_for",
    "rounds_for",
    "sigma_for",
    "sigma_of_mu2",
    "split_mu2",
]

#: The part of a round's μ² that its block of metrics takes unless the task says otherwise.
METRICS_SHARE = Fraction(1, 20)
_Q16 = 1 << 16


def mu2_per_upload(epsilon: float, delta: float, uploads: int) -> Fraction:
    """μ² that each of ``uploads`` equal uploads may cost under a total of (ε, δ), rounded down.

    Args:
        uploads: every upload that may be charged, repeated attempts included.

    Raises:
        Misuse: no upload at all, or an (ε, δ) that is no budget.
    """
    if uploads < 1:
        raise Misuse(f"uploads is {uploads}; plan at least one")
    return floor_to_grid(mu_for_budget(epsilon, delta)[0] / uploads)


def sigma_of_mu2(mu2: Fraction, delta2: int) -> float:
    """Least σ, in steps of 2^-16 integer units, whose block costs at most ``mu2``: σ² = Δ²/μ² + 4.

    Raises:
        Misuse: μ² or Δ² not positive, or σ beyond floating point.
    """
    if mu2 <= 0 or delta2 < 1:
        raise Misuse("mu2 and delta2 must be positive: without a share of the budget no noise is enough")
    square = (Fraction(delta2) / mu2 + 4) * _Q16**2
    steps = math.isqrt(math.ceil(square) - 1) + 1
    sigma = steps / _Q16
    return sigma if Fraction(sigma) * _Q16 >= steps else math.nextafter(sigma, math.inf)


def sigma_for(
    epsilon: float, delta: float, uploads: int, delta2: int, *, share: Fraction | float = 1, delta_prime: float = 0.0
) -> float:
    """σ of the total honest noise (integer units) of one block so that all uploads fit (ε, δ).

    Args:
        epsilon, delta: the total.
        uploads: T, attempts included.
        delta2: squared L2 sensitivity of the block, integer units.
        share: this block's part of each upload's μ², see :func:`split_mu2`.
        delta_prime: δ′ of one upload (:attr:`privfl.dp.Release.delta`).

    Raises:
        Misuse: an argument out of range.
        Refused: the uploads' δ′ alone exceeds the tenth of δ kept for it.

    >>> round(sigma_for(2.0, 1e-5, 30, 10**12) / 1e6, 2)
    10.98
    """
    if not 0 < share <= 1:
        raise Misuse(f"share is {float(share)}; it must lie in (0, 1]")
    slack = mu_for_budget(epsilon, delta)[1]
    if Fraction(delta_prime) * uploads > slack:
        raise Refused(
            f"{uploads} uploads charge delta' {delta_prime * uploads:.3g} and {float(slack):.3g} is kept for it: "
            "plan fewer uploads or a larger delta"
        )
    return sigma_of_mu2(mu2_per_upload(epsilon, delta, uploads) * Fraction(share), delta2)


def noise_multiplier_for(epsilon: float, delta: float, uploads: int = 1) -> float:
    """z = σ/Δ in the limit of fine integer units, rounded up; see :func:`sigma_for` for the real thing."""
    return root_up(1 / mu2_per_upload(epsilon, delta, uploads))


def epsilon_for(cost: Cost, uploads: int, delta: float) -> float:
    """ε of ``uploads`` uploads at ``cost`` each, at a total of ``delta``, rounded up.

    Raises:
        Misuse: δ outside (0, 1) or not above the uploads' δ′; a negative number of uploads.
    """
    if uploads < 0:
        raise Misuse(f"uploads is {uploads}; it cannot be negative")
    return epsilon_of_cost(uploads * cost, delta)


def rounds_for(cost: Cost, epsilon: float, delta: float, *, attempts: int = 1) -> int:
    """How many rounds of at most ``attempts`` charged uploads each fit a total of (ε, δ); 0 if none.

    Raises:
        Misuse: no budget, no attempt, or a cost of zero (no limit exists).
    """
    if attempts < 1 or cost.mu2 == 0:
        raise Misuse("rounds need at least one attempt and a positive cost")
    mu2, slack = mu_for_budget(epsilon, delta)
    fits = mu2 // (attempts * cost.mu2)
    return int(min(fits, slack // (attempts * cost.delta)) if cost.delta else fits)


def split_mu2(mu2: Fraction, shares: dict[str, Fraction | float] | None = None) -> dict[str, Fraction]:
    """Divide one upload's μ² among its blocks; the parts never add up to more.

    Args:
        mu2: what the upload may cost.
        shares: part of each block, summing to at most 1; by default 5 % for ``metrics``, the rest for ``update``.

    Raises:
        Misuse: a share not positive, or shares above 1 together.
    """
    named = shares if shares is not None else {"update": 1 - METRICS_SHARE, "metrics": METRICS_SHARE}
    parts = {name: Fraction(share) for name, share in named.items()}
    total = sum(parts.values(), Fraction(0))
    if not parts or min(parts.values()) <= 0 or total > 1 + Fraction(1, 10**12):
        raise Misuse("shares of a round must be positive and add up to at most 1")
    scale = max(total, Fraction(1))
    return {name: floor_to_grid(mu2 * share / scale) for name, share in parts.items()}


def dp_sgd_multiplier_for(epsilon: float, delta: float, q: float, steps: int) -> float:
    """Least effective noise multiplier z (within 0.1 %, rounded up) whose whole block fits (ε, δ).

    A tenth of δ is given up in the conversion: it is exactly the slack the filter keeps.

    Raises:
        Misuse: an argument out of range, or no z up to 2^20 is enough.
    """
    if not 0 < q <= 1 or steps < 1:
        raise Misuse(f"q = {q}, steps = {steps}: need 0 < q <= 1 and at least one step")
    mu2, slack = mu_for_budget(epsilon, delta)
    prime = math.nextafter(float(slack), 0.0)

    def fits(z: float) -> bool:
        try:
            return dp_sgd_cost(q, z, steps, prime).mu2 <= mu2
        except Misuse:
            if z > 2**20:
                raise
            return False  # ε beyond what the accountant resolves

    # Start where the central limit theorem for subsampled composition points (Bu et al. 2020).
    high = 1 / math.sqrt(math.log1p(float(mu2) / (q * q * steps)))
    while not fits(high):
        high *= 1.1
    low = high / 1.1
    while fits(low):
        high, low = low, low / 1.1
    while high > low * 1.001:
        middle = math.sqrt(low * high)
        low, high = (low, middle) if fits(middle) else (middle, high)
    return high
