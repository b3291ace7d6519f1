"""A private app beside its resident site: the message carries mail, and meanwhile the site calls the app's functions.

The site stays up between messages, so that none of them opens a key store; a function runs in the process that Flower
started for the message, which waits for it as long as it takes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

from privfl.flower.client import Worked
from privfl.flower.resident import Resident
from privfl.homes.app_socket import AppPort
from privfl.wires.flower_carry import Carrier

if TYPE_CHECKING:
    from privfl.flower.private_app import Site

__all__ = ["Served"]


class Served(Resident):
    """Listens for the calls of a resident site from now on, and carries them out while it waits for it."""

    def __init__(self, site: Site, idle: int) -> None:
        options = ["--app", "--app-schema", str(site.pinned)]
        if site.after:
            options += ["--answer-after", str(site.after / 1000)]
        super().__init__(site.home, idle, options, site.word)
        self._port = AppPort(site.home, site.call)

    def __call__(self, carrier: Carrier, hold: float, hello: bool) -> Worked:
        """See :data:`privfl.flower.client.Work`."""
        try:
            return super().__call__(carrier, hold, hello)
        finally:
            self._port.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._port.close()

    def _waited(self, seconds: float) -> float:
        return self._port.serve(seconds)
