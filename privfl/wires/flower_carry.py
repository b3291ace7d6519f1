"""What lies in a spool for whom, what comes in, and when it may be forgotten: the half of the carrier without Flower.

Nothing is deleted before the other side has said by name that it has it, durably; so whatever is lost or repeated on
the way, a letter arrives at least once. What comes in is bounded, parsed strictly, verified, and held
against its hash before it is kept; its reader does all that again.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, ClassVar

from privfl.codec import Bounds, Record
from privfl.errors import PrivflError, WireError
from privfl.wires.envelope import MAX_ENVELOPE, BodyRef, Envelope, check_body
from privfl.wires.flower import LISTING, Spool
from privfl.wires.folder import box_name
from privfl.wires.folder_files import exists, listed, read_regular, wire_failure

__all__ = ["MAX_BODIES", "MAX_LETTERS", "Carrier", "Letter", "Load", "Taken"]

MAX_LETTERS = 64  # in one load; the rest goes with the next
MAX_TEXT = 4 * 2**20  # bytes of letters in one load
MAX_CARRIED = 256 * 2**20  # bytes of bodies in one load, unless a single letter names more
MAX_BODIES = 8 * MAX_LETTERS  # an envelope names eight at most
MAX_NAMES = 512
MAX_PROBLEM = 500
SEEN, SEEN_MOST = "seen", 1024  # names of what came in, so that a repetition is not shown to the reader again
BOX_MOST = 512  # letters of one sender that may wait in the own box: nobody fills it for the others
_NAME = re.compile(r"[0-9]{20}-[0-9]{8}-[0-9a-f]{16}")


@dataclass(frozen=True)
class Load(Record):
    """One load of mail in either direction; the bodies that its letters name travel beside it.

    Attributes:
        own: who sends it, as it claims; empty: nobody, and ``problem`` says why. to: whom it is for; empty: whoever
            is there.
        letters: (name, envelope). taken: names of letters of the other side that are durable here.
        working: there is work in hand, so asking again soon is worth it. more: letters that had no room.
        problem: why nothing comes, in words for the other side's operator.
    """

    TAG: ClassVar[str] = "load"

    own: Annotated[bytes, Bounds(0, 32)] = b""
    to: Annotated[bytes, Bounds(0, 32)] = b""
    letters: Annotated[tuple[tuple[str, bytes], ...], Bounds(0, MAX_LETTERS)] = ()
    taken: Annotated[tuple[str, ...], Bounds(0, MAX_NAMES)] = ()
    working: bool = False
    more: bool = False
    problem: Annotated[str, Bounds(0, MAX_PROBLEM)] = ""


@dataclass(frozen=True)
class Letter:
    """An outgoing message: its file's name, its bytes, and the bodies that it names."""

    name: str
    data: bytes
    refs: tuple[BodyRef, ...]


@dataclass
class Taken:
    """What was taken in: names that are durable (or can never be of use, and count as ``refused``)."""

    names: list[str] = field(default_factory=list)
    new: int = 0
    refused: int = 0


