"""The public numbers of a run, computed from budget, sizes and settings alone, and how they travel."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import ClassVar

from privfl.codec import Record
from privfl.dp import Block, Release, Trust, Unit, sigma_of_mu2
from privfl.errors import Misuse, Refused
from privfl.ring import Ring
from privfl.tasks.schema import Schema

__all__ = [
    "Descriptor",
    "Layout",
    "Plan",
    "check_sizes",
    "check_unit",
    "number_of",
    "plan_release",
    "plan_ring",
    "signal_to_noise",
    "site_noise",
    "subject_rows",
    "text_of",
]


@dataclass(frozen=True, slots=True)
class Plan:
    """The public numbers of a run.

    Attributes:
        epsilon, delta: the total that ``rounds`` uploads of every site stay within; None without noise.
        rounds: uploads planned for each site, repeated attempts included.
        sites: how many may upload in one round.
        release: what one upload reveals; None only where no noise was asked for by name.
        ring: where the sum lives.
        unit: whose contribution the blocks bound. It travels in the release, whose unit is this one.
    """

    epsilon: float | None
    delta: float | None
    rounds: int
    sites: int
    release: Release | None
    ring: Ring
    unit: Unit = Unit.RECORD


@dataclass(frozen=True, slots=True)
class Layout:
    """One block of a task before its noise is known: name, length, squared sensitivity, saturation bound."""

    name: str
    length: int
    delta2: int
    x_max: int


@dataclass(frozen=True)
class Descriptor(Record):
    """A task as it travels; numbers with fractions are the shortest text that reads back the same."""

    TAG: ClassVar[str] = "task"

    kind: str
    schema: str
    spec: str
    epsilon: str | None
    delta: str | None
    rounds: int
    sites: int
    bits: int
    word: int
    strategy: str
    settings: tuple[tuple[str, str], ...]
    release: Release | None


def text_of(value: float | None) -> str | None:
    return None if value is None else repr(float(value))


def number_of(text: str | None) -> float | None:
    if text is None:
        return None
    value = float(text)
    if not math.isfinite(value):
        raise ValueError("a number is not finite")
    return value


def signal_to_noise(block: Layout, release: Release, records: int, sites: int, rounds: int, rows: int = 1) -> float:
    """√rounds · records·Δ / (σ of the summed noise · √length): how far a whole run can stand above its noise.

    ``rows`` are those that Δ covers: what one record says is Δ/rows.
    """
    noise = release.sigma_site(release.blocks[0]) * math.sqrt(sites * block.length)
    return math.sqrt(rounds) * records * math.sqrt(block.delta2) / rows / noise


def plan_release(
    layout: Sequence[Layout],
    mu2: Fraction,
    metrics: float,
    unit: Unit,
    trust: Trust | str,
    sites: int,
    min_survivors: int | None,
    colluders: int,
) -> Release:
    fewest = min_survivors if min_survivors is not None else max(sites - 1, min(sites, colluders + 2))
    if not 1 <= fewest <= sites or colluders < 0:
        raise Misuse(f"min_survivors {fewest} and {colluders} colluders do not fit {sites} sites")
    shares = {"metrics": Fraction(metrics)}
    blocks = []
    for part in layout:
        share = shares.get(part.name, 1 - Fraction(metrics))
        sigma = sigma_of_mu2(mu2 * share, part.delta2)
        blocks.append(Block(part.name, part.length, part.delta2, part.x_max, sigma))
    try:
        kind = Trust(trust)
    except ValueError:
        raise Misuse(f"trust is {trust!r}; choose {' or '.join(Trust)}") from None
    return Release(unit, kind, tuple(blocks), fewest, colluders)


def site_noise(release: Release) -> dict[str, float]:
    return {block.name: release.sigma_site(block) for block in release.blocks}


def plan_ring(layout: Sequence[Layout], sigmas: Mapping[str, float], sites: int, bits: int | None) -> Ring:
    """The least ring for every block, or the one asked for if it is wide enough."""
    least = max(Ring.fit(sites, part.x_max, sigmas.get(part.name, 0.0)).bits for part in layout)
    if bits is not None and bits < least:
        raise Refused(
            f"ring too small for the sum: {sites} sites need {least} bits and {bits} were asked for; "
            f"ask for {least}, or use fewer feature_bits and residual_bits"
        )
    return Ring.of(bits if bits is not None else least)


def check_sizes(rounds: int, sites: int, *, alone: bool = False) -> None:
    """``alone`` admits one site, for the baseline of a site that trains by itself under its own full noise."""
    if sites < (1 if alone else 2):
        raise Misuse("one site only: a federation needs at least two, or there is nothing to hide a sum in")
    if rounds < 1:
        raise Misuse(f"rounds is {rounds}; plan at least one")


def check_unit(asked: Unit | str | None, own: tuple[Unit, ...], schema: Schema) -> Unit:
    """The unit to compile for: the one asked for, or the first of the task's own.

    Raises:
        Refused: the task cannot bound contributions of that unit. Misuse: the schema tells no subjects.
    """
    if asked is None:
        return own[0]
    if asked not in own:
        can = " or ".join(own)
        raise Refused(f"this task protects the unit {can} and {asked} was asked for; choose another task or unit")
    if asked == Unit.SUBJECT:
        subject_rows(schema)
    return Unit(asked)


def subject_rows(schema: Schema) -> int:
    """Rows of one subject that are used at most; raises Misuse where rows have no subjects."""
    if schema.subject is None:
        raise Misuse(
            f"the unit subject needs to know whose row is whose: {schema!r} names no subject column; declare "
            "subject (the column of ids) and max_rows in the schema"
        )
    return schema.max_rows
