"""How well a score tells a class from the others: ROC and precision-recall curves from counts by score and class.

The score is known by its bin alone: what lies in one bin is tied, and ties count half.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, ClassVar

import numpy as np
import numpy.typing as npt
from pydantic import Field

from privfl.tasks import Class
from privfl_analytics.answer import Answer, Row
from privfl_analytics.constructions import Bins, Classes, Construction, Tally
from privfl_analytics.decode import BELOW_MINIMUM, FIRM, NOT_RESOLVED, RESOLVED, count_rows, percent, z_of
from privfl_analytics.statistic import Context, Noisy, State, Statistic
from privfl_analytics.statistics.binned import (
    FAINT,
    Floats,
    Function,
    answered,
    band,
    cover,
    grid,
    place,
    redraw,
    variance_of,
    withheld,
)
from privfl_analytics.view import View

__all__ = ["PrecisionRecall", "Roc"]


class _Scored(Statistic):
    """Common to both: counts by bin of the score and by class of the label.

    Args:
        score: a numeric column or a score of the study.
        label: a category. Rows in which it or the score is missing do not count.
        positive: the class of the label that the score is for; the other declared classes are negative.
        bins: how many equal ones over the bounds of the score, or their edges from bound to bound.
    """

    score: str
    label: str
    positive: Class = True
    bins: Annotated[int, Field(ge=2, le=1000)] | Annotated[tuple[float, ...], Field(min_length=3, max_length=1001)] = 20

    def constructions(self, view: View, stage: int = 0, state: State | None = None) -> tuple[Construction, ...]:
        """The counts by score and class."""
        scores = Bins(column=self.score, edges=grid(view, self.score, self.bins))
        asked = Tally(axes=(scores, Classes(column=self.label)))
        asked.check(view)
        cover(view, self.score, scores.edges)
        place(view, self.label, self.positive)
        return (asked,)

    def precision(self, view: View, sds: Sequence[Sequence[float]], records: int) -> str:
        """Noise of the AUC of a score that tells nothing, if the classes are equally large."""
        bins = len(grid(view, self.score, self.bins)) - 1
        return f"the area ± {1.96 * sds[0][0] * np.sqrt(bins / 6) * 2 / records:.3g} from noise"

    def outcomes(self, view: View, noisy: Noisy) -> tuple[Floats, Floats]:
        """(bins, 2) counts of positives and negatives by rising score; noise of each."""
        table, at = noisy.values[:-2], place(view, self.label, self.positive)
        others = [one for one in range(len(view.category(self.label).classes)) if one != at]
        cells = np.stack([table[:, at], table[:, others].sum(axis=1)], axis=1)
        return cells, np.ones_like(cells) * noisy.sd * np.sqrt([1, len(others)])

    def counts(self, cells: Floats, sds: Floats, context: Context) -> tuple[list[Row], str, bool]:
        """Rows of positives and negatives, why nothing is shown if so, and whether the delta method will do."""
        sums, noise = cells.sum(axis=0), np.sqrt(np.square(sds).sum(axis=0))
        rows = [
            row
            for what, one, sd in zip(("positives", "negatives"), sums, noise, strict=True)
            for row in count_rows(what, np.array([one]), float(sd), [{}], context)
        ]
        if (sums < RESOLVED * noise).any():
            return rows, NOT_RESOLVED, False
        if (sums <= 0).any():
            return rows, "one of the classes has no rows", False
        small = context.min_cell_count > 1 and bool((sums < context.min_cell_count).any())
        return rows, BELOW_MINIMUM if small else "", bool((sums >= FIRM * noise).all())


class Roc(_Scored):
    """The ROC curve, the area under it and the Kolmogorov-Smirnov distance of the classes.

    ``details`` of the answer: ``score``, ``thresholds`` (falling, the first None), and for each the
    ``false_positive_rate`` and ``true_positive_rate``.
    """

    name: ClassVar[str] = "roc"
    summary: ClassVar[str] = "ROC curve of a score, the area under it (AUC), and KS"
    example: ClassVar[str] = "roc risk, readmitted by sex"

    def words(self) -> str:
        """What is asked."""
        return f"the ROC curve of {self.score} for {self.label} being {self.positive}"

    def decode(
        self, view: View, stages: Sequence[Sequence[Noisy]], states: Sequence[State | None], context: Context
    ) -> Answer:
        """The area, KS, and how many rows of each kind there are."""
        cells, sds = self.outcomes(view, stages[0][0])
        counts, why, firm = self.counts(cells, sds, context)
        if why:
            rows = [*(withheld(what, why) for what in ("auc", "ks")), *counts]
            return answered(self, context, rows, picture="roc", details={"score": self.score})
        rows = [_smooth("auc", _auc, cells, sds, context, firm), _ks_row(cells, sds, context), *counts]
        found = np.flip(np.cumsum(np.flip(cells, 0), axis=0) / cells.sum(axis=0), 0)
        rates = np.maximum.accumulate(np.clip(np.flip(found, 0), 0.0, 1.0), axis=0)
        edges = grid(view, self.score, self.bins)
        details = {
            "score": self.score,
            "thresholds": [None, *reversed(edges[:-1])],
            "true_positive_rate": [0.0, *rates[:, 0].tolist()],
            "false_positive_rate": [0.0, *rates[:, 1].tolist()],
        }
        notes = ("Scores in one bin are tied; ties count half.",)
        return answered(self, context, rows, picture="roc", notes=notes, details=details)


class PrecisionRecall(_Scored):
    """The precision-recall curve and the average precision.

    Where too few rows lie above a threshold, the precision of the next lower one stands for it.
    ``details`` of the answer: ``score``, ``thresholds`` (falling), ``recall``, ``precision``, ``share`` of positives.
    """

    name: ClassVar[str] = "precision_recall"
    summary: ClassVar[str] = "precision-recall curve of a score and its average precision"
    example: ClassVar[str] = "precision_recall risk, readmitted"

    def words(self) -> str:
        """What is asked."""
        return f"the precision-recall curve of {self.score} for {self.label} being {self.positive}"

    def decode(
        self, view: View, stages: Sequence[Sequence[Noisy]], states: Sequence[State | None], context: Context
    ) -> Answer:
        """Average precision, the share of positives, and how many rows of each kind there are."""
        cells, sds = self.outcomes(view, stages[0][0])
        counts, why, firm = self.counts(cells, sds, context)
        if why:
            rows = [*(withheld(what, why) for what in ("average precision", "share of positives")), *counts]
            return answered(self, context, rows, picture="precision-recall", details={"score": self.score})
        noise = np.sqrt(np.cumsum(np.flip(np.square(sds).sum(axis=1))))
        above = np.cumsum(np.flip(cells.sum(axis=1)))
        source = _sources(above > np.maximum(RESOLVED * noise, context.min_cell_count - 0.5))

        def average(tables: Floats) -> Floats:
            return _average_precision(tables, source)

        rows = [
            _smooth("average precision", average, cells, sds, context, firm),
            _smooth("share of positives", _share, cells, sds, context, firm),
            *counts,
        ]
        recall, precise = _precisions(cells[None], source)
        edges = grid(view, self.score, self.bins)
        details = {
            "score": self.score,
            "thresholds": list(reversed(edges[:-1])),
            "recall": np.maximum.accumulate(np.clip(recall[0], 0.0, 1.0)).tolist(),
            "precision": np.clip(precise[0], 0.0, 1.0).tolist(),
            "share": float(np.clip(_share(cells[None])[0, 0], 0.0, 1.0)),
        }
        notes = ("Scores in one bin are tied.",)
        return answered(self, context, rows, picture="precision-recall", notes=notes, details=details)


def _smooth(what: str, function: Function, cells: Floats, sds: Floats, context: Context, firm: bool) -> Row:
    """A share with its interval: by the delta method on the logit scale where that is sound; else by bootstrap."""
    value = float(np.clip(function(cells[None])[0, 0], 0.0, 1.0))
    if not firm:
        se, low, high = (float(one[0]) for one in band(function(redraw(cells, sds, context)), context))
        return Row(what, value, {}, se, min(max(low, 0.0), value), max(min(high, 1.0), value), note=FAINT)
    se, z = float(np.sqrt(variance_of(function, cells, sds, context)[0])), z_of(context)
    if 0 < value < 1 and se < 0.5 * value * (1 - value):
        odds, reach = value / (1 - value), np.exp(z * se / (value * (1 - value)))
        return Row(what, value, {}, se, float(1 / (1 + reach / odds)), float(1 / (1 + 1 / (odds * reach))))
    return Row(what, value, {}, se, max(value - z * se, 0.0), min(value + z * se, 1.0))


def _auc(tables: Floats) -> Floats:
    """Chance that a positive scores above a negative, ties half: (m, bins, 2) to (m, 1)."""
    positive, negative = tables[..., 0], tables[..., 1]
    below = np.cumsum(negative, axis=-1) - negative / 2
    return np.asarray(
        (positive * below).sum(axis=-1) / (positive.sum(axis=-1) * negative.sum(axis=-1)), dtype=np.float64
    )[:, None]


def _ks(tables: Floats) -> Floats:
    """Largest distance between the classes' distribution functions: (m, bins, 2) to (m, 1)."""
    shares = np.cumsum(tables, axis=1) / tables.sum(axis=1, keepdims=True)
    return np.asarray(np.abs(shares[..., 0] - shares[..., 1]).max(axis=1, keepdims=True), dtype=np.float64)


