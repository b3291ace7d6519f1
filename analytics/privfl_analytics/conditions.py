"""Filters as frozen values over declared columns; three-valued like SQL: an unknown comparison selects nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal, TypeAlias

from pydantic import Field

from privfl.declared import Declared
from privfl.errors import Misuse
from privfl.tasks import Category, Class, Numeric

if TYPE_CHECKING:
    from privfl_analytics.view import View

__all__ = [
    "All",
    "Any_",
    "Compare",
    "Condition",
    "IsMissing",
    "Not",
    "OneOf",
    "check_condition",
    "columns_of",
    "size_of",
    "words_of",
]

Operator: TypeAlias = Literal["<", "<=", ">", ">=", "==", "!="]

#: A database's time grows with the fourth power of how deep a condition goes: some kilobytes could stop a site.
MAX_DEPTH, MAX_PARTS = 24, 1000


class Compare(Declared):
    """A numeric column (clamped to its bounds) against a number within the bounds, or a category against a class."""

    kind: Literal["compare"] = "compare"
    column: str
    operator: Operator
    value: bool | int | float | str


class OneOf(Declared):
    """A category is one of some declared classes."""

    kind: Literal["one of"] = "one of"
    column: str
    values: Annotated[tuple[Class, ...], Field(min_length=1)]


class IsMissing(Declared):
    """The value is missing, or cannot be read."""

    kind: Literal["missing"] = "missing"
    column: str


class Not(Declared):
    """The opposite; unknown stays unknown."""

    kind: Literal["not"] = "not"
    part: Condition


class All(Declared):
    """Every part holds."""

    kind: Literal["all"] = "all"
    parts: Annotated[tuple[Condition, ...], Field(min_length=1)]


class Any_(Declared):  # noqa: N801 - Any is taken
    """At least one part holds."""

    kind: Literal["any"] = "any"
    parts: Annotated[tuple[Condition, ...], Field(min_length=1)]


Condition: TypeAlias = Annotated[Compare | OneOf | IsMissing | Not | All | Any_, Field(discriminator="kind")]
for _model in (Not, All, Any_):
    _model.model_rebuild()


def columns_of(condition: Condition) -> tuple[str, ...]:
    """Columns that are named, each once."""
    match condition:
        case Not():
            found: tuple[str, ...] = columns_of(condition.part)
        case All() | Any_():
            found = tuple(name for part in condition.parts for name in columns_of(part))
        case _:
            found = (condition.column,)
    return tuple(dict.fromkeys(found))


def size_of(condition: Condition) -> tuple[int, int]:
    """(levels, comparisons) of a condition."""
    levels, comparisons, here = 0, 0, [condition]
    while here:
        levels, below = levels + 1, list[Condition]()
        for one in here:
            if isinstance(one, Not):
                below.append(one.part)
            elif isinstance(one, All | Any_):
                below += one.parts
            else:
                comparisons += 1
        here = below
    return levels, comparisons


def check_condition(condition: Condition, view: View) -> None:
    """Raise Misuse unless every column, class and number is one that the schema declares, and it is not too large."""
    levels, comparisons = size_of(condition)
    if levels > MAX_DEPTH or comparisons > MAX_PARTS:
        raise Misuse(
            f"a condition of {comparisons} comparisons on {levels} levels; write at most {MAX_PARTS} on {MAX_DEPTH}, "
            "with 'in' for several classes"
        )
    _check(condition, view)


def _check(condition: Condition, view: View) -> None:
    match condition:
        case Not():
            _check(condition.part, view)
        case All() | Any_():
            for part in condition.parts:
                _check(part, view)
        case OneOf():
            _classes(condition.column, condition.values, view.category(condition.column))
        case IsMissing():
            view.column(condition.column)
        case Compare():
            _compare(condition, view)


def _compare(condition: Compare, view: View) -> None:
    column, name, value = view.column(condition.column), condition.column, condition.value
    if isinstance(column, Numeric):
        if isinstance(value, bool | str):
            raise Misuse(f"column {name!r} is a number and is compared with {value!r}; compare it with a number")
        if not column.lower <= value <= column.upper:
            raise Misuse(
                f"{name} {condition.operator} {value:g}: the bounds of {name!r} are "
                f"[{column.lower:g}, {column.upper:g}]"
            )
    elif isinstance(column, Category):
        if condition.operator not in ("==", "!="):
            raise Misuse(f"column {name!r} is a category; compare it with == or !=, or use one_of")
        _classes(name, (value,), column)
    else:
        raise Misuse(f"column {name!r} is text, which cannot be filtered by; declare it as a category")


def _classes(name: str, values: tuple[object, ...], column: Category) -> None:
    known = {(type(item), item) for item in column.classes}
    unknown = [value for value in values if (type(value), value) not in known]
    if unknown:
        raise Misuse(
            f"{unknown[0]!r} is no declared class of {name!r}; there are {', '.join(map(repr, column.classes))}"
        )


def words_of(condition: Condition) -> str:
    """The condition as people say it."""
    match condition:
        case Compare():
            return f"{condition.column} {condition.operator} {condition.value!r}"
        case OneOf():
            return f"{condition.column} is one of {', '.join(map(repr, condition.values))}"
        case IsMissing():
            return f"{condition.column} is missing"
        case Not():
            return f"not ({words_of(condition.part)})"
        case All():
            return " and ".join(
                f"({words_of(part)})" if isinstance(part, Any_) else words_of(part) for part in condition.parts
            )
        case Any_():
            return " or ".join(words_of(part) for part in condition.parts)
