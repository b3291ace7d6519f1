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
from privfl.runtime.status import CoordinatorStatus, Phase, SiteSeen, SiteStatus, Stage, StatusFile
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
    sites=(
        SiteSeen("north", 1_700_000_000_000, uploaded=True, bytes_sent=10**6),
        SiteSeen("south", late=True),
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
        "round 4 of 30",
        "attempt 1",
        "noisy score 0.810",
        "last attempt lost two sites too few",
        "1 of 4 sites have uploaded",
        "south late –",
        "east refused: [red]bold[/red]\\x0a",
        "west waited for",
        "1.0 MB",
    ):
        assert wanted in flat, (wanted, flat)


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
