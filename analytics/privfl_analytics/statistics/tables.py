"""Two columns crossed: counts, a χ² test whose null has the noise in it, and how strong the association is."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
from scipy.stats import chi2

from privfl.errors import Misuse
from privfl_analytics.answer import Answer, Row
from privfl_analytics.constructions import Bins, Classes, Construction, Tally
from privfl_analytics.decode import (
    NOT_RESOLVED,
    RESOLVED,
    Bools,
    Estimate,
    Floats,
    count_rows,
    hidden,
    null_p_value,
    number,
    percent,
    resolves,
    telling,
)
from privfl_analytics.statistic import Context, Noisy, State, Statistic
from privfl_analytics.statistics.binned import answered
from privfl_analytics.statistics.histograms import Edges, axis_of, cells_shown, shown_or_none
from privfl_analytics.view import View

__all__ = ["Crosstab", "concealed_table", "independence"]


class Crosstab(Statistic):
    """How many rows have each pair of cells of two columns.

    Args:
        first, second: categories, or numbers in bins.
        first_bins, second_bins: of a number: how many, or edges; as of a histogram.
        test: also a χ² test of independence and Cramér's V, over declared classes and bins.
    """

    name: ClassVar[str] = "crosstab"
    summary: ClassVar[str] = "cross-tabulation of two columns, with a chi-square test"
    example: ClassVar[str] = "crosstab ward, readmitted"

    first: str
    second: str
    first_bins: Edges = 5
    second_bins: Edges = 5
    test: bool = True

    def axes(self, view: View) -> tuple[Bins | Classes, Bins | Classes]:
        """The table's axes; raises Misuse for text, or one column twice."""
        if self.first == self.second:
            raise Misuse(f"cross {self.first!r} with another column, not with itself")
        return axis_of(view, self.first, self.first_bins), axis_of(view, self.second, self.second_bins)

    def constructions(self, view: View, stage: int = 0, state: State | None = None) -> tuple[Construction, ...]:
        """One cell per pair."""
        return (Tally(axes=self.axes(view)),)

    def decode(
        self, view: View, stages: Sequence[Sequence[Noisy]], states: Sequence[State | None], context: Context
    ) -> Answer:
        """A row ``count`` per pair; then ``chi-square``, ``p-value`` and ``cramer's v``."""
        found, (one, two) = stages[0][0], self.axes(view)
        shown = np.ix_(cells_shown(view, one), cells_shown(view, two))
        counts = found.values[shown]
        names = [[axis.labels(view)[cell] for cell in cells_shown(view, axis)] for axis in (one, two)]
        mask = concealed_table(counts, context.min_cell_count, found.sd)
        places: list[dict[str, str | float]] = [{self.first: a, self.second: b} for a in names[0] for b in names[1]]
        total = float(np.clip(counts, 0, None).sum())
        rows = count_rows("count", counts, found.sd, places, context, mask=mask, total=total)
        notes: tuple[str, ...] = ()
        if self.test:
            table = found.values[: _declared(one, view), : _declared(two, view)]
            tests, notes = independence(table, found.sd, context)
            rows += tests
        drowned = all(row.note == NOT_RESOLVED for row in rows[: len(places)])
        details: dict[str, Any] = {
            "labels": names,
            "counts": [
                [None] * len(line) if drowned else shown_or_none(line, veil)
                for line, veil in zip(counts, mask, strict=True)
            ],
            "sd": found.sd,
        }
        return answered(self, context, rows, picture="table", details=details, notes=notes)

    def words(self) -> str:
        return f"{self.first} crossed with {self.second}"

    def precision(self, view: View, sds: Sequence[Sequence[float]], records: int) -> str:
        sd = sds[0][0]
        cells = math.prod(_declared(axis, view) for axis in self.axes(view))
        return f"each cell ± {1.96 * sd:.3g} rows, where {records / cells:.3g} are to be expected"


def _declared(axis: Bins | Classes, view: View) -> int:
    """Cells before ``other`` or ``outside`` and ``missing``, which come last."""
    return len(axis.labels(view)) - 2


def concealed_table(counts: Floats, minimum: int, sd: float = 0.0) -> Bools:
    """Which cells are hidden so that the totals of all rows and columns, less what is shown, give none told from 0.

    A hidden cell is determined by the totals just if it is on no cycle of hidden cells (rows and columns are nodes,
    hidden cells edges), so beside each such bridge the smallest shown cell of its row is hidden too.
    """
    mask = hidden(counts, minimum, sd)
    while True:
        bridge = _bridge(mask, telling(mask, counts, sd))
        if bridge is None:
            return mask
        row = np.where(mask[bridge[0]], np.inf, counts[bridge[0]])
        column = np.where(mask[:, bridge[1]], np.inf, counts[:, bridge[1]])
        if np.isfinite(row).any():
            mask[bridge[0], int(np.argmin(row))] = True
        elif np.isfinite(column).any():
            mask[int(np.argmin(column)), bridge[1]] = True
        else:  # the whole row and column are hidden and it is still alone: one row or column in all
            mask[:] = True
            return mask


