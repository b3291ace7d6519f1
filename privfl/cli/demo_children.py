"""Processes of the demo: started together, watched, and ended with it, whatever ends it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType, TracebackType
from typing import Self

import privfl.errors
from privfl.errors import PrivflError

__all__ = ["Children", "deferred", "end_with_parent", "ending_on", "raised_again", "wait_until_stopped"]

#: ``privfl``, that ends when the process that started it is gone
COMMAND = (
    sys.executable,
    "-c",
    "from privfl.cli.demo_children import end_with_parent; end_with_parent(); from privfl.cli import main; main()",
)
PARENT = "PRIVFL_DEMO_PARENT"
ORDERLY_S = 15.0  # to finish what is in hand
HURRIED_S = 3.0


@contextmanager
def deferred() -> Iterator[None]:
    """Hold Ctrl-C back until the block is done, so that nothing is started and not known, or half cleaned up."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    noted: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, frame: noted.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if noted:
        raise KeyboardInterrupt


@contextmanager
def ending_on(*numbers: signal.Signals) -> Iterator[None]:
    """Let these signals end the block as Ctrl-C does, through its clean-up, with the exit code of the signal."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(number: int, frame: FrameType | None) -> None:
        sys.exit(128 + number)

    before = [(number, signal.signal(number, end)) for number in numbers]
    try:
        yield
    finally:
        for number, handler in before:
            signal.signal(number, handler)


def raised_again(kind: str, text: str, code: int = 1) -> PrivflError:
    """The error that another process ended with, by its class's name, with its exit code."""
    found = getattr(privfl.errors, kind, PrivflError)
    error: PrivflError = (found if isinstance(found, type) and issubclass(found, PrivflError) else PrivflError)(text)
    if type(error) is PrivflError and code > 0:
        error.exit_code = code
    return error


def end_with_parent() -> None:
    """Have this process told to end (SIGTERM) when the one that started it is killed; on Linux only.

    prctl(2), PR_SET_PDEATHSIG. Elsewhere a site left alone stops when it has been idle for a while.
    """
    if sys.platform.startswith("linux"):
        import ctypes  # noqa: PLC0415 - a process of the demo needs it, no other

        with suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(1, signal.SIGTERM.value)
        if os.environ.get(PARENT) not in (None, str(os.getppid())):
            sys.exit(1)  # it was killed before it could be asked for


def wait_until_stopped(child: subprocess.Popen[bytes]) -> bool:
    """Stop a child by SIGSTOP and wait until it is; False if it has ended."""
    if child.poll() is not None:
        return False
    child.send_signal(signal.SIGSTOP)
    _, status = os.waitpid(child.pid, os.WUNTRACED)
    if not os.WIFSTOPPED(status):
        child.returncode = os.waitstatus_to_exitcode(status)
        return False
    return True


class Children:
    """Processes that end with the block: ``with Children(folder, passphrase) as children``.

    Each leads a session of its own, so a Ctrl-C at the terminal reaches the parent alone, which ends them.

    Args:
        errors: folder for what they print. passphrase: given to them by environment, and to nobody else.
        environment, removed: added to their environment, and taken out of it.
    """

    def __init__(
        self,
        errors: Path,
        passphrase: str,
        environment: Mapping[str, str] | None = None,
        removed: Sequence[str] = (),
    ) -> None:
        self._errors = errors
        kept = {name: value for name, value in os.environ.items() if name not in removed}
        self._environment = {
            **kept,
            **(environment or {}),
            "PRIVFL_PASSPHRASE": passphrase,
            PARENT: str(os.getpid()),
            "COLUMNS": "2000",  # a message in one line, to be shown as the parent's own
            "NO_COLOR": "1",
            "OMP_NUM_THREADS": "1",  # small vectors: many processes share few cores
            "OPENBLAS_NUM_THREADS": "1",
        }
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, who: str, *arguments: str | Path, command: Sequence[str] = COMMAND) -> None:
        """Start ``command`` with ``arguments`` as ``who``."""
        with deferred(), open(self._errors / f"{who}.err", "wb") as errors:
            self._running[who] = subprocess.Popen(  # noqa: S603 - this program, with arguments of its own
                [*command, *map(str, arguments)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=errors,
                env=self._environment,
                start_new_session=True,
            )

    def __getitem__(self, who: str) -> subprocess.Popen[bytes]:
        return self._running[who]

    def check(self, may_end: Mapping[str, int]) -> None:
        """Raise the error of a child that has ended, unless it is in ``may_end`` with this exit code."""
        for who, child in self._running.items():
            code = child.poll()
            if code is not None and may_end.get(who) != code:
                raise self._failure(who, code)

    def _failure(self, who: str, code: int) -> PrivflError:
        lines = (self._errors / f"{who}.err").read_text(encoding="utf-8", errors="replace").strip().splitlines()
        said = lines[-1].removeprefix("privfl: ") if lines else "it said nothing"
        kind, _, text = said.partition(": ")
        known = code > 0 and hasattr(privfl.errors, kind)
        how = f"signal {-code}" if code < 0 else f"exit code {code}"
        message = f"the process of {who} ended by itself ({how}): {text if known else said}"
        return raised_again(kind if known else "", message, code)

    def kill(self, who: str) -> None:
        """SIGKILL: no chance to finish anything. It may be started again at once."""
        child = self._running.pop(who)
        child.kill()
        child.wait()

    def stop_all(self) -> None:
        """Ask all to end and wait; raises the error of one that does not end well."""
        late = self._ask(ORDERLY_S)
        for who, child in self._running.items():
            if child.returncode not in (0, -signal.SIGTERM) and who not in late:
                raise self._failure(who, child.returncode)

    def _ask(self, seconds: float) -> list[str]:
        """SIGTERM to all, SIGKILL to those that are still there after so long, whose names are returned."""
        for child in self._running.values():
            if child.poll() is None:
                with suppress(ProcessLookupError):
                    child.terminate()
                    child.send_signal(signal.SIGCONT)  # one that is stopped could not end
        until, late = time.monotonic() + seconds, []
        for who, child in self._running.items():
            try:
                child.wait(max(0.0, until - time.monotonic()))
            except subprocess.TimeoutExpired:
                late.append(who)
                child.kill()
                child.wait()
        return late

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with deferred():
            self._ask(HURRIED_S)
            self._running.clear()
