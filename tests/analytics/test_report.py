"""The report of a study: one file that asks for nothing, escapes everything and tells the whole story."""

from __future__ import annotations

import base64
import builtins
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import matplotlib as mpl
import pytest

mpl.use("Agg")

from privfl_analytics.answer import Answer, Row
from privfl_analytics.query import Query
from privfl_analytics.report import html_report, write_report
from privfl_analytics.result import PrivacyReport, StudyResult
from privfl_analytics.statistics.profile import ProfileCounts
from privfl_analytics.study import Study

from privfl.errors import Misuse, StorageError

EVIL = "<script>alert('1')</script><img src=x onerror=alert(1)>\"'&"
PRIVACY = PrivacyReport(1.0, 1e-6, 0.04, "record", "distributed", 1.9, 3, 1.0)


def result(privacy: PrivacyReport = PRIVACY, evil: str = "the ages") -> StudyResult:
    """Two answers, one of them partly lost."""
    bars = [Row("count", 100.25, {evil: f"[{at}, {at + 1})"}, 3.0, 94.0, 106.0, evil) for at in range(20)]
    lost = Row("count", None, {evil: evil}, note=f"not resolved at this budget{evil}")
    answers = {
        "first": Answer(f"first {evil}", "profile", (*bars, lost), "histogram", notes=(evil,), sites=3, records=2000),
        "second": Answer("second", "profile", (Row("mean", 50.1234, {}, 0.4, 49.3, 50.9, "years"),), interval="rows"),
    }
    queries = tuple(Query(name=name, statistic=ProfileCounts(column="age")) for name in answers)
    return StudyResult(Study("pre-training", queries, description=evil), answers, privacy, (3, 3))


class Seen(HTMLParser):
    """Tags, what they refer to, and text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.refers: list[str] = []
        self.handlers: list[str] = []
        self.said = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        for name, value in attrs:
            if name in ("href", "src", "srcset", "action", "data", "xlink:href", "poster"):
                self.refers.append(value or "")
            if name.startswith("on"):
                self.handlers.append(name)

    def handle_data(self, data: str) -> None:
        self.said += data


def test_nothing_is_asked_of_any_network() -> None:
    """Every reference is a data address or a place in the file; pictures themselves have none either."""
    text = html_report(result())
    seen = Seen(text)
    assert seen.refers
    assert all(one.startswith(("data:image/svg+xml;base64,", "#")) for one in seen.refers)
    assert not re.search(r"https?://|url\(|@import|<link|<script", text)
    for one in seen.refers:
        if one.startswith("data:"):
            picture = base64.b64decode(one.partition(",")[2]).decode()
            assert "<svg" in picture
            assert "<script" not in picture
            links = re.findall(r'href="([^"]*)"', picture)
            assert all(link.startswith(("#", "data:")) for link in links)
    assert "default-src 'none'" in text


def test_everything_is_escaped() -> None:
    """Names, cells, units and notes that come from files are text, wherever they stand."""
    text = html_report(result(evil=EVIL))
    seen = Seen(text)
    assert "script" not in seen.tags
    assert seen.tags.count("img") == 2, "the two plots alone"
    assert not seen.handlers
    assert EVIL in seen.said


def test_the_story_is_told() -> None:
    """What was asked, cost, guarantee, trust, sites, what was lost, what intervals mean, and how to check it."""
    said = " ".join(Seen(html_report(result())).said.split())
    for words in (
        "Counts of age over fixed cells",
        "one record (one row of one site's table)",
        "e^1 = 2.72 (epsilon 1)",
        "probability of 1e-06 (delta)",
        "3 uploads of every site",
        "If all other sites colluded, epsilon would be 1.9",
        "The sums hold 3 sites",
        "1 of 21 numbers not resolved at this budget",
        "95% intervals for the population",
        "95% intervals for what these very rows",
        "privfl transcript verify",
        "50.12",
    ):
        assert words in said, words


def test_other_guarantees_are_told_apart() -> None:
    """Local noise, persons, and none at all."""
    local = Seen(html_report(result(PrivacyReport(1.0, 1e-6, 0.04, "subject", "local", None, 1)))).said
    assert "Each site added all of the noise itself" in local
    assert "one person (all rows" in local
    assert "No site's own numbers" not in local
    weak = Seen(html_report(result(PrivacyReport(50.0, 1e-6, 0.04, "record", "distributed", None, 1)))).said
    assert "promises little" in weak
    none = Seen(html_report(result(PrivacyReport(None, None, 0.0, "record", "none", None, 0)))).said
    assert "no differential privacy" in none


def test_it_is_written_where_it_is_asked(tmp_path: Path) -> None:
    """By the function and by the result; a place that cannot be written is said."""
    assert write_report(result(), tmp_path / "a.html").read_text() == html_report(result(), tmp_path / "b.html")
    assert result().to_html(tmp_path / "c.html").exists()
    with pytest.raises(StorageError, match="cannot be written"):
        html_report(result(), tmp_path / "none" / "d.html")


def test_without_the_extras(monkeypatch: pytest.MonkeyPatch) -> None:
    """No matplotlib: tables and a hint. No Jinja2: how to get it."""
    real, barred = builtins.__import__, ["matplotlib"]

    def none(name: str, *rest: Any, **more: Any) -> Any:
        if name.startswith(tuple(barred)):
            raise ImportError(name)
        return real(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", none)
    said = Seen(html_report(result())).said
    assert "privfl[plots]" in said
    assert "100.2" in said
    barred.append("jinja2")
    with pytest.raises(Misuse, match=r"privfl\[analytics\]"):
        html_report(result())
