"""Means of groups compared: Welch's t-test and one-way analysis of variance, with the noise in their nulls."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
from scipy import stats

from privfl.errors import Misuse
from privfl.tasks import Class
from privfl_analytics.answer import Answer, Row
from privfl_analytics.constructions import VALUE_BITS, Classes, Construction, Linear, One, Square, Sums
from privfl_analytics.decode import (
    FIRM,
    NOT_RESOLVED,
    RESOLVED,
    count_rows,
    interval_of,
    number,
    z_of,
)
from privfl_analytics.statistic import Context, Noisy, State, Statistic
from privfl_analytics.statistics._groups import (
    between_noise,
    mean_noise,
    moments,
    redrawn,
    split,
    weak,
    welch,
    within_noise,
)
from privfl_analytics.statistics.binned import FAINT, Floats, answered, band, chosen, simulated, withheld
from privfl_analytics.view import View

__all__ = ["Anova", "TTest"]

#: Below it a variance (of values in [-1, 1]) is rounding: squares are cut to 2^-VALUE_BITS.
_FLAT = 2.0**-VALUE_BITS
_CONSTANT = "the column does not vary within the groups"


class _Compared(Statistic):
    """Common to both: counts, sums and squares of a column within the classes of another."""

    column: str
    group: str

    def constructions(self, view: View, stage: int = 0, state: State | None = None) -> tuple[Construction, ...]:
        """The sums of (1, t, 2t² - 1) by group."""
        self.places(view)
        terms = (One(), Linear(column=self.column), Square(column=self.column))
        asked = Sums(by=(Classes(column=self.group),), terms=terms)
        asked.check(view)
        return (asked,)

    def places(self, view: View) -> dict[int, str]:
        """Cells of the compared groups and their labels."""
        raise NotImplementedError

    def precision(self, view: View, sds: Sequence[Sequence[float]], records: int) -> str:
        """Noise of a group's mean if the groups are equal."""
        _, half = Linear(column=self.column).frame(view)
        share = records / len(self.places(view))
        return f"each group's mean ± {1.96 * half * sds[0][0] / share:.3g} from noise"

    def groups(self, view: View, noisy: Noisy, context: Context) -> tuple[Floats, tuple[Row, ...], str]:
        """The groups' sums, rows of their counts and means, and why they cannot be compared, if so."""
        places = self.places(view)
        cells = noisy.values[list(places)]
        center, half = Linear(column=self.column).frame(view)
        unit, note = view.numeric(self.column).unit, ""
        places_at: list[dict[str, str | float]] = [{self.group: label} for label in places.values()]
        rows = count_rows("count", cells[:, 0], noisy.sd, places_at, context)
        for one, at in zip(cells, places_at, strict=True):
            why = weak(float(one[0]), noisy.sd, context)
            if why:
                note = note or why
                rows.append(withheld("mean", why, at, unit))
                continue
            n, mean, variance = moments(one)
            sampled = float(variance / n) if context.interval == "population" else 0.0
            se = half * float(np.sqrt(mean_noise(n, mean, noisy.sd) + max(sampled, 0.0)))
            rows.append(number("mean", interval_of(float(center + half * mean), se, context), at=at, unit=unit))
        return cells, tuple(rows), note


