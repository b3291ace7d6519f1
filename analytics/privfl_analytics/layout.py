"""A study's vectors: which blocks each stage sums, what each block costs, and the noise that follows.

Everything here is a function of study, schema, sizes and budget; a site computes it again (:mod:`.question`).
A *stage* is one slot. Queries whose statistic shows single sites come after all others, in stages of their own
under ``local`` trust, in which every site fills its own stretch.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import TYPE_CHECKING

from privfl.dp import (
    Block,
    Cost,
    Release,
    Trust,
    Unit,
    epsilon_of_mu,
    largest_x_max,
    mu_for_budget,
    sigma_of_mu2,
)
from privfl.dp.cost import floor_to_grid
from privfl.dp.release import MIN_SIGMA_SITE
from privfl.errors import Misuse, Refused
from privfl.ring import Ring
from privfl_analytics.conditions import Condition
from privfl_analytics.constructions import Construction, Keys, Tally
from privfl_analytics.view import View

if TYPE_CHECKING:
    from privfl_analytics.query import Query
    from privfl_analytics.study import Study

__all__ = [
    "MAX_LENGTH",
    "RING",
    "Part",
    "Setting",
    "Stage",
    "check_unit",
    "fewest_survivors",
    "honest_shares",
    "key_cost",
    "key_threshold",
    "least_epsilon",
    "noise_of_sum",
    "plan_releases",
    "release_of",
    "rows_of",
    "stages_of",
    "total_cost",
    "x_max_of",
]

#: Where every sum of a study lives.
RING = Ring.of(64)
#: Coordinates of one upload at most, all stretches together.
MAX_LENGTH = 1 << 24
MAX_STAGES = 64
#: The declared number of records is rough: a site's sum saturates only beyond so many times it.
ROOM = 16


@dataclass(frozen=True, slots=True)
class Setting:
    """Sizes and trust of a study's run.

    Attributes:
        sites: how many may upload in one slot, at most.
        trust: of the stages that are summed over sites.
        unit: record or subject.
        min_survivors, colluders: what distributed noise rests on.
    """

    sites: int
    trust: Trust
    unit: Unit
    min_survivors: int
    colluders: int


@dataclass(frozen=True, slots=True)
class Part:
    """One block of a stage.

    Attributes:
        name: of the block in the release.
        query, step, place: of which query, which of its statistic's stages, which construction.
        construction: for every group; planned without a state.
        condition: rows that count.
        share: part of the study's μ².
    """

    name: str
    query: int
    step: int
    place: int
    construction: Construction
    condition: Condition | None
    share: Fraction

    @property
    def keys(self) -> bool:
        """Whether the block is names of values, to which the site itself adds noise."""
        return isinstance(self.construction, Keys)


@dataclass(frozen=True, slots=True)
class Stage:
    """One slot: its blocks in order, and whether every site fills its own stretch."""

    own: bool
    parts: tuple[Part, ...]

    @property
    def steps(self) -> Mapping[int, int]:
        """Query → which of its statistic's stages this is."""
        return {part.query: part.step for part in self.parts}

    def length(self, view: View) -> int:
        """Coordinates of one stretch."""
        return sum(part.construction.length(view) for part in self.parts)


def stages_of(study: Study, view: View) -> tuple[Stage, ...]:
    """The blocks of every stage.

    Raises:
        Misuse: a query does not fit the schema; the message names it.
    """
    whole = sum((Fraction(query.weight) for query in study.queries), Fraction(0))
    slots: dict[tuple[bool, int], list[Part]] = {}
    for at, query in enumerate(study.queries):
        try:
            query.check(view)
            found = _parts(at, study.names[at], query, view, whole)
        except Misuse as error:
            raise type(error)(f"query {study.names[at]!r}: {error}") from None
        for part in found:
            slots.setdefault((query.asked.local, part.step), []).append(part)
    if len(slots) > MAX_STAGES:
        raise Misuse(f"the study takes {len(slots)} rounds and at most {MAX_STAGES} are possible; ask for fewer steps")
    return tuple(Stage(own, tuple(slots[own, step])) for own, step in sorted(slots))


