"""Ways in which the privacy claim was once broken, each kept as a test."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import Ridge

from privfl.codec import encode
from privfl.dp import MAX_REACH, FactorTable
from privfl.entropy import SYSTEM
from privfl.errors import Malformed, Misuse
from privfl.learn import Averaging, BoundData, Linear, Logistic, Schema, Task
from privfl.learn.planning import Descriptor
from privfl.runtime import Federation, PrivacyReport

FEATURES = 30


def schema_of(classes: int) -> Schema:
    """Thirty features in [-1, 1] and a label: a number for ``classes`` 0, else a category."""
    columns: dict[str, object] = {f"x{place}": {"lower": -1, "upper": 1} for place in range(FEATURES)}
    columns["y"] = {"classes": list(range(classes))} if classes else {"lower": -1, "upper": 1}
    return Schema(records=1000, columns=columns)


def task_of(classes: int, metrics: float = 0.0) -> Task:
    spec = Logistic(label="y", metrics=metrics) if classes else Linear(label="y", metrics=metrics)
    return spec.compile(schema_of(classes), epsilon=8.0, delta=1e-5, sites=5, rounds=10)


def alike(schema: Schema, row: np.ndarray, count: int) -> BoundData:
    frame = pd.DataFrame(np.tile(row, (count, 1)), columns=[f"x{place}" for place in range(FEATURES)])
    frame["y"] = 0
    return schema.bind(frame)


def cancelling(task: Task, row: np.ndarray, rng: np.random.Generator) -> bytes:
    """A model whose terms cancel on ``row``, so that only rounding is left of a float product."""
    params = rng.normal(size=(FEATURES + 1, task.outputs)) * 1e18
    params[-1] = -(row @ params[:-1])
    return encode(("model", 0, params.astype("<f8").tobytes()))


@pytest.mark.parametrize("classes", [0, 2, 10])
def test_one_row_more_does_not_move_the_rounding_of_others(classes: int) -> None:
    """Sums over n and n + 1 equal rows differ by at most Δ for hostile models; a float BLAS product made it 7 Δ."""
    task, rng = task_of(classes), np.random.default_rng(classes)
    delta2 = task.layout()[0].delta2
    for _ in range(40):
        row = np.round(rng.uniform(-1, 1, FEATURES) * 256) / 256
        model = cancelling(task, row, rng)
        sums = [task.contribution(model, alike(task.schema, row, n), SYSTEM) for n in range(53, 62)]
        for less, more in pairwise(sums):
            assert sum(int(part) ** 2 for part in more - less) <= delta2


@pytest.mark.parametrize("classes", [0, 2, 10])
@pytest.mark.parametrize("size", [1.0, 1e18, 1e300])
def test_a_table_contributes_the_sum_of_its_rows_taken_alone(classes: int, size: float) -> None:
    """Gradient and metrics of a table are exactly the sum over its one-row tables, whatever the model."""
    task, rng = task_of(classes, metrics=0.05), np.random.default_rng(5)
    frame = pd.DataFrame(rng.uniform(-1.2, 1.2, (37, FEATURES)), columns=[f"x{place}" for place in range(FEATURES)])
    frame["y"] = rng.integers(0, classes, 37) if classes else rng.uniform(-1, 1, 37)
    params = rng.normal(size=(FEATURES + 1, task.outputs)) * size
    model = encode(("model", 0, params.astype("<f8").tobytes()))
    whole = task.contribution(model, task.schema.bind(frame), SYSTEM)
    parts = [task.contribution(model, task.schema.bind(frame.iloc[[place]]), SYSTEM) for place in range(37)]
    np.testing.assert_array_equal(whole, np.sum(parts, axis=0))


def test_exact_predictions_are_those_of_the_parameters() -> None:
    """Predictions agree with float products to about 2^-52·Σ reach, and zero columns and models are fine."""
    rng = np.random.default_rng(1)
    features = rng.integers(-300, 301, (50, 8))
    features[:, 3] = 0
    reach = np.full(8, 300.0)
    reach[3] = 0.0
    table = FactorTable(features, 8)
    for params in (rng.normal(size=(8, 3)), np.zeros((8, 3)), np.full((8, 3), 5e-324), rng.normal(size=(8, 3)) * 1e305):
        exact = table.predictors(params, reach)
        np.testing.assert_allclose(
            exact, features / 256 @ params, rtol=1e-9, atol=1e-320 + 1e-10 * np.abs(params).max()
        )
    huge = np.zeros((8, 1))
    huge[3] = 1e308
    huge[0] = 1e-308
    np.testing.assert_allclose(table.predictors(huge, reach), features[:, :1] / 256 * 1e-308, rtol=1e-9)


def test_predictions_that_cannot_be_exact_are_refused_by_public_numbers() -> None:
    """Σ reach, shapes and the model decide; the rows have no say."""
    table = FactorTable(np.ones((2, 2), dtype=np.int64), 8)
    with pytest.raises(Misuse, match="fewer bits"):
        table.predictors(np.ones((2, 1)), np.array([float(MAX_REACH), 1.0]))
    with pytest.raises(Misuse, match="finite"):
        table.predictors(np.array([[np.nan], [1.0]]), np.ones(2))
    with pytest.raises(Misuse, match="do not belong"):
        table.predictors(np.ones((3, 1)), np.ones(2))


def test_no_row_decides_whether_feature_bits_fit() -> None:
    """Bits that large values would not fit are refused when the task is made, not when a large row is met."""
    wide = Schema(
        records=1000,
        columns={"pay": {"lower": 0, "upper": 1e9, "center": 0, "scale": 1}, "y": {"lower": -1, "upper": 1}},
    )
    with pytest.raises(Misuse, match="fewer bits"):
        Linear(label="y", feature_bits=24).compile(wide, epsilon=8.0, delta=1e-5, sites=5)
    fitting = Linear(label="y", feature_bits=8).compile(wide, epsilon=8.0, delta=1e-5, sites=5)
    told = fitting.descriptor().replace(b'"feature_bits":8', b'"feature_bits":9')  # the same length
    with pytest.raises(Malformed):
        Task.from_descriptor(told)
    for pay in (0.0, 1e9, math.inf, math.nan):
        bound = wide.bind(pd.DataFrame({"pay": [pay], "y": [0.5]}))
        assert fitting.upload(fitting.model_bytes(fitting.initial_state()), bound, SYSTEM).size == fitting.length


def test_numbers_that_no_float_holds_are_a_peers_fault() -> None:
    """A descriptor with huge integers is Malformed; it does not end the site's process."""
    told = Descriptor.decode(task_of(0).descriptor())
    for lower, upper in ((-(10**400), 1), (-(10**400), 10**400)):
        schema = json.loads(told.schema)
        schema["columns"]["x0"] = {"lower": lower, "upper": upper}
        with pytest.raises(Malformed):
            Task.from_descriptor(replace(told, schema=json.dumps(schema)).encode())


