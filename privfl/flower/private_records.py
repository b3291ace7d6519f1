"""Between Flower's records and plain values: what a strategy sends becomes a call, a call becomes a message again."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict

from privfl.errors import Misuse, Refused
from privfl.learn.update_answers import Answer, Fault
from privfl.learn.update_inputs import Arrays, Ask

__all__ = ["answer_of", "arrays_of", "ask_of", "message_of", "numbers_of", "record_of"]


def arrays_of(record: ArrayRecord) -> Arrays:
    """The arrays by name; raises Misuse for one that is no plain numpy array."""
    found: Arrays = {}
    for name, array in record.items():
        try:
            found[name] = np.asarray(array.numpy())
        except Exception:
            raise Misuse(f"array {name!a:.80} cannot be read as a numpy array; make it with Array(ndarray)") from None
    return found


def record_of(arrays: Mapping[str, Any]) -> ArrayRecord:
    """A record of copies."""
    return ArrayRecord({name: Array(np.array(array)) for name, array in arrays.items()})


def numbers_of(record: MetricRecord | None) -> dict[str, Any] | None:
    """Metrics as plain numbers, or lists of them."""
    if record is None:
        return None
    return {name: list(value) if isinstance(value, list) else value for name, value in record.items()}


def ask_of(messages: Iterable[Message], arrays: Arrays, nodes: int, category: str) -> Ask | None:
    """The one call that a strategy's messages make, the same at every node; None for no message at all.

    Raises:
        Refused: messages that differ, or go to some nodes only.
    """
    sent = list(messages)
    if not sent:
        return None
    if len({message.metadata.dst_node_id for message in sent}) != nodes or len(sent) != nodes:
        raise Refused(
            f"the strategy asks {len(sent)} of {nodes} nodes to {category}; behind secure aggregation every site is "
            f"asked: leave fraction_{category} at 1.0 (or fraction_evaluate at 0.0 for no evaluation)"
        )
    first = _told(sent[0], arrays)
    if any(_told(message, arrays) != first for message in sent[1:] if message.content is not sent[0].content):
        raise Refused(
            "the strategy sends different nodes different content; behind secure aggregation the sites cannot be told "
            "apart, so all get the same"
        )
    if first.kind.partition(".")[0] != category:
        raise Refused(f"the strategy sends a message of type {first.kind!a} to {category}")
    return first


def _told(message: Message, arrays: Arrays) -> Ask:
    records: list[tuple[str, Any]] = []
    for name, record in message.content.items():
        if isinstance(record, ConfigRecord):
            records.append((name, {key: _copied(value) for key, value in record.items()}))
        elif isinstance(record, ArrayRecord):
            _same(arrays_of(record), arrays)
            records.append((name, None))
        else:
            raise Refused(f"the strategy sends metrics ({name!a:.80}) to the nodes; send numbers as a ConfigRecord")
    return Ask(message.metadata.message_type, tuple(records))


def _copied(value: Any) -> Any:
    return list(value) if isinstance(value, list) else value


def _same(sent: Arrays, arrays: Arrays) -> None:
    same = list(sent) == list(arrays) and all(
        np.array_equal(sent[name], arrays[name], equal_nan=sent[name].dtype.kind == "f") for name in sent
    )
    if not same:
        raise Refused("the strategy sends other arrays than the model that it was given; that does not travel")


# -- at the site ------------------------------------------------------------------------------------------


def message_of(carrier: Message, ask: Ask, arrays: Arrays) -> Message:
    """The message that the app's own function gets, as if it had come from the strategy itself."""
    records: dict[str, ArrayRecord | MetricRecord | ConfigRecord] = {}
    for name, settings in ask.records:
        records[name] = record_of(arrays) if settings is None else ConfigRecord(dict(settings))
    metadata = copy.deepcopy(carrier.metadata)
    metadata.message_type = ask.kind
    made: Message = Message(content=RecordDict(records), metadata=metadata)  # type: ignore[call-overload]
    return made


def answer_of(reply: object, category: str) -> Answer:
    """What an app's function returned, as plain values; raises Fault where it is nothing that Flower would average."""
    if not isinstance(reply, Message) or not reply.has_content():
        raise Fault("its function did not return a message with content")
    metrics, arrays = list(reply.content.metric_records.values()), list(reply.content.array_records.values())
    if len(metrics) != 1 or (category == "train" and len(arrays) != 1):
        raise Fault("its function did not return exactly one MetricRecord, and of training one ArrayRecord")
    own = arrays_of(arrays[0]) if category == "train" else {}
    return Answer(own, dict(metrics[0]))
