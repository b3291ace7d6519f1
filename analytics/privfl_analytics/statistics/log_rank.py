"""The log-rank test of survival between groups, from counts by bin, outcome and group alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
from scipy import stats

from privfl.errors import Misuse
from privfl.tasks import Class
from privfl_analytics.answer import Answer, Row
from privfl_analytics.constructions import Construction
from privfl_analytics.decode import BELOW_MINIMUM, NOT_RESOLVED, RESOLVED, count_rows, isotonic
from privfl_analytics.statistic import Context, Noisy, State
from privfl_analytics.statistics.binned import Floats, answered, chosen, grid, simulated, withheld
from privfl_analytics.statistics.survival import Timed, at_risk, falling, steps
from privfl_analytics.view import View

__all__ = ["LogRank"]


class LogRank(Timed):
    """The log-rank test: do groups differ in their survival?

    Args:
        group: the category of the groups. classes: which of its classes; by default all that are declared.
    """

    name: ClassVar[str] = "log_rank"
    summary: ClassVar[str] = "log-rank test of survival between groups, with the noise in its null"
    example: ClassVar[str] = "log_rank months, event group=treatment"

    group: str
    classes: tuple[Class, ...] | None = None

    def words(self) -> str:
        """What is asked."""
        named = f" {', '.join(map(repr, self.classes))}" if self.classes else ""
        return (
            f"the log-rank test of {self.time} until {self.event} is {self.happened} "
            f"between the groups{named} of {self.group}"
        )

    def constructions(self, view: View, stage: int = 0, state: State | None = None) -> tuple[Construction, ...]:
        """The counts by time, outcome and group."""
        if len(chosen(view, self.group, self.classes)) < 2 or self.group == self.event:
            raise Misuse(f"a log-rank test compares two or more classes of a category, and not of {self.event!r}")
        return (self.table(view, self.group),)

    def precision(self, view: View, sds: Sequence[Sequence[float]], records: int) -> str:
        """Noise of a group's events less expected ones."""
        bins = len(grid(view, self.time, self.bins)) - 1
        return f"each group's events ± {1.96 * sds[0][0] * np.sqrt(bins):.3g} from noise"

    def decode(
        self, view: View, stages: Sequence[Sequence[Noisy]], states: Sequence[State | None], context: Context
    ) -> Answer:
        """Observed and expected events by group, χ², its degrees of freedom and p-value."""
        groups = chosen(view, self.group, self.classes)
        cells, sds = self.outcomes(view, stages[0][0])
        cells, sds = cells[..., list(groups)], sds[..., list(groups)]
        rows, hidden = self._events(cells, sds, list(groups.values()), context)
        names = ("chi-square", "degrees of freedom", "p-value")
        whole, noise = cells.sum(axis=(0, 1)), np.sqrt(np.square(sds).sum(axis=(0, 1)))
        why = hidden
        if (whole <= 0).any() or (whole < RESOLVED * noise).any():
            why = NOT_RESOLVED if sds.any() else "no rows in a group"
        chi2, spread = _log_rank(cells[None], sds)
        if not why and spread[0] <= 0:
            why = NOT_RESOLVED if sds.any() else "no events"
        if why:
            return answered(self, context, [*rows, *(withheld(what, why) for what in names)])
        freedom = len(groups) - 1
        if sds.any():
            p = simulated(float(chi2[0]), _log_rank(_alike(cells, sds, context), sds)[0])
        else:
            p = Row("p-value", float(stats.chi2.sf(chi2[0], freedom)))
        rows += [Row("chi-square", float(chi2[0])), Row("degrees of freedom", float(freedom)), p]
        notes = ("The p-value's null includes the noise.",) if sds.any() else ()
        return answered(self, context, rows, notes=notes)

    def _events(self, cells: Floats, sds: Floats, labels: list[str], context: Context) -> tuple[list[Row], str]:
        """Rows of each group's events, and why nothing is shown, if so."""
        at: list[dict[str, str | float]] = [{self.group: label} for label in labels]
        events, noise = cells[:-1, 0].sum(axis=0), float(np.sqrt(np.square(sds[:-1, 0]).sum(axis=0))[0])
        whole = cells.sum(axis=(0, 1))
        rows = count_rows("events", events, noise, at, context)
        expected = _expected(cells[None], sds)[0]
        if all(row.value is not None for row in rows):
            rows += [Row("expected events", float(value), one) for value, one in zip(expected, at, strict=True)]
        return rows, BELOW_MINIMUM if context.min_cell_count > 1 and (whole < context.min_cell_count).any() else ""


