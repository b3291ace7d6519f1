"""Every construction once more, row by row in Python integers: slow, plain, and written from the definitions alone.

The local engine must give exactly these integers. Statistics are decoded from them in tests, and sensitivities are
searched exhaustively with them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any

import numpy as np
import pandas as pd
from privfl_analytics.answer import Answer
from privfl_analytics.conditions import All, Any_, Compare, Condition, IsMissing, Not, OneOf
from privfl_analytics.constructions import (
    COUNT_SCALE,
    CROSS,
    DIAGONAL,
    OUTER_BITS,
    SQUARE,
    VALUE_BITS,
    Axis,
    Bins,
    Classes,
    Construction,
    Distinct,
    Gradient,
    Is,
    Linear,
    Meets,
    One,
    Outer,
    Prefixes,
    Presence,
    Square,
    SquaredError,
    Sums,
    Tally,
    Term,
)
from privfl_analytics.statistic import Context, Noisy, State, Statistic
from privfl_analytics.view import Score, View

from privfl.dp import FactorTable
from privfl.tasks import Category, Numeric, Schema

Record = Mapping[str, Any]
UNIT = 1 << VALUE_BITS


# -- one row -----------------------------------------------------------------------------------------


def number(view: View, row: Record, name: str, *, raw: bool = False) -> float | None:
    """A numeric column or score of a row, clamped; None where it is missing."""
    score = next((one for one in view.scores if one.name == name), None)
    if score is not None:
        return scored(view, row, score)
    column = view.numeric(name)
    value = row.get(name)
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            return None
    if value is None or value is pd.NA or math.isnan(float(value)) or float(value) in column.missing:
        return None
    return float(value) if raw else min(max(float(value), column.lower), column.upper)


def scored(view: View, row: Record, score: Score) -> float | None:
    total = score.intercept
    for name, weight in score.weights.items():
        value = number(view, row, name)
        if value is None:
            return None
        total += weight * value
    with np.errstate(over="ignore"):
        linked = {
            "identity": lambda x: x,
            "logistic": lambda x: float(1.0 / (1.0 + np.exp(-x))),
            "exp": lambda x: float(np.exp(x)),
        }[score.link](total)
    return min(max(linked, score.lower), score.upper)


def code(view: View, row: Record, name: str) -> int:
    """Place of the class; k for another value, k + 1 for a missing one."""
    column = view.category(name)
    value = row.get(name)
    if value is None or value is pd.NA or (isinstance(value, float) and math.isnan(value)):
        return len(column.classes) + 1
    value = value.item() if isinstance(value, np.generic) else value
    if any(same(value, item) for item in column.missing):
        return len(column.classes) + 1
    return next((at for at, item in enumerate(column.classes) if same(value, item)), len(column.classes))


def same(value: Any, item: Any) -> bool:
    """True and 1 and 1.0 are one; text is only text."""
    return isinstance(value, str) == isinstance(item, str) and bool(value == item)


def text(view: View, row: Record, name: str) -> str | None:
    column = view.text(name)
    value = row.get(name)
    if value is None or value is pd.NA or (isinstance(value, float) and math.isnan(value)) or value in column.missing:
        return None
    return str(value)[: column.max_length]


def missing(view: View, row: Record, name: str) -> bool:
    column = view.column(name)
    if isinstance(column, Numeric):
        return number(view, row, name) is None
    if isinstance(column, Category):
        return code(view, row, name) == len(column.classes) + 1
    return text(view, row, name) is None


def holds(view: View, row: Record, condition: Condition, *, raw: bool = False) -> bool | None:
    """Three-valued truth."""
    match condition:
        case IsMissing():
            return missing(view, row, condition.column)
        case Not():
            inner = holds(view, row, condition.part, raw=raw)
            return None if inner is None else not inner
        case All():
            found = [holds(view, row, part, raw=raw) for part in condition.parts]
            return False if False in found else None if None in found else True
        case Any_():
            found = [holds(view, row, part, raw=raw) for part in condition.parts]
            return True if True in found else None if None in found else False
        case OneOf():
            at = code(view, row, condition.column)
            classes = view.category(condition.column).classes
            return None if at == len(classes) + 1 else at < len(classes) and classes[at] in condition.values
        case Compare():
            return compared(view, row, condition, raw)


def compared(view: View, row: Record, condition: Compare, raw: bool) -> bool | None:
    column = view.column(condition.column)
    if isinstance(column, Category):
        at = code(view, row, condition.column)
        if at == len(column.classes) + 1:
            return None
        equal = at < len(column.classes) and same(column.classes[at], condition.value)
        return equal if condition.operator == "==" else not equal
    value = number(view, row, condition.column, raw=raw)
    if value is None:
        return None
    other = float(condition.value)
    return {
        "<": value < other,
        "<=": value <= other,
        ">": value > other,
        ">=": value >= other,
        "==": value == other,
        "!=": value != other,
    }[condition.operator]


def cells(view: View, row: Record, axis: Axis) -> list[int]:
    """Cells of an axis that a row counts in: one."""
    match axis:
        case Classes():
            return [code(view, row, axis.column)]
        case Bins():
            value, bins = number(view, row, axis.column), len(axis.edges) - 1
            if value is None:
                return [bins + 1]
            if not axis.edges[0] <= value <= axis.edges[-1]:
                return [bins]
            return [min(int(np.searchsorted(axis.edges, value, side="right")) - 1, bins - 1)]
        case Presence():
            return [int(missing(view, row, axis.column))]
        case Meets():
            truth = holds(view, row, axis.condition, raw=axis.raw)
            return [2 if truth is None else 0 if truth else 1]
        case Prefixes():
            return [prefixed(view, row, axis)]


def prefixed(view: View, row: Record, axis: Prefixes) -> int:
    alphabet = view.text(axis.column).alphabet
    value, other = text(view, row, axis.column), axis.size * (len(alphabet) + 1)
    if value is None:
        return other
    for at, candidate in enumerate(axis.candidates):
        if value.startswith(candidate):
            rest = value[len(candidate) :]
            letter = len(alphabet) if not rest else alphabet.find(rest[0])
            return other if letter < 0 else at * (len(alphabet) + 1) + letter
    return other


def fixed(view: View, row: Record, column: Linear) -> int | None:
    value = number(view, row, column.column)
    if value is None:
        return None
    center, half = column.frame(view)
    return int(np.clip(np.rint((value - center) / half * UNIT), -UNIT, UNIT))


def term(view: View, row: Record, one: Term) -> int | None:
    """A term's integer for a row; None where a column is missing."""
    match one:
        case One():
            return UNIT
        case Square():
            t = fixed(view, row, one)
            return None if t is None else ((2 * t * t) >> VALUE_BITS) - UNIT
        case Linear():
            return fixed(view, row, one)
        case Is():
            at, classes = code(view, row, one.column), view.category(one.column).classes
            return None if at >= len(classes) else UNIT * same(classes[at], one.value)
        case SquaredError():
            p, y = number(view, row, one.column), term(view, row, one.label)
            if p is None or y is None:
                return None
            gap = int(np.rint(p * UNIT)) - y
            return (gap * gap) >> VALUE_BITS


