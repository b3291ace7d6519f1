"""What an operator sees of his own site: the exact answers of his rows, and nowhere but in his hands."""

from __future__ import annotations

import pickle

import pandas as pd
import pytest
from privfl_analytics import Study
from privfl_analytics.datasets import hospital_schema, hospital_tables

from privfl.tasks import FrameSource, SiteData

SCHEMA = hospital_schema(600)
ROWS: pd.DataFrame = hospital_tables(2, seed=4, patients=600)["north"]


def data() -> SiteData:
    return SiteData.of(SCHEMA.bind(ROWS), FrameSource(ROWS))


def test_a_preview_is_the_exact_answer_of_the_site_s_own_rows() -> None:
    """Two rounds and single-site stretches included, and whatever noise the study itself would carry."""
    study = Study.from_yaml(
        """
study: own
queries:
  - {mean: age, name: age, by: [sex]}
  - {sd: bmi, two_stage: true, name: bmi}
  - {values: ward, name: wards}
  - {site_divergence: ward, name: sites}
"""
    )
    question = study.compile(SCHEMA, epsilon=2.0, delta=1e-6, sites=5)
    shown = question.preview(data())
    for sex, mean in ROWS.groupby("sex")["age"].mean().items():
        assert shown.result["age"].value("mean", sex=str(sex)) == pytest.approx(mean, abs=1e-3)
    assert shown.result["bmi"].value("sd") == pytest.approx(ROWS["bmi"].std(), rel=1e-3)
    assert shown.result["wards"].value("count", ward="surgery") == (ROWS["ward"] == "surgery").sum()
    assert "mean" in str(shown)
    assert "surgery" in str(shown)


def test_a_preview_tells_nothing_by_its_repr_and_does_not_travel() -> None:
    """A log line or a pickle of it holds no number."""
    study = Study.from_yaml("study: own\nqueries:\n  - mean age\n")
    shown = study.compile(SCHEMA, epsilon=2.0, delta=1e-6, sites=5).preview(data())
    assert not any(letter.isdigit() for letter in repr(shown))
    with pytest.raises(TypeError, match="screen"):
        pickle.dumps(shown)
