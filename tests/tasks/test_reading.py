"""What a schema can say beyond bounds and classes: missing codes, texts, whose row it is; and its digest."""

from __future__ import annotations

import datetime
import uuid
from decimal import Decimal

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from privfl.errors import DataError, Misuse
from privfl.tasks import Schema
from tests.learn.support import SeededEntropy

COLUMNS = {
    "age": {"lower": 0, "upper": 110, "missing": [-9, 999]},
    "ward": {"classes": ["a", "b"], "missing": ["?", "unknown"]},
    "stage": {"classes": [1, 2], "missing": [9]},
    "code": {"max_length": 4},
}
SCHEMA = Schema(records=100, columns=COLUMNS, subject="pid", max_rows=2)


def frame(**columns: object) -> pd.DataFrame:
    plain = {
        "age": [1.0, 2, 3],
        "ward": ["a", "b", "a"],
        "stage": [1, 2, 1],
        "code": ["x", "y", None],
        "pid": [1, 2, 3],
    }
    return pd.DataFrame({**plain, **columns})


def test_missing_codes_are_missing() -> None:
    """They are counted as missing, not as out of bounds or of unknown class; a number reads as the centre."""
    bound = SCHEMA.bind(frame(age=[-9, 999, -8], ward=["?", "unknown", "z"], stage=[9.0, np.nan, 3]))
    assert bound.present[:, 0].tolist() == [False, False, True]
    assert bound.values[:, 0].tolist() == [0.0, 0.0, -1.0]
    assert bound.codes["ward"].tolist() == bound.codes["stage"].tolist() == [-1, -1, -1]
    counts = bound.report.columns
    assert (counts["age"].missing, counts["age"].outside) == (2, 1)
    for name in ("ward", "stage"):
        assert (counts[name].missing, counts[name].unknown) == (2, 1)


def test_an_infinite_missing_code_cannot_be_declared_and_a_code_within_bounds_counts() -> None:
    """A code may lie within the bounds: it is then no value."""
    schema = Schema(records=9, columns={"x": {"lower": 0, "upper": 10, "missing": [5]}})
    assert schema.bind(pd.DataFrame({"x": [5.0, 4.0]})).present[:, 0].tolist() == [False, True]
    with pytest.raises(Misuse):
        Schema(records=9, columns={"x": {"lower": 0, "upper": 10, "missing": [float("inf")]}})


def test_texts_are_checked_for_their_type_alone() -> None:
    """Whatever they hold; training reads none of them."""
    bound = SCHEMA.bind(frame(code=["a very long text with ümläuts", "", None]))
    assert set(bound.codes) == {"ward", "stage"}
    assert bound.values.shape == (3, 1)
    with pytest.raises(DataError, match="column 'code' is float64, not text"):
        SCHEMA.bind(frame(code=[1.5, 2, 3]))


def test_whose_row_it_is() -> None:
    """Numbers and texts are apart, blanks and oddities are nobody, and no kind of id makes binding fail."""
    ids = [
        "7",
        7,
        7.0,
        None,
        "",
        "  ",
        np.nan,
        [1],
        True,
        Decimal("7"),
        datetime.date(2020, 1, 1),
        uuid.UUID(int=1),
        pd.NA,
        b"7",
    ]
    made = pd.DataFrame(
        {name: [column] * len(ids) for name, column in (("age", 1.0), ("ward", "a"), ("stage", 1), ("code", "x"))}
    )
    bound = SCHEMA.bind(made.assign(pid=pd.Series(ids, dtype=object)))
    assert bound.subjects is not None
    assert bound.subjects.tolist() == [0, 1, 1, -1, -1, -1, -1, -1, 2, 0, 3, 4, -1, -1]
    assert Schema(records=9, columns={"age": COLUMNS["age"]}).bind(frame()).subjects is None
    with pytest.raises(DataError, match="column 'pid' is missing, which tells whose row it is"):
        SCHEMA.bind(frame().drop(columns="pid"))
    with pytest.raises(DataError, match="column 'pid' occurs 2 times"):
        SCHEMA.bind(pd.concat([frame(), frame()[["pid"]]], axis=1))


_ROW = st.tuples(
    st.sampled_from([1, 2, 3, None]), st.sampled_from([1.0, 2.0, 50.0, -9.0]), st.sampled_from(["a", "b", "?"])
)


