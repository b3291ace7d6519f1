"""Play one seed and hold it to what was promised for it."""

from __future__ import annotations

from collections.abc import Callable

from tests.simulation.script import Kind, Script
from tests.simulation.world import Outcome, World

__all__ = ["ATTEMPTS_AFTER_HEALING", "play"]

# Of those announced once faults have healed: two in an epoch that faults left lame, one in a fresh epoch.
ATTEMPTS_AFTER_HEALING = 3


def play(seed: int, say: Callable[[str], None] | None = None) -> Outcome:
    """Run a seed; raises AssertionError, with the way to replay it, where anything breaks."""
    script = Script.from_seed(seed)
    try:
        outcome = World(script, say).run()
        check_promises(outcome)
    except Exception as error:
        again = f"python -m tests.simulation --seed {seed} --verbose"
        raise AssertionError(f"{type(error).__name__}: {error}\nreplay with: {again}\n{script}") from error
    return outcome


def check_promises(outcome: Outcome) -> None:
    """The non-failures: runs that must open every round, and in how many attempts."""
    script = outcome.script
    if not script.promised:
        return
    assert outcome.finished, f"only {outcome.opened} of {script.rounds} rounds opened"
    assert outcome.opened >= script.rounds
    if script.kind in (Kind.CALM, Kind.MISSING):
        assert outcome.slots == script.rounds, f"{outcome.slots} attempts for {script.rounds} rounds without faults"
    assert outcome.attempts_after_healing <= ATTEMPTS_AFTER_HEALING, f"{outcome.attempts_after_healing} attempts"
