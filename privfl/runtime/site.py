"""A site at work: it answers the coordinator's requests, each after its own checks and charges.

The order is law: check, reserve budget, record used(H0), compute, noise, mask, store, send. A failure
before the reservation costs nothing; one after it costs the reservation and leaks nothing.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable
from contextlib import ExitStack

from privfl_keys import Label, content_digest, digest

from privfl.budget import Account, Charge
from privfl.clock import Clock
from privfl.codec import Record
from privfl.dp import LocalReport
from privfl.entropy import Entropy
from privfl.errors import DataError, Misuse, PrivflError, Refused, StorageError, Theirs, Unverified, WireError
from privfl.ring import Int64Array
from privfl.runtime.consent import Consent
from privfl.runtime.consult import Consult, Consulted
from privfl.runtime.logs import where
from privfl.runtime.post import (
    Adverts,
    Contributions,
    Hello,
    Invitation,
    Joining,
    OpenEpoch,
    Post,
    Received,
    Refusal,
    Unmet,
)
from privfl.runtime.questions import question_from
from privfl.runtime.store import SiteStore
from privfl.runtime.terms import Permission
from privfl.secagg import Announcement, Ask, RolledBack, SiteMachine, SlotEntropy, Unconfirmed, Upload, check_degree
from privfl.secagg.messages import Scope, join
from privfl.secagg.party import Party
from privfl.secagg.site import Outgoing
from privfl.secagg.slot import check_own_rules
from privfl.tasks import BoundData, Question, SiteData
from privfl.wires import Mailbox

__all__ = ["SiteNode", "inputs_hash"]

log = logging.getLogger("privfl.site")
KEPT_REPLIES = 8
AT_FAULT = "this site cannot answer at present; its operator was told why"


def inputs_hash(inputs: bytes) -> bytes:
    """Names the model (or other input) that a slot's announcement is about."""
    return content_digest(Label.INPUTS, inputs)


def _names(invitation: bytes, h0: bytes) -> bool:
    try:
        return Invitation.decode(invitation).announcement.h0 == h0
    except PrivflError:
        return False


