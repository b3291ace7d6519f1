"""``privfl profile`` and ``privfl monitor`` in a federation of processes: collected, signed, compared, kept."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from privfl_analytics.cli_monitor_support import render, signed
from privfl_analytics.datasets import hospital_schema, hospital_tables
from privfl_analytics.monitor import MonitorHistory, Profile, SignedProfile, compare, profile_study
from rich.console import Console

import privfl
from privfl.budget.ledger_check import read_ledger
from privfl.budget.ledger_entries import Kind
from privfl.tasks import Schema
from tests.analytics.monitor.profiles import patients, profile
from tests.processes.commands import Commands
from tests.runtime.realm import Realm, realm
from tests.runtime.support import SCHEMA

POLICY = {"shares": {"monitoring": 1.0}, "statistics": ["profile"], "epsilon": 60.0, "min_cell_count": 1}
BUDGET = ("--epsilon", "8", "--delta", "1e-6")


def rows(seed: int, older: float = 0.0) -> dict[str, pd.DataFrame]:
    """Four sites of 400 rows each."""
    rng, found = np.random.default_rng(seed), {}
    for name in ("north", "south", "east", "west"):
        age = np.clip(rng.normal(45 + older, 12, 400), 0, 100)
        found[name] = pd.DataFrame({"dose": rng.normal(0, 1, 400), "age": age, "ill": rng.random(400) < age / 100})
    return found


@pytest.fixture
def world(tmp_path: Path) -> Iterator[Realm]:
    with realm(tmp_path / "realm", 4, frames=rows(1), policy=POLICY) as made:
        yield made


@pytest.fixture
def commands(tmp_path: Path) -> Iterator[Commands]:
    made = Commands(tmp_path / "said")
    yield made
    made.end()


def at_hand(world: Realm, *more: str) -> tuple[str | Path, ...]:
    """Options that every command needs."""
    schema = world.trial.folder.parent / "rows" / "schema.yaml"
    return ("--schema", schema, "--coordinator", world.trial.coordinator, *BUDGET, *more)


def charged(world: Realm) -> set[int]:
    """How many reservations stand in the sites' ledgers."""
    books = [next((home / "ledger").glob("*.db")) for home in world.trial.sites.values()]
    return {sum(entry.kind == Kind.RESERVE for entry in read_ledger(book).entries) for book in books}


def test_a_profile_is_kept_and_later_data_compared(world: Realm, commands: Commands, tmp_path: Path) -> None:
    """The same data: 0. Older patients: 11. A changed profile or a wrong option: nothing is charged."""
    file, history = tmp_path / "model.profile", tmp_path / "model.jsonl"
    explained = commands.run("profile", file, *at_hand(world, "--explain"))
    assert (explained.code, charged(world)) == (0, {0}), explained.err
    assert "profile" in explained.out
    world.start_sites()
    made = commands.run("profile", file, *at_hand(world, "--model", "model 7", "--label", "ill", "--json"))
    assert made.code == 0, made.err
    assert json.loads(made.out)["columns"] == ["dose", "age", "ill"]
    assert charged(world) == {1}
    again = commands.run("monitor", file, *at_hand(world), "--history", history)
    assert again.code == 0, again.out + again.err
    assert "no drift in dose, age, ill" in again.out
    assert charged(world) == {2}
    for name in list(world.running):
        world.kill(name)
    for name, frame in rows(3, older=15).items():
        frame.to_csv(world.trial.folder.parent / "rows" / f"{name}.csv", index=False)
    world.start_sites()
    later = commands.run("monitor", file, *at_hand(world, "--json"), "--history", history)
    assert later.code == 11, later.out + later.err
    told = json.loads(later.out)
    assert told["columns"]["age"] == "drift"
    assert told["columns"]["dose"] == "ok"
    assert told["epsilon"] == pytest.approx(8, rel=0.01)
    assert [run.status for run in MonitorHistory(history).runs] == ["ok", "drift"]
    _refused(world, commands, file, tmp_path)


def _refused(world: Realm, commands: Commands, file: Path, tmp_path: Path) -> None:
    before = charged(world)
    broken = bytearray(file.read_bytes())
    broken[-100] ^= 1
    (tmp_path / "broken").write_bytes(bytes(broken))
    tampered = commands.run("monitor", tmp_path / "broken", *at_hand(world))
    assert tampered.code == 3, tampered.err
    limits = tmp_path / "limits.yaml"
    limits.write_text("psi: {warn: 0.3, alert: 0.2}\n")
    wrong = commands.run("monitor", file, *at_hand(world), "--thresholds", limits)
    assert wrong.code == 2
    assert "limits.yaml:1: psi: warn 0.3 is above alert 0.2" in " ".join(wrong.err.split())
    assert commands.run("profile", file, *at_hand(world)).code == 2, "a profile is never overwritten"
    fields = SCHEMA.model_dump(mode="json")
    fields["columns"]["age"]["upper"] = 120.0
    other = tmp_path / "other.yaml"
    other.write_text(Schema(**fields).to_json())
    moved = commands.run("monitor", file, "--schema", other, "--coordinator", world.trial.coordinator, *BUDGET)
    assert moved.code == 5, moved.err
    assert "declared otherwise" in " ".join(moved.err.split())
    assert charged(world) == before


