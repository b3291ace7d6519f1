"""Try the app without SuperLink and SuperNodes: a federation of made-up hospitals in one folder, in one process.

python try_out.py FOLDER [--sites 10] [--rounds 3] [--plain]
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
from pathlib import Path

import yaml
from flwr.app import Context, RecordDict
from privfl_keys import INSECURE_TEST_COST

from privfl.clock import SystemClock
from privfl.errors import PrivflError
from privfl.flower import LocalGrid
from privfl.homes.coordinator import CoordinatorHome
from privfl.homes.site import SiteHome
from privfl.homes.trial import Trial, dump_schema, found_trial, policy_for

PASSPHRASE = "hospitals that do not exist"  # noqa: S105 - nor do their keys protect anything
HERE = Path(__file__).resolve().parent
SCHEMA = {
    "name": "breast-cancer",
    "version": 1,
    "records": 569,
    "columns": {"mean radius": {"lower": 0, "upper": 60}, "malignant": {"classes": [0, 1]}},
}
TERMS = {
    "tasks": {"update": {"clip": 1.0}},
    "unit": "site",
    "epsilon": 10.0,
    "delta": 1e-5,
    "colluders": 1,
    "modes": ["complete", "voted"],
}


def found(folder: Path, sites: int) -> Trial:
    """Everybody's folders, keys and signatures; in earnest each is made by its own people."""
    now = SystemClock().now()
    folder.mkdir(parents=True, exist_ok=True)
    dump_schema(SCHEMA, folder / "schema.yaml")
    wire = folder / "federation.yaml"
    wire.write_text(yaml.safe_dump({"federation": "trial", "wire": {"kind": "flower", "resident": False}}))
    names = {f"hospital-{place}": None for place in range(sites)}
    fields = policy_for(SCHEMA, now, **TERMS)
    trial = found_trial(
        folder / "trial", names, folder / "schema.yaml", fields, PASSPHRASE, now, cost=INSECURE_TEST_COST
    )
    CoordinatorHome.join(trial.coordinator, PASSPHRASE, now, wire=str(wire))
    for home in trial.sites.values():
        SiteHome.join(home, PASSPHRASE, now, wire=str(wire))
    return trial


def main() -> None:
    """Found the federation, run the app, print what comes out."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--sites", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--plain", action="store_true", help="the same app before it was made private")
    told = parser.parse_args()
    logging.getLogger("flwr").setLevel(logging.ERROR)
    nodes = {at + 1: {"partition-id": at, "num-partitions": told.sites} for at in range(told.sites)}
    run = {"num-server-rounds": told.rounds, "penalty": 0.1, "save": ""}
    if not told.plain:
        os.environ["PRIVFL_PASSPHRASE"] = PASSPHRASE
        trial = found(told.folder, told.sites)
        for config, home in zip(nodes.values(), trial.sites.values(), strict=True):
            config["privfl-site"] = str(home)
        run["privfl-coordinator"] = str(trial.coordinator)
    sys.path.insert(0, str(HERE.parent / "flower-sklearn" if told.plain else HERE))
    from cancer import client_app, server_app  # noqa: PLC0415 - one of two apps

    grid = LocalGrid(client_app.app, nodes, run_config=run)
    server_app.app(grid, Context(1, 0, {}, RecordDict(), run))


if __name__ == "__main__":
    try:
        main()
    except PrivflError as error:
        sys.exit(f"{type(error).__name__}: {error}")
