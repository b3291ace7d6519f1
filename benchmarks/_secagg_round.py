"""One slot between real machines: every upload timed, then the coordinator's part, repeated from stored bytes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from benchmarks._secagg_floor import Floor
from benchmarks._secagg_world import DEADLINE, INPUTS, LEDGER, NOW, POLICY, TASK, SlotShelf, World
from privfl.entropy import SYSTEM
from privfl.ring import Ring
from privfl.secagg import Announcement, CoordinatorMachine, Release, Shelf, SlotPlan, Upload, Vote

Tick = Callable[[str], None]


@dataclass(frozen=True)
class Shape:
    """What is measured: ``dropped`` of ``sites`` accept and then never upload."""

    sites: int
    length: int
    dropped: int
    ring: Ring
    degree: int
    committee: int

    @property
    def peers(self) -> int:
        """Neighbours of one site."""
        return self.degree or self.sites - 1


@dataclass
class Spool:
    """What reached the coordinator, as files: ``message`` and ``body`` per upload, ``vote``, ``release``."""

    folder: Path
    _counts: dict[str, int] = field(default_factory=dict)

    def add(self, kind: str, data: bytes) -> None:
        """Keep one message of a kind, after those that came before."""
        at = self.count(kind)
        (self.folder / f"{at}.{kind}").write_bytes(data)
        self._counts[kind] = at + 1

    def count(self, kind: str) -> int:
        """How many there are of a kind."""
        if kind not in self._counts:
            self._counts[kind] = sum(1 for _ in self.folder.glob(f"*.{kind}"))
        return self._counts[kind]

    def read(self, kind: str, at: int) -> bytes:
        """Message ``at`` of a kind."""
        return (self.folder / f"{at}.{kind}").read_bytes()

    def each(self, kind: str) -> Iterator[bytes]:
        """The messages of a kind in the order in which they came, one at a time."""
        return (self.read(kind, at) for at in range(self.count(kind)))


@dataclass
class SiteFigures:
    """Least seconds over the uploads of one run, and the bytes that one upload takes on the wire."""

    accept: float = float("inf")
    both: float = float("inf")
    floor: float = float("inf")
    bytes_: int = 0


@dataclass(frozen=True)
class Pass:
    """Seconds of one pass of the coordinator; see ``secagg.py`` for what each one covers."""

    receive: float
    add: float
    close: float
    votes: float
    releases: float
    finish: float
    publish: float
    relay: float

    @property
    def opening(self) -> float:
        """From the masked vectors to the sum: additions, releases, reconstruction, unmasking, decoding."""
        return self.add + self.releases + self.finish

    @property
    def total(self) -> float:
        """Everything that the machine does from the first upload on, in which each body is added once."""
        return self.receive + self.close + self.votes + self.releases + self.finish + self.publish + self.relay


class Slot:
    """One announced slot of a world, its spool, and the sum that it must give."""

    def __init__(self, world: World, shape: Shape, folder: Path) -> None:
        self.world, self.shape, self.spool = world, shape, Spool(folder)
        self.coordinator = world.open_epoch()
        record = self.coordinator.record
        plan = SlotPlan(
            TASK,
            INPUTS,
            POLICY,
            shape.ring.bits,
            shape.ring.word,
            shape.length,
            record.sites,
            False,
            world.rules.min_survivors,
            DEADLINE,
        )
        self.announcement: Announcement = self.coordinator.announce(plan, (1, 0))
        self.dump = self.coordinator.dump()
        rng = np.random.default_rng(1)
        gone = set(rng.choice(shape.sites, shape.dropped, replace=False).tolist())
        self.survivors = [site for at, site in enumerate(record.sites) if at not in gone]
        self.dropped = [site for at, site in enumerate(record.sites) if at in gone]
        self.expected: npt.NDArray[np.int64] = np.zeros(shape.length, np.int64)

    @property
    def threshold(self) -> int:
        """Votes and releases that open the slot; the coordinator takes in exactly so many."""
        return self.announcement.threshold

    def upload(self, floor: Floor, samples: int, tick: Tick) -> SiteFigures:
        """Let every survivor upload; about ``samples`` of them are timed, each right after the floor."""
        figures, shape = SiteFigures(), self.shape
        every = max(1, len(self.survivors) // samples)
        high = min(1000, shape.ring.reach // shape.sites)
        for at, site in enumerate(self.survivors):
            vector = np.random.default_rng(at).integers(-high, high + 1, shape.length)
            machine, timed = self.world.sites[site], at % every == 0
            if timed:
                figures.floor = floor.sample()
            start = time.perf_counter()
            machine.accept(self.announcement, now=NOW, ledger_head=LEDGER)
            accepted = time.perf_counter()
            out = machine.upload(self.announcement, vector, now=NOW)
            end = time.perf_counter()
            if timed:
                figures.accept = min(figures.accept, accepted - start)
                figures.both = min(figures.both, end - start)
            self.expected += vector
            message = out.message.encode()
            figures.bytes_ = max(figures.bytes_, len(message) + len(out.body))
            self.spool.add("message", message)
            self.spool.add("body", out.body)
            tick(f"upload {at + 1} of {len(self.survivors)}")
        return figures

    def convene(self, tick: Tick) -> None:
        """Take the uploads in, and let t living members vote and release; the bytes go into the spool."""
        world, coordinator = self.world, self.coordinator
        for message, body in zip(self.spool.each("message"), self.spool.each("body"), strict=True):
            coordinator.receive(Upload.decode(message), body)
        coordinator.close()
        alive = set(self.survivors)
        members = [member for member in coordinator.record.members if member in alive][: self.threshold]
        for at, member in enumerate(members):
            vote = world.sites[member].vote(coordinator.ask(member), now=NOW)
            coordinator.receive_vote(vote)
            self.spool.add("vote", vote.encode())
            tick(f"vote {at + 1} of {len(members)}")
        for at, member in enumerate(members):
            release = world.sites[member].release(coordinator.ask(member), now=NOW)
            coordinator.receive_release(release)
            self.spool.add("release", release.encode())
            tick(f"release {at + 1} of {len(members)}")

    def open(self) -> tuple[Pass, bool]:
        """One timed pass of the coordinator over the stored bytes; also whether its sum is exact."""
        world = self.world
        machine = CoordinatorMachine.load(world.coordinator_party, world.signed, SYSTEM, SlotShelf(), self.dump)
        timed, values = run_pass(machine, self.spool)
        return timed, bool(np.array_equal(values, self.expected))


def run_pass(machine: CoordinatorMachine, spool: Spool) -> tuple[Pass, npt.NDArray[np.int64]]:
    """The coordinator from the first upload to the sum, which comes back with the seconds."""
    added = _watch(machine._running_sum(), "apply_verified")
    published = _watch(machine, "_transcript")
    receive = 0.0
    for message, body in zip(spool.each("message"), spool.each("body"), strict=True):
        receive += _timed(lambda upload, vector: machine.receive(Upload.decode(upload), vector), message, body)
    del message, body
    close = _timed(machine.close)
    relay = _asked(machine, spool)
    votes = _each(spool, "vote", lambda raw: machine.receive_vote(Vote.decode(raw)))
    relay += _asked(machine, spool)
    releases = _each(spool, "release", lambda raw: machine.receive_release(Release.decode(raw)))
    start = time.perf_counter()
    opened, _ = machine.finish()
    finish, publish = time.perf_counter() - start, sum(published)
    return Pass(receive, sum(added), close, votes, releases, finish - publish, publish, relay), opened.array()


def _timed(work: Callable[..., object], *arguments: object) -> float:
    start = time.perf_counter()
    work(*arguments)
    return time.perf_counter() - start


def _watch(owner: object, name: str) -> list[float]:
    """Time every call of one method of one object, which stays what it was; returns the growing list of seconds."""
    method, seconds = getattr(owner, name), list[float]()

    def timed(*arguments: object) -> object:
        start = time.perf_counter()
        result = method(*arguments)
        seconds.append(time.perf_counter() - start)
        return result

    setattr(owner, name, timed)
    return seconds


def _each(spool: Spool, kind: str, work: Callable[[bytes], object]) -> float:
    return sum(_timed(work, raw) for raw in spool.each(kind))


def _asked(machine: CoordinatorMachine, spool: Spool) -> float:
    """Make the requests to the members that answered; returns the seconds."""
    members = [Vote.decode(raw).member for raw in spool.each("vote")]
    return sum(_timed(machine.ask, member) for member in members)


def best(passes: Sequence[Pass]) -> Pass:
    """The pass with the least opening time."""
    return min(passes, key=lambda one: one.opening)


__all__ = ["Pass", "Shape", "Shelf", "SiteFigures", "Slot", "Spool", "best", "run_pass"]
