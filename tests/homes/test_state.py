"""The sealed store: all or nothing, unreadable without its key, and old values unreadable after a rotation."""

from __future__ import annotations

import os
import signal
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest
from privfl_keys import SYSTEM, SecretBytes

from privfl.errors import Misuse, StorageError, Unverified
from privfl.homes.lock import Lock, holder
from privfl.homes.state import State

OWNER, OTHER = b"o" * 32, b"x" * 32
MASTER = bytes(range(32))


def opened(folder: Path, owner: bytes = OWNER, master: bytes = MASTER) -> State:
    return State.open(folder, SecretBytes(master), owner)


def made(folder: Path) -> State:
    return State.create(folder, SecretBytes(MASTER), OWNER)


def forked(work: Callable[[], None]) -> int:
    """Run ``work`` in a real process of its own and return how it ended, as waitpid tells."""
    child = os.fork()
    if child == 0:
        try:
            work()
        finally:
            os._exit(0)
    return os.waitpid(child, 0)[1]


def test_values_come_back_and_are_removed(tmp_path: Path) -> None:
    """Set, replace, remove; also after opening again."""
    state = made(tmp_path)
    state.put({"one": b"1", "two": b"", "three": bytes(100_000)})
    state.put({"one": b"11", "two": None})
    state.close()
    state = opened(tmp_path)
    assert (state.get("one"), state.get("two"), state.get("three")) == (b"11", None, bytes(100_000))
    assert state.names() == ("one", "three")
    state.close()


def test_nothing_lies_in_clear_and_only_the_owner_may_read(tmp_path: Path) -> None:
    """No value is found in any file of the folder, nor its name's value in hex; modes are 0600."""
    state, secret = made(tmp_path), SYSTEM.draw(48)
    state.put({"machine": secret})
    for path in tmp_path.iterdir():
        assert secret not in path.read_bytes()
        assert secret.hex().encode() not in path.read_bytes()
        assert path.stat().st_mode & 0o077 == 0, path
    state.close()


def test_another_key_or_owner_does_not_open_it(tmp_path: Path) -> None:
    """Files of one folder put into another are refused."""
    made(tmp_path).close()
    with pytest.raises(Unverified, match="another folder or key store"):
        opened(tmp_path, master=bytes(32))
    with pytest.raises(Unverified, match="another folder or key store"):
        opened(tmp_path, owner=OTHER)
    opened(tmp_path).close()


def test_every_altered_value_is_noticed(tmp_path: Path) -> None:
    """A changed, moved or truncated value does not open."""
    state = made(tmp_path)
    state.put({"a": b"alpha", "b": b"beta"})
    state.close()
    for change in (
        "UPDATE items SET sealed = (SELECT sealed FROM items WHERE name = 'b') WHERE name = 'a'",
        "UPDATE items SET sealed = zeroblob(40) WHERE name = 'a'",
        "UPDATE items SET sealed = x'00' WHERE name = 'a'",
        "UPDATE items SET generation = 7 WHERE name = 'a'",
    ):
        database = sqlite3.connect(tmp_path / "state.db")
        keep = database.execute("SELECT * FROM items").fetchall()
        with database:
            database.execute(change)
        database.close()
        state = opened(tmp_path)
        with pytest.raises(Unverified, match="altered"):
            state.get("a")
        assert state.get("b") == b"beta"
        state.close()
        database = sqlite3.connect(tmp_path / "state.db")
        with database:
            database.executemany("INSERT OR REPLACE INTO items VALUES (?, ?, ?)", keep)
        database.close()


def test_a_rotation_keeps_values_and_destroys_the_old_key(tmp_path: Path) -> None:
    """After rotate, a copy of the old database and its journal cannot be read with what the folder still holds."""
    state = made(tmp_path)
    state.put({"machine": b"pair keys of epoch 1"})
    old_key = (tmp_path / "state.key").read_bytes()
    fork = tmp_path / "thief"
    fork.mkdir(mode=0o700)
    for name in ("state.db", "state.db-wal"):
        (fork / name).write_bytes((tmp_path / name).read_bytes())
    state.rotate()
    assert state.get("machine") == b"pair keys of epoch 1"
    state.close()
    (fork / "state.key").write_bytes((tmp_path / "state.key").read_bytes())
    with pytest.raises(Unverified):
        opened(fork).get("machine")
    assert old_key != (tmp_path / "state.key").read_bytes()
    state = opened(tmp_path)
    assert state.get("machine") == b"pair keys of epoch 1"
    state.close()


