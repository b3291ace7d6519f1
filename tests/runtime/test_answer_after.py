"""When an upload leaves says nothing about the rows: a fixed offset from the announcement, decided beforehand."""

from __future__ import annotations

from typing import Any

import pytest

from privfl.learn import Task
from privfl.runtime import SiteNode
from tests.runtime.evil import Evil


@pytest.mark.parametrize("takes", [0, 700, 2_999])
def test_every_upload_leaves_at_the_same_moment(takes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever computing takes, the answer is sent three seconds after the announcement was looked at."""
    evil = Evil.make()
    node, clock, upload = evil.node(), evil.fed._clock, Task.upload

    def slow(task: Task, *rest: Any, **named: Any) -> Any:
        clock.at += takes  # type: ignore[attr-defined]
        return upload(task, *rest, **named)

    def sleep(seconds: float) -> None:
        clock.at += round(seconds * 1000)  # type: ignore[attr-defined]

    monkeypatch.setattr(Task, "upload", slow)
    holding(node, 3_000, sleep)
    began = clock.now()
    reply = evil.invite(evil.announce())
    assert reply is not None
    assert reply.kind == "upload"
    assert clock.now() - began == 3_000


def test_a_deadline_that_would_tell_is_refused_before_anything_is_charged() -> None:
    """A deadline nearer than the offset is refused by public numbers alone; nothing is computed."""
    evil = Evil.make()
    holding(evil.node(), 3_000, lambda seconds: None)
    near = evil.announce(deadline=evil.fed._clock.now() + 2_999)
    assert "3000 ms" in evil.refused("deadline leaves 2999 ms", announcement=near)
    reply = evil.invite(evil.announce((2, 0), deadline=evil.fed._clock.now() + 3_000))
    assert reply is not None
    assert reply.kind == "upload"


def holding(node: SiteNode, offset: int, sleep: Any) -> None:
    node._answer_after, node._sleep = offset, sleep
