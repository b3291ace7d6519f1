"""Generalised linear models against statsmodels, and their standard errors under noise."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
from hypothesis import given, settings
from hypothesis import strategies as st
from privfl_analytics.answer import Answer
from privfl_analytics.statistic import Context, Noisy
from privfl_analytics.statistics.glm import Glm, Logistic, Poisson
from privfl_analytics.statistics.regression import LinearRegression
from privfl_analytics.view import View

from privfl.errors import Misuse
from privfl.tasks import Schema
from tests.analytics.reference import answer
from tests.analytics.statistics.moment_tables import CENTERS, SCALES, Made, rows_of, schema_for, tables

FEATURES = ("age", "weight")
PLACES = [0, 2]
TERMS = ("intercept", *FEATURES)


def schema(records: int) -> Schema:
    return schema_for(
        records,
        ill={"classes": [False, True]},
        visits={"lower": 0, "upper": 40, "center": 3, "scale": 4},
        share={"lower": 0, "upper": 1},
    )


def labelled(made: Made, seed: int) -> tuple[list[pd.DataFrame], pd.DataFrame]:
    """Add labels that features explain; some of them are missing."""
    rng, frames = np.random.default_rng(seed), []
    for frame in made.frames:
        scaled = ((frame[list(FEATURES)].to_numpy() - CENTERS[PLACES]) / SCALES[PLACES]).copy()
        eta = -0.3 + np.nan_to_num(scaled) @ [0.8, -0.5]
        ill = pd.Series(rng.random(len(frame)) < 1 / (1 + np.exp(-eta)), index=frame.index, dtype=object)
        ill[rng.random(len(frame)) < 0.05] = None
        frames.append(frame.assign(ill=ill, visits=np.minimum(rng.poisson(np.exp(0.6 + eta)), 40).astype(float)))
    complete = pd.concat(frames).dropna(subset=[*FEATURES, "ill"])
    return frames, complete


def check(found: Answer, expected: object, tolerance: float, se_tolerance: float) -> None:
    row = {one.at["term"]: one for one in found.rows if one.what == "coefficient"}
    for at, term in enumerate(TERMS):
        se = expected.bse.iloc[at]
        assert row[term].value == pytest.approx(expected.params.iloc[at], abs=tolerance * se)
        assert row[term].se == pytest.approx(se, rel=se_tolerance)


@settings(max_examples=6, deadline=None)
@given(made=tables(least=50), seed=st.integers(0, 1000))
def test_logistic_without_noise_is_the_maximum_likelihood_fit(made: Made, seed: int) -> None:
    """After enough steps the coefficients are statsmodels', whatever the features' true law; errors nearly so."""
    frames, complete = labelled(made, seed)
    clip = 50.0  # binds for no row
    found = answer(Logistic(label="ill", features=FEATURES, steps=9, clip=clip), schema(200), frames)
    expected = sm.Logit(complete["ill"].astype(float), sm.add_constant(complete[list(FEATURES)])).fit(disp=0)
    check(found, expected, 0.02, 0.25)
    assert found.value("odds ratio", term="age") == pytest.approx(np.exp(expected.params["age"]), rel=0.01)


@settings(max_examples=6, deadline=None)
@given(made=tables(least=50), seed=st.integers(0, 1000))
def test_poisson_without_noise_is_the_maximum_likelihood_fit(made: Made, seed: int) -> None:
    """Raw units although the sites sum in units of the largest count; a clip that binds for no row."""
    frames, complete = labelled(made, seed)
    complete = pd.concat(frames).dropna(subset=list(FEATURES))
    found = answer(Poisson(label="visits", features=FEATURES, steps=12, clip=50.0), schema(200), frames)
    family = sm.families.Poisson()
    expected = sm.GLM(complete["visits"], sm.add_constant(complete[list(FEATURES)]), family=family).fit()
    check(found, expected, 0.03, 0.25)
    assert found.value("rate ratio", term="age") == pytest.approx(np.exp(expected.params["age"]), rel=0.01)


@settings(max_examples=6, deadline=None)
@given(made=tables(least=30))
def test_gaussian_is_the_linear_regression_in_one_round(made: Made) -> None:
    """The same rows by another name; statsmodels' GLM agrees."""
    asked = Glm(label="rate", features=FEATURES, family="gaussian")
    assert asked.stages(View(made.schema)) == 1
    found = answer(asked, made.schema, made.frames)
    assert found.rows == answer(LinearRegression(label="rate", features=FEATURES), made.schema, made.frames).rows
    complete = pd.concat(made.frames).dropna(subset=[*FEATURES, "rate"])
    check(found, sm.GLM(complete["rate"], sm.add_constant(complete[list(FEATURES)])).fit(), 0.06, 0.03)


