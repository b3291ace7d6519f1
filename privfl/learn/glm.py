"""Generalised linear models with privacy for records or subjects: clipped full-batch gradient sums in exact integers.

One record's gradient is x̃ r̃ᵀ, features times residual, which construction F clips and sums exactly. The
server divides by the *declared* size, never by a true count.

For the unit subject each site first keeps at most ``max_rows`` rows of every subject and none without one, so that
all rows of a subject together move the sum by at most ``max_rows`` times what one row can: Δ² is ``max_rows²`` times
the row's. A single row is then not protected at the row's price: removing it may bring in another one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from privfl.dp import (
    MAX_REACH,
    Contribution,
    FactorTable,
    LocalReport,
    Unit,
    bounded_delta2,
    bounded_sum,
    factor_delta2,
)
from privfl.entropy import Entropy
from privfl.errors import Misuse
from privfl.learn.history import History
from privfl.learn.models import EstimatorRef
from privfl.learn.planning import Layout, subject_rows
from privfl.learn.strategies import Floats
from privfl.learn.tasks import METRIC_SCALE, METRICS, Int64s, Task, TaskState
from privfl.ring import quantise
from privfl.tasks.binding import BoundData
from privfl.tasks.schema import Numeric

if TYPE_CHECKING:
    from privfl.learn.specs import Linear, Logistic

__all__ = ["GlmTask"]


class GlmTask(Task):
    """Shared by logistic and linear regression; they differ in residual and loss only."""

    spec: Logistic | Linear

    @property
    def kind(self) -> str:  # type: ignore[override]
        """The spec's kind."""
        return self.spec.kind

    def layout(self) -> tuple[Layout, ...]:
        spec, records = self.spec, self.schema.records
        delta2 = factor_delta2(spec.clip, spec.feature_bits, spec.residual_bits)
        self._check_bits(delta2)
        length, x_max = (len(self.features) + 1) * self.outputs, records * math.isqrt(delta2)
        blocks = [Layout("gradient", length, self._of_unit(delta2), x_max)]
        if spec.metrics:
            metrics2 = self._of_unit(bounded_delta2(len(METRICS), METRIC_SCALE))
            blocks.append(Layout("metrics", len(METRICS), metrics2, records * METRIC_SCALE))
        return tuple(blocks)

    def _of_unit(self, delta2: int) -> int:
        """Squared sensitivity of the protected unit, from that of one row."""
        return delta2 * subject_rows(self.schema) ** 2 if self.plan.unit is Unit.SUBJECT else delta2

    def _reach(self) -> Floats:
        """Largest magnitude of each quantised feature by the schema, the intercept's last; whole numbers."""
        columns = (self.schema.columns[name] for name in self.features)
        # Computed as the values themselves are, so that rounding cannot take a value beyond.
        reach = [max(c.center - c.lower, c.upper - c.center) / c.scale for c in columns if isinstance(c, Numeric)]
        return np.rint(np.array([*reach, 1.0]) * 2.0**self.spec.feature_bits)

    def _check_bits(self, delta2: int) -> None:
        # Public numbers decide here, before anything is spent; left to the site's sums, a row would decide.
        with np.errstate(over="ignore"):
            fits = float(self._reach().sum()) <= MAX_REACH
        if not fits or math.isqrt(delta2) >= 1 << 53:
            spec = self.spec
            raise Misuse(
                f"the columns' bounds and a clip of {spec.clip:g} at {spec.feature_bits}+{spec.residual_bits} bits do "
                "not leave exact sums in float64; use fewer bits, or declare scales nearer to the spread of the columns"
            )

    # -- the site ------------------------------------------------------------------------------------

    def _parts(self, params: Floats, bound: BoundData, entropy: Entropy, report: LocalReport) -> Sequence[Contribution]:
        # construction F rounds towards zero; only the choice among a subject's rows is drawn
        if self.plan.unit is Unit.SUBJECT:
            bound = bound.bounded(subject_rows(self.schema), entropy)
        spec = self.spec
        predictors = self._predictors(params, bound)
        residuals = self._residuals(predictors, bound)
        parts = [self._table(bound).gradient(residuals, spec.clip, spec.residual_bits, report=report)]
        if spec.metrics:
            parts.append(bounded_sum(self._metrics(predictors, bound), METRIC_SCALE, report=report))
        return [replace(part, delta2=self._of_unit(part.delta2)) for part in parts]

    def _quantised(self, bound: BoundData) -> Int64s:
        columns = quantise(bound.columns(self.features), self.spec.feature_bits)
        ones = np.full((len(columns), 1), 1 << self.spec.feature_bits, dtype=np.int64)
        return np.hstack([columns, ones])

    def _table(self, bound: BoundData) -> FactorTable:
        key = ("factors", self.features, self.spec.feature_bits)
        return bound.prepared(key, lambda: FactorTable(self._quantised(bound), self.spec.feature_bits))

    def _predictors(self, params: Floats, bound: BoundData) -> Floats:
        """Linear predictors ``[n, k]``, every row's by itself: never a float product over several rows."""
        return self._table(bound).predictors(params, self._reach())

    def _residuals(self, predictors: Floats, bound: BoundData) -> Floats:
        """Prediction minus truth, ``[n, k]``; zero where there is no usable label."""
        truth, usable = bound.label(self.spec.label)
        if self.classes is None:
            out = predictors - truth[:, None]
        elif self.outputs == 1:
            out = _sigmoid(predictors) - truth[:, None]
        else:
            out = _softmax(predictors)
            rows = np.flatnonzero(usable)
            out[rows, truth[rows].astype(np.int64)] -= 1.0
        out[~usable] = 0.0
        return out

    def metrics_of(self, params: Floats, bound: BoundData) -> Floats:
        return self._metrics(self._predictors(params, bound), bound)

    def _metrics(self, predictors: Floats, bound: BoundData) -> Floats:
        truth, usable = bound.label(self.spec.label)
        if self.classes is None:
            residual = np.abs(predictors[:, 0] - truth)
            loss, right = residual**2, residual <= self.spec.tolerance  # type: ignore[union-attr]
        elif self.outputs == 1:
            margin = np.where(truth > 0, predictors[:, 0], -predictors[:, 0])
            loss, right = np.logaddexp(0.0, -margin), margin > 0
        else:
            codes = np.where(usable, truth, 0).astype(np.int64)
            shifted = predictors - predictors.max(axis=1, keepdims=True)
            logs = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
            loss, right = -logs[np.arange(len(codes)), codes], predictors.argmax(axis=1) == codes
        table = np.column_stack([np.ones(len(truth)), right, np.minimum(loss / self.loss_cap, 1.0)])
        table[~usable] = 0.0
        return table

    @property
    def loss_cap(self) -> float:
        return self.spec.loss_cap or (2.0 * math.log(len(self.classes)) if self.classes is not None else 4.0)

    # -- the coordinator -----------------------------------------------------------------------------

    def update(self, state: TaskState, total: Int64s, survivors: int) -> TaskState:
        parts = self._open(total, survivors)
        spec = self.spec
        size = self.schema.records * survivors / self.plan.sites
        unit = 2.0 ** -(spec.feature_bits + spec.residual_bits)
        gradient = parts["gradient"].reshape(state.params.shape) * unit / size
        pull = spec.l2 * state.params
        pull[-1] = 0.0  # the intercept is not pulled to zero
        params, strategy = self.strategy.update(gradient + pull, state.strategy, state.params)
        row = self._row(state, parts, survivors, size, float(np.linalg.norm(gradient)))
        return TaskState(state.round + 1, params, strategy, History([*state.history, row]))

    def finish(self, state: TaskState) -> Any:
        name = "LinearRegression" if self.classes is None else "LogisticRegression"
        return self._finished(EstimatorRef(path=f"sklearn.linear_model.{name}"), self.output(state))


def _sigmoid(values: Floats) -> Floats:
    return 0.5 * (1.0 + np.tanh(0.5 * values))


def _softmax(values: Floats) -> Floats:
    raised = np.exp(values - values.max(axis=1, keepdims=True))
    out: Floats = raised / raised.sum(axis=1, keepdims=True)
    return out
