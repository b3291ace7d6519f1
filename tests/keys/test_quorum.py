"""The numeric rules of a roster: the table of docs/protocol.md, and what the bounds promise."""

from __future__ import annotations

from fractions import Fraction
from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from privfl_keys import (
    Misuse,
    check_min_survivors,
    committee_risk,
    complete_threshold,
    default_committee_corrupt,
    default_corrupt_bound,
    default_min_survivors,
    equivocation_bound,
    voted_threshold,
)

TABLE = [  # N, complete, c, t, silent members, breaks at, min, honest in the sum
    (3, True, 1, 2, 1, 2, 3, 2),
    (4, False, 1, 3, 1, 2, 3, 2),
    (5, False, 1, 4, 1, 3, 4, 3),
    (7, False, 2, 5, 2, 3, 5, 3),
    (10, False, 3, 7, 3, 4, 7, 4),
    (12, False, 3, 8, 4, 4, 9, 6),
]


@pytest.mark.parametrize(("n", "complete", "c", "t", "silent", "breaks", "minimum", "honest"), TABLE)
def test_the_table_of_the_protocol(
    n: int, complete: bool, c: int, t: int, silent: int, breaks: int, minimum: int, honest: int
) -> None:
    """Defaults give every figure of the published table."""
    corrupt = default_corrupt_bound(n)
    seats = default_committee_corrupt(n, corrupt, everyone=True)
    threshold = (complete_threshold if complete else voted_threshold)(n, seats)
    survivors = default_min_survivors(n, corrupt)
    assert (corrupt, threshold, n - threshold, survivors, survivors - corrupt) == (c, t, silent, minimum, honest)
    assert (threshold if complete else equivocation_bound(n, threshold)) == breaks


@given(st.integers(3, 64))
def test_defaults_are_safe_and_live(n: int) -> None:
    """With everyone seated: two certificates share an honest member, c_L cannot reconstruct, two are honest."""
    c = default_corrupt_bound(n)
    t = voted_threshold(n, c)
    assert equivocation_bound(n, t) > c
    assert c < t <= n
    assert equivocation_bound(n, t - 1) <= c or t == 2  # the smallest such t
    minimum = default_min_survivors(n, c)
    check_min_survivors(minimum, n, c)
    assert minimum - c >= 2
    if n > 3:
        assert t <= n - c  # the honest alone can certify


@given(st.integers(2, 200), st.integers(0, 200))
def test_thresholds_are_sound_or_refused(size: int, corrupt: int) -> None:
    """Any threshold that is returned exceeds c_L and keeps certificates unique."""
    try:
        t = voted_threshold(size, corrupt)
    except Misuse:
        assert corrupt >= size
        return
    assert 2 <= t <= size
    assert 2 * t - size > corrupt
    assert complete_threshold(size, corrupt) == max(2, corrupt + 1)


def test_boundaries() -> None:
    """t > L, t < 2, c + 2 > min, min > N and fewer than three sites are refused, just inside is not."""
    for size, corrupt in ((1, 0), (4, 4), (3, 3), (4, 9)):
        with pytest.raises(Misuse):
            voted_threshold(size, corrupt)
    assert (voted_threshold(2, 0), voted_threshold(3, 2), voted_threshold(4, 3)) == (2, 3, 4)
    with pytest.raises(Misuse):
        complete_threshold(2, 2)
    assert complete_threshold(2, 1) == 2
    check_min_survivors(5, 5, 3)
    for minimum, sites, corrupt in ((4, 5, 3), (6, 5, 3), (1, 5, 0)):
        with pytest.raises(Misuse):
            check_min_survivors(minimum, sites, corrupt)
    for n in (0, 1, 2):
        with pytest.raises(Misuse, match="no site colludes"):
            default_corrupt_bound(n)
    assert [default_corrupt_bound(n) for n in (3, 4, 6, 7, 9, 10, 300)] == [1, 1, 1, 2, 2, 3, 99]
    assert default_committee_corrupt(20, 99, everyone=False) == 6
    assert default_committee_corrupt(20, 4, everyone=False) == 4


@pytest.mark.parametrize(("n", "c", "size"), [(6, 2, 3), (7, 3, 4), (8, 8, 3), (5, 0, 5)])
def test_committee_risk_counts_committees(n: int, c: int, size: int) -> None:
    """The tail equals counting all committees of a small roster, and closes to 0 at min(c, L)."""
    draws = [sum(seat < c for seat in seats) for seats in combinations(range(n), size)]
    for bound in range(-1, size + 1):
        assert committee_risk(n, c, size, bound) == Fraction(sum(bad > bound for bad in draws), len(draws))
    assert committee_risk(n, c, size, min(c, size)) == 0
    with pytest.raises(Misuse):
        committee_risk(n, n + 1, size, 1)
