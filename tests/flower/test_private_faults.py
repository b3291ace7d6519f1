"""Whatever an app's functions do after the charge, every site sends; a stopped run goes on; the ledger pays for all."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.serverapp.strategy import FedAdam, FedAvg

from privfl.clock import SystemClock
from privfl.errors import Misuse, WireError
from privfl.flower import LocalGrid
from privfl.homes.site import SiteHome
from privfl.runtime.jobs import jobs_of
from tests.flower.private_world import EXACT, LOUD, METRICS, App, World, world
from tests.runtime.realm import PASSPHRASE


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with world(tmp_path_factory.mktemp("faults") / "realm", **EXACT) as made:
        yield made


def raises(error: BaseException) -> Callable[[Message], Any]:
    def spoil(message: Message) -> Any:
        raise error

    return spoil


def answer(arrays: Any, **metrics: Any) -> Callable[[Message], Message]:
    def spoil(message: Message) -> Message:
        model = message.content["arrays"].to_numpy_ndarrays()
        made = ArrayRecord([Array(array) for array in arrays(model)]) if callable(arrays) else arrays
        told = {"num-examples": 5, "loss": 1.0, "acc": 0.5, **metrics}
        record = MetricRecord({name: value for name, value in told.items() if value is not None})
        return Message(RecordDict({"arrays": made, "metrics": record}), reply_to=message)

    return spoil


SPOILS: dict[str, Callable[[Message], Any]] = {
    "raises": raises(RuntimeError("patient 4711 is ill")),
    "exits": raises(SystemExit(3)),
    "no memory": raises(MemoryError()),
    "none": lambda message: "nothing",
    "nan": answer(lambda model: [np.full_like(array, np.nan) for array in model]),
    "infinite": answer(lambda model: [array * np.inf for array in model]),
    "other shape": answer(lambda model: [array[:1] for array in model]),
    "fewer arrays": answer(lambda model: model[:1]),
    "text": answer(lambda model: [np.array(["a"] * array.size).reshape(array.shape) for array in model]),
    "uncounted": answer(lambda model: model, **{"num-examples": None}),
    "negative": answer(lambda model: model, **{"num-examples": -3}),
    "endless": answer(lambda model: model, **{"num-examples": float("inf")}),
    "no loss": answer(lambda model: model, loss=None, acc=None),
    "a list": answer(lambda model: model, loss=[0.5], acc=[0.5]),
}


@pytest.mark.parametrize("batch", [tuple(SPOILS)[at : at + 3] for at in range(0, len(SPOILS), 3)], ids=" ".join)
def test_a_broken_function_counts_for_nothing(
    small: World, batch: tuple[str, ...], caplog: pytest.LogCaptureFixture
) -> None:
    """One site's functions break, another way in each round: the mean is that of the others, and no value is logged."""
    app = App()

    def spoil(message: Message, context: Context) -> Any:
        if context.node_config["k"] != 2:
            return None
        number = message.content["config"]["server-round"]
        return SPOILS[batch[min(max(number, 1), len(batch)) - 1]](message)

    app.spoil = spoil
    found = small.start(app, FedAvg(), rounds=len(batch), **METRICS)
    assert len(found.history) == len(batch) + 1
    assert [row.survivors for row in found.history[1:]] == [3] * len(batch)
    assert [row.examples for row in found.history[1:]] == pytest.approx([40.0] * len(batch), abs=1e-4)
    # nodes 1 and 3 alone, of weights 10 and 30
    expected = {n: (10 * 1 / (1 + n) + 30 * 3 / (1 + n)) / 40 for n in range(1, len(batch) + 1)}
    assert {n: m["loss"] for n, m in found.train_metrics_clientapp.items()} == pytest.approx(expected, abs=1e-4)
    assert "4711" not in caplog.text
    assert "counts for nothing" in caplog.text


def test_a_round_in_which_nobody_counts_changes_nothing(small: World) -> None:
    """No weight at all: the strategy sees no reply, as in Flower when every node fails, and the model stays."""
    found = small.start(App(spoil=lambda message, context: "nothing"), FedAdam(), rounds=1, **METRICS)
    for one, other in zip(found.arrays.to_numpy_ndarrays(), small.model.to_numpy_ndarrays(), strict=True):
        np.testing.assert_array_equal(one, other)
    assert not found.train_metrics_clientapp


class _PowerCut(BaseException):
    """The process is gone."""


