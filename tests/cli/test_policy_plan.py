"""``privfl policy plan``: figures for people and programs, from a policy alone or after a real ledger's spending."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from privfl_keys import SYSTEM, SigningKey

from privfl.budget import Charge, Ledger, Policy, Purpose, export_json, read_ledger
from privfl.clock import SystemClock
from privfl.dp import Cost, Trust, Unit
from tests.budget.policies import TEXT
from tests.cli.support import Ran, called


class Calls:
    """The command in this process."""

    def __init__(self, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
        self._capfd, self._monkeypatch = capfd, monkeypatch

    def __call__(self, *args: str | Path) -> Ran:
        return called(self._capfd, self._monkeypatch, "policy", "plan", *args)

    def json(self, *args: str | Path) -> dict[str, Any]:
        """The one object that ``--json`` prints."""
        ran = self(*args, "--json")
        assert (ran.code, ran.err) == (0, ""), ran.err
        assert len(ran.out.splitlines()) == 1
        found: dict[str, Any] = json.loads(ran.out)
        return found


@pytest.fixture
def plan(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Calls:
    """Run ``privfl policy plan …``."""
    return Calls(capfd, monkeypatch)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A policy that never ends."""
    path = tmp_path / "policy.yaml"
    path.write_text(TEXT.replace("2026-11-20", "2020-01-01").replace("2027-11-20", "2090-01-01"))
    return path


def ledger(path: Path, policy: Policy, *, population: str | None = None, federation: str | None = None) -> Path:
    """A ledger with one charge of a third of the budget, an hour ago."""
    key, now = SigningKey.generate(SYSTEM), SystemClock().now() - 3_600_000
    path.parent.mkdir(parents=True, exist_ok=True)
    about = {"federation": federation or policy.federation, "population": population or policy.population}
    budget = policy.budget
    assert budget is not None
    with Ledger.create(path, key, now=now, **about) as book:
        book.use(policy.hash, policy.version, policy.limits(), now)
        cost = Cost(budget.mu2 / 3)
        book.reserve(
            Charge(bytes([1]) * 32, Purpose.TRAINING, "lab", {Unit.RECORD: cost}, Trust.DISTRIBUTED, "a run"), now
        )
    return path


FEW = ("--rounds", "12", "--epsilon", "1", "--queries", "20", "--people", "40")


def test_for_people(plan: Calls, file: Path) -> None:
    """Every table and what to mind, in eighty columns."""
    ran = plan(file, *FEW)
    assert (ran.code, ran.err) == (0, "")
    flat = " ".join(ran.out.replace("│", " ").split())
    for words in (
        "Plan under version 3 of northern hospitals, from the start: epsilon 4 at delta 1e-05 per record",
        "What is left",
        "The largest training run that fits",
        "How many runs fit",
        "Each count is within",
        "How many counts fit",
        "The same promise at other deltas",
        "Should all other sites collude",
        "The budget is for any 90 days",
        "caps of single analysts are left out",
    ):
        assert words in flat, words
    assert all(len(line) <= 80 for line in ran.out.splitlines())


def test_one_object(plan: Calls, file: Path) -> None:
    """The figures that were asked for, and no others."""
    found = plan.json(file, *FEW, "--sites", "6", "--analyst", "lab")
    assert [run["rounds"] for run in found["largest_runs"]] == [12]
    assert [run["first_attempts"]["epsilon"] for run in found["runs"]] == [1]
    assert found["runs"][0]["all_attempts"]["attempts"] == 3
    assert {one["queries"] for one in found["counts"]} == {20}
    assert {one["people"] for one in found["counts_within"]} == {40}
    assert (found["sites"], found["ledger"], found["spent"]) == (6, None, ["0", "0"])
    assert not any("caps of single analysts" in note for note in found["notes"])


@pytest.mark.parametrize("form", ["file", "folder", "site", "export"])
def test_after_a_ledger(plan: Calls, file: Path, tmp_path: Path, form: str) -> None:
    """A third is gone: from the share of training, from the total, and for no other purpose."""
    policy = Policy.from_yaml(file)
    path = ledger(tmp_path / "north" / "ledger" / "some.db", policy)
    ledger(tmp_path / "north" / "ledger" / "other.db", policy, population="others")
    target = {"file": path, "folder": path.parent, "site": tmp_path / "north", "export": tmp_path / "x.json"}[form]
    if form == "export":
        target.write_bytes(export_json(read_ledger(path)))
    found = plan.json(file, *FEW, "--ledger", target)
    fresh = plan.json(file, *FEW)
    budget = policy.budget
    assert budget is not None
    left = {room["purpose"]: float(room["left"][0]) / float(budget.mu2) for room in found["rooms"]}
    assert left == pytest.approx({"training": 0.7 - 1 / 3, "analytics": 0.2, "monitoring": 0})
    assert found["counts"] == fresh["counts"]
    assert found["window"]["whole"] < fresh["window"]["whole"]
    assert found["ledger"] == str(target)


def test_wrong_ledgers(plan: Calls, file: Path, tmp_path: Path) -> None:
    """Another population or federation, two of one population, nothing there, a damaged one: each in its words."""
    policy = Policy.from_yaml(file)
    other = ledger(tmp_path / "a" / "one.db", policy, population="others")
    plan(file, "--ledger", other).failed(2, "'others'", "'northern-patients'")
    far = ledger(tmp_path / "b" / "one.db", policy, federation="far")
    plan(file, "--ledger", far).failed(2, "federation 'far'")
    ledger(tmp_path / "c" / "one.db", policy)
    ledger(tmp_path / "c" / "two.db", policy)
    plan(file, "--ledger", tmp_path / "c").failed(2, "2 ledgers", "name one file")
    (tmp_path / "d").mkdir()
    plan(file, "--ledger", tmp_path / "d").failed(2, "there is no ledger there")
    plan(file, "--ledger", tmp_path / "nowhere").failed(2, "there is no ledger")
    (tmp_path / "e.json").write_bytes(b"{}")
    plan(file, "--ledger", tmp_path / "e.json").failed(3, "no export")


def test_plots(plan: Calls, file: Path, tmp_path: Path) -> None:
    """Written whole, never over another file unless told so, and only as .png or .svg."""
    picture = tmp_path / "plan.svg"
    assert plan(file, *FEW, "--plot", picture).code == 0
    assert b"<svg" in picture.read_bytes()
    picture.write_text("mine")
    plan(file, *FEW, "--plot", picture).failed(2, "not overwritten", "--force")
    assert picture.read_text() == "mine"
    assert plan(file, *FEW, "--plot", picture, "--force").code == 0
    plan(file, *FEW, "--plot", tmp_path / "plan.pdf").failed(2, ".png or .svg")


def test_wrong_questions(plan: Calls, file: Path) -> None:
    """Each names what may be asked instead."""
    plan(file, "--analyst", "nobody").failed(2, "dr-jones, lab")
    plan(file, "--sites", "2").failed(2, "fewer than 3")
    plan(file, "--people", "0").failed(2, "positive number")
    plan(file, "--epsilon", "-1").failed(2, "epsilon")
    plan(file, "--rounds", "0").failed(2, "--rounds")
    text = file.read_text().replace("epsilon: 4\ndelta: 1e-5\nmax_epsilon_per_upload: 1\n", "")
    text = text[: text.index("window:")] + text[text.index("colluders:") :]
    file.write_text(text + 'without_noise: "exact sums leave the sites and no noise protects anyone"\n')
    plan(file).failed(2, "no budget to plan")
