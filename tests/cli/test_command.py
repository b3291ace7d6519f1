"""The command as a whole: help with examples, exit codes, the entry point, closed pipes."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from importlib.metadata import entry_points

import click
import pytest
import typer

import privfl
from privfl.cli import app as module
from privfl.cli import main
from privfl.errors import (
    BudgetExceeded,
    DataError,
    KeyStoreError,
    Malformed,
    Misuse,
    PrivflError,
    Refused,
    RoundAborted,
    Theirs,
    Unverified,
    WireError,
)
from tests.cli.support import COMMAND, called, environment, process


def commands(command: click.Command, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Every command that does something, with its words."""
    children = getattr(command, "commands", None)
    if children is None:
        yield path, command
    else:
        for name, child in children.items():
            yield from commands(child, (*path, name))


ALL = [path for path, _ in commands(typer.main.get_command(module.app))]


def test_there_are_commands() -> None:
    """The walk below sees them."""
    assert ("demo",) in ALL
    assert ("transcript", "verify") in ALL


@pytest.mark.parametrize("path", ALL, ids=" ".join)
def test_help_shows_an_example(
    path: tuple[str, ...], capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each command's help ends a reader's search: what it does, every option in words, and a line to copy."""
    ran = called(capfd, monkeypatch, *path, "--help")
    assert ran.code == 0
    flat = " ".join(ran.out.split())
    assert f"Example: privfl {' '.join(path)}" in flat
    command = dict(commands(typer.main.get_command(module.app)))[path]
    assert all(option.help for option in command.params if isinstance(option, click.Option))


@pytest.mark.parametrize("path", ALL, ids=" ".join)
def test_help_says_what_every_argument_is(path: tuple[str, ...]) -> None:
    """Releases of click differ in whether they lose an argument's help; with the one at hand none is lost."""
    command = dict(commands(typer.main.get_command(module.app)))[path]
    assert all(getattr(one, "help", None) for one in command.params if isinstance(one, click.Argument))


def test_the_version(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """One line."""
    assert called(capfd, monkeypatch, "--version").out == f"privfl {privfl.__version__}\n"


def test_the_entry_point_is_this_command() -> None:
    """What pip installs as ``privfl`` is what is tested here."""
    (script,) = entry_points(group="console_scripts", name="privfl")
    assert script.load() is main


def test_an_unknown_command_is_a_message() -> None:
    """As a process: exit code 2 and the name of what is unknown."""
    process("dmeo").failed(2, "dmeo")


CODES: dict[type[Exception], int] = {
    PrivflError: 1,
    Misuse: 2,
    DataError: 2,
    KeyStoreError: 2,
    Theirs: 3,
    Malformed: 3,
    Unverified: 3,
    WireError: 4,
    Refused: 5,
    BudgetExceeded: 5,
    RoundAborted: 6,
}


@pytest.mark.parametrize("kind", CODES)
def test_exit_codes(kind: type[Exception], capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Each kind of failure has its documented code, and the message is printed as it is, brackets included."""

    def fails() -> None:
        raise kind("because of [this] and \\[that]; do [bold]something[/bold] else")

    monkeypatch.setattr(module, "app", fails)
    ran = called(capfd, monkeypatch).failed(CODES[kind], f"{kind.__name__}: because of [this] and \\[that];")
    assert "[bold]something[/bold]" in " ".join(ran.err.split())


def test_the_system_s_errors_are_messages(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """An OSError nobody foresaw names its file."""

    def fails() -> None:
        raise OSError(28, "No space left on device", "/data/out")

    monkeypatch.setattr(module, "app", fails)
    called(capfd, monkeypatch).failed(2, "No space left on device", "/data/out")


def test_an_interrupt_that_typer_swallowed(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """However the framework ends after Ctrl-C, the code is 130 and there is a message."""

    def fails(code: int) -> None:
        try:
            raise KeyboardInterrupt
        except KeyboardInterrupt as error:
            raise SystemExit(code) from error

    for code in (1, 130):
        monkeypatch.setattr(module, "app", lambda code=code: fails(code))
        called(capfd, monkeypatch).failed(130, "interrupted")


def test_a_reader_that_goes_away() -> None:
    """``privfl … | head`` is no error of ours: no traceback."""
    pipe = subprocess.PIPE
    with subprocess.Popen([*COMMAND, "--help"], stdout=pipe, stderr=pipe, text=True, env=environment()) as running:
        assert running.stdout is not None
        running.stdout.close()
        assert running.stderr is not None
        err = running.stderr.read()
        running.wait(timeout=60)
    assert "Traceback" not in err
