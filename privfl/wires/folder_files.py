"""Files in a folder that strangers write to as well: nothing half written, no step through a link, no surprise opened.

Every path is walked from the folder's own descriptor, part by part, without following symbolic links, so that
nobody who may write to the folder can lead a reader or a writer out of it. POSIX only.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import stat
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from privfl.entropy import SYSTEM, Entropy
from privfl.errors import WireError

__all__ = [
    "CHUNK",
    "NO_LINKS",
    "Tree",
    "exists",
    "listed",
    "open_regular",
    "read_regular",
    "sync_folder",
    "wire_failure",
]

CHUNK = 1 << 20
LEFTOVER_S = 24 * 3600  # no writer that lives leaves a temporary file untouched for a day
LEFTOVERS_AT_ONCE = 1000
_FULL = (errno.ENOSPC, errno.EDQUOT)
_CLOSED = (errno.EROFS, errno.EACCES, errno.EPERM)
_GONE = (errno.ENOENT, errno.ENOTDIR, errno.ESTALE, errno.ELOOP)
NO_LINKS = (errno.EPERM, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EMLINK)
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


@contextlib.contextmanager
def wire_failure(root: Path) -> Iterator[None]:
    """Turn what the file system says into a WireError that names cause and next step."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            advice = "is full; free some space, nothing was left half written"
        elif error.errno in _CLOSED:
            advice = f"does not admit this ({error.strerror}); check its mode, its owner and how it is mounted"
        elif error.errno in _GONE:
            advice = f"lacks a part of it ({error.strerror}); mount it again, or run: privfl wire folder status {root}"
        else:
            advice = f"failed ({error.strerror}); try again when it is reachable"
        raise WireError(f"the wire folder {root} {advice}") from None


def read_regular(folder: int, name: str, limit: int) -> bytes | None:
    """Read at most ``limit`` bytes of a regular file in the open ``folder``; None if it is anything else.

    A pipe is not waited for, a link is not followed. Raises OSError as the system does.
    """
    descriptor = open_regular(folder, name)
    if descriptor is None:
        return None
    with open(descriptor, "rb", buffering=0) as stream:
        size = os.fstat(descriptor).st_size
        parts = []
        while limit > 0 and (part := stream.read(min(limit, max(size, CHUNK)))):
            parts.append(part)
            limit -= len(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def open_regular(folder: int, name: str) -> int | None:
    """Open a regular file for reading; None if it is anything else. The caller closes the descriptor."""
    if not stat.S_ISREG(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode):
        return None  # opening alone may do things, with a device
    descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        return descriptor
    os.close(descriptor)  # it was changed just now
    return None


def listed(folder: int, limit: int) -> list[str]:
    """At most ``limit`` names in the open ``folder``; without those that begin with a dot.

    Programs that copy or synchronise folders name so what they have not finished.
    """
    with os.scandir(folder) as entries:
        return list(itertools.islice((entry.name for entry in entries if not entry.name.startswith(".")), limit))


def sync_folder(folder: int) -> None:
    """Make a folder's names durable; some network file systems have no such call and need none."""
    try:
        os.fsync(folder)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EBADF):
            raise


