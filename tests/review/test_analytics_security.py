"""Regressions of a security review of analytics: what strangers and operators must not be able to do to each other."""

from __future__ import annotations

import io
import json
import threading
import time
from dataclasses import replace
from fractions import Fraction
from importlib.metadata import EntryPoint
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pandas as pd
import privfl_analytics.local.tables as tables_module
import pytest
from privfl_analytics import Query, Study
from privfl_analytics.answer import Answer, Picture, Row
from privfl_analytics.conditions import All, Any_, Compare, Condition, IsMissing
from privfl_analytics.constructions import COUNT_SCALE, Prefixes, Presence, Tally
from privfl_analytics.descriptor import Descriptor
from privfl_analytics.local import Asked, sums
from privfl_analytics.preview import OwnAnswers
from privfl_analytics.question import StudyQuestion
from privfl_analytics.rebuild import MAX_DESCRIPTOR
from privfl_analytics.report import html_report
from privfl_analytics.result import PrivacyReport, StudyResult
from privfl_analytics.tables import answer_table
from privfl_analytics.view import Score, View
from privfl_keys import SigningKey
from rich.console import Console

from privfl.budget import Budget, Limits, Purpose
from privfl.cli.requests_show import Shown
from privfl.dp import Unit
from privfl.entropy import SYSTEM
from privfl.errors import Malformed, Misuse, Refused
from privfl.homes import requests as requests_module
from privfl.homes.requests import Request, RequestBook
from privfl.runtime.desk import MAX_REASON, _Phase
from privfl.runtime.desk import View as View_
from privfl.runtime.post import Received, Refusal
from privfl.tasks import DatabaseSource, Schema, SiteData, plugins
from privfl.tasks.data import FrameSource

MARK = b"MARKEDPATIENT"
SCHEMA = Schema(
    records=10_000,
    columns={"age": {"lower": 0, "upper": 110}, "hiv": {"lower": 0, "upper": 1}, "sex": {"classes": ["f", "m"]}},  # type: ignore[dict-item]
)


