"""From opened sums to answers: noise and units, the replay of what every stage decided, and what was spent."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from itertools import product
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from privfl.dp import Cost, Trust, epsilon_of_cost
from privfl.errors import Misuse
from privfl_analytics.answer import Answer, Row
from privfl_analytics.layout import Part
from privfl_analytics.noise import noise_of_sum
from privfl_analytics.opened import History, Opened
from privfl_analytics.result import PrivacyReport, StudyResult
from privfl_analytics.states import read_state, state_text
from privfl_analytics.statistic import Context, Noisy, State

if TYPE_CHECKING:
    from privfl_analytics.question import StudyQuestion

__all__ = ["CUT_OFF", "decoded", "noisy_of", "privacy_of", "replayed"]

#: Said of an answer whose sums are as large as one site may send at most.
CUT_OFF = (
    "wrong: sums this large are cut off at the sites, which hold far more rows than the schema declares; "
    "have 'records' in the schema corrected, and ask again"
)

#: By query and step: the sums of its constructions; the state that the step was asked with.
Sums: TypeAlias = "dict[int, list[list[Noisy]]]"
States: TypeAlias = "dict[int, list[State | None]]"


def noisy_of(question: StudyQuestion, opened: Opened) -> tuple[tuple[Part, Noisy], ...]:
    """Every block of an opened stage in units of 1, all groups together.

    Where every site has its own stretch, values have one more axis in front: the sites that answered.
    """
    stage, release = question.plan[opened.stage], question.release(opened.stage)
    total = opened.values(question.sum_at(opened.stage).length)
    table = total.reshape(question.sites if stage.own else 1, -1)
    if stage.own:
        seats = list(opened.seats) or [at for at, row in enumerate(table) if row.any()]
        table = table[seats]
    found, begin = [], 0
    for at, part in enumerate(stage.parts):
        one = part.construction
        shape, end = one.shape(question.view), begin + one.length(question.view)
        values = table[:, begin:end].astype(np.float64) / one.scale
        values = values.reshape(len(table), *shape) if stage.own else values.reshape(shape)
        sd = noise_of_sum(release, at, one.scale, 1 if stage.own else opened.survivors)
        found.append((part, Noisy(values, sd)))
        begin = end
    return tuple(found)


def _cut_off(question: StudyQuestion, opened: Opened) -> set[int]:
    """Queries with a sum that some site may have saturated, judged on noisy sums: no row has a say in it."""
    view, found = question.view, set()
    for at, (part, noisy) in enumerate(noisy_of(question, opened)):
        one = part.construction
        bound = question.x_max(opened.stage, at) / one.scale
        declared = view.schema.records * one.reach(view) / one.scale
        # Where 64 bits leave little room, honest sums of all sites may pass one site's bound.
        limit = max(bound - 6 * noisy.sd, bound / 2, 1.5 * declared)
        if not part.keys and np.abs(noisy.values).max(initial=0.0) >= limit:
            found.add(part.query)
    return found


def replayed(
    question: StudyQuestion, history: History
) -> tuple[dict[int, list[list[Noisy]]], dict[int, list[State | None]]]:
    """Sums by query and step, and the state of every step that can be known."""
    sums: Sums = {at: [] for at in range(len(question.study.queries))}
    states: States = {at: [None] for at in sums}
    for at, opened in enumerate(history):
        if opened.stage != at:
            raise Misuse(f"stage {opened.stage} was kept in the place of stage {at}")
        for query in question.queries_at(at):
            sums[query].append([])
        for part, noisy in noisy_of(question, opened):
            sums[part.query][-1].append(noisy)
        for query, step in question.plan[at].steps.items():
            asked = question.study.queries[query].asked
            if step + 1 < asked.stages(question.view):
                state = asked.decide(question.view, step, sums[query][step], states[query][step])
                states[query].append(read_state(state_text(state)))
    return sums, states


def decoded(
    question: StudyQuestion,
    history: History,
    min_cell_count: int,
    charged: int | Sequence[int] | None,
    draws: int,
    *,
    partial: bool = False,
) -> StudyResult:
    """See :meth:`StudyQuestion.decode`."""
    if len(history) != len(question.plan) and not (partial and history.stages):
        raise Misuse(f"{len(history)} of {len(question.plan)} stages were opened; a study is decoded after the last")
    sums, states = replayed(question, history)
    seed = np.frombuffer(hashlib.sha256(question.id + history.encode()).digest(), dtype=np.uint32)
    cut = {query for opened in history for query in _cut_off(question, opened)}
    answers = {}
    for at, name in enumerate(question.study.names):
        opened_for = [opened.survivors for opened in history if at in question.queries_at(opened.stage)]
        survivors = min(opened_for, default=0)
        context = Context(
            confidence=question.study.confidence,
            interval=question.study.interval,
            min_cell_count=min_cell_count,
            survivors=survivors,
            records=question.schema.records,
            rng=np.random.default_rng([*map(int, seed), at]),
            draws=draws,
        )
        through = len(sums[at]) == question.study.queries[at].asked.stages(question.view)
        found = _answer(question, at, sums[at], states[at], context) if through else _unfinished(question, at, context)
        answers[name] = replace(found, notes=(CUT_OFF, *found.notes)) if at in cut else found
    survivors_of = tuple(opened.survivors for opened in history)
    return StudyResult(question.study, answers, privacy_of(question, charged), survivors_of)


def _answer(
    question: StudyQuestion, at: int, sums: list[list[Noisy]], states: list[State | None], context: Context
) -> Answer:
    query = question.study.queries[at]
    axes = query.axes(question.view)
    labels = [axis.labels(question.view) for axis in axes]
    parts = []
    for place in product(*(range(len(one)) for one in labels)):
        here = [[Noisy(one.values[place], one.sd) for one in step] if axes else step for step in sums]
        answer = query.asked.decode(question.view, here, states, context)
        cells = zip(axes, labels, place, strict=True)
        parts.append(({axis.names()[0]: names[cell] for axis, names, cell in cells}, answer))
    found = Answer.grouped(query.words(), parts) if axes else parts[0][1]
    finished = _finished(found, query.words(), query.asked.name, context)
    return replace(finished, interval="rows") if query.asked.rows_only else finished


def _unfinished(question: StudyQuestion, at: int, context: Context) -> Answer:
    """What there is to say of a query whose last round was never opened."""
    query = question.study.queries[at]
    why = "its last round was not opened; what was charged stays charged"
    return _finished(
        Answer("", "", (Row(query.asked.name, None, note=why),), "table"), query.words(), query.asked.name, context
    )


def _finished(answer: Answer, title: str, statistic: str, context: Context) -> Answer:
    return replace(
        answer,
        title=title,
        statistic=statistic,
        confidence=context.confidence,
        interval=context.interval,
        sites=context.survivors,
        records=context.records,
    )


def privacy_of(question: StudyQuestion, charged: int | Sequence[int] | None = None) -> PrivacyReport:
    """What was, or will be, spent; see :meth:`StudyQuestion.decode` for ``charged``."""
    counts = _counts(question, charged)
    if not question.releases or question.delta is None:
        return PrivacyReport(None, None, 0.0, str(question.setting.unit), "none", None, sum(counts), question.epsilon)
    total, worst = Cost(0), Cost(0)
    for stage, times in enumerate(counts):
        cost = question.cost_at(stage)
        total = total + times * cost
        worst = worst + times * Cost(Fraction(question.releases[stage].fallback_mu) ** 2, cost.delta)
    shared = any(release.trust is Trust.DISTRIBUTED for release in question.releases)
    return PrivacyReport(
        epsilon=epsilon_of_cost(total, question.delta),
        delta=question.delta,
        mu2=float(total.mu2),
        unit=str(question.setting.unit),
        trust=str(Trust.DISTRIBUTED if shared else Trust.LOCAL),
        fallback_epsilon=epsilon_of_cost(worst, question.delta),
        uploads=sum(counts),
        planned_epsilon=question.epsilon,
    )


def _counts(question: StudyQuestion, charged: int | Sequence[int] | None) -> list[int]:
    stages = len(question.plan)
    if charged is None:
        return [1] * stages
    if not isinstance(charged, int):
        counts = [int(one) for one in charged]
        if len(counts) != stages or min(counts) < 0:
            raise Misuse(f"charged needs one number for each of {stages} stages")
        return counts
    if charged < stages:
        raise Misuse(f"{charged} uploads cannot have opened {stages} stages")
    counts = [1] * stages
    dearest = max(range(stages), key=lambda stage: question.cost_at(stage).mu2)
    counts[dearest] += charged - stages
    return counts
