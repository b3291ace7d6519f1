"""Enrolment: a site makes its key itself and asks the authority to list it.

The request carries nothing secret. Its signature shows that the sender holds the key; that the
sender *is* the site, only a human can find out, by comparing the fingerprint over a channel that
the attacker does not control.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, ClassVar

from privfl_keys.checked import Checked
from privfl_keys.encoding import Bounds, Bytes32, Bytes64, Uint64
from privfl_keys.errors import Unverified
from privfl_keys.identity import Identity, Name, check_fingerprint, check_name, fingerprint
from privfl_keys.labels import Label
from privfl_keys.member import ROLES, Member
from privfl_keys.sealing import SEALING_KEY_BYTES
from privfl_keys.signing import VerifyKey

__all__ = ["EnrolmentRequest"]


@dataclass(frozen=True)
class EnrolmentRequest(Checked):
    """A self-signed wish to be listed in a federation's roster under some roles."""

    TAG: ClassVar[str] = "enrolment request"

    federation: Name
    name: Name
    verify_key: Bytes32
    roles: Annotated[tuple[str, ...], Bounds(1, len(ROLES))]
    sealing_key: Annotated[bytes, Bounds(SEALING_KEY_BYTES, SEALING_KEY_BYTES)] | None
    requested_at: Uint64
    signature: Bytes64

    def check(self) -> None:
        """Names, roles and keys are usable; see :class:`privfl_keys.checked.Checked`."""
        check_name(self.federation)
        self._member()

    def _member(self) -> Member:
        return Member(self.name, self.verify_key, self.roles, self.sealing_key)

    @classmethod
    def create(
        cls,
        identity: Identity,
        federation: str,
        requested_at: int,
        roles: Iterable[str] = ("site",),
        sealing_key: bytes | None = None,
    ) -> EnrolmentRequest:
        """Make and sign a request.

        Args:
            identity: whose key signs; only its public half is in the request.
            federation: the one federation that may use this request.
            requested_at: milliseconds since 1970, for the people who read it.
            roles: what is asked for, in any order.
            sealing_key: an auditor's public sealing key, 1 216 bytes; None for anybody else.

        Raises:
            Misuse: unknown roles, roles that exclude each other, an unusable name.
        """
        roles = tuple(sorted(set(roles)))
        raw = identity.verify_key.raw
        parts = (federation, identity.name, raw, roles, sealing_key, requested_at)
        Member(identity.name, raw, roles, sealing_key)  # refuse before signing
        return cls(
            federation=check_name(federation),
            name=identity.name,
            verify_key=raw,
            roles=roles,
            sealing_key=sealing_key,
            requested_at=requested_at,
            signature=identity.key.sign(Label.ENROLMENT, *parts),
        )

    @property
    def fingerprint(self) -> str:
        """Eight groups of five digits, to be read aloud by the site and compared by the authority."""
        return fingerprint(VerifyKey(self.verify_key))

    def verify(self) -> None:
        """Raise Unverified unless the key in the request signed all of it."""
        VerifyKey(self.verify_key).verify(
            self.signature,
            Label.ENROLMENT,
            self.federation,
            self.name,
            self.verify_key,
            self.roles,
            self.sealing_key,
            self.requested_at,
        )

    def admit(self, federation: str, spoken: str) -> Member:
        """Turn the request into a roster member; what the authority calls after the telephone call.

        Args:
            federation: the federation whose roster is being made.
            spoken: the fingerprint as the site's operator read it aloud, never one from the request.

        Raises:
            Unverified: the signature, the federation or the fingerprint does not fit.
        """
        self.verify()
        if self.federation != federation:
            raise Unverified(f"this request asks to join {self.federation!a}, not {federation!a}; ask for a new one")
        check_fingerprint(VerifyKey(self.verify_key), spoken)
        return self._member()