def test_a_clip_that_no_word_holds_is_refused_before_anything_is_charged() -> None:
    """Public numbers that make every upload fail are found when the task is made."""
    spec = Averaging(label="y", estimator=Ridge(), clip=2.0**25, scale_bits=36, unprotected=True)
    with pytest.raises(Misuse, match="fewer bits"):
        spec.compile(schema_of(0), epsilon=None, delta=None, sites=3)
    with pytest.raises(Misuse, match="fewer bits"):
        Linear(label="y", clip=1e9, feature_bits=20, residual_bits=20).compile(
            schema_of(0), epsilon=8.0, delta=1e-5, sites=5
        )


def test_runs_on_the_same_tables_add_up_in_the_report() -> None:
    """Every run has its own budget; its report also shows the sum over all runs, in the smallest unit."""
    task = task_of(2)
    once = PrivacyReport.of(task, 10, {})
    assert once.lifetime_epsilon == once.epsilon
    assert once.runs == 1
    twice = PrivacyReport.of(task, 10, {}, [(task.release, 10)])
    assert twice.epsilon == once.epsilon < twice.lifetime_epsilon == task.epsilon_after(20)
    assert f"{twice.lifetime_epsilon:.3f} at delta 1e-05 per record" in twice.words
    assert "over all 2 runs" in repr(twice)
    whole = Averaging(label="y", estimator=Ridge()).compile(schema_of(0), epsilon=8.0, delta=1e-5, sites=5, rounds=10)
    mixed = PrivacyReport.of(whole, 10, {}, [(task.release, 10)])
    assert mixed.lifetime_epsilon > twice.lifetime_epsilon
    assert "per record" in mixed.words.splitlines()[-1]
    assert PrivacyReport.of(task, 10, {}, [(None, 1)]).lifetime_epsilon == math.inf


def test_a_second_training_reports_what_the_first_has_spent() -> None:
    """The federation remembers earlier runs, whose accounts are closed."""
    schema = Schema(records=9, columns={"x": {"lower": 0, "upper": 1}, "ill": {"classes": [False, True]}})
    table = pd.DataFrame({"x": [0.1, 0.9, 0.4], "ill": [False, True, True]})
    fed = Federation.local({"north": table, "south": table, "east": table}, schema)
    runs = [fed.train(Logistic(label="ill"), epsilon=40.0, rounds=1, progress=False).privacy for _ in range(2)]
    assert [run.runs for run in runs] == [1, 2]
    assert runs[0].lifetime_epsilon == runs[0].epsilon < runs[1].lifetime_epsilon
