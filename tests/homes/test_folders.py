"""Founding a folder: private, whole or to be finished, and never somebody else's."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
from privfl_keys import FileKeyStore, KeyStoreError

from privfl.errors import Misuse, PrivflError, StorageError
from privfl.homes import files
from privfl.homes.authority import AuthorityHome, read_request
from privfl.homes.config import CoordinatorConfig, SiteConfig, role_of
from privfl.homes.coordinator import CoordinatorHome
from privfl.homes.lock import Lock
from privfl.homes.officer import OfficerHome
from privfl.homes.passphrase import VARIABLE, ask_passphrase
from privfl.homes.site import SiteHome
from privfl.wires.settings import read_wire
from tests.homes.scene import DAY, NOW, PASS, Scene, tree

Init = Callable[[Path], object]


def authority(folder: Path) -> object:
    return AuthorityHome.init(folder, "trial", PASS)


def officer(folder: Path) -> object:
    return OfficerHome.init(folder, "law", "trial", PASS, NOW)


def coordinator(folder: Path) -> object:
    return CoordinatorHome.init(folder, "hub", "trial", f"folder:{folder.parent / 'wire'}", PASS, NOW)


def site(folder: Path) -> object:
    return SiteHome.init(folder, "north", "trial", PASS, NOW)


ROLES = pytest.mark.parametrize("init", [authority, officer, coordinator, site], ids=lambda init: init.__name__)


@ROLES
def test_everything_in_a_folder_is_for_its_user(init: Init, tmp_path: Path) -> None:
    """The folder is 0700 whatever the umask; keys, state and configuration 0600; only what is handed out is 0644."""
    before = os.umask(0)
    try:
        init(tmp_path / "deep" / "home")
    finally:
        os.umask(before)
    folder = tmp_path / "deep" / "home"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()}
    public = {name for name, mode in modes.items() if mode == 0o644}
    assert public == ({"authority.pub"} if init is authority else {"request"})
    assert all(mode == 0o600 for name, mode in modes.items() if name not in public)


@ROLES
def test_founding_twice_changes_nothing_but_the_request_s_date(init: Init, tmp_path: Path) -> None:
    """The same key, the same configuration; the state is not made anew."""
    folder = tmp_path / "home"
    assert init(folder) is not None
    before = tree(folder)
    init(folder)
    assert {**tree(folder), "state.db": b""} == {**before, "state.db": b""}


@ROLES
def test_no_secret_lies_in_a_plain_file(init: Init, tmp_path: Path) -> None:
    """Seeds and the state's key, raw or in hex or base64, are nowhere; neither is the passphrase."""
    import base64

    folder = tmp_path / "home"
    init(folder)
    store = FileKeyStore.open(folder / "keys", PASS)
    secrets = [PASS.encode()]
    for name in store.names():
        value = store.get(name).reveal()
        secrets += [value, value[-32:]]
    for path, data in tree(tmp_path).items():
        for secret in secrets:
            for form in (secret, secret.hex().encode(), base64.b64encode(secret), base64.urlsafe_b64encode(secret)):
                assert form not in data, path


@ROLES
def test_another_role_s_folder_is_left_alone(init: Init, tmp_path: Path) -> None:
    """No two roles share a folder, in either order."""
    for other in (authority, officer, coordinator, site):
        if other is not init:
            folder = tmp_path / other.__name__
            other(folder)
            before = tree(folder)
            with pytest.raises(Misuse, match="another role's folder; choose a new one"):
                init(folder)
            assert tree(folder) == before


