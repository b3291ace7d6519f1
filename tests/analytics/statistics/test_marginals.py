"""Tables that agree with each other, hide what must not be shown, and give synthetic rows that resemble them."""

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from privfl_analytics.answer import Answer
from privfl_analytics.statistic import Context, Noisy
from privfl_analytics.statistics.marginals import Marginals, _veil
from privfl_analytics.synthesis import synthetic
from privfl_analytics.view import View

from privfl.errors import Misuse
from privfl.tasks import Schema
from tests.analytics.reference import answer

SCHEMA = Schema(
    records=500,
    columns={
        "sex": {"classes": ["f", "m"]},
        "ill": {"classes": [False, True]},
        "stage": {"classes": [1, 2, 3]},
        "age": {"lower": 0, "upper": 100, "missing": [-1]},
    },
)
ROW = st.tuples(
    st.sampled_from(["f", "m", "other", None]),
    st.sampled_from([True, False, None]),
    st.sampled_from([1, 2, 3, 9]),
    st.one_of(st.floats(0, 100), st.sampled_from([-1.0, math.nan, 50.0])),
)
SITES = st.lists(st.lists(ROW, max_size=25), min_size=1, max_size=3)
FEW = settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
NAMES = ["sex", "ill", "stage", "age"]
ASKED = Marginals(columns=("sex", "age"), pairs=(("sex", "ill"), ("ill", "stage"), ("stage", "age")), bins=4)


def frames(sites):
    return [pd.DataFrame(rows, columns=NAMES).astype({"sex": object, "ill": object}) for rows in sites]


