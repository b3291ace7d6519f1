"""``privfl doctor``: on a sound machine and a sound folder nothing fails; each thing that can break is named."""

from __future__ import annotations

import json
import os
import re
import shutil
import sqlite3
import sys
import time
from collections import namedtuple
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from privfl_keys import INSECURE_TEST_COST, SealingKey

from privfl.budget import Policy, SignedPolicy
from privfl.errors import Unverified
from privfl.homes.authority import AuthorityHome
from privfl.homes.coordinator import CoordinatorHome
from privfl.homes.drafting import RosterTerms
from privfl.homes.lock import Lock
from privfl.homes.officer import OfficerHome
from privfl.homes.passphrase import VARIABLE
from privfl.homes.site import SiteHome, Table
from privfl.runtime import doctor_machine as machine
from privfl.runtime.alive import Process
from privfl.runtime.checks import Verdict, carried_out, ok
from privfl.runtime.doctor import Check, examine
from privfl.runtime.status import SiteStatus, Stage, StatusFile
from tests.cli.support import called

Patch = pytest.MonkeyPatch
Capture = pytest.CaptureFixture[str]
WORDS = "six random words are quite good"
NOW = time.time_ns() // 1_000_000
DAY = 86_400_000
SITES = ("north", "south", "east")


class At:
    """A clock that stands."""

    def __init__(self, now: int = NOW) -> None:
        self._now = now

    def now(self) -> int:
        """That time."""
        return self._now


def date(ms: int) -> str:
    """As a policy writes it."""
    return datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%d")


def policy_text() -> str:
    """A policy that three sites and their roster can fulfil, valid for a hundred days."""
    return f"""
federation: heart
version: 1
valid_from: {date(NOW - DAY)}
expires: {date(NOW + 100 * DAY)}
dataset: table
schema_version: 1
population: patients
subjects: 5000
unit: record
trust: local
epsilon: 4
delta: 1e-6
shares: {{training: 1}}
colluders: 1
min_survivors: 3
min_sites: 3
min_committee: 3
attempts_per_round: 3
modes: [complete]
min_cell_count: 10
tasks: {{logistic: {{clip: 0.3}}}}
columns: {{age: {{lower: 0, upper: 110}}, ill: {{classes: [false, true]}}}}
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An authority, an officer, a coordinator and a site that has joined and is bound to a table."""
    root, how = tmp_path_factory.mktemp("federation"), {"cost": INSECURE_TEST_COST}
    AuthorityHome.init(root / "authority", "heart", WORDS, **how)
    requests = [
        OfficerHome.init(root / "officer", "olga", "heart", WORDS, NOW, **how).request(NOW),
    ]
    CoordinatorHome.init(root / "hub", "hub", "heart", f"folder:{root / 'wire'}", WORDS, NOW, **how)
    requests.append(CoordinatorHome.request(root / "hub", WORDS, NOW))
    for name in SITES:
        SiteHome.init(root / name, name, "heart", WORDS, NOW, **how)
        requests.append(SiteHome.request(root / name, WORDS, NOW))
    with AuthorityHome.open(root / "authority", WORDS) as authority:
        for request in requests:
            authority.approve(request, request.fingerprint, NOW)
        authority.sign_roster(NOW, RosterTerms(colluders=1))
    signed = SignedPolicy.sign(Policy.from_yaml(policy_text()), OfficerHome.open(root / "officer", WORDS).identity.key)
    (root / "policy.signed").write_bytes(signed.encode())
    (root / "schema.yaml").write_text(
        "records: 5000\ncolumns:\n  age: {lower: 0, upper: 110}\n  ill: {classes: [false, true]}\n"
    )
    (root / "rows.csv").write_text("age,ill\n40,True\n50,False\n")
    joining: dict[str, Any] = {
        "rosters": root / "authority" / "rosters",
        "authority": str(root / "authority" / "authority.pub"),
        "policy": root / "policy.signed",
    }
    CoordinatorHome.join(root / "hub", WORDS, NOW, **joining)
    table = Table(root / "rows.csv", root / "schema.yaml")
    SiteHome.join(root / "north", WORDS, NOW, wire=f"folder:{root / 'wire'}", table=table, **joining)
    return root


@pytest.fixture
def root(made: Path, tmp_path: Path) -> Path:
    """A copy that a test may spoil, at a place of its own."""
    copy = tmp_path / "federation"
    shutil.copytree(made, copy)
    for folder in ("north", "hub"):
        for path in (copy / folder).glob("*.yaml"):
            path.write_text(path.read_text().replace(str(made), str(copy)))
    return copy


