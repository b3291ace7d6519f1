"""The epoch record: who is in, who sits on the committee, and the numbers that follow from the roster.

Nothing in a record is a choice of the coordinator except which of the willing sites it lists; every
site recomputes the rest from the roster that the authority signed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache

from privfl_keys import Roster, voted_threshold

from privfl.errors import Refused
from privfl.secagg import graph
from privfl.secagg.messages import Advert, Confirmations, EpochRecord, Scope, join, split

__all__ = [
    "build_record",
    "check_record",
    "committee_of",
    "full_neighbours",
    "merge_disputes",
    "mutually_confirmed",
    "potential_neighbours",
    "sparse_graph",
]


@lru_cache(maxsize=16)
def _sparse_graph(sites: tuple[bytes, ...], seed: bytes, degree: int) -> dict[bytes, tuple[bytes, ...]]:
    return graph.neighbours(sites, seed, degree)


def sparse_graph(roster: Roster, scope: Scope) -> dict[bytes, tuple[bytes, ...]] | None:
    """The epoch's k-regular graph over *all* roster sites; None where the graph is complete.

    It is drawn over the whole roster, so that no choice of cohort can surround a victim with chosen
    neighbours: absence counts as dropout.
    """
    if not roster.degree:
        return None
    return _sparse_graph(roster.site_ids, graph.graph_seed(roster.graph_seed, scope.epoch), roster.degree)


def full_neighbours(roster: Roster, scope: Scope, site: bytes) -> tuple[bytes, ...] | None:
    """A site's k neighbours on the sparse graph, sorted; None on the complete graph."""
    sparse = sparse_graph(roster, scope)
    return None if sparse is None else sparse[site]


def potential_neighbours(roster: Roster, scope: Scope, site: bytes) -> frozenset[bytes]:
    """Every site with which ``site`` may need a pair key in this epoch."""
    near = full_neighbours(roster, scope, site)
    return frozenset(roster.site_ids if near is None else near) - {site}


def committee_of(roster: Roster, present: Sequence[bytes]) -> tuple[tuple[bytes, ...], int, int]:
    """Return (members in order, c_L, t): everyone present, or the committee that the roster fixes."""
    everyone = not roster.committee
    members = tuple(sorted(present)) if everyone else roster.committee
    corrupt = min(roster.corrupt_bound, len(members)) if everyone else roster.committee_corrupt
    return members, corrupt, voted_threshold(len(members), corrupt)


def build_record(
    roster: Roster, scope: Scope, adverts: Sequence[Advert], confirmations: Sequence[Confirmations]
) -> EpochRecord:
    """Coordinator: fix the record from verified adverts and confirmations.

    On the complete graph, sites are left out (worst connected first) until every remaining pair has
    confirmed each other in both directions.
    """
    confirmed = {message.site for message in confirmations}
    present = {advert.site: advert for advert in adverts if advert.site in confirmed}
    if not roster.degree:
        kept = mutually_confirmed(roster, scope, tuple(present), confirmations)
        present = {site: present[site] for site in kept}
    if len(present) < roster.corrupt_bound + 2:
        raise Refused(
            f"only {len(present)} sites confirmed their pair keys; an epoch needs at least "
            f"{roster.corrupt_bound + 2}; next step: see why at the sites and in the coordinator's log, and try again"
        )
    members, corrupt, threshold = committee_of(roster, tuple(present))
    ordered = tuple(present[site] for site in sorted(present))
    return EpochRecord(scope, ordered, join(members), roster.corrupt_bound, corrupt, threshold, roster.degree)


def mutually_confirmed(
    roster: Roster, scope: Scope, sites: Sequence[bytes], confirmations: Sequence[Confirmations]
) -> tuple[bytes, ...]:
    """``sites``, sorted, less the worst connected until every two neighbours left have confirmed each other.

    A site never skips a neighbour, so one that confirms with few would silence many if it stayed.
    """
    confirmed = {message.site: frozenset(split(message.peers)) for message in confirmations}
    present = {site for site in sites if site in confirmed}
    unmet = {
        site: {
            other
            for other in potential_neighbours(roster, scope, site) & present
            if other not in confirmed[site] or site not in confirmed[other]
        }
        for site in sorted(present)
    }
    while any(unmet.values()):
        worst = max(unmet, key=lambda site: len(unmet[site]))
        for other in unmet.pop(worst):
            unmet[other].remove(worst)
    return tuple(unmet)


def check_record(roster: Roster, record: EpochRecord, scope: Scope, verify: Callable[[Advert], None]) -> None:
    """Check every field of a record against the roster.

    Raises:
        Refused: a number, the committee or the order is not what the roster gives.
        Theirs: an advert that does not verify.
    """
    if record.scope != scope:
        raise Refused("the epoch record names another epoch, roster or federation")
    if list(record.sites) != sorted(set(record.sites)):
        raise Refused("the epoch record's sites are not sorted, or one appears twice")
    if len(record.sites) < roster.corrupt_bound + 2:
        raise Refused(f"an epoch of {len(record.sites)} sites is smaller than the {roster.corrupt_bound + 2} needed")
    for advert in record.adverts:
        verify(advert)
    members, corrupt, threshold = committee_of(roster, record.sites)
    expected = (join(members), roster.corrupt_bound, corrupt, threshold, roster.degree)
    given = (record.committee, record.corrupt, record.committee_corrupt, record.threshold, record.degree)
    if given != expected:
        raise Refused("the epoch record's committee, bounds, threshold or graph are not those of the roster")


def merge_disputes(disputes: Sequence[tuple[bytes, bytes]], corrupt: int) -> frozenset[bytes]:
    """Sites to drop so that no disputed pair remains: those with > c disputes, then a maximal matching.

    A pair of honest sites never disagrees, so every dispute has a corrupt end; a site with more than
    ``corrupt`` disputes is corrupt itself, and dropping both ends of a matching costs at most one
    honest site per corrupt one.
    """
    count: dict[bytes, int] = {}
    for pair in disputes:
        for site in pair:
            count[site] = count.get(site, 0) + 1
    dropped = {site for site, edges in count.items() if edges > corrupt}
    for low, high in sorted(disputes):
        if low not in dropped and high not in dropped:
            dropped |= {low, high}
    return frozenset(dropped)
