"""A run between two rounds as bytes, so that a coordinator that was stopped goes on with the same model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import ClassVar

import numpy as np

from privfl.codec import Record
from privfl.errors import Malformed
from privfl.learn.history import History, Row
from privfl.learn.strategies import Floats, StrategyState
from privfl.learn.tasks import Task, TaskState

__all__ = ["dump_state", "load_state"]


@dataclass(frozen=True)
class _Stored(Record):
    TAG: ClassVar[str] = "task state"
    task: bytes
    round: int
    params: bytes
    steps: int
    slots: tuple[bytes, ...]
    rows: tuple[tuple[tuple[str, str], ...], ...]  # field → shortest text, absent fields left out


def dump_state(task: Task, state: TaskState) -> bytes:
    """Model, optimiser and history of ``state``, bound to ``task``; public values, after the noise."""
    rows = tuple(
        tuple((name, repr(value)) for name, value in asdict(row).items() if value is not None) for row in state.history
    )
    slots = tuple(_bytes(slot) for slot in state.strategy.slots)
    return _Stored(task.id, state.round, _bytes(state.params), state.strategy.steps, slots, rows).encode()


def load_state(task: Task, data: bytes) -> TaskState:
    """Read :func:`dump_state` back, bit for bit.

    Raises:
        Malformed: of another task, or not such bytes.
    """
    stored, fresh = _Stored.decode(data), task.initial_state()
    if stored.task != task.id or len(stored.slots) != len(fresh.strategy.slots):
        raise Malformed("this state is of another task")
    like = fresh.params
    slots = tuple(_floats(slot, like) for slot in stored.slots)
    try:
        rows = [_row(dict(row)) for row in stored.rows]
    except (KeyError, TypeError, ValueError):
        raise Malformed("the history in this state is not one") from None
    return TaskState(stored.round, _floats(stored.params, like), StrategyState(stored.steps, slots), History(rows))


def _row(texts: Mapping[str, str]) -> Row:
    whole = {name: int(texts[name]) for name in ("round", "survivors")}
    return Row(**whole, **{name: float(text) for name, text in texts.items() if name not in whole})  # type: ignore[arg-type]


def _bytes(values: Floats) -> bytes:
    return values.astype("<f8").tobytes()


def _floats(data: bytes, like: Floats) -> Floats:
    if len(data) != 8 * like.size:
        raise Malformed("this state is of a model of another size")
    return np.frombuffer(data, "<f8").reshape(like.shape).astype(np.float64)
