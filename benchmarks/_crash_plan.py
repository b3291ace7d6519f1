"""Which process dies next, where, and when it is back: drawn from a seed, every point once before any twice."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace

__all__ = ["AT_RANDOM", "Doom", "Plan", "plain"]

AT_RANDOM = "at a random instant"
RANDOM_SHARE = 0.25
COORDINATOR_SHARE = 0.1
ABSENT_SHARE = 0.2  # of the dead that stay away for a while; the others are back at once
LONGEST_ABSENCE = 1.5  # seconds
_OFTEN = ("announce|", "ask-", "acknowledge|")
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

    @property
    def often(self) -> bool:
        """Whether its point is passed in every slot, and not only in some epochs."""
        return self.point.startswith(_OFTEN)


class Plan:
    """Draws deaths.

    Args:
        seed: the same seed and the same points give the same deaths, as far as processes reach them in the same
            order. victims: the sites. coordinator: its name, empty if it is left alone.
        script: all deaths there are, in this order; empty: they are drawn.
        wanted: plain points at which sites are to die, not while they start; empty: all that are passed.
    """

    def __init__(
        self,
        seed: str,
        victims: Sequence[str],
        coordinator: str = "",
        script: Iterable[Doom] = (),
        wanted: Collection[str] = (),
    ) -> None:
        self._random = random.Random(seed)  # noqa: S311 — a plan of deaths is no secret
        self._victims, self._coordinator = tuple(victims), coordinator
        self._script = list(script)[::-1]
        self._drawn = not self._script
        self._wanted = frozenset(wanted)
        self._known: dict[bool, set[str]] = {False: set(), True: set()}
        self._tries: Counter[tuple[bool, str]] = Counter()
        self.deaths: Counter[tuple[bool, str]] = Counter()  # by (whether the coordinator's, point)

    def learn(self, who: str, points: Iterable[str]) -> None:
        """Take in points that a process of ``who`` has passed."""
        if self._wanted and who != self._coordinator:
            points = [at for at in points if plain(at) in self._wanted and not at.startswith("start|")]
        self._known[who == self._coordinator].update(points)

    def dead(self, who: str, point: str) -> None:
        """Count a death."""
        self.deaths[who == self._coordinator, point or AT_RANDOM] += 1

    @property
    def missing(self) -> list[str]:
        """Plain points of sites at which nobody has died yet, however often it was tried."""
        known = self._wanted or {plain(point) for point in self._known[False]}
        return sorted(known - {plain(point) for coordinator, point in self.deaths if not coordinator})

    def next(self, free: Sequence[str]) -> Doom | None:
        """The next death among ``free``, who are neither dead nor doomed; None if nobody is left to die
        or a script is at its end."""
        if not self._drawn:
            return self._script.pop() if self._script else None
        sites = [who for who in free if who != self._coordinator]
        if self._coordinator in free and (not sites or self._random.random() < COORDINATOR_SHARE):
            who = self._coordinator
        elif sites:
            who = self._random.choice(sites)
        else:
            return None
        absence = self._random.uniform(0, LONGEST_ABSENCE) if self._random.random() < ABSENT_SHARE else 0.0
        share = RANDOM_SHARE / 3 if self._wanted else RANDOM_SHARE
        if self._random.random() < share or not self._known[who == self._coordinator]:
            return Doom(who, wait=self._random.uniform(0, LONGEST_WAIT), absence=absence)
        doom, count = Doom(who, self._point(who == self._coordinator), 1, 0, absence), self._random.choice((1, 1, 1, 2))
        return replace(doom, count=count) if doom.often else doom

    def _point(self, coordinator: bool) -> str:
        """One of those at which nobody has died, then those tried least, by their plain names first.

        Some are passed seldom or never again: after three tries in vain they are like any other.
        """
        known = sorted(self._known[coordinator])
        tries: Counter[str] = Counter()
        for point in known:
            tries[plain(point)] += self._tries[coordinator, point]
        died = {plain(point) for whose, point in self.deaths if whose == coordinator}
        tries = Counter({name: count for name, count in tries.items() if name not in died and count < 3}) or tries
        least = min(tries.values())
        name = self._random.choice(sorted(name for name, count in tries.items() if count == least))
        here = [point for point in known if plain(point) == name]
        fewest = min(self._tries[coordinator, point] for point in here)
        point = self._random.choice([point for point in here if self._tries[coordinator, point] == fewest])
        self._tries[coordinator, point] += 1
        return point
