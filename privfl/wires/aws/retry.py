"""Trying again: pauses that double, each drawn anew, so that members that failed together do not return together."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import TypeVar

from privfl.entropy import SYSTEM, Entropy
from privfl.errors import Misuse, WireError
from privfl.wires.aws.errors import Expired, Passing
from privfl.wires.aws.session import Clients

__all__ = ["Backoff", "persist"]

T = TypeVar("T")
log = logging.getLogger(__name__)
FIRST_S, LAST_S = 0.05, 10.0
PATIENCE_S = 20.0


class Backoff:
    """The next pause in seconds: even between half a bound and the bound, which doubles from 50 ms to 10 s."""

    def __init__(self, *, last: float = LAST_S, entropy: Entropy = SYSTEM) -> None:
        self._last, self._entropy, self._bound = last, entropy, FIRST_S

    def pause(self) -> float:
        """How long to wait now."""
        bound, self._bound = self._bound, min(2 * self._bound, self._last)
        return bound * (0.5 + int.from_bytes(self._entropy.draw(2), "big") / 131_072)

    def reset(self) -> None:
        """What was tried has worked."""
        self._bound = FIRST_S


def persist(
    attempt: Callable[[], T],
    clients: Clients,
    *,
    patience: float | None = None,
    closed: threading.Event | None = None,
) -> T:
    """Call ``attempt`` until it works, for ``patience`` seconds at most (None: 20); expired credentials are renewed.

    Raises:
        WireError: the last one, once patience or the mailbox has ended; at once if it will not pass by itself.
    """
    until, backoff = time.monotonic() + (PATIENCE_S if patience is None else patience), Backoff()
    while True:
        try:
            return attempt()
        except (Passing, Expired) as error:
            pause = backoff.pause()
            if time.monotonic() + pause > until or (closed is not None and closed.is_set()):
                raise
            log.info("%s", error)
            if closed is None:
                time.sleep(pause)
            else:
                closed.wait(pause)
            if isinstance(error, Expired):
                renew(clients)


def renew(clients: Clients) -> None:
    """Look for credentials anew; if there are none, that is seen when they are used."""
    try:
        clients.renew()
    except (Misuse, WireError) as error:
        log.warning("%s", error)
