"""Whatever an operator brings or breaks: a readable message with the next step, an exit code, nothing lost.

The commands are real ones in processes of their own (forked, so that they start at once). After every mishap the
same folder goes on once the cause is gone, and its ledger verifies.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from privfl_keys import INSECURE_TEST_COST

from privfl.budget import Policy, SignedPolicy
from privfl.clock import SystemClock
from privfl.homes.authority import AuthorityHome, read_request
from privfl.homes.officer import OfficerHome
from privfl.homes.site import SiteHome
from privfl.homes.trial import policy_for
from privfl.runtime.store import DurableSiteStore
from tests.cli.support import Ran
from tests.processes.commands import Commands, Running, can_mount, clock_off, read_only, small_disk, tree, whole
from tests.runtime.realm import PASSPHRASE, Realm, realm
from tests.runtime.support import SCHEMA, table

MINUTE, YEAR = 60_000, 365 * 86_400_000
IDLE = ("--stop-when-idle", "0.05")


def runs(commands: Commands, home: Path) -> None:
    """The site starts, serves and ends as it should."""
    ran = commands.run("site", "run", home, *IDLE)
    assert ran.code == 0, ran.err


def trained(world: Realm, commands: Commands, rounds: int = 2, **changes: Any) -> Ran:
    """A whole training by real commands."""
    sites = [commands.start("site", "run", home) for home in world.trial.sites.values()]
    try:
        task = world.task(rounds=rounds, **changes)
        return commands.run(
            "train", task, "--coordinator", world.trial.coordinator, "--gather", "5", "--patience", "10", "--json"
        )
    finally:
        for site in sites:
            site.interrupt(signal.SIGTERM)
        ended = [site.ended() for site in sites]
        assert [one.code for one in ended] == [0] * len(sites), [one.err for one in ended]


# -- policies and rosters -----------------------------------------------------------------------------------


def signed(world: Realm, name: str, key: Any = None, **changes: Any) -> Path:
    """A policy signed by the officer, or by ``key``."""
    now = SystemClock().now()
    fields = policy_for(SCHEMA.model_dump(mode="json"), now, **{"version": 2, "federation": "trial", **changes})
    key = key or OfficerHome.open(world.trial.officer, PASSPHRASE).identity.key
    path = world.trial.folder / name
    path.write_bytes(SignedPolicy.sign(Policy(**fields), key).encode())
    return path


def unsigned(world: Realm) -> Path:
    fields = policy_for(SCHEMA.model_dump(mode="json"), SystemClock().now(), federation="trial")
    path = world.trial.folder / "policy.yaml"
    path.write_text(yaml.safe_dump(fields))
    return path


def damaged(world: Realm) -> Path:
    path = signed(world, "damaged", epsilon=7.5)
    path.write_bytes(path.read_bytes().replace(b"7.5", b"9.5"))
    return path


def by_a_stranger(world: Realm) -> Path:
    home = OfficerHome.init(
        world.trial.folder / "stranger", "stranger", "trial", PASSPHRASE, SystemClock().now(), cost=INSECURE_TEST_COST
    )
    return signed(world, "stranger.policy", home.identity.key)


POLICIES: dict[str, tuple[Callable[[Realm], Path], int, str]] = {
    "unsigned": (unsigned, 3, "no signed policy; have the officer sign it"),
    "altered": (damaged, 3, "fetch"),
    "by a stranger": (by_a_stranger, 3, "not signed by a compliance officer of this roster"),
    "expired": (
        lambda w: signed(w, "p", valid_from="2020-01-01", expires="2021-01-01"),
        5,
        "ask compliance for the next",
    ),
    "foreign": (
        lambda w: signed(w, "p", federation="elsewhere"),
        5,
        "ask compliance for the policy of this federation",
    ),
    "of another population": (
        lambda w: signed(w, "p", population="others"),
        5,
        "Ask compliance for a policy with the old",
    ),
    "the same version with other words": (lambda w: signed(w, "p", version=1, epsilon=40.0), 5, "ask compliance"),
    "more colluders than the roster": (
        lambda w: signed(w, "p", colluders=2, min_survivors=4, min_sites=4),
        5,
        "roster",
    ),
    "more sites than the roster": (lambda w: signed(w, "p", min_sites=4), 5, "roster"),
    "missing": (lambda w: w.trial.folder / "none", 2, "there is no file"),
}


@pytest.mark.parametrize("case", POLICIES)
def test_policies_that_do_not_hold(case: str, world: Realm, commands: Commands) -> None:
    """Joining with them changes nothing; the site goes on under the policy that it had."""
    make, code, words = POLICIES[case]
    home = world.trial.sites["north"]
    policy, before = make(world), tree(home)
    commands.run("site", "join", home, "--policy", policy).failed(code, words)
    assert tree(home) == before
    runs(commands, home)


def test_a_downgraded_policy(world: Realm, commands: Commands) -> None:
    """After version 3, version 2 is refused, however well it is signed."""
    home = world.trial.sites["north"]
    older, newer = signed(world, "p2", epsilon=7.0), signed(world, "p3", version=3, epsilon=6.0)
    ran = commands.run("site", "join", home, "--policy", newer)
    assert ran.code == 0, ran.err
    commands.run("site", "join", home, "--policy", older).failed(5, "older than version 3", "ask compliance")
    runs(commands, home)
    assert whole(world.trial.sites)["north"]["policy_version"] == 3


def test_a_roster_that_no_longer_fits_the_policy(world: Realm, commands: Commands) -> None:
    """A roster with fewer sites than the policy wants is not taken over; the old one stays in force."""
    home, now = world.trial.sites["north"], SystemClock().now()
    with AuthorityHome.open(world.trial.authority, PASSPHRASE) as authority:
        west = world.trial.folder / "west"
        SiteHome.init(west, "west", "trial", PASSPHRASE, now, cost=INSECURE_TEST_COST)
        request = read_request(west / "request")
        authority.approve(request, request.fingerprint, now)
        authority.sign_roster(now)
    ran = commands.run(
        "site", "join", home, "--roster", world.trial.rosters, "--policy", signed(world, "p", min_sites=4)
    )
    assert ran.code == 0, ran.err
    with AuthorityHome.open(world.trial.authority, PASSPHRASE) as authority:
        authority.revoke("west", "test", now)
        authority.sign_roster(now)
    before = tree(home)
    commands.run("site", "join", home, "--roster", world.trial.rosters).failed(5, "roster")
    assert tree(home) == before
    runs(commands, home)


# -- disks --------------------------------------------------------------------------------------------------

mounts = pytest.mark.skipif(not can_mount(), reason="this user may not mount in a namespace of its own")


@mounts
@pytest.mark.parametrize("command", ["site run", "site join", "site data", "coordinator run", "coordinator join"])
def test_a_read_only_folder(command: str, world: Realm, commands: Commands) -> None:
    """Found before anything begins; writable again, the folder is as it was."""
    role, verb = command.split()
    home = world.trial.sites["north"] if role == "site" else world.trial.coordinator
    more: dict[str, tuple[str | Path, ...]] = {
        "run": ("--once",) if role == "coordinator" else IDLE,
        "data": (world.trial.folder.parent / "rows" / "north.csv", "--schema", world.trial.schema),
    }
    before = tree(home)
    ran = commands.run(role, verb, home, *more.get(verb, ()), before=read_only(home))
    ran.failed(2, "read-only")
    assert tree(home) == before
    assert commands.run(role, verb, home, *more.get(verb, ())).code == 0


@mounts
@pytest.mark.parametrize("size", [200_000, 600_000])
def test_a_disk_that_is_full_at_the_start(size: int, world: Realm, commands: Commands) -> None:
    """Less than a megabyte is left: nothing is begun."""
    home = world.trial.sites["north"]
    commands.run("site", "run", home, *IDLE, before=small_disk(home, size)).failed(2, "is full", "free some space")
    runs(commands, home)


@mounts
@pytest.mark.parametrize("where", ["the ledger", "the state", "the upload"])
def test_a_disk_that_fills_in_the_middle_of_a_round(where: str, world: Realm, commands: Commands) -> None:
    """The site ends by itself with the reason; what it had charged stays charged, and the others are not stalled.

    The folder as the full disk held it is taken up again with room: it opens, settles, verifies and serves.
    """
    home, after = world.trial.sites["north"], world.trial.folder / "north.after"

    def fill() -> None:
        with open(home / "ballast", "wb", buffering=0) as file:
            try:
                while True:
                    file.write(bytes(4096))
            except OSError:
                pass

    def before() -> None:
        from privfl.budget.ledger import Ledger

        small_disk(home, 4_000_000)()
        place = {
            "the ledger": (Ledger, "reserve"),
            "the state": (DurableSiteStore, "save"),
            "the upload": (DurableSiteStore, "save_outbox"),
        }[where]
        original = getattr(*place)

        def filling(*args: Any, **named: Any) -> Any:
            fill()
            return original(*args, **named)

        setattr(*place, filling)
        leave = os._exit

        def leaving(code: int) -> None:
            (home / "ballast").unlink(missing_ok=True)
            shutil.copytree(home, after)
            leave(code)

        os._exit = leaving  # type: ignore[assignment]

    broken = commands.start("site", "run", home, before=before)
    others = [commands.start("site", "run", world.trial.sites[name]) for name in ("south", "east")]
    task = world.task(rounds=1, attempts=1)
    ran = commands.start("train", task, "--coordinator", world.trial.coordinator, "--gather", "5", "--patience", "3")
    broken.ended().failed(2, "free")
    assert ran.ended().code in (5, 6), "with two of three sites no sum opens"
    for other in others:
        other.interrupt(signal.SIGTERM)
        assert other.ended().code == 0
    shutil.rmtree(home)
    shutil.copytree(after, home)
    runs(commands, home)
    found = whole(world.trial.sites)["north"]
    assert found["open"] == 0
    assert trained(world, commands, epsilon=2.0).code == 0


# -- clocks -------------------------------------------------------------------------------------------------

CLOCKS: dict[str, tuple[int, str]] = {
    "five years ahead": (5 * YEAR, "clock"),
    "five years behind": (-5 * YEAR, "clock"),
    "six minutes behind": (-6 * MINUTE, "clock"),
}


@pytest.mark.parametrize("case", CLOCKS)
@pytest.mark.parametrize("command", ["site run", "site join", "coordinator run"])
def test_clocks_that_are_wrong(case: str, command: str, world: Realm, commands: Commands) -> None:
    """The message says what the clock shows; set right, everything goes on, and the ledger has no wrong time in it."""
    shift, words = CLOCKS[case]
    if shift == -6 * MINUTE and command == "coordinator run":
        pytest.skip("it holds no ledger that could tell it the time")
    role, verb = command.split()
    home = world.trial.sites["north"] if role == "site" else world.trial.coordinator
    more = {"site run": IDLE, "coordinator run": ("--once",)}.get(command, ())
    before = tree(home)
    ran = commands.run(role, verb, home, *more, before=clock_off(shift))
    assert ran.code != 0, (ran.out, ran.err)
    ran.failed(ran.code, words)
    assert tree(home) == before
    assert commands.run(role, verb, home, *more).code == 0


@pytest.mark.parametrize("shift", [5 * MINUTE, -4 * MINUTE])
def test_a_site_whose_clock_is_minutes_off_stalls_nobody(shift: int, tmp_path: Path, commands: Commands) -> None:
    """It may refuse what looks overdue; the others' rounds open, and later with the clock right it opens again."""
    with realm(tmp_path / "four", 4) as world:
        sites = [
            commands.start("site", "run", home, before=clock_off(shift if name == "north" else 0))
            for name, home in world.trial.sites.items()
        ]
        task = world.task(rounds=2, epsilon=3.0)
        ran = commands.run("train", task, "--coordinator", world.trial.coordinator, "--gather", "5", "--patience", "5")
        assert ran.code == 0, ran.err
        for site in sites:
            site.interrupt(signal.SIGTERM)
            assert site.ended().code == 0
        assert all(found["open"] == 0 for found in whole(world.trial.sites).values())
        again = commands.run("site", "run", world.trial.sites["north"], *IDLE)
        assert again.code == 0, again.err


