"""Status files: replaced whole, of a process that can be told from its successors, and nothing private in them."""

from __future__ import annotations

import json
import logging
import math
import multiprocessing
import os
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from privfl.errors import Misuse
from privfl.runtime import alive
from privfl.runtime.alive import Process
from privfl.runtime.status import (
    CoordinatorStatus,
    Phase,
    SiteSeen,
    SiteStatus,
    Stage,
    StatusFile,
    life,
    read_status,
)

NOW = 1_800_000_000_000
HERE = Process.present(NOW)
SITE = SiteStatus("north", "heart", HERE, stage=Stage.COMPUTING)
HUB = CoordinatorStatus("heart", HERE, phase=Phase.COLLECTING)

words = st.text()
number = st.none() | st.integers(0, 2**62)
part = st.none() | st.floats(0, 1e9)
sites = st.builds(
    SiteStatus,
    name=words,
    federation=words,
    process=st.just(HERE),
    stage=st.sampled_from(Stage),
    roster=number,
    policy=number,
    policy_expires=number,
    epoch=number,
    round=number,
    attempt=number,
    waits_for=words,
    refusal=words,
    epsilon=part,
    epsilon_by=st.dictionaries(words, st.floats(0, 1e9), max_size=3),
    alarm=words,
)
seen = st.builds(SiteSeen, name=words, seen=number, uploaded=st.booleans(), late=st.booleans(), refused=words)
hubs = st.builds(
    CoordinatorStatus,
    federation=words,
    process=st.just(HERE),
    phase=st.sampled_from(Phase),
    sites=st.lists(seen, max_size=4).map(tuple),
    score=part,
    aborted=words,
)


