"""SIGKILL or a full disk at every durable write of init, approve, roster, join, data: the same command finishes."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from privfl.budget.ledger_entries import Kind
from privfl.errors import PrivflError
from privfl.homes.authority import AuthorityHome, read_request
from privfl.homes.coordinator import CoordinatorHome
from privfl.homes.officer import OfficerHome
from privfl.homes.rosters import read_rosters
from privfl.homes.site import SiteHome
from tests.homes.crashing import failed, instants, killed
from tests.homes.scene import NOW, PASS, Scene

Act = Callable[[Scene], object]
Check = Callable[[Scene, "Before"], None]


class Before:
    """What the outside world may have seen before the command was run again."""

    def __init__(self, scene: Scene) -> None:
        request, rosters = scene.root / "new" / "request", scene.rosters
        self.fingerprint = read_request(request).fingerprint if request.exists() else None
        self.rosters = [signed.roster.hash for signed in read_rosters(rosters)]
        public = scene.root / "new" / "authority.pub"
        self.public = public.read_bytes() if public.exists() else None


def init_site(scene: Scene) -> object:
    return SiteHome.init(scene.root / "new", "west", "trial", PASS, NOW)


def init_officer(scene: Scene) -> object:
    return OfficerHome.init(scene.root / "new", "west", "trial", PASS, NOW, role="auditor")


def init_coordinator(scene: Scene) -> object:
    return CoordinatorHome.init(scene.root / "new", "west", "trial", str(scene.root / "wire2"), PASS, NOW)


def init_authority(scene: Scene) -> object:
    return AuthorityHome.init(scene.root / "new", "elsewhere", PASS)


def whole(scene: Scene, before: Before) -> None:
    """One key: the one that a request already showed; no stray files."""
    folder = scene.root / "new"
    request = read_request(folder / "request")
    request.verify()
    assert before.fingerprint in (None, request.fingerprint)
    opened = OfficerHome.open(folder, PASS).identity if (folder / "officer.yaml").exists() else None
    if opened is None:
        again = SiteHome if (folder / "site.yaml").exists() else CoordinatorHome
        assert again.request(folder, PASS, NOW).fingerprint == request.fingerprint
    else:
        assert opened.fingerprint == request.fingerprint
    assert not list(folder.glob(".*.tmp*"))


def whole_authority(scene: Scene, before: Before) -> None:
    with AuthorityHome.open(scene.root / "new", PASS) as home:
        public = (scene.root / "new" / "authority.pub").read_bytes()
        assert public == home.verify_key.raw.hex().encode() + b"\n"
        assert before.public in (None, public)


def approve(scene: Scene) -> object:
    return scene.approve("north", "extra")


def approved(scene: Scene, before: Before) -> None:
    with scene.authority() as home:
        names = {line.name for line in home.status()}
    assert {"north", "extra"} <= names


def sign(scene: Scene) -> object:
    return scene.sign_roster(renew=False)


def signed_once(scene: Scene, before: Before) -> None:
    """Version 2 and no other, and it is the one that the file may have shown already."""
    chain = [signed.roster.hash for signed in read_rosters(scene.rosters)]
    assert len(chain) == 2
    assert chain[: len(before.rosters)] == before.rosters
    with scene.authority() as home:
        assert [signed.roster.hash for signed in home.chain] == chain


def join(scene: Scene) -> object:
    return scene.join(table=scene.table())


def joined(scene: Scene, before: Before) -> None:
    """One ledger with one policy entry, and everything in place."""
    assert len(list((scene.folder("north") / "ledger").glob("*.db"))) == 1
    with SiteHome.open(scene.folder("north"), PASS, NOW) as site:
        assert [entry.kind for entry in site.ledger.entries()] == [Kind.OPEN, Kind.POLICY]
        assert site.bound.report.rows == 3


def update(scene: Scene) -> object:
    return scene.join(policy=scene.root / "p2", wire=None)


def updated(scene: Scene, before: Before) -> None:
    with SiteHome.open(scene.folder("north"), PASS, NOW) as site:
        assert site.policy.version == 2
        assert [entry.kind for entry in site.ledger.entries()] == [Kind.OPEN, Kind.POLICY, Kind.POLICY]


def join_hub(scene: Scene) -> object:
    return CoordinatorHome.join(
        scene.folder("hub"), PASS, NOW, rosters=scene.rosters, authority=scene.fingerprint, policy=scene.policy
    )


def hub_joined(scene: Scene, before: Before) -> None:
    with CoordinatorHome.open(scene.folder("hub"), PASS, NOW) as hub:
        assert len(hub.chain) == 1


CASES: list[tuple[Act, Check]] = [
    (init_site, whole),
    (init_officer, whole),
    (init_coordinator, whole),
    (init_authority, whole_authority),
    (approve, approved),
    (sign, signed_once),
    (join, joined),
    (update, updated),
    (join_hub, hub_joined),
]
SHARED = (init_officer, init_coordinator, init_authority)  # what they share with a site's is struck at every instant
BY_NAME = pytest.mark.parametrize(("act", "check"), CASES, ids=lambda item: item.__name__)


@pytest.fixture
def scenes(founded: Path, tmp_path: Path, request: pytest.FixtureRequest) -> Callable[[], Iterator[Scene]]:
    """Fresh copies of a federation, prepared for the act of this test."""
    act = request.node.callspec.params["act"]
    start = tmp_path / "start"
    shutil.copytree(founded, start)
    scene = Scene(start)
    SiteHome.init(scene.folder("extra"), "extra", "trial", PASS, NOW)
    if act is sign:
        scene.approve("extra")
    if act is update:
        scene.join(table=scene.table())
        scene.write_policy("p2", version=2)

    def copies() -> Iterator[Scene]:
        number = 0
        while True:
            number += 1
            root = tmp_path / str(number)
            shutil.copytree(start, root)
            yield Scene(root)
            shutil.rmtree(root)

    return copies


@BY_NAME
def test_a_kill_at_every_instant(act: Act, check: Check, scenes: Callable[[], Iterator[Scene]]) -> None:
    """A real process, SIGKILL; then the same command again finishes, and nothing that was shown is taken back."""
    copies = scenes()
    first = next(copies)
    total = instants(lambda: act(first))
    assert total > 5
    for at in range(1, total + 1, 2 if act in SHARED else 1):
        scene = next(copies)
        assert killed(partial(act, scene), at)
        before = Before(scene)
        act(scene)
        check(scene, before)


@BY_NAME
def test_a_full_disk_at_every_instant(act: Act, check: Check, scenes: Callable[[], Iterator[Scene]]) -> None:
    """A message of the error tree, or an OSError that names no row; then, with space again, the command finishes."""
    copies = scenes()
    first = next(copies)
    total = instants(lambda: act(first))
    for at in range(1, total + 1, 4):
        scene = next(copies)
        error = failed(partial(act, scene), at)
        assert isinstance(error, PrivflError | OSError), error
        before = Before(scene)
        act(scene)
        check(scene, before)
