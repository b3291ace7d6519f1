"""The numeric rules of a roster: how many may be corrupt, and what that asks of quorums.

``N`` sites, of which at most ``c`` are corrupt; a committee of ``L``, of which at most ``c_L`` are.
All are pure functions, so the table of ``docs/protocol.md`` is a test.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from itertools import pairwise
from math import comb
from typing import Final

from privfl_keys.errors import Misuse

__all__ = [
    "EVERYONE_SITS",
    "NO_SITE_COLLUDES",
    "check_bounds",
    "check_min_survivors",
    "committee_risk",
    "complete_threshold",
    "default_committee_corrupt",
    "default_corrupt_bound",
    "default_min_survivors",
    "equivocation_bound",
    "rising",
    "voted_threshold",
]

NO_SITE_COLLUDES: Final = "no site colludes"
EVERYONE_SITS: Final = 64  # up to this many sites, every site is in the committee


def default_corrupt_bound(sites: int) -> int:
    """c = ⌊(N − 1)/3⌋, and 1 for N = 3.

    Raises:
        Misuse: fewer than three sites, where any collusion unmasks the other; ``c = 0`` has to be
            asked for by name.
    """
    if sites < 3:
        raise Misuse(
            f"with {sites} site(s) nothing is left to hide among; enrol a third, or state "
            f"corrupt_bound={NO_SITE_COLLUDES!r} if you accept that any collusion reveals a site's vector"
        )
    return 1 if sites == 3 else (sites - 1) // 3


def default_committee_corrupt(size: int, corrupt: int, everyone: bool) -> int:
    """c_L: min(c, L) if every site sits in the committee, else min(c, ⌊(L − 1)/3⌋)."""
    return min(corrupt, size) if everyone else min(corrupt, (size - 1) // 3)


def voted_threshold(size: int, corrupt: int) -> int:
    """t = ⌊(L + c_L)/2⌋ + 1: two certificates share 2t − L > c_L members, so at least an honest one.

    Raises:
        Misuse: t > L (the honest members could not certify) or t < 2 (one member could).
    """
    threshold = (size + corrupt) // 2 + 1
    if not 2 <= threshold <= size:
        raise Misuse(
            f"a committee of {size} with {corrupt} corrupt members needs {threshold} votes, outside [2, {size}]; "
            "enlarge the committee or lower the bound"
        )
    return threshold


def complete_threshold(size: int, corrupt: int) -> int:
    """t = max(2, c_L + 1), for slots whose survivors can only be the whole cohort.

    Raises:
        Misuse: t > L.
    """
    threshold = max(2, corrupt + 1)
    if threshold > size:
        raise Misuse(
            f"a committee of {size} cannot give {threshold} shares; enlarge the committee or lower the bound {corrupt}"
        )
    return threshold


def equivocation_bound(size: int, threshold: int) -> int:
    """2t − L: how many members must break the one-vote rule before two survivor sets are certified."""
    return 2 * threshold - size


def default_min_survivors(sites: int, corrupt: int) -> int:
    """max(N − c, c + 2); at least two honest sites are in every sum."""
    return max(sites - corrupt, corrupt + 2)


def check_min_survivors(minimum: int, sites: int, corrupt: int) -> None:
    """Refuse a minimum that would let the corrupt sites isolate one honest vector, or that cannot be met.

    Raises:
        Misuse: below c + 2, or above N.
    """
    if minimum < corrupt + 2:
        raise Misuse(
            f"min_survivors {minimum} leaves fewer than two honest sites in a sum when {corrupt} collude; "
            f"ask for at least {corrupt + 2}"
        )
    if minimum > sites:
        raise Misuse(f"min_survivors {minimum} exceeds the {sites} sites there are; lower it or enrol more sites")


def check_bounds(
    site_ids: Sequence[bytes], committee: Sequence[bytes], corrupt: int, committee_corrupt: int, assumption: str
) -> None:
    """Check c, the committee and c_L of a roster against each other.

    Args:
        site_ids: ids of the N sites.
        committee: ids of the L seats; empty when every site sits, which is the rule up to 64 sites.
        corrupt: c.
        committee_corrupt: c_L.
        assumption: :data:`NO_SITE_COLLUDES` exactly when c = 0, else empty.

    Raises:
        Misuse: a rule is broken; the message names it.
    """
    sites, size = len(site_ids), len(committee) or len(site_ids)
    if assumption != (NO_SITE_COLLUDES if corrupt == 0 else ""):
        raise Misuse(f"c = 0 is asked for by name, corrupt_bound={NO_SITE_COLLUDES!r}, and by nothing else")
    if not 0 <= corrupt <= sites - 2:
        raise Misuse(f"c = {corrupt} of {sites} sites leaves fewer than two honest ones; enrol more or correct c")
    if bool(committee) != (sites > EVERYONE_SITS):
        raise Misuse(
            f"up to {EVERYONE_SITS} sites all sit in the committee, which stays empty in the roster; "
            f"more need one that is named, and here are {sites} sites with {len(committee)} named"
        )
    if not rising(committee) or set(committee) - set(site_ids):
        raise Misuse("the committee names sites of this roster, sorted by id, none twice")
    if not committee and committee_corrupt != corrupt:
        raise Misuse(f"when every site sits in the committee, committee_corrupt is c = {corrupt}")
    if committee_corrupt > corrupt or (committee_corrupt == 0 and corrupt > 0):
        raise Misuse(f"committee_corrupt {committee_corrupt} is outside [1, c = {corrupt}]; correct it")
    voted_threshold(size, committee_corrupt)
    complete_threshold(size, committee_corrupt)


def rising(ids: Sequence[bytes]) -> bool:
    """Whether ids are strictly rising, hence distinct."""
    return all(low < high for low, high in pairwise(ids))


def committee_risk(sites: int, corrupt: int, size: int, committee_corrupt: int) -> Fraction:
    """Probability that a committee of ``size`` drawn at random holds more than ``committee_corrupt`` of the corrupt.

    Exact hypergeometric tail, in [0, 1]; an authority looks at it before it signs a committee smaller
    than the roster.

    Raises:
        Misuse: the numbers are not 0 ≤ c ≤ N and 1 ≤ L ≤ N.
    """
    if not (0 <= corrupt <= sites and 1 <= size <= sites):
        raise Misuse("a committee is drawn from the roster: 0 ≤ c ≤ N and 1 ≤ L ≤ N")
    bad = sum(
        comb(corrupt, k) * comb(sites - corrupt, size - k)
        for k in range(committee_corrupt + 1, min(corrupt, size) + 1)
        if size - k <= sites - corrupt
    )
    return Fraction(bad, comb(sites, size))
