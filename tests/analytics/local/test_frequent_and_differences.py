"""Frequent values of a site, and how its table differs from the schema."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from privfl_analytics.conditions import Compare
from privfl_analytics.constructions import COUNT_SCALE, Keys, Tally
from privfl_analytics.local import Asked, columns_of_source, differences, frequent
from privfl_analytics.noise import ROOM
from privfl_analytics.view import View

from privfl.dp import DiscreteGaussian
from privfl.entropy import SYSTEM, Keystream
from privfl.errors import DataError, Misuse
from privfl.tasks import FileSource, FrameSource, Schema, SiteData
from tests.analytics.local.making import SCHEMA, VIEW, Fixed, data_of, written

NARROW = Schema(
    records=10,
    columns={"height": {"lower": 0.4, "upper": 2.5, "unit": "m"}, "ill": {"classes": [False, True]}},
    subject="id",
)


def _named(frame: pd.DataFrame, asked: Asked, **options: object) -> list[tuple[int, str]]:
    given = {"sigma": 100.0, "threshold": 3 * COUNT_SCALE, "rows": None, "entropy": SYSTEM} | options
    found = frequent(data_of(FrameSource(frame)), VIEW, asked, **given)  # type: ignore[arg-type]
    assert found.shape == asked.construction.shape(VIEW)
    assert found.dtype == np.int64
    return [(int(row[0]), "".join(map(chr, row[1:][row[1:] > 0]))) for row in found if row.any()]


def test_frequent_values_come_with_exact_noise_largest_first_and_at_most_so_many() -> None:
    """The counts are the true ones plus the sampler's noise; rare values, odd letters and missing ones stay."""
    frame = pd.DataFrame({"t": ["AB"] * 9 + ["ABCA"] * 7 + ["C"] * 5 + ["B"] + ["Q"] * 20 + [None, "-"] * 9, "a": 50.0})
    found = _named(frame, Asked(Keys(column="t", slots=2)), entropy=Fixed(1))
    noise = DiscreteGaussian(100.0).sample(4, Keystream(Fixed(1)))  # AB, ABC, B, C
    assert found == [(9 * COUNT_SCALE + noise[0], "AB"), (7 * COUNT_SCALE + noise[1], "ABC")]
    assert [text for _, text in _named(frame, Asked(Keys(column="t", slots=9)))] == ["AB", "ABC", "C"]
    none = Asked(Keys(column="t", slots=9), Compare(column="a", operator="<", value=10))
    assert _named(frame, none) == []


def test_a_subject_adds_to_frequent_values_by_at_most_its_bound() -> None:
    """A hundred rows of one person are two."""
    frame = pd.DataFrame({"t": ["AB"] * 100 + ["C"] * 10, "who": [1] * 100 + list(range(2, 12))})
    assert [text for _, text in _named(frame, Asked(Keys(column="t", slots=4)), rows=2)] == ["C"]


def test_noise_is_fresh_and_orders_ties_by_itself() -> None:
    """Two values of one count stand in either order, as their noise has it."""
    frame = pd.DataFrame({"t": ["A"] * 20 + ["B"] * 20})
    firsts = {_named(frame, Asked(Keys(column="t", slots=2)), entropy=Fixed(seed))[0][1] for seed in range(12)}
    assert firsts == {"A", "B"}


def test_frequent_values_need_keys_and_noise() -> None:
    """Another construction, or no noise, is refused."""
    data = data_of(FrameSource(pd.DataFrame({"t": ["A"]})))
    for asked, sigma in ((Tally(), 1.0), (Keys(column="t", slots=1), 0.0)):
        with pytest.raises(Misuse):
            frequent(data, VIEW, Asked(asked), sigma=sigma, threshold=1, rows=None, entropy=SYSTEM)


