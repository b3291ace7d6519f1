"""What goes wrong in one run, as values: drawn from the seed before the run starts, printed when it fails.

A script names everything that chance decides about the world outside the machines. Message faults are
drawn as messages are sent, from the same seed, so a seed replays the run.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from enum import StrEnum

__all__ = ["CRASH_POINTS", "Crash", "Dead", "Fork", "Kind", "Lie", "Network", "Operation", "Script", "Slow"]


class Kind(StrEnum):
    """Which promise a run is held to beyond the invariants."""

    CALM = "calm"  # no faults: every round opens at its first attempt
    MISSING = "missing"  # at most c sites dead from the start, nothing else: the same
    HEALING = "healing"  # faults of every kind until they heal, at most c sites dead: every round opens
    NOISELESS = "noiseless"  # faults of every kind, sums without noise: no question is opened twice
    HOSTILE = "hostile"  # faults of every kind, and a coordinator that lies and goes back in time: invariants only


CRASH_POINTS = ("before storing", "after storing", "while sending")


@dataclass(frozen=True)
class Operation:
    """Something that happens at ``at`` (virtual milliseconds)."""

    at: int


@dataclass(frozen=True)
class Crash(Operation):
    """The node (a site's index, −1 the coordinator) crashes at ``point`` of its next step; up again after ``pause``."""

    node: int
    point: str
    pause: int


@dataclass(frozen=True)
class Dead(Operation):
    """A site falls silent for good."""

    node: int


@dataclass(frozen=True)
class Slow(Operation):
    """Everything a site sends takes ``delay`` longer."""

    node: int
    delay: int


@dataclass(frozen=True)
class Lie(Operation):
    """The coordinator shows members other survivor sets than its own until ``until``."""

    until: int


@dataclass(frozen=True)
class Fork(Operation):
    """The coordinator is restarted from an old copy of its state, ``steps`` stores back."""

    steps: int


@dataclass(frozen=True)
class Network:
    """Odds per message while faults last, and delays in milliseconds."""

    drop: float = 0.0
    duplicate: float = 0.0
    corrupt: float = 0.0
    slowest: int = 10
    heals_at: int = 0


@dataclass(frozen=True)
class Script:
    """One run: size, mode, faults and operations."""

    seed: int
    kind: Kind
    sites: int
    rounds: int
    length: int
    complete: bool
    fresh_epoch: bool  # set the epoch up inside the run, under its faults
    reload: bool  # dump and load every machine at every step
    network: Network
    operations: tuple[Operation, ...]

    @property
    def promised(self) -> bool:
        """Whether every round of this run must open."""
        return self.kind in (Kind.CALM, Kind.MISSING, Kind.HEALING)

    @property
    def dead(self) -> int:
        """How many sites fall silent for good."""
        return len({each.node for each in self.operations if isinstance(each, Dead)})

    @staticmethod
    def from_seed(seed: int) -> Script:
        """Draw a script; the seed decides everything."""
        rnd = random.Random(seed)
        kind = rnd.choices(list(Kind), weights=(1, 2, 9, 3, 5))[0]
        sites = rnd.choices((3, 4, 5, 6, 7), weights=(3, 6, 4, 2, 2))[0]
        complete = rnd.random() < (0.6 if sites == 3 else 0.15)
        faulty = kind not in (Kind.CALM, Kind.MISSING)
        heals = rnd.randrange(500, 9000) if faulty else 0
        network = Network(
            drop=rnd.choice((0.0, 0.05, 0.3, 0.6)) if faulty else 0.0,
            duplicate=rnd.choice((0.0, 0.1, 0.3)) if faulty else 0.0,
            corrupt=rnd.choice((0.0, 0.02, 0.1)) if faulty else 0.0,
            slowest=rnd.choice((5, 40, 250)) if faulty else 10,
            heals_at=heals,
        )
        can_miss = 0 if complete or sites == 3 or kind is Kind.CALM else (sites - 1) // 3
        gone = rnd.sample(range(sites), rnd.randint(1, can_miss)) if can_miss else []
        operations: list[Operation] = [Dead(rnd.randrange(heals) if heals else 0, node) for node in gone]
        if faulty:
            operations += [_crash(rnd, sites, heals) for _ in range(rnd.choice((0, 1, 3, 8, 20)))]
            if rnd.random() < 0.5:
                operations.append(Slow(rnd.randrange(heals), rnd.randrange(sites), rnd.choice((300, 1500))))
        if kind is Kind.HOSTILE:
            operations += [Lie(rnd.randrange(heals), heals) for _ in range(rnd.randrange(1, 3))]
            operations += [Fork(rnd.randrange(heals), rnd.randrange(1, 12)) for _ in range(rnd.randrange(3))]
        return Script(
            seed=seed,
            kind=kind,
            sites=sites,
            rounds=3,
            length=rnd.choice((1, 3, 8)),
            complete=complete,
            fresh_epoch=rnd.random() < 0.15,
            reload=rnd.random() < 0.25,
            network=network,
            operations=tuple(sorted(operations, key=lambda each: each.at)),
        )


def _crash(rnd: random.Random, sites: int, heals: int) -> Crash:
    return Crash(rnd.randrange(heals), rnd.randrange(-1, sites), rnd.choice(CRASH_POINTS), rnd.choice((1, 300, 3000)))
