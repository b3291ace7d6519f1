"""An operator's own yes, with real processes over the folder wire: who is asked, who runs, what is charged."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from privfl.budget.ledger_check import read_ledger
from privfl.budget.ledger_entries import Entry, Kind
from privfl.cli import requests as commands_of_requests
from privfl.clock import SystemClock
from privfl.homes.lock import holder
from privfl.learn import Task
from privfl.runtime.coordinator_process import Pace
from privfl.runtime.jobs import submit
from privfl.runtime.status import CoordinatorStatus, SiteStatus, read_status
from tests.cli.support import Ran
from tests.processes.commands import Commands
from tests.runtime.realm import Realm, realm
from tests.runtime.support import SCHEMA

PACE = Pace(gather=10_000, patience=10_000, grace=200, approval=30_000)
OUTSIDE = "outside the guarantee"


@pytest.fixture
def asking(tmp_path: Path) -> Iterator[Realm]:
    """Four sites whose policy wants each operator's yes for training."""
    with realm(tmp_path / "realm", 4, policy={"approval": ["training"]}) as made:
        yield made


def until(true: Callable[[], object], seconds: float = 30.0) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.02)


def listed(commands: Commands, home: Path) -> list[dict[str, Any]]:
    ran = commands.run("site", "requests", home, "--json")
    assert ran.code == 0, ran.err
    found: list[dict[str, Any]] = json.loads(ran.out)["requests"]
    return found


def entries(home: Path, kind: Kind) -> list[Entry]:
    (path,) = (home / "ledger").glob("*.db")
    return [entry for entry in read_ledger(path).entries if entry.kind == kind]


def asked(world: Realm) -> None:
    """Until every site has been asked."""
    until(lambda: all(list((home / "requests").glob("?" * 64)) for home in world.trial.sites.values()))


def only(commands: Commands, home: Path) -> str:
    (one,) = listed(commands, home)
    found: str = one["id"]
    return found


def decide(commands: Commands, home: Path, verb: str, *more: str) -> Ran:
    ran = commands.run("site", verb, home, only(commands, home), *more)
    assert ran.code == 0, ran.err
    return ran


def test_nothing_is_charged_before_enough_operators_agree(asking: Realm, commands: Commands) -> None:
    """The coordinator waits and says for whom; then it runs with those that approved, without the site that refused."""
    homes = asking.trial.sites
    job = asking.submit(rounds=2)
    asking.start_sites()
    asking.start_coordinator(PACE)
    asked(asking)
    for name, home in homes.items():
        (one,) = listed(commands, home)
        assert (one["state"], one["purpose"], one["analyst"]) == ("pending", "training", "coordinator")
        assert one["epsilon"] > 0
        assert not entries(home, Kind.RESERVE), name
    until(
        lambda: (
            "approval by the operator of"
            in read_status(asking.trial.coordinator / "status.json", CoordinatorStatus).waits_for
        )
    )
    until(lambda: read_status(homes["north"] / "status.json", SiteStatus).pending == 1)
    names = list(homes)
    decide(commands, homes[names[3]], "refuse", "--why", "not covered by our protocol")
    for name in names[:3]:
        decide(commands, homes[name], "approve")
    state = asking.finished(job)
    assert state.state == "done", state
    asking.wait("coordinator")
    for name in names[:3]:
        assert len(entries(homes[name], Kind.RESERVE)) == 2
        (note,) = entries(homes[name], Kind.NOTE)
        assert "the operator approves it" in note.what
        assert note.seq < entries(homes[name], Kind.RESERVE)[0].seq, (
            "the note must come before what was reserved under it"
        )
    assert not entries(homes[names[3]], Kind.RESERVE)
    until(lambda: len(entries(homes[names[3]], Kind.NOTE)) == 1)
    assert "he says: not covered by our protocol" in entries(homes[names[3]], Kind.NOTE)[0].what
    wire = b"".join(path.read_bytes() for path in asking.trial.wire.rglob("*") if path.is_file())
    assert b"not covered" not in wire, "the operator's words must not leave the site"


def test_too_few_approvals_fail_before_anything_is_spent(asking: Realm, commands: Commands) -> None:
    """Two refusals of four leave too few for a sum: the job fails at once, says why, and no ledger has a charge."""
    homes = asking.trial.sites
    job = asking.submit(rounds=2)
    asking.start_sites()
    asking.start_coordinator(PACE)
    asked(asking)
    for name in list(homes)[:2]:
        decide(commands, homes[name], "refuse", "--why", "no")
    state = asking.finished(job)
    assert (state.state, state.exit_code) == ("failed", 6)
    assert "refused by the operator of" in state.error
    assert "Nothing was spent" in state.error
    assert not any(entries(home, Kind.RESERVE) for home in homes.values())


def test_the_wait_has_a_limit(asking: Realm) -> None:
    """Nobody answers: the job fails with exit code 6 after --wait, and names those who have not answered."""
    job = asking.submit(rounds=2)
    asking.start_sites()
    asking.start_coordinator(Pace(gather=10_000, patience=10_000, grace=200, approval=1500))
    state = asking.finished(job)
    assert (state.state, state.exit_code) == ("failed", 6)
    assert "not answered by the operator of" in state.error


