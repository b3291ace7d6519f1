"""Thousands of slots on a network that loses, doubles, reorders, delays and corrupts, with crashes at every write.

By default 600 seeds, of three rounds each: some 2 000 slots and 100 000 messages in about 90 s of one
core. ``PRIVFL_SIM_SEEDS=20000`` runs more. A failing seed says how to replay it.
"""

from __future__ import annotations

import os
from collections import Counter

import pytest

from tests.simulation.run import play
from tests.simulation.script import Kind, Script
from tests.simulation.world import World

SEEDS = int(os.environ.get("PRIVFL_SIM_SEEDS", "600"))
CHUNK = 25


@pytest.mark.slow
@pytest.mark.parametrize("first", range(0, SEEDS, CHUNK))
def test_invariants_and_promises_hold_under_faults(first: int) -> None:
    """Every invariant after every event of every seed, and every round opened where that is promised."""
    seen: Counter[str] = Counter()
    for seed in range(first, min(first + CHUNK, SEEDS)):
        outcome = play(seed)
        seen.update(outcome.seen)
    assert seen["opened"] > 0
    assert seen["messages"] > 100


def test_the_scripts_reach_every_fault() -> None:
    """No vacuous runs: over the default seeds every kind, crash point, operation and network fault is drawn."""
    scripts = [Script.from_seed(seed) for seed in range(600)]
    kinds = Counter(script.kind for script in scripts)
    assert min(kinds[kind] for kind in Kind) >= 20
    every = [each for script in scripts for each in script.operations]
    operations = Counter(getattr(each, "point", type(each).__name__) for each in every)
    named = ("before storing", "after storing", "while sending", "Dead", "Slow", "Lie", "Fork")
    assert min(operations[name] for name in named) >= 20, operations
    assert sum(script.network.drop > 0 for script in scripts) >= 100
    assert sum(script.fresh_epoch for script in scripts) >= 50
    assert sum(script.reload for script in scripts) >= 100
    assert sum(script.complete for script in scripts) >= 50
    assert {script.sites for script in scripts} == {3, 4, 5, 6, 7}


def test_a_seed_replays_event_by_event() -> None:
    """The same seed gives the same events in the same order, crashes and all."""

    def told(seed: int) -> list[str]:
        lines: list[str] = []
        World(Script.from_seed(seed), lines.append).run()
        return lines

    seed = next(seed for seed in range(100) if len(Script.from_seed(seed).operations) > 6)
    first = told(seed)
    assert len(first) > 50
    assert told(seed) == first


def test_sites_missing_from_the_start_cost_no_attempt() -> None:
    """c sites dead and nothing else wrong: the rounds open at once, whatever the size."""
    drawn = [Script.from_seed(seed) for seed in range(2000)]
    sizes = {(script.sites, script.dead): script for script in drawn if script.kind is Kind.MISSING and script.dead}
    assert set(sizes) == {(4, 1), (5, 1), (6, 1), (7, 1), (7, 2)}
    for script in sizes.values():
        outcome = play(script.seed)
        assert outcome.opened == outcome.slots == script.rounds
