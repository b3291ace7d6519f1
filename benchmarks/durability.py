"""What policy, ledger and durability add to a site's round, beside training, noise and masking.

Example::

    python -m benchmarks.durability
    python -m benchmarks.durability --json --rounds 400 --folder /srv/privfl

Sites of one federation answer the same requests of one coordinator (announce, vote, release) in one process over
the memory wire: one with plain terms, account and store in memory, one exactly as ``privfl site run`` has them
(signed policy, ledger and sealed state on the disk of ``--folder``, status file), and one of the latter whose
ledger is long already. A different site begins each turn. The overhead is the difference within each round of
what a site's turns took, less training, noise and masking.

- ``overhead_ms``, ``overhead_p95_ms``: median and 95th percentile over the rounds, 31 parameters.
- ``overhead_ms_10k_entries``: median with 10,000 entries in the ledger; ``overhead_ms_1m``: with 1,000,000
  parameters, where a body of over 4 MB goes to the disk and 1,000 columns are held against the policy.
- ``parts``: medians of what it is made of; ``state`` is the sealed state, ``saves`` how often it was written,
  ``other`` what is left of the difference (dumps, hashes, cleaning up).
- ``start_ms``: a site's folder opened, data and key store included, but with a cheap key derivation.
- ``disk``: what one write with fsync of 4 KB and of 4 MB costs there; ``load``: of the machine, which makes all of
  this longer; ``processor`` does not contain what others do.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks._durability_seats import Meter, World, seated
from benchmarks._processes import Shape
from privfl.errors import PrivflError

GOAL_MS = 30.0
ENTRIES = 10_000
SMALL, WIDE = Shape(5, 30), Shape(5, 999, 1000, 10)  # 31 parameters, and a thousand classes of a thousand
EPOCH_ROUNDS = 100
Say = Callable[[str], None]


def run(world: World, rounds: int, warm_up: int, say: Say) -> dict[str, list[Meter]]:
    """Run rounds and return each measured site's meter of every round after the warm-up."""
    coordinator, task = world.coordinator, world.task
    state = task.initial_state()
    measured: dict[str, list[Meter]] = {kind: [] for kind in ("plain", "durable", "full") if kind in world.seats}
    for number in range(1, warm_up + rounds + 1):
        if (number - 1) % EPOCH_ROUNDS == 0:
            coordinator.open_epoch(world.present)
        for seat in world.seats.values():
            seat.meter = Meter()
        result = coordinator.run_round(
            task, task.model_bytes(state), world.policy, number, complete=False, min_survivors=world.least
        )
        if result.dropped:
            raise RuntimeError(f"round {number} lost a site: {result.refusals}")
        state = task.update(state, result.total, len(result.survivors))
        if number > warm_up:
            for kind, meters in measured.items():
                meters.append(world.seats[kind].meter)
        say(f"round {number} of {warm_up + rounds}")
    return measured


def figures(measured: dict[str, list[Meter]], kind: str) -> dict[str, object]:
    """Milliseconds: what ``kind`` took beyond the plain site in the same round, and its parts."""
    plain, durable = measured["plain"], measured[kind]
    over = [1e3 * (one.beside - other.beside) for one, other in zip(durable, plain, strict=True)]
    busy = [1e3 * (one.processor - other.processor) for one, other in zip(durable, plain, strict=True)]
    parts = {name: _median([one.parts[name] for one in durable]) for name in durable[0].parts}
    # plain terms and account are asked as well, so the parts add up to a little more than the difference
    return {
        "median": round(statistics.median(over), 3),
        "p95": round(float(np.percentile(over, 95)), 3),
        "p25": round(float(np.percentile(over, 25)), 3),
        "processor": round(statistics.median(busy), 3),
        "plain": _median([one.beside for one in plain]),
        "durable": _median([one.beside for one in durable]),
        "training_and_masking": _median([one.work for one in durable]),
        "parts": {**parts, "other": round(statistics.median(over) - sum(parts.values()), 3)},
        "saves": round(statistics.median(one.saves for one in durable)),
        "rounds": len(durable),
    }


def _median(seconds: list[float]) -> float:
    return round(1e3 * statistics.median(seconds), 3)


