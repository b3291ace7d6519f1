"""One process per folder: the second is told who is in its way, and the lock dies with its holder."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.support import COMMAND, environment
from tests.processes.commands import Commands, tree, whole
from tests.runtime.realm import PASSPHRASE, Realm

IDLE = ("--stop-when-idle", "0.05")


@pytest.mark.parametrize("role", ["site", "coordinator"])
def test_two_processes_on_one_folder(role: str, world: Realm, commands: Commands) -> None:
    """The second is told which process is in its way; the first is not disturbed."""
    home = world.trial.sites["north"] if role == "site" else world.trial.coordinator
    first = commands.start(role, "run", home)
    until((home / "status.json").exists)
    for args in ((role, "run", home), (role, "join", home)):
        commands.run(*args).failed(2, f"another process (pid {first.pid})", "stop that one first")
    if role == "site":
        rows = world.trial.folder.parent / "rows" / "north.csv"
        commands.run("site", "data", home, rows, "--schema", world.trial.schema).failed(2, f"pid {first.pid}")
    first.interrupt(signal.SIGTERM)
    assert first.ended().code == 0


def until(true: Callable[[], bool], seconds: float = 30.0) -> None:
    until = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < until
        time.sleep(0.01)


def test_many_that_start_together(world: Realm, commands: Commands) -> None:
    """Of eight starts at one instant one serves; the others change nothing and say why."""
    home = world.trial.sites["north"]
    before = tree(home)
    started = [commands.start("site", "run", home, "--stop-when-idle", "1.5") for _ in range(8)]
    ended = [one.ended() for one in started]
    assert sorted(one.code for one in ended) == [0] + [2] * 7
    for one in ended:
        if one.code:
            one.failed(2, "another process", "stop that one first")
    assert {name: data for name, data in tree(home).items() if not name.startswith("state.db")} == {
        name: data for name, data in before.items() if not name.startswith("state.db")
    }
    assert whole(world.trial.sites)["north"]["open"] == 0


def test_a_holder_that_was_killed(world: Realm, commands: Commands) -> None:
    """SIGKILL leaves no lock behind: the next start needs nobody to remove anything."""
    home = world.trial.sites["north"]
    for _ in range(3):
        first = commands.start("site", "run", home)
        until((home / "status.json").exists)
        first.interrupt(signal.SIGKILL)
        assert first.ended().code == -signal.SIGKILL
        (home / "status.json").unlink()
        assert commands.run("site", "run", home, *IDLE).code == 0
        (home / "status.json").unlink()


def test_the_command_itself(world: Realm) -> None:
    """The same with interpreters of their own: the second is refused, the first ends by Ctrl-C and can start again."""
    home = world.trial.sites["north"]
    given = environment() | {"PRIVFL_PASSPHRASE": PASSPHRASE}

    def begin(*args: str | Path) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [*COMMAND, "site", "run", str(home), *map(str, args)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=given,
        )

    first = begin()
    until((home / "status.json").exists)
    second = begin()
    assert f"another process (pid {first.pid})" in " ".join(second.communicate(timeout=60)[1].split())
    assert second.returncode == 2
    os.kill(first.pid, signal.SIGINT)
    said = first.communicate(timeout=60)[1]
    assert first.returncode == 130
    assert "interrupted" in said
    assert "Traceback" not in said
    again = begin(*IDLE)
    assert again.communicate(timeout=60)[1] == ""
    assert again.returncode == 0