def _parts(at: int, name: str, query: Query, view: View, whole: Fraction) -> list[Part]:
    weights = [[Fraction(one) for one in stage] for stage in query.asked.weights(view)]
    total = sum((one for stage in weights for one in stage), Fraction(0))
    found = []
    for step in range(query.asked.stages(view)):
        constructions = query.constructions(view, step)
        if len(weights) != query.asked.stages(view) or len(weights[step]) != len(constructions):
            raise Misuse(f"the weights of {query.asked.name} do not fit its constructions")
        for place, construction in enumerate(constructions):
            share = Fraction(query.weight) / whole * weights[step][place] / total
            if share <= 0:
                raise Misuse(f"{query.asked.name} gives a construction no share of its budget")
            label = f"{name}, {step + 1}.{place + 1}"
            found.append(Part(label, at, step, place, construction, query.condition, share))
    return found


def fewest_survivors(sites: int, min_survivors: int | None, colluders: int) -> int:
    """Fewest sites whose sum may be opened: as given, or by default all but one."""
    fewest = min_survivors if min_survivors is not None else max(sites - 1, min(sites, colluders + 2))
    if not 1 <= fewest <= sites or colluders < 0:
        raise Misuse(f"min_survivors {fewest} and {colluders} colluders do not fit {sites} sites")
    return fewest


def check_unit(stages: Sequence[Stage], unit: Unit) -> None:
    """Raise Misuse for persons counted by cells while rows are protected: one row could move a person to another."""
    for stage in stages:
        for part in stage.parts:
            one = part.construction
            if unit is Unit.RECORD and isinstance(one, Tally) and one.subjects and (one.by or one.axes):
                raise Misuse(f"{part.name}: persons can be counted by groups only with unit='subject'")


def rows_of(view: View, unit: Unit) -> int:
    """Rows of one unit of privacy that count."""
    return view.schema.max_rows if unit is Unit.SUBJECT else 1


def x_max_of(part: Part, view: View, sites: int, sigma_site: float) -> int:
    """The public bound at which a coordinate of a site's sum saturates.

    Raises:
        Refused: the ring cannot hold the declared records beside the noise.
    """
    least = view.schema.records * part.construction.reach(view)
    room = largest_x_max(RING, sites, sigma_site)
    if room < least:
        raise Refused(
            f"the study is too long for the ring: {view.schema.records} records, {sites} sites and their noise do "
            f"not fit 64 bits in {part.name!r}; ask for fewer bits, or for fewer records"
        )
    return min(ROOM * least, room)


def release_of(stage: Stage, view: View, setting: Setting, sigmas: Sequence[float]) -> Release:
    """What one upload of a stage reveals, at these σ of the honest noise; everything else follows from the study.

    Raises:
        Refused: too few honest shares, too little noise per site, or a ring too small.
    """
    rows = rows_of(view, setting.unit)
    drafts = tuple(
        Block(part.name, part.construction.length(view), part.construction.delta2(view, rows), 1, sigma)
        for part, sigma in zip(stage.parts, sigmas, strict=True)
    )
    trust = Trust.LOCAL if stage.own else setting.trust
    draft = Release(setting.unit, trust, drafts, setting.min_survivors, setting.colluders)
    bounds = (
        x_max_of(part, view, setting.sites, draft.sigma_site(block))
        for part, block in zip(stage.parts, drafts, strict=True)
    )
    blocks = tuple(replace(block, x_max=bound) for block, bound in zip(drafts, bounds, strict=True))
    return replace(draft, blocks=blocks)


