"""The demo over Flower: SuperLink and SuperNodes on this computer, with TLS and with keys that SuperLink knows."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from privfl.cli.demo_wires import IDLE_S, DemoWire, Scene, Victim
from privfl.errors import Misuse, WireError

if TYPE_CHECKING:
    from privfl.flower.local import LocalFlower
    from privfl.homes.trial import Trial
    from privfl.wires.settings import WireSettings

__all__ = ["FlowerDemo"]

_PROJECT = """\
[project]
name = "privfl-demo"
version = "1.0.0"
description = "The federation of privfl demo"
license = "Apache-2.0"
dependencies = []

[tool.flwr.app]
publisher = "privfl"

[tool.flwr.app.components]
serverapp = "app.server:app"
clientapp = "app.client:app"

[tool.flwr.app.config]
privfl-coordinator = ""
"""
_SERVER = "from privfl.cli.demo_flower_app import app\n\n__all__ = ['app']\n"
_CLIENT = "from privfl.flower.client import site_app as app\n\n__all__ = ['app']\n"
STARTING_S = 60.0  # until the ServerApp's coordinator is at work
ENDING_S = 20.0
STOPPED_S = 2.0  # until a process that was told to stop has


class FlowerDemo(DemoWire):
    """The coordinator in a ServerApp, each site beside a SuperNode of its own, started by its ClientApp."""

    kind = "flower"
    most_rounds = 3  # a request phase takes Flower seconds, however small it is
    modules = ("flwr",)
    install = 'pip install "privfl[flower]"'
    _flower: LocalFlower
    _run: str

    def __init__(self) -> None:
        self._next_look = 0.0

    def check(self) -> None:
        """See :class:`DemoWire`."""
        super().check()
        from privfl.flower.local.children import require_flower  # noqa: PLC0415 - an extra

        require_flower()

    def told(self) -> str:
        """See :class:`DemoWire`."""
        return (
            "SuperLink and a SuperNode per hospital start on this computer, with TLS and registered keys; Flower takes "
            f"seconds for each request, so there are {self.most_rounds} rounds."
        )

    @contextmanager
    def running(self, place: Path) -> Iterator[None]:
        """See :class:`DemoWire`; the processes themselves start with the parties."""
        self._place = place / "flower"
        try:
            yield
        finally:
            if hasattr(self, "_flower"):
                self._flower.close()

    def settings(self, trial: Trial) -> WireSettings:
        """See :class:`DemoWire`."""
        from privfl.wires.settings import FlowerSettings  # noqa: PLC0415

        return FlowerSettings(poll=10, idle=IDLE_S)

    def start(self, scene: Scene) -> None:
        """See :class:`DemoWire`."""
        from privfl.cli.demo_flower_app import PAUSE, SEEN  # noqa: PLC0415 - an extra
        from privfl.flower.local import LocalFlower, Node  # noqa: PLC0415

        trial = scene.trial
        common = {"PRIVFL_PASSPHRASE": scene.passphrase, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        self._flower = LocalFlower(
            self._place,
            [Node({"privfl-site": str(folder)}) for folder in trial.sites.values()],
            environment=common,
            superlink_environment={SEEN: str(scene.seen), PAUSE: str(scene.pause)},
        ).__enter__()
        self._until = time.monotonic() + STARTING_S
        self._run = self._flower.start_run(self._app(), {"privfl-coordinator": str(trial.coordinator)})

    def _app(self) -> Path:
        """The folder of the Flower app, as people write one; what it does is in privfl."""
        folder = self._place / "app"
        (folder / "app").mkdir(parents=True)
        (folder / "pyproject.toml").write_text(_PROJECT, encoding="utf-8")
        for name, text in (("__init__", ""), ("server", _SERVER), ("client", _CLIENT)):
            (folder / "app" / f"{name}.py").write_text(text, encoding="utf-8")
        return folder

    def victim(self, scene: Scene, name: str) -> Victim:
        """See :class:`DemoWire`."""
        return _Beside(scene.trial.sites[name])

    def check_running(self, scene: Scene, *, may_end: Mapping[str, int]) -> None:
        """See :class:`DemoWire`; Flower is asked how the ServerApp ended once its coordinator is not at work."""
        for index in range(len(scene.trial.sites)):
            if not self._flower.supernode(index).alive:
                said = self._flower.supernode(index).said().strip().splitlines()
                raise WireError(f"SuperNode {index} ended by itself: {said[-1] if said else 'it said nothing'}")
        now = time.monotonic()
        if now >= self._next_look and not self._at_work(scene.trial) and now > self._until:
            self._next_look = now + STARTING_S
            self._flower.finished(self._run, seconds=1)

    def _at_work(self, trial: Trial) -> bool:
        from privfl.runtime.status import NAME, CoordinatorStatus, life, read_status  # noqa: PLC0415

        try:
            return life(read_status(trial.coordinator / NAME, CoordinatorStatus)) == "running"
        except Misuse:
            return False

    def finished(self, scene: Scene) -> None:
        """See :class:`DemoWire`; the ServerApp ends with its last job."""
        self._flower.finished(self._run, seconds=300)
        _end(list(scene.trial.sites.values()))


class _Beside(Victim):
    """A site beside its SuperNode: it alone dies, for SuperLink lets a killed SuperNode back in after a minute only."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._pid = folder, 0

    def freeze(self) -> bool:
        """See :class:`Victim`."""
        from privfl.homes.lock import holder  # noqa: PLC0415

        self._pid = holder(self._folder) or 0
        return self._pid > 0 and _stopped(self._pid)

    def thaw(self) -> None:
        """See :class:`Victim`."""
        self._send(signal.SIGCONT)

    def kill(self) -> None:
        """See :class:`Victim`."""
        from privfl.homes.lock import holder  # noqa: PLC0415

        self._send(signal.SIGKILL)
        until = time.monotonic() + STOPPED_S
        while holder(self._folder) == self._pid and time.monotonic() < until:
            time.sleep(0.005)
        self._pid = 0

    def restart(self) -> None:
        """See :class:`Victim`; the ClientApp that waits for its answer does."""

    def _send(self, number: signal.Signals) -> None:
        with suppress(ProcessLookupError):
            if self._pid > 0:
                os.kill(self._pid, number)


def _stopped(pid: int) -> bool:
    """Stop a process that is nobody's child here, and wait until it is."""
    until = time.monotonic() + STOPPED_S
    try:
        os.kill(pid, signal.SIGSTOP)
        while time.monotonic() < until:
            if Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2][1] == "T":
                return True
            time.sleep(0.0005)
        os.kill(pid, signal.SIGCONT)
    except (ProcessLookupError, FileNotFoundError):
        pass
    return False


def _end(folders: list[Path]) -> None:
    """Ask the sites to end, and wait; raises WireError if one does not."""
    from privfl.homes.lock import holder  # noqa: PLC0415

    left, until = {folder: holder(folder) for folder in folders}, time.monotonic() + ENDING_S
    for pid in left.values():
        with suppress(ProcessLookupError):
            if pid:
                os.kill(pid, signal.SIGTERM)
    while any(holder(folder) is not None for folder in folders):
        if time.monotonic() > until:
            raise WireError("a site beside its SuperNode does not end when it is asked to; see its site.log")
        time.sleep(0.05)
