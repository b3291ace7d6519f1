"""Frequent values: pandas' without noise, honest about order and rarity with it."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from privfl_analytics.constructions import COUNT_SCALE
from privfl_analytics.statistic import Context, Noisy
from privfl_analytics.statistics.frequent import FrequentValues, HeavyHitters, TopK
from privfl_analytics.view import View

from privfl.errors import Misuse
from tests.analytics.reference import answer
from tests.analytics.statistics.made import QUICK, SCHEMA, SITES, covered, frame_of, quiet

VIEW = View(SCHEMA)


def listed(found: object, column: str) -> dict[str, float]:
    return {str(row.at[column]): row.value for row in found.rows if row.at}


@given(SITES)
@QUICK
def test_without_noise_the_top_classes_are_those_of_pandas(frames: list[pd.DataFrame]) -> None:
    counts = pd.concat(frames).ward.value_counts()
    found = listed(answer(TopK(column="ward", k=2), SCHEMA, frames, context=quiet()), "ward")
    assert list(found.values()) == [*counts, 0, 0, 0][:2]
    assert all(counts.get(label, 0) == count for label, count in found.items())


@given(SITES)
@QUICK
def test_without_noise_every_text_is_found_letter_by_letter(frames: list[pd.DataFrame]) -> None:
    """Texts of declared letters, cut at the column's length."""
    texts = [text[:4] for text in pd.concat(frames).code.dropna() if set(text[:4]) <= set("ABCD")]
    found = answer(HeavyHitters(column="code"), SCHEMA, frames, context=quiet())
    assert listed(found, "code") == Counter(texts)
    short = answer(HeavyHitters(column="code", length=2), SCHEMA, frames, context=quiet())
    assert listed(short, "code") == Counter(text if len(text) < 2 else text[:2] + "…" for text in texts)


def test_frequent_texts_are_found_through_noise_and_rare_ones_are_not() -> None:
    rows = [{"code": "ABC"}] * 300 + [{"code": "BD"}] * 200 + [{"code": "DDDD"}] * 2
    found = answer(HeavyHitters(column="code"), SCHEMA, [frame_of(rows)], sd=8.0, context=quiet())
    assert set(listed(found, "code")) == {"ABC", "BD"}
    assert found.value(code="ABC") == pytest.approx(300, abs=40)
    drowned = answer(HeavyHitters(column="code"), SCHEMA, [frame_of(rows)], sd=1e5, context=quiet())
    assert not drowned.resolved
    few = answer(HeavyHitters(column="code"), SCHEMA, [frame_of(rows)], context=quiet(min_cell_count=10))
    assert set(listed(few, "code")) == {"ABC", "BD"}


def test_rounds_are_planned_alike_and_refuse_odd_candidates() -> None:
    asked = HeavyHitters(column="code", size=8)
    for stage in range(1, asked.stages(VIEW)):
        some = {"candidates": ["ABCD"[:stage], "BBBB"[:stage]]}
        planned, moved = asked.constructions(VIEW, stage)[0], asked.constructions(VIEW, stage, some)[0]
        assert (planned.shape(VIEW), planned.row2(VIEW)) == (moved.shape(VIEW), moved.row2(VIEW))
    odd = [{}, {"candidates": "AB"}, {"candidates": ["A", 1]}, {"candidates": ["A"] * 9}, {"candidates": ["AB"]}]
    odd += [{"candidates": ["Z"]}, {"candidates": ["A", "A"]}, {"candidates": ["A"], "more": 1}]
    for state in odd:
        with pytest.raises(Misuse, match="candidates"):
            asked.constructions(VIEW, 1, state)
    with pytest.raises(Misuse, match="at most 4 letters"):
        HeavyHitters(column="code", length=5).stages(VIEW)
    with pytest.raises(Misuse, match="text column"):
        HeavyHitters(column="sex").constructions(VIEW)


def test_candidates_follow_from_noisy_counts_alone() -> None:
    """Noise by itself makes a candidate in about one round of twenty."""
    asked, made = HeavyHitters(column="code"), 0
    for run in range(400):
        noisy = Noisy(np.random.default_rng(run).normal(0, 10, 6), 10.0)
        made += bool(asked.decide(VIEW, 0, [noisy], None)["candidates"])
    assert made <= 400 * 0.05 + 20


def test_the_order_of_close_classes_is_called_open() -> None:
    noisy = Noisy(np.array([100.0, 98.0, 20.0, 5.0, 5.0]), 3.0)
    found = TopK(column="ward", k=3).decode(VIEW, [[noisy]], [None], quiet())
    assert ["order" in row.note for row in found.rows] == [True, False, False]
    hidden = TopK(column="ward", k=3).decode(VIEW, [[noisy]], [None], quiet(min_cell_count=50))
    assert list(listed(hidden, "ward")) == ["a", "b"], "a list of frequent ones leaves the hidden out"


def keys(sites: list[list[tuple[float, str]]]) -> Noisy:
    out = np.zeros((len(sites), 3, 5))
    for site, named in enumerate(sites):
        for place, (count, text) in enumerate(named):
            out[site, place, 0] = count
            out[site, place, 1 : 1 + len(text)] = [ord(letter) / COUNT_SCALE for letter in text]
    return Noisy(out, 5.0)


def test_values_that_sites_name_are_merged_by_their_text() -> None:
    asked = FrequentValues(column="code", slots=3)
    assert asked.local
    noisy = keys([[(40.5, "AB"), (30.0, "C")], [(25.0, "AB")], []])
    found = asked.decode(VIEW, [[noisy]], [None], quiet())
    assert listed(found, "code") == {"AB": 65.5, "C": 30.0}
    assert found.rows[0].note == "named by 2 of 3 sites"
    assert found.rows[0].se == pytest.approx(5 * 2**0.5)
    assert listed(asked.decode(VIEW, [[noisy]], [None], quiet(min_cell_count=50)), "code") == {"AB": 65.5}
    assert not asked.decode(VIEW, [[keys([[], []])]], [None], quiet()).resolved
    strange = keys([[(40.0, "zz")]])
    assert not asked.decode(VIEW, [[strange]], [None], quiet()).resolved, "letters that nobody declared are not shown"


def test_intervals_of_named_values_cover() -> None:
    def once(rng: np.random.Generator) -> tuple:
        counts = [(200 + rng.normal(0, 5), "AB"), (300 + rng.normal(0, 5), "AB")]
        context = Context(interval="rows", records=1000, rng=rng)
        asked = FrequentValues(column="code", slots=3)
        return asked.decode(VIEW, [[keys([[one] for one in counts])]], [None], context).rows[0], 500.0

    covered(once, 200)


def test_words_and_precision() -> None:
    assert "letter by letter" in HeavyHitters(column="code").words()
    assert "not found" in HeavyHitters(column="code").precision(VIEW, [[3.0]] * 4, 1000)
    assert "names" in FrequentValues(column="code").words()
    assert TopK(column="ward").precision(VIEW, [[3.0]], 100) == "each count ± 5.88"