def look(folder: Path, passphrase: str | None = WORDS, now: int | None = None) -> dict[str, Check]:
    """Everything the doctor says, by name; by default now, for it compares the clock with the disk's."""
    clock = At(time.time_ns() // 1_000_000 if now is None else now)
    return {check.name: check for check in examine(folder, passphrase=passphrase, clock=clock)}


def failing(checks: dict[str, Check]) -> dict[str, str]:
    """What fails, and why."""
    assert all(check.step for check in checks.values() if check.verdict in (Verdict.FAIL, Verdict.WARN))
    return {name: check.found for name, check in checks.items() if check.verdict is Verdict.FAIL}


def listing(folder: Path) -> dict[str, bytes]:
    """Every file and what is in it, the lock apart, which names its last holder."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != "lock"
    }


@pytest.mark.parametrize("role", ["north", "hub", "authority", "officer"])
@pytest.mark.parametrize("passphrase", [WORDS, None])
def test_a_sound_folder(role: str, passphrase: str | None, root: Path) -> None:
    """Of every role: nothing fails, with the passphrase and without, and nothing in the folder has changed."""
    before = listing(root)
    checks = look(root / role, passphrase)
    assert not failing(checks)
    assert checks["keys and state"].verdict is (Verdict.OK if passphrase else Verdict.SKIPPED)
    if role == "north" and passphrase:
        assert {checks[name].verdict for name in ("roster", "policy", "ledger", "data", "wire")} == {Verdict.OK}
        assert "99 days left" in checks["policy"].found
    assert listing(root) == before


def test_no_value_is_told(root: Path) -> None:
    """Neither rows nor their number."""
    (root / "rows.csv").write_text("age,ill\n" + "77.123,True\n" * 4321)
    words = repr(look(root / "north"))
    assert "4321" not in words
    assert "77.1" not in words


Spoil = Callable[[Path], object]


def _delete(name: str) -> Spoil:
    return lambda root: (root / name).unlink()


def _write(name: str, text: str) -> Spoil:
    return lambda root: (root / name).write_text(text)


def _mode(name: str, mode: int) -> Spoil:
    return lambda root: (root / name).chmod(mode)


def _edit(name: str, old: str, new: str) -> Spoil:
    return lambda root: (root / name).write_text((root / name).read_text().replace(old, new))


def _cut_ledger(root: Path) -> None:
    """Leave the opening alone, as an older copy of the file would."""
    with sqlite3.connect(root / "north/ledger/patients.db") as connection:
        triggers = connection.execute("SELECT name, sql FROM sqlite_master WHERE type = 'trigger'").fetchall()
        for name, _ in triggers:
            connection.execute(f"DROP TRIGGER {name}")
        connection.execute("DELETE FROM entries WHERE seq > 0")
        for _, sql in triggers:
            connection.execute(sql)
    connection.close()


def _foreign_ledger(root: Path) -> None:
    """Put another site's ledger in place."""
    from privfl.budget.ledger import Ledger

    path = root / "north/ledger/patients.db"
    path.unlink()
    identity = OfficerHome.open(root / "officer", WORDS).identity
    Ledger.create(path, identity.key, federation="heart", population="patients", now=NOW).close()


def _flip(name: str) -> Spoil:
    def spoil(root: Path) -> None:
        data = bytearray((root / name).read_bytes())
        data[len(data) // 2] ^= 1
        (root / name).write_bytes(data)

    return spoil


def _alarm(root: Path) -> None:
    status = SiteStatus("north", "heart", Process.present(NOW), alarm="the state is older than what others remember")
    StatusFile(root / "north/status.json").write(status)


FAILURES: dict[str, tuple[Spoil, str, str]] = {
    "no configuration": (_delete("north/site.yaml"), "folder", "holds no site.yaml"),
    "odd configuration": (_write("north/site.yaml", "["), "folder", "not YAML"),
    "open folder": (_mode("north", 0o755), "permissions", "others may access"),
    "open keys": (_mode("north/keys", 0o640), "permissions", "keys"),
    "open ledger": (_mode("north/ledger/patients.db", 0o644), "permissions", "patients.db"),
    "alarm": (_alarm, "process", "older than what others remember"),
    "damaged keys": (_flip("north/keys"), "keys and state", "damaged"),
    "no state": (_delete("north/state.db"), "keys and state", "state.db is missing"),
    "another's state key": (
        lambda root: shutil.copyfile(root / "south/state.key", root / "north/state.key"),
        "keys and state",
        "",
    ),
    "another's keys": (
        lambda root: shutil.copyfile(root / "south/keys", root / "north/keys"),
        "keys and state",
        "another key than site.yaml names",
    ),
    "no wire named": (
        lambda root: (root / "north/site.yaml").write_text(
            re.sub("(?m)^wire: .*\n", "", (root / "north/site.yaml").read_text())
        ),
        "wire",
        "no wire is named",
    ),
    "wire gone": (lambda root: shutil.rmtree(root / "wire"), "wire", "no privfl wire folder"),
    "wire in parts": (lambda root: shutil.rmtree(root / "wire/tmp"), "wire", "wire"),
    "no ledger": (_delete("north/ledger/patients.db"), "ledger", "missing"),
    "older ledger": (_cut_ledger, "ledger", "older copy"),
    "another's ledger": (_foreign_ledger, "ledger", "another site"),
    "damaged ledger": (_write("north/ledger/patients.db", "rubbish"), "ledger", "no ledger"),
    "no table": (_delete("rows.csv"), "data", "no table"),
    "empty table": (_write("rows.csv", "age,ill\n"), "data", "rows.csv"),
    "missing column": (_write("rows.csv", "age\n40\n"), "data", "ill"),
    "binary table": (lambda root: (root / "rows.csv").write_bytes(bytes(range(256)) * 9), "data", "rows.csv"),
    "another schema": (_edit("north/schema.yaml", "5000", "6000"), "data", "not the schema that was bound"),
    "no schema": (_delete("north/schema.yaml"), "data", ""),
}


@pytest.mark.parametrize("case", FAILURES)
def test_what_can_break(case: str, root: Path) -> None:
    """Each fails under its own name with its reason; the other checks are carried out all the same."""
    spoil, name, words = FAILURES[case]
    spoil(root)
    found = failing(look(root / "north"))
    assert name in found, found
    assert words in found[name]
    assert len(found) <= 2


def test_never_joined(root: Path) -> None:
    """A site between init and join: what it lacks, each with its command."""
    checks = look(root / "south")
    assert set(failing(checks)) == {"roster", "policy", "wire", "data"}
    assert "privfl site join" in checks["roster"].step
    assert checks["ledger"].verdict is Verdict.SKIPPED


def test_an_authority_before_its_first_roster(tmp_path: Path) -> None:
    """What it has to do is named."""
    AuthorityHome.init(tmp_path / "a", "heart", WORDS, cost=INSECURE_TEST_COST)
    assert "privfl authority roster" in failing(look(tmp_path / "a"))["roster"]


def test_dates(root: Path) -> None:
    """Soon is a warning, past is a failure, and a clock of the past is found out by roster and ledger."""
    checks = look(root / "north", now=NOW + 90 * DAY)
    assert checks["policy"].verdict is Verdict.WARN
    assert "compliance officer" in checks["policy"].step
    assert "expired" in failing(look(root / "north", now=NOW + 101 * DAY))["policy"]
    checks = look(root / "north", now=NOW + 360 * DAY)
    assert checks["roster"].verdict is Verdict.WARN
    assert set(failing(look(root / "hub", now=NOW + 400 * DAY))) >= {"roster", "policy"}
    found = failing(look(root / "north", now=NOW - 30 * DAY))
    assert "not valid yet" in found["roster"]
    assert "clock" in found["ledger"]
    assert "expired" in failing(look(root / "authority", now=NOW + 400 * DAY))["roster"]


def test_columns_of_another_type(root: Path) -> None:
    """They still fit the schema, so it is a warning."""
    (root / "rows.csv").write_text("age,ill\n40.5,True\n50,False\n")
    check = look(root / "north")["data"]
    assert (check.verdict, check.found.rpartition(" ")[2]) == (Verdict.WARN, "age")


def test_a_wrong_passphrase(root: Path) -> None:
    """It is said, and what lies behind it is skipped."""
    checks = look(root / "north", "another passphrase")
    assert "does not open" in failing(checks)["keys and state"]
    assert checks["roster"].verdict is checks["policy"].verdict is Verdict.SKIPPED


def test_a_process_at_work(root: Path) -> None:
    """The state is its own; nothing fails, and it is not disturbed."""
    with Lock(root / "north"):
        checks = look(root / "north")
        assert not failing(checks)
        assert f"pid {os.getpid()}" in checks["process"].found
        assert checks["policy"].verdict is checks["leftovers"].verdict is Verdict.SKIPPED


def test_after_a_crash(root: Path) -> None:
    """A status without its process, and files that were being written."""
    gone = Process(2**22 + 1, NOW)
    StatusFile(root / "north/status.json").write(SiteStatus("north", "heart", gone, stage=Stage.COMPUTING))
    (root / "north/.site.yaml.abc.tmp").write_bytes(b"")
    checks = look(root / "north")
    assert not failing(checks)
    assert checks["process"].verdict is checks["leftovers"].verdict is Verdict.WARN
    assert "was killed" in checks["process"].found
    assert ".site.yaml.abc.tmp" in checks["leftovers"].found
    (root / "north/status.json").write_text("{")
    assert "damaged status" in look(root / "north")["process"].found


def test_a_read_only_folder(root: Path, monkeypatch: Patch) -> None:
    """Said as such; asked of the system, since root may write anywhere."""
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert "read-only" in failing(look(root / "north", None))["permissions"]


@pytest.mark.parametrize("where", ["absent", "file", "empty", "\0"])
def test_no_folder(where: str, tmp_path: Path) -> None:
    """Whatever is given instead of a folder: one failed check, no exception."""
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "empty").mkdir()
    assert set(failing(look(tmp_path / where))) == {"folder"}


# -- the machine ------------------------------------------------------------------------------------------------


def test_the_machine_is_sound(tmp_path: Path) -> None:
    """This one, since the other tests pass on it; nothing is left behind."""
    checks = list(carried_out(machine.machine_checks(tmp_path, At())))
    assert [check.name for check in checks][:3] == ["python", "packages", "sealing"]
    assert {check.verdict for check in checks if check.name not in ("clock", "disk")} <= {Verdict.OK, Verdict.SKIPPED}
    assert not list(tmp_path.iterdir())


class Fixed:
    """Entropy that is none."""

    def draw(self, size: int) -> bytes:
        """Zeros."""
        return bytes(size)


def test_randomness_that_is_none(monkeypatch: Patch) -> None:
    """A constant source, and a generator that is not ready."""
    assert "repeat" in machine.randomness(Fixed()).found
    if hasattr(os, "getrandom"):
        monkeypatch.setattr(os, "getrandom", lambda *_: (_ for _ in ()).throw(BlockingIOError()))
        assert machine.randomness(Fixed()).verdict is Verdict.FAIL


def test_an_old_python(monkeypatch: Patch) -> None:
    """Below what privfl asks for."""
    monkeypatch.setattr(machine, "OLDEST_PYTHON", (9, 0))
    assert machine.python().verdict is Verdict.FAIL


@pytest.mark.parametrize(
    ("versions", "verdict", "words"),
    [
        ({"numpy": "1.20.0"}, Verdict.FAIL, "numpy 1.20.0 (needs >=1.26)"),
        ({"cryptography": "51.0.0"}, Verdict.FAIL, "cryptography 51.0.0"),
        ({"rich": None}, Verdict.FAIL, "rich is missing"),
        ({"privfl": "0.0.1"}, Verdict.FAIL, "0.0.1 is installed"),
        ({"privfl": None}, Verdict.WARN, "from its source"),
    ],
)
def test_packages(versions: dict[str, str | None], verdict: Verdict, words: str, monkeypatch: Patch) -> None:
    """Too old, too new, missing, or another privfl than the one that runs."""
    real = metadata.version

    def version(name: str) -> str:
        found = versions.get(name, "")
        if found is None:
            raise metadata.PackageNotFoundError(name)
        return found or real(name)

    monkeypatch.setattr(metadata, "version", version)
    finding = machine.packages()
    assert finding.verdict is verdict
    assert words in finding.found


def test_sealing_that_does_not_hold(monkeypatch: Patch) -> None:
    """A library that opens to something else, opens everything, or fails."""

    def fails(*_: object) -> bytes:
        raise Unverified("it does not open")

    for opened, words in ((lambda *_: b"x", "something else"), (fails, "does not open")):
        monkeypatch.setattr(SealingKey, "open", opened)
        (check,) = carried_out(iter([("sealing", lambda: machine.sealing(Fixed()))]))
        assert check.verdict is Verdict.FAIL
        assert words in check.found
    monkeypatch.setattr(SealingKey, "open", lambda *_: bytes(32))
    assert "another context" in machine.sealing(Fixed()).found


def test_clocks(tmp_path: Path, monkeypatch: Patch) -> None:
    """Before the release, running away, and apart from the disk's."""

    class Leaps:
        def __init__(self) -> None:
            self.times: Iterator[int] = iter([NOW, NOW + 5 * DAY])

        def now(self) -> int:
            return next(self.times)

    assert "before this version" in machine.clock_sanity(tmp_path, At(0)).found
    assert "jumps" in machine.clock_sanity(tmp_path, Leaps()).found
    disk = time.time_ns() // 1_000_000
    assert machine.clock_sanity(tmp_path, At(disk - 60_000)).verdict is Verdict.WARN
    assert machine.clock_sanity(tmp_path, At(disk - 3_600_000)).verdict is Verdict.FAIL


def test_disks(tmp_path: Path, monkeypatch: Patch) -> None:
    """Nearly full and full."""
    usage = namedtuple("usage", "free")
    for free, verdict in ((10**6, Verdict.FAIL), (5 * 10**8, Verdict.WARN), (10**12, Verdict.OK)):
        monkeypatch.setattr(shutil, "disk_usage", lambda _, free=free: usage(free))
        assert machine.disk(tmp_path).verdict is verdict


def test_databases(tmp_path: Path, monkeypatch: Patch) -> None:
    """No room for one, no fsync, and an old SQLite."""
    assert machine.database(tmp_path / "absent").verdict is Verdict.FAIL

    def fails(_: int) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fails)
        assert "Input/output error" in machine.database(tmp_path).found
    monkeypatch.setattr(sqlite3, "sqlite_version_info", (3, 7, 0))
    assert machine.database(tmp_path).verdict is Verdict.FAIL
    assert not list(tmp_path.iterdir())


