"""Ten sites as processes over the folder wire: how long a run takes when three are killed, or one is slow.

Example::

    python -m benchmarks.stragglers
    python -m benchmarks.stragglers --json --rounds 20

The same training runs several times, each in a fresh federation (ten sites, of which three may collude with the
coordinator, seven survivors at least, voted mode): undisturbed; with three sites killed by SIGKILL in the middle
round, one after its reservation and before it uploads, one after its upload and before its vote, one between vote
and release; the same with each started again at once; and with one site that sleeps before each upload, for less
and for more than the coordinator's grace. The coordinator's pace is the default unless ``--grace`` says otherwise.

- ``undisturbed_s``, ``killed_s``, ``restarted_s``, ``slow_s``, ``very_slow_s``: from the coordinator's start to its
  end, all sites being up; ``ratio…``: over the undisturbed run.
- ``rounds``: asked for; ``opened``: of the killed run.
- ``runs``: for each run its rounds' seconds, sites left out per round, and attempts.
- ``after_kill_s``: the round of the kill and the three after it.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks._processes import Shape
from benchmarks._straggling import LEAST, Doom, Plan, Timeline, play
from privfl.errors import PrivflError
from privfl.runtime.coordinator_process import Pace

SHAPE = Shape(10)
STAGES = ("reserved", "ask-vote", "ask-release")
NAP, LONG_NAP = 1.0, 3.0  # seconds; less and more than the default grace


def plans(rounds: int, pace: Pace) -> dict[str, Plan]:
    """The runs by name."""
    middle = (rounds + 1) // 2
    dooms = {name: Doom(middle, stage) for name, stage in zip(SHAPE.names[2:], STAGES, strict=False)}
    return {
        "undisturbed": Plan(rounds, pace=pace),
        "killed": Plan(rounds, dooms, pace=pace),
        "restarted": Plan(rounds, dooms, restart=True, pace=pace),
        "slow": Plan(rounds, {SHAPE.names[2]: Doom(nap=NAP)}, pace=pace),
        "very_slow": Plan(rounds, {SHAPE.names[2]: Doom(nap=LONG_NAP)}, pace=pace),
    }


def measure(folder: Path, rounds: int, pace: Pace, only: list[str], say: Callable[[str], None]) -> dict[str, object]:
    """Play every run below ``folder`` and return the figures."""
    runs = {
        name: play(folder / name, SHAPE, plan, lambda text, name=name: say(f"{name}: {text}"))  # type: ignore[misc]
        for name, plan in plans(rounds, pace).items()
        if name == "undisturbed" or not only or name in only
    }
    calm, middle = runs["undisturbed"], (rounds + 1) // 2
    result: dict[str, object] = {"undisturbed_s": round(calm.seconds, 2)}
    for name, run in runs.items():
        if name == "undisturbed":
            continue
        result[f"{name}_s"] = round(run.seconds, 2)
        result["ratio" if name == "killed" else f"ratio_{name}"] = round(run.seconds / calm.seconds, 2)
    killed = runs.get("killed", calm)
    return {
        **result,
        "rounds": rounds,
        "opened": len(killed.rounds),
        "grace_s": pace.grace / 1000,
        "sites": SHAPE.sites,
        "min_survivors": LEAST,
        "after_kill_s": [round(one, 2) for one in killed.rounds[middle - 1 : middle + 3]],
        "runs": {name: _facts(run) for name, run in runs.items()},
        "load": os.getloadavg()[0],
    }


def _facts(run: Timeline) -> dict[str, object]:
    return {
        "seconds": round(run.seconds, 2),
        "until_epoch_s": round(run.ready, 2),
        "round_median_s": round(statistics.median(run.rounds), 3),
        "round_most_s": round(max(run.rounds), 3),
        "rounds_s": [round(one, 3) for one in run.rounds],
        "missing": run.missing,
        "attempts": sum(run.attempts),
        "killed": run.killed,
    }


def show(result: dict[str, object], console: Console) -> None:
    """Print the runs as a table."""
    runs = result["runs"]
    assert isinstance(runs, dict)
    caption = f"grace {result['grace_s']} s; round of the kill and after: {result['after_kill_s']} s"
    table = Table(title=f"{result['sites']} sites, {result['rounds']} rounds, seconds", caption=caption)
    for heading in ("run", "in all", "ratio", "epoch", "round, median", "round, most", "rounds", "attempts"):
        table.add_column(heading, justify="left" if heading == "run" else "right", no_wrap=heading == "run")
    for name, run in runs.items():
        ratio = result.get("ratio" if name == "killed" else f"ratio_{name}", 1.0)
        figures = (run["until_epoch_s"], run["round_median_s"], run["round_most_s"], len(run["rounds_s"]))
        table.add_row(
            name.replace("_", " "), f"{run['seconds']:.2f}", f"{ratio:.2f}", *map(str, figures), str(run["attempts"])
        )
    console.print(table)


def main(arguments: list[str] | None = None) -> None:
    """Play the runs and print a table, or one JSON object."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.stragglers",
        description="Time a run of ten site processes of which three are killed, or one is slow.",
        epilog="Example: python -m benchmarks.stragglers --json --rounds 20",
    )
    parser.add_argument("--rounds", type=int, default=20, help="of each run (%(default)s)")
    parser.add_argument("--only", action="append", choices=sorted(plans(2, Pace())), help="this beside the undisturbed")
    parser.add_argument("--grace", type=int, help="milliseconds for the last sites once enough answered (the default)")
    parser.add_argument("--folder", type=Path, default=Path(), help="below which the federations are made (here)")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of the table")
    options = parser.parse_args(arguments)
    if options.rounds < 2:
        parser.error("at least two rounds are needed")
    pace = Pace() if options.grace is None else replace(Pace(), grace=options.grace)
    console = Console(stderr=True)
    try:
        made = tempfile.TemporaryDirectory(prefix=".stragglers-", dir=options.folder)
        with made as folder, console.status("setting up") as status:
            result = measure(Path(folder).absolute(), options.rounds, pace, options.only or [], status.update)
    except (PrivflError, OSError) as error:
        parser.error(str(error))
    if options.json:
        print(json.dumps(result))
    else:
        show(result, Console())


if __name__ == "__main__":
    main()
