"""A site that asks its operator: what is refused before a charge, what an approval is for, what the ledger shows."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from privfl_keys import SYSTEM, SigningKey

from privfl.budget import Ledger, Purpose
from privfl.budget.ledger_check import verify_file
from privfl.budget.ledger_entries import Entry, Kind
from privfl.homes.requests import Answer, Request, RequestBook
from privfl.learn import Logistic, Task
from privfl.runtime.consent import NOT_YET, REFUSED, USED, Consent
from privfl.runtime.consult import Consult, Consulted
from privfl.runtime.post import Invitation, Refusal
from tests.runtime.evil import Evil, compiled
from tests.runtime.support import FixedClock

OUTSIDE = "outside the guarantee"


@dataclass
class Asked:
    """The first site of a federation, with a real ledger and an operator whose yes is needed for training."""

    evil: Evil
    folder: Path
    ledger: Ledger
    consent: Consent

    @property
    def key(self) -> SigningKey:
        return self.evil.node().party.key

    @property
    def book(self) -> RequestBook:
        return RequestBook(self.folder, self.key.verify_key)

    def consult(self, task: Task | None = None) -> str:
        """The site's answer to a consultation: a state, or its refusal."""
        task = task or self.evil.task
        asked = Consult(task.descriptor(), self.evil.model(task), b"", False, self.evil.terms.min_survivors)
        reply = self.evil.ask("consult", asked.encode())
        assert reply is not None
        if reply.kind == "refused":
            return Refusal.decode(reply.payload).reason
        assert reply.kind == "consulted"
        found = Consulted.decode(reply.payload)
        assert found.question == task.id
        return found.state

    def announce(self, round_: int, task: Task | None = None) -> str:
        """Invite the site to a slot; "" for an upload, else why it refused."""
        task = task or self.evil.task
        a = self.evil.announce((round_, 0), self.evil.plan(task))
        reply = self.evil.ask("announce", Invitation(a, task.descriptor(), self.evil.model(task)).encode())
        assert reply is not None
        return "" if reply.kind == "upload" else Refusal.decode(reply.payload).reason

    def decide(self, answer: Answer, request: Request | None = None, why: str = "") -> None:
        request = request or self.book.all()[-1]
        self.book.decide(self.key, request, answer, 1, why=why)

    def entries(self, kind: Kind) -> list[Entry]:
        return [entry for entry in self.ledger.entries() if entry.kind == kind]


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Asked]:
    evil = Evil.make(rounds=2)
    node, now = evil.node(), evil.fed._clock.now()
    ledger = Ledger.create(tmp_path / "ledger.db", node.party.key, federation="local", population="people", now=now)
    ledger.use(evil.terms.hash, 1, evil.terms.limits(), now)
    consent = Consent(RequestBook(tmp_path, node.party.key.verify_key), [Purpose.TRAINING], ledger)
    node.account, node.consent = ledger, consent
    yield Asked(evil, tmp_path, ledger, consent)
    verify_file(ledger.path, node.party.key.verify_key)
    ledger.close()


def test_an_announcement_without_approval_costs_nothing(site: Asked) -> None:
    """It is refused with a public reason, put before the operator once, and the machine has not used the slot."""
    before = site.evil.node().machine.dump()
    assert site.announce(1) == NOT_YET
    assert site.announce(2) == NOT_YET
    assert not site.entries(Kind.RESERVE)
    assert site.evil.node().machine.dump() == before
    (request,) = site.book.all()
    assert (request.question_id, request.coordinator_name) == (site.evil.task.id, "coordinator")


def test_an_approved_question_runs_and_the_note_comes_first(site: Asked) -> None:
    """Consulted: pending; approved: approved; announced: an upload, charged after the decision is in the ledger."""
    assert site.consult() == "pending"
    assert site.consent.pending == 1
    site.decide(Answer.APPROVE)
    assert site.announce(1) == ""
    (note,), (charge,) = site.entries(Kind.NOTE), site.entries(Kind.RESERVE)
    assert note.seq < charge.seq
    assert note.reference == site.book.all()[0].id
    assert site.consult() == "approved"
    assert site.consent.pending == 0
    assert len(site.entries(Kind.NOTE)) == 1, "a decision is noted once"


def test_an_approval_does_not_serve_another_question(site: Asked) -> None:
    """One column less, another epsilon: another request, pending."""
    site.consult()
    site.decide(Answer.APPROVE)
    for other in (
        compiled(site.evil.fed, Logistic(label="ill", features=("dose",)), rounds=2),
        compiled(site.evil.fed, Logistic(label="ill"), rounds=2, epsilon=7.5),
    ):
        assert site.announce(1, other) == NOT_YET
        assert site.consult(other) == "pending"
    assert not site.entries(Kind.RESERVE)
    assert site.consult() == "approved"


def test_an_approval_is_for_one_run(site: Asked) -> None:
    """When the planned uploads are made it is used up; the operator can approve the same question again."""
    site.consult()
    site.decide(Answer.APPROVE)
    assert [site.announce(at) for at in (1, 2)] == ["", ""]
    assert site.announce(3) == USED
    assert site.consult() == "pending"
    site.decide(Answer.APPROVE)
    assert site.consult() == "approved"
    # now the budget itself decides: one more upload is more than these terms hold
    assert "does not admit" in site.announce(3)
    assert len(site.entries(Kind.RESERVE)) == 2


