"""Graphs: regular, simple, symmetric, connected, the same everywhere; the survivor rule and its degrees."""

from __future__ import annotations

import hashlib
import json
import random
from math import ceil, lgamma, log, log2
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import hypergeom

from privfl.errors import Misuse, Refused
from privfl.secagg.graph import admissible, degree_for, graph_seed, neighbours, prune, required_neighbours

KAT = json.loads((Path(__file__).parents[1] / "vectors" / "secagg_prim_graph.json").read_text())
ROWS = [(300, 0.05, 0.05, 44), (300, 0.1, 0.1, 66), (1000, 0.05, 0.05, 52), (1000, 0.1, 0.1, 96), (1000, 0.2, 0.1, 140)]


def ids(n: int) -> list[bytes]:
    return [i.to_bytes(32, "big") for i in range(n)]


def seed(number: int) -> bytes:
    return hashlib.sha256(str(number).encode()).digest()


def edges(graph: dict[bytes, tuple[bytes, ...]]) -> list[list[int]]:
    pairs = ((int.from_bytes(a, "big"), int.from_bytes(b, "big")) for a in graph for b in graph[a] if a < b)
    return sorted([a, b] for a, b in pairs)


def assert_sound(graph: dict[bytes, tuple[bytes, ...]], n: int, degree: int) -> None:
    assert list(graph) == ids(n)
    for site, linked in graph.items():
        assert len(set(linked)) == len(linked) == degree
        assert list(linked) == sorted(linked)
        assert site not in linked
        assert all(site in graph[other] for other in linked)
    seen, frontier = set(), {ids(n)[0]}
    while frontier:
        seen |= frontier
        frontier = {other for site in frontier for other in graph[site]} - seen
    assert len(seen) == n


def test_known_answers() -> None:
    """Seeds and graphs equal those drawn by plain Python from the same words, so all platforms agree."""
    for case in KAT["seeds"]:
        assert graph_seed(bytes.fromhex(KAT["roster_seed"]), case["epoch"]).hex() == case["seed"]
    for case in KAT["small"]:
        assert edges(neighbours(ids(case["n"]), bytes.fromhex(case["seed"]), case["k"])) == case["edges"]
    for case in KAT["large"]:
        text = json.dumps(
            edges(neighbours(ids(case["n"]), bytes.fromhex(case["seed"]), case["k"])), separators=(",", ":")
        )
        assert hashlib.sha256(text.encode()).hexdigest() == case["sha256"]


@given(st.integers(4, 40), st.integers(3, 39), st.integers(0, 1000))
@settings(deadline=None)
def test_every_possible_small_graph_is_sound(n: int, degree: int, number: int) -> None:
    """Any k from 3 to N − 1 with N k even gives a simple, symmetric, connected, k-regular graph."""
    if degree >= n or n * degree % 2:
        with pytest.raises(Misuse):
            neighbours(ids(n), seed(number), degree)
    else:
        assert_sound(neighbours(ids(n), seed(number), degree), n, degree)


@pytest.mark.parametrize(("n", "number"), [(8, 5845), (8, 5851), (8, 7559), (6, 921), (6, 1174)])
def test_a_failed_drawing_is_drawn_again(n: int, number: int) -> None:
    """Seeds (found by search) whose first drawing falls apart, or gets stuck, end in a sound graph all the same."""
    assert_sound(neighbours(ids(n), seed(number), 3), n, 3)


@pytest.mark.parametrize(("n", "corrupt", "dropout", "degree"), ROWS)
def test_large_graphs_are_sound(n: int, corrupt: float, dropout: float, degree: int) -> None:
    """The degrees of the table give sound graphs."""
    assert degree_for(n, corrupt, dropout) == degree
    assert_sound(neighbours(ids(n), seed(1), degree), n, degree)


def test_complete_graph() -> None:
    """Without a degree everyone is everyone's neighbour; N − 1 draws the same graph."""
    assert_sound(neighbours(ids(7), None, None), 7, 6)
    assert neighbours(ids(7), seed(0), 6) == neighbours(ids(7), None, None)


def test_the_seed_decides() -> None:
    """The same seed gives the same graph, another roster seed or epoch one that shares few edges with it."""
    first, again, second = (
        edges(neighbours(ids(100), graph_seed(bytes([r]) * 32, epoch), 10)) for r, epoch in ((1, 1), (1, 1), (1, 2))
    )
    assert first == again
    shared = sum(edge in second for edge in first)
    assert shared < 110  # 500 edges, each shared with probability 10/99: mean 50, deviation below 7
    assert graph_seed(bytes(32), 1) != graph_seed(bytes([1]) * 32, 1)


