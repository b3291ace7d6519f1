"""A file of rosters: every version that the authority signed, oldest first, for whoever missed some."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Annotated, ClassVar

from privfl_keys import Roster, RosterBook, SignedRoster, VerifyKey, check_fingerprint

from privfl.codec import Bounds, Record
from privfl.errors import Malformed, Misuse, Unverified
from privfl.homes.files import read_bytes, write_file

__all__ = ["AUTHORITY", "Chain", "accept_chain", "known_version", "read_authority", "read_rosters", "write_rosters"]

AUTHORITY = "authority.pub"
_HEX_KEY = re.compile(r"[0-9a-fA-F]{64}")
_FINGERPRINT = re.compile(r"[0-9]{40}")


@dataclass(frozen=True)
class Chain(Record):
    """Signed rosters of one federation, consecutive versions, oldest first."""

    TAG: ClassVar[str] = "roster chain"

    rosters: Annotated[tuple[SignedRoster, ...], Bounds(1, 100_000)]

    def joined(self, newer: Sequence[SignedRoster]) -> Chain:
        """This chain and the versions of ``newer`` that go beyond it."""
        last = self.rosters[-1].roster.version
        return Chain(self.rosters + tuple(one for one in newer if one.roster.version > last))


def read_rosters(path: Path) -> tuple[SignedRoster, ...]:
    """Read a roster file; nothing in it is verified but its form.

    Raises:
        Misuse: no such file. Malformed: damaged, or no roster file.
    """
    data = read_bytes(path, "the roster file that the authority hands out")
    try:
        rosters = Chain.decode(data).rosters
    except Malformed as error:
        raise Malformed(f"{path} is damaged or no roster file ({error}); fetch it from the authority again") from None
    except Unverified as error:
        raise Unverified(f"{path}: {error}") from None
    one = rosters[0].roster.federation
    if any(item.roster.federation != one for item in rosters):
        raise Malformed(f"{path} mixes rosters of two federations; fetch it from the authority again")
    if any(after.roster.version != before.roster.version + 1 for before, after in pairwise(rosters)):
        raise Malformed(f"{path} leaves out a version; fetch it from the authority again")
    return rosters


def write_rosters(path: Path, chain: Sequence[SignedRoster]) -> None:
    """Write ``chain`` in one durable step; raises StorageError if the disk does not take it."""
    write_file(path, Chain(tuple(chain)).encode(), mode=0o644)


def known_version(book: RosterBook, federation: str) -> int:
    """The highest version of ``federation`` that ``book`` accepted, 0 if none."""
    latest = book.latest(federation)
    return 0 if latest is None else latest.roster.version


def accept_chain(book: RosterBook, chain: Sequence[SignedRoster], now: int) -> Roster:
    """Feed ``book`` what it lacks of ``chain``; a book that knows the last version already stays as it is.

    Args:
        book: with the federation's authority pinned. chain: as :func:`read_rosters` gives it.
        now: milliseconds since 1970; the last roster has to be valid then.

    Raises:
        Misuse: an empty chain.
        Unverified: as :meth:`privfl_keys.RosterBook.accept`: rollback, gap, fork, wrong authority, not valid now.
    """
    if not chain:
        raise Misuse("this roster file is empty; fetch it from the authority again")
    known = known_version(book, chain[0].roster.federation)
    lacking = [signed for signed in chain if signed.roster.version >= known]
    return book.accept(*(lacking or chain[-1:]), now=now)  # all of it older: the book says so


def read_authority(given: str | None, beside: Path) -> VerifyKey:
    """The authority's key, from what an operator was told.

    Args:
        given: its fingerprint (then ``authority.pub`` lies beside the roster file and is checked against it), the
            key in hexadecimal, or a file that holds the key. beside: the folder of the roster file.

    Raises:
        Misuse: none of the three. Unverified: ``authority.pub`` has another fingerprint.
    """
    if given is None:
        raise Misuse(
            "the authority is not known here yet; give --authority with its fingerprint, as it was published or read "
            f"out to you (and put {AUTHORITY} beside the roster file), or with its key"
        )
    digits = re.sub(r"[\s-]", "", given)
    if _HEX_KEY.fullmatch(given.strip()):
        return _key(given, "the authority key")
    if not _FINGERPRINT.fullmatch(digits):
        path = Path(given)
        return _key(_text(path), str(path))
    path = beside / AUTHORITY
    if not path.is_file():
        raise Misuse(f"a fingerprint alone is no key: put {AUTHORITY}, which the authority hands out, into {beside}")
    key = _key(_text(path), str(path))
    try:
        check_fingerprint(key, digits)
    except Unverified:
        raise Unverified(
            f"{path} is not the key of the fingerprint you gave; fetch it again, and ask the authority over a channel "
            "you trust"
        ) from None
    return key


def _text(path: Path) -> str:
    return read_bytes(path, "the authority's fingerprint, its key in hexadecimal, or its .pub file").decode(
        "ascii", "replace"
    )


def _key(text: str, what: str) -> VerifyKey:
    try:
        return VerifyKey(bytes.fromhex(text.strip()))
    except (ValueError, Unverified):
        raise Misuse(
            f"{what} is not 32 bytes in hexadecimal that are a key; fetch it from the authority again"
        ) from None
