"""A small Flower app, made private, on a carried realm: what it trains is arithmetic, so that a mean can be checked."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp.strategy import Strategy

from privfl.budget import WITHOUT_NOISE
from privfl.flower import LocalGrid, PrivateResult, PrivateStrategy, private
from tests.flower.carried import FAST, PACE, Carried, carried
from tests.runtime.realm import PASSPHRASE

EXACT: dict[str, Any] = {
    "without_noise": WITHOUT_NOISE,
    "epsilon": None,
    "delta": None,
    "tasks": {"update": {"clip": 1000.0}},
}
METRICS: dict[str, Any] = {"metrics": {"acc": (0, 1)}, "train_metrics": {"loss": (0, 5)}}
LOUD: dict[str, Any] = {"epsilon": 500.0, "delta": 1e-5, "unit": "site", "tasks": {"update": {"clip": 1.0}}}

Spoil = Callable[[Message, Context], Any]


def first_model(shift: float = 0.0) -> ArrayRecord:
    """Two arrays of two types. A question without noise is answered once: each run begins with a model of its own."""
    return ArrayRecord([np.arange(6, dtype=np.float32).reshape(2, 3) + np.float32(shift), np.array([0.5, -1.5, 2.0])])


@dataclass
class App:
    """The app and what happened to it: ``calls`` names every call of its own functions, by node.

    ``spoil`` may return something else than a proper answer, raise, or return None for a proper one.
    """

    calls: list[tuple[str, int]] = field(default_factory=list)
    spoil: Spoil = lambda message, context: None
    equal: bool = False

    def plain(self) -> ClientApp:
        """As its author wrote it."""
        return self._register(ClientApp())

    def private(self) -> ClientApp:
        """The same with one more line."""
        return self._register(private(ClientApp(), passphrase=PASSPHRASE))

    def _register(self, app: ClientApp) -> ClientApp:
        @app.train()
        def train(message: Message, context: Context) -> Message:
            k = context.node_config["k"]
            self.calls.append(("train", k))
            if (other := self.spoil(message, context)) is not None:
                return other
            config = message.content["config"]
            pull = 0.4 + 0.1 * float(config.get("proximal-mu", 0.0)) + 0.01 * config["server-round"]
            arrays = message.content["arrays"]
            moved = {name: Array(array.numpy() * pull + k) for name, array in arrays.items()}
            return self._answer(message, ArrayRecord(moved), k, loss=k / (1 + config["server-round"]), secret=17.0)

        @app.evaluate()
        def evaluate(message: Message, context: Context) -> Message:
            k = context.node_config["k"]
            self.calls.append(("evaluate", k))
            model = message.content["arrays"].to_numpy_ndarrays()
            acc = 1 / (1 + abs(float(model[0].mean()) - k))
            return self._answer(message, None, 2 * k, acc=acc)

        return app

    def _answer(self, message: Message, arrays: ArrayRecord | None, k: int, **metrics: float) -> Message:
        count = 10 if self.equal else 10 * k
        records: dict[str, Any] = {} if arrays is None else {"arrays": arrays}
        return Message(
            RecordDict({**records, "metrics": MetricRecord({"num-examples": count, **metrics})}), reply_to=message
        )


@dataclass
class World:
    """A carried realm with one app."""

    carried: Carried
    runs: int = 0

    @property
    def model(self) -> ArrayRecord:
        """The first model of the latest run."""
        return first_model(self.runs / 8)

    def nodes(self) -> dict[int, dict[str, Any]]:
        return {at: {**config, "k": at} for at, config in self.carried.nodes().items()}

    def start(
        self,
        app: App,
        strategy: Strategy,
        rounds: int = 2,
        *,
        again: bool = False,
        nodes: dict[int, dict[str, Any]] | None = None,
        apps: Mapping[int, Callable[[Message, Context], Message]] | None = None,
        **options: Any,
    ) -> PrivateResult:
        """A private run; ``again`` begins with the model of the run before, ``apps`` answer in the place of ``app``."""
        settings = {"clip": 100.0, "max_examples": 64, "home": self.carried.coordinator, "passphrase": PASSPHRASE}
        more: Mapping[str, Any] = options.pop("loop", {})
        if options.get("weights") == "equal":
            del settings["max_examples"]
        if "epsilon" not in options:
            options["unprotected"] = True
        wrapped = PrivateStrategy(strategy, **{**settings, "courier": FAST, "pace": PACE, **options})
        grid = LocalGrid(app.private(), self.nodes() if nodes is None else nodes)
        for at, other in (apps or {}).items():
            grid.add(at, grid._nodes[at].config, other)
        self.runs += 0 if again else 1
        try:
            return wrapped.start(grid, self.model, num_rounds=rounds, **more)
        finally:
            grid.close()

    def plain(self, app: App, strategy: Strategy, rounds: int = 2, **more: Any) -> Any:
        """The same app and strategy as they were before."""
        return strategy.start(LocalGrid(app.plain(), self.nodes()), self.model, num_rounds=rounds, **more)


@contextmanager
def world(folder: Path, sites: int = 3, *, resident: bool = False, **policy: Any) -> Iterator[World]:
    """A realm of that many sites under a policy for the app."""
    with carried(folder, sites, policy=policy, resident=resident) as made:
        yield World(made)
