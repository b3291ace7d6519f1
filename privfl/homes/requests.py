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
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from pathlib import Path
from typing import Annotated, ClassVar, Final, Self

from privfl_keys import Label, SigningKey, VerifyKey, digest

from privfl.codec import Bounds, Bytes32, Bytes64, Record, Uint64
from privfl.errors import Malformed, Misuse, Refused, StorageError, Theirs, Unverified
from privfl.homes.files import storage, write_file

__all__ = ["Answer", "Decision", "Known", "Request", "RequestBook", "Standing", "State"]

log = logging.getLogger("privfl.site")

FOLDER: Final = "requests"
MAX_QUESTION: Final = 2**20  # bytes of a question's descriptor
MAX_PENDING: Final = 100  # unanswered requests of one coordinator
MAX_WORDS: Final = 400
MAX_DECISIONS: Final = 9999
_REQUEST, _DECISION = "request", "decision-"
_NONE = bytes(32)
#: Number and hash of a request's latest decision that is remembered elsewhere; ``(0, zeros)`` for none.
Known = tuple[int, bytes]


class Answer(StrEnum):
    """What an operator does with a request."""

    APPROVE = "approve"
    REFUSE = "refuse"
    PREVIEW = "preview"  # he looks at this site's own exact answer; decides nothing


class State(StrEnum):
    """How a request stands."""

    PENDING = "pending"
    APPROVED = "approved"
    REFUSED = "refused"


@dataclass(frozen=True)
class Request(Record):
    """One question that somebody wants answered here.

    Attributes:
        question: its descriptor. mandate: the analyst's, empty where a coordinator asks for itself.
        coordinator: id of the member who asks; coordinator_name, analyst: names in the roster.
        purpose: which share of the budget would pay.
        first: when it was first seen, milliseconds since 1970; no part of :attr:`id`.
    """

    TAG: ClassVar[str] = "request"
    question: Annotated[bytes, Bounds(1, MAX_QUESTION)]
    mandate: Annotated[bytes, Bounds(0, 4096)]
    coordinator: Bytes32
    coordinator_name: Annotated[str, Bounds(1, 64)]
    analyst: Annotated[str, Bounds(1, 64)]
    purpose: Annotated[str, Bounds(1, 32)]
    first: Uint64

    @cached_property
    def id(self) -> bytes:
        """32 bytes for all that it says, and so for this very question, asked by these."""
        return digest(Label.REQUEST, *self.to_value()[1:-1])

    @cached_property
    def question_id(self) -> bytes:
        """32 bytes that name the question, as announcements do."""
        return digest(Label.TASK, self.question)


@dataclass(frozen=True)
class Decision(Record):
    """What the operator said about one request; see the module.

    Attributes:
        number, previous: place among the decisions on it; the hash of the one before, zeros before the first.
        seen: this site's own answer to the question had been looked at before.
        why: the operator's words, for this site's ledger alone.
    """

    TAG: ClassVar[str] = "decision"
    site: Bytes32
    request: Bytes32
    question: Bytes32
    number: Annotated[int, Bounds(1, MAX_DECISIONS)]
    previous: Bytes32
    answer: Annotated[str, Bounds(1, 16)]
    seen: bool
    why: Annotated[str, Bounds(0, MAX_WORDS)]
    time: Uint64
    signature: Bytes64

    @cached_property
    def hash(self) -> bytes:
        """32 bytes for this decision and all before it."""
        return digest(Label.DECISION, *self.to_value()[1:])

    @classmethod
    def sign(
        cls, key: SigningKey, request: Request, before: Known, answer: Answer, seen: bool, why: str, now: int
    ) -> Self:
        """Sign a decision that follows ``before``; raises Misuse for words that are too long."""
        if len(why) > MAX_WORDS:
            raise Misuse(f"the reason has {len(why)} characters; write at most {MAX_WORDS}")
        number, previous = before
        if number >= MAX_DECISIONS:
            raise Misuse("this request was decided too often; have the question asked anew")
        parts = (key.verify_key.site_id, request.id, request.question_id, number + 1, previous, answer.value, seen)
        return cls(*parts, why, now, signature=key.sign(Label.DECISION_SIGNED, *parts, why, now))

    def check(self, key: VerifyKey, request: Request, before: Known | None) -> None:
        """Raise Unverified unless the site of ``key`` decided so on this request, after ``before`` where given."""
        if (self.site, self.request, self.question) != (key.site_id, request.id, request.question_id):
            raise Unverified("it is about another site or another request")
        if self.answer not in tuple(Answer):
            raise Unverified("there is no such answer")
        if before is not None and (self.number, self.previous) != (before[0] + 1, before[1]):
            raise Unverified("it does not follow the decision before it; one was removed, moved or put back")
        key.verify(self.signature, Label.DECISION_SIGNED, *self.to_value()[1:-1])


