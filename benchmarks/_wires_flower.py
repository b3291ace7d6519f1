"""Rounds of one Flower app, as it is and made private, by turns over one SuperLink and its SuperNodes."""

from __future__ import annotations

import itertools
import json
import shutil
import statistics
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from benchmarks._flower_plain import APP, spoken
from privfl.clock import SystemClock
from privfl.flower.local import LocalFlower, Node
from privfl.homes.coordinator import CoordinatorHome
from privfl.homes.site import SiteHome
from privfl.homes.trial import Trial, dump_schema, found_trial, policy_for

__all__ = ["BITS", "Bench", "Run", "measure"]

PRIVATE = Path(__file__).parent / "flower_private"
PASSPHRASE = "a passphrase for benchmarks"  # noqa: S105 - of folders that are made up and removed
BITS = (32, 20, 16)
MODES = ("voted", "complete")
CLIP = 10_000.0  # the longest change of a site: a million parameters, each moved by ten
MORE_CONFIG = 'mode = "plain"\nbits = 32\nclip = 1.0\nprivfl-coordinator = ""\n'
TURNS = 2  # how often each kind has its run, by turns
RUN_S = 3600.0
EXACT, ROUGH = 1e-5, 0.75  # noise on the weights alone is some ten per cent
_SCHEMA = {"name": "made up", "version": 1, "records": 10, "columns": {"x": {"lower": 0, "upper": 1}}}


@dataclass(frozen=True)
class Run:
    """One ``flwr run``; its first round warms up and is left out of the figures.

    Attributes:
        epoch: seconds from the strategy's start until its first round began. rounds: seconds of each round.
        uploads: bytes that the nodes replied in each round, of all together; downloads: what they were asked with.
        messages: each node's in each round, mean; processor: seconds of one, with the start of its process. before:
            messages before the first round. said: by the ServerApp. inbound: bytes by SuperLink's own count.
    """

    epoch: float
    rounds: list[float]
    uploads: list[float]
    downloads: list[float]
    messages: float
    processor: float
    said: Mapping[str, Any]
    inbound: int
    before: int


class Bench:
    """SuperLink and SuperNodes, each with its site, and the app in both forms."""

    def __init__(self, folder: Path, flower: LocalFlower, trial: Trial, sites: int, length: int) -> None:
        self.folder, self._flower, self._trial, self.sites, self.length = folder, flower, trial, sites, length
        self._apps = {kind: _app(folder / f"app-{kind}", kind) for kind in ("plain", "private")}

    def run(self, rounds: int, mode: str, bits: int = 32) -> Run:
        """``rounds`` rounds and one that warms up; ``mode``: plain, voted or complete.

        Raises:
            RunFailed: the app failed. RuntimeError: its result is wrong, or a site was missing.
        """
        config: dict[str, Any] = {"rounds": rounds + 1, "parameters": self.length, "nodes": self.sites}
        if mode != "plain":
            config |= {"mode": mode, "bits": bits, "clip": CLIP * (self.length / 1e6) ** 0.5}
            config |= {"privfl-coordinator": str(self._trial.coordinator)}
        for path in self.replies():
            path.unlink(missing_ok=True)
        ended = self._flower.run(self._apps["plain" if mode == "plain" else "private"], config, seconds=RUN_S)
        said = spoken(ended)
        _check(said, rounds + 1, self.sites, mode)
        return self._read(said, ended.inbound)

    def replies(self) -> list[Path]:
        """Where the nodes write what they replied."""
        return [self.folder / f"replies-{at}.jsonl" for at in range(self.sites)]

    def _read(self, said: Mapping[str, Any], inbound: int) -> Run:
        began: list[float] = said["began"]
        lines = [json.loads(line) for path in self.replies() for line in path.read_text().splitlines()]
        inside = list(itertools.pairwise(began))[1:]

        def of(key: str) -> list[float]:
            return [sum(one[key] for one in lines if a <= one["at"] < b) for a, b in inside]

        timed = [one for one in lines if began[1] <= one["at"] < began[-1]]
        count, processor = len(timed) / (len(inside) * self.sites), statistics.fmean(one["processor"] for one in timed)
        before = sum(one["at"] < began[0] for one in lines)
        rounds = [b - a for a, b in inside]
        return Run(
            began[0] - said["started"], rounds, of("bytes"), of("asked"), count, processor, said, inbound, before
        )


def _check(said: Mapping[str, Any], rounds: int, sites: int, mode: str) -> None:
    """Every round has every site; plain FedAvg's average is exact, the private one is it with its noise."""
    if mode != "plain" and (said["opened"], said["survivors"]) != (rounds, sites):
        raise RuntimeError(
            f"{said['opened']} of {rounds} rounds, {said['survivors']} of {sites} sites: {said['stopped']}"
        )
    expected = rounds * (sites + 1) / 2
    off = abs(said["value"] - expected) / expected
    if off > (EXACT if mode == "plain" else ROUGH):
        raise RuntimeError(f"{mode}: the average of all parameters is {said['value']} and not about {expected}")


