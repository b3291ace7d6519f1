"""A member of a roster: one name, one key, and what the key may do."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, ClassVar, Final

from privfl_keys.checked import Checked
from privfl_keys.encoding import Bounds, Bytes32
from privfl_keys.errors import Misuse
from privfl_keys.identity import Name, check_name
from privfl_keys.sealing import SEALING_KEY_BYTES, SealingPublicKey
from privfl_keys.signing import VerifyKey

__all__ = ["ROLES", "Member", "check_roles"]

ROLES: Final = ("analyst", "auditor", "compliance", "coordinator", "site")


def check_roles(roles: tuple[str, ...]) -> None:
    """Raise Misuse unless ``roles`` are known, sorted, distinct, at least one, and may be held together."""
    if not roles or set(roles) - set(ROLES) or list(roles) != sorted(set(roles)):
        raise Misuse(f"roles are one or more of {', '.join(ROLES)}, sorted and distinct")
    if "coordinator" in roles and len(roles) > 1:
        raise Misuse("the coordinator is untrusted for privacy: its key holds no other role; enrol a second key")


@dataclass(frozen=True)
class Member(Checked):
    """One key of the roster. Only an auditor has a ``sealing_key``, for the audit part of transcripts."""

    TAG: ClassVar[str] = "member"

    name: Name
    verify_key: Bytes32
    roles: Annotated[tuple[str, ...], Bounds(1, len(ROLES))]
    sealing_key: Annotated[bytes, Bounds(SEALING_KEY_BYTES, SEALING_KEY_BYTES)] | None = None

    def check(self) -> None:
        """Names, roles and keys are usable; see :class:`privfl_keys.checked.Checked`."""
        check_name(self.name)
        _ = self.key
        check_roles(self.roles)
        if self.sealing_key is not None and "auditor" not in self.roles:
            raise Misuse(
                f"{self.name!a} is no auditor and needs no sealing key in the roster; sites make one per epoch"
            )
        if self.sealing_key is not None:
            SealingPublicKey(self.sealing_key)

    @cached_property
    def key(self) -> VerifyKey:
        """The checked public key; raises Unverified for an unsound one."""
        return VerifyKey(self.verify_key)

    @property
    def site_id(self) -> bytes:
        """32 bytes, SHA-256(label, key)."""
        return self.key.site_id
