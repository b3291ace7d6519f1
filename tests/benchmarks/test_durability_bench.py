"""The durability benchmark at tiny sizes: its JSON, its parts, and that both kinds of site answer every request."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import durability
from benchmarks._durability_seats import seated
from benchmarks._processes import Shape
from privfl.budget import read_ledger

AGREED = {
    "overhead_ms",
    "overhead_p95_ms",
    "overhead_ms_10k_entries",
    "overhead_ms_1m",
    "goal_ms",
    "met",
    "parts",
}


def test_one_object_with_the_agreed_keys(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two rounds of each model: every key is there, every part was seen, and nothing is left in the folder."""
    monkeypatch.setattr(durability, "WIDE", Shape(5, 9, 10))
    durability.main(["--json", "--rounds", "2", "--wide-rounds", "1", "--entries", "20", "--folder", str(tmp_path)])
    result = json.loads(capsys.readouterr().out)
    assert set(result) >= AGREED
    for kind in ("small", "full", "wide"):
        assert min(result[kind]["parts"][part] for part in ("policy", "reserve", "settle", "state", "outbox")) > 0
        assert result[kind]["saves"] == 4  # accepted, stored, voted, released
    assert list(tmp_path.iterdir()) == []


def test_the_measured_sites_take_part_and_the_long_ledger_is_as_long_as_it_says(tmp_path: Path) -> None:
    """The sites on disk upload in every round, and each ledger holds two entries per round beyond its beginning."""
    with seated(tmp_path / "x", durability.SMALL, 30) as world:
        measured = durability.run(world, 3, 0, lambda _: None)
        assert [len(meters) for meters in measured.values()] == [3, 3, 3]
        assert {seat.node.uploads for seat in world.seats.values()} == {3}
    lengths = [len(read_ledger(path).entries) for path in sorted((tmp_path / "x/trial").glob("site-0[12]/ledger/*.db"))]
    assert lengths == [2 + 6, 30 + 6]


def test_bad_numbers_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    """No rounds, or a folder that is not there: one message and exit status 2."""
    for wrong in (["--rounds", "0"], ["--folder", "/nowhere/at all"]):
        with pytest.raises(SystemExit) as stopped:
            durability.main(wrong)
        assert stopped.value.code == 2
        assert "error:" in capsys.readouterr().err
