"""Federated averaging: any linear estimator, whole sites protected, unfittable rows harmless."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import (
    LinearRegression,
    LogisticRegression,
    Perceptron,
    Ridge,
    RidgeClassifier,
    SGDClassifier,
    SGDRegressor,
)
from sklearn.svm import SVC, LinearSVC

from privfl.dp import Unit
from privfl.errors import Misuse
from privfl.learn import Averaging, Category, Numeric, Task
from tests.learn.support import SeededEntropy, rows, schema_with, trained

TERMS = {"epsilon": None, "delta": None, "sites": 4, "min_survivors": 4}
SCHEMAS = {2: schema_with(Category(classes=("no", "yes"))), 3: schema_with(Category(classes=("z", "y", "x")))}
NUMBER = schema_with(Numeric(lower=-20, upper=20, center=1, scale=3))


def free(estimator: object, schema: object = SCHEMAS[2], **changes: object) -> Task:
    """A task without noise, allowed by name."""
    settings = {"clip": 10.0, "unprotected": True, **changes}
    return Averaging(label="y", estimator=estimator, **settings).compile(schema, rounds=8, **TERMS)  # type: ignore[arg-type]


@pytest.mark.parametrize("count", [2, 3])
@pytest.mark.parametrize(
    "estimator",
    [
        LogisticRegression(),
        SGDClassifier(random_state=1),
        Perceptron(random_state=1),
        RidgeClassifier(),
        LinearSVC(random_state=1),
        LinearDiscriminantAnalysis(),
    ],
    ids=lambda found: type(found).__name__,
)
def test_classifiers_average_to_a_good_model(estimator: object, count: int) -> None:
    """Every classifier with coefficients learns, with classes in whatever order they were declared."""
    classes = SCHEMAS[count].columns["y"].classes  # type: ignore[union-attr]
    task = free(estimator, SCHEMAS[count])
    state = trained(task, [task.schema.bind(rows(150, seed, classes)) for seed in range(4)])
    test = rows(600, 50, classes)
    model = task.finish(state)
    assert type(model) is type(estimator)
    assert model.score(test[["a", "b"]], test["y"]) > (0.9 if count == 2 else 0.7)
    # the sites' own score travels in the same sum
    assert state.history[-1].score == pytest.approx(model.score(test[["a", "b"]], test["y"]), abs=0.1)
    assert state.history[-1].count == pytest.approx(4.0)


@pytest.mark.parametrize(
    "estimator",
    [LinearRegression(), Ridge(), SGDRegressor(random_state=1), LinearRegression(fit_intercept=False)],
    ids=repr,
)
def test_regressors_average_to_a_good_model(estimator: object) -> None:
    """Regressors come back in the label's own unit."""
    task = free(estimator, NUMBER)
    frames = [rows(150, seed).assign(y=lambda frame: 1 + 2 * frame["a"] - 0.3 * (frame["b"] - 5)) for seed in range(4)]
    model = task.finish(trained(task, [task.schema.bind(frame) for frame in frames]))
    assert model.score(frames[0][["a", "b"]], frames[0]["y"]) > 0.95


def test_a_site_moves_the_sum_by_at_most_its_clip() -> None:
    """Replacing a site's rows by none changes its integer vector by at most Δ: its own squared norm says so."""
    spec = Averaging(label="y", estimator=LogisticRegression(C=1e6), clip=0.5)
    task = spec.compile(SCHEMAS[2], **{**TERMS, "epsilon": 3.0, "delta": 1e-5, "rounds": 3})  # type: ignore[arg-type]
    assert task.release is not None
    assert task.release.unit is Unit.SITE
    bound = task.schema.bind(rows(150, classes=("no", "yes")))
    vector = task.contribution(task.model_bytes(task.initial_state()), bound, SeededEntropy(2))
    update, metrics = vector[:3], vector[3:]
    block = task.layout()[0]
    assert 0.98 * block.delta2 < sum(int(value) ** 2 for value in update) <= block.delta2
    assert sum(int(value) ** 2 for value in metrics) <= task.layout()[1].delta2


@pytest.mark.parametrize(
    "frame",
    [
        rows(40, classes=("no", "yes")).assign(y="no"),
        rows(40, classes=("no", "yes")).iloc[:0],
        rows(40, classes=("no", "yes")).assign(y="other"),
        rows(1, classes=("no", "yes")),
    ],
    ids=["one class", "empty", "unknown", "one row"],
)
def test_rows_that_cannot_be_fitted_contribute_zero(frame: pd.DataFrame) -> None:
    """No row makes a site fail or fall silent; its update is the zero vector."""
    task = free(LogisticRegression())
    vector = task.contribution(task.model_bytes(task.initial_state()), task.schema.bind(frame), SeededEntropy(2))
    assert vector.shape == (task.length,)
    assert not vector[:3].any()


def test_with_many_sites_noise_leaves_a_model() -> None:
    """Site-level privacy works where sites are many: 150 sites at ε = 8 still learn."""
    spec = Averaging(label="y", estimator=RidgeClassifier(), clip=1.0)
    task = spec.compile(SCHEMAS[2], epsilon=8.0, delta=1e-5, sites=150, rounds=1)
    sites = [task.schema.bind(rows(20, seed, ("no", "yes"))) for seed in range(150)]
    test = rows(500, 900, ("no", "yes"))
    assert task.finish(trained(task, sites)).score(test[["a", "b"]], test["y"]) > 0.85


def test_noise_is_left_out_by_name_only() -> None:
    """Forgetting epsilon is an error; asking for no noise and for epsilon at once is one too."""
    spec = Averaging(label="y", estimator=LogisticRegression())
    with pytest.raises(Misuse, match="unprotected"):
        spec.compile(SCHEMAS[2], rounds=3, **TERMS)  # type: ignore[arg-type]
    with pytest.raises(Misuse, match="unprotected"):
        Averaging(label="y", estimator=LogisticRegression(), unprotected=True).compile(
            SCHEMAS[2], rounds=3, **{**TERMS, "epsilon": 1.0}  # type: ignore[arg-type]
        )  # fmt: skip
    task = free(LogisticRegression())
    assert task.release is None
    assert math.isinf(task.epsilon_after(1))
    assert "no noise" in repr(task)


@pytest.mark.parametrize(
    ("estimator", "says"),
    [
        (RandomForestClassifier(), "cannot be averaged"),
        (SVC(kernel="linear", max_iter=100), "coef_"),
        (SVC(kernel="linear"), "max_iter"),
        (Ridge(), "not a classifier"),
        (LogisticRegression(class_weight={0: 1}), "class_weight"),
        (object(), "cannot be averaged"),
    ],
    ids=lambda found: type(found).__name__,
)
def test_unsuitable_estimators_are_misuse(estimator: object, says: str) -> None:
    """What has no settable coefficients, or parameters that cannot travel, is refused with the reason."""
    with pytest.raises(Misuse, match=says):
        free(estimator)


def test_too_coarse_a_scale_is_misuse() -> None:
    """A fixed point that would blow the sensitivity up by rounding is refused."""
    with pytest.raises(Misuse, match="scale_bits"):
        free(LogisticRegression(), clip=0.5, scale_bits=4)


def test_averaging_is_the_mean_of_changes() -> None:
    """The server's step is the plain mean of what survivors sent, in fixed point."""
    task = free(LinearRegression(), NUMBER, metrics=0.0)
    state = task.initial_state()
    total = np.array([3 << 16, -(6 << 16), 9 << 15], dtype=np.int64)
    np.testing.assert_allclose(task.update(state, total, 3).params[:, 0], [1.0, -2.0, 1.5])
