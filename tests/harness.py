"""A small federation of real machines for tests: every step by hand, every state dumpable.

Nothing here re-implements protocol logic: it only carries messages between the machines.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from privfl_keys import Member, Roster, SignedRoster, SigningKey

from privfl.entropy import SYSTEM, Entropy
from privfl.secagg import Ask, CoordinatorMachine, OpenedSum, Rules, SiteMachine, SlotPlan, Transcript
from privfl.secagg.messages import Announcement
from privfl.secagg.party import Party

POLICY, TASK, INPUTS = b"p" * 32, b"t" * 32, b"i" * 32
NOW, DEADLINE = 1_000, 1_000_000
LEDGER = b"l" * 32


class SeededEntropy:
    """Reproducible bytes for tests; never in the package."""

    def __init__(self, seed: int | str) -> None:
        self._random = random.Random(seed)

    def draw(self, size: int) -> bytes:
        """Return the next ``size`` bytes."""
        return self._random.randbytes(size)


class MemoryShelf(dict[str, bytes]):
    """The coordinator's store in memory; first write wins."""

    def put(self, name: str, data: bytes | memoryview) -> None:
        """Store a copy."""
        self.setdefault(name, bytes(data))

    def get(self, name: str) -> bytes:  # type: ignore[override]
        """Return what was stored."""
        return self[name]