def test_a_rotation_killed_anywhere_is_finished_at_the_next_start(tmp_path: Path) -> None:
    """SIGKILL at each step of a rotation loses nothing."""
    made(tmp_path).close()
    for step in range(12):
        state = opened(tmp_path)
        state.put({"a": b"%d" % step, "b": bytes(5000)})
        state.close()

        def work(step: int = step) -> None:
            calls = 0
            real = {name: getattr(os, name) for name in ("fsync", "replace", "pwrite")}

            def dying(name: str) -> Callable[..., object]:
                def call(*args: object) -> object:
                    nonlocal calls
                    calls += 1
                    if calls > step:
                        os.kill(os.getpid(), signal.SIGKILL)
                    return real[name](*args)

                return call

            state = opened(tmp_path)
            for name in real:
                setattr(os, name, dying(name))
            state.rotate()

        forked(work)
        state = opened(tmp_path)
        assert state.get("a") == b"%d" % step
        assert state.get("b") == bytes(5000)
        state.close()


def test_a_process_killed_while_writing_leaves_all_or_nothing(tmp_path: Path) -> None:
    """Two values written together are never seen apart, however often the writer dies."""
    made(tmp_path).close()
    for _ in range(15):

        def work() -> None:
            state = opened(tmp_path)
            signal.setitimer(signal.ITIMER_REAL, 0.002 + SYSTEM.draw(1)[0] / 256 * 0.02)
            signal.signal(signal.SIGALRM, lambda *_: os.kill(os.getpid(), signal.SIGKILL))
            number = int(state.get("left") or 0)
            while True:
                number += 1
                state.put({"left": b"%d" % number, "right": b"%d" % number})

        forked(work)
        state = opened(tmp_path)
        assert state.get("left") == state.get("right")
        state.close()


def test_a_second_process_is_refused_by_name(tmp_path: Path) -> None:
    """The lock names who holds the folder, and dies with its process."""
    state = made(tmp_path)
    assert holder(tmp_path) == os.getpid()

    def work() -> None:
        try:
            opened(tmp_path)
        except Misuse as error:
            if f"pid {os.getppid()}" in str(error):
                os.kill(os.getpid(), signal.SIGUSR1)

    assert forked(work) == signal.SIGUSR1
    state.close()
    assert holder(tmp_path) is None

    def hold() -> None:
        Lock(tmp_path)
        os.kill(os.getpid(), signal.SIGKILL)

    forked(hold)
    opened(tmp_path).close()


def test_missing_and_doubled_stores_say_what_to_do(tmp_path: Path) -> None:
    """Nothing there, made twice, key file gone, damaged key file."""
    with pytest.raises(Misuse, match="holds no state"):
        opened(tmp_path)
    with pytest.raises(Misuse, match="no folder"):
        opened(tmp_path / "nowhere")
    made(tmp_path).close()
    with pytest.raises(Misuse, match="not overwritten"):
        made(tmp_path)
    key = (tmp_path / "state.key").read_bytes()
    (tmp_path / "state.key").write_bytes(key[:-1])
    with pytest.raises(Unverified, match="damaged"):
        opened(tmp_path)
    (tmp_path / "state.key").unlink()
    with pytest.raises(Unverified, match="missing"):
        opened(tmp_path)


def test_a_disk_that_does_not_take_it_changes_nothing(tmp_path: Path) -> None:
    """A full disk (here: SQLite's page limit) raises StorageError, and the old values stand."""
    state = made(tmp_path)
    state.put({"a": b"before"})
    assert state._database is not None
    pages = state._database.execute("PRAGMA page_count").fetchone()[0]
    state._database.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(StorageError, match="full"):
        state.put({"a": bytes(1 << 20), "b": b"1"})
    assert (state.get("a"), state.get("b")) == (b"before", None)
    state.close()
