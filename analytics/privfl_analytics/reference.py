"""The reference of every statistic: its fields with type, default and meaning, from what its class says of itself."""

from __future__ import annotations

import inspect
import re
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from privfl.declared_words import type_words
from privfl_analytics.constructions import Construction, Gradient, Outer, Sums, Tally
from privfl_analytics.making import statistic_class
from privfl_analytics.statistic import Statistic

__all__ = ["FieldWords", "Reference", "meanings", "parameters", "reference"]

_ROLE = re.compile(r":\w+:`~?\.?(?:[\w.]*\.)?(\w+)`|``([^`]+)``")


@dataclass(frozen=True, slots=True)
class FieldWords:
    """A field: what may be written, what holds where nothing is (None: it must be written), what it means."""

    name: str
    type: str
    default: str | None
    meaning: str


@dataclass(frozen=True, slots=True)
class Reference:
    """A statistic in words; ``str`` is the text of ``help``.

    Attributes:
        name: in lines, files and policies. summary: one line. about: its paragraphs.
        example: a line that asks for it, of the made-up hospitals. leaves: what it sums for that line.
    """

    name: str
    summary: str
    about: str
    fields: tuple[FieldWords, ...]
    example: str
    leaves: str

    def to_value(self) -> dict[str, Any]:
        """Plain values for JSON."""
        fields = {one.name: {"type": one.type, "default": one.default, "meaning": one.meaning} for one in self.fields}
        return {
            "statistic": self.name, "summary": self.summary, "about": self.about, "fields": fields,
            "example": self.example, "leaves": self.leaves, "policy": self.name,
        }  # fmt: skip

    def __str__(self) -> str:
        lines = [self.about, "", "Fields:" if self.fields else "It has no fields."]
        for one in self.fields:
            default = "must be given" if one.default is None else f"default {one.default}"
            said = f"{one.name} ({one.type}; {default}): {one.meaning}"
            lines += textwrap.wrap(said, 110, initial_indent="  ", subsequent_indent="      ")
        lines += ["", f"Example: {self.example}"] if self.example else []
        lines += [*textwrap.wrap(f"What leaves a site: {self.leaves}", 110)] if self.leaves else []
        return "\n".join([*lines, f"In policies: {self.name}"])


@cache
def reference(name: str) -> Reference:
    """What there is to know of a statistic; raises Misuse for a name that no statistic has."""
    kind = statistic_class(name)
    said = meanings(kind)
    fields = tuple(
        FieldWords(
            field,
            type_words(info.annotation, info.metadata, kind.text_means, field) or "",
            None if info.is_required() else _default(info.get_default(call_default_factory=True)),
            said.get(field, ""),
        )
        for field, info in kind.model_fields.items()
    )
    return Reference(kind.name, kind.summary, _about(kind), fields, kind.example, _leaves(kind))


def meanings(kind: type[Statistic]) -> Mapping[str, str]:
    """What each field means: from the ``Args`` of the class, or of the nearest class above it that says."""
    found: dict[str, str] = {}
    for one in kind.__mro__:
        if issubclass(one, Statistic) and one is not Statistic:
            found = {**_args(one, tuple(kind.model_fields)), **found}
    return found


def parameters(kind: type[Statistic]) -> list[inspect.Parameter]:
    """The fields as a call takes them: those that must be given first."""
    found: list[inspect.Parameter] = []
    place: Any = inspect.Parameter.POSITIONAL_OR_KEYWORD
    for name, info in kind.model_fields.items():
        default = inspect.Parameter.empty if info.is_required() else info.get_default(call_default_factory=True)
        found.append(inspect.Parameter(name, place, default=default))
        if not info.is_required():
            place = inspect.Parameter.KEYWORD_ONLY
    return found


def _args(kind: type[Statistic], fields: tuple[str, ...]) -> dict[str, str]:
    """The entries ``name, name: text`` of a class's own ``Args``; several may stand on one line."""
    section = re.search(r"^Args:\n((?:[ ]+.*\n?|\n(?=[ ]))*)", inspect.cleandoc(kind.__doc__ or ""), re.MULTILINE)
    if section is None or "__doc__" not in vars(kind):
        return {}
    text = " ".join(section[1].split())
    name = "|".join(map(re.escape, fields))
    heads = list(re.finditer(rf"(?:^|(?<=[.;] ))((?:{name})(?:, (?:{name}))*): ", text)) if name else []
    found = {}
    for at, head in enumerate(heads):
        end = heads[at + 1].start() if at + 1 < len(heads) else len(text)
        for field in head[1].split(", "):
            found[field] = _plain(text[head.end() : end].strip())
    return found


def _about(kind: type[Statistic]) -> str:
    """The paragraphs of the docstring, without its fields."""
    text = inspect.cleandoc(kind.__doc__ or kind.summary)
    without = re.sub(r"^Args:\n(?:[ ]+.*\n?|\n(?=[ ]))*", "", text, flags=re.MULTILINE)
    return _plain(re.sub(r"\n{3,}", "\n\n", without).strip())


def _plain(text: str) -> str:
    return _ROLE.sub(lambda found: found[1] or found[2], text)


def _default(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, tuple | list):
        return f"[{', '.join(map(_default, value))}]"
    return "{}" if value == {} else f"{value:.15g}" if isinstance(value, float) else str(value)


def _leaves(kind: type[Statistic]) -> str:
    """What a site's sums are, of the example and the made-up hospitals."""
    if not kind.example:
        return ""
    from privfl_analytics.datasets import RISK, hospital_schema  # noqa: PLC0415 - brings tables
    from privfl_analytics.query import Query  # noqa: PLC0415 - queries show this reference
    from privfl_analytics.view import View  # noqa: PLC0415

    view, query = View(hospital_schema(), (RISK,)), Query.parse(kind.example)
    rounds = query.steps(view)
    blocks = [one for step in range(rounds) for one in query.constructions(view, step)]
    sums = "; ".join(dict.fromkeys(map(_block, blocks)))
    numbers = sum(one.length(view) for one in blocks)
    steps = f" in {rounds} rounds" if rounds > 1 else ""
    whose = "its own, shown site by site, with all of the noise added there" if kind.local else "summed over sites"
    return f"{sums}. For the example {numbers} noisy numbers{steps}, {whose}."


def _block(one: Construction) -> str:
    match one:
        case Tally(levels=0):
            return "counts of rows in public cells"
        case Tally():
            return "counts of rows at every level of a tree of public cells"
        case Sums():
            return "sums of numbers, each within public bounds"
        case Outer():
            return "sums of products of columns, each row's shortened to a public length"
        case Gradient():
            return "sums of gradients, each row's shortened to a public length"
    return {
        "distinct": "how many different values the site has",
        "keys": "names of values whose noisy count passes a threshold, and these counts",
    }.get(one.kind, one.kind)
