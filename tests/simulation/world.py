"""A federation of real machines on a simulated network, in virtual time."""

from __future__ import annotations

import heapq
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from privfl.errors import Malformed
from privfl.secagg import Announcement, CoordinatorMachine, Rules, SiteMachine, SlotPlan
from privfl.secagg.party import Party
from tests.harness import LEDGER, POLICY, Harness, MemoryShelf, SeededEntropy
from tests.simulation.invariants import Observer
from tests.simulation.leader import TICK, CoordinatorNode
from tests.simulation.nodes import COORDINATOR, Disk, Envelope, Send, SiteNode, Step, unpack_parts
from tests.simulation.script import Crash, Dead, Fork, Kind, Lie, Operation, Script, Slow

__all__ = ["Outcome", "World"]

PATIENCE_AFTER_HEALING = 40_000  # virtual ms
RINGS = ((12, 16, 200), (20, 32, 70_000), (32, 32, 2**28), (64, 64, 2**59))  # bits, word, largest value


@lru_cache(maxsize=16)
def base(sites: int) -> tuple[Harness, dict[bytes, bytes], bytes]:
    """A federation with an open epoch, made once per size: the harness, the sites' dumps, the coordinator's."""
    harness = Harness.make(sites, entropy=SeededEntropy(f"base {sites}"))
    harness.open_epoch(now=0)
    return harness, {site: machine.dump() for site, machine in harness.sites.items()}, harness.coordinator.dump()


@dataclass(frozen=True)
class Outcome:
    """What one run came to."""

    script: Script
    opened: int
    lost: int
    finished: bool
    slots: int
    attempts_after_healing: int  # the most that one round took of those announced after the faults healed
    virtual_ms: int
    seen: Counter[str]