def test_a_rare_class_and_proportions() -> None:
    """glm binomial: three in a hundred positives, a label of numbers in [0, 1], and the other class turned round."""
    rng = np.random.default_rng(1)
    frame = rows_of(rng, 1200)
    eta = -4 + 0.9 * (frame["age"] - 50) / 12
    frame["ill"] = rng.random(1200) < 1 / (1 + np.exp(-eta))
    frame["share"] = rng.beta(2, 5, 1200)
    rare = answer(Logistic(label="ill", features=FEATURES, steps=12, clip=50), schema(1200), [frame])
    design = sm.add_constant(frame[list(FEATURES)])
    check(rare, sm.Logit(frame["ill"].astype(float), design).fit(disp=0), 0.02, 0.25)
    turned = answer(
        Glm(label="ill", features=FEATURES, steps=12, clip=50, family="binomial", positive=False),
        schema(1200),
        [frame],
    )
    np.testing.assert_allclose(turned.details["coefficients"], -np.array(rare.details["coefficients"]), rtol=1e-2)
    shared = answer(Glm(label="share", features=FEATURES, family="binomial", clip=50), schema(1200), [frame])
    expected = sm.GLM(frame["share"], design, family=sm.families.Binomial()).fit()
    np.testing.assert_allclose(shared.details["coefficients"], expected.params, atol=0.01)


def test_skewed_features_settle_too() -> None:
    """The curvature of normal features is wrong for these; the steps come to the same end all the same."""
    rng = np.random.default_rng(2)
    frame = pd.DataFrame(
        {"age": 50 + 12 * (rng.exponential(size=800) - 1), "weight": 70 + 10.0 * rng.integers(0, 2, 800)}
    )
    eta = -1 + 1.2 * (frame["age"] - 50) / 12 - (frame["weight"] - 70) / 10
    frame["ill"] = rng.random(800) < 1 / (1 + np.exp(-eta))
    frame["visits"] = np.minimum(rng.poisson(np.exp(np.minimum(eta, 3))), 40).astype(float)
    design = sm.add_constant(frame[list(FEATURES)].clip(upper=110))
    found = answer(Logistic(label="ill", features=FEATURES, steps=14, clip=50), schema(800), [frame])
    expected = sm.Logit(frame["ill"].astype(float), design).fit(disp=0)
    np.testing.assert_allclose(found.details["coefficients"], expected.params, atol=0.02, rtol=0.01)
    found = answer(Poisson(label="visits", features=FEATURES, steps=16, clip=50), schema(800), [frame])
    expected = sm.GLM(frame["visits"], design, family=sm.families.Poisson()).fit()
    np.testing.assert_allclose(found.details["coefficients"], expected.params, atol=0.02, rtol=0.01)


@pytest.mark.parametrize("rows", [0, 1, 2])
def test_too_few_rows_and_constant_features_are_not_resolved(rows: int) -> None:
    """No coefficients, and the reason; odd tables break no step on the way."""
    rng = np.random.default_rng(3)
    few, constant = rows_of(rng, rows), rows_of(rng, 60).assign(age=50.0)
    for frame in (few, constant):
        given_ = frame.assign(ill=np.arange(len(frame)) % 2 == 0, visits=1.0)
        for asked in (Logistic(label="ill", features=FEATURES), Poisson(label="visits", features=FEATURES)):
            found = answer(asked, schema(60), [given_])
            assert found.details["coefficients"] is None
            assert all(row.note for row in found.rows if row.what == "coefficient")


