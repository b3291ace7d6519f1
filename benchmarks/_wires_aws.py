"""SQS and S3 beside the memory wire: where the time of a round goes, and how long a message lies."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks._wires_realm import Realm
from benchmarks._wires_round import Ends, Memory, Played, furnished, play, settings_for

__all__ = ["GAP_GOAL_MS", "REST_GOAL", "measure"]

REST_GOAL = 0.15  # of a round's wall time: neither the emulator's nor privfl's own computing
GAP_GOAL_MS = 200.0


def measure(
    sites: int, length: int, rounds: int, folder: Path, say: Callable[[str], None], endpoint: str
) -> dict[str, Any]:
    """Rounds over the folder wire and over the emulator at ``endpoint``, each beside the same round over memory."""
    realm = Realm.make(sites, length)
    memory = Memory(realm)
    epoch = memory.epoch()
    found: dict[str, Any] = {}
    traffic: dict[str, Any] = {}
    for kind in ("folder", "aws"):
        place = folder / f"{kind}-{sites}"
        place.mkdir()
        memory.rounds.clear()
        played = play(Ends(furnished(settings_for(kind, place, endpoint), realm), realm, place), memory, rounds, say)
        found[kind] = figures(played, memory)
        traffic[kind] = played.traffic(realm.coordinator_id.hex())
    traffic["memory"] = memory.traffic()
    return {
        "sites": sites,
        "dim": length,
        "rounds": rounds,
        "memory_epoch_s": epoch,
        **found,
        "traffic": traffic,
        "bit_exact": True,  # play() raises otherwise
    }


def figures(played: Played, memory: Memory) -> dict[str, Any]:
    """Of one wire: means over the rounds, seconds; medians beside them; what is left, as a share of the wall time."""
    shares, lay = played.shares(), played.gaps()
    own = statistics.fmean(one.seconds for one in memory.rounds)
    walls = [one.seconds for one in played.rounds]
    return {
        "round_s": shares["seconds"],
        "round_median_s": statistics.median(walls),
        "memory_s": own,
        "memory_median_s": statistics.median(one.seconds for one in memory.rounds),
        "epoch_s": played.epoch[1] - played.epoch[0],
        "parts_s": {name: shares[name] for name in ("emulator", "computing", "wire", "waiting")},
        "rest_s": shares["wire"] + shares["waiting"],
        "rest_share": (shares["wire"] + shares["waiting"]) / shares["seconds"],
        "over_processes_s": {"requests": shares["requests"], "computing": shares["computing_all"]},
        "messages": len(lay),
        "gap_ms": {
            "median": 1e3 * statistics.median(lay),
            "p99": 1e3 * float(np.percentile(lay, 99)),
            "most": 1e3 * max(lay),
        },
        "operations": played.operations(),
    }
