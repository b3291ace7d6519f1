"""Questions about an app's training without an app: arrays in, arrays out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from privfl.learn.update_data import Answer, AppData
from privfl.learn.update_inputs import Arrays, Ask, shapes_of
from privfl.learn.update_plan import Wanted, plan_update
from privfl.learn.update_spec import EQUAL, EXAMPLES, UpdateSpec, bounded
from privfl.learn.updates import UpdateQuestion
from privfl.tasks import Schema

SCHEMA = Schema(name="rows", records=100, columns={"x": {"lower": 0, "upper": 1}})
TRAIN = Ask("train", (("arrays", None), ("config", {"lr": 0.1, "round": 1})))
EVALUATE = Ask("evaluate", (("arrays", None),))


def arrays_of(length: int = 6) -> Arrays:
    """One float32 model."""
    return {"w": np.linspace(-1, 1, length, dtype=np.float32)}


def question(
    arrays: Arrays | None = None,
    *,
    clip: float = 1.0,
    cap: int = 100,
    train: Mapping[str, tuple[float, float]] | None = None,
    evaluate: Mapping[str, tuple[float, float]] | None = None,
    epsilon: float | None = None,
    uploads: int = 4,
    rounds: int = 2,
    sites: int = 4,
    least: int = 4,
    bits: int | None = None,
    final: bool = False,
    **wanted: Any,
) -> UpdateQuestion:
    """A compiled question; ``cap=0`` for equal weights."""
    weights = EXAMPLES if cap else EQUAL
    metrics = bounded({"acc": (0, 1)} if evaluate is None else evaluate)
    spec = UpdateSpec(
        shapes_of(arrays or arrays_of()),
        clip,
        weights,
        cap,
        train=bounded({"loss": (-1, 3)} if train is None else train),
        evaluate=metrics,
        evaluates=bool(metrics),
    )
    delta = None if epsilon is None else 1e-6
    plan, grain = plan_update(spec, Wanted(epsilon, delta, uploads, sites, least, **wanted), bits)
    return UpdateQuestion(SCHEMA, spec, plan, grain, rounds, final=final)


def data(
    change: Any = 0.0, examples: Any = 50, call: Callable[[Ask, Arrays], Any] | None = None, **metrics: Any
) -> AppData:
    """A site whose training adds ``change`` to the model."""

    def plain(ask: Ask, arrays: Arrays) -> Answer:
        told = {"num-examples": examples, "loss": 1.0, "acc": 0.5, **metrics}
        return Answer({name: array + change for name, array in arrays.items()}, told)

    return AppData(SCHEMA, call or plain)
