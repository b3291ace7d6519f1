"""One question to the federation's rows, as a frozen value with a fluent builder.

>>> from privfl_analytics import Query, col
>>> Query().where(col("age") >= 50).group_by("sex").mean("bmi")  # doctest: +SKIP
Query('mean bmi by sex': mean, where age >= 50, by sex)

Every registered statistic is a method; its first argument is the statistic's first field. The same as one line of
text is read by :meth:`Query.parse`, whose grammar is that of :mod:`privfl_analytics.parsing`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from inspect import Parameter, Signature
from typing import Annotated, Any, Literal, Self, TypeAlias, TypeGuard

import numpy as np
from pydantic import Field, TypeAdapter, ValidationError

from privfl.declared import Declared
from privfl.declared_words import nearest
from privfl.errors import Misuse
from privfl.tasks import Numeric, Schema
from privfl_analytics.conditions import All, Any_, Condition, Not, check_condition, columns_of, words_of
from privfl_analytics.constructions import Axis, Bins, Classes, Construction, Meets, Prefixes
from privfl_analytics.making import column_of, made, names_of_statistics, statistic_class
from privfl_analytics.predicates import Predicate, condition_of, equalities, simplified
from privfl_analytics.statistic import State, Statistic
from privfl_analytics.view import View

__all__ = ["By", "Cut", "Query", "axis_of_value", "bins"]

MAX_NAME = 100
#: Axes of one grouping, and rounds of one statistic, at most.
MAX_AXES, MAX_STEPS = 8, 64


class Cut(Declared):
    """Bins of equal width over a column's declared bounds; they become :class:`Bins` once the schema is known."""

    kind: Literal["cut"] = "cut"
    column: str
    count: Annotated[int, Field(ge=1, le=1000)]

    def axis(self, view: View) -> Bins:
        """The bins; raises Misuse unless the column is a number."""
        column = view.numeric(self.column)
        edges = np.linspace(column.lower, column.upper, self.count + 1)
        return Bins(column=self.column, edges=tuple(float(edge) for edge in edges))


By: TypeAlias = Annotated[Axis | Cut, Field(discriminator="kind")]
_BY: TypeAdapter[By] = TypeAdapter(By)
_CONDITION: TypeAdapter[Condition] = TypeAdapter(Condition)


def bins(column: str, edges: int | list[float] | tuple[float, ...]) -> Cut | Bins:
    """Groups of a numeric column: so many of equal width over its bounds, or with these edges.

    >>> bins("age", [0, 40, 65, 110]).edges
    (0.0, 40.0, 65.0, 110.0)
    """
    if isinstance(edges, int) and not isinstance(edges, bool):
        return Cut(column=column, count=edges)
    return Bins(column=column, edges=tuple(edges))  # type: ignore[arg-type]


def axis_of_value(value: Any) -> By:
    """An axis from its plain values; raises Misuse for anything else."""
    try:
        return _BY.validate_python(value)
    except ValidationError as error:
        raise Misuse(f"this is nothing to group by: {error.errors()[0]['msg']}") from None


class _NoStatistic(Misuse, AttributeError):
    """An attribute that is neither a step of the builder nor a statistic."""


class _Fluent(type):
    """Shows the statistics on the class too, so that ``help(Query.mean)`` says what it takes."""

    def __getattr__(cls, name: str) -> Callable[..., Query]:
        if name.startswith("_"):  # asked for while the class is being made
            raise AttributeError(name)
        _check_known(name)

        def ask(query: Query, /, *arguments: Any, **options: Any) -> Query:
            return query.asking(made(name, arguments, options))

        return _told(ask, name, Parameter("self", Parameter.POSITIONAL_ONLY))


