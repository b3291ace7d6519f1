"""A mandate: an analyst's signed wish for one task, so that the site charges it to him and not to the coordinator."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Self

from privfl_keys import Entropy, Label, Roster, SigningKey, check_name

from privfl.budget.charge import Purpose
from privfl.codec import Bounds, Bytes32, Bytes64, Record, Uint64
from privfl.errors import Malformed, Misuse, Refused, Unverified

__all__ = ["Mandate"]

NONCE_BYTES = 16


@dataclass(frozen=True)
class Mandate(Record):
    """One analyst wants one task for one purpose, until ``expires`` (milliseconds since 1970, excluded).

    It is for one run: each site makes at most as many uploads under it as the task plans, and its ledger counts them.
    Every one is charged to the analyst, and the policy still decides.
    """

    TAG: ClassVar[str] = "mandate"

    federation: Annotated[str, Bounds(1, 64)]
    task: Bytes32
    purpose: Annotated[str, Bounds(1, 32)]
    analyst: Bytes32
    nonce: Annotated[bytes, Bounds(NONCE_BYTES, NONCE_BYTES)]
    expires: Uint64
    signature: Bytes64

    @classmethod
    def sign(
        cls, key: SigningKey, *, federation: str, task: bytes, purpose: Purpose, expires: int, entropy: Entropy
    ) -> Self:
        """Sign a mandate.

        Args:
            key: the analyst's.
            task: 32 bytes, the task's id.
            expires: milliseconds since 1970; from then on it is worth nothing.
            entropy: for the nonce, which tells two mandates for one task apart.

        Raises:
            Misuse: a name, task id or time that no site would accept.
        """
        check_name(federation)
        if len(task) != 32 or not 0 <= expires < 2**64:
            raise Misuse("a mandate names a task by its 32 bytes and expires at a time in milliseconds since 1970")
        parts = (federation, task, str(Purpose(purpose)), key.verify_key.site_id, entropy.draw(NONCE_BYTES), expires)
        return cls(*parts, signature=key.sign(Label.MANDATE, *parts))

    def verify(self, roster: Roster, task: bytes, now: int) -> tuple[str, Purpose]:
        """Return the analyst's name in the roster and the purpose.

        Args:
            roster: the roster that is in force here.
            task: 32 bytes, the task that is to run under the mandate.
            now: milliseconds since 1970.

        Raises:
            Malformed: no purpose that exists.
            Unverified: the signer is unknown, revoked or no analyst, or did not sign this.
            Refused: it is for another federation or task, or it has expired.
        """
        try:
            key = roster.require(self.analyst, "analyst")
        except Unverified as error:
            raise Unverified(
                f"the mandate is not signed by an analyst of this roster ({error}); ask the authority to enrol the key "
                "as analyst"
            ) from None
        parts = (self.federation, self.task, self.purpose, self.analyst, self.nonce, self.expires)
        key.verify(self.signature, Label.MANDATE, *parts)
        if self.purpose not in tuple(Purpose):
            raise Malformed(f"the mandate names the purpose {self.purpose!a}; there are {', '.join(Purpose)}")
        if self.federation != roster.federation:
            raise Refused(f"the mandate is for federation {self.federation!a:.80}, not for {roster.federation!r}")
        if self.task != task:
            raise Refused("the mandate is for another task; the analyst signs one for this task")
        if now >= self.expires:
            raise Refused("the mandate has expired; the analyst signs a new one")
        return roster.member(self.analyst).name, Purpose(self.purpose)
