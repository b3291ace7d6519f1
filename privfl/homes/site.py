"""A site's folder: founded, joined to a federation, bound to its data, opened by one process at a time.

``join`` verifies everything before it changes anything. A folder takes part with one population: its
ledger is made once, and neither another file, schema, roster nor policy begins a new one.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

from privfl_keys import EnrolmentRequest, Identity, ScryptCost, SignedRoster

from privfl.budget import Policy
from privfl.budget.ledger import Ledger
from privfl.entropy import SYSTEM, Entropy
from privfl.errors import Misuse
from privfl.homes import data
from privfl.homes.config import Format, KmsConfig, SiteConfig
from privfl.homes.files import check_writable, write_file
from privfl.homes.folder import check_founder, found, found_state, open_state, open_store, write_request
from privfl.homes.ledgers import LEDGER, KnownLedger, check_population, ledger_path, open_ledger
from privfl.homes.membership import Membership, recall, verify_join
from privfl.homes.state import State
from privfl.secagg.party import Party
from privfl.wires.flower_peers import PEERS, Peers
from privfl.wires.mailbox import Mailbox
from privfl.wires.settings import FlowerSettings, read_wire

if TYPE_CHECKING:
    from privfl.tasks import BoundData, DatabaseSource, SiteData

__all__ = ["LEDGER", "JoinedSite", "OpenSite", "SiteHome", "Table", "ledger_path"]


@dataclass(frozen=True)
class Table:
    """What to bind: a table (a file, or one of a database) and its schema; see :func:`privfl.homes.data.prepare`."""

    path: Path | DatabaseSource
    schema: Path
    format: Format | None = None
    allow_empty: bool = False
    analytics_only: bool = False


@dataclass(frozen=True)
class JoinedSite:
    """What a join or a binding led to. ``bound`` has true counts: for the operator's own terminal only.

    It is None if nothing was bound, or a table for analytics alone (``alone``), whose rows were not read; ``notes``
    then say how it differs from the schema, for that terminal as well.
    """

    config: SiteConfig
    membership: Membership
    bound: BoundData | None = None
    alone: bool = False
    notes: tuple[str, ...] = ()


class OpenSite:
    """A site ready to run; nobody else can open its folder until :meth:`close`, or the end of the process.

    Attributes:
        folder, config, name: of the site. identity: its name and key. party: key and roster for the protocol.
        signed_roster, policy: in force, verified. ledger: verified, with the policy's limits.
        state: sealed, locked to this process. data: the bound table, if opened with it. mailbox: its end of the wire.
    """

    def __init__(
        self,
        folder: Path,
        config: SiteConfig,
        identity: Identity,
        state: State,
        membership: Membership,
        ledger: Ledger,
        data: SiteData | None,
        mailbox: Mailbox,
    ) -> None:
        """Internal; use :meth:`SiteHome.open`."""
        self.folder, self.config, self.identity, self.name = folder, config, identity, config.name
        self.party = Party(identity.key, membership.roster)
        self.signed_roster: SignedRoster = membership.signed_roster
        self.policy: Policy = membership.policy
        self.state, self.ledger, self.mailbox = state, ledger, mailbox
        self._data = data

    @property
    def data(self) -> SiteData:
        """The bound table; raises Misuse if the site was opened without it."""
        if self._data is None:
            raise Misuse("this site was opened without its data; open it with data=True")
        return self._data

    @property
    def bound(self) -> BoundData:
        """Its rows in memory; raises Misuse as :attr:`data`, or if it was bound for analytics alone."""
        return self.data.bound

    def anchor_item(self) -> dict[str, bytes | None]:
        """What the sealed state keeps of the ledger's head, to be put together with whatever follows from it."""
        return {LEDGER: KnownLedger(self.policy.population, self.ledger.anchor).encode()}

    def close(self) -> None:
        """Close wire, ledger and state and let the folder go; twice is harmless."""
        self.mailbox.close()
        self.ledger.close()
        self.state.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"OpenSite({self.name!r}, {str(self.folder)!r})"


