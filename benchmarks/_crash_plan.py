"""Which process dies next, where, and when it is back: drawn from a seed, every point once before any twice."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

__all__ = ["AT_RANDOM", "Doom", "Plan", "plain"]

AT_RANDOM = "at a random instant"
RANDOM_SHARE = 0.25
COORDINATOR_SHARE = 0.1
ABSENT_SHARE = 0.2  # of the dead that stay away for a while; the others are back at once
LONGEST_ABSENCE = 1.5  # seconds
LONGEST_WAIT = 0.6  # before a death at a random instant


def plain(point: str) -> str:
    """A point without the request in hand: ``announce|ledger commit, after`` is ``ledger commit, after``."""
    return point.partition("|")[2]


@dataclass(frozen=True)
class Doom:
    """One death.

    Attributes:
        who: dies. point: ``doing|name``, empty for a random instant. count: at which passing of it.
        wait: seconds until a death at a random instant. absence: seconds until the process is started again.
    """

    who: str
    point: str = ""
    count: int = 1
    wait: float = 0.0
    absence: float = 0.0

    @property
    def at_start(self) -> bool:
        """Whether only a process that has just been started passes its point."""
        return self.point.startswith("start|")


class Plan:
    """Draws deaths.

    Args:
        seed: the same seed and the same points give the same deaths, as far as processes reach them in the same
            order. victims: the sites. coordinator: its name, empty if it is left alone.
        script: deaths to come first, in this order.
    """

    def __init__(self, seed: str, victims: Sequence[str], coordinator: str = "", script: Iterable[Doom] = ()) -> None:
        self._random = random.Random(seed)  # noqa: S311 — a plan of deaths is no secret
        self._victims, self._coordinator = tuple(victims), coordinator
        self._script: Iterator[Doom] = iter(tuple(script))
        self._known: dict[bool, set[str]] = {False: set(), True: set()}
        self.deaths: Counter[tuple[bool, str]] = Counter()  # by (whether the coordinator's, point)

    def learn(self, who: str, points: Iterable[str]) -> None:
        """Take in points that a process of ``who`` has passed."""
        self._known[who == self._coordinator].update(points)

    def dead(self, who: str, point: str) -> None:
        """Count a death."""
        self.deaths[who == self._coordinator, point or AT_RANDOM] += 1

    @property
    def missing(self) -> list[str]:
        """Plain points of sites at which nobody has died yet."""
        return sorted({plain(point) for point in self._known[False]} - self._plain(False).keys())

    def next(self, free: Sequence[str]) -> Doom | None:
        """The next death among ``free``, who are neither dead nor doomed; None if nobody is left to die."""
        scripted = next(self._script, None)
        if scripted is not None:
            return scripted
        sites = [who for who in free if who != self._coordinator]
        if self._coordinator in free and (not sites or self._random.random() < COORDINATOR_SHARE):
            who = self._coordinator
        elif sites:
            who = self._random.choice(sites)
        else:
            return None
        absence = self._random.uniform(0, LONGEST_ABSENCE) if self._random.random() < ABSENT_SHARE else 0.0
        if self._random.random() < RANDOM_SHARE or not self._known[who == self._coordinator]:
            return Doom(who, wait=self._random.uniform(0, LONGEST_WAIT), absence=absence)
        return Doom(who, self._point(who == self._coordinator), self._random.choice((1, 1, 1, 2)), absence=absence)

    def _point(self, coordinator: bool) -> str:
        """One of those where the fewest have died, by their plain names first."""
        deaths, known = self._plain(coordinator), sorted(self._known[coordinator])
        least = min(deaths[plain(point)] for point in known)
        rare = [point for point in known if deaths[plain(point)] == least]
        name = self._random.choice(sorted({plain(point) for point in rare}))
        here = [point for point in known if plain(point) == name]
        fewest = min(self.deaths[coordinator, point] for point in here)
        return self._random.choice([point for point in here if self.deaths[coordinator, point] == fewest])

    def _plain(self, coordinator: bool) -> Counter[str]:
        counts: Counter[str] = Counter()
        for (whose, point), count in self.deaths.items():
            if whose == coordinator:
                counts[plain(point)] += count
        return counts
