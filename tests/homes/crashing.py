"""Dying at a chosen instant: every sync, rename and link, and both sides of every commit to state or ledger."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from privfl.budget.ledger import Ledger
from privfl.homes.state import State

Work = Callable[[], object]


@contextmanager
def _counted(strike: Callable[[int], None]) -> Iterator[list[int]]:
    """Call ``strike`` with 1, 2, … at every instant that matters."""
    count = [0]

    def instant() -> None:
        count[0] += 1
        strike(count[0])

    def around(real: Callable[..., Any], after: bool) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            instant()
            result = real(*args, **kwargs)
            if after:
                instant()
            return result

        return call

    with pytest.MonkeyPatch.context() as patch:
        for name in ("fsync", "replace", "link"):
            patch.setattr(os, name, around(getattr(os, name), after=name != "fsync"))
        patch.setattr(State, "put", around(State.put, after=True))
        patch.setattr(State, "_connect", around(State._connect, after=True))
        patch.setattr(Ledger, "use", around(Ledger.use, after=True))
        yield count


def instants(work: Work) -> int:
    """How many instants ``work`` has; it is done afterwards."""
    with _counted(lambda number: None) as count:
        work()
    return count[0]


def killed(work: Work, at: int) -> bool:
    """Run ``work`` in a real process that dies by SIGKILL at instant ``at``; False if it finished before."""
    child = os.fork()
    if child == 0:
        try:
            with _counted(lambda number: os.kill(os.getpid(), signal.SIGKILL) if number == at else None):
                work()
        except BaseException:
            os._exit(1)
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0
    return os.WIFSIGNALED(status)


def failed(work: Work, at: int) -> BaseException | None:
    """Run ``work`` here with a disk that is full from instant ``at`` on; returns what it raised."""

    def full(number: int) -> None:
        if number >= at:
            raise OSError(28, "No space left on device")

    try:
        with _counted(full):
            work()
    except Exception as error:
        return error
    return None
