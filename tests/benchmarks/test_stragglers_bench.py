"""The stragglers benchmark at its smallest: real processes, killed at their stages, and every round opened."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import __main__ as everything
from benchmarks import stragglers
from benchmarks._straggling import Timeline, play
from privfl.runtime.coordinator_process import Pace

QUICK = Pace(grace=500)
CALM = Timeline(10.0, 1.0, (0.5, 0.5), (0, 0), (1, 1), ())
SLOW = Timeline(15.0, 1.0, (0.5, 2.5), (0, 1), (1, 1), ("site-02",))


def test_three_sites_die_at_their_stages_and_every_round_opens(tmp_path: Path) -> None:
    """In the round of the kill the one that had not uploaded is missing; in the next one, all three."""
    plan = stragglers.plans(3, QUICK)["killed"]
    run = play(tmp_path, stragglers.SHAPE, plan, lambda _: None)
    assert sorted(run.killed) == sorted(plan.dooms)
    assert run.missing[1] >= 1
    assert run.missing[2] == 3
    assert run.seconds > sum(run.rounds) > 0


def test_one_object_with_the_agreed_keys(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ratios are over the undisturbed run of the same invocation; ``--only`` leaves the others out."""
    monkeypatch.setattr(stragglers, "play", lambda folder, shape, plan, say: SLOW if plan.dooms else CALM)
    stragglers.main(["--json", "--rounds", "2", "--folder", str(tmp_path)])
    result = json.loads(capsys.readouterr().out)
    assert (result["undisturbed_s"], result["killed_s"], result["restarted_s"]) == (10.0, 15.0, 15.0)
    assert (result["ratio"], result["ratio_restarted"], result["rounds"], result["opened"]) == (1.5, 1.5, 2, 2)
    assert result["grace_s"] == Pace().grace / 1000
    stragglers.main(["--json", "--rounds", "2", "--only", "killed", "--folder", str(tmp_path)])
    assert set(json.loads(capsys.readouterr().out)["runs"]) == {"undisturbed", "killed"}
    stragglers.main(["--rounds", "2", "--folder", str(tmp_path)])
    assert "very slow" in capsys.readouterr().out


def test_it_is_one_of_all_benchmarks() -> None:
    """``python -m benchmarks`` knows the three benchmarks of processes and folders."""
    assert {"durability", "stragglers", "crashes"} <= set(everything.RUNS)
