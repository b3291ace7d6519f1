"""The Grid in one process behaves as Flower's does, as far as apps can tell, and makes its faults by seed."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp

from privfl.flower.local_grid import GridFaults, LocalGrid

app = ClientApp()


@app.query("echo")
def echo(message: Message, context: Context) -> Message:
    """Adds the node's number, and counts in the node's own state."""
    count = context.state.get("count")
    times = int(count["times"]) + 1 if isinstance(count, ConfigRecord) else 1  # type: ignore[arg-type]
    context.state["count"] = ConfigRecord({"times": times})
    told = ConfigRecord({"node": context.node_id, "times": times, "own": context.node_config["own"]})
    return Message(RecordDict({**message.content, "told": told}), reply_to=message)


@app.query("fail")
def fail(message: Message, context: Context) -> Message:
    """Raises."""
    raise RuntimeError("no luck")


def ask(grid: LocalGrid, what: str = "query.echo", nodes: Any = None, timeout: float = 5.0) -> list[Message]:
    content = RecordDict({"arrays": ArrayRecord([np.arange(6.0).reshape(2, 3)])})
    ids = list(grid.get_node_ids()) if nodes is None else nodes
    return list(grid.send_and_receive([Message(content, node, what) for node in ids], timeout=timeout))


NODES = {1: {"own": "a"}, 2: {"own": "b"}, 3: {"own": "c"}}


@pytest.mark.parametrize("threads", [False, True])
def test_every_node_answers_with_its_own_configuration_and_state(threads: bool) -> None:
    """Arrays come back as they went; each node keeps its own state from message to message."""
    grid = LocalGrid(app, NODES, threads=threads)
    for times in (1, 2):
        replies = sorted(ask(grid), key=lambda reply: reply.metadata.src_node_id)
        told = [dict(reply.content["told"]) for reply in replies]  # type: ignore[arg-type]
        assert told == [{"node": node, "times": times, "own": NODES[node]["own"]} for node in NODES]
        arrays = replies[0].content["arrays"]
        assert isinstance(arrays, ArrayRecord)
        assert np.array_equal(arrays.to_numpy_ndarrays()[0], np.arange(6.0).reshape(2, 3))
    grid.close()
    assert grid.get_node_ids() == []


def test_an_exception_at_a_node_is_an_error_reply() -> None:
    """As a SuperNode makes one."""
    (reply,) = ask(LocalGrid(app, {1: {"own": "a"}}), "query.fail")
    assert reply.has_error()
    assert "no luck" in (reply.error.reason or "")


def test_a_node_that_is_not_there_is_unavailable_and_one_that_leaves_is_silent() -> None:
    """Flower's error for the one, nothing from the other."""
    grid = LocalGrid(app, NODES)
    (reply,) = ask(grid, nodes=[9])
    assert reply.error.code == 5
    names = list(grid.push_messages([Message(RecordDict(), 1, "query.echo")]))
    grid.take_away(1)
    assert list(grid.pull_messages(names)) == []
    assert sorted(grid.get_node_ids()) == [2, 3]


def test_faults_come_by_seed_and_about_as_often_as_said() -> None:
    """The same seed fails the same messages."""

    def lost(seed: int) -> list[int]:
        grid = LocalGrid(app, {1: {"own": "a"}}, faults=GridFaults(seed, lose=0.2, lose_reply=0.2, error=0.2))
        found = []
        for at in range(60):
            names = list(grid.push_messages([Message(RecordDict(), 1, "query.echo")]))
            replies = list(grid.pull_messages(names))
            found += [at] if not replies or replies[0].has_error() else []
        return found

    assert lost(1) == lost(1) != lost(2)
    assert 15 < len(lost(1)) < 45


def test_a_late_reply_comes_later_and_a_repeated_message_twice() -> None:
    """Held back, not lost; the node sees a repetition."""
    grid = LocalGrid(app, {1: {"own": "a"}}, faults=GridFaults(3, late=1.0, late_s=0.2, twice=1.0))
    names = list(grid.push_messages([Message(RecordDict(), 1, "query.echo")]))
    found: list[Message] = []
    until = time.monotonic() + 10
    while not found and time.monotonic() < until:
        found = list(grid.pull_messages(names))
    assert dict(found[0].content["told"])["times"] == 2  # type: ignore[arg-type]
    assert grid.handled == 2
