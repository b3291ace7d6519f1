"""What a site was asked that its operator must answer himself, and what he answered, kept in the site's folder.

Each request is a folder ``requests/ID`` that appears whole; ID is the digest of all that it says, so that nothing in
it can be changed under an answer. Decisions lie beside it as ``decision-1``, ``decision-2``, ..., each signed with the
site's identity and naming the one before: the last counts, and none can be left out, moved or played again.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from privfl_keys import SigningKey, VerifyKey

from privfl.errors import Malformed, Misuse, Refused, StorageError, Theirs, Unverified
from privfl.homes.decisions import (
    MAX_MANDATE,
    MAX_QUESTION,
    NOTHING,
    Answer,
    Decision,
    Known,
    Request,
    Standing,
    State,
)
from privfl.homes.files import storage, write_file

__all__ = ["NOTHING", "Answer", "Decision", "Known", "Request", "RequestBook", "Standing", "State"]

log = logging.getLogger("privfl.site")

FOLDER: Final = "requests"
MAX_PENDING: Final = 100  # unanswered requests of one coordinator
_REQUEST, _DECISION, _SHOWN = "request", "decision-", "shown"


class RequestBook:
    """The requests of one site's folder; a site at work and its operator's commands may use it at once.

    Args:
        folder: of the site. key: its public identity, under which decisions must verify.
    """

    def __init__(self, folder: Path, key: VerifyKey) -> None:
        self.folder, self.key = folder / FOLDER, key
        self._asked: dict[str, tuple[bytes, int]] = {}  # by id: coordinator and first, for the limit

    # -- the site at work ----------------------------------------------------------------------------

    def record(self, request: Request) -> Request:
        """Keep a request durably; one that is there already stays as it is. Returns the one that is kept.

        Of :data:`MAX_PENDING` unanswered requests of one coordinator, the oldest that was not shown makes room.

        Raises:
            Refused: the question is too long to be kept, or too many were shown and wait.
            StorageError: the disk does not take it.
        """
        name = request.id.hex()
        final = self.folder / name
        if final.is_dir():
            if (final / _REQUEST).exists():
                with contextlib.suppress(Unverified):
                    return self.get(request.id)
            write_file(final / _REQUEST, request.encode())  # what the id stands for is known; decisions stay
            return request
        if len(request.question) > MAX_QUESTION or len(request.mandate) > MAX_MANDATE:
            raise Refused(
                f"a question that needs the operator's yes has at most {MAX_QUESTION} bytes, and this one has "
                f"{len(request.question)}; ask for less at once"
            )
        with storage(self.folder):
            self.folder.mkdir(mode=0o700, exist_ok=True)
            self._make_room(request.coordinator)
            staged = self.folder / f".{name}.tmp"
            shutil.rmtree(staged, ignore_errors=True)  # of a crash
            staged.mkdir(mode=0o700)
            write_file(staged / _REQUEST, request.encode())
            os.replace(staged, final)
            _sync(self.folder)
        self._asked[name] = (request.coordinator, request.first)
        return request

    def _make_room(self, coordinator: bytes) -> None:
        """Drop the oldest unanswered requests of ``coordinator``, so that one more fits.

        One that its operator has looked at stays: else another whose id begins alike could be put into its place
        before he types the beginning that he read.
        """
        for stray in self.folder.glob(".*.gone"):  # of a process that was killed here
            shutil.rmtree(stray, ignore_errors=True)
        mine = []
        for name in self._pending():
            if name not in self._asked:
                try:
                    found = self.get(bytes.fromhex(name))
                except (Misuse, Theirs):
                    continue
                self._asked[name] = (found.coordinator, found.first)
            if self._asked[name][0] == coordinator:
                mine.append((self._asked[name][1], name))
        free = [one for one in sorted(mine) if not (self.folder / one[1] / _SHOWN).exists()]
        least = len(mine) + 1 - MAX_PENDING
        if least > len(free):
            raise Refused(
                f"{len(mine)} questions of this coordinator wait for this site's operator; wait for his answers"
            )
        for _, name in free[: max(0, least)]:
            gone = self.folder / f".{name}.gone"
            os.replace(self.folder / name, gone)
            if _numbers(gone) or (gone / _SHOWN).exists():  # decided or looked at in this very moment: it stays
                os.replace(gone, self.folder / name)
                continue
            shutil.rmtree(gone, ignore_errors=True)
            log.warning("request %s made room: too many of one coordinator wait for the operator", name[:12])

    def _pending(self) -> list[str]:
        return [name for name in self._names() if not _numbers(self.folder / name)]

    def pending(self) -> int:
        """How many requests have no decision."""
        return len(self._pending())

    def mark(self) -> tuple[tuple[str, int], ...]:
        """A value that changes whenever a decision was added."""
        found = []
        for name in self._names():
            with contextlib.suppress(OSError):
                found.append((name, (self.folder / name).stat().st_mtime_ns))
        return tuple(found)

    # -- reading -------------------------------------------------------------------------------------

    def _names(self) -> list[str]:
        try:
            names = sorted(os.listdir(self.folder))
        except FileNotFoundError:
            return []
        except OSError as error:
            raise Misuse(f"{self.folder} cannot be read ({error.strerror}); check its owner and mode") from None
        return [name for name in names if len(name) == 64 and not set(name) - set("0123456789abcdef")]

    def get(self, id_: bytes) -> Request:
        """One request by its whole id; raises Misuse if there is none, Unverified if its file was altered."""
        path = self.folder / id_.hex() / _REQUEST
        try:
            with path.open("rb") as stream:
                found = Request.decode(stream.read(MAX_QUESTION + 2**16))
        except FileNotFoundError:
            raise Misuse(f"there is no request {id_.hex()[:12]} here") from None
        except OSError as error:
            raise Misuse(f"{path} cannot be read ({error.strerror}); check its owner and mode") from None
        except Malformed:
            raise Unverified(f"{path} is damaged; remove {path.parent} and have the question asked again") from None
        if found.id != id_:
            raise Unverified(f"{path} was altered; remove {path.parent} and have the question asked again")
        return found

    def all(self) -> list[Request]:
        """Every request that can be read, oldest first; what was altered is told in the log and left out."""
        found = []
        for name in self._names():
            try:
                found.append(self.get(bytes.fromhex(name)))
            except (Misuse, Theirs) as error:
                log.error("%s", error)
        return sorted(found, key=lambda one: (one.first, one.id))

    def find(self, prefix: str) -> Request:
        """The request whose id begins so; raises Misuse where none or several do, naming what to do."""
        wanted = prefix.strip().lower()
        names = [name for name in self._names() if name.startswith(wanted)] if wanted else []
        if len(names) != 1:
            what = "several requests begin" if names else "no request begins"
            raise Misuse(f"{what} with {prefix!a:.80}; see: privfl site requests {self.folder.parent}")
        return self.get(bytes.fromhex(names[0]))

    def standing(self, request: Request, known: Known = NOTHING) -> Standing:
        """Every decision on a request.

        Args:
            known: the latest decision that the ledger remembers: what is here must contain or continue it.

        Raises:
            Unverified: a decision that this site did not sign for this request and place, or one is missing.
        """
        before: Known | None = None
        found: list[Decision] = []
        folder = self.folder / request.id.hex()
        for number in _numbers(folder):
            path = folder / f"{_DECISION}{number}"
            try:
                found.append(self._decision(request, number, before))
            except Theirs as error:
                raise Unverified(
                    f"{path} is not what this site's operator decided ({error}); remove it and find out who wrote it"
                ) from None
            except OSError as error:
                raise Misuse(f"{path} cannot be read ({error.strerror}); check its owner and mode") from None
            before = (number, found[-1].hash)
        at, hash_ = known
        held = {found[0].number - 1: found[0].previous} if found else {NOTHING[0]: NOTHING[1]}
        held |= {one.number: one.hash for one in found}
        if held.get(at) != hash_:
            raise Unverified(
                f"decision {at} on request {request.id.hex()[:12]}, which the ledger shows, is not in {folder}: it was "
                "removed or replaced; put it back, or decide again"
            )
        return Standing(request, tuple(found))

    def _decision(self, request: Request, number: int, before: Known | None) -> Decision:
        with (self.folder / request.id.hex() / f"{_DECISION}{number}").open("rb") as stream:
            one = Decision.decode(stream.read(2**14))
        one.check(self.key, request, before)
        if one.number != number:
            raise Unverified("it stands in another place")
        return one

    # -- the operator --------------------------------------------------------------------------------

    def looked_at(self, request: Request) -> None:
        """Keep in mind that the operator was shown a request, so that it makes no room for another."""
        with contextlib.suppress(OSError, StorageError):  # of a folder that can only be read: nothing can be decided
            (self.folder / request.id.hex() / _SHOWN).touch(mode=0o600)

    def seen(self, question: bytes) -> bool:
        """Whether this site's own answer to the question of this id was looked at, under whichever request."""
        for request in self.all():
            for number in _numbers(self.folder / request.id.hex()) if request.question_id == question else ():
                with contextlib.suppress(OSError, Theirs):
                    if self._decision(request, number, None).answer == Answer.PREVIEW:
                        return True
        return False

    def decide(
        self, key: SigningKey, request: Request, answer: Answer, now: int, *, why: str = "", known: Known = NOTHING
    ) -> Decision:
        """Enter a decision; durable when it returns.

        Args:
            key: the site's identity. why: the operator's words. now: milliseconds since 1970.
            known: the latest that the ledger remembers; a chain of decisions that was lost goes on from there.

        Raises:
            Misuse: the request is gone, or another command decided in the same moment.
            StorageError: the disk does not take it.
        """
        before = self._latest(request, known)
        made = Decision.sign(key, request, before, answer, self.seen(request.question_id), why, now)
        folder = self.folder / request.id.hex()
        staged, final = folder / f".{made.number}.tmp-{os.getpid()}", folder / f"{_DECISION}{made.number}"
        if not folder.is_dir():
            raise Misuse(f"request {request.id.hex()[:12]} is no longer there; newer ones took its place")
        write_file(staged, made.encode())
        try:
            os.link(staged, final)  # never over another decision
            _sync(folder)
        except FileExistsError:
            raise Misuse("another command decided on this request at the same moment; look again") from None
        except OSError as error:
            raise StorageError(f"{final} could not be written ({error.strerror}); nothing was decided") from None
        finally:
            staged.unlink(missing_ok=True)
        return made

    def _latest(self, request: Request, known: Known) -> Known:
        """What the next decision follows; where files of decisions that the ledger knows are lost, the ledger's."""
        try:
            return self.standing(request, known).known
        except Unverified:
            folder = self.folder / request.id.hex()
            numbers = _numbers(folder)
            if numbers and numbers[-1] > known[0]:
                raise
            for number in numbers:  # what is left of a chain that is broken
                os.replace(folder / f"{_DECISION}{number}", folder / f"before-{number}")
            return known


def _numbers(folder: Path) -> Sequence[int]:
    try:
        names = [name.removeprefix(_DECISION) for name in os.listdir(folder) if name.startswith(_DECISION)]
    except OSError:
        return ()
    return sorted(int(name) for name in names if name.isdecimal() and len(name) <= 4)


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