class Tree:
    """The folder ``root`` with a ``tmp`` folder in it, through which everything else arrives.

    New files and folders get the permissions of ``root`` itself, whatever the umask is: who shares the folder
    decides once who takes part.
    """

    def __init__(self, root: Path, entropy: Entropy = SYSTEM) -> None:
        self.root, self._entropy, self._count = root, entropy, 0

    def name(self) -> str:
        """A name that nobody else uses; names sort in about the order in which they were made."""
        self._count += 1
        return f"{time.time_ns():020d}-{self._count:08d}-{self._entropy.draw(8).hex()}"

    @contextlib.contextmanager
    def inside(self, *parts: str, make: bool = False) -> Iterator[int]:
        """Open a folder below the root without following links; ``make`` creates all but the first part."""
        at = os.open(self.root, _FOLDER)
        try:
            mode = stat.S_IMODE(os.fstat(at).st_mode)
            for depth, part in enumerate(parts):
                below = self._step(at, part, mode if make and depth else None)
                os.close(at)
                at = below
            yield at
        finally:
            os.close(at)

    def _step(self, folder: int, part: str, make: int | None) -> int:
        try:
            return os.open(part, _FOLDER | os.O_NOFOLLOW, dir_fd=folder)
        except FileNotFoundError:
            if make is None:
                raise
        made = False
        with contextlib.suppress(FileExistsError):  # another participant was quicker
            os.mkdir(part, make & 0o777, dir_fd=folder)
            made = True
        below = os.open(part, _FOLDER | os.O_NOFOLLOW, dir_fd=folder)
        if made:
            with contextlib.suppress(OSError):  # a file system without modes
                os.fchmod(below, make & 0o2777)
            sync_folder(folder)
        return below

    def spool(self, chunks: Iterable[bytes | memoryview]) -> str:
        """Write a whole file under ``tmp``, synced, and return its name; what fails half-way is removed."""
        name = self.name()
        with self.inside("tmp") as folder:
            try:
                self._write(folder, name, chunks)
            except BaseException:
                with contextlib.suppress(OSError):
                    os.unlink(name, dir_fd=folder)
                raise
        return name

    def discard(self, names: Iterable[str]) -> None:
        """Remove spooled files that were not put in place."""
        with contextlib.suppress(OSError), self.inside("tmp") as folder:
            for name in names:
                with contextlib.suppress(OSError):
                    os.unlink(name, dir_fd=folder)

    @contextlib.contextmanager
    def spooled(self, chunks: Iterable[bytes | memoryview]) -> Iterator[str]:
        """A spooled file; what the caller did not put in place is removed at the end."""
        name = self.spool(chunks)
        try:
            yield name
        finally:
            self.discard([name])

    def _write(self, folder: int, name: str, chunks: Iterable[bytes | memoryview]) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        with open(os.open(name, flags, 0o600, dir_fd=folder), "wb", buffering=0) as stream:
            for chunk in chunks:
                rest = memoryview(chunk).cast("B") if len(chunk) else memoryview(b"")
                while rest:
                    rest = rest[stream.write(rest) :]
            with contextlib.suppress(OSError):  # a file system without modes
                os.fchmod(stream.fileno(), stat.S_IMODE(os.stat(self.root).st_mode) & 0o666)
            os.fsync(stream.fileno())

    def move(self, spooled: str, name: str, *parts: str) -> None:
        """Put a spooled file in place in one step."""
        with self.inside("tmp") as source, self.inside(*parts, make=True) as target:
            os.rename(spooled, name, src_dir_fd=source, dst_dir_fd=target)
            sync_folder(target)

    def keep_first(self, spooled: str, name: str, *parts: str) -> None:
        """Put a spooled file in place unless the name is taken.

        Where the file system knows no hard links, two writers at the same instant may both believe to be first;
        the later one's file stays.
        """
        with self.inside("tmp") as source, self.inside(*parts, make=True) as target:
            try:
                os.link(spooled, name, src_dir_fd=source, dst_dir_fd=target, follow_symlinks=False)
            except FileExistsError:
                return
            except OSError as error:
                if error.errno not in NO_LINKS:
                    raise
                if not exists(target, name):
                    os.rename(spooled, name, src_dir_fd=source, dst_dir_fd=target)
            sync_folder(target)

    def sweep(self) -> None:
        """Remove what killed writers left under ``tmp`` more than a day ago."""
        with self.inside("tmp") as folder, os.scandir(folder) as entries:
            for _, entry in zip(range(LEFTOVERS_AT_ONCE), entries, strict=False):
                with contextlib.suppress(OSError):
                    if entry.stat(follow_symlinks=False).st_mtime < time.time() - LEFTOVER_S:
                        os.unlink(entry.name, dir_fd=folder)


def exists(folder: int, name: str) -> bool:
    """Whether anything of that name is there."""
    try:
        os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True
