"""Commands out of order, or in the wrong place: nothing is asked for in vain, and nothing stays behind."""

from __future__ import annotations

from pathlib import Path

import pytest
from privfl_keys import INSECURE_TEST_COST

from privfl.homes import folder as folders
from tests.cli.support import called
from tests.homes.scene import SCHEMA

TASK = "label: ill\nschema: schema.yaml\nepsilon: 2\ndelta: 1e-5\nrounds: 2\n"


@pytest.mark.parametrize(
    "command",
    ["site run", "site request", "site join", "coordinator run", "coordinator join", "authority roster"],
)
def test_no_such_folder(
    command: str, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is said before a passphrase is asked for, and no folder appears."""
    monkeypatch.delenv("PRIVFL_PASSPHRASE", raising=False)
    role = command.split()[0]
    ran = called(capfd, monkeypatch, *command.split(), tmp_path / "nowhere")
    ran.failed(2, f"there is no folder {tmp_path / 'nowhere'}", f"privfl {role} init")
    assert list(tmp_path.iterdir()) == []


def test_a_task_before_the_coordinator_has_joined(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The task is refused and is not kept to be run, and charged, later."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PRIVFL_PASSPHRASE", "correct horse battery staple")
    monkeypatch.setattr(folders, "DEFAULT_COST", INSECURE_TEST_COST)
    Path("task.yaml").write_text(TASK)
    Path("schema.yaml").write_text(SCHEMA)
    called(capfd, monkeypatch, "train", "task.yaml").failed(2, "privfl coordinator init")
    assert (
        called(capfd, monkeypatch, "coordinator", "init", "coordinator", "--federation", "f", "--wire", "w").code == 0
    )
    called(capfd, monkeypatch, "train", "task.yaml").failed(2, "has not joined yet", "privfl coordinator join")
    assert not Path("coordinator", "jobs").exists()
    assert not Path("coordinator", "coordinator.log").exists()
