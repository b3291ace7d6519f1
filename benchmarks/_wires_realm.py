"""A federation whose sites have made-up integer vectors, for rounds over any wire: real nodes, no noise, known sums."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import numpy.typing as npt
import pandas as pd
from privfl_keys import Member, Roster, SignedRoster, SigningKey

from privfl.budget import MemoryAccount, Purpose
from privfl.clock import SystemClock
from privfl.codec import encode
from privfl.dp import LocalReport
from privfl.entropy import SYSTEM, Entropy
from privfl.homes.state import Items
from privfl.ring import Ring
from privfl.runtime.coordinator import CoordinatorNode, RoundResult
from privfl.runtime.site import SiteNode
from privfl.runtime.store import MemorySiteStore
from privfl.runtime.terms import Terms
from privfl.secagg import Shelf
from privfl.secagg.party import Party
from privfl.tasks import Price, Question, Schema, SiteData, Sum, bind
from privfl.wires import Mailbox

__all__ = ["FEDERATION", "Realm", "Round", "Vectors"]

FEDERATION = "benchmark"
PATIENCE_MS = 3_600_000
EVERYONE_SITS = 64
_SCHEMA = Schema.from_dict(
    {"name": "made up", "version": 1, "records": 1000, "columns": {"x": {"lower": 0, "upper": 1, "scale": 1}}}
)
_ROWS = bind(_SCHEMA, pd.DataFrame({"x": [0.5]}))


class Vectors(Question):
    """Asks every site for a vector that follows from its place in the roster and the inputs: sums are known."""

    kind, purpose, schema, uploads = "benchmark", Purpose.TRAINING, _SCHEMA, 10**6

    def __init__(self, sites: int, length: int, ring: Ring) -> None:
        self.sites, self.length, self.ring = sites, length, ring

    @property
    def title(self) -> str:
        """See the base class."""
        return f"{self.length} made-up integers"

    @property
    def columns(self) -> tuple[str, ...]:
        """None is read."""
        return ()

    def descriptor(self) -> bytes:
        """See the base class."""
        return encode(("benchmark vectors", self.sites, self.length, self.ring.bits, self.ring.word))

    def sum_of(self, inputs: bytes) -> Sum:
        """The same for all inputs."""
        return Sum(self.ring, self.length, None)

    def prices(self) -> tuple[Price, ...]:
        """Without noise there are none."""
        return ()

    def model(self, number: int) -> bytes:
        """A model of round ``number`` that no wire can compress: float32 of the vector's length, so many bytes."""
        return np.random.default_rng(number).bytes(4 * self.length)

    def vector(self, inputs: bytes, seat: int) -> npt.NDArray[np.int64]:
        """What the site at ``seat`` answers, int64 of shape ``(length,)``."""
        high = min(1000, self.ring.reach // self.sites)
        seed = int.from_bytes(inputs[:8].ljust(8, b"."), "big")
        return np.random.default_rng((seat, seed)).integers(-high, high + 1, self.length)

    def contribution(
        self, inputs: bytes, data: SiteData, entropy: Entropy, *, report: LocalReport | None = None
    ) -> npt.NDArray[np.int64]:
        """Zero: who asks for no seat has none."""
        return np.zeros(self.length, np.int64)

    def upload(
        self, inputs: bytes, data: SiteData, entropy: Entropy, *, seat: int = 0, report: LocalReport | None = None
    ) -> npt.NDArray[np.int64]:
        """See :meth:`vector`."""
        return self.vector(inputs, seat)


@dataclass(frozen=True)
class Round:
    """A round whose sum was right: when it began and ended, by the clock that all processes share, in seconds."""

    began: float
    ended: float
    result: RoundResult

    @property
    def seconds(self) -> float:
        """How long it took."""
        return self.ended - self.began


@dataclass
class Realm:
    """The roster of a federation, keys of some of its members, and their nodes over whatever mailboxes are given.

    Attributes:
        keys: of the sites, in the order of their names; empty in a process that is the coordinator alone.
    """

    signed: SignedRoster
    coordinator_key: SigningKey
    keys: list[SigningKey]
    length: int
    ring: Ring = field(default_factory=lambda: Ring(32, 32))

    @classmethod
    def make(cls, sites: int, length: int, bits: int = 32) -> Realm:
        """Enrol everyone."""
        now = SystemClock().now()
        authority, coordinator = SigningKey.generate(SYSTEM), SigningKey.generate(SYSTEM)
        keys = [SigningKey.generate(SYSTEM) for _ in range(sites)]
        members = [Member(f"site-{at:03}", key.verify_key.raw, ("site",)) for at, key in enumerate(keys)]
        members.append(Member("coordinator", coordinator.verify_key.raw, ("coordinator",)))
        roster = Roster.create(
            FEDERATION,
            members,
            graph_seed=SYSTEM.draw(32),
            valid_from=now - 1000,
            valid_until=now + 10**9,
            committee=sorted(key.verify_key.site_id for key in keys)[:EVERYONE_SITS] if sites > EVERYONE_SITS else (),
        )
        return cls(roster.sign(authority), coordinator, keys, length, Ring(bits, 16 if bits <= 16 else 32))

    @property
    def roster(self) -> Roster:
        """Whoever takes part."""
        return self.signed.roster

    @property
    def sites(self) -> int:
        """How many there are."""
        return len(self.roster.site_ids)

    @cached_property
    def question(self) -> Vectors:
        """What is asked in every round."""
        return Vectors(self.sites, self.length, self.ring)

    @property
    def ids(self) -> list[bytes]:
        """Of the sites whose keys are here."""
        return [key.verify_key.site_id for key in self.keys]

    @property
    def coordinator_id(self) -> bytes:
        """Of the coordinator."""
        return self.coordinator_key.verify_key.site_id

    @property
    def least(self) -> int:
        """Sites that a voted sum must hold."""
        return self.roster.default_min_survivors

    @cached_property
    def terms(self) -> Terms:
        """Both modes, without noise."""
        return Terms("", "", "site", "distributed", self.least, True, True)

    def site(self, at: int, mailbox: Mailbox, store: MemorySiteStore | None = None) -> SiteNode:
        """The node of site ``at``."""
        node = SiteNode(
            Party(self.keys[at], self.roster),
            self.terms,
            MemoryAccount(self.terms.limits()),
            SiteData.of(_ROWS),
            MemorySiteStore() if store is None else store,
            mailbox,
            SystemClock(),
            SYSTEM,
        )
        node._tasks = {self.question.id: self.question}  # no installed part makes this question from its bytes
        return node

    def coordinator(
        self, mailbox: Mailbox, shelf: Shelf, *, quiet: bool = False, state: Items | None = None
    ) -> CoordinatorNode:
        """The coordinator's node; it waits for slow sites as long as it takes, and for lost ones not at all."""
        party = Party(self.coordinator_key, self.roster)
        return CoordinatorNode(
            party,
            self.signed,
            mailbox,
            shelf,
            SystemClock(),
            SYSTEM,
            patience_ms=PATIENCE_MS,
            grace_ms=PATIENCE_MS,
            quiet=quiet,
            state=state,
        )

    def opened(self, node: CoordinatorNode, number: int, *, complete: bool = False) -> RoundResult:
        """Run one round to its sum."""
        least = self.sites if complete else self.least
        inputs = self.question.model(number)
        return node.run_round(self.question, inputs, self.terms.hash, number, complete=complete, min_survivors=least)

    def round(self, node: CoordinatorNode, number: int, *, complete: bool = False) -> Round:
        """Run one round; raises RuntimeError unless its sum is that of all sites' integers."""
        began = time.monotonic()
        result = self.opened(node, number, complete=complete)
        ended = time.monotonic()
        if result.dropped:
            raise RuntimeError(f"round {number} lost {len(result.dropped)} site(s): {dict(result.refusals)}")
        if not self.exact(result, self.question.model(number)):
            raise RuntimeError(f"round {number} opened another sum than that of the sites' integers")
        return Round(began, ended, result)

    def exact(self, result: RoundResult, inputs: bytes) -> bool:
        """Whether a round's sum equals plain integers, bit for bit."""
        seats = {site: seat for seat, site in enumerate(sorted(self.roster.site_ids))}
        total = np.zeros(self.length, np.int64)
        for site in result.survivors:
            total += self.question.vector(inputs, seats[site])
        return bool(np.array_equal(result.total, total))
