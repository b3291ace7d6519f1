"""Files of a role's folder: made private, written whole or not at all, read with a message instead of a traceback."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from privfl.errors import Misuse, StorageError

__all__ = ["check_writable", "private_folder", "read_bytes", "storage", "sweep", "write_file"]

MAX_READ = 64 * 2**20  # rosters, policies, requests: far smaller; a wrong path may name anything
LEAST_FREE = 2**20  # bytes below which a start is refused rather than stopped in the middle of a round
_NEXT = "free some space, or make it writable for this user, and run the same command again"


@contextlib.contextmanager
def storage(path: Path) -> Iterator[None]:
    """Turn the system's complaint about writing ``path`` into a StorageError with the next step."""
    try:
        yield
    except OSError as error:
        raise StorageError(f"{path} could not be written ({error.strerror or error}); {_NEXT}") from None


def private_folder(folder: Path) -> None:
    """Make ``folder``, for this user alone; one that is there already is taken if nobody else may read it.

    Raises:
        Misuse: it is no folder, or it holds files and others may read it.
        StorageError: it cannot be made or written.
    """
    if folder.exists() and not folder.is_dir():
        raise Misuse(f"{folder} is a file; choose another folder")
    with storage(folder):
        if not folder.exists():
            folder.mkdir(mode=0o700, parents=True)
            folder.chmod(0o700)  # whatever the umask says
        elif folder.stat().st_mode & 0o077:
            if any(folder.iterdir()):
                raise Misuse(
                    f"others may read {folder}, which will hold keys; run: chmod 700 {folder}, or choose a new folder"
                )
            folder.chmod(0o700)
    check_writable(folder)


def check_writable(folder: Path) -> None:
    """Raise StorageError now if ``folder`` is read-only or its disk full, before anything is begun."""
    if not os.access(folder, os.W_OK | os.X_OK):
        raise StorageError(f"{folder} is read-only for this user; make it writable, or move it to another disk")
    with storage(folder):
        disk = os.statvfs(folder)
        if disk.f_flag & os.ST_RDONLY:
            raise StorageError(f"the disk of {folder} is mounted read-only; mount it writable and start again")
        if disk.f_bavail * disk.f_frsize < LEAST_FREE:
            raise StorageError(f"the disk of {folder} is full; free some space and start again: nothing was changed")


def write_file(path: Path, data: bytes, *, mode: int = 0o600) -> None:
    """Write ``data`` durably in one step: a crash leaves the old file or the new one, at worst a stray ``.tmp``."""
    with storage(path):
        descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
        try:
            with os.fdopen(descriptor, "wb") as stream:
                stream.write(data)
                stream.flush()
                os.fchmod(stream.fileno(), mode)
                os.fsync(stream.fileno())
            os.replace(temporary, path)
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary)
        folder = os.open(path.parent, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def read_bytes(path: Path, what: str) -> bytes:
    """Read the file that an operator named.

    Args:
        path: of the file. what: it should hold, with its article, for the message.

    Raises:
        Misuse: it is not there, cannot be read, or is far too large.
    """
    try:
        with open(path, "rb") as stream:
            data = stream.read(MAX_READ + 1)
    except FileNotFoundError:
        raise Misuse(f"there is no file {path}; name {what}") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise Misuse(f"{path} cannot be read ({reason}); name {what}") from None
    if len(data) > MAX_READ:
        raise Misuse(f"{path} is too large; name {what}")
    return data


def sweep(folder: Path) -> None:
    """Remove what an interrupted :func:`write_file` or key store left; call it with the folder locked."""
    for stray in folder.glob(".*.tmp*"):
        with contextlib.suppress(OSError):
            stray.unlink()