@settings(deadline=None, max_examples=80)
@given(st.lists(_ROW, max_size=20), st.integers(1, 4), st.randoms(use_true_random=False))
def test_kept_rows_depend_on_the_subject_s_own_rows(rows: list[tuple[object, ...]], most: int, random: object) -> None:
    """Other people's rows and the order of the table change nothing; the number kept is right."""
    key = SeededEntropy(3).draw(32)

    class Key:
        def draw(self, size: int) -> bytes:
            return key[:size]

    def kept(some: list[tuple[object, ...]], who: object) -> list[tuple[float, int]]:
        ids, ages, wards = zip(*some, strict=True) if some else ((), (), ())
        made = pd.DataFrame({"pid": pd.Series(ids, dtype=object), "age": pd.Series(ages, dtype=float)})
        made["ward"], made["stage"], made["code"] = pd.Series(wards, dtype=object), 1, "x"
        bound = SCHEMA.bind(made.astype({"stage": int, "code": object}))
        few = bound.bounded(most, Key())
        assert few.subjects is not None
        assert bound.subjects is not None
        number = dict(zip(ids, bound.subjects, strict=True)).get(who, -7)
        at = few.subjects == number
        assert at.sum() == min(most, sum(one == who for one in ids))
        return sorted(zip(few.values[at, 0].tolist(), few.codes["ward"][at].tolist(), strict=True))

    for who in (1, 2, 3):
        alone = [row for row in rows if row[0] == who]
        shuffled = list(rows)
        random.shuffle(shuffled)  # type: ignore[attr-defined]
        assert kept(rows, who) == kept(alone, who) == kept(shuffled, who)


def test_bounding_needs_a_subject() -> None:
    """Said, not guessed."""
    schema = Schema(records=9, columns={"age": COLUMNS["age"]})
    with pytest.raises(Misuse, match="name the subject column in the schema"):
        schema.bind(frame()).bounded(1, SeededEntropy(0))


def test_digest() -> None:
    """Of what is said, not how: order of columns, defaults spelled out; any change of meaning changes it."""
    again = Schema.from_json(SCHEMA.to_json())
    assert again.digest == SCHEMA.digest
    assert len(SCHEMA.digest) == 32
    assert (
        Schema(records=100, columns=dict(reversed(COLUMNS.items())), subject="pid", max_rows=2).digest == SCHEMA.digest
    )
    spelled = {
        **COLUMNS,
        "age": {"kind": "numeric", "lower": 0.0, "upper": 110.0, "missing": [-9.0, 999.0], "center": 55},
    }
    assert Schema(records=100, columns=spelled, subject="pid", max_rows=2, version=1).digest == SCHEMA.digest
    changed = [
        {"records": 101}, {"name": "other"}, {"version": 2}, {"subject": "who"}, {"max_rows": 3},
        {"columns": {**COLUMNS, "age": {"lower": 0, "upper": 110}}},
        {"columns": {**COLUMNS, "ward": {"classes": ["b", "a"], "missing": ["?", "unknown"]}}},
        {"columns": {**COLUMNS, "code": {"max_length": 5}}},
    ]  # fmt: skip
    seen = {
        Schema(**{"records": 100, "columns": COLUMNS, "subject": "pid", "max_rows": 2, **one}).digest for one in changed
    }
    assert len(seen | {SCHEMA.digest}) == len(changed) + 1
    # fixed for good: signed policies hold it
    plain = Schema(records=9, columns={"x": {"lower": 0, "upper": 1}})
    assert plain.digest.hex() == "3a6750516275227da3f7739aab7281efb9d868ddffa3400faf042f04133e16ac"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("columns: {age: {lower: 0}}", "column 'age': has no bounds; write {lower: 0, upper: 110}"),
        ("columns: {age: {lower: , upper: }}", "column 'age': lower and upper not filled in yet; write what is public"),
        ("columns: {age: {classes: []}}", "column 'age': classes not filled in yet"),
        ("columns: {age: 5}", "column 'age': must be a mapping; write {lower: 0, upper: 110}"),
        ("columns: {age: {lower: 5, upper: 1}}", "column 'age': lower 5.0 is not below upper 1.0"),
        ("columns: {a: {classes: [x]}, b: {max_length: 0}}", "column 'b': max_length"),
        ("columns: {a: {classes: [x, y], missing: [x]}}", "column 'a': missing codes must be of the kind"),
        ("columns: {a: {classes: [x, y]}}\nsubject: a", "subject names a column of the table that is none"),
        ("columns: {a: {classes: [x, y]}}\nmax_rows: 3", "max_rows needs subject"),
        ("columns: {a: {clases: [x, y]}}", "column 'a': has no bounds; write"),
        ("records:\ncolumns: {a: {classes: [x, y]}}", "records: not filled in yet"),
    ],
)
def test_complaints_name_the_column(text: str, words: str) -> None:
    """And what to write."""
    with pytest.raises(Misuse) as failed:
        Schema.from_yaml(text if text.startswith("records") else f"records: 10\n{text}\n")
    assert words in str(failed.value)
