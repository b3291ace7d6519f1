"""Where a demo works and what it leaves: a folder of the user's, whole or as it was before, or one that vanishes."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from privfl.cli.demo_children import deferred
from privfl.entropy import SYSTEM
from privfl.errors import Misuse
from privfl.homes.files import write_file

__all__ = [
    "MARKER",
    "WORD_FILE",
    "check_folder",
    "drawn_passphrase",
    "passing_folder",
    "put_results",
    "users_folder",
]

MARKER = "privfl-demo.json"
WORD_FILE = "passphrase"
PARTS = ("federation", "rows", "flower", WORD_FILE)
EARLIER = ".earlier"


def check_folder(folder: Path) -> None:
    """Raise Misuse unless ``folder`` can be written and holds nothing but an earlier demo; changes nothing."""
    try:
        if folder.is_dir() and any(folder.iterdir()) and not (folder / MARKER).is_file():
            raise Misuse(f"{folder} is not empty and holds no earlier demo; choose another --dir")
        at = folder.absolute()
        while not at.exists():
            at = at.parent
        with tempfile.TemporaryDirectory(dir=at, prefix=".privfl-"):
            pass  # a probe: permissions alone do not tell
    except OSError as error:
        raise _cannot_write(folder, error) from None


def _cannot_write(folder: Path, error: OSError) -> Misuse:
    return Misuse(f"cannot write to {folder}: {error.strerror}; choose a writable --dir")


@contextmanager
def users_folder(folder: Path) -> Iterator[Path]:
    """Work in ``folder``; if the block fails, what an earlier demo left there is as it was, and nothing is added.

    Raises:
        Misuse: it cannot be written.
    """
    folder = folder.absolute()
    new = [path for path in (folder, *folder.parents) if not path.exists()]
    marker, earlier = folder / MARKER, folder / EARLIER
    fresh = not marker.exists()
    try:
        try:
            with deferred():
                _put_aside(folder, marker, earlier)
            yield folder
        except BaseException:
            with deferred():
                _remove(*(folder / part for part in PARTS))
                _bring_back(folder, earlier)
                if fresh:
                    marker.unlink(missing_ok=True)
                for path in new:
                    with suppress(OSError):
                        path.rmdir()
            raise
    except OSError as error:
        raise _cannot_write(folder, error) from None
    _remove(earlier)


def _put_aside(folder: Path, marker: Path, earlier: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    if not marker.exists():
        marker.write_text("{}\n", encoding="ascii")  # so that the next demo knows what a killed one left
    if earlier.exists():
        _remove(*(folder / part for part in PARTS))  # of a demo that was killed
        return
    earlier.mkdir()
    for part in PARTS:
        if (folder / part).exists():
            (folder / part).rename(earlier / part)


def _bring_back(folder: Path, earlier: Path) -> None:
    for part in PARTS:
        if (earlier / part).exists():
            (earlier / part).rename(folder / part)
    _remove(earlier)


def _remove(*places: Path) -> None:
    for place in places:
        if place.is_dir() and not place.is_symlink():
            shutil.rmtree(place, ignore_errors=True)
        else:
            with suppress(OSError):
                place.unlink(missing_ok=True)


def drawn_passphrase(place: Path) -> str:
    """A random passphrase of all the demo's stores, kept beside them: keys and patients are made up.

    Without it nobody could work with the sites that a demo leaves behind. The file is its owner's alone.
    """
    word = SYSTEM.draw(16).hex()
    write_file(place / WORD_FILE, f"{word}\n".encode("ascii"))
    return word


@contextmanager
def passing_folder(*, keep: bool) -> Iterator[Path]:
    """Work in a folder of the system's temporary ones, removed at the end unless ``keep`` and all went well."""
    folder = Path(tempfile.mkdtemp(prefix="privfl-demo-"))
    done = False
    try:
        yield folder
        done = True
    finally:
        if not (keep and done):
            with deferred():
                _remove(folder)


def put_results(folder: Path, source: Path, result: Mapping[str, Any]) -> None:
    """Copy model, history, report and transcripts from ``source`` into ``folder``, in place of an earlier demo's.

    Raises:
        Misuse: the folder cannot be written.
    """
    try:
        with tempfile.TemporaryDirectory(dir=folder, prefix=".privfl-") as staged:
            new = Path(staged)
            for name in ("model.json", "history.csv", "privacy.json"):
                shutil.copyfile(source / name, new / name)
            shutil.copytree(source / "transcripts", new / "transcripts", copy_function=shutil.copyfile)
            (new / MARKER).write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
            with deferred():
                _remove(folder / "transcripts")
                for path in new.iterdir():
                    path.replace(folder / path.name)
    except OSError as error:
        raise _cannot_write(folder, error) from None
