"""Opening a parcel to read it, and writing one so that it is whole or not there."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from io import BufferedRandom
from pathlib import Path
from typing import BinaryIO

from privfl.errors import Misuse
from privfl.wires.folder_files import NO_LINKS, open_regular

__all__ = ["land", "new_file", "opened"]


@contextlib.contextmanager
def opened(path: Path) -> Iterator[BinaryIO]:
    """A parcel to read; raises Misuse if there is no such file."""
    try:
        with contextlib.ExitStack() as stack:
            folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            stack.callback(os.close, folder)
            descriptor = open_regular(folder, path.name)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise Misuse(f"the parcel {path} cannot be opened ({reason}); check the path") from None
    if descriptor is None:
        raise Misuse(f"{path} is no file (links are not followed); give the parcel itself")
    with open(descriptor, "rb") as stream:
        yield stream


@contextlib.contextmanager
def new_file(path: Path) -> Iterator[BufferedRandom]:
    """A new file to write and read, synced at the end. Raises OSError as the system does."""
    with open(path, "x+b") as stream:
        yield stream
        stream.flush()
        os.fsync(stream.fileno())


def land(temporary: Path, target: Path) -> None:
    """Put a finished parcel in place; on a stick without hard links by renaming."""
    try:
        os.link(temporary, target)
    except FileExistsError:
        raise Misuse(f"{target} was made by someone else just now; choose another path") from None
    except OSError as error:
        if error.errno not in NO_LINKS:
            raise
        temporary.rename(target)
    folder = os.open(target.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
