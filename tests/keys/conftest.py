"""Shared by the tests of the keys package: repeatable entropy, vectors, and a small federation."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from privfl_keys import Identity, Member, Roster, SignedRoster, SigningKey

VECTORS = Path(__file__).parents[1] / "vectors"


class Repeatable:
    """SHA-256 in counter mode over a text; anyone can draw the same."""

    def __init__(self, text: str) -> None:
        self.text, self.count = text, 0

    def draw(self, size: int) -> bytes:
        out = b""
        while len(out) < size:
            out += hashlib.sha256(f"{self.text}/{self.count}".encode()).digest()
            self.count += 1
        return out[:size]


@dataclass
class Federation:
    """An authority, its sites and its first roster; ``step`` makes the next one."""

    authority: SigningKey
    sites: list[Identity]
    coordinator: Identity
    first: Roster

    def step(self, after: Roster, **changes: Any) -> Roster:
        settings: dict[str, Any] = {
            "graph_seed": hashlib.sha256(after.hash).digest(),
            "valid_from": 0,
            "valid_until": 1_000,
        }
        return after.succeed(**(settings | changes))

    def signed(self, roster: Roster) -> SignedRoster:
        return roster.sign(self.authority)


def member(identity: Identity, *roles: str) -> Member:
    return Member(identity.name, identity.verify_key.raw, roles or ("site",))


@pytest.fixture
def entropy() -> Repeatable:
    return Repeatable("tests/keys")


@pytest.fixture
def vectors() -> Callable[[str], Any]:
    return lambda name: json.loads((VECTORS / f"keys_{name}.json").read_text())


@pytest.fixture
def federation() -> Federation:
    sites = [Identity.generate(f"site {i}", Repeatable(f"site {i}")) for i in range(5)]
    coordinator = Identity.generate("coordinator", Repeatable("coordinator"))
    first = Roster.create(
        "trial",
        [*map(member, sites), member(coordinator, "coordinator")],
        graph_seed=Repeatable("graph").draw(32),
        valid_from=0,
        valid_until=1_000,
    )
    return Federation(SigningKey.generate(Repeatable("authority")), sites, coordinator, first)
