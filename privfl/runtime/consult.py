"""The two messages by which a coordinator asks whether a question may be asked at a site, before anything else."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from privfl_keys import Roster

from privfl.codec import Bounds, Bytes32, Record, Uint32
from privfl.secagg import Announcement
from privfl.secagg.messages import Scope
from privfl.tasks import Question

__all__ = ["Consult", "Consulted"]


@dataclass(frozen=True)
class Consult(Record):
    """Coordinator to site: may this question be asked here? Nothing is charged or computed for it.

    Attributes:
        task, inputs, mandate: as in an invitation to the first slot. complete, least: how sums would be opened.
    """

    TAG: ClassVar[str] = "consult"
    task: bytes
    inputs: bytes
    mandate: bytes
    complete: bool
    least: Uint32

    def announcement(self, question: Question, roster: Roster, coordinator: bytes, policy: bytes) -> Announcement:
        """The slot that would follow, among all sites of the roster, for a policy to look at; nobody signed it."""
        total, none = question.sum_of(self.inputs), bytes(32)
        return Announcement(
            scope=Scope(roster.federation, roster.hash, 0),
            record=none,
            coordinator=coordinator,
            round=1,
            attempt=0,
            seq=0,
            nonce=none,
            policy=policy,
            task=question.id,
            inputs=none,
            bits=total.ring.bits,
            word=total.ring.word,
            length=total.length,
            complete=self.complete,
            threshold=0,
            min_survivors=self.least,
            cohort=b"".join(sorted(roster.site_ids)),
            deadline=0,
            reply_key=bytes(1216),
            seen=(),
            aborts=(),
            signature=bytes(64),
        )


@dataclass(frozen=True)
class Consulted(Record):
    """Site to coordinator: how the question stands here, as a :class:`~privfl.homes.requests.State`; no reasons."""

    TAG: ClassVar[str] = "consulted"
    question: Bytes32
    state: Annotated[str, Bounds(1, 16)]
