"""Training that protects people: all rows of one person together move a sum by at most what was charged."""

from __future__ import annotations

import dataclasses
from itertools import product
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from privfl.dp import Unit
from privfl.errors import Malformed, Misuse, Refused
from privfl.learn import Averaging, Linear, Logistic, Schema, Task
from tests.learn.support import LOUD, NUMBERS, SeededEntropy, rows, trained

LABELS: dict[str, Any] = {
    "two": {"classes": [False, True]},
    "three": {"classes": ["p", "q", "r"]},
    "number": {"lower": -5, "upper": 5, "missing": [-5]},
}


def schema(label: str = "two", max_rows: int = 2, records: int = 600) -> Schema:
    """Two numbers, a label, and whose row it is."""
    columns = {**NUMBERS, "y": LABELS[label]}
    return Schema(name="visits", records=records, columns=columns, subject="pid", max_rows=max_rows)


def task(label: str = "two", max_rows: int = 2, **changes: Any) -> Task:
    """A run per subject with little noise, so that only the sums matter."""
    spec = Linear(label="y") if label == "number" else Logistic(label="y")
    return spec.compile(schema(label, max_rows), **{**LOUD, "rounds": 2, "unit": "subject", **changes})


def vector(one: Task, frame: pd.DataFrame, params: Any = None, key: int = 7) -> Any:
    """The exact sum of a table, bound afresh under a fixed key."""
    state = one.initial_state()
    if params is not None:
        state = dataclasses.replace(state, params=params)
    return one.contribution(one.model_bytes(state), one.schema.bind(frame), SeededEntropy(key))


def squares(one: Task, difference: Any) -> list[tuple[int, int]]:
    """Per block, the squared change and what was charged for."""
    found, at = [], 0
    for block in one.release.blocks:  # type: ignore[union-attr]
        part = [int(value) for value in difference[at : at + block.length]]
        found.append((sum(value * value for value in part), block.delta2))
        at += block.length
    return found


_CELLS = st.sampled_from([-4.0, 0.3, 4.0, 1e9, np.nan, np.inf])
_ROWS = st.lists(
    st.tuples(st.sampled_from(["p1", "p2", "p3", None, " "]), _CELLS, _CELLS, st.integers(0, 3)), max_size=14
)


def frame_of(rows_: list[tuple[Any, ...]], label: str) -> pd.DataFrame:
    """Rows as a table; the fourth place of a class is one that nobody declared."""
    y = {"two": [False, True, True, None], "three": ["p", "q", "r", "?"], "number": [-9.0, 0.0, 9.0, -5.0]}[label]
    columns = {
        "pid": pd.Series([row[0] for row in rows_], dtype=object),
        "a": pd.Series([row[1] for row in rows_], dtype=float),
        "b": pd.Series([row[2] for row in rows_], dtype=float),
        "y": pd.Series([y[row[3]] for row in rows_], dtype=float if label == "number" else object),
    }
    return pd.DataFrame(columns)


@settings(deadline=None, max_examples=60)
@given(_ROWS, st.sampled_from(list(LABELS)), st.integers(1, 3), st.integers(0, 10), st.randoms(use_true_random=False))
def test_all_rows_of_one_subject_move_the_sum_by_what_was_charged(
    rows_: list[tuple[Any, ...]], label: str, max_rows: int, steep: int, random: Any
) -> None:
    """Whoever leaves, with however many rows, odd ones included, in exact integers; order of rows changes nothing."""
    one = task(label, max_rows)
    params = np.full_like(one.initial_state().params, steep)
    whole = vector(one, frame_of(rows_, label), params)
    for who in ("p1", "p2", "p3"):
        rest = [row for row in rows_ if row[0] != who]
        for moved, charged in squares(one, whole - vector(one, frame_of(rest, label), params)):
            assert moved <= charged
    shuffled = list(rows_)
    random.shuffle(shuffled)
    np.testing.assert_array_equal(vector(one, frame_of(shuffled, label), params), whole)


def test_exhaustively_for_tiny_tables() -> None:
    """Every table of up to four rows of two people over a few values, and both leaving: within the charge."""
    one = task("two", 2)
    cells = [("p1", 4.0, 10.0, 1), ("p1", -4.0, 0.0, 0), ("p2", 4.0, 10.0, 1)]
    worst = [0.0] * len(one.release.blocks)  # type: ignore[union-attr]
    for size in range(5):
        for table in product(cells, repeat=size):
            whole = vector(one, frame_of(list(table), "two"))
            for who in ("p1", "p2"):
                rest = [row for row in table if row[0] != who]
                moves = squares(one, whole - vector(one, frame_of(rest, "two")))
                worst = [max(at, moved / charged) for at, (moved, charged) in zip(worst, moves, strict=True)]
    assert all(at <= 1 for at in worst)
    assert worst[0] > 0.9  # the bound is needed: two rows of one person come near to it


