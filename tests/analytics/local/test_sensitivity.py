"""What one row or one subject can change, by exhaustive search over small tables, and how subjects are bounded."""

from __future__ import annotations

from collections import Counter
from itertools import combinations_with_replacement

import numpy as np
import pandas as pd
import pytest
from privfl_analytics.conditions import Compare
from privfl_analytics.constructions import COUNT_SCALE, Bins, Classes, Construction, Distinct, Linear, One, Sums, Tally
from privfl_analytics.local import Asked
from privfl_analytics.local import tables as tables_module

from privfl.tasks import FrameSource
from tests.analytics.local.making import CONSTRUCTIONS, VIEW, Fixed, run

CLIPPED = CONSTRUCTIONS[-4].model_copy(update={"clip": 0.01})
ASKED: tuple[Construction, ...] = (*CONSTRUCTIONS, CLIPPED, Distinct(column="c"), Distinct(column="a"))
#: Rows that go to every corner: both bounds and beyond, missing, undeclared, unreadable.
GRID = (
    {"a": 1e9, "b": -np.inf, "c": "x", "f": True, "n": 0, "t": "ABC"},
    {"a": 0.0, "b": 2.0, "c": "undeclared", "f": False, "n": None, "t": None},
    {"a": None, "b": "text", "c": None, "f": 1, "n": 7, "t": "Q"},
    {"a": 37.5, "b": 0.1, "c": "y", "f": "True", "n": 9, "t": ""},
    {"a": 50.0, "b": 0.5, "c": "x", "f": 0, "n": 2, "t": "A"},
)


def _sums(rows: tuple[tuple[int, object], ...], asked: list[Asked], bound: int | None, seed: int) -> list[np.ndarray]:
    frame = pd.DataFrame([GRID[at] | {"who": who} for at, who in rows], columns=[*GRID[0], "who"], dtype=object)
    return [found.astype(object) for found in run(FrameSource(frame), asked, rows=bound, entropy=Fixed(seed))]


def test_no_row_changes_a_sum_by_more_than_the_plan_claims() -> None:
    """All tables of up to three rows, each against itself without one row; and the bound is reached."""
    asked = [Asked(one) for one in ASKED]
    found = {
        rows: _sums(tuple((at, 1) for at in rows), asked, None, 1)
        for size in range(4)
        for rows in combinations_with_replacement(range(len(GRID)), size)
    }
    worst = [0] * len(asked)
    for rows, sums in found.items():
        for left in range(len(rows)):
            fewer = found[rows[:left] + rows[left + 1 :]]
            for at, (one, other) in enumerate(zip(sums, fewer, strict=True)):
                worst[at] = max(worst[at], int(((one - other) ** 2).sum()))
    for at, one in enumerate(ASKED):
        assert 0 < worst[at] <= one.row2(VIEW), (one, worst[at], one.row2(VIEW))
        if isinstance(one, Tally | Distinct):
            assert worst[at] == one.row2(VIEW)


@pytest.mark.parametrize("bound", [1, 2])
def test_no_subject_changes_a_sum_by_more_than_the_plan_claims(bound: int) -> None:
    """All tables of up to three rows of two subjects (and of none), each against itself without one subject."""
    where = Compare(column="a", operator="<", value=40)
    parts = [one for one in ASKED if not isinstance(one, Distinct)]
    parts += [Tally(subjects=True), Tally(subjects=True, axes=(Classes(column="c"),))]
    asked = [*(Asked(one) for one in parts), *(Asked(one, where) for one in parts[-3:])]
    cells = [(at, who) for at in (0, 3) for who in (1, 2)] + [(0, None)]
    found = {
        rows: _sums(rows, asked, bound, 5) for size in range(4) for rows in combinations_with_replacement(cells, size)
    }
    for rows, sums in found.items():
        for who in {who for _, who in rows}:
            fewer = found[tuple(row for row in rows if row[1] != who)]
            for one, more, less in zip(asked, sums, fewer, strict=True):
                change = int(((more - less) ** 2).sum())
                assert change <= (one.construction.delta2(VIEW, bound) if who is not None else 0), one