class TTest(_Compared):
    """Welch's t-test: do two groups differ in the mean of a column?

    Args:
        column: the number. group: the category.
        classes: which two of its classes, the first minus the second; may be left out where there are only two.
    """

    name: ClassVar[str] = "t_test"
    summary: ClassVar[str] = "Welch's t-test of a column between two groups, with the noise in its null"
    example: ClassVar[str] = "t_test bmi group=sex"

    classes: tuple[Class, Class] | None = None

    def words(self) -> str:
        """What is asked."""
        named = f" {self.classes[0]!r} and {self.classes[1]!r}" if self.classes else ""
        return f"Welch's t-test of {self.column} between the groups{named} of {self.group}"

    def places(self, view: View) -> dict[int, str]:
        """Two groups; Misuse otherwise."""
        found = chosen(view, self.group, self.classes)
        if len(found) != 2:
            raise Misuse(f"a t-test compares two classes and {self.group!r} has {len(found)}; name two of them")
        return found

    def decode(
        self, view: View, stages: Sequence[Sequence[Noisy]], states: Sequence[State | None], context: Context
    ) -> Answer:
        """Difference of means, t, degrees of freedom and p-value, after each group's count and mean."""
        noisy = stages[0][0]
        cells, rows, note = self.groups(view, noisy, context)
        names = ("difference", "t statistic", "degrees of freedom", "p-value")
        if note:
            return answered(self, context, [*rows, *(withheld(what, note) for what in names)])
        t, freedom, se = (float(one) for one in welch(cells, noisy.sd))
        if not np.isfinite(t) or (noisy.sd == 0 and max(moments(cells)[2]) < _FLAT):
            return answered(self, context, [*rows, *(withheld(what, _CONSTANT) for what in names)])
        half = Linear(column=self.column).frame(view)[1]
        found = [*rows, self._difference(view, cells, noisy.sd, half, (freedom, se), context)]
        if min(cells[:, 0]) > FIRM * noisy.sd:
            p = Row("p-value", float(2 * stats.t.sf(abs(t), freedom)))
        else:
            null = welch(redrawn(cells, noisy.sd, context, equal=True), noisy.sd)[0]
            p = simulated(abs(t), np.abs(np.nan_to_num(null, nan=np.inf)))
        found += [Row("t statistic", t), Row("degrees of freedom", freedom), p]
        return answered(self, context, found, notes=_notes(noisy.sd))

    def _difference(
        self, view: View, cells: Floats, sd: float, half: float, error: tuple[float, float], context: Context
    ) -> Row:
        _, mean, _ = moments(cells)
        value, (freedom, se), unit = half * float(mean[0] - mean[1]), error, view.numeric(self.column).unit
        if min(cells[:, 0]) > FIRM * sd:
            reach = float(stats.t.ppf((1 + context.confidence) / 2, freedom)) * se
            if context.interval == "rows":
                se = float(np.sqrt(mean_noise(cells[:, 0], mean, sd).sum()))
                reach = z_of(context) * se
            return Row("difference", value, {}, half * se, value - half * reach, value + half * reach, unit)
        drawn = moments(redrawn(cells, sd, context))[1]
        spread, low, high = band(half * (drawn[:, 0] - drawn[:, 1]), context)
        return Row("difference", value, {}, float(spread), float(low), float(high), unit, FAINT)


class Anova(_Compared):
    """One-way analysis of variance: do the groups of a category differ in the mean of a column?

    Args:
        column: the number. group: the category.
        classes: which of its classes; by default all that are declared.
    """

    name: ClassVar[str] = "anova"
    summary: ClassVar[str] = "one-way analysis of variance of a column between groups, with the noise in its null"
    example: ClassVar[str] = "anova bmi group=ward"

    classes: tuple[Class, ...] | None = None

    def words(self) -> str:
        """What is asked."""
        named = f" {', '.join(map(repr, self.classes))}" if self.classes else ""
        return f"the analysis of variance of {self.column} between the groups{named} of {self.group}"

    def places(self, view: View) -> dict[int, str]:
        """Two groups or more; Misuse otherwise."""
        found = chosen(view, self.group, self.classes)
        if len(found) < 2:
            raise Misuse(f"an analysis of variance compares two or more classes of {self.group!r}; name them")
        return found

    def decode(
        self, view: View, stages: Sequence[Sequence[Noisy]], states: Sequence[State | None], context: Context
    ) -> Answer:
        """F, its degrees of freedom, p-value and η², after each group's count and mean."""
        noisy = stages[0][0]
        cells, rows, note = self.groups(view, noisy, context)
        names = ("F statistic", "degrees of freedom between", "degrees of freedom within", "p-value", "eta squared")
        within, between, freedom = (float(one) for one in split(cells))
        if not note and noisy.sd == 0 and within < _FLAT * freedom:
            note = _CONSTANT
        if note:
            return answered(self, context, [*rows, *(withheld(what, note) for what in names)])
        groups = len(cells)
        firm = within > RESOLVED * within_noise(cells, noisy.sd)
        f = (between / (groups - 1)) / (within / freedom) if firm else None
        real = max(between - between_noise(cells, noisy.sd), 0.0)
        share = float(np.clip(real / (real + within), 0, 1)) if firm else None
        values = dict(zip(names, (f, groups - 1.0, freedom, None, share), strict=True))
        found = [Row(what, value, note="" if value is not None else NOT_RESOLVED) for what, value in values.items()]
        found[3] = _anova_p(cells, noisy.sd, context, firm)
        return answered(self, context, [*rows, *found], notes=_notes(noisy.sd))


def _anova_p(cells: Floats, sd: float, context: Context, firm: bool) -> Row:
    """The p-value of F; where noise drowns the spread within groups, of the spread between them alone."""
    groups = len(cells)
    within, between, freedom = split(cells)
    if sd == 0:
        f = between / (groups - 1) / (within / freedom)
        return Row("p-value", float(stats.f.sf(f, groups - 1, freedom)))
    w, b, df = split(redrawn(cells, sd, context, equal=True))
    if not firm:
        return simulated(float(between), b)
    ratios = np.divide(b * df, w, out=np.full_like(b, np.inf), where=(w > 0) & (df > 0))
    return simulated(float(between * freedom / within), ratios)


def _notes(sd: float) -> tuple[str, ...]:
    return ("The p-value's null includes the noise; a test is about the population.",) if sd else ()
