"""The simulation notices machines that break a rule: each rule is taken out in turn, and some seed must fail."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from privfl.errors import Refused
from privfl.secagg import committee, coordinator, site_machine, slot
from privfl.secagg import site as sites
from privfl.secagg.accumulate import Accumulator
from privfl.secagg.epoch import EpochState
from tests.simulation.run import play
from tests.simulation.script import Kind, Script

Patch = Callable[[pytest.MonkeyPatch], None]


def second_votes(patch: pytest.MonkeyPatch) -> None:
    """A member forgets how it has voted."""
    honest = committee.MemberState.with_ballot
    patch.setattr(committee.MemberState, "with_ballot", lambda self, one: honest(self, replace(one, vote=b"")))


def releases_without_certificate(patch: pytest.MonkeyPatch) -> None:
    """A member releases for whatever survivor set it is shown."""
    patch.setattr(committee, "check_certificate", lambda *_: None)


def small_sums(patch: pytest.MonkeyPatch) -> None:
    """Coordinator and members take any number of survivors for enough."""
    lax = lambda *_: None  # noqa: E731
    patch.setattr(slot.Topology, "check_survivors", lax)
    patch.setattr(slot.Topology, "prune", lambda _, survivors, least: tuple(sorted(survivors)))


def every_share(patch: pytest.MonkeyPatch) -> None:
    """A release holds all pair seeds of the survivors."""

    def wanted(topology: slot.Topology, survivors: Any) -> list[Any]:
        return [np.arange(1 + len(topology.neighbours(site)), dtype=np.intp) for site in survivors]

    patch.setattr(committee, "wanted", wanted)
    patch.setattr("privfl.secagg.reconstruct.wanted", wanted)


def late_bodies_stay(patch: pytest.MonkeyPatch) -> None:
    """Vectors of sites outside U are not taken out of the sum again."""
    patch.setattr(Accumulator, "subtract", lambda *_: None)
    honest = coordinator.close

    def close(topology: slot.Topology, state: Any) -> Any:
        if len(state.headers) > state.current().min_survivors and not state.current().complete:
            moved, _ = honest(topology, replace(state, headers=state.headers[1:]))
            return replace(moved, headers=state.headers), (state.headers[0].site,)
        return honest(topology, state)

    patch.setattr(coordinator, "close", close)


def slots_go_back(patch: pytest.MonkeyPatch) -> None:
    """A site accepts any slot again."""
    patch.setattr(sites, "_check_progress", lambda *_: None)

    def ratchet(state: EpochState, seq: int) -> EpochState:
        return replace(state, position=max(seq, state.position))

    patch.setattr(sites, "ratchet", ratchet)


def uploads_after_a_crash(patch: pytest.MonkeyPatch) -> None:
    """A site that crashed between accepting and storing its upload goes on as if nothing had happened."""
    patch.setattr(sites, "restart", lambda state: state)


def dumps_that_drift(patch: pytest.MonkeyPatch) -> None:
    """A dump moves the pair keys' place in the ratchet."""
    honest = site_machine.SiteMachine.dump

    def dump(self: site_machine.SiteMachine) -> bytes:
        state = self._state
        if state.epoch is None:
            return honest(self)
        return replace(state, epoch=replace(state.epoch, position=state.epoch.position + 1)).encode()

    patch.setattr(site_machine.SiteMachine, "dump", dump)


def no_retry(patch: pytest.MonkeyPatch) -> None:
    """Sites refuse every second attempt: safe, but the promise to the healed is broken."""
    honest = sites._check_progress

    def strict(epoch: Any, state: Any, a: Any, now: int) -> None:
        if a.attempt:
            raise Refused("no second attempts")
        honest(epoch, state, a, now)

    patch.setattr(sites, "_check_progress", strict)


@pytest.mark.parametrize(
    ("broken", "kinds", "complaint"),
    [
        (second_votes, {Kind.HOSTILE}, "two votes"),
        (releases_without_certificate, {Kind.HOSTILE}, "two survivor sets"),
        (small_sums, {Kind.HOSTILE}, "too few survivors"),
        (every_share, {Kind.MISSING}, "another size than U gives"),
        (late_bodies_stay, {Kind.HEALING, Kind.CALM}, "not the survivors' sum"),
        (slots_go_back, {Kind.HOSTILE}, "accepted"),
        (uploads_after_a_crash, {Kind.HEALING}, "half done"),
        (dumps_that_drift, set(Kind), "dumped and loaded"),
        (no_retry, {Kind.HEALING}, "rounds opened"),
    ],
)
def test_a_broken_rule_is_noticed(
    broken: Patch, kinds: set[Kind], complaint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Among the first hundred seeds of the right kind one fails, and for the right reason."""
    broken(monkeypatch)
    for seed in [seed for seed in range(700) if Script.from_seed(seed).kind in kinds][:100]:
        try:
            play(seed)
        except AssertionError as error:
            assert complaint in str(error)  # noqa: PT017
            return
    pytest.fail("no seed noticed")
