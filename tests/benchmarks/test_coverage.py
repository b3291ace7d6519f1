"""The coverage benchmark at its smallest: intervals hold the law's numbers, noise and all."""

from __future__ import annotations

import json

import numpy as np
import pytest
from rich.console import Console

from benchmarks import __main__ as everything
from benchmarks import _coverage_world as world
from benchmarks import coverage


def test_intervals_hold_the_truth_about_as_often_as_they_say() -> None:
    """Sixteen studies at a realistic budget: every answer resolved, and by kind no share that 95 % hardly gives."""
    found = coverage.measure(16, 3.0, 1, Console(stderr=True, quiet=True))
    assert set(found) == {
        "counts",
        "means",
        "variances",
        "quantiles",
        "correlations",
        "linear coefficients",
        "logistic coefficients",
        "survival",
        "AUC",
    }
    assert all(kind.resolved == kind.asked == 16 * (kind.asked // 16) for kind in found.values())
    assert all(kind.covered >= 75 for kind in found.values())
    everything_ = 100 * sum(kind.held for kind in found.values()) / sum(kind.asked for kind in found.values())
    assert 91 <= everything_ <= 99


def test_the_truths_are_those_of_a_large_sample() -> None:
    """Twenty samples without noise: the law's numbers are what the world draws."""
    rng = np.random.default_rng(1)
    rows = [world.draw(rng) for _ in range(20)]
    truth = {(one.query, one.what, *one.at.values()): one.truth for one in world.wanted()}
    numbers = np.concatenate([one[list(world.NUMBERS)].dropna().to_numpy() for one in rows])
    correlations = np.corrcoef(numbers.T)
    assert truth["correlation", "correlation", "age", "pressure"] == pytest.approx(correlations[0, 1], abs=0.01)
    slopes = np.linalg.lstsq(np.column_stack([np.ones(len(numbers)), numbers[:, [0, 2]]]), numbers[:, 1], rcond=None)[0]
    assert truth["linear", "coefficient", "age"] == pytest.approx(slopes[1], abs=0.01)
    assert truth["mean pressure", "mean"] == pytest.approx(numbers[:, 1].mean(), abs=0.3)
    ill = np.concatenate([one["ill"] for one in rows])
    risk = np.digitize(np.concatenate([one["risk"] for one in rows]), np.linspace(0, 1, 21)[1:-1])
    counts = np.array([[np.sum((risk == at) & (ill == flag)) for flag in (True, False)] for at in range(20)]) * 1.0
    counts /= counts.sum(axis=0)
    area = counts[:, 0] @ (np.cumsum(counts[:, 1]) - counts[:, 1] / 2)
    assert truth["roc", "auc"] == pytest.approx(area, abs=0.01)
    months, died = (np.concatenate([one[name] for one in rows]) for name in ("months", "died"))
    alive = 1.0
    for at in range(4):
        here = months >= at * world.WIDTH
        alive *= 1 - np.sum(died & here & (months < (at + 1) * world.WIDTH)) / here.sum()
    assert truth["survival", "survival", 12.0] == pytest.approx(alive, abs=0.01)


def test_one_object_with_the_agreed_keys(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """``--json`` prints the shares by kind and whether all are within the goal; without it a table marks those off."""
    monkeypatch.setattr(
        coverage, "measure", lambda *_: {"counts": coverage.Kind(100, 100, 95), "AUC": coverage.Kind(9, 8, 4)}
    )
    coverage.main(["--runs", "5", "--json"])
    result = json.loads(capsys.readouterr().out)
    assert result["coverage"] == {"counts": 95.0, "AUC": 50.0}
    assert result["resolved"] == {"counts": 100.0, "AUC": 88.89}
    assert (result["runs"], result["within"], result["goal"]) == (5, False, [93.0, 97.0])
    coverage.main(["--runs", "5"])
    assert "OFF" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        coverage.main(["--runs", "0"])


def test_it_is_one_of_all_benchmarks() -> None:
    """``python -m benchmarks`` knows it."""
    assert "coverage" in everything.RUNS