def test_terminals(monkeypatch: Patch) -> None:
    """None, a plain one, and one that cannot show the tables."""

    class Screen:
        encoding = "utf-8"

        def isatty(self) -> bool:
            return True

    monkeypatch.setattr(sys, "stdout", Screen())
    good = machine.terminal()
    monkeypatch.setattr(Screen, "encoding", "ascii")
    bad = machine.terminal()
    monkeypatch.undo()
    assert (good.verdict, bad.verdict) == (Verdict.OK, Verdict.WARN)


def test_a_check_that_raises_is_a_failed_one() -> None:
    """With privfl's own words, or with the kind of what a library raised; the next one is carried out."""

    def ours() -> Any:
        raise Unverified("bad\nseal")

    def theirs() -> Any:
        raise ValueError("row 17 holds 0.8125")

    found = list(carried_out(iter([("a", ours), ("b", theirs), ("c", lambda: ok("fine"))])))
    assert [check.verdict.value for check in found] == ["fail", "fail", "ok"]
    assert [check.found for check in found] == ["bad\\x0aseal", "ValueError", "fine"]


# -- the command ------------------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def _no_passphrase(monkeypatch: Patch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)


def test_the_table(root: Path, capfd: Capture, monkeypatch: Patch) -> None:
    """Sound: exit code 0. Spoiled: 1, and where to begin."""
    ran = called(capfd, monkeypatch, "doctor", root / "north")
    assert ran.code == 0, ran.out
    assert "no passphrase was given" in " ".join(ran.out.replace("│", " ").split())
    (root / "north/keys").chmod(0o644)
    ran = called(capfd, monkeypatch, "doctor", root / "north")
    assert ran.code == 1
    assert "Begin with the first" in ran.err


