"""Later counts against a profile's: distances, and whether noise and chance alone could have made them.

Both tables are noisy samples. Without any drift n = 2000 people in ten cells under noise of 50 show a PSI of about
0.07, so a fixed limit of 0.1 says nothing by itself. Here every measure is compared with its null: both tables are
drawn again and again from one common distribution, with both sizes and both noises, and measured in the same way.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from privfl.errors import Misuse
from privfl_analytics.decode import RESOLVED
from privfl_analytics.monitor import measures
from privfl_analytics.monitor.drift import DriftReport, Finding
from privfl_analytics.monitor.pairs import Pair, Place, measured, names_of
from privfl_analytics.monitor.profile import Profile
from privfl_analytics.monitor.thresholds import SIGNED, Thresholds

__all__ = ["compare"]

Floats: TypeAlias = npt.NDArray[np.float64]
#: Numbers of simulated tables that are held at once.
CHUNK = 2_000_000


def compare(
    profile: Profile,
    later: Profile,
    thresholds: Thresholds | None = None,
    *,
    rng: np.random.Generator | None = None,
    epsilon: float | None = None,
) -> DriftReport:
    """Compare later data with a profile.

    Args:
        profile: the verified reference. later: collected by the same queries.
        rng: for the null; it touches nothing but noisy counts.
        epsilon: that the later data's counts cost, for the report and the history.

    Returns:
        Every measure of every column, for all people and by group, with its null and what it means.

    Raises:
        Misuse: the two do not hold the same tables, or thresholds name a column that is not watched.
    """
    thresholds, rng = thresholds or Thresholds(), rng or np.random.default_rng()
    thresholds.check_columns(profile.columns)
    findings: list[Finding] = []
    pairs = _pairs(profile, later)
    judged = _count(pairs, thresholds)
    sizes = [_size(one) for one in (profile, later)]
    for pair in pairs:
        found = _table(pair, sizes, thresholds, thresholds.draws, rng)
        # A small p-value needs more draws than a large one to stand after the correction for many tests.
        finer = math.ceil(10 * judged / thresholds.level)
        if finer > thresholds.draws and any(one.p is not None and one.p <= 0.02 for one in found):
            found = _table(pair, sizes, thresholds, finer, rng)
        findings += found
    judged_now = _judge(_holm(findings), thresholds)
    return DriftReport(
        tuple(judged_now),
        reference=profile.hash.hex()[:16],
        model=profile.model,
        made=profile.made,
        compared=later.made,
        sites=later.sites,
        level=thresholds.level,
        epsilon=epsilon,
    )


def _pairs(profile: Profile, later: Profile) -> list[Pair]:
    after = {table.name: table for table in later.tables}
    found = []
    for before in profile.tables:
        other = after.get(before.name)
        if other is None or (other.axes, other.group) != (before.axes, before.group):
            what = "lacks" if other is None else "has other cells in"
            raise Misuse(f"the later data {what} table {before.name!r}; collect it with the profile's own queries")
        found.append(Pair(before, other, profile.positive))
    return found


def _count(pairs: Sequence[Pair], thresholds: Thresholds) -> int:
    """Tests that are judged together."""
    found = 0
    for pair in pairs:
        groups = sum(1 for _ in pair.cells())
        found += groups * sum(thresholds.limit(pair.column.column, name) is not None for name in names_of(pair))
    return max(1, found)


def _size(profile: Profile) -> int:
    """How many rows there are: every table counts each of them once, and the one with the least noise tells it best."""
    best = min(profile.tables, key=lambda table: (table.noise**2 * len(table.counts), len(table.counts)))
    return max(1, round(float(best.array.sum())))


def _table(
    pair: Pair, sizes: Sequence[int], thresholds: Thresholds, draws: int, rng: np.random.Generator
) -> list[Finding]:
    """Every measure of one table, with its null of ``draws`` simulations."""
    tables = [pair.before.array, pair.after.array]
    sds = [pair.before.noise, pair.after.noise]
    floors = [pair.before.floor, pair.after.floor]
    seen = measured(pair, tables[0][None], tables[1][None], sds)
    common = _common(tables, sizes, sds)
    null: dict[Place, list[Floats]] = {place: [] for place in seen}
    step = max(1, CHUNK // common.size)
    for start in range(0, draws, step):
        count = min(step, draws - start)
        drawn = []
        for size, sd, floor in zip(sizes, sds, floors, strict=True):
            one = rng.multinomial(size, common.ravel(), size=count).reshape(count, *common.shape).astype(np.float64)
            one += rng.normal(0.0, sd, one.shape) if sd else 0.0
            drawn.append(np.where(one < floor, 0.0, one) if floor else one)
        for place, values in measured(pair, drawn[0], drawn[1], sds).items():
            null[place].append(values)
    drowned = dict(_drowned(pair, tables, sds))
    return [
        _finding(place, float(value[0]), np.concatenate(null[place]), pair.column.unit, drowned[place[1]], thresholds)
        for place, value in seen.items()
    ]


def _common(tables: Sequence[Floats], sizes: Sequence[int], sds: Sequence[float]) -> Floats:
    """The one distribution from which both tables are drawn where nothing has drifted.

    People whom noise or the display rule added to a table are taken off it again, evenly.
    """
    cells = tables[0].size
    # By the precision of a share: noise weighs as sd²/n², sampling as p(1 - p)/n with p about 1/cells.
    weights = [1 / ((sd / size) ** 2 + 1 / (cells * size)) for size, sd in zip(sizes, sds, strict=True)]
    mixed = sum(weight * table / size for weight, size, table in zip(weights, sizes, tables, strict=True))
    shares = measures.project(np.asarray(mixed).ravel() / sum(weights), 1.0)
    return np.asarray(shares / shares.sum()).reshape(tables[0].shape)


def _drowned(pair: Pair, tables: Sequence[Floats], sds: Sequence[float]) -> Iterator[tuple[str, str]]:
    """For each group why nothing can be said about it; an empty text where something can."""
    for group, weights, spread in pair.cells():
        why = ""
        for when, table, sd in zip(("reference", "later"), tables, sds, strict=True):
            side = np.tensordot(weights, table, axes=(0, 0)) if pair.before.group else table
            totals = [(float(side.sum()), side.size)]
            if pair.scored:
                label = pair.before.own[1]
                positive = side[:, label.labels.index(pair.positive)]
                totals += [(float(positive.sum()), positive.size), (float(side.sum() - positive.sum()), side.size)]
            if any(total <= RESOLVED * sd * spread * math.sqrt(cells) or total < 1 for total, cells in totals):
                why = f"the {when} counts do not stand out of their noise"
        yield group, why


def _finding(place: Place, value: float, null: Floats, unit: str, drowned: str, thresholds: Thresholds) -> Finding:
    column, group, measure = place
    limit, null = thresholds.limit(column, measure), null[np.isfinite(null)]
    warn, alert = (limit.warn, limit.alert) if limit else (None, None)
    unit = unit if measure == "wasserstein" else ""
    blank = Finding(column, group, measure, None, warn=warn, alert=alert, unit=unit, note=drowned, status="unresolved")
    if drowned or not math.isfinite(value) or not len(null):
        return replace(blank, note=drowned or "one of the two classes is empty")
    centre = float(null.mean())
    sizes = np.abs(null - centre) if measure in SIGNED else null - centre
    effect = abs(value - centre) if measure in SIGNED else value - centre
    p = (1 + int((sizes >= effect - 1e-12).sum())) / (1 + len(null))
    reach = float(np.quantile(sizes, 1 - thresholds.level))
    return replace(blank, value=value, null_mean=centre, null_reach=reach, excess=effect, p=p, note="", status="ok")


def _holm(findings: Sequence[Finding]) -> list[Finding]:
    """Holm's step-down p-values over everything that has a limit; the others keep theirs as it is."""
    judged = [at for at, one in enumerate(findings) if one.p is not None and one.alert is not None]
    adjusted, running = {}, 0.0
    for rank, at in enumerate(sorted(judged, key=lambda at: findings[at].p or 0.0)):
        running = max(running, min(1.0, (len(judged) - rank) * (findings[at].p or 0.0)))
        adjusted[at] = running
    return [replace(one, p_adjusted=adjusted.get(at)) for at, one in enumerate(findings)]


def _judge(findings: Sequence[Finding], thresholds: Thresholds) -> Iterator[Finding]:
    for one in findings:
        if one.alert is None or one.warn is None:
            yield replace(one, status="ok" if one.value is not None else "unresolved", judged=False)
        elif one.p_adjusted is None or one.excess is None:
            yield one
        elif one.p_adjusted <= thresholds.level and one.excess >= one.warn:
            yield replace(one, status="drift" if one.excess >= one.alert else "warn")
        elif (one.null_reach or 0.0) > one.alert:
            yield replace(one, status="unresolved", note="the noise hides differences as large as the alert")
        else:
            yield one
