"""A reference profile: what data looked like when a model was trained, as noisy counts under a member's signature.

It holds nothing but noisy sums that were paid for, and public things; it may be kept and shown for years.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, ClassVar, Protocol, Self, TypeAlias

import numpy as np
import numpy.typing as npt
from privfl_keys import Label, Roster, SigningKey, digest
from privfl_keys.checked import Checked

from privfl.codec import Bounds, Bytes32, Bytes64, Record, Uint32, Uint64
from privfl.errors import Malformed, Misuse, Refused, Unverified
from privfl.tasks import Schema
from privfl_analytics.answer import Answer
from privfl_analytics.constructions import COUNT_SCALE
from privfl_analytics.view import Score, View

__all__ = ["ROLES", "Answered", "Profile", "ProfileAxis", "ProfileTable", "SignedProfile", "declared", "positive_class"]

#: One of which the signer's key must hold in the roster.
ROLES = ("analyst", "coordinator")
#: What a cell's name is where the value is missing.
MISSING = "missing"
Floats: TypeAlias = npt.NDArray[np.float64]
_Name = Annotated[str, Bounds(0, 256)]
_Number = Annotated[str, Bounds(1, 40)]


class Answered(Protocol):
    """What of a study's result is read here."""

    @property
    def answers(self) -> Mapping[str, Answer]:
        """By the queries' names."""


def declared(view: View, name: str) -> bytes:
    """32 bytes that stand for a column's declaration: bounds, classes, missing codes; of a score its coefficients."""
    score = next((one for one in view.scores if one.name == name), None)
    model = view.column(name) if score is None else score
    return digest(Label.COLUMN, name, json.dumps(model.model_dump(mode="json"), sort_keys=True))


@dataclass(frozen=True)
class ProfileAxis(Record):
    """A column's cells. Numbers have edges (as text) and one label more: missing, perhaps after ``outside``."""

    TAG: ClassVar[str] = "profile axis"

    column: _Name
    declared: Bytes32
    unit: _Name
    labels: Annotated[tuple[_Name, ...], Bounds(1, 100_000)]
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

    name: _Name
    group: _Name
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


@dataclass(frozen=True)
class Profile(Record):
    """Everything that later data is compared with; a batch of later data is collected as one, too.

    Attributes:
        federation, schema_name, model: what it is of; ``model`` is free text, such as a model's id.
        made: milliseconds since 1970. sites: in the sums, the fewest of all tables.
        score, label, positive: the score's column, the label's and the class that counts as positive; empty for none.
        scores: JSON of the scores that sites compute, with their public coefficients.
    """

    TAG: ClassVar[str] = "profile"

    federation: _Name
    schema_name: _Name
    model: _Name
    made: Annotated[int, Bounds(0, 253_402_300_799_999)]
    sites: Uint32
    records: Uint64
    score: _Name
    label: _Name
    positive: _Name
    scores: Annotated[str, Bounds(2, 10_000_000)]
    tables: Annotated[tuple[ProfileTable, ...], Bounds(1, 10_000)]

    @classmethod
    def from_result(
        cls,
        result: Answered,
        view: View,
        *,
        federation: str,
        made: int,
        model: str = "",
        score: str | None = None,
        label: str | None = None,
        positive: object = None,
    ) -> Self:
        """Take the profile out of the result of the queries that :func:`profile_queries` names.

        Raises:
            Misuse: the result has no answer of the statistic ``profile``.
        """
        found = {name: answer for name, answer in result.answers.items() if answer.statistic == "profile"}
        if not found:
            raise Misuse("the result has no counts for a profile; run the study that profile_study makes")
        tables = tuple(_table(name, answer, view) for name, answer in found.items())
        if score and label:
            positive = positive_class(view, label, positive)
        return cls(
            federation,
            view.schema.name,
            model,
            made,
            min(answer.sites for answer in found.values()),
            view.schema.records,
            score or "",
            label or "",
            "" if positive is None else str(positive),
            json.dumps([one.model_dump(mode="json") for one in view.scores]),
            tables,
        )

    @property
    def date(self) -> str:
        """Day on which it was made, in UTC."""
        return datetime.fromtimestamp(self.made / 1000, UTC).date().isoformat()

    @property
    def hash(self) -> bytes:
        """32 bytes that stand for exactly this profile."""
        return digest(Label.PROFILE, self.to_value())

    def view(self, schema: Schema) -> View:
        """The schema's columns and the profile's own scores; raises Malformed for scores that are none.

        Raises:
            Misuse: the schema lacks a column that a score weighs.
        """
        try:
            scores = tuple(Score(**one) for one in json.loads(self.scores))
        except (ValueError, TypeError, Misuse, RecursionError):
            raise Malformed("the profile's scores cannot be read; fetch it again") from None
        return View(schema, scores)

    def positive_class(self, view: View) -> object:
        """The class that counts as positive as the schema has it; None where there is no label."""
        if not self.positive:
            return None
        return next((one for one in view.category(self.label).classes if str(one) == self.positive), self.positive)

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns that are watched, in order."""
        return tuple(dict.fromkeys(axis.column for table in self.tables for axis in table.own))

    def check_schema(self, view: View) -> None:
        """Raise Refused unless every column is still declared as it was; the declared size may differ."""
        for name, was in {axis.column: axis.declared for table in self.tables for axis in table.axes}.items():
            if name not in view.columns:
                raise Refused(f"the profile watches {name!r}, which {view.schema!r} does not have; make a new profile")
            if declared(view, name) != was:
                raise Refused(
                    f"column {name!r} is declared otherwise now than when the profile was made on {self.date}: its "
                    "cells do not mean the same; make a new profile"
                )

    def sign(self, key: SigningKey) -> SignedProfile:
        """Sign it with an identity's key. Whether the key may, :meth:`SignedProfile.verify` says."""
        return SignedProfile(self, key.verify_key.site_id, key.sign(Label.PROFILE_SIGNED, self.hash))

    def __repr__(self) -> str:
        return f"Profile({self.model or self.schema_name!r} of {self.date}, {', '.join(self.columns)})"


