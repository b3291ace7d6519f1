"""The parts of a policy: what a field may hold, and how its complaints are worded."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, date, datetime
from difflib import get_close_matches
from types import MappingProxyType
from typing import Annotated, Any, Self, TypeAlias, TypeVar

from privfl_keys import check_name
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from privfl.budget.policy_file import Fault, Place
from privfl.errors import Misuse

__all__ = [
    "STATISTIC",
    "AllowedColumn",
    "AllowedTask",
    "Frozen",
    "Instant",
    "Many",
    "Name",
    "Share",
    "Text",
    "Window",
    "complaints",
]

#: Names of statistics: a free list, so that statistics can be added without a new kind of policy.
STATISTIC = r"^[a-z][a-z0-9_]{0,63}$"
_DATE = re.compile(r"\d{4}-\d\d-\d\d(?:[T ]\d\d:\d\d(?::\d\d)?(?:Z|[+-]\d\d:\d\d)?)?")
K = TypeVar("K")
V = TypeVar("V")
T = TypeVar("T")


def _name(value: str) -> str:
    try:
        return check_name(value)
    except Misuse as error:
        raise ValueError(f"{error}; write such a name") from None


def _printable(value: str) -> str:
    if not value.isprintable() or value != value.strip():
        raise ValueError("holds invisible characters or blanks at its ends; write visible text")
    return value


def _instant(value: Any) -> datetime:
    if isinstance(value, date) and not isinstance(value, datetime):
        value = datetime(value.year, value.month, value.day, tzinfo=UTC)
    if isinstance(value, str) and _DATE.fullmatch(value):
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            raise ValueError(f"{value} is no day of the calendar; write a date like 2027-11-20 (UTC)") from None
    if not isinstance(value, datetime):
        raise ValueError("must be a date; write one like 2027-11-20, which is its midnight in UTC")
    moment = value.replace(tzinfo=UTC) if value.tzinfo is None else value
    try:
        moment = moment.astimezone(UTC)
    except OverflowError:
        moment = datetime(1, 1, 1, tzinfo=UTC)
    if moment.microsecond or moment.year < 1970:
        raise ValueError("must lie in or after 1970, in whole seconds; write a date like 2027-11-20")
    return moment


def _number(value: float) -> float:
    return value + 0.0  # -0.0 means 0.0 and must not have a text of its own


def _frozen(value: Mapping[K, V]) -> Mapping[K, V]:
    return MappingProxyType(dict(value))


def _tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list | set | frozenset) else value


def _set(value: tuple[T, ...]) -> tuple[T, ...]:
    if len(set(value)) != len(value):
        raise ValueError("names something twice; write each once")
    return tuple(sorted(value, key=str))


Name: TypeAlias = Annotated[str, AfterValidator(_name)]
Text: TypeAlias = Annotated[str, Field(min_length=1, max_length=200), AfterValidator(_printable)]
Instant: TypeAlias = Annotated[datetime, BeforeValidator(_instant)]
Number: TypeAlias = Annotated[float, AfterValidator(_number)]
Share: TypeAlias = Annotated[float, Field(ge=0, le=1), AfterValidator(_number)]
Frozen: TypeAlias = Annotated[Mapping[K, V], Field(max_length=10_000), AfterValidator(_frozen)]
Many: TypeAlias = Annotated[tuple[T, ...], Field(max_length=10_000), BeforeValidator(_tuple), AfterValidator(_set)]


class Part(BaseModel):
    """A group of fields inside a policy; its complaints are collected by the policy."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, strict=True)


class AllowedTask(Part):
    """A kind of training that may be asked. ``clip``: the largest bound of one contribution."""

    clip: Annotated[float, Field(gt=0, examples=[0.3])]


class Window(Part):
    """A sliding window: epsilon and delta are what any ``days`` days may cost; the lifetime caps all of them."""

    days: Annotated[int, Field(ge=1, le=36_500, examples=[90])]
    lifetime_epsilon: Annotated[float, Field(gt=0, le=1000, examples=[8])]
    lifetime_delta: Annotated[float, Field(ge=1e-15, lt=1, examples=["1e-6"])]


