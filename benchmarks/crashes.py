"""Kill the processes of a federation again and again, and hold what left the sites against what their ledgers say.

Example::

    python -m benchmarks.crashes --kills 500
    python -m benchmarks.crashes --kills 60 --seed 7 --sites 4 --json

Sites and a coordinator run as processes over a folder wire and train one job after the other. They die by SIGKILL
before and after every durable write (commits of ledger and state, files renamed, linked, synced and removed, in the
outbox, on the wire and in the state's key), between the steps of a slot, and at random instants; and are started
again. Everything that they send is noted before it goes out, and at the end compared with the ledger files, opened
without any secret:

- ``unaccounted``: uploads (header or body) that left without a reservation at the task's price, or with one that
  was refunded, or whose header does not name a head of this ledger that is as new as the reservation.
- ``double_votes``: slots in which one member signed two different votes.
- ``mask_reuse``: two different uploads of a site for one slot, or one commitment in two slots.
- ``double_releases``: slots for which a member released two different sequences of bytes.
- ``equivocations``: two different adverts, contributions or confirmations in an epoch, or two announcements of a slot.

Exit code 1 if any of these is above 0, if a process stopped by itself, if a ledger did not verify after a death, or
if an undisturbed job at the end did not finish. A killed process loses nothing that the system has taken from it, so
this shows what *processes* survive, not power cuts; files therefore lie in memory where the system has a place for
them (``--folder`` names another). Linux only.
"""

from __future__ import annotations

import argparse
import json
import secrets
import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks._crash_campaign import run_chapter
from benchmarks._crash_checks import FINDINGS
from benchmarks._crash_outcome import Chapter, Outcome
from benchmarks._crash_plan import AT_RANDOM
from privfl.errors import PrivflError

KILLS_PER_FEDERATION = 100
MEMORY = Path("/dev/shm")  # noqa: S108 — a private folder is made below it


def campaign(kills: int, seed: int, sites: int, folder: Path | None, console: Console) -> Outcome:
    """Run chapters of deaths, each in a fresh federation, until there were at least ``kills``."""
    outcome, number = Outcome(), 0
    while outcome.kills < kills and outcome.sound:
        number += 1
        chapter = Chapter(f"{seed}/{number}", min(KILLS_PER_FEDERATION, kills - outcome.kills), sites)
        began, before = time.monotonic(), outcome.kills

        def say(
            now: int, before: int = before, began: float = began, number: int = number, most: int = chapter.kills
        ) -> None:
            if now % 10 == 0 or now == most:
                console.print(
                    f"federation {number}: {before + now} of {kills} kills, {time.monotonic() - began:.0f} s",
                    style="dim",
                )

        outcome.add(run_chapter(chapter, folder, say))
    return outcome


def show(outcome: Outcome, seed: int, seconds: float, console: Console) -> None:
    """Print what was killed where, and what came of it."""
    table = Table(title=f"{outcome.kills} kills, seed {seed}, {seconds:.0f} s")
    table.add_column("killed at")
    table.add_column("times", justify="right")
    for point, count in sorted(outcome.deaths.items(), key=lambda item: (item[0] == AT_RANDOM, item[0])):
        table.add_row(point, str(count))
    console.print(table)
    console.print(
        f"{outcome.rounds} rounds completed, {outcome.uploads} uploads and {outcome.messages} messages sent, "
        f"{outcome.coordinator_kills} kills of the coordinator, {outcome.restarts} restarts"
    )
    for kind in FINDINGS:
        count = outcome.count(kind)
        console.print(f"{kind}: {count}", style="red" if count else "green", highlight=False)
    for line in (*outcome.stopped, *(f"{one.kind}: {one.who}: {one.text}" for one in outcome.findings)):
        console.print(line, style="red", markup=False, highlight=False)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one campaign and print a table, or one JSON object."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.crashes",
        description="Kill sites and coordinator of a running federation and check what left against the ledgers.",
        epilog="Example: python -m benchmarks.crashes --kills 500 --seed 7 --json",
    )
    parser.add_argument("--kills", type=int, default=500, help="how many processes are killed, at least (%(default)s)")
    parser.add_argument("--seed", type=int, help="draws victims, points and instants (default: a new one)")
    parser.add_argument("--sites", type=int, default=5, help="of each federation (%(default)s)")
    parser.add_argument("--folder", type=Path, help="where the federations lie meanwhile (default: in memory)")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of the table")
    options = parser.parse_args(arguments)
    if options.kills < 1 or not 4 <= options.sites <= 30:
        parser.error("--kills is at least 1, --sites lies in [4, 30]")
    if not Path("/proc/self/fd").is_dir():
        parser.error("this needs Linux: what is being written is read from /proc")
    seed = secrets.randbelow(10**6) if options.seed is None else options.seed
    folder = options.folder or (MEMORY if MEMORY.is_dir() else None)
    err = Console(stderr=True)
    err.print(f"seed {seed}; repeat with: python -m benchmarks.crashes --kills {options.kills} --seed {seed}")
    began = time.monotonic()
    try:
        outcome = campaign(options.kills, seed, options.sites, folder, err)
    except PrivflError as error:
        parser.error(str(error))
    seconds = time.monotonic() - began
    if options.json:
        print(json.dumps({"seed": seed, "sites": options.sites, "seconds": round(seconds, 1), **outcome.figures()}))
    else:
        show(outcome, seed, seconds, Console())
    if not outcome.sound:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