def _parts(tables: Floats, sds: Floats) -> tuple[Floats, Floats, Floats, Floats]:
    """Events (m, bins, groups), all events and all at risk (m, bins), each group's share of them; 0 where too few."""
    events = tables[:, :-1, 0, :]
    risk = np.flip(np.cumsum(np.flip(tables.sum(axis=2), 1), axis=1), 1)[:, :-1]
    noise = np.sqrt(np.flip(np.cumsum(np.flip(np.square(sds).sum(axis=(1, 2))))))[:-1]
    pooled = risk.sum(axis=-1)
    use = np.logical_and.accumulate((pooled > RESOLVED * noise) & (pooled > 1), axis=1)
    pooled = np.where(use, pooled, 1.0)
    events = events * use[..., None]
    return events, events.sum(axis=-1), pooled, risk * use[..., None] / pooled[..., None]


def _expected(tables: Floats, sds: Floats) -> Floats:
    """Events to expect in each group if the hazards are alike, (m, groups)."""
    _, whole, _, share = _parts(tables, sds)
    return np.asarray((share * whole[..., None]).sum(axis=1))


def _log_rank(tables: Floats, sds: Floats) -> tuple[Floats, Floats]:
    """χ² of tables (m, bins + 1, 2, groups), and the trace of its variance (0 if there is nothing to compare).

    The variance is the usual hypergeometric one, and that of the noise by the delta method.
    """
    events, whole, pooled, share = _parts(tables, sds)
    gap = (events - share * whole[..., None]).sum(axis=1)
    mix = np.clip(share, 0.0, 1.0)
    spread = np.clip(whole, 0.0, None) * np.clip((pooled - whole) / np.maximum(pooled - 1, 1), 0.0, 1.0)
    groups = tables.shape[-1]
    variance = np.einsum("mj,mjg,gh->mgh", spread, mix, np.eye(groups))
    variance -= np.einsum("mj,mjg,mjh->mgh", spread, mix, mix)
    if sds.any():
        lean = np.eye(groups) - share[..., None]  # (m, bins, groups g, groups l): how a cell of l moves the gap of g
        drift = np.cumsum((whole / pooled)[..., None, None] * lean, axis=1)
        used = np.any(share != 0, axis=-1, keepdims=True)[..., None]
        of_events = np.concatenate([used * lean - drift, -drift[:, -1:]], axis=1)
        of_censored = np.concatenate([-drift, -drift[:, -1:]], axis=1)
        for slope, sd in ((of_events, sds[:, 0]), (of_censored, sds[:, 1])):
            variance += np.einsum("mjgl,mjhl,jl->mgh", slope, slope, np.square(sd))
    part, kept = gap[:, :-1], variance[:, :-1, :-1]
    chi2 = np.einsum("mg,mgh,mh->m", part, np.linalg.pinv(kept, hermitian=True), part)
    return chi2, np.trace(variance, axis1=1, axis2=2)


def _alike(cells: Floats, sds: Floats, context: Context) -> Floats:
    """Replicates (draws, bins + 1, 2, groups) in which all groups have the pooled hazard; sample and noise redrawn."""
    bins, groups = len(cells) - 1, cells.shape[-1]
    pooled, noise = cells.sum(axis=-1), np.sqrt(np.square(sds).sum(axis=-1))
    firm = int(np.logical_and.accumulate(at_risk(pooled) > RESOLVED * np.sqrt(at_risk(np.square(noise))))[:bins].sum())
    hazard = np.zeros(bins)
    if firm:  # from the falling curve: hazards cut at 0 one by one would add events
        curve = falling(steps(pooled, firm))
        before = np.concatenate([[1.0], curve[:-1]])
        hazard[:firm] = 1 - np.divide(curve, before, out=np.ones_like(curve), where=before > 0)
    risk = np.stack([np.maximum(-isotonic(-at_risk(cells[..., one])), 0.0) for one in range(groups)], axis=-1)
    stay = np.divide(risk[1:], risk[:-1], out=np.zeros_like(risk[1:]), where=risk[:-1] > 0)
    keep = np.maximum(1 - hazard, 1e-12)[:, None]
    leave = np.clip(1 - stay / keep, 0.0, 1.0)
    left = np.broadcast_to(np.rint(risk[0]).astype(np.int64), (context.draws, groups))
    out = np.zeros((context.draws, *cells.shape))
    for at in range(bins):
        out[:, at, 0] = context.rng.binomial(left, hazard[at])
        rest = left - out[:, at, 0].astype(np.int64)
        out[:, at, 1] = context.rng.binomial(rest, leave[at])
        left = rest - out[:, at, 1].astype(np.int64)
    out[:, bins, 1] = left
    return np.asarray(out + context.rng.normal(0.0, 1.0, out.shape) * sds, dtype=np.float64)
