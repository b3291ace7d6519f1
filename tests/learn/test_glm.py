"""Record-level gradient tasks: exact sums, exact sensitivity, defined odd rows, and models that come out right."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LinearRegression, LogisticRegression

from privfl.dp import LocalReport
from privfl.errors import DataError, Malformed, Misuse
from privfl.learn import Category, Linear, Logistic, Numeric, Task
from privfl.learn.tasks import METRIC_SCALE
from tests.learn.support import LOUD, SeededEntropy, rows, schema_with, trained

TWO, THREE = Category(classes=(False, True)), Category(classes=("x", "y", "z"))
NUMBER = Numeric(lower=-50, upper=50, center=2, scale=4)
KINDS = {
    "two": (Logistic(label="y"), schema_with(TWO), (False, True)),
    "three": (Logistic(label="y", clip=0.5), schema_with(THREE), ("x", "y", "z")),
    "number": (Linear(label="y"), schema_with(NUMBER), (-3.0, 0.0, 4.0, 9.0)),
}


def task_of(kind: str, **terms: object) -> Task:
    """A compiled task of one kind."""
    spec, schema, _ = KINDS[kind]
    return spec.compile(schema, **{"rounds": 10, **LOUD, **terms})  # type: ignore[arg-type]


def model_of(task: Task, seed: int = 3) -> bytes:
    """A broadcast of made-up parameters."""
    state = task.initial_state()
    params = np.random.default_rng(seed).normal(size=state.params.shape)
    return task.model_bytes(type(state)(1, params, state.strategy, state.history))


def oracle(task: Task, frame: pd.DataFrame, params: np.ndarray) -> np.ndarray:
    """The clipped gradient sum in plain floating point, record by record."""
    spec, total = task.spec, np.zeros_like(params)
    for _, row in frame.iterrows():
        x = np.array([row["a"], (row["b"] - 5) / 2, 1.0])
        x[:2] = np.round(np.clip(x[:2], (-4, -2.5), (4, 2.5)) * 256) / 256
        z = x @ params
        if task.classes is None:
            r = z - (row["y"] - 2) / 4
        elif len(task.classes) == 2:
            r = 1 / (1 + np.exp(-z)) - float(row["y"])
        else:
            p = np.exp(z - z.max())
            r = p / p.sum() - np.array([row["y"] == item for item in task.classes])
        g = np.outer(x, r)
        total += g * min(1.0, spec.clip / np.linalg.norm(g))
    return total


@pytest.mark.parametrize("kind", KINDS)
def test_contribution_is_the_clipped_gradient_sum(kind: str) -> None:
    """Integers agree with a per-record float oracle up to the truncation of residuals, far below any noise."""
    task = task_of(kind)
    frame = rows(60, classes=KINDS[kind][2])
    _, params = task.read_model(model_of(task))
    vector = task.contribution(model_of(task), task.schema.bind(frame), SeededEntropy(1))
    unit = 2.0 ** -(task.spec.feature_bits + task.spec.residual_bits)
    gradient = vector[: params.size].reshape(params.shape) * unit
    # each of 60 residuals loses less than 2^-12 of a feature of at most 4
    np.testing.assert_allclose(gradient, oracle(task, frame, params), atol=60 * 4 * 2.0**-12)
    assert vector.dtype == np.int64


@pytest.mark.parametrize("kind", KINDS)
def test_metrics_are_counted_in_the_same_vector(kind: str) -> None:
    """Count, hits and capped loss equal those computed from the finished model's own predictions."""
    task = task_of(kind)
    frame = rows(60, classes=KINDS[kind][2])
    state = trained(task, [task.schema.bind(rows(200, seed, KINDS[kind][2])) for seed in range(3)])
    raw = type(state)(state.round, task.output(state), task.strategy.init(state.params), state.history)
    vector = task.contribution(task.model_bytes(raw), task.schema.bind(frame), SeededEntropy(1))
    count, correct, loss = vector[-3:] / METRIC_SCALE
    model = task.finish(state)
    said, truth = model.predict(frame[["a", "b"]]), frame["y"].to_numpy()
    hits = (np.abs(said - truth) <= 2.0).sum() if kind == "number" else (said == truth).sum()
    assert count == 60
    assert abs(correct - hits) <= 2  # raw features are not rounded and not clamped
    assert 0 <= loss <= 60


def neighbours_norm2(task: Task, frame: pd.DataFrame, model: bytes, drop: int) -> list[int]:
    """Squared integer distance, block by block, between a table and the same one without a row."""
    whole, less = (
        task.contribution(model, task.schema.bind(part), SeededEntropy(1))
        for part in (frame, frame.drop(index=drop).reset_index(drop=True))
    )
    out, at = [], 0
    for block in task.layout():
        change = whole[at : at + block.length] - less[at : at + block.length]
        out.append(sum(int(value) ** 2 for value in change))
        at += block.length
    return out


