"""Messages and replies over Flower's Grid: so many at once as memory takes, and one bad message hurts itself alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from flwr.app import Message
from flwr.serverapp import Grid

from privfl.flower.courier_nodes import Node

__all__ = ["PULL_AT_ONCE", "PULL_BYTES", "Broken", "batches", "kind_of", "pulled", "pushed"]

PULL_AT_ONCE = 8  # replies in memory at once, each with its bodies
PULL_BYTES = 256 * 2**20  # of bodies, judged by the largest replies so far
_TRANSPORT = ("httpx", "httpcore", "grpc")


@dataclass(frozen=True)
class Broken:
    """The reply to ``name`` cannot even be unpacked; ``kind`` of error."""

    name: str
    kind: str


def batches(under_way: Mapping[str, Node], usual: int) -> list[list[str]]:
    """Names of messages, as many together as their replies may lie in memory at once.

    Args:
        under_way: message → its node, whose own largest reply counts. usual: bytes that any node's may have; so a node
            that sends more slows nobody's mail but its own.
    """
    found, room = list[list[str]](), 0
    for name, node in under_way.items():
        size = max(node.largest, usual)
        if not found or len(found[-1]) == PULL_AT_ONCE or size > room:
            found.append([])
            room = PULL_BYTES
        found[-1].append(name)
        room -= size
    return found


def pulled(grid: Grid, names: Sequence[str]) -> Iterator[Message | Broken]:
    """The replies that are there; raises what Flower raises if the way to the SuperLink is at fault."""
    try:
        replies: list[Message | Broken] = list(grid.pull_messages(names))
    except Exception as error:
        if len(names) > 1:
            for one in names:
                yield from pulled(grid, [one])
            return
        if _transient(error):
            raise
        replies = [Broken(names[0], kind_of(error))]
    while replies:
        yield replies.pop()  # the last one who holds it is who asked


def pushed(grid: Grid, messages: Sequence[Message]) -> list[str | None]:
    """Push messages, one by one where together they are too much; the name of each, None if it was not taken."""
    names: list[str | None] = list(grid.push_messages(messages))
    if len(messages) > 1 and len(names) != len(messages):
        names = [next(iter(grid.push_messages([message])), None) for message in messages]
    return names or [None] * len(messages)


def _transient(error: Exception) -> bool:
    """Whether an error is about the way to the SuperLink and not about one message."""
    status = getattr(getattr(error, "response", None), "status_code", None)
    if isinstance(status, int) and 400 <= status < 500:
        return False
    return isinstance(error, OSError) or type(error).__module__.split(".")[0] in _TRANSPORT


def kind_of(error: BaseException) -> str:
    """What may be told of an error whose text is a stranger's."""
    return type(error).__name__
