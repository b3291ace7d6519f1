"""Whether a probability means what it says: observed against predicted shares by bin, and the Brier score."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, ClassVar

import numpy as np
from pydantic import Field

from privfl.tasks import Class
from privfl_analytics.answer import Answer, Row
from privfl_analytics.constructions import Bins, Construction, Is, Linear, One, SquaredError, Sums
from privfl_analytics.decode import (
    BELOW_MINIMUM,
    FIRM,
    NOT_RESOLVED,
    RESOLVED,
    count_rows,
    estimate,
    interval_of,
    number,
    within,
    z_of,
)
from privfl_analytics.statistic import Context, Noisy, State, Statistic
from privfl_analytics.statistics.binned import Floats, answered, grid, simulated, withheld
from privfl_analytics.view import View

__all__ = ["Brier", "Calibration"]


class _Predicted(Statistic):
    """Common to both: a probability and the class that it is for.

    Args:
        score: a column or score within [0, 1].
        label: a category. Rows in which it or the score is missing, or the class is not declared, do not count.
        positive: the class of the label that the score is for.
    """

    score: str
    label: str
    positive: Class = True

    def squared(self, view: View) -> SquaredError:
        """The squared error; Misuse unless the score is a probability and the class is declared."""
        asked = SquaredError(column=self.score, label=Is(column=self.label, value=self.positive))
        asked.check(view)
        return asked

    def binned(self, view: View, bins: int | tuple[float, ...]) -> Sums:
        """Sums of (1, y, 2p - 1) by bin of the score."""
        axis = Bins(column=self.score, edges=grid(view, self.score, bins))
        p = Linear(column=self.score, center=0.5, half=0.5)
        asked = Sums(by=(axis,), terms=(One(), self.squared(view).label, p))
        asked.check(view)
        return asked


class Calibration(_Predicted):
    """Observed shares against mean predictions, by bin of the prediction, and the expected calibration error.

    Args:
        bins: how many equal ones over the bounds of the score, or their edges. Neighbours are merged until each has
            enough rows: on noisy counts.

    The expected calibration error has what noise adds to it taken off; its p-value is that of a perfectly
    calibrated score of these predictions, seen through the same noise.
    ``details`` of the answer: ``score``, and for each merged bin ``edges``, ``predicted``, ``observed``, ``lower``,
    ``upper`` and ``counts``.
    """

    name: ClassVar[str] = "calibration"
    summary: ClassVar[str] = "calibration curve of a probability and its expected calibration error"
    example: ClassVar[str] = "calibration risk, readmitted"

    bins: Annotated[int, Field(ge=1, le=1000)] | Annotated[tuple[float, ...], Field(min_length=2, max_length=1001)] = 10

    def words(self) -> str:
        """What is asked."""
        return f"the calibration of {self.score} for {self.label} being {self.positive}"

    def constructions(self, view: View, stage: int = 0, state: State | None = None) -> tuple[Construction, ...]:
        """The sums of (1, y, 2p - 1) by bin."""
        return (self.binned(view, self.bins),)

    def precision(self, view: View, sds: Sequence[Sequence[float]], records: int) -> str:
        """Noise of an observed share if the bins are equally full."""
        bins = len(grid(view, self.score, self.bins)) - 1
        return f"each observed share ± {1.96 * sds[0][0] * bins / records:.3g} from noise"

    def decode(
        self, view: View, stages: Sequence[Sequence[Noisy]], states: Sequence[State | None], context: Context
    ) -> Answer:
        """Observed and predicted shares of each merged bin, and the expected calibration error."""
        noisy = stages[0][0]
        edges = grid(view, self.score, self.bins)
        cells, merged = noisy.values[: len(edges) - 1], max(context.min_cell_count, 1)
        blocks = _blocks(cells[:, 0], noisy.sd, merged)
        names = ("expected calibration error", "p-value")
        if not blocks:
            drowned = FIRM * noisy.sd * np.sqrt(len(cells)) > cells[:, 0].sum()
            why = NOT_RESOLVED if noisy.sd and drowned else BELOW_MINIMUM if merged > 1 else "no rows"
            rows = [withheld(what, why) for what in names]
            return answered(self, context, rows, picture="calibration", details={"score": self.score})
        sums = np.array([cells[low:high].sum(axis=0) for low, high in blocks])
        sds = noisy.sd * np.sqrt([high - low for low, high in blocks])
        spans = [(edges[low], edges[high]) for low, high in blocks]
        rows, details = self._curve(sums, sds, spans, context)
        rows += _error(sums, sds, context)
        notes = ("Bins with few rows are merged with their neighbours, by noisy counts.",)
        return answered(
            self, context, rows, picture="calibration", notes=notes, details={"score": self.score, **details}
        )

    def _curve(
        self, sums: Floats, sds: Floats, spans: Sequence[tuple[float, float]], context: Context
    ) -> tuple[list[Row], dict[str, list[float] | list[list[float]]]]:
        rows: list[Row] = []
        n, observed, predicted = sums[:, 0], sums[:, 1] / sums[:, 0], _mean(sums)
        widths = np.array([high - low for low, high in spans])
        drawn = context.interval == "population"
        inside = np.clip(observed, 0.0, 1.0)
        spread = np.sqrt(sds**2 * (1 + observed**2) / n**2 + drawn * inside * (1 - inside) / n)
        slack = np.sqrt(sds**2 * (1 + (2 * predicted - 1) ** 2) / (4 * n**2) + drawn * widths**2 / (12 * n))
        bounds, z = [], z_of(context)
        for at, (low, high) in enumerate(spans):
            where: dict[str, str | float] = {
                self.score: f"[{low:.6g}, {high:.6g}{']' if high == spans[-1][1] else ')'}"
            }
            bounds.append(_within(observed[at], spread[at], z, n[at], drawn))
            value, mean = float(np.clip(observed[at], 0, 1)), float(np.clip(predicted[at], low, high))
            reach = z * float(slack[at])
            rows += [
                Row("observed", value, where, float(spread[at]), *bounds[-1]),
                Row("predicted", mean, where, float(slack[at]), max(mean - reach, 0.0), min(mean + reach, 1.0)),
                *count_rows("count", n[at : at + 1], float(sds[at]), [where], context),
            ]
        details = {
            "edges": [list(span) for span in spans],
            "predicted": np.clip(predicted, *np.array(spans).T).tolist(),
            "observed": inside.tolist(),
            "lower": [low for low, _ in bounds],
            "upper": [high for _, high in bounds],
            "counts": n.tolist(),
        }
        return rows, details


class Brier(_Predicted):
    """The Brier score: the mean of (p - y)².

    How much it varies between samples is taken from a small second sum by bin, which has a tenth of the budget.
    """

    name: ClassVar[str] = "brier"
    summary: ClassVar[str] = "Brier score of a probability"
    example: ClassVar[str] = "brier risk, readmitted"

    def words(self) -> str:
        """What is asked."""
        return f"the Brier score of {self.score} for {self.label} being {self.positive}"

    def constructions(self, view: View, stage: int = 0, state: State | None = None) -> tuple[Construction, ...]:
        """The sums of (1, (p - y)²), and those of (1, y, 2p - 1) by ten bins."""
        return (Sums(terms=(One(), self.squared(view))), self.binned(view, 10))

    def weights(self, view: View) -> Sequence[Sequence[float]]:
        """Nearly all for the score itself."""
        return [[0.9, 0.1]]

    def precision(self, view: View, sds: Sequence[Sequence[float]], records: int) -> str:
        """Noise of the score."""
        return f"the score ± {1.96 * sds[0][0] / records:.3g} from noise"

    def decode(
        self, view: View, stages: Sequence[Sequence[Noisy]], states: Sequence[State | None], context: Context
    ) -> Answer:
        """The score, and of how many rows."""
        whole, binned = stages[0]
        n, errors = (float(one) for one in whole.values)
        counts = count_rows("count", whole.values[:1], whole.sd, [{}], context)
        if n < 1 or (context.min_cell_count > 1 and n < context.min_cell_count):
            why = NOT_RESOLVED if whole.sd and n < RESOLVED * whole.sd else BELOW_MINIMUM
            return answered(self, context, [withheld("brier score", why if n or whole.sd else "no rows"), *counts])
        sample_square = float(np.clip(_fourth(binned.values[:-2]), max(errors, 0.0) ** 2 / n, max(errors, 0.0)))
        sample = np.array([[n, errors], [errors, sample_square]])
        found = estimate(
            lambda sums: sums[..., 1] / sums[..., 0],
            whole.values,
            whole.sd,
            context,
            sample=sample,
            denominators=(0,),
            limits=(0.0, 1.0),
        )
        return answered(self, context, [number("brier score", found), *counts])


def _blocks(counts: Floats, sd: float, least: int) -> list[tuple[int, int]]:
    """Runs of bins with FIRM standard deviations of their noise and ``least`` rows each; the rest joins the last."""
    out: list[tuple[int, int]] = []
    low = 0
    for high in range(1, len(counts) + 1):
        if counts[low:high].sum() >= max(FIRM * sd * np.sqrt(high - low), least):
            out.append((low, high))
            low = high
    if out and low < len(counts):
        out[-1] = (out[-1][0], len(counts))
    return out


def _fourth(sums: Floats) -> float:
    """Σ (p - y)⁴ from (bins, 3) sums, every prediction taken for its bin's mean."""
    n = np.maximum(sums[:, 0], 0.0)
    hits = np.clip(sums[:, 1], 0.0, n)
    p = np.clip((np.divide(sums[:, 2], n, out=np.zeros_like(n), where=n > 0) + 1) / 2, 0.0, 1.0)
    return float((hits * (1 - p) ** 4 + (n - hits) * p**4).sum())


