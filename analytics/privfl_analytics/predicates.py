"""Conditions as people write them in Python: ``(col("age") >= 50) & ~col("bmi").is_missing()``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

from privfl.errors import Misuse
from privfl.tasks import Class
from privfl_analytics.conditions import All, Any_, Compare, Condition, IsMissing, Not, OneOf, Operator, words_of

__all__ = ["Named", "Predicate", "col", "condition_of", "equalities", "simplified"]


@dataclass(frozen=True)
class Predicate:
    """A condition that combines by ``&``, ``|`` and ``~``."""

    condition: Condition

    def __and__(self, other: Predicate | Condition) -> Predicate:
        return Predicate(All(parts=(*_parts(self.condition, All), *_parts(condition_of(other), All))))

    def __or__(self, other: Predicate | Condition) -> Predicate:
        return Predicate(Any_(parts=(*_parts(self.condition, Any_), *_parts(condition_of(other), Any_))))

    def __invert__(self) -> Predicate:
        return Predicate(Not(part=self.condition))

    def __bool__(self) -> NoReturn:
        raise Misuse("a condition is neither true nor false here: combine conditions with & | ~, each in parentheses")

    def __repr__(self) -> str:
        return f"Predicate({words_of(self.condition)})"


class Named:
    """A column in a condition; made by :func:`col`."""

    __slots__ = ("name",)
    __hash__ = None  # type: ignore[assignment]

    def __init__(self, name: str) -> None:
        self.name = name

    def __lt__(self, value: float) -> Predicate:
        return self._compare("<", value)

    def __le__(self, value: float) -> Predicate:
        return self._compare("<=", value)

    def __gt__(self, value: float) -> Predicate:
        return self._compare(">", value)

    def __ge__(self, value: float) -> Predicate:
        return self._compare(">=", value)

    def __eq__(self, value: Class | float) -> Predicate:  # type: ignore[override]
        return self._compare("==", value)

    def __ne__(self, value: Class | float) -> Predicate:  # type: ignore[override]
        return self._compare("!=", value)

    def is_missing(self) -> Predicate:
        """The value is missing, or cannot be read."""
        return Predicate(IsMissing(column=self.name))

    def one_of(self, *values: Class) -> Predicate:
        """A category is one of these classes."""
        return Predicate(OneOf(column=self.name, values=values))

    def between(self, low: float, high: float) -> Predicate:
        """``low`` ≤ value ≤ ``high``."""
        return (self >= low) & (self <= high)

    def _compare(self, operator: Operator, value: Any) -> Predicate:
        return Predicate(Compare(column=self.name, operator=operator, value=_plain(value)))

    def __repr__(self) -> str:
        return f"col({self.name!r})"


def col(name: str) -> Named:
    """The column ``name``, to be compared.

    >>> (col("age") >= 50) & ~col("bmi").is_missing()
    Predicate(age >= 50 and not (bmi is missing))
    """
    return Named(name)


def condition_of(value: Condition | Predicate | str) -> Condition:
    """The condition that is meant: a value, a predicate, or text.

    Raises:
        Misuse: anything else, or text that cannot be read.
    """
    match value:
        case Predicate():
            return value.condition
        case str():
            from privfl_analytics.parsing import parse_condition  # noqa: PLC0415 - text is one way of three

            return parse_condition(value)
        case Compare() | OneOf() | IsMissing() | Not() | All() | Any_():
            return value
    raise Misuse(f"{type(value).__name__} is no condition; write col('age') >= 50, or the text 'age >= 50'")


def equalities(equal: Mapping[str, Any]) -> list[Condition]:
    """``{"sex": "f", "ward": ["a", "b"]}`` as conditions."""
    return [
        OneOf(column=name, values=tuple(map(_plain, value)))
        if isinstance(value, list | tuple | set | frozenset)
        else Compare(column=name, operator="==", value=_plain(value))
        for name, value in equal.items()
    ]


def simplified(condition: Condition) -> Condition:
    """The same with lists of one part replaced by the part."""
    match condition:
        case Not():
            return Not(part=simplified(condition.part))
        case All() | Any_():
            parts = tuple(simplified(part) for part in condition.parts)
            return parts[0] if len(parts) == 1 else type(condition)(parts=parts)
        case _:
            return condition


def _parts(condition: Condition, kind: type[All] | type[Any_]) -> tuple[Condition, ...]:
    return condition.parts if isinstance(condition, kind) else (condition,)


def _plain(value: Any) -> Any:
    return value.item() if hasattr(value, "item") else value
