"""Statistics by name: from arguments as people give them to the statistic's own fields, and what there is."""

from __future__ import annotations

import re
import types
import typing
from collections.abc import Mapping
from typing import Any

from privfl.declared_words import nearest
from privfl.errors import Misuse
from privfl_analytics.conditions import Compare
from privfl_analytics.predicates import Predicate, condition_of
from privfl_analytics.statistic import REGISTRY, Statistic, statistic_of

__all__ = ["column_of", "made", "names_of_statistics", "short_example", "statistic_class"]


def names_of_statistics() -> tuple[str, ...]:
    """All registered names, sorted."""
    statistic_of("")  # loads them
    return tuple(sorted(REGISTRY))


def statistic_class(name: Any) -> type[Statistic]:
    """The class of this name; raises Misuse naming the nearest there is."""
    found = statistic_of(name) if isinstance(name, str) else None
    if found is None:
        near = nearest(name, names_of_statistics())
        hint = f"did you mean {near}?" if near else f"there are {', '.join(names_of_statistics())}"
        raise Misuse(f"there is no statistic {str(name)[:60]!r}; {hint}")
    return found


def made(name: Any, arguments: tuple[Any, ...], options: Mapping[str, Any]) -> Statistic:
    """The statistic ``name`` with these fields.

    Args:
        arguments: the first fields in order; several for a first field that takes several.
        options: field → value.

    Raises:
        Misuse: no such statistic, a field that it does not have, or a value that does not fit.
    """
    kind = statistic_class(name)
    fields = list(kind.model_fields)
    given = dict(options)
    if arguments:
        if not fields:
            raise Misuse(f"{name} takes no argument")
        first = kind.model_fields[fields[0]].annotation
        if takes_many(first) and not (len(arguments) == 1 and not isinstance(arguments[0], str)):
            arguments = (arguments,)
        _check_number(kind, arguments)
        for field, value in zip(fields, arguments, strict=False):
            if field in given:
                raise Misuse(f"{name}: {field} is given twice")
            given[field] = value
    odd = next((field for field in given if field not in fields), None)
    if odd is not None:
        near = nearest(odd, fields)
        there = f"there are {', '.join(fields)}" if fields else "it has none"
        raise Misuse(f"{name}: {odd}: there is no such field; {f'did you mean {near}?' if near else there}")
    lifted = {field: _lifted(value, kind.model_fields[field].annotation) for field, value in given.items()}
    for field, value in lifted.items():
        annotation = kind.model_fields[field].annotation
        if isinstance(value, str) and takes_many(annotation):
            lifted[field] = (value,)  # a list of one name may be written as the name
        elif isinstance(value, int | float) and takes_many(annotation) and not _takes(annotation, int, float):
            raise Misuse(f"{name}: {field} takes a list; write {field}=[{value}]")
    _check_missing(kind, lifted)
    try:
        return kind(**lifted)
    except Misuse as error:
        raise Misuse(f"{name}: {error}") from None


def short_example(kind: type[Statistic]) -> str:
    """The statistic's example without groups and conditions; its name where it has none."""
    return re.split(r" (?:by|where) ", kind.example)[0] or kind.name


def _check_number(kind: type[Statistic], arguments: tuple[Any, ...]) -> None:
    """Raise Misuse where there are more arguments, or more columns among them, than the first fields take."""
    fields = list(kind.model_fields)
    texts = [_mentions(field.annotation, str) or _literal(field.annotation) for field in kind.model_fields.values()]
    columns = texts.index(False) if False in texts else len(texts)
    if any(isinstance(one, str) for one in arguments[columns:]):
        what = "value" if any(_literal(kind.model_fields[one].annotation) for one in fields[:columns]) else "column"
        said = {0: "no", 1: "one", 2: "two", 3: "three"}.get(columns, str(columns))
        example = short_example(kind)
        raise Misuse(f"{kind.name} takes {said} {what}{'s' * (columns > 1)}; write for example: {example}")
    if len(arguments) > len(fields):
        raise Misuse(f"{kind.name} takes at most {len(fields)} arguments: {', '.join(fields)}")


def _check_missing(kind: type[Statistic], given: Mapping[str, Any]) -> None:
    """Raise Misuse naming the first field that is needed and not given, with an example."""
    needed = next((name for name, field in kind.model_fields.items() if field.is_required() and name not in given), "")
    if needed and not given and needed in ("column", "columns"):
        raise Misuse(f"name {'a column' if needed == 'column' else 'columns'}: {short_example(kind)}")
    if needed:
        raise Misuse(f"{kind.name}: {needed} is missing; write for example: {short_example(kind)}")


def takes_many(annotation: Any) -> bool:
    """Whether a field of this type is a list of values."""
    if typing.get_origin(annotation) in (tuple, list, set, frozenset):
        return True
    return any(takes_many(one) for one in typing.get_args(annotation)) if _is_union(annotation) else False


def column_of(axis: Any) -> str:
    """The column that an axis groups by, for people."""
    return str(axis.column) if hasattr(axis, "column") else ", ".join(axis.names())


def _is_union(annotation: Any) -> bool:
    return typing.get_origin(annotation) in (typing.Annotated, typing.Union, types.UnionType)


def _mentions(annotation: Any, kind: type) -> bool:
    return annotation is kind or any(_mentions(one, kind) for one in typing.get_args(annotation))


def _literal(annotation: Any) -> bool:
    return typing.get_origin(annotation) is typing.Literal


def _takes(annotation: Any, *kinds: type) -> bool:
    """Whether one value of these types by itself will do."""
    if _is_union(annotation):
        return any(_takes(one, *kinds) for one in typing.get_args(annotation))
    return annotation in kinds


def _lifted(value: Any, annotation: Any) -> Any:
    """Predicates, and text where a condition is wanted, become conditions; numpy's numbers become plain."""
    if isinstance(value, Predicate):
        return value.condition
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, list | tuple):
        return tuple(_lifted(one, annotation) for one in value)
    if not _mentions(annotation, Compare):
        return value
    if isinstance(value, str):
        return condition_of(value)
    if isinstance(value, Mapping) and "kind" not in value:
        return {key: _lifted(one, annotation) for key, one in value.items()}
    return value