def inner(view: View, row: Record, asked: Construction) -> np.ndarray:
    """One row's integers, shape ``asked.inner(view)``."""
    out = np.zeros(asked.inner(view), dtype=object)
    match asked:
        case Tally(levels=0):
            out[tuple(cells(view, row, axis)[0] for axis in asked.axes) or (0,)] = COUNT_SCALE
        case Tally():
            bins, leaf = 1 << (asked.levels - 1), cells(view, row, asked.axes[0])[0]
            if leaf >= bins:
                out[(1 << asked.levels) - 1 + leaf - bins] = COUNT_SCALE
            else:
                for level in range(asked.levels):
                    out[(1 << level) - 1 + (leaf >> (asked.levels - 1 - level))] = COUNT_SCALE
        case Sums():
            found = [term(view, row, one) for one in asked.terms]
            if None not in found:
                out[:] = found
        case Outer():
            out[:] = outer(view, row, asked)
        case Gradient():
            out[:] = gradient(view, row, asked)
        case _:
            raise NotImplementedError(asked.kind)
    return out


def outer(view: View, row: Record, asked: Outer) -> list[int]:
    width = len(asked.columns) + 1
    nothing = [0] * (width * (width + 1) // 2 + 1)
    whole, one = [], 1 << OUTER_BITS
    for column in asked.columns:
        value = number(view, row, column.column)
        if value is None:
            return nothing
        center, half = column.frame(view)
        whole.append(int(np.clip(np.rint((value - center) / half / asked.radius * one), -(2**20), 2**20)))
    norm2 = sum(x * x for x in whole)
    flag = norm2 > SQUARE
    if flag:
        factor = one * (1.0 - 2.0**-40) / math.sqrt(norm2)
        whole = [math.trunc(x * factor) for x in whole]
        if sum(x * x for x in whole) > SQUARE:
            return nothing
    z = [one, *whole]
    pairs = ((i, j) for i in range(width) for j in range(i, width))
    return [(DIAGONAL if i == j else CROSS) * z[i] * z[j] for i, j in pairs] + [flag * (DIAGONAL * SQUARE // 2)]


def gradient(view: View, row: Record, asked: Gradient) -> list[int]:
    nothing, scale = [0] * (len(asked.columns) + 1), 1 << asked.feature_bits
    whole, reach = [scale], [scale]
    for column in asked.columns:
        value = number(view, row, column.column)
        if value is None:
            return nothing
        center, half = column.frame(view)
        bounds = view.numeric(column.column)
        whole.append(int(np.rint((value - center) / half * scale)))
        reach.append(int(np.rint(max(bounds.upper - center, center - bounds.lower) / half * scale)))
    target = term(view, row, asked.label)
    if target is None:
        return nothing
    beta = np.array(asked.beta or [0.0] * len(whole))[:, None]
    table = FactorTable(np.array([whole], dtype=np.int64), asked.feature_bits)
    with np.errstate(all="ignore"):
        eta = table.predictors(beta, np.array(reach, dtype=np.float64))[0, 0]
        mean = {"identity": eta, "logistic": 0.5 * (1 + np.tanh(0.5 * eta)), "exp": np.exp(eta)}[asked.link]
        residual = mean - target / UNIT
    return [int(x) for x in table.gradient(np.array([residual]), asked.clip, asked.residual_bits).vector[:, 0]]


# -- tables ------------------------------------------------------------------------------------------


def total(
    view: View, frame: pd.DataFrame, asked: Construction, where: Condition | None = None, rows: int | None = None
) -> np.ndarray:
    """The exact sum of a construction over a table, Python integers of ``asked.shape(view)``.

    ``rows`` keeps the first so many selected rows of each subject, and drops rows without one.
    """
    out = np.zeros(asked.shape(view), dtype=object)
    seen: dict[Any, int] = {}
    values: set[Any] = set()
    for row in frame.to_dict("records"):
        if where is not None and holds(view, row, where) is not True:
            continue
        if rows is not None:
            who = row.get(view.schema.subject)
            if who is None or who is pd.NA or (isinstance(who, float) and math.isnan(who)):
                continue
            seen[who] = seen.get(who, 0) + 1
            if seen[who] > (1 if isinstance(asked, Tally) and asked.subjects else rows):
                continue
        if isinstance(asked, Distinct):
            if not missing(view, row, asked.column):
                values.add(row[asked.column])
            continue
        place = tuple(cells(view, row, axis)[0] for axis in asked.by)
        out[place] += inner(view, row, asked)
    if isinstance(asked, Distinct):
        out[0] = COUNT_SCALE * len(values)
    return out


def answer(
    statistic: Statistic,
    schema: Schema,
    frames: Sequence[pd.DataFrame],
    *,
    scores: tuple[Score, ...] = (),
    by: tuple[Axis, ...] = (),
    where: Condition | None = None,
    rows: int | None = None,
    sd: float = 0.0,
    rng: np.random.Generator | None = None,
    context: Context | None = None,
) -> Answer:
    """A statistic over the frames of several sites, through all its stages.

    Args:
        sd: standard deviation of the noise of every coordinate, in units of the sensitivity Δ (as σ/Δ); 0 for none.
    """
    view = View(schema, scores)
    rng = rng or np.random.default_rng(1)
    state: State | None = None
    stages: list[list[dict[tuple[int, ...], Noisy]]] = []
    states: list[State | None] = []
    places = list(product(*(range(len(axis.labels(view))) for axis in by)))
    for stage in range(statistic.stages(view)):
        states.append(state)
        found = []
        for one in statistic.constructions(view, stage, state):
            asked = one.grouped(by)
            asked.check(view)
            exact = sum(total(view, frame, asked, where, rows) for frame in frames)
            noise = sd * math.sqrt(asked.delta2(view, rows or 1)) / asked.scale
            values = np.array(exact, dtype=np.float64) / asked.scale + rng.normal(0, 1, asked.shape(view)) * noise
            found.append({place: Noisy(values[place], noise) for place in places})
        stages.append(found)
        if stage + 1 < statistic.stages(view):
            state = statistic.decide(view, stage, [one[()] for one in found], state)
    context = context or Context(survivors=len(frames), records=schema.records, rng=rng)
    parts = []
    for place in places:
        at = {axis.names()[0]: axis.labels(view)[cell] for axis, cell in zip(by, place, strict=True)}
        here = [[one[place] for one in stage] for stage in stages]
        parts.append((at, statistic.decode(view, here, states, context)))
    return Answer.grouped("", parts) if by else parts[0][1]
