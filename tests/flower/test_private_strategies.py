"""Every weighted-average strategy of Flower makes the same model behind secure aggregation as in the open."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord
from flwr.serverapp.strategy import FedAdagrad, FedAdam, FedAvg, FedAvgM, FedProx, FedYogi, Strategy

from tests.flower.private_world import EXACT, METRICS, App, World, world

MAKERS: dict[str, Callable[[], Strategy]] = {
    "FedAvg": FedAvg,
    "FedAvgM": lambda: FedAvgM(server_learning_rate=0.8, server_momentum=0.5),
    "FedAdam": lambda: FedAdam(eta=0.3, beta_1=0.7),
    "FedYogi": lambda: FedYogi(eta=0.3),
    "FedAdagrad": lambda: FedAdagrad(eta=0.3),
    "FedProx": lambda: FedProx(proximal_mu=0.7),
}


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with world(tmp_path_factory.mktemp("strategies") / "realm", **EXACT) as made:
        yield made


def close(found: ArrayRecord, expected: ArrayRecord, atol: float = 2e-5) -> None:
    """The same names, shapes and nearly the same numbers."""
    assert list(found) == list(expected)
    for one, other in zip(found.to_numpy_ndarrays(), expected.to_numpy_ndarrays(), strict=True):
        assert one.shape == other.shape
        np.testing.assert_allclose(one, other, rtol=0, atol=atol)


def alike(found: dict[int, MetricRecord], expected: dict[int, MetricRecord], atol: float = 1e-5) -> None:
    """The same rounds, names and nearly the same numbers."""
    assert found.keys() == expected.keys()
    for number, record in expected.items():
        assert dict(found[number]) == pytest.approx(dict(record), abs=atol)


@pytest.mark.parametrize("name", MAKERS)
def test_private_and_plain_runs_make_the_same_model(small: World, name: str) -> None:
    """Model, weighted metrics, configurations and the server's own evaluation agree with the plain strategy's."""
    app, asked = App(), list[int]()

    def held(number: int, arrays: ArrayRecord) -> MetricRecord:
        asked.append(number)
        return MetricRecord({"mean": float(np.mean(arrays.to_numpy_ndarrays()[1]))})

    found = small.start(app, MAKERS[name](), final_evaluation=True, loop={"evaluate_fn": held}, **METRICS)
    seen = list(asked)
    expected = small.plain(app, MAKERS[name](), evaluate_fn=held)
    close(found.arrays, expected.arrays)
    assert [array.dtype for array in found.arrays.to_numpy_ndarrays()] == [np.float32, np.float64]
    for record in expected.train_metrics_clientapp.values():
        del record["secret"]  # a metric that was not declared never leaves a site
    alike(found.train_metrics_clientapp, expected.train_metrics_clientapp)
    first = found.evaluate_metrics_clientapp.pop(0)  # of the first model, which Flower does not ask for
    assert 0 < first["acc"] < 1
    alike(found.evaluate_metrics_clientapp, expected.evaluate_metrics_clientapp)
    alike(found.evaluate_metrics_serverapp, expected.evaluate_metrics_serverapp)
    assert seen == [0, 1, 2]
    assert found.transcripts is not None
    assert len(found.transcripts.verify()) == 3


def test_sites_of_equal_weight_in_a_narrow_ring(small: World) -> None:
    """With equal weights the mean is over the sites; 20 bits are enough for a model of numbers near one."""
    app = App(equal=True)
    found = small.start(app, FedAvg(), clip=30.0, weights="equal", bits=20, **METRICS)
    expected = small.plain(app, FedAvg())
    close(found.arrays, expected.arrays, atol=2e-3)
    loss = expected.train_metrics_clientapp[2]["loss"]
    assert found.train_metrics_clientapp[2]["loss"] == pytest.approx(loss, abs=1e-3)


def test_a_change_above_the_clip_is_cut_to_it(small: World) -> None:
    """What a site may move the model by is bounded, however far its own training went."""
    found = small.start(App(equal=True), FedAvg(), rounds=1, clip=0.01)
    start = np.concatenate([a.ravel() for a in small.model.to_numpy_ndarrays()])
    end = np.concatenate([a.ravel() for a in found.arrays.to_numpy_ndarrays()])
    assert np.linalg.norm(end - start) <= 0.0101


def test_evaluation_may_be_left_out(small: World) -> None:
    """A strategy that evaluates nothing gets no evaluation, and its sites compute none."""
    app = App()
    found = small.start(app, FedAvg(fraction_evaluate=0.0), rounds=1, train_metrics={"loss": (0, 5)})
    assert not found.evaluate_metrics_clientapp
    assert {kind for kind, _ in app.calls} == {"train"}


def test_configurations_reach_the_functions(small: World) -> None:
    """Numbers, text, bytes and lists come to a function as the server's author wrote them."""
    seen: list[Any] = []

    def look(message: Message, context: Context) -> None:
        seen.append(dict(message.content["config"]))

    told = {"lr": 0.1, "name": "x", "flag": True, "raw": b"\0\1", "layers": [1, 2], "rates": [0.5, 1e-9], "none": []}
    small.start(App(spoil=look), FedAvg(), rounds=1, loop={"train_config": ConfigRecord(told)})
    assert seen[0] == {**told, "server-round": 1}
    assert len(seen) == 3
