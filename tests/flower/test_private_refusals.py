"""What cannot be made private, or is not allowed, is refused with its reason before anything is charged or called."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid
from flwr.serverapp import strategy as flower
from flwr.serverapp.strategy import FedAvg, Strategy

from privfl.clock import SystemClock
from privfl.errors import Misuse, PrivflError, Refused
from privfl.flower import LocalGrid, PrivateStrategy, private
from privfl.flower import private_strategy as module
from privfl.flower.private_app import PLAIN_REFUSED
from privfl.homes.site import SiteHome
from tests.flower.private_world import LOUD, METRICS, App, World, first_model, world
from tests.runtime.realm import PASSPHRASE

FREE: dict[str, Any] = {"clip": 1.0, "unprotected": True, "max_examples": 64}


@pytest.fixture(scope="module")
def strict(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A policy that allows clips up to 1 and epsilon up to 500."""
    with world(tmp_path_factory.mktemp("refusals") / "realm", **LOUD) as made:
        yield made


@pytest.fixture(scope="module")
def closed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A policy that does not name update at all."""
    fields = {**LOUD, "tasks": {"averaging": {"clip": 1.0}}}
    with world(tmp_path_factory.mktemp("closed") / "realm", **fields) as made:
        yield made


def charged(made: World) -> int:
    """Reservations in the sites' ledgers."""
    count = 0
    for home in made.carried.realm.trial.sites.values():
        with SiteHome.open(home, PASSPHRASE, SystemClock().now(), data=False) as site:
            count += sum(str(entry.kind) == "reserve" for entry in site.ledger.entries())
    return count


DP = flower.DifferentialPrivacyServerSideFixedClipping


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda: flower.Krum(num_malicious_nodes=1), "compares single updates"),
        (lambda: flower.MultiKrum(num_malicious_nodes=1, num_nodes_to_select=2), "compares single updates"),
        (lambda: flower.Bulyan(num_malicious_nodes=1), "compares single updates"),
        (flower.FedMedian, "compares single updates"),
        (flower.FedTrimmedAvg, "compares single updates"),
        (lambda: flower.QFedAvg(client_learning_rate=0.1), "its own loss"),
        (flower.FedXgbBagging, "trees"),
        (flower.FedXgbCyclic, "trees"),
        (lambda: DP(FedAvg(), noise_multiplier=1.0, clipping_norm=1.0, num_sampled_clients=3), "at the sites"),
    ],
)
def test_strategies_that_need_single_updates_are_refused(make: Callable[[], Strategy], why: str) -> None:
    """Each with its reason, also if somebody says that it averages."""
    for weighted in (False, True):
        with pytest.raises(Refused, match=why):
            PrivateStrategy(make(), weighted_average=weighted, **FREE)


class Own(FedAvg):
    """A strategy that nobody here knows."""

    def aggregate_train(self, server_round: int, replies: Iterable[Message]) -> Any:
        return super().aggregate_train(server_round, replies)


class Schedule(FedAvg):
    """A subclass that only words the configuration otherwise."""

    def configure_train(self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid) -> Any:
        config["lr"] = 0.1 / server_round
        return super().configure_train(server_round, arrays, config, grid)


def test_an_unknown_aggregation_must_be_vouched_for() -> None:
    """A subclass that aggregates by itself is taken by name alone; one that does not, at once."""
    with pytest.raises(Misuse, match="weighted_average=True"):
        PrivateStrategy(Own(), **FREE)
    PrivateStrategy(Own(), weighted_average=True, **FREE)
    PrivateStrategy(Schedule(), **FREE)
    with pytest.raises(Misuse, match="a strategy"):
        PrivateStrategy(object(), **FREE)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"unprotected": False}, "epsilon and delta"),
        ({"epsilon": 1.0, "delta": 1e-5}, "epsilon and delta"),
        ({"unprotected": False, "epsilon": 1.0}, "epsilon and delta"),
        ({"trust": "blind"}, "local or distributed|distributed or local"),
        ({"mode": "sometimes"}, "voted, complete or auto"),
        ({"attempts": 0}, "attempts"),
        ({"metrics": {"acc": (1, 0)}}, "the lower first"),
        ({"metrics": {"acc": 1}}, "two numbers"),
    ],
)
def test_settings_that_cannot_be(changes: dict[str, Any], why: str) -> None:
    """Mistakes are named when the strategy is made, before a grid is there."""
    with pytest.raises(Misuse, match=why):
        PrivateStrategy(FedAvg(), **{**FREE, **changes})


