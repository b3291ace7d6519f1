"""Key stores that open at once, and a federation in folders."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.homes.scene import Scene, found_scene, quick_stores


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    quick_stores(monkeypatch)
    monkeypatch.delenv("PRIVFL_PASSPHRASE", raising=False)


@pytest.fixture(scope="session")
def founded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One founded federation; tests work on copies."""
    root = tmp_path_factory.mktemp("federation")
    with pytest.MonkeyPatch.context() as monkeypatch:
        quick_stores(monkeypatch)
        found_scene(root)
    return root


@pytest.fixture
def scene(founded: Path, tmp_path: Path) -> Scene:
    """Every folder founded, roster and policy signed; nobody has joined."""
    root = tmp_path / "trial"
    shutil.copytree(founded, root)
    return Scene(root)
