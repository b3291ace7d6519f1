"""Folders whose keys a key service keeps: no passphrase, then or later; everything else as ever."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
import yaml
from privfl_keys import KeyStoreError

from privfl.errors import Misuse
from privfl.homes import passphrase as asking
from privfl.homes.authority import AuthorityHome
from privfl.homes.config import KmsConfig, SiteConfig
from privfl.homes.coordinator import CoordinatorHome
from privfl.homes.folder import open_kms_store, open_store, under_kms
from privfl.homes.officer import OfficerHome, OfficerRole
from privfl.homes.passphrase import ask_passphrase
from privfl.homes.site import SiteHome
from privfl.runtime.doctor import Verdict, examine
from privfl.wires.aws.emulator import Emulator, emulator
from tests.homes.scene import NOW, PASS, Scene

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")
REGION = "eu-central-1"


@pytest.fixture(scope="module")
def cloud() -> Iterator[Emulator]:
    with emulator() as found, found.at_hand():
        yield found


@pytest.fixture
def kms(cloud: Emulator) -> KmsConfig:
    """A key of KMS under an alias."""
    cloud.reset()
    client: Any = boto3.client("kms", endpoint_url=cloud.endpoint, region_name=REGION)
    key = client.create_key()["KeyMetadata"]["KeyId"]
    client.create_alias(AliasName="alias/west", TargetKeyId=key)
    return KmsConfig(key="alias/west", region=REGION, endpoint=cloud.endpoint)


def test_a_site_lives_without_a_passphrase(scene: Scene, kms: KmsConfig) -> None:
    """Founded, enrolled, joined, bound, opened and examined, and nobody is asked for a passphrase."""
    folder = scene.root / "west"
    config = SiteHome.init(folder, "west", "trial", "", NOW, kms=kms)
    assert under_kms(folder)
    assert (folder / "keys").stat().st_mode & 0o777 == 0o600
    assert SiteHome.init(folder, "west", "trial", "", NOW) == config  # again, without naming the key
    written = yaml.safe_load((folder / "site.yaml").read_text())
    assert written["kms"] == {"key": "alias/west", "region": REGION, "endpoint": kms.endpoint}
    scene.approve("west")
    scene.sign_roster()
    joined = SiteHome.join(
        folder, "", NOW, rosters=scene.rosters, authority=scene.fingerprint, policy=scene.policy, wire=scene.wire,
        table=scene.table(),
    )  # fmt: skip
    assert joined.bound is not None
    with SiteHome.open(folder, "whatever", NOW) as site:  # not looked at
        assert site.identity.fingerprint == config.fingerprint
    assert SiteConfig.read(folder).kms == kms  # kept through join and binding
    checks = {one.name: one for one in examine(folder, passphrase=lambda: "")}
    assert not [one for one in checks.values() if one.verdict is Verdict.FAIL and "key" in one.name]


def test_a_coordinator_too(scene: Scene, kms: KmsConfig) -> None:
    """The same for a coordinator's folder; the key is wrapped anew and still opens."""
    folder = scene.root / "hub2"
    config = CoordinatorHome.init(folder, "hub2", "trial", scene.wire, "", NOW, kms=kms)
    before = (folder / "keys").read_bytes()
    store = open_kms_store(folder)
    store.rewrap()
    store.close()
    assert (folder / "keys").read_bytes() != before
    with open_store(folder, "") as (_, identity):
        assert identity.fingerprint == config.fingerprint
    assert CoordinatorHome.init(folder, "hub2", "trial", scene.wire, "", NOW).kms == kms


