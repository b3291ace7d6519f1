"""The one currency: a charge of μ² (Gaussian differential privacy) and δ′, as exact decimals rounded up."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from typing import Self, TypeAlias

from privfl.errors import Malformed, Misuse

__all__ = ["GRID", "ZERO_COST", "Cost", "Number", "ceil_to_grid", "floor_to_grid"]

Number: TypeAlias = "int | float | Fraction | Decimal"

#: Charges are whole multiples of 10^-24, so that sums are exact and a stored decimal is the value itself.
GRID = 10**24
_DECIMAL = re.compile(r"(0|[1-9][0-9]{0,29})(?:\.([0-9]{0,23}[1-9]))?")


def _fraction(value: Number, what: str) -> Fraction:
    if isinstance(value, (float, Decimal)) and not math.isfinite(value):
        raise Misuse(f"{what} is {value}; a release without a finite cost cannot be charged")
    if value < 0:
        raise Misuse(f"{what} is negative ({value}); costs only ever add up")
    return Fraction(value)


def ceil_to_grid(value: Number, what: str = "a cost") -> Fraction:
    """Round a finite number ≥ 0 up to a multiple of 10^-24.

    Raises:
        Misuse: negative, infinite or NaN.

    >>> float(ceil_to_grid(Fraction(1, 3))) >= 1 / 3
    True
    """
    return Fraction(math.ceil(_fraction(value, what) * GRID), GRID)


def floor_to_grid(value: Number, what: str = "a limit") -> Fraction:
    """Round a finite number ≥ 0 down to a multiple of 10^-24; raises Misuse as :func:`ceil_to_grid` does."""
    return Fraction(math.floor(_fraction(value, what) * GRID), GRID)


@dataclass(frozen=True)
class Cost:
    """What one upload (or one block of steps) costs, in one unit of privacy.

    The two laws P, Q of everything it lets out, on neighbouring data, satisfy, in both directions and
    for all ε ≥ 0, δ(ε) ≤ δ′ + (1 − δ′)·δ_G(ε; μ). Costs compose by adding both fields.

    Args:
        mu2: μ², rounded up to the grid on construction.
        delta: δ′ in [0, 1), rounded up likewise.
    """

    mu2: Fraction
    delta: Fraction = Fraction(0)

    def __init__(self, mu2: Number, delta: Number = 0) -> None:
        object.__setattr__(self, "mu2", ceil_to_grid(mu2, "mu2"))
        object.__setattr__(self, "delta", ceil_to_grid(delta, "delta"))
        if self.delta >= 1:
            raise Misuse(f"delta' is {float(self.delta)}; a charge of 1 or more promises nothing")

    def __add__(self, other: Cost) -> Cost:
        return Cost(self.mu2 + other.mu2, self.delta + other.delta)

    def __mul__(self, times: int) -> Cost:
        return Cost(self.mu2 * times, self.delta * times)

    __rmul__ = __mul__

    def to_decimals(self) -> tuple[str, str]:
        """Return (μ², δ′) as canonical decimal strings, exact.

        >>> Cost(Fraction(1, 4), 1e-12).to_decimals()[0]
        '0.25'
        """
        return _decimal(self.mu2), _decimal(self.delta)

    @classmethod
    def from_decimals(cls, mu2: str, delta: str) -> Self:
        """Read back :meth:`to_decimals`; raises Malformed for any other spelling."""
        return cls(_parse(mu2, "mu2"), _parse(delta, "delta"))


ZERO_COST = Cost(0)


def _decimal(value: Fraction) -> str:
    whole, rest = divmod(int(value * GRID), GRID)
    digits = f"{rest:024d}".rstrip("0")
    return f"{whole}.{digits}" if digits else str(whole)


def _parse(text: str, what: str) -> Fraction:
    match = _DECIMAL.fullmatch(text)
    if match is None:
        raise Malformed(f"{what} is not a canonical decimal with at most 24 places")
    whole, places = match.group(1), match.group(2) or ""
    return Fraction(int(whole + places), 10 ** len(places))