def test_rows_that_do_not_fit_into_memory_spill_encrypted_and_nothing_stays(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Bounding more rows than memory holds gives the exact sums; files show no value, others may not open them."""
    monkeypatch.setattr(tables_module, "MEMORY", "60MB")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    n = 400_000
    schema = Schema(records=n, columns={"t": {"max_length": 64}}, subject="who", max_rows=2)  # type: ignore[dict-item]
    texts = [f"{MARK.decode()}{at:051d}" for at in range(n)]
    source = FrameSource(pd.DataFrame({"t": texts, "who": np.arange(n) // 4}))
    modes, sizes, marks, over = set[int](), [0], [0], threading.Event()

    def watch() -> None:
        while not over.is_set():
            for path in tmp_path.glob("privfl-*/**/*"):
                try:
                    data = path.read_bytes()
                    modes.add(path.parent.stat().st_mode & 0o777)
                except OSError:
                    continue
                sizes.append(len(data))
                marks.append(data.count(MARK))
            time.sleep(0.02)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        asked = [Asked(Tally()), Asked(Tally(axes=(Presence(column="t"),)))]
        found = sums(SiteData(schema, source), View(schema), asked, rows=2, entropy=SYSTEM)
    finally:
        over.set()
        watcher.join()
    assert [one.tolist() for one in found] == [[n // 2 * COUNT_SCALE], [n // 2 * COUNT_SCALE, 0]]
    assert max(sizes) > 2**16, "it did not spill"
    assert max(marks) == 0
    assert modes == {0o700}
    assert not list(tmp_path.iterdir())


def asked(**changes: object) -> StudyQuestion:
    """A question as a site reads it, with some of the study's JSON exchanged by the coordinator."""
    told = Descriptor.decode(
        Study("s", ("count",)).compile(SCHEMA, epsilon=1.0, delta=1e-6, sites=4).descriptor()  # type: ignore[arg-type]
    )
    study: dict[str, Any] = {**json.loads(told.study), **changes}
    return StudyQuestion.from_descriptor(replace(told, study=json.dumps(study)).encode())


def nested(levels: int) -> Condition:
    """A condition of so many levels, each of which doubles a careless planner's work."""
    here: Condition = Compare(column="age", operator=">", value=3)
    for at in range(levels):
        kind = All if at % 2 else Any_
        here = kind(parts=(here, IsMissing(column="age")))
    return here


def test_a_deep_condition_is_refused_before_anything_is_charged() -> None:
    """14 KiB of alternating AND and OR on 190 levels kept a site's database busy for minutes after the charge."""
    deep = {**Query().count().to_value(), "where": nested(60).model_dump(mode="json")}
    with pytest.raises(Malformed, match="levels"):
        asked(queries=[deep])
    Study("s", (Query(condition=nested(20)).count(),)).check(SCHEMA)


def test_the_size_of_a_study_is_bounded_before_it_is_worked_on() -> None:
    """Comparisons, scores and bytes: each took a site time in the square of what a peer sent."""
    wide = Any_(parts=tuple(Compare(column="age", operator=">", value=at % 100) for at in range(1001)))
    with pytest.raises(Misuse, match="comparisons"):
        Study("s", (Query(condition=wide).count(),)).check(SCHEMA)
    some = Any_(parts=wide.parts[:1000])
    with pytest.raises(Misuse, match="comparisons"):
        Study("s", tuple(Query(condition=some, name=f"q{at}").count() for at in range(11)))
    with pytest.raises(Misuse, match="scores"):
        Study("s", ("count",), tuple(Score(name=f"s{at}", weights={"age": 1.0}) for at in range(1001)))  # type: ignore[arg-type]
    with pytest.raises(Malformed, match="bytes"):
        StudyQuestion.from_descriptor(bytes(MAX_DESCRIPTOR + 1))


def test_the_cells_of_a_prefix_tree_are_counted_without_being_written(monkeypatch: pytest.MonkeyPatch) -> None:
    """A thousand trees of 64 rounds each had a site write hundreds of millions of labels before any check."""
    schema = Schema(records=10, columns={"t": {"max_length": 3, "alphabet": "ABC"}})  # type: ignore[dict-item]
    view, axis = View(schema), Prefixes(column="t", size=5, candidates=("AB", "CA"))
    labels = axis.labels(view)
    monkeypatch.delattr(Prefixes, "labels")
    assert Tally(axes=(axis,)).shape(view) == (len(labels),)


def test_a_score_has_no_name_that_looks_like_a_column_s() -> None:
    """ "age " reads as "age" in whatever is shown to people."""
    with pytest.raises(Misuse, match="name"):
        Score(name="age ", weights={"hiv": 1.0})


def test_what_an_operator_reads_is_what_is_computed() -> None:
    """A description cannot write lines of the explanation, a score is shown as a formula, edges and conditions too."""
    forged = (
        "for a paper\n\nAsked:\n  n: the number of rows (reads no column)\n\n  cost: epsilon 0.001\x1b[2J"
        + " " * 300
        + "x"
    )
    score = Score(name="Age group", weights={"hiv": 50.0, "age": 0.0}, intercept=-25.0)
    met = {"kind": "meets", "condition": {"kind": "compare", "column": "hiv", "operator": ">", "value": 0.5}}
    by_met = Query.from_value({**Query().count().to_value(), "by": [met]})
    edges = Query().histogram("age", bins=(0, 41.5, 42.5, 110))
    study = Study("s", (Query().where("`Age group` > 0.5").count(), by_met, edges), (score,), description=forged)
    lines = str(study.compile(SCHEMA, epsilon=4.0, delta=1e-6, sites=4).explain()).splitlines()
    assert lines.count("Asked:") == 1
    assert not any(line.startswith(("  n:", "  cost:")) for line in lines)
    assert "\x1b" not in "".join(lines)
    assert "  " not in lines[0]
    assert "  'Age group' = logistic(-25.0 + 50.0 x 'hiv' + 0.0 x 'age'), within [0.0, 1.0]" in lines
    assert any("for every group of whether hiv > 0.5" in line for line in lines)
    assert any("exactly" in line and "41.5" in line for line in lines)


@pytest.mark.parametrize(
    "rest",
    [
        "u:pa#ss@h/db",
        "u:pa?ss@h/db",
        "u:pa/ss@h/db",
        "u:p@h/db",
        "u:1#x@h:5432/db",
        "h/db?%70assword=x",
        "h/db?a=1&PWD=x",
    ],
)
def test_no_password_gets_into_a_configuration(rest: str) -> None:
    """A driver takes passwords that a URL parser does not see, as they hold a # or a ?."""
    with pytest.raises(Misuse, match="password"):
        DatabaseSource.of(f"postgresql://{rest}", "t")


@pytest.mark.parametrize(
    "rest",
    [
        "u@h:5432/db",
        "/db?host=/tmp&user=a",
        "h1:1,h2:2/db?user=me@srv",
        "h/db?passfile=/a/b",
        "u@[::1]:5432/db",
        "u:@/db",
    ],
)
def test_an_address_without_a_password_is_taken(rest: str) -> None:
    """Ports, users with an @ and files of passwords are none."""
    assert DatabaseSource.of(f"postgresql://{rest}", "t").uri.endswith(rest)


def saved(**row: object) -> dict[str, Any]:
    """A result as its file has it, with some of its row exchanged."""
    answer = Answer("t", "count", (Row("count", 3.0, at={"c": "x"}),))
    spent = PrivacyReport(1.0, 1e-6, 1.0, "record", "local", None, 1)
    value: dict[str, Any] = json.loads(StudyResult(Study("s", ("count",)), {"n": answer}, spent, (3,)).to_json())  # type: ignore[arg-type]
    value["answers"]["n"]["rows"][0].update(row)
    return value


@pytest.mark.parametrize(
    "row", [{"value": "<b>"}, {"value": 10**400}, {"at": ["x"]}, {"at": {"c": {}}}, {"what": 3}, {"lower": True}]
)
def test_a_foreign_result_is_refused_and_not_half_shown(row: dict[str, object]) -> None:
    """Whatever a file holds is a result or Malformed, never a traceback on the way to a table or a page."""
    StudyResult.from_value(saved())
    with pytest.raises(Malformed):
        StudyResult.from_value(saved(**row))


def test_a_foreign_result_without_end_is_refused(tmp_path: Path) -> None:
    """Brackets deeper than any stack, a share of privacy in words, more sites than numbers reach."""
    (tmp_path / "study_result.json").write_text("[" * 100_000)
    with pytest.raises(Malformed):
        StudyResult.load(tmp_path)
    for name, other in (("privacy", {**saved()["privacy"], "epsilon": "none"}), ("survivors", [float("inf")])):
        with pytest.raises(Malformed):
            StudyResult.from_value({**saved(), name: other})


def test_names_in_answers_are_neither_markup_nor_orders_to_a_terminal() -> None:
    """Of columns, classes and numbers, in tables and in what an operator sees of his own rows."""
    odd = "[/x][red]\x1b[2J"
    answer = Answer(odd, "count", (Row(odd, 3.0, at={odd: odd}, unit=odd, note=odd),), notes=(odd,))
    console = Console(file=io.StringIO(), width=400, force_terminal=True)
    console.print(answer_table(odd, answer))
    spent = PrivacyReport(None, None, 0.0, "record", "none", None, 1)
    own = str(OwnAnswers(StudyResult(Study("s", ("count",)), {odd: answer}, spent)))  # type: ignore[arg-type]
    for text in (console.file.getvalue(), own):  # type: ignore[attr-defined]
        assert "[/x][red]" in text
        assert "\x1b[2J" not in text


@pytest.mark.parametrize("picture", ["numbers", "histogram", "matrix", "table"])
def test_a_dollar_in_a_name_is_no_formula(picture: Picture) -> None:
    """A class called like a broken formula stopped the whole report."""
    odd = "$\\x_{$ $$"
    rows = tuple(Row("count", 3.0, at={odd: f"{odd}{at}"}, unit=odd, note=odd) for at in range(2))
    spent = PrivacyReport(1.0, 1e-6, 1.0, "record", "local", None, 1)
    found = StudyResult(Study("s", ("count",)), {"n": Answer(odd, "count", rows, picture, notes=(odd,))}, spent, (3,))  # type: ignore[arg-type]
    assert "$$" in html_report(found)


def test_two_parts_of_one_name_are_told_and_none_is_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whichever was found last answered for the other; the same part listed twice is no matter."""
    same, other = EntryPoint("study", "a:b", "privfl.questions"), EntryPoint("study", "evil:b", "privfl.questions")
    monkeypatch.setattr(plugins, "entry_points", lambda group: [same, same])
    plugins._found.cache_clear()
    try:
        assert plugins.names("privfl.questions") == ("study",)
        plugins._found.cache_clear()
        monkeypatch.setattr(plugins, "entry_points", lambda group: [same, other])
        with pytest.raises(Misuse, match="evil:b"):
            plugins.plugin("privfl.questions", "study")
    finally:
        plugins._found.cache_clear()


def test_a_site_s_reason_is_short_and_gives_no_orders_to_a_terminal() -> None:
    """It ends in errors that are printed for whoever asked."""
    site, refusal = bytes(32), Refusal("no\x1b]0;owned\x07" + "x" * 10**6).encode()
    phase = _Phase(
        cast("Any", SimpleNamespace(_heard=lambda _: None, view=View_(), _late={})), "announce", {b"m": site}, bool
    )
    phase.handle(Received(site, "refused", b"", b"m", refusal, (), lambda ref: b""))
    assert phase.reasons[site].startswith("no\\x1b]0;owned\\x07")
    assert len(phase.reasons[site]) < 2 * MAX_REASON


def test_a_report_replaces_nothing_but_a_report(tmp_path: Path) -> None:
    """``--html study.yaml`` would have cost the study; a report that is written anew is whole or the old one."""
    found, mine, page = StudyResult.from_value(saved()), tmp_path / "study.yaml", tmp_path / "a.html"
    mine.write_text("study: mine")
    with pytest.raises(Misuse, match="no report"):
        html_report(found, mine)
    assert mine.read_text() == "study: mine"
    for _ in range(2):
        assert html_report(found, page) == page.read_text()
    assert sorted(tmp_path.iterdir()) == [page, mine]


def test_the_worst_that_an_approval_allows_is_the_dearest_upload_each_time() -> None:
    """Nothing ties an upload to a round of its own: all that are approved may be of the round that costs most."""
    study = Study("s", (Query().count().weighted(100), Query().variance("age", two_stage=True)))
    question = study.compile(SCHEMA, epsilon=4.0, delta=1e-6, sites=4, attempts=3)
    limits = Limits(Unit.RECORD, Budget.from_epsilon_delta(8.0, 1e-5), dict.fromkeys(Purpose, Fraction(1)), {})
    ledger, request = SimpleNamespace(limits=limits), SimpleNamespace(analyst="", mandate=b"")
    shown = Shown(cast("Any", ledger), cast("Any", request), question, cast("Any", None))
    cost, worst = shown.cost(), shown.worst()
    assert cost is not None
    assert worst is not None
    assert worst.mu2 >= question.uploads * max(question.cost_at(stage).mu2 for stage in range(question.stages))
    assert worst.mu2 > 3 * cost.mu2


def test_a_request_that_was_shown_is_not_exchanged_for_one_whose_id_begins_alike(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A coordinator could push a harmless request out and put another of the same beginning into its place."""
    monkeypatch.setattr(requests_module, "MAX_PENDING", 3)
    book = RequestBook(tmp_path, SigningKey.generate(SYSTEM).verify_key)

    def asked(at: int) -> Request:
        return book.record(Request(b"question %d" % at, b"", b"h" * 32, "hub", "", "analytics", at + 1))

    read = asked(0)
    book.looked_at(read)
    for at in range(1, 20):
        asked(at)
    assert read in book.all()
    assert len(book.all()) == 3
    for one in book.all():
        book.looked_at(one)
    with pytest.raises(Refused, match="wait for this site's operator"):
        asked(20)
    assert read in book.all()
