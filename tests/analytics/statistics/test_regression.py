"""Linear regression against statsmodels and scikit-learn, and its standard errors under noise."""

from __future__ import annotations

import numpy as np
import pytest
import statsmodels.api as sm
from hypothesis import given, settings
from privfl_analytics.statistic import Context, Noisy
from privfl_analytics.statistics.regression import LinearRegression
from privfl_analytics.view import View
from sklearn.linear_model import Ridge

from privfl.errors import Misuse
from tests.analytics.reference import answer
from tests.analytics.statistics.moment_tables import SCALES, Made, rows_of, schema_for, tables

FEATURES = ("age", "pressure", "weight")
ASKED = LinearRegression(label="rate", features=FEATURES)
TERMS = ("intercept", *FEATURES)


@settings(max_examples=15, deadline=None)
@given(made=tables(least=30))
def test_without_noise_it_is_least_squares_of_the_pooled_rows(made: Made) -> None:
    """Coefficients, standard errors, p-values, R² and residual sd equal statsmodels' OLS to the grid."""
    found = answer(ASKED, made.schema, made.frames)
    expected = sm.OLS(made.complete["rate"], sm.add_constant(made.complete[list(FEATURES)])).fit()
    row = {one.at["term"]: one for one in found.rows if one.what == "coefficient"}
    for at, term in enumerate(TERMS):
        se = expected.bse.iloc[at]
        assert row[term].value == pytest.approx(expected.params.iloc[at], abs=0.05 * se)
        assert row[term].se == pytest.approx(se, rel=0.02)
        low, high = expected.conf_int().iloc[at]
        assert (row[term].lower, row[term].upper) == pytest.approx((low, high), abs=0.1 * se)
        assert found.value("p-value", term=term) == pytest.approx(expected.pvalues.iloc[at], abs=0.05)
    assert found.value("R²") == pytest.approx(expected.rsquared, abs=0.01)
    assert found.value("residual sd") == pytest.approx(expected.mse_resid**0.5, rel=0.01)
    assert found.details["names"] == list(TERMS)


@settings(max_examples=10, deadline=None)
@given(made=tables(least=20))
def test_ridge_is_scikit_learns_on_scaled_columns(made: Made) -> None:
    """The penalty is per row and in public scales; it makes few rows and collinear columns solvable too."""
    found = answer(LinearRegression(label="rate", features=FEATURES, ridge=0.3), made.schema, made.frames)
    scaled = made.complete[list(FEATURES)].to_numpy() / SCALES[:3]
    expected = Ridge(alpha=0.3 * len(scaled)).fit(scaled, made.complete["rate"])
    values = [found.value("coefficient", term=name) for name in FEATURES] * SCALES[:3]
    np.testing.assert_allclose(values, expected.coef_, atol=0.005)
    assert any("Ridge biases" in note for note in found.notes)


@pytest.mark.parametrize("rows", [0, 1, 3])
def test_too_few_rows_are_not_resolved(rows: int) -> None:
    """No coefficients rather than one of many that fit; the reason is there."""
    frame = rows_of(np.random.default_rng(1), rows)
    found = answer(ASKED, schema_for(10), [frame])
    assert found.details["coefficients"] is None
    assert all(row.value is None and row.note for row in found.rows if row.what in ("coefficient", "R²"))


def test_constant_or_repeated_features_are_not_resolved() -> None:
    """Neither the constant nor the copy gets a number; with ridge both do."""
    frame = rows_of(np.random.default_rng(2), 60)
    for odd in (frame.assign(age=55.0), frame.assign(pressure=120 + 15 * (frame["age"] - 50) / 12)):
        found = answer(ASKED, schema_for(60), [odd])
        assert all(row.value is None for row in found.rows if row.what == "coefficient")
        assert any("constant" in row.note for row in found.rows)
        eased = answer(LinearRegression(label="rate", features=FEATURES, ridge=0.1), schema_for(60), [odd])
        assert np.isfinite(eased.value("coefficient", term="weight"))


def test_noise_that_drowns_the_features_gives_no_number() -> None:
    """And says what could be done."""
    frame = rows_of(np.random.default_rng(3), 60)
    found = answer(ASKED, schema_for(60), [frame], sd=20)
    assert all(row.value is None for row in found.rows if row.what in ("coefficient", "p-value", "R²"))
    assert any("larger budget" in note for note in found.notes)


@pytest.mark.parametrize(("interval", "sd"), [("rows", 3.0), ("population", 3.0), ("population", 8.0)])
def test_intervals_cover(interval: str, sd: float) -> None:
    """About 95 of 100 hold the slope, by first order where noise is small and by bootstrap where it is not."""
    rng, hits, asked = np.random.default_rng(4), np.zeros(2), 0
    view, statistic = View(schema_for(1500)), LinearRegression(label="rate", features=("age",))
    construction = statistic.constructions(view)[0]
    noise = sd * construction.row2(view) ** 0.5 / construction.scale
    kind = np.where(np.eye(3)[np.triu_indices(3)], 1, 41 / 29)
    for _ in range(300):
        x = 0.8 * rng.standard_normal(1500)
        y = 0.5 * x + 0.5 * rng.standard_normal(1500)
        slope, share = 0.5, 0.16 / 0.41
        if interval == "rows":
            slope, share = np.polyfit(x, y, 1)[0], np.corrcoef(x, y)[0, 1] ** 2
        z = np.column_stack([np.ones(1500), np.rint(np.column_stack([x, y]) / construction.radius * 1024) / 1024])
        values = np.append((z.T @ z)[np.triu_indices(3)] * kind, 0) + rng.normal(0, noise, 7)
        context = Context(interval=interval, rng=rng, records=1500, draws=800)
        found = statistic.decode(view, [[Noisy(values, noise)]], [None], context)
        rows = [row for row in found.rows if row.at.get("term") == "age" or row.what == "R²"]
        if rows[0].value is not None:
            asked += 1
            scaled = (slope / 12, None, share) if interval == "population" else (slope / 12, share)
            told = [(row, truth) for row, truth in zip(rows, scaled, strict=True) if truth is not None]
            hits += [row.lower <= truth <= row.upper for row, truth in told]
    assert asked > 250
    assert ((hits / asked > 0.91) & (hits / asked < 0.985)).all()


def test_refusals_in_words() -> None:
    """A label among the features, an unknown column, a negative ridge."""
    view = View(schema_for(10))
    with pytest.raises(Misuse, match="among the features"):
        LinearRegression(label="age", features=("age", "rate")).constructions(view)
    with pytest.raises(Misuse, match="did you mean 'rate'"):
        LinearRegression(label="rat", features=("age",)).constructions(view)
    with pytest.raises(Misuse, match="ridge"):
        LinearRegression(label="rate", features=("age",), ridge=-1)