def test_edges_fall_evenly() -> None:
    """Over many seeds every pair is joined equally often: no ring, no favoured neighbour; false alarm below 1e-6."""
    n, degree, trials = 12, 4, 1500
    counts = dict.fromkeys(((a, b) for a in range(n) for b in range(a)), 0)
    for number in range(trials):
        for a, b in edges(neighbours(ids(n), seed(number), degree)):
            counts[b, a] += 1
    p = degree / (n - 1)
    bound = 6.5 * (trials * p * (1 - p)) ** 0.5
    assert all(abs(count - trials * p) < bound for count in counts.values())


@pytest.mark.parametrize(("n", "corrupt", "dropout", "degree"), ROWS)
def test_nominal_dropout_passes_the_rule(n: int, corrupt: float, dropout: float, degree: int) -> None:
    """With the nominal share of sites absent every survivor keeps enough neighbours, for many seeds (attack 52)."""
    rng = random.Random(degree)
    for number in range(3):
        graph = neighbours(ids(n), seed(number), degree)
        for _ in range(20):
            survivors = rng.sample(ids(n), n - round(dropout * n))
            admissible(survivors, graph, degree, 2)
            assert prune(survivors, graph, degree, 2) == tuple(sorted(survivors))


def _log_pairings(pairs: float) -> float:
    return lgamma(2 * pairs + 1) - lgamma(pairs + 1) - pairs * log(2)


