"""``privfl site status`` and ``privfl coordinator status``: tables, one object, exit codes, and looking on."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner, Result

from privfl.cli import status as module
from privfl.errors import Misuse
from privfl.runtime.alive import Process
from privfl.runtime.status import (
    CoordinatorStatus,
    Phase,
    SiteSeen,
    SiteStatus,
    Stage,
    StatusFile,
    WireSeen,
    write_notes,
)
from tests.cli.support import environment

app = typer.Typer(pretty_exceptions_enable=False)
app.command("site")(module.show_site)
app.command("coordinator")(module.show_coordinator)

HERE = Process.present(1_700_000_000_000)
EVIL = "[red]bold[/red]\n\x1b[2Jnothing \u202eto see"
SITE = SiteStatus(
    "north",
    "heart",
    HERE,
    roster=3,
    policy=2,
    policy_expires=4_102_444_800_000,
    epoch=1,
    round=4,
    attempt=0,
    stage=Stage.UPLOADED,
    since=1_700_000_000_000,
    waits_for="the others",
    uploads=5,
    bytes_sent=1234,
    refusals=2,
    refusal=EVIL,
    epsilon=0.5,
    epsilon_total=2.0,
    epsilon_by={"training": 0.5},
    error="the wire was away",
    alarm="the ledger is older than its anchor",
    wire=WireSeen("aws", "aws:bodies (eu-central-1)", 12, 30, 2_500_000, 1234, 1_700_000_000_000),
)
HUB = CoordinatorStatus(
    "heart",
    HERE,
    job="ab" * 32,
    name="logistic",
    phase=Phase.COLLECTING,
    round=4,
    rounds=30,
    epoch=1,
    attempt=1,
    score=0.81,
    aborted="two sites too few",
    round_began=1_700_000_000_000,
    last_round_ms=2340,
    sites=(
        SiteSeen("north", 1_700_000_000_000, uploaded=True, bytes_sent=10**6),
        SiteSeen("south", late=True, bytes_to=2000, missed=3),
        SiteSeen("east", refused=EVIL),
        SiteSeen("west"),
    ),
)


def write(folder: Path, status: SiteStatus | CoordinatorStatus) -> None:
    """As its process does."""
    StatusFile(folder / "status.json").write(status, force=True)


def show(*args: str | Path) -> Result:
    """The command."""
    env = {name: environment()[name] for name in ("NO_COLOR", "TERM")}
    return CliRunner().invoke(app, [str(arg) for arg in args], env={**env, "COLUMNS": "160"})


def test_a_site(tmp_path: Path) -> None:
    """Everything that the operator asks, on one screen; a peer's reason is shown and does nothing."""
    write(tmp_path, SITE)
    ran = show("site", tmp_path)
    assert ran.exit_code == 0
    flat = " ".join(re.sub("[│┃]", " ", ran.output).split())
    for wanted in (
        "site north in heart",
        "running",
        "ALARM the ledger is older",
        "uploaded, since",
        "waits for the others",
        "epoch 1, round 4, attempt 0",
        "roster version 3",
        "policy version 2, expires 2100-01-01",
        "uploads 5, 1.2 kB",
        "refusals 2, last: [red]bold[/red]\\x0a\\x1b[2Jnothing \\u202eto see",
        "epsilon spent 0.500 of 2.000",
        "training 0.500",
        "last error the wire was away",
        "wire aws:bodies (eu-central-1): works",
        "in 30 messages, 1.2 kB with their bodies",
        "out 12 messages, 2.5 MB with their bodies; last passed",
    ):
        assert wanted in flat, (wanted, flat)


def test_a_coordinator(tmp_path: Path) -> None:
    """Who has uploaded, who is late, who is waited for and who refused, with the reason."""
    write(tmp_path, HUB)
    ran = show("coordinator", tmp_path)
    assert ran.exit_code == 0
    flat = " ".join(re.sub("[│┃]", " ", ran.output).split())
    for wanted in (
        "logistic abababababababab",
        "collecting",
        "round 4 of 30, begun",
        "; the one before took 2.3 s",
        "attempt 1",
        "noisy score 0.810",
        "last attempt lost two sites too few",
        "1 of 4 sites have uploaded",
        "south late 3 – 0 B 2.0 kB",
        "east refused: [red]bold[/red]\\x0a",
        "west waited for",
        "1.0 MB",
    ):
        assert wanted in flat, (wanted, flat)


FAULT = "the queue does not answer"
AWAY = WireSeen("aws", "aws:bodies (x)", since=1_700_000_000_000, tries=7, faults=2, fault=FAULT + EVIL)


@pytest.mark.parametrize(
    ("wire", "stage", "wanted", "not_wanted"),
    [
        (AWAY, Stage.WAITING, ["cannot be used, since", "tried 7 times, and again", FAULT, "\\x0a"], "works"),
        (replace(AWAY, since=None, ended=1), Stage.WAITING, ["works", "was away 2 times, last until", FAULT], "cannot"),
        (replace(AWAY, since=None, ended=1, faults=1), Stage.WAITING, ["was away once"], "cannot"),
        (AWAY, Stage.DONE, ["not in use"], "works"),
        (None, Stage.WAITING, ["waiting"], "wire"),
    ],
)
def test_a_wire_that_comes_and_goes(
    wire: WireSeen | None, stage: Stage, wanted: list[str], not_wanted: str, tmp_path: Path
) -> None:
    """A fault is shown while it lasts, with how often it was tried, and afterwards as something that is over."""
    write(tmp_path, replace(SITE, wire=wire, stage=stage, error="", alarm="", refusal=""))
    flat = " ".join(re.sub("[│┃]", " ", show("site", tmp_path).output).split())
    assert all(words in flat for words in wanted), flat
    assert not_wanted not in flat


