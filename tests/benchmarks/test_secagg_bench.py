"""The secure-aggregation benchmark at tiny sizes: its JSON, its exactness, its counts, and the import benchmark."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from benchmarks import __main__ as everything
from benchmarks import _secagg_floor, imports, secagg
from benchmarks._flower_peer import Peer, Work, seconds
from benchmarks._secagg_floor import Floor
from benchmarks._secagg_round import Shape, Slot
from benchmarks._secagg_world import World
from privfl.ring import Ring

AGREED = {
    "site_s",
    "site_floor_s",
    "site_ratio",
    "coordinator_s",
    "coordinator_floor_s",
    "coordinator_ratio",
    "upload_bytes_per_parameter",
    "coordinator_peak_mb",
    "bit_exact",
}
TINY = ["--sites", "6", "--dim", "1000", "--dropout", "0.2", "--repeat", "1", "--json"]


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(secagg, "REPEAT_SECONDS", 0.0)


@pytest.mark.parametrize("more", [[], ["--word", "16"], ["--word", "64", "--bits", "40"]])
def test_one_object_with_the_agreed_keys_and_an_exact_sum(more: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Whatever the ring, ``--json`` prints exactly one object, and what the machines open is the plain sum."""
    secagg.main([*TINY, *more])
    result = json.loads(capsys.readouterr().out)
    assert set(result) >= AGREED
    assert result["bit_exact"] is True
    assert result["coordinator_ratio"] == pytest.approx(result["coordinator_s"] / result["coordinator_floor_s"])
    assert result["site_ratio"] == pytest.approx(result["site_s"] / result["site_floor_s"])
    assert result["coordinator_total_s"] > result["coordinator_s"] > 0
    assert result["upload_bytes_per_parameter"] > result["bits"] / 8
    assert (result["dropped"], result["streams"], result["committee"], result["threshold"]) == (1, 5 + 5, 6, 4)


def test_a_sparse_graph_with_pair_keys_put_into_the_states_is_exact(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The short cut past the epoch's messages gives states in which real machines run a slot to the right sum."""
    monkeypatch.setattr("benchmarks._secagg_world.FULL_EPOCH_UP_TO", 0)
    shape = Shape(12, 500, 1, Ring(20, 32), 8, 0)
    slot = Slot(World.make(12, 8, 0), shape, tmp_path)
    assert "states" in slot.world.epoch
    slot.upload(Floor(9, 0, 500, 32), 2, lambda _: None)
    slot.convene(lambda _: None)
    first, right = slot.open()
    _, again = slot.open()
    assert right
    assert again
    assert min(first.receive, first.add, first.votes, first.releases, first.finish, first.publish) > 0
    near = slot.coordinator.topology().neighbours(slot.dropped[0])
    assert secagg.streams_of(slot) == 11 + len(near) == 11 + 8


def test_a_wrong_sum_would_be_seen(tmp_path: Path) -> None:
    """``bit_exact`` compares with plain integers: one coordinate off by one is noticed."""
    slot = Slot(World.make(5, 0, 0), Shape(5, 64, 0, Ring(32, 32), 0, 0), tmp_path)
    slot.upload(Floor(5, 0, 64, 32), 1, lambda _: None)
    slot.convene(lambda _: None)
    assert slot.open()[1]
    slot.expected[17] += 1
    assert not slot.open()[1]


def test_the_floor_makes_every_stream_and_every_addition(monkeypatch: pytest.MonkeyPatch) -> None:
    """One cipher of its own per stream, the whole length of each stream, and one body per survivor are in the floor."""
    floor = Floor(7, 3, 10_000, 32)
    keys: list[bytes] = []

    def counted(algorithm: algorithms.AES256, mode: modes.CTR) -> Cipher[modes.CTR]:
        keys.append(bytes(algorithm.key))
        return Cipher(algorithm, mode)

    monkeypatch.setattr(_secagg_floor, "Cipher", counted)
    assert floor.sample() == floor.seconds > 0
    assert len(set(keys)) == 7
    acc, ones = np.zeros(1000, np.uint16), [np.ones(1000, np.uint16)]
    assert _secagg_floor.bodies_seconds(acc, ones, 5, 256) > 0
    assert acc.tolist() == [5] * 1000


def test_bad_sizes_are_refused_before_anything_runs(capsys: pytest.CaptureFixture[str]) -> None:
    """Two sites, a ring wider than its word, a dropout of all: one message that says why, and exit status 2."""
    for wrong in (["--sites", "2"], ["--word", "16", "--bits", "20"], ["--dropout", "1"]):
        with pytest.raises(SystemExit) as stopped:
            secagg.main([*TINY[:6], *wrong, "--json"])
        assert stopped.value.code == 2
        assert "error:" in capsys.readouterr().err


def test_import_benchmark_prints_one_object(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """``--json`` gives the time and the modules of the bare import, and nothing heavy is among them."""
    monkeypatch.setattr(imports, "NAMES", ("PrivflError",))
    imports.main(["--json", "--repeat", "1"])
    result = json.loads(capsys.readouterr().out)
    assert result["import_s"] > 0
    assert result["modules"] >= 1
    assert result["heavy"] == []
    assert set(result["names_s"]) == {"PrivflError"}


def test_all_benchmarks_run_in_turn(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """``python -m benchmarks`` calls each benchmark once per configuration, and ``--only`` leaves the others out."""
    called: list[tuple[str, list[str]]] = []
    runs = {
        name: (lambda given, name=name: called.append((name, given)), full, quick)
        for name, (_, full, quick) in everything.RUNS.items()
    }
    monkeypatch.setattr(everything, "RUNS", runs)
    everything.main([])
    assert called == [(name, given) for name, (_, full, _) in runs.items() for given in full]
    called.clear()
    everything.main(["--quick", "--only", "noise"])
    assert called == [("noise", given) for given in runs["noise"][2]]
    capsys.readouterr()


@pytest.mark.skipif(importlib.util.find_spec("flwr") is None, reason="flwr is an extra")
@pytest.mark.filterwarnings("ignore")
def test_flower_peer_counts_its_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """Counts follow the published workflow; what would take over a minute is an estimate and says so."""
    peer = Peer(Work(10, 9, 2, 200, 2**32))
    assert [count for count, _ in peer.coordinator()] == [8, 8, 2, 18, 26, 1]
    assert [count for count, _ in peer.site()] == [1, 9, 9, 10, 1]
    taken, estimated = seconds(peer.coordinator())
    assert taken > 0
    assert not estimated
    monkeypatch.setattr("benchmarks._flower_peer.MEASURED_UP_TO", 0.0)
    assert seconds(peer.coordinator())[1]
