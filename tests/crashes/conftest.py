"""Where campaigns of this suite lie meanwhile."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.crashes import MEMORY


@pytest.fixture
def scratch(tmp_path: Path) -> Path:
    """In memory where there is such a place: what a killed process has written stays, synced or not."""
    return MEMORY if MEMORY.is_dir() else tmp_path
