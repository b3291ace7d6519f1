"""A whole slot on a sparse masking graph with a committee that the roster fixes, and dropout at the nominal rate."""

from __future__ import annotations

import os

import numpy as np
import pytest

from privfl.secagg import Transcript, verify_transcript
from tests.harness import Harness, SeededEntropy


def run(n: int, degree: int, committee: int, absent: int, dropped: int, corrupt: int) -> None:
    """One epoch without ``absent`` sites and one slot in which ``dropped`` more do not upload."""
    h = Harness.make(
        n,
        degree=degree,
        committee=committee,
        corrupt=corrupt,
        min_survivors=-(-2 * n // 3),
        entropy=SeededEntropy(f"sparse {n}"),
    )
    out = h.ids[:: n // (absent + dropped)][: absent + dropped]  # spread over the ids, committee members among them
    h.open_epoch([site for site in h.ids if site not in out[:absent]])
    total, expected, transcript = h.round(dropped=out[absent:], silent=out)
    assert np.array_equal(total, expected)
    assert len(transcript.headers) == n - absent - dropped
    near = {len(header.neighbours) // 32 for header in transcript.headers}
    assert max(near) == degree
    assert min(near) < degree  # absence from the epoch counts as dropout, never as other neighbours
    proof = verify_transcript(Transcript.decode(transcript.encode()), h.authority.verify_key)
    assert proof.quorum == h.coordinator.record.threshold


def test_seventy_sites_with_sixteen_neighbours() -> None:
    """N = 70, k = 16, a committee of 10: two sites miss the epoch, three more the upload."""
    run(70, 16, committee=10, absent=2, dropped=3, corrupt=3)


@pytest.mark.slow
@pytest.mark.skipif("PRIVFL_SIM_LARGE" not in os.environ, reason="set PRIVFL_SIM_LARGE=1: about a minute")
def test_three_hundred_sites_with_forty_four_neighbours() -> None:
    """N = 300, k = 44 (5 % corrupt, 5 % dropout), a committee of 40: the table's first row, whole."""
    run(300, 44, committee=40, absent=5, dropped=10, corrupt=15)
