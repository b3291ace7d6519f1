"""Types of declared fields in words, and pydantic's complaints as sentences that say what to write."""

from __future__ import annotations

import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from enum import Enum
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo

__all__ = ["complaints", "example_of", "nearest", "type_words"]

_CLASS = frozenset({bool, int, str})
_SIZES = {
    "too_short": "at least", "too_long": "at most", "string_too_short": "at least", "string_too_long": "at most",
}  # fmt: skip
_PLURAL = {int: "whole numbers", float: "numbers", bool: "true or false"}


def nearest(name: Any, known: Iterable[str]) -> str | None:
    """The known name that was probably meant, whatever its case; None where none is near.

    >>> nearest("MEAN", ["mean", "median"])
    'mean'
    """
    lower = {one.lower(): one for one in reversed(list(known))}
    near = get_close_matches(str(name)[:64].lower(), lower, 1)  # a long name would take its time
    return lower[near[0]] if near else None


def type_words(annotation: Any, limits: Sequence[Any] = (), text: str = "text", name: str = "") -> str | None:
    """What may be written for a field of this type; None for one that has no plain words.

    Args:
        limits: pydantic's metadata of the field. text: what a text stands for. name: of the field.

    >>> type_words(int | tuple[float, ...], name="bins")
    'a whole number, or edges in brackets, such as [0, 40, 65, 110]'
    """
    annotation, limits = _bare(annotation, limits)
    options = _options(annotation)
    if len(options) > 1:
        if set(options) >= _CLASS:
            return "a class"
        said = [type_words(one, (), text, name) for one in options]
        return None if None in said else ", or ".join(dict.fromkeys(one for one in said if one is not None))
    annotation, limits = _bare(options[0], limits)
    origin, inner = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Literal:
        return "one of " + ", ".join(map(str, inner)) if len(inner) > 1 else str(inner[0])
    if origin in (tuple, list):
        several = _several(inner[0], text, name)
        exact = "two " if len(inner) == 2 and inner[1] is not ... else ""
        several = several if several == "edges" or exact else several and f"a list of {several}"
        return None if several is None else f"{exact}{several} in brackets, such as {example_of(annotation, (), name)}"
    if origin in (dict, Mapping):
        return f"a mapping, such as {example_of(annotation, (), name)}"
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        return "one of " + ", ".join(str(one.value) for one in annotation)
    if annotation is bool:
        return "true or false"
    if annotation in (int, float):
        return ("a whole number" if annotation is int else "a number") + _range(limits)
    return text if annotation is str else None


def example_of(annotation: Any, limits: Sequence[Any] = (), name: str = "") -> str:
    """A value of this type as it is written in a line or a file."""
    annotation, limits = _bare(annotation, limits)
    options = _options(annotation)
    if len(options) > 1:
        return "'f'" if set(options) >= _CLASS else example_of(options[0], (), name)
    annotation, limits = _bare(options[0], limits)
    origin, inner = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (tuple, list):
        one = _bare(inner[0], ())
        if one[0] is float:
            return "[0, 40, 65, 110]" if _edges(name) else "[0.5]" if _said(one[1], "lt") == 1 else "[10, 20]"
        if one[0] is str:
            return "[age, bmi]"
        return "['f', 'm']" if set(_options(one[0])) >= _CLASS else f"[{example_of(inner[0])}]"
    if origin in (dict, Mapping):
        plain = _bare(inner[1], ())[0]
        if plain is float:
            return "{age: 0.04, bmi: 0.1}"
        return "{age: [0, 40, 110]}" if typing.get_origin(plain) is tuple else "{adult: 'age >= 18'}"
    return {bool: "true", int: "1", float: "0.5"}.get(annotation, "age")


def complaints(model: type[BaseModel], errors: Iterable[Any], text: str = "text") -> str:
    """Pydantic's complaints about a model's fields, one for each field, in words that say what to write."""
    grouped: dict[Any, list[Any]] = {}
    for item in errors:
        grouped.setdefault(item["loc"][:1], []).append(item)
    return "; ".join(_complaint(model, items, text) for items in grouped.values())


def _complaint(model: type[BaseModel], items: Sequence[Any], text: str) -> str:
    item = items[0]
    names = {field.alias or name: field for name, field in model.model_fields.items()}
    top = str(item["loc"][0]) if item["loc"] else ""
    if item["type"] == "extra_forbidden" and len(item["loc"]) == 1:
        near = nearest(top, names)
        return f"{top}: there is no such field; {f'did you mean {near}?' if near else 'there are ' + ', '.join(names)}"
    if item["type"] not in ("value_error", "assertion_error") and top in names:
        said, size = type_words(names[top].annotation, names[top].metadata, text, top), _SIZES.get(item["type"])
        if item["type"] == "string_pattern_mismatch":
            return f"{top}: {str(item['input'])[:60]!r} has signs that are not allowed there; use letters, digits and _"
        if size is not None and len(item["loc"]) == 1:
            least = item["ctx"].get("min_length", item["ctx"].get("max_length"))
            said = said if typing.get_origin(names[top].annotation) else None
            return f"{top}: write {size} {least}{' characters' if said is None else f': {said}'}"
        if said is not None:
            said = said.replace("a number", "a finite number", 1) if item["type"] == "finite_number" else said
            return f"{top}: {'is missing; ' if item['type'] == 'missing' else ''}write {said}"
    where = ".".join(str(part) for part in item["loc"])
    raw = str(item["msg"]).removeprefix("Value error, ").replace("Input should be", "must be")
    raw = raw.replace("Field required", "is missing")
    return f"{where}: {raw}" if where else raw


def _bare(annotation: Any, limits: Sequence[Any]) -> tuple[Any, tuple[Any, ...]]:
    """Without ``Annotated``; what it said joins the limits."""
    while typing.get_origin(annotation) is typing.Annotated:
        inner, *more = typing.get_args(annotation)
        annotation, limits = inner, (*limits, *more)
    flat = [part for one in limits for part in (one.metadata if isinstance(one, FieldInfo) else (one,))]
    return annotation, tuple(flat)


def _options(annotation: Any) -> tuple[Any, ...]:
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return tuple(one for one in typing.get_args(annotation) if one is not type(None))
    return (annotation,)


def _several(annotation: Any, text: str, name: str) -> str | None:
    one, limits = _bare(annotation, ())
    if one is float and _edges(name):
        return "edges"
    if one in _PLURAL:
        return _PLURAL[one] + _range(limits)
    if one is str:
        return {"text": "texts"}.get(text, text.removeprefix("a ") + "s")
    if set(_options(one)) >= _CLASS:
        return "classes"
    return f"pairs of {'columns' if text == 'a column' else 'values'}" if typing.get_origin(one) is tuple else None


def _edges(name: str) -> bool:
    return name == "edges" or name.endswith("bins")


def _said(limits: Sequence[Any], which: str) -> Any:
    return next((value for one in limits if (value := getattr(one, which, None)) is not None), None)


def _range(limits: Sequence[Any]) -> str:
    low, high, above, below = (_said(limits, which) for which in ("ge", "le", "gt", "lt"))
    said = [f"from {low:g}"] if low is not None else [f"above {above:g}"] if above is not None else []
    if high is not None:
        said.append(f"to {high:.15g}" if low is not None else f"up to {high:.15g}")
    elif below is not None:
        said.append(f"and below {below:g}" if said else f"below {below:g}")
    return "".join(f" {one}" for one in said)