def _app(folder: Path, kind: str) -> Path:
    """The app of one kind: the plain one with a line more on each side."""
    shutil.copytree(APP, folder)
    for path in PRIVATE.glob("*.py"):
        shutil.copy(path, folder)
    file = folder / "pyproject.toml"
    text = file.read_text().replace("plain_fedavg:client", f"counted_{kind}:client")
    text = text.replace("plain_fedavg:server", f"served_{kind}:server")
    text = text.replace('name = "plain-fedavg"', f'name = "{kind}-fedavg-counted"')
    file.write_text(text + MORE_CONFIG)  # its last table is the app's configuration
    return folder


def _homes(folder: Path, sites: int) -> Trial:
    """Every role's folder, with the cost of a real key store, and Flower as its wire."""
    folder.mkdir(parents=True)
    rows, schema, told = folder / "rows.csv", folder / "schema.yaml", folder / "federation.yaml"
    pd.DataFrame({"x": [0.5]}).to_csv(rows, index=False)
    dump_schema(_SCHEMA, schema)
    now = SystemClock().now()
    policy = policy_for(_SCHEMA, now, unit="site", tasks={"update": {"clip": CLIP}}, epsilon=1000.0, delta=1e-3)
    tables = {f"site-{at:02d}": rows for at in range(sites)}
    trial = found_trial(folder / "trial", tables, schema, policy, PASSPHRASE, now)
    told.write_text(yaml.safe_dump({"federation": "trial", "wire": {"kind": "flower"}}))
    for home in trial.sites.values():
        SiteHome.join(home, PASSPHRASE, now, wire=str(told))
    CoordinatorHome.join(trial.coordinator, PASSPHRASE, now, wire=str(told))
    return trial


@contextmanager
def bench(folder: Path, sites: int, length: int) -> Iterator[Bench]:
    """Start everything."""
    trial = _homes(folder, sites)
    nodes = [
        Node({"partition-id": at + 1, "privfl-site": str(home), "replies": str(folder / f"replies-{at}.jsonl")})
        for at, home in enumerate(trial.sites.values())
    ]
    environment = {"PRIVFL_PASSPHRASE": PASSPHRASE, "OMP_NUM_THREADS": "1"}
    with LocalFlower(folder / "flower", nodes, environment=environment) as flower:
        yield Bench(folder, flower, trial, sites, length)


def measure(sites: int, length: int, rounds: int, folder: Path, say: Callable[[str], None]) -> dict[str, Any]:
    """Plain, voted and complete by turns, then the narrower rings; returns the figures."""
    with bench(folder, sites, length) as made:
        runs: dict[str, list[Run]] = {mode: [] for mode in ("plain", *MODES)}
        for turn in range(TURNS):
            for mode, found in runs.items():
                say(f"flower, {sites} sites: {mode}, {turn + 1} of {TURNS}")
                found.append(made.run(-(-rounds // TURNS), mode))
        narrow: dict[str, Run] = {}
        for bits in BITS[1:]:
            say(f"flower, {sites} sites: {bits} bit")
            narrow[str(bits)] = made.run(1, "voted", bits)
    return figures(runs, narrow, sites, length)


def figures(runs: Mapping[str, list[Run]], narrow: Mapping[str, Run], sites: int, length: int) -> dict[str, Any]:
    """Medians over all rounds of a kind; ratios of those."""
    kinds = {mode: _figures(found, sites) for mode, found in runs.items()}
    plain = kinds["plain"]
    uploads = {"32": kinds["voted"]["upload_bytes"]} | {
        bits: statistics.median(run.uploads) / sites for bits, run in narrow.items()
    }
    return {
        "sites": sites,
        "dim": length,
        "rounds": len(plain["rounds_s"]),
        **kinds,
        **{f"ratio_{mode}": kinds[mode]["round_s"] / plain["round_s"] for mode in MODES},
        "upload_bytes": uploads,
        "upload_ratio": {bits: size / plain["upload_bytes"] for bits, size in uploads.items()},
        "traffic": {
            f"flower, {mode}": {
                "phases": one["messages_per_node"],
                "messages_down": one["messages_per_node"] * sites,
                "messages_up": one["messages_per_node"] * sites,
                "bytes_down": one["download_bytes"] * sites,
                "bytes_up": one["upload_bytes"] * sites,
            }
            for mode, one in kinds.items()
        },
    }


def _figures(runs: list[Run], sites: int) -> dict[str, Any]:
    rounds = [seconds for run in runs for seconds in run.rounds]
    return {
        "round_s": statistics.median(rounds),
        "rounds_s": rounds,
        "epoch_s": statistics.median(run.epoch for run in runs),
        "messages_per_node": statistics.fmean(run.messages for run in runs),
        "processor_s_per_message": statistics.fmean(run.processor for run in runs),
        "messages_before": statistics.fmean(run.before for run in runs) / sites,
        "upload_bytes": statistics.median(size for run in runs for size in run.uploads) / sites,
        "download_bytes": statistics.median(size for run in runs for size in run.downloads) / sites,
        "superlink_inbound": sum(run.inbound for run in runs),
    }