def test_each_subject_keeps_at_most_so_many_rows_of_each_filter() -> None:
    """Per filter, the rows that the filter selects are counted and kept; rows without a subject are not."""
    rng = np.random.default_rng(4)
    n = 3000
    frame = pd.DataFrame({"a": rng.integers(0, 100, n).astype(float), "b": 0.0, "who": rng.integers(0, 200, n)})
    frame["a"] = frame["a"].where(~frame["a"].isin([99.0]), 98.0)
    frame["who"] = frame["who"].astype(object).where(rng.random(n) > 0.1, None)
    wheres = [None, Compare(column="a", operator="<", value=20), Compare(column="a", operator=">=", value=90)]
    asked = [Asked(Tally(subjects=once), where) for where in wheres for once in (False, True)]
    view = VIEW
    for bound in (1, 2, 5):
        found = [int(one[0]) // COUNT_SCALE for one in run(FrameSource(frame), asked, view=view, rows=bound)]
        wanted = []
        for rows in (frame, frame[frame.a < 20], frame[frame.a >= 90]):
            sizes = rows.groupby("who").size()
            wanted += [int(sizes.clip(upper=bound).sum()), len(sizes)]
        assert found == wanted


def test_which_rows_are_kept_depends_on_the_key_and_on_the_subject_s_own_rows_alone() -> None:
    """The same key keeps the same rows whatever the order and whoever else is there; another key keeps others."""
    rng = np.random.default_rng(8)
    frame = pd.DataFrame({"a": rng.integers(0, 90, 60).astype(float), "who": np.arange(60) // 10})
    asked = [
        Asked(Sums(terms=(One(), Linear(column="a")))),
        Asked(Tally(axes=(Bins(column="a", edges=(0, 30, 60, 90)),))),
    ]

    def kept(table: pd.DataFrame, seed: int) -> list[list[int]]:
        return [one.tolist() for one in run(FrameSource(table), asked, rows=2, entropy=Fixed(seed))]

    alone = [np.array(kept(part, 3)[0]) for _, part in frame.groupby("who")]
    assert kept(frame, 3) == kept(frame.sample(frac=1, random_state=1), 3)
    assert np.array_equal(sum(alone), kept(frame, 3)[0])
    assert len({str(kept(frame, seed)) for seed in range(6)}) > 1


def test_subjects_are_told_apart_as_they_are_written() -> None:
    """Large whole numbers that are one double are two persons; 1, 1.0 and true are one; a missing one is nobody."""
    large = [2**60, 2**60 + 1, float(2**60)]
    who = [1, 1.0, True, "1", *large, None, np.nan, pd.NA, ""]
    frame = pd.DataFrame({"a": 5.0, "who": pd.Series(who, dtype=object)})
    (found,) = run(FrameSource(frame), [Asked(Tally(subjects=True))], rows=3)
    assert found[0] == 5 * COUNT_SCALE
    whole = pd.DataFrame({"a": 5.0, "who": [2**60, 2**60 + 1, 2**60]})
    assert run(FrameSource(whole), [Asked(Tally())], rows=1)[0][0] == 2 * COUNT_SCALE


def test_every_row_of_a_subject_is_kept_about_as_often() -> None:
    """The keyed order favours no row: over many keys each of four rows is the one kept about one time in four."""
    frame = pd.DataFrame({"a": np.arange(4) * 10.0, "who": 1})
    asked = [Asked(Tally(axes=(Bins(column="a", edges=(0, 10, 20, 30, 40)),)))]
    kept = Counter(int(run(FrameSource(frame), asked, rows=1, entropy=Fixed(seed))[0].argmax()) for seed in range(48))
    assert set(kept) == set(range(4))
    assert max(kept.values()) < 26


def test_a_bounded_study_is_larger_than_the_memory_it_may_use(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bounding sorts all rows; with little memory it goes to files and gives the same numbers."""
    monkeypatch.setattr(tables_module, "MEMORY", "60MB")
    n = 400_000
    rng = np.random.default_rng(1)
    frame = pd.DataFrame(
        {name: rng.random(n) for name in "ab"} | {"c": "x", "f": True, "n": 1, "who": np.arange(n) // 4}
    )
    asked = [
        Asked(Tally()),
        Asked(Tally(axes=(Classes(column="n"),))),
        Asked(Sums(terms=(Linear(column="a"), Linear(column="b")))),
    ]
    found = run(FrameSource(frame), asked, rows=2)
    assert found[0].tolist() == [n // 2 * COUNT_SCALE]
    assert found[1].tolist()[1] == n // 2 * COUNT_SCALE
