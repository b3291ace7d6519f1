"""Where long-lived keys rest: an interface, and a file encrypted under a passphrase.

A :class:`KeyStore` holds named secrets and gives them to the process that uses them. The file
store fits a laptop or a server with an operator; a store backed by a managed key service
implements the same four methods (fetch or unwrap in ``get``, wrap and create in ``put``).
"""

from __future__ import annotations

import contextlib
import os
import re
from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Final, Protocol

from cryptography.exceptions import InvalidTag

from privfl_keys.encoding import Record
from privfl_keys.entropy import SYSTEM, Entropy
from privfl_keys.errors import KeyStoreError, Misuse
from privfl_keys.secret import Redacted, SecretBytes
from privfl_keys.storefile import (
    INSECURE_TEST_COST,
    MAX_FILE_BYTES,
    STANDARD_COST,
    ScryptCost,
    StoreFile,
    check_folder,
    read_file,
    written,
)

__all__ = ["INSECURE_TEST_COST", "EntryFile", "FileKeyStore", "KeyStore", "ScryptCost"]

MIN_PASSPHRASE: Final = 12
_ENTRY: Final = re.compile(r"[a-z0-9](?:[a-z0-9._-]{0,62}[a-z0-9])?")


class KeyStore(Protocol):
    """Named secrets at rest. Entries are never replaced: what is there stays until it is deleted."""

    def names(self) -> tuple[str, ...]:
        """The names of all entries, sorted."""
        ...

    def get(self, name: str) -> SecretBytes:
        """Return one secret; raises KeyStoreError if there is none of that name."""
        ...

    def put(self, name: str, secret: bytes) -> None:
        """Add a secret durably; raises KeyStoreError if the name is taken."""
        ...

    def delete(self, name: str) -> None:
        """Remove a secret for good; raises KeyStoreError if there is none of that name."""
        ...


@dataclass(frozen=True)
class _Entries(Record):
    TAG: ClassVar[str] = "key store entries"

    items: tuple[tuple[str, bytes], ...]


class EntryFile(Redacted):
    """What every :class:`KeyStore` in one sealed file shares: its entries, and how they change without being lost.

    Every change is written to a new file, synced, and put in place in one step, so a crash leaves
    the old store or the new one, and at worst a stray ``.tmp`` file of ciphertext beside it.
    Deleted secrets may survive in old blocks of the disk and in backups.
    """

    __slots__ = ("_entropy", "_path")

    def __init__(self, path: Path, entropy: Entropy) -> None:
        """Internal; use ``create`` or ``open`` of a kind of store."""
        self._path, self._entropy = path, entropy

    def names(self) -> tuple[str, ...]:
        """The names of all entries, sorted."""
        return tuple(sorted(self._entries()))

    def get(self, name: str) -> SecretBytes:
        """Return one secret; raises KeyStoreError if there is none of that name."""
        entries = self._entries()
        if name not in entries:
            raise KeyStoreError(
                f"{self._path} has no entry {name!a:.80}; it has: {', '.join(sorted(entries)) or 'none'}"
            )
        return SecretBytes(entries[name])

    def put(self, name: str, secret: bytes) -> None:
        """Add a secret durably.

        Raises:
            KeyStoreError: the name is taken, or the store cannot be written; it is unchanged then.
            Misuse: an unusable name.
        """
        if not _ENTRY.fullmatch(name):
            raise Misuse(f"{name!a:.80} is no entry name: lower-case letters, digits and . _ - inside, at most 64")
        with self._locked():
            entries = self._entries()
            if name in entries:
                raise KeyStoreError(f"{self._path} has an entry {name!a} already; entries are never overwritten")
            self._replace(entries | {name: bytes(secret)})

    def delete(self, name: str) -> None:
        """Remove a secret; raises KeyStoreError if there is none of that name."""
        with self._locked():
            entries = self._entries()
            if entries.pop(name, None) is None:
                raise KeyStoreError(f"{self._path} has no entry {name!a:.80} to delete")
            self._replace(entries)

    @abstractmethod
    def close(self) -> None:
        """Wipe what opens the file; the store has to be opened again before it is used."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self._path)!r}, <redacted>)"

    @abstractmethod
    def _plain(self) -> bytes:
        """Read and open the file; raises KeyStoreError."""

    @abstractmethod
    def _sealed(self, plain: bytes) -> bytes:
        """The file that holds ``plain``."""

    def _entries(self) -> dict[str, bytes]:
        return dict(_Entries.decode(self._plain()).items)

    def _file(self, entries: dict[str, bytes]) -> bytes:
        data = self._sealed(_Entries(tuple(sorted(entries.items()))).encode())
        if len(data) > MAX_FILE_BYTES:
            raise KeyStoreError(f"a key store holds at most {MAX_FILE_BYTES} bytes; it is for keys only")
        return data

    def _make(self) -> None:
        """Write the file, without entries, where there is none."""
        with written(self._path, self._file({})) as temporary:
            try:
                os.link(temporary, self._path)  # unlike rename, fails if the target appeared meanwhile
            except FileExistsError:
                raise KeyStoreError(f"{self._path} was created by someone else just now; it is left as it is") from None

    def _replace(self, entries: dict[str, bytes]) -> None:
        with written(self._path, self._file(entries)) as temporary:
            os.replace(temporary, self._path)

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """Keep two writers from losing each other's entry; the lock dies with its process."""
        import fcntl  # noqa: PLC0415  # POSIX only, and only writers need it

        check_folder(self._path)
        folder = os.open(self._path.parent, os.O_RDONLY | os.O_CLOEXEC)
        try:
            try:
                fcntl.flock(folder, fcntl.LOCK_EX)
            except OSError as error:
                raise KeyStoreError(
                    f"{self._path.parent} cannot be locked ({error.strerror}); use a local disk"
                ) from None
            yield
        finally:
            os.close(folder)


