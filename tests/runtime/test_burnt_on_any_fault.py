"""A slot that was accepted and then failed is burnt at once, whatever failed: a later epoch must not refund it."""

from __future__ import annotations

import pytest

from privfl.runtime.post import Refusal
from privfl.runtime.site import AT_FAULT
from privfl.secagg import SiteMachine
from tests.runtime.evil import Evil


def test_a_fault_of_the_program_burns_the_charge(monkeypatch: pytest.MonkeyPatch) -> None:
    """An error that nobody foresaw, after the slot was accepted: refused without a word of it, and spent."""
    evil, ended = Evil.make(), list[tuple[str, bytes]]()
    account = evil.node().account
    for kind in ("settle", "burn"):
        monkeypatch.setattr(account, kind, lambda h0, now, kind=kind: ended.append((kind, h0)))

    def broken(*args: object, **named: object) -> object:
        raise RuntimeError("a row says 42")

    monkeypatch.setattr(SiteMachine, "upload", broken)
    announcement = evil.announce()
    reply = evil.invite(announcement)
    assert reply is not None
    assert (reply.kind, Refusal.decode(reply.payload).reason) == ("refused", AT_FAULT)
    assert ended == [("burn", announcement.h0)]
