"""Who is protected, and whose noise protects him: two types that every release, entry and report names."""

from __future__ import annotations

from enum import StrEnum

__all__ = ["Noise", "Trust", "Unit"]


class Unit(StrEnum):
    """What two neighbouring datasets differ in. Participation of a site is public under every unit."""

    RECORD = "record"
    SUBJECT = "subject"
    SITE = "site"

    @property
    def neighbours(self) -> str:
        """One clause for reports: how neighbouring datasets differ."""
        return _NEIGHBOURS[self]


class Trust(StrEnum):
    """Whose noise the guarantee rests on."""

    LOCAL = "local"
    DISTRIBUTED = "distributed"

    @property
    def assumption(self) -> str:
        """One clause for reports: what must hold for the guarantee."""
        return _ASSUMPTIONS[self]


class Noise(StrEnum):
    """The exact integer noise of a release; Laplace exists for pure ε under local trust only."""

    GAUSSIAN = "gaussian"
    LAPLACE = "laplace"


_NEIGHBOURS = {
    Unit.RECORD: "one row is added or removed",
    Unit.SUBJECT: "all rows of one person are added or removed",
    Unit.SITE: "one site's contribution is replaced by the zero vector, its noise staying in place",
}

_ASSUMPTIONS = {
    Trust.LOCAL: "the site's own noise alone suffices, whatever everyone else does",
    Trust.DISTRIBUTED: "secure aggregation holds and enough other sites add their share of the noise honestly",
}
