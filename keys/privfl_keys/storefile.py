"""The key store's file: its format, and writing it so that a crash never leaves half of one.

The file is one canonical value: format, cost, salt, nonce, ciphertext and a checksum. The checksum
is no protection; it tells a damaged file from a wrong passphrase. The cipher is ChaCha20-Poly1305
under scrypt(passphrase), and everything before the ciphertext is authenticated with it.
"""

from __future__ import annotations

import contextlib
import os
import stat
import tempfile
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Annotated, ClassVar, Final, Self

from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from privfl_keys.encoding import Bounds, Bytes32, Record
from privfl_keys.errors import KeyStoreError, Malformed
from privfl_keys.labels import Label, context
from privfl_keys.secret import SecretBytes

__all__ = [
    "INSECURE_TEST_COST",
    "MAX_FILE_BYTES",
    "STANDARD_COST",
    "ScryptCost",
    "StoreFile",
    "check_folder",
    "read_file",
    "read_private",
    "written",
]

MAX_FILE_BYTES: Final = 16 * 2**20
MAX_MEMORY_BYTES: Final = 2**30


@dataclass(frozen=True)
class ScryptCost(Record):
    """Work factors of scrypt (RFC 7914): 2^log_n blocks of 128·r bytes, p times over.

    The default takes 128 MiB and a few tenths of a second per guess. A file asking for more than
    1 GiB is refused before any memory is touched.
    """

    TAG: ClassVar[str] = "scrypt"

    log_n: Annotated[int, Bounds(4, 20)] = 17
    r: Annotated[int, Bounds(1, 16)] = 8
    p: Annotated[int, Bounds(1, 4)] = 1

    def derive(self, passphrase: str, salt: bytes) -> bytes:
        """Return the 32-byte file key; raises KeyStoreError if the cost is out of bounds."""
        if not (4 <= self.log_n <= 20 and 1 <= self.r <= 16 and 1 <= self.p <= 4):
            raise KeyStoreError("the scrypt cost is out of bounds; use the default")
        if 128 * self.r * 2**self.log_n > MAX_MEMORY_BYTES:
            raise KeyStoreError("this key store asks for more than 1 GiB to open and is refused; it may be malicious")
        text = unicodedata.normalize("NFC", passphrase).encode("utf-8", "surrogateescape")
        return Scrypt(salt, 32, 2**self.log_n, self.r, self.p).derive(text)


STANDARD_COST: Final = ScryptCost()
INSECURE_TEST_COST: Final = ScryptCost(log_n=4)  # for tests: opens at once, protects nothing


@dataclass(frozen=True)
class StoreFile(Record):
    TAG: ClassVar[str] = "privfl key store 1"

    cost: ScryptCost
    salt: Bytes32
    nonce: Annotated[bytes, Bounds(12, 12)]
    ciphertext: Annotated[bytes, Bounds(16, MAX_FILE_BYTES)]
    checksum: Bytes32

    @classmethod
    def seal(cls, key: SecretBytes, cost: ScryptCost, salt: bytes, nonce: bytes, plain: bytes) -> Self:
        """Encrypt ``plain``; the nonce must be fresh for this key."""
        header = _header(cost, salt, nonce)
        ciphertext = ChaCha20Poly1305(key.reveal()).encrypt(nonce, plain, header)
        return cls(cost, salt, nonce, ciphertext, sha256(header + ciphertext).digest())

    def open(self, key: SecretBytes) -> bytes:
        """Decrypt; raises pyca's InvalidTag for another key or an altered file."""
        return ChaCha20Poly1305(key.reveal()).decrypt(
            self.nonce, self.ciphertext, _header(self.cost, self.salt, self.nonce)
        )

    def is_whole(self) -> bool:
        """Whether the checksum fits; says nothing about who wrote the file."""
        header = _header(self.cost, self.salt, self.nonce)
        return sha256(header + self.ciphertext).digest() == self.checksum


def _header(cost: ScryptCost, salt: bytes, nonce: bytes) -> bytes:
    return context(Label.KEY_STORE, StoreFile.TAG, cost.to_value(), salt, nonce)


def check_folder(path: Path) -> None:
    """Raise KeyStoreError unless a file could be made at ``path``; asked before keys are drawn."""
    if not path.parent.is_dir():
        raise KeyStoreError(f"the folder {path.parent} does not exist; make it first, readable by you alone")
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise KeyStoreError(f"the folder {path.parent} cannot be written; choose another or change its mode")


def read_private(path: Path) -> bytes:
    """Read the file of a store of any kind; raises KeyStoreError if there is none, or others may read it."""
    try:
        with open(path, "rb") as stream:
            mode = os.fstat(stream.fileno()).st_mode
            data = stream.read(MAX_FILE_BYTES + 1)
    except FileNotFoundError:
        raise KeyStoreError(f"there is no key store at {path}; create one, or check the path") from None
    except OSError as error:
        raise KeyStoreError(f"{path} cannot be read ({error.strerror}); check its owner and mode") from None
    if stat.S_IMODE(mode) & 0o077:
        raise KeyStoreError(f"others may access {path}; run: chmod 600 {path}")
    if len(data) > MAX_FILE_BYTES:
        raise KeyStoreError(f"{path} is too large for a key store; check the path")
    return data


def read_file(path: Path) -> StoreFile:
    """Read a store without opening it; raises KeyStoreError naming what is wrong with it."""
    data = read_private(path)
    try:
        file = StoreFile.decode(data)
    except Malformed as error:
        raise KeyStoreError(f"{path} is damaged or no key store ({error}); restore it from its backup") from None
    if not file.is_whole():
        raise KeyStoreError(f"{path} is damaged (its checksum does not fit); restore it from its backup")
    return file


@contextlib.contextmanager
def written(path: Path, data: bytes) -> Iterator[str]:
    """Write ``data`` to a synced temporary file beside ``path``; the caller puts it in place."""
    try:
        descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)  # mode 0600
        try:
            with os.fdopen(descriptor, "wb") as stream:
                stream.write(data)
                stream.flush()
                os.fsync(stream.fileno())
            yield temporary
            folder = os.open(path.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary)
    except OSError as error:
        raise KeyStoreError(
            f"{path} could not be written durably ({error.strerror}); free some space or choose another disk"
        ) from None
