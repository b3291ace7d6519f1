"""Once a site is charged, a fault while it computes changes nothing that leaves: it contributes zero, with noise."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import SGDClassifier

from privfl.learn import Averaging, Task
from tests.runtime.support import QUICK, SPEC, charged, federation


@pytest.mark.parametrize("fault", [ValueError("row 17 is 98.6"), MemoryError(), ZeroDivisionError("98.6")])
def test_a_fault_is_a_noised_zero(
    fault: Exception, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """One site's computation breaks each round: it is in every sum, as charged as the rest, and its text is nowhere."""
    fed = federation(5)
    broken = next(iter(fed._sites.values())).data
    contribution, sums = Task.contribution, list[Any]()

    def failing(task: Task, model: bytes, bound: Any, *rest: Any, **named: Any) -> Any:
        if bound is broken:
            raise fault
        return contribution(task, model, bound, *rest, **named)

    monkeypatch.setattr(Task, "contribution", failing)
    sizes: list[set[int]] = []

    def observe(number: int, result: Any, bodies: Any) -> None:
        sums.append(result.total)
        sizes.append({len(body) for body in bodies.values()})

    with caplog.at_level(logging.DEBUG, "privfl"):
        fit = fed.train(SPEC, **QUICK, observer=observe)
    assert fit.rounds == 3
    assert fit.dropped == {}
    assert {len(spent) for spent in charged(fed).values()} == {3}
    assert all(len(found) == 1 for found in sizes)
    assert type(fault).__name__ in caplog.text
    assert "98.6" not in caplog.text


def test_the_zero_carries_the_site_s_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    """With every site broken the opened sum is noise alone: not zero, of the announced spread, new each round."""
    monkeypatch.setattr(Task, "contribution", lambda *_, **__: (_ for _ in ()).throw(RuntimeError))
    fed, sums = federation(5), list[np.ndarray]()
    fit = fed.train(SPEC, **{**QUICK, "rounds": 60}, observer=lambda number, result, bodies: sums.append(result.total))
    release = fit.task.release
    assert release is not None
    gradient = release.blocks[0]
    drawn = np.array(sums)[:, : gradient.length].astype(float)
    expected = release.sigma_site(gradient) * 5**0.5
    assert 0.7 < drawn.std() / expected < 1.3
    assert len({row.tobytes() for row in drawn}) == 60


def test_without_noise_it_is_zero(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no noise was asked for by name a broken site contributes the zero vector."""
    monkeypatch.setattr(Task, "contribution", lambda *_, **__: (_ for _ in ()).throw(RuntimeError))
    spec = Averaging(label="ill", estimator=SGDClassifier(loss="log_loss"), unprotected=True)
    sums: list[np.ndarray] = []
    federation(3).train(
        spec,
        **{**QUICK, "epsilon": None, "delta": None, "rounds": 1},
        observer=lambda number, result, bodies: sums.append(result.total),
    )
    assert not sums[0].any()
