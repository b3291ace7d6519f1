"""Principal components against scikit-learn, and which of them noise leaves."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from privfl_analytics.statistic import Context, Noisy
from privfl_analytics.statistics.components import Components
from privfl_analytics.view import View
from sklearn.decomposition import PCA

from privfl.errors import Misuse
from tests.analytics.reference import answer
from tests.analytics.statistics.moment_tables import CENTERS, NAMES, SCALES, Made, rows_of, schema_for, tables


def numbers(found: object, what: str) -> np.ndarray:
    return np.array([np.nan if row.value is None else row.value for row in found.rows if row.what == what])


@settings(max_examples=12, deadline=None)
@given(made=tables(least=30))
def test_without_noise_they_are_scikit_learns(made: Made) -> None:
    """Explained variance of the standardised pooled rows, and loadings up to sign where the gap is wide enough."""
    found = answer(Components(columns=NAMES, radius=8.0), made.schema, made.frames)  # no row is farther away
    scaled = (made.complete - made.complete.mean()) / made.complete.std()
    expected = PCA().fit(scaled)
    np.testing.assert_allclose(numbers(found, "explained variance"), expected.explained_variance_, atol=0.02)
    np.testing.assert_allclose(numbers(found, "explained share"), expected.explained_variance_ratio_, atol=0.005)
    loadings = numbers(found, "loading").reshape(4, 4)
    for mine, theirs, gap in zip(loadings, expected.components_, found.details["gaps"], strict=True):
        if not np.isnan(mine).any() and gap > 20:
            np.testing.assert_allclose(mine * np.sign(mine @ theirs), theirs, atol=0.05)
            assert mine[np.abs(mine).argmax()] > 0


def test_in_raw_units_it_is_the_covariance_matrix() -> None:
    """standardize=False weighs columns by their own spreads."""
    frame = rows_of(np.random.default_rng(1), 80)
    found = answer(Components(columns=NAMES, standardize=False, components=2), schema_for(80), [frame])
    expected = PCA(n_components=2).fit(frame)
    np.testing.assert_allclose(numbers(found, "explained variance"), expected.explained_variance_, rtol=0.01)
    first = numbers(found, "loading").reshape(2, 4)[0]
    np.testing.assert_allclose(np.abs(first), np.abs(expected.components_[0]), atol=0.02)


@pytest.mark.parametrize("rows", [0, 1])
def test_too_few_rows_and_constant_columns_are_not_resolved(rows: int) -> None:
    """No component comes of nothing, one row, or a column that never changes."""
    frame = rows_of(np.random.default_rng(2), rows)
    constant = rows_of(np.random.default_rng(2), 40).assign(age=61.0)
    for one in (frame, constant):
        found = answer(Components(columns=NAMES), schema_for(40), [one])
        assert np.isnan(numbers(found, "explained variance")).all()
        assert np.isnan(numbers(found, "loading")).all()


def test_noise_hides_components_whose_neighbours_are_near() -> None:
    """A strong direction is resolved under noise, three equal ones behind it are not; the answer says why."""
    rng = np.random.default_rng(3)
    common = rng.normal(size=(1500, 1))
    raw = 0.4 * (1.6 * common + rng.normal(size=(1500, 4)))
    frame = pd.DataFrame(CENTERS + SCALES * raw, columns=list(NAMES))
    found = answer(Components(columns=NAMES), schema_for(1500), [frame], sd=2)
    loadings = numbers(found, "loading").reshape(4, 4)
    np.testing.assert_allclose(loadings[0], 0.5, atol=0.15)
    assert np.isnan(loadings[1:]).any(axis=1).all()
    assert any("gap" in note for note in found.notes)


def test_intervals_cover() -> None:
    """About 95 of 100 hold the population's eigenvalue, its share and a loading, noise of both rounds included."""
    rng, hits = np.random.default_rng(4), []
    truth = np.array([[1.0, 0.6, 0.3], [0.6, 1.0, 0.2], [0.3, 0.2, 1.0]])
    values, vectors = np.linalg.eigh(truth)
    first = vectors[:, -1] * np.sign(vectors[np.abs(vectors[:, -1]).argmax(), -1])
    columns, root = NAMES[:3], np.linalg.cholesky(truth)
    view, statistic = View(schema_for(3000)), Components(columns=NAMES[:3])
    for _ in range(250):
        t = 0.8 * rng.normal(size=(3000, 3)) @ root.T
        one = t / 5
        sums = np.concatenate([[3000], one.sum(0), (2 * one**2 - 1).sum(0)]) + rng.normal(0, 5, 7)
        state = statistic.decide(view, 0, [Noisy(sums, 5.0)], None)
        second = statistic.constructions(view, 1, state)[0]
        frames = np.array([column.frame(view) for column in second.columns])
        x = (CENTERS[:3] + SCALES[:3] * t - frames[:, 0]) / (frames[:, 1] * second.radius)
        x /= np.maximum(1, np.linalg.norm(x, axis=1))[:, None]
        z = np.column_stack([np.ones(len(x)), x])
        upper = np.triu_indices(4)
        products = np.append((z.T @ z)[upper] * np.where(upper[0] == upper[1], 1, 41 / 29), 0) + rng.normal(0, 5, 11)
        found = statistic.decode(
            view, [[Noisy(sums, 5.0)], [Noisy(products, 5.0)]], [None, state], Context(rng=rng, records=3000)
        )
        wanted = {"explained variance": values[-1], "explained share": values[-1] / 3, "loading": first[0]}
        rows = [row for row in found.rows if row.at.get("component") == "1" and row.at.get("column") in (None, "age")]
        hits.append([row.lower <= wanted[row.what] <= row.upper for row in rows if row.what in wanted])
    share = np.mean(hits, axis=0)
    assert share.shape == (3,)
    assert columns == NAMES[:3]
    assert ((share > 0.90) & (share < 0.985)).all(), share


@pytest.mark.parametrize(
    "odd",
    [
        {},
        {"center": [50.0], "half": [1.0]},
        {"center": [50.0, float("nan")], "half": [1.0, 1.0]},
        {"center": [50.0, 1e9], "half": [1.0, 1.0]},
        {"center": [50.0, 120.0], "half": [1.0, 0.0]},
        {"center": [50.0, 120.0], "half": [1.0, "2"]},
        {"center": "no", "half": None},
    ],
)
def test_a_state_that_no_first_round_gives_is_refused(odd: dict[str, object]) -> None:
    """Numbers missing, infinite, outside the bounds, or of another kind."""
    with pytest.raises(Misuse):
        Components(columns=("age", "pressure")).constructions(View(schema_for(10)), 1, odd)


def test_sensitivity_and_shape_do_not_follow_the_state() -> None:
    """The second round's plan is that of the planning without a state; more components than columns are refused."""
    view, asked = View(schema_for(10)), Components(columns=("age", "pressure"))
    planned = asked.constructions(view, 1)[0]
    made = asked.constructions(view, 1, {"center": [50.0, 100.0], "half": [1.0, 30.0]})[0]
    assert planned.shape(view) == made.shape(view)
    assert planned.delta2(view) == made.delta2(view)
    with pytest.raises(Misuse, match="at most 2"):
        Components(columns=("age", "pressure"), components=3).constructions(view)
