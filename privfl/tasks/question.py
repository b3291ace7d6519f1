"""A compiled question: what each slot sums, what that costs, and how a site answers.

It travels as :meth:`Question.descriptor`, from which a site recomputes every sensitivity, length and cost
itself; what changes from slot to slot (a model, a stage) travels as ``inputs``. Both are bound into H0.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
from privfl_keys.labels import Label, digest

from privfl.budget import ColumnUse, Purpose
from privfl.dp import Cost, LocalReport, Release, Trust, Unit, noised
from privfl.entropy import Entropy
from privfl.errors import DataError, Refused
from privfl.ring import Ring
from privfl.tasks.data import SiteData
from privfl.tasks.schema import Category, Numeric, Schema

__all__ = ["Int64s", "Price", "Question", "Sum", "column_uses", "costs_of", "in_seat"]

Int64s = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Sum:
    """What one slot sums: the public shape of every site's vector.

    Attributes:
        ring: where the sum lives.
        length: coordinates of the vector.
        release: what one upload reveals; None only where no noise was asked for by name.
        own: under ``local`` trust, how many stretches of ``release.length`` there are, one for each site of the
            roster: a site fills its own and leaves the others zero. 0 where all fill the same one.
    """

    ring: Ring
    length: int
    release: Release | None
    own: int = 0


@dataclass(frozen=True, slots=True)
class Price:
    """What some of a question's uploads cost each site: one upload's cost by unit, whose noise, and how many times."""

    costs: Mapping[Unit, Cost]
    trust: Trust | None
    times: int


class Question(ABC):
    """Base of everything that is asked of sites.

    Attributes:
        kind: for logs and policies, e.g. ``"logistic"`` or ``"study"``.
        purpose: which share of the budget pays.
        schema: the public schema it is about.
        sites: how many may upload in one slot, at most.
        uploads: uploads planned for each site, repeated attempts included.
    """

    kind: str
    purpose: Purpose
    schema: Schema
    sites: int
    uploads: int

    # -- what is public ------------------------------------------------------------------------------

    @property
    @abstractmethod
    def title(self) -> str:
        """A few public words for people, logs and the ledger."""

    @property
    @abstractmethod
    def columns(self) -> tuple[str, ...]:
        """Every column of the schema that is read."""

    @property
    def statistics(self) -> tuple[str, ...]:
        """Names that a policy must allow one by one; empty for a training task, whose kind it must allow."""
        return ()

    @property
    def clip(self) -> float | None:
        """Bound of one unit's contribution, None where the kind has none."""
        return None

    @abstractmethod
    def descriptor(self) -> bytes:
        """Everything a site needs, canonically encoded; goes into H0."""

    @cached_property
    def id(self) -> bytes:
        """32 bytes that name the question: the digest of its descriptor."""
        return digest(Label.TASK, self.descriptor())

    @abstractmethod
    def sum_of(self, inputs: bytes) -> Sum:
        """What the slot with these inputs sums; a function of question and inputs alone.

        Raises:
            Malformed: these are no inputs of this question.
        """

    def costs(self, inputs: bytes) -> Mapping[Unit, Cost]:
        """The cost of one upload by every unit in which it is finite; empty without noise."""
        return costs_of(self.sum_of(inputs).release)

    @abstractmethod
    def prices(self) -> Sequence[Price]:
        """What the whole question costs if nothing has to be repeated; empty without noise."""

    # -- the site ------------------------------------------------------------------------------------

    def check(self, data: SiteData) -> None:
        """Raise DataError unless ``data`` is a table bound to this very schema; call it before anything is spent."""
        if not data.readable:
            raise DataError("this site's rows are in the hands of a Flower app; ask with that app, or bind a table")
        self.check_schema(data)

    def check_schema(self, data: SiteData) -> None:
        """Raise DataError unless ``data`` was bound to this very schema."""
        if data.schema != self.schema or data.schema.digest != self.schema.digest:
            raise DataError(
                f"the task is about {self.schema!r} and the data is bound to {data.schema!r}, or their columns "
                f"differ; bind the table to the task's schema after comparing the two"
            )

    @abstractmethod
    def contribution(
        self, inputs: bytes, data: SiteData, entropy: Entropy, *, report: LocalReport | None = None
    ) -> Int64s:
        """The site's exact integer vector, saturated and **without noise**: it must not leave as it is.

        Returns:
            int64 of shape ``(length,)``, or of one stretch where every site has its own. No row and no number of
            rows makes it fail.

        Raises:
            Malformed: these are no inputs of this question.
            DataError: the data is bound to another schema.
        """

    def upload(
        self, inputs: bytes, data: SiteData, entropy: Entropy, *, seat: int = 0, report: LocalReport | None = None
    ) -> Int64s:
        """:meth:`contribution` with the site's share of exact noise, ready to be masked; same errors.

        Args:
            seat: the site's place among the roster's sites, for vectors in which each has its own stretch.
        """
        return self._sent(self.contribution(inputs, data, entropy, report=report), self.sum_of(inputs), entropy, seat)

    def blank(self, inputs: bytes, entropy: Entropy, *, seat: int = 0) -> Int64s:
        """A zero contribution with the same noise: what a site sends that cannot compute after it was charged."""
        total = self.sum_of(inputs)
        zero = np.zeros(total.release.length if total.own and total.release else total.length, dtype=np.int64)
        return self._sent(zero, total, entropy, seat)

    @staticmethod
    def _sent(vector: Int64s, total: Sum, entropy: Entropy, seat: int) -> Int64s:
        return in_seat(vector if total.release is None else noised(vector, total.release, entropy), total, seat)


def in_seat(vector: Int64s, total: Sum, seat: int) -> Int64s:
    """A site's vector, in its own stretch where every site has one; the other stretches stay zero, without noise."""
    if not total.own:
        return vector
    out = np.zeros(total.length, dtype=np.int64)
    out[seat * len(vector) : (seat + 1) * len(vector)] = vector
    return out


def costs_of(release: Release | None) -> dict[Unit, Cost]:
    """The cost of one upload by every unit in which it is finite."""
    found: dict[Unit, Cost] = {}
    for unit in Unit if release is not None else ():
        try:
            found[unit] = release.cost_in(unit)  # type: ignore[union-attr]
        except Refused:
            continue
    return found


def column_uses(schema: Schema, names: tuple[str, ...]) -> Mapping[str, ColumnUse]:
    """Public bounds or classes of the columns that are read, for a policy to look at."""
    uses = {}
    for name in names:
        column = schema.columns[name]
        if isinstance(column, Numeric):
            uses[name] = ColumnUse(column.lower, column.upper)
        elif isinstance(column, Category):
            uses[name] = ColumnUse(classes=column.classes)
        else:
            uses[name] = ColumnUse(text=column.max_length)
    return uses
