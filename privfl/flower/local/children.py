"""Processes of a local federation: started with a private environment, logged to files, ended as a family."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from privfl.entropy import SYSTEM
from privfl.errors import Misuse, WireError
from privfl.flower.local import guard

__all__ = ["LOOPBACK", "Child", "Family", "free_port", "require_flower"]

LOOPBACK = "127.0.0.1"
_NEEDS = ("flwr", "flower-superlink", "flower-supernode", "flower-superexec")
_PORTS = range(12_000, 32_000)  # below what systems hand out for outgoing connections
_PROXIES = frozenset({"http_proxy", "https_proxy", "all_proxy", "ftp_proxy"})
_TAIL = 4_000


def require_flower() -> None:
    """Raises Misuse when Flower is not installed beside this interpreter."""
    missing = [name for name in _NEEDS if shutil.which(name, path=_path()) is None]
    if missing:
        raise Misuse(f'Flower is not installed here ({missing[0]} is missing); run: pip install "privfl[flower]"')


def free_port() -> int:
    """A TCP port of the loopback address that nobody uses now; raises WireError if none is found."""
    for _ in range(200):
        port = _PORTS[int.from_bytes(SYSTEM.draw(4)) % len(_PORTS)]
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((LOOPBACK, port))
            except OSError:
                continue
            return port
    raise WireError("no free TCP port was found on the loopback address")


def _path() -> str:
    return os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])


@dataclass
class Child:
    """A process of the family, and its log file; ``since`` is where in the log it began (bytes)."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path
    since: int = 0

    @property
    def alive(self) -> bool:
        """Whether it runs."""
        return self.process.poll() is None

    def said(self) -> str:
        """All it and what it started have written."""
        with self.log.open("rb") as file:
            file.seek(self.since)
            return file.read().decode(errors="replace")

    def await_(self, ready: Callable[[], bool], seconds: float) -> None:
        """Wait until ``ready()``; raises WireError with the log's end if the process ends before, or time is up."""
        until = time.monotonic() + seconds
        while not ready():
            if not self.alive:
                raise WireError(f"{self.name} ended with code {self.process.returncode}:\n{self.said()[-_TAIL:]}")
            if time.monotonic() > until:
                raise WireError(f"{self.name} was not ready within {seconds:g} s:\n{self.said()[-_TAIL:]}")
            time.sleep(0.05)


class Family:
    """Starts processes that all end with it, and with the process that made it, even if that is killed."""

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        self.folder, self.mark = folder, SYSTEM.draw(12).hex()
        self._environment = dict(environment)
        (folder / "logs").mkdir(parents=True, exist_ok=True)
        self._guard = subprocess.Popen(  # noqa: S603 - our own script
            [sys.executable, "-S", "-E", guard.__file__, str(os.getpid()), self.mark],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def environment(self, name: str, extra: Mapping[str, str] | None = None) -> dict[str, str]:
        """The environment of the process ``name``: no telemetry, no update check, no proxy, a Flower home of its own.

        A home of its own because SuperNodes that share one unpack the same app over each other.
        """
        kept = {key: value for key, value in os.environ.items() if key.lower() not in _PROXIES}
        home = self.folder / "homes" / name
        home.mkdir(parents=True, exist_ok=True)
        return (
            kept
            | {
                "PATH": _path(),
                "FLWR_HOME": str(home),
                "FLWR_TELEMETRY_ENABLED": "0",
                "FLWR_DISABLE_UPDATE_CHECK": "1",
                "NO_PROXY": "127.0.0.1,localhost",
                "PYTHONUNBUFFERED": "1",
                guard.MARK: f"{self.mark}/{name}/",
            }
            | self._environment
            | dict(extra or {})
        )

    def start(self, name: str, command: list[str], extra: Mapping[str, str] | None = None) -> Child:
        """Start ``command`` in a session of its own; its output is appended to ``logs/NAME.log``."""
        log = self.folder / "logs" / f"{name}.log"
        with log.open("ab") as out:
            since = out.tell()
            process = subprocess.Popen(  # noqa: S603 - Flower's programs by name, no shell
                command,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                env=self.environment(name, extra),
                start_new_session=True,
                cwd=self.folder,
            )
        return Child(name, process, log, since)

    def kill(self, child: Child, *, whole: bool = True) -> None:
        """SIGKILL ``child``; with ``whole`` also everything it has started, as when its computer loses power."""
        with suppress(ProcessLookupError):
            if whole and child.alive:
                os.killpg(child.process.pid, signal.SIGKILL)
            child.process.kill()
        child.process.wait()
        if whole:
            guard.sweep(f"{self.mark}/{child.name}/")

    def stop(self, child: Child, seconds: float = 10.0) -> int:
        """Ask ``child`` to end (SIGTERM), kill it when time is up; its exit code."""
        child.process.terminate()
        with suppress(subprocess.TimeoutExpired):
            child.process.wait(seconds)
        self.kill(child)
        return child.process.returncode

    def end(self, children: list[Child]) -> None:
        """Kill all."""
        for child in children:
            self.kill(child, whole=False)
        guard.sweep(self.mark)
        self._guard.kill()
        self._guard.wait()
