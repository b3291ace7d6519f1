"""A small, unambiguous part of YAML as plain values, with the line of every field."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import yaml

from privfl.errors import Misuse

__all__ = ["Complaint", "InvalidStudy", "Lined", "Place", "read_lined"]

MAX_BYTES = 1 << 20
MAX_DEPTH = 12
MAX_SHOWN = 18
Place: TypeAlias = "tuple[str | int, ...]"

_INT = re.compile(r"[-+]?(?:0|[1-9][0-9]{0,29})")
_FLOAT = re.compile(r"[-+]?(?:0|[1-9][0-9]{0,29})?(?:\.[0-9]{0,40})?(?:[eE][-+]?[0-9]{1,4})?")
_AMBIGUOUS = {"yes", "no", "on", "off"}


@dataclass(frozen=True, order=True)
class Complaint:
    """One complaint: on which line, about which field, and what to write instead."""

    line: int
    place: Place = field(compare=False)
    text: str = field(compare=False)

    def words(self, name: str) -> str:
        """``study.yaml:14: queries.2.bins: …``."""
        where = ".".join(str(part + 1) if isinstance(part, int) else part for part in self.place)
        return ": ".join(part for part in (f"{name}:{self.line}", where, self.text) if part)


class InvalidStudy(Misuse):
    """A study file with ``complaints``, all of them at once, in the order of the file."""

    def __init__(self, complaints: Iterable[Complaint], name: str) -> None:
        self.complaints = tuple(sorted(complaints))
        lines = [one.words(name) for one in self.complaints[:MAX_SHOWN]]
        if len(self.complaints) > MAX_SHOWN:
            lines.append(f"and {len(self.complaints) - MAX_SHOWN} more; correct these first")
        head = [] if len(lines) == 1 else [f"{len(self.complaints)} things to correct"]
        super().__init__("\n  ".join([*head, *lines]))


@dataclass(frozen=True)
class Lined:
    """What a file says.

    Attributes:
        name: of the file, for messages.
        fields: text, numbers, booleans, lists and mappings.
        lines: on which line each field starts.
    """

    name: str
    fields: Mapping[str, Any]
    lines: Mapping[Place, int]

    def line(self, place: Place) -> int:
        """The line of a field, or of what it is part of."""
        while place and place not in self.lines:
            place = place[:-1]
        return self.lines.get(place, 1)

    def keys_under(self, place: Place) -> list[str]:
        """Names of the fields directly within one."""
        size = len(place) + 1
        return [key[-1] for key in self.lines if len(key) == size and key[:-1] == place and isinstance(key[-1], str)]


def read_lined(source: str | Path) -> Lined:
    """Read a file (a ``Path``) or text.

    Raises:
        InvalidStudy: not that part of YAML; every complaint with its line.
        Misuse: the file cannot be read, is too large or is not UTF-8.
    """
    text, name = _text(source)
    try:
        complaints = _forbidden(text)
        if complaints:
            raise InvalidStudy(complaints, name)
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        why = f"not YAML ({error.problem}); check quotes, colons, brackets and indentation here and on the line before"
        if "'\\t'" in str(error.problem):
            why = "a tab where YAML wants spaces; indent with spaces"
        raise InvalidStudy([Complaint(mark.line + 1 if mark else 1, (), why)], name) from None
    except yaml.reader.ReaderError as error:
        line = 1 + text[: int(error.position)].count("\n")
        raise InvalidStudy(
            [Complaint(line, (), "holds a character that YAML does not allow; remove it")], name
        ) from None
    if not isinstance(root, yaml.MappingNode):
        raise InvalidStudy([Complaint(1, (), "must be a list of fields; write for example 'study: my-study'")], name)
    reader = _Nodes()
    fields = reader.mapping(root, ())
    if reader.complaints:
        raise InvalidStudy(reader.complaints, name)
    return Lined(name, fields, reader.lines)


def _text(source: str | Path) -> tuple[str, str]:
    if isinstance(source, str):
        if len(source) > MAX_BYTES:
            raise Misuse(f"a study has at most {MAX_BYTES} bytes; this one is larger")
        return source, "study"
    try:
        with source.open("rb") as stream:
            raw = stream.read(MAX_BYTES + 1)
        if len(raw) > MAX_BYTES:
            raise Misuse(f"{source} is larger than {MAX_BYTES} bytes and is no study; give the YAML file")
        return raw.decode("utf-8"), str(source)
    except UnicodeDecodeError:
        raise Misuse(f"{source} is not UTF-8 text; save the study as UTF-8") from None
    except OSError as error:
        raise Misuse(f"{source} cannot be read: {error.strerror}; give the path of a study file") from None


def _forbidden(text: str) -> list[Complaint]:
    found, depth = [], 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        line = event.start_mark.line + 1 if event.start_mark else 1
        if getattr(event, "anchor", None) is not None:
            found.append(Complaint(line, (), "anchors and aliases are not read; write every value out"))
        tag = getattr(event, "tag", None)
        if tag is not None:
            found.append(Complaint(line, (), f"tag {tag!a:.40} is not read; write plain text and numbers"))
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > MAX_DEPTH:
            return [*found, Complaint(line, (), f"nests deeper than {MAX_DEPTH}; no field of a study does")]
    return found


class _Nodes:
    """Turns composed nodes into values, noting lines and complaints on the way."""

    def __init__(self) -> None:
        self.lines: dict[Place, int] = {}
        self.complaints: list[Complaint] = []

    def complain(self, line: int, place: Place, text: str) -> None:
        self.complaints.append(Complaint(line, place, text))

    def mapping(self, node: Any, place: Place) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key_node, value_node in node.value:
            line, key = key_node.start_mark.line + 1, key_node.value
            if not isinstance(key, str) or key == "<<":
                self.complain(line, place, "a field's name must be plain text; write 'name: value'")
                continue
            here = (*place, key)
            if here in self.lines:
                self.complain(line, here, f"occurs a second time (first on line {self.lines[here]}); keep one")
                continue
            self.lines[here] = line
            found[key] = self.value(value_node, here)
        return found

    def value(self, node: Any, place: Place) -> Any:
        line = node.start_mark.line + 1
        if node.id == "mapping":
            return self.mapping(node, place)
        if node.id == "sequence":
            for at, item in enumerate(node.value):
                self.lines[(*place, at)] = item.start_mark.line + 1
            return [self.value(item, (*place, at)) for at, item in enumerate(node.value)]
        if node.style is not None:  # quoted or block text
            return node.value
        if node.value.lower() in ("", "~", "null"):
            self.complain(line, place, "has no value; write one, or remove the line")
        elif node.value.lower() in _AMBIGUOUS:
            self.complain(line, place, f"{node.value!a} is read as false or true by some programs; put it in quotes")
        return _scalar(node.value)


def _scalar(text: str) -> bool | int | float | str:
    """YAML 1.2's reading of a plain scalar; numbers with leading zeros stay text, as codes should."""
    if text in ("true", "True", "TRUE", "false", "False", "FALSE"):
        return text[0] in "tT"
    if _INT.fullmatch(text):
        return int(text)
    if _FLOAT.fullmatch(text) and any(character.isdigit() for character in text.lower().partition("e")[0]):
        return float(text)
    return text
