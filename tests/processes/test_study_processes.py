"""Studies at real sites: what ledgers are charged, which shares and mandates bind, who may die, what commands say."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import yaml
from privfl_analytics.jobs import RunSettings, asked_of
from privfl_analytics.question import StudyQuestion
from privfl_analytics.study import Study

from privfl.budget import Mandate, Purpose
from privfl.budget.ledger_check import read_ledger
from privfl.budget.ledger_entries import Entry, Kind
from privfl.clock import SystemClock
from privfl.dp import Unit
from privfl.entropy import SYSTEM
from privfl.homes.authority import AuthorityHome, read_request
from privfl.homes.coordinator import CoordinatorHome
from privfl.homes.officer import OfficerHome
from privfl.homes.site import SiteHome
from privfl.runtime.coordinator_process import Pace
from privfl.runtime.jobs import Job, JobState, submit
from tests.processes.commands import Commands
from tests.runtime.realm import PASSPHRASE, Realm, realm
from tests.runtime.support import SCHEMA

LISTED = ["count", "mean", "sd", "histogram", "median", "values"]
POLICY = {
    "epsilon": 4.0,
    "shares": {"analytics": 0.5, "training": 0.3, "monitoring": 0.2},
    "statistics": LISTED,
    "min_cell_count": 5,
}


@pytest.fixture
def studied(tmp_path: Path) -> Iterator[Realm]:
    """Four sites whose policy gives half of the budget to analytics."""
    with realm(tmp_path / "realm", 4, policy=POLICY) as made:
        yield made


def study(*queries: str, purpose: Purpose = Purpose.ANALYTICS) -> Study:
    return Study("study", queries or ("count",), purpose=purpose)  # type: ignore[arg-type]


def queued(world: Realm, asked: Study, epsilon: float = 1.0, mandate: bytes = b"", **settings: Any) -> Job:
    """Put a study into the coordinator's queue."""
    job = asked_of(asked, SCHEMA, RunSettings(epsilon=epsilon, delta=1e-6, **settings))
    return submit(world.trial.coordinator, job, SystemClock().now(), mandate=mandate, kind="study")


def planned(asked: Study, epsilon: float = 1.0, **options: Any) -> StudyQuestion:
    """The question that the coordinator compiles."""
    named = {"sites": 4, "min_survivors": 3, "colluders": 1, "attempts": 3, "unit": "record", **options}
    return asked.compile(SCHEMA, epsilon=epsilon, delta=1e-6, **named)


def ran(world: Realm, asked: Study, **options: Any) -> JobState:
    """Run a study to its end by a coordinator of its own."""
    job = queued(world, asked, **options)
    world.start_sites()
    world.start_coordinator()
    state = world.finished(job)
    world.wait("coordinator")
    return state


def entries(home: Path, kind: Kind = Kind.RESERVE) -> list[Entry]:
    (path,) = (home / "ledger").glob("*.db")
    return [entry for entry in read_ledger(path).entries if entry.kind == kind]


def spent(world: Realm) -> dict[str, list[tuple[Any, ...]]]:
    """What every site's ledger shows as reserved."""
    return {
        name: [(entry.reference, entry.purpose, entry.analyst) for entry in entries(home)]
        for name, home in world.trial.sites.items()
    }


def charged_mu2(entry: Entry) -> Fraction:
    assert entry.charge is not None
    return entry.charge.costs[Unit.RECORD].mu2


# -- charges -------------------------------------------------------------------------------------------------


