"""What a role must not lose and nobody else may read: named values, sealed, durable, all or nothing.

Values lie in SQLite, each sealed by ChaCha20-Poly1305 under a data key; the data key lies in a file of its
own, sealed under a secret of the key store. :meth:`State.rotate` draws a new data key, seals every value
again and overwrites the old key's file, so that old pages, journals and copies of the database cannot be
read any more. Overwriting is best effort: a file system or SSD may keep old blocks.

One more value, sealed like the others and written with each change, lists the hash of every other: a single value
that someone removes, or puts back as it was, is noticed.

An older copy of the whole folder put back in place looks sound to itself. The protocol notices it by the
headers that others remember; keep the folder out of backups.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import sqlite3
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Final, Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from privfl_keys import Label, SecretBytes, context

from privfl.codec import Bounds, Bytes32, Record, Uint64
from privfl.entropy import SYSTEM, Entropy
from privfl.errors import Malformed, Misuse, StorageError, Unverified
from privfl.homes.files import storage, write_file
from privfl.homes.lock import Lock

__all__ = ["Items", "MemoryState", "State"]

DATABASE, KEY_FILE = "state.db", "state.key"
INDEX: Final = ""  # name of the value that lists the others
NONCE = 12


class Items(Protocol):
    """Named values. A call has happened, or has not, after a crash."""

    def get(self, name: str) -> bytes | None:
        """The value, None if there is none."""
        ...

    def put(self, items: Mapping[str, bytes | None]) -> None:
        """Set (or with None remove) all of ``items``, durably, all or none."""
        ...

    def rotate(self) -> None:
        """Make what was replaced or removed unreadable, as well as the medium allows."""
        ...


class MemoryState:
    """The same interface in memory: outlives whoever uses it, but not the process."""

    def __init__(self) -> None:
        self._items: dict[str, bytes] = {}

    def get(self, name: str) -> bytes | None:
        """The value, None if there is none."""
        return self._items.get(name)

    def put(self, items: Mapping[str, bytes | None]) -> None:
        """Set (or with None remove) all of ``items``."""
        for name, value in items.items():
            if value is None:
                self._items.pop(name, None)
            else:
                self._items[name] = bytes(value)

    def rotate(self) -> None:
        """Nothing to do: what is replaced is gone."""


@dataclass(frozen=True)
class _SealedKey(Record):
    TAG: ClassVar[str] = "data key"

    generation: Uint64
    sealed: Annotated[bytes, Bounds(NONCE + 48, NONCE + 48)]


@dataclass(frozen=True)
class _KeyFile(Record):
    """One data key, or two while values are being sealed again."""

    TAG: ClassVar[str] = "privfl state key 1"

    keys: Annotated[tuple[_SealedKey, ...], Bounds(1, 2)]


@dataclass(frozen=True)
class _Index(Record):
    """Name and SHA-256 of every sealed value."""

    TAG: ClassVar[str] = "privfl state index 1"

    items: tuple[tuple[str, Bytes32], ...]


class State:
    """The sealed store of one folder, locked to this process.

    Args (of :meth:`create` and :meth:`open`):
        folder: of the role. key: 32 bytes from the role's key store. owner: 32-byte id, bound into every seal.
    """

    def __init__(self, folder: Path, key: SecretBytes, owner: bytes, entropy: Entropy, lock: Lock) -> None:
        """Internal; use :meth:`create` or :meth:`open`."""
        self.folder, self._owner, self._entropy, self._lock = folder, owner, entropy, lock
        self._master = ChaCha20Poly1305(key.reveal())
        self._keys: dict[int, ChaCha20Poly1305] = {}
        self._generation = 0
        self._index: dict[str, bytes] = {}
        self._database: sqlite3.Connection | None = None

    @classmethod
    def create(cls, folder: Path, key: SecretBytes, owner: bytes, *, entropy: Entropy = SYSTEM) -> State:
        """Make an empty store; also completes one whose making was interrupted before anything was in it.

        Raises:
            Misuse: there is a store already, or another process works in the folder.
            StorageError: the folder cannot be written.
        """
        state = cls(folder, key, owner, entropy, Lock(folder))
        try:
            if (folder / DATABASE).exists():
                raise Misuse(f"{folder} holds a state already; it is not overwritten")
            if not (folder / KEY_FILE).exists():
                state._write_keys([state._fresh(1)])
            state._load_keys()
            state._connect()
        except BaseException:
            state.close()
            raise
        return state

    @classmethod
    def open(cls, folder: Path, key: SecretBytes, owner: bytes, *, entropy: Entropy = SYSTEM) -> State:
        """Open a store, finishing a rotation that a crash interrupted.

        Raises:
            Misuse: there is none, or another process works in the folder.
            Unverified: its key does not open under ``key`` and ``owner``: files of another folder, or damaged.
            StorageError: it cannot be read or written.
        """
        state = cls(folder, key, owner, entropy, Lock(folder))
        try:
            if not (folder / DATABASE).exists():
                raise Misuse(f"{folder} holds no state; run the init command of its role, or check the path")
            state._load_keys()
            for stray in folder.glob(f".{KEY_FILE}.*.tmp"):  # of a process that was killed while rotating
                stray.unlink(missing_ok=True)
            state._connect()
            if len(state._keys) > 1:
                state._seal_again()
        except BaseException:
            state.close()
            raise
        return state

    def get(self, name: str) -> bytes | None:
        """The value, None if there is none; raises Unverified if it was altered, removed or put back."""
        with self._errors("read"):
            row = self._db().execute("SELECT generation, sealed FROM items WHERE name = ?", (name,)).fetchone()
        known = self._index.get(name)
        if row is None and known is None:
            return None
        if row is None or hashlib.sha256(row[1]).digest() != known:
            raise self._altered(name)
        return self._unseal(name, int(row[0]), bytes(row[1]))

    def names(self) -> tuple[str, ...]:
        """Names of all values, sorted."""
        with self._errors("read"):
            rows = self._db().execute("SELECT name FROM items WHERE name != ? ORDER BY name", (INDEX,))
            return tuple(row[0] for row in rows)

    def put(self, items: Mapping[str, bytes | None]) -> None:
        """Set (or with None remove) all of ``items``; when this returns they are durable, else none changed.

        Raises:
            StorageError: the disk did not take them.
        """
        sealed = [(name, self._generation, self._seal(name, data)) for name, data in items.items() if data is not None]
        kept = {name: known for name, known in self._index.items() if name not in items}
        with self._transaction() as database:
            gone = [(name,) for name, data in items.items() if data is None]
            database.executemany("DELETE FROM items WHERE name = ?", gone)
            index = self._write(database, sealed, kept)
        self._index = index

    def _write(
        self, database: sqlite3.Connection, sealed: list[tuple[str, int, bytes]], kept: Mapping[str, bytes]
    ) -> dict[str, bytes]:
        """Write values and the index of these and of ``kept``; returns that index, to be believed after the commit."""
        index = {**kept, **{name: hashlib.sha256(data).digest() for name, _, data in sealed}}
        listed = self._seal(INDEX, _Index(tuple(sorted(index.items()))).encode())
        rows = [*sealed, (INDEX, self._generation, listed)]
        database.executemany("INSERT OR REPLACE INTO items VALUES (?, ?, ?)", rows)
        return index

    def rotate(self) -> None:
        """Seal every value under a fresh data key and destroy the old one; after a crash, :meth:`open` finishes it."""
        old = self._read_keys().keys[-1]
        self._write_keys([old, self._fresh(self._generation + 1)])
        self._load_keys()
        self._seal_again()

    def close(self) -> None:
        """Close the store and let the folder go; twice is harmless."""
        if self._database is not None:
            self._database.close()
            self._database = None
        self._keys.clear()
        self._lock.release()

    def __repr__(self) -> str:
        return f"State({str(self.folder)!r}, <redacted>)"

    # -- keys ---------------------------------------------------------------------------------------

    def _fresh(self, generation: int) -> _SealedKey:
        nonce = self._entropy.draw(NONCE)
        sealed = self._master.encrypt(nonce, self._entropy.draw(32), self._bound("data key", generation))
        return _SealedKey(generation, nonce + sealed)

    def _read_keys(self) -> _KeyFile:
        path = self.folder / KEY_FILE
        try:
            return _KeyFile.decode(path.read_bytes())
        except FileNotFoundError:
            raise Unverified(
                f"{path} is missing: without it the state cannot be read. Enrol again under a new key"
            ) from None
        except Malformed:
            raise Unverified(f"{path} is damaged: the state cannot be read. Enrol again under a new key") from None
        except OSError as error:
            raise StorageError(f"{path} cannot be read ({error.strerror}); check its owner and mode") from None

    def _load_keys(self) -> None:
        self._keys = {}
        for one in self._read_keys().keys:
            nonce, sealed = one.sealed[:NONCE], one.sealed[NONCE:]
            try:
                plain = self._master.decrypt(nonce, sealed, self._bound("data key", one.generation))
            except InvalidTag:
                raise Unverified(
                    f"{self.folder / KEY_FILE} does not open: it belongs to another folder or key store"
                ) from None
            self._keys[one.generation] = ChaCha20Poly1305(plain)
        self._generation = max(self._keys)

    def _write_keys(self, keys: list[_SealedKey]) -> None:
        """Replace the key file, and overwrite the blocks of the one before."""
        path = self.folder / KEY_FILE
        with storage(path):
            before = os.open(path, os.O_RDWR | os.O_CLOEXEC) if path.exists() else -1
            try:
                write_file(path, _KeyFile(tuple(keys)).encode())
                if before >= 0:
                    os.pwrite(before, bytes(os.fstat(before).st_size), 0)
                    os.fsync(before)
            finally:
                if before >= 0:
                    os.close(before)

    def _seal_again(self) -> None:
        newest = self._generation
        with self._transaction() as database:
            plain = [(name, self.get(name)) for name in {*self._index, *self.names()}]
            again = [(name, newest, self._seal(name, data)) for name, data in plain if data is not None]
            index = self._write(database, again, {})
        self._index = index
        with self._errors("written"):
            self._db().execute("PRAGMA wal_checkpoint(TRUNCATE)")
        self._write_keys([one for one in self._read_keys().keys if one.generation == newest])
        self._load_keys()

    # -- values -------------------------------------------------------------------------------------

    def _bound(self, name: str, generation: int) -> bytes:
        return context(Label.STATE, self._owner, name, generation)

    def _seal(self, name: str, data: bytes) -> bytes:
        nonce = self._entropy.draw(NONCE)
        return nonce + self._keys[self._generation].encrypt(nonce, bytes(data), self._bound(f"item {name}", 0))

    def _unseal(self, name: str, generation: int, sealed: bytes) -> bytes:
        key = self._keys.get(generation)
        try:
            if key is None or len(sealed) < NONCE + 16:
                raise InvalidTag
            return key.decrypt(sealed[:NONCE], sealed[NONCE:], self._bound(f"item {name}", 0))
        except InvalidTag:
            raise self._altered(name) from None

    def _altered(self, name: str) -> Unverified:
        what = f"the value {name!a}" if name != INDEX else "the list of values"
        return Unverified(
            f"{what} in {self.folder / DATABASE} was put back or altered, or the file is older than its key; "
            "stop, keep the folder as it is, and tell the compliance officer"
        )

    # -- SQLite -------------------------------------------------------------------------------------

    def _connect(self) -> None:
        path = self.folder / DATABASE
        with self._errors("opened"):
            if not path.exists():
                os.close(os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600))
            self._database = sqlite3.connect(path, isolation_level=None)
            # the write-ahead log costs one sync per commit, a rollback journal three; held exclusively, so that a
            # second process is kept out even where someone has removed the lock file
            for pragma in (
                "busy_timeout = 0",
                "locking_mode = EXCLUSIVE",
                "journal_mode = WAL",
                "synchronous = FULL",
                "secure_delete = ON",
                "trusted_schema = OFF",
            ):
                self._database.execute(f"PRAGMA {pragma}")
        self._read_index()

    def _read_index(self) -> None:
        with self._transaction() as database:
            if not database.execute("SELECT 1 FROM sqlite_master WHERE name = 'items'").fetchone():
                database.execute("CREATE TABLE items (name TEXT PRIMARY KEY, generation INTEGER, sealed BLOB) STRICT")
                self._write(database, [], {})
            row = database.execute("SELECT generation, sealed FROM items WHERE name = ?", (INDEX,)).fetchone()
        if row is None:
            raise self._altered(INDEX)
        self._index = dict(_Index.decode(self._unseal(INDEX, int(row[0]), bytes(row[1]))).items)

    def _db(self) -> sqlite3.Connection:
        if self._database is None:
            raise Misuse("this state is closed; open it again")
        return self._database

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._errors("written"):
            database = self._db()
            database.execute("BEGIN IMMEDIATE")
            try:
                yield database
                database.execute("COMMIT")
            except BaseException:
                with contextlib.suppress(sqlite3.Error):
                    database.execute("ROLLBACK")
                raise

    @contextlib.contextmanager
    def _errors(self, what: str) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            raise StorageError(
                f"{self.folder / DATABASE} could not be {what} ({error}); check free space, owner and mode, then "
                "start again: nothing was sent that is not recorded"
            ) from None