def test_a_decision_can_be_changed_and_words_stay_here(site: Asked) -> None:
    """The latest counts, between two slots as well; the coordinator learns that, not why."""
    site.consult()
    site.decide(Answer.APPROVE)
    assert site.announce(1) == ""
    site.decide(Answer.REFUSE, why="the ethics board says no")
    assert site.announce(2) == REFUSED
    assert site.consult() == "refused"
    assert "the ethics board says no" in site.entries(Kind.NOTE)[-1].what
    assert OUTSIDE not in site.entries(Kind.NOTE)[-1].what
    site.decide(Answer.APPROVE)
    assert site.announce(3) == ""


def test_a_refusal_after_a_preview_is_marked(site: Asked) -> None:
    """The ledger says of every decision after a look that it is outside the guarantee."""
    site.consult()
    for answer in (Answer.APPROVE, Answer.PREVIEW, Answer.REFUSE, Answer.APPROVE):
        site.decide(answer)
    assert site.consent.settle(1) == 4
    assert site.consent.settle(1) == 0
    marks = [OUTSIDE in entry.what for entry in site.entries(Kind.NOTE)]
    assert marks == [False, False, True, True]


def test_what_the_terms_forbid_is_never_shown(site: Asked) -> None:
    """Noise for fewer survivors, bytes that are no question, no model, no consultation: nothing is listed."""
    few = Consult(site.evil.task.descriptor(), site.evil.model(), b"", False, 2)
    reply = site.evil.ask("consult", few.encode())
    assert reply is not None
    assert reply.kind == "refused"
    for task, inputs in ((b"rubbish", b""), (site.evil.task.descriptor(), b"no model")):
        reply = site.evil.ask("consult", Consult(task, inputs, b"", False, 3).encode())
        assert reply is not None
        assert reply.kind == "refused"
    reply = site.evil.ask("consult", b"\x00")
    assert reply is not None
    assert reply.kind == "refused"
    assert site.book.all() == []


def test_other_purposes_need_no_approval(site: Asked) -> None:
    """Where the policy does not ask for it nothing is kept and the charge is as it was."""
    node = site.evil.node()
    node.consent = Consent(site.book, [Purpose.ANALYTICS], site.ledger)
    assert site.consult() == "approved"
    assert site.announce(1) == ""
    assert site.book.all() == []
    assert site.entries(Kind.RESERVE)[0].detail == b""


@pytest.mark.parametrize("how", ["another key", "another site's folder", "rubbish"])
def test_a_forged_decision_is_no_approval(site: Asked, how: str) -> None:
    """The site goes on as if nobody had answered, tells nobody why, and notes nothing."""
    site.consult()
    (request,) = site.book.all()
    target = site.book.folder / request.id.hex() / "decision-1"
    if how == "rubbish":
        target.write_bytes(b"yes")
    else:
        key = SigningKey.generate(SYSTEM) if how == "another key" else site.evil.node(1).party.key
        theirs = RequestBook(site.folder / "theirs", key.verify_key)
        theirs.folder.parent.mkdir()
        theirs.decide(key, theirs.record(request), Answer.APPROVE, 1)
        shutil.copy(theirs.folder / request.id.hex() / "decision-1", target)
    assert site.consult() == "pending"
    assert site.announce(1) == NOT_YET
    assert not site.entries(Kind.NOTE)
    assert not site.entries(Kind.RESERVE)


def test_a_refusal_that_the_ledger_knows_cannot_be_taken_away(site: Asked) -> None:
    """Its file removed, or the whole request: the approval before it does not come back; a new decision does."""
    site.consult()
    site.decide(Answer.APPROVE)
    site.decide(Answer.REFUSE)
    site.consent.settle(1)
    (request,) = site.book.all()
    (site.book.folder / request.id.hex() / "decision-2").unlink()
    assert site.announce(1) == NOT_YET
    shutil.rmtree(site.book.folder / request.id.hex())
    assert site.announce(2) == NOT_YET
    fresh = Consent(site.book, [Purpose.TRAINING], site.ledger)  # as after a restart
    known = fresh._known(request.id)
    assert known[0] == 2
    site.book.decide(site.key, request, Answer.APPROVE, 1, known=known)
    site.evil.node().consent = fresh
    assert site.announce(3) == ""


def test_a_flood_of_questions_is_bounded(site: Asked, monkeypatch: pytest.MonkeyPatch) -> None:
    """A coordinator that asks ever new questions displaces its own oldest ones and nothing that was decided."""
    monkeypatch.setattr("privfl.homes.requests.MAX_PENDING", 4)
    site.consult()
    site.decide(Answer.APPROVE)
    for at in range(8):
        task = compiled(site.evil.fed, Logistic(label="ill"), rounds=2, epsilon=4.0 + at / 8)
        assert site.consult(task) == "pending"
    assert len(site.book.all()) == 5
    assert site.consult() == "approved"


def test_the_site_keeps_serving_when_its_clock_moves(site: Asked) -> None:
    """A note is made at whatever time it is; the ledger's own time never runs backwards."""
    clock: Any = site.evil.fed._clock
    assert isinstance(clock, FixedClock)
    site.consult()
    site.decide(Answer.APPROVE)
    assert site.consent.settle(clock.at - 3_600_000) == 1
    times = [entry.time for entry in site.ledger.entries()]
    assert times == sorted(times)
