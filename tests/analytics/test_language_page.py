"""The page about the query language says what the code does: its table, its examples, its commands."""

from __future__ import annotations

import math
import re
from pathlib import Path

import pytest
from privfl_analytics import Query, Study
from privfl_analytics.constructions import Construction, Gradient, Outer, Sums, Tally
from privfl_analytics.datasets import RISK, hospital_schema, hospital_tables
from privfl_analytics.statistic import REGISTRY, statistic_of
from privfl_analytics.view import View

import privfl
from tests.docs.test_commands import commands, complaint

PAGE = Path(__file__).resolve().parents[2] / "analytics" / "README.md"
VIEW = View(hospital_schema(), (RISK,))
_LINE = re.compile(r"^\| `(?P<example>[^`]+)` \|", re.MULTILINE)


def adds(one: Construction) -> str:
    """What one row adds to a construction's sum, in words."""
    cells = math.prod(one.inner(VIEW))
    groups = math.prod(len(axis.labels(VIEW)) for axis in one.by)
    where = f", in one of {groups} groups" if groups > 1 else ""
    match one:
        case Tally(levels=0):
            said = "1" if cells == 1 else f"1 in one of {cells} cells"
        case Tally():
            said = f"1 at each of {one.levels} levels of a tree of {cells} cells"
        case Sums():
            said = f"{len(one.terms)} numbers within ±1"
        case Outer():
            said = f"products of {len(one.columns)} column{'s' * (len(one.columns) > 1)}, shortened"
        case Gradient():
            said = f"a gradient of {cells}, shortened"
        case _:
            said = {"distinct": "1 for a value that its site has not counted", "keys": "1 for its value"}[one.kind]
    return said + where


def line(example: str) -> str:
    """The table's line for an example: what it is, what a row adds by round, its sensitivity, numbers that leave."""
    query = Query.parse(example)
    query.check(VIEW)
    statistic, rounds = query.asked, []
    for stage in range(statistic.stages(VIEW)):
        blocks = query.constructions(VIEW, stage)
        words = [adds(one) for one in blocks]
        deltas = [f"{math.sqrt(one.delta2(VIEW)) / one.scale:.3g}" for one in blocks]
        found = (" and ".join(dict.fromkeys(words)), " + ".join(deltas), sum(one.length(VIEW) for one in blocks))
        rounds.append(found)
    times = {one: rounds.count(one) for one in rounds}
    said = ["; then ".join(text(one, count) for one, count in times.items()) for text in (_words, _delta, _length)]
    trust = " (`local` only)" if statistic.local else ""
    return f"| `{example}` | {statistic.summary}{trust} | {said[0]} | {said[1]} | {said[2]} |"


def _words(one: tuple[str, str, int], count: int) -> str:
    return one[0] + (f", {count} rounds" if count > 1 else "")


def _delta(one: tuple[str, str, int], count: int) -> str:
    return one[1]


def _length(one: tuple[str, str, int], count: int) -> str:
    return f"{count} × {one[2]}" if count > 1 else str(one[2])


def examples() -> list[str]:
    """Examples of the table, in the page's order."""
    return [found["example"] for found in _LINE.finditer(PAGE.read_text(encoding="utf-8"))]


def test_every_statistic_is_on_the_page_once() -> None:
    """No more and no fewer than are registered."""
    statistic_of("")
    named = [Query.parse(example).asked.name for example in examples()]
    assert sorted(named) == sorted(REGISTRY)
    assert {kind.example for kind in REGISTRY.values()} == set(examples())


@pytest.mark.parametrize("example", examples())
def test_a_statistic_s_line(example: str) -> None:
    """What it is, sums and costs, as its own constructions say."""
    right = line(example)
    assert right in PAGE.read_text(encoding="utf-8").splitlines(), f"the page should say:\n{right}"


def test_the_file_of_the_page_is_a_study() -> None:
    """It reads, fits the schema, and is planned."""
    (text,) = re.findall(r"```yaml\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL)
    lines = [one for one in text.splitlines() if not one.startswith(("schema:", "epsilon:", "delta:"))]
    study = Study.from_yaml("\n".join(lines))
    assert study.compile(hospital_schema(), epsilon=2.0, delta=1e-6, sites=5).prices()


def test_the_code_of_the_page_runs(capsys: pytest.CaptureFixture[str]) -> None:
    """In one process, with made-up hospitals."""
    (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL)
    federation = privfl.Federation.local(hospital_tables(4, seed=3, patients=1200), hospital_schema(1200))
    exec(code, {"federation": federation, "print": lambda *_: None})
    capsys.readouterr()


def test_commands_of_the_page() -> None:
    """Names and options."""
    text = PAGE.read_text(encoding="utf-8")
    assert len(commands(text)) >= 4
    assert {one: said for one in commands(text) if (said := complaint(one))} == {}
