"""The passphrase of a folder's key store: from the environment, a file, or whoever sits at the terminal."""

from __future__ import annotations

import getpass
import os
import sys
from pathlib import Path

from privfl.errors import Misuse
from privfl.homes.folder import under_kms

__all__ = ["VARIABLE", "ask_passphrase"]

VARIABLE = "PRIVFL_PASSPHRASE"
MIN_CHARACTERS = 12  # what the key store demands; said here before it is typed a second time


def ask_passphrase(file: Path | None, *, new: bool = False, folder: Path | None = None) -> str:
    """Return the passphrase; the environment comes before the file, the file before the terminal.

    Args:
        file: its first line is the passphrase. new: a store is about to be made, so a typed one is asked for twice.
        folder: whose keys are to be opened; where a key service does that nobody is asked, and it is empty.

    Raises:
        Misuse: none of the three ways gives one, or the two that were typed differ.
    """
    if folder is not None and under_kms(folder):
        return ""
    if given := os.environ.get(VARIABLE):
        return given
    if file is not None:
        return _first_line(file)
    if not (sys.stdin is not None and sys.stdin.isatty()):
        raise Misuse(
            f"no passphrase: set {VARIABLE}, or name a file that holds it with --passphrase-file, "
            "or run the command on a terminal and type it"
        )
    typed = getpass.getpass("Passphrase: ")
    if new:
        if len(typed) < MIN_CHARACTERS:
            raise Misuse(f"a passphrase has at least {MIN_CHARACTERS} characters; six random words are good")
        if getpass.getpass("The same again: ") != typed:
            raise Misuse("the two passphrases differ; run the command again")
    return typed


def _first_line(file: Path) -> str:
    try:
        with open(file, encoding="utf-8") as stream:
            line = stream.readline(4096).rstrip("\r\n")
            mode = os.fstat(stream.fileno()).st_mode
    except FileNotFoundError:
        raise Misuse(f"there is no passphrase file {file}; check --passphrase-file") from None
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise Misuse(f"the passphrase file {file} cannot be read ({reason})") from None
    if mode & 0o077:
        raise Misuse(f"others may read the passphrase file {file}; run: chmod 600 {file}")
    if not line:
        raise Misuse(f"the first line of the passphrase file {file} is empty; write the passphrase there")
    return line
