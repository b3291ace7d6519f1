"""How fast one site computes a pre-training study, beside hand-written DuckDB SQL and pandas.

Example::

    python -m benchmarks.analytics
    python -m benchmarks.analytics --rows 20000000 --json

The study: counts, missing values, moments and 20-bin histograms of 20 columns, five cross-tabulations and a 20 × 20
covariance over one Parquet file that is made first. Each way runs in a child process of its own, so that ``peak_mb``
is that of the study alone; the time is from the call to the numbers, without imports.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from importlib import import_module
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from rich.console import Console
from rich.table import Table

from benchmarks import _analytics_work as work
from benchmarks._analytics_federation import end_to_end

WAYS = {"study": work.run_study, "duckdb": work.run_duckdb, "pandas": work.run_pandas}
_LIBRARIES = {
    "study": ("privfl_analytics.local", "pyarrow.compute", "duckdb"),
    "duckdb": ("duckdb",),
    "pandas": ("pandas", "pyarrow.parquet"),
}
TO_DUCKDB, TO_PANDAS, PEAK_MB = 1.5, 8.0, 2048


def child(way: str, path: Path) -> None:
    """Run one way here and print its seconds, its peak and the number of rows it saw."""
    for name in _LIBRARIES[way]:
        import_module(name)
    start = time.perf_counter()
    rows = WAYS[way](path)
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"seconds": seconds, "peak_mb": peak, "rows": rows}))


def measure(way: str, path: Path, repeats: int) -> tuple[float, float, float]:
    """(median seconds, largest peak in MiB, rows) of one way in child processes."""
    command = [sys.executable, "-m", "benchmarks.analytics", "--child", way, str(path)]
    runs = []
    for _ in range(repeats):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"{way} did not finish:\n{done.stderr.strip()}")
        runs.append(json.loads(done.stdout.splitlines()[-1]))
    return median(run["seconds"] for run in runs), max(run["peak_mb"] for run in runs), runs[0]["rows"]


def compare(rows: int, repeats: int, folder: Path, ways: tuple[str, ...]) -> dict[str, float]:
    """Seconds, peaks and ratios over a table of ``rows`` rows."""
    path = folder / "table.parquet"
    work.make(path, rows)
    result: dict[str, float] = {"rows": rows, "file_mb": round(path.stat().st_size / 2**20, 1)}
    for way in ways:
        seconds, peak, seen = measure(way, path, 1 if way == "pandas" else repeats)
        if seen != rows:
            raise SystemExit(f"{way} saw {seen} rows of {rows}")
        result[f"{way}_s"] = round(seconds, 3)
        result["peak_mb" if way == "study" else f"{way}_peak_mb"] = round(peak, 1)
    if "duckdb" in ways:
        result["to_duckdb"] = round(result["study_s"] / result["duckdb_s"], 3)
    if "pandas" in ways:
        result["to_pandas"] = round(result["pandas_s"] / result["study_s"], 3)
    return result


def _print(result: dict[str, float]) -> None:
    table = Table(
        title=f"A pre-training study at one site, {result['rows']:,.0f} rows",
        caption=f"to reach: ≤ {TO_DUCKDB} × DuckDB, ≥ {TO_PANDAS:.0f} × faster than pandas, below {PEAK_MB} MiB",
    )
    for heading in ("way", "seconds", "peak MiB", "to the study"):
        table.add_column(heading, justify="left" if heading == "way" else "right")
    for way in WAYS:
        if f"{way}_s" in result:
            peak = result["peak_mb" if way == "study" else f"{way}_peak_mb"]
            ratio = result[f"{way}_s"] / result["study_s"]
            table.add_row(way, f"{result[f'{way}_s']:.2f}", f"{peak:.0f}", f"{ratio:.2f} ×")
    Console().print(table)
    Console().print(
        f"End to end, five sites of {result['rows'] / 5:,.0f} rows in one process: {result['queries']} queries, "
        f"{result['numbers']} numbers, {result['end_to_end_s']:.2f} s, {result['upload_bytes']:,.0f} bytes an upload",
        highlight=False,
    )


def _rows(text: str) -> int:
    value = int(text)
    if value < 1000:
        raise argparse.ArgumentTypeError("at least 1000 rows are needed for a time")
    return value


def main(arguments: list[str] | None = None) -> None:
    """Make the table, measure the three ways, and print a table or one JSON object."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.analytics",
        description="Measure a pre-training study at one site against DuckDB SQL and pandas.",
        epilog="Example: python -m benchmarks.analytics --rows 20000000 --json",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of the table")
    parser.add_argument("--rows", type=_rows, default=2_000_000, help="rows of the table (%(default)s)")
    parser.add_argument("--repeats", type=int, default=3, choices=range(1, 100), metavar="N", help="runs of each way")
    parser.add_argument("--without-pandas", action="store_true", help="leave pandas out: it needs most of the time")
    parser.add_argument("--child", nargs=2, metavar=("WAY", "FILE"), help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.child:
        child(options.child[0], Path(options.child[1]))
        return
    ways = tuple(way for way in WAYS if not (way == "pandas" and options.without_pandas))
    with TemporaryDirectory(prefix="privfl-benchmark-") as folder:
        result = compare(options.rows, options.repeats, Path(folder), ways)
        result |= end_to_end(Path(folder), options.rows)
    if options.json:
        print(json.dumps(result))
    else:
        _print(result)


if __name__ == "__main__":
    main()