def _isolated(n: int, corrupt: int, degree: int, size: int) -> float:
    """log2 of a bound on: some honest set of ``size`` has at most k − ⌈0.6 k⌉ edges a site to honest outsiders.

    Exact in the pairing model, times the number of sets. The survivor rule makes it necessary for such a
    set to be cut off by a choice of dropouts.
    """
    stubs, outside = degree * size, n - size - corrupt
    limit = (degree - required_neighbours(degree)) * size
    terms = []
    for internal in range(stubs // 2 + 1):
        for out in range(min(limit, stubs - 2 * internal) + 1):
            to_corrupt = stubs - 2 * internal - out
            if to_corrupt > degree * corrupt:
                continue
            terms.append(
                lgamma(stubs + 1)
                - lgamma(2 * internal + 1)
                - lgamma(to_corrupt + 1)
                - lgamma(out + 1)
                + _log_pairings(internal)
                + lgamma(degree * corrupt + 1)
                - lgamma(degree * corrupt - to_corrupt + 1)
                + lgamma(degree * outside + 1)
                - lgamma(degree * outside - out + 1)
                + _log_pairings((degree * n - stubs - to_corrupt - out) / 2)
                - _log_pairings(degree * n / 2)
            )
    sets = lgamma(n - corrupt + 1) - lgamma(size + 1) - lgamma(n - corrupt - size + 1)
    top = max(terms)
    return (sets + top) / log(2) + log2(sum(2.0 ** ((term - top) / log(2)) for term in terms))


@pytest.mark.parametrize(("n", "corrupt", "dropout", "degree"), ROWS)
def test_the_degrees_keep_honest_survivors_together(n: int, corrupt: float, dropout: float, degree: int) -> None:
    """The table's degrees bound the odds of an isolated honest set by 2^-60, and of a failing rule by 2^-40.

    One site's neighbours are a uniform k-subset, because the drawing does not look at names: exact. For
    sets of two and more the pairing model stands in; larger sets matter less and less.
    """
    required = required_neighbours(degree)
    for sites in {201 if n == 300 else 301, (n + 201) // 2, n}:
        bad = int(corrupt * sites)
        assert sites * hypergeom.sf(required - 1, sites - 1, bad, degree) <= 2.0**-60
        odds = [_isolated(sites, bad, degree, size) for size in (2, 3, 4)]
        assert odds[0] <= -60
        assert odds[1] <= odds[0] - 20
        assert odds[2] <= odds[1] - 20
        lonely = hypergeom.sf(degree - required, sites - 1, round(dropout * sites), degree)
        assert sites * lonely <= 2.0**-40


def test_degrees_outside_the_table() -> None:
    """Small federations, more corruption or dropout than the table knows, and larger rosters get the complete graph."""
    assert degree_for(200, 0.0, 0.0) is None
    assert degree_for(201, 0.0, 0.0) == 44
    assert degree_for(201, 0.05, 0.06) == 66
    assert degree_for(301, 0.01, 0.01) == 52
    assert degree_for(250, 0.15, 0.05) == 140
    assert degree_for(1000, 0.201, 0.01) is None
    assert degree_for(1000, 0.05, 0.11) is None
    assert degree_for(1001, 0.05, 0.05) is None
    for wrong in ((1, 0.1, 0.1), (300, 1.0, 0.1), (300, -0.1, 0.1), (300, 0.1, 1.0), (300, float("nan"), 0.1)):
        with pytest.raises(Misuse):
            degree_for(*wrong)


def oracle_prune(survivors: set[bytes], graph: dict[bytes, tuple[bytes, ...]], required: int) -> set[bytes]:
    """Remove everyone below the rule at once, until nobody is."""
    while lonely := {site for site in survivors if len(survivors & set(graph[site])) < required}:
        survivors = survivors - lonely
    return survivors


@given(st.integers(0, 200), st.integers(3, 12), st.data())
@settings(deadline=None)
def test_pruning_finds_the_largest_admissible_set(number: int, degree: int, data: st.DataObject) -> None:
    """The result is admissible, is the fixed point of removing lonely sites, and contains every admissible subset."""
    graph = neighbours(ids(20), seed(number), degree)
    survivors = data.draw(st.sets(st.sampled_from(ids(20)), min_size=10))
    expected = oracle_prune(survivors, graph, ceil(0.6 * degree - 1e-9))
    if len(expected) < 14:  # ⌈2N/3⌉
        with pytest.raises(Refused):
            prune(survivors, graph, degree, 2)
        return
    kept = prune(survivors, graph, degree, 2)
    assert kept == tuple(sorted(expected))
    admissible(kept, graph, degree, 2)
    for extra in survivors - expected:
        with pytest.raises(Refused):
            admissible([*kept, extra], graph, degree, 2)
    with pytest.raises(Refused):
        prune(survivors, graph, degree, len(kept) + 1)


def test_required_share_is_exact() -> None:
    """⌈0.6 k⌉ in integers: no float rounding at multiples of five."""
    assert [required_neighbours(k) for k in (3, 4, 5, 10, 44, 52, 66, 96, 140)] == [2, 3, 3, 6, 27, 32, 40, 58, 84]


def test_an_isolating_survivor_set_is_refused() -> None:
    """A set that cuts a victim from its neighbours is refused, however large it is (attacks 17 and 29)."""
    graph = neighbours(ids(300), seed(4), 44)
    victim = ids(300)[123]
    survivors = set(ids(300)) - set(graph[victim][:18])
    with pytest.raises(Refused, match="1 survivors keep fewer than 27"):
        admissible(survivors, graph, 44, 2)
    assert prune(survivors, graph, 44, 2) == tuple(sorted(survivors - {victim}))
    admissible(survivors | {graph[victim][0]}, graph, 44, 2)


def test_the_least_size_of_a_survivor_set() -> None:
    """Complete graph: min_survivors is the whole rule. Sparse: at least two thirds of the roster as well."""
    complete = neighbours(ids(9), None, None)
    admissible(ids(9)[:5], complete, None, 5)
    assert prune(ids(9)[4::-1], complete, None, 5) == tuple(ids(9)[:5])
    for check in (admissible, prune):
        with pytest.raises(Refused, match="4"):
            check(ids(9)[:4], complete, None, 5)
    dense = neighbours(ids(31), seed(0), 28)
    admissible(ids(31)[:21], dense, 28, 5)
    for check in (admissible, prune):
        with pytest.raises(Refused):
            check(ids(31)[:20], dense, 28, 5)


def test_repeated_and_unknown_sites_are_refused() -> None:
    """A site named twice does not count twice, and strangers do not count (attacks 3 and 4)."""
    graph = neighbours(ids(9), None, None)
    for count in (4, 6):
        with pytest.raises(Refused, match="repeats"):
            admissible([*ids(9)[:count], ids(9)[0]], graph, None, 5)
    for check in (admissible, prune):
        with pytest.raises(Refused):
            check([*ids(9)[:4], b"stranger"], graph, None, 5)


@pytest.mark.parametrize(
    ("sites", "key", "degree"),
    [
        (ids(9)[::-1], None, None),
        ([*ids(9), ids(9)[-1]], None, None),
        (ids(1), None, None),
        (ids(9), seed(0), 3),
        (ids(10), seed(0), 2),
        (ids(10), seed(0), 0),
        (ids(10), seed(0), 10),
        (ids(10), None, 4),
        (ids(10), bytes(31), 4),
    ],
)
def test_impossible_graphs_are_refused(sites: list[bytes], key: bytes | None, degree: int | None) -> None:
    """Unsorted or repeated ids, odd N k, degrees outside 3..N − 1 and wrong seeds are the caller's mistake."""
    with pytest.raises(Misuse):
        neighbours(sites, key, degree)


def test_graph_seeds_are_checked() -> None:
    """A short roster seed or a negative epoch is refused."""
    for roster_seed, epoch in ((bytes(31), 0), (bytes(32), -1)):
        with pytest.raises(Misuse):
            graph_seed(roster_seed, epoch)
