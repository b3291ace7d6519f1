"""How sites differ: SciPy's divergences without noise, tests that err as they say with it."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from privfl_analytics.constructions import Tally
from privfl_analytics.decode import NOT_RESOLVED
from privfl_analytics.statistic import Context, Noisy
from privfl_analytics.statistics.sites import SiteDivergence, divergences
from privfl_analytics.view import View
from scipy.spatial.distance import jensenshannon
from scipy.stats import entropy

from privfl.errors import Misuse
from tests.analytics.reference import total
from tests.analytics.statistics.made import QUICK, SCHEMA, SITES, covered, quiet

VIEW = View(SCHEMA)
WARD = SiteDivergence(column="ward")


def noiseless(asked: SiteDivergence, frames: list[pd.DataFrame]) -> Noisy:
    construction = asked.constructions(VIEW)[0]
    assert isinstance(construction, Tally)
    sums = [total(VIEW, frame, construction) / construction.scale for frame in frames]
    return Noisy(np.array(sums, dtype=float), 0.0)


@given(SITES)
@QUICK
def test_without_noise_divergences_are_scipys(frames: list[pd.DataFrame]) -> None:
    found = WARD.decode(VIEW, [[noiseless(WARD, frames)]], [None], quiet())
    tables = [frame.ward.value_counts().reindex(["a", "b", "c"], fill_value=0).to_numpy() for frame in frames]
    there = [at for at, table in enumerate(tables) if table.sum()]
    for at, table in enumerate(tables):
        for cell, label in enumerate("abc"):
            share = found.value("share", site=str(at + 1), ward=label)
            assert share == pytest.approx(table[cell] / table.sum()) if at in there else np.isnan(share)
    if len(there) < 2:
        assert np.isnan(found.value("non-iid degree"))
        return
    pool = sum(tables)
    for at in there:
        expected = jensenshannon(tables[at], pool, base=2) ** 2
        assert found.value("divergence", site=str(at + 1)) == pytest.approx(expected, abs=1e-7)
    sizes = np.array([tables[at].sum() for at in there])
    mixed = entropy(pool, base=2) - (sizes / sizes.sum() * [entropy(tables[at], base=2) for at in there]).sum()
    assert found.value("non-iid degree") == pytest.approx(mixed, abs=1e-9)


def test_alike_sites_show_nothing_and_the_test_of_five_percent_errs_in_five() -> None:
    wrong, values = 0, []
    for run in range(300):
        rng = np.random.default_rng(run)
        tables = np.array([[*rng.multinomial(n, [0.5, 0.3, 0.2]), 0, 0] for n in (300, 500, 200)])
        noisy = Noisy(tables + rng.normal(0, 12, tables.shape), 12.0)
        found = WARD.decode(VIEW, [[noisy]], [None], Context(rng=rng, draws=300, records=1000))
        p_value = next(row.value for row in found.rows if row.what == "p-value" and not row.at)
        wrong += p_value < 0.05
        values.append(found.value("non-iid degree"))
    assert 0.015 <= wrong / 300 <= 0.09
    assert np.median(values) < 0.01


def test_differing_sites_are_told_apart_through_noise() -> None:
    rng = np.random.default_rng(4)
    tables = np.array([[400, 50, 50, 0, 0], [50, 400, 50, 0, 0], [160, 170, 170, 0, 0]])
    found = WARD.decode(VIEW, [[Noisy(tables + rng.normal(0, 10, tables.shape), 10.0)]], [None], quiet())
    overall = [row for row in found.rows if not row.at]
    truth = divergences(tables[:, :4].astype(float))[-1]
    assert overall[0].lower <= truth <= overall[0].upper
    assert overall[1].value < 0.01
    assert found.value("divergence", site="3") < found.value("divergence", site="1")


@pytest.mark.parametrize("interval", ["rows", "population"])
def test_intervals_cover(interval: str) -> None:
    shares = np.array([[0.7, 0.2, 0.1], [0.2, 0.5, 0.3]])

    def once(rng: np.random.Generator, what: str) -> tuple:
        exact = np.array([[*rng.multinomial(800, line), 0, 0] for line in shares])
        noisy = Noisy(exact + rng.normal(0, 8, exact.shape), 8.0)
        found = WARD.decode(VIEW, [[noisy]], [None], Context(interval=interval, rng=rng, draws=300, records=1600))
        row = next(row for row in found.rows if row.what == what)
        table = exact[:, :3] if interval == "rows" else shares * 800
        return row, table[0, 0] / 800 if what == "share" else divergences(table.astype(float))[-1]

    covered(lambda rng: once(rng, "share"), 200)
    hits = [row.lower <= truth <= row.upper for row, truth in (
        once(np.random.default_rng(run), "non-iid degree") for run in range(200))]  # fmt: skip
    assert np.mean(hits) > 0.88


def test_a_site_that_noise_drowns_is_left_out() -> None:
    tables = np.array([[400.0, 50, 50, 0, 0], [50, 400, 50, 0, 0], [3, 1, 2, 0, 0]])
    found = WARD.decode(VIEW, [[Noisy(tables, 10.0)]], [None], quiet())
    assert {row.note for row in found.rows if row.at.get("site") == "3"} == {NOT_RESOLVED}
    assert found.value("non-iid degree") > 0.1
    drowned = WARD.decode(VIEW, [[Noisy(tables, 1e5)]], [None], quiet())
    assert not drowned.resolved
    assert drowned.details["counts"] == [[None] * 4] * 3


def test_no_hidden_cell_of_a_site_follows_from_the_pool() -> None:
    tables = np.array([[400.0, 50, 3, 60, 70], [50, 400, 50, 40, 50], [100, 200, 80, 60, 70]])
    found = WARD.decode(VIEW, [[Noisy(tables, 0.0)]], [None], quiet(min_cell_count=10))
    hidden = np.array([[value is None for value in line] for line in found.details["counts"]])
    assert hidden[0, 2]
    assert hidden[:, 2].sum() >= 2
    assert hidden[0].sum() >= 2


def test_it_is_local_and_takes_numbers_in_bins() -> None:
    assert SiteDivergence.local
    assert not WARD.group_axes(VIEW)
    asked = SiteDivergence(column="age", bins=4)
    assert asked.constructions(VIEW)[0].shape(VIEW) == (6,)
    with pytest.raises(Misuse, match="text"):
        SiteDivergence(column="code").constructions(VIEW)
    assert "ward" in WARD.words()
    assert "each site" in WARD.precision(VIEW, [[3.0]], 100)