def test_the_object(root: Path, tmp_path: Path, capfd: Capture, monkeypatch: Patch) -> None:
    """The same as one object, with the passphrase from the environment or a file."""
    (tmp_path / "pass").write_text(WORDS + "\n")
    (tmp_path / "pass").chmod(0o600)
    ran = called(capfd, monkeypatch, "doctor", root / "north", "--json", "--passphrase-file", tmp_path / "pass")
    found = json.loads(ran.out)
    assert (ran.code, ran.err, found["ok"]) == (0, "", True)
    assert {"name", "verdict", "found", "step"} == set(found["checks"][0])
    monkeypatch.setenv(VARIABLE, WORDS)
    found = json.loads(called(capfd, monkeypatch, "doctor", root / "north", "--json").out)
    assert {check["verdict"] for check in found["checks"] if check["name"] == "policy"} == {"ok"}


def test_a_passphrase_file_that_is_none(root: Path, tmp_path: Path, capfd: Capture, monkeypatch: Patch) -> None:
    """A finding as well, and the rest is looked at."""
    ran = called(capfd, monkeypatch, "doctor", root / "north", "--json", "--passphrase-file", tmp_path / "none")
    found = {check["name"]: check["verdict"] for check in json.loads(ran.out)["checks"]}
    assert ran.code == 1
    assert (found["passphrase"], found["ledger"]) == ("fail", "ok")


def test_the_machine_alone(capfd: Capture, monkeypatch: Patch) -> None:
    """Without a folder."""
    found = json.loads(called(capfd, monkeypatch, "doctor", "--json").out)
    assert [check["name"] for check in found["checks"]] == [
        "python",
        "packages",
        "sealing",
        "randomness",
        "clock",
        "disk",
        "database",
        "terminal",
    ]
