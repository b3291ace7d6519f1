"""Real commands as forked processes: they start at once, may be given a broken world, and may be interrupted."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sklearn.linear_model  # noqa: F401 - what a fork finds loaded it need not load

import privfl.cli.app  # noqa: F401
from privfl import cli
from privfl.budget.ledger_check import verify_file
from privfl.clock import SystemClock
from tests.cli.support import Ran, environment
from tests.forking import end_with_parent
from tests.runtime.realm import PASSPHRASE

NEW_NAMESPACE, PRIVATE, BIND, REMOUNT, READ_ONLY = 0x20000, 0x44000, 4096, 32, 1


@dataclass
class Running:
    """A command at work."""

    pid: int
    folder: Path

    def interrupt(self, number: int = signal.SIGINT) -> None:
        """What Ctrl-C sends, if it still runs."""
        with suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def ended(self, seconds: float = 60.0) -> Ran:
        """Wait for its end; it is killed when time is up."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            found, status = os.waitpid(self.pid, os.WNOHANG)
            if found:
                out, err = ((self.folder / name).read_text() for name in ("out", "err"))
                return Ran(os.waitstatus_to_exitcode(status), out, err)
            time.sleep(0.005)
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        raise AssertionError(f"the command did not end within {seconds} s: {(self.folder / 'err').read_text()}")

    @property
    def said(self) -> str:
        """What is on standard error so far."""
        return (self.folder / "err").read_text()


class Commands:
    """Starts commands; ``folder`` takes what they say."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.count = folder, 0
        self.running: list[Running] = []
        folder.mkdir(parents=True)

    def end(self) -> None:
        """Kill whatever still runs."""
        for one in self.running:
            with suppress(ProcessLookupError, ChildProcessError):
                if os.waitpid(one.pid, os.WNOHANG)[0] == 0:
                    os.kill(one.pid, signal.SIGKILL)
                    os.waitpid(one.pid, 0)

    def start(self, *args: str | Path, before: Callable[[], object] = lambda: None) -> Running:
        """Start ``privfl`` with ``args``; ``before`` is called in the child, to break its world."""
        self.count += 1
        place = self.folder / str(self.count)
        place.mkdir()
        for name in ("out", "err"):
            (place / name).touch()
        child = os.fork()
        if child == 0:
            self._child(place, args, before)
        while not (place / "ready").exists():  # a signal before that would meet the test, not the command
            time.sleep(0.001)
        self.running.append(Running(child, place))
        return self.running[-1]

    def run(self, *args: str | Path, before: Callable[[], object] = lambda: None) -> Ran:
        """Run a command to its end."""
        return self.start(*args, before=before).ended()

    def _child(self, place: Path, args: tuple[str | Path, ...], before: Callable[[], object]) -> None:
        code = 99
        end_with_parent()
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # until the command itself is at work
        try:
            for number, name in ((1, "out"), (2, "err")):
                file = os.open(place / name, os.O_WRONLY | os.O_APPEND)
                os.dup2(file, number)
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            sys.stdout, sys.stderr = os.fdopen(1, "w", closefd=False), os.fdopen(2, "w", closefd=False)
            os.environ.update(environment() | {"PRIVFL_PASSPHRASE": PASSPHRASE})
            sys.argv = ["privfl", *map(str, args)]
            before()
            signal.signal(signal.SIGINT, signal.default_int_handler)
            code = _main(place / "ready")
            signal.signal(signal.SIGINT, signal.SIG_IGN)
        except BaseException as error:
            (place / "ready").touch()
            traceback.print_exc()
            code = 98 if isinstance(error, Exception) else 97
        finally:
            with suppress(Exception):
                sys.stdout.flush(), sys.stderr.flush()
            os._exit(code)


def _main(ready: Path) -> int:
    ready.touch()
    try:
        cli.main()
    except SystemExit as ending:
        return ending.code if isinstance(ending.code, int) else int(ending.code is not None)
    return 0


# -- broken worlds ------------------------------------------------------------------------------------------


def clock_off(milliseconds: int) -> Callable[[], None]:
    """This process's clock is wrong by so much."""

    def before() -> None:
        right = SystemClock.now
        SystemClock.now = lambda own: right(own) + milliseconds  # type: ignore[method-assign]

    return before


def _mount(source: str, target: str, kind: str | None, flags: int, data: str | None = None) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    words = [None if word is None else word.encode() for word in (source, target, kind, data)]
    if libc.mount(words[0], words[1], words[2], ctypes.c_ulong(flags), words[3]):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def _own_namespace() -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(NEW_NAMESPACE):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    _mount("none", "/", None, PRIVATE)


def read_only(folder: Path) -> Callable[[], None]:
    """``folder`` is mounted read-only for this process alone."""

    def before() -> None:
        _own_namespace()
        _mount(str(folder), str(folder), None, BIND)
        _mount("none", str(folder), None, BIND | REMOUNT | READ_ONLY)

    return before


def small_disk(folder: Path, size: int) -> Callable[[], None]:
    """``folder`` lies on a disk of ``size`` bytes for this process alone; :func:`saved` copies it out again."""
    import shutil

    def before() -> None:
        _own_namespace()
        copy = folder.with_name(f"{folder.name}.before")
        shutil.copytree(folder, copy)
        _mount("none", str(folder), "tmpfs", 0, f"size={size},mode=700")
        shutil.copytree(copy, folder, dirs_exist_ok=True)

    return before


def can_mount() -> bool:
    """Whether this user may make a mount namespace and mount in it."""
    child = os.fork()
    if child == 0:
        try:
            _own_namespace()
            _mount("none", "/mnt", "tmpfs", 0, "size=1m")
            os._exit(0)
        except BaseException:
            os._exit(1)
    return os.waitpid(child, 0)[1] == 0


# -- what must hold afterwards ------------------------------------------------------------------------------


def whole(homes: Mapping[str, Path]) -> dict[str, Any]:
    """Every site's ledger verifies without a secret; what each says."""
    found = {}
    for name, home in homes.items():
        (path,) = (home / "ledger").glob("*.db")
        found[name] = verify_file(path, None).summary()
    return found


def tree(folder: Path) -> dict[str, bytes]:
    """Every file but locks, SQLite's side files, and the log and status that any start writes."""
    skipped = ("lock", "-wal", "-shm", ".log", "status.json")
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.name.endswith(skipped)
    }
