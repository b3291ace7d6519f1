"""Linear regression from one outer product of features and label."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import Field

from privfl.errors import Misuse
from privfl_analytics.answer import Answer, Row
from privfl_analytics.constructions import Outer
from privfl_analytics.decode import BELOW_MINIMUM, NOT_RESOLVED, number
from privfl_analytics.statistic import Context, Noisy, State, Statistic
from privfl_analytics.statistics._linear import (
    coefficient_rows,
    collinear,
    least_squares,
    terms,
    units_of,
)
from privfl_analytics.statistics._moments import CROSSED, framed, head, moments_of, outer_of, remarks
from privfl_analytics.view import View

__all__ = ["LinearRegression", "linear_answer"]


class LinearRegression(Statistic):
    """Least squares of a numeric label on numeric features, over rows that have all of them.

    Args:
        label, features: numeric columns.
        ridge: added to the variance of every feature in units of its public scale squared; biases coefficients towards
            0 and lets ill-conditioned or noisy problems be resolved. 0 is ordinary least squares.
        radius: rows farther from the public centers, label included, are shortened to it; 2√(p + 1) scales by default,
            less where the bounds reach less far.
    """

    name = "linear_regression"
    summary = "coefficients, standard errors and R² of a linear model"
    example = "linear_regression systolic features=[age, bmi]"
    label: str
    features: Annotated[tuple[str, ...], Field(min_length=1, max_length=500)]
    ridge: Annotated[float, Field(ge=0, le=1e6)] = 0.0
    radius: Annotated[float | None, Field(gt=0)] = None

    def constructions(self, view: View, stage: int = 0, state: State | None = None) -> tuple[Outer]:
        if self.label in self.features:
            raise Misuse(f"the label {self.label!r} is among the features; leave it out of them")
        return (outer_of(view, framed(view, (*self.features, self.label)), self.radius),)

    def decode(
        self, view: View, stages: Sequence[Sequence[Noisy]], states: Sequence[State | None], context: Context
    ) -> Answer:
        (asked,) = self.constructions(view)
        return linear_answer(self, view, asked, stages[0][0], self.ridge, context)

    def words(self) -> str:
        return f"the linear regression of {self.label} on {', '.join(self.features)}"

    def precision(self, view: View, sds: Sequence[Sequence[float]], records: int) -> str:
        (asked,) = self.constructions(view)
        reach = 1.96 * sds[0][0] * CROSSED * asked.radius**2 / records
        return f"each coefficient ± {reach:.2g} scales of the label per scale of the feature, from noise alone"


def linear_answer(
    statistic: Statistic, view: View, asked: Outer, noisy: Noisy, ridge: float, context: Context
) -> Answer:
    """The answer of a linear model whose label is the last column of ``asked``."""
    moments = moments_of(view, asked, noisy)
    rows = head(moments, context)
    *features, label = (one.column for one in asked.columns)
    hidden = rows[0].value is None
    ridge_x = ridge / asked.radius**2
    fit = None if hidden else least_squares(moments, ridge_x, context)
    note, notes = NOT_RESOLVED, list(remarks(moments, asked))
    if hidden:
        note = rows[0].note
    elif not moments.sd and collinear(moments.pick(range(len(features))), ridge_x):
        note = "a feature is constant or follows from others, or there are too few rows"
    if fit is None and note != BELOW_MINIMUM:
        notes.append("Leave out features that follow from others, set ridge, or ask with a larger budget.")
    if ridge:
        notes.append("Ridge biases the coefficients towards 0; intervals do not contain that.")
    unit = view.numeric(label).unit
    names, units = terms(features), units_of(view, asked.columns[:-1], unit)
    found, freedom = (None, math.inf) if fit is None else (fit.coefficients, fit.freedom)
    rows += coefficient_rows(names, units, found, freedom, context, note)
    rows.append(number("R²", None if fit is None else fit.explained, note="" if fit else note))
    left = None if fit is None else fit.residual
    rows.append(Row("residual sd", left, unit=unit, note="" if fit else note))
    details: dict[str, Any] = {
        "names": list(names),
        "coefficients": None if fit is None else [one.value for one in fit.coefficients],
        "link": "identity",
    }
    return Answer(
        title=statistic.words(),
        statistic=statistic.name,
        rows=tuple(rows),
        confidence=context.confidence,
        interval=context.interval,
        notes=tuple(notes),
        details=details,
        sites=context.survivors,
        records=context.records,
    )
