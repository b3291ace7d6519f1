"""docs/monitoring.md says what the code does."""

from __future__ import annotations

import re
from pathlib import Path

import privfl_analytics.monitor as package
from privfl_analytics.datasets import RISK, hospital_schema, hospital_tables
from privfl_analytics.monitor import EXIT_CODES, MEASURES, Thresholds
from privfl_keys import Member, Roster, SigningKey

import privfl
from privfl.entropy import SYSTEM

PAGE = (Path(__file__).resolve().parents[3] / "docs" / "monitoring.md").read_text(encoding="utf-8")


def block(kind: str) -> str:
    (text,) = re.findall(rf"```{kind}\n(.*?)```", PAGE, flags=re.DOTALL)
    return str(text)


def test_the_table_of_measures_and_limits() -> None:
    """Every measure, with the default limits that it has."""
    found = dict(re.findall(r"^\| `(\w+)` \| [^|]+ \| ([^|]+) \|$", PAGE, flags=re.MULTILINE))
    assert list(found) == list(MEASURES)
    for name, said in found.items():
        limit = Thresholds().limit("any", name)
        assert said.startswith("none") if limit is None else said == f"{limit.warn:g}, {limit.alert:g}"


def test_the_limits_read() -> None:
    """As the page writes them."""
    found = Thresholds.from_yaml(block("yaml"))
    assert found.limit("age", "wasserstein") is not None
    assert found.limit("age", "ks") is None


def test_the_exit_codes() -> None:
    """Those of the code."""
    assert set(EXIT_CODES.values()) == {int(code) for code in re.findall(r"^\| (\d+) \|", PAGE, flags=re.MULTILINE)}


def test_the_code_runs(tmp_path: Path) -> None:
    """In one process, with made-up hospitals."""
    schema, keys = hospital_schema(1200), [SigningKey.generate(SYSTEM) for _ in range(4)]
    roles = ("site", "site", "site", "analyst")
    members = [Member(f"m{at}", keys[at].verify_key.raw, (role,)) for at, role in enumerate(roles)]
    names = {
        "federation": privfl.Federation.local(hospital_tables(4, seed=3, patients=1200), schema),
        "schema": schema,
        "risk": RISK,
        "now": 1_700_000_000_000,
        "key": keys[3],
        "path": tmp_path / "profile",
        "history_path": tmp_path / "history.jsonl",
        "roster": Roster.create("hearts", members, graph_seed=SYSTEM.draw(32), valid_from=0, valid_until=10**15),
    }
    exec(block("python").replace("report.plot()", ""), names)
    assert len(package.MonitorHistory(tmp_path / "history.jsonl")) == 1