class Carrier:
    """One member's spool as its carrier sees it. Its methods raise WireError if the folder cannot be used.

    Args:
        spool: its wire folder. own: its id, 32 bytes. check: raises PrivflError for an envelope that is not genuine;
            before that nothing of it is kept. most: bytes of bodies that may lie in the spool when a letter with
            another one is taken in; None: as many as come.
    """

    def __init__(
        self, spool: Spool, own: bytes, check: Callable[[Envelope], object], *, most: int | None = None
    ) -> None:
        self.spool, self.own, self._check, self._most = spool, own, check, most
        self._box, self._room = box_name(own), most
        self._kept: set[BodyRef] = set()  # by the load in hand
        spool.mailbox(own)  # its folders

    # -- outgoing -----------------------------------------------------------------------------------

    def waiting(self, recipient: bytes) -> list[str]:
        """Names of the letters that wait for ``recipient``, about in the order in which they were written."""
        return self.spool.names(box_name(recipient))

    def letter(self, recipient: bytes, name: str) -> Letter | None:
        """An outgoing letter; None if it has gone.

        One that is no envelope, or whose body was dropped by its writer, can never be read: it is removed.
        """
        try:
            with self.spool.tree.inside("boxes", box_name(recipient), "new") as folder:
                data = read_regular(folder, name, MAX_ENVELOPE + 1) or b""
            refs = Envelope.decode(data).bodies if len(data) <= MAX_ENVELOPE else None
        except OSError:
            return None
        except PrivflError:
            refs = None
        if refs is None or not all(self.spool.bodies.has(ref.sha256) for ref in refs):
            self.confirmed(recipient, [name])
            return None
        return Letter(name, data, refs)

    def letters(self, recipient: bytes, names: Iterable[str]) -> tuple[list[Letter], bool]:
        """As many of the named letters as one load takes, and whether some had no room."""
        found: list[Letter] = []
        text = carried = 0
        for name in names:
            letter = self.letter(recipient, name)
            if letter is None:
                continue
            text += len(letter.data)
            carried += sum(ref.size for ref in letter.refs)
            if found and (len(found) == MAX_LETTERS or text > MAX_TEXT or carried > MAX_CARRIED):
                return found, True
            found.append(letter)
        return found, False

    def confirmed(self, recipient: bytes, names: Iterable[str]) -> None:
        """Forget letters that ``recipient`` has, or that nobody can have any more."""
        with contextlib.suppress(OSError), self.spool.tree.inside("boxes", box_name(recipient), "new") as folder:
            for name in names:
                if _NAME.fullmatch(name):
                    with contextlib.suppress(OSError):
                        os.unlink(name, dir_fd=folder)

    # -- incoming -----------------------------------------------------------------------------------

    def unread(self) -> list[str]:
        """Names of the letters in the own box that their reader has not done with."""
        return self.spool.names(self._box)

    def take(self, sender: bytes, load: Load, bodies: Mapping[bytes, bytes | memoryview]) -> Taken:
        """Put a load's letters, with their bodies, into the own box; what is returned is durable.

        Args:
            sender: the other member, who must have written every letter. bodies: by SHA-256, as they came.
        """
        taken, mark = Taken(), _file(sender, "")
        self._kept.clear()
        waiting = sum(name.endswith(mark) for name in self.unread())
        self._room = None if self._most is None or not bodies else self._most - self.spool.stored()
        for name, data in load.letters:
            if not _NAME.fullmatch(name):
                taken.refused += 1
            elif self._seen(_file(sender, name)):
                taken.names.append(name)
            elif waiting + taken.new < BOX_MOST:
                self._take(sender, name, data, bodies, taken)
        self._prune()
        return taken

    def _take(
        self, sender: bytes, name: str, data: bytes, bodies: Mapping[bytes, bytes | memoryview], taken: Taken
    ) -> None:
        tree = self.spool.tree
        try:
            if len(data) > MAX_ENVELOPE:
                raise WireError("longer than any envelope")
            envelope = Envelope.decode(data)
            if (envelope.sender, envelope.recipient) != (sender, self.own):
                raise WireError("a letter of or for someone else")
            self._check(envelope)
        except PrivflError:
            taken.names.append(name)
            taken.refused += 1
            return
        try:
            for ref in envelope.bodies:
                if ref.sha256 in bodies:
                    self._keep(ref, bodies[ref.sha256])
                elif not self.spool.bodies.has(ref.sha256):
                    raise WireError("a letter came without its body; it is asked for again")
        except PrivflError:  # nothing is said of it: it comes again, whole
            taken.refused += 1
            return
        file = _file(sender, name)
        with wire_failure(self.spool.path):
            with tree.spooled([data]) as spooled:
                tree.move(spooled, file, "boxes", self._box, "new")
            with tree.inside("boxes", self._box, SEEN, make=True) as folder:
                _touch(folder, file)
        taken.names.append(name)
        taken.new += 1

    def _keep(self, ref: BodyRef, data: bytes | memoryview) -> None:
        if ref in self._kept:
            return  # many letters may name one large body
        check_body(ref, data)  # type: ignore[arg-type]  # a view has the same length and hash
        if self._room is not None and not self.spool.bodies.has(ref.sha256):
            self._room -= ref.size
            if self._room < 0:
                raise WireError("there is no room for more bodies until those that wait here are done with")
        self.spool.keep(ref.sha256, data)
        self._kept.add(ref)

    def _seen(self, file: str) -> bool:
        try:
            with self.spool.tree.inside("boxes", self._box, SEEN) as folder:
                return exists(folder, file)
        except OSError:
            return False

    def _prune(self) -> None:
        """Forget the older half of the names that came in, once they are many."""
        with contextlib.suppress(OSError), self.spool.tree.inside("boxes", self._box, SEEN) as folder:
            names = listed(folder, LISTING)
            if len(names) <= SEEN_MOST:
                return
            ages = {name: os.stat(name, dir_fd=folder, follow_symlinks=False).st_mtime_ns for name in names}
            for name in sorted(names, key=ages.__getitem__)[: len(names) - SEEN_MOST // 2]:
                os.unlink(name, dir_fd=folder)


def _file(sender: bytes, name: str) -> str:
    """Where a letter that came lies: nobody's letter can stand in the place of another member's."""
    return f"{name}-{sender.hex()[:32]}"


def _touch(folder: int, name: str) -> None:
    os.close(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=folder))