odd = st.one_of(st.floats(-20, 20), st.sampled_from([math.nan, math.inf, -math.inf, 1e300, -1e-300]))


@settings(max_examples=60, deadline=None)
@given(
    kind=st.sampled_from(sorted(KINDS)),
    a=st.lists(odd, min_size=4, max_size=4),
    b=st.lists(odd, min_size=4, max_size=4),
    label=st.integers(0, 2),
    drop=st.integers(0, 3),
    size=st.sampled_from([0.0, 1.0, 50.0, 1e200]),
)
def test_one_row_moves_the_vector_by_at_most_delta(
    kind: str, a: list[float], b: list[float], label: int, drop: int, size: float
) -> None:
    """Adding or removing any row, odd or not, under any model moves each block by at most its announced Δ."""
    task = task_of(kind)
    classes = KINDS[kind][2]
    frame = pd.DataFrame({"a": a, "b": b, "y": [classes[(label + row) % len(classes)] for row in range(4)]})
    state = task.initial_state()
    params = size * np.random.default_rng(label).normal(size=state.params.shape)
    model = task.model_bytes(type(state)(1, params, state.strategy, state.history))
    moved = neighbours_norm2(task, frame, model, drop)
    for norm2, block in zip(moved, task.layout(), strict=True):
        assert norm2 <= block.delta2


def test_clipped_records_come_close_to_delta() -> None:
    """The bound is used, not wasted: a wrong label far out moves the gradient by nearly all of Δ."""
    task = task_of("two")
    frame = pd.DataFrame({"a": [0.0, 4.0], "b": [5.0, 10.0], "y": [True, False]})
    state = task.initial_state()
    model = task.model_bytes(type(state)(1, np.full_like(state.params, 9.0), state.strategy, state.history))
    block = task.layout()[0]
    assert neighbours_norm2(task, frame, model, 1)[0] >= 0.99 * block.delta2


@pytest.mark.parametrize("kind", KINDS)
def test_rows_without_label_contribute_exactly_nothing(kind: str) -> None:
    """Unlabelled and unknown rows leave the vector as it was, in every coordinate."""
    task = task_of(kind)
    frame = rows(20, classes=KINDS[kind][2])
    blank = rows(5, seed=9, classes=KINDS[kind][2])
    blank["y"] = math.nan if kind == "number" else "unknown" if kind == "three" else None
    both = pd.concat([frame.astype({"y": object}), blank], ignore_index=True)
    both = both.astype({"y": float}) if kind == "number" else both
    whole, plain = (
        task.contribution(model_of(task), task.schema.bind(part), SeededEntropy(1)) for part in (both, frame)
    )
    np.testing.assert_array_equal(whole, plain)


def test_an_empty_site_uploads_a_vector_of_noise() -> None:
    """A site without rows answers like any other; its vector has the announced length."""
    task = task_of("two")
    bound = task.schema.bind(rows(3).iloc[:0])
    assert not task.contribution(model_of(task), bound, SeededEntropy(1)).any()
    assert task.upload(model_of(task), bound, SeededEntropy(1)).shape == (task.length,)
    assert task.upload(model_of(task), bound, SeededEntropy(1)).any()


def test_a_model_that_overflows_is_survived_and_counted_locally() -> None:
    """Parameters near the end of floating point make zero contributions, and a count for the site's log."""
    task = task_of("number")
    state = task.initial_state()
    model = task.model_bytes(type(state)(1, np.full_like(state.params, 1e308), state.strategy, state.history))
    report = LocalReport()
    vector = task.contribution(model, task.schema.bind(rows(30, classes=(1.0, 2.0))), SeededEntropy(1), report=report)
    assert np.abs(vector[:3]).max() <= 30 * math.isqrt(task.layout()[0].delta2)
    assert report.nonfinite > 0


@pytest.mark.parametrize("kind", ["two", "three"])
def test_with_little_noise_the_model_is_as_good_as_pooling(kind: str) -> None:
    """At a huge ε the finished model scores like scikit-learn's on the pooled rows."""
    classes = KINDS[kind][2]
    task = task_of(kind, rounds=30)
    frames = [rows(200, seed, classes) for seed in range(3)]
    test = rows(2000, 99, classes)
    model = task.finish(trained(task, [task.schema.bind(frame) for frame in frames]))
    pooled = pd.concat(frames)
    best = LogisticRegression().fit(pooled[["a", "b"]], pooled["y"])
    assert model.score(test[["a", "b"]], test["y"]) >= best.score(test[["a", "b"]], test["y"]) - 0.02