def test_separated_classes_have_no_finite_coefficients() -> None:
    """Enough steps run away, and the answer says so instead of showing where they were."""
    frame = rows_of(np.random.default_rng(4), 120)
    frame["ill"] = frame["age"] > 50
    found = answer(Logistic(label="ill", features=FEATURES, steps=16, clip=50), schema(120), [frame])
    assert found.details["coefficients"] is None or any("not settled" in note for note in found.notes)
    eased = answer(Logistic(label="ill", features=FEATURES, steps=8, clip=50, ridge=0.05), schema(120), [frame])
    assert eased.value("coefficient", term="age") > 0


def test_heavy_noise_is_not_resolved() -> None:
    """Sixty rows under noise of forty give no coefficient, and nothing overflows on the way."""
    frame = rows_of(np.random.default_rng(5), 60)
    frame = frame.assign(ill=frame["age"] > 55, visits=2.0)
    for asked in (Logistic(label="ill", features=FEATURES), Poisson(label="visits", features=FEATURES)):
        for seed in range(3):
            found = answer(asked, schema(60), [frame], sd=40, rng=np.random.default_rng(seed))
            assert all(row.value is None for row in found.rows if row.what == "coefficient")


class World:
    """Normal features and labels, summed in floats as the sites would in integers."""

    def __init__(self, rng: np.random.Generator, rows: int) -> None:
        self.t = rng.multivariate_normal([0.1, -0.2], [[0.8, 0.3], [0.3, 0.7]], rows)
        eta = -0.7 + self.t @ [0.8, -0.5]
        self.ill = (rng.random(rows) < 1 / (1 + np.exp(-eta))).astype(float)
        self.visits = np.minimum(rng.poisson(np.exp(1.2 + self.t @ [0.4, -0.3])), 40) / 40

    def run(self, asked: Logistic | Poisson, sd: float, rng: np.random.Generator, context: Context) -> Answer:
        view, label = View(schema(len(self.t))), self.ill if isinstance(asked, Logistic) else self.visits
        z, state, stages, states = np.column_stack([np.ones(len(self.t)), self.t]), None, [], []
        for stage in range(asked.stages(view)):
            states.append(state)
            stages.append([])
            for one in asked.constructions(view, stage, state):
                noise = sd * one.delta2(view) ** 0.5 / one.scale
                exact = self.sums(one, z, label)
                stages[-1].append(Noisy(exact + rng.normal(0, noise, exact.shape) if sd else exact, noise))
            if stage + 1 < asked.stages(view):
                state = asked.decide(view, stage, stages[-1], state)
        return asked.decode(view, stages, states, context)

    @staticmethod
    def sums(one: object, z: np.ndarray, label: np.ndarray) -> np.ndarray:
        if one.kind == "outer":
            x = z[:, 1:] / one.radius
            flag = np.linalg.norm(x, axis=1)
            w = np.column_stack([z[:, 0], x / np.maximum(flag, 1)[:, None]])
            upper = np.triu_indices(3)
            return np.append((w.T @ w)[upper] * np.where(upper[0] == upper[1], 1, 41 / 29), (flag > 1).sum() / 2)
        if one.kind == "tally":
            return np.array([len(z), 0.0, 0.0])
        eta = z @ np.array(one.beta)
        residual = (1 / (1 + np.exp(-eta)) if one.link == "logistic" else np.exp(np.minimum(eta, 50))) - label
        length = np.abs(residual) * np.linalg.norm(z, axis=1)
        return (z * (residual * np.minimum(1, one.clip / np.maximum(length, 1e-300)))[:, None]).sum(0)