def test_a_stopped_run_goes_on_with_its_optimiser(small: World) -> None:
    """Killed after round 2, a run goes on in round 3, with the momenta so far; no round is trained twice."""
    app, cut = App(), [True]

    def held(number: int, arrays: ArrayRecord) -> MetricRecord:
        if number == 2 and cut:
            raise _PowerCut
        return MetricRecord({"mean": float(arrays.to_numpy_ndarrays()[1].mean())})

    loop = {"evaluate_fn": held}
    with pytest.raises(_PowerCut):
        small.start(app, FedAdam(eta=0.3, beta_1=0.7), rounds=3, loop=loop, **METRICS)
    cut.clear()
    before = len(app.calls)
    found = small.start(app, FedAdam(eta=0.3, beta_1=0.7), rounds=3, loop=loop, again=True, **METRICS)
    assert len(app.calls) - before == 2 * 3  # round 3 alone: the sum of round 2 was durable
    expected = small.plain(App(), FedAdam(eta=0.3, beta_1=0.7), rounds=3, evaluate_fn=held)
    for one, other in zip(found.arrays.to_numpy_ndarrays(), expected.arrays.to_numpy_ndarrays(), strict=True):
        np.testing.assert_allclose(one, other, atol=3e-5)
    assert found.evaluate_metrics_serverapp.keys() == {0, 1, 2, 3}
    assert [job.state().state for job in jobs_of(small.carried.coordinator)][-1] == "done"


def test_a_run_that_flower_ends_is_over_at_once_and_goes_on_later(
    small: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody waits for mail that will not come any more; the same run again goes on where it was."""

    class Ended(BaseException):
        """As a ServerApp learns that its run was stopped."""

    app, over, pull = App(), False, LocalGrid.pull_messages

    def pulled(grid: LocalGrid, ids: Any) -> Any:
        if over:
            raise Ended
        return pull(grid, ids)

    def spoil(message: Message, context: Context) -> None:
        nonlocal over
        over = over or len([one for one in app.calls if one[0] == "train"]) > 4

    app.spoil = spoil
    monkeypatch.setattr(LocalGrid, "pull_messages", pulled)
    with pytest.raises(WireError, match="goes on"):
        small.start(app, FedAvg(), rounds=3)
    app.spoil, over = (lambda message, context: None), False
    found = small.start(app, FedAvg(), rounds=3, again=True)
    assert found.transcripts is not None
    assert len(found.transcripts.verify()) == 3


def test_another_run_takes_the_place_of_a_stopped_one(small: World) -> None:
    """What is asked otherwise begins anew, and the stopped job is marked as given up."""

    def held(number: int, arrays: ArrayRecord) -> None:
        if number == 1:
            raise _PowerCut

    with pytest.raises(_PowerCut):
        small.start(App(), FedAvg(), loop={"evaluate_fn": held})
    small.start(App(), FedAvg(), rounds=1)
    states = [job.state() for job in jobs_of(small.carried.coordinator)][-2:]
    assert [state.state for state in states] == ["failed", "done"]
    assert "given up" in states[0].error


def test_the_ledgers_pay_for_every_upload(tmp_path_factory: pytest.TempPathFactory) -> None:
    """With noise, each site's own ledger shows the uploads of the run, within the epsilon that was promised."""
    with world(tmp_path_factory.mktemp("noise") / "realm", **LOUD) as loud:
        found = loud.start(App(), FedAvg(), clip=1.0, epsilon=400.0, delta=1e-5, final_evaluation=True, **METRICS)
        assert found.privacy is not None
        assert found.privacy.unit == "site"
        assert found.privacy.uploads == 3
        assert 200 < found.privacy.epsilon <= 400.0
        for home in loud.carried.realm.trial.sites.values():
            with SiteHome.open(home, PASSPHRASE, SystemClock().now(), data=False) as site:
                kinds = [str(entry.kind) for entry in site.ledger.entries()]
                assert kinds.count("reserve") == kinds.count("settle") == 3
                spent = site.ledger.spent()
                assert spent is not None
                assert 0 < float(spent.mu2) <= found.privacy.mu**2 * (1 + 1e-9)
        assert found.folder is not None
        saved = json.loads((found.folder / "privacy.json").read_text())
        assert saved["epsilon"] == found.privacy.epsilon
        with np.load(found.folder / "model.npz", allow_pickle=False) as kept:
            np.testing.assert_array_equal(kept["array-00000"], found.arrays.to_numpy_ndarrays()[0])
        assert found.evaluate_metrics_clientapp.keys() <= {0, 1, 2}


def test_no_passphrase_is_said_as_what_it_is(small: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The user reads which variable is missing."""
    monkeypatch.delenv("PRIVFL_PASSPHRASE", raising=False)
    monkeypatch.delenv("PRIVFL_PASSPHRASE_FILE", raising=False)
    with pytest.raises(Misuse, match="PRIVFL_PASSPHRASE"):
        small.start(App(), FedAvg(), passphrase=None)