def _mean(sums: Floats) -> Floats:
    """Mean prediction from (…, 3) sums of (1, y, 2p - 1)."""
    return np.asarray((sums[..., 2] / sums[..., 0] + 1) / 2, dtype=np.float64)


def _within(share: float, se: float, z: float, n: float, drawn: bool) -> tuple[float, float]:
    """An interval of a share: Wilson's with the noise as fewer rows, so that it holds near 0 and 1 too."""
    inside = float(np.clip(share, 0.0, 1.0))
    if not drawn:
        return max(inside - z * se, 0.0), min(inside + z * se, 1.0)
    noise = max(se**2 - inside * (1 - inside) / n, 0.0)
    rows = 1 / (1 / n + 4 * noise)
    middle = (inside + z**2 / (2 * rows)) / (1 + z**2 / rows)
    reach = z * np.sqrt(max(inside * (1 - inside) / n + noise, 0.0) + z**2 / (4 * rows**2)) / (1 + z**2 / rows)
    return max(float(middle - reach), 0.0), min(float(middle + reach), 1.0)


def _gaps(sums: Floats) -> Floats:
    """Each bin's part of the calibration error, with its sign, from (…, bins, 3) sums."""
    away = sums[..., 1] - (sums[..., 2] + sums[..., 0]) / 2
    return np.asarray(away / np.maximum(sums[..., 0].sum(axis=-1, keepdims=True), 1.0), dtype=np.float64)


