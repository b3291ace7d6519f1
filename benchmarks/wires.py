"""The wires that carry a federation: rounds over Flower beside plain FedAvg, over SQS and S3 beside the memory wire.

Example::

    python -m benchmarks.wires
    python -m benchmarks.wires --part flower --sites 4 --rounds 3 --json
    python -m benchmarks.wires --part aws --sites 5 --sites 10

Everything runs on this computer and over its loopback address: SuperLink and SuperNodes as their own processes, AWS
as moto's server. Both sides of every ratio are measured in the same run, by turns.

- ``flower``: rounds of plain FedAvg (train and evaluate) and of the same app made private by privfl (voted and
  complete mode), by turns over one SuperLink and its SuperNodes. ``round_s``: medians of the wall time from one
  round's first request to the next one's; ``ratio_voted``, ``ratio_complete``: over plain FedAvg's; ``upload_bytes``:
  what SuperLink received from one site in one round, and ``upload_ratio`` by ring bits over plain FedAvg's float32.
- ``aws``: each site a process. Every moment of a round belongs to the first of these that was at work: the emulator
  (any request under way), privfl's own computing, the wire's own code, nobody. ``rest_share``: the last two, of
  the wall time. ``memory_s``: the same round over the memory wire, that is all of privfl's computing in one process.
  ``gap_ms``: from when a message had been accepted, and its reader asked for mail, until it was handed out.
- ``memory``: a coordinator in a process of its own takes in 200 sites over S3, and over a folder: the rise of its peak
  memory in a round (``peak_mb``; ``rise_mb`` by stage, the model is part of the first), beside ``wire_mb`` (what the
  opened wire takes by itself). The sites upload, vote and release one after the other.
- ``traffic``: phases, messages and bytes of one round over each wire.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks import _wires_aws, _wires_memory
from benchmarks._wires_show import show
from privfl.errors import PrivflError

PARTS = ("flower", "aws", "memory")
FLOWER_SITES, AWS_SITES = (4, 10), (5, 10)
Say = Callable[[str], None]


def measure(options: argparse.Namespace, folder: Path, say: Say) -> dict[str, Any]:
    """Run the parts that were asked for; returns every figure."""
    parts = options.part or list(PARTS)
    result: dict[str, Any] = {"dim": options.dim, "rounds": options.rounds}
    if "flower" in parts:
        from benchmarks import _wires_flower  # noqa: PLC0415 - an extra

        result["flower"] = [
            _wires_flower.measure(sites, options.dim, options.rounds, folder / f"flower-{sites}", say)
            for sites in options.sites or FLOWER_SITES
        ]
    if "aws" in parts or "memory" in parts:
        with _emulator() as endpoint:
            if "aws" in parts:
                result["aws"] = [
                    _wires_aws.measure(sites, options.dim, options.rounds, folder, say, endpoint)
                    for sites in options.sites or AWS_SITES
                ]
            if "memory" in parts:
                result["memory"] = _wires_memory.compare(options.memory_sites, options.dim, folder, say, endpoint)
    return {**result, "load": os.getloadavg()[0]}


@contextmanager
def _emulator() -> Iterator[str]:
    from privfl.wires.aws.emulator import emulator  # noqa: PLC0415 - an extra

    with emulator() as running, running.at_hand():
        yield running.endpoint


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.wires",
        description="Time rounds over Flower beside plain FedAvg, and over SQS and S3 beside the memory wire.",
        epilog="Example: python -m benchmarks.wires --part aws --sites 5 --json",
    )
    parser.add_argument("--part", action="append", choices=PARTS, help="only this; may be repeated (default: all)")
    parser.add_argument(
        "--sites", type=int, action="append", help="of each federation; may be repeated (default: 4, 10; aws: 5, 10)"
    )
    parser.add_argument("--memory-sites", type=int, default=200, help="of the part memory (%(default)s)")
    parser.add_argument(
        "--dim", type=lambda text: int(float(text)), default=1_000_000, help="parameters of the model (%(default)s)"
    )
    parser.add_argument("--rounds", type=int, default=3, help="timed rounds of each kind (%(default)s)")
    parser.add_argument("--folder", type=Path, help="below which everything is made (default: the system's)")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of the tables")
    return parser


def main(arguments: Sequence[str] | None = None) -> None:
    """Run what was asked for and print tables, or one JSON object."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.dim < 1 or options.rounds < 1 or min([*(options.sites or ()), options.memory_sites]) < 3:
        parser.error("--dim and --rounds are at least 1, and a federation has at least 3 sites")
    console = Console(stderr=True)
    try:
        with tempfile.TemporaryDirectory(dir=options.folder) as folder, console.status("starting") as status:
            result = measure(options, Path(folder).absolute(), status.update)
    except (PrivflError, OSError) as error:
        parser.error(str(error))
    except ImportError as error:
        parser.error(f"{error}; install the extra: pip install 'privfl[bench]'")
    if options.json:
        print(json.dumps(result))
    else:
        show(result, Console())


if __name__ == "__main__":
    main()
