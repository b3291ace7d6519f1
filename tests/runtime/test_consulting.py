"""What is said when operators or policies do not agree: each reason once, with the names of those who gave it."""

from __future__ import annotations

from typing import Any, cast

import pytest

from privfl.errors import RoundAborted
from privfl.homes.requests import State
from privfl.runtime.consulting import Consultation
from privfl.runtime.words import by_reason
from tests.runtime.support import FixedClock

NAMES = {bytes([at]): name for at, name in enumerate(("north", "south", "east", "west"))}


def consulted(standing: dict[bytes, State], refusals: dict[bytes, str]) -> Consultation:
    """A consultation in which everybody has answered, and asking again changes nothing."""

    class Desk:
        def exchange(self, *args: Any, **more: Any) -> dict[bytes, str]:
            return {}

    made = Consultation(
        cast("Any", Desk()), FixedClock(0), cast("Any", None), b"q", NAMES, 3, standing=standing, refusals=refusals
    )
    made.ask = lambda sites, patience=None: None  # type: ignore[method-assign]
    return made


def test_a_reason_that_all_sites_give_is_told_once() -> None:
    """And with nobody left who could agree, nobody is told to wait for that."""
    why = "policy version 1 does not allow this: statistic 'mean'"
    made = consulted(dict.fromkeys(NAMES, State.REFUSED), dict.fromkeys(NAMES, why))
    with pytest.raises(RoundAborted) as caught:
        made.wait(sorted(NAMES), 1000, 0, lambda names: None)
    said = str(caught.value)
    assert f"east, north, south, west: {why}" in said
    assert said.count(why) == 1
    assert said.endswith("Nothing was spent")


def test_operators_and_policies_are_told_apart() -> None:
    """Two operators say no, one policy does, one operator agrees."""
    first, second, third, last = NAMES
    standing = dict.fromkeys((first, second, third), State.REFUSED) | {last: State.APPROVED}
    made = consulted(standing, {third: "too much"})
    with pytest.raises(
        RoundAborted, match=r"refused by the operator of north, south; east: too much\. Nothing"
    ) as caught:
        made.wait(sorted(NAMES), 1000, 0, lambda names: None)
    assert "ask again when they agree" in str(caught.value)


def test_reasons_are_grouped() -> None:
    """Names in order within a reason; nothing of nobody."""
    assert by_reason({"south": "a", "north": "a", "east": "b"}) == ["east: b", "north, south: a"]
    assert by_reason({}) == []
