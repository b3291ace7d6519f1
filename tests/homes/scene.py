"""A federation set up in folders, as operators would: authority, officer, coordinator, three sites."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from privfl_keys import INSECURE_TEST_COST

from privfl.budget import Policy, SignedPolicy
from privfl.homes import folder as folders
from privfl.homes.authority import AuthorityHome, read_request
from privfl.homes.coordinator import CoordinatorHome
from privfl.homes.drafting import RosterTerms
from privfl.homes.officer import OfficerHome
from privfl.homes.site import JoinedSite, SiteHome, Table

NOW = 1_790_000_000_000  # September 2026
DAY = 86_400_000
PASS = "correct horse battery staple"
SITES = ("north", "south", "east")


def policy_fields(**changes: Any) -> dict[str, Any]:
    """A policy that the scene's roster can fulfil."""
    return {
        "federation": "trial",
        "version": 1,
        "valid_from": "2026-01-01",
        "expires": "2027-12-31",
        "dataset": "tumours",
        "schema_version": 1,
        "population": "patients",
        "subjects": 5000,
        "unit": "record",
        "trust": "distributed",
        "epsilon": 4,
        "delta": 1e-6,
        "shares": {"training": 0.7, "analytics": 0.3},
        "colluders": 1,
        "min_survivors": 3,
        "min_sites": 3,
        "min_committee": 3,
        "attempts_per_round": 3,
        "modes": ["complete"],
        "min_cell_count": 10,
        "tasks": {"logistic": {"clip": 0.3}},
        "columns": {"age": {"lower": 0, "upper": 110}, "ill": {"classes": [False, True]}},
        **changes,
    }


def signed_policy(officer: OfficerHome, **changes: Any) -> SignedPolicy:
    """The same under an officer's signature."""
    return SignedPolicy.sign(Policy.from_yaml(yaml.safe_dump(policy_fields(**changes))), officer.identity.key)


SCHEMA = """
name: tumours
version: 1
records: 600
columns:
  age: {lower: 0, upper: 110}
  ill: {classes: [false, true]}
"""
ROWS = "age,ill,secret\n41.5,True,x\n77.25,False,y\n63.125,True,z\n"


@dataclass
class Scene:
    """Paths of a federation, ready for its sites to join."""

    root: Path

    @property
    def rosters(self) -> Path:
        return self.root / "authority" / "rosters"

    @property
    def policy(self) -> Path:
        return self.root / "policy.signed"

    @property
    def wire(self) -> str:
        return f"folder:{self.root / 'wire'}"

    def folder(self, name: str) -> Path:
        return self.root / name

    def authority(self) -> AuthorityHome:
        return AuthorityHome.open(self.folder("authority"), PASS)

    @property
    def fingerprint(self) -> str:
        with self.authority() as home:
            return home.config.fingerprint

    def officer(self) -> OfficerHome:
        return OfficerHome.open(self.folder("officer"), PASS)

    def approve(self, *names: str, now: int = NOW) -> None:
        """The telephone calls."""
        with self.authority() as home:
            for name in names:
                request = read_request(self.folder(name) / "request")
                home.approve(request, request.fingerprint, now)

    def sign_roster(self, now: int = NOW, *, renew: bool = False, **terms: Any) -> None:
        with self.authority() as home:
            home.sign_roster(now, RosterTerms(**terms), renew=renew)

    def write_policy(self, name: str = "policy.signed", **changes: Any) -> Path:
        path = self.root / name
        path.write_bytes(signed_policy(self.officer(), **changes).encode())
        return path

    def table(self, rows: str = ROWS, name: str = "rows.csv", **kwargs: Any) -> Table:
        (self.root / name).write_text(rows)
        (self.root / "schema.yaml").write_text(SCHEMA)
        return Table(self.root / name, self.root / "schema.yaml", **kwargs)

    def join(self, name: str = "north", now: int = NOW, **changes: Any) -> JoinedSite:
        """Join a site as its operator does."""
        given: dict[str, Any] = {
            "rosters": self.rosters,
            "authority": self.fingerprint,
            "policy": self.policy,
            "wire": self.wire,
            **changes,
        }
        return SiteHome.join(self.folder(name), PASS, now, **given)


def quick_stores(monkeypatch: pytest.MonkeyPatch) -> None:
    """Key stores that open at once."""
    monkeypatch.setattr(folders, "DEFAULT_COST", INSECURE_TEST_COST)


def found_scene(root: Path) -> Scene:
    """Every folder founded, everyone approved, roster and policy signed; nobody has joined."""
    scene = Scene(root)
    AuthorityHome.init(scene.folder("authority"), "trial", PASS)
    OfficerHome.init(scene.folder("officer"), "Dr. Law", "trial", PASS, NOW)
    CoordinatorHome.init(scene.folder("hub"), "hub", "trial", scene.wire, PASS, NOW)
    for name in SITES:
        SiteHome.init(scene.folder(name), name, "trial", PASS, NOW)
    scene.approve("officer", "hub", *SITES)
    scene.sign_roster()
    scene.write_policy()
    return scene


def tree(folder: Path) -> dict[str, bytes]:
    """Every file below ``folder`` but the lock and SQLite's side files, to see that nothing changed."""
    skipped = ("lock", "-wal", "-shm")
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.name.endswith(skipped)
    }