@ROLES
def test_a_wrong_or_short_passphrase(init: Init, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither changes anything; a short one leaves no key behind."""
    folder = tmp_path / "home"
    monkeypatch.setattr("tests.homes.test_folders.PASS", "short")
    with pytest.raises(KeyStoreError, match="at least 12 characters"):
        init(folder)
    assert not (folder / "keys").exists()
    monkeypatch.undo()
    monkeypatch.setattr("privfl.homes.folder.DEFAULT_COST", __import__("privfl_keys").INSECURE_TEST_COST)
    init(folder)
    before = tree(folder)
    monkeypatch.setattr("tests.homes.test_folders.PASS", "another passphrase")
    with pytest.raises(KeyStoreError, match="the passphrase does not open"):
        init(folder)
    assert tree(folder) == before


@ROLES
def test_a_lost_key_is_never_replaced(init: Init, tmp_path: Path) -> None:
    """A finished folder without its key store says so, and makes no second key under the same name."""
    folder = tmp_path / "home"
    init(folder)
    (folder / "keys").unlink()
    with pytest.raises(Misuse, match="keys is missing: nobody else has this key"):
        init(folder)
    assert not (folder / "keys").exists()


@pytest.mark.parametrize("init", [authority, coordinator, site], ids=lambda init: init.__name__)
def test_a_lost_state_is_never_replaced(init: Init, tmp_path: Path) -> None:
    """Its absence is no fresh start."""
    folder = tmp_path / "home"
    init(folder)
    (folder / "state.db").unlink()
    with pytest.raises(Misuse, match=r"state\.db is missing"):
        init(folder)
    assert not (folder / "state.db").exists()


def test_the_name_and_the_federation_stay(tmp_path: Path) -> None:
    """A folder is of one member in one federation, also before it is finished."""
    folder = tmp_path / "home"
    site(folder)
    for name, federation in (("south", "trial"), ("north", "trail")):
        with pytest.raises(Misuse, match="choose a new folder"):
            SiteHome.init(folder, name, federation, PASS, NOW)
    (folder / "site.yaml").unlink()
    with pytest.raises(Misuse, match="holds the key of 'north'"):
        SiteHome.init(folder, "south", "trial", PASS, NOW)
    with pytest.raises(Misuse, match="no usable name"):
        SiteHome.init(tmp_path / "other", "nörd", "trial", PASS, NOW)
    assert not (tmp_path / "other").exists()


def test_a_folder_that_others_may_read(tmp_path: Path) -> None:
    """An empty one is made private; one with files is its owner's to decide about."""
    empty, full = tmp_path / "empty", tmp_path / "full"
    for folder in (empty, full):
        folder.mkdir(mode=0o755)
    (full / "rows.csv").write_text("a\n")
    site(empty)
    assert stat.S_IMODE(empty.stat().st_mode) == 0o700
    with pytest.raises(Misuse, match="chmod 700"):
        site(full)
    full.chmod(0o700)
    site(full)
    with pytest.raises(Misuse, match="is a file"):
        site(full / "rows.csv")


def test_a_request_again(tmp_path: Path) -> None:
    """Only its date differs, and it verifies; an auditor's carries a sealing key, an analyst's none."""
    site(tmp_path / "s")
    first = read_request(tmp_path / "s" / "request")
    again = SiteHome.request(tmp_path / "s", PASS, NOW + DAY)
    again.verify()
    assert (again.verify_key, again.requested_at) == (first.verify_key, NOW + DAY)
    for role, sealed in (("auditor", True), ("analyst", False)):
        home = OfficerHome.init(tmp_path / role, role, "trial", PASS, NOW, role=role)
        request = read_request(tmp_path / role / "request")
        request.verify()
        assert request.roles == (role,)
        assert (request.sealing_key is not None) == (home.sealing is not None) == sealed
        opened = OfficerHome.open(tmp_path / role, PASS)
        assert opened.identity.site_id == home.identity.site_id
        with pytest.raises(Misuse, match="not for compliance"):
            OfficerHome.init(tmp_path / role, role, "trial", PASS, NOW)


def test_a_folder_in_use(tmp_path: Path) -> None:
    """Whoever holds it is named."""
    site(tmp_path / "s")
    with Lock(tmp_path / "s"), pytest.raises(Misuse, match=f"pid {os.getpid()}"):
        site(tmp_path / "s")


@pytest.mark.parametrize("error", [(28, "No space left on device"), (30, "Read-only file system")])
def test_a_full_or_read_only_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: tuple[int, str]) -> None:
    """The message has the file, the cause and the next step, whatever write it strikes; then the command finishes."""

    def fails(*_: object, **__: object) -> int:
        raise OSError(*error)

    for name in ("fsync", "replace", "link"):
        with monkeypatch.context() as broken:
            broken.setattr(os, name, fails)
            with pytest.raises(Misuse, match=f"(?s){error[1]}.*(free some space|run the same command)"):
                site(tmp_path / name)
        site(tmp_path / name)
        assert SiteConfig.read(tmp_path / name).name == "north"


