"""What one upload reveals and the noise that covers it: a value that is hashed into H0 and recomputed by sites."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import Annotated, ClassVar, Self

from privfl.codec import Bounds, Record, Value
from privfl.dp.accounting import additive_mu2, epsilon_of_cost, pure_epsilon_mu, root_up
from privfl.dp.cost import Cost, ceil_to_grid
from privfl.dp.units import Noise, Trust, Unit
from privfl.errors import Malformed, Misuse, Refused

__all__ = ["DITHER_BETA", "MIN_SIGMA_SITE", "SAMPLER_DELTA", "Block", "Release"]

#: Least noise of one site, in integer units; the convolution lemma is negligible from here on.
MIN_SIGMA_SITE = 4
#: δ′ of one dithered sum (construction D): its norm bound fails with at most this probability.
DITHER_BETA = Fraction(1, 10**12)
#: δ′ per coordinate for the samplers' distance 2^-100 from exact: covers (1 + e^ε)·h·2^-100 up to ε = 20 − ln h.
SAMPLER_DELTA = Fraction(1, 2**70)
#: Beyond this noise leaves the 64-bit ring.
MAX_SIGMA = 2.0**58
_Q16 = 1 << 16


@dataclass(frozen=True)
class Block(Record):
    """A stretch of the uploaded vector with one sensitivity and one noise.

    Args:
        name: what it is, e.g. ``"gradient"``; unique in its release.
        length: number of coordinates.
        delta2: squared L2 sensitivity of the unit's contribution, integer units.
        x_max: public bound at which each coordinate saturates before noise, integer units.
        sigma: standard deviation of the total honest noise (for Laplace noise its scale), integer units;
            rounded up to a multiple of 2^-16, which is how it is hashed.
        dithered: the sum was rounded by construction D, whose norm bound costs δ′.
        delta1: L1 sensitivity, needed for Laplace noise only.

    Raises:
        Misuse: a field that no release can have.
    """

    TAG: ClassVar[str] = "block"

    name: str
    length: int
    delta2: int
    x_max: int
    sigma: float
    dithered: bool = False
    delta1: int = 0

    def __post_init__(self) -> None:
        if not self.name:
            raise Misuse("a block needs a name")
        for field, value, low in (
            ("length", self.length, 1),
            ("delta2", self.delta2, 1),
            ("x_max", self.x_max, 1),
            ("delta1", self.delta1, 0),
        ):
            if not isinstance(value, int) or isinstance(value, bool) or value < low:
                raise Misuse(f"block {self.name}: {field} is {value!r}; it must be an integer of at least {low}")
        if not 0 < self.sigma <= MAX_SIGMA:
            raise Misuse(f"block {self.name}: sigma is {self.sigma}; it must be positive and at most 2^58")
        # Exact: below 2^37 a multiple of 2^-16 is a float, above it every float is such a multiple.
        object.__setattr__(self, "sigma", math.ceil(Fraction(self.sigma) * _Q16) / _Q16)

    @property
    def sigma_q16(self) -> int:
        """σ in units of 2^-16, exact."""
        return int(Fraction(self.sigma) * _Q16)

    def to_value(self) -> tuple[Value, ...]:
        """The encodable tuple; σ travels as its integer number of 2^-16."""
        fields = (self.name, self.length, self.delta2, self.x_max, self.sigma_q16, self.dithered, self.delta1)
        return (self.TAG, *fields)

    @classmethod
    def from_value(cls, value: object) -> Self:
        """Raises Malformed unless ``value`` is exactly what :meth:`to_value` makes."""
        wire = _WireBlock.from_value(value)
        try:
            sigma = wire.sigma_q16 / _Q16
            block = cls(wire.name, wire.length, wire.delta2, wire.x_max, sigma, wire.dithered, wire.delta1)
        except (Misuse, OverflowError) as error:
            raise Malformed(f"block: {error}") from None
        if block.sigma_q16 != wire.sigma_q16:
            raise Malformed("block.sigma_q16 has more digits than a sigma can have")
        return block


@dataclass(frozen=True)
class _WireBlock(Record):
    """The types of a block as it travels."""

    TAG: ClassVar[str] = Block.TAG

    name: Annotated[str, Bounds(1, 200)]
    length: int
    delta2: int
    x_max: int
    sigma_q16: int
    dithered: bool
    delta1: int


@dataclass(frozen=True)
class Release(Record):
    """One upload: its blocks, who is protected, and on whose noise the claim rests.

    Args:
        unit: what neighbouring datasets differ in.
        trust: ``local`` or ``distributed``.
        blocks: consecutive stretches of the vector.
        min_survivors: fewest sites whose sum may be opened (``distributed``).
        colluders: c, sites that may side with the coordinator (``distributed``).
        noise: Gaussian, or Laplace under ``local`` trust with pure ε.

    Raises:
        Misuse: no block, or two of one name; Laplace blocks without ``delta1``.
        Refused: fewer than two honest noise shares, σ per site below 4 units, Laplace under ``distributed``.
    """

    TAG: ClassVar[str] = "release"

    unit: Unit
    trust: Trust
    blocks: tuple[Block, ...]
    min_survivors: int = 1
    colluders: int = 0
    noise: Noise = Noise.GAUSSIAN

    def __post_init__(self) -> None:
        for field, kind in (("unit", Unit), ("trust", Trust), ("noise", Noise)):
            if _enum(kind, getattr(self, field)) not in tuple(kind):
                raise Misuse(f"{field} is {getattr(self, field)!r}; choose one of {', '.join(kind)}")
            object.__setattr__(self, field, kind(getattr(self, field)))
        if not self.blocks or len({block.name for block in self.blocks}) != len(self.blocks):
            raise Misuse("a release needs at least one block, and no two of one name")
        if self.min_survivors < 1 or self.colluders < 0:
            raise Misuse("min_survivors must be at least 1 and colluders at least 0")
        if self.trust is Trust.DISTRIBUTED and self.honest < 2:
            raise Refused(
                f"distributed trust with min_survivors {self.min_survivors} and {self.colluders} colluders leaves "
                f"{self.honest} honest noise share(s) and needs 2: raise min_survivors to "
                f"{max(1, self.colluders) + 2} or more, or use local trust"
            )
        if self.noise is Noise.LAPLACE:
            self._check_laplace()
            return
        for block in self.blocks:
            if self.sigma_site(block) < MIN_SIGMA_SITE:
                raise Refused(
                    f"block {block.name}: each site's noise would be {self.sigma_site(block):.3g} integer units and "
                    f"needs {MIN_SIGMA_SITE}: use a finer scale (a wider ring) or more noise"
                )

    def _check_laplace(self) -> None:
        if self.trust is not Trust.LOCAL:
            raise Refused("Laplace noise is for local trust with pure epsilon: a sum of shares is not Laplace")
        for block in self.blocks:
            if block.delta1 < 1:
                raise Misuse(f"block {block.name}: Laplace noise needs delta1, its L1 sensitivity")
            if block.dithered:
                raise Misuse(f"block {block.name}: a dithered sum has no L1 bound; use Gaussian noise")

    @property
    def honest(self) -> int:
        """h: noise shares the claim rests on; 1 under ``local``, min_survivors − max(1, c) otherwise."""
        return 1 if self.trust is Trust.LOCAL else self.min_survivors - max(1, self.colluders)

    @property
    def length(self) -> int:
        """Coordinates of the whole vector."""
        return sum(block.length for block in self.blocks)

    def sigma_site(self, block: Block) -> float:
        """σ that one site draws: σ/√h rounded up to a multiple of 2^-16, in exact integer arithmetic."""
        if self.noise is Noise.LAPLACE:
            return block.sigma
        square = -(-(block.sigma_q16**2) // self.honest)
        return _float_up(Fraction(math.isqrt(square - 1) + 1, _Q16))

    @property
    def mu2(self) -> Fraction:
        """μ² in the release's own unit, Σ Δ²/(σ² − 4) over blocks, rounded up to 10^-24."""
        if self.noise is Noise.LAPLACE:
            epsilon = sum(Fraction(block.delta1) / Fraction(block.sigma) for block in self.blocks)
            return ceil_to_grid(Fraction(pure_epsilon_mu(_float_up(Fraction(epsilon)))) ** 2)
        return sum((additive_mu2(block.delta2, Fraction(block.sigma)) for block in self.blocks), Fraction(0))

    @property
    def mu(self) -> float:
        """μ, rounded up."""
        return root_up(self.mu2)

    @property
    def delta(self) -> Fraction:
        """δ′ of one upload: the samplers' distance, and 10^-12 for each dithered block."""
        return self.length * SAMPLER_DELTA + sum(block.dithered for block in self.blocks) * DITHER_BETA

    @property
    def cost(self) -> Cost:
        """What one upload costs in the release's own unit."""
        return Cost(self.mu2, self.delta)

    def cost_in(self, unit: Unit, max_rows: int | None = None) -> Cost:
        """The cost of one upload counted in another unit.

        A contribution clipped for a larger unit may turn from one vector of norm Δ into another when a
        part of it changes: sensitivity 2Δ. A subject with at most ``max_rows`` rows costs that many times μ.

        Raises:
            Refused: the unit is larger than the one that was clipped, so that no finite cost exists.
        """
        if unit is self.unit:
            return self.cost
        order = (Unit.RECORD, Unit.SUBJECT, Unit.SITE)
        if order.index(unit) < order.index(self.unit):
            return Cost(4 * self.mu2, self.delta)
        if unit is Unit.SUBJECT and max_rows is not None and max_rows >= 1:
            return Cost(max_rows**2 * self.mu2, self.delta)
        hint = "; declare max_rows per subject or clip per subject" if unit is Unit.SUBJECT else ""
        raise Refused(f"contributions clipped per {self.unit} have no finite cost for the unit {unit}{hint}")

    @property
    def fallback_mu(self) -> float:
        """μ of a site's own records if everybody else colludes (about μ·√h), rounded up."""
        if self.honest == 1:
            return self.mu
        parts = (additive_mu2(block.delta2, Fraction(self.sigma_site(block))) for block in self.blocks)
        return root_up(sum(parts, Fraction(0)))

    def words(self, delta: float, uploads: int = 1) -> str:
        """The guarantee of ``uploads`` such uploads in plain sentences, for reports.

        Raises:
            Misuse: ``delta`` outside (0, 1) or not above the δ′ of the uploads.
        """
        epsilon = epsilon_of_cost(uploads * self.cost, delta)
        lines = [
            f"{uploads} upload(s): epsilon {epsilon:.3f} at delta {delta:g} (mu {root_up(uploads * self.mu2):.4f}).",
            f"Unit {self.unit}: {self.unit.neighbours}.",
            f"Trust {self.trust}: {self.trust.assumption}.",
        ]
        if self.trust is Trust.DISTRIBUTED:
            fallback = epsilon_of_cost(Cost(uploads * Fraction(self.fallback_mu) ** 2, uploads * self.delta), delta)
            lines.append(
                f"{self.honest} honest shares of noise, up to {max(1, self.colluders)} colluding sites; "
                f"if all other sites collude, epsilon is {fallback:.3f}."
            )
        return "\n".join(lines)

    @classmethod
    def from_value(cls, value: object) -> Self:
        """Raises Malformed for anything but a release, Refused for one that breaks a rule of noise."""
        if isinstance(value, tuple) and len(value) == 7:
            value = (value[0], _enum(Unit, value[1]), _enum(Trust, value[2]), *value[3:6], _enum(Noise, value[6]))
        try:
            return super().from_value(value)
        except Misuse as error:
            raise Malformed(f"release: {error}") from None


def _enum(kind: type[Unit] | type[Trust] | type[Noise], value: object) -> object:
    return kind(value) if isinstance(value, str) and value in tuple(kind) else value


def _float_up(value: Fraction) -> float:
    out = float(value)
    return out if Fraction(out) >= value else math.nextafter(out, math.inf)