def test_repeated_and_overlapping_studies_are_charged_in_full_until_nothing_is_left(studied: Realm) -> None:
    """Twice the same and one that differs in one person pay three times; the fourth is refused with what is left."""
    near, same = study("count where age < 99.5"), study("count")
    plan = [planned(one) for one in (same, same, near)]
    for one in (same, same, near):
        assert ran(studied, one).state == "done"
    costs = [question.prices()[0].costs[Unit.RECORD].mu2 for question in plan]
    for home in studied.trial.sites.values():
        found = [charged_mu2(entry) for entry in entries(home)]
        assert found == costs
        assert all(entry.purpose == "analytics" for entry in entries(home))
    before = spent(studied)
    state = ran(studied, study("count", "values ill"), epsilon=2.4)
    assert (state.state, state.exit_code) == ("failed", 5)
    assert "every site refused" in state.error
    assert "left: mu^2" in state.error
    assert "the share of analytics" in state.error
    assert spent(studied) == before


def test_a_restart_does_not_reset_what_was_spent_nor_does_binding_anew(studied: Realm) -> None:
    """The counter is a file that is signed and chained: it outlives processes and tables."""
    assert ran(studied, study("count")).state == "done"
    for name, home in studied.trial.sites.items():
        studied.kill(name)
        before = [charged_mu2(entry) for entry in entries(home)]
        now = SystemClock().now()
        rows = studied.trial.folder.parent / "rows"
        from privfl.homes.site import Table

        SiteHome.bind(home, PASSPHRASE, now, Table(rows / f"{name}.csv", rows / "schema.yaml"))
        with SiteHome.open(home, PASSPHRASE, now) as opened:
            held = opened.ledger.spent(Unit.RECORD)
            assert held.mu2 == sum(before) > 0
        assert [charged_mu2(entry) for entry in entries(home)] == before


def test_a_window_says_from_when_on_there_is_more(tmp_path: Path) -> None:
    """Where the policy refills a window, the refusal names the day on which its oldest charge leaves."""
    window = {"window": {"days": 7, "lifetime_epsilon": 8.0, "lifetime_delta": 2e-5}}
    with realm(tmp_path / "realm", 3, policy={**POLICY, **window, "epsilon": 1.2}) as world:
        first = ran(world, study("count"), epsilon=0.7)
        assert first.state == "done", first
        before = spent(world)
        second = ran(world, study("count"), epsilon=0.7)
        assert second.state == "failed"
        assert "of any 7 days (its oldest charge leaves on " in second.error
        assert spent(world) == before


# -- shares and mandates -------------------------------------------------------------------------------------


def test_each_purpose_pays_from_its_own_share(studied: Realm) -> None:
    """Analytics cannot spend training's part, and monitoring pays from monitoring."""
    before = spent(studied)
    state = ran(studied, study("count"), epsilon=3.9)
    assert state.state == "failed"
    assert "analytics" in state.error
    assert spent(studied) == before
    assert ran(studied, study("count", purpose=Purpose.MONITORING), epsilon=0.8).state == "done"
    for found in spent(studied).values():
        assert [purpose for _, purpose, _ in found] == ["monitoring"]


def test_a_mandate_charges_its_analyst_and_binds_its_purpose(studied: Realm) -> None:
    """alice pays for her own study; her mandate for monitoring opens no study of analytics, nor a changed one."""
    now, world = SystemClock().now(), studied
    home = world.trial.folder / "alice"
    alice = OfficerHome.init(home, "alice", "trial", PASSPHRASE, now, role="analyst", cost=_cost())
    with AuthorityHome.open(world.trial.authority, PASSPHRASE) as authority:
        request = read_request(home / "request")
        authority.approve(request, request.fingerprint, now)
        authority.sign_roster(now)
    CoordinatorHome.join(world.trial.coordinator, PASSPHRASE, now, rosters=world.trial.rosters)
    for folder in world.trial.sites.values():
        SiteHome.join(folder, PASSPHRASE, now, rosters=world.trial.rosters)

    def mandate(question: StudyQuestion, purpose: Purpose) -> bytes:
        expires, key = now + 10**7, alice.identity.key
        signed = Mandate.sign(
            key, federation="trial", task=question.id, purpose=purpose, expires=expires, entropy=SYSTEM
        )
        return signed.encode()

    asked = study("count")
    question = planned(asked, epsilon=0.8)
    for wrong in (
        mandate(question, Purpose.MONITORING),
        mandate(planned(study("count where age > 3"), 0.8), Purpose.ANALYTICS),
    ):
        state = ran(world, asked, epsilon=0.8, mandate=wrong)
        assert state.state == "failed"
        assert "mandate" in state.error
        assert not any(spent(world).values())
    assert ran(world, asked, epsilon=0.8, mandate=mandate(question, Purpose.ANALYTICS)).state == "done"
    for found in spent(world).values():
        assert [(purpose, who) for _, purpose, who in found] == [("analytics", "alice")]


