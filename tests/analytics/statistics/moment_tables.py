"""Hypothesis-made tables of several correlated numeric columns over sites, some of them empty or of one row."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pandas as pd
from hypothesis import strategies as st

from privfl.tasks import Schema

NAMES = ("age", "pressure", "weight", "rate")
CENTERS, SCALES = np.array([50.0, 120.0, 70.0, 0.0]), np.array([12.0, 15.0, 10.0, 1.0])


class Made(NamedTuple):
    """Sites' frames, all rows together without incomplete ones, and the schema."""

    frames: list[pd.DataFrame]
    complete: pd.DataFrame
    schema: Schema


def schema_for(records: int, **more: object) -> Schema:
    """Bounds five scales away from the centers, which no row below reaches."""
    columns = {
        name: {"lower": c - 5 * s, "upper": c + 5 * s, "center": c, "scale": s}
        for name, c, s in zip(NAMES, CENTERS, SCALES, strict=True)
    }
    return Schema(records=records, columns={**columns, **more})


def rows_of(rng: np.random.Generator, count: int) -> pd.DataFrame:
    """Rows within two scales, columns correlated."""
    raw = rng.normal(size=(count, 4))
    raw[:, 1] += 0.6 * raw[:, 0]
    raw[:, 3] -= 0.4 * raw[:, 2]
    return pd.DataFrame(CENTERS + SCALES * np.clip(0.7 * raw, -1.7, 1.7), columns=list(NAMES))


@st.composite
def tables(draw: st.DrawFn, least: int = 8, holes: float = 0.15) -> Made:
    """A table in one to four sites: empty ones, ones of one row, values missing as NaN."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    sizes = [draw(st.integers(least, 60)), *draw(st.lists(st.sampled_from((0, 1, 2, 17)), max_size=3))]
    whole = rows_of(rng, sum(sizes))
    if draw(st.booleans()):
        lost = rng.random(whole.shape) < holes
        lost[: min(least, len(whole))] = False
        whole = whole.mask(lost)
    ends = np.cumsum(sizes)[:-1]
    frames = [whole.iloc[part] for part in np.split(np.arange(len(whole)), ends)]
    return Made(frames, whole.dropna(), schema_for(len(whole)))
