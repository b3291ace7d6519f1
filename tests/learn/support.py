"""Small tables, a seeded source of entropy, and rounds without masks."""

from __future__ import annotations

import random
from collections.abc import Sequence

import numpy as np
import pandas as pd

from privfl.learn import BoundData, Category, Numeric, Schema, Task, TaskState
from privfl.ring import centred, to_words

NUMBERS = {"a": Numeric(lower=-4, upper=4, center=0, scale=1), "b": Numeric(lower=0, upper=10, center=5, scale=2)}
LOUD = {"epsilon": 150.0, "delta": 1e-5, "sites": 3, "min_survivors": 3}


class SeededEntropy:
    """Reproducible bytes for tests only."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    def draw(self, size: int) -> bytes:
        """The next ``size`` bytes."""
        return self._random.randbytes(size)


def schema_with(label: Category | Numeric, records: int = 600) -> Schema:
    """Two numeric features and a label ``y``."""
    return Schema(name="small", records=records, columns={**NUMBERS, "y": label})


def rows(count: int, seed: int = 0, classes: Sequence[object] = (False, True)) -> pd.DataFrame:
    """Rows whose class follows from the features, with some noise."""
    rng = np.random.default_rng(seed)
    a, b = rng.normal(size=count), 5 + 2 * rng.normal(size=count)
    score = 1.5 * a - 0.7 * (b - 5) + 0.3 * rng.normal(size=count)
    edges = np.quantile(score, np.linspace(0, 1, len(classes) + 1)[1:-1]) if count else []
    codes = np.searchsorted(edges, score)
    return pd.DataFrame({"a": a, "b": b, "y": [classes[code] for code in codes]})


def trained(task: Task, sites: Sequence[BoundData], seed: int = 1, survivors: int | None = None) -> TaskState:
    """All rounds of a task, added in its ring without masks."""
    entropy, state = SeededEntropy(seed), task.initial_state()
    present = sites[: survivors or len(sites)]
    while task.done(state) is None:
        model = task.model_bytes(state)
        total = np.zeros(task.length, dtype=task.ring.dtype)
        for site in present:
            total += to_words(task.upload(model, site, entropy), task.ring)
        state = task.update(state, centred(total, task.ring), len(present))
    return state
