"""The file key store: encrypted, private, never overwritten, and whole after any crash."""

from __future__ import annotations

import errno
import multiprocessing
import os
import stat
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from privfl_keys import (
    INSECURE_TEST_COST,
    FileKeyStore,
    Identity,
    KeyStore,
    KeyStoreError,
    Label,
    Misuse,
    ScryptCost,
    context,
)
from privfl_keys.storefile import STANDARD_COST, StoreFile

WORDS = "correct horse battery staple"
SECRET = bytes(range(1, 33))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "site.keys"


@pytest.fixture
def store(path: Path) -> FileKeyStore:
    return FileKeyStore.create(path, WORDS, cost=INSECURE_TEST_COST)


def write_private(path: Path, data: bytes) -> None:
    path.write_bytes(data)
    path.chmod(0o600)


def test_known_answer_and_bad_files(vectors: Any, path: Path) -> None:
    """A pinned file opens; each damaged or malicious one is refused with its cause."""
    case = vectors("store")
    write_private(path, bytes.fromhex(case["good"]))
    opened = FileKeyStore.open(path, case["passphrase"])
    assert {name: opened.get(name).reveal().hex() for name in opened.names()} == case["entries"]
    for bad in case["bad"]:
        write_private(path, bytes.fromhex(bad["hex"]))
        with pytest.raises(KeyStoreError, match=bad["says"]):
            FileKeyStore.open(path, case["passphrase"])


def test_entries_survive_reopening(store: FileKeyStore, path: Path, entropy: Any) -> None:
    """What was put is there for the next process, byte for byte, and an identity can live in it."""
    identity = Identity.generate("site 1", entropy)
    store.put("identity", identity.secret_bytes())
    store.put("empty", b"")
    again: KeyStore = FileKeyStore.open(path, WORDS)
    assert again.names() == ("empty", "identity")
    assert again.get("empty").reveal() == b""
    assert Identity.from_secret_bytes(again.get("identity").reveal()).site_id == identity.site_id
    again.delete("empty")
    assert store.names() == ("identity",)


def test_nothing_is_ever_overwritten(store: FileKeyStore, path: Path) -> None:
    """Neither a file by create, nor an entry by put; both say so and change nothing."""
    store.put("identity", SECRET)
    before = path.read_bytes()
    with pytest.raises(KeyStoreError, match="not overwritten"):
        FileKeyStore.create(path, WORDS, cost=INSECURE_TEST_COST)
    with pytest.raises(KeyStoreError, match="never overwritten"):
        store.put("identity", bytes(32))
    assert path.read_bytes() == before


