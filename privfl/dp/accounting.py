"""Gaussian differential privacy: from μ to (ε, δ) and back, and the costs that are closed formulas.

Every function rounds against the spender: costs, ε and δ up, an admissible μ down. The curve is
δ(ε, μ) = Φ(−ε/μ + μ/2) − e^ε·Φ(−ε/μ − μ/2) (Dong, Roth, Su 2022, corollary 2.13; Balle and Wang 2018).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction
from typing import TYPE_CHECKING

from privfl.dp.cost import Cost, ceil_to_grid, floor_to_grid
from privfl.errors import Misuse

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

__all__ = [
    "additive_mu2",
    "delta_curve",
    "delta_of",
    "delta_only_cost",
    "epsilon_of_cost",
    "epsilon_of_mu",
    "gaussian_cost",
    "mu_for_budget",
    "mu_of_epsilon",
    "pure_epsilon_mu",
    "root_up",
]

#: Relative room for the rounding of float64 special functions, far above what mpmath shows (tests).
_MARGIN = 1e-12
#: ε withheld from every budget; it pays the factors e^±2e-34 per coordinate of the convolution lemma.
EPSILON_SLACK = 1e-9


def delta_curve(epsilon: npt.NDArray[np.float64], mu: float) -> npt.NDArray[np.float64]:
    """δ of Gaussian differential privacy on an array of ε ≥ 0, rounded up; same shape.

    With x = ε/μ − μ/2, e^ε·φ(x + μ) = φ(x), hence δ = φ(x)·(R(x) − R(x + μ)), R being Mills' ratio:
    nothing cancels but two values of R, and that error is bounded and added.
    """
    import numpy as np  # noqa: PLC0415
    from scipy.special import erfcx, log_ndtr  # noqa: PLC0415

    x = np.asarray(epsilon, dtype=np.float64) / mu - mu / 2
    near = np.maximum(x, -5.0)
    first = math.sqrt(math.pi / 2) * erfcx(near / math.sqrt(2))
    second = math.sqrt(math.pi / 2) * erfcx((near + mu) / math.sqrt(2))
    density = np.exp(-near * near / 2) / math.sqrt(2 * math.pi)
    small = density * (first - second + 2.0**-49 * first)
    # Below −5, μ exceeds 10 and the two terms of the plain formula are far apart.
    far = np.minimum(x, -5.0)
    large = np.exp(log_ndtr(-far)) - np.exp(np.minimum(mu * (far + mu / 2) + log_ndtr(-far - mu), 0.0))
    out = np.where(x < -5.0, large + _MARGIN, small * (1 + _MARGIN))
    return np.asarray(np.clip(out, 0.0, 1.0), dtype=np.float64)


def delta_of(epsilon: float, mu: float) -> float:
    """δ at one ε ≥ 0 of a μ-Gaussian-private mechanism, rounded up.

    Raises:
        Misuse: a negative or non-finite ε or μ.

    >>> round(delta_of(1.0, 1.0), 6)
    0.126937
    """
    import numpy as np  # noqa: PLC0415

    _require("epsilon", epsilon, 0.0, math.inf)
    _require("mu", mu, 0.0, math.inf)
    return float(delta_curve(np.array([epsilon]), mu)[0]) if mu > 0 else 0.0


def epsilon_of_mu(mu: float, delta: float) -> float:
    """The ε that a μ-Gaussian-private mechanism has at ``delta`` in (0, 1), rounded up.

    Raises:
        Misuse: μ negative or not finite, δ outside (0, 1).

    >>> round(epsilon_of_mu(1.0, 1e-5), 4)
    4.3772
    """
    _require("mu", mu, 0.0, math.inf)
    _require_open("delta", delta)
    if mu == 0 or delta_of(0.0, mu) <= delta:
        return 0.0
    # The loss is N(μ²/2, μ²): beyond this ε its upper tail alone is below δ.
    top = mu * mu / 2 + mu * math.sqrt(2 * math.log(1 / delta)) + 1e-6
    return _bisect(lambda epsilon: delta_of(epsilon, mu) <= delta, 0.0, top)[1]


def mu_of_epsilon(epsilon: float, delta: float) -> float:
    """The largest μ whose curve passes under (``epsilon``, ``delta``), rounded down.

    Raises:
        Misuse: ε negative or not finite, δ outside (0, 1).

    >>> round(1 / mu_of_epsilon(1.0, 1e-5), 5)
    3.73063
    """
    _require("epsilon", epsilon, 0.0, math.inf)
    _require_open("delta", delta)
    top = 1.0
    while delta_of(epsilon, top) <= delta:
        top *= 2
    return _bisect(lambda mu: mu > 0 and delta_of(epsilon, mu) > delta, 0.0, top)[0]


def mu_for_budget(epsilon: float, delta: float) -> tuple[Fraction, Fraction]:
    """Turn a total (ε, δ) into the filter's limits (μ², δ′ slack), both rounded down.

    A tenth of δ is kept for charges of δ′; the rest is met by the curve at ε − 10⁻⁹.

    Raises:
        Misuse: ε not above 10⁻⁹ or not finite, δ outside (0, 1).
    """
    _require("epsilon", epsilon, 2 * EPSILON_SLACK, math.inf)
    _require_open("delta", delta)
    slack = floor_to_grid(Fraction(delta) / 10)
    mu = mu_of_epsilon(epsilon - EPSILON_SLACK, math.nextafter(delta - float(slack), 0.0))
    return floor_to_grid(Fraction(mu) ** 2), slack


def additive_mu2(delta2: int, sigma: Fraction | float) -> Fraction:
    """μ² of one block of integer Gaussian noise: Δ²/(σ² − 4), rounded up to the grid.

    σ² − 4 makes the discrete Gaussian a post-processing of a continuous one (docs/privacy.md, lemma 1).

    Args:
        delta2: squared L2 sensitivity in integer units.
        sigma: standard deviation of the total honest noise in integer units, at least 4.

    Raises:
        Misuse: σ below 4 or Δ² negative.
    """
    if not 4 <= sigma < math.inf:
        raise Misuse(f"sigma is {float(sigma):g} integer units; at least 4 are needed: raise the scale or the noise")
    return ceil_to_grid(Fraction(delta2) / (Fraction(sigma) ** 2 - 4))


def gaussian_cost(delta2: int, sigma: Fraction | float, delta: Fraction | float = 0) -> Cost:
    """The cost of a single block; see :func:`additive_mu2`."""
    return Cost(additive_mu2(delta2, sigma), delta)


def pure_epsilon_mu(epsilon: float) -> float:
    """The least μ that covers pure ε: −2·Φ⁻¹(1/(1 + e^ε)), rounded up.

    The trade-off curve of pure ε consists of chords of G_μ that meet at its fixed point.

    Raises:
        Misuse: ε negative or not finite.

    >>> round(pure_epsilon_mu(1.0), 4)
    1.232
    """
    import numpy as np  # noqa: PLC0415
    from scipy.special import ndtri_exp  # noqa: PLC0415

    _require("epsilon", epsilon, 0.0, math.inf)
    if epsilon == 0:
        return 0.0
    quantile = float(ndtri_exp(-np.logaddexp(0.0, epsilon)))
    return -2 * quantile * (1 + _MARGIN) + 1e-15


def delta_only_cost(k: int, sigma: float, delta: float) -> Cost:
    """The cost (k/σ², δ′) of a release that is √k/σ-Gaussian-private but for an event of probability δ′.

    Args:
        k: how many unit changes one person causes at most, e.g. cells of a thresholded histogram.
        sigma: noise per unit change; the caller has already taken the 4 off when it is discrete.
        delta: probability of the event, in [0, 1).

    Raises:
        Misuse: k below 1 or σ not positive.
    """
    if k < 1 or not 0 < sigma < math.inf:
        raise Misuse(f"k = {k}, sigma = {sigma}: need k at least 1 and a positive finite sigma")
    return Cost(Fraction(k) / Fraction(sigma) ** 2, delta)


def epsilon_of_cost(cost: Cost, delta: float) -> float:
    """ε of everything a (composed) cost pays for, at a total of ``delta``, rounded up.

    Raises:
        Misuse: δ outside (0, 1), or not above the δ′ already spent.
    """
    _require_open("delta", delta)
    rest = (Fraction(delta) - cost.delta) / (1 - cost.delta)
    if rest <= 0:
        raise Misuse(f"delta {delta:g} is not above the {float(cost.delta):g} already charged; report a larger delta")
    return epsilon_of_mu(root_up(cost.mu2), math.nextafter(float(rest), 0.0))


def root_up(value: Fraction) -> float:
    """A float not below the square root of ``value`` ≥ 0."""
    root = math.sqrt(value)
    while Fraction(root) ** 2 < value:
        root = math.nextafter(root, math.inf)
    return root


def _bisect(above: Callable[[float], bool], low: float, high: float) -> tuple[float, float]:
    """Shrink [low, high] around the one switch of a monotone predicate, true at ``high``, to neighbouring floats."""
    while True:
        middle = (low + high) / 2
        if not low < middle < high or high - low <= 1e-14 * high:
            return low, high
        if above(middle):
            high = middle
        else:
            low = middle


def _require(name: str, value: float, low: float, high: float) -> None:
    if not (low <= value < high):
        raise Misuse(f"{name} is {value}; it must be finite and at least {low:g}")


def _require_open(name: str, value: float) -> None:
    if not 0 < value < 1:
        raise Misuse(f"{name} is {value}; it must lie strictly between 0 and 1, e.g. 1e-5")
