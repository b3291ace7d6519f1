"""Learning: schemas, task specifications, compiled tasks, server optimisers, histories and models."""

from privfl.learn.history import History, Row
from privfl.learn.models import load_model, save_model
from privfl.learn.planning import Plan
from privfl.learn.specs import Averaging, Linear, Logistic, Spec
from privfl.learn.strategies import Strategy, StrategyState, adam, momentum, sgd, tail_averaged
from privfl.learn.tasks import Task, TaskState
from privfl.tasks.binding import BindReport, BoundData, bind
from privfl.tasks.schema import Category, Numeric, Schema

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
