"""Secure aggregation at both ends, beside the floor of what its masks and additions alone cost.

Example::

    python -m benchmarks.secagg --sites 100 --dim 1000000 --dropout 0.1
    python -m benchmarks.secagg --sites 1000 --dim 100000 --dropout 0.1 --degree 100 --json
    python -m benchmarks.secagg --sites 100 --dim 1000000 --dropout 0.1 --peer flower

All sites are real machines and every upload is made; each figure is the least of several repetitions, between
which the floor is measured in the same process: the same number of AES-256-CTR streams by pyca and of
in-place additions by numpy, in the best block size of the run, and nothing else.

- ``site_s``: one site takes up the announcement and makes its upload: ratchet, all masks, shares, seals, hashes,
  signature, packing.
- ``coordinator_s``: from the masked vectors to the sum: their additions, t releases verified and opened, seeds
  reconstructed and held against their commitments, unmasking, decoding.
- ``coordinator_receive_s``: what is done to the uploads as they arrive, above all SHA-256 over every body (and the
  additions, which ``coordinator_s`` counts as well); ``coordinator_certify_s``: the survivor set fixed and
  t votes verified; ``coordinator_relay_s``: requests put together for members; ``coordinator_publish_s``: sum
  commitment and signed transcript. ``coordinator_total_ratio`` puts all of this over the same floor.
- ``upload_bytes_per_parameter``: header, sealed blobs and packed vector.
- ``coordinator_peak_mb``: rise of peak memory, MiB, in a process that is the coordinator and nothing else.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks import _flower_peer
from benchmarks._secagg_floor import Floor
from benchmarks._secagg_memory import leave, peak_of
from benchmarks._secagg_round import Pass, Shape, SiteFigures, Slot, best
from benchmarks._secagg_world import World
from privfl.errors import PrivflError
from privfl.ring import Ring

TIMED_UPLOADS = 20
REPEAT_SECONDS = 10.0  # short openings are repeated up to five times as often, for so long

#: (sites, length) -> the most that a ratio should be; length -> ring bits and the most bytes per parameter.
_SITE_GOALS = {(100, 1_000_000): 2.0, (100, 10_000_000): 1.2}
_COORDINATOR_GOALS = {(100, 1_000_000): 1.3, (1000, 100_000): 1.5}
_BYTES_GOALS = {
    1_000_000: ((16, 2.6), (20, 3.1), (32, 4.6)),
    10_000_000: ((16, 2.1), (20, 2.6), (32, 4.1)),
}
_FLOWER_GOAL = 60.0


def streams_of(slot: Slot) -> int:
    """Masks that the coordinator takes off: one per survivor, and one per pair of a survivor and a dropped site."""
    gone = frozenset(slot.dropped)
    topology = slot.coordinator.topology()
    return sum(1 + sum(peer in gone for peer in topology.neighbours(site)) for site in slot.survivors)


def measure(shape: Shape, repeat: int, folder: Path, say: Callable[[str], None]) -> dict[str, object]:
    """Run one slot and return every figure; ``folder`` takes the uploads."""
    say("keys and epoch")
    world = World.make(shape.sites, shape.degree, shape.committee)
    slot = Slot(world, shape, folder)
    site_floor = Floor(1 + shape.peers, 0, shape.length, shape.ring.word)
    site = slot.upload(site_floor, TIMED_UPLOADS, say)
    slot.convene(say)
    floor = Floor(streams_of(slot), len(slot.survivors), shape.length, shape.ring.word)
    passes: list[Pass] = []
    exact, start = True, time.monotonic()
    while len(passes) < repeat or (len(passes) < 5 * repeat and time.monotonic() - start < REPEAT_SECONDS):
        say(f"opening {len(passes) + 1}")
        floor.sample()
        timed, right = slot.open()
        passes.append(timed)
        exact = exact and right
    say("coordinator's memory")
    leave(slot)
    peak = peak_of(folder)
    return {**_figures(shape, site, best(passes), floor), "coordinator_peak_mb": peak, "bit_exact": exact} | _about(
        slot, site_floor, floor, len(passes)
    )


def _figures(shape: Shape, site: SiteFigures, one: Pass, floor: Floor) -> dict[str, object]:
    return {
        "site_s": site.both,
        "site_floor_s": site.floor,
        "site_ratio": site.both / site.floor,
        "coordinator_s": one.opening,
        "coordinator_floor_s": floor.seconds,
        "coordinator_ratio": one.opening / floor.seconds,
        "upload_bytes_per_parameter": site.bytes_ / shape.length,
        "site_accept_s": site.accept,
        "coordinator_receive_s": one.receive,
        "coordinator_certify_s": one.close + one.votes,
        "coordinator_relay_s": one.relay,
        "coordinator_publish_s": one.publish,
        "coordinator_total_s": one.total,
        "coordinator_total_ratio": one.total / floor.seconds,
        "coordinator_parts_s": {
            "add": one.add,
            "releases": one.releases,
            "finish": one.finish,
            "close": one.close,
            "votes": one.votes,
        },
    }


def _about(slot: Slot, site_floor: Floor, floor: Floor, repeat: int) -> dict[str, object]:
    shape = slot.shape
    return {
        "sites": shape.sites,
        "dim": shape.length,
        "dropped": shape.dropped,
        "degree": shape.degree,
        "word": shape.ring.word,
        "bits": shape.ring.bits,
        "committee": len(slot.coordinator.record.members),
        "threshold": slot.threshold,
        "streams": floor.streams,
        "block_bytes": [site_floor.stream_block, floor.stream_block, floor.body_block],
        "repeat": repeat,
        "epoch": slot.world.epoch,
        "epoch_s": slot.world.epoch_seconds,
    }


def _flower(shape: Shape) -> dict[str, object]:
    work = _flower_peer.Work(shape.sites, shape.peers, shape.dropped, shape.length, 1 << min(shape.ring.bits, 32))
    return _flower_peer.compare(work)


def show(result: dict[str, object], console: Console) -> None:
    """Print the figures, goals beside them where this size has any."""
    sites, length, bits = int(str(result["sites"])), int(str(result["dim"])), int(str(result["bits"]))
    title = f"Secure aggregation: {sites} sites, {length:,} coordinates of {bits} bits, {result['dropped']} dropped"
    table = Table(
        title=title, caption=f"committee {result['committee']}, t = {result['threshold']}, epoch {result['epoch']}"
    )
    for heading in ("figure", "measured", "floor", "ratio", "goal"):
        table.add_column(heading, justify="left" if heading == "figure" else "right")

    def row(name: str, key: str, ratio: str = "", floor: str = "", goal: float | None = None) -> None:
        times = [f"{float(str(result[one])) * 1e3:.1f} ms" if one else "" for one in (key, floor)]
        table.add_row(name, *times, f"{float(str(result[ratio])):.2f}" if ratio else "", f"≤ {goal}" if goal else "")

    row("one site's upload", "site_s", "site_ratio", "site_floor_s", _SITE_GOALS.get((sites, length)))
    goal = _COORDINATOR_GOALS.get((sites, length))
    row("coordinator: vectors to sum", "coordinator_s", "coordinator_ratio", "coordinator_floor_s", goal)
    row("coordinator: uploads as they arrive", "coordinator_receive_s")
    row("coordinator: survivor set and votes", "coordinator_certify_s")
    row("coordinator: requests to members", "coordinator_relay_s")
    row("coordinator: commitment and transcript", "coordinator_publish_s")
    row("coordinator: everything", "coordinator_total_s", "coordinator_total_ratio")
    table.add_section()
    most = next((goal for at, goal in _BYTES_GOALS.get(length, ()) if bits <= at), None) if sites == 100 else None
    size = f"{float(str(result['upload_bytes_per_parameter'])):.3f} B"
    table.add_row("upload, per parameter", size, "", "", f"≤ {most}" if most else "")
    memory = f"≤ {64 + 12 * length / 2**20:.0f}"
    table.add_row("coordinator's peak memory", f"{result['coordinator_peak_mb']} MiB", "", "", memory)
    table.add_row("sum equals plain integers", str(result["bit_exact"]))
    _show_flower(result, table)
    console.print(table)


def _show_flower(result: dict[str, object], table: Table) -> None:
    flower = result.get("flower")
    if not isinstance(flower, dict):
        return
    table.add_section()
    for name, key in (("one site", "site_s"), ("coordinator", "coordinator_s")):
        kind = "from unit costs" if key in flower["estimated_parts"] else "measured"
        times = flower[key] / float(str(result[key]))
        goal = f"≥ {_FLOWER_GOAL:.0f} ×" if key == "coordinator_s" else ""
        table.add_row(f"flwr SecAgg+, {name} ({kind})", f"{flower[key]:.2f} s", "", f"{times:.0f} ×", goal)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.secagg",
        description="Time one slot of secure aggregation between real machines, beside the floor of its masks.",
        epilog="Example: python -m benchmarks.secagg --sites 100 --dim 1000000 --dropout 0.1 --json",
    )
    parser.add_argument("--sites", type=int, default=100, help="sites in the roster, all in the cohort (%(default)s)")
    parser.add_argument(
        "--dim", type=lambda text: int(float(text)), default=1_000_000, help="coordinates (%(default)s)"
    )
    parser.add_argument("--dropout", type=float, default=0.1, help="share of sites that never upload (%(default)s)")
    parser.add_argument("--word", type=int, choices=(16, 32, 64), default=32, help="bits per ring word (%(default)s)")
    parser.add_argument("--bits", type=int, help="ring bits, at most the word's (default: all of them)")
    parser.add_argument(
        "--degree", type=int, default=0, help="neighbours per site; 0: the complete graph (%(default)s)"
    )
    parser.add_argument("--committee", type=int, default=0, help="seats above 64 sites (default: 64)")
    parser.add_argument("--repeat", type=int, default=5, help="openings to take the least of, at least (%(default)s)")
    parser.add_argument("--peer", choices=("flower",), help="do the same work with another library as well")
    parser.add_argument("--folder", type=Path, help="where the uploads lie meanwhile (default: the system's)")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of the table")
    return parser


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one configuration and print a table, or one JSON object."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.dim < 1 or options.repeat < 1 or not 0 <= options.dropout < 1:
        parser.error("--dim and --repeat are at least 1, --dropout lies in [0, 1)")
    err = Console(stderr=True)
    try:
        ring = Ring(options.bits or options.word, options.word)
        dropped = round(options.sites * options.dropout)
        shape = Shape(options.sites, options.dim, dropped, ring, options.degree, options.committee)
        with tempfile.TemporaryDirectory(dir=options.folder) as folder, err.status("starting") as status:
            result = measure(shape, options.repeat, Path(folder), status.update)
            if options.peer:
                status.update("flwr")
                result["flower"] = _flower(shape)
    except PrivflError as error:
        parser.error(str(error))
    except ImportError as error:
        parser.error(f"{error}; install the extra: pip install 'privfl[bench]'")
    if options.json:
        print(json.dumps(result))
    else:
        show(result, Console())


if __name__ == "__main__":
    main()
