"""Attack the noise: what outputs prove about ε stays below the claim, and passes it at a quarter of the noise.

Example::

    python -m benchmarks.audit
    python -m benchmarks.audit --json --runs 100000 --trainings 20

Audit A tells two worlds apart for every construction; audit B guesses a thousand canaries of one training run.
The three figures at the top of the JSON object are those of audit B; ``mechanisms`` holds those of audit A.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import asdict

from rich.console import Console
from rich.table import Table

from benchmarks._audit_training import Plan, audit_training
from benchmarks._audit_worlds import DELTA, Outcome, audit, subjects
from privfl.entropy import SYSTEM


def _print(outcomes: dict[str, Outcome], seconds: float) -> None:
    table = Table(
        title=f"Audit: epsilon at delta = {DELTA:g}", caption=f"{seconds:.0f} s; broken = a quarter of the noise"
    )
    for heading in ("mechanism", "claimed", "lower bound", "lower bound, broken", "verdict"):
        table.add_column(heading, justify="left" if heading == "mechanism" else "right")
    for name, outcome in outcomes.items():
        fine = outcome.lower_bound_correct <= outcome.claimed < outcome.lower_bound_broken
        figures = (outcome.claimed, outcome.lower_bound_correct, outcome.lower_bound_broken)
        table.add_row(name, *(f"{figure:.3f}" for figure in figures), "holds, breaks" if fine else "LOOK HERE")
    Console().print(table)


def _at_least(least: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        value = int(text)
        if value < least:
            raise argparse.ArgumentTypeError(f"at least {least} are needed for a bound")
        return value

    return parse


def main(arguments: list[str] | None = None) -> None:
    """Run both audits and print a table, or one JSON object."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.audit",
        description="Bound the true privacy loss of every construction from below, with true and with broken noise.",
        epilog="Example: python -m benchmarks.audit --json --runs 20000 --trainings 20",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of the table")
    parser.add_argument(
        "--runs", type=_at_least(1000), default=100_000, help="outputs per world in audit A (%(default)s)"
    )
    parser.add_argument("--trainings", type=_at_least(1), default=20, help="training runs of audit B (%(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="seed of data and coins; the noise is always fresh")
    options = parser.parse_args(arguments)
    start = time.perf_counter()
    mechanisms = {subject.name: audit(subject, options.runs, SYSTEM) for subject in subjects()}
    plan = Plan()
    training = audit_training(plan, options.trainings, options.seed, SYSTEM)
    seconds = time.perf_counter() - start
    if not options.json:
        _print({**mechanisms, f"training run, {plan.canaries} canaries": training}, seconds)
        return
    result = {
        **asdict(training),
        "delta": DELTA,
        "mechanisms": {name: asdict(outcome) for name, outcome in mechanisms.items()},
        "canaries": plan.canaries,
        "runs": options.runs,
        "trainings": options.trainings,
        "seconds": round(seconds, 1),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
