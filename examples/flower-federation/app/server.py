"""The coordinator."""

from privfl.flower.server import app

__all__ = ["app"]
