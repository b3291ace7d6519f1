"""The coordinator's folder: its key, its sealed state, the rosters and the policy it works by, its wire."""

from __future__ import annotations

from pathlib import Path
from typing import Final, Self

from privfl_keys import EnrolmentRequest, Identity, ScryptCost, SignedRoster

from privfl.budget import Policy, SignedPolicy
from privfl.entropy import SYSTEM, Entropy
from privfl.errors import Misuse
from privfl.homes.config import CoordinatorConfig, KmsConfig
from privfl.homes.files import check_writable
from privfl.homes.folder import check_founder, found, found_state, open_state, open_store, write_request
from privfl.homes.membership import Membership, recall, verify_join
from privfl.homes.rosters import Chain
from privfl.homes.state import State
from privfl.secagg.party import Party
from privfl.wires.mailbox import Mailbox
from privfl.wires.settings import read_wire

__all__ = ["CoordinatorHome", "OpenCoordinator"]

CHAIN: Final = "chain"  # name in the sealed state


class OpenCoordinator:
    """A coordinator ready to run; nobody else can open its folder until :meth:`close`, or the end of the process.

    Attributes:
        folder, config, name: of the coordinator. identity: its name and key. party: key and roster for the protocol.
        authority: that is pinned. chain: every roster that was handed to it, oldest first.
        signed_roster, policy, signed_policy: in force.
        state: sealed, locked to this process. mailbox: its end of the wire.
    """

    def __init__(
        self,
        folder: Path,
        config: CoordinatorConfig,
        identity: Identity,
        state: State,
        membership: Membership,
        chain: tuple[SignedRoster, ...],
        mailbox: Mailbox,
    ) -> None:
        """Internal; use :meth:`CoordinatorHome.open`."""
        self.folder, self.config, self.identity, self.name = folder, config, identity, config.name
        self.party = Party(identity.key, membership.roster)
        self.chain, self.signed_roster = chain, membership.signed_roster
        self.authority = membership.authority
        self.policy: Policy = membership.policy
        self.signed_policy: SignedPolicy = membership.signed_policy
        self.wire, self.state, self.mailbox = config.wire, state, mailbox

    def close(self) -> None:
        """Close wire and state and let the folder go; twice is harmless."""
        self.mailbox.close()
        self.state.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"OpenCoordinator({self.name!r}, {str(self.folder)!r})"


class CoordinatorHome:
    """What an operator does with the coordinator's folder. Times are milliseconds since 1970."""

    @staticmethod
    def init(
        folder: Path,
        name: str,
        federation: str,
        wire: str,
        passphrase: str,
        now: int,
        *,
        cost: ScryptCost | None = None,
        entropy: Entropy = SYSTEM,
        kms: KmsConfig | None = None,
    ) -> CoordinatorConfig:
        """Make the folder with its key, its sealed state, its request and the wire, or finish one that was begun.

        Args:
            kms: what keeps the keys; the passphrase is not looked at then.

        Raises:
            Misuse: the folder belongs to someone else, its state is gone, its keys are kept otherwise, or no wire can
                be made there.
            KeyStoreError: a wrong or too short passphrase. StorageError: the disk does not take it.
        """
        known = check_founder(folder, CoordinatorConfig, federation, name)
        where = read_wire(wire, federation)
        kms = known.kms if known is not None and kms is None else kms
        with found(
            folder,
            name,
            passphrase,
            finished=known is not None,
            entropy=entropy,
            cost=cost,
            kms=kms,
            federation=federation,
        ) as (store, identity):
            found_state(folder, store, identity, finished=known is not None, entropy=entropy)
            where.make()
            write_request(folder, identity, federation, "coordinator", now)
            config = CoordinatorConfig(
                federation=federation, name=name, fingerprint=identity.fingerprint, wire=where, kms=kms
            )
            config.write(folder)
            return config

    @staticmethod
    def request(folder: Path, passphrase: str, now: int) -> EnrolmentRequest:
        """Write the enrolment request again, dated ``now``."""
        config = CoordinatorConfig.read(folder)
        with open_store(folder, passphrase) as (_, identity):
            return write_request(folder, identity, config.federation, "coordinator", now)

    @staticmethod
    def join(
        folder: Path,
        passphrase: str,
        now: int,
        *,
        rosters: Path | None = None,
        authority: str | None = None,
        policy: Path | None = None,
        wire: str | None = None,
    ) -> Membership:
        """Take over a roster and a policy, or newer ones; on any refusal nothing has changed.

        Args:
            rosters, authority, policy: see :func:`privfl.homes.membership.verify_join`, which also says what it raises.
            wire: ``folder:PATH`` or a ``federation.yaml``, if it has changed.
        """
        config = CoordinatorConfig.read(folder)
        with open_store(folder, passphrase) as (store, identity):
            check_writable(folder)
            state = open_state(folder, store, identity)
        try:
            joined = verify_join(state, config, identity, now, rosters=rosters, authority=authority, policy=policy)
            if wire is not None:
                config = config.updated(wire=read_wire(wire, config.federation))
            if config.wire is None:
                raise Misuse(f"{folder / config.FILE} names no wire; give --wire, folder:PATH or a federation.yaml")
            config.wire.check()
            known = _chain(state)
            chain = joined.chain if known is None else known.joined(joined.chain).rosters
            state.put({**joined.items(), CHAIN: Chain(chain).encode()})
            config.write(folder)
            return joined
        finally:
            state.close()

    @staticmethod
    def open(folder: Path, passphrase: str, now: int) -> OpenCoordinator:
        """Open a coordinator that has joined, ready to run.

        Raises:
            Misuse: the folder is missing or incomplete, or another process works in it (its pid is named).
            KeyStoreError: a wrong passphrase. StorageError: the folder is read-only or the disk full.
            Unverified: the roster is not valid now. Refused: the policy expired, or disagrees with the roster.
        """
        config = CoordinatorConfig.read(folder)
        with open_store(folder, passphrase) as (store, identity):
            check_writable(folder)
            state = open_state(folder, store, identity)
        try:
            membership, chain = recall(state, config, identity, now), _chain(state)
            assert chain is not None  # put together with the membership
            mailbox = config.mailbox(folder, identity.site_id)
            return OpenCoordinator(folder, config, identity, state, membership, chain.rosters, mailbox)
        except BaseException:
            state.close()
            raise


def _chain(state: State) -> Chain | None:
    stored = state.get(CHAIN)
    return None if stored is None else Chain.decode(stored)
