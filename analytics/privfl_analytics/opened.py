"""Sums that a coordinator has opened, as a value that can be stored: with it a study goes on after a crash."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
import numpy.typing as npt

from privfl.codec import Bounds, Record
from privfl.errors import Malformed

__all__ = ["History", "Opened"]


@dataclass(frozen=True)
class Opened(Record):
    """One stage's sum; it carries its noise.

    Attributes:
        stage: from 0.
        survivors: sites in the sum.
        seats: places of their stretches, where every site has its own; empty where that is not known.
        total: the numbers, little-endian int64.
    """

    TAG: ClassVar[str] = "opened stage"

    stage: Annotated[int, Bounds(0, 1000)]
    survivors: Annotated[int, Bounds(1, 1_000_000)]
    seats: tuple[int, ...]
    total: bytes

    def values(self, length: int) -> npt.NDArray[np.int64]:
        """The numbers; raises Malformed unless there are ``length``."""
        if len(self.total) != 8 * length:
            raise Malformed(f"a kept sum of {len(self.total) // 8} numbers does not fit a stage of {length}")
        return np.frombuffer(self.total, dtype="<i8").astype(np.int64)


@dataclass(frozen=True)
class History(Record):
    """All stages that were opened, in order."""

    TAG: ClassVar[str] = "study history"

    stages: tuple[Opened, ...] = ()

    def add(self, opened: Opened) -> History:
        """With one more stage."""
        return History((*self.stages, opened))

    def __len__(self) -> int:
        return len(self.stages)

    def __iter__(self) -> Iterator[Opened]:
        return iter(self.stages)