def test_a_federation_in_one_process() -> None:
    """The same through the library: profile_study, ask, Profile.from_result, compare."""
    schema = hospital_schema(1200)
    federation = privfl.Federation.local(hospital_tables(4, seed=3, patients=1200), schema)
    study = profile_study(schema, ["age", "sex"])
    view = study.view(schema)
    sides = [
        Profile.from_result(
            federation.ask(study, epsilon=6.0, delta=1e-6, progress=False), view, federation="local", made=at
        )
        for at in (0, 1)
    ]
    assert sides[0].sites == 4
    assert sides[0].tables[0].noise > 0
    assert compare(*sides, rng=np.random.default_rng(1)).status == "ok"


def test_the_table_shows_groups_that_stand_out() -> None:
    """And numbers, limits and statuses of everything that is judged; names are no markup."""
    rng = np.random.default_rng(4)
    report = compare(profile(patients(rng, 2000), by="sex"), profile(patients(rng, 2000, older=9), by="sex"), rng=rng)
    console = Console(width=200, record=True)
    console.print(render(report))
    said = console.export_text()
    assert "drift in age" in said
    assert "total variation" in said
    assert "wasserstein" not in said, "it has no limit"
    assert sum(" f " in line for line in said.splitlines()) >= 1
    assert f"(exit code {report.exit_code})" in said


def test_operators_are_waited_for_as_long_as_is_said(commands: Commands, tmp_path: Path) -> None:
    """`privfl profile --wait`: exit code 6, nothing charged, whom it waited for on standard error."""
    with realm(tmp_path / "realm", 4, frames=rows(1), policy=POLICY | {"approval": ["monitoring"]}) as world:
        world.start_sites()
        ran = commands.run("profile", tmp_path / "a", *at_hand(world, "--wait", "1", "--json"))
        ran.failed(
            6, "waiting for the yes of the operators of east, north, south, west (up to 1 s", "Nothing was spent"
        )
        assert charged(world) == {0}
    assert "--wait" in commands.run("monitor", "--help").out


def test_the_table_fits_a_narrow_terminal() -> None:
    """At 80 columns, with groups and notes: no number is broken, nothing cut off, and every abbreviation spelt out."""
    rng = np.random.default_rng(4)
    report = compare(profile(patients(rng, 2000), by="sex"), profile(patients(rng, 2000, older=9), by="sex"), rng=rng)
    first, *others = report.findings
    first = replace(first, status="unresolved", note="the noise hides it")
    report = replace(report, findings=(first, *others))
    console = Console(width=80, record=True)
    console.print(render(report, 80))
    said = console.export_text()
    assert "…" not in said
    assert f"{first.column} {first.measure}: the noise hides it." in said
    assert "unresolved" in said
    lines = [line for line in said.splitlines() if re.search(r"\d, +\d", line)]
    shown = [one for one in report.findings if one.judged and (not one.group or one.status in ("warn", "drift"))]
    assert len(lines) == len(shown), "one line for each"
    assert any("age of f" in line for line in lines)
    flat = " ".join(said.split())
    assert "JS: jensen shannon; TV: total variation" in flat
    assert max(map(len, said.splitlines())) <= 80


def test_the_table_fits_a_terminal_of_a_hundred_columns() -> None:
    """No number and no measure is cut off or broken, and where nothing was grouped there is no column for groups."""
    rng = np.random.default_rng(4)
    report = compare(profile(patients(rng, 2000)), profile(patients(rng, 2000)), rng=rng)
    console = Console(width=100, record=True)
    console.print(render(report, 100))
    said = console.export_text()
    assert "group" not in said
    assert "…" not in said
    assert "-0 " not in said
    rows = [line for line in said.splitlines() if line.startswith("│")]
    assert len(rows) == sum(one.judged for one in report.findings)
    assert any("jensen shannon" in line for line in rows)


def test_signing_with_an_analyst_s_folder_is_the_same_as_with_his_key(tmp_path: Path) -> None:
    """What the command signs verifies as what the library signs."""
    from privfl_keys import INSECURE_TEST_COST, Member, Roster

    from privfl.entropy import SYSTEM
    from privfl.homes.officer import OfficerHome

    word, folder = "a passphrase for tests", tmp_path / "ana"
    home = OfficerHome.init(folder, "ana", "north", word, 1, role="analyst", cost=INSECURE_TEST_COST)
    made = signed(profile(patients(np.random.default_rng(5), 50)), folder, word)
    assert isinstance(made, SignedProfile)
    roles = [("ana", home.identity.key, "analyst")]
    roles += [(name, SimpleNamespace(verify_key=key.verify_key), "site") for name, key in _keys().items()]
    members = [Member(name, key.verify_key.raw, (role,)) for name, key, role in roles]
    roster = Roster.create("north", members, graph_seed=SYSTEM.draw(32), valid_from=0, valid_until=10**15)
    assert made.verify(roster).federation == "north"


def _keys() -> dict:
    from privfl_keys import SigningKey

    from privfl.entropy import SYSTEM

    return {name: SigningKey.generate(SYSTEM) for name in ("a", "b", "c")}