@dataclass
class Harness:
    """N sites, one coordinator, one authority; sites are indexed in the order of their ids."""

    authority: SigningKey
    roster: Roster
    signed: SignedRoster
    keys: dict[bytes, SigningKey]
    coordinator_key: SigningKey
    entropy: Entropy
    rules: Rules
    shelf: MemoryShelf
    sites: dict[bytes, SiteMachine] = field(default_factory=dict)
    coordinator: CoordinatorMachine = None  # type: ignore[assignment]

    @classmethod
    def make(
        cls,
        n: int = 5,
        *,
        degree: int = 0,
        corrupt: int | str | None = None,
        committee: int = 0,
        rules: Rules | None = None,
        min_survivors: int | None = None,
        entropy: Entropy = SYSTEM,
    ) -> Harness:
        """Build keys, roster and machines; no epoch yet. ``committee`` > 0 seats the first so many sites."""
        authority, coordinator_key = SigningKey.generate(entropy), SigningKey.generate(entropy)
        keys = [SigningKey.generate(entropy) for _ in range(n)]
        members = [Member(f"site-{at}", key.verify_key.raw, ("site",)) for at, key in enumerate(keys)]
        members.append(Member("coordinator", coordinator_key.verify_key.raw, ("coordinator",)))
        by_id = {key.verify_key.site_id: key for key in keys}
        seats = sorted(by_id)[:committee] if committee else ()
        roster = Roster.create(
            "test",
            members,
            graph_seed=entropy.draw(32),
            valid_from=0,
            valid_until=10**15,
            degree=degree,
            corrupt_bound=corrupt,  # type: ignore[arg-type]
            committee=seats,
        )
        least = min_survivors if min_survivors is not None else roster.default_min_survivors
        made = cls(
            authority,
            roster,
            roster.sign(authority),
            {site: by_id[site] for site in sorted(by_id)},
            coordinator_key,
            entropy,
            rules or Rules(POLICY, least),
            MemoryShelf(),
        )
        made.sites = {site: SiteMachine(made.party(site), made.rules, entropy) for site in made.keys}
        made.coordinator = CoordinatorMachine(Party(coordinator_key, roster), made.signed, entropy, made.shelf)
        return made

    @property
    def ids(self) -> list[bytes]:
        """Site ids, sorted."""
        return list(self.keys)

    def party(self, site: bytes) -> Party:
        """The site's own key and roster."""
        return Party(self.keys[site], self.roster)

    def reload(self, site: bytes, dump: bytes | None = None, *, restarted: bool = True) -> SiteMachine:
        """Replace a site's machine by one loaded from ``dump`` (default: its own state)."""
        data = self.sites[site].dump() if dump is None else dump
        self.sites[site] = SiteMachine.load(self.party(site), self.rules, self.entropy, data, restarted=restarted)
        return self.sites[site]

    def reload_coordinator(self, dump: bytes | None = None) -> CoordinatorMachine:
        """Replace the coordinator by one loaded from ``dump`` (default: its own state)."""
        data = self.coordinator.dump() if dump is None else dump
        party = Party(self.coordinator_key, self.roster)
        self.coordinator = CoordinatorMachine.load(party, self.signed, self.entropy, self.shelf, data)
        return self.coordinator

    def open_epoch(self, present: Iterable[bytes] | None = None, *, now: int = NOW) -> None:
        """Run E0 to E2 and the record among ``present`` (default: everyone)."""
        here = sorted(self.sites if present is None else present)
        scope = self.coordinator.start_epoch()
        for site in here:
            self.coordinator.receive_advert(self.sites[site].advertise(scope.epoch))
        for site in here:
            out, _ = self.sites[site].contribute(self.coordinator.adverts)
            self.coordinator.receive_contributions(out)
        for site in here:
            message, _ = self.sites[site].confirm(self.coordinator.contributions_for(site))
            self.coordinator.receive_confirmations(message)
        record, confirmations = self.coordinator.fix_record()
        for site in here:
            if site in record.sites:
                self.sites[site].join(record, confirmations, now=now)

    def plan(
        self,
        cohort: Sequence[bytes] | None = None,
        *,
        length: int = 8,
        bits: int = 32,
        word: int = 32,
        complete: bool = False,
        min_survivors: int | None = None,
        task: bytes = TASK,
        deadline: int = DEADLINE,
    ) -> SlotPlan:
        """A plan over the epoch's sites under the harness's policy."""
        sites = list(self.coordinator.record.sites if cohort is None else cohort)
        least = self.rules.min_survivors if min_survivors is None else min_survivors
        return SlotPlan(task, INPUTS, POLICY, bits, word, length, sites, complete, least, deadline)

    def vectors(self, announcement: Announcement, seed: int = 0) -> dict[bytes, npt.NDArray[np.int64]]:
        """A small signed vector per cohort site."""
        rng = np.random.default_rng(seed)
        return {site: rng.integers(-1000, 1000, announcement.length) for site in announcement.sites}

    def upload(self, announcement: Announcement, site: bytes, vector: npt.NDArray[np.int64], *, now: int = NOW) -> None:
        """One site accepts, uploads, and the coordinator takes it in."""
        self.sites[site].accept(announcement, now=now, ledger_head=LEDGER)
        out = self.sites[site].upload(announcement, vector, now=now)
        self.coordinator.receive(out.message, out.body)

    def asks(self) -> dict[bytes, Ask]:
        """The request to every committee member that has a machine here."""
        members = self.coordinator.record.members
        return {member: self.coordinator.ask(member) for member in members if member in self.sites}

    def vote_and_release(self, silent: Iterable[bytes] = (), *, now: int = NOW) -> tuple[OpenedSum, Transcript]:
        """S2 to S4 with every committee member but the ``silent`` ones."""
        quiet = set(silent)
        if not self.coordinator.slot.current().complete:
            for member, ask in self.asks().items():
                if member not in quiet:
                    self.coordinator.receive_vote(self.sites[member].vote(ask, now=now))
        for member, ask in self.asks().items():
            if member not in quiet:
                self.coordinator.receive_release(self.sites[member].release(ask, now=now))
        return self.coordinator.finish()

    def round(
        self,
        slot: tuple[int, int] = (1, 0),
        *,
        dropped: Iterable[bytes] = (),
        silent: Iterable[bytes] = (),
        **plan: object,
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], Transcript]:
        """A whole slot; returns (opened sum, sum in plain integers over the survivors, transcript)."""
        announcement = self.coordinator.announce(self.plan(**plan), slot)  # type: ignore[arg-type]
        vectors, gone = self.vectors(announcement), set(dropped)
        for site in announcement.sites:
            if site not in gone:
                self.upload(announcement, site, vectors[site])
        self.coordinator.close()
        opened, transcript = self.vote_and_release(silent)
        expected = np.sum([vectors[header.site] for header in transcript.headers], axis=0)
        return opened.array(), expected, transcript
