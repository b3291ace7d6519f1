"""Plain FedAvg's ServerApp as it is, with its rounds timed."""

from __future__ import annotations

import json
import time

import numpy as np
import plain_fedavg as plain  # type: ignore[import-not-found]
from flwr.app import ArrayRecord, Context
from flwr.serverapp import Grid, ServerApp

server = ServerApp()


@server.main()
def main(grid: Grid, context: Context) -> None:
    """Some rounds; the last line of the log says when each began."""
    config = context.run_config
    strategy = plain.Timed(int(config["nodes"]))
    initial = ArrayRecord([np.zeros(int(config["parameters"]), np.float32)])
    started = time.monotonic()
    result = strategy.start(grid, initial, num_rounds=int(config["rounds"]))
    (values,) = result.arrays.to_numpy_ndarrays()
    began = [*strategy.began, time.monotonic()]
    said = {"started": started, "began": began, "value": float(values.mean()), "spread": float(np.ptp(values))}
    print(plain.SAID + json.dumps(said), flush=True)
