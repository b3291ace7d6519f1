"""One town for all tests of a module: its processes start once."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from privfl.budget import WITHOUT_NOISE
from tests.flower.processes.town import Town, town

#: Exact sums, so that results can be held against the memory wire's.
EXACT = {
    "without_noise": WITHOUT_NOISE,
    "epsilon": None,
    "delta": None,
    "tasks": {"averaging": {"clip": 10.0}},
}


@pytest.fixture(scope="module")
def exact(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Town]:
    """Three sites whose policy asks for no noise."""
    with town(tmp_path_factory.mktemp("exact"), 3, policy=EXACT) as made:
        yield made


@pytest.fixture(scope="module")
def noised(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Town]:
    """Four sites, so that one may be missing from a round; budget for training and for studies."""
    policy = {"shares": {"training": 0.5, "analytics": 0.5}, "statistics": ["count"], "min_cell_count": 5}
    with town(tmp_path_factory.mktemp("noised"), 4, policy=policy) as made:
        yield made
