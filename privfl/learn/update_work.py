"""What a site makes of its app's answers: integer blocks within the announced bounds, whatever came back.

An answer counts whole or not at all: a part whose arrays, number of examples or declared metrics cannot be used is a
block of zeros, so that a weighted mean stays one over the sites that count.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from privfl.dp import Contribution, LocalReport, bounded_sum, site_vector
from privfl.dp.norms import clip_rows
from privfl.entropy import Entropy
from privfl.learn.update_answers import Answer, Fault, Function, answered, examples_of, metrics_of, vector_of
from privfl.learn.update_inputs import Ask, Inputs
from privfl.learn.update_spec import Bounded, Grain, UpdateSpec
from privfl.ring import rotate

__all__ = ["Worker"]

log = logging.getLogger("privfl.site")


@dataclass(frozen=True, repr=False)
class Worker:
    """One slot's work at one site. ``seed``: of the round's public rotation."""

    spec: UpdateSpec
    grain: Grain
    seed: bytes
    entropy: Entropy
    report: LocalReport

    def parts(self, asked: Inputs, call: Function) -> list[Contribution]:
        """The blocks of the slot, in the layout's order. The model is evaluated as it came, before it is trained."""
        spec, parts = self.spec, list[Contribution]()
        evaluated = self._evaluated(asked, call)
        if asked.train is not None:
            change, weight, row = self._trained(asked, asked.train, call)
            parts.append(self._rounded(change, weight))
            del change
            if spec.weighted or spec.train:
                parts.append(self._block(weight, row))
        if spec.evaluate or (spec.weighted and spec.evaluates):
            parts.append(self._block(*evaluated))
        return parts

    def _evaluated(self, asked: Inputs, call: Function) -> tuple[float, list[float]]:
        if asked.evaluate is not None:
            answer = answered(call, asked.evaluate, asked.arrays, asked.round)
            if answer is not None:
                try:
                    return self._weighted(answer, self.spec.evaluate)
                except Fault as fault:
                    self._say(asked, "evaluation", fault)
        return 0.0, [0.0] * len(self.spec.evaluate)

    def _trained(self, asked: Inputs, ask: Ask, call: Function) -> tuple[npt.NDArray[np.float64], float, list[float]]:
        answer = answered(call, ask, asked.arrays, asked.round)
        if answer is not None:
            try:
                with np.errstate(all="ignore"):
                    change = vector_of(answer, asked.arrays, self.spec.arrays)
                return change, *self._weighted(answer, self.spec.train)
            except Fault as fault:
                self._say(asked, "training", fault)
        return np.zeros(self.spec.length), 0.0, [0.0] * len(self.spec.train)

    def _say(self, asked: Inputs, what: str, fault: Fault) -> None:
        self.report.nonfinite += 1
        log.error("round %d: the app's %s counts for nothing: %s", asked.round, what, fault)

    def _weighted(self, answer: Answer, metrics: Sequence[Bounded]) -> tuple[float, list[float]]:
        """Weight in steps of 1/S, and the metrics as shares of their bounds; raises Fault."""
        weight = 1.0
        if self.spec.weighted:
            whole = 1 << self.grain.fine
            share = min(examples_of(answer, self.spec.weighted_by), float(self.spec.cap)) / self.spec.cap
            weight = math.floor(share * whole + 0.5) / whole
        values = metrics_of(answer, [metric.name for metric in metrics])
        pairs = list(zip(metrics, values, strict=True))
        self.report.clamped += sum(not metric.bounds[0] <= value <= metric.bounds[1] for metric, value in pairs)
        return weight, [metric.share(value) for metric, value in pairs]

    def _rounded(self, change: npt.NDArray[np.float64], weight: float) -> Contribution:
        """round(s·R(w·clip(change))): its norm is at most C, as w is at most 1 and R keeps norms."""
        vector = clip_rows(change[None, :], self.spec.clip)[0][0]
        vector *= weight
        if self.grain.rotated:
            vector = rotate(vector, self.seed)
        scale = math.ldexp(1.0, self.grain.scale)
        return site_vector(vector, scale, self.spec.clip, self.entropy, report=self.report)

    def _block(self, weight: float, row: Sequence[float]) -> Contribution:
        """Integers in [0, S]; rounded to the nearest, which looks at this site's numbers alone."""
        whole = 1 << self.grain.fine
        numbers = [*([weight] if self.spec.weighted else []), *(weight * value for value in row)]
        near = [math.floor(number * whole + 0.5) / whole for number in numbers]
        return bounded_sum(np.array([near]), float(whole), report=self.report)
