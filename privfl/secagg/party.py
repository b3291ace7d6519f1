"""Who a machine acts for, by which roster, and under which of its own rules."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar, NoReturn

from privfl_keys import Roster, SigningKey, VerifyKey

from privfl.codec import Record
from privfl.errors import Refused, Theirs

__all__ = ["Equivocation", "Party", "RolledBack", "Rules", "SecretRecord", "Unconfirmed"]


class Equivocation(Theirs):
    """A peer signed two different messages where one is allowed; ``evidence`` holds both, as bytes."""

    def __init__(self, message: str, first: Record, second: Record) -> None:
        super().__init__(message)
        self.evidence: tuple[bytes, bytes] = (first.encode(), second.encode())


class RolledBack(Theirs):
    """A head that this site signed is unknown to its store: the store is an old copy. Stop and alarm.

    ``head`` is what the coordinator showed; ``SiteMachine.acknowledge`` takes it once the loss is settled.
    """

    def __init__(self, message: str, head: Record) -> None:
        super().__init__(message)
        self.head = head


class Unconfirmed(Refused):
    """An epoch's record holds ``peers`` with which this site has no confirmed pair key; it does not join."""

    def __init__(self, peers: Iterable[bytes]) -> None:
        super().__init__("the record holds sites with which this site has no confirmed pair key; not joining")
        self.peers = tuple(sorted(peers))


class SecretRecord(Record):
    """A record that holds secrets: dumped only by ``encode``, never shown, pickled or copied."""

    TAG: ClassVar[str] = "secret"

    def __repr__(self) -> str:
        return f"{type(self).__name__}(<redacted>)"

    def __reduce__(self) -> NoReturn:
        raise TypeError(f"a {type(self).__name__} cannot be pickled; use encode()")


@dataclass(frozen=True, repr=False)
class Party:
    """One participant: its identity key and the roster it holds to be valid."""

    key: SigningKey
    roster: Roster

    @property
    def id(self) -> bytes:
        """The 32-byte id under which the protocol knows this party."""
        return self.key.verify_key.site_id

    def site_key(self, site: bytes) -> VerifyKey:
        """Verification key of a roster site; raises Unverified for anyone else."""
        return self.roster.require(site, "site")

    def __repr__(self) -> str:
        return f"Party({self.id.hex()[:8]})"


@dataclass(frozen=True)
class Rules:
    """What a site demands of every slot, from its own signed policy; a coordinator can only tighten it.

    Attributes:
        policy: hash of the policy; an announcement must name the same.
        min_survivors: least number of sites in any opened sum, at least ``corrupt + 2``.
        allow_voted, allow_complete: which of the two modes the policy accepts.
        noiseless: the policy allows sums without noise; then retries need a certificate of ABORT votes
            and a task is answered once.
        expires: milliseconds since 1970, from which on nothing is accepted, voted for U or released; None: never.
    """

    policy: bytes
    min_survivors: int
    allow_voted: bool = True
    allow_complete: bool = True
    noiseless: bool = False
    expires: int | None = None
