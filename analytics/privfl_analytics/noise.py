"""The noise of a study: from a budget to σ of every block, from σ to what each stage's upload reveals and costs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction

from privfl.dp import (
    Block,
    Cost,
    Release,
    Trust,
    epsilon_of_mu,
    largest_x_max,
    mu_for_budget,
    sigma_of_mu2,
)
from privfl.dp.cost import floor_to_grid
from privfl.dp.release import MIN_SIGMA_SITE
from privfl.errors import Refused
from privfl_analytics.layout import RING, Part, Setting, Stage, rows_of
from privfl_analytics.view import View

__all__ = [
    "honest_shares",
    "key_cost",
    "key_threshold",
    "least_epsilon",
    "noise_of_sum",
    "plan_releases",
    "release_of",
    "total_cost",
    "x_max_of",
]

#: The declared number of records is rough: a site's sum saturates only beyond so many times it.
ROOM = 16


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
