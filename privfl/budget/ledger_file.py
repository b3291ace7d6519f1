"""The ledger's SQLite file: one table that only grows, opened with care, its failures in privfl's words.

Journal mode DELETE with synchronous=EXTRA: a commit is on the disk when it returns, the removal of the
journal included, without which a power cut could undo it (FULL alone does not promise that in this mode).
A write-ahead log would commit in a quarter of the time (0.2 ms against 0.9 ms here), but a site commits twice
per upload, and without one the ledger is a single file at rest: a copy of it is whole, a read-only folder can
be read without side files, and no part of it can be forgotten in a backup. Rows are (number, bytes,
signature); no column says anything that is not signed.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from privfl.budget.ledger_entries import Sealed
from privfl.errors import Misuse, PrivflError, StorageError, Unverified

__all__ = ["append", "begin", "connect", "create_file", "guarded", "identity", "read_rows", "rows_from"]

PATIENCE_S: Final = 30.0
MAX_ROW: Final = 4 * 2**20
_MAGIC: Final = b"SQLite format 3\0"

_SCHEMA: Final = (
    (
        "table",
        "entries",
        "CREATE TABLE entries (seq INTEGER PRIMARY KEY NOT NULL, body BLOB NOT NULL, signature BLOB NOT NULL)",
    ),
    (
        "trigger",
        "entries_keep_deleted",
        "CREATE TRIGGER entries_keep_deleted BEFORE DELETE ON entries "
        "BEGIN SELECT RAISE(ABORT, 'a ledger only grows'); END",
    ),
    (
        "trigger",
        "entries_keep_inserted",  # also against INSERT OR REPLACE, which fires no trigger for what it deletes
        "CREATE TRIGGER entries_keep_inserted BEFORE INSERT ON entries "
        "WHEN NEW.seq IS NOT (SELECT ifnull(max(seq), -1) + 1 FROM entries) "
        "BEGIN SELECT RAISE(ABORT, 'a ledger only grows'); END",
    ),
    (
        "trigger",
        "entries_keep_updated",
        "CREATE TRIGGER entries_keep_updated BEFORE UPDATE ON entries "
        "BEGIN SELECT RAISE(ABORT, 'a ledger only grows'); END",
    ),
)


@contextlib.contextmanager
def guarded(path: Path) -> Iterator[None]:
    """Turn failures of the database or the disk into errors that name the cause and the next step."""
    try:
        yield
    except sqlite3.Error as error:
        raise _in_words(path, error) from None
    except UnicodeDecodeError:  # sqlite3 decodes the schema's text, and messages that quote it
        raise Unverified(f"{path} is damaged or no ledger (its schema is no text); restore the latest copy") from None
    except OSError as error:
        raise Misuse(
            f"{path}: {error.strerror or 'it cannot be used'}; check the path, its owner and mode, and the disk"
        ) from None


def _code(error: sqlite3.Error) -> int:
    code: int = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR)  # not every one carries its code
    return code & 0xFF


def _in_words(path: Path, error: sqlite3.Error) -> PrivflError:
    if isinstance(error, sqlite3.ProgrammingError):
        return Misuse(f"{path} is closed, or was opened in another thread ({error}); open it where it is used")
    code = _code(error)
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return StorageError(
            f"another process has kept {path} locked for {PATIENCE_S:.0f} s; stop it, or wait, and ask again; "
            "nothing was charged"
        )
    if code in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_TOOBIG):
        return StorageError(
            f"{path} could not be written ({error}); free some space or replace the disk, then restart; the ledger is "
            "as it was before this entry"
        )
    if code in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM, sqlite3.SQLITE_AUTH):
        return StorageError(f"{path} may not be written; give the site's user write access to it and to its folder")
    if code == sqlite3.SQLITE_CANTOPEN:
        return Misuse(f"{path} cannot be opened; check the path, and the owner and mode of the file and its folder")
    return Unverified(f"{path} is damaged or no ledger ({str(error)!a:.120}); restore the latest copy of it")


def connect(path: Path, *, write: bool) -> sqlite3.Connection:
    """Open an existing file without believing anything in it; the schema is checked by every transaction.

    Raises:
        Misuse: there is no such file. Unverified: it is no SQLite file, or another program changed its mode.
    """
    with guarded(path):
        return _connect(path, write=write)


def _connect(path: Path, *, write: bool) -> sqlite3.Connection:
    if not path.is_file():
        raise Misuse(f"there is no ledger at {path}; check the path, or create one")
    with open(path, "rb") as stream:
        start = stream.read(20)
    if start[:16] != _MAGIC:
        raise Unverified(f"{path} is no ledger, or its beginning was overwritten; restore the latest copy of it")
    if start[18:20] != b"\x01\x01":
        raise Unverified(
            f"{path} was switched to another journal mode by another program; with the site stopped, "
            "run on it: PRAGMA journal_mode = DELETE"
        )
    mode = "rw" if write else "ro"
    connection = sqlite3.connect(
        f"{path.resolve().as_uri()}?mode={mode}", uri=True, timeout=PATIENCE_S, isolation_level=None
    )
    try:
        for setting in (
            "trusted_schema = OFF",
            "cell_size_check = ON",
            "synchronous = EXTRA",
            "temp_store = MEMORY",
        ):
            connection.execute(f"PRAGMA {setting}")
    except BaseException:
        connection.close()
        raise
    return connection


def create_file(path: Path, first: Sealed) -> None:
    """Make a ledger with its opening, whole or not at all; raises Misuse if something is at ``path`` already."""
    with guarded(path):
        if not path.parent.is_dir():
            raise Misuse(f"the folder {path.parent} does not exist; make it first")
        if os.path.lexists(path):
            raise Misuse(f"{path} exists; a ledger is never overwritten: open it, or choose another path")
        descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)  # mode 0600
        os.close(descriptor)
        try:
            with contextlib.closing(sqlite3.connect(name, isolation_level=None)) as connection:
                connection.execute("PRAGMA synchronous = EXTRA")
                connection.execute("BEGIN IMMEDIATE")
                for _, _, statement in _SCHEMA:
                    connection.execute(statement)
                append(connection, 0, first)
                connection.execute("COMMIT")
            try:
                os.link(name, path)  # unlike rename, fails if the target appeared meanwhile
            except FileExistsError:
                raise Misuse(f"{path} was created by someone else just now; it is left as it is") from None
        finally:
            os.unlink(name)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def identity(path: Path) -> tuple[int, int]:
    """Which file is at ``path``, so that a swapped one is noticed; raises Unverified if there is none any more."""
    try:
        found = os.stat(path)
    except OSError:
        raise Unverified(f"{path} has vanished while the site ran; put the latest copy back and restart") from None
    return found.st_dev, found.st_ino


def begin(connection: sqlite3.Connection, *, write: bool) -> None:
    """Start a transaction, alone where it writes, and check that the file holds a ledger and nothing else.

    Raises:
        Unverified: another schema; a view or a trigger could show rows that are not there.
    """
    connection.execute("BEGIN IMMEDIATE" if write else "BEGIN")
    found = connection.execute("SELECT type, name, sql FROM sqlite_master ORDER BY type, name").fetchmany(5)
    if tuple(found) != _SCHEMA:
        strange = sorted({str(row[1]) for row in set(found) ^ set(_SCHEMA)})
        raise Unverified(
            f"the database is no plain ledger ({', '.join(strange)!a:.120} added, missing or altered); "
            "restore the latest copy of the file"
        )


def rows_from(connection: sqlite3.Connection, seq: int) -> list[tuple[int, Sealed]]:
    """Stored rows from ``seq`` on (0: all), inside a transaction; raises Unverified for rows of another shape."""
    seq = seq or -(2**63)  # a row that someone put before the first is none of the ledger's, and is to be named
    largest = connection.execute("SELECT max(length(body)), max(length(signature)) FROM entries WHERE seq >= ?", (seq,))
    if any(isinstance(size, int) and size > MAX_ROW for size in largest.fetchone()):
        raise Unverified("an entry is larger than any ledger entry; restore the latest copy of the file")
    found: list[tuple[int, Sealed]] = []
    query = "SELECT seq, body, signature FROM entries WHERE seq >= ? ORDER BY seq"
    for number, body, signature in connection.execute(query, (seq,)):
        if not (isinstance(body, bytes) and isinstance(signature, bytes)):
            raise Unverified(f"entry {number} is no ledger entry (it is not stored as bytes); it was overwritten")
        found.append((number, Sealed(body, signature)))
    return found


def append(connection: sqlite3.Connection, seq: int, sealed: Sealed) -> None:
    """Insert one row, inside a transaction."""
    connection.execute("INSERT INTO entries VALUES (?, ?, ?)", (seq, sealed.body, sealed.signature))


def read_rows(path: Path) -> list[tuple[int, Sealed]]:
    """All rows of a ledger, read-only: works beside a running site, and writes nothing where the file is.

    Not for a second thread of a process that is writing the same file: POSIX locks belong to a process, and
    whoever closes the file drops them all.

    Raises:
        Misuse: it cannot be read (StorageError: it is locked). Unverified: it is no ledger, or damaged.
    """
    with guarded(path):
        try:
            return _read_rows(path)
        except sqlite3.OperationalError as error:
            if _code(error) not in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN):
                raise
        # A writer was killed between two pages and its journal is still beside: undo that in a copy.
        with tempfile.TemporaryDirectory() as folder:
            copy = Path(folder) / "ledger.db"
            for suffix in ("", "-journal"):
                with contextlib.suppress(FileNotFoundError):
                    shutil.copyfile(f"{path}{suffix}", f"{copy}{suffix}")
            with contextlib.closing(_connect(copy, write=True)) as connection:
                begin(connection, write=True)
                return rows_from(connection, 0)


def _read_rows(path: Path) -> list[tuple[int, Sealed]]:
    with contextlib.closing(_connect(path, write=False)) as connection:
        begin(connection, write=False)
        return rows_from(connection, 0)
