"""FedAvg as Flower ships it: every node gets the model, moves it by its own number, and sends it back in the clear."""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Iterable

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

SAID = "plain-fedavg: "
client = ClientApp()
server = ServerApp()


class Timed(FedAvg):
    """FedAvg that remembers when each round began."""

    def __init__(self, nodes: int) -> None:
        super().__init__(min_train_nodes=nodes, min_evaluate_nodes=nodes, min_available_nodes=nodes)
        self.began: list[float] = []

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """As FedAvg."""
        self.began.append(time.monotonic())
        return super().configure_train(server_round, arrays, config, grid)


@client.train()
def train(message: Message, context: Context) -> Message:
    """Add the node's own number to every parameter."""
    arrays = message.content.array_records["arrays"].to_numpy_ndarrays()
    moved = [array + np.float32(context.node_config["partition-id"]) for array in arrays]
    metrics = MetricRecord({"num-examples": 100, "loss": 0.5})
    return Message(RecordDict({"arrays": ArrayRecord(moved), "metrics": metrics}), reply_to=message)


@client.evaluate()
def evaluate(message: Message, context: Context) -> Message:
    """Mean of the parameters, in place of a loss."""
    (values,) = message.content.array_records["arrays"].to_numpy_ndarrays()
    metrics = MetricRecord({"num-examples": 100, "loss": float(values.mean())})
    return Message(RecordDict({"metrics": metrics}), reply_to=message)


@server.main()
def main(grid: Grid, context: Context) -> None:
    """Some rounds; the last line of the log has their wall times and the result."""
    config = context.run_config
    strategy = Timed(int(config["nodes"]))
    initial = ArrayRecord([np.zeros(int(config["parameters"]), np.float32)])
    result = strategy.start(grid, initial, num_rounds=int(config["rounds"]))
    began = [*strategy.began, time.monotonic()]
    (values,) = result.arrays.to_numpy_ndarrays()
    rounds = [later - earlier for earlier, later in itertools.pairwise(began)]
    print(SAID + json.dumps({"rounds_s": rounds, "value": float(values[0])}), flush=True)