def test_train_waits_as_long_as_it_is_told(asking: Realm, commands: Commands) -> None:
    """`privfl train --wait`: exit code 6, nothing charged; detached it is only queued."""
    asking.start_sites()
    hub, task = asking.trial.coordinator, asking.task(rounds=2)
    ran = commands.run("train", task, "--coordinator", hub, "--wait", "1", "--grace", "0.2")
    ran.failed(6, "0 of 3 sites that are needed have approved", "Nothing was spent")
    told = "waiting for the yes of the operators of east, north, south, west (up to 1 s; Ctrl-C costs nothing)"
    assert ran.err.count(told) == 1
    assert not any(entries(home, Kind.RESERVE) for home in asking.trial.sites.values())
    assert commands.run("train", task, "--coordinator", hub, "--detach").code == 0


def test_ctrl_c_while_operators_are_asked_costs_nothing_and_says_so(asking: Realm, commands: Commands) -> None:
    """With --json as well: whom it waits for is said once, and after Ctrl-C that nothing was charged; which is so."""
    asking.start_sites()
    hub, task = asking.trial.coordinator, asking.task(rounds=2)
    running = commands.start("train", task, "--coordinator", hub, "--json")
    until(lambda: "waiting for the yes of the operators of" in running.said)
    asked(asking)
    assert read_status(hub / "status.json", CoordinatorStatus).operators
    running.interrupt()
    ran = running.ended()
    ran.failed(130, "interrupted; no site was asked to compute anything, and nothing was charged")
    assert "stays charged" not in ran.err
    assert ran.out == ""
    assert not any(entries(home, Kind.RESERVE) for home in asking.trial.sites.values())


def test_whoever_follows_a_coordinator_is_told_too(asking: Realm, commands: Commands) -> None:
    """The line stands there as well, and Ctrl-C promises nothing of a task that goes on."""
    asking.start_sites()
    asking.start_coordinator(PACE, once=False)
    hub = asking.trial.coordinator
    until(lambda: holder(hub) is not None)
    running = commands.start("train", asking.task(rounds=2), "--coordinator", hub)
    until(lambda: "(the coordinator goes on waiting after Ctrl-C)" in running.said)
    running.interrupt()
    ran = running.ended()
    ran.failed(130, "no longer follows the task")
    assert "charged" not in ran.err
    asking.kill("coordinator", signal.SIGKILL)


