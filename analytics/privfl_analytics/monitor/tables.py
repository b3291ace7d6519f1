"""The tables of a reference profile: noisy counts over declared cells, checked whenever one is built."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import cached_property
from typing import Annotated, Any, ClassVar, TypeAlias

import numpy as np
import numpy.typing as npt
from privfl_keys import Label, digest
from privfl_keys.checked import Checked

from privfl.codec import Bounds, Bytes32, Record, Uint32
from privfl.errors import Misuse
from privfl_analytics.answer import Answer
from privfl_analytics.constructions import COUNT_SCALE
from privfl_analytics.view import View

__all__ = ["MISSING", "ProfileAxis", "ProfileName", "ProfileTable", "declared", "table_from"]

#: What a cell's name is where the value is missing.
MISSING = "missing"
Floats: TypeAlias = npt.NDArray[np.float64]
ProfileName = Annotated[str, Bounds(0, 256)]
_Number = Annotated[str, Bounds(1, 40)]


def declared(view: View, name: str) -> bytes:
    """32 bytes that stand for a column's declaration: bounds, classes, missing codes; of a score its coefficients."""
    score = next((one for one in view.scores if one.name == name), None)
    model = view.column(name) if score is None else score
    return digest(Label.COLUMN, name, json.dumps(model.model_dump(mode="json"), sort_keys=True))


@dataclass(frozen=True)
class ProfileAxis(Record):
    """A column's cells. Numbers have edges (as text) and one label more: missing, perhaps after ``outside``."""

    TAG: ClassVar[str] = "profile axis"

    column: ProfileName
    declared: Bytes32
    unit: ProfileName
    labels: Annotated[tuple[ProfileName, ...], Bounds(1, 100_000)]
    edges: Annotated[tuple[_Number, ...], Bounds(0, 100_000)] = ()

    @cached_property
    def numbers(self) -> Floats:
        """Edges as float64; empty for classes."""
        return np.array([float(edge) for edge in self.edges], dtype=np.float64)

    @property
    def bins(self) -> int:
        """Bins of a number; 0 for classes."""
        return max(0, len(self.edges) - 1)


@dataclass(frozen=True)
class ProfileTable(Checked):
    """Noisy counts of one query, by group first where there are groups.

    Attributes:
        name: of the query. group: column of the groups, empty for none; then it is the first axis.
        counts: in units of 1/1024 person, row-major over the axes; negative where noise made them so.
        sd: standard deviation of a count's noise, in persons.
        floor: counts below it were replaced by 0 (the policy's display rule); 0 for none.
    """

    TAG: ClassVar[str] = "profile table"

    name: ProfileName
    group: ProfileName
    axes: Annotated[tuple[ProfileAxis, ...], Bounds(1, 3)]
    counts: Annotated[tuple[int, ...], Bounds(1, 10_000_000)]
    sd: _Number
    floor: Uint32

    def check(self) -> None:
        """Cells and counts agree, and every number is one."""
        if len(self.counts) != int(np.prod([len(axis.labels) for axis in self.axes])):
            raise Misuse(f"table {self.name!a} of the profile has another number of counts than cells")
        if max(map(abs, self.counts)) >= 2**62:
            raise Misuse(f"table {self.name!a} of the profile has a count that no federation has")
        try:
            sound = 0 <= float(self.sd) < 1e15 and all(bool((np.diff(axis.numbers) > 0).all()) for axis in self.axes)
        except ValueError:
            sound = False
        if not sound or any(axis.edges and axis.bins + 1 > len(axis.labels) for axis in self.axes):
            raise Misuse(f"table {self.name!a} of the profile has edges or noise that are no sound numbers")
        if self.group and self.axes[0].column != self.group:
            raise Misuse(f"table {self.name!a} of the profile lacks the axis of its groups")

    @property
    def array(self) -> Floats:
        """Counts in persons, float64 of the axes' shape."""
        shape = tuple(len(axis.labels) for axis in self.axes)
        return np.array(self.counts, dtype=np.float64).reshape(shape) / COUNT_SCALE

    @property
    def noise(self) -> float:
        """``sd`` as a float."""
        return float(self.sd)

    @property
    def own(self) -> tuple[ProfileAxis, ...]:
        """Axes without that of the groups."""
        return self.axes[1:] if self.group else self.axes


def table_from(name: str, answer: Answer, view: View) -> ProfileTable:
    """One query's answer, of all groups."""
    parts: Sequence[Mapping[str, Any]] = answer.details.get("groups") or [{"at": {}, **answer.details}]
    own = [one["profile"] for one in parts]
    places = [tuple(one["at"].items()) for one in parts]
    if any(len(place) > 1 for place in places):
        raise Misuse(f"query {name!r} groups by several columns; a profile groups by one")
    axes = tuple(_axis(view, one) for one in own[0]["axes"])
    group = places[0][0][0] if places[0] else ""
    if group:
        labels = tuple(str(place[0][1]) for place in places)
        axes = (ProfileAxis(group, declared(view, group), "", labels), *axes)
    counts = tuple(int(count) for one in own for count in one["counts"])
    return ProfileTable(name, group, axes, counts, str(Decimal(repr(float(own[0]["sd"])))), int(own[0]["floor"]))


def _axis(view: View, one: Mapping[str, Any]) -> ProfileAxis:
    edges = tuple(repr(float(edge)) for edge in one["edges"] or ())
    return ProfileAxis(one["column"], declared(view, one["column"]), one["unit"], tuple(one["labels"]), edges)
