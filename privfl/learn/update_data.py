"""The rows of a site whose Flower app loads them itself; what its functions answer is in update_answers."""

from __future__ import annotations

from collections.abc import Callable
from typing import NoReturn

from privfl.errors import DataError
from privfl.learn.update_answers import Answer, Fault, Function, answered, examples_of, metrics_of, vector_of
from privfl.tasks.data import SiteData
from privfl.tasks.schema import Schema

__all__ = ["Answer", "AppData", "Fault", "Function", "answered", "examples_of", "metrics_of", "vector_of"]


def _always() -> None:
    """An app within this very process is at hand."""


class AppData(SiteData):
    """The rows of an app, which loads them itself: privfl sees what its functions return, never a row.

    Args:
        schema: what the operator says they are: dataset and version of the policy in force.
        call: carries out one call.
        present: asked before anything is charged; raises WireError while no app is at hand.
        within: told, before the calls of a slot, how many milliseconds are left for them and all that follows.
    """

    __slots__ = ("_within", "call", "present")
    readable = False

    def __init__(
        self,
        schema: Schema,
        call: Function,
        present: Callable[[], None] = _always,
        within: Callable[[int], None] = lambda ms: None,
    ) -> None:
        super().__init__(schema, None)
        self.call, self.present, self._within = call, present, within

    def within(self, ms: int) -> None:
        """See SiteData."""
        self._within(ms)

    @property
    def bound(self) -> NoReturn:
        """Raises DataError: there is no table."""
        raise DataError("this site's rows are in the hands of a Flower app; ask with that app, or bind a table")

    def __repr__(self) -> str:
        return f"AppData({self.schema!r}, rows with the app)"
