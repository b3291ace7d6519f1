"""A campaign notices what it is there to notice: sites broken on purpose, killed where it hurts."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest

from benchmarks._crash_campaign import run_chapter
from benchmarks._crash_child import Child
from benchmarks._crash_outcome import Chapter, Outcome
from benchmarks._crash_plan import Doom
from benchmarks._crash_world import COORDINATOR, Faults
from tests.crashes import faults

SENT = Doom("east", "announce|message rename, after")
STORED = Doom("east", "announce|checkpoint stored")
RELEASED = Doom("east", "ask-release|message rename, after")
HELD_UP = Doom(COORDINATOR, "upload|shelf replace, before", absence=2.0)  # so that the slot is still open afterwards
NO_QUORUM = (
    Doom("north", "ask-vote|spooled message fsync, before", absence=3.0),
    Doom("south", "ask-vote|spooled message fsync, before", absence=3.0),
)


def play(script: tuple[Doom, ...], broken: Faults, where: Path, sites: int = 4) -> Outcome:
    """One short chapter of scripted deaths."""
    chapter = Chapter(
        "teeth",
        len(script),
        sites,
        coordinator=False,
        script=script,
        faults=broken,
        rehearsed=False,
        rounds=3,
        patience=25.0,
    )
    return run_chapter(chapter, where)


def only(who: str, broken: Faults) -> Faults:
    """Break one site alone."""

    def faulty(child: Child) -> None:
        if child.who == who:
            broken(child)

    return faulty


@pytest.mark.parametrize(
    ("script", "broken", "kind"),
    [
        ((HELD_UP, SENT), faults.nothing_durable_before_sending, "mask_reuse"),
        ((SENT,), faults.charged_after_sending, "unaccounted"),
        ((STORED,), faults.refunds_after_every_start, "unaccounted"),
        ((RELEASED,), faults.releases_not_stored, "double_releases"),
        ((HELD_UP, SENT), faults.copy_within_a_slot, "mask_reuse"),
    ],
)
def test_a_broken_site_is_noticed(script: tuple[Doom, ...], broken: Faults, kind: str, scratch: Path) -> None:
    """One death of the site, at the right place, is enough."""
    outcome = play(script, only("east", broken), scratch)
    assert outcome.count(kind) > 0, outcome
    assert {one.who for one in outcome.findings} == {"east"}


@pytest.mark.parametrize("broken", [True, False])
def test_a_vote_that_is_not_stored_is_cast_twice(broken: bool, scratch: Path) -> None:
    """Two members are gone, so the slot is aborted; a third has forgotten its vote when it is asked for that."""
    script = (
        *NO_QUORUM,
        Doom("east", "ask-abort|asked to abort" if broken else "ask-abort|spooled message fsync, before"),
    )
    outcome = play(script, only("east", faults.votes_not_stored) if broken else lambda child: None, scratch, 5)
    assert (outcome.count("double_votes") > 0) == broken, outcome
    assert {one.kind for one in outcome.findings} == ({"double_votes"} if broken else set())


def test_an_older_copy_of_the_state_stops_its_site(scratch: Path) -> None:
    """Nothing is broken in the program here: the ledger, or a header that others remember, tells of what is new."""
    outcome = play((Doom("east", SENT.point, 3),), only("east", partial(faults.copy_of, 2)), scratch)
    assert not outcome.findings
    assert any("older" in line for line in outcome.stopped), outcome.stopped