@dataclass(frozen=True)
class SignedProfile(Record):
    """A profile, its signer's id and his signature."""

    TAG: ClassVar[str] = "signed profile"

    profile: Profile
    signer: Bytes32
    signature: Bytes64

    def verify(self, roster: Roster) -> Profile:
        """Return the profile if an analyst or the coordinator of ``roster`` signed it for this federation.

        Raises:
            Unverified: the signer is unknown, revoked or of another role, or did not sign exactly this.
            Refused: it is another federation's.
        """
        member = roster.member(self.signer)
        if not set(ROLES) & set(member.roles):
            raise Unverified(f"the profile is signed by {member.name!a}, who is neither analyst nor coordinator")
        try:
            member.key.verify(self.signature, Label.PROFILE_SIGNED, self.profile.hash)
        except Unverified:
            raise Unverified(
                f"{member.name!a} did not sign this profile, or it was changed since; fetch it again"
            ) from None
        if self.profile.federation != roster.federation:
            raise Refused(
                f"the profile is of federation {self.profile.federation!r} and this roster of {roster.federation!r}"
            )
        return self.profile

    @classmethod
    def load(cls, path: Path, roster: Roster) -> Profile:
        """Read and verify a file that :meth:`save` wrote.

        Raises:
            Misuse: it cannot be read. Malformed: it is no signed profile. Unverified, Refused: see :meth:`verify`.
        """
        from privfl.homes.files import read_bytes  # noqa: PLC0415 - the folder's rules are needed here only

        data = read_bytes(path, "a reference profile")
        try:
            signed = cls.decode(data)
        except Malformed as error:
            raise Malformed(f"{path} is no whole reference profile ({error}); fetch it again") from None
        return signed.verify(roster)

    def save(self, path: Path) -> None:
        """Write it whole or not at all; raises StorageError."""
        from privfl.homes.files import write_file  # noqa: PLC0415 - as above

        write_file(path, self.encode())


def positive_class(view: View, label: str, positive: object) -> object:
    """The class that counts as positive, of two the second; raises Misuse where there is no telling."""
    classes = view.category(label).classes
    if positive is None:
        if len(classes) != 2:
            raise Misuse(f"{label!r} has {len(classes)} classes; say which one is positive")
        return classes[1]
    if (type(positive), positive) not in {(type(item), item) for item in classes}:
        raise Misuse(f"{positive!r} is no class of {label!r}; there are {', '.join(map(repr, classes))}")
    return positive


def _table(name: str, answer: Answer, view: View) -> ProfileTable:
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