class AllowedColumn(Part):
    """A column that may be read: a number with its widest bounds, a category with its classes, or a text."""

    lower: Annotated[Number | None, Field(examples=[0])] = None
    upper: Annotated[Number | None, Field(examples=[110])] = None
    classes: Annotated[tuple[Any, ...], Field(examples=["[false, true]"]), BeforeValidator(_tuple)] = ()
    max_length: Annotated[int | None, Field(ge=1, le=64, examples=[8])] = None

    @property
    def kinds(self) -> frozenset[tuple[type, bool | int | str]]:
        """The classes as a set in which true is not 1."""
        return frozenset((type(item), item) for item in self.classes)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, AllowedColumn):
            return NotImplemented
        return self._key == other._key

    def __hash__(self) -> int:
        return hash(self._key)

    @property
    def _key(self) -> tuple[object, ...]:
        return self.lower, self.upper, self.kinds, self.max_length

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        if self.max_length is not None:
            if self.classes or (self.lower, self.upper) != (None, None):
                raise ValueError("has a length and bounds or classes; for a text column write {max_length: 8} alone")
        elif self.classes:
            if (self.lower, self.upper) != (None, None):
                raise ValueError("has bounds and classes; write {lower: …, upper: …} or {classes: […]}")
            object.__setattr__(self, "classes", _classes(self.classes))
        elif self.lower is None or self.upper is None:
            raise ValueError(
                "needs both bounds or classes; write {lower: 0, upper: 110} or {classes: [false, true]}, and for text "
                "{max_length: 8}"
            )
        elif not self.lower < self.upper:
            raise ValueError(f"lower {self.lower:g} is not below upper {self.upper:g}; write them in order")
        return self


def _classes(values: tuple[Any, ...]) -> tuple[bool | int | str, ...]:
    kinds = {type(item) for item in values}
    if len(kinds) != 1 or not kinds <= {bool, int, str}:
        raise ValueError(
            "classes must be all true/false, all whole numbers or all text; quote text that looks otherwise"
        )
    if len(set(values)) != len(values) or len(values) < 2:
        raise ValueError("a category has two or more distinct classes; write each once")
    for item in values:
        if isinstance(item, str):
            _printable(item)
        elif abs(item) >= 2**63:
            raise ValueError("a class is too large a number; write it as text, in quotes")
    return tuple(sorted(values))


# -- complaints -----------------------------------------------------------------------------------------------

_KINDS = {
    "int_type": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "finite_number": "must be a finite number",
    "string_type": "must be text",
    "bool_type": "must be true or false",
    "tuple_type": "must be a list",
    "mapping_type": "must be a group of fields",
    "dict_type": "must be a group of fields",
    "model_type": "must be a group of fields",
    "model_attributes_type": "must be a group of fields",
    "missing": "is missing",
    "too_short": "must not be empty",
    "string_too_short": "must not be empty",
    "string_too_long": "is longer than 200 characters",
    "string_pattern_mismatch": "must be a name of lower-case letters, digits and _",
}


def complaints(model: type[BaseModel], error: ValidationError) -> list[Fault]:
    """Every complaint of pydantic's, in words that say what to write."""
    found: dict[Place, Fault] = {}
    for item in error.errors(include_url=False, include_context=False):
        place = tuple(part for part in item["loc"] if part != "[key]")
        found.setdefault(place, Fault(place, _words(model, place, item)))
    return list(found.values())


def _words(model: type[BaseModel], place: Place, item: Mapping[str, Any]) -> str:
    kind, text = item["type"], str(item["msg"])
    if kind == "value_error":
        return text.removeprefix("Value error, ")
    owner, name = _owner(model, place)
    if kind == "extra_forbidden":
        return _unknown(owner, name)
    example = _example(owner, name)
    text = _KINDS.get(kind, text.replace("Input should be", "must be").replace("'", ""))
    if kind in ("enum", "literal_error"):
        return f"{text}; write one of them"
    return f"{text}; write {name}: {example}" if example else f"{text}; see docs/policy.md"


def _owner(model: type[BaseModel], place: Place) -> tuple[type[BaseModel], str]:
    """The model that declares the field at ``place``, and the field's name."""
    top = str(place[0]) if place else ""
    depth = 1 if top == "window" else 2
    if top in _PARTS and len(place) > depth:
        return _PARTS[top], str(place[depth])
    return model, top


def _example(owner: type[BaseModel], name: str) -> str:
    field = owner.model_fields.get(name)
    return str(field.examples[0]) if field is not None and field.examples else ""


def _unknown(owner: type[BaseModel], name: str) -> str:
    near = get_close_matches(name, owner.model_fields, 1)
    names = list(owner.model_fields)
    hint = f"write {near[0]}" if near else f"write {' or '.join(names)}" if len(names) < 4 else "see docs/policy.md"
    return f"there is no such field; {hint}, or remove the line"


_PARTS: dict[str, type[Part]] = {"window": Window, "tasks": AllowedTask, "columns": AllowedColumn}