def disk(folder: Path) -> dict[str, object]:
    """Where the folder lies and what a write with fsync costs there, milliseconds."""
    taken: dict[str, object] = {}
    for name, size, times in (("write_4kb_ms", 4096, 50), ("write_4mb_ms", 4 * 2**20, 10)):
        data, spent = os.urandom(size), []
        for at in range(times):
            start = time.perf_counter()
            with open(folder / f"{name}{at}", "wb") as stream:
                stream.write(data)
                stream.flush()
                os.fsync(stream.fileno())
            spent.append(time.perf_counter() - start)
        taken[name] = _median(spent)
    return taken


def measure(folder: Path, rounds: int, wide_rounds: int, entries: int, wide: Shape, say: Say) -> dict[str, object]:
    """Run both federations below ``folder`` and return every figure."""
    with seated(folder / "small", SMALL, entries) as world:
        small, start = run(world, rounds, min(20, rounds), say), world.start_s
    fresh, full = figures(small, "durable"), figures(small, "full")
    large: dict[str, object] | None = None
    if wide_rounds:
        with seated(folder / "wide", wide, 0) as world:
            large = figures(run(world, wide_rounds, 1, say), "durable")
    medians = [float(str(one["median"])) for one in (fresh, full, large) if one is not None]
    return {
        "overhead_ms": fresh["median"],
        "overhead_p95_ms": fresh["p95"],
        "overhead_ms_10k_entries": full["median"],
        "overhead_ms_1m": None if large is None else large["median"],
        "goal_ms": GOAL_MS,
        "met": max(medians) <= GOAL_MS,
        "parts": fresh["parts"],
        "small": fresh,
        "full": full,
        "wide": large,
        "entries": entries,
        "start_ms": round(1e3 * start["durable"], 1),
        "start_ms_10k_entries": round(1e3 * start["full"], 1),
        "disk": disk(folder),
        "load": os.getloadavg()[0],
    }


def show(result: dict[str, object], console: Console) -> None:
    """Print the figures as a table."""
    columns = [(name, result[name]) for name in ("small", "full", "wide")]
    named = {"small": "31 parameters", "full": f"with {result['entries']:,} entries", "wide": "1,000,000 parameters"}
    table = Table(title="Policy, ledger and durability at a site, ms per round", caption=f"disk: {result['disk']}")
    table.add_column("")
    found = [(named[name], one) for name, one in columns if isinstance(one, dict)]
    for heading, _ in found:
        table.add_column(heading, justify="right")
    table.add_row(f"overhead, median (goal {GOAL_MS:.0f})", *(f"{one['median']:.2f}" for _, one in found))
    table.add_row("overhead, 95th percentile", *(f"{one['p95']:.2f}" for _, one in found))
    table.add_row("of it processor time", *(f"{one['processor']:.2f}" for _, one in found))
    table.add_section()
    for part in found[0][1]["parts"]:
        table.add_row(part, *(f"{one['parts'][part]:.2f}" for _, one in found))
    table.add_section()
    for name, key in (
        ("in memory", "plain"),
        ("on disk", "durable"),
        ("training, noise, masks", "training_and_masking"),
    ):
        table.add_row(name, *(f"{one[key]:.2f}" for _, one in found))
    table.add_row("start of a site", f"{result['start_ms']}", f"{result['start_ms_10k_entries']}")
    console.print(table)


def main(arguments: list[str] | None = None) -> None:
    """Measure and print a table, or one JSON object."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.durability",
        description="Time what policy, ledger and durability add to a site's round, against the same site in memory.",
        epilog="Example: python -m benchmarks.durability --json --rounds 400",
    )
    parser.add_argument("--rounds", type=int, default=300, help="of the small model (%(default)s)")
    parser.add_argument(
        "--wide-rounds", type=int, default=10, help="of the million parameters; 0 for none (%(default)s)"
    )
    parser.add_argument("--entries", type=int, default=ENTRIES, help="in the long ledger (%(default)s)")
    parser.add_argument("--folder", type=Path, default=Path(), help="on the disk to measure (here)")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of the table")
    options = parser.parse_args(arguments)
    if options.rounds < 1 or options.wide_rounds < 0 or options.entries < 2:
        parser.error("at least one round and two entries are needed")
    console = Console(stderr=True)
    try:
        made = tempfile.TemporaryDirectory(prefix=".durability-", dir=options.folder)
        with made as folder, console.status("setting up") as status:
            sizes = (options.rounds, options.wide_rounds, options.entries)
            result = measure(Path(folder).absolute(), *sizes, WIDE, status.update)
    except (PrivflError, OSError) as error:
        parser.error(str(error))
    if options.json:
        print(json.dumps(result))
    else:
        show(result, Console())


if __name__ == "__main__":
    main()
