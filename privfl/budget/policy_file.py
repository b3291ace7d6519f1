"""Reading what people write: a small, unambiguous part of YAML, with the line of every field.

Left out of YAML on purpose: anchors, aliases, tags and merge keys (a reader must not have to resolve
anything), keys that occur twice, fields without a value, and words such as ``no`` that YAML 1.1 reads as
false and YAML 1.2 as text.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

from privfl.errors import Misuse

__all__ = ["POLICY", "Document", "Fault", "FileKind", "InvalidPolicy", "Place", "read_document"]

MAX_BYTES = 1 << 20
MAX_SHOWN = 18
Place: TypeAlias = "tuple[str | int, ...]"

_INT = re.compile(r"[-+]?(?:0|[1-9][0-9]{0,29})")
_FLOAT = re.compile(r"[-+]?(?:0|[1-9][0-9]{0,29})?(?:\.[0-9]{0,40})?(?:[eE][-+]?[0-9]{1,4})?")
_AMBIGUOUS = {"yes", "no", "on", "off", "y", "n"}
_NULL = {"", "~", "null"}


@dataclass(frozen=True)
class FileKind:
    """What is read, for its complaints.

    Attributes:
        what: such a file is. example: of its first field. depth: how deep it may nest.
        ambiguous: plain words that must stand in quotes.
    """

    what: str
    example: str
    depth: int
    ambiguous: frozenset[str] = frozenset(_AMBIGUOUS)


POLICY = FileKind("policy", "federation: my-federation", 5)


@dataclass(frozen=True)
class Fault:
    """One complaint: where (keys from the top), and what to write instead."""

    place: Place
    text: str
    line: int | None = None

    def words(self, name: str) -> str:
        """``policy.yaml:14: shares.training: …``; without a file only the field."""
        parts = [f"{name}:{self.line}"] if name and self.line else [name] if name else []
        if self.place:
            parts.append(".".join(f"{key!a:.80}"[1:-1] if isinstance(key, str) else str(key) for key in self.place))
        return ": ".join([*parts, self.text])


class InvalidPolicy(Misuse):
    """A policy with ``faults``, all of them at once."""

    def __init__(self, faults: Iterable[Fault], name: str = "") -> None:
        self.faults = tuple(faults)
        lines = [fault.words(name) for fault in self.faults[:MAX_SHOWN]]
        if len(self.faults) > MAX_SHOWN:
            lines.append(f"and {len(self.faults) - MAX_SHOWN} more; correct these first")
        head = [] if len(lines) == 1 else [f"{len(self.faults)} things to correct"]
        super().__init__("\n  ".join([*head, *lines]))


@dataclass(frozen=True)
class Document:
    """What a file says, as plain values, with the line on which each field starts.

    Attributes:
        name: of the file, for messages.
        fields: text, numbers, booleans, lists and mappings.
        faults: complaints found while reading; what they concern is left out of ``fields``.
    """

    name: str
    fields: Mapping[str, Any]
    lines: Mapping[Place, int] = field(default_factory=dict)
    faults: tuple[Fault, ...] = ()

    def located(self, faults: Iterable[Fault]) -> list[Fault]:
        """All complaints with their lines, in the order of the file; consequences of another are left out."""
        known = {fault.place[:size] for fault in self.faults for size in range(1, len(fault.place) + 1)}
        later = [fault for fault in faults if fault.place not in known]
        found = [*self.faults, *(Fault(fault.place, fault.text, self._line(fault.place)) for fault in later)]
        return sorted(found, key=lambda fault: fault.line or 1)

    def _line(self, place: Place) -> int:
        while place and place not in self.lines:
            place = place[:-1]
        return self.lines.get(place, 1)


def read_document(source: str | Path, kind: FileKind = POLICY) -> Document:
    """Read a file (a ``Path``) or its text.

    Raises:
        Misuse: the file cannot be read, is too large or is not UTF-8.
        InvalidPolicy: it is not YAML, or not a mapping of fields; with its line.
    """
    text, name = _text(source, kind.what)
    import yaml  # noqa: PLC0415 - only who reads YAML pays for it

    try:
        faults = _forbidden(yaml, text, kind)
        if faults:
            raise InvalidPolicy(faults, name)
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise InvalidPolicy(
            [Fault((), _syntax(str(error.problem), kind.what), mark.line + 1 if mark else 1)], name
        ) from None
    except yaml.reader.ReaderError as error:
        line = 1 + text[: int(error.position)].count("\n")
        what = "holds a character that YAML does not allow; remove it"
        raise InvalidPolicy([Fault((), what, line)], name) from None
    if not isinstance(root, yaml.MappingNode):
        raise InvalidPolicy([Fault((), f"must be a list of fields; write for example '{kind.example}'")], name)
    reader = _Reader(kind)
    fields = reader.mapping(root, ())
    return Document(name, fields, reader.lines, tuple(reader.faults))


def _text(source: str | Path, what: str) -> tuple[str, str]:
    if isinstance(source, str):
        if len(source) > MAX_BYTES:
            raise Misuse(f"a {what} has at most {MAX_BYTES} bytes; this one is larger")
        return source, what
    try:
        with source.open("rb") as stream:
            raw = stream.read(MAX_BYTES + 1)
        if len(raw) > MAX_BYTES:
            raise Misuse(f"{source} is larger than {MAX_BYTES} bytes and is no {what}; give the YAML file")
        return raw.decode("utf-8"), str(source)
    except UnicodeDecodeError:
        raise Misuse(f"{source} is not UTF-8 text; save the {what} as UTF-8") from None
    except OSError as error:
        raise Misuse(f"{source} cannot be read: {error.strerror}; give the path of a {what} file") from None


def _syntax(problem: str, what: str) -> str:
    if "'\\t'" in problem:
        return "a tab where YAML wants spaces; indent with spaces"
    if "another document" in problem:
        return f"a second document starts here; a {what} file holds one, so remove the line '---'"
    return f"not YAML ({problem}); check quotes, colons, brackets and indentation here and on the line before"


def _forbidden(yaml: Any, text: str, kind: FileKind) -> list[Fault]:
    faults, depth = [], 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        line = event.start_mark.line + 1
        if isinstance(event, yaml.AliasEvent):
            faults.append(Fault((), f"alias *{event.anchor!a:.40}; write the value out", line))
        elif getattr(event, "anchor", None) is not None:
            faults.append(
                Fault(
                    (),
                    f"anchor &{event.anchor!a:.40}: anchors and aliases are not read; write every value out",
                    line,
                )
            )
        if getattr(event, "tag", None) is not None:
            faults.append(Fault((), f"tag {event.tag!a:.40}; write plain text and numbers", line))
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > kind.depth:
            return [*faults, Fault((), f"nests deeper than {kind.depth}; no field of a {kind.what} does", line)]
    return faults


class _Reader:
    """Turns composed nodes into values, noting lines and complaints on the way."""

    def __init__(self, kind: FileKind) -> None:
        self.kind = kind
        self.lines: dict[Place, int] = {}
        self.faults: list[Fault] = []

    def mapping(self, node: Any, place: Place) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            key = key_node.value
            if not isinstance(key, str):
                self.faults.append(Fault(place, "a field's name must be plain text; write 'name: value'", line))
                continue
            here = (*place, key)
            if here in self.lines:
                text = f"occurs a second time (first on line {self.lines[here]}); keep one of the two"
                self.faults.append(Fault(here, text, line))
            elif key == "<<":
                self.faults.append(Fault(here, "merge keys are not read; write the fields out", line))
            else:
                self.lines[here] = line
                value = self.value(value_node, here)
                if value is not None:
                    found[key] = value
        return found

    def value(self, node: Any, place: Place) -> Any:
        line = node.start_mark.line + 1
        if node.id == "mapping":
            return self.mapping(node, place)
        if node.id == "sequence":
            return self.sequence(node.value, place)
        if node.style is not None:  # quoted or block text
            return node.value
        value = _scalar(node.value)
        if value is None:
            self.faults.append(Fault(place, "has no value; write one, or remove the line", line))
        elif isinstance(value, str) and value.lower() in self.kind.ambiguous:
            text = f"{value!a} is read as false or true by some programs; write true or false, or put it in quotes"
            self.faults.append(Fault(place, text, line))
            return None
        return value

    def sequence(self, nodes: Sequence[Any], place: Place) -> list[Any]:
        items = []
        for at, node in enumerate(nodes):
            here = (*place, at)
            self.lines[here] = node.start_mark.line + 1
            value = self.value(node, here)
            if value is not None:
                items.append(value)
        return items


def _scalar(text: str) -> bool | int | float | str | None:
    """YAML 1.2's reading of a plain scalar; numbers with leading zeros stay text, as codes should."""
    if text.lower() in _NULL:
        return None
    if text in ("true", "True", "TRUE", "false", "False", "FALSE"):
        return text[0] in "tT"
    if _INT.fullmatch(text):
        return int(text)
    if _FLOAT.fullmatch(text) and any(character.isdigit() for character in text.lower().partition("e")[0]):
        return float(text)
    return text
