"""The history of comparisons survives crashes, other writers and other files."""

from __future__ import annotations

import multiprocessing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from privfl_analytics.monitor import DriftReport, MonitorHistory, compare

from privfl.errors import Misuse, StorageError
from tests.analytics.monitor.profiles import MADE, plain


@pytest.fixture(scope="module")
def report() -> DriftReport:
    """Of one column."""
    counts = np.array([100.0, 200, 150, 20, 3])
    return compare(plain({"x": counts}, 2.0), plain({"x": counts + 5}, 2.0), rng=np.random.default_rng(1), epsilon=0.5)


def test_runs_come_back_in_order(report: DriftReport, tmp_path: Path) -> None:
    """Date, outcome, measures and cost; a file that is not there is an empty history."""
    history = MonitorHistory(tmp_path / "history.jsonl")
    assert len(history) == 0
    for day in range(3):
        history.append(replace(report, compared=MADE + day * 86_400_000))
    read = MonitorHistory(tmp_path / "history.jsonl")
    assert read.runs == history.runs
    assert [run.date for run in read.runs] == [MADE + day * 86_400_000 for day in range(3)]
    assert {run.epsilon for run in read.runs} == {0.5}
    frame = read.to_frame()
    assert list(frame["measure"].unique()) == [
        "psi",
        "ks",
        "wasserstein",
        "jensen_shannon",
        "total_variation",
        "missing",
    ]
    assert frame.index.is_monotonic_increasing
    want = {one.measure: one.value for one in report.findings}
    assert dict(zip(frame["measure"], frame["value"], strict=True)) == pytest.approx(want)
    assert (tmp_path / "history.jsonl").stat().st_mode & 0o077 == 0


def test_a_torn_last_line_costs_only_itself(report: DriftReport, tmp_path: Path) -> None:
    """A crash in the middle of a write: the runs before it stay, and the next one begins on a line of its own."""
    file = tmp_path / "history.jsonl"
    history = MonitorHistory(file)
    history.append(report)
    history.append(report)
    whole = file.read_bytes()
    for cut in (1, 40, len(whole) // 2 - 5):
        file.write_bytes(whole[:-cut])
        torn = MonitorHistory(file)
        assert len(torn) >= 1
        torn.append(report)
        assert MonitorHistory(file).runs[-1] == history.runs[-1]
        assert len(MonitorHistory(file)) in (2, 3)


@pytest.mark.parametrize("line", [b"[]", b"7", b'"x"', b"{}", b'{"date": "today"}', b"\xff\xfe", b"{" * 5000,
                                  b'{"date":1,"reference":"","status":"fine","epsilon":null}'])  # fmt: skip
def test_foreign_lines_are_passed_over(report: DriftReport, tmp_path: Path, line: bytes) -> None:
    """And counted."""
    file = tmp_path / "history.jsonl"
    file.write_bytes(line + b"\n")
    history = MonitorHistory(file)
    history.append(report)
    assert (len(history), history.skipped) == (1, 1)
    assert "1 unreadable lines" in repr(history)


def test_writers_at_once_lose_nothing(report: DriftReport, tmp_path: Path) -> None:
    """Four processes, each appending ten runs to the same file."""
    file = tmp_path / "history.jsonl"
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=_write, args=(file, report)) for _ in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    found = MonitorHistory(file)
    assert (len(found), found.skipped) == (40, 0)


def _write(file: Path, report: DriftReport) -> None:
    history = MonitorHistory(file)
    for _ in range(10):
        history.append(report)


def test_a_place_that_cannot_be_written(report: DriftReport, tmp_path: Path) -> None:
    """Said, not thrown."""
    with pytest.raises(StorageError, match="could not be written"):
        MonitorHistory(tmp_path / "none" / "history.jsonl").append(report)
    with pytest.raises(Misuse, match="cannot be read"):
        MonitorHistory(tmp_path)
