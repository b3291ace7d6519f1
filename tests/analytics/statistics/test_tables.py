"""Cross-tabulations: SciPy's without noise, tests that err as often as they say with it, nothing hidden to solve."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from privfl_analytics.decode import NOT_RESOLVED
from privfl_analytics.statistic import Context, Noisy
from privfl_analytics.statistics.tables import Crosstab, concealed_table, independence
from privfl_analytics.view import View
from scipy.stats import chi2_contingency
from scipy.stats.contingency import association

from privfl.errors import Misuse
from tests.analytics.reference import answer
from tests.analytics.statistics.made import QUICK, SCHEMA, SITES, covered, frame_of, quiet

VIEW = View(SCHEMA)
SHARES = np.outer([0.5, 0.3, 0.2], [0.6, 0.4])


@given(SITES)
@QUICK
def test_without_noise_counts_and_tests_are_those_of_pandas_and_scipy(frames: list[pd.DataFrame]) -> None:
    pooled = pd.concat(frames)
    found = answer(Crosstab(first="ward", second="sex"), SCHEMA, frames, context=quiet())
    table = pd.crosstab(pooled.ward.fillna("missing"), pooled.sex.replace("?", None).fillna("missing"))
    for row in found.rows[:-3]:
        sex = {"other": "x"}.get(row.at["sex"], row.at["sex"])
        known = row.at["ward"] in table.index and sex in table.columns
        assert row.value == (table.loc[row.at["ward"], sex] if known else 0)
    proper = table.reindex(index=["a", "b", "c"], columns=["f", "m"], fill_value=0).to_numpy()
    proper = proper[proper.sum(axis=1) > 0][:, proper.sum(axis=0) > 0]
    if min(proper.shape) < 2:
        assert math.isnan(found.value("p-value"))
        return
    statistic, p_value, _, _ = chi2_contingency(proper, correction=False)
    assert found.value("chi-square") == pytest.approx(statistic, abs=1e-9)
    assert found.value("p-value") == pytest.approx(p_value)
    assert found.value("cramer's v") == pytest.approx(association(proper, method="cramer"), abs=1e-7)


def test_a_number_is_crossed_in_bins() -> None:
    frame = frame_of([{"age": float(age), "sex": "f" if age % 3 else "m"} for age in range(100)])
    found = answer(Crosstab(first="age", second="sex", first_bins=2), SCHEMA, [frame], context=quiet())
    assert found.value(age="[0, 50)", sex="f") == 33
    assert "outside" not in {row.at.get("age") for row in found.rows}


@pytest.mark.parametrize("sd", [4.0, 15.0])
def test_without_association_a_test_of_five_percent_errs_in_five(sd: float) -> None:
    """An ordinary test, blind to the noise, errs far more."""
    wrong, naive = 0, 0
    for run in range(400):
        rng = np.random.default_rng(run)
        noisy = rng.multinomial(600, SHARES.ravel()).reshape(3, 2) + rng.normal(0, sd, (3, 2))
        rows, _ = independence(noisy, sd, Context(rng=rng, draws=400, records=600))
        wrong += rows[1].value < 0.05
        naive += chi2_contingency(np.clip(noisy, 0, None), correction=False)[1] < 0.05
    assert 0.02 <= wrong / 400 <= 0.085
    if sd > 10:
        assert naive / 400 > 0.2


def test_an_association_is_found_through_noise() -> None:
    shares = np.array([[0.4, 0.1], [0.1, 0.2], [0.15, 0.05]])
    found = 0
    for run in range(40):
        rng = np.random.default_rng(run)
        noisy = rng.multinomial(1000, shares.ravel()).reshape(3, 2) + rng.normal(0, 15, (3, 2))
        found += independence(noisy, 15, Context(rng=rng, draws=300, records=1000))[0][1].value < 0.05
    assert found > 35


@pytest.mark.parametrize("interval", ["rows", "population"])
def test_intervals_cover(interval: str) -> None:
    shares = np.array([[0.4, 0.1], [0.1, 0.2], [0.15, 0.05]])

    def table(rng: np.random.Generator) -> tuple:
        exact = rng.multinomial(1000, shares.ravel()).reshape(3, 2)
        noisy = np.zeros((5, 4))
        noisy[:3, :2] = exact
        noisy = Noisy(noisy + rng.normal(0, 10, (5, 4)), 10.0)
        context = Context(interval=interval, records=1000, rng=rng, draws=200)
        return exact, Crosstab(first="ward", second="sex").decode(VIEW, [[noisy]], [None], context)

    def cell(rng: np.random.Generator) -> tuple:
        exact, found = table(rng)
        return found.rows[4], exact[1, 0] if interval == "rows" else 100

    def strength(rng: np.random.Generator) -> tuple:
        exact, found = table(rng)
        truth = exact if interval == "rows" else shares
        return found.rows[-1], association_of(truth)

    covered(cell)
    covered(strength, 200)


def association_of(table: np.ndarray) -> float:
    shares = table / table.sum()
    expected = np.outer(shares.sum(axis=1), shares.sum(axis=0))
    return float(np.sqrt(((shares - expected) ** 2 / expected).sum()))


@given(st.integers(2, 6), st.integers(2, 6), st.integers(0, 10_000), st.sampled_from([5, 15, 40]))
@QUICK
def test_no_hidden_cell_follows_from_all_margins(rows: int, columns: int, seed: int, minimum: int) -> None:
    """Linear algebra's verdict: every hidden cell can move while all totals of lines stay."""
    counts = np.random.default_rng(seed).integers(0, 60, (rows, columns)).astype(float)
    mask = concealed_table(counts, minimum)
    assert mask[counts < minimum].all()
    cells = np.argwhere(mask)
    if not len(cells):
        return
    margins = np.zeros((rows + columns, len(cells)))
    for at, (row, column) in enumerate(cells):
        margins[row, at] = margins[rows + column, at] = 1
    _, values, basis = np.linalg.svd(margins)
    free = basis[int((values > 1e-9).sum()) :]
    assert (np.abs(free).max(axis=0, initial=0) > 1e-9).all()