def _ks_row(cells: Floats, sds: Floats, context: Context) -> Row:
    """KS less what noise adds to it on average; the interval mirrors the bootstrap's, which is biased the same way."""
    raw = float(_ks(cells[None])[0, 0])
    with np.errstate(divide="ignore", invalid="ignore"):
        drawn = np.nan_to_num(_ks(redraw(cells, sds, context)), nan=1.0, posinf=1.0)[:, 0]
        again = cells + context.rng.normal(0.0, 1.0, (context.draws, *cells.shape)) * sds
        bias = float(np.nan_to_num(_ks(again), nan=1.0, posinf=1.0).mean()) - raw if sds.any() else 0.0
    value = float(np.clip(raw - bias, 0.0, 1.0))
    low, high = (float(np.clip(2 * raw - one, 0.0, 1.0)) for one in np.quantile(drawn, percent(context)[::-1]))
    return Row("ks", value, {}, float(drawn.std()), min(low, value), max(high, value))


def _share(tables: Floats) -> Floats:
    """Share of positives."""
    return np.asarray(tables[..., 0].sum(axis=1) / tables.sum(axis=(1, 2)), dtype=np.float64)[:, None]


def _sources(usable: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
    """For each threshold, falling, the first at or after it whose rows above suffice; the last always does."""
    out = np.arange(len(usable))
    for at in range(len(usable) - 2, -1, -1):
        if not usable[at]:
            out[at] = out[at + 1]
    return out


def _precisions(tables: Floats, source: npt.NDArray[np.int64]) -> tuple[Floats, Floats]:
    """Recall and precision at each threshold, falling: (m, bins, 2) to (m, bins) twice."""
    above = np.cumsum(np.flip(tables, 1), axis=1)
    found = above[..., 0] / above[:, -1:, 0]
    whole = above.sum(axis=-1)[:, source]
    precise: Floats = np.divide(above[..., 0][:, source], whole, out=np.zeros_like(whole), where=whole > 0)
    return found, precise


def _average_precision(tables: Floats, source: npt.NDArray[np.int64]) -> Floats:
    """Precision averaged over the steps of recall: (m, bins, 2) to (m, 1)."""
    recall, precise = _precisions(tables, source)
    return np.asarray((np.diff(recall, axis=1, prepend=0.0) * precise).sum(axis=1, keepdims=True), dtype=np.float64)