def test_nobody_is_asked(scene: Scene, kms: KmsConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    """ask_passphrase gives an empty one for such a folder, and asks for any other."""
    folder = scene.root / "west"
    SiteHome.init(folder, "west", "trial", "", NOW, kms=kms)
    monkeypatch.setattr(asking.getpass, "getpass", lambda _: pytest.fail("asked"))
    assert ask_passphrase(None, folder=folder) == ""
    with pytest.raises(Misuse, match="no passphrase"):
        ask_passphrase(None, folder=scene.folder("north"))


def test_one_way_of_keeping_stays(scene: Scene, kms: KmsConfig) -> None:
    """Keys under a passphrase do not move under KMS by a second init, nor back; an unfinished folder asks again."""
    with pytest.raises(Misuse, match="under a passphrase, and stay so"):
        SiteHome.init(scene.folder("north"), "north", "trial", PASS, NOW, kms=kms)
    with pytest.raises(Misuse, match="under a passphrase, not under a key service"):
        open_kms_store(scene.folder("north"))
    folder = scene.root / "west"
    SiteHome.init(folder, "west", "trial", "", NOW, kms=kms)
    key = (folder / "keys").read_bytes()
    (folder / "site.yaml").unlink()  # as if init had been broken off
    with pytest.raises(Misuse, match="give --kms with its key again"):
        SiteHome.init(folder, "west", "trial", PASS, NOW)
    with pytest.raises(Misuse, match="does not name; restore that file"):
        open_kms_store(folder)
    SiteHome.init(folder, "west", "trial", "", NOW, kms=kms)
    assert (folder / "keys").read_bytes() == key


def test_without_the_key_nothing_opens(scene: Scene, kms: KmsConfig, cloud: Emulator) -> None:
    """A deleted alias is no obstacle, a lost key is one, told with its name; another member's file is refused."""
    folder = scene.root / "west"
    SiteHome.init(folder, "west", "trial", "", NOW, kms=kms)
    SiteHome.init(scene.root / "far", "far", "trial", "", NOW, kms=kms)
    mine = (folder / "keys").read_bytes()
    (folder / "keys").write_bytes((scene.root / "far" / "keys").read_bytes())
    with pytest.raises(KeyStoreError, match="is the key store of 'far'"):
        SiteHome.open(folder, "", NOW)
    (folder / "keys").write_bytes(mine)
    cloud.reset()
    with pytest.raises(KeyStoreError, match=r"denied to these credentials|knows no key"):
        SiteHome.open(folder, "", NOW)


@pytest.mark.parametrize(
    ("kms", "says"),
    [
        ("alias/west", "expected fields"),
        ({"key": "alias/we st"}, "key"),
        ({"key": "alias/west", "endpoint": "ftp://x"}, "endpoint"),
        ({"key": "alias/west", "endpoint": "http://kms.example:80"}, "over plain http"),
        ({"key": "alias/west", "endpoint": "http://127.0.0.1.example"}, "over plain http"),
        ({"key": "alias/west", "secret": "x"}, "secret"),
    ],
)
def test_a_wrong_configuration_is_told(scene: Scene, kms: Any, says: str) -> None:
    """What a person wrote wrongly into the file: the field, and no traceback."""
    path: Path = scene.folder("north") / "site.yaml"
    fields = {**yaml.safe_load(path.read_text()), "kms": kms}
    path.write_text(yaml.safe_dump(fields))
    with pytest.raises(Misuse, match=says):
        SiteConfig.read(scene.folder("north"))


def test_an_authority_and_an_officer_too(scene: Scene, kms: KmsConfig) -> None:
    """Their folders are made, opened and finished without a passphrase; the keys are bound to each."""
    chief, officer = scene.folder("chief"), scene.folder("dr-law")
    AuthorityHome.init(chief, "trial", "", kms=kms)
    made = AuthorityHome.open(chief, "")
    made.close()
    assert AuthorityHome.init(chief, "trial", "").kms == kms
    roles: tuple[OfficerRole, ...] = ("auditor", "compliance")
    for role in roles:
        folder = officer.with_name(role)
        first = OfficerHome.init(folder, role, "trial", "", NOW, role=role, kms=kms)
        assert OfficerHome.open(folder, "").identity.fingerprint == first.identity.fingerprint
        assert OfficerHome.init(folder, role, "trial", "", NOW, role=role).config.kms == kms