# -- files that were swapped -----------------------------------------------------------------------------------


def ledger_of(home: Path) -> Path:
    (path,) = (home / "ledger").glob("*.db")
    return path


def test_ledgers_that_are_not_this_site_s(world: Realm, commands: Commands) -> None:
    """Missing, another site's, an older copy: the site does not run on it, and runs on its own when that is back."""
    north, south = (world.trial.sites[name] for name in ("north", "south"))
    older = ledger_of(north).read_bytes()
    assert trained(world, commands).code == 0
    own = ledger_of(north)
    newest, foreign = own.read_bytes(), ledger_of(south).read_bytes()
    cases: list[tuple[bytes | None, tuple[str, ...]]] = [
        (None, ("is missing", "put the file back")),
        (foreign, ("this is the ledger of site", "put that site's own file in its place")),
        (older, ("older",)),
        (b"", ()),
        (newest[: len(newest) // 2], ()),
        (b"not a database at all, " * 200, ()),
    ]
    for data, words in cases:
        for side in ("-wal", "-shm", "-journal"):
            own.with_name(own.name + side).unlink(missing_ok=True)
        own.unlink(missing_ok=True)
        if data is not None:
            own.write_bytes(data)
            own.chmod(0o600)
        ran = commands.run("site", "run", north, *IDLE)
        assert ran.code in (2, 3), (words, ran)
        ran.failed(ran.code, *words)
        assert (own.read_bytes() if own.exists() else None) == data, "what is there may be evidence and stays"
    own.unlink()
    own.write_bytes(newest)
    runs(commands, north)
    assert trained(world, commands, epsilon=2.0).code == 0


def test_an_older_copy_of_the_state(world: Realm, commands: Commands) -> None:
    """A state beside a newer ledger is a store that was rolled back; once acknowledged, what the ledger shows is known.

    The coordinator still shows a header that the state has lost: its ledger head is in the chain that people have
    looked at, so that it takes no second acknowledgement.
    """
    north = world.trial.sites["north"]
    kept = {name: (north / name).read_bytes() for name in ("state.db", "state.key")}
    assert trained(world, commands).code == 0
    for name, data in kept.items():
        (north / name).write_bytes(data)
    for side in ("state.db-wal", "state.db-shm"):
        (north / side).unlink(missing_ok=True)
    commands.run("site", "run", north, *IDLE).failed(2, "is older than the ledger", "Tell the compliance officer")
    ran = commands.run("site", "acknowledge", north, "--why", "the disk was replaced")
    assert ran.code == 0, ran.err
    first = trained(world, commands, rounds=1, epsilon=1.0)  # in which north hears of the header that it has lost
    assert trained(world, commands, rounds=1, epsilon=1.0).code == 0, first.err
    assert whole(world.trial.sites)["north"]["counts"]["note"] == 1


def test_a_state_key_of_another_time(world: Realm, commands: Commands) -> None:
    """The database alone put back does not open under the key of today: said, with the next step."""
    north = world.trial.sites["north"]
    old = (north / "state.db").read_bytes()
    assert trained(world, commands).code == 0
    (north / "state.db").write_bytes(old)
    for side in ("state.db-wal", "state.db-shm"):
        (north / side).unlink(missing_ok=True)
    commands.run("site", "run", north, *IDLE).failed(3, "older than its key", "tell the compliance officer")
    whole(world.trial.sites)


def test_an_older_copy_of_the_whole_folder(world: Realm, commands: Commands) -> None:
    """Sound to itself, but the coordinator remembers: alarm, acknowledgement by people, and back in a later epoch."""
    north = world.trial.sites["north"]
    assert trained(world, commands, rounds=1, epsilon=1.0).code == 0
    backup = world.trial.folder / "backup"
    shutil.copytree(north, backup)
    assert trained(world, commands, rounds=1, epsilon=1.0).code == 0
    shutil.rmtree(north)
    shutil.copytree(backup, north)
    ran = trained_with_alarm(world, commands)
    assert "older copy" in ran.err
    acknowledged(world, commands, north)
    assert whole(world.trial.sites)["north"]["counts"]["note"] == 1


def trained_with_alarm(world: Realm, commands: Commands) -> Ran:
    """A training in which north finds out that its store is old; how north ended."""
    sites = {name: commands.start("site", "run", home) for name, home in world.trial.sites.items()}
    task = world.task(rounds=1, epsilon=1.0, attempts=1)
    ran = commands.start("train", task, "--coordinator", world.trial.coordinator, "--gather", "5", "--patience", "3")
    ended = sites.pop("north").ended(30)
    assert ran.ended().code in (5, 6), "three of three are needed"
    for site in sites.values():
        site.interrupt(signal.SIGTERM)
        assert site.ended().code == 0
    return ended.failed(2, "acknowledge")


def acknowledged(world: Realm, commands: Commands, home: Path) -> None:
    """Until people acknowledge it, the site does not start; afterwards it takes part again."""
    commands.run("site", "run", home, *IDLE).failed(2, "privfl site acknowledge")
    ran = commands.run("site", "acknowledge", home, "--why", "restored after a disk failure")
    assert ran.code == 0, ran.err
    commands.run("site", "acknowledge", home, "--why", "again").failed(2, "nothing needs to be acknowledged")
    runs(commands, home)
    assert trained(world, commands, epsilon=1.0).code == 0


# -- tables ---------------------------------------------------------------------------------------------------

ROWS = table(30, 3)
AGAIN = "privfl site data"
TABLES: dict[str, tuple[Callable[[Path], object], tuple[str, ...]]] = {
    "vanished": (lambda path: path.unlink(), ("is not there; put it back", AGAIN)),
    "without a column": (
        lambda path: ROWS.drop(columns="age").to_csv(path, index=False),
        ("column 'age' is missing", AGAIN),
    ),
    "with a column of text": (
        lambda path: ROWS.assign(dose="much").to_csv(path, index=False),
        ("column 'dose' is", "not numbers", AGAIN),
    ),
    "with a column twice": (
        lambda path: path.write_text("dose,dose,age,ill\n1,2,3,True\n"),
        ("more than one column 'dose'", "keep the one"),
    ),
    "empty of rows": (lambda path: path.write_text("dose,age,ill\n"), ("has no rows", "name the right file", AGAIN)),
    "empty": (lambda path: path.write_text(""), ("cannot be read as csv", "check the file")),
    "a folder": (lambda path: (path.unlink(), path.mkdir()), ("there is no table", "check the path")),
    "not a table": (lambda path: path.write_bytes(bytes(range(256)) * 20), ("cannot be read as csv", "check the file")),
}


@pytest.mark.parametrize("case", TABLES)
def test_tables_that_changed(case: str, world: Realm, commands: Commands) -> None:
    """Said at the start, with the next step and without a value; nothing is spent, and the true table still serves."""
    spoil, words = TABLES[case]
    home, path = world.trial.sites["north"], world.trial.folder.parent / "rows" / "north.csv"
    data = path.read_bytes()
    entries = whole(world.trial.sites)["north"]["entries"]
    spoil(path)
    ran = commands.run("site", "run", home, *IDLE).failed(2, *words)
    assert not any(value in ran.err for value in data.decode().replace("\n", ",").split(",") if len(value) > 6)
    if path.is_dir():
        path.rmdir()
    path.write_bytes(data)
    runs(commands, home)
    assert whole(world.trial.sites)["north"]["entries"] == entries


# -- Ctrl-C ---------------------------------------------------------------------------------------------------


def interrupted(ran: Ran) -> None:
    """Ended by Ctrl-C with one readable message, or done before it came."""
    assert ran.code in (0, 130), (ran.code, ran.err)
    if ran.code == 130:
        ran.failed(130, "interrupted")


def test_ctrl_c_at_random_moments(world: Realm, commands: Commands) -> None:
    """Sites, coordinator and training are interrupted again and again; then the same task goes on to its end."""
    rng, homes = random.Random(11), world.trial.sites
    job = world.submit(rounds=6, epsilon=4.0, attempts=3)
    for _ in range(6):
        at_work: list[Running] = [commands.start("site", "run", home) for home in homes.values()]
        at_work.append(commands.start("coordinator", "run", world.trial.coordinator, "--once", "--patience", "5"))
        for one in rng.sample(at_work, len(at_work)):
            time.sleep(rng.uniform(0.0, 0.25))
            one.interrupt()
        for one in at_work:
            interrupted(one.ended())
        assert all(home for home in whole(homes).values())
        if job.state().over:
            break
    if not job.state().over:
        at_work = [commands.start("site", "run", home) for home in homes.values()]
        ran = commands.run("coordinator", "run", world.trial.coordinator, "--once", "--patience", "5", "--gather", "5")
        assert ran.code == 0, ran.err
        for one in at_work:
            one.interrupt(signal.SIGTERM)
            assert one.ended().code == 0
    assert job.state().state == "done", job.state()
    assert all(found["open"] == 0 for found in whole(homes).values())


def test_ctrl_c_while_training_and_joining(world: Realm, commands: Commands) -> None:
    """The task that was interrupted stays in the queue and goes on; a join is done or not, and can be repeated."""
    rng, homes = random.Random(12), world.trial.sites
    sites = [commands.start("site", "run", home) for home in homes.values()]
    for _ in range(3):
        task = world.task(rounds=2, epsilon=0.8)
        ran = commands.start("train", task, "--coordinator", world.trial.coordinator, "--patience", "5")
        time.sleep(rng.uniform(0.05, 0.5))
        ran.interrupt()
        interrupted(ran.ended())
    finished = commands.run("coordinator", "run", world.trial.coordinator, "--once", "--patience", "5", "--gather", "5")
    assert finished.code == 0, finished.err
    for site in sites:
        site.interrupt()
        ended = site.ended()
        assert ended.code == 130
        interrupted(ended)
    newer = signed(world, "p2", epsilon=7.9)
    for _ in range(8):
        joining = commands.start("site", "join", homes["north"], "--policy", newer)
        time.sleep(rng.uniform(0.0, 0.1))
        joining.interrupt()
        interrupted(joining.ended())
    assert commands.run("site", "join", homes["north"], "--policy", newer).code == 0
    runs(commands, homes["north"])
    assert whole(homes)["north"]["policy_version"] == 2
