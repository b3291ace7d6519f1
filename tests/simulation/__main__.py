"""Replay or hunt: ``python -m tests.simulation --seed 17 --verbose`` or ``--seeds 1000 --from 5000``."""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter

from tests.simulation.run import play
from tests.simulation.script import Script


def main() -> int:
    """Run the seeds asked for; 1 if one fails."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, help="replay this one seed")
    parser.add_argument("--seeds", type=int, default=100, help="how many seeds to run")
    parser.add_argument("--from", dest="first", type=int, default=0, help="the first seed")
    parser.add_argument("--verbose", action="store_true", help="tell every event")
    given = parser.parse_args()
    seeds = [given.seed] if given.seed is not None else range(given.first, given.first + given.seeds)
    seen: Counter[str] = Counter()
    started, slots, failed = time.perf_counter(), 0, 0
    for seed in seeds:
        if given.verbose:
            print(Script.from_seed(seed))
        try:
            outcome = play(seed, say=print if given.verbose else None)
        except AssertionError as error:
            failed += 1
            print(f"seed {seed}: {error}", file=sys.stderr)
            continue
        slots += outcome.slots
        seen.update(outcome.seen)
        if given.verbose:
            print(outcome)
    took = time.perf_counter() - started
    counts = ", ".join(f"{what} {count}" for what, count in sorted(seen.items()))
    print(f"{len(seeds)} seeds, {slots} slots, {failed} failed, {took:.1f} s; {counts}")
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
