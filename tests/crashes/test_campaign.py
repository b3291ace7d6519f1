"""A small campaign as part of the suite: a death at every durable write of a site, and others at random."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import crashes
from benchmarks._crash_campaign import run_chapter
from benchmarks._crash_checks import FINDINGS
from benchmarks._crash_child import Fuse, Tapped, read_tap
from benchmarks._crash_outcome import Chapter
from benchmarks._crash_plan import AT_RANDOM, Doom, Plan

WRITES = {
    f"{write}, {when}"
    for write in (
        "ledger commit",
        "state commit",
        "state checkpoint",
        "state key fsync",
        "state key replace",
        "state key pwrite",
        "outbox replace",
        "outbox unlink",
        "spooled body fsync",
        "body link",
        "body folder fsync",
        "spooled message fsync",
        "message rename",
        "message folder fsync",
        "message unlink",
    )
    for when in ("before", "after")
}
STEPS = {f"checkpoint {name}" for name in ("reserved", "accepted", "computed", "stored")}


@pytest.mark.slow
def test_a_death_at_every_durable_write(scratch: Path) -> None:
    """What left is accounted for, nobody votes twice, no mask is used twice, and everything goes on."""
    outcome = run_chapter(Chapter("suite", 40, 4, wanted=WRITES | STEPS, rounds=2), scratch)
    assert outcome.sound, outcome
    assert set(outcome.deaths) >= WRITES | STEPS
    assert outcome.coordinator_kills > 0
    assert outcome.uploads >= 3 * outcome.rounds > 0


def test_the_command_prints_one_object(capsys: pytest.CaptureFixture[str]) -> None:
    """Two deaths; the figures that are promised are there, the seed and the way to repeat it among them."""
    crashes.main(["--kills", "2", "--sites", "4", "--seed", "3", "--json"])
    printed = capsys.readouterr()
    figures = json.loads(printed.out)
    assert figures["kills"] >= 2
    assert figures["seed"] == 3
    assert "--seed 3" in printed.err
    assert sum(figures["by_point"].values()) == figures["kills"]
    assert all(figures[kind] == 0 for kind in FINDINGS)


def test_a_plan_repeats_by_its_seed() -> None:
    """The same points and seed draw the same deaths, another seed others; each point comes once first."""
    points = [f"announce|write {number}, {when}" for number in range(10) for when in ("before", "after")]

    def drawn(seed: str) -> list[Doom]:
        plan, found = Plan(seed, ["a", "b", "c"]), list[Doom]()
        plan.learn("a", points)
        while plan.missing:
            doom = plan.next(["a", "b", "c"])
            assert doom is not None
            plan.dead(doom.who, doom.point)
            found.append(doom)
        return found

    assert drawn("1") == drawn("1") != drawn("2")
    assert len([doom for doom in drawn("1") if doom.point]) == len(points)
    assert any(not doom.point for doom in drawn("1")), AT_RANDOM


def test_a_fuse_burns_at_the_passing_it_is_armed_for() -> None:
    """At another point or request nothing happens; ``*`` stands for any request."""
    fuse = Fuse()
    assert not fuse.passes("announce", "state commit, after")
    fuse.arm("announce|state commit, after", 2)
    assert [
        fuse.passes(doing, "state commit, after") for doing in ("ask-vote", "announce", "announce", "announce")
    ] == [
        False,
        False,
        True,
        False,
    ]
    fuse.arm("*|state commit, after")
    assert fuse.passes("ping", "state commit, after")
    fuse.burn("ping|state commit, after")
    assert fuse.burnt == "ping|state commit, after"
    fuse.disarm()
    assert fuse.burnt == ""


def test_a_tap_that_was_cut_gives_what_was_whole(tmp_path: Path) -> None:
    """The process died while it noted something: that had not gone out."""
    one = b"M\x02\x00\x03\x00\x00\x00toabc"
    path = tmp_path / "tap"
    path.write_bytes(one + b"B\x00\x02\x01\x00\x00\x00h0x" + one[:-1])
    assert list(read_tap(path)) == [Tapped(b"M", b"to", b"", b"abc"), Tapped(b"B", b"", b"h0", b"x")]
