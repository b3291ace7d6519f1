"""A federation whose members are real Flower processes on the loopback address, with TLS and node authentication."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import yaml
from privfl_keys import VerifyKey

from privfl.clock import SystemClock
from privfl.flower.local import LocalFlower, Node
from privfl.flower.local.certificates import make_certificates
from privfl.homes.coordinator import CoordinatorHome
from privfl.homes.lock import holder
from privfl.homes.site import SiteHome
from privfl.runtime.jobs import Job
from privfl.runtime.status import CoordinatorStatus, read_status
from privfl.secagg import read_transcript, verify_transcript
from tests.runtime.realm import PASSPHRASE, Realm, realm

APP = Path(__file__).parent / "app"
SHIPPED = Path(__file__).parents[3] / "examples" / "flower-federation"
ENVIRONMENT = {"PRIVFL_PASSPHRASE": PASSPHRASE, "OMP_NUM_THREADS": "1"}


@dataclass
class Town:
    """A realm, and the Flower processes that carry its mail; ``nodes`` are the sites' SuperNodes by name."""

    realm: Realm
    flower: LocalFlower
    nodes: dict[str, int]

    @property
    def coordinator(self) -> Path:
        return self.realm.trial.coordinator

    @property
    def config(self) -> dict[str, Any]:
        """What the app is told."""
        return {"privfl-coordinator": str(self.coordinator)}

    def status(self) -> CoordinatorStatus | None:
        path = self.coordinator / "status.json"
        return read_status(path, CoordinatorStatus) if path.exists() else None

    def await_(self, seen: Callable[[CoordinatorStatus], bool], job: Job, seconds: float = 600.0) -> CoordinatorStatus:
        """Wait until the coordinator's status is ``seen``; the job must not be over before.

        A status that an earlier process left is none.
        """
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            status = self.status()
            if status is not None and holder(self.coordinator) is not None and seen(status):
                return status
            assert not job.state().over, job.state()
            time.sleep(0.02)
        raise AssertionError(f"not seen within {seconds} s; last: {self.status()}")

    def free(self, seconds: float = 60.0) -> None:
        """Wait until no ServerApp holds the coordinator's folder."""
        until = time.monotonic() + seconds
        while holder(self.coordinator) is not None:
            assert time.monotonic() < until, "the coordinator's folder is still held"
            time.sleep(0.05)

    def verified(self, job: Job) -> int:
        """Verify every transcript of a finished job without any secret; how many there are."""
        authority = VerifyKey(bytes.fromhex((self.realm.trial.authority / "authority.pub").read_text()))
        paths = sorted((job.result / "transcripts").glob("*.transcript"))
        for path in paths:
            verify_transcript(read_transcript(path.read_bytes()), authority)
        return len(paths)


def carried_by_flower(world: Realm, file: Path, **settings: Any) -> None:
    """Point every member's home to the Flower wire, as ``--wire federation.yaml`` does."""
    wire = {"kind": "flower", "poll": 5, **settings}
    file.write_text(yaml.safe_dump({"federation": "trial", "wire": wire}))
    now = SystemClock().now()
    for home in world.trial.sites.values():
        SiteHome.join(home, PASSPHRASE, now, wire=str(file))
    CoordinatorHome.join(world.trial.coordinator, PASSPHRASE, now, wire=str(file))


@contextmanager
def town(
    folder: Path,
    sites: int = 4,
    *,
    policy: dict[str, Any] | None = None,
    frames: Mapping[str, pd.DataFrame] | None = None,
) -> Iterator[Town]:
    """A town of ``sites`` sites; beside them a node whose site is of another federation, one with a key that nobody
    registered, and one that trusts another authority.
    """
    made = realm(folder / "realm", sites, policy=policy, frames=frames)
    with made as world, realm(folder / "elsewhere", 3) as elsewhere:
        carried_by_flower(world, folder / "federation.yaml")
        carried_by_flower(elsewhere, folder / "elsewhere.yaml")
        other = make_certificates(folder / "other").authority
        homes = [*world.trial.sites.values(), next(iter(elsewhere.trial.sites.values()))]
        nodes = [Node({"privfl-site": str(home)}) for home in homes]
        nodes += [Node(enrolled=False), Node(authority=other)]
        with LocalFlower(folder / "flower", nodes, durable=True, environment=ENVIRONMENT) as flower:
            yield Town(world, flower, {name: index for index, name in enumerate(world.trial.sites)})