def test_hidden_counts_are_nowhere_in_the_answer() -> None:
    rows = [{"ward": "a", "sex": "f"}] * 3 + [{"ward": "a", "sex": "m"}] * 40 + [{"ward": "b", "sex": "f"}] * 30
    rows += [{"ward": "b", "sex": "m"}] * 50 + [{"ward": "c", "sex": "f"}] * 60 + [{"ward": "c", "sex": "m"}] * 70
    found = answer(Crosstab(first="ward", second="sex"), SCHEMA, [frame_of(rows)], context=quiet(min_cell_count=10))
    shown = {(row.at["ward"], row.at["sex"]): row.value for row in found.rows if row.what == "count"}
    assert shown["a", "f"] is None
    flat = [value for line in found.details["counts"] for value in line]
    assert flat == list(shown.values())


def test_what_noise_drowns_is_not_printed() -> None:
    frame = frame_of([{"ward": "a", "sex": "f"}] * 20)
    found = answer(Crosstab(first="ward", second="sex"), SCHEMA, [frame], sd=1e5)
    assert {row.note for row in found.rows} == {NOT_RESOLVED}
    assert not any(value for line in found.details["counts"] for value in line)


def test_misuse_is_named() -> None:
    with pytest.raises(Misuse, match="not with itself"):
        Crosstab(first="sex", second="sex").constructions(VIEW)
    with pytest.raises(Misuse, match="text"):
        Crosstab(first="sex", second="code").constructions(VIEW)
    assert Crosstab(first="sex", second="ward").words() == "sex crossed with ward"
    assert "each cell" in Crosstab(first="sex", second="ward").precision(VIEW, [[3.0]], 100)
