"""What the server does: federated averaging, and the final model into a file."""

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Context, MetricRecord
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

from cancer.task import PUBLIC, first_arrays, loss_of, model_from, rows

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Train."""
    strategy = FedAvg()
    config = ConfigRecord({"penalty": float(context.run_config["penalty"])})
    first = ArrayRecord(first_arrays())
    rounds = int(context.run_config["num-server-rounds"])
    result = strategy.start(grid, first, num_rounds=rounds, train_config=config, evaluate_fn=judge)
    print(result)
    if context.run_config["save"]:
        np.savez(str(context.run_config["save"]), *result.arrays.to_numpy_ndarrays())


def judge(number: int, arrays: ArrayRecord) -> MetricRecord:
    """The model on rows that the server holds itself."""
    features, labels = rows(slice(PUBLIC))
    model = model_from(arrays.to_numpy_ndarrays())
    return MetricRecord({"loss": loss_of(model, features, labels), "accuracy": float(model.score(features, labels))})
