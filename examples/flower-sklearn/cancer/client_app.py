"""What a node does: fit the model to its rows, and say how good it is on those it held back."""

import warnings

from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from cancer.task import arrays_from, load, loss_of, model_from

app = ClientApp()


@app.train()
def train(message: Message, context: Context) -> Message:
    """Fit for a few steps from the model that came."""
    features, labels, _, _ = load(context.node_config["partition-id"], context.node_config["num-partitions"])
    model = model_from(message.content["arrays"].to_numpy_ndarrays(), message.content["config"]["penalty"])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a few steps are meant not to converge
        model.fit(features, labels)
    metrics = MetricRecord({"train-loss": loss_of(model, features, labels), "num-examples": len(labels)})
    content = RecordDict({"arrays": ArrayRecord(arrays_from(model)), "metrics": metrics})
    return Message(content=content, reply_to=message)


@app.evaluate()
def evaluate(message: Message, context: Context) -> Message:
    """Judge the model that came."""
    _, _, features, labels = load(context.node_config["partition-id"], context.node_config["num-partitions"])
    model = model_from(message.content["arrays"].to_numpy_ndarrays())
    metrics = {"loss": loss_of(model, features, labels), "accuracy": float(model.score(features, labels))}
    content = RecordDict({"metrics": MetricRecord({**metrics, "num-examples": len(labels)})})
    return Message(content=content, reply_to=message)