class SiteHome:
    """What an operator does with a site's folder. Times are milliseconds since 1970."""

    @staticmethod
    def init(
        folder: Path,
        name: str,
        federation: str,
        passphrase: str,
        now: int,
        *,
        cost: ScryptCost | None = None,
        entropy: Entropy = SYSTEM,
        kms: KmsConfig | None = None,
        wire: str | None = None,
    ) -> SiteConfig:
        """Make the folder with its key, its sealed state and its request, or finish one that was begun.

        Args:
            kms: what keeps the keys; the passphrase is not looked at then.
            wire: as :meth:`join` takes it, if it is known already.

        Raises:
            Misuse: the folder belongs to someone else, or its state is gone, or its keys are kept otherwise.
            KeyStoreError: a wrong or too short passphrase. StorageError: the disk does not take it.
        """
        known = check_founder(folder, SiteConfig, federation, name)
        where = None if wire is None else read_wire(wire, federation)
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
            write_request(folder, identity, federation, "site", now)
            if isinstance(known, SiteConfig):
                return known
            config = SiteConfig(federation=federation, name=name, fingerprint=identity.fingerprint, kms=kms, wire=where)
            config.write(folder)
            return config

    @staticmethod
    def request(folder: Path, passphrase: str, now: int) -> EnrolmentRequest:
        """Write the enrolment request again, dated ``now``."""
        config = SiteConfig.read(folder)
        with open_store(folder, passphrase) as (_, identity):
            return write_request(folder, identity, config.federation, "site", now)

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
        table: Table | None = None,
    ) -> JoinedSite:
        """Join, or take over a newer roster, policy or wire; on any refusal nothing has changed.

        Args:
            rosters, authority, policy: see :func:`privfl.homes.membership.verify_join`.
            wire: ``folder:PATH`` or a ``federation.yaml``; None keeps the one that is
                known. table: bound in the same step.

        Raises:
            Misuse, Malformed, Unverified, Refused: as ``verify_join``; and Refused for another population.
            DataError: the table does not fit. StorageError: the disk does not take it; run the command again.
        """
        config = SiteConfig.read(folder)
        with open_store(folder, passphrase) as (store, identity):
            check_writable(folder)
            state = open_state(folder, store, identity)
        try:
            joined = verify_join(state, config, identity, now, rosters=rosters, authority=authority, policy=policy)
            known = KnownLedger.of(state)
            check_population(known, joined.policy)
            if wire is not None:
                config = config.updated(wire=read_wire(wire, config.federation))
            if config.wire is None:
                raise Misuse(
                    "no wire was named yet; give --wire folder:PATH, the folder shared with the coordinator, "
                    "or --wire federation.yaml"
                )
            config.wire.check()
            binding = None if table is None else _prepare(table, joined.policy)
            ledger = open_ledger(folder, config, identity, joined.policy, known, now, create=known is None)
            try:
                # from here on something changes; each step may be the last, and join goes on from there
                state.put({**joined.items(), LEDGER: KnownLedger(joined.policy.population, ledger.anchor).encode()})
                if isinstance(config.wire, FlowerSettings):
                    write_file(folder / PEERS, Peers.of(joined.roster).encode())
                config.write(folder)
                if binding is not None:
                    config = data.keep(folder, config, binding)
                ledger.use(joined.policy.hash, joined.policy.version, joined.policy.limits(), now)
                state.put({LEDGER: KnownLedger(joined.policy.population, ledger.anchor).encode()})
            finally:
                ledger.close()
            return JoinedSite(config, joined, *_found(binding))
        finally:
            state.close()

    @staticmethod
    def bind(folder: Path, passphrase: str, now: int, table: Table) -> JoinedSite:
        """Bind a table to a site that has joined; the old binding stays if anything does not fit."""
        config = SiteConfig.read(folder)
        with open_store(folder, passphrase) as (store, identity):
            check_writable(folder)
            state = open_state(folder, store, identity)
        try:
            membership = recall(state, config, identity, now)
            binding = _prepare(table, membership.policy)
            return JoinedSite(data.keep(folder, config, binding), membership, *_found(binding))
        finally:
            state.close()

    @staticmethod
    def open(folder: Path, passphrase: str, now: int, *, data: bool = True) -> OpenSite:
        """Open a site that has joined, ready to run.

        Args:
            data: also read the bound table, or check it where it lies if it was bound for analytics alone.

        Raises:
            Misuse: the folder is missing or incomplete, another process works in it (its pid is named), the ledger
                is missing, or the clock is behind it. KeyStoreError: a wrong passphrase. DataError: see ``data.load``.
            Unverified: roster not valid now, ledger of another site, older or altered. Refused: the policy expired.
            StorageError: the folder is read-only or the disk full.
        """
        config = SiteConfig.read(folder)
        with open_store(folder, passphrase) as (store, identity):
            check_writable(folder)
            state = open_state(folder, store, identity)
        try:
            membership = recall(state, config, identity, now)
            policy, known = membership.policy, KnownLedger.of(state)
            ledger = open_ledger(folder, config, identity, policy, known, now, create=False)
            try:
                ledger.use(policy.hash, policy.version, policy.limits(), now)
                table = _load(folder, config, policy) if data else None
                mailbox = config.mailbox(folder, identity.site_id)
                return OpenSite(folder, config, identity, state, membership, ledger, table, mailbox)
            except BaseException:
                ledger.close()
                raise
        except BaseException:
            state.close()
            raise


def _prepare(table: Table, policy: Policy) -> data.Binding:
    return data.prepare(
        table.path,
        table.schema,
        policy,
        format_=table.format,
        allow_empty=table.allow_empty,
        analytics_only=table.analytics_only,
    )


def _found(binding: data.Binding | None) -> tuple[BoundData | None, bool, tuple[str, ...]]:
    if binding is None or binding.config.analytics_only:
        return None, binding is not None, () if binding is None else binding.notes
    return binding.bound, False, ()


def _load(folder: Path, config: SiteConfig, policy: Policy) -> SiteData:
    return data.load(folder, config, policy)
