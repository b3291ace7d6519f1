"""Two demos for all tests of the command line: one of real processes, one in a single process."""

from __future__ import annotations

import fcntl
import json
from pathlib import Path
from typing import Any

import pytest

from tests.cli.support import Ran, process


def _once(factory: pytest.TempPathFactory, name: str, *options: str) -> tuple[Ran, Path]:
    """Run ``privfl demo --json --dir …`` as a process; workers of one session share a single run."""
    base = factory.getbasetemp()
    shared = base.parent if base.name.startswith("popen-") else base
    folder, record = shared / name / "new" / "out", shared / f"{name}.json"
    with open(shared / f"{name}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not record.exists():
            ran = process("demo", "--json", "--dir", folder, *options)
            record.write_text(json.dumps([ran.code, ran.out, ran.err]))
    return Ran(*json.loads(record.read_text())), folder


@pytest.fixture(scope="session")
def demo_run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Ran, Path]:
    """The demo of processes over the folder wire, and its folder."""
    return _once(tmp_path_factory, "demo")


@pytest.fixture(scope="session")
def demo_json(demo_run: tuple[Ran, Path]) -> dict[str, Any]:
    """What it printed."""
    found: dict[str, Any] = json.loads(demo_run[0].out)
    return found


@pytest.fixture(scope="session")
def memory_run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Ran, Path]:
    """The demo over the memory wire, and its folder."""
    return _once(tmp_path_factory, "memory-demo", "--wire", "memory")


@pytest.fixture
def transcripts(memory_run: tuple[Ran, Path], tmp_path: Path) -> list[Path]:
    """A demo's transcripts and the authority's key, copied so that a test may spoil them."""
    for path in (memory_run[1] / "transcripts").iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    return sorted(tmp_path.glob("*.transcript"))