def test_a_rival_creator_wins_at_most_once(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If the file appears between the check and the link, the link fails and the rival's file stays."""
    real = os.link

    def late(source: Any, target: Any) -> None:
        write_private(path, b"rival")
        real(source, target)

    monkeypatch.setattr(os, "link", late)
    with pytest.raises(KeyStoreError, match="someone else"):
        FileKeyStore.create(path, WORDS, cost=INSECURE_TEST_COST)
    assert path.read_bytes() == b"rival"
    assert os.listdir(path.parent) == [path.name]


def test_dangling_links_are_not_followed_on_create(path: Path) -> None:
    """A symbolic link counts as an existing file."""
    path.symlink_to(path.parent / "elsewhere")
    with pytest.raises(KeyStoreError, match="exists"):
        FileKeyStore.create(path, WORDS, cost=INSECURE_TEST_COST)


def test_files_are_private(store: FileKeyStore, path: Path) -> None:
    """Mode 0600 after create and after every change, whatever the umask; wider modes are refused."""
    old = os.umask(0)
    try:
        store.put("a", SECRET)
    finally:
        os.umask(old)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    for mode in (0o640, 0o604, 0o620, 0o601):
        path.chmod(mode)
        with pytest.raises(KeyStoreError, match="chmod 600"):
            FileKeyStore.open(path, WORDS)
        with pytest.raises(KeyStoreError, match="chmod 600"):
            store.get("a")


def test_wrong_passphrases_say_what_to_do(store: FileKeyStore, path: Path) -> None:
    """Another passphrase is told apart from damage; composed and decomposed accents are the same."""
    store.put("a", SECRET)
    for wrong in ("", WORDS.upper(), WORDS + " "):
        with pytest.raises(KeyStoreError, match=r"passphrase does not open .*try again"):
            FileKeyStore.open(path, wrong)
    accented = path.parent / "accented"
    FileKeyStore.create(accented, "caf\u00e9 caf\u00e9 caf\u00e9", cost=INSECURE_TEST_COST)
    FileKeyStore.open(accented, "cafe\u0301 cafe\u0301 cafe\u0301")
    folded = path.parent / "folded"
    FileKeyStore.create(folded, "\ufb01ve quick foxes", cost=INSECURE_TEST_COST)
    with pytest.raises(KeyStoreError):  # compatibility folding would make other passphrases equal
        FileKeyStore.open(folded, "five quick foxes")


def test_short_passphrases_are_refused(path: Path) -> None:
    """Eleven characters are too few; nothing is written."""
    with pytest.raises(KeyStoreError, match="12 characters"):
        FileKeyStore.create(path, "x" * 11, cost=INSECURE_TEST_COST)
    assert not path.exists()


def test_every_damaged_byte_is_noticed(store: FileKeyStore, path: Path) -> None:
    """No single-byte change, truncation or extension opens; the file is left as it was found."""
    store.put("a", SECRET)
    whole = path.read_bytes()
    for at in range(len(whole)):
        mutated = bytearray(whole)
        mutated[at] ^= 1
        write_private(path, bytes(mutated))
        with pytest.raises(KeyStoreError):
            FileKeyStore.open(path, WORDS)
        assert path.read_bytes() == bytes(mutated)
    for size in range(0, len(whole), 9):
        write_private(path, whole[:size])
        with pytest.raises(KeyStoreError, match="damaged or no key store"):
            FileKeyStore.open(path, WORDS)


def test_header_fields_are_authenticated(store: FileKeyStore, path: Path) -> None:
    """Salt, nonce or cost exchanged with a mended checksum still does not open."""
    store.put("a", SECRET)
    file = StoreFile.decode(path.read_bytes())
    for cost, salt, nonce in (
        (file.cost, file.salt, bytes(12)),
        (file.cost, bytes(32), file.nonce),
        (ScryptCost(log_n=5), file.salt, file.nonce),
    ):
        header = context(Label.KEY_STORE, StoreFile.TAG, cost.to_value(), salt, nonce)
        mixed = StoreFile(cost, salt, nonce, file.ciphertext, sha256(header + file.ciphertext).digest())
        assert mixed.is_whole()
        write_private(path, mixed.encode())
        with pytest.raises(KeyStoreError, match="passphrase"):
            FileKeyStore.open(path, WORDS)


@pytest.mark.parametrize(
    "cost",
    [ScryptCost(20, 16, 1), ScryptCost(21), ScryptCost(3), ScryptCost(17, 0), ScryptCost(17, 17), ScryptCost(17, 8, 5)],
)
def test_costs_are_bounded(cost: ScryptCost, path: Path) -> None:
    """More than 1 GiB or factors out of range are refused before memory is touched."""
    with pytest.raises(KeyStoreError, match=r"1 GiB|out of bounds"):
        FileKeyStore.create(path, WORDS, cost=cost)


def test_the_standard_cost_is_expensive(path: Path) -> None:
    """A store made without a cost takes 2^17 blocks of 1 KiB: 128 MiB per guess."""
    assert (STANDARD_COST.log_n, STANDARD_COST.r, STANDARD_COST.p) == (17, 8, 1)
    FileKeyStore.create(path, WORDS).close()
    assert StoreFile.decode(path.read_bytes()).cost == STANDARD_COST


def test_folders_are_checked_before_anything_is_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A missing or read-only folder is named; no key was made for nothing."""

    class NoEntropy:
        def draw(self, size: int) -> bytes:
            raise AssertionError("drawn too early")

    with pytest.raises(KeyStoreError, match="does not exist"):
        FileKeyStore.create(tmp_path / "no" / "store", WORDS, entropy=NoEntropy())
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(KeyStoreError, match="cannot be written"):
        FileKeyStore.create(tmp_path / "store", WORDS, entropy=NoEntropy())


def test_missing_stores_and_entries_are_named(store: FileKeyStore, path: Path) -> None:
    """The message lists what there is, and where nothing is."""
    store.put("identity", SECRET)
    with pytest.raises(KeyStoreError, match="it has: identity"):
        store.get("identiti")
    with pytest.raises(KeyStoreError, match="no entry"):
        store.delete("identiti")
    with pytest.raises(KeyStoreError, match="there is no key store"):
        FileKeyStore.open(path.parent / "nowhere", WORDS)
    with pytest.raises(KeyStoreError, match="cannot be read"):
        FileKeyStore.open(path.parent, WORDS)
    for name in ("", "A", "a/b", "../x", "a\n", "-a"):
        with pytest.raises(Misuse, match="entry name"):
            store.put(name, SECRET)


def test_closed_stores_give_nothing(store: FileKeyStore) -> None:
    """After close the file key is wiped."""
    store.put("a", SECRET)
    store.close()
    with pytest.raises(Misuse):
        store.get("a")


def test_secrets_are_not_on_disk_or_in_print(store: FileKeyStore, path: Path) -> None:
    """Neither secret, name nor passphrase is in the file, the repr or an error."""
    store.put("identity", SECRET)
    raw = path.read_bytes()
    assert SECRET not in raw
    assert b"identity" not in raw
    assert WORDS.encode() not in raw
    assert repr(store) == f"FileKeyStore({str(path)!r}, <redacted>)"
    with pytest.raises(KeyStoreError) as caught:
        store.put("identity", SECRET)
    assert SECRET.hex() not in str(caught.value)
    with pytest.raises(KeyStoreError) as caught:
        FileKeyStore.open(path, "hunter2 hunter2")
    assert "hunter2" not in str(caught.value)


def test_nonces_are_fresh_at_every_change(store: FileKeyStore, path: Path) -> None:
    """One key, many writes: no nonce returns."""
    seen = set()
    for i in range(8):
        store.put(f"entry{i}", SECRET)
        seen.add(StoreFile.decode(path.read_bytes()).nonce)
    assert len(seen) == 8


# -- crashes --------------------------------------------------------------------------------------


def crash(path: str, step: str) -> None:
    """Child: die without cleaning up at ``step`` of a put."""

    def die(*_: Any) -> None:
        os._exit(42)

    opened = FileKeyStore.open(path, WORDS)
    setattr(os, step, die)
    opened.put("new", SECRET)


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_kill_before_the_rename_leaves_the_old_store(store: FileKeyStore, path: Path, step: str) -> None:
    """Killed while writing or just before the rename: the old entries open, and putting again works."""
    store.put("old", SECRET)
    before = path.read_bytes()
    child = multiprocessing.get_context("spawn").Process(target=crash, args=(str(path), step))
    child.start()
    child.join()
    assert child.exitcode == 42
    assert path.read_bytes() == before
    strays = [name for name in os.listdir(path.parent) if name != path.name]
    assert [name.endswith(".tmp") for name in strays] == [True]
    assert SECRET not in (path.parent / strays[0]).read_bytes()
    assert stat.S_IMODE((path.parent / strays[0]).stat().st_mode) == 0o600
    again = FileKeyStore.open(path, WORDS)
    again.put("new", SECRET)
    assert again.names() == ("new", "old")


@pytest.mark.parametrize("step", ["fsync", "replace", "link"])
def test_failing_disks_change_nothing(
    store: FileKeyStore, path: Path, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error of the disk becomes KeyStoreError; the old store is whole and no stray file is left."""
    store.put("old", SECRET)

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, step, full)
    second = path.parent / "second"
    with pytest.raises(KeyStoreError, match="No space left"):
        FileKeyStore.create(second, WORDS, cost=INSECURE_TEST_COST) if step == "link" else store.put("new", SECRET)
    monkeypatch.undo()
    assert os.listdir(path.parent) == [path.name]
    assert FileKeyStore.open(path, WORDS).names() == ("old",)


def put_many(path: str, prefix: str) -> None:
    opened = FileKeyStore.open(path, WORDS)
    for i in range(10):
        opened.put(f"{prefix}{i}", SECRET)


def test_two_writers_lose_nothing(store: FileKeyStore, path: Path) -> None:
    """Two processes that put at the same time both find all their entries afterwards."""
    context = multiprocessing.get_context("spawn")
    children = [context.Process(target=put_many, args=(str(path), prefix)) for prefix in "ab"]
    for child in children:
        child.start()
    for child in children:
        child.join()
    assert [child.exitcode for child in children] == [0, 0]
    assert len(store.names()) == 20
