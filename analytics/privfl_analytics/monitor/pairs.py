"""Every measure of two tables of the same cells, for one pair or a stack of simulated ones."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from privfl_analytics.monitor import measures
from privfl_analytics.monitor.tables import MISSING, ProfileAxis, ProfileTable

__all__ = ["Pair", "Place", "measured", "names_of"]

Floats: TypeAlias = npt.NDArray[np.float64]
Place: TypeAlias = tuple[str, str, str]  # column, group's cell, measure
#: Smallest share that PSI sees, by convention; under noise that of one deviation.
LEAST_SHARE = 1e-4


@dataclass(frozen=True)
class Pair:
    """One table of the profile and the same of the later data."""

    before: ProfileTable
    after: ProfileTable
    positive: str

    @property
    def column(self) -> ProfileAxis:
        return self.before.own[0]

    @property
    def scored(self) -> bool:
        """A score against its label."""
        return len(self.before.own) == 2

    def cells(self) -> Iterator[tuple[str, Floats, float]]:
        """For all people, then for each group: its name, weights over the group axis, and √Σ weights²."""
        labels = self.before.axes[0].labels if self.before.group else ("",)
        yield "", np.ones(len(labels)), math.sqrt(len(labels))
        if self.before.group:
            for at, label in enumerate(labels):
                if label not in (MISSING, "other"):
                    yield label, np.eye(len(labels))[at], 1.0


def names_of(pair: Pair) -> tuple[str, ...]:
    if pair.scored:
        return ("auc", "brier", "calibration", "calibration_error")
    ordered = ("ks", "wasserstein") if pair.column.bins else ()
    return (
        "psi",
        *ordered,
        "jensen_shannon",
        "total_variation",
        *(["missing"] if MISSING in pair.column.labels else []),
    )


def measured(pair: Pair, before: Floats, after: Floats, sds: Sequence[float]) -> dict[Place, Floats]:
    """Every measure for a stack of tables (draws, …), by place."""
    found: dict[Place, Floats] = {}
    for group, weights, spread in pair.cells():
        sides = [np.tensordot(one, weights, axes=(1, 0)) if pair.before.group else one for one in (before, after)]
        values = _quality(pair, sides) if pair.scored else _distances(pair, sides, [sd * spread for sd in sds])
        found |= {(pair.column.column, group, name): value for name, value in values.items()}
    return found


def _distances(pair: Pair, sides: Sequence[Floats], sds: Sequence[float]) -> dict[str, Floats]:
    axis, found = pair.column, {}
    present = [at for at, label in enumerate(axis.labels) if label != MISSING]
    totals = [np.maximum(one[:, present].sum(axis=-1), 1.0) for one in sides]
    p, q = (measures.project(one[:, present]) for one in sides)
    # One floor for observation and null alike: taken from the noise and the larger of the typical shares' errors.
    noise = max(sd / float(np.median(total)) for sd, total in zip(sds, totals, strict=True))
    noise = min(noise, 1 / len(present))
    found["psi"] = measures.psi(p, q, max(noise, LEAST_SHARE))
    if axis.bins:
        inside, middles = slice(0, axis.bins), (axis.numbers[1:] + axis.numbers[:-1]) / 2
        u, v = (measures.project(one[:, inside]) for one in sides)
        found["ks"], found["wasserstein"] = measures.ks(u, v), measures.wasserstein(u, v, middles)
    found["jensen_shannon"], found["total_variation"] = (
        measures.jensen_shannon(p, q, noise),
        measures.total_variation(p, q),
    )
    if MISSING in axis.labels:
        at = axis.labels.index(MISSING)
        shares = [one[:, at] / np.maximum(one.sum(axis=-1), 1.0) for one in sides]
        found["missing"] = shares[1] - shares[0]
    return found


def _quality(pair: Pair, sides: Sequence[Floats]) -> dict[str, Floats]:
    score, label = pair.before.own
    middles = (score.numbers[1:] + score.numbers[:-1]) / 2
    positive = label.labels.index(pair.positive)
    negatives = [at for at, name in enumerate(label.labels) if at != positive and name not in (MISSING, "other")]
    tables = []
    for one in sides:
        bins = one[:, : score.bins]
        table = np.stack([bins[..., negatives].sum(axis=-1), bins[..., positive]], axis=-1)
        tables.append(measures.project(table.reshape(len(table), -1)).reshape(table.shape))
    p, q = tables
    return {
        "auc": measures.auc(q) - measures.auc(p),
        "brier": measures.brier(q, middles) - measures.brier(p, middles),
        "calibration": measures.calibration(q, middles) - measures.calibration(p, middles),
        "calibration_error": measures.calibration_error(q, middles) - measures.calibration_error(p, middles),
    }
