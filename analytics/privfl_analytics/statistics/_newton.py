"""Generalised linear models step by step: second moments of the features once, then one gradient a step."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
from pydantic import Field

from privfl.errors import Misuse
from privfl.tasks import Category, Class
from privfl_analytics.conditions import All, Condition, IsMissing, Not, OneOf
from privfl_analytics.constructions import Construction, Gradient, Is, Linear, Meets, Outer, Tally
from privfl_analytics.decode import resolves
from privfl_analytics.statistic import Noisy, State, Statistic
from privfl_analytics.statistics._moments import CROSSED, ROUNDING, framed, moments_of, outer_of
from privfl_analytics.statistics._state import floats_of
from privfl_analytics.statistics._surrogate import Link, Surrogate
from privfl_analytics.statistics.regression import LinearRegression
from privfl_analytics.view import View

__all__ = ["Ended", "Family", "Newton"]

Floats: TypeAlias = npt.NDArray[np.float64]
Family: TypeAlias = Literal["gaussian", "binomial", "poisson"]

#: Fractional bits of a residual: its truncation towards 0 moves no coefficient by more than 1e-4.
_RESIDUAL_BITS = 16
#: Shares of the budget: moments, the count of usable rows, an early step, a late one.
_MOMENTS, _COUNT, _EARLY, _LATE = 1.5, 0.1, 0.5, 1.0
#: Coefficients in public scales beyond this mean that no finite ones fit.
_LARGEST = 1e3
#: Steps that promise less, in squared standard errors, teach nothing about the curvature: rounding is as large.
_STILL = 1e-6
#: Points of which the gradient is remembered.
_MEMORY = 6


@dataclass(frozen=True, eq=False)
class Ended:
    """Where the steps led: coefficients in scales, noise variance of their mean gradient, whether they still moved."""

    fitted: Surrogate
    beta: Floats
    noise2: float
    unsettled: bool


class Newton(Statistic):
    """Common to all families: the plan, the steps, and where they end.

    Args:
        label: a class of a category, or a number in [0, 1] (binomial); counts from 0 (poisson); any number (gaussian).
        features: numeric columns.
        positive: the class whose probability is modelled; by default the last declared one.
        steps: rounds of gradients; the second half of them has twice the budget of the first, and the coefficients
            are averaged over it.
        clip: a row's gradient, in scales of features × label, is shortened to it; by default 1.5·√(p + 1), for counts
            times at most 3 public scales of the label.
        ridge: added to the mean curvature of every feature in units of its public scale; biases towards 0.
        radius: rows farther from the public centers, in public scales, count shortened in the curvature only; by
            default as of ``covariance``.
    """

    label: str
    features: Annotated[tuple[str, ...], Field(min_length=1, max_length=200)]
    positive: Class | None = None
    steps: Annotated[int, Field(ge=2, le=50)] = 6
    clip: Annotated[float | None, Field(gt=0, le=1e4)] = None
    ridge: Annotated[float, Field(ge=0, le=1e6)] = 0.0
    radius: Annotated[float | None, Field(gt=0)] = None

    @abstractmethod
    def model(self) -> Family:
        """Which distribution the label has."""

    # -- what is asked --

    def stages(self, view: View) -> int:
        return 1 if self.model() == "gaussian" else 1 + self.steps

    def weights(self, view: View) -> Sequence[Sequence[float]]:
        if self.model() == "gaussian":
            return [[1.0]]
        late = self.late()
        return [[_MOMENTS, _COUNT], *([[_EARLY]] * (self.steps - late)), *([[_LATE]] * late)]

    def constructions(self, view: View, stage: int = 0, state: State | None = None) -> tuple[Construction, ...]:
        if self.model() == "gaussian":
            return self.linear().constructions(view)
        label = self._label(view)
        if stage == 0:
            return (self.outer(view), Tally(axes=(Meets(condition=self._usable(view)),)))
        wide = len(self.features) + 1
        beta = [0.0] * wide if state is None else floats_of(state, "beta", wide, _LARGEST)
        return (
            Gradient(
                columns=framed(view, self.features),
                label=label,
                link=self.link(),
                beta=tuple(beta),
                clip=self.clip_of(view),
                residual_bits=_RESIDUAL_BITS,
            ),
        )

    def words(self) -> str:
        kind = {"gaussian": "linear", "binomial": "logistic", "poisson": "Poisson"}[self.model()]
        said = f"the {kind} regression of {self.label} on {', '.join(self.features)}"
        return said if self.model() == "gaussian" else f"{said} in {self.steps} steps"

    def precision(self, view: View, sds: Sequence[Sequence[float]], records: int) -> str:
        if self.model() == "gaussian":
            return self.linear().precision(view, sds, records)
        steepest = 4.0 if self.model() == "binomial" else self.half(view) / max(self._middle(view), 1e-9)
        reach = 1.96 * sds[-1][0] / math.sqrt(self.late()) * steepest / records
        return (
            f"each coefficient ± {reach:.2g} per public scale of its feature or more, from noise alone; "
            f"X'X ± {100 * 1.96 * sds[0][0] * CROSSED * self.outer(view).radius ** 2 / records:.2g} %; {self.split()}"
        )

    def split(self) -> str:
        """How the budget is divided, in words."""
        late = self.late()
        early = self.steps - late
        whole = (_MOMENTS + _COUNT + early * _EARLY + late * _LATE) / 100.0
        first, one, last = (share / whole for share in (_MOMENTS + _COUNT, _EARLY, _LATE))
        return (
            f"of the budget {first:.0f} % go to the moments of the features, {one:.0f} % to each of the first "
            f"{early} steps and {last:.0f} % to each of the last {late}"
        )

    def linear(self) -> LinearRegression:
        """The same as a linear regression, which takes one round."""
        if self.positive is not None:
            raise Misuse("positive belongs to a binomial label; leave it out")
        return LinearRegression(label=self.label, features=self.features, ridge=self.ridge, radius=self.radius)

    def late(self) -> int:
        """How many steps the coefficients are averaged over."""
        return (self.steps + 1) // 2

    def link(self) -> Link:
        """How sites get the mean from the linear predictor."""
        return "logistic" if self.model() == "binomial" else "exp"

    def outer(self, view: View) -> Outer:
        """What the first round sums."""
        return outer_of(view, framed(view, self.features), self.radius)

    def _label(self, view: View) -> Is | Linear:
        if self.label in self.features:
            raise Misuse(f"the label {self.label!r} is among the features; leave it out of them")
        column = view.column(self.label)
        if self.model() == "binomial" and isinstance(column, Category):
            made = Is(column=self.label, value=column.classes[-1] if self.positive is None else self.positive)
            made.check(view)
            return made
        if self.positive is not None:
            raise Misuse(f"positive names a class, and {self.label!r} has none here; leave it out")
        bounds = view.numeric(self.label)
        if bounds.lower < 0 or (self.model() == "binomial" and bounds.upper > 1):
            wanted = "a category or a number within [0, 1]" if self.model() == "binomial" else "a number from 0 on"
            raise Misuse(
                f"a {self.model()} label is {wanted}; the bounds of {self.label!r} are "
                f"[{bounds.lower:g}, {bounds.upper:g}]"
            )
        return Linear(column=self.label, center=0.0, half=self.half(view))

    def half(self, view: View) -> float:
        """Unit of the label in gradients: one, or the largest count."""
        return 1.0 if self.model() == "binomial" else view.numeric(self.label).upper

    def _middle(self, view: View) -> float:
        """The public guess of the mean, in the label's own unit."""
        column = view.numeric(self.label)
        return max(column.center, 0.01 * column.upper)

    def clip_of(self, view: View) -> float:
        """L2 norm of one row's gradient, in scales of features × label."""
        if self.clip is not None:
            return self.clip
        usual, farthest2 = 1.5 * math.sqrt(1 + len(self.features)), 1.0
        for one in framed(view, self.features):
            (center, half), column = one.frame(view), view.numeric(one.column)
            farthest2 += (max(column.upper - center, center - column.lower) / half) ** 2
        spread = 1.0
        if self.model() == "poisson":
            spread = min(1.0, 3.0 * view.numeric(self.label).scale / self.half(view))
        return spread * min(usual, math.sqrt(farthest2))

    def _usable(self, view: View) -> Condition:
        """Rows that gradients use: every feature, and a label that is declared."""
        column = view.column(self.label)
        parts: list[Condition] = [Not(part=IsMissing(column=name)) for name in (*self.features, self.label)]
        if isinstance(column, Category):
            parts.append(OneOf(column=self.label, values=column.classes))
        return All(parts=tuple(parts))

    # -- step by step --

    def decide(self, view: View, stage: int, sums: Sequence[Noisy], state: State | None) -> State:
        """Coefficients for the next gradient; the moments go along, as every later step needs them."""
        if stage == 0:
            return self._start(view, sums)
        fitted, beta = self.read(state or {})
        points = self._points(state or {}, beta, sums[0], fitted)
        moved, kept = self._next(fitted, points, sums[0].sd)
        return {**dict(state or {}), "beta": moved.tolist(), "points": kept.tolist()}

    def _next(self, fitted: Surrogate, points: Floats, noise: float) -> tuple[Floats, Floats]:
        """Where to go from the last of the points, and which of them to remember.

        After a step so long that the slope along it came out steeper than it went in, part of the way back.
        """
        wide = points.shape[1] // 2
        if len(points) > 1:
            before, after = points[-2], points[-1]
            move = after[:wide] - before[:wide]
            into, out = float(before[wide:] @ move), float(after[wide:] @ move)
            if into < 0 and out > -into + 5.0 * noise * float(np.linalg.norm(move)):
                part = min(max(into / (into - out), 0.1), 0.5)
                return before[:wide] + part * move, points[:-1]
        moved: Floats = np.clip(fitted.step(points[-1, :wide], self._pull(fitted, points, noise)), -_LARGEST, _LARGEST)
        return moved, points

    def _points(self, state: State, beta: Floats, seen: Noisy, fitted: Surrogate) -> Floats:
        """The last coefficients with their penalised gradients, rows of ``(β, g)``, the present ones last."""
        before, wide = state.get("points", []), len(beta)
        if not isinstance(before, list) or len(before) > _MEMORY:
            raise Misuse("an earlier round's 'points' are more than there can be; start anew")
        rows = [floats_of({"points": row}, "points", 2 * wide) for row in before]
        rows.append([*beta.tolist(), *(seen.values + fitted.penalty(beta)).tolist()])
        return np.array(rows[-_MEMORY:])

    def _pull(self, fitted: Surrogate, points: Floats, noise: float) -> Floats:
        """The gradient as the surrogate's curvature should see it, so that its step is the quasi-Newton one.

        What gradients changed by between steps corrects the curvature (BFGS), where noise does not explain it.
        """
        wide = points.shape[1] // 2
        own = fitted.eased(points[-1, :wide])
        curved, inverse = own.copy(), np.linalg.inv(own)
        for before, after in pairwise(points):
            move, change = (after - before)[:wide], (after - before)[wide:]
            bent = curved @ move
            foretold, seen = float(move @ bent), float(move @ change)
            doubt = 20.0 * noise**2 * float(np.trace(inverse)) + 15.0 * noise * float(np.linalg.norm(move))
            if foretold > max(doubt, _STILL) and seen > 0.05 * foretold:
                curved += np.outer(change, change) / seen - np.outer(bent, bent) / foretold
        found: Floats = own @ np.linalg.solve(curved, points[-1, wide:])
        return found

    def _start(self, view: View, sums: Sequence[Noisy]) -> State:
        asked = self.outer(view)
        moments, met = moments_of(view, asked, sums[0]), float(sums[1].values[0])
        count = met if resolves(met, sums[1].sd) else moments.count
        wide, radius = len(self.features), asked.radius
        edge = CROSSED * moments.sd * math.sqrt(wide) / moments.freedom
        values, vectors = np.linalg.eigh(moments.cov)
        # Directions that noise drowns are taken for as wide as the noise: steps along them stay short.
        cov = radius**2 * (vectors * np.maximum(values, max(edge, ROUNDING))) @ vectors.T
        start = [0.0] * (wide + 1)
        if self.model() == "poisson":
            start[0] = math.log(self._middle(view) / self.half(view))
        return {
            "beta": start,
            "count": [max(count, 1.0)],
            "mean": (radius * np.clip(moments.mean, -1.0, 1.0)).tolist(),
            "cov": cov[np.triu_indices(wide)].tolist(),
        }

    def read(self, state: State) -> tuple[Surrogate, Floats]:
        """The surrogate and the coefficients of the round; raises Misuse for anything odd."""
        wide = len(self.features)
        cov = np.zeros((wide, wide))
        upper = np.triu_indices(wide)
        cov[upper] = floats_of(state, "cov", wide * (wide + 1) // 2)
        cov = cov + np.triu(cov, 1).T
        (count,), mean = floats_of(state, "count", 1), np.array(floats_of(state, "mean", wide))
        beta = np.array(floats_of(state, "beta", wide + 1, _LARGEST))
        return Surrogate(self.link(), count, mean, cov, self.ridge), beta

    def ended(self, view: View, stages: Sequence[Sequence[Noisy]], states: Sequence[State | None]) -> Ended:
        """Where the steps led: the last iterate, or under noise the mean of the late ones."""
        path = [self.read(state or {})[1] for state in states[1:]]
        last = stages[-1][0]
        fitted, beta = self.read(states[-1] or {})
        points = self._points(states[-1] or {}, beta, last, fitted)
        path.append(self._next(fitted, points, last.sd)[0])
        late = self.late() if last.sd else 1
        mean = np.mean(path[-late:], axis=0)
        # Noise of this gradient, and of the one that led here.
        excused = 8.0 * last.sd**2 * float(np.trace(np.linalg.inv(fitted.eased(beta))))
        return Ended(fitted, mean, last.sd**2 / late, fitted.decrement(beta, last.values) > 0.1 + excused)
