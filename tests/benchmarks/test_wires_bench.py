"""The benchmark of the wires at its smallest: its JSON, its exactness, and that ratios come from what was measured."""

from __future__ import annotations

import importlib.util
import json
import tomllib
from argparse import Namespace
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from benchmarks import __main__ as everything
from benchmarks import wires
from benchmarks._wires_memory import goal_mb
from benchmarks._wires_realm import Realm
from benchmarks._wires_round import Memory
from benchmarks._wires_show import met, show
from benchmarks._wires_watch import EMPTY, POLL, Log, account, gaps, merged, outside

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")
needs_aws = pytest.mark.skipif(importlib.util.find_spec("moto") is None, reason="moto is an extra")
needs_flower = pytest.mark.skipif(importlib.util.find_spec("flwr") is None, reason="flwr is an extra")
TINY = ["--dim", "500", "--rounds", "1", "--json"]


@needs_aws
def test_rounds_over_sqs_and_s3_are_exact_and_accounted_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Real site processes over the emulator: who was at work adds up to the wall time, every message is followed."""
    wires.main([*TINY, "--part", "aws", "--sites", "3", "--folder", str(tmp_path)])
    result = json.loads(capsys.readouterr().out)
    (one,) = result["aws"]
    assert one["bit_exact"] is True
    for kind in ("folder", "aws"):
        found = one[kind]
        parts = found["parts_s"]
        assert sum(parts.values()) == pytest.approx(found["round_s"])
        assert found["rest_s"] == pytest.approx(parts["wire"] + parts["waiting"])
        assert found["rest_share"] == pytest.approx(found["rest_s"] / found["round_s"])
        assert found["messages"] >= 3 * 2 * 2 + 3  # votes and uploads of all, releases until they are enough
        assert 0 <= found["gap_ms"]["median"] <= found["gap_ms"]["p99"] <= found["gap_ms"]["most"]
    assert one["aws"]["parts_s"]["emulator"] > 0
    assert one["folder"]["parts_s"]["emulator"] == 0
    assert {"sqs SendMessage", POLL} <= set(one["aws"]["operations"])
    assert {wire: made["phases"] for wire, made in one["traffic"].items()} == dict.fromkeys(
        ("memory", "folder", "aws"), 3
    )
    assert all(made["messages_down"] == 9 for made in one["traffic"].values())
    assert not list(tmp_path.iterdir())


@needs_aws
def test_a_coordinator_of_its_own_takes_a_round_in(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The separate process opens the sum of all sites over both wires, one after the other, and tells its peaks."""
    wires.main([*TINY, "--part", "memory", "--memory-sites", "3", "--folder", str(tmp_path)])
    one = json.loads(capsys.readouterr().out)["memory"]
    for kind in ("folder", "aws"):
        assert one[kind]["bit_exact"] is True
        assert one[kind]["survivors"] == 3
        assert list(one[kind]["rise_mb"]) == ["invitations", "uploads", "votes", "releases"]
        assert one[kind]["peak_mb"] == max(one[kind]["rise_mb"].values())


def test_a_wrong_sum_is_seen() -> None:
    """A round raises unless its sum is that of plain integers: one coordinate off by one is noticed."""
    memory = Memory(Realm.make(3, 64, bits=20))
    memory.epoch()
    memory.round()
    (one,) = memory.rounds
    inputs = memory.realm.question.model(1)
    assert memory.realm.exact(one.result, inputs)
    one.result.total[17] += 1
    assert not memory.realm.exact(one.result, inputs)
    assert np.any(memory.realm.question.vector(inputs, 0) != memory.realm.question.vector(inputs, 1))


def _log(who: str, **fields: Any) -> Log:
    return Log(who, **fields)


def test_every_moment_of_a_round_is_somebodys() -> None:
    """Emulator before computing before the wire's code before nobody; deletions and idle polls are nobody's time."""
    coordinator = _log(
        "c",
        calls=[("send", 0.0, 2.0, 10), ("receive", 2.0, 9.0, 0), ("get_body", 9.5, 10.0, 5)],
        sent=[("m", "s", 2.0)],
        requests=[("sqs SendMessage", 0.5, 1.5, 10, 10), ("sqs DeleteMessageBatch", 8.0, 9.0, 1, 1)],
    )
    site = _log(
        "s",
        calls=[("receive", 0.0, 4.0, 0), ("receive", 6.0, 10.0, 0)],
        seen=[("m", 1.0, 4.0)],
        requests=[(POLL, 0.0, 3.0, 0, EMPTY + 1), (POLL, 3.0, 10.0, 0, EMPTY)],
    )
    found = account([coordinator, site], (0.0, 10.0))
    assert found["emulator"] == pytest.approx(1.0 + 1.0)  # of the poll only what came after the message was there
    assert found["computing"] == pytest.approx(2.0 + 0.5)
    assert found["wire"] == pytest.approx(0.5 + 0.5 + 0.5)
    assert found["waiting"] == pytest.approx(10 - 2 - 2.5 - 1.5)
    assert gaps([coordinator, site], (0.0, 10.0)) == [pytest.approx(2.0)]
    assert gaps([coordinator, site], (3.0, 10.0)) == []


