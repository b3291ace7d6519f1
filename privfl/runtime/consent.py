"""A site's yes, one by one: questions of some purposes wait until its operator has approved them.

The policy says for which purposes. What the policy forbids never gets here, so that only what may run is shown to
the operator; and what he decides is noted in the ledger before anything is reserved under it.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from privfl_keys import Roster

from privfl.budget import Charge, Purpose
from privfl.budget.ledger_entries import Entry, Kind, Mandated
from privfl.errors import Misuse, PrivflError, Refused, StorageError, Theirs
from privfl.homes.lock import holder
from privfl.homes.requests import NOTHING, Answer, Decision, Known, Request, RequestBook, Standing, State
from privfl.homes.site import SiteHome
from privfl.tasks import Question

__all__ = [
    "NOT_YET",
    "OUTSIDE",
    "REFUSED",
    "USED",
    "Consent",
    "decisions_noted",
    "note_decisions",
    "note_of",
]

log = logging.getLogger("privfl.site")

#: What peers may read; a reason of the operator's stays in this site's ledger.
NOT_YET = "this site's operator has not approved this question yet"
REFUSED = "this site's operator has refused this question"
USED = "what this site's operator approved is used up; he can approve the question again"
OUTSIDE = "decided after seeing the data: outside the guarantee"
_NOTED = re.compile(r"request [0-9a-f]{12}, decision ([0-9]{1,4}) \(([0-9a-f]{64})\): ")
_WORDS = {
    Answer.APPROVE: "the operator approves it",
    Answer.REFUSE: "the operator refuses it",
    Answer.PREVIEW: "the operator looks at this site's own answer; nothing leaves",
}


class Notes(Protocol):
    """What is needed of a ledger."""

    def entries(self) -> Sequence[Entry]:
        """Everything entered, in order."""
        ...

    def note(self, text: str, now: int, reference: bytes = b"") -> None:
        """Leave words for later readers."""
        ...


def note_of(decision: Decision) -> str:
    """A decision in the ledger's words; they name its number and hash, so that none can be exchanged later."""
    answer = Answer(decision.answer)
    mark = f"; {OUTSIDE}" if decision.seen and answer is not Answer.PREVIEW else ""
    why = f"; he says: {decision.why}" if decision.why else ""
    place = f"request {decision.request.hex()[:12]}, decision {decision.number} ({decision.hash.hex()})"
    return f"{place}: {_WORDS[answer]}{mark}{why}"


def decisions_noted(entries: Sequence[Entry], since: int = 0) -> dict[bytes, Known]:
    """The latest decision on each request that a ledger's entries show, by the request's id."""
    found: dict[bytes, Known] = {}
    for entry in entries[since:]:
        if entry.kind == Kind.NOTE and len(entry.reference) == 32 and (match := _NOTED.match(entry.what)):
            found[entry.reference] = int(match[1]), bytes.fromhex(match[2])
    return found


