"""A study as it travels."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from privfl.codec import Record
from privfl.dp import Release

__all__ = ["Descriptor", "number_of", "text_of"]


@dataclass(frozen=True)
class Descriptor(Record):
    """Everything that fixes a study; numbers with fractions are the shortest text that reads back the same.

    Attributes:
        schema, study: JSON as their ``to_json`` writes it.
        epsilon, delta: the price of one opening of every stage; None without noise.
        key_delta: δ₀ by which one rare name passes; None without names of values.
        releases: what one upload of each stage reveals; empty without noise.
    """

    TAG: ClassVar[str] = "study"

    schema: str
    study: str
    epsilon: str | None
    delta: str | None
    sites: int
    trust: str
    unit: str
    min_survivors: int
    colluders: int
    attempts: int
    key_delta: str | None
    bits: int
    word: int
    releases: tuple[Release, ...]


def text_of(value: float | None) -> str | None:
    """A number as its shortest text."""
    return None if value is None else repr(float(value))


def number_of(text: str | None) -> float | None:
    """Read back :func:`text_of`; raises ValueError for anything but a finite number."""
    if text is None:
        return None
    value = float(text)
    if not math.isfinite(value):
        raise ValueError("a number is not finite")
    return value
