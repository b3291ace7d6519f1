"""Queries and conditions as one line of text, read by a small parser of their own; nothing is ever evaluated.

A query::

    mean age
    mean age by sex where age >= 50
    histogram age bins=20 by sex, bmi/4 where sex in ('f', 'm') and bmi is not missing as "adults" weight 2

    query     = statistic [value {"," value}] {option "=" value} ["by" axis {"," axis}] ["where" condition]
                ["as" name] ["weight" number]
    axis      = column                     the classes of a category
              | column "/" number          so many bins of equal width over a number's bounds
              | column "[" edges "]"       bins with these edges
              | "missing" "(" column ")"   present or missing
    condition = condition "or" condition | condition "and" condition | "not" condition | "(" condition ")"
              | column op value | value op column [op value]       op: < <= > >= == !=
              | column ["not"] "in" "(" value {"," value} ")"
              | column "is" ["not"] "missing"
    value     = number | 'text' | "text" | true | false, and for options also a word, a list [...] or a map {k: v}

A column whose name is no plain word, or one of the words above, is written in backquotes: `` `mean radius` >= 12 ``.
A quote within quotes is doubled.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar

from privfl.errors import Misuse
from privfl_analytics.conditions import All, Any_, Compare, Condition, IsMissing, Not, OneOf, Operator
from privfl_analytics.constructions import Axis, Bins, Classes, Presence
from privfl_analytics.making import made
from privfl_analytics.query import Cut, Query
from privfl_analytics.tokens import KEYWORDS, WORD, Reader

__all__ = ["axis_text", "condition_text", "parse_axis", "parse_condition", "parse_query"]

MAX_TEXT = 20_000
T = TypeVar("T")

_OPERATORS: dict[str, Operator] = {
    "<": "<", "<=": "<=", ">": ">", ">=": ">=", "==": "==", "!=": "!=", "=": "==",
}  # fmt: skip
_FLIPPED: dict[Operator, Operator] = {"<": ">", "<=": ">=", ">": "<", ">=": "<=", "==": "==", "!=": "!="}


@dataclass(frozen=True, slots=True)
class _Column:
    name: str


_Operand: TypeAlias = _Column | bool | float | str


def parse_condition(text: str) -> Condition:
    """Read a condition such as ``"age >= 50 and sex == 'f'"``.

    Raises:
        Misuse: it cannot be read; the message points at the place.
    """
    return _whole(text, _Parser.condition)


def parse_axis(text: str) -> Axis | Cut:
    """Read what to group by, such as ``"sex"`` or ``"age/5"``; raises Misuse where it cannot be read."""
    return _whole(text, _Parser.axis)


def parse_query(text: str, cohort: Any = None) -> Query:
    """Read a query such as ``"mean age by sex where age >= 50"``.

    Raises:
        Misuse: it cannot be read, or its statistic or options do not exist.
    """
    return _whole(text, lambda parser: parser.query(cohort))


def condition_text(condition: Condition) -> str:
    """The condition as text that :func:`parse_condition` reads back, up to lists of a single part."""
    match condition:
        case Compare():
            return f"{_name_text(condition.column)} {condition.operator} {_value_text(condition.value)}"
        case OneOf():
            return f"{_name_text(condition.column)} in ({', '.join(map(_value_text, condition.values))})"
        case IsMissing():
            return f"{_name_text(condition.column)} is missing"
        case Not(part=IsMissing() as part):
            return f"{_name_text(part.column)} is not missing"
        case Not():
            return f"not ({condition_text(condition.part)})"
        case All() | Any_():
            word = " and " if isinstance(condition, All) else " or "
            parts = (
                f"({condition_text(part)})" if isinstance(part, All | Any_) else condition_text(part)
                for part in condition.parts
            )
            return word.join(parts)


def axis_text(axis: Axis | Cut) -> str | None:
    """The axis as text that :func:`parse_axis` reads back; None for one that has no text."""
    match axis:
        case Classes():
            return _name_text(axis.column)
        case Cut():
            return f"{_name_text(axis.column)}/{axis.count}"
        case Bins():
            return f"{_name_text(axis.column)}[{', '.join(map(repr, axis.edges))}]"
        case Presence():
            return f"missing({_name_text(axis.column)})"
        case _:
            return None


def _name_text(name: str) -> str:
    if WORD.fullmatch(name) and name.lower() not in KEYWORDS:
        return name
    return "`" + name.replace("`", "``") + "`"


def _value_text(value: bool | float | str) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return "'" + value.replace("'", "''") + "'" if isinstance(value, str) else repr(value)


def _whole(text: str, read: Callable[[_Parser], T]) -> T:
    if not isinstance(text, str) or len(text) > MAX_TEXT:
        raise Misuse(f"expected a text of at most {MAX_TEXT} characters")
    parser = _Parser(text)
    found = read(parser)
    parser.end()
    return found


class _Parser(Reader):
    """The grammar, one method for each of its rules."""

    # -- values of options ---------------------------------------------------------------------------

    def value(self) -> Any:
        """What an option may be."""
        if self.sign("["):
            self.place += 1
            return self.several(self.value, "]")
        if self.sign("{"):
            self.place += 1
            return dict(self.several(self.pair, "}"))
        token = self.peek()
        if token is not None and (token.kind == "quoted" or (token.kind == "word" and not self.word("true", "false"))):
            return self.column()
        return self.literal()

    def pair(self) -> tuple[Any, Any]:
        key = self.value()
        self.expect(":")
        return key, self.value()

    # -- conditions ----------------------------------------------------------------------------------

    def condition(self) -> Condition:
        parts = [self.conjunction()]
        while self.word("or"):
            self.place += 1
            parts.append(self.conjunction())
        return parts[0] if len(parts) == 1 else Any_(parts=tuple(parts))

    def conjunction(self) -> Condition:
        parts = [self.unary()]
        while self.word("and"):
            self.place += 1
            parts.append(self.unary())
        return parts[0] if len(parts) == 1 else All(parts=tuple(parts))

    def unary(self) -> Condition:
        if self.word("not"):
            self.place += 1
            return Not(part=self.nested(self.unary))
        if self.sign("("):
            self.place += 1
            found = self.nested(self.condition)
            self.expect(")")
            return found
        return self.predicate()

    def predicate(self) -> Condition:
        first = self.operand()
        if isinstance(first, _Column):
            if self.word("is"):
                return self.missing(first.name)
            if self.word("in") or (self.word("not") and self.word("in", ahead=1)):
                return self.among(first.name)
        found: list[Condition] = []
        while self.sign("<", "<=", ">", ">=", "==", "!=", "="):
            operator = _OPERATORS[self.take().text]
            second = self.operand()
            found.append(self.compared(first, operator, second))
            first = second
        if not found:
            raise self.fault("a comparison is expected, such as age >= 50, sex in ('f', 'm') or bmi is missing")
        return found[0] if len(found) == 1 else All(parts=tuple(found))

    def operand(self) -> _Operand:
        token = self.peek()
        if token is not None and (token.kind == "quoted" or (token.kind == "word" and not self.word("true", "false"))):
            return _Column(self.column())
        return self.literal()

    def compared(self, first: _Operand, operator: Operator, second: _Operand) -> Condition:
        if isinstance(first, _Column):
            if not isinstance(second, _Column):
                return Compare(column=first.name, operator=operator, value=second)
            self.place -= 1
            raise self.fault(f"{second.name} would be a second column; put a class into quotes: '{second.name}'")
        if isinstance(second, _Column):
            return Compare(column=second.name, operator=_FLIPPED[operator], value=first)
        self.place -= 1
        raise self.fault("a column must stand on one side")

    def missing(self, name: str) -> Condition:
        self.place += 1
        negative = self.word("not")
        self.place += negative
        if not self.word("missing"):
            raise self.fault("'missing' is expected after 'is'")
        self.place += 1
        return Not(part=IsMissing(column=name)) if negative else IsMissing(column=name)

    def among(self, name: str) -> Condition:
        negative = self.word("not")
        self.place += 1 + negative
        self.expect("(")
        found = OneOf(column=name, values=tuple(self.several(self.klass, ")")))
        return Not(part=found) if negative else found

    # -- queries -------------------------------------------------------------------------------------

    def axis(self) -> Axis | Cut:
        if self.word("missing"):
            self.place += 1
            self.expect("(")
            name = self.column()
            self.expect(")")
            return Presence(column=name)
        name = self.column()
        if self.sign("/"):
            self.place += 1
            return Cut(column=name, count=self.count())
        if self.sign("["):
            self.place += 1
            return Bins(column=name, edges=tuple(self.several(self.number, "]")))
        return Classes(column=name)

    def query(self, cohort: Any) -> Query:
        token = self.peek()
        if token is None or token.kind != "word":
            raise self.fault("the name of a statistic is expected, such as mean or count")
        statistic = self.take().text
        arguments, options = self.arguments()
        query = Query(cohort).asking(made(statistic, tuple(arguments), options))
        if self.word("by"):
            self.place += 1
            axes = [self.axis()]
            while self.sign(","):
                self.place += 1
                axes.append(self.axis())
            query = query.group_by(*axes)
        if self.word("where"):
            self.place += 1
            query = query.where(self.condition())
        if self.word("as"):
            self.place += 1
            query = query.named(str(self.value()))
        if self.word("weight"):
            self.place += 1
            query = query.weighted(self.number())
        return query

    def arguments(self) -> tuple[list[Any], dict[str, Any]]:
        """Values, then options, up to the next clause."""
        arguments: list[Any] = []
        options: dict[str, Any] = {}
        first = True
        while self.peek() is not None and not self.word("by", "where", "as", "weight"):
            if not first and self.sign(","):
                self.place += 1
            elif not first and not self._option():
                raise self.fault("a comma, an option such as bins=20, or 'by', 'where', 'as' or 'weight' is expected")
            first = False
            if self._option():
                name = self.take().text
                self.place += 1
                if name in options:
                    raise self.fault(f"{name} is given twice")
                options[name] = self.value()
            elif options:
                raise self.fault("values come before options")
            else:
                arguments.append(self.value())
        return arguments, options

    def _option(self) -> bool:
        token, sign = self.peek(), self.peek(1)
        return token is not None and token.kind == "word" and sign is not None and sign.text == "="
