"""A request to a site's operator and his decisions, as signed records; :mod:`privfl.homes.requests` keeps them."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from typing import Annotated, ClassVar, Final, Self

from privfl_keys import Label, SigningKey, VerifyKey, digest

from privfl.codec import Bounds, Bytes32, Bytes64, Record, Uint64
from privfl.errors import Misuse, Unverified

__all__ = ["MAX_MANDATE", "MAX_QUESTION", "NOTHING", "Answer", "Decision", "Known", "Request", "Standing", "State"]

MAX_QUESTION: Final = 2**20  # bytes of a question's descriptor
MAX_MANDATE: Final = 4096
MAX_WORDS: Final = 400
MAX_DECISIONS: Final = 9999
#: Number and hash of a request's latest decision, as it is remembered elsewhere.
Known = tuple[int, bytes]
NOTHING: Final[Known] = (0, bytes(32))


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
    mandate: Annotated[bytes, Bounds(0, MAX_MANDATE)]
    coordinator: Bytes32
    coordinator_name: Annotated[str, Bounds(1, 64)]
    analyst: Annotated[str, Bounds(0, 64)]
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
        return (self.decisions[-1].number, self.decisions[-1].hash) if self.decisions else NOTHING
