"""A federation of folders, and commands to run in it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.processes.commands import Commands
from tests.runtime.realm import Realm, realm


@pytest.fixture
def world(tmp_path: Path) -> Iterator[Realm]:
    """Three sites that have joined."""
    with realm(tmp_path / "realm", 3) as made:
        yield made


@pytest.fixture
def commands(tmp_path: Path) -> Iterator[Commands]:
    """Commands, and what they say; none outlives its test."""
    made = Commands(tmp_path / "said")
    yield made
    made.end()
