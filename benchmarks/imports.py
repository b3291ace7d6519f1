"""How long ``import privfl`` takes in a fresh interpreter, and what it loads.

Example::

    python -m benchmarks.imports
    python -m benchmarks.imports --json

Times are the least of several interpreters, which leaves out what the disk and other processes cost. ``heavy`` lists
optional packages that were loaded, and must be empty; ``names_s`` is the first use of each public name, which loads
what stands behind it.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

HEAVY = ("boto3", "flwr", "matplotlib", "torch")
NAMES = ("PrivflError", "verify_transcript", "Logistic", "Federation")
GOAL = 0.5

_CODE = """
import json, sys, time
before = set(sys.modules)
start = time.perf_counter()
import privfl
{first_use}
seconds = time.perf_counter() - start
print(json.dumps([seconds, sorted(set(sys.modules) - before)]))
"""


def once(name: str = "") -> tuple[float, list[str]]:
    """(seconds, modules loaded) of the import in one fresh interpreter, with the first use of ``name``."""
    code = _CODE.format(first_use=f"privfl.{name}" if name else "")
    root = Path(__file__).parent.parent
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, cwd=root)
    seconds, modules = json.loads(done.stdout)
    return float(seconds), list(modules)


def measure(repeat: int) -> dict[str, Any]:
    """Everything that the command prints."""
    runs = [once() for _ in range(repeat)]
    modules = runs[0][1]
    lazily = {name: min(once(name) for _ in range(max(1, repeat // 2))) for name in NAMES}
    loaded = {module.partition(".")[0] for module in modules}.union(
        *({module.partition(".")[0] for module in found} for _, found in lazily.values())
    )
    return {
        "import_s": min(seconds for seconds, _ in runs),
        "modules": len(modules),
        "heavy": sorted(loaded.intersection(HEAVY)),
        "names_s": {name: seconds for name, (seconds, _) in lazily.items()},
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print a table, or one JSON object."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.imports",
        description="Time `import privfl` in fresh interpreters.",
        epilog="Example: python -m benchmarks.imports --json",
    )
    parser.add_argument("--repeat", type=int, default=7, choices=range(1, 100), metavar="N", help="interpreters")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of the table")
    options = parser.parse_args(arguments)
    result = measure(options.repeat)
    if options.json:
        print(json.dumps(result))
        return
    table = Table(title="import privfl", caption=f"heavy packages loaded: {', '.join(result['heavy']) or 'none'}")
    for heading in ("what", "ms", "goal"):
        table.add_column(heading, justify="left" if heading == "what" else "right")
    table.add_row(
        f"import privfl ({result['modules']} modules)", f"{result['import_s'] * 1e3:.0f}", f"< {GOAL * 1e3:.0f}"
    )
    for name, seconds in result["names_s"].items():
        table.add_row(f"… and first use of {name}", f"{seconds * 1e3:.0f}", "")
    Console().print(table)


if __name__ == "__main__":
    main()
