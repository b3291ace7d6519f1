"""Whose letters a site's carrier takes: a public copy of the coordinators' keys, beside the sealed state.

A carrier opens no key store, so it cannot read the roster that the site keeps sealed. With this copy it turns away
what no coordinator has signed before a byte of it is kept; the site itself decides again, by the sealed roster.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

from privfl_keys import Label, Roster
from privfl_keys.signing import VerifyKey

from privfl.codec import Bounds, Bytes32, Record
from privfl.errors import Misuse, PrivflError, Unverified
from privfl.wires.envelope import Envelope

__all__ = ["PEERS", "Peers"]

PEERS = "peers"  # the file in a site's folder
MAX_FILE = 2**16


@dataclass(frozen=True)
class Peers(Record):
    """The federation and its coordinators' public keys, of the roster that the site joined with last."""

    TAG: ClassVar[str] = "peers"

    federation: Annotated[str, Bounds(1, 200)]
    keys: Annotated[tuple[Bytes32, ...], Bounds(0, 1000)]

    @classmethod
    def of(cls, roster: Roster) -> Peers:
        """Those of a verified roster."""
        return cls(roster.federation, tuple(member.verify_key for member in roster.holding("coordinator")))

    @classmethod
    def read(cls, home: Path) -> Peers:
        """What a site's folder holds; raises Misuse if there is none."""
        try:
            with open(home / PEERS, "rb") as stream:
                return cls.decode(stream.read(MAX_FILE))
        except (OSError, PrivflError):
            raise Misuse(f"{home / PEERS} is not there or damaged; write it again: privfl site join {home}") from None

    def knows(self, member: bytes) -> bool:
        """Whether ``member`` is the id of a coordinator."""
        return any(VerifyKey(key).site_id == member for key in self.keys)

    def check(self, envelope: Envelope) -> None:
        """Raise Unverified unless a coordinator of this federation has signed the envelope."""
        if envelope.federation != self.federation:
            raise Unverified("a message of another federation")
        for key in map(VerifyKey, self.keys):
            if key.site_id == envelope.sender:
                key.verify(envelope.signature, Label.ENVELOPE, envelope.signed_digest())
                return
        raise Unverified("a message of nobody who is a coordinator here")
