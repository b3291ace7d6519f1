"""A whole slot on the real machines gives the plain-integer sum, and its transcript verifies."""

import numpy as np
import pytest

from privfl.secagg import Transcript, verify_transcript
from tests.harness import Harness


@pytest.mark.parametrize(("n", "dropped"), [(3, 0), (4, 1), (5, 1), (7, 2), (10, 3)])
def test_sum_is_exact_with_dropout_at_the_permitted_limit(n: int, dropped: int) -> None:
    """N sites with c missing: the sum equals the survivors' sum; the transcript verifies after a round trip."""
    h = Harness.make(n)
    h.open_epoch()
    for number in (1, 2):
        total, expected, transcript = h.round((number, 0), dropped=h.ids[:dropped], silent=h.ids[:dropped])
        assert np.array_equal(total, expected)
        proof = verify_transcript(Transcript.decode(transcript.encode()), h.authority.verify_key)
        assert len(proof.dropped) == dropped
        assert proof.quorum == h.coordinator.record.threshold


def test_complete_mode_takes_two_phases_and_two_of_three_members() -> None:
    """N = 3 in complete mode: no votes, one silent member, exact sum."""
    h = Harness.make(3)
    h.open_epoch()
    total, expected, transcript = h.round(complete=True, silent=h.ids[:1])
    assert np.array_equal(total, expected)
    assert transcript.votes == ()
    assert verify_transcript(transcript, h.authority.verify_key).complete