def plan_releases(
    stages: Sequence[Stage], view: View, setting: Setting, epsilon: float, delta: float
) -> tuple[tuple[Release, ...], float]:
    """The noise under which one opening of every stage costs at most (ε, δ), and δ₀ of rare keys (0 without any).

    Raises:
        Misuse: no budget. Refused: δ is too small for the samplers and keys, or as in :func:`release_of`.
    """
    mu2, slack = mu_for_budget(epsilon, delta)
    rows, releases = rows_of(view, setting.unit), []
    for stage in stages:
        honest = 1 if stage.own else honest_shares(setting)
        least = math.ceil(MIN_SIGMA_SITE * math.sqrt(honest))
        wanted = (
            sigma_of_mu2(floor_to_grid(mu2 * part.share), part.construction.delta2(view, rows)) for part in stage.parts
        )
        releases.append(release_of(stage, view, setting, [max(one, float(least)) for one in wanted]))
    delta0 = _key_delta(stages, rows, slack)
    spent = total_cost(stages, releases, delta0, rows)
    if spent.delta > slack:
        raise Refused(
            f"the study's samplers charge delta' {float(spent.delta):.3g} and a tenth of delta {delta:g} is kept for "
            f"it; ask with a larger delta"
        )
    return tuple(releases), delta0


def honest_shares(setting: Setting) -> int:
    """Shares of noise that a summed stage's claim rests on; a release refuses fewer than two."""
    return 1 if setting.trust is Trust.LOCAL else max(1, setting.min_survivors - max(1, setting.colluders))


def _key_delta(stages: Sequence[Stage], rows: int, slack: Fraction) -> float:
    """δ₀ by which one rare name passes the threshold: half of the slack over all blocks of names and rows."""
    blocks = sum(part.keys for stage in stages for part in stage.parts)
    return math.nextafter(float(slack / (2 * blocks * rows)), 0.0) if blocks else 0.0


def key_cost(stage: Stage, delta0: float, rows: int) -> Fraction:
    """δ′ of a stage's names: 1 - (1 - δ₀)^rows for each block of them."""
    once = 1 - (1 - Fraction(delta0)) ** rows
    return sum((once for part in stage.parts if part.keys), Fraction(0))


def key_threshold(release: Release, block: Block, part: Part, delta0: float, rows: int) -> float:
    """Noisy count above which a name leaves its site: what one unit can add, and the noise's upper tail."""
    from scipy.special import ndtri  # noqa: PLC0415 - only studies with names need it

    sigma = release.sigma_site(block) / part.construction.scale
    return rows + sigma * -float(ndtri(delta0)) + 1 / part.construction.scale


def total_cost(stages: Sequence[Stage], releases: Sequence[Release], delta0: float, rows: int) -> Cost:
    """One opening of every stage."""
    total = Cost(0)
    for stage, release in zip(stages, releases, strict=True):
        total = total + release.cost + Cost(0, key_cost(stage, delta0, rows))
    return total


def noise_of_sum(release: Release | None, block: int, scale: float, survivors: int) -> float:
    """Standard deviation of the noise in a sum over so many sites, in units of 1."""
    if release is None:
        return 0.0
    return math.sqrt(survivors) * release.sigma_site(release.blocks[block]) / scale


def least_epsilon(stages: Sequence[Stage], view: View, setting: Setting, delta: float) -> tuple[float, Part]:
    """The smallest ε at which every block can show all declared records in one cell by 3 sd, and the worst block."""
    rows, worst, need = rows_of(view, setting.unit), stages[0].parts[0], Fraction(0)
    for stage in stages:
        honest, sites = (1, 1) if stage.own else (honest_shares(setting), setting.sites)
        for part in stage.parts:
            signal = Fraction(view.schema.records * part.construction.reach(view), 3)
            room = signal**2 * honest / sites - 4
            if room <= 0:
                return math.inf, part
            mu2 = part.construction.delta2(view, rows) / room / part.share
            worst, need = (part, mu2) if mu2 > need else (worst, need)
    mu = math.sqrt(need) * (1 + 1e-9)
    return max(epsilon_of_mu(mu, delta - delta / 10) + 1e-8, 1e-6), worst