def test_at_most_so_many_rows_and_none_without_a_subject() -> None:
    """The noisy count's exact part: people with many rows count max_rows times, rows without an id never."""
    ids = ["p1"] * 5 + ["p2"] * 2 + ["p3"] + [None, "", "  "]
    frame = rows(len(ids)).assign(pid=ids)
    for max_rows, counted in ((1, 3), (2, 5), (3, 6), (10, 8)):
        assert vector(task("two", max_rows), frame)[-3] == counted << 12


def test_the_choice_is_drawn_once_per_binding_and_depends_on_the_key() -> None:
    """The same rows in every round, others under another key; a lone row of a subject always stays."""
    frame = rows(400).assign(pid=[f"p{at % 20}" for at in range(400)])
    one = task("two", 1)
    bound, entropy = one.schema.bind(frame), SeededEntropy(1)
    model = one.model_bytes(one.initial_state())
    first = one.contribution(model, bound, entropy)
    np.testing.assert_array_equal(one.contribution(model, bound, entropy), first)
    assert (vector(one, frame, key=2) != first).any()
    kept = bound.bounded(1, entropy)
    assert len(kept.values) == 20
    assert sorted(kept.subjects) == list(range(20))  # type: ignore[arg-type]


def test_the_charge_is_the_subject_s() -> None:
    """Δ² is max_rows² times that of a row, saturation stays; a record costs 4 times as much, a site has no price."""
    per_row, per_subject = (
        Logistic(label="y").compile(schema(max_rows=3), **LOUD, unit=unit) for unit in Unit if unit != "site"
    )
    for row, whole in zip(per_row.layout(), per_subject.layout(), strict=True):
        assert whole.delta2 == 9 * row.delta2
        assert whole.x_max == row.x_max
    release = per_subject.release
    assert release is not None
    assert release.unit is Unit.SUBJECT
    assert release.cost_in(Unit.RECORD).mu2 == 4 * release.cost_in(Unit.SUBJECT).mu2
    with pytest.raises(Refused):
        release.cost_in(Unit.SITE)
    assert per_row.release is not None
    with pytest.raises(Refused):
        per_row.release.cost_in(Unit.SUBJECT)


def test_a_site_recomputes_the_unit() -> None:
    """It travels; a claim of another unit, a smaller sensitivity or a schema without subjects is malformed."""
    one = task()
    again = Task.from_descriptor(one.descriptor())
    assert again.descriptor() == one.descriptor()
    assert again.plan.unit is Unit.SUBJECT
    assert again.layout() == one.layout()
    release = one.release
    assert release is not None
    plain = Logistic(label="y").compile(schema(), **LOUD, rounds=2)
    assert plain.release is not None
    blocks = plain.release.blocks
    none = schema().model_copy(update={"subject": None, "max_rows": 1})
    for claim in (
        dataclasses.replace(one.plan, release=dataclasses.replace(release, unit=Unit.RECORD)),
        dataclasses.replace(one.plan, release=dataclasses.replace(release, unit=Unit.SITE)),
        dataclasses.replace(one.plan, release=dataclasses.replace(release, blocks=blocks)),
    ):
        forged = type(one)(one.spec, one.schema, claim, one.strategy)
        with pytest.raises(Malformed):
            Task.from_descriptor(forged.descriptor())
    with pytest.raises(Malformed, match="subject"):
        Task.from_descriptor(type(one)(one.spec, none, one.plan, one.strategy).descriptor())


def test_what_cannot_be_compiled() -> None:
    """Without a subject column, and averaging, which bounds whole sites; each says what to do."""
    plain = Schema(records=600, columns={**NUMBERS, "y": LABELS["two"]})
    with pytest.raises(Misuse, match="names no subject column; declare subject"):
        Logistic(label="y").compile(plain, **LOUD, unit="subject")
    from sklearn.linear_model import SGDClassifier

    averaging = Averaging(label="y", estimator=SGDClassifier(loss="log_loss"))
    with pytest.raises(Refused, match="protects the unit site and subject"):
        averaging.compile(schema(), **LOUD, unit="subject")
    with pytest.raises(Misuse, match="protects subjects and needs"):
        Logistic(label="y").compile(schema(), epsilon=None, delta=None, sites=3, unit="subject")


def test_it_learns() -> None:
    """At a loud budget, with three rows of each person of which two are used."""
    one = Logistic(label="y", clip=1.0).compile(schema(records=1800), **LOUD, rounds=10, unit="subject")
    sites = [one.schema.bind(rows(600, seed).assign(pid=np.arange(600) // 3)) for seed in range(3)]
    state = trained(one, sites)
    held_out = rows(500, 9).assign(pid=range(500))
    assert one.evaluate(state, held_out)["score"] > 0.85
