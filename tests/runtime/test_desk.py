"""How long the coordinator waits: one slow or dead site costs a grace now and then, never every round."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import pytest

from privfl.runtime.desk import Desk
from privfl.runtime.post import Hello, Ping, Post, Received
from tests.runtime.support import FixedClock, federation

SITES = tuple(bytes([at]) * 32 for at in range(10))
SLOW = SITES[4]
GRACE, USUAL = 2000, 100


class Sites:
    """Sites that answer after so many milliseconds of a clock that only waiting moves; None: not at all."""

    def __init__(self) -> None:
        self.clock, self.takes = FixedClock(), dict[bytes, int | None](dict.fromkeys(SITES, USUAL))
        self.coming: list[tuple[int, Received]] = []
        self._sent = 0

    def send(self, site: bytes, kind: str, payload: bytes) -> bytes:
        """As a post's."""
        self._sent += 1
        name, takes = self._sent.to_bytes(16, "big"), self.takes[site]
        if takes is not None:
            self.come(takes, site, "reply", name)
        return name

    def come(self, after: int, site: bytes, kind: str, reply_to: bytes = b"") -> None:
        """A message arrives later."""
        received = Received(site, kind, b"", reply_to, b"", (), lambda ref: b"")
        self.coming = sorted([*self.coming, (self.clock.at + after, received)], key=lambda one: one[0])

    def receive(self, wait_ms: int, handle: Callable[[Received], None], *, commit: Callable[[], None]) -> int:
        """As a post's: whatever arrives first."""
        until = self.clock.at + wait_ms
        self.clock.at = min(until, max(self.clock.at, self.coming[0][0])) if self.coming else until
        found = [one for at, one in self.coming if at <= self.clock.at]
        self.coming = self.coming[len(found) :]
        for one in found:
            handle(one)
        return len(found)


def desk(sites: Sites) -> Desk:
    """Over these sites."""
    return Desk(cast("Post", sites), sites.clock, 60_000, GRACE, False, lambda: None, lambda: None)


def ask(one: Desk, sites: Sites, kind: str = "announce") -> tuple[int, set[bytes]]:
    """One request to all, of whom seven are needed: how long it took, and who was taken."""
    start = sites.clock.at
    one.exchange(kind, dict.fromkeys(SITES, Ping()), lambda received: False, least=7)
    return sites.clock.at - start, set(one.view.answered)


def test_a_site_that_is_always_too_slow_costs_a_grace_ever_more_rarely() -> None:
    """Its late answers show that it lives; still only three rounds of 50 wait for it."""
    sites = Sites()
    sites.takes[SLOW] = GRACE + 1000
    one = desk(sites)
    took = [ask(one, sites)[0] for _ in range(50)]
    assert [taken for taken in took if taken != USUAL] == [GRACE + USUAL] * 3


def test_a_prompt_answer_to_another_kind_of_request_does_not_make_up_for_late_ones() -> None:
    """A slow computer may well vote at once."""
    sites = Sites()
    one, waits = desk(sites), 0
    for _ in range(20):
        sites.takes[SLOW] = GRACE + 1000
        waits += ask(one, sites)[0] > USUAL
        sites.takes[SLOW] = USUAL
        assert ask(one, sites, "ask-vote") == (USUAL, set(SITES))
    assert waits == 2


def test_a_dead_site_costs_one_grace_and_is_waited_for_again_once_it_says_hello() -> None:
    """Silence is not waited for; a fresh start clears everything, and the next round waits as for anyone."""
    sites = Sites()
    sites.takes[SLOW] = None
    one = desk(sites)
    assert [ask(one, sites)[0] for _ in range(20)] == [USUAL + GRACE, *[USUAL] * 19]
    sites.takes[SLOW] = 5 * USUAL
    sites.come(0, SLOW, "hello")
    assert ask(one, sites) == (5 * USUAL, set(SITES))


def test_a_site_that_was_late_once_is_back_when_it_is_as_quick_as_the_others_or_soon_after() -> None:
    """As quick as they are, it is taken at once; somewhat slower, it is waited for again after four rounds."""
    sites = Sites()
    one = desk(sites)
    sites.takes[SLOW] = GRACE + 1000
    ask(one, sites)
    sites.takes[SLOW] = USUAL
    sites.clock.at += 5000
    assert ask(one, sites) == (USUAL, set(SITES))
    sites.takes[SLOW] = GRACE + 1000
    ask(one, sites)
    sites.clock.at += 5000
    sites.takes[SLOW] = 2 * USUAL
    taken = [SLOW in ask(one, sites)[1] for _ in range(8)]
    assert taken == [False] * 4 + [True] * 4


def test_a_site_under_another_roster_is_told_from_a_silent_one(caplog: pytest.LogCaptureFixture) -> None:
    """Its greeting names the roster; said once, taken back when it has joined anew; what is no greeting is ignored."""
    fed = federation(3)
    node, (site, *_) = fed._coordinator, sorted(fed._sites)

    def greeted(payload: bytes) -> None:
        node.desk._heard(Received(site, "hello", bytes(16), b"", payload, (), lambda ref: b""))

    greeted(b"no greeting")
    assert node.view.apart == {}
    for _ in range(2):
        greeted(Hello(bytes(32), bytes(32), 0).encode())
    assert "another roster than version 1" in node.view.apart[site]
    assert sum("another roster" in record.message for record in caplog.records) == 1
    greeted(Hello(fed.roster.hash, bytes(32), 0).encode())
    assert node.view.apart == {}
