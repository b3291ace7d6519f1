"""What a stage sums once earlier stages have decided: built from a peer's states, held against what was planned."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from privfl.errors import Malformed, Misuse
from privfl_analytics.constructions import Construction
from privfl_analytics.statistic import State

if TYPE_CHECKING:
    from privfl_analytics.question import StudyQuestion

__all__ = ["constructions_at"]


def constructions_at(
    question: StudyQuestion, stage: int, states: Mapping[int, State | None]
) -> tuple[Construction, ...]:
    """The constructions of a stage with these states, by query.

    Raises:
        Malformed: a state that does not fit, or changes a kind, shape, scale, sensitivity or the columns read.
    """
    made: dict[int, tuple[Construction, ...]] = {}
    for query, step in question.plan[stage].steps.items():
        state = states[query]
        if (step == 0) != (state is None):
            raise Malformed("a query's first stage has no state, and every later one has")
        try:
            made[query] = question.study.queries[query].constructions(question.view, step, state)
            for one in made[query]:
                one.check(question.view)
        except Malformed:
            raise
        except (Misuse, ValueError, TypeError, KeyError, IndexError, ArithmeticError, AttributeError) as error:
            raise Malformed(f"the state of a query does not fit its statistic ({type(error).__name__})") from None
    found = []
    for part in question.plan[stage].parts:
        constructions = made[part.query]
        if part.place >= len(constructions) or not _same(question, part.construction, constructions[part.place]):
            raise Malformed("the state of a query changes the shape or sensitivity of what was planned")
        found.append(constructions[part.place])
    if len(found) != sum(map(len, made.values())):
        raise Malformed("the state of a query adds to what was planned")
    return tuple(found)


def _same(question: StudyQuestion, planned: Construction, now: Construction) -> bool:
    view, rows = question.view, question.rows
    return (
        type(planned) is type(now)
        and planned.shape(view) == now.shape(view)
        and planned.by == now.by
        and planned.scale == now.scale
        and now.delta2(view, rows) <= planned.delta2(view, rows)
        and now.reach(view) <= planned.reach(view)
        and set(now.names()) <= set(planned.names())
    )
