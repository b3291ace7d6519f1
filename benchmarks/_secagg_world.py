"""A federation of real machines for the benchmark: keys, roster, epoch, and stores that fit the size."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from privfl_keys import Label, Member, Roster, SealingKey, SignedRoster, SigningKey, derive

from privfl.entropy import SYSTEM
from privfl.secagg import CoordinatorMachine, EpochRecord, Rules, Scope, SiteMachine
from privfl.secagg.committee import fresh_member_state
from privfl.secagg.epoch import EpochState, Pair
from privfl.secagg.messages import Advert, Confirmations, join
from privfl.secagg.party import Party
from privfl.secagg.record import potential_neighbours
from privfl.secagg.site import fresh_slot_state
from privfl.secagg.site_machine import SiteState

POLICY, TASK, INPUTS, LEDGER = b"p" * 32, b"t" * 32, b"i" * 32, b"l" * 32
NOW, DEADLINE = 1_000, 1_000_000
EVERYONE_SITS = 64
FULL_EPOCH_UP_TO = 200  # sites; above, a million advert probes per epoch would say nothing about a slot


class FileShelf:
    """The coordinator's store as files, so that its size is no part of the coordinator's memory."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def put(self, name: str, data: bytes | memoryview) -> None:
        """Write once; the first write of a name wins."""
        path = self._folder / name
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)

    def get(self, name: str) -> bytes:
        """Read what was stored; raises KeyError."""
        try:
            return (self._folder / name).read_bytes()
        except FileNotFoundError:
            raise KeyError(name) from None


class SlotShelf:
    """Blobs and releases in memory; bodies are dropped, since no timed pass reads one again."""

    def __init__(self) -> None:
        self._items: dict[str, bytes] = {}

    def put(self, name: str, data: bytes | memoryview) -> None:
        """Keep all but bodies."""
        if not name.endswith("/body"):
            self._items.setdefault(name, bytes(data))

    def get(self, name: str) -> bytes:
        """Return what was stored; raises KeyError."""
        return self._items[name]


@dataclass
class World:
    """All parties of one federation; ``epoch`` says how its keys came to be."""

    roster: Roster
    signed: SignedRoster
    keys: dict[bytes, SigningKey]
    coordinator_key: SigningKey
    rules: Rules
    sites: dict[bytes, SiteMachine] = field(default_factory=dict)
    epoch: str = ""
    epoch_seconds: float = 0.0

    @classmethod
    def make(cls, sites: int, degree: int, committee: int) -> World:
        """Enrol everyone; ``committee`` seats are the first so many ids, 0 the default of the protocol."""
        authority, coordinator_key = SigningKey.generate(SYSTEM), SigningKey.generate(SYSTEM)
        keys = {key.verify_key.site_id: key for key in (SigningKey.generate(SYSTEM) for _ in range(sites))}
        members = [Member(f"site-{at:04}", key.verify_key.raw, ("site",)) for at, key in enumerate(keys.values())]
        members.append(Member("coordinator", coordinator_key.verify_key.raw, ("coordinator",)))
        seats = sorted(keys)[: committee or EVERYONE_SITS] if sites > EVERYONE_SITS else ()
        roster = Roster.create(
            "benchmark",
            members,
            graph_seed=SYSTEM.draw(32),
            valid_from=0,
            valid_until=10**15,
            degree=degree,
            committee=seats,
        )
        least = roster.corrupt_bound + 2
        if degree:
            least = max(least, -(-2 * sites // 3))
        ordered = {site: keys[site] for site in sorted(keys)}
        return cls(roster, roster.sign(authority), ordered, coordinator_key, Rules(POLICY, least))

    def party(self, site: bytes) -> Party:
        """One site's identity and roster."""
        return Party(self.keys[site], self.roster)

    @property
    def coordinator_party(self) -> Party:
        """The coordinator's identity and roster."""
        return Party(self.coordinator_key, self.roster)

    def open_epoch(self) -> CoordinatorMachine:
        """Run E0 to E2 between real machines, or put pair keys into their states where that would take minutes."""
        coordinator = CoordinatorMachine(self.coordinator_party, self.signed, SYSTEM, SlotShelf())
        start = time.perf_counter()
        full = len(self.keys) <= FULL_EPOCH_UP_TO
        (self._contributed if full else self._given)(coordinator, coordinator.start_epoch())
        self.epoch = "run in full" if full else "pair keys put into the sites' states"
        self.epoch_seconds = time.perf_counter() - start
        return coordinator

    def _contributed(self, coordinator: CoordinatorMachine, scope: Scope) -> None:
        self.sites = {site: SiteMachine(self.party(site), self.rules, SYSTEM) for site in self.keys}
        for machine in self.sites.values():
            coordinator.receive_advert(machine.advertise(scope.epoch))
        for machine in self.sites.values():
            coordinator.receive_contributions(machine.contribute(coordinator.adverts)[0])
        for site, machine in self.sites.items():
            coordinator.receive_confirmations(machine.confirm(coordinator.contributions_for(site))[0])
        record, confirmations = coordinator.fix_record()
        for machine in self.sites.values():
            machine.join(record, confirmations, now=NOW)

    def _given(self, coordinator: CoordinatorMachine, scope: Scope) -> None:
        secrets = {site: SealingKey.generate(SYSTEM) for site in self.keys}
        adverts = {site: self._advert(scope, site, secret.public.raw) for site, secret in secrets.items()}
        pairs: dict[tuple[bytes, bytes], bytes] = {}
        near = {site: sorted(potential_neighbours(self.roster, scope, site)) for site in self.keys}
        for site, peers in near.items():
            for peer in peers:
                low, high = sorted((site, peer))
                pairs.setdefault((low, high), SYSTEM.draw(32))
        for site, peers in near.items():
            coordinator.receive_advert(adverts[site])
            tags = join(derive(pairs[min(site, peer), max(site, peer)], Label.CONFIRM, site) for peer in peers)
            body = Confirmations(scope, site, join(peers), tags, bytes(64))
            signature = self.keys[site].sign(Label.CONFIRMATION, *body.binding())
            coordinator.receive_confirmations(Confirmations(scope, site, body.peers, tags, signature))
        record, _ = coordinator.fix_record()
        for site, secret in secrets.items():
            own = tuple(
                Pair(peer, adverts[peer].digest, b"", bytes(32), pairs[min(site, peer), max(site, peer)], True)
                for peer in near[site]
            )
            self._seat(scope, site, secret, adverts[site], own, record)

    def _advert(self, scope: Scope, site: bytes, raw: bytes) -> Advert:
        body = Advert(scope, site, raw, bytes(64))
        return Advert(scope, site, raw, self.keys[site].sign(Label.ADVERT, body.digest))

    def _seat(
        self, scope: Scope, site: bytes, secret: SealingKey, advert: Advert, pairs: Sequence[Pair], record: EpochRecord
    ) -> None:
        epoch = EpochState("active", scope, secret.secret_bytes(), advert, tuple(pairs), 0, record, NOW)
        state = SiteState(scope.epoch, epoch, fresh_slot_state(), fresh_member_state())
        self.sites[site] = SiteMachine(self.party(site), self.rules, SYSTEM, state)
