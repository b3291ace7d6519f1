"""Every kind of answer draws, headless, with labels, and says what is not known."""

from __future__ import annotations

import builtins
import typing
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import matplotlib as mpl
import numpy as np
import pytest

mpl.use("Agg")

from matplotlib import pyplot
from matplotlib.colors import to_rgb
from privfl_analytics.answer import Answer, Picture, Row
from privfl_analytics.constructions import Classes
from privfl_analytics.drawing.base import PALETTE, with_unit
from privfl_analytics.monitor import MonitorHistory, compare
from privfl_analytics.plots import plot_answer, plot_history
from privfl_analytics.statistic import REGISTRY, Context, statistic_of

from privfl.errors import Misuse
from tests.analytics.monitor.profiles import SCHEMA, patients, profile
from tests.analytics.reference import answer

LOST = Row("count", None, {"age": "[10, 20)"}, note="not resolved at this budget")


@pytest.fixture(autouse=True)
def _closed() -> Iterator[None]:
    yield
    pyplot.close("all")


def made(picture: Picture, rows: list[Row], **details: Any) -> Answer:
    """An answer to draw."""
    return Answer("a title", "made", tuple(rows), picture, notes=("Mind this.",), details=details)


def drawn(found: Answer) -> tuple[Any, list[str]]:
    """Axes, and every text on them after a full drawing."""
    axes = plot_answer(found)
    axes.figure.canvas.draw()
    texts = [text.get_text() for text in axes.figure.findobj(mpl.text.Text)]
    return axes, texts


def of(name: str, *, by: str | None = None, sd: float = 2.0, least: int = 1, **fields: Any) -> Answer:
    """A registered statistic's answer about some patients."""
    kind = statistic_of(name)
    assert kind is not None
    rng = np.random.default_rng(1)
    context = Context(survivors=2, records=2000, rng=rng, min_cell_count=least, draws=200)
    axes = (Classes(column=by),) if by else ()
    found = answer(kind(**fields), SCHEMA, [patients(rng, 900)], by=axes, sd=sd, rng=rng, context=context)
    return replace(found, title=found.title or name)


def every_picture() -> dict[str, Answer]:
    """At least one answer of each kind."""
    grid = list(np.linspace(0, 1, 11))
    rng = np.random.default_rng(2)
    drift = compare(profile(patients(rng, 900), sd=3), profile(patients(rng, 900, older=8), sd=3, seed=2), rng=rng)
    bars = [Row("count", 7.0 + at, {"age": f"[{at}0, {at + 1}0)"}, 1.0, 5.0 + at, 9.0 + at) for at in range(5)]
    rates = [Row("observed rate", at, {"risk": at}, 0.1, at - 0.05, at + 0.05) for at in grid[1:-1]]
    steps = [Row("share below", at, {"age": 100 * at}, 0.02, at - 0.02, at + 0.02) for at in grid]
    curve = [Row("survival", 1 - at / 2, {"time": 10 * at}, 0.02, 0.9 - at / 2, 1.0) for at in grid]
    return {
        "numbers": made("numbers", [Row("mean", 5.0, {}, 1.0, 3.0, 7.0, "kg"), Row("sd", None, note="not resolved")]),
        "histogram": made("histogram", [*bars, Row("count", 3.0, {"age": "missing"})], unit="years"),
        "ecdf": made("ecdf", steps, unit="years"),
        "survival": made("survival", curve, unit="months"),
        "matrix": made("matrix", [Row("correlation", 0.5)], names=["a", "b"], matrix=[[1.0, None], [None, 1.0]]),
        "roc": made("roc", [Row("auc", 0.8, {}, 0.1, 0.7, 0.9)], false_positive_rate=grid, true_positive_rate=grid),
        "precision-recall": made(
            "precision-recall", [Row("average precision", 0.7)], recall=grid, precision=grid[::-1]
        ),
        "calibration": made("calibration", rates),
        "drift": drift.answer(),
        "table": made("table", [Row("odd", 1.0, {"x": "y"})]),
    }


@pytest.mark.parametrize("picture", typing.get_args(Picture))
def test_every_kind_draws(picture: str) -> None:
    """With a title, what the axes are, and the answer's notes as small text."""
    found = every_picture()[picture]
    axes, texts = drawn(found)
    assert any(found.title[1:] in text for text in texts)
    if picture not in ("table", "numbers", "matrix"):
        assert axes.get_xlabel().strip()
    if picture not in ("table", "numbers", "matrix", "drift"):
        assert axes.get_ylabel()
    assert any(found.notes[0][:20] in text for text in texts)


@pytest.mark.parametrize("picture", typing.get_args(Picture))
def test_every_kind_draws_where_nothing_is_resolved_and_with_bare_details(picture: Picture) -> None:
    """No answer breaks its report: no value, no rows, no details, other rows than expected."""
    note = "not resolved at this budget"
    for rows in ([], [Row("count", None, note=note)], [Row("count", 1.0, {"a": "b"})], [Row("x", 2.0, {"a": 1.0})]):
        for details in ({}, {"names": ["a"], "matrix": [[None]]}):
            plot_answer(made(picture, rows, **details)).figure.canvas.draw()
            pyplot.close("all")


