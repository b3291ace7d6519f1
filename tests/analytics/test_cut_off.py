"""Sums that sites cut off, because they hold far more rows than the schema declares, are called wrong."""

from __future__ import annotations

import pandas as pd
import pytest
from privfl_analytics import Study
from privfl_analytics.decoding import CUT_OFF
from privfl_analytics.monitor import Profile, profile_study

from privfl import Federation
from privfl.errors import DataError
from privfl.tasks import Category, Numeric, Schema


def _federation(records: int, rows: int) -> Federation:
    columns = {"x": Numeric(lower=0, upper=1), "c": Category(classes=["a", "b"])}
    schema = Schema(name="cut", version=1, records=records, columns=columns)
    frame = pd.DataFrame({"x": [0.5] * rows, "c": ["a"] * rows})
    return Federation.local({"one": frame, "two": frame.head(100), "three": frame.head(100)}, schema=schema)


def test_saturated_counts_and_means_say_that_they_are_wrong() -> None:
    """One site holds 50 times the declared rows; the answer to every query that counts them says so."""
    federation = _federation(100, 5000)
    found = federation.ask(
        Study("s", ("count by c", "mean x", "count where c == 'b' as \"none\"")), epsilon=20, delta=1e-4, progress=False
    )
    assert CUT_OFF in found["count rows by c"].notes
    assert CUT_OFF in found["mean x"].notes
    assert CUT_OFF not in found["none"].notes


def test_rough_declarations_are_no_alarm() -> None:
    """Three times the declared rows fit, whether noise is small or as large as still resolves anything."""
    federation = _federation(100, 300)
    for epsilon in (20.0, 1.0):
        found = federation.ask(Study("s", ("count by c", "mean x")), epsilon=epsilon, delta=1e-4, progress=False)
        assert all(CUT_OFF not in answer.notes for answer in found.answers.values())


def test_cut_off_counts_are_no_profile() -> None:
    """Cut-off counts stay the same whatever happens to the rows, so monitoring would call every drift 'ok'."""
    federation = _federation(100, 5000)
    study = profile_study(federation.schema, ["x"])
    found = federation.ask(study, epsilon=20, delta=1e-4, progress=False)
    with pytest.raises(DataError, match="records"):
        Profile.from_result(found, study.view(federation.schema), federation="f", made=0)
