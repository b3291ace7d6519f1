"""The engine's sums are the oracle's integers, for every construction, filter, group, score and kind of source."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from privfl_analytics.constructions import Bins, Classes, Distinct, Keys, Linear, One, Outer, Sums, Tally
from privfl_analytics.local import Asked
from privfl_analytics.local import engine as engine_module
from privfl_analytics.local.batch import score_of
from privfl_analytics.view import Score, View
from threadpoolctl import threadpool_info

from privfl.dp import LocalReport
from privfl.entropy import SYSTEM
from privfl.errors import Misuse
from privfl.tasks import FrameSource, Schema
from tests.analytics.local.making import (
    CONSTRUCTIONS,
    SCHEMA,
    SCORES,
    VIEW,
    WHERES,
    data_of,
    odd_tables,
    plain_tables,
    run,
    same_as_reference,
    written,
)

ALL = [Asked(one) for one in CONSTRUCTIONS] + [Asked(CONSTRUCTIONS[at % 7], where) for at, where in enumerate(WHERES)]
ALL += [Asked(one, WHERES[2]) for one in CONSTRUCTIONS[-8:]]
DISTINCT = [Asked(Distinct(column=name), where) for name in "act" for where in WHERES[:2]]
KINDS = ("frame", "csv", "tsv", "parquet", "feather", "jsonl", "excel", "sqlite")
SLOW = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])


@settings(SLOW, max_examples=40)
@given(odd_tables())
def test_whatever_cells_hold_the_sums_are_those_of_the_oracle(frame: pd.DataFrame) -> None:
    """Odd types, text in number columns, infinities, unknown classes, truth values for numbers."""
    same_as_reference(FrameSource(frame), frame, ALL)


@pytest.mark.parametrize("kind", KINDS)
@settings(SLOW, max_examples=8)
@given(frame=plain_tables())
def test_every_kind_of_source_gives_the_same_sums(kind: str, frame: pd.DataFrame, tmp_path: Path) -> None:
    """Empty, one-row and constant tables among them."""
    if kind == "excel":  # a sheet holds no infinity
        frame = frame.replace({"a": {np.inf: 500.0, -np.inf: -500.0}})
    same_as_reference(written(frame, kind, tmp_path), frame, [*ALL, *DISTINCT])


@settings(SLOW, max_examples=15)
@given(frame=plain_tables(), rows=st.integers(3, 4))
def test_subjects_with_few_rows_keep_all_of_them(frame: pd.DataFrame, rows: int) -> None:
    """With at most three rows each, bounding at three takes nothing away."""
    same_as_reference(FrameSource(frame), frame, [*ALL, *DISTINCT], rows=rows)


@settings(SLOW, max_examples=60)
@given(
    values=st.lists(st.floats(-1, 11), max_size=20),
    edges=st.lists(st.integers(0, 10), min_size=2, max_size=9, unique=True),
    shift=st.sampled_from([0.0, 0.1, 1 / 3]),
    even=st.booleans(),
)
def test_a_value_next_to_an_edge_is_on_the_right_side(
    values: list[float], edges: list[int], shift: float, even: bool
) -> None:
    """Bins that are computed and bins that are looked up put the floats around every edge where NumPy does."""
    view = View(Schema(records=9, columns={"v": {"lower": 0, "upper": 11}}))
    made = np.linspace(shift, 10 + shift, len(edges)) if even else np.array(sorted(edges), dtype=float) + shift
    near = [np.nextafter(edge, to) for edge in made for to in (-np.inf, np.inf)]
    frame = pd.DataFrame({"v": [*values, *made, *near]})
    axis = Bins(column="v", edges=tuple(made.tolist()))
    same_as_reference(FrameSource(frame), frame, [Asked(Tally(axes=(axis,)))], view=view)


def test_many_batches_and_threads_add_up_exactly(monkeypatch: pytest.MonkeyPatch) -> None:
    """A table of several batches gives the oracle's sums, also with more cells than rows in a batch."""
    monkeypatch.setattr(engine_module, "_FETCHED", 2048)
    monkeypatch.setattr(engine_module, "_ROWS", 300)
    rng = np.random.default_rng(3)
    n = 5000
    frame = pd.DataFrame(
        {"a": rng.normal(50, 40, n).round(1), "b": rng.normal(0, 1, n), "c": rng.choice(list("xyzw"), n)}
    )
    frame.loc[::7, "a"] = np.nan
    fine = Bins(column="a", edges=tuple(np.linspace(0, 100, 1001)))
    asked = [
        Asked(Tally(axes=(fine, Classes(column="c")))),
        Asked(Sums(terms=(One(), Linear(column="a"), Linear(column="b")), by=(Classes(column="c"),)), WHERES[1]),
        Asked(Outer(columns=(Linear(column="a"), Linear(column="b")))),
    ]
    schema = Schema(records=9, columns={name: SCHEMA.columns[name] for name in "abc"})
    same_as_reference(FrameSource(frame), frame, asked, view=View(schema))