@dataclass(frozen=True)
class Query(metaclass=_Fluent):
    """What is asked: a statistic of the rows that meet a condition, for every group.

    Args:
        cohort: a schema or something with one (a federation), for early complaints; None where it is not known yet.
        name: in answers and reports; by default what is asked, e.g. ``"mean age by sex"``.
        statistic: what to compute; None while the query is being built.
        condition: which rows; None for all.
        by: the axes of the groups.
        weight: share of the study's budget, beside those of the other queries.
    """

    cohort: Any = field(default=None, compare=False, repr=False)
    name: str = ""
    statistic: Statistic | None = None
    condition: Condition | None = None
    by: tuple[By, ...] = ()
    weight: float = 1.0

    def __post_init__(self) -> None:
        if isinstance(self.cohort, str):
            raise Misuse(f"{self.cohort[:60]!r} is no cohort; read text with Query.parse")
        if self.condition is not None:
            object.__setattr__(self, "condition", simplified(self.condition))
        if not (isinstance(self.weight, int | float) and 1e-6 <= self.weight <= 1e6):
            raise Misuse(f"weight is {self.weight!r}; write a number between 0.000001 and 1000000")
        if len(self.by) > MAX_AXES:
            raise Misuse(f"groups over {len(self.by)} columns; use at most {MAX_AXES}")
        if len({column_of(axis) for axis in self.by}) != len(self.by):
            raise Misuse("a column stands twice in the groups; name each once")
        if self.name != "":
            checked_name(self.name)
        if self.schema is not None:
            self._early(View(self.schema))

    @property
    def schema(self) -> Schema | None:
        """That of the cohort."""
        found = self.cohort if isinstance(self.cohort, Schema) else getattr(self.cohort, "schema", None)
        return found if isinstance(found, Schema) else None

    # -- building ------------------------------------------------------------------------------------

    def where(self, *conditions: Condition | Predicate | str, **equal: Any) -> Query:
        """Only rows that meet these conditions, and those before.

        Args:
            conditions: ``col("age") >= 50``, a value of :mod:`privfl_analytics.conditions`, or text such as
                ``"age >= 50 and sex == 'f'"``.
            equal: column = class, or a list of classes.
        """
        parts = [*map(condition_of, conditions), *equalities(equal)]
        if not parts:
            raise Misuse("where needs a condition, such as where('age >= 50') or where(sex='f')")
        before = (
            ()
            if self.condition is None
            else self.condition.parts
            if isinstance(self.condition, All)
            else (self.condition,)
        )
        flat = [one for part in parts for one in (part.parts if isinstance(part, All) else (part,))]
        return replace(self, condition=All(parts=(*before, *flat)))

    def group_by(self, *axes: str | Axis | Cut) -> Query:
        """Once for every group: the classes of a category, or the bins of ``bins(column, edges)``."""
        if not axes:
            raise Misuse("group_by needs a column, such as group_by('sex') or group_by(bins('age', 5))")
        made_ = tuple(Classes(column=one) if isinstance(one, str) else one for one in axes)
        return replace(self, by=(*self.by, *made_))

    def named(self, name: str) -> Query:
        """The same under another name."""
        return replace(self, name=checked_name(name))

    def weighted(self, weight: float) -> Query:
        """The same with another share of the budget."""
        return replace(self, weight=weight)

    def asking(self, statistic: Statistic) -> Query:
        """Ask for ``statistic``, given as a value."""
        if self.statistic is not None:
            raise Misuse(f"this query asks for {self.statistic.words()} already; put a second one beside it in a study")
        return replace(self, statistic=statistic)

    def __getattr__(self, name: str) -> Callable[..., Query]:
        _check_known(name)

        def ask(*arguments: Any, **options: Any) -> Query:
            return self.asking(made(name, arguments, options))

        return _told(ask, name)

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *names_of_statistics()]

    @classmethod
    def parse(cls, text: str, cohort: Any = None) -> Query:
        """Read one line such as ``"mean age by sex where age >= 50"``; see :mod:`privfl_analytics.parsing`.

        Raises:
            Misuse: it cannot be read; the message points at the place.
        """
        from privfl_analytics.parsing import parse_query  # noqa: PLC0415 - the parser builds queries

        return parse_query(text, cohort)

    # -- what it says --------------------------------------------------------------------------------

    @cached_property
    def asked(self) -> Statistic:
        """The statistic.

        Raises:
            Misuse: none has been chosen yet.
        """
        if self.statistic is None:
            raise Misuse("this query asks for nothing yet; choose a statistic, such as .count() or .mean('age')")
        return self.statistic

    @property
    def title(self) -> str:
        """The name, or what is asked in a few words."""
        if self.name or self.statistic is None:
            return self.name or "nothing yet"
        first = next((getattr(self.statistic, one) for one in type(self.statistic).model_fields), None)
        what = first if isinstance(first, str) else ", ".join(first) if _plain(first) else ""
        groups = " by " + ", ".join(map(column_of, self.by)) if self.by else ""
        return f"{self.statistic.name} {what}".strip()[: MAX_NAME - 30] + groups[:29]

    def words(self) -> str:
        """What is asked, of which rows, as a clause for people."""
        rows = f", among rows where {words_of(self.condition)}" if self.condition is not None else ""
        groups = f", for every group of {' and '.join(map(_group, self.by))}" if self.by else ""
        return f"{self.asked.words()}{groups}{rows}"

    def steps(self, view: View) -> int:
        """How many rounds the statistic takes; raises Misuse where that is out of reason."""
        steps = self.asked.stages(view)
        if not 1 <= steps <= MAX_STEPS:
            raise Misuse(f"{self.asked.name} would take {steps} rounds and at most {MAX_STEPS} are possible")
        return steps

    def axes(self, view: View) -> tuple[Axis, ...]:
        """The groups with the schema's bounds put in."""
        return tuple(axis.axis(view) if isinstance(axis, Cut) else axis for axis in self.by)

    def constructions(self, view: View, step: int = 0, state: State | None = None) -> tuple[Construction, ...]:
        """What the statistic sums at this step, for every group; as :meth:`Statistic.constructions`."""
        axes = self.axes(view)
        found = self.asked.constructions(view, step, state)
        return tuple(one.grouped(axes) for one in found) if axes else tuple(found)

    def check(self, view: View) -> None:
        """Raise Misuse unless the schema has everything that is named and the groups apply."""
        if self.condition is not None:
            check_condition(self.condition, view)
        for axis in self.by:
            if isinstance(axis, Classes) and isinstance(view.column(axis.column), Numeric):
                raise Misuse(
                    f"{axis.column!r} is a number; group by bins of it, such as bins({axis.column!r}, 5), "
                    f"in text {axis.column}/5"
                )
        for axis in self.axes(view):
            if isinstance(axis, Prefixes):
                raise Misuse(f"{axis.column!r} is text, which cannot be grouped by; declare it as a category")
            axis.check(view)
        if self.by and not self.asked.group_axes(view):
            raise Misuse(f"{self.asked.words()} cannot be asked for by groups; ask once for each group with where")
        for step in range(self.steps(view)):
            for one in self.constructions(view, step):
                one.check(view)

    def names(self, view: View) -> tuple[str, ...]:
        """Every column or score that is read."""
        found = [name for step in range(self.steps(view)) for one in self.constructions(view, step)
                 for name in one.names()]  # fmt: skip
        return tuple(dict.fromkeys([*(columns_of(self.condition) if self.condition is not None else ()), *found]))

    # -- as plain values -----------------------------------------------------------------------------

    def to_value(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "name": self.name,
            "statistic": self.asked.name,
            "options": self.asked.model_dump(mode="json"),
            "where": None if self.condition is None else self.condition.model_dump(mode="json"),
            "by": [axis.model_dump(mode="json") for axis in self.by],
            "weight": float(self.weight),
        }

    @classmethod
    def from_value(cls, value: Mapping[str, Any]) -> Self:
        """Read back :meth:`to_value`; raises Misuse for anything else."""
        fields = {"name", "statistic", "options", "where", "by", "weight"}
        if not isinstance(value, Mapping) or set(value) != fields or not isinstance(value["options"], Mapping):
            raise Misuse(f"a query is a mapping of {', '.join(sorted(fields))}")
        try:
            where = None if value["where"] is None else _CONDITION.validate_python(value["where"])
            by = tuple(axis_of_value(one) for one in value["by"])
        except (ValidationError, TypeError) as error:
            raise Misuse(f"a query's condition or groups cannot be read: {str(error).splitlines()[0]}") from None
        statistic = made(value["statistic"], (), value["options"])
        return cls(name=value["name"], statistic=statistic, condition=where, by=by, weight=value["weight"])

    def __repr__(self) -> str:
        said = ["nothing asked yet" if self.statistic is None else f"{self.title!r}: {self.statistic.name}"]
        said += [f"where {words_of(self.condition)}"] if self.condition is not None else []
        said += [f"by {', '.join(map(column_of, self.by))}"] if self.by else []
        return f"Query({', '.join(said)})"

    def _early(self, view: View) -> None:
        """Complain at once about columns of the cohort's schema; names that it lacks may be a study's scores."""
        known = view.columns
        if self.condition is not None:
            for part in _leaves(self.condition):
                if set(columns_of(part)) <= set(known):
                    check_condition(part, view)
        for axis in self.by:
            if column_of(axis) in known and isinstance(axis, Classes | Bins | Cut):
                (axis.axis(view) if isinstance(axis, Cut) else axis).check(view)