def _gap(sums: Floats) -> Floats:
    """Expected calibration error from (…, bins, 3) sums: the mean distance of observed from predicted shares."""
    return np.asarray(np.abs(_gaps(sums)).sum(axis=-1), dtype=np.float64)


def _error(sums: Floats, sds: Floats, context: Context) -> list[Row]:
    """The expected calibration error without what noise adds to it, and the p-value of a perfect score."""
    raw, rng = float(_gap(sums)), context.rng
    n = np.maximum(sums[:, 0], 0.0)
    whole = np.rint(n).astype(np.int64)
    shape = (context.draws, len(sums))
    shares, means = np.clip(sums[:, 1] / sums[:, 0], 0.0, 1.0), np.clip(_mean(sums), 0.0, 1.0)
    noise = rng.normal(0.0, 1.0, (context.draws, *sums.shape)) * sds[:, None]

    def drawn(share: Floats) -> Floats:
        hits = rng.binomial(whole, share, shape)
        return np.stack([np.broadcast_to(whole, shape), hits, np.broadcast_to(whole * (2 * means - 1), shape)], axis=-1)

    bias = float(_gap(sums + noise).mean()) - raw if sds.any() else 0.0
    value = float(np.clip(raw - bias, 0.0, 1.0))
    again = _gaps((drawn(shares) if context.interval == "population" else sums) + noise)
    se = float(np.sqrt(again.var(axis=0).sum()))  # of the signed parts: folding them at 0 would make it too small
    found = interval_of(value, se, context)
    return [
        number("expected calibration error", within(found, (0.0, 1.0))),
        simulated(raw, _gap(drawn(means) + noise), "of a perfectly calibrated score, noise included"),
    ]
