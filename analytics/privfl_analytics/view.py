"""The columns that a query may name: those of the public schema, and scores that are computed from them row by row."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Annotated, Literal

from pydantic import Field

from privfl.declared import Declared
from privfl.declared_words import nearest
from privfl.errors import Misuse
from privfl.tasks import Category, Column, Numeric, Schema, Text

__all__ = ["Score", "View"]


class Score(Declared):
    """A number that each site computes for each row from public coefficients, such as a model's prediction.

    Args:
        name: how queries call it.
        weights: raw column → coefficient, in the columns' own units.
        intercept: added to the weighted sum.
        link: ``logistic`` for a probability, ``exp`` for a rate, ``identity`` for the sum itself.
        lower, upper: public bounds; the score is clamped to them. A row in which a column is missing has no score.
    """

    name: Annotated[str, Field(pattern=r"^[A-Za-z_]([A-Za-z0-9_ .-]{0,62}[A-Za-z0-9_.-])?$")]
    weights: Annotated[dict[str, float], Field(min_length=1, max_length=10_000)]
    intercept: float = 0.0
    link: Literal["identity", "logistic", "exp"] = "logistic"
    lower: float = 0.0
    upper: float = 1.0


class View:
    """What a study can see. Every look-up that fails says what there is."""

    def __init__(self, schema: Schema, scores: tuple[Score, ...] = ()) -> None:
        self.schema, self.scores = schema, scores
        taken = set(schema.columns)
        for score in scores:
            if score.name in taken:
                raise Misuse(f"score {score.name!r} has the name of another column; give it its own")
            taken.add(score.name)
            for name in score.weights:
                if not isinstance(schema.columns.get(name), Numeric):
                    raise Misuse(f"score {score.name!r}: {name!r} is no numeric column of {schema!r}")

    @cached_property
    def columns(self) -> Mapping[str, Column]:
        """Schema columns and scores by name, in this order."""
        made = {one.name: Numeric(lower=one.lower, upper=one.upper) for one in self.scores}  # type: ignore[call-arg]
        return {**self.schema.columns, **made}

    def column(self, name: str) -> Column:
        """The column of this name; raises Misuse naming the nearest there is."""
        found = self.columns.get(name)
        if found is None:
            near = nearest(name, self.columns)
            hint = f"did you mean {near!r}?" if near else f"there are {', '.join(self.columns)}"
            raise Misuse(f"there is no column {name[:100]!r} in {self.schema!r}; {hint}")
        return found

    def numeric(self, name: str) -> Numeric:
        """The numeric column of this name; raises Misuse for another kind."""
        column = self.column(name)
        if not isinstance(column, Numeric):
            raise Misuse(f"column {name!r} is a {column.kind} and a number is needed here")
        return column

    def category(self, name: str) -> Category:
        """The category column of this name; raises Misuse for another kind."""
        column = self.column(name)
        if not isinstance(column, Category):
            raise Misuse(f"column {name!r} is {column.kind} and a category with declared classes is needed here")
        return column

    def text(self, name: str) -> Text:
        """The text column of this name; raises Misuse for another kind."""
        column = self.column(name)
        if not isinstance(column, Text):
            raise Misuse(f"column {name!r} is {column.kind} and a text column is needed here")
        return column

    def read(self, names: tuple[str, ...]) -> tuple[str, ...]:
        """The schema columns behind ``names``: a score stands for all columns that it weighs."""
        found: dict[str, None] = {}
        for name in names:
            score = next((one for one in self.scores if one.name == name), None)
            for raw in score.weights if score is not None else (name,):
                found[raw] = None
        return tuple(found)
