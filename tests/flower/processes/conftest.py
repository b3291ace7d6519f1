"""One town for all tests of a module: its processes start once."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd
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


def straight() -> dict[str, pd.DataFrame]:
    """Rows on one straight line per site, with slopes and offsets that are binary fractions.

    A site rounds its change to integers at random; what is an integer to the last bit but a few has no other one.
    """
    dose = np.arange(-64, 65, 4) / 16
    lines = {"north": (0.25, 0.0), "south": (0.5, 0.25), "east": (-0.125, -0.5)}
    return {
        name: pd.DataFrame({"dose": dose, "age": 50 + 20 * (slope * dose + offset), "ill": dose > 0})
        for name, (slope, offset) in lines.items()
    }


@pytest.fixture(scope="module")
def exact(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Town]:
    """Three sites whose policy asks for no noise, and whose fits are whole multiples of what is sent."""
    with town(tmp_path_factory.mktemp("exact"), policy=EXACT, frames=straight()) as made:
        yield made


@pytest.fixture(scope="module")
def noised(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Town]:
    """Four sites, so that one may be missing from a round; budget for training and for studies."""
    policy = {"shares": {"training": 0.5, "analytics": 0.5}, "statistics": ["count"], "min_cell_count": 5}
    with town(tmp_path_factory.mktemp("noised"), 4, policy=policy) as made:
        yield made