def test_a_table_that_fits_has_no_differences(tmp_path: Path) -> None:
    """In every kind of source."""
    frame = pd.DataFrame(
        {
            "a": [1.0, 99.0],
            "b": [0.0, 1.0],
            "c": ["x", "?"],
            "f": [True, False],
            "n": [0, 9],
            "t": ["A", "B"],
            "who": [1, 2],
        }
    )
    for kind in ("frame", "csv", "parquet", "feather", "jsonl", "sqlite"):
        source = written(frame, kind, tmp_path)
        assert differences(SCHEMA, source) == ()
        assert list(columns_of_source(source)) == list(frame.columns)


def test_differences_name_columns_types_and_units_and_never_a_value() -> None:
    """Missing columns with the nearest there is, other types, units by magnitude, undeclared classes."""
    frame = pd.DataFrame({"Height": [1.7], "ill": ["secretvalue"]})
    missing, subject, ill = differences(NARROW, FrameSource(frame))
    assert "'height' is missing; there is 'Height'" in missing
    assert "subject column 'id'" in subject
    assert "its classes are numbers or truth values" in ill or "none of the declared classes" in ill
    tall = pd.DataFrame({"height": [171.2345, 168.0, 180.0, None], "ill": [0, 1, 2, 1], "id": range(4)})
    unit, other = differences(NARROW, FrameSource(tall))
    assert "looks like another unit (the schema says m): most values are about 100 times too large" in unit
    assert "no declared class" in other
    dates = pd.DataFrame({"height": pd.to_datetime(["2020-01-01"]), "ill": [True], "id": [1]})
    texts = pd.DataFrame({"height": ["secretvalue", "1.8"], "ill": [True, None], "id": [1, 2]})
    empty = pd.DataFrame({"height": [np.nan], "ill": [None], "id": [1]})
    found = [differences(NARROW, FrameSource(one)) for one in (dates, texts, empty, tall.iloc[:0], tall / 1e5)]
    assert "nothing in it that is a number" in found[0][0]
    assert "no numbers; they count as missing" in found[1][0]
    assert found[2:4] == [("column 'height' is empty", "column 'ill' is empty"), ("the table has no rows",)]
    assert "1000 times too small" in found[4][0]
    said = str([differences(NARROW, FrameSource(frame)), unit, other, found])
    assert not any(value in said for value in ("secretvalue", "171.2345", "168", "2020"))


def test_more_rows_than_all_sites_are_declared_to_have_are_told() -> None:
    """In words with the bound that sums are really cut off at; as many rows as declared are none too many."""
    frame = pd.DataFrame({"height": [1.7] * 11, "ill": [True] * 11, "id": range(11)})
    assert differences(NARROW, FrameSource(frame.iloc[:10])) == ()
    (told,) = differences(NARROW, FrameSource(frame))
    assert told.startswith("this table has 11 rows, and the schema declares 10 records over all sites together")
    assert f"beyond {ROOM} times as many" in told
    assert "Have `records` corrected" in told


def test_a_table_that_is_not_there_is_a_readable_refusal(tmp_path: Path) -> None:
    """A missing file, an unknown format, and a file that is none of its format."""
    (tmp_path / "junk.parquet").write_bytes(b"PAR1 secretvalue")
    for path, kind in (
        ("none.csv", "csv"),
        ("junk.parquet", "parquet"),
        ("junk.parquet", "feather"),
        ("junk.parquet", "x"),
    ):
        with pytest.raises(DataError) as raised:
            differences(NARROW, FileSource(tmp_path / path, kind))
        assert "secretvalue" not in str(raised.value)


def test_a_site_bound_for_training_alone_says_so() -> None:
    """Rows that no source stands behind cannot be asked."""
    with pytest.raises(Misuse, match="bind"):
        frequent(
            SiteData(SCHEMA, None),
            View(SCHEMA),
            Asked(Keys(column="t", slots=1)),
            sigma=1.0,
            threshold=1,
            rows=None,
            entropy=SYSTEM,
        )
