"""Profiles made from distributions, through the statistic and its decoding or straight from counts."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pandas as pd
from privfl_analytics.constructions import COUNT_SCALE
from privfl_analytics.monitor.profile import Profile
from privfl_analytics.monitor.study import profile_queries
from privfl_analytics.monitor.tables import ProfileAxis, ProfileTable
from privfl_analytics.statistic import Context
from privfl_analytics.view import View

from privfl.tasks import Schema
from tests.analytics.reference import answer

MADE = 1_700_000_000_000
SCHEMA = Schema(
    records=2000,
    columns={
        "age": {"lower": 0, "upper": 100, "unit": "years"},
        "sex": {"classes": ["f", "m"]},
        "risk": {"lower": 0, "upper": 1},
        "ill": {"classes": [False, True]},
    },
)
VIEW = View(SCHEMA)


def patients(rng: np.random.Generator, rows: int, *, older: float = 0.0, missing: float = 0.05) -> pd.DataFrame:
    """Rows of :data:`SCHEMA` whose risk is well calibrated."""
    age = np.clip(rng.normal(50 + older, 15, rows), 0, 100)
    risk = 1 / (1 + np.exp(-(age - 50) / 10))
    return pd.DataFrame(
        {
            "age": np.where(rng.random(rows) < missing, np.nan, age),
            "sex": rng.choice(["f", "m"], rows),
            "risk": risk,
            "ill": rng.random(rows) < risk,
        }
    )


def profile(
    frame: pd.DataFrame,
    *,
    sd: float = 0.0,
    by: str | None = None,
    seed: int = 1,
    least: int = 1,
    schema: Schema = SCHEMA,
    columns: tuple[str, ...] = ("age", "sex"),
    scored: bool = True,
    federation: str = "north",
) -> Profile:
    """The profile of a table, decoded from noisy sums as a study would be."""
    view, rng = View(schema), np.random.default_rng(seed)
    more = {"score": "risk", "label": "ill"} if scored else {}
    found = {}
    for query in profile_queries(schema, columns, by=by, **more):
        context = Context(survivors=3, records=schema.records, rng=rng, min_cell_count=least)
        axes = query.axes(view)
        found[query.name] = answer(query.asked, schema, [frame], by=axes, sd=sd, rng=rng, context=context)
    return Profile.from_result(
        SimpleNamespace(answers=found), view, federation=federation, made=MADE, model="model 1", **more
    )


def plain(counts: dict[str, np.ndarray], sd: float, made: int = MADE) -> Profile:
    """A profile of numbers with these noisy counts in bins of width 1, the last cell being the missing ones."""
    tables = []
    for name, cells in counts.items():
        labels = (*(f"[{at}, {at + 1})" for at in range(len(cells) - 1)), "missing")
        edges = tuple(repr(float(at)) for at in range(len(cells)))
        axis = ProfileAxis(name, bytes(32), "", labels, edges)
        whole = tuple(int(one) for one in np.rint(cells * COUNT_SCALE))
        tables.append(ProfileTable(name, "", (axis,), whole, repr(float(sd)), 0))
    return Profile("north", "table", "", made, 3, 2000, "", "", "", "[]", tuple(tables))


def drawn(rng: np.random.Generator, shares: np.ndarray, rows: int, sd: float) -> np.ndarray:
    """Noisy counts of a sample."""
    return rng.multinomial(rows, shares).astype(np.float64) + rng.normal(0, sd, len(shares)) * bool(sd)