def _cost() -> Any:
    from privfl_keys import INSECURE_TEST_COST

    return INSECURE_TEST_COST


# -- deaths --------------------------------------------------------------------------------------------------

STAGED = "sd age two_stage=true"


def until(true: Callable[[], object], seconds: float = 30.0) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.01)


def killed_after_first(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    """The coordinator's process dies by SIGKILL once its first stage is durable."""
    from privfl.runtime.coordinator import CoordinatorNode

    save = CoordinatorNode.save

    def dying(node: CoordinatorNode, *items: Any, **named: Any) -> None:
        save(node, *items, **named)
        if (job.folder / "transcripts").is_dir():
            os.kill(os.getpid(), 9)

    monkeypatch.setattr(CoordinatorNode, "save", dying)


def test_a_coordinator_killed_between_two_stages_asks_the_first_no_more(
    studied: Realm, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It dies after stage 1 was opened and kept; started again it goes on with stage 2, each charged once."""
    job = queued(studied, study(STAGED), epsilon=2.0)
    studied.start_sites()
    with monkeypatch.context() as patch:
        killed_after_first(job, patch)
        studied.start_coordinator()
    assert os.WIFSIGNALED(studied.wait("coordinator"))
    assert len(list((job.folder / "transcripts").iterdir())) == 1
    assert {len(found) for found in spent(studied).values()} == {1}
    studied.start_coordinator()
    state = studied.finished(job)
    assert state.state == "done", state
    studied.wait("coordinator")
    assert {len(found) for found in spent(studied).values()} == {2}
    figures = json.loads((job.result / "summary.json").read_text())
    assert (figures["rounds"], figures["uploads"]) == (2, 2)


def test_a_site_killed_in_a_study_stays_charged_and_the_others_go_on(studied: Realm) -> None:
    """Dead between its charge and its upload: three of four are in the sum, and the dead one has paid."""
    job = queued(studied, study("count"))

    def die(name: str, round_: int) -> None:
        if name == "accepted":
            os.kill(os.getpid(), 9)

    studied.start_site("north", checkpoint=die)
    studied.start_sites()
    studied.start_coordinator(Pace(gather=10_000, patience=3_000, grace=200))
    state = studied.finished(job)
    assert state.state == "done", state
    assert json.loads((job.result / "summary.json").read_text())["survivors"] == [3]
    assert {len(found) for found in spent(studied).values()} == {1}


def test_too_few_sites_fail_before_anything_is_asked(studied: Realm) -> None:
    """Two of four are up: the study fails, names who is missing, and nothing is spent."""
    job = queued(studied, study("count"))
    for name in list(studied.trial.sites)[:2]:
        studied.start_site(name)
    studied.start_coordinator(Pace(gather=1_500, patience=3_000, grace=200))
    state = studied.finished(job)
    assert (state.state, state.exit_code) == ("failed", 6)
    assert "not heard of" in state.error
    assert not any(spent(studied).values())


# -- commands ------------------------------------------------------------------------------------------------


def test_a_query_from_the_command_line(studied: Realm, commands: Commands, tmp_path: Path) -> None:
    """One line and a file are asked of real sites; JSON and a report come back, the ledgers are charged as planned."""
    studied.start_sites()
    hub, schema = studied.trial.coordinator, studied.trial.schema
    args = ["--coordinator", hub, "--schema", schema, "--epsilon", "0.9", "--delta", "1e-6", "--grace", "0.2"]
    html = tmp_path / "report.html"
    told = commands.run("query", "mean age where age >= 30", *args, "--json", "--html", html)
    assert told.code == 0, told.err
    value = json.loads(told.out)
    assert value["survivors"] in ([3], [4])
    assert value["privacy"]["epsilon"] <= 0.9
    assert html.stat().st_size > 1000
    cost = planned(study("mean age where age >= 30"), epsilon=0.9).prices()[0].costs[Unit.RECORD].mu2
    for home in studied.trial.sites.values():
        assert [charged_mu2(entry) for entry in entries(home)] == [cost]
    before = spent(studied)
    explained = commands.run("query", "mean age", *args[2:6], "--explain")
    assert explained.code == 0, explained.err
    assert "age" in explained.out
    assert commands.run("study", "statistics", "--json").code == 0
    assert spent(studied) == before


GOOD = "study: s\nschema: schema.yaml\nepsilon: 0.5\ndelta: 1.0e-6\nqueries:\n"
FILES: dict[str, tuple[str, tuple[str, ...]]] = {
    "an unknown column": (GOOD + "  - {mean: aeg}\n", ("aeg",)),
    "bins outside bounds": (GOOD + "  - {histogram: age, bins: [0, 50, 200]}\n", ("declared bounds",)),
    "a category where a number is needed": (GOOD + "  - {mean: ill}\n", ("number is needed",)),
    "epsilon of nothing": (GOOD.replace("0.5", "0") + "  - {count: rows}\n", ("epsilon",)),
    "an epsilon that resolves nothing": (GOOD.replace("0.5", "0.0001") + "  - {count: rows}\n", ("at least",)),
    "no YAML": (GOOD + "  - {count: rows\n", ("line",)),
    "an unknown statistic": (GOOD + "  - {maximum: age}\n", ("maximum",)),
    "no budget": (GOOD.replace("epsilon: 0.5\n", "") + "  - {count: rows}\n", ("epsilon",)),
    "a statistic that the policy does not list": (GOOD.replace("0.5", "1.5") + "  - {variance: age}\n", ("variance",)),
    "more than the share": (GOOD.replace("0.5", "30") + "  - {count: rows}\n", ("analytics",)),
}


#: What is not a mistake in the file: the budget or the policy says no.
BY_POLICY = (
    "an epsilon that resolves nothing",
    "a statistic that the policy does not list",
    "more than the share",
    "a column that the policy does not name",
)


def test_mistakes_are_one_readable_screen_and_cost_nothing(tmp_path: Path, commands: Commands) -> None:
    """Each is refused with exit code 2, or 5 where budget or policy say no, before any site is charged."""
    policy = {**POLICY, "columns": {"age": {"lower": 0, "upper": 100}, "ill": {"classes": [False, True]}}}
    with realm(tmp_path / "realm", 3, policy=policy) as world:
        world.start_sites()
        hub, folder = world.trial.coordinator, world.trial.folder
        cases = {
            **FILES,
            "a column that the policy does not name": (GOOD.replace("0.5", "1.5") + "  - {mean: dose}\n", ("dose",)),
        }
        for case, (text, words) in cases.items():
            path = folder / "study.yaml"
            path.write_text(text)
            told = commands.run("study", "run", path, "--coordinator", hub, "--grace", "0.2", "--patience", "5")
            told.failed(5 if case in BY_POLICY else 2, *words)
        missing = commands.run("study", "run", folder / "nowhere.yaml", "--coordinator", hub)
        missing.failed(2, "there is no study file")
        commands.run("query", "mean aeg", "--schema", world.trial.schema, "--coordinator", hub, "--epsilon", "1",
                     "--delta", "1e-6").failed(2, "aeg")  # fmt: skip
        commands.run("query", "count", "--coordinator", hub).failed(2, "schema")
        assert not any(spent(world).values())
        assert yaml.safe_load(world.trial.schema.read_text())
