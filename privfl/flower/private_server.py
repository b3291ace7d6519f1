"""A wrapped strategy as the server of a run: it words the calls, and makes the next model of one averaged reply."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NoReturn, TypeAlias

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, MessageType, MetricRecord, RecordDict
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy

from privfl.codec import decode, encode
from privfl.errors import Malformed, Misuse
from privfl.flower.private_records import arrays_of, ask_of, numbers_of, record_of
from privfl.learn.update_inputs import DTYPES, Arrays, Ask
from privfl.learn.updates import Opened
from privfl.runtime.update_run import Step

__all__ = ["EvaluateFn", "StandIn", "StrategyServer"]

EvaluateFn: TypeAlias = "Callable[[int, ArrayRecord], MetricRecord | None]"
PATIENT_LOOKS = 20  # how often a strategy may look for nodes that will never come


class StandIn(Grid):
    """What a strategy sees of the nodes: how many sites there are, and nothing that could be sent to one of them."""

    def __init__(self, sites: int) -> None:
        self._sites, self._looks = sites, 0

    def get_node_ids(self) -> Iterable[int]:
        """A number for each site of the roster."""
        self._looks += 1
        if self._looks > PATIENT_LOOKS:
            raise Misuse(
                f"the strategy waits for more nodes than the roster's {self._sites}; lower its minimum of nodes"
            )
        return list(range(1, self._sites + 1))

    def _none(self, *_: object, **__: object) -> NoReturn:
        raise Misuse("the strategy talks to nodes by itself, which is not possible behind secure aggregation")

    set_run = create_message = push_messages = pull_messages = send_and_receive = _none

    @property
    def run(self) -> NoReturn:
        """Not for a strategy."""
        self._none()


class StrategyServer:
    """See :class:`privfl.runtime.update_run.Server`.

    Args:
        sites: of the roster. rounds: of training. evaluates: whether the sites evaluate the model.
        weighted_by: name of the number of examples.
    """

    def __init__(
        self,
        strategy: Strategy,
        sites: int,
        rounds: int,
        *,
        evaluates: bool,
        weighted_by: str,
        train_config: ConfigRecord,
        evaluate_config: ConfigRecord,
        evaluate_fn: EvaluateFn | None = None,
    ) -> None:
        self.strategy, self._sites, self._rounds = strategy, sites, rounds
        self._evaluates, self._weighted_by = evaluates, weighted_by
        self._train_config, self._evaluate_config = train_config, evaluate_config
        self._evaluate_fn = evaluate_fn

    def asks(self, number: int, arrays: Arrays) -> tuple[Ask | None, Ask | None]:
        """Evaluation of the model as it stands after round ``number - 1``, then training in round ``number``.

        The strategy is asked in the order in which Flower's own loop asks it.
        """
        evaluate = train = None
        if self._evaluates:
            evaluate = self._ask("evaluate", number - 1, arrays)
        if number <= self._rounds:
            train = self._ask("train", number, arrays)
            if train is None:
                raise Misuse(f"the strategy trains nobody in round {number}; fraction_train must be 1.0")
        return train, evaluate

    def _ask(self, category: str, number: int, arrays: Arrays) -> Ask | None:
        configure = getattr(self.strategy, f"configure_{category}")
        config = getattr(self, f"_{category}_config")
        return ask_of(configure(number, record_of(arrays), config, StandIn(self._sites)), arrays, self._sites, category)

    def take(self, number: int, arrays: Arrays, opened: Opened) -> Step:
        """Hand the means on as the one reply of one node that stands for all."""
        evaluated = trained = None
        if self._evaluates:
            replies = [] if opened.evaluate is None else [self._reply(None, opened.evaluate, opened.evaluated)]
            evaluated = numbers_of(self.strategy.aggregate_evaluate(number - 1, replies))
        if number > self._rounds:
            return Step(arrays, None, evaluated)
        replies = []
        if opened.change is not None:
            mean = {name: _moved(array, opened.change[name]) for name, array in arrays.items()}
            replies = [self._reply(mean, opened.train or {}, opened.examples)]
        made, metrics = self.strategy.aggregate_train(number, replies)
        trained = numbers_of(metrics)
        after = arrays if made is None else arrays_of(made)
        return Step(after, trained, evaluated)

    def held(self, number: int, arrays: Arrays) -> dict[str, Any] | None:
        """What the app's own server finds of a model on rows that it holds itself."""
        return None if self._evaluate_fn is None else numbers_of(self._evaluate_fn(number, record_of(arrays)))

    def _reply(self, arrays: Arrays | None, metrics: Mapping[str, float], examples: float) -> Message:
        records: dict[str, ArrayRecord | MetricRecord | ConfigRecord] = {}
        if arrays is not None:
            records["arrays"] = record_of(arrays)
        records["metrics"] = MetricRecord({**metrics, self._weighted_by: float(examples)})
        kind = MessageType.EVALUATE if arrays is None else MessageType.TRAIN
        return Message(RecordDict(records), reply_to=Message(RecordDict(), 1, kind))

    # -- what the strategy remembers ------------------------------------------------------------------

    def dump(self) -> bytes:
        """Every attribute of the strategy that is a model, or as large as one; nothing is pickled."""
        found = []
        for name, value in sorted(vars(self.strategy).items()):
            if (told := _lowered(value)) is not None:
                found.append((name, told))
        return encode(("strategy", type(self.strategy).__name__, tuple(found)))

    def restore(self, state: bytes) -> None:
        """Take up what :meth:`dump` wrote; raises Malformed for anything else, or for another strategy."""
        match decode(state):
            case ("strategy", str(kind), tuple(items)) if kind == type(self.strategy).__name__:
                for item in items:
                    match item:
                        case (str(name), tuple(told)) if name in vars(self.strategy):
                            setattr(self.strategy, name, _raised(told))
                        case _:
                            raise Malformed("this is not what the strategy remembered")
            case _:
                raise Malformed(f"what is stored belongs to another strategy than {type(self.strategy).__name__}")


def _moved(array: Any, change: Any) -> Any:
    """The mean model in the model's own type; whole numbers stay numbers with fractions, as in Flower's average."""
    moved = np.asarray(array, dtype=np.float64) + change
    return moved.astype(array.dtype) if array.dtype.kind == "f" else moved


def _lowered(value: Any) -> Any:
    """An attribute as it is stored; None for what is none of the kinds that carry a model."""
    match value:
        case ArrayRecord():
            kind, names, arrays = "record", list(value), list(arrays_of(value).values())
        case dict() if value and all(isinstance(k, str) and isinstance(v, np.ndarray) for k, v in value.items()):
            kind, names, arrays = "dict", list(value), list(value.values())
        case list() if value and all(isinstance(v, np.ndarray) for v in value):
            kind, names, arrays = "list", [""] * len(value), value
        case _:
            return None
    stored = []
    for name, array in zip(names, arrays, strict=True):
        plain = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
        if plain.dtype.str not in DTYPES:
            return None
        stored.append((name, plain.dtype.str, tuple(array.shape), plain.tobytes()))
    return (kind, tuple(stored))


def _raised(told: tuple[Any, ...]) -> Any:
    match told:
        case (str(kind), tuple(stored)) if kind in ("record", "dict", "list"):
            pairs = [
                (name, np.frombuffer(raw, dtype=dtype).reshape(shape).copy()) for name, dtype, shape, raw in stored
            ]
            if kind == "list":
                return [array for _, array in pairs]
            return record_of(dict(pairs)) if kind == "record" else dict(pairs)
        case _:
            raise Malformed("this is not what the strategy remembered")