class SiteNode:
    """One site: its machine, data, terms and account behind a mailbox.

    ``checkpoint`` is called by name after each step of a slot; tests and the demo crash a site there.
    ``changed`` is called with the kind of each request before it is answered. ``report`` counts what was odd about
    the rows, for the operator of this site alone; ``refusals`` are the last reasons, as the operator may read them.
    ``answer_after_ms`` holds every upload until so long after its announcement, so that its moment tells nothing
    about the rows; an announcement whose deadline leaves less is refused. ``rolled_back`` is the alarm after which
    the site answers nothing any more. ``consent`` is the operator's own yes or no to questions that need it.
    Refused for a roster whose graph is too sparse.
    """

    def __init__(
        self,
        party: Party,
        terms: Permission,
        account: Account,
        data: SiteData | BoundData | None,
        store: SiteStore,
        mailbox: Mailbox,
        clock: Clock,
        entropy: Entropy,
        checkpoint: Callable[[str, int], None] = lambda name, round_: None,
        changed: Callable[[str], None] = lambda doing: None,
        answer_after_ms: int = 0,
        sleep: Callable[[float], None] = time.sleep,
        consent: Consent | None = None,
    ) -> None:
        self.party, self.terms, self.account = party, terms, account
        self._data = SiteData.of(data) if isinstance(data, BoundData) else data
        self._store, self._clock, self._entropy, self._checkpoint = store, clock, entropy, checkpoint
        check_degree(len(party.roster.site_ids), party.roster.corrupt_bound, party.roster.degree)
        dump = store.load()
        rules = terms.rules()
        self.machine = (
            SiteMachine(party, rules, entropy)
            if dump is None
            else SiteMachine.load(party, rules, entropy, dump, restarted=True)
        )
        self._post = Post(party, mailbox, entropy, peer_role="coordinator", clock=clock)
        self.report = LocalReport()
        self.uploads = self.bytes_sent = self.refused = 0
        self.refusals = deque[str](maxlen=20)
        self.at = (self.machine.epoch, 0, 0)  # epoch, round and attempt of the last slot that was asked about
        self._changed, self._here = changed, ExitStack()
        self._answer_after, self._sleep = answer_after_ms, sleep
        self.rolled_back: RolledBack | None = None
        self.consent = consent
        self._tasks: dict[bytes, Question] = {}
        self._replies: dict[bytes, tuple[str, bytes]] = {}
        self._handlers: dict[str, Callable[[Received], tuple[str, Record, list[bytes]]]] = {
            "open-epoch": self._open_epoch,
            "adverts": self._adverts,
            "contributions": self._contributions,
            "record": self._record,
            "ping": self._ping,
            "consult": self._consult,
            "end-epoch": self._end_epoch,
            "announce": self._announce,
            "ask-vote": self._vote,
            "ask-abort": self._abort,
            "ask-release": self._release,
        }

    def serve(self, wait_ms: int = 0) -> int:
        """Answer what has arrived; returns how many messages there were.

        Of several invitations, which a site finds after an absence, the newest is answered first: slots only
        rise, so the older ones are then refused and cost nothing.
        """
        return self._post.receive(wait_ms, self._answer, order=self._newest_first)

    def _newest_first(self, found: list[Received]) -> list[Received]:
        """Everything else as it came, a repetition of the stored upload, then invitations from last to first."""
        invitations = [one for one in found if one.kind == "announce"]
        if len(invitations) < 2:
            return found
        stored = self._store.outbox()
        h0 = Upload.decode(stored).header.h0 if stored else b""
        repeats = [one for one in invitations if _names(one.payload, h0)]
        fresh = [one for one in invitations if not any(one is other for other in repeats)]
        return [one for one in found if one.kind != "announce"] + repeats + fresh[::-1]

    def hello(self) -> None:
        """Tell the coordinators of the roster that this site is up."""
        for member in self.party.roster.holding("coordinator"):
            self._post.send(member.site_id, "hello", self._hello().encode())

    def _hello(self) -> Hello:
        return Hello(self.party.roster.hash, self.terms.rules().policy, self.machine.epoch)

    def _answer(self, received: Received) -> None:
        known = self._replies.get(received.id)
        if known is not None:  # delivered twice: the same answer, or the second would contradict the first
            self._post.send(received.sender, *known, reply_to=received.id)
            return
        handler = self._handlers.get(received.kind)
        self._changed(received.kind)
        with ExitStack() as self._here:
            kind, reply, bodies = self._replied(received, handler)
            if bodies:
                log.info("an upload of %d bytes leaves", sum(map(len, bodies)))
        payload = reply.encode()
        if not bodies:  # an upload lies in the outbox
            self._replies[received.id] = (kind, payload)
            if len(self._replies) > KEPT_REPLIES:
                del self._replies[next(iter(self._replies))]
        self.bytes_sent += len(payload) + sum(map(len, bodies))
        self._post.send(received.sender, kind, payload, reply_to=received.id, bodies=bodies)

    def _replied(
        self, received: Received, handler: Callable[[Received], tuple[str, Record, list[bytes]]] | None
    ) -> tuple[str, Record, list[bytes]]:
        try:
            if handler is None:
                raise Unverified(f"there is no request of kind {received.kind!a}")
            if self.rolled_back is not None:
                raise Refused("this site has stopped: its store is an older copy; its operator was told what to do")
            return handler(received)
        except (StorageError, WireError):
            raise  # nothing was sent; the message comes again once disk or wire take it
        except PrivflError as error:
            return "refused", self._refusal(received.kind, error), []
        except Exception as error:
            # a fault of this program must not stop the site for everybody; its text could hold a value
            log.error("answering %a failed: %s", received.kind, type(error).__name__)
            return "refused", Refusal(AT_FAULT), []

    def _about(self, scope: Scope, round_: int = 0, attempt: int = 0) -> None:
        """Name the slot in hand, for the log and for whoever looks on."""
        self.at = (scope.epoch, round_, attempt)
        self._here.enter_context(where(epoch=scope.epoch, round=round_, attempt=attempt))

    @property
    def data(self) -> SiteData:
        """The site's rows; raises Misuse where it was opened without."""
        if self._data is None:
            raise Misuse("this site was opened without its data")
        return self._data

    @property
    def bound(self) -> BoundData:
        """The rows in memory; raises Misuse where it was opened without."""
        return self.data.bound

    @property
    def _seat(self) -> int:
        """This site's place among the roster's, for vectors in which each site has its own stretch."""
        return sorted(self.party.roster.site_ids).index(self.party.id)

    def _refusal(self, kind: str, error: PrivflError) -> Refusal:
        if isinstance(error, RolledBack):
            self.rolled_back = error
            log.critical("%s", error)
        else:
            log.warning("refused %a: %s", kind, error)
        self.refused += 1
        self.refusals.append(str(error))
        # a mistake on this machine is its operator's business; what peers did wrong they may read
        return Refusal(AT_FAULT if isinstance(error, Misuse) else str(error)[:2000])

    def _saved(self) -> None:
        self._store.save(self.machine.dump())

    def _ping(self, received: Received) -> tuple[str, Record, list[bytes]]:
        return "hello", self._hello(), []

    def _end_epoch(self, received: Received) -> tuple[str, Record, list[bytes]]:
        epoch = OpenEpoch.decode(received.payload).epoch
        if epoch != self.machine.epoch:
            raise Refused(f"epoch {epoch} is not the one that this site is in")
        self._erase()
        return "ended", OpenEpoch(epoch), []

    def expire(self) -> bool:
        """Erase the keys of an epoch that is too old to be used again; returns whether there was one."""
        if not self.machine.expired(self._clock.now()):
            return False
        self._erase()
        return True

    def _erase(self) -> None:
        self.machine.close_epoch()
        self._saved()
        self._store.end_epoch()
        log.info("the keys of epoch %d are erased", self.machine.epoch)

    def _open_epoch(self, received: Received) -> tuple[str, Record, list[bytes]]:
        before = self.machine.epoch
        advert = self.machine.advertise(OpenEpoch.decode(received.payload).epoch)
        self._saved()
        if self.machine.epoch != before:
            self._store.end_epoch()  # the keys of the epoch before are gone for good
        return "advert", advert, []

    def _adverts(self, received: Received) -> tuple[str, Record, list[bytes]]:
        out, excluded = self.machine.contribute(Adverts.decode(received.payload).adverts)
        for peer, why in excluded:
            log.warning("epoch: leaving out %s: %s", peer.hex()[:8], why)
        self._saved()
        return "contributions", Contributions(out), []

    def _contributions(self, received: Received) -> tuple[str, Record, list[bytes]]:
        out, excluded = self.machine.confirm(Contributions.decode(received.payload).contributions)
        for peer, why in excluded:
            log.warning("epoch: no pair key with %s: %s", peer.hex()[:8], why)
        self._saved()
        return "confirmations", out, []

    def _record(self, received: Received) -> tuple[str, Record, list[bytes]]:
        joining = Joining.decode(received.payload)
        epoch = joining.record.scope.epoch
        self._about(joining.record.scope)
        try:
            self.machine.join(joining.record, joining.confirmations, now=self._clock.now())
        except Unconfirmed as error:
            log.warning("epoch %d: %s: %s", epoch, error, ", ".join(peer.hex()[:8] for peer in error.peers))
            return "unmet", Unmet(epoch, join(error.peers)), []
        self._saved()
        return "joined", OpenEpoch(epoch), []

    def _announce(self, received: Received) -> tuple[str, Record, list[bytes]]:
        invitation = Invitation.decode(received.payload)
        a, now = invitation.announcement, self._clock.now()
        self._about(a.scope, a.round, a.attempt)
        repeated = self._repeat(a, now)
        if repeated is not None:
            return repeated
        task = self._check(invitation, now)
        charge = self.terms.permit(self.party.roster, a, task, invitation.inputs, invitation.mandate, now)
        if self.consent is not None:
            charge = self.consent.require(task, charge, invitation.mandate, a.coordinator, self.party.roster, now)
        head = self._reserve(charge, now)
        self._checkpoint("reserved", a.round)
        self.machine.accept(a, now=now, ledger_head=head)
        self._saved()
        self._checkpoint("accepted", a.round)
        try:
            out = self._computed(task, invitation)
        except StorageError:
            raise  # the process ends; at its next start the account is settled by what is durable
        except Exception:  # of whatever kind: the slot was accepted, and rows may have been read
            self._close(self.account.burn, a.h0)
            raise
        self._close(self.account.settle, a.h0)
        self.uploads += 1
        left = now + self._answer_after - self._clock.now()
        if left > 0:
            self._sleep(left / 1000)
        return "upload", out.message, [out.body]

    def _reserve(self, charge: Charge, now: int) -> bytes:
        try:
            return self.account.reserve(charge, now)
        except Theirs as error:  # the site's own ledger does not verify: no peer is to blame, and none may read why
            raise StorageError(f"{error}. This site stops; nothing was charged or sent") from None

    def _close(self, enter: Callable[[bytes, int], None], h0: bytes) -> None:
        """Enter how a reservation ended. Nothing is sent over a fault of the account: the next start puts it right."""
        try:
            enter(h0, self._clock.now())
        except PrivflError as error:
            raise StorageError(
                f"{error}. This site stops; its next start closes the account before it answers"
            ) from None

    def _computed(self, task: Question, invitation: Invitation) -> Outgoing:
        """Compute, noise and mask; on return the bytes are durable, whatever happens to the process."""
        a = invitation.announcement
        vector = self._vector(task, invitation.inputs, a)
        out = self.machine.upload(a, vector, now=self._clock.now())
        del vector
        self._checkpoint("computed", a.round)
        self._store.save_outbox(self.machine.dump(), out.message.encode(), out.body)
        self._checkpoint("stored", a.round)
        return out

    def _vector(self, task: Question, inputs: bytes, a: Announcement) -> Int64Array:
        """The site's noised vector; once charged, nothing in a row may change whether and what a site sends.

        So a fault while computing (out of memory, a local fit that breaks) makes a zero contribution with
        the same noise. Only the kind of fault is logged: its text could hold a value.
        """
        entropy = SlotEntropy(self._entropy, Label.NOISE, a.h0, self.party.id)
        try:
            self.data.within(a.deadline - self._clock.now())
            return task.upload(inputs, self.data, entropy, seat=self._seat, report=self.report)
        except Exception as error:
            log.error("round %d: computing failed (%s); this site contributes zero", a.round, type(error).__name__)
        return task.blank(inputs, entropy, seat=self._seat)

    def _repeat(self, a: Announcement, now: int) -> tuple[str, Record, list[bytes]] | None:
        """The stored upload of this very slot, if there is one: repeats send identical bytes."""
        stored = self._store.outbox()
        if stored is None:
            return None
        message = Upload.decode(stored)
        if message.header.h0 != a.h0:
            return None
        self.machine.check_resend(message)
        self.party.roster.check_validity(now)
        check_own_rules(a, self.terms.rules(), now)  # a stricter policy may have come since
        body = self._store.body()
        if body is None:
            raise Refused("this site has lost the vector that it uploaded in this slot; it stays silent here")
        self._close(self.account.settle, a.h0)
        return "upload", message, [body]

    def _check(self, invitation: Invitation, now: int) -> Question:
        """Everything that may cause a refusal, before anything is charged; only public things decide."""
        a = invitation.announcement
        self.machine.examine(a, now=now)
        if now + self._answer_after > a.deadline:
            raise Refused(
                f"the deadline leaves {max(0, a.deadline - now)} ms, and this site answers {self._answer_after} ms "
                "after an announcement, however many rows it has"
            )
        if inputs_hash(invitation.inputs) != a.inputs:
            raise Unverified("the model is not the one that the announcement names")
        if digest(Label.TASK, invitation.task) != a.task:
            raise Unverified("the task is not the one that the announcement names")
        return self._question(invitation.task, invitation.inputs)

    def _question(self, descriptor: bytes, inputs: bytes) -> Question:
        """The question behind a peer's bytes, if its inputs are sound and the bound data fits its schema."""
        name = digest(Label.TASK, descriptor)
        task = self._tasks.get(name)
        if task is None:
            task = question_from(descriptor)
            self._tasks = {name: task}
        task.sum_of(inputs)
        try:
            task.check(self.data)
        except DataError as error:
            # the operator reads the reason here; the coordinator learns only that the schema is another
            log.warning("the task does not fit the bound data: %s", error)
            raise Theirs("the task is made for another schema than the one this site's data is bound to") from None
        return task

    def _consult(self, received: Received) -> tuple[str, Record, list[bytes]]:
        """Whether a question may be asked here: the policy's word first, then the operator's; nothing is charged."""
        consult, now = Consult.decode(received.payload), self._clock.now()
        roster, sender = self.party.roster, received.sender
        roster.check_validity(now)
        question = self._question(consult.task, consult.inputs)
        a = consult.announcement(question, roster, sender, self.terms.rules().policy)
        charge = self.terms.permit(roster, a, question, consult.inputs, consult.mandate, now)
        state = "approved"
        if self.consent is not None:
            state = self.consent.state(question, charge, consult.mandate, sender, roster, now)
        return "consulted", Consulted(question.id, state), []

    def _vote(self, received: Received) -> tuple[str, Record, list[bytes]]:
        ask = Ask.decode(received.payload)
        self._about(ask.announcement.scope, ask.announcement.round, ask.announcement.attempt)
        vote = self.machine.vote(ask, now=self._clock.now())
        self._saved()
        return "vote", vote, []

    def _abort(self, received: Received) -> tuple[str, Record, list[bytes]]:
        vote = self.machine.vote_abort(Announcement.decode(received.payload))
        self._saved()
        return "vote", vote, []

    def _release(self, received: Received) -> tuple[str, Record, list[bytes]]:
        ask = Ask.decode(received.payload)
        self._about(ask.announcement.scope, ask.announcement.round, ask.announcement.attempt)
        release = self.machine.release(ask, now=self._clock.now())
        self._saved()
        return "release", release, []

    def __repr__(self) -> str:
        return f"SiteNode({self.party!r})"
