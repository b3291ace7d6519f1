"""A large federation tried out in Flower's simulation engine: the shipped app, virtual nodes, made-up rows.

Every virtual site has a folder of its own with keys, signed policy and ledger, as in the ceremony, and is opened in a
Ray worker for each message. It shows what a round of a hundred sites costs; it protects nobody, because one person
holds all keys.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from privfl_keys import ScryptCost

from privfl.clock import SystemClock
from privfl.entropy import SYSTEM
from privfl.errors import Misuse, PrivflError, RoundAborted
from privfl.flower.local import Finished, LocalFlower
from privfl.homes.coordinator import CoordinatorHome
from privfl.homes.site import SiteHome
from privfl.homes.trial import Trial, dump_schema, found_trial, policy_for
from privfl.learn import Schema
from privfl.runtime.jobs import submit

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Simulated", "found_virtual", "main", "simulate"]

FEWEST, MOST = 4, 10_000
ROWS = 40
SEATS = 24  # of the committee, which a roster of more than 64 sites draws
FEDERATION = "virtual"
#: Nothing is behind these stores but made-up rows; a hundred are opened many times.
CHEAP = ScryptCost(log_n=4)
#: No usage statistics leave; a warning of Ray's about its own future is no news to anyone here.
RAY = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0", "OMP_NUM_THREADS": "1"}
SCHEMA = {
    "name": "made-up",
    "records": 100_000,
    "columns": {
        "dose": {"lower": -4, "upper": 4, "center": 0, "scale": 1},
        "age": {"lower": 0, "upper": 100, "center": 50, "scale": 20},
        "ill": {"classes": [False, True]},
    },
}
TASK = {"name": "simulation", "label": "ill", "epsilon": 4.0, "delta": 1e-6, "schema": "schema.yaml"}


@dataclass(frozen=True)
class Simulated:
    """What came of a simulation.

    Attributes:
        result: folder with model, privacy report and transcripts. summary: of the job.
        founding_s: until all virtual sites had joined. run_s: from ``flwr run`` to its end, seconds.
    """

    sites: int
    result: Path
    summary: Mapping[str, Any]
    founding_s: float
    run_s: float


def found_virtual(folder: Path, sites: int, passphrase: str, *, rows: int = ROWS) -> Trial:
    """Found a federation of ``sites`` virtual sites over the Flower wire, with ``rows`` made-up rows each.

    Raises:
        Misuse: too few or too many sites, or the folder is not empty.
    """
    if not FEWEST <= sites <= MOST:
        raise Misuse(f"{sites} virtual sites; choose from {FEWEST} to {MOST}")
    now = SystemClock().now()
    place = folder / "rows"
    place.mkdir(parents=True, exist_ok=True)
    paths = {}
    for number in range(sites):
        paths[f"site-{number}"] = place / f"{number}.csv"
        _made_up(rows, number).to_csv(paths[f"site-{number}"], index=False)
    schema = Schema.model_validate(SCHEMA).model_dump(mode="json")
    dump_schema(schema, place / "schema.yaml")
    policy = policy_for(schema, now, **_promise(sites))
    trial = found_trial(
        folder / "federation",
        paths,
        place / "schema.yaml",
        policy,
        passphrase,
        now,
        federation=FEDERATION,
        committee=SEATS if sites > 64 else None,
        cost=CHEAP,
    )
    file = folder / "federation.yaml"
    wire = {"kind": "flower", "resident": False, "poll": 60}
    file.write_text(yaml.safe_dump({"federation": FEDERATION, "wire": wire}))
    for home in trial.sites.values():
        SiteHome.join(home, passphrase, now, wire=str(file))
    CoordinatorHome.join(trial.coordinator, passphrase, now, wire=str(file))
    return trial


def _promise(sites: int) -> dict[str, Any]:
    """What the made-up compliance officer signs: a third may collude, two thirds must be in a sum."""
    colluders = max(1, (sites - 1) // 3)
    least = max(3, colluders + 2)
    return {"delta": TASK["delta"], "colluders": colluders, "min_survivors": least, "min_sites": least}


def _made_up(rows: int, seed: int) -> pd.DataFrame:
    import numpy as np  # noqa: PLC0415 - only who makes rows up pays for it
    import pandas as pd  # noqa: PLC0415

    rng = np.random.default_rng(seed)
    dose, age = rng.normal(size=rows).clip(-4, 4), rng.uniform(20, 90, rows)
    return pd.DataFrame({"dose": dose, "age": age, "ill": dose + (age - 50) / 30 + 0.3 * rng.normal(size=rows) > 0})


def simulate(
    folder: Path,
    app: Path,
    sites: int = 100,
    *,
    rounds: int = 2,
    rows: int = ROWS,
    workers: int | None = None,
    seconds: float = 3600.0,
) -> Simulated:
    """Train over ``sites`` virtual sites in Flower's simulation engine.

    Args:
        folder: new or empty; takes everything. app: the Flower app, such as ``examples/flower-federation``.
        rounds: uploads per site. rows: per site. workers: processes at once; by default one per CPU.
        seconds: after which it is given up.

    Raises:
        Misuse: as :func:`found_virtual`, or Flower or Ray is not installed. RunFailed, WireError: Flower's part failed.
        RoundAborted: the job did not end well.
    """
    _require_ray()
    began = time.monotonic()
    word = SYSTEM.draw(16).hex()
    trial = found_virtual(folder, sites, word, rows=rows)
    (trial.folder / "task.yaml").write_text(yaml.safe_dump({**TASK, "rounds": rounds, "mode": "voted"}))
    job = submit(trial.coordinator, trial.folder / "task.yaml", SystemClock().now())
    founded = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="ray-", dir="/tmp") as short:
        environment = {
            **RAY,
            "RAY_TMPDIR": short,
            "PRIVFL_PASSPHRASE": word,
            "PRIVFL_SITE": str(trial.folder / "site-{partition-id}"),
            "PRIVFL_COORDINATOR": str(trial.coordinator),
        }
        engine: dict[str, str | int | float | bool] = {"num-supernodes": sites, "client-resources-num-cpus": 1}
        if workers is not None:
            engine["init-args-num-cpus"] = workers
        with LocalFlower(folder / "flower", simulation=True, superlink_environment=environment) as flower:
            ended: Finished = flower.run(app, federation_config=engine, seconds=seconds)
    state = job.state()
    if state.state != "done":
        raise RoundAborted(f"the job is {state.state}: {state.error}\n{ended.log[-2000:]}")
    summary = json.loads((job.result / "summary.json").read_text())
    return Simulated(sites, job.result, summary, founded - began, time.monotonic() - founded)


def _require_ray() -> None:
    import importlib.util  # noqa: PLC0415

    if importlib.util.find_spec("ray") is None:
        raise Misuse('Flower\'s simulation engine needs Ray; run: pip install "flwr[simulation]"')


def main(arguments: Sequence[str] | None = None) -> int:
    """``python -m privfl.flower.simulation FOLDER APP --sites 100``; the figures as JSON, or why not and exit code."""
    parser = argparse.ArgumentParser(prog="privfl.flower.simulation", description=__doc__)
    parser.add_argument("folder", type=Path, help="new or empty; takes keys, rows, results")
    parser.add_argument("app", type=Path, help="the Flower app, such as examples/flower-federation")
    parser.add_argument("--sites", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--workers", type=int, default=None, help="processes at once; by default one per CPU")
    given = parser.parse_args(arguments)
    try:
        done = simulate(given.folder, given.app, given.sites, rounds=given.rounds, workers=given.workers)
    except PrivflError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    print(json.dumps({**asdict(done), "result": str(done.result)}, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
