"""What an app's round sums, and its sensitivities: public constants alone.

A vector has up to three blocks. With w = min(n, W)/W the weight of a site's n examples, rounded to steps of 1/S:

========  ==============================================  ====================================================
update    r = round(s·R(w·clip(change, C))), construction S  Δ² = ⌈(sC)² + d/4 + sC + √d/2⌉, tested in integers
train     S·w, S·w·t₁ … S·w·t_k                             each in [0, S]: Δ² = (1 + k)·S²
evaluate  S·v, S·v·e₁ … S·v·e_m                             each in [0, S]: Δ² = (1 + m)·S²
========  ==============================================  ====================================================

t and e are the declared metrics, brought from their declared bounds to [0, 1]; R is a public rotation, or none. Where
all sites weigh the same, w and v are 1 and do not travel.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Annotated, ClassVar, Final

from privfl.codec import Bounds, Record
from privfl.dp import Release, bounded_delta2, least_scaled_clip, rounded_delta2
from privfl.errors import Misuse
from privfl.learn.planning import Layout
from privfl.learn.update_inputs import DTYPES, MAX_ARRAYS, ArrayShape
from privfl.ring import flatness

__all__ = ["EQUAL", "EXAMPLES", "Bounded", "Grain", "UpdateSpec", "bounded", "layout_of", "shorter"]

EXAMPLES, EQUAL = "examples", "equal"
MAX_PARAMETERS: Final = 1 << 26
MAX_METRICS: Final = 100


@dataclass(frozen=True)
class Bounded(Record):
    """A metric with its public bounds, as the shortest texts that read back the same."""

    TAG: ClassVar[str] = "metric"

    name: Annotated[str, Bounds(1, 200)]
    low: str
    high: str

    @classmethod
    def of(cls, name: str, low: float, high: float) -> Bounded:
        """From numbers; raises Misuse for bounds out of order."""
        if not (math.isfinite(low) and math.isfinite(high) and low < high):
            raise Misuse(f"metric {name!a:.80} has bounds ({low}, {high}); write finite ones, the lower first")
        if not 1 <= len(name) <= 200:
            raise Misuse("a metric has a name of at most 200 characters")
        return cls(name, repr(float(low)), repr(float(high)))

    @property
    def bounds(self) -> tuple[float, float]:
        """Both, as numbers."""
        return float(self.low), float(self.high)

    def share(self, value: float) -> float:
        """Where a value lies between the bounds, clamped to [0, 1]."""
        low, high = self.bounds
        return min(1.0, max(0.0, (min(high, max(low, value)) - low) / (high - low)))

    def value(self, share: float) -> float:
        """The value at a share, clamped to the bounds: noise may have carried it beyond."""
        low, high = self.bounds
        return min(high, max(low, low + share * (high - low)))


def bounded(metrics: Mapping[str, tuple[float, float]]) -> tuple[Bounded, ...]:
    """Metrics from names and bounds; raises Misuse for bounds that are none."""
    found = []
    for name, bounds in metrics.items():
        try:
            low, high = (float(value) for value in bounds)
        except (TypeError, ValueError):
            raise Misuse(f"metric {name!a:.80}: write its bounds as two numbers, such as (0, 1)") from None
        found.append(Bounded.of(name, low, high))
    return tuple(found)


@dataclass(frozen=True)
class UpdateSpec:
    """What is summed, before any number is chosen by the planner.

    Args:
        arrays: names, shapes and types of the model.
        clip: C, bound of the L2 norm of a site's change of all arrays together.
        weights: ``examples`` (sites weigh by their number of examples, up to ``cap``) or ``equal``.
        cap: W, the number of examples from which on a site has full weight.
        weighted_by: name of the metric that tells the number of examples.
        train, evaluate: metrics that travel, with bounds. evaluates: whether the model is evaluated at all.

    Raises:
        Misuse: anything out of range.
    """

    arrays: tuple[ArrayShape, ...]
    clip: float
    weights: str = EXAMPLES
    cap: int = 0
    weighted_by: str = "num-examples"
    train: tuple[Bounded, ...] = ()
    evaluate: tuple[Bounded, ...] = ()
    evaluates: bool = True
    length: int = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "length", sum(shape.size for shape in self.arrays))
        if not 1 <= self.length <= MAX_PARAMETERS or len(self.arrays) > MAX_ARRAYS:
            raise Misuse(f"a model of {self.length} parameters cannot be sent; 1 to {MAX_PARAMETERS} can")
        if len({shape.name for shape in self.arrays}) != len(self.arrays):
            raise Misuse("two arrays of the model have one name")
        if any(shape.dtype not in DTYPES for shape in self.arrays):
            raise Misuse("an array of the model holds something that cannot be averaged")
        if not (math.isfinite(self.clip) and self.clip > 0):
            raise Misuse(f"clip is {self.clip}; write the largest L2 norm that a site's change of the model may have")
        if self.weights not in (EXAMPLES, EQUAL):
            raise Misuse(f"weights is {self.weights!a:.40}; write examples or equal")
        if (self.weights == EXAMPLES) != (1 <= self.cap <= 1 << 53):
            raise Misuse(
                "say max_examples: the number of examples from which on a site has full weight, at least 1; or "
                "weights='equal', and no max_examples"
            )
        for metrics in (self.train, self.evaluate):
            names = {one.name for one in metrics}
            if len(names) != len(metrics) or len(metrics) > MAX_METRICS or self.weighted_by in names:
                raise Misuse(
                    f"metrics have names of their own, other than {self.weighted_by!a:.80}, at most {MAX_METRICS}"
                )
        if self.evaluate and not self.evaluates:
            raise Misuse("metrics of an evaluation are declared, and the strategy evaluates nothing")

    @property
    def weighted(self) -> bool:
        """Whether weights travel."""
        return self.weights == EXAMPLES


@dataclass(frozen=True)
class Grain:
    """How fine numbers become integers: s = 2^scale per unit of change, S = 2^fine per 1 of a weight; R or none."""

    scale: int
    fine: int
    rotated: bool

    def top(self, length: int) -> float:
        """The largest coordinate of a vector of norm 1, but for a chance of 1e-6 over the public rotation."""
        return flatness(length) if self.rotated else 1.0

    @property
    def kappa(self) -> float:
        """Standard deviations of noise for which the ring has room."""
        return 4.0 if self.rotated else 8.0


def layout_of(spec: UpdateSpec, grain: Grain) -> tuple[Layout, ...]:
    """The blocks with their sensitivities, from public constants alone.

    Raises:
        Misuse: the scale is too coarse for so many parameters, or too fine for 64 bits.
    """
    scaled = math.ldexp(spec.clip, grain.scale)
    if not 0 <= grain.fine <= 24 or not -60 <= grain.scale <= 200:
        raise Misuse("the scales of an app's training are out of range")
    if not least_scaled_clip(spec.length) <= scaled < 2.0**60:
        raise Misuse(f"a scale of 2^{grain.scale} does not fit {spec.length} parameters and a clip of {spec.clip:g}")
    delta2 = rounded_delta2(spec.length, math.ldexp(1.0, grain.scale), spec.clip)
    blocks = [Layout("update", spec.length, delta2, math.ceil(grain.top(spec.length) * scaled) + 1)]
    whole = 1 << grain.fine
    for name, metrics in (("train", spec.train), ("evaluate", spec.evaluate)):
        count = len(metrics) + (spec.weighted and (name == "train" or spec.evaluates))
        if count:
            blocks.append(Layout(name, count, bounded_delta2(count, whole), whole))
    return tuple(blocks)


def shorter(release: Release) -> Release:
    """What a slot of metrics alone reveals: the block of the evaluation, with the same noise."""
    blocks = tuple(block for block in release.blocks if block.name == "evaluate")
    return replace(release, blocks=blocks)