@pytest.fixture(scope="session")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One file for all examples."""
    return tmp_path_factory.mktemp("status") / "status.json"


@given(sites | hubs)
def test_what_is_written_is_read(place: Path, status: SiteStatus | CoordinatorStatus) -> None:
    """Whatever peers call themselves and give as reasons."""
    StatusFile(place).write(status)
    assert read_status(place, type(status)) == status


def test_numbers_without_end(place: Path) -> None:
    """JSON has no infinity: an epsilon without bound is none."""
    StatusFile(place).write(replace(SITE, epsilon=math.inf, epsilon_total=math.nan))
    found = read_status(place, SiteStatus)
    assert (found.epsilon, found.epsilon_total) == (None, None)
    json.loads(place.read_text(), parse_constant=pytest.fail)


def test_half_a_surrogate(place: Path) -> None:
    """As in the name of a file that is no UTF-8: shown as an escape, and the status can be read."""
    StatusFile(place).write(replace(SITE, error="\udcff.csv", epsilon_by={"\udcff": 1.0}))
    found = read_status(place, SiteStatus)
    assert (found.error, dict(found.epsilon_by)) == ("\\udcff.csv", {"\\udcff": 1.0})


def test_not_more_often_than_said(place: Path) -> None:
    """A write that comes too soon is held; the latest of those goes out with the next call, or on demand."""
    tick = 0
    file = StatusFile(place, every_ms=50, ticks=lambda: tick)

    def shown() -> int | None:
        return read_status(place, SiteStatus).round

    def write(number: int, *, force: bool = False) -> int | None:
        file.write(replace(SITE, round=number), force=force)
        return shown()

    assert write(0) == 0
    tick = 49
    assert write(1) == 0
    assert write(2) == 0
    file.flush()
    assert shown() == 2
    assert write(3) == 2
    tick = 99
    assert write(4) == 4
    assert write(5, force=True) == 5
    file.flush()
    assert shown() == 5


def test_a_reader_never_sees_half(tmp_path: Path) -> None:
    """A process writes statuses of very different lengths as fast as it can; a reader always finds a whole one."""
    path = tmp_path / "status.json"
    StatusFile(path).write(SITE)
    stop = threading.Event()

    def write() -> None:
        file, number = StatusFile(path), 0
        while not stop.is_set():
            number += 1
            file.write(replace(SITE, round=number, refusal="x" * (number % 7 * 5000)), force=True)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        rounds = [read_status(path, SiteStatus).round or 0 for _ in range(300)]
    finally:
        stop.set()
        writer.join()
    assert rounds == sorted(rounds)
    assert [entry.name for entry in tmp_path.iterdir()] == ["status.json"]


def test_anyone_may_read(tmp_path: Path) -> None:
    """The folder keeps others out; the file itself does not."""
    path = tmp_path / "status.json"
    StatusFile(path).write(SITE)
    assert path.stat().st_mode & 0o400
    assert not path.stat().st_mode & 0o111


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"null",
        b"[1]",
        b"\xff\xfe\x00",
        b'"x"',
        b"[" * 100_000,
        b'{"format": 2, "kind": "site", "status": {}}',
        b'{"format": 1, "kind": "site"}',
        b'{"format": 1, "kind": "site", "status": {"name": "x"}}',
        b'{"format": 1, "kind": "site", "status": {"name": 1, "federation": "f", "process": {"pid": 1, "began": 1}}}',
    ],
)
def test_garbage(data: bytes, tmp_path: Path) -> None:
    """No traceback, and what to do."""
    (tmp_path / "status.json").write_bytes(data)
    with pytest.raises(Misuse, match=r"damaged .* the next start"):
        read_status(tmp_path / "status.json", SiteStatus)


def test_every_beginning_of_a_status(tmp_path: Path) -> None:
    """A file torn at any byte is damaged."""
    path = tmp_path / "status.json"
    StatusFile(path).write(SITE)
    data = path.read_bytes()
    for size in range(len(data)):
        path.write_bytes(data[:size])
        with pytest.raises(Misuse):
            read_status(path, SiteStatus)


def test_no_status_and_the_other_role_s(tmp_path: Path) -> None:
    """Both messages name the command."""
    path = tmp_path / "status.json"
    with pytest.raises(Misuse, match="privfl site run"):
        read_status(path, SiteStatus)
    StatusFile(path).write(HUB)
    with pytest.raises(Misuse, match="privfl coordinator status"):
        read_status(path, SiteStatus)
    with pytest.raises(Misuse, match="cannot be read"):
        read_status(tmp_path, SiteStatus)


def test_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """Work goes on without a status, and the log says so once, and again only after it went well in between."""
    file = StatusFile(tmp_path / "absent" / "status.json")
    with caplog.at_level(logging.WARNING, "privfl.status"):
        for _ in range(5):
            file.write(SITE, force=True)
        (tmp_path / "absent").mkdir()
        file.write(SITE, force=True)
        monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
        file.write(SITE, force=True)
    assert len(caplog.records) == 2


def test_the_living_and_the_ended(tmp_path: Path) -> None:
    """This process runs; what said that it was done or failed is that, whoever has its number now."""
    assert life(SITE) == life(HUB) == "running"
    assert life(replace(SITE, stage=Stage.DONE)) == life(replace(HUB, phase=Phase.DONE)) == "done"
    assert life(replace(SITE, stage=Stage.FAILED)) == life(replace(HUB, phase=Phase.FAILED)) == "failed"


def test_a_process_that_was_killed() -> None:
    """Stopped, as long as nobody has asked for its end (it is in the table still) and afterwards."""
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    status = replace(SITE, process=replace(HERE, pid=child.pid, birth=alive._birth(child.pid)))
    unborn = replace(SITE, process=replace(HERE, pid=child.pid, birth=""))
    try:
        assert life(status) == life(unborn) == "running"
        child.kill()
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        assert life(status) == life(unborn) == "stopped"
    finally:
        child.kill()
        child.communicate()
    assert life(status) == life(unborn) == "stopped"


@pytest.mark.skipif(not HERE.birth, reason="this system does not tell when a process began")
def test_a_number_that_came_again() -> None:
    """A living process with the number of the writer, but another start or another boot, is not the writer."""
    boot, began = HERE.birth.split("/")
    for birth in (f"{boot}/{int(began) + 1}", f"{'0' * len(boot)}/{began}"):
        assert life(replace(SITE, process=replace(HERE, birth=birth))) == "stopped"


def test_a_system_that_tells_no_birth(monkeypatch: pytest.MonkeyPatch) -> None:
    """Then the number alone has to do."""
    monkeypatch.setattr(alive, "_birth", lambda _: "")
    assert Process.present(NOW).birth == ""
    assert life(SITE) == "running"


def test_another_s_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that may not be signalled lives."""

    def forbidden(*_: Any) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "kill", forbidden)
    assert life(SITE) == "running"


@pytest.mark.parametrize("pid", [0, -1, -9, 2**22 + 1, 2**31, 2**63, 10**30])
def test_numbers_that_are_no_process(pid: int) -> None:
    """Nothing is signalled that should not be: 0 and below stand for groups."""
    assert life(replace(SITE, process=replace(HERE, pid=pid, birth=""))) == "stopped"


def test_another_machine_s_status() -> None:
    """A folder on a shared disk: nothing can be told from here."""
    assert life(replace(SITE, process=replace(HERE, host=HERE.host + "-other"))) == "elsewhere"


def _child(path: Path) -> None:
    StatusFile(path).write(replace(SITE, process=Process.present(NOW)))


def test_between_processes(tmp_path: Path) -> None:
    """The status of a child that ended without a word."""
    path = tmp_path / "status.json"
    child = multiprocessing.get_context("spawn").Process(target=_child, args=(path,))
    child.start()
    child.join()
    found = read_status(path, SiteStatus)
    assert found.process.pid == child.pid
    assert life(found) == "stopped"