@dataclass(frozen=True)
class Standing:
    """How a request stands: every decision on it in order, verified."""

    request: Request
    decisions: tuple[Decision, ...] = ()

    @property
    def last(self) -> Decision | None:
        """The approval or refusal that counts, None while there is none."""
        return next((one for one in reversed(self.decisions) if one.answer != Answer.PREVIEW), None)

    @property
    def state(self) -> State:
        """By the last decision."""
        if self.last is None:
            return State.PENDING
        return State.APPROVED if self.last.answer == Answer.APPROVE else State.REFUSED

    @property
    def seen(self) -> bool:
        """Whether this site's own answer was looked at under this request."""
        return any(one.answer == Answer.PREVIEW for one in self.decisions)

    @property
    def known(self) -> Known:
        """Number and hash of the latest decision."""
        return (self.decisions[-1].number, self.decisions[-1].hash) if self.decisions else (0, _NONE)


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

        Of :data:`MAX_PENDING` unanswered requests of one coordinator, the oldest makes room.

        Raises:
            Refused: the question is too long to be kept. StorageError: the disk does not take it.
        """
        with contextlib.suppress(Misuse, Theirs):
            return self.get(request.id)
        if len(request.question) > MAX_QUESTION or len(request.mandate) > 4096:
            raise Refused(
                f"a question that needs the operator's yes has at most {MAX_QUESTION} bytes, and this one has "
                f"{len(request.question)}; ask for less at once"
            )
        name = request.id.hex()
        with storage(self.folder):
            self.folder.mkdir(mode=0o700, exist_ok=True)
            self._make_room(request.coordinator)
            staged, final = self.folder / f".{name}.tmp", self.folder / name
            for stale in (staged, final):  # of a crash, or damaged
                shutil.rmtree(stale, ignore_errors=True)
            staged.mkdir(mode=0o700)
            write_file(staged / _REQUEST, request.encode())
            os.replace(staged, final)
            _sync(self.folder)
        self._asked[name] = (request.coordinator, request.first)
        return request

    def _make_room(self, coordinator: bytes) -> None:
        """Drop the oldest unanswered requests of ``coordinator``, so that one more fits."""
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
        for _, name in sorted(mine)[: max(0, len(mine) + 1 - MAX_PENDING)]:
            gone = self.folder / f".{name}.gone"
            os.replace(self.folder / name, gone)
            if _numbers(gone):  # decided in this very moment: it stays
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

    def standing(self, request: Request, known: Known = (0, _NONE)) -> Standing:
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
        held = {found[0].number - 1: found[0].previous} if found else {0: _NONE}
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

    def seen(self, question: bytes) -> bool:
        """Whether this site's own answer to the question of this id was looked at, under whichever request."""
        for request in self.all():
            for number in _numbers(self.folder / request.id.hex()) if request.question_id == question else ():
                with contextlib.suppress(OSError, Theirs):
                    if self._decision(request, number, None).answer == Answer.PREVIEW:
                        return True
        return False

    def decide(
        self, key: SigningKey, request: Request, answer: Answer, now: int, *, why: str = "", known: Known = (0, _NONE)
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
