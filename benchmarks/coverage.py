"""How often 95 % intervals hold the truth: ``python -m benchmarks.coverage [--runs 400] [--json]``.

Every run draws a fresh sample of about 5000 rows from a population whose law is known (:mod:`._coverage_world`), has
the local engine compute the exact integers of one study of every kind of answer, adds the noise that distributed
trust over five sites plans for it, and decodes all of its rounds as a coordinator would. Where an interval is for the
population, 95 of 100 should hold the law's own number, whatever the noise.

The exact integers are computed over all sites' rows together, since sums over sites are exact; and the noise of a sum
is drawn from one rounded normal law of its standard deviation, from a seed, so that a run can be repeated.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from typing import NamedTuple

import numpy as np
from privfl_analytics.answer import Row
from privfl_analytics.noise import noise_of_sum
from privfl_analytics.opened import History
from privfl_analytics.question import StudyQuestion
from privfl_analytics.result import StudyResult
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from benchmarks._coverage_world import Wanted, draw, schema, study, wanted
from privfl.entropy import SYSTEM
from privfl.tasks import FrameSource, SiteData

SITES = 5
DELTA = 1e-6
#: Percent of intervals that may hold the truth, at a nominal 95.
GOAL = (93.0, 97.0)


class Kind(NamedTuple):
    """Counts over all runs of one kind of answer.

    Attributes:
        asked: intervals asked for. resolved: those that were given. held: those that held the truth.
    """

    asked: int
    resolved: int
    held: int

    @property
    def covered(self) -> float:
        """Percent of the given intervals that hold the truth."""
        return 100.0 * self.held / self.resolved if self.resolved else math.nan


@cache
def question(epsilon: float) -> StudyQuestion:
    """The study, compiled once for each process."""
    return study().compile(schema(), epsilon=epsilon, delta=DELTA, sites=SITES)


def run(seed: int, epsilon: float) -> StudyResult:
    """One sample, all rounds, decoded."""
    rng, asked, history = np.random.default_rng(seed), question(epsilon), History()
    data = SiteData(schema(), FrameSource(draw(rng)))
    while (inputs := asked.next_inputs(history)) is not None:
        stage = len(history)
        exact = asked.contribution(inputs, data, SYSTEM)
        noise = np.rint(rng.standard_normal(len(exact)) * _noise(asked, stage)).astype(np.int64)
        history = history.add(asked.opened(stage, exact + noise, SITES))
    return asked.decode(history)


def _noise(asked: StudyQuestion, stage: int) -> np.ndarray:
    """Standard deviation of the noise of every coordinate, integer units."""
    release, parts = asked.release(stage), asked.plan[stage].parts
    sds = (noise_of_sum(release, at, 1.0, SITES) for at in range(len(parts)))
    lengths = [part.construction.length(asked.view) for part in parts]
    return np.repeat(np.fromiter(sds, dtype=np.float64), lengths)


def judged(seed: int, epsilon: float) -> list[bool | None]:
    """For every wanted interval whether it holds the truth; None where the answer is not resolved."""
    found = run(seed, epsilon)
    return [_holds(one, _row(found, one)) for one in wanted()]


def _row(found: StudyResult, one: Wanted) -> Row:
    rows = (row for row in found[one.query].rows if row.what == one.what)
    return next(row for row in rows if all(row.at.get(key) == value for key, value in one.at.items()))


def _holds(one: Wanted, row: Row) -> bool | None:
    if row.value is None or row.lower is None or row.upper is None:
        return None
    return row.lower <= one.truth <= row.upper


def measure(runs: int, epsilon: float, processes: int, console: Console) -> dict[str, Kind]:
    """Coverage by kind of answer."""
    counts: dict[str, list[int]] = {}
    with Progress(console=console, transient=True) as progress:
        bar = progress.add_task("sampling", total=runs)
        for told in _all(runs, epsilon, processes):
            for one, held in zip(wanted(), told, strict=True):
                kind = counts.setdefault(one.kind, [0, 0, 0])
                for at, more in enumerate((True, held is not None, bool(held))):
                    kind[at] += more
            progress.advance(bar)
    return {kind: Kind(*three) for kind, three in counts.items()}


def _all(runs: int, epsilon: float, processes: int) -> Iterator[list[bool | None]]:
    if processes == 1:
        for seed in range(runs):
            yield judged(seed, epsilon)
        return
    spawned = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, mp_context=spawned) as pool:
        yield from pool.map(judged, range(runs), [epsilon] * runs, chunksize=4)


def show(console: Console, found: dict[str, Kind], runs: int, epsilon: float) -> None:
    """Print the table."""
    title = f"95 % intervals of {runs} studies at epsilon {epsilon:g}, delta {DELTA:g}, {SITES} sites"
    table = Table(title=title)
    for heading in ("answers", "intervals", "resolved, %", "hold the truth, %"):
        table.add_column(heading)
    for name, kind in found.items():
        error = 100.0 * math.sqrt(0.05 * 0.95 / max(runs, 1))
        verdict = "" if GOAL[0] <= kind.covered <= GOAL[1] else "  OFF"
        resolved = 100.0 * kind.resolved / kind.asked
        table.add_row(name, str(kind.asked), f"{resolved:.1f}", f"{kind.covered:.1f} ± {error:.1f}{verdict}")
    console.print(table)


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.coverage", description=__doc__.split("\n")[0])
    parser.add_argument("--runs", type=int, default=400, help="samples, one study each; seeds are 0, 1, …")
    parser.add_argument("--epsilon", type=float, default=3.0, help="price of the whole study")
    parser.add_argument("--processes", type=int, default=2, help="at once")
    parser.add_argument("--json", action="store_true", help="print one JSON object only")
    options = parser.parse_args(arguments)
    if options.runs < 1 or options.processes < 1 or not options.epsilon > 0:
        parser.error("--runs, --processes and --epsilon must be positive")
    start = time.perf_counter()
    found = measure(options.runs, options.epsilon, options.processes, Console(stderr=True))
    seconds = time.perf_counter() - start
    if not options.json:
        show(Console(), found, options.runs, options.epsilon)
        return
    result = {
        "runs": options.runs,
        "epsilon": options.epsilon,
        "delta": DELTA,
        "sites": SITES,
        "coverage": {name: round(kind.covered, 2) for name, kind in found.items()},
        "resolved": {name: round(100.0 * kind.resolved / kind.asked, 2) for name, kind in found.items()},
        "goal": list(GOAL),
        "within": all(GOAL[0] <= kind.covered <= GOAL[1] for kind in found.values()),
        "seconds": round(seconds, 1),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
