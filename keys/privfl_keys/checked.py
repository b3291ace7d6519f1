"""Records with rules of their own: a broken rule is the caller's fault in code, the peer's on the wire."""

from __future__ import annotations

from typing import Self

from privfl_keys.encoding import Record
from privfl_keys.errors import Misuse, Unverified

__all__ = ["Checked"]


class Checked(Record):
    """A frozen record that runs :meth:`check` whenever it is built."""

    def __post_init__(self) -> None:
        self.check()

    def check(self) -> None:
        """Raise Misuse for contents that break a rule, Unverified for keys that are unsound."""
        raise NotImplementedError

    @classmethod
    def from_value(cls, value: object) -> Self:
        """Build the record from a decoded tuple.

        Raises:
            Malformed: another tag, number of fields, type or size.
            Unverified: the right shape with contents that break a rule.
        """
        try:
            return super().from_value(value)
        except Misuse as error:
            raise Unverified(f"refused: {error}") from None
