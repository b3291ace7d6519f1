"""What the demo's model is compared with; all of it in this process."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from privfl.cli.demo_outcome import DELTA, Asked

__all__ = ["alone_accuracy", "compared", "pooled_accuracy"]


def compared(
    asked: Asked, federation: Any, spec: Any, frames: Mapping[str, Any], held: Any, *, bar: bool
) -> dict[str, float]:
    """Accuracies by way of training, but for the ``distributed`` one: pooled, local, alone."""
    schema = federation.schema
    local = federation.train(
        spec,
        epsilon=asked.epsilon,
        delta=DELTA,
        rounds=asked.rounds,
        held_out=held,
        trust="local",
        progress=bar,
        mode="voted",
    )
    return {
        "pooled": pooled_accuracy(frames, schema, held),
        "local": float(local.held_out["score"].iloc[-1]),
        "alone": alone_accuracy(asked, spec, frames, schema, held),
    }


def pooled_accuracy(frames: Mapping[str, Any], schema: Any, held: Any) -> float:
    """Accuracy of the same kind of model on all rows in one place, without privacy."""
    import numpy as np  # noqa: PLC0415
    from sklearn.linear_model import LogisticRegression  # noqa: PLC0415

    parts, test = [schema.bind(frame) for frame in frames.values()], schema.bind(held)
    rows = np.vstack([part.values for part in parts])
    labels = np.concatenate([part.label("malignant")[0] for part in parts])
    return float(LogisticRegression(max_iter=2000).fit(rows, labels).score(test.values, test.label("malignant")[0]))


def alone_accuracy(asked: Asked, spec: Any, frames: Mapping[str, Any], schema: Any, held: Any) -> float:
    """Mean accuracy of each site training on its own rows at the same ε, with its own full noise."""
    from privfl.entropy import SYSTEM  # noqa: PLC0415

    own = schema.model_copy(update={"records": max(1, schema.records // len(frames))})
    scores = []
    for frame in frames.values():
        task = spec.compile(own, epsilon=asked.epsilon, delta=DELTA, rounds=asked.rounds, trust="local", sites=1)
        bound, state = own.bind(frame), task.initial_state()
        while task.done(state) is None:
            state = task.update(state, task.upload(task.model_bytes(state), bound, SYSTEM), 1)
        scores.append(task.evaluate(state, held)["score"])
    return float(sum(scores) / len(scores))