def test_what_the_carrier_says(tmp_path: Path) -> None:
    """Notes of a Flower app beside the process: shown, in JSON too, without their control characters; then gone."""
    write(tmp_path, SITE)
    write_notes(tmp_path, ["5 nodes, 1 of them is of no member", EVIL])
    flat = " ".join(show("site", tmp_path).output.split())
    assert "1 of them is of no member" in flat
    assert "\x1b" not in flat
    assert json.loads(show("site", tmp_path, "--json").output)["wire_notes"][1] == EVIL
    for spoilt in ("{", "3", "[1, {}]"):
        (tmp_path / "wire-notes.json").write_text(spoilt)
        assert json.loads(show("site", tmp_path, "--json").output)["wire_notes"] == []
    write_notes(tmp_path, [])
    assert [path.name for path in tmp_path.iterdir()] == ["status.json"]


def test_a_status_of_an_earlier_version(tmp_path: Path) -> None:
    """One that knows nothing of wires is shown all the same."""
    write(tmp_path, replace(HUB, name="earlier"))
    found = json.loads((tmp_path / "status.json").read_text())
    for name in ("wire", "round_began", "last_round_ms"):
        del found["status"][name]
    for site in found["status"]["sites"]:
        del site["bytes_to"], site["missed"]
    (tmp_path / "status.json").write_text(json.dumps(found))
    ran = show("coordinator", tmp_path)
    assert ran.exit_code == 0
    assert "earlier" in ran.output
    assert "wire" not in ran.output


def test_many_sites_on_one_screen(tmp_path: Path) -> None:
    """Who holds the round up comes first, and the rest is counted; everyone is in the whole table."""
    late = (SiteSeen("site-7", late=True), SiteSeen("site-8", refused="no"), SiteSeen("site-9"))
    many = replace(HUB, sites=(*(SiteSeen(f"up-{n}", uploaded=True) for n in range(200)), *late))
    parts = module._sites(many, module._Look(0, rows=3))
    table: Any = parts[0]
    assert list(table.columns[0].cells) == [module._words(name) for name in ("site-7", "site-8", "site-9")]
    assert "200 more" in str(parts[1])
    write(tmp_path, many)
    ran = show("coordinator", tmp_path)
    assert all(f"up-{n} " in ran.output for n in range(200))


def test_json(tmp_path: Path) -> None:
    """One object: the status as it is, and whether its process lives."""
    write(tmp_path, HUB)
    found: dict[str, Any] = json.loads(show("coordinator", tmp_path, "--json").output)
    assert found["life"] == "running"
    assert found["sites"][2]["refused"] == EVIL
    assert found["phase"] == "collecting"


@pytest.mark.parametrize(
    ("status", "code", "word"),
    [
        (replace(SITE, process=replace(HERE, birth="another boot/1")), 1, "stopped: start it again"),
        (replace(SITE, process=replace(HERE, host="far away")), 0, "on far away"),
        (replace(SITE, stage=Stage.FAILED), 1, "failed"),
        (replace(SITE, stage=Stage.DONE), 0, "done"),
        (replace(SITE, since=10**30, policy_expires=10**30), 0, "beyond all calendars"),
        (SiteStatus("north", "heart", HERE), 0, "starting"),
    ],
)
def test_exit_codes(status: SiteStatus, code: int, word: str, tmp_path: Path) -> None:
    """0 while it runs or when it is done, 1 when it failed or vanished; looking on ends with the process."""
    write(tmp_path, status)
    ran = show("site", tmp_path)
    assert ran.exit_code == code
    assert word in ran.output
    if code or status.stage is Stage.DONE:
        assert show("site", tmp_path, "--follow").exit_code == code


def test_looking_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The screen follows the file until the job is done."""
    write(tmp_path, HUB)
    stages = iter([replace(HUB, round=5), replace(HUB, round=6), replace(HUB, round=7, phase=Phase.DONE)])
    monkeypatch.setattr(module.time, "sleep", lambda _: write(tmp_path, next(stages)))
    ran = show("coordinator", tmp_path, "--follow")
    assert ran.exit_code == 0
    assert "round 7 of 30" in ran.output


def test_ctrl_c_ends_looking_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is no failure to have seen enough."""

    def interrupted(_: float) -> None:
        raise KeyboardInterrupt

    write(tmp_path, SITE)
    monkeypatch.setattr(module.time, "sleep", interrupted)
    assert show("site", tmp_path, "-f").exit_code == 0


def test_wrong_calls(tmp_path: Path) -> None:
    """No status, and both ways of looking at once."""
    assert isinstance(show("site", tmp_path).exception, Misuse)
    write(tmp_path, SITE)
    assert isinstance(show("site", tmp_path, "--follow", "--json").exception, Misuse)
