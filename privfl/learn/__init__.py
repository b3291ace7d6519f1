"""Learning: schemas, task specifications, compiled tasks, server optimisers, histories and models.

The names below are loaded when they are first used: the process of a Flower app needs one light module of this room.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

_WHERE = {
    "Averaging": "privfl.learn.specs",
    "BindReport": "privfl.tasks.binding",
    "BoundData": "privfl.tasks.binding",
    "Category": "privfl.tasks.schema",
    "History": "privfl.learn.history",
    "Linear": "privfl.learn.specs",
    "Logistic": "privfl.learn.specs",
    "Numeric": "privfl.tasks.schema",
    "Plan": "privfl.learn.planning",
    "Row": "privfl.learn.history",
    "Schema": "privfl.tasks.schema",
    "Spec": "privfl.learn.specs",
    "Strategy": "privfl.learn.strategies",
    "StrategyState": "privfl.learn.strategies",
    "Task": "privfl.learn.tasks",
    "TaskState": "privfl.learn.tasks",
    "adam": "privfl.learn.strategies",
    "bind": "privfl.tasks.binding",
    "load_model": "privfl.learn.models",
    "momentum": "privfl.learn.strategies",
    "save_model": "privfl.learn.models",
    "sgd": "privfl.learn.strategies",
    "tail_averaged": "privfl.learn.strategies",
}

__all__ = [
    "Averaging",
    "BindReport",
    "BoundData",
    "Category",
    "History",
    "Linear",
    "Logistic",
    "Numeric",
    "Plan",
    "Row",
    "Schema",
    "Spec",
    "Strategy",
    "StrategyState",
    "Task",
    "TaskState",
    "adam",
    "bind",
    "load_model",
    "momentum",
    "save_model",
    "sgd",
    "tail_averaged",
]

if TYPE_CHECKING:
    from privfl.learn.history import History, Row
    from privfl.learn.models import load_model, save_model
    from privfl.learn.planning import Plan
    from privfl.learn.specs import Averaging, Linear, Logistic, Spec
    from privfl.learn.strategies import Strategy, StrategyState, adam, momentum, sgd, tail_averaged
    from privfl.learn.tasks import Task, TaskState
    from privfl.tasks.binding import BindReport, BoundData, bind
    from privfl.tasks.schema import Category, Numeric, Schema


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'privfl.learn' has no attribute {name!r}")
    value = getattr(importlib.import_module(_WHERE[name]), name)
    globals()[name] = value
    return value
