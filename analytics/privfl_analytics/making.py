"""Statistics by name: from arguments as people give them to the statistic's own fields, and what there is."""

from __future__ import annotations

import types
import typing
from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any

from privfl.errors import Misuse
from privfl_analytics.conditions import Compare
from privfl_analytics.predicates import Predicate, condition_of
from privfl_analytics.statistic import REGISTRY, Statistic, statistic_of

__all__ = ["column_of", "made", "names_of_statistics", "statistic_class"]


def names_of_statistics() -> tuple[str, ...]:
    """All registered names, sorted."""
    statistic_of("")  # loads them
    return tuple(sorted(REGISTRY))


def statistic_class(name: Any) -> type[Statistic]:
    """The class of this name; raises Misuse naming the nearest there is."""
    found = statistic_of(name) if isinstance(name, str) else None
    if found is None:
        near = get_close_matches(str(name), names_of_statistics(), 1)
        hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(names_of_statistics())}"
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
        if len(arguments) > len(fields):
            raise Misuse(f"{name} takes at most {len(fields)} arguments: {', '.join(fields)}")
        for field, value in zip(fields, arguments, strict=False):
            if field in given:
                raise Misuse(f"{name}: {field} is given twice")
            given[field] = value
    odd = next((field for field in given if field not in fields), None)
    if odd is not None:
        near = get_close_matches(str(odd), fields, 1)
        there = f"there are {', '.join(fields)}" if fields else "it has none"
        raise Misuse(f"{name}: {odd}: there is no such field; {f'did you mean {near[0]}?' if near else there}")
    lifted = {field: _lifted(value, kind.model_fields[field].annotation) for field, value in given.items()}
    for field, value in lifted.items():
        if isinstance(value, str) and takes_many(kind.model_fields[field].annotation):
            lifted[field] = (value,)  # a list of one name may be written as the name
    try:
        return kind(**lifted)
    except Misuse as error:
        raise Misuse(f"{name}: {error}") from None


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