def test_a_disk_that_is_nearly_full_is_noticed_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before anything is begun."""
    monkeypatch.setattr(files, "LEAST_FREE", 2**62)
    with pytest.raises(StorageError, match="is full; free some space"):
        site(tmp_path / "s")
    monkeypatch.undo()
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(StorageError, match="is read-only for this user"):
        files.check_writable(tmp_path)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("name: [\n", "line 2: this is not YAML"),
        ("- 1", "expected fields with values"),
        ("\xff", "site.yaml: "),
        ("role: site\nfederation: trial\nname: north", "fingerprint: "),
        ("role: site\nfederation: trial\nname: north\nfingerprint: x\nextra: 1", "extra: "),
        ("role: site\nfederation: trial\nname: '-'\nfingerprint: x", "name: '-' is no usable name"),
        ("role: site\nfederation: trial\nname: n\nfingerprint: x\nwire: sqs:x", "wire: 'sqs:x' is no wire"),
        ("role: site\nfederation: trial\nname: n\nfingerprint: x\ndata: 3", "data: expected fields"),
        ("role: site\nfederation: trial\nname: n\nfingerprint: x\ndata: {path: x}", "data: format: "),
        ("role: hub\nfederation: trial\nname: n\nfingerprint: x", "role: "),
    ],
)
def test_a_spoilt_configuration(tmp_path: Path, text: str, words: str) -> None:
    """The message names the file, and the line or the field."""
    (tmp_path / "site.yaml").write_bytes(text.encode("latin-1"))
    with pytest.raises(Misuse) as failed:
        SiteConfig.read(tmp_path)
    assert str(tmp_path / "site.yaml") in str(failed.value)
    assert words in str(failed.value)


def test_what_is_no_folder_of_a_role(tmp_path: Path) -> None:
    """Missing, empty, or another role's: each in words, with the command that makes one."""
    for folder in (tmp_path / "none", tmp_path):
        with pytest.raises(Misuse, match="privfl site init"):
            SiteHome.open(folder, PASS, NOW)
    coordinator(tmp_path / "hub")
    with pytest.raises(Misuse, match=r"coordinator\.yaml and not site\.yaml"):
        SiteHome.open(tmp_path / "hub", PASS, NOW)
    assert role_of(tmp_path / "hub") is CoordinatorConfig
    assert role_of(tmp_path) is None


@pytest.mark.parametrize(("text", "bad"), [("/a/b", False), ("folder:/a/b", False), ("sqs:x", True), ("", True)])
def test_wires(text: str, bad: bool) -> None:
    """A path, with or without its kind; anything else is refused."""
    if bad:
        with pytest.raises(Misuse, match="wire"):
            read_wire(text, "trial")
    else:
        assert str(read_wire(text, "trial")) == "folder:/a/b"
    assert str(read_wire("folder:x", "trial")) == f"folder:{Path.cwd() / 'x'}"


class TestPassphrase:
    """Three ways, in this order; each failure names them or the file."""

    def test_the_environment_comes_first(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv(VARIABLE, "from the environment")
        assert ask_passphrase(tmp_path / "missing") == "from the environment"

    def test_a_file(self, tmp_path: Path) -> None:
        path = tmp_path / "word"
        path.write_text("first line \r\nsecond\n")
        path.chmod(0o600)
        assert ask_passphrase(path) == "first line "
        path.chmod(0o644)
        with pytest.raises(Misuse, match="chmod 600"):
            ask_passphrase(path)
        path.write_bytes(b"\n")
        path.chmod(0o600)
        with pytest.raises(Misuse, match="is empty"):
            ask_passphrase(path)
        path.write_bytes(b"\xff\n")
        with pytest.raises(Misuse, match="UTF-8"):
            ask_passphrase(path)
        with pytest.raises(Misuse, match="no passphrase file"):
            ask_passphrase(tmp_path / "missing")

    def test_a_terminal(self, monkeypatch: pytest.MonkeyPatch) -> None:
        typed = iter(["some passphrase", "some passphrase", "some passphrase", "an other", "short"])
        monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
        monkeypatch.setattr("getpass.getpass", lambda prompt: next(typed))
        assert ask_passphrase(None, new=True) == "some passphrase"
        with pytest.raises(Misuse, match="differ"):
            ask_passphrase(None, new=True)
        with pytest.raises(Misuse, match="at least 12"):
            ask_passphrase(None, new=True)

    def test_none(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("sys.stdin.isatty", lambda: False, raising=False)
        with pytest.raises(Misuse, match=f"(?s){VARIABLE}.*--passphrase-file.*terminal"):
            ask_passphrase(None)


def test_every_message_is_of_the_tree(scene: Scene) -> None:
    """A request that is none, or damaged."""
    path = scene.root / "odd"
    for data in (b"", b"x" * 100, (scene.folder("north") / "request").read_bytes()[:-1]):
        path.write_bytes(data)
        with pytest.raises(PrivflError, match="is damaged or no request"):
            read_request(path)
    with pytest.raises(Misuse, match="there is no file"):
        read_request(scene.root / "missing")
