"""The shipped example: the same app as the plain one but for the lines that its guide shows, and it runs."""

from __future__ import annotations

import difflib
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
PLAIN, PRIVATE = EXAMPLES / "flower-sklearn", EXAMPLES / "flower-sklearn-private"


def changed(name: str) -> tuple[list[str], list[str]]:
    """Lines that go, and lines that come."""
    before, after = ((folder / "cancer" / name).read_text().splitlines() for folder in (PLAIN, PRIVATE))
    lines = [line for line in difflib.unified_diff(before, after, n=0) if line[:3] not in ("---", "+++")]
    return [line[1:] for line in lines if line[0] == "-"], [line[1:] for line in lines if line[0] == "+"]


def test_two_lines_make_it_private() -> None:
    """One line of the client, one statement of the server, and their imports; the guide shows exactly these."""
    assert changed("task.py") == changed("__init__.py") == ([], [])
    assert changed("client_app.py") == (
        ["app = ClientApp()"],
        ["from privfl.flower import private", "app = private(ClientApp())"],
    )
    gone, come = changed("server_app.py")
    assert gone == ["    strategy = FedAvg()"]
    assert come[0] == "from privfl.flower import PrivateStrategy"
    assert come[1] == "    strategy = PrivateStrategy("
    guide = (PRIVATE / "README.md").read_text()
    for line in (*gone, *come):
        assert line.strip() in guide


def test_it_can_be_tried_out(tmp_path: Path) -> None:
    """The script of the guide founds three hospitals, trains a round under noise, and prints what it cost."""
    environment = {**os.environ, "PYTHONPATH": str(EXAMPLES.parent), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(PRIVATE / "try_out.py"), str(tmp_path / "there"), "--sites", "3", "--rounds", "1"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False, env=environment)
    assert done.returncode == 0, done.stderr[-2000:]
    assert re.search(r"epsilon 7\.9\d+ at delta 1e-05 per site, trust distributed, 1 of 1 uploads", done.stdout)
    results = list((tmp_path / "there" / "trial" / "coordinator" / "jobs").glob("*/result/privacy.json"))
    assert len(results) == 1
    assert json.loads(results[0].read_text())["uploads"] == 1


@pytest.mark.slow
@pytest.mark.skipif(not os.environ.get("PRIVFL_FLOWER_EXAMPLE"), reason="takes minutes: PRIVFL_FLOWER_EXAMPLE=1")
def test_it_runs_on_real_processes(tmp_path: Path) -> None:
    """``flwr run`` on the shipped app, with SuperLink, SuperNodes, TLS and node authentication."""
    from privfl.flower.local import LocalFlower, Node

    sys.path.insert(0, str(PRIVATE))
    try:
        import try_out
    finally:
        sys.path.remove(str(PRIVATE))
    trial = try_out.found(tmp_path / "there", 3)
    nodes = [
        Node({"privfl-site": str(home), "partition-id": at, "num-partitions": 3})
        for at, home in enumerate(trial.sites.values())
    ]
    environment = {"PRIVFL_PASSPHRASE": try_out.PASSPHRASE, "OMP_NUM_THREADS": "1"}
    with LocalFlower(tmp_path / "flower", nodes, environment=environment) as flower:
        flower.await_nodes()
        config = {"privfl-coordinator": str(trial.coordinator), "num-server-rounds": 1, "save": str(tmp_path / "m.npz")}
        flower.run(PRIVATE, config, seconds=600)
    assert (tmp_path / "m.npz").exists()
    (result,) = (trial.coordinator / "jobs").glob("*/result/privacy.json")
    assert json.loads(result.read_text())["uploads"] == 1
