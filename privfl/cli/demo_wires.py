"""What a demo's parties speak over: a wire that is started before them, starts them, and is ended after them."""

from __future__ import annotations

import signal
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from privfl.cli.demo_children import Children, wait_until_stopped
from privfl.errors import Misuse

if TYPE_CHECKING:
    from privfl.homes.trial import Trial
    from privfl.runtime.status import WireSeen
    from privfl.wires.settings import WireSettings

__all__ = ["IDLE_S", "DemoWire", "FolderDemo", "Scene", "Victim", "wire_seen"]

IDLE_S = 90  # then a site stops by itself, where it cannot notice that the demo was killed


@dataclass(frozen=True)
class Scene:
    """The federation, and the processes of this demo; the passphrase of all parties is theirs alone."""

    trial: Trial
    children: Children
    passphrase: str = field(repr=False)

    @property
    def seen(self) -> Path:
        """File for what passed through the coordinator's hands."""
        return self.trial.folder / "seen.json"

    @property
    def pause(self) -> Path:
        """File whose presence holds the coordinator between two rounds."""
        return self.trial.folder / "pause"


class Victim(ABC):
    """A site's process that can be stopped for an instant, killed, and started again."""

    @abstractmethod
    def freeze(self) -> bool:
        """Stop it; False if there is no process to stop now."""

    @abstractmethod
    def thaw(self) -> None:
        """Let it go on."""

    @abstractmethod
    def kill(self) -> None:
        """SIGKILL it, stopped or not."""

    @abstractmethod
    def restart(self) -> None:
        """Start it again."""


class DemoWire(ABC):
    """One wire of a demo; ``with wire.running(place)`` starts and ends what carries it.

    Attributes:
        most_rounds: of a training over it, so that the demo takes a minute or two.
        modules: that must be installed; install: how.
    """

    kind: ClassVar[str]
    most_rounds: ClassVar[int] = 1000
    modules: ClassVar[tuple[str, ...]] = ()
    install: ClassVar[str] = ""

    def check(self) -> None:
        """Raise Misuse if something is not installed; before anything is written."""
        if any(find_spec(module) is None for module in self.modules):
            raise Misuse(f"the demo over the wire {self.kind} needs more than is installed here: {self.install}")

    def told(self) -> str:
        """One line on what is started; empty if nothing is."""
        return ""

    @contextmanager
    def running(self, place: Path) -> Iterator[None]:
        """What carries the mail, for as long as the block lasts; whatever it started has ended afterwards."""
        yield

    def settings(self, trial: Trial) -> WireSettings | None:
        """What every member joins with, once it can be told; None: the trial's own folder wire."""
        return None

    def join(self, trial: Trial, passphrase: str, now: int) -> None:
        """Have every member join over this wire, by one ``federation.yaml`` beside their folders.

        Raises:
            PrivflError: as the joins do.
        """
        from privfl.homes.coordinator import CoordinatorHome  # noqa: PLC0415 - after the arguments
        from privfl.homes.files import write_file  # noqa: PLC0415
        from privfl.homes.site import SiteHome  # noqa: PLC0415
        from privfl.wires.settings import FederationFile  # noqa: PLC0415

        settings = self.settings(trial)
        if settings is None:
            return
        file = trial.folder / "federation.yaml"
        write_file(file, FederationFile(federation="demo", wire=settings).to_yaml().encode(), mode=0o644)
        CoordinatorHome.join(trial.coordinator, passphrase, now, wire=str(file))
        for folder in trial.sites.values():
            SiteHome.join(folder, passphrase, now, wire=str(file))

    @property
    def environment(self) -> Mapping[str, str]:
        """Added to that of every party's process."""
        return {}

    @property
    def removed(self) -> tuple[str, ...]:
        """What the parties' processes must not have in their environment."""
        return ()

    @abstractmethod
    def start(self, scene: Scene) -> None:
        """Start the coordinator and every site."""

    @abstractmethod
    def victim(self, scene: Scene, name: str) -> Victim:
        """The process of a site."""

    def check_running(self, scene: Scene, *, may_end: Mapping[str, int]) -> None:
        """Raise the error of a party that has ended by itself, unless it may, with this exit code."""
        scene.children.check(may_end)

    def finished(self, scene: Scene) -> None:
        """The job is over: wait for the coordinator, end everybody; raises the error of one that does not end well."""
        if scene.children["coordinator"].wait(30):
            scene.children.check({})
        scene.children.stop_all()


class FolderDemo(DemoWire):
    """Every party a process of its own, over a shared directory."""

    kind = "folder"

    def start(self, scene: Scene) -> None:
        """See :class:`DemoWire`."""
        command = (sys.executable, "-m", "privfl.cli.demo_coordinator")
        scene.children.start("coordinator", scene.trial.coordinator, scene.seen, scene.pause, command=command)
        for name in scene.trial.sites:
            start_site(scene, name)

    def victim(self, scene: Scene, name: str) -> Victim:
        """See :class:`DemoWire`."""
        return _Child(scene, name)


def start_site(scene: Scene, name: str) -> None:
    """``privfl site run``, as an operator would."""
    scene.children.start(name, "site", "run", scene.trial.sites[name], "--stop-when-idle", str(IDLE_S))


class _Child(Victim):
    """A site that is a child of this process."""

    def __init__(self, scene: Scene, name: str) -> None:
        self._scene, self._name = scene, name

    def freeze(self) -> bool:
        """See :class:`Victim`; of one that ended by itself is found out elsewhere."""
        return wait_until_stopped(self._scene.children[self._name])

    def thaw(self) -> None:
        """See :class:`Victim`."""
        self._scene.children[self._name].send_signal(signal.SIGCONT)

    def kill(self) -> None:
        """See :class:`Victim`."""
        self._scene.children.kill(self._name)

    def restart(self) -> None:
        """See :class:`Victim`."""
        start_site(self._scene, self._name)


def wire_seen(trial: Trial) -> WireSeen | None:
    """What the coordinator's own end of the wire has carried, by its status; None if it cannot be told."""
    from privfl.runtime.status import NAME, CoordinatorStatus, read_status  # noqa: PLC0415

    try:
        return read_status(trial.coordinator / NAME, CoordinatorStatus).wire
    except Misuse:
        return None
