"""Whole federations over a wire: every opened sum is exactly the sum of the vectors that the survivors masked."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import LinearRegression, SGDClassifier

from privfl.learn import Averaging, Linear, Logistic, Spec
from privfl.ring import pack, packed_size, to_words
from tests.runtime.support import QUICK, SPEC, Watch, charged, federation

CASES: dict[str, tuple[int, Spec, dict[str, Any]]] = {
    "five sites, voted": (5, SPEC, {}),
    "five sites, complete": (5, SPEC, {"mode": "complete"}),
    "three sites are complete by themselves": (3, SPEC, {}),
    "seven sites": (7, SPEC, {}),
    "local trust": (5, SPEC, {"trust": "local"}),
    "numbers as label": (4, Linear(label="age"), {"epsilon": 20.0}),
    "adam, no metrics": (4, Logistic(label="ill", optimiser="adam", metrics=0), {}),
    "a ring of 40 bits in words of 64": (4, SPEC, {"bits": 40}),
    "averaging, noised": (4, Averaging(label="ill", estimator=SGDClassifier(loss="log_loss")), {"epsilon": 50.0}),
    "averaging, without noise": (
        4,
        Averaging(label="age", estimator=LinearRegression(), unprotected=True),
        {"epsilon": None, "delta": None},
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_sums_are_exact_and_models_follow_from_them(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every round opens to the by-hand sum of all vectors; the model is what the task makes of these sums."""
    sites, spec, options = CASES[case]
    fed = federation(sites)
    watch = Watch().install(monkeypatch)
    fit = fed.train(spec, **{**QUICK, **options}, observer=watch.observe)
    assert fit.rounds == 3 == len(watch.sums)
    assert fit.stopped == "all 3 rounds done"
    assert fit.dropped == {}
    state = fit.task.initial_state()
    for number in (1, 2, 3):
        sizes = {len(body) for body in watch.bodies[number].values()}
        assert sizes == {packed_size(fit.task.length, fit.task.ring)}
        state = fit.task.update(state, watch.sums[number], sites)
    again = fit.task.finish(state)
    assert np.array_equal(again.coef_, fit.model.coef_)
    assert np.array_equal(again.intercept_, fit.model.intercept_)
    assert {len(found) for found in charged(fed).values()} == {3}


def test_the_coordinator_holds_masked_bytes_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """No body that it received is the packed vector of its site, nor any two bodies alike."""
    fed = federation()
    watch = Watch().install(monkeypatch)
    fit = fed.train(SPEC, **QUICK, observer=watch.observe)
    plain = {pack(to_words(vector, fit.task.ring), fit.task.ring) for vector in watch.vectors.values()}
    seen = [body for bodies in watch.bodies.values() for body in bodies.values()]
    assert len(seen) == 15 == len(set(seen))
    assert plain.isdisjoint(seen)
    assert {len(body) for body in seen} == {len(next(iter(plain)))}


def test_a_federation_trains_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """A second and third run on the same federation start a new epoch each and are as exact; modes may change."""
    fed = federation(4)
    watch = Watch().install(monkeypatch)
    epochs = []
    for options in ({}, {"mode": "complete"}, {"trust": "local"}):
        fit = fed.train(SPEC, **QUICK, **options, observer=watch.observe)  # type: ignore[arg-type]
        assert fit.rounds == 3
        epochs += [one.announcement.scope.epoch for one in fit.transcript]
        assert len(fit.transcript.verify()) == 3
    assert epochs == [1, 1, 1, 2, 2, 2, 3, 3, 3]


def test_runs_do_not_repeat_noise_or_masks(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same rows and the same model give another vector every time."""
    fed = federation(3)
    watch = Watch().install(monkeypatch)
    for _ in range(2):
        fed.train(SPEC, **{**QUICK, "rounds": 1}, observer=watch.observe)
    assert len({vector.tobytes() for vector in watch.vectors.values()}) == 6
