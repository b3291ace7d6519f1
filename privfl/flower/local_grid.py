"""A Grid within one process: each node runs the same ClientApp; for tests, for trying out, and to see faults by seed.

What a node or the other side gets has been through Flower's own encoding, so both see what they would see over a
SuperLink.
"""

from __future__ import annotations

import queue
import random
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from flwr.app import Context, Error, Message, RecordDict
from flwr.app.user_config import UserConfig
from flwr.clientapp import ClientApp
from flwr.common.constant import SUPERLINK_NODE_ID, ErrorCode
from flwr.serverapp import Grid
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects, no_object_id_recompute
from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity

__all__ = ["GridFaults", "LocalGrid"]


@dataclass(frozen=True)
class GridFaults:
    """How often something goes wrong on the way, each between 0 and 1; drawn by ``seed``.

    Attributes:
        lose: a message never reaches its node. lose_reply: its reply never comes back. twice: the node gets a message
            a second time, and the first reply is lost. error: the node replies with an error of Flower's, having
            done nothing. late: a reply is held back, for up to ``late_s`` seconds.
    """

    seed: int = 0
    lose: float = 0.0
    lose_reply: float = 0.0
    twice: float = 0.0
    error: float = 0.0
    late: float = 0.0
    late_s: float = 0.1


@dataclass
class _Node:
    config: UserConfig
    app: Callable[[Message, Context], Message]
    state: RecordDict = field(default_factory=RecordDict)
    inbox: queue.Queue[Message | None] = field(default_factory=queue.Queue)
    here: bool = True
    thread: threading.Thread | None = None


