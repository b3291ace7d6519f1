"""What a construction hands on: a site's integer vector with the sensitivity it was built to have."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

__all__ = ["Contribution", "Float64Array", "Int64Array", "LocalReport"]

Float64Array = npt.NDArray[np.float64]
Int64Array = npt.NDArray[np.int64]


@dataclass(slots=True, repr=False)
class LocalReport:
    """Counts for the site's own log. They depend on the rows, so they never leave the site.

    Args:
        nonfinite: contributions with NaN or infinity, replaced by zero.
        unrounded: contributions of V whose tries ran out, so that they were truncated.
        zeroed: finite contributions that failed the integer norm test and were replaced by zero.
        clamped: numbers outside their public bounds, moved to the bound.
        saturated: coordinates of the site's sum beyond ±x_max.
    """

    nonfinite: int = 0
    unrounded: int = 0
    zeroed: int = 0
    clamped: int = 0
    saturated: int = 0

    def __repr__(self) -> str:
        return "LocalReport(<local only>)"

    def __reduce__(self) -> str:
        raise TypeError("a LocalReport stays where it was made; it cannot be pickled or copied")

    def lines(self) -> tuple[str, ...]:
        """One line for each count that is not zero, for the operator's eyes."""
        return tuple(f"{name}: {getattr(self, name)}" for name in self.__slots__ if getattr(self, name))


@dataclass(frozen=True, slots=True, repr=False)
class Contribution:
    """A sum of integer contributions, each within an L2 ball that was tested in integers.

    Args:
        vector: int64, any shape; the site's exact sum, not yet saturated and not yet noised.
        delta2: squared L2 sensitivity under adding or removing one unit, from public constants alone.
        dithered: the sum was rounded by construction D, so that each upload also costs its δ′.
        report: local counts.
    """

    vector: Int64Array
    delta2: int
    dithered: bool = False
    report: LocalReport = field(default_factory=LocalReport)

    @property
    def delta1(self) -> int:
        """L1 sensitivity, ⌊√(m·delta2)⌋ by Cauchy and Schwarz: a vector of integers has an integer L1 norm."""
        return math.isqrt(self.vector.size * self.delta2)

    def __repr__(self) -> str:
        return f"Contribution(shape={self.vector.shape}, delta2={self.delta2}, <redacted>)"

    def __reduce__(self) -> str:
        raise TypeError("a Contribution has no noise yet and must not leave; it cannot be pickled or copied")