def _check_known(name: str) -> None:
    """Raise AttributeError unless a statistic has this name."""
    if name.startswith("_"):
        raise AttributeError(name)
    known = names_of_statistics()
    if name not in known:
        near = nearest(name, [*known, "where", "group_by", "named", "weighted"])
        hint = f"did you mean {near}?" if near else f"there are {', '.join(known)}"
        raise _NoStatistic(f"there is no statistic {name!r}; {hint}")


def _told(ask: Callable[..., Query], name: str, *first: Parameter) -> Callable[..., Query]:
    """``ask`` with the statistic's name, fields and reference."""
    from privfl_analytics.reference import parameters, reference  # noqa: PLC0415 - its examples are queries

    ask.__name__, ask.__qualname__, ask.__doc__ = name, f"Query.{name}", str(reference(name))
    ask.__signature__ = Signature([*first, *parameters(statistic_class(name))])  # type: ignore[attr-defined]
    return ask


def checked_name(name: str) -> str:
    """``name``, if people can read it; raises Misuse otherwise."""
    if not (isinstance(name, str) and 1 <= len(name) <= MAX_NAME and name.isprintable() and name == name.strip()):
        raise Misuse(f"{str(name)[:40]!r} is no name; use 1 to {MAX_NAME} visible characters")
    return name


def _group(axis: By) -> str:
    return f"whether {words_of(axis.condition)}" if isinstance(axis, Meets) else column_of(axis)


def _plain(value: Any) -> TypeGuard[tuple[str, ...]]:
    return isinstance(value, tuple | list) and all(isinstance(one, str) for one in value)


def _leaves(condition: Condition) -> list[Condition]:
    match condition:
        case Not():
            return _leaves(condition.part)
        case All() | Any_():
            return [leaf for part in condition.parts for leaf in _leaves(part)]
        case _:
            return [condition]
