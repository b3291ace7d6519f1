"""A population whose law is known, the study that is asked of it, and what its answers should hold."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pandas as pd
from privfl_analytics.query import Query
from privfl_analytics.study import Study
from scipy.stats import beta, norm

from privfl.tasks import Schema

RECORDS = 5000
BINS, WIDTH, HAZARD, CENSORING = 20, 3.0, 0.06, 0.03
TIMES = (12.0, 24.0, 36.0)
QUANTILES = (0.25, 0.5, 0.75)
MEANS, SDS = np.array([50.0, 128.0, 74.0]), np.array([12.0, 15.0, 11.0])
CORRELATIONS = np.array([[1.0, 0.45, -0.1], [0.45, 1.0, 0.3], [-0.1, 0.3, 1.0]])
NUMBERS = ("age", "pressure", "weight")
WOMEN = 0.55
#: Of being ill: intercept, age, weight; per raw unit.
ILLNESS = np.array([-3.6, 0.045, 0.012])
SCORE_ILL, SCORE_WELL = (4.0, 3.0), (3.0, 4.0)


class Wanted(NamedTuple):
    """One interval that should hold the truth.

    Attributes:
        kind: under which the coverage is counted.
        query, what, at: which row of which answer.
        truth: of the population.
    """

    kind: str
    query: str
    what: str
    at: dict[str, str | float]
    truth: float


def schema() -> Schema:
    """Public bounds and scales, all of them a little off the truth."""
    columns = {
        "age": {"lower": 0, "upper": 110, "center": 45, "scale": 15, "unit": "years"},
        "pressure": {"lower": 60, "upper": 210, "center": 125, "scale": 18, "unit": "mmHg"},
        "weight": {"lower": 30, "upper": 150, "center": 75, "scale": 12, "unit": "kg"},
        "sex": {"classes": ["f", "m"]},
        "ill": {"classes": [False, True]},
        "risk": {"lower": 0, "upper": 1},
        "months": {"lower": 0, "upper": BINS * WIDTH},
        "died": {"classes": [False, True]},
    }
    return Schema.from_dict({"name": "coverage", "records": RECORDS, "columns": columns})


def study() -> Study:
    """One study of every kind of answer; what needs more of the budget has a larger weight."""
    return Study(
        "coverage",
        (
            Query().count().named("count"),
            Query().count().group_by("sex").named("by sex"),
            Query().mean("age").named("mean age"),
            Query().mean("pressure").named("mean pressure"),
            Query().variance("age").named("variance age").weighted(2),
            Query().variance("weight").named("variance weight").weighted(2),
            Query().quantiles("pressure", q=QUANTILES).named("quantiles").weighted(2),
            Query().correlation(*NUMBERS).named("correlation").weighted(2),
            Query().linear_regression(label="pressure", features=("age", "weight")).named("linear").weighted(3),
            Query().logistic_regression(label="ill", features=("age", "weight"), steps=4).named("logistic").weighted(6),
            Query().survival(time="months", event="died", bins=BINS, at=TIMES).named("survival").weighted(2),
            Query().roc(score="risk", label="ill").named("roc").weighted(2),
        ),
    )


def draw(rng: np.random.Generator) -> pd.DataFrame:
    """A fresh sample: a Poisson number of independent rows, some pressures missing at random."""
    rows = int(rng.poisson(RECORDS))
    numbers = MEANS + SDS * (rng.standard_normal((rows, 3)) @ np.linalg.cholesky(CORRELATIONS).T)
    frame = pd.DataFrame(numbers, columns=list(NUMBERS))
    ill = rng.random(rows) < 1 / (1 + np.exp(-(ILLNESS[0] + numbers[:, [0, 2]] @ ILLNESS[1:])))
    months, died = _times(rng, rows)
    frame["pressure"] = frame["pressure"].mask(rng.random(rows) < 0.03)
    return frame.assign(
        sex=np.where(rng.random(rows) < WOMEN, "f", "m"),
        ill=ill,
        risk=np.where(ill, rng.beta(*SCORE_ILL, rows), rng.beta(*SCORE_WELL, rows)),
        months=months,
        died=died,
    )


def _times(rng: np.random.Generator, rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Months and whether the event ended them; both happen in the middle of a bin, who has neither leaves last."""
    event = rng.geometric(HAZARD, rows) - 1
    censored = rng.geometric(CENSORING, rows) - 1
    last = np.minimum(np.minimum(event, censored), BINS - 1)
    return (last + 0.5) * WIDTH, (event <= censored) & (event < BINS)


def wanted() -> list[Wanted]:
    """Every interval and its truth."""
    found = [Wanted("counts", "count", "count", {}, RECORDS)]
    found += [
        Wanted("counts", "by sex", "count", {"sex": sex}, RECORDS * share)
        for sex, share in (("f", WOMEN), ("m", 1 - WOMEN))
    ]
    for at, name in ((0, "age"), (1, "pressure")):
        found.append(Wanted("means", f"mean {name}", "mean", {}, MEANS[at]))
    for at, name in ((0, "age"), (2, "weight")):
        found.append(Wanted("variances", f"variance {name}", "variance", {}, SDS[at] ** 2))
    for q in QUANTILES:
        found.append(Wanted("quantiles", "quantiles", "quantile", {"q": q}, norm.ppf(q, MEANS[1], SDS[1])))
    for i in range(3):
        for j in range(i + 1, 3):
            pair: dict[str, str | float] = {"column": NUMBERS[i], "other": NUMBERS[j]}
            found.append(Wanted("correlations", "correlation", "correlation", pair, CORRELATIONS[i, j]))
    for term, slope in zip(("intercept", "age", "weight"), _line(), strict=True):
        found.append(Wanted("linear coefficients", "linear", "coefficient", {"term": term}, slope))
    for term, slope in zip(("intercept", "age", "weight"), ILLNESS, strict=True):
        found.append(Wanted("logistic coefficients", "logistic", "coefficient", {"term": term}, slope))
    for time in TIMES:
        alive = (1 - HAZARD) ** round(time / WIDTH)
        found.append(Wanted("survival", "survival", "survival", {"months": time}, alive))
    return [*found, Wanted("AUC", "roc", "auc", {}, _area())]


def _line() -> np.ndarray:
    """Intercept and slopes of pressure on age and weight."""
    cov = CORRELATIONS * np.outer(SDS, SDS)
    slopes = np.linalg.solve(cov[np.ix_([0, 2], [0, 2])], cov[[0, 2], 1])
    return np.array([MEANS[1] - slopes @ MEANS[[0, 2]], *slopes])


def _area() -> float:
    """Area under the curve of scores in 20 bins, ties counting half."""
    edges = np.linspace(0, 1, 21)
    ill, well = (np.diff(beta.cdf(edges, *shape)) for shape in (SCORE_ILL, SCORE_WELL))
    return float(ill @ (np.cumsum(well) - well / 2))
