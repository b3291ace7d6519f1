"""A whole federation set up below one folder: for trying out, demonstrations, tests and benchmarks.

Every role gets its folder, its key and its signatures exactly as in the ceremony; only the telephone call is
missing, because all roles are one person here. Nothing that protects patients should be set up this way.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Literal

import yaml
from privfl_keys import ScryptCost

from privfl.budget import Policy, SignedPolicy
from privfl.errors import Misuse
from privfl.homes.authority import AuthorityHome, read_request
from privfl.homes.coordinator import CoordinatorHome
from privfl.homes.drafting import RosterTerms
from privfl.homes.files import write_file
from privfl.homes.officer import OfficerHome
from privfl.homes.site import SiteHome, Table

__all__ = ["Trial", "dump_schema", "found_trial", "policy_for"]

DAY_MS: Final = 86_400_000


@dataclass(frozen=True)
class Trial:
    """Where the roles of a trial federation live.

    Attributes:
        folder: above all. sites: name → the site's folder. policy: the signed file. rosters: the authority's file.
    """

    folder: Path
    passphrase: str
    sites: Mapping[str, Path]

    @property
    def coordinator(self) -> Path:
        """The coordinator's folder."""
        return self.folder / "coordinator"

    @property
    def authority(self) -> Path:
        """The authority's folder."""
        return self.folder / "authority"

    @property
    def officer(self) -> Path:
        """The compliance officer's folder."""
        return self.folder / "officer"

    @property
    def wire(self) -> Path:
        """The shared folder."""
        return self.folder / "wire"

    @property
    def rosters(self) -> Path:
        """The file of signed rosters."""
        return self.authority / "rosters"

    @property
    def policy(self) -> Path:
        """The signed policy."""
        return self.folder / "policy.signed"

    @property
    def schema(self) -> Path:
        """The public schema."""
        return self.folder / "schema.yaml"


def found_trial(
    folder: Path,
    tables: Mapping[str, Path | None],
    schema: Path,
    policy: Mapping[str, Any] | Policy,
    passphrase: str,
    now: int,
    *,
    federation: str = "trial",
    colluders: int | Literal["no site colludes"] | None = None,
    committee: int | None = None,
    cost: ScryptCost | None = None,
) -> Trial:
    """Make authority, officer, coordinator and sites, enrol all, sign roster and policy, join and bind.

    Args:
        folder: new or empty. tables: site name → table file, None for a site without. schema: YAML or JSON file.
        policy: fields of a policy, or the policy itself; ``federation`` is filled in.
        colluders, committee: of the roster; more than 64 sites need a committee of so many seats.
        passphrase: of every key store. now: milliseconds since 1970. cost: of scrypt; tests give a cheap one.

    Raises:
        Misuse, DataError, Refused, StorageError: as the steps do.
    """
    if folder.exists() and any(folder.iterdir()):
        raise Misuse(f"{folder} is not empty; choose another folder")
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    trial = Trial(folder, passphrase, {name: folder / name for name in tables})
    write_file(trial.schema, schema.read_bytes(), mode=0o644)
    AuthorityHome.init(trial.authority, federation, passphrase, cost=cost)
    CoordinatorHome.init(
        trial.coordinator, "coordinator", federation, f"folder:{trial.wire}", passphrase, now, cost=cost
    )
    OfficerHome.init(trial.officer, "officer", federation, passphrase, now, cost=cost)
    for name, home in trial.sites.items():
        SiteHome.init(home, name, federation, passphrase, now, cost=cost)
    with AuthorityHome.open(trial.authority, passphrase) as authority:
        for home in (trial.coordinator, trial.officer, *trial.sites.values()):
            request = read_request(home / "request")
            authority.approve(request, request.fingerprint, now)
        authority.sign_roster(now, RosterTerms(colluders=colluders, committee=committee))
        spoken = authority.config.fingerprint
    agreed = policy if isinstance(policy, Policy) else Policy(**{"federation": federation, **policy})
    officer = OfficerHome.open(trial.officer, passphrase)
    write_file(trial.policy, SignedPolicy.sign(agreed, officer.identity.key).encode(), mode=0o644)
    for name, home in trial.sites.items():
        SiteHome.join(
            home,
            passphrase,
            now,
            rosters=trial.rosters,
            authority=spoken,
            policy=trial.policy,
            wire=f"folder:{trial.wire}",
            table=None if (path := tables[name]) is None else Table(path, trial.schema),
        )
    CoordinatorHome.join(
        trial.coordinator, passphrase, now, rosters=trial.rosters, authority=spoken, policy=trial.policy
    )
    return trial


def policy_for(schema: Mapping[str, Any], now: int, **changes: Any) -> dict[str, Any]:
    """Fields of a plain one-year policy for a schema (as :meth:`Schema.model_dump` gives it), then changed.

    Columns get the schema's own bounds and classes; training gets the whole budget of ε = 8, δ = 1e-5.
    """
    columns = {
        name: {"classes": list(column["classes"])}
        if "classes" in column
        else {"max_length": column["max_length"]}
        if "max_length" in column
        else {"lower": column["lower"], "upper": column["upper"]}
        for name, column in schema["columns"].items()
    }
    fields: dict[str, Any] = {
        "version": 1,
        "valid_from": _date(now - DAY_MS),
        "expires": _date(now + 365 * DAY_MS),
        "dataset": schema["name"],
        "schema_version": schema["version"],
        "population": "patients",
        "subjects": schema["records"],
        "unit": "record",
        "trust": "distributed",
        "epsilon": 8.0,
        "delta": 1e-5,
        "shares": {"training": 1.0},
        "colluders": 1,
        "min_survivors": 3,
        "min_sites": 3,
        "min_committee": 3,
        "attempts_per_round": 3,
        "modes": ["voted", "complete"],
        "min_cell_count": 10,
        "tasks": {"logistic": {"clip": 1.0}, "linear": {"clip": 1.0}},
        "columns": columns,
    }
    return {**fields, **changes}


def _date(moment: int) -> str:
    return datetime.fromtimestamp(moment // 1000, UTC).strftime("%Y-%m-%d")


def dump_schema(schema: Mapping[str, Any], path: Path) -> None:
    """Write a schema as YAML."""
    write_file(path, yaml.safe_dump(dict(schema), sort_keys=False).encode(), mode=0o644)