def test_linear_regression_finds_the_coefficients_of_the_raw_features() -> None:
    """Scaling of features and label is folded back: coefficients match ordinary least squares on raw columns."""
    task = Linear(label="y", clip=3.0, l2=0.0).compile(schema_with(NUMBER), rounds=60, **LOUD)  # type: ignore[arg-type]
    frames = []
    for seed in range(3):
        frame = rows(200, seed)
        frame["y"] = 3.0 + 2.0 * frame["a"] - 0.5 * frame["b"]
        frames.append(frame)
    model = task.finish(trained(task, [task.schema.bind(frame) for frame in frames]))
    pooled = pd.concat(frames)
    exact = LinearRegression().fit(pooled[["a", "b"]], pooled["y"])
    np.testing.assert_allclose(model.coef_, exact.coef_, atol=0.1)
    np.testing.assert_allclose(model.intercept_, exact.intercept_, atol=0.6)


def test_the_true_number_of_rows_divides_nothing() -> None:
    """The update depends on the sum, the survivors and declared numbers; a site's size is not even asked for."""
    task = task_of("two")
    state = task.initial_state()
    total = np.zeros(task.length, dtype=np.int64)
    total[0] = 1 << (task.spec.feature_bits + task.spec.residual_bits)
    after = task.update(state, total, 3)
    step = task.strategy.update(np.array([[1 / 600], [0.0], [0.0]]), state.strategy, state.params)[0]
    np.testing.assert_allclose(after.params, step)
    # with one of three sites gone the declared size shrinks by a third
    fewer = task.update(state, total, 2)
    np.testing.assert_allclose(fewer.params, 1.5 * after.params)


def test_l2_pulls_the_coefficients_and_not_the_intercept() -> None:
    """On a zero sum the step is the strategy's answer to l2 times the coefficients; the intercept stays."""
    spec = Logistic(label="y", l2=0.5, optimiser="sgd", rate=0.1, average=0.0)
    task = spec.compile(schema_with(TWO), rounds=2, **LOUD)  # type: ignore[arg-type]
    start = task.initial_state()
    state = type(start)(1, np.array([[2.0], [-4.0], [8.0]]), start.strategy, start.history)
    after = task.update(state, np.zeros(task.length, dtype=np.int64), 3)
    np.testing.assert_allclose(after.params, [[1.9], [-3.8], [8.0]])


def test_a_round_with_a_site_missing_still_trains() -> None:
    """The task needs no particular set of survivors."""
    task = task_of("two", rounds=20, min_survivors=2, trust="local")
    sites = [task.schema.bind(rows(200, seed)) for seed in range(3)]
    state = trained(task, sites, survivors=2)
    assert {row.survivors for row in state.history} == {2}
    assert task.evaluate(state, rows(500, 50))["score"] > 0.85


def test_evaluate_is_exact_on_the_coordinators_own_rows() -> None:
    """Held-out figures agree with the finished model; a table without labels is the caller's error."""
    task = task_of("two")
    state = trained(task, [task.schema.bind(rows(200, seed)) for seed in range(3)])
    test = rows(400, 77)
    found = task.evaluate(state, test)
    assert found["records"] == 400
    assert abs(found["score"] - task.finish(state).score(test[["a", "b"]], test["y"])) <= 0.01
    with pytest.raises(DataError, match="label"):
        task.evaluate(state, test.assign(y=pd.array([None] * 400, dtype="boolean")))


def test_a_wrong_broadcast_or_sum_is_refused() -> None:
    """Bytes that are no model of this task, and sums of another shape, are typed errors."""
    task, other = task_of("two"), task_of("three")
    good = model_of(task)
    for bad in (b"", good[:-1], good + b"\0", model_of(other), b"x" * 40):
        with pytest.raises(Malformed):
            task.read_model(bad)
    state = task.initial_state()
    broken = type(state)(1, np.full_like(state.params, math.nan), state.strategy, state.history)
    with pytest.raises(Malformed, match="finite"):
        task.read_model(task.model_bytes(broken))
    with pytest.raises(Misuse):
        task.update(state, np.zeros(task.length), 3)  # type: ignore[arg-type]
    with pytest.raises(Misuse):
        task.update(state, np.zeros(task.length + 1, dtype=np.int64), 3)
    with pytest.raises(Misuse):
        task.update(state, np.zeros(task.length, dtype=np.int64), 4)


def test_data_bound_to_another_schema_is_refused() -> None:
    """A site answers only for the schema it has agreed to."""
    task = task_of("two")
    other = schema_with(TWO, records=601).bind(rows(5))
    with pytest.raises(DataError, match="schema"):
        task.contribution(model_of(task), other, SeededEntropy(1))


def test_noise_has_the_announced_size() -> None:
    """Uploads of an empty site scatter with the release's σ in each block: within five standard errors."""
    task = task_of("three", rounds=5)
    bound = task.schema.bind(rows(3, classes=("x", "y", "z")).iloc[:0])
    entropy, model = SeededEntropy(5), model_of(task)
    drawn = np.array([task.upload(model, bound, entropy) for _ in range(400)], dtype=float)
    at = 0
    assert task.release is not None
    for block in task.release.blocks:
        part = drawn[:, at : at + block.length]
        assert abs(part.std() / task.release.sigma_site(block) - 1) < 5 / math.sqrt(2 * part.size)
        at += block.length
