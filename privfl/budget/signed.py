"""A policy under the compliance officer's signature, and the order in which versions may follow.

The roster, signed by the authority, says who the officer is; nothing the coordinator sends can change it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Self

from privfl_keys import Label, Roster, SigningKey

from privfl.budget.examine import check_expiry
from privfl.budget.policy import Policy
from privfl.budget.policy_file import MAX_BYTES
from privfl.codec import Bounds, Bytes32, Bytes64, Record
from privfl.errors import Malformed, Misuse, Refused, Unverified

__all__ = ["ROLE", "SignedPolicy", "check_succession", "read_policy"]

#: What the signer's key must be in the roster.
ROLE = "compliance"


@dataclass(frozen=True)
class SignedPolicy(Record):
    """The canonical text of a policy, its officer's id and his signature over the policy's hash."""

    TAG: ClassVar[str] = "signed policy"

    text: Annotated[bytes, Bounds(2, MAX_BYTES)]
    officer: Bytes32
    signature: Bytes64

    @classmethod
    def sign(cls, policy: Policy, key: SigningKey) -> Self:
        """Sign ``policy``. Whether the key is an officer's, and whether the policy fits, :meth:`verify` says.

        Raises:
            Misuse: its canonical text is too long to travel.
        """
        text = policy.canonical()
        if len(text) > MAX_BYTES:
            raise Misuse(f"the policy has {len(text)} bytes and at most {MAX_BYTES} can be signed; list fewer columns")
        return cls(text, key.verify_key.site_id, key.sign(Label.POLICY_SIGNED, policy.hash))

    def policy(self) -> Policy:
        """The policy inside, **not verified**; for showing it. Raises Malformed."""
        return Policy.from_canonical(self.text)

    def verify(self, roster: Roster, now: int) -> Policy:
        """Return the policy, if a compliance officer of ``roster`` signed it for this federation.

        A policy that is not valid yet verifies, so that it can be put in place in advance; what is asked under it
        is refused until then. Numbers that the roster cannot fulfil: :meth:`Policy.agrees_with`.

        Args:
            roster: the roster that is in force here.
            now: milliseconds since 1970.

        Raises:
            Malformed: the text is no policy in canonical form.
            Unverified: the signer is unknown, revoked or no compliance officer, or did not sign this text.
            Refused: it is another federation's, or it has expired.
        """
        try:
            officer = roster.require(self.officer, ROLE)
        except Unverified as error:
            raise Unverified(
                f"the policy is not signed by a compliance officer of this roster ({error}); ask the officer to "
                "sign it with the key that the roster lists, or the authority for a newer roster"
            ) from None
        policy = self.policy()
        try:
            officer.verify(self.signature, Label.POLICY_SIGNED, policy.hash)
        except Unverified:
            name = roster.member(self.officer).name
            raise Unverified(f"{name!a} did not sign this policy, or it was changed since; fetch it again") from None
        if policy.federation != roster.federation:
            raise Refused(
                f"the policy is for federation {policy.federation!r} and this roster for {roster.federation!r}; "
                "ask compliance for the policy of this federation"
            )
        check_expiry(policy, now)
        return policy


def check_succession(known: tuple[int, bytes] | None, policy: Policy) -> None:
    """Check that ``policy`` may follow the last accepted one; the same one again is welcome.

    Args:
        known: version and hash of the last accepted policy, None for the first.

    Raises:
        Refused: an older version, or another policy under the same version.
    """
    if known is None:
        return
    version, hash_ = known
    if policy.version < version:
        raise Refused(
            f"policy version {policy.version} is older than version {version}, which was accepted before; "
            f"ask compliance for version {version + 1}"
        )
    if policy.version == version and policy.hash != hash_:
        raise Refused(
            f"this is another policy under the version {version} that was accepted before ({hash_.hex()[:16]}, now "
            f"{policy.hash.hex()[:16]}); ask compliance which holds, and for it as version {version + 1}"
        )


def read_policy(path: Path) -> tuple[Policy, SignedPolicy | None]:
    """Read a policy in YAML or a signed one, for showing it: **the signature is not verified**.

    Raises:
        InvalidPolicy: the YAML is not a policy. Malformed: a signed file that is damaged.
        Misuse: the file cannot be read.
    """
    try:
        with path.open("rb") as stream:
            data = stream.read(2 * MAX_BYTES)
    except OSError as error:
        raise Misuse(f"{path} cannot be read: {error.strerror}; give the path of a policy file") from None
    if not data.startswith(_SIGNED):
        return Policy.from_yaml(path), None
    try:
        signed = SignedPolicy.decode(data)
        return signed.policy(), signed
    except Malformed as error:
        raise Malformed(f"{path} is no whole signed policy ({error}); fetch it again") from None


_SIGNED = SignedPolicy(bytes(2), bytes(32), bytes(64)).encode()[: 5 + 5 + len(SignedPolicy.TAG)]