@pytest.mark.parametrize(
    "asked", [Logistic(label="ill", features=FEATURES), Poisson(label="visits", features=FEATURES)]
)
@pytest.mark.parametrize("interval", ["rows", "population"])
def test_intervals_cover(asked: Logistic | Poisson, interval: str) -> None:
    """About 95 of 100 hold the slope, noise of all steps in it: of these rows' own fit, or of the law behind them."""
    rng, hits = np.random.default_rng(6), []
    slopes = np.array([0.8, -0.5] if isinstance(asked, Logistic) else [0.4, -0.3])
    for _ in range(100):
        world, truth = World(rng, 2500), slopes / SCALES[PLACES]
        if interval == "rows":
            own = world.run(asked.model_copy(update={"steps": 10}), 0.0, rng, Context(records=2500))
            truth = np.array(own.details["coefficients"][1:])
        found = world.run(asked, 9.0, rng, Context(interval=interval, records=2500, rng=rng))
        rows = [row for row in found.rows if row.what == "coefficient"][1:]
        hits.append([row.lower <= one <= row.upper for row, one in zip(rows, truth, strict=True)])
    assert 0.90 < np.mean(hits) < 0.99, np.mean(hits, axis=0)


@pytest.mark.parametrize(
    "odd",
    [{}, {"beta": [0.0]}, {"beta": [0.0, 1.0, float("inf")]}, {"beta": [0, 0, True]}, {"beta": [0.0, 1e9, 0.0]}],
)
def test_coefficients_that_no_step_gives_are_refused(odd: dict[str, object]) -> None:
    """From whatever peer: numbers missing, infinite, not numbers, or huge."""
    with pytest.raises(Misuse):
        Logistic(label="ill", features=FEATURES).constructions(View(schema(10)), 2, odd)


def test_refusals_in_words() -> None:
    """Labels of the wrong kind or bounds, a class that is not declared, a label among the features."""
    view = View(schema(10))
    for asked, said in (
        (Poisson(label="rate", features=FEATURES), "from 0 on"),
        (Poisson(label="ill", features=FEATURES), "number is needed"),
        (Logistic(label="visits", features=FEATURES), "within \\[0, 1\\]"),
        (Logistic(label="ill", features=FEATURES, positive="yes"), "no declared class"),
        (Logistic(label="share", features=FEATURES, positive=True), "leave it out"),
        (Logistic(label="age", features=FEATURES), "among the features"),
    ):
        with pytest.raises(Misuse, match=said):
            asked.constructions(view)


def test_shares_and_sensitivities_are_public() -> None:
    """Weights cover every construction of every stage; coefficients change neither shape nor sensitivity."""
    view, asked = View(schema(10)), Logistic(label="ill", features=FEATURES)
    for stage, shares in enumerate(asked.weights(view)):
        assert len(shares) == len(asked.constructions(view, stage))
    planned, made = (asked.constructions(view, 3, one)[0] for one in (None, {"beta": [0.5, 1.0, -2.0]}))
    assert (planned.shape(view), planned.delta2(view)) == (made.shape(view), made.delta2(view))
    assert made.beta == (0.5, 1.0, -2.0)


def test_below_the_display_minimum_nothing_is_shown() -> None:
    """No coefficient and no path to it where the rows are fewer than may be counted aloud."""
    frame = rows_of(np.random.default_rng(7), 30)
    frame = frame.assign(ill=np.arange(30) % 3 == 0, rate=frame["rate"])
    hidden = Context(min_cell_count=40, records=30)
    for asked in (Logistic(label="ill", features=FEATURES), Glm(label="rate", features=FEATURES)):
        found = answer(asked, schema(30), [frame], context=hidden)
        assert all(row.value is None and "minimum" in row.note for row in found.rows)
        assert found.details["coefficients"] is None
        assert "path" not in found.details


def test_the_division_of_the_budget_is_said() -> None:
    """In the plan's words and with the answer, and it adds up."""
    asked = Logistic(label="ill", features=FEATURES, steps=5)
    said = asked.precision(View(schema(100)), [[1.0, 1.0], *([[1.0]] * 5)], 100)
    assert asked.split() in said
    shares = [float(word) for word in asked.split().split() if word.isdigit()]
    moments, early, steps, late, last = shares
    assert moments + early * steps + late * last == pytest.approx(100, abs=3)
