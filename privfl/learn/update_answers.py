"""What an app's functions answer, and what is made of whatever they do instead; light, as an app's process loads it.

Once a site is charged, nothing that its functions do may change whether something is sent: an exception, an early
exit, another shape, a number that is none, a metric that is missing, all make the same zero contribution.
"""

from __future__ import annotations

import logging
import math
import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from privfl.learn.update_inputs import Arrays, ArrayShape, Ask

__all__ = ["Answer", "Fault", "Function", "answered", "examples_of", "guarded", "metrics_of", "number_of", "vector_of"]

log = logging.getLogger("privfl.site")


@dataclass(frozen=True, repr=False)
class Answer:
    """What an app's function returned: arrays by name (of training), and numbers by name. Rows speak from it."""

    arrays: Mapping[str, Any]
    metrics: Mapping[str, Any]

    def __repr__(self) -> str:
        return "Answer(<redacted>)"


#: An app's function behind a call: gets the call and a model of its own.
Function = Callable[[Ask, Arrays], Answer]


class Fault(Exception):
    """Why a function's answer counts for nothing; the text is one of a few and holds no value.

    Args:
        word: by which it is told from one process to another.
    """

    def __init__(self, text: str, word: str = "answer") -> None:
        super().__init__(text)
        self.word = word


def answered(call: Function, ask: Ask, arrays: Mapping[str, npt.NDArray[Any]], number: int) -> Answer | None:
    """Carry out one call on arrays of its own; None, and a line in the log, where it has no answer."""
    try:
        return guarded(call, ask, {name: np.array(array) for name, array in arrays.items()})
    except Fault as fault:
        log.error("round %d: the app's %s counts for nothing: %s", number, ask.kind, fault)
        return None


def guarded(call: Function, ask: Ask, own: Arrays) -> Answer:
    """Carry out one call; raises Fault for whatever it does but answer.

    Every way out of the function is caught but the operator's own Ctrl-C; only the kind of fault is told. How it
    would have NumPy and Python take warnings does not outlast it, or what follows could fail where it did not before.
    """
    process = os.getpid()
    try:
        with np.errstate(), warnings.catch_warnings():
            return call(ask, own)
    except (KeyboardInterrupt, Fault):
        raise
    except BaseException as error:  # an early exit must not decide whether this site sends, either
        raise Fault(f"it failed ({type(error).__name__})", "failed") from None
    finally:
        if os.getpid() != process:  # a child that the function forked would send a second vector in this slot
            os._exit(70)


def vector_of(answer: Answer, start: Mapping[str, npt.NDArray[Any]], shapes: Sequence[ArrayShape]) -> Any:
    """The change of the model as one float64 vector; raises Fault."""
    if set(answer.arrays) != {shape.name for shape in shapes}:
        raise Fault("its arrays have other names than the model's")
    out = np.empty(sum(shape.size for shape in shapes), dtype=np.float64)
    at = 0
    for shape in shapes:
        array = np.asarray(answer.arrays[shape.name])
        if array.shape != shape.shape or array.dtype.kind not in "fiub":
            raise Fault("an array has another shape than the model's, or holds no numbers")
        part = out[at : at + shape.size]
        np.subtract(array.reshape(-1), start[shape.name].reshape(-1), out=part, dtype=np.float64, casting="unsafe")
        at += shape.size
    if not np.isfinite(out).all():
        raise Fault("its arrays hold NaN or infinity")
    return out


def examples_of(answer: Answer, key: str) -> float:
    """The number of examples, zero or more; raises Fault."""
    number = number_of(answer.metrics.get(key))
    if number is None or number < 0:
        raise Fault("it does not tell how many examples it used")
    return number


def metrics_of(answer: Answer, names: Sequence[str]) -> list[float]:
    """The declared metrics; raises Fault unless all of them are there and finite. Others are not looked at."""
    found = [number_of(answer.metrics.get(name)) for name in names]
    if any(value is None for value in found):
        raise Fault("a declared metric is missing, or is no finite number")
    return [value for value in found if value is not None]


def number_of(value: object) -> float | None:
    """A finite number as a float; None for anything else, as of lists and of what no float can hold."""
    if not isinstance(value, int | float | np.integer | np.floating | np.bool_):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None