def test_spans() -> None:
    """Overlapping spans become one, cut to what is asked about; what lies between them is the rest."""
    spans = merged([(3, 5), (0, 2), (1, 2.5), (9, 12), (7, 7)], (1, 10))
    assert spans == [(1, 2.5), (3, 5), (9, 10)]
    assert outside(spans, (1, 10)) == [(2.5, 3), (5, 9)]
    assert outside([], (1, 10)) == [(1, 10)]


@needs_flower
@pytest.mark.filterwarnings("ignore")
def test_figures_over_flower_are_of_their_rounds(tmp_path: Path) -> None:
    """Medians over the rounds of a kind, ratios over plain FedAvg's; a wrong or missing result is no figure."""
    from benchmarks import _wires_flower as flower

    def run(seconds: list[float], upload: float, messages: float) -> flower.Run:
        return flower.Run(5.0, seconds, [upload] * len(seconds), [1.0], messages, 0.5, {}, 100, 24)

    runs = {
        "plain": [run([10.0, 12.0], 4e6, 2), run([11.0], 4e6, 2)],
        "voted": [run([15.0], 4.1e6, 3), run([18.0], 4.1e6, 3)],
        "complete": [run([11.0], 4.1e6, 2)],
    }
    found = flower.figures(runs, {"20": run([1.0], 2.6e6, 3)}, 4, 1000)
    assert (found["plain"]["round_s"], found["rounds"]) == (11.0, 3)
    assert found["ratio_voted"] == pytest.approx(16.5 / 11)
    assert found["ratio_complete"] == pytest.approx(1.0)
    assert found["upload_ratio"] == {"32": pytest.approx(4.1 / 4), "20": pytest.approx(2.6 / 4)}
    assert found["traffic"]["flower, voted"]["messages_up"] == 12
    right = {"value": 7.5, "opened": 3, "survivors": 4, "stopped": ""}
    flower._check(right, 3, 4, "plain")
    for wrong, mode in ((right | {"value": 7.6}, "plain"), (right | {"survivors": 3}, "voted")):
        with pytest.raises(RuntimeError):
            flower._check(wrong, 3, 4, mode)
    for kind in ("plain", "private"):
        told = tomllib.loads((flower._app(tmp_path / kind, kind) / "pyproject.toml").read_text())
        parts = told["tool"]["flwr"]["app"]["components"]
        assert (parts["clientapp"], parts["serverapp"]) == (f"counted_{kind}:client", f"served_{kind}:server")
        assert "privfl-coordinator" in told["tool"]["flwr"]["app"]["config"]
        assert (tmp_path / kind / f"counted_{kind}.py").exists()


def test_tables_say_whether_goals_are_met() -> None:
    """Each goal stands beside its figure; one that is missed says so."""
    assert met(1.2, 1.6) == "≤ 1.6 met"
    assert met(1.7, 1.6) == "≤ 1.6 NOT MET"
    rise = {"invitations": 9.0, "uploads": 90.0}
    side = {"wire_mb": 20.0, "rise_mb": rise, "peak_mb": 90.0, "bit_exact": True}
    console = Console(record=True, width=100)
    show({"memory": {"sites": 4, "dim": 1000, "folder": side, "aws": side}, "load": 1.0}, console)
    text = console.export_text()
    assert goal_mb(1_000_000) == pytest.approx(75.4, abs=0.1)
    assert "NOT MET" in text
    assert "90.0" in text


def test_bad_sizes_are_refused_before_anything_runs(capsys: pytest.CaptureFixture[str]) -> None:
    """Two sites, no rounds, an unknown part: one message and exit status 2."""
    for wrong in (["--sites", "2"], ["--rounds", "0"], ["--part", "none"], ["--memory-sites", "2"]):
        with pytest.raises(SystemExit) as stopped:
            wires.main(wrong)
        assert stopped.value.code == 2
        assert "error:" in capsys.readouterr().err


def test_parts_run_alone_and_in_all_benchmarks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """``--part`` leaves the others out, each has its own default sizes, and ``python -m benchmarks`` knows all."""
    called: list[int] = []

    def measured(sites: int, *rest: object) -> dict[str, int]:
        called.append(sites)
        return {"sites": sites}

    monkeypatch.setattr(wires._wires_aws, "measure", measured)
    monkeypatch.setattr(wires, "_emulator", partial(nullcontext, ""))
    options = Namespace(part=["aws"], sites=None, dim=10, rounds=1, memory_sites=4)
    result = wires.measure(options, tmp_path, lambda text: None)
    assert [one["sites"] for one in result["aws"]] == called == [5, 10]
    assert "flower" not in result
    assert "memory" not in result
    assert "wires" in everything.RUNS
