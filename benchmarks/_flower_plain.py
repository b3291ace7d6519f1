"""The baseline over Flower: plain FedAvg (train and evaluate) on SuperLink and SuperNodes of this computer."""

from __future__ import annotations

import json
import re
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from privfl.flower.local import Finished, LocalFlower, Node

__all__ = ["APP", "Plain", "plain_rounds"]

APP = Path(__file__).parent / "flower_plain"
_SAID = re.compile(r"plain-fedavg: (\{.*\})")


@dataclass(frozen=True)
class Plain:
    """What plain FedAvg took.

    Attributes:
        rounds_s: wall time of each round (train and evaluate), seconds. start_s: until all nodes were connected.
        run_s: from ``flwr run`` to its end, seconds. inbound, outbound: bytes SuperLink counted, all nodes and rounds.
    """

    rounds_s: list[float]
    start_s: float
    run_s: float
    inbound: int
    outbound: int


def plain_rounds(
    folder: Path, nodes: int, parameters: int = 1_000_000, rounds: int = 3, *, secure: bool = True
) -> Plain:
    """Run ``rounds`` rounds with ``nodes`` SuperNodes; raises AssertionError if the average is wrong."""
    began = time.monotonic()
    with LocalFlower(folder, [Node({"partition-id": index}) for index in range(nodes)], secure=secure) as flower:
        started = time.monotonic()
        ended = flower.run(APP, {"rounds": rounds, "parameters": parameters, "nodes": nodes})
        stopped = time.monotonic()
    said = spoken(ended)
    assert abs(said["value"] - rounds * (nodes - 1) / 2) < 1e-3, said["value"]
    return Plain(said["rounds_s"], started - began, stopped - started, ended.inbound, ended.outbound)


def spoken(ended: Finished) -> dict[str, Any]:
    """What the ServerApp printed last; raises AssertionError if it printed nothing."""
    found = _SAID.search(ended.log)
    assert found, ended.log[-2000:]
    answer: dict[str, Any] = json.loads(found.group(1))
    return answer


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        print(plain_rounds(Path(scratch), int(sys.argv[1])))