class FileKeyStore(EntryFile):
    """A :class:`KeyStore` in one encrypted file, mode 0600, opened with a passphrase."""

    __slots__ = ("_cost", "_key", "_salt")

    def __init__(self, path: Path, key: SecretBytes, cost: ScryptCost, salt: bytes, entropy: Entropy) -> None:
        """Internal; use :meth:`create` or :meth:`open`."""
        super().__init__(path, entropy)
        self._key, self._cost, self._salt = key, cost, salt

    @classmethod
    def create(
        cls,
        path: str | os.PathLike[str],
        passphrase: str,
        *,
        entropy: Entropy = SYSTEM,
        cost: ScryptCost = STANDARD_COST,
    ) -> FileKeyStore:
        """Make an empty store in a new file. An existing file is never overwritten.

        Raises:
            KeyStoreError: the file exists, its folder cannot be written, or the passphrase is
                shorter than 12 characters.
        """
        target = Path(path)
        check_folder(target)
        if os.path.lexists(target):
            raise KeyStoreError(f"{target} exists and is not overwritten; open it, or choose another path")
        if len(passphrase) < MIN_PASSPHRASE:
            raise KeyStoreError(f"a passphrase has at least {MIN_PASSPHRASE} characters; six random words are good")
        salt = entropy.draw(32)
        store = cls(target, SecretBytes(cost.derive(passphrase, salt)), cost, salt, entropy)
        store._make()
        return store

    @classmethod
    def open(cls, path: str | os.PathLike[str], passphrase: str, *, entropy: Entropy = SYSTEM) -> FileKeyStore:
        """Open an existing store.

        Raises:
            KeyStoreError: no such file, others may read it, damaged, or a wrong passphrase; the
                message says which and what to do.
        """
        target = Path(path)
        file = read_file(target)
        store = cls(target, SecretBytes(file.cost.derive(passphrase, file.salt)), file.cost, file.salt, entropy)
        store._opened(file)
        return store

    def close(self) -> None:
        """Wipe the file key; the store has to be opened again before it is used."""
        self._key.wipe()

    def _plain(self) -> bytes:
        return self._opened(read_file(self._path))

    def _opened(self, file: StoreFile) -> bytes:
        try:
            return file.open(self._key)
        except InvalidTag:
            raise KeyStoreError(
                f"the passphrase does not open {self._path}; try again, or restore the file if someone altered it"
            ) from None

    def _sealed(self, plain: bytes) -> bytes:
        return StoreFile.seal(self._key, self._cost, self._salt, self._entropy.draw(12), plain).encode()
