"""A site."""

from privfl.flower.client import site_app as app

__all__ = ["app"]