def test_a_detached_job_waits_and_lets_others_go_first(
    asking: Realm, commands: Commands, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a limit a job that waits for people makes room: another one that is approved is done before it."""
    monkeypatch.setattr("privfl.runtime.coordinator_process.TURN_MS", 200)
    homes = asking.trial.sites
    first = asking.submit(rounds=2)
    asking.start_sites()
    asking.start_coordinator(Pace(gather=10_000, patience=10_000, grace=200), once=False)
    asked(asking)
    second = asking.submit(rounds=1)
    until(lambda: all(len(list((home / "requests").glob("?" * 64))) == 2 for home in homes.values()))
    for home in homes.values():
        newest = listed(commands, home)[-1]["id"]
        assert commands.run("site", "approve", home, newest).code == 0
    assert asking.finished(second).state == "done"
    assert not first.state().over
    asking.kill("coordinator", signal.SIGKILL)


def test_a_decision_survives_a_kill_before_its_note(asking: Realm, commands: Commands) -> None:
    """The site is dead when the operator decides and the folder cannot be opened: its next start notes it, once."""
    home = asking.trial.sites["north"]
    asking.submit(rounds=2)
    asking.start_sites()
    asking.start_coordinator(PACE)
    asked(asking)
    asking.kill("coordinator")
    name = only(commands, home)
    asking.kill("north")

    def broken() -> None:  # killed between the decision and its note
        import os

        from privfl.runtime import consent

        consent.note_decisions = lambda *args: os._exit(77)  # type: ignore[assignment]

    assert commands.start("site", "approve", home, name, before=broken).ended().code == 77
    assert not entries(home, Kind.NOTE)
    (one,) = listed(commands, home)
    assert one["state"] == "approved"
    for _ in range(2):
        asking.start_site("north", idle_ms=50)
        asking.wait("north")
        (note,) = entries(home, Kind.NOTE)
        assert "decision 1" in note.what


def study_of(where: str) -> Any:
    """A job that asks for one covariance under a filter."""
    from privfl_analytics.jobs import RunSettings, asked_of
    from privfl_analytics.query import Query
    from privfl_analytics.study import Study

    study = Study("pre-training", [Query.parse(f"covariance dose, age where {where}")], description="is age a proxy?")
    return asked_of(study, SCHEMA, RunSettings(epsilon=0.5, delta=1e-6))


def test_a_study_with_one_changed_filter_waits_for_its_own_yes(tmp_path: Path, commands: Commands) -> None:
    """The first study is approved and done; the same with another age is another request, and fails unapproved."""
    policy = {"approval": ["analytics"], "shares": {"analytics": 1.0}, "statistics": ["covariance"]}
    with realm(tmp_path / "realm", 4, policy=policy) as world:
        homes = world.trial.sites
        first = submit(world.trial.coordinator, study_of("age > 40"), SystemClock().now(), kind="study")
        world.start_sites()
        world.start_coordinator(PACE)
        asked(world)
        for home in homes.values():
            name = only(commands, home)
            shown = commands.run("site", "show", home, name).out
            for words in ("is age a proxy?", "age > 40", "columns read: dose, age", "at most epsilon", "after it"):
                assert words in shown, shown
            decide(commands, home, "approve")
        assert world.finished(first).state == "done"
        world.wait("coordinator")
        home = homes["north"]
        assert "approved, 1 of 3 uploads made" in commands.run("site", "show", home, only(commands, home)).out
        assert "made" in commands.run("site", "requests", home).out, "a narrow table folds the words"
        assert listed(commands, home)[0]["uploads_made"] == 1
        charged = {name: len(entries(home, Kind.RESERVE)) for name, home in homes.items()}
        second = submit(world.trial.coordinator, study_of("age > 41"), SystemClock().now(), kind="study")
        world.start_coordinator(Pace(gather=10_000, patience=10_000, grace=200, approval=1000))
        assert world.finished(second).exit_code == 6
        assert charged == {name: len(entries(home, Kind.RESERVE)) for name, home in homes.items()}
        for home in homes.values():
            states = sorted(one["state"] for one in listed(commands, home))
            assert states == ["approved", "pending"]


def with_preview() -> None:
    """Give a training task something to look at, and pretend that output is a terminal."""

    def preview(self: Task, data: Any) -> str:
        return f"what {data.schema.name} says here: SECRET-FIGURE"

    Task.preview = preview  # type: ignore[attr-defined]
    commands_of_requests._terminal = lambda: True


def test_own_answer_after_approval_only_and_what_it_leaves(asking: Realm, commands: Commands) -> None:
    """--own is refused before approval; after it, only the look is noted; a refusal then is marked in the ledger."""
    homes = asking.trial.sites
    home = homes["north"]
    asking.submit(rounds=2)
    asking.start_sites()
    asking.start_coordinator(PACE)
    asked(asking)
    name = only(commands, home)
    early = commands.start("site", "show", home, name, "--own", before=with_preview).ended()
    early.failed(5, "after your approval only", "outside the guarantee")
    assert "SECRET-FIGURE" not in early.out
    decide(commands, home, "approve")
    commands.run("site", "show", home, name, "--own").failed(2, "terminal only")
    seen = commands.start("site", "show", home, name, "--own", before=with_preview).ended()
    assert seen.code == 0, seen.err
    assert "SECRET-FIGURE" in seen.out
    assert "nothing left, nothing was spent" in seen.out
    decide(commands, home, "refuse", "--why", "the figure is odd")
    until(lambda: len(entries(home, Kind.NOTE)) == 3)
    approve, look, refuse = entries(home, Kind.NOTE)
    assert OUTSIDE not in approve.what
    assert "looks at this site's own answer" in look.what
    assert OUTSIDE in refuse.what
    assert not entries(home, Kind.RESERVE)
    kept = b"".join(path.read_bytes() for path in home.rglob("*") if path.is_file())
    assert b"SECRET-FIGURE" not in kept, "the preview must not be written down"
    (one,) = listed(commands, home)
    assert (one["state"], one["outside_guarantee"]) == ("refused", True)


def test_mistakes_are_readable(
    asking: Realm, commands: Commands, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Unknown id, no folder, no passphrase, empty reason: one screen, exit code 2, nothing decided."""
    home = asking.trial.sites["north"]
    commands.run("site", "requests", tmp_path / "nowhere").failed(2)
    commands.run("site", "show", asking.trial.coordinator, "ab").failed(2)
    commands.run("site", "show", home, "ab").failed(2, "no request begins with 'ab'", "privfl site requests")
    commands.run("site", "approve", home, "ab").failed(2, "no request begins")
    commands.run("site", "refuse", home, "ab", "--why", " ").failed(2, "--why is empty")
    assert commands.run("site", "refuse", home, "ab").code == 2
    ran = commands.run("site", "requests", home)
    assert ran.code == 0
    assert "0 request(s)" in ran.out
    asking.submit(rounds=2)
    asking.start_sites()
    asking.start_coordinator(PACE)
    asked(asking)
    name = only(commands, home)

    def without() -> None:
        import os

        os.environ.pop("PRIVFL_PASSPHRASE")

    def wrong() -> None:
        import os

        os.environ["PRIVFL_PASSPHRASE"] = "another passphrase for tests"

    commands.start("site", "approve", home, name, before=without).ended().failed(2, "no passphrase")
    commands.start("site", "approve", home, name, before=wrong).ended().failed(2)
    shown = commands.run("site", "show", home, name)
    for words in (
        "asked by coordinator",
        "columns read",
        "gradient",
        "the ledger has epsilon",
        "Next: privfl site approve",
    ):
        assert words in shown.out, shown.out
    assert json.loads(commands.run("site", "show", home, name, "--json").out)["decisions"] == []
