"""Who masks with whom: the complete graph, or a random k-regular graph that every site computes itself.

The sparse graph is drawn over all sites of the roster from a public seed, with integers only, so all
sites on all platforms hold the same one. Neighbour lists never depend on who is present: absence
counts as dropout.

Survivor rule on sparse graphs: every u ∈ U keeps at least ⌈0.6 k⌉ of its full k neighbours in U, and U
holds at least ⌈2N/3⌉ sites. With the degrees of :func:`degree_for` an honest survivor is then cut off
from the others with probability at most 2^-60 over the seed (one site: hypergeometric, exact; larger
sets: in the pairing model), so the coordinator learns the honest sum and no part of it.

Source: Bell et al., Secure single-server aggregation with (poly)logarithmic overhead, CCS 2020; drawing
by the pairing model with the switchings of McKay and Wormald 1990.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from itertools import pairwise

import numpy as np
import numpy.typing as npt
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from privfl_keys.labels import Label, digest

from privfl.errors import Misuse, Refused

__all__ = [
    "Graph",
    "admissible",
    "check_degree",
    "degree_for",
    "graph_seed",
    "neighbours",
    "prune",
    "required_neighbours",
]

Graph = Mapping[bytes, tuple[bytes, ...]]

_SWITCH_TRIES = 10_000
_MIN_DEGREE = 3  # below this a random regular graph is not connected
_COMPLETE_UP_TO = 200
# (N up to, corrupt up to, dropout up to) -> k, all even; the tests recompute the odds behind every row.
_DEGREES = (
    (300, 0.05, 0.05, 44),
    (300, 0.10, 0.10, 66),
    (1000, 0.05, 0.05, 52),
    (1000, 0.10, 0.10, 96),
    (1000, 0.20, 0.10, 140),
)


def graph_seed(roster_graph_seed: bytes, epoch: int) -> bytes:
    """The 32-byte seed of one epoch's graph, SHA-256(label, roster.graph_seed, epoch).

    Raises:
        Misuse: a roster seed that is not 32 bytes, or a negative epoch.
    """
    if len(roster_graph_seed) != 32 or epoch < 0:
        raise Misuse("a graph seed comes from the roster's 32 bytes and an epoch number of 0 or more")
    return digest(Label.GRAPH, roster_graph_seed, epoch)


def degree_for(n: int, corrupt_fraction: float, dropout_fraction: float) -> int | None:
    """The degree k for ``n`` roster sites, or None for the complete graph.

    Args:
        n: sites in the roster, at most 1000 for a sparse graph.
        corrupt_fraction: largest share of corrupt sites, fixed before the graph seed was drawn.
        dropout_fraction: share of sites that may be absent without stopping the round.

    Raises:
        Misuse: fewer than two sites, or a fraction outside [0, 1).
    """
    if n < 2 or not (0 <= corrupt_fraction < 1 and 0 <= dropout_fraction < 1):
        raise Misuse("a graph needs two or more sites, and fractions from 0 up to but not including 1")
    if n <= _COMPLETE_UP_TO:
        return None
    for sites, corrupt, dropout, degree in _DEGREES:
        if n <= sites and corrupt_fraction <= corrupt and dropout_fraction <= dropout:
            return degree
    return None


def check_degree(n: int, corrupt: int, degree: int) -> None:
    """Refuse a sparse graph on which corrupt sites may surround an honest one.

    Args:
        n: sites in the roster. corrupt: c. degree: k of the roster, 0 for the complete graph.

    Raises:
        Refused: the table of degrees asks for a larger k, or for the complete graph.
    """
    needed = degree_for(n, corrupt / n, 0.0)
    if degree and (needed is None or degree < needed):
        raise Refused(
            f"degree {degree} hides nobody when {corrupt} of {n} sites may be corrupt; the authority must sign a "
            f"roster with {'the complete graph (degree 0)' if needed is None else f'degree {needed} or more'}"
        )


def neighbours(ids: Sequence[bytes], seed: bytes | None, degree: int | None) -> dict[bytes, tuple[bytes, ...]]:
    """Every site's neighbours, sorted.

    Args:
        ids: the roster's site ids, strictly sorted, two or more.
        seed: 32 bytes from :func:`graph_seed`; None on the complete graph.
        degree: k, from 3 to N − 1 with N k even, or None for the complete graph.

    Returns:
        A simple, symmetric, connected graph in which every site has exactly ``degree`` neighbours.

    Raises:
        Misuse: ids unsorted or repeated, an impossible degree, a seed that is not 32 bytes.
    """
    n = len(ids)
    if n < 2 or any(a >= b for a, b in pairwise(ids)):
        raise Misuse("a graph is drawn over two or more site ids, sorted and without repeats")
    if degree is None:
        members = tuple(ids)
        return {site: members[:i] + members[i + 1 :] for i, site in enumerate(members)}
    if not _MIN_DEGREE <= degree < n or n * degree % 2:
        raise Misuse(f"no usable {degree}-regular graph over {n} sites: take {_MIN_DEGREE} <= k < N with N k even")
    if seed is None or len(seed) != 32:
        raise Misuse("a sparse graph is drawn from a 32-byte seed; see graph_seed")
    # The complement of a regular graph is regular too, and the sparser of the two is quick to draw.
    dense = degree > (n - 1) // 2
    drawn = n - 1 - degree if dense else degree
    attempt = 0
    while (adjacent := _regular(n, drawn, _Draws(seed, attempt))) is None or not (dense or _connected(adjacent)):
        attempt += 1
    if dense:  # every degree of at least n / 2 is connected
        everyone = set(range(n))
        adjacent = [everyone - linked - {i} for i, linked in enumerate(adjacent)]
    return {site: tuple(ids[j] for j in sorted(adjacent[i])) for i, site in enumerate(ids)}


class _Draws:
    """Public random 64-bit words, AES-256-CTR under SHA-256(label, seed, attempt); the same on every machine."""

    def __init__(self, seed: bytes, attempt: int) -> None:
        key = digest(Label.GRAPH, seed, "attempt", attempt)
        self._context = Cipher(algorithms.AES256(key), modes.CTR(bytes(16))).encryptor()

    def words(self, count: int) -> npt.NDArray[np.uint64]:
        return np.frombuffer(self._context.update(bytes(8 * count)), dtype="<u8").astype(np.uint64)

    def below(self, bound: int) -> int:
        """A number in 0..bound − 1; the bias of at most bound / 2^64 is of no account for a public graph."""
        return int.from_bytes(self._context.update(bytes(8)), "little") % bound


def _regular(n: int, degree: int, draws: _Draws) -> list[set[int]] | None:
    """Pair the n k stubs at random, then switch each loop and repeated edge away; None when that gets stuck."""
    stubs = np.argsort(draws.words(n * degree), kind="stable") // max(degree, 1)
    adjacent: list[set[int]] = [set() for _ in range(n)]
    edges: list[tuple[int, int]] = []
    broken: list[tuple[int, int]] = []
    for u, v in stubs.reshape(-1, 2).tolist():
        if u == v or v in adjacent[u]:
            broken.append((u, v))
        else:
            adjacent[u].add(v)
            adjacent[v].add(u)
            edges.append((u, v))
    return adjacent if all(_switch(u, v, adjacent, edges, draws) for u, v in broken) else None


def _switch(u: int, v: int, adjacent: list[set[int]], edges: list[tuple[int, int]], draws: _Draws) -> bool:
    """Replace the unusable edge uv and a random edge xy by ux and vy; False after many tries, on tiny graphs only."""
    for _ in range(_SWITCH_TRIES if edges else 0):
        at = draws.below(2 * len(edges))
        x, y = edges[at >> 1] if at & 1 else edges[at >> 1][::-1]
        if u != x and v != y and x not in adjacent[u] and y not in adjacent[v]:
            adjacent[x].remove(y)
            adjacent[y].remove(x)
            for a, b in ((u, x), (v, y)):
                adjacent[a].add(b)
                adjacent[b].add(a)
            edges[at >> 1] = (u, x)
            edges.append((v, y))
            return True
    return False


def _connected(adjacent: Sequence[set[int]]) -> bool:
    seen, frontier = {0}, {0}
    while frontier:
        frontier = set().union(*(adjacent[u] for u in frontier)) - seen
        seen |= frontier
    return len(seen) == len(adjacent)


def required_neighbours(degree: int) -> int:
    """⌈0.6 k⌉: how many of its k neighbours a survivor keeps."""
    return -(-3 * degree // 5)


def _minimum(graph: Graph, degree: int | None, min_survivors: int) -> int:
    return min_survivors if degree is None else max(min_survivors, -(-2 * len(graph) // 3))


def admissible(survivors: Collection[bytes], graph: Graph, degree: int | None, min_survivors: int) -> None:
    """Check a survivor set against the survivor rule.

    Args:
        survivors: U.
        graph: from :func:`neighbours`, over the whole roster.
        degree: k, or None on the complete graph, where ``|U| ≥ min_survivors`` is the whole rule.
        min_survivors: the policy's least |U|; on a sparse graph never below ⌈2N/3⌉.

    Raises:
        Refused: U repeats a site, names one outside the graph, is too small, or leaves a site too few neighbours.
    """
    members = set(survivors)
    if len(members) != len(survivors) or not members <= graph.keys():
        raise Refused("a survivor set repeats a site or names one outside the roster; nothing is released for it")
    least = _minimum(graph, degree, min_survivors)
    if len(members) < least:
        raise Refused(
            f"{len(members)} survivors are fewer than the {least} that the policy asks for; start a new round"
        )
    if degree is not None:
        required = required_neighbours(degree)
        lonely = sum(len(members.intersection(graph[site])) < required for site in members)
        if lonely:
            raise Refused(
                f"{lonely} survivors keep fewer than {required} of {degree} neighbours; prune the set and ask again"
            )


def prune(survivors: Collection[bytes], graph: Graph, degree: int | None, min_survivors: int) -> tuple[bytes, ...]:
    """The largest admissible subset of ``survivors``, sorted.

    On a sparse graph sites with too few neighbours left are taken out until none is; the union of two
    sets that satisfy the rule satisfies it, so the result does not depend on the order.

    Raises:
        Refused: no subset is admissible, or a site is outside the graph.
    """
    members = set(survivors)
    if not members <= graph.keys():
        raise Refused("a survivor set names a site outside the roster")
    if degree is not None:
        required = required_neighbours(degree)
        kept = {site: len(members.intersection(graph[site])) for site in members}
        lonely = [site for site, count in kept.items() if count < required]
        while lonely:
            site = lonely.pop()
            members.remove(site)
            for other in members.intersection(graph[site]):
                kept[other] -= 1
                if kept[other] == required - 1:
                    lonely.append(other)
    least = _minimum(graph, degree, min_survivors)
    if len(members) < least:
        raise Refused(f"only {len(members)} sites can be summed up, {least} are needed; start a new round")
    return tuple(sorted(members))