class LocalGrid(Grid):
    """Runs ``app`` for each message, one after the other at each node.

    Args:
        app: the ClientApp, or any function of message and context. nodes: node id → its configuration.
        run_config: what the app sees as the run's. threads: nodes work side by side, as SuperNodes do; otherwise they
            work when replies are pulled. faults: see :class:`GridFaults`.

    Attributes:
        handled: how many messages nodes have been given. seen: called with each message and reply, as (node, message).
    """

    def __init__(
        self,
        app: ClientApp | Callable[[Message, Context], Message],
        nodes: Mapping[int, UserConfig],
        *,
        run_config: UserConfig | None = None,
        threads: bool = False,
        faults: GridFaults | None = None,
    ) -> None:
        self._app, self._run_config, self._threads = app, run_config or {}, threads
        self._faults = faults or GridFaults()
        self._draws = random.Random(self._faults.seed)  # noqa: S311 - faults by seed, no secret
        self._lock = threading.Lock()
        self._nodes: dict[int, _Node] = {}
        self._replies: dict[str, tuple[float, Message]] = {}
        self._run = Run.create_empty(1)
        self.handled = 0
        self.seen: Callable[[int, Message], None] = lambda node, message: None
        if getattr(TaskIdentity, "_run_id", None) is None:  # what Flower sets for each process of its own
            TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = 1, SUPERLINK_NODE_ID, 1
        for node, config in nodes.items():
            self.add(node, config)

    # -- nodes --------------------------------------------------------------------------------------

    def add(
        self, node: int, config: UserConfig, app: ClientApp | Callable[[Message, Context], Message] | None = None
    ) -> None:
        """A node connects, with an app of its own if it has one."""
        made = _Node(dict(config), app or self._app)
        self._nodes[node] = made
        if self._threads:
            made.thread = threading.Thread(target=self._serve, args=(node, made), daemon=True, name=f"node-{node}")
            made.thread.start()

    def take_away(self, node: int) -> None:
        """A node is gone, with whatever was under way to it."""
        gone = self._nodes.pop(node, None)
        if gone is not None:
            gone.here = False
            gone.inbox.put(None)

    def close(self, wait_s: float = 10.0) -> None:
        """End all nodes, and wait for what they have in hand."""
        threads = [made.thread for made in self._nodes.values() if made.thread is not None]
        for node in list(self._nodes):
            self.take_away(node)
        for thread in threads:
            thread.join(wait_s)

    def _serve(self, node: int, made: _Node) -> None:
        while made.here and (message := made.inbox.get()) is not None:
            self._handle(node, made, message)

    def _handle(self, node: int, made: _Node, message: Message) -> None:
        with self._lock:
            chance = {name: self._draws.random() for name in ("lose", "lose_reply", "twice", "error", "late")}
            held = self._draws.random() * self._faults.late_s
        faults = self._faults
        if chance["lose"] < faults.lose:
            return
        name = message.metadata.message_id
        if chance["error"] < faults.error:
            self._keep(name, Message(Error(ErrorCode.UNKNOWN, "a fault by seed"), reply_to=message), 0.0)
            return
        reply = None
        for _ in range(2 if chance["twice"] < faults.twice else 1):
            reply = self._answer(node, made, _through(message))
        if reply is not None and made.here and chance["lose_reply"] >= faults.lose_reply:
            self._keep(name, reply, held if chance["late"] < faults.late else 0.0)

    def _answer(self, node: int, made: _Node, message: Message) -> Message:
        self.handled += 1
        self.seen(node, message)
        context = Context(1, node, made.config, made.state, dict(self._run_config))
        try:
            reply = _through(made.app(message, context))
        except Exception as error:  # as a SuperNode does
            said = f"{type(error)}:<'{error}'>"
            reply = Message(Error(ErrorCode.CLIENT_APP_RAISED_EXCEPTION, said), reply_to=message)
        self.seen(node, reply)
        return reply

    def _keep(self, name: str, reply: Message, held: float) -> None:
        with self._lock:
            self._replies[name] = (time.monotonic() + held, reply)

    # -- Grid ---------------------------------------------------------------------------------------

    def set_run(self, run: Run) -> None:
        """See Grid."""
        self._run = run

    @property
    def run(self) -> Run:
        """See Grid."""
        return self._run

    def create_message(
        self, content: RecordDict, message_type: str, dst_node_id: int, group_id: str, ttl: float | None = None
    ) -> Message:
        """See Grid."""
        return Message(content, dst_node_id, message_type, ttl=ttl, group_id=group_id)

    def get_node_ids(self) -> Iterable[int]:
        """See Grid."""
        return list(self._nodes)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """See Grid."""
        names = []
        for message in messages:
            name = message.object_id
            message.metadata.__dict__["_message_id"] = name
            names.append(name)
            node = self._nodes.get(message.metadata.dst_node_id)
            if node is None:
                gone = Message(Error(ErrorCode.NODE_UNAVAILABLE, "the node is not connected"), reply_to=message)
                self._keep(name, gone, 0.0)
            else:
                node.inbox.put(_through(message))
        return names

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """See Grid."""
        if not self._threads:
            for node, made in list(self._nodes.items()):
                while made.here and not made.inbox.empty():
                    message = made.inbox.get()
                    if message is not None:
                        self._handle(node, made, message)
        now = time.monotonic()
        with self._lock:
            ready = [name for name in message_ids if name in self._replies and self._replies[name][0] <= now]
            return [self._replies.pop(name)[1] for name in ready]

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        """See Grid."""
        left, found = set(self.push_messages(messages)), list[Message]()
        until = None if timeout is None else time.monotonic() + timeout
        while left and (until is None or time.monotonic() < until):
            for reply in self.pull_messages(list(left)):
                found.append(reply)
                left.discard(reply.metadata.reply_to_message_id)
            if left:
                time.sleep(0.002)
        return found


def _through(message: Message) -> Message:
    """The message as its receiver unpacks it."""
    name = message.metadata.message_id
    with no_object_id_recompute():
        contents = {key: part.deflate() for key, part in get_all_nested_objects(message).items()}
        made = inflate_object_from_contents(message.object_id, contents)
    assert isinstance(made, Message)
    made.metadata.__dict__["_message_id"] = name
    return made
