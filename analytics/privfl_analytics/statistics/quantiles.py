"""Distribution function and quantiles of a number, from one dyadic tree of counts.

An interval of a quantile inverts the band of the ranks (Woodruff, JASA 1952): it holds the values that could have the
asked rank. Where values pile up in one bin it holds the bin as a whole.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Self, TypeAlias

import numpy as np
from pydantic import Field, model_validator
from scipy.stats import norm

from privfl_analytics.answer import Answer, Row
from privfl_analytics.constructions import Bins, Construction, Tally
from privfl_analytics.decode import (
    BELOW_MINIMUM,
    Estimate,
    count_rows,
    number,
    within,
    z_of,
)
from privfl_analytics.statistic import Context, Noisy, State, Statistic
from privfl_analytics.statistics._tree import Ranks, prefix_errors, rank_variance
from privfl_analytics.statistics.binned import answered
from privfl_analytics.statistics.moments import window_of
from privfl_analytics.view import View

__all__ = ["Ecdf", "Median", "Quantiles", "Range"]

Share: TypeAlias = Annotated[float, Field(gt=0, lt=1)]
Levels: TypeAlias = Annotated[int, Field(ge=3, le=16)]
#: Half width of the band that chooses a second stage's window, in standard deviations of the noise.
_WIDE = 4.0


class _Tree(Statistic):
    """Common to all: one tree, or a second finer one over a window that the first one's noisy ranks chose.

    Args:
        column: a number or a score.
        levels: of the tree: 2^(levels - 1) bins over the declared bounds.
    """

    if TYPE_CHECKING:  # fields of every subclass, each in its own order
        column: str
        levels: int

    def edges(self, view: View, state: State | None = None) -> tuple[float, ...]:
        """Edges of the leaves; with a state one leaf below the window, one above it, all others within."""
        column, bins = view.numeric(self.column), 1 << (self.levels - 1)
        if state is None:
            return tuple(float(edge) for edge in np.linspace(column.lower, column.upper, bins + 1))
        low, high = window_of(state, column.lower, column.upper)
        least = (column.upper - column.lower) * 2.0**-20
        low, high = max(low, column.lower + least), min(high, column.upper - least)
        if high - low < least:
            middle = min(max((low + high) / 2, column.lower + 2 * least), column.upper - 2 * least)
            low, high = middle - least / 2, middle + least / 2
        inner = np.linspace(low, high, bins - 1)
        return (column.lower, *(float(edge) for edge in inner), column.upper)

    def constructions(self, view: View, stage: int = 0, state: State | None = None) -> tuple[Construction, ...]:
        """A tree of ``levels``: Δ is its root."""
        view.numeric(self.column)
        asked = Tally(
            axes=(Bins(column=self.column, edges=self.edges(view, state if stage else None)),), levels=self.levels
        )
        asked.check(view)
        return (asked,)

    def ranks(self, view: View, noisy: Noisy, state: State | None) -> Ranks:
        """The fitted ranks of one tree."""
        return Ranks.of(noisy, self.edges(view, state), self.levels)

    def close(self, ranks: Ranks, rows: Sequence[Row], context: Context, **more: Any) -> Answer:
        """The answer: the given rows, then how many values there are."""
        counted = count_rows("count", np.array([ranks.total]), ranks.total_sd, [{}], context)
        if counted[0].note == BELOW_MINIMUM:
            rows = [Row(row.what, None, row.at, unit=row.unit, note=BELOW_MINIMUM) for row in rows]
        return answered(self, context, [*rows, *counted], **more)


class _Quantiles(_Tree):
    """Common to quantiles under their various names.

    Args:
        refine: a second round with a finer grid around the noisy quantiles; half of the budget each.
    """

    if TYPE_CHECKING:
        refine: bool

    def asked(self) -> tuple[tuple[str, float, dict[str, str | float]], ...]:
        """What each is called, its share, and its place."""
        raise NotImplementedError

    def stages(self, view: View) -> int:
        return 2 if self.refine else 1

    def decide(self, view: View, stage: int, sums: Sequence[Noisy], state: State | None) -> State:
        """A window that holds every asked quantile, with a wide margin for the noise."""
        ranks = self.ranks(view, sums[0], None)
        bands = [ranks.between(share, _WIDE, float(ranks.errors(share).max())) for _, share, _ in self.asked()]
        if not ranks.resolved:
            bands = [(float(ranks.edges[0]), float(ranks.edges[-1]))]
        return {"lower": min(low for low, _ in bands), "upper": max(high for _, high in bands)}

    def decode(
        self, view: View, stages: Sequence[Sequence[Noisy]], states: Sequence[State | None], context: Context
    ) -> Answer:
        """A row per quantile, then ``count``; a quantile with fewer rows beyond it than may be shown is hidden."""
        ranks, unit = self.ranks(view, stages[-1][0], states[-1]), view.numeric(self.column).unit
        rows, asked = [], self.asked()
        errors = ranks.spread([share for _, share, _ in asked], context) if ranks.resolved else [0.0] * len(asked)
        for (what, share, at), error in zip(asked, errors, strict=True):
            found, note = ranks.quantile(share, error, context), ""
            if context.min_cell_count > 1 and min(share, 1 - share) * ranks.total < context.min_cell_count:
                found, note = None, BELOW_MINIMUM
            rows.append(number(what, found, at=at, unit=unit, note=note))
        details = {"levels": self.levels, "resolution": float(np.diff(ranks.edges)[1:-1].min())}
        return self.close(ranks, rows, context, details=details, notes=self.notes())

    def notes(self) -> tuple[str, ...]:
        """What to mind."""
        return (f"from a tree of {self.levels} levels; nothing finer than its grid is told",)

    def precision(self, view: View, sds: Sequence[Sequence[float]], records: int) -> str:
        """Error of the rank, and of the value if the column is as spread as the schema declares."""
        column, said = view.numeric(self.column), list[str]()
        for what, share, _ in self.asked():
            at = round(share * (1 << (self.levels - 1)))
            sd = sds[-1][0] * math.sqrt(float(rank_variance(self.levels, share, at))) / records
            value = sd * column.scale / norm.pdf(norm.ppf(share))
            name = f"{what} {share:g}" if what == "quantile" else what
            said.append(f"{name} ± {196 * sd:.2g} percentage points of rank, about ± {1.96 * value:.2g} {column.unit}")
        return "; ".join(one.rstrip() for one in said)


class Quantiles(_Quantiles):
    """Quantiles of a number.

    Args:
        q: shares of the rows that lie below.
    """

    name: ClassVar[str] = "quantiles"
    summary: ClassVar[str] = "quantiles of a number"
    example: ClassVar[str] = "quantiles age q=[0.05, 0.5, 0.95]"

    column: str
    q: Annotated[tuple[Share, ...], Field(min_length=1, max_length=99)] = (0.25, 0.5, 0.75)
    levels: Levels = 10
    refine: bool = False

    @model_validator(mode="after")
    def _rising(self) -> Self:
        if any(low >= high for low, high in zip(self.q, self.q[1:], strict=False)):
            raise ValueError("q: shares must rise, such as (0.25, 0.5, 0.75)")
        return self

    def asked(self) -> tuple[tuple[str, float, dict[str, str | float]], ...]:
        return tuple(("quantile", share, {"q": share}) for share in self.q)

    def words(self) -> str:
        return f"the quantiles {', '.join(f'{share:g}' for share in self.q)} of {self.column}"


class Median(_Quantiles):
    """The median of a number."""

    name: ClassVar[str] = "median"
    summary: ClassVar[str] = "median of a number"
    example: ClassVar[str] = "median bmi"

    column: str
    levels: Levels = 10
    refine: bool = False

    def asked(self) -> tuple[tuple[str, float, dict[str, str | float]], ...]:
        return (("median", 0.5, {}),)

    def words(self) -> str:
        return f"the median of {self.column}"


class Range(_Quantiles):
    """Where most values lie, by default between the 5th and the 95th percentile.

    An exact minimum or maximum is one person's value, and is not offered.

    Args:
        low: share of the rows below the first.
        high: share of the rows below the second.
    """

    name: ClassVar[str] = "range"
    summary: ClassVar[str] = "p5 and p95 of a number, instead of its exact minimum and maximum"
    example: ClassVar[str] = "range systolic"

    column: str
    low: Share = 0.05
    high: Share = 0.95
    levels: Levels = 10
    refine: bool = False

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.low >= self.high:
            raise ValueError("low must be a smaller share than high, such as 0.05 and 0.95")
        return self

    def asked(self) -> tuple[tuple[str, float, dict[str, str | float]], ...]:
        return tuple((f"p{100 * share:g}", share, {}) for share in (self.low, self.high))

    def notes(self) -> tuple[str, ...]:
        return (*super().notes(), "an exact minimum or maximum is one row's value and is never told")

    def words(self) -> str:
        return f"the range of {self.column} from its {100 * self.low:g}th to its {100 * self.high:g}th percentile"


class Ecdf(_Tree):
    """The cumulative distribution of a number: the share of rows below each edge of a grid."""

    name: ClassVar[str] = "ecdf"
    summary: ClassVar[str] = "cumulative distribution of a number"
    example: ClassVar[str] = "ecdf age"

    column: str
    levels: Levels = 7

    def decode(
        self, view: View, stages: Sequence[Sequence[Noisy]], states: Sequence[State | None], context: Context
    ) -> Answer:
        """A row ``share below`` per inner edge, then ``count``; steps of too few rows are merged with their next."""
        ranks = self.ranks(view, stages[0][0], None)
        points = self.points(ranks, context.min_cell_count)
        rows = [number("share below", self.share(ranks, at, context), at={self.column: float(ranks.edges[at])})
                for at in points]  # fmt: skip
        details = {"unit": view.numeric(self.column).unit, "merged": len(points) < len(ranks.edges) - 2}
        return self.close(ranks, rows, context, picture="ecdf", details=details)

    def share(self, ranks: Ranks, at: int, context: Context) -> Estimate | None:
        """The share below one edge."""
        if not ranks.resolved:
            return None
        share = min(max(float(ranks.raw[at]) / ranks.total, 0.0), 1.0)
        variance = ranks.sd**2 * float(rank_variance(self.levels, share, at))
        drawn = ranks.total * share * (1 - share) if context.interval == "population" else 0.0
        reach, se = z_of(context) / ranks.total, math.sqrt(variance + drawn) / ranks.total
        if 2 * reach * math.sqrt(variance) >= 1:
            return None
        value = float(ranks.rank[at]) / ranks.total  # of the rising fit; the interval is the unbiased one's
        lower, upper = min(share - z_of(context) * se, value), max(share + z_of(context) * se, value)
        return within(Estimate(value, se, lower, upper), (0.0, 1.0))

    def points(self, ranks: Ranks, minimum: int) -> list[int]:
        """Inner edges that are shown: with a display minimum, so many rows lie between any two of them."""
        inner = range(1, len(ranks.edges) - 1)
        if minimum <= 1:
            return list(inner)
        kept, below = [], 0.0
        for at in inner:
            rank = float(ranks.rank[at])
            if rank - below >= minimum and ranks.total - rank >= minimum:
                kept.append(at)
                below = rank
        return kept

    def words(self) -> str:
        return f"the cumulative distribution of {self.column}"

    def precision(self, view: View, sds: Sequence[Sequence[float]], records: int) -> str:
        sd = sds[0][0] * math.sqrt(float(prefix_errors(self.levels)[0].max()))
        return f"each share ± {196 * sd / records:.2g} percentage points at most"