class World:
    """One run of a script; ``run`` raises AssertionError where an invariant or a promise breaks."""

    def __init__(self, script: Script, say: Callable[[str], None] | None = None) -> None:
        self.script, self._say = script, say
        self._rnd = random.Random(f"world {script.seed}")
        self._queue: list[tuple[int, int, object]] = []
        self._count, self.now = 0, 0
        self._crashes: dict[int, Crash] = {}
        self._restarted: set[int] = set()
        self._announcements: list[tuple[int, Announcement]] = []
        self._ring = self._rnd.choice(RINGS)
        self._build()

    def _build(self) -> None:
        harness, dumps, coordinator_dump = base(self.script.sites)
        entropy, noiseless = SeededEntropy(f"run {self.script.seed}"), self.script.kind is Kind.NOISELESS
        rules = replace(harness.rules, noiseless=noiseless)
        ids, shelf = tuple(harness.ids), MemoryShelf()

        def load_site(site: bytes) -> Callable[[bytes, bool], SiteMachine]:
            party = harness.party(site)
            return lambda dump, restarted: SiteMachine.load(party, rules, entropy, dump, restarted=restarted)

        def load_coordinator(dump: bytes) -> CoordinatorMachine:
            party = Party(harness.coordinator_key, harness.roster)
            return CoordinatorMachine.load(party, harness.signed, entropy, shelf, dump)

        if self.script.fresh_epoch:
            dumps = {site: SiteMachine(harness.party(site), rules, entropy).dump() for site in ids}
            party = Party(harness.coordinator_key, harness.roster)
            coordinator_dump = CoordinatorMachine(party, harness.signed, entropy, shelf).dump()
        disks = [Disk(dumps[site]) for site in ids]
        self.sites = [SiteNode(at, disks[at], load_site(site), self.vector, LEDGER) for at, site in enumerate(ids)]
        for node in self.sites:
            node.skew = self._rnd.randint(-50, 50)
        self.leader = CoordinatorNode(Disk(coordinator_dump), load_coordinator, self._plan, ids, self.script.rounds)
        self.leader.noiseless = noiseless
        if not self.script.fresh_epoch:
            self.leader.joined, self.leader.waiting.phase = set(ids), "slots"
        self.observer = Observer(harness.authority.verify_key, rules, ids, self.vector)
        self._rules: Rules = rules

    def vector(self, site: int, a: Announcement) -> npt.NDArray[np.int64]:
        """A site's data in a slot, fresh in every attempt."""
        most = self._ring[2]
        rng = np.random.default_rng([self.script.seed, site, a.scope.epoch, a.round, a.attempt])
        return rng.integers(-most, most, a.length, endpoint=True)

    def _plan(self, machine: CoordinatorMachine, number: int, here: tuple[bytes, ...], deadline: int) -> SlotPlan:
        bits, word, _ = self._ring
        task, inputs = number.to_bytes(32, "big"), bytes(32)
        least = self._rules.min_survivors
        length, complete = self.script.length, self.script.complete
        return SlotPlan(task, inputs, POLICY, bits, word, length, here, complete, least, deadline)

    # --- the loop ---------------------------------------------------------------------------------

    def run(self) -> Outcome:
        """Play the script to its end."""
        for operation in self.script.operations:
            self._at(operation.at, operation)
        self._at(0, Envelope("tick", ()))
        limit = self.script.network.heals_at + PATIENCE_AFTER_HEALING
        if not self.script.promised:
            limit = self.script.network.heals_at + 8_000
        while self._queue and not self.leader.finished:
            self.now, _, event = heapq.heappop(self._queue)
            if self.now > limit:
                break
            self._happen(event)
        return self._outcome()

    def _at(self, when: int, event: object) -> None:
        self._count += 1
        heapq.heappush(self._queue, (when, self._count, event))

    def _happen(self, event: object) -> None:
        match event:
            case Envelope():  # the coordinator's clock
                self._at(self.now + TICK, event)
                self._step(self.leader, event)
            case Send(to, data):
                self._arrive(to, data)
            case (SiteNode() as node, Envelope() as own):
                self._step(node, own)
            case (SiteNode() | CoordinatorNode() as node, "restart"):
                self._note(f"{self._name(node.index)} restarts")
                unfinished = node.restart()
                if unfinished is not None:
                    self._restarted.add(node.index)
                    self._step(node, unfinished)
            case Operation():
                self._operate(event)

    def _operate(self, operation: Operation) -> None:
        self._note(f"operation: {operation}")
        match operation:
            case Crash(_, node, _, _):
                self._crashes[node] = operation
            case Dead(_, node):
                self.sites[node].up = False
                self._crashes.pop(node, None)
            case Slow(_, node, delay):
                self.sites[node].delay = delay
            case Lie(_, until):
                self.leader.lie = random.Random(self._rnd.random()) if until else None
                if until:
                    self._at(until, Lie(until, 0))
            case Fork(_, steps):
                self.leader.fork(steps)

    def _arrive(self, to: int, data: bytes) -> None:
        node = self.leader if to == COORDINATOR else self.sites[to]
        try:
            envelope = unpack_parts(data)
        except Malformed:
            self.observer.seen["unreadable"] += 1
            return
        if envelope.kind in ("compute", "tick"):
            return  # a node's own steps never come by wire
        self._step(node, envelope)

    def _step(self, node: SiteNode | CoordinatorNode, envelope: Envelope) -> None:
        if not node.up:
            return None
        step = node.step(envelope, self.now)
        crash = self._crashes.pop(node.index, None) if step.dump or step.sends else None
        self._trace(node, envelope, step)
        if isinstance(node, CoordinatorNode):
            for entry in node.announced:
                self.observer.announced(entry[1])
            self._announcements += node.announced
            node.announced.clear()
        if crash and crash.point == "before storing":
            return self._down(node, crash)
        node.store(step)
        self._check_stored(node, envelope, step)
        if crash and crash.point == "after storing":
            return self._down(node, crash)
        keep = self._rnd.randrange(len(step.sends) + 1) if crash else len(step.sends)
        for send in step.sends[:keep]:
            self._send(node, send)
        if crash:
            return self._down(node, crash)
        if self.script.reload:
            node.reload()
        if step.then is not None:
            self._at(self.now + 1, (node, step.then))
        return None

    def _check_stored(self, node: SiteNode | CoordinatorNode, envelope: Envelope, step: Step) -> None:
        if isinstance(node, CoordinatorNode):
            for note in step.notes:
                if not isinstance(note, int):
                    self.observer.stored(note)
        elif step.then is not None:
            self.observer.accepted(node.index, Announcement.decode(envelope.parts[0]), self.now + node.skew)

    def _down(self, node: SiteNode | CoordinatorNode, crash: Crash) -> None:
        node.up = False
        self.observer.seen[f"crash {crash.point}"] += 1
        self._note(f"{self._name(node.index)} crashes {crash.point}")
        self._at(self.now + crash.pause, (node, "restart"))

    def _send(self, node: SiteNode | CoordinatorNode, send: Send) -> None:
        self.observer.left(node.index, unpack_parts(send.data), self.now)
        network, rnd = self.script.network, self._rnd
        faulty, seen = self.now < network.heals_at, self.observer.seen
        seen["messages"] += 1
        if faulty and rnd.random() < network.drop:
            seen["dropped"] += 1
            return
        copies = 2 if faulty and rnd.random() < network.duplicate else 1
        seen["duplicated"] += copies - 1
        for _ in range(copies):
            data = send.data
            if faulty and rnd.random() < network.corrupt:
                seen["corrupted"] += 1
                data = corrupted(data, rnd)
            slow = node.delay if faulty else 0
            self._at(self.now + slow + rnd.randint(1, network.slowest if faulty else 10), Send(send.to, data))

    # --- the end ----------------------------------------------------------------------------------

    def _outcome(self) -> Outcome:
        script, leader = self.script, self.leader
        healed = Counter(a.round for at, a in self._announcements if at >= script.network.heals_at)
        return Outcome(
            script,
            len(leader.results),
            len(leader.lost),
            leader.finished,
            len(self._announcements),
            max(healed.values(), default=0),
            self.now,
            self.observer.seen,
        )

    def _name(self, index: int) -> str:
        return "coordinator" if index == COORDINATOR else f"site {index}"

    def _note(self, text: str) -> None:
        if self._say:
            self._say(f"{self.now:6d} {text}")

    def _trace(self, node: SiteNode | CoordinatorNode, envelope: Envelope, step: Step) -> None:
        self.observer.seen["refused"] += step.refused is not None
        if envelope.kind == "compute" and node.index in self._restarted:
            # after a crash only stored bytes may leave; what was accepted and not stored is never computed again
            self._restarted.remove(node.index)
            assert step.dump is None, "a site uploaded in a slot that it had half done when it crashed"
            self.observer.seen["silent after a crash"] += step.refused is not None
        if self._say and (envelope.kind != "tick" or step.sends):
            sent = Counter(unpack_parts(send.data).kind for send in step.sends)
            said = ", ".join(f"{count} × {kind}" for kind, count in sent.items())
            result = f"refused: {step.refused}" if step.refused else said or ("stored" if step.dump else "nothing")
            self._note(f"{self._name(node.index)} takes {envelope.kind}: {result}")


def corrupted(data: bytes, rnd: random.Random) -> bytes:
    """One bit flipped, or the end cut off."""
    at = rnd.randrange(len(data))
    flipped = bytes((data[at] ^ (1 << rnd.randrange(8)),))
    return data[:at] if rnd.random() < 0.3 else data[:at] + flipped + data[at + 1 :]