def test_it_is_no_part_of_another_strategy() -> None:
    """Wrapped once more, it would hand out single replies: its steps are refused."""
    made = PrivateStrategy(FedAvg(), **FREE)
    for step in (made.configure_train, made.configure_evaluate, made.aggregate_train, made.aggregate_evaluate):
        with pytest.raises(Refused, match="no part of another"):
            step(1, [])


class Favours(FedAvg):
    """Sends one node another configuration."""

    def configure_train(self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid) -> Any:
        sent = list(super().configure_train(server_round, arrays, config, grid))
        sent[0].content = RecordDict({"arrays": arrays, "config": ConfigRecord({"you": "are special"})})
        return sent


class Swaps(FedAvg):
    """Sends another model than the one of the round."""

    def configure_train(self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid) -> Any:
        other = ArrayRecord({name: Array(array.numpy() + 1) for name, array in arrays.items()})
        return super().configure_train(server_round, other, config, grid)


NOISY: dict[str, Any] = {"clip": 1.0, "epsilon": 300.0, "delta": 1e-5, "rounds": 1}


@pytest.mark.parametrize(
    ("strategy", "options", "kind", "why"),
    [
        (FedAvg(), {"clip": 2.0}, Refused, "a clip of at most 1 "),
        (FedAvg(), {"epsilon": 700.0}, PrivflError, "share|gives to training"),
        (FedAvg(), {"epsilon": None, "delta": None, "unprotected": True}, Refused, "without noise"),
        (FedAvg(min_available_nodes=9), {}, Misuse, "9 and the roster has 3"),
        (FedAvg(fraction_train=0.5, min_train_nodes=2), {}, Refused, "every site is asked"),
        (Favours(), {}, Refused, "different content"),
        (Swaps(), {}, Refused, "other arrays"),
        (FedAvg(fraction_evaluate=0.0), METRICS, Misuse, "fraction_evaluate is 0"),
        (FedAvg(), {"max_examples": None}, Misuse, "max_examples"),
        (FedAvg(), {"bits": 16, "epsilon": 0.02}, Refused, "ring too small|use more bits"),
        (FedAvg(), {"bits": 17}, Misuse, "16, 20, 32, 64"),
        (FedAvg(), {"min_survivors": 5, "mode": "voted"}, Misuse, "min_survivors"),
        (FedAvg(), {"metrics_share": 0.5}, Misuse, "share"),
    ],
)
def test_what_the_policy_or_the_protocol_forbids(
    strict: World, strategy: Strategy, options: dict[str, Any], kind: type[PrivflError], why: str
) -> None:
    """Refused at the coordinator with the reason; no function of the app is called, nothing is charged."""
    app = App()
    settings = {**NOISY, **options}
    if settings.pop("unprotected", False):
        del settings["epsilon"], settings["delta"]
    with pytest.raises(kind, match=why):
        strict.start(app, strategy, **settings)
    assert not app.calls


