"""A federation of folders whose mail Flower carries, within one process: real folders, real messages, no SuperLink."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from flwr.app import Context, RecordDict

from privfl.clock import SystemClock
from privfl.flower.client import site_app
from privfl.flower.local_grid import GridFaults, LocalGrid
from privfl.flower.server import serve
from privfl.homes.coordinator import CoordinatorHome
from privfl.homes.lock import holder
from privfl.homes.site import SiteHome
from privfl.runtime.coordinator_process import Pace
from tests.runtime.realm import PASSPHRASE, Realm, realm

#: Long enough for a machine that is busy with other things: nothing waits so long unless something is broken.
PACE = Pace(gather=120_000, patience=120_000, grace=60_000)
FAST: dict[str, Any] = {"poll": 30.0, "again": 0.01, "tick": 0.01, "look": 0.01, "patience": 60.0}


@dataclass
class Carried:
    """A realm over Flower; node ``at`` (from 1) has the site of that place."""

    realm: Realm
    names: list[str]
    grids: list[LocalGrid] = field(default_factory=list)

    @property
    def coordinator(self) -> Path:
        return self.realm.trial.coordinator

    def site(self, name: str) -> Path:
        return self.realm.trial.sites[name]

    def nodes(self) -> dict[int, dict[str, Any]]:
        return {at: {"privfl-site": str(self.site(name))} for at, name in enumerate(self.names, 1)}

    def grid(
        self, nodes: Mapping[int, Any] | None = None, *, faults: GridFaults | None = None, **options: Any
    ) -> LocalGrid:
        made = LocalGrid(site_app, self.nodes() if nodes is None else nodes, faults=faults, **options)
        self.grids.append(made)
        return made

    def serve(self, grid: LocalGrid, *, stop: Callable[[], bool] = lambda: False, **options: Any) -> None:
        """The ServerApp's main function."""
        context = Context(1, 0, {}, RecordDict(), {"privfl-coordinator": str(self.coordinator)})
        serve(grid, context, passphrase=PASSPHRASE, stop=stop, **{"pace": PACE, **FAST, **options})


@contextmanager
def carried(
    folder: Path, sites: int = 4, *, resident: bool = False, idle: int = 20, **options: Any
) -> Iterator[Carried]:
    """A realm whose members all speak over Flower; sites that stayed up are ended."""
    logging.getLogger("flwr").setLevel(logging.ERROR)
    with realm(folder, sites, **options) as made:
        told = folder / "federation.yaml"
        wire = {"kind": "flower", "poll": 1, "resident": resident, "idle": idle}
        told.write_text(yaml.safe_dump({"federation": "trial", "wire": wire}))
        now = SystemClock().now()
        CoordinatorHome.join(made.trial.coordinator, PASSPHRASE, now, wire=str(told))
        for home in made.trial.sites.values():
            SiteHome.join(home, PASSPHRASE, now, wire=str(told))
        world = Carried(made, list(made.trial.sites))
        try:
            yield world
        finally:
            for grid in world.grids:
                grid.close()
            for home in made.trial.sites.values():
                end_site(home)


def end_site(home: Path) -> bool:
    """Kill a site that stays up; returns whether there was one."""
    pid = holder(home)
    if not pid or pid == os.getpid():
        return False
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    return True
