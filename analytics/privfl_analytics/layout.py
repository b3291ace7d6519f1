"""A study's vectors: which blocks each stage sums, for which query, and at what share of the budget.

Everything here is a function of study and schema; a site computes it again. The noise is in :mod:`.noise`.
A *stage* is one slot. Queries whose statistic shows single sites come after all others, in stages of their own
under ``local`` trust, in which every site fills its own stretch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING

from privfl.dp import Trust, Unit
from privfl.errors import Misuse
from privfl.ring import Ring
from privfl_analytics.conditions import Condition
from privfl_analytics.constructions import Construction, Keys, Tally
from privfl_analytics.view import View

if TYPE_CHECKING:
    from privfl_analytics.query import Query
    from privfl_analytics.study import Study

__all__ = [
    "MAX_LENGTH",
    "RING",
    "Part",
    "Setting",
    "Stage",
    "check_unit",
    "fewest_survivors",
    "rows_of",
    "stages_of",
]

#: Where every sum of a study lives.
RING = Ring.of(64)
#: Coordinates of one upload at most, all stretches together.
MAX_LENGTH = 1 << 24
MAX_STAGES = 64


@dataclass(frozen=True, slots=True)
class Setting:
    """Sizes and trust of a study's run.

    Attributes:
        sites: how many may upload in one slot, at most.
        trust: of the stages that are summed over sites.
        unit: record or subject.
        min_survivors, colluders: what distributed noise rests on.
    """

    sites: int
    trust: Trust
    unit: Unit
    min_survivors: int
    colluders: int


@dataclass(frozen=True, slots=True)
class Part:
    """One block of a stage.

    Attributes:
        name: of the block in the release.
        query, step, place: of which query, which of its statistic's stages, which construction.
        construction: for every group; planned without a state.
        condition: rows that count.
        share: part of the study's μ².
    """

    name: str
    query: int
    step: int
    place: int
    construction: Construction
    condition: Condition | None
    share: Fraction

    @property
    def keys(self) -> bool:
        """Whether the block is names of values, to which the site itself adds noise."""
        return isinstance(self.construction, Keys)


@dataclass(frozen=True, slots=True)
class Stage:
    """One slot: its blocks in order, and whether every site fills its own stretch."""

    own: bool
    parts: tuple[Part, ...]

    @property
    def steps(self) -> Mapping[int, int]:
        """Query → which of its statistic's stages this is."""
        return {part.query: part.step for part in self.parts}

    def length(self, view: View) -> int:
        """Coordinates of one stretch."""
        return sum(part.construction.length(view) for part in self.parts)


def stages_of(study: Study, view: View) -> tuple[Stage, ...]:
    """The blocks of every stage.

    Raises:
        Misuse: a query does not fit the schema; the message names it.
    """
    whole = sum((Fraction(query.weight) for query in study.queries), Fraction(0))
    slots: dict[tuple[bool, int], list[Part]] = {}
    lengths: dict[tuple[bool, int], int] = {}
    for at, query in enumerate(study.queries):
        try:
            query.check(view)
            found = _parts(at, study.names[at], query, view, whole)
        except Misuse as error:
            raise type(error)(f"query {study.names[at]!r}: {error}") from None
        for part in found:
            slot = query.asked.local, part.step
            slots.setdefault(slot, []).append(part)
            lengths[slot] = lengths.get(slot, 0) + part.construction.length(view)
            if lengths[slot] > MAX_LENGTH:  # at once: a peer's few bytes may ask for hundreds of large tables
                raise Misuse(
                    f"{lengths[slot]} numbers are more than the {MAX_LENGTH} that fit one upload; use fewer bins"
                )
    if len(slots) > MAX_STAGES:
        raise Misuse(f"the study takes {len(slots)} rounds and at most {MAX_STAGES} are possible; ask for fewer steps")
    return tuple(Stage(own, tuple(slots[own, step])) for own, step in sorted(slots))


def _parts(at: int, name: str, query: Query, view: View, whole: Fraction) -> list[Part]:
    steps = query.steps(view)
    weights = [[Fraction(one) for one in stage] for stage in query.asked.weights(view)]
    total = sum((one for stage in weights for one in stage), Fraction(0))
    found = []
    for step in range(steps):
        constructions = query.constructions(view, step)
        if len(weights) != steps or len(weights[step]) != len(constructions):
            raise Misuse(f"the weights of {query.asked.name} do not fit its constructions")
        for place, construction in enumerate(constructions):
            share = Fraction(query.weight) / whole * weights[step][place] / total
            if share <= 0:
                raise Misuse(f"{query.asked.name} gives a construction no share of its budget")
            label = f"{name}, {step + 1}.{place + 1}"
            found.append(Part(label, at, step, place, construction, query.condition, share))
    return found


def fewest_survivors(sites: int, min_survivors: int | None, colluders: int) -> int:
    """Fewest sites whose sum may be opened: as given, or by default all but one."""
    fewest = min_survivors if min_survivors is not None else max(sites - 1, min(sites, colluders + 2))
    if not 1 <= fewest <= sites or colluders < 0:
        raise Misuse(f"min_survivors {fewest} and {colluders} colluders do not fit {sites} sites")
    return fewest


def check_unit(stages: Sequence[Stage], unit: Unit) -> None:
    """Raise Misuse for persons counted by cells while rows are protected: one row could move a person to another."""
    for stage in stages:
        for part in stage.parts:
            one = part.construction
            if unit is Unit.RECORD and isinstance(one, Tally) and one.subjects and (one.by or one.axes):
                raise Misuse(f"{part.name}: persons can be counted by groups only with unit='subject'")


def rows_of(view: View, unit: Unit) -> int:
    """Rows of one unit of privacy that count."""
    return view.schema.max_rows if unit is Unit.SUBJECT else 1
