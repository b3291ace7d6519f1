"""The same app's ServerApp made private: one line around its strategy."""

from __future__ import annotations

import json
import time

import numpy as np
import plain_fedavg as plain  # type: ignore[import-not-found]
from flwr.app import ArrayRecord, Context
from flwr.serverapp import Grid, ServerApp

from privfl.flower import PrivateStrategy

server = ServerApp()


@server.main()
def main(grid: Grid, context: Context) -> None:
    """Some rounds; the last line of the log says when each began."""
    config = context.run_config
    timed = plain.Timed(int(config["nodes"]))
    strategy = PrivateStrategy(
        timed,
        clip=float(config["clip"]),
        epsilon=150.0,  # so little noise that a wrong model is seen
        metrics_share=0.25,
        delta=1e-6,
        max_examples=100,
        metrics={"loss": (0.0, 100.0)},
        context=context,
        mode=str(config["mode"]),
        bits=int(config["bits"]),
        resume=False,
    )
    initial = ArrayRecord([np.zeros(int(config["parameters"]), np.float32)])
    started = time.monotonic()
    result = strategy.start(grid, initial, num_rounds=int(config["rounds"]))
    (values,) = result.arrays.to_numpy_ndarrays()
    began = [*timed.began, time.monotonic()]
    least = min(row.survivors for row in result.history[1:])
    said = {
        "started": started,
        "began": began,
        "value": float(values.mean()),
        "spread": float(np.ptp(values)),
        "survivors": least,
        "stopped": result.stopped,
        "opened": len(result.history) - 1,
    }
    print(plain.SAID + json.dumps(said), flush=True)
