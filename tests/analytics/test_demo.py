"""``privfl demo analytics``: real processes, a policy that signs one schema, and an operator's yes at each site."""

from __future__ import annotations

import json
import subprocess
import sys


def test_five_hospitals_answer_a_study_after_five_operators_said_yes() -> None:
    """One round over processes that end with the demo; every ledger covers its upload, none spends more than asked."""
    done = subprocess.run(
        [sys.executable, "-c", "from privfl.cli import main; main()", "demo", "analytics", "--epsilon", "3", "--json"],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert sorted(found["approved_by"]) == ["central", "east", "north", "south", "west"]
    assert (found["ledgers_verified"], found["transcripts_verified"]) == (5, 1)
    assert set(found["spent"]) == set(found["approved_by"])
    assert all(0 < epsilon <= 3 for epsilon in found["spent"].values())
    assert len(found["answers"]) == found["queries"] == 10