class Consent:
    """What a site's operator has agreed to; the one process that holds the site's ledger has it.

    Args:
        book: the requests of the site's folder. purposes: for which the policy wants the operator's own yes.
        ledger: takes a note of every decision.
    """

    def __init__(self, book: RequestBook, purposes: Collection[Purpose], ledger: Notes) -> None:
        self.book, self.purposes, self._ledger = book, frozenset(purposes), ledger
        self._noted: dict[bytes, Known] = {}
        self._read = 0  # entries of the ledger that were looked at
        self._mark: object = None
        self._counted: tuple[object, int] = ((), 0)

    @property
    def pending(self) -> int:
        """How many requests wait for the operator; the last count where the folder cannot be read."""
        with suppress(Misuse):
            mark = self.book.mark() if self.purposes else ()
            if mark != self._counted[0]:
                self._counted = mark, self.book.pending()
        return self._counted[1]

    def settle(self, now: int) -> int:
        """Note every decision that the ledger does not know yet; returns how many there were.

        What does not verify is told in this site's log and counts as no approval.
        """
        done = 0
        try:
            mark = self.book.mark()
            for request in self.book.all() if mark != self._mark else ():
                before = self._known(request.id)[0]
                standing = self._standing(request, now)
                done += standing.known[0] - before if standing.decisions else 0
        except StorageError:
            raise
        except Misuse as error:
            log.error("%s", error)
            return done
        self._mark = mark
        return done

    def state(self, question: Question, charge: Charge, mandate: bytes, sender: bytes, roster: Roster, now: int) -> str:
        """How a question stands that the policy permits; it is put before the operator if he has to decide.

        Args:
            charge: what the policy's examination led to. sender: id of the coordinator who asks.
        """
        if charge.purpose not in self.purposes:
            return State.APPROVED.value
        standing = self._asked(question, charge, mandate, sender, roster, now)
        if standing.state is State.APPROVED and self._used(standing, question, charge, mandate):
            return State.PENDING.value
        return standing.state.value

    def require(
        self, question: Question, charge: Charge, mandate: bytes, sender: bytes, roster: Roster, now: int
    ) -> Charge:
        """The charge as the operator has approved it: without a mandate, an approval is for one run as well.

        Raises:
            Refused: he has not; in words that peers may read.
        """
        if charge.purpose not in self.purposes:
            return charge
        standing = self._asked(question, charge, mandate, sender, roster, now)
        if standing.state is not State.APPROVED:
            raise Refused(NOT_YET if standing.state is State.PENDING else REFUSED)
        if self._used(standing, question, charge, mandate):
            raise Refused(USED)
        return charge if mandate else replace(charge, mandate=_under(standing, question))

    # -- inside --------------------------------------------------------------------------------------

    def _asked(
        self, question: Question, charge: Charge, mandate: bytes, sender: bytes, roster: Roster, now: int
    ) -> Standing:
        name = roster.member(sender).name
        descriptor = question.descriptor()
        asked = Request(descriptor, mandate, sender, name, charge.analyst, str(charge.purpose), now)
        kept = self.book.record(asked)
        if kept.first == now:
            log.info("request %s waits for this site's operator: %s", kept.id.hex()[:12], question.title)
        return self._standing(kept, now)

    def _standing(self, request: Request, now: int) -> Standing:
        """Verify what was decided, and note what the ledger does not show; a doubt is no approval."""
        known = self._known(request.id)
        try:
            standing = self.book.standing(request, known)
        except StorageError:
            raise
        except (Theirs, Misuse) as error:
            log.error("the decisions on request %s do not count: %s", request.id.hex()[:12], error)
            return Standing(request)
        for one in standing.decisions:
            if one.number > known[0]:
                try:
                    self._ledger.note(note_of(one), now, request.id)
                except Theirs as error:  # this site's own ledger does not verify: no peer may read why
                    raise StorageError(f"{error}. This site stops; nothing was charged or sent") from None
                self._noted[request.id] = one.number, one.hash
        return standing

    def _known(self, request: bytes) -> Known:
        entries = self._ledger.entries()
        self._noted |= decisions_noted(entries, self._read)
        self._read = len(entries)
        return self._noted.get(request, NOTHING)

    def _used(self, standing: Standing, question: Question, charge: Charge, mandate: bytes) -> bool:
        """Whether one run's uploads were all made under an approval; a mandate is counted by the ledger itself."""
        if mandate:
            return False
        made = uploads_under(self._ledger.entries(), standing, question)
        return len(made - {charge.reference}) >= question.uploads


def uploads_under(entries: Sequence[Entry], standing: Standing, question: Question) -> set[bytes]:
    """The slots that were charged under an approval, and not taken back."""
    return uploads_counted(entries, Mandated(*_under(standing, question)))


def uploads_counted(entries: Sequence[Entry], under: Mandated) -> set[bytes]:
    """The slots that were charged under an approval or a mandate, and not taken back."""
    detail, found = under.encode(), set[bytes]()
    for entry in entries:
        if entry.kind == Kind.RESERVE and entry.detail == detail:
            found.add(entry.reference)
        elif entry.kind == Kind.REFUND:
            found.discard(entry.reference)
    return found


def _under(standing: Standing, question: Question) -> tuple[bytes, int]:
    """What uploads under an approval are counted by, as those under a mandate are."""
    assert standing.last is not None
    return standing.last.hash[:16], question.uploads


def note_decisions(folder: Path, passphrase: str, now: int) -> bool:
    """Note in the ledger what was decided, where no process of the site runs that would; returns whether it is noted.

    A site that cannot be opened now (its roster has expired, say) notes it at its next start.
    """
    if holder(folder) is not None:
        return False
    try:
        with SiteHome.open(folder, passphrase, now, data=False) as site:
            book = RequestBook(folder, site.identity.key.verify_key)
            Consent(book, site.policy.approval, site.ledger).settle(now)
            site.state.put(site.anchor_item())
    except PrivflError as error:
        log.warning("the decision is signed and kept; it is not noted yet: %s", error)
        return False
    return True
