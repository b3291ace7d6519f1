"""One process per folder: a lock that dies with its process."""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from privfl.errors import Misuse, StorageError

__all__ = ["Lock", "holder"]

NAME = "lock"
LOOKS, LOOK_S = 5, 0.01  # who looks for the holder has the lock for a moment, which is no reason to give up


class Lock:
    """Holds ``folder`` for this process until :meth:`release` or the end of the process.

    Raises:
        Misuse: another process holds it; the message names its process id.
        StorageError: the folder cannot be written.
    """

    def __init__(self, folder: Path) -> None:
        path = folder / NAME
        try:
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except FileNotFoundError:
            raise Misuse(f"there is no folder {folder}; make it with the init command of its role") from None
        except OSError as error:
            raise StorageError(
                f"{path} cannot be opened ({error.strerror}); make the folder writable for this user"
            ) from None
        try:
            _taken(self._file)
        except BlockingIOError:
            who = _read(self._file)
            os.close(self._file)
            raise Misuse(
                f"another process{f' (pid {who})' if who else ''} works in {folder}; two would contradict each other "
                "in public: stop that one first"
            ) from None
        except OSError as error:
            os.close(self._file)
            raise StorageError(f"{path} cannot be locked ({error.strerror}); use a local disk") from None
        os.ftruncate(self._file, 0)
        os.pwrite(self._file, f"{os.getpid()}\n".encode(), 0)

    def release(self) -> None:
        """Let the folder go; twice is harmless."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


def holder(folder: Path) -> int | None:
    """The id of the process that holds ``folder``, None if nobody does."""
    try:
        file = os.open(folder / NAME, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _read(file) or 0
    except OSError:
        return None
    finally:
        os.close(file)
    return None


def _taken(file: int) -> None:
    """Lock an open file; raises BlockingIOError if another process has it, and not only looks (:func:`holder`)."""
    for _ in range(LOOKS):
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(LOOK_S)
        else:
            return
    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _read(file: int) -> int | None:
    text = os.pread(file, 20, 0).strip()
    return int(text) if text.isdigit() else None
