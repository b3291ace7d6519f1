"""Every benchmark, one after the other, as tables.

Example::

    python -m benchmarks
    python -m benchmarks --quick
    python -m benchmarks --only imports --only noise

Each is also a module of its own with more options and ``--json``.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from importlib import import_module
from importlib.util import find_spec

from rich.console import Console

from benchmarks import analytics, audit, durability, imports, noise, secagg, stragglers, utility

Run = tuple[Callable[[list[str]], None], list[list[str]], list[list[str]]]


def _crashes(arguments: list[str]) -> None:
    import_module("benchmarks.crashes").main(arguments)


def _coverage(arguments: list[str]) -> None:
    import_module("benchmarks.coverage").main(arguments)


def _wires(arguments: list[str]) -> None:
    import_module("benchmarks.wires").main(arguments)


_PEER = ["--peer", "flower"] if find_spec("flwr") else []

#: name -> (entry point, arguments of each full run, arguments of each quick run)
RUNS: dict[str, Run] = {
    "imports": (imports.main, [[]], [["--repeat", "3"]]),
    "noise": (noise.main, [[]], [["--samples", "200000", "--repeats", "2"]]),
    "secagg": (
        secagg.main,
        [
            ["--dropout", "0"],
            ["--dropout", "0.1", *_PEER],
            ["--dropout", "0.3"],
            ["--bits", "20"],
            ["--word", "16"],
            ["--sites", "1000", "--dim", "100000", "--degree", "100"],
        ],
        [["--sites", "20", "--dim", "100000", "--dropout", "0.1", "--repeat", "2"]],
    ),
    "analytics": (analytics.main, [["--rows", "20000000"]], [["--rows", "1000000", "--repeats", "1"]]),
    "audit": (audit.main, [[]], [["--runs", "20000", "--trainings", "3"]]),
    "utility": (utility.main, [[]], [["--seeds", "1"]]),
    "durability": (durability.main, [[]], [["--rounds", "50", "--wide-rounds", "3", "--entries", "1000"]]),
    "stragglers": (stragglers.main, [[]], [["--rounds", "6"]]),
    "wires": (_wires, [[]], [["--sites", "4", "--dim", "100000", "--memory-sites", "10", "--rounds", "2"]]),
    "crashes": (_crashes, [[]], [["--kills", "10"]]),
    "coverage": (_coverage, [[]], [["--runs", "20"]]),
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run all benchmarks, or those named."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Run every benchmark and print its tables. In full this takes about a quarter of an hour.",
        epilog="Example: python -m benchmarks --quick --only secagg",
    )
    parser.add_argument("--quick", action="store_true", help="small sizes: a look at the tables, not figures to quote")
    parser.add_argument("--only", action="append", choices=sorted(RUNS), help="run this one; may be repeated")
    options = parser.parse_args(arguments)
    console = Console(stderr=True)
    for name, (entry, full, quick) in RUNS.items():
        if options.only and name not in options.only:
            continue
        for given in quick if options.quick else full:
            console.rule(f"python -m benchmarks.{name} {' '.join(given)}")
            start = time.perf_counter()
            entry(given)
            console.print(f"{time.perf_counter() - start:.0f} s", style="dim")


if __name__ == "__main__":
    main()
