"""The story of a run: frame, plot, smoothing, and stopping at a target."""

from __future__ import annotations

import math

import matplotlib as mpl
import numpy as np
import pytest

from privfl.errors import Misuse
from privfl.learn import Category, History, Logistic, Row, TaskState
from tests.learn.support import LOUD, rows, schema_with, trained

mpl.use("Agg")
ROWS = [Row(place, 5, 100.0, 0.5 + 0.05 * place, 0.7, 0.1, 0.2, 0.3) for place in range(1, 9)]


def test_a_history_is_a_sequence_and_a_frame() -> None:
    """Rows by place, slices as histories, a frame indexed by round."""
    history = History(ROWS)
    assert (len(history), history[0], history[-1].round, len(history[2:4])) == (8, ROWS[0], 8, 2)
    frame = history.to_frame()
    assert frame.index.name == "round"
    assert frame.loc[3, "score"] == pytest.approx(0.65)
    assert History().to_frame().empty


def test_smoothing_averages_the_last_five_rounds_and_their_noise() -> None:
    """Five equal deviations shrink by the square root of five."""
    value, deviation = History(ROWS).smoothed() or (0, 0)
    assert value == pytest.approx(np.mean([row.score for row in ROWS[-5:]]))
    assert deviation == pytest.approx(0.1 / math.sqrt(5))
    assert History([Row(1, 3)]).smoothed() is None
    with pytest.raises(Misuse):
        History(ROWS).smoothed("accuracy")


def test_plot_and_reprs() -> None:
    """A figure with both metrics, a line of text, a table in a notebook; also without metrics."""
    axes = History(ROWS).plot()
    assert [line.get_label() for line in axes.get_lines()] == ["noisy score", "noisy loss"]
    assert "8 rounds" in repr(History(ROWS))
    assert "<table" in History(ROWS)._repr_html_()
    assert repr(History()) == "History(no rounds yet)"
    assert History([Row(1, 3)]).plot(axes) is axes
    mpl.pyplot.close("all")


def test_training_stops_at_its_target_by_noisy_metrics() -> None:
    """A target that is met ends the run early and says why; one that is not lets all rounds pass."""
    schema = schema_with(Category(classes=(False, True)))
    sites = [schema.bind(rows(200, seed)) for seed in range(3)]
    easy = Logistic(label="y", target=0.8).compile(schema, rounds=30, **LOUD)  # type: ignore[arg-type]
    state = trained(easy, sites)
    assert state.round < 30
    assert "target reached" in (easy.done(state) or "")
    hard = Logistic(label="y", target=1.5).compile(schema, rounds=5, **LOUD)  # type: ignore[arg-type]
    state = trained(hard, sites)
    assert (state.round, hard.done(state)) == (5, "all 5 rounds done")


def test_noisy_metrics_are_near_the_truth_when_noise_is_small() -> None:
    """At a huge ε the last row's score and count agree with the rows themselves."""
    schema = schema_with(Category(classes=(False, True)))
    task = Logistic(label="y").compile(schema, rounds=20, **LOUD)  # type: ignore[arg-type]
    state: TaskState = trained(task, [schema.bind(rows(200, seed)) for seed in range(3)])
    row = state.history[-1]
    assert row.count == pytest.approx(600, abs=8 * 600 * (row.score_sd or 0))
    assert row.score == pytest.approx(task.evaluate(state, rows(600, 1))["score"], abs=0.05)
