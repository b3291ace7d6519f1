"""Generalised linear models: coefficients with the noise of the gradients in their errors."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from scipy.stats import norm

from privfl_analytics.answer import Answer
from privfl_analytics.constructions import Outer
from privfl_analytics.decode import BELOW_MINIMUM, NOT_RESOLVED, Estimate, number, percent
from privfl_analytics.statistic import Context, Noisy, State
from privfl_analytics.statistics._linear import coefficient_rows, listed, separated, terms, to_raw
from privfl_analytics.statistics._moments import Moments, head, moments_of, remarks
from privfl_analytics.statistics._newton import Ended, Family, Newton
from privfl_analytics.statistics.regression import linear_answer
from privfl_analytics.view import View

__all__ = ["Glm", "Logistic", "Poisson"]

Floats: TypeAlias = npt.NDArray[np.float64]

#: A linear predictor that spreads further over rows separates the classes.
_SEPARATED = 10.0


class _Fitted(Newton):
    """The answer, common to all."""

    def decode(
        self, view: View, stages: Sequence[Sequence[Noisy]], states: Sequence[State | None], context: Context
    ) -> Answer:
        if self.model() == "gaussian":
            (asked,) = self.linear().constructions(view)
            return linear_answer(self, view, asked, stages[0][0], self.ridge, context)
        outer = self.outer(view)
        moments = moments_of(view, outer, stages[0][0])
        rows, notes = head(moments, context), list(remarks(moments, outer))
        ended = self.ended(view, stages, states)
        note = self._why_not(moments, outer, ended) if rows[0].value is not None else rows[0].note
        found = None if note else self._coefficients(view, outer, ended, context)
        notes += self._notes(view, ended, note)
        names = terms(self.features)
        rows += coefficient_rows(names, [""] * len(names), found, math.inf, context, note)
        ratio = "odds ratio" if self.model() == "binomial" else "rate ratio"
        for at, name in enumerate(names[1:], 1):
            rows.append(number(ratio, None if found is None else _exponential(found[at]), at={"term": name}, note=note))
        details: dict[str, Any] = {
            "names": list(names),
            "coefficients": None if found is None else [one.value for one in found],
            "link": self.link(),
            "path": [list(state["beta"]) for state in states if state is not None],
        }
        return Answer(
            title=self.words(),
            statistic=self.name,
            rows=tuple(rows),
            confidence=context.confidence,
            interval=context.interval,
            notes=tuple(notes),
            details=details if rows[0].value is not None else {"names": list(names), "coefficients": None},
            sites=context.survivors,
            records=context.records,
        )

    def _why_not(self, moments: Moments, outer: Outer, ended: Ended) -> str:
        """Why there are no coefficients; empty where there are."""
        if not separated(moments, self.ridge / outer.radius**2):
            constant = "a feature is constant or follows from others, or there are too few rows"
            return NOT_RESOLVED if moments.sd else constant
        gram, slopes = ended.fitted.gram, ended.beta[1:]
        inverse = np.linalg.inv(ended.fitted.eased(ended.beta))
        if ended.noise2 * float(np.trace(gram @ inverse @ inverse)) > 1.0:  # noise alone moves predictors by 1
            return NOT_RESOLVED
        if float(slopes @ ended.fitted.cov @ slopes) > _SEPARATED**2:
            return "no finite coefficients: the features may separate the classes; set ridge"
        return ""

    def _coefficients(self, view: View, outer: Outer, ended: Ended, context: Context) -> tuple[Estimate, ...]:
        """Raw coefficients with the covariance H⁻¹(Σ_sample + Σ_noise)H⁻¹."""
        inverse = np.linalg.inv(ended.fitted.eased(ended.beta))
        middle = ended.noise2 * np.eye(len(inverse))
        if context.interval == "population":
            # A label in units of the largest count varies by 1/half of its mean.
            middle = middle + ended.fitted.curvature(ended.beta, penalised=False) / self.half(view)
        transform, shift = to_raw([one.frame(view) for one in outer.columns], (math.log(self.half(view)), 1.0))
        covariance = transform @ inverse @ middle @ inverse @ transform.T
        raw, se = transform @ ended.beta + shift, np.sqrt(np.clip(np.diag(covariance), 0.0, None))
        reach = float(norm.ppf(percent(context)[1])) * se
        return listed(raw, se, raw - reach, raw + reach)

    def _notes(self, view: View, ended: Ended, why: str) -> list[str]:
        said = [
            f"The curvature is that of normal features; a row's gradient beyond {self.clip_of(view):.3g} is shortened, "
            "which biases outside the intervals.",
            f"{self.split()[0].upper()}{self.split()[1:]}; coefficients are averaged over these.",
        ]
        if self.model() == "poisson":
            said.append("Standard errors take the label's variance for its mean.")
        if ended.unsettled:
            said.append("The steps have not settled; ask for more of them.")
        if self.ridge:
            said.append("Ridge biases the coefficients towards 0; intervals do not contain that.")
        if why and why != BELOW_MINIMUM:
            said.append("Leave out features that follow from others, set ridge, or ask with a larger budget.")
        return said


def _exponential(one: Estimate) -> Estimate:
    value, lower, upper = (math.exp(min(part, 700.0)) for part in (one.value, one.lower, one.upper))
    return Estimate(value, value * one.se, lower, upper)


class Glm(_Fitted):
    """A generalised linear model with its canonical link.

    ``gaussian`` takes one round, without steps: it is the linear regression.

    Args:
        family: of the label: ``gaussian`` (any number), ``binomial`` (a class) or ``poisson`` (counts).
    """

    name = "glm"
    summary = "a generalised linear model: gaussian, binomial or poisson"
    example = "glm systolic features=[age, bmi] family=gaussian"
    family: Family = "gaussian"

    def model(self) -> Family:
        return self.family


class Logistic(_Fitted):
    """Logistic regression: the binomial model."""

    name = "logistic_regression"
    summary = "coefficients and odds ratios of a logistic model"
    example = "logistic_regression readmitted features=[age, bmi]"

    def model(self) -> Family:
        return "binomial"


class Poisson(_Fitted):
    """Poisson regression of counts, logarithmic link."""

    name = "poisson_regression"
    summary = "coefficients and rate ratios of a Poisson model"
    example = "poisson_regression months features=[age]"

    def model(self) -> Family:
        return "poisson"