def test_sites_refuse_what_a_false_coordinator_asks(strict: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the coordinator looks away, each site holds the question against its own signed policy."""
    monkeypatch.setattr(module, "_check_kind", lambda home, clip: None)
    monkeypatch.setattr("privfl.runtime.update_jobs.check_share", lambda question, policy: None)
    app = App()
    with pytest.raises(Refused, match=r"clip 2\.0 for update; allowed: above 0 and at most 1"):
        strict.start(app, FedAvg(), **{**NOISY, "clip": 2.0})
    with pytest.raises(Refused, match="every site refused"):
        strict.start(app, FedAvg(), **{**NOISY, "epsilon": 900.0, "rounds": 1, "spare": 0})
    assert not app.calls
    assert charged(strict) == 0


def test_a_policy_that_does_not_name_it(closed: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """An app's own training is allowed by name alone, at the coordinator as at the sites."""
    app = App()
    with pytest.raises(Refused, match=r"tasks: \{update"):
        closed.start(app, FedAvg(), **NOISY)
    monkeypatch.setattr(module, "_check_kind", lambda home, clip: None)
    with pytest.raises(Refused, match="kind 'update'; allowed: averaging"):
        closed.start(app, FedAvg(), **NOISY)
    assert not app.calls
    assert charged(closed) == 0


@pytest.mark.parametrize("kind", ["train", "evaluate", "query", "train.default", "query.other", "system"])
def test_a_plain_message_is_refused(strict: World, kind: str) -> None:
    """Any other message than the courier's gets an error, and no function of the app is called."""
    app, replies = App(), list[Message]()
    grid = LocalGrid(app.private(), strict.nodes())
    content = RecordDict({"arrays": first_model(), "config": ConfigRecord({"server-round": 1})})
    replies = list(grid.send_and_receive([Message(content, 1, kind)], timeout=20))
    assert len(replies) == 1
    assert replies[0].has_error()
    assert replies[0].error.reason == PLAIN_REFUSED
    assert not app.calls


def test_plain_fedavg_gets_nothing_from_private_nodes(strict: World) -> None:
    """Flower's own loop over private nodes runs through without a single update."""
    app = App()
    strategy = FedAvg()
    found = strategy.start(LocalGrid(app.private(), strict.nodes()), first_model(), num_rounds=1)
    assert not found.train_metrics_clientapp
    assert not found.arrays
    assert not app.calls


def test_apps_that_cannot_be_private() -> None:
    """An app around a client_fn, one that is private already, and a query function."""
    with pytest.raises(Misuse, match="client_fn"):
        private(ClientApp(client_fn=lambda context: None))  # type: ignore[arg-type,return-value]
    made = private(ClientApp())
    with pytest.raises(Misuse, match="already"):
        private(made)
    with pytest.raises(Misuse, match="no query"):
        made.query()


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({}, "names no site"),
        ({"privfl-site": "/nowhere"}, "cannot be reached"),
        ({"privfl-answer-after-ms": -1}, "cannot be reached"),
    ],
)
def test_a_node_that_is_not_set_up(strict: World, config: dict[str, Any], said: str) -> None:
    """Its reply says so without a word of its own configuration."""
    from privfl.flower.records import packed, unpacked
    from privfl.wires.flower_carry import Load

    home: Any = {} if not config or "privfl-site" in config else strict.nodes()[1]
    grid = LocalGrid(App().private(), {1: {**home, **config}})
    (reply,) = grid.send_and_receive([Message(packed(Load(own=bytes(32)), ()), 1, "query.privfl")], timeout=20)
    load, _ = unpacked(reply.content)
    assert said in load.problem
    assert "/nowhere" not in load.problem


def test_a_site_with_a_table_does_not_answer_for_an_app(strict: World, tmp_path: Path) -> None:
    """A question about an app's training is no question to a table, and a model to train is none to an app."""
    from privfl.errors import DataError
    from privfl.learn.update_data import AppData
    from privfl.learn.updates import UpdateQuestion
    from privfl.tasks import SiteData
    from tests.learn.update_support import question

    asked: UpdateQuestion = question()
    with pytest.raises(DataError, match="Flower app"):
        asked.check(SiteData(asked.schema, None))
    with pytest.raises(DataError, match="Flower app"):
        _ = AppData(asked.schema, lambda ask, arrays: None).bound  # type: ignore[arg-type,return-value]


def test_metrics_never_hold_the_undeclared(strict: World) -> None:
    """A declared name that is the weight's own is a mistake, said before anything runs."""
    with pytest.raises(Misuse, match="num-examples"):
        strict.start(App(), FedAvg(), **{**NOISY, "metrics": {"num-examples": (0, 1)}})
