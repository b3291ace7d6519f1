"""How far sites differ from each other: each one's own noisy histogram, compared with the pool.

Every site adds the whole noise by itself, so what it sends may be shown, and any function of it is free.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from privfl_analytics.answer import Answer, Row
from privfl_analytics.constructions import Construction, Tally
from privfl_analytics.decode import (
    BELOW_MINIMUM,
    HIDDEN_WITH,
    NOT_RESOLVED,
    Estimate,
    Floats,
    null_p_value,
    number,
    percent,
    resolves,
    share_of,
)
from privfl_analytics.statistic import Context, Noisy, State, Statistic
from privfl_analytics.statistics.binned import answered
from privfl_analytics.statistics.histograms import Edges, axis_of, cells_shown, shown_or_none
from privfl_analytics.statistics.tables import concealed_table
from privfl_analytics.view import View

__all__ = ["SiteDivergence", "divergences"]


def divergences(tables: Floats) -> Floats:
    """Jensen–Shannon divergence (bits) of each site from the pool, then how non-IID the sites are altogether.

    The latter is the mutual information of site and cell: 0 if all sites are alike.

    Args:
        tables: (…, sites, cells) counts; negative ones count as 0.

    Returns:
        (…, sites + 1); a site without rows has divergence 0.
    """
    counts = np.clip(tables, 0.0, None)
    totals = counts.sum(axis=-1, keepdims=True)
    whole = np.maximum(totals.sum(axis=-2, keepdims=True), 1e-300)
    shares, pool = counts / np.where(totals > 0, totals, 1.0), counts.sum(axis=-2, keepdims=True) / whole
    pool = np.broadcast_to(pool, shares.shape)
    each = _entropy((shares + pool) / 2) - (_entropy(shares) + _entropy(pool)) / 2
    each = np.where(totals[..., 0] > 0, each, 0.0)
    mixed = _entropy(pool[..., 0, :]) - (_entropy(shares) * (totals / whole)[..., 0]).sum(axis=-1)
    return np.asarray(np.clip(np.concatenate([each, mixed[..., None]], axis=-1), 0.0, None))


def _entropy(shares: Floats) -> Floats:
    return np.asarray(-(shares * np.log2(np.where(shares > 0, shares, 1.0))).sum(axis=-1))


@dataclass(frozen=True, eq=False)
class _Null:
    """What alike sites of these sizes would show: p-values, and what noise adds to each divergence."""

    p_values: Floats
    added: Floats


class SiteDivergence(Statistic):
    """Each site's distribution of a column, its divergence from the pool, and the degree of non-IID-ness.

    Shows single sites, so each adds noise that suffices alone (trust ``local``).

    Args:
        column: a category, or a number in bins.
        bins: of a number: how many, or edges; as of a histogram.
    """

    name: ClassVar[str] = "site_divergence"
    summary: ClassVar[str] = "how far sites differ: label balance and degree of non-IID-ness"
    example: ClassVar[str] = "site_divergence ward"
    local: ClassVar[bool] = True

    column: str
    bins: Edges = 10

    def constructions(self, view: View, stage: int = 0, state: State | None = None) -> tuple[Construction, ...]:
        """A histogram of each site."""
        return (Tally(axes=(axis_of(view, self.column, self.bins),)),)

    def decode(
        self, view: View, stages: Sequence[Sequence[Noisy]], states: Sequence[State | None], context: Context
    ) -> Answer:
        """By site: rows ``share`` of each cell (of present values), ``divergence``, ``p-value``; then those of all.

        Args:
            stages: one block of shape (sites, cells), or (cells,) for a single site.
        """
        found, axis = stages[0][0], axis_of(view, self.column, self.bins)
        cells = cells_shown(view, axis)
        labels = [axis.labels(view)[cell] for cell in cells][:-1]
        counts = found.values.reshape(-1, found.values.shape[-1])[:, cells]
        present, sites = counts[:, :-1], [str(at + 1) for at in range(len(counts))]
        mask = concealed_table(present, context.min_cell_count, found.sd)
        loud = found.sd * math.sqrt(present.shape[1])
        resolved = [resolves(total, loud) for total in present.sum(axis=1).tolist()]
        rows: list[Row] = []
        for at, site in enumerate(sites):
            for cell, label in enumerate(labels):
                veil = bool(mask[at, cell])
                note = "" if not veil else BELOW_MINIMUM if present[at, cell] < context.min_cell_count else HIDDEN_WITH
                share = None if veil or not resolved[at] else share_of(present[at], cell, found.sd, context)
                note = NOT_RESOLVED if not resolved[at] else note
                rows.append(number("share", share, at={"site": site, self.column: label}, note=note))
        rows += self.compared(present[resolved], [site for site, is_ in zip(sites, resolved, strict=True) if is_],
                              found.sd, context)  # fmt: skip
        rows += [number("divergence", None, at={"site": site}) for site, is_ in zip(sites, resolved, strict=True)
                 if not is_]  # fmt: skip
        details: dict[str, Any] = {
            "sites": sites,
            "labels": labels,
            "counts": [
                shown_or_none(line, veil) if is_ else [None] * len(line)
                for line, veil, is_ in zip(present, mask, resolved, strict=True)
            ],
            "sd": found.sd,
        }
        notes = (
            "sites are numbered in the order of their seats",
            "divergences are Jensen–Shannon's in bits, less what noise adds on average; p-values ask whether alike "
            "sites of these sizes would show as much, noise included",
        )
        return answered(self, context, rows, picture="matrix", details=details, notes=notes)

    def compared(self, present: Floats, sites: Sequence[str], sd: float, context: Context) -> list[Row]:
        """Rows of divergences and p-values by site and for all; nothing can be compared with fewer than two."""
        places: list[dict[str, str | float]] = [{"site": site} for site in sites]
        places.append({})
        names = ["divergence"] * len(sites) + ["non-iid degree"]
        if len(sites) < 2:
            note = "needs two sites whose noise leaves something to compare"
            return [number(what, None, at=at, note=note) for what, at in zip(names, places, strict=True)]
        observed = divergences(present)
        null = _null(present, observed, sd, context)
        spread = _redrawn(present, sd, context)
        low, high = np.quantile(spread, percent(context), axis=0) - np.median(spread, axis=0)
        rows = []
        for at, (what, place) in enumerate(zip(names, places, strict=True)):
            value = max(float(observed[at] - null.added[at]), 0.0)
            lower, upper = max(value + float(low[at]), 0.0), max(value + float(high[at]), 0.0)
            rows.append(number(what, Estimate(value, float(spread[:, at].std()), lower, upper), at=place, unit="bits"))
            rows.append(Row("p-value", float(null.p_values[at]), place))
        return rows

    def words(self) -> str:
        return f"each site's distribution of {self.column}, and how far sites differ"

    def precision(self, view: View, sds: Sequence[Sequence[float]], records: int) -> str:
        return f"each cell of each site ± {1.96 * sds[0][0]:.3g} rows"


def _null(present: Floats, observed: Floats, sd: float, context: Context) -> _Null:
    """Draw alike sites of the observed sizes with and without noise."""
    counts = np.clip(present, 0.0, None)
    pool = counts.sum(axis=0) / counts.sum()
    drawn = _drawn(present.sum(axis=1), np.broadcast_to(pool, counts.shape), context)
    plain, noisy = divergences(drawn), divergences(drawn + context.rng.normal(0.0, 1.0, drawn.shape) * sd)
    p_values = [null_p_value(float(one), noisy[:, at]) for at, one in enumerate(observed)]
    return _Null(np.array(p_values), noisy.mean(axis=0) - plain.mean(axis=0))


def _redrawn(present: Floats, sd: float, context: Context) -> Floats:
    """Divergences with sample (for the population) and noise drawn again, (draws, sites + 1)."""
    counts = np.clip(present, 0.0, None)
    drawn: Floats = np.broadcast_to(present, (context.draws, *present.shape))
    if context.interval == "population":
        drawn = _drawn(present.sum(axis=1), counts / counts.sum(axis=1, keepdims=True), context)
    return divergences(drawn + context.rng.normal(0.0, 1.0, drawn.shape) * sd)


def _drawn(totals: Floats, shares: Floats, context: Context) -> Floats:
    """Multinomial tables (draws, sites, cells) of these sizes and shares."""
    drawn = [
        context.rng.multinomial(max(round(total), 1), line / line.sum(), context.draws)
        for total, line in zip(totals.tolist(), shares, strict=True)
    ]
    return np.stack(drawn, axis=1).astype(np.float64)
