"""A private app whose site is opened inside the ClientApp for each message: slower, and nothing stays up."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from privfl.errors import PrivflError
from privfl.flower.client import Worked
from privfl.flower.resident import passphrase
from privfl.homes.lock import holder
from privfl.learn.update_data import AppData
from privfl.learn.update_schema import app_schema
from privfl.runtime.site_process import run_site
from privfl.wires.flower_carry import Carrier

if TYPE_CHECKING:
    from privfl.flower.private_app import Site

__all__ = ["Opened"]

log = logging.getLogger("privfl.flower")
PAUSE_S = 0.02


class Opened:
    """The site of one message, opened once while there is mail for it."""

    def __init__(self, site: Site) -> None:
        self._site = site

    def __call__(self, carrier: Carrier, hold: float, hello: bool) -> Worked:
        """See :data:`privfl.flower.client.Work`. Where another message has the folder, its work is waited for."""
        until = time.monotonic() + hold
        while carrier.unread():
            try:
                self._serve(lambda: not carrier.unread())
                return Worked()
            except PrivflError as error:
                if holder(self._site.home) is None:
                    log.error("%s", error)
                    return Worked(problem="the site could not be opened or went on strike; its operator was told why")
            if time.monotonic() >= until:
                return Worked(working=True)
            time.sleep(PAUSE_S)
        return Worked()

    def _serve(self, done: Callable[[], bool]) -> None:
        site = self._site
        run_site(
            site.home,
            passphrase(site.home) if site.word is None else site.word,
            stop=done,
            answer_after_ms=site.after,
            data=lambda opened: AppData(app_schema(opened.policy, site.pinned), site.call),
        )