def count(sites, **cells):
    """How many rows lie in these cells, by their labels."""

    def label(name, value):
        if name == "age":
            if math.isnan(value) or value == -1:
                return "missing"
            return ("[0, 25)", "[25, 50)", "[50, 75)", "[75, 100]")[min(int(value // 25), 3)]
        if value is None:
            return "missing"
        return str(value) if value in SCHEMA.columns[name].classes else "other"

    rows = [dict(zip(NAMES, row, strict=True)) for site in sites for row in site]
    return sum(all(label(name, row[name]) == cell for name, cell in cells.items()) for row in rows)


@FEW
@given(SITES)
def test_every_cell_of_every_table_is_the_pooled_count(sites):
    found = answer(ASKED, SCHEMA, frames(sites))
    assert len(found.rows) == 4 + 5 + 4 * 4 + 4 * 5 + 5 * 5
    for row in found.rows:
        assert row.value == count(sites, **row.at)


def sums(rng, tables, sds):
    view = View(SCHEMA)
    shapes = [one.shape(view) for one in ASKED.constructions(view)]
    return [
        Noisy(table.reshape(shape) + rng.normal(0, sd, shape), sd)
        for table, shape, sd in zip(tables, shapes, sds, strict=True)
    ]


def exact(rng, size=600):
    """The five tables of rows with a number that leans on the stage."""
    sex, ill, stage = rng.integers(0, 2, size), rng.integers(0, 2, size), rng.integers(0, 3, size)
    age = np.minimum(stage + rng.integers(0, 2, size), 3)
    out = []
    for one in ((sex, 4), (age, 6)):
        out.append(np.bincount(one[0], minlength=one[1]).astype(float))
    for (a, n), (b, m) in (((sex, 4), (ill, 4)), ((ill, 4), (stage, 5)), ((stage, 5), (age, 6))):
        table = np.zeros((n, m))
        np.add.at(table, (a, b), 1)
        out.append(table)
    return out


def test_noisy_tables_agree_in_their_totals_and_margins_and_stay_unbiased():
    rng, view, found = np.random.default_rng(41), View(SCHEMA), []
    tables = exact(rng)
    for _ in range(150):
        said = ASKED.decode(view, [sums(rng, tables, [4, 4, 4, 6, 4])], [None], Context(rng=rng))
        found.append(said.value("count", sex="f"))
        two = {tuple(one["columns"]): np.array(one["counts"]) for one in said.details["two_way"]}
        totals = [np.sum(one) for one in (*two.values(), *said.details["one_way"].values())]
        assert totals == pytest.approx([totals[0]] * len(totals))
        assert min(np.min(one) for one in two.values()) >= 0
    assert np.mean(found) == pytest.approx(tables[0][0], abs=1.0)
    assert np.std(found) < 4  # the table of pairs tells of it too


def test_intervals_of_cells_cover_them():
    rng, view, hits = np.random.default_rng(42), View(SCHEMA), []
    tables = exact(rng)
    for _ in range(100):
        context = Context(rng=rng, interval="rows")
        said = ASKED.decode(view, [sums(rng, tables, [5.0] * 5)], [None], context)
        for at, name in enumerate(("f", "m")):
            row = next(row for row in said.rows if dict(row.at) == {"sex": name})
            hits.append(row.lower <= tables[0][at] <= row.upper)
            row = next(row for row in said.rows if dict(row.at) == {"sex": name, "ill": "True"})
            hits.append(row.lower <= tables[2][at, 1] <= row.upper)
    assert np.mean(hits) > 0.92


@FEW
@given(st.lists(st.lists(st.integers(0, 12), min_size=4, max_size=4), min_size=3, max_size=5), st.integers(0, 31))
def test_no_hidden_cell_can_be_had_by_subtraction(counts, bits):
    counts = np.array(counts, dtype=float)
    above = np.array([bool(bits >> at & 1) for at in range(len(counts))])
    mask = _veil(counts, above, np.zeros(4, dtype=bool), 5)
    assert mask[counts < 5].all()
    assert all(line.sum() != 1 for line in mask.T)
    assert all(line.any() if margin else line.sum() != 1 for line, margin in zip(mask, above, strict=True))


def test_small_cells_are_hidden_and_are_not_in_what_is_drawn_from():
    frame = pd.DataFrame({"sex": ["f"] * 40 + ["m"] * 3, "ill": [True, False] * 21 + [True], "stage": 1, "age": 30.0})
    found = answer(ASKED, SCHEMA, [frame], context=Context(min_cell_count=5))
    assert math.isnan(found.value("count", sex="m", ill="True"))
    assert found.details["one_way"]["sex"] == pytest.approx([40, 1, 1, 1])


def test_absurd_noise_is_not_resolved_and_gives_no_rows():
    found = answer(ASKED, SCHEMA, frames([[("f", True, 1, 30.0)] * 50]), sd=1e4)
    assert not found.resolved
    with pytest.raises(Misuse, match="noise alone"):
        synthetic(found, 10)


def test_synthetic_rows_have_the_tables_they_were_drawn_from():
    """Pairs along the tree are kept; a number lies in its bin; what is missing stays so, and so do types."""
    rng = np.random.default_rng(43)
    sex, stage = rng.choice(["f", "m"], 2000, p=[0.7, 0.3]), rng.integers(1, 4, 2000)
    frame = pd.DataFrame(
        {
            "sex": sex,
            "ill": np.where(rng.random(2000) < 0.9, sex == "f", sex == "m"),
            "stage": stage,
            "age": np.where(rng.random(2000) < 0.1, np.nan, 25.0 * stage + rng.uniform(0, 25, 2000)),
        }
    )
    found = Answer.from_value(answer(ASKED, SCHEMA, [frame], sd=2.0).to_value())
    rows = synthetic(found, 20_000, np.random.default_rng(44))
    assert list(rows.columns) == ["sex", "age", "ill", "stage"]
    assert (rows.sex == "f").mean() == pytest.approx((sex == "f").mean(), abs=0.02)
    f = rows[rows.sex == "f"]
    assert (f.ill == True).mean() == pytest.approx(frame.ill[frame.sex == "f"].mean(), abs=0.03)  # noqa: E712
    assert rows.age.isna().mean() == pytest.approx(0.1, abs=0.02)
    third = rows.age[(rows.stage == 3) & rows.age.notna()]
    assert third.between(75, 100).mean() > 0.95
    again = synthetic(found, 20_000, np.random.default_rng(44))
    pd.testing.assert_frame_equal(rows, again)
    SCHEMA.bind(rows.dropna())


def test_numbers_beyond_the_edges_are_drawn_there():
    frame = pd.DataFrame({"age": [5.0] * 30 + [45.0] * 50 + [99.0] * 20})
    found = answer(Marginals(columns=("age",), edges={"age": (40, 50)}), SCHEMA, [frame])
    assert found.value("count", age="outside") == 50
    rows = synthetic(found, 4000, np.random.default_rng(1))
    assert rows.age.between(40, 50).mean() == pytest.approx(0.5, abs=0.05)
    assert rows.age.between(0, 100).all()


def test_what_does_not_fit_is_refused_in_words():
    view = View(SCHEMA)
    with pytest.raises(Misuse, match="each table once"):
        Marginals(pairs=(("sex", "ill"), ("ill", "sex"))).constructions(view)
    with pytest.raises(Misuse, match="each table once"):
        Marginals().constructions(view)
    with pytest.raises(Misuse, match="none of the tables"):
        Marginals(columns=("sex",), edges={"age": (0, 1)}).constructions(view)
    with pytest.raises(Misuse, match="answer of marginals"):
        synthetic(Answer(title="", statistic="mean", rows=()), 3)
    with pytest.raises(Misuse, match="how many"):
        synthetic(answer(ASKED, SCHEMA, frames([[("f", True, 1, 30.0)]])), -1)
