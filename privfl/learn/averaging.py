"""Federated averaging of scikit-learn estimators: a site's change of the coefficients is one clipped vector.

Construction S: the vector is clipped, rounded at random and tested in integers at its own site. The
unit of protection is the site; with noise this wants many sites, since one site is 1/n of the sum.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from privfl.dp import (
    Contribution,
    LocalReport,
    bounded_delta2,
    bounded_sum,
    least_scaled_clip,
    rounded_delta2,
    site_vector,
)
from privfl.entropy import Entropy
from privfl.errors import Misuse
from privfl.learn.history import History
from privfl.learn.models import fitted
from privfl.learn.planning import Layout
from privfl.learn.strategies import Floats
from privfl.learn.tasks import METRIC_SCALE, METRICS, Int64s, Task, TaskState
from privfl.tasks.binding import BoundData

if TYPE_CHECKING:
    from privfl.learn.specs import Averaging

__all__ = ["AveragingTask"]


class AveragingTask(Task):
    """Rounds of local fitting and averaging; classes are numbered in their declared order at the sites."""

    kind = "averaging"
    spec: Averaging

    def layout(self) -> tuple[Layout, ...]:
        spec, scale = self.spec, 2.0**self.spec.scale_bits
        length = (len(self.features) + 1) * self.outputs
        if scale * spec.clip < least_scaled_clip(length):
            raise Misuse(f"scale_bits {spec.scale_bits} is too coarse for {length} parameters; use more bits")
        if not scale * spec.clip < 2.0**60:  # said here, not after the site was charged
            raise Misuse(f"a clip of {spec.clip:g} at {spec.scale_bits} scale_bits passes 2^60 units; use fewer bits")
        delta2 = rounded_delta2(length, scale, spec.clip)
        blocks = [Layout("update", length, delta2, math.isqrt(delta2) + 1)]
        if spec.metrics:
            metrics2 = bounded_delta2(len(METRICS), METRIC_SCALE)
            blocks.append(Layout("metrics", len(METRICS), metrics2, METRIC_SCALE))
        return tuple(blocks)

    # -- the site ------------------------------------------------------------------------------------

    def _parts(self, params: Floats, bound: BoundData, entropy: Entropy, report: LocalReport) -> Sequence[Contribution]:
        spec = self.spec
        change = self._fit(params, bound) - params
        parts = [site_vector(change.reshape(-1), 2.0**spec.scale_bits, spec.clip, entropy, report=report)]
        if spec.metrics:
            table = self.metrics_of(params, bound)
            labelled = table[:, 0].sum()
            # the site's own means: one vector in [0, 1]^3 whatever its number of rows
            site = table.sum(axis=0) / labelled if labelled else np.zeros(len(METRICS))
            parts.append(bounded_sum(site[None, :], METRIC_SCALE, report=report))
        return parts

    def _fit(self, params: Floats, bound: BoundData) -> Floats:
        """Parameters after local fitting, ``[d + 1, k]``; unchanged where the rows cannot be fitted."""
        truth, usable = bound.label(self.spec.label)
        rows = np.flatnonzero(usable)
        features, target = bound.columns(self.features)[rows], truth[rows]
        codes = None if self.classes is None else list(range(len(self.classes)))
        target = target if codes is None else target.astype(np.int64)
        estimator = self._start(params, codes)
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            # Whatever scikit-learn says about these rows stays here: rows never change whether a site uploads.
            try:
                after = _train(estimator, features, target, self.spec.passes)
                fresh = np.vstack([np.atleast_2d(after.coef_).T, np.atleast_1d(after.intercept_)[None, :]])
                return fresh if fresh.shape == params.shape and np.isfinite(fresh).all() else params
            except Exception:
                return params

    def _start(self, params: Floats, codes: list[int] | None) -> Any:
        names = [f"x{place}" for place in range(len(self.features))]
        estimator = fitted(self.spec.estimator, params[:-1].T, params[-1], codes, names)
        del estimator.feature_names_in_
        return estimator

    def metrics_of(self, params: Floats, bound: BoundData) -> Floats:
        truth, usable = bound.label(self.spec.label)
        predictors = bound.columns(self.features) @ params[:-1] + params[-1]
        if self.classes is None:
            residual = np.abs(predictors[:, 0] - truth)
            right, loss = residual <= self.spec.tolerance, np.minimum(residual**2 / self.loss_cap, 1.0)
        else:
            said = predictors.argmax(axis=1) if self.outputs > 1 else predictors[:, 0] > 0
            right = said == truth
            loss = 1.0 - right
        table = np.column_stack([np.ones(len(truth)), right, loss])
        table[~usable] = 0.0
        return table

    @property
    def loss_cap(self) -> float:
        return 4.0 if self.classes is None else 1.0

    # -- the coordinator -----------------------------------------------------------------------------

    def update(self, state: TaskState, total: Int64s, survivors: int) -> TaskState:
        parts = self._open(total, survivors)
        change = parts["update"].reshape(state.params.shape) * 2.0**-self.spec.scale_bits / survivors
        params, strategy = self.strategy.update(-change, state.strategy, state.params)
        row = self._row(state, parts, survivors, float(survivors), float(np.linalg.norm(change)))
        return TaskState(state.round + 1, params, strategy, History([*state.history, row]))

    def finish(self, state: TaskState) -> Any:
        return self._finished(self.spec.estimator, self.output(state))


def _train(estimator: Any, features: Floats, target: Floats, passes: int) -> Any:
    """Go on from the estimator's coefficients where it can: partial_fit, else a warm start, else afresh."""
    if hasattr(estimator, "partial_fit"):
        for _ in range(passes):
            estimator.partial_fit(features, target)
        return estimator
    if "warm_start" in estimator.get_params():
        estimator.set_params(warm_start=True)
    return estimator.fit(features, target)
