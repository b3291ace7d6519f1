"""Tables that Hypothesis makes (missing values, odd values, one-row and empty sites), and counting of coverage."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pandas as pd
from hypothesis import settings
from hypothesis import strategies as st
from privfl_analytics.answer import Row
from privfl_analytics.statistic import Context
from scipy.stats import binom

from privfl.tasks import Schema

SCHEMA = Schema(
    records=1000,
    columns={
        "age": {"lower": 0, "upper": 100, "center": 50, "scale": 20, "unit": "years", "missing": [999]},
        "dose": {"lower": -1, "upper": 3},
        "sex": {"classes": ["f", "m"], "missing": ["?"]},
        "ward": {"classes": ["a", "b", "c"]},
        "code": {"max_length": 4, "alphabet": "ABCD"},
    },
)
QUICK = settings(max_examples=20, deadline=None)

_ROW = st.fixed_dictionaries(
    {
        "age": st.one_of(st.floats(0, 100), st.sampled_from([0.0, 50.0, 100.0, 999.0, math.nan, -20.0, 250.0])),
        "dose": st.one_of(st.just(1.0), st.floats(-1, 3)),
        "sex": st.sampled_from(["f", "f", "m", "x", "?", None]),
        "ward": st.sampled_from(["a", "b", "c", None]),
        "code": st.sampled_from(["A", "AB", "ABC", "ABCD", "ABCDA", "B", "BB", "Z", None]),
    }
)


def frame_of(rows: list[dict]) -> pd.DataFrame:
    """A site's table; columns are there even without rows."""
    frame = pd.DataFrame(rows, columns=["age", "dose", "sex", "ward", "code"])
    return frame.astype({"age": float, "dose": float, "sex": object, "ward": object, "code": object})


#: Tables of one to three sites; some empty, some with one row.
SITES = st.lists(st.one_of(st.lists(_ROW, max_size=1), st.lists(_ROW, max_size=25)), min_size=1, max_size=3).map(
    lambda sites: [frame_of(rows) for rows in sites]
)


def numbers(frames: list[pd.DataFrame], column: str = "age") -> np.ndarray:
    """The pooled values as the schema reads them: missing ones left out, others clamped."""
    declared = SCHEMA.columns[column]
    values = pd.concat(frames)[column].dropna()
    values = values[~values.isin(declared.missing)]
    return values.clip(declared.lower, declared.upper).to_numpy(dtype=float)


def quiet(interval: str = "rows", **more: object) -> Context:
    """A context for noiseless sums."""
    return Context(interval=interval, records=SCHEMA.records, rng=np.random.default_rng(3), **more)


def covered(
    once: Callable[[np.random.Generator], tuple[Row, float]], runs: int = 300, seed: int = 7, *, over: bool = False
) -> None:
    """Assert that 95 % intervals cover the truth about as often; ``once`` gives a row and the truth.

    ``over`` allows more: an interval of a discrete truth cannot be tight.
    """
    hits = 0
    for run in range(runs):
        row, truth = once(np.random.default_rng([seed, run]))
        assert row.value is not None, row.note
        hits += row.lower <= truth <= row.upper
    low, high = binom.ppf([1e-4, 1 - 1e-4], runs, 0.95)
    assert low <= hits <= (runs if over else high), f"{hits} of {runs} cover"
