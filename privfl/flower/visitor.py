"""A site that is opened for each message and closed again, inside the ClientApp: slower, and nothing stays up."""

from __future__ import annotations

import logging
import time
from pathlib import Path

from privfl.clock import SystemClock
from privfl.entropy import SYSTEM
from privfl.errors import PrivflError
from privfl.flower.client import Worked
from privfl.flower.resident import passphrase
from privfl.homes.lock import holder
from privfl.runtime.site_process import run_site
from privfl.wires.flower_carry import Carrier

__all__ = ["Visitor"]

log = logging.getLogger("privfl.flower")
PAUSE_S = 0.02


class Visitor:
    """The site in ``home``, opened while there is mail for it; ``word`` is its passphrase, if not the environment's."""

    def __init__(self, home: Path, word: str | None = None) -> None:
        self._home, self._word = home, word

    def __call__(self, carrier: Carrier, hold: float, hello: bool) -> Worked:
        """See :data:`privfl.flower.client.Work`. Where another process has the folder, its work is waited for."""
        until = time.monotonic() + hold
        while carrier.unread():
            if time.monotonic() >= until:
                return Worked(working=True)
            if holder(self._home) is not None:
                time.sleep(PAUSE_S)
                continue
            try:
                word = passphrase(self._home) if self._word is None else self._word
                run_site(
                    self._home,
                    word,
                    stop=lambda: not carrier.unread() or time.monotonic() >= until,
                    clock=SystemClock(),
                    entropy=SYSTEM,
                )
            except PrivflError as error:
                if holder(self._home) is not None:  # another message was quicker
                    continue
                log.error("%s", error)
                return Worked(problem="the site could not be opened or went on strike; its operator was told why")
        return Worked()
