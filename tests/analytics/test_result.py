"""Results: looked up by name, shown, saved and read back."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from privfl_analytics import Answer, Query, Row, Study, StudyResult
from privfl_analytics.result import PrivacyReport

from privfl.errors import Malformed, Misuse
from tests.analytics.studies import PLAIN, SCHEMA, asked

STUDY = Study("some <b>", (Query.parse("mean bmi by sex"), Query.parse("count as 'how many'")))


@pytest.fixture(scope="module")
def result() -> StudyResult:
    return asked(STUDY.compile(SCHEMA, epsilon=20.0, **PLAIN))[1]


def test_answers_are_found_by_name(result: StudyResult) -> None:
    assert list(result) == list(STUDY.names) == ["mean bmi by sex", "how many"]
    assert len(result) == 2
    assert isinstance(result["how many"], Answer)
    with pytest.raises(KeyError, match="there are mean bmi by sex, how many"):
        result["none"]


def test_one_frame_holds_every_number(result: StudyResult) -> None:
    frame = result.to_frame()
    assert len(frame) == sum(len(answer.rows) for answer in result.values())
    assert list(frame.columns) == ["query", "sex", "what", "value", "se", "lower", "upper", "unit", "note"]
    assert set(frame["query"]) == set(result)


def test_a_summary_is_plain(result: StudyResult) -> None:
    assert result.summary("how many") == {"count": result["how many"].value("count")}
    means = result.summary("mean bmi by sex")["mean"]
    assert means["f"] == next(row.value for row in result["mean bmi by sex"].rows if row.at == {"sex": "f"})


def test_saved_and_read_back_it_is_the_same(result: StudyResult, tmp_path: Path) -> None:
    place = result.save(tmp_path / "new" / "folder")
    for where in (place, place.parent):
        again = StudyResult.load(where)
        assert again.to_json() == result.to_json()
        assert again.study == STUDY
        assert again.privacy == result.privacy
    assert [one.name for one in place.parent.iterdir()] == ["study_result.json"]


def test_what_is_no_result(result: StudyResult, tmp_path: Path) -> None:
    with pytest.raises(Misuse, match="cannot be read"):
        StudyResult.load(tmp_path)
    (tmp_path / "study_result.json").write_text("{")
    with pytest.raises(Malformed):
        StudyResult.load(tmp_path)
    value = result.to_value()
    for broken in (
        {**value, "format": 99},
        {**value, "study": {}},
        {**value, "answers": {"a": {}}},
        {**value, "answers": []},
        {**value, "privacy": {"epsilon": 1}},
        {key: one for key, one in value.items() if key != "survivors"},
        [],
        None,
    ):
        with pytest.raises(Malformed):
            StudyResult.from_value(json.loads(json.dumps(broken)))
    (tmp_path / "file").write_text("")
    with pytest.raises(Misuse, match="cannot be written"):
        result.save(tmp_path / "file" / "below")


def test_pictures_and_reports_are_drawn(result: StudyResult, tmp_path: Path) -> None:
    pyplot = pytest.importorskip("matplotlib.pyplot")
    for figure in (result.plot(), result.plot("how many")):
        assert figure.axes
        pyplot.close(figure)
    place = result.to_html(tmp_path / "report.html")
    assert "how many" in place.read_text(encoding="utf-8")
    pyplot.close("all")


def test_pages_and_words_say_what_it_cost(result: StudyResult) -> None:
    page = result._repr_html_()
    assert "some &lt;b&gt;" in page
    assert "if all others collude" in page
    assert repr(result).startswith("StudyResult('some <b>': mean bmi by sex, how many; epsilon ")
    bare = PrivacyReport(None, None, 0.0, "record", "none", None, 1)
    assert str(bare) == "no noise: these answers have no differential privacy"


def test_numbers_that_are_not_there_stay_away(result: StudyResult) -> None:
    hidden = Answer("t", "count", (Row("count", None, {"sex": "f"}, note="below the display minimum"),))
    other = replace(result, answers={"how many": hidden})
    assert StudyResult.from_value(json.loads(other.to_json())).to_frame()["value"].isna().all()
    assert other.summary("how many") == {"count": {"f": None}}


def test_a_repr_says_whose_number_it_is_and_why_one_is_missing() -> None:
    """Groups were left out, and what the policy hides was called not resolved."""
    rows = (Row("mean", 2.5, {"sex": "f"}), Row("mean", None, {"sex": "m"}, note="below the display minimum"))
    assert repr(Answer("t", "mean", rows)) == "Answer(t: f mean 2.5, m mean below the display minimum)"


def test_intervals_that_hold_the_noise_alone_say_so() -> None:
    """Profiles and distinct values have no sampling error in their intervals, whatever the study asked for."""
    found = asked(Study("s", ("profile bmi", "count")).compile(SCHEMA, epsilon=20.0, **PLAIN))[1]
    assert [answer.interval for answer in found.values()] == ["rows", "population"]


def test_one_line_is_a_study_of_one_query() -> None:
    """A text in place of a list was read letter by letter."""
    assert Study("s", "mean bmi").names == ("mean bmi",)  # type: ignore[arg-type]
