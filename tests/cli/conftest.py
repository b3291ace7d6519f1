"""One real demo for all tests of the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.cli.support import Ran, process


@pytest.fixture(scope="session")
def demo_run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Ran, Path]:
    """``privfl demo --json --dir …`` as a process, and its folder."""
    folder = tmp_path_factory.mktemp("demo") / "new" / "out"
    return process("demo", "--json", "--dir", folder), folder


@pytest.fixture(scope="session")
def demo_json(demo_run: tuple[Ran, Path]) -> dict[str, Any]:
    """What it printed."""
    found: dict[str, Any] = json.loads(demo_run[0].out)
    return found


@pytest.fixture
def transcripts(demo_run: tuple[Ran, Path], tmp_path: Path) -> list[Path]:
    """The demo's transcripts and the authority's key, copied so that a test may spoil them."""
    for path in (demo_run[1] / "transcripts").iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    return sorted(tmp_path.glob("*.transcript"))