@settings(SLOW, max_examples=30)
@given(st.lists(st.floats(-30, 30), min_size=1, max_size=40), st.integers(1, 9), st.sampled_from(SCORES))
def test_a_row_s_score_is_the_same_wherever_it_stands(values: list[float], shift: int, score: Score) -> None:
    """Alone, among others, shifted, and with a stride between: the last bit of a row's score is its own."""
    alone = [score_of(score, lambda name, one=one: np.array([one]))[0] for one in values]  # type: ignore[misc]
    among = np.concatenate([np.linspace(-3, 3, shift), values])
    strided = np.repeat(np.array(values), 3)[::3]
    assert score_of(score, lambda name: among)[shift:].tolist() == alone
    assert score_of(score, lambda name: strided).tolist() == alone


def test_studies_at_once_leave_blas_as_it_was() -> None:
    """Several at a time in one process, and afterwards BLAS has its threads again."""
    before = [one["num_threads"] for one in threadpool_info()]
    source = FrameSource(pd.DataFrame({"a": np.arange(3000) % 90.0}))
    with ThreadPoolExecutor(4) as pool:
        found = list(
            pool.map(lambda _: run(source, [Asked(Outer(columns=(Linear(column="a"),)))])[0].tolist(), range(8))
        )
    assert len(set(map(str, found))) == 1
    assert [one["num_threads"] for one in threadpool_info()] == before


def test_local_counts_say_what_was_not_finite() -> None:
    """A residual that overflows is counted for the site's own log."""
    report = LocalReport()
    frame = pd.DataFrame({name: [1.0] for name in "abn"} | {"c": ["x"], "f": [True], "t": ["A"]})
    big = CONSTRUCTIONS[-3].model_copy(update={"beta": (1e4, 0.0, 0.0)})
    engine_module.sums(data_of(FrameSource(frame)), VIEW, [Asked(big)], rows=None, entropy=SYSTEM, report=report)
    assert report.nonfinite == 1


def test_what_is_not_declared_is_refused_before_a_row_is_read() -> None:
    """An unknown column, a key list, persons by cells without a bound: each says what to do."""
    source = FrameSource(pd.DataFrame())
    for asked, words in (
        (Tally(axes=(Classes(column="q"),)), "no column 'q'"),
        (Keys(column="t", slots=3), "frequent"),
        (Tally(axes=(Classes(column="c"),), subjects=True), "subject"),
    ):
        with pytest.raises(Misuse, match=words):
            run(source, [Asked(asked)])
    with pytest.raises(Misuse, match="subject"):
        run(source, [Asked(Tally())], view=View(Schema(records=1, columns={"b": SCHEMA.columns["b"]})), rows=1)


def test_nothing_asked_is_nothing_answered() -> None:
    """No construction, no sums."""
    assert run(FrameSource(pd.DataFrame({"a": [1]})), []) == []
