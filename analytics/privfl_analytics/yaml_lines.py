"""A small, unambiguous part of YAML as plain values, with the line of every field."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from privfl.budget.policy_file import FileKind, InvalidPolicy, Place, read_document
from privfl.errors import Misuse

__all__ = ["Complaint", "InvalidStudy", "Lined", "Place", "read_lined"]

MAX_SHOWN = 18
#: A column may well be called y.
STUDY = FileKind("study", "study: my-study", 12, frozenset({"yes", "no", "on", "off"}))


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
    try:
        document = read_document(source, STUDY)
        faults = document.faults
    except InvalidPolicy as error:
        faults, document = error.faults, None
    if document is None or faults:
        name = str(source) if isinstance(source, Path) else STUDY.what
        raise InvalidStudy((Complaint(fault.line or 1, fault.place, fault.text) for fault in faults), name)
    return Lined(document.name, document.fields, document.lines)
