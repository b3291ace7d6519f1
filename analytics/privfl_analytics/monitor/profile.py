"""A reference profile: what data looked like when a model was trained, as noisy counts under a member's signature.

It holds nothing but noisy sums that were paid for, and public things; it may be kept and shown for years.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, ClassVar, Protocol, Self

from privfl_keys import Label, Roster, SigningKey, digest

from privfl.codec import Bounds, Bytes32, Bytes64, Record, Uint32, Uint64
from privfl.errors import DataError, Malformed, Misuse, Refused, Unverified
from privfl.tasks import Schema
from privfl_analytics.answer import Answer
from privfl_analytics.decoding import CUT_OFF
from privfl_analytics.monitor.tables import ProfileName, ProfileTable, declared, table_from
from privfl_analytics.view import Score, View

__all__ = ["ROLES", "Answered", "Profile", "SignedProfile", "positive_class"]

#: One of which the signer's key must hold in the roster.
ROLES = ("analyst", "coordinator")


class Answered(Protocol):
    """What of a study's result is read here."""

    @property
    def answers(self) -> Mapping[str, Answer]:
        """By the queries' names."""


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

    federation: ProfileName
    schema_name: ProfileName
    model: ProfileName
    made: Annotated[int, Bounds(0, 253_402_300_799_999)]
    sites: Uint32
    records: Uint64
    score: ProfileName
    label: ProfileName
    positive: ProfileName
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
            DataError: sums were cut off at their sites, and would look the same whatever the rows are.
        """
        found = {name: answer for name, answer in result.answers.items() if answer.statistic == "profile"}
        if not found:
            raise Misuse("the result has no counts for a profile; run the study that profile_study makes")
        for name, answer in found.items():
            if CUT_OFF in answer.notes:
                raise DataError(f"the counts of {name} cannot be compared: {CUT_OFF}")
        tables = tuple(table_from(name, answer, view) for name, answer in found.items())
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
