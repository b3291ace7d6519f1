"""A small schema, tables of three sites, and a study carried through contribution, sum and decoding in one process."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd
from hypothesis import strategies as st
from privfl_analytics.conditions import All, Any_, Compare, Condition, IsMissing, Not, OneOf
from privfl_analytics.constructions import Bins, Classes, Presence
from privfl_analytics.opened import History
from privfl_analytics.query import Cut
from privfl_analytics.question import StudyQuestion
from privfl_analytics.result import StudyResult

from privfl.entropy import SYSTEM
from privfl.tasks import FrameSource, Schema, SiteData

SCHEMA = Schema(
    records=60,
    subject="patient",
    max_rows=2,
    columns={
        "age": {"lower": 0, "upper": 100, "unit": "years", "missing": [999]},
        "bmi": {"lower": 10, "upper": 60},
        "sex": {"classes": ["f", "m"]},
        "ill": {"classes": [False, True]},
        "stage": {"classes": [1, 2, 3]},
        "mean radius": {"lower": 0, "upper": 30},
        "code": {"max_length": 3, "alphabet": "ABC"},
    },
)
PLAIN = {"delta": 1e-6, "sites": 3, "min_survivors": 3, "colluders": 1}


def frame(rows: int, seed: int = 0) -> pd.DataFrame:
    """Rows with missing, unknown and odd values; no patient has more than two."""
    rng = np.random.default_rng(seed)
    return pd.DataFrame(
        {
            "patient": [f"{seed}-{at // 2}" for at in range(rows)],
            "age": rng.choice([5.0, 20, 33, 50, 64, 77, 99, 120, 999, math.nan], rows),
            "bmi": rng.uniform(15, 45, rows),
            "sex": rng.choice(np.array(["f", "m", "x", None], dtype=object), rows),
            "ill": rng.choice([False, True], rows),
            "stage": rng.choice([1, 2, 3], rows),
            "mean radius": rng.uniform(0, 30, rows),
            "code": rng.choice(np.array(["A", "AB", "CCC", None], dtype=object), rows),
        }
    )


FRAMES = (frame(25, 1), frame(30, 2), frame(1, 3))


def data_of(table: pd.DataFrame, schema: Schema = SCHEMA) -> SiteData:
    return SiteData(schema, FrameSource(table))


def asked(
    question: StudyQuestion, frames: Sequence[pd.DataFrame] = FRAMES, schema: Schema = SCHEMA
) -> tuple[History, StudyResult]:
    """Every site rebuilds the question from its descriptor and uploads; the history survives a crash at each stage."""
    rebuilt = [StudyQuestion.from_descriptor(question.descriptor()) for _ in frames]
    history = History()
    while (inputs := question.next_inputs(history)) is not None:
        uploads = [
            site.upload(inputs, data_of(table, schema), SYSTEM, seat=seat)
            for seat, (site, table) in enumerate(zip(rebuilt, frames, strict=True))
        ]
        opened = question.opened(len(history), sum(uploads), len(frames), range(len(frames)))
        history = History.decode(history.add(opened).encode())
    return history, question.decode(history)


# -- values that Hypothesis makes ------------------------------------------------------------------------

NAMES = st.one_of(
    st.sampled_from(["age", "sex", "mean radius", "by", "missing", "and", "x.y", "ä", "a`b"]),
    st.text(st.characters(codec="utf-8", exclude_categories=["C"]), min_size=1, max_size=8),
)
TEXTS = st.text(st.characters(codec="utf-8", exclude_categories=["C"]), max_size=8)
CLASSES = st.one_of(st.booleans(), st.integers(-(10**17), 10**17), TEXTS)
NUMBERS = st.one_of(st.integers(-(10**9), 10**9), st.floats(allow_nan=False, allow_infinity=False))
_LEAVES = st.one_of(
    st.builds(
        Compare,
        column=NAMES,
        operator=st.sampled_from(["<", "<=", ">", ">=", "==", "!="]),
        value=st.one_of(CLASSES, NUMBERS),
    ),
    st.builds(OneOf, column=NAMES, values=st.lists(CLASSES, min_size=1, max_size=3).map(tuple)),
    st.builds(IsMissing, column=NAMES),
)
CONDITIONS: st.SearchStrategy[Condition] = st.recursive(
    _LEAVES,
    lambda inner: st.one_of(
        st.builds(Not, part=inner),
        st.builds(All, parts=st.lists(inner, min_size=1, max_size=3).map(tuple)),
        st.builds(Any_, parts=st.lists(inner, min_size=1, max_size=3).map(tuple)),
    ),
    max_leaves=6,
)
AXES = st.one_of(
    st.builds(Classes, column=NAMES),
    st.builds(Presence, column=NAMES),
    st.builds(Cut, column=NAMES, count=st.integers(1, 50)),
    st.builds(
        Bins,
        column=NAMES,
        edges=st.lists(st.floats(-1e9, 1e9), min_size=2, max_size=5).map(tuple),
    ),
)
