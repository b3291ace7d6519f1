"""Commands out of order, or in the wrong place: nothing is asked for in vain, and nothing stays behind."""

from __future__ import annotations

from pathlib import Path

import pytest
from privfl_keys import INSECURE_TEST_COST

from privfl.cli.running import missing_rounds as missing
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


def test_what_is_no_mandate_is_not_queued(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file of another kind is refused here, in words, before any site is asked."""
    monkeypatch.chdir(tmp_path)
    Path("task.yaml").write_text(TASK)
    ran = called(capfd, monkeypatch, "train", "task.yaml", "--mandate", "task.yaml")
    ran.failed(3, "task.yaml is damaged or no mandate", "privfl mandate")
    called(capfd, monkeypatch, "train", "task.yaml", "--mandate", "none").failed(2, "cannot be read")
    assert not Path("coordinator").exists()


@pytest.mark.parametrize(
    ("dropped", "words"),
    [
        ({}, {}),
        ({"3": ["a"]}, {"a": "round 3"}),
        (
            {"10": ["a"], "9": ["a", "b"], "1": ["b"], "2": ["b"], "11": ["a"]},
            {"b": "rounds 1 to 2, 9", "a": "rounds 9 to 11"},
        ),
    ],
)
def test_missed_rounds_in_words(dropped: dict[str, list[str]], words: dict[str, str]) -> None:
    """One line for each site, in the order of rounds and not of their spelling."""
    assert missing(dropped) == words


def test_a_next_step_can_be_pasted_where_a_path_has_spaces(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command that is offered names the folder as a shell reads it."""
    monkeypatch.setenv("PRIVFL_PASSPHRASE", "correct horse battery staple")
    folder = tmp_path / "north wing"
    ran = called(capfd, monkeypatch, "authority", "init", folder, "--federation", "trial")
    assert ran.code == 0, ran.err
    assert f"privfl authority approve '{folder}' REQUEST" in " ".join(ran.out.split())