def test_what_is_not_known_is_hatched() -> None:
    """A cell that is not resolved, or hidden, is no bar of height 0."""
    found = made("histogram", [Row("count", 5.0, {"age": "[0, 10)"}), LOST])
    axes, texts = drawn(found)
    bars = [patch for patch in axes.patches if patch.get_hatch()]
    assert len(bars) == 1
    assert any("hatched" in text for text in texts)
    whole, _ = drawn(made("histogram", [Row("count", 5.0, {"age": "[0, 10)"})]))
    assert not [patch for patch in whole.patches if patch.get_hatch()]


def test_titles_fit_and_units_are_said_once() -> None:
    """A long title over a narrow picture is wrapped, none of it is cut off; months are in months."""
    title = "the ROC curve of risk for readmitted being True, for every group of sex, among rows where age >= 50"
    answer = replace(every_picture()["roc"], title=title)
    axes = plot_answer(answer)
    figure = axes.get_figure(root=True)
    figure.canvas.draw()
    text = axes.title if axes.title.get_text() else axes._left_title  # type: ignore[attr-defined]
    assert " ".join(text.get_text().split()).lower().startswith(title.lower())
    assert text.get_window_extent().x1 <= figure.bbox.x1
    assert (with_unit("age", "years"), with_unit("months", "months")) == ("age [years]", "months")


def test_areas_and_units_are_in_words() -> None:
    """AUC with its interval in the title, units on the axes, percentages for shares."""
    pictures = every_picture()
    assert any("AUC 0.800 [0.700, 0.900]" in text for text in drawn(pictures["roc"])[1])
    assert drawn(pictures["histogram"])[0].get_xlabel() == "age [years]"
    assert drawn(pictures["survival"])[0].get_xlabel() == "time [months]"
    assert "100%" in drawn(pictures["ecdf"])[1]


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("roc", {"score": "risk", "label": "ill"}),
        ("histogram", {"column": "age"}),
        ("mean", {"column": "age"}),
        ("survival", {"time": "age", "event": "ill"}),
    ],
)
def test_groups_have_a_colour_and_a_name_each(name: str, fields: dict[str, Any]) -> None:
    """Real grouped answers; groups of other and missing sexes stay in the table."""
    if statistic_of(name) is None:
        pytest.skip(f"{name} is not there")
    _, texts = drawn(of(name, by="sex", **fields))
    said = " ".join(texts)
    assert " f" in said or "f" in texts
    assert " m" in said or "m" in texts
    if name != "mean":
        assert "sex other" not in said


def test_registered_statistics_draw() -> None:
    """Every statistic that needs one numeric column, as it decodes here, with and without enough budget."""
    statistic_of("")
    drawn_ = []
    for name in sorted(REGISTRY):
        try:
            built = REGISTRY[name](column="age")
        except Misuse:
            continue
        for sd in (0.5, 3000.0):
            try:
                found = answer(built, SCHEMA, [patients(np.random.default_rng(1), 60)], sd=sd)
            except (Misuse, NotImplementedError):  # text columns, undeclared domains
                continue
            plot_answer(found).figure.canvas.draw()
            pyplot.close("all")
            drawn_.append(name)
    assert "profile" in drawn_


def test_colours_are_told_apart() -> None:
    """Under red and green blindness the first five colours stay apart (Viénot's matrices)."""
    blind = {
        "protan": [[0.11238, 0.88762, 0], [0.11238, 0.88762, 0], [0.00401, -0.00401, 1]],
        "deutan": [[0.29275, 0.70725, 0], [0.29275, 0.70725, 0], [-0.02234, 0.02234, 1]],
    }
    colours = np.array([to_rgb(one) for one in PALETTE[:5]])
    linear = np.where(colours <= 0.04045, colours / 12.92, ((colours + 0.055) / 1.055) ** 2.4)
    for matrix in blind.values():
        seen = np.clip(linear @ np.array(matrix).T, 0, 1) ** (1 / 2.2)
        gaps = [np.linalg.norm(seen[i] - seen[j]) for i in range(5) for j in range(i)]
        assert min(gaps) > 0.1


def test_given_axes_are_drawn_into() -> None:
    """For figures of one's own; the figure keeps its size."""
    for found in every_picture().values():
        figure, (left, right) = pyplot.subplots(1, 2, figsize=(9, 4))
        assert plot_answer(found, left) is left
        assert not right.lines
        assert tuple(figure.get_size_inches()) == (9, 4)
        pyplot.close("all")


def test_the_history_draws(tmp_path: Any) -> None:
    """A line per column; asking for what is not there says what is."""
    rng = np.random.default_rng(3)
    history = MonitorHistory(tmp_path / "history.jsonl")
    with pytest.raises(Misuse, match="there is nothing yet"):
        history.plot()
    base = profile(patients(rng, 400), scored=False)
    for _ in range(2):
        history.append(compare(base, profile(patients(rng, 400), scored=False), rng=rng))
    axes = plot_history(history.to_frame(), "psi")
    assert {"age", "sex", "alert limit"} == {text.get_text() for text in axes.get_legend().get_texts()}
    with pytest.raises(Misuse, match="no 'speed'"):
        history.plot("speed")


def test_without_matplotlib_the_message_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """As everywhere in privfl."""
    real = builtins.__import__

    def none(name: str, *rest: Any, **more: Any) -> Any:
        if name.startswith("matplotlib"):
            raise ImportError(name)
        return real(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", none)
    with pytest.raises(Misuse, match=r"pip install 'privfl\[plots\]'"):
        plot_answer(made("numbers", [Row("mean", 1.0)]))