def _bridge(mask: Bools, telling_: Bools) -> tuple[int, int] | None:
    """A telling hidden cell on no cycle of hidden ones, if there is one (Tarjan's low links, without recursion)."""
    if min(mask.shape) < 2:
        return None
    rows, order, low = mask.shape[0], dict[int, int](), dict[int, int]()
    near = {row: (np.nonzero(mask[row])[0] + rows).tolist() for row in range(rows)}
    near |= {rows + column: np.nonzero(mask[:, column])[0].tolist() for column in range(mask.shape[1])}
    for root in range(rows):
        if root in order:
            continue
        order[root] = low[root] = len(order)
        path = [(root, -1, iter(near[root]))]
        while path:
            node, parent, rest = path[-1]
            step = next(rest, None)
            if step is None:
                path.pop()
                if parent >= 0:
                    low[parent] = min(low[parent], low[node])
                    cell = min(node, parent), max(node, parent) - rows
                    if low[node] > order[parent] and telling_[cell]:
                        return cell
            elif step not in order:
                order[step] = low[step] = len(order)
                path.append((step, node, iter(near[step])))
            elif step != parent:
                low[node] = min(low[node], order[step])
    return None


# -- the test --------------------------------------------------------------------------------


def independence(table: Floats, sd: float, context: Context) -> tuple[list[Row], tuple[str, ...]]:
    """χ², its p-value and Cramér's V of a noisy table, over rows and columns whose totals stand out of the noise.

    Each cell's squared residual is divided by what it varies by, expectation plus noise: without noise that is
    Pearson's χ². The null draws a table from the noisy margins and adds the noise again. Source of the weighting:
    Kifer and Rogers, AISTATS 2017.
    """
    kept = _resolved_lines(table, sd)
    if kept is None:
        nothing = "" if sd > 0 else "needs two rows and two columns that are not empty"
        return [number(what, None, note=nothing) for what in ("chi-square", "p-value", "cramer's v")], ()
    notes: tuple[str, ...] = ()
    if kept.shape != table.shape:
        notes = ("rows or columns whose totals noise drowns are left out of the test",)
    total, freedom = float(kept.sum()), (kept.shape[0] - 1) * (kept.shape[1] - 1)
    observed = float(_statistic(kept[None], sd)[0])
    shares = np.clip(kept.sum(axis=1), 0, None)[:, None] * np.clip(kept.sum(axis=0), 0, None)
    shares = (shares / shares.sum()).ravel()
    if sd == 0:
        p_value = float(chi2.sf(observed, freedom))
        notes += (f"{freedom} degrees of freedom",)
    else:
        drawn = context.rng.multinomial(max(round(total), 1), shares, context.draws).reshape(-1, *kept.shape)
        null = _statistic(drawn + context.rng.normal(0, sd, drawn.shape), sd)
        p_value = null_p_value(observed, null)
        notes += (f"the p-value is from {context.draws} tables drawn without association, noise included",)
    rows = [Row("chi-square", observed), Row("p-value", p_value), _cramer(kept, sd, context)]
    return rows, notes


def _resolved_lines(table: Floats, sd: float) -> Floats | None:
    """The part of a table whose rows' and columns' totals are resolved; None where that is no table of two by two."""
    while min(table.shape, default=0) >= 2:
        rows = [resolves(value, sd * math.sqrt(table.shape[1]), RESOLVED) for value in table.sum(axis=1).tolist()]
        columns = [resolves(value, sd * math.sqrt(table.shape[0]), RESOLVED) for value in table.sum(axis=0).tolist()]
        if all(rows) and all(columns):
            return table
        table = table[rows][:, columns]
    return None


def _expected(tables: Floats) -> Floats:
    """Expectations from the margins of tables (…, r, c), never below 0."""
    rows, columns = tables.sum(axis=-1, keepdims=True), tables.sum(axis=-2, keepdims=True)
    total = np.maximum(tables.sum(axis=(-1, -2), keepdims=True), 1e-9)
    return np.asarray(np.clip(rows * columns / total, 0.0, None))


def _statistic(tables: Floats, sd: float) -> Floats:
    """Weighted squared residuals of tables (…, r, c); a cell that nothing is expected in has none."""
    expected = _expected(tables)
    variance = expected + sd * sd
    return np.asarray((np.square(tables - expected) / np.where(variance > 0, variance, 1.0)).sum(axis=(-1, -2)))


def _v(tables: Floats, noise: float) -> Floats:
    """Cramér's V of tables (…, r, c), less what noise of this standard deviation alone adds to φ²."""
    expected, (rows, columns) = _expected(tables), tables.shape[-2:]
    total = tables.sum(axis=(-1, -2))
    least = np.maximum(expected, total[..., None, None] / (100 * rows * columns))  # empty margins of a redrawn table
    added = noise * noise * (1 - 1 / rows) * (1 - 1 / columns)
    phi2 = ((np.square(tables - expected) - added) / least).sum(axis=(-1, -2)) / np.maximum(total, 1.0)
    return np.asarray(np.sqrt(np.clip(phi2 / (min(rows, columns) - 1), 0.0, 1.0)))


def _cramer(table: Floats, sd: float, context: Context) -> Row:
    """Cramér's V with a parametric bootstrap interval."""
    value = float(_v(table, sd)) if sd > 0 else float(math.sqrt(_pearson_phi2(table) / (min(table.shape) - 1)))
    shares = np.clip(table, 0.0, None)
    shares = shares / shares.sum()
    drawn: Floats = np.broadcast_to(table, (context.draws, *table.shape))
    if context.interval == "population":
        total = max(round(float(table.sum())), 1)
        drawn = context.rng.multinomial(total, shares.ravel(), context.draws).reshape(drawn.shape).astype(np.float64)
    redrawn = _v(drawn + context.rng.normal(0.0, 1.0, drawn.shape) * sd, sd * math.sqrt(2))
    low, high = np.quantile(redrawn, percent(context))
    found = Estimate(value, float(redrawn.std()), min(float(low), value), max(float(high), value))
    return number("cramer's v", found)


def _pearson_phi2(table: Floats) -> float:
    return float(_statistic(table[None], 0.0)[0] / table.sum())
