"""The folder of whoever only signs or reads: the compliance officer, an analyst, an auditor."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self

from privfl_keys import EnrolmentRequest, Identity, KeyStore, ScryptCost, SealingKey

from privfl.entropy import SYSTEM, Entropy
from privfl.errors import Misuse
from privfl.homes.config import KmsConfig, OfficerConfig
from privfl.homes.folder import check_founder, found, open_store, write_request

__all__ = ["SEALING", "OfficerHome", "OfficerRole"]

OfficerRole = Literal["compliance", "analyst", "auditor"]
SEALING = "sealing"


@dataclass(frozen=True)
class OfficerHome:
    """An opened folder. ``identity`` signs; ``sealing`` is an auditor's key, None for the others."""

    folder: Path
    config: OfficerConfig
    identity: Identity
    sealing: SealingKey | None = None

    @classmethod
    def init(
        cls,
        folder: Path,
        name: str,
        federation: str,
        passphrase: str,
        now: int,
        *,
        role: OfficerRole = "compliance",
        cost: ScryptCost | None = None,
        entropy: Entropy = SYSTEM,
        kms: KmsConfig | None = None,
    ) -> Self:
        """Make the folder with its key and its enrolment request, or finish one that was begun.

        Args:
            folder: new, or for this user alone. name: of the member. federation: to be enrolled in.
            passphrase: 12 characters or more. now: milliseconds since 1970. role: asked for in the request.
            kms: what keeps the keys; the passphrase is not looked at then.

        Raises:
            Misuse: the folder belongs to someone else, or to another role.
            KeyStoreError: the passphrase is wrong or too short. StorageError: the disk does not take it.
        """
        known = check_founder(folder, OfficerConfig, federation, name)
        if known is not None and known.role != role:
            raise Misuse(f"{folder} is the folder of a member for {known.role}, not for {role}; choose a new folder")
        kms = known.kms if known is not None and kms is None else kms
        with found(
            folder, name, passphrase, finished=known is not None, entropy=entropy, cost=cost, kms=kms,
            federation=federation,
        ) as (store, identity):  # fmt: skip
            config = OfficerConfig(
                role=role, federation=federation, name=name, fingerprint=identity.fingerprint, kms=kms
            )
            if role == "auditor" and SEALING not in store.names():
                store.put(SEALING, SealingKey.generate(entropy).secret_bytes())
            home = cls(folder, config, identity, _sealing(store, role))
            home.request(now)
            config.write(folder)
            return home

    @classmethod
    def open(cls, folder: Path, passphrase: str) -> Self:
        """Open a folder that :meth:`init` made; raises Misuse if it is none, KeyStoreError for a wrong passphrase."""
        config = OfficerConfig.read(folder)
        with open_store(folder, passphrase) as (store, identity):
            return cls(folder, config, identity, _sealing(store, config.role))

    def request(self, now: int) -> EnrolmentRequest:
        """Write the enrolment request again, dated ``now`` (milliseconds since 1970)."""
        sealing = None if self.sealing is None else self.sealing.public.raw
        return write_request(self.folder, self.identity, self.config.federation, self.config.role, now, sealing)


def _sealing(store: KeyStore, role: str) -> SealingKey | None:
    if role != "auditor":
        return None
    with store.get(SEALING) as secret:
        return SealingKey.from_secret_bytes(secret.reveal())
