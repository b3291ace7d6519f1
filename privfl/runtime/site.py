"""A site at work: it answers the coordinator's requests, each after its own checks and charges.

The order is law: check, reserve budget, record used(H0), compute, noise, mask, store, send. A failure
before the reservation costs nothing; one after it costs the reservation and leaks nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Protocol

import numpy as np
from privfl_keys import Label, content_digest, digest

from privfl.clock import Clock
from privfl.codec import Record
from privfl.dp import LocalReport
from privfl.dp.mechanisms import noised
from privfl.entropy import Entropy
from privfl.errors import DataError, PrivflError, Refused, Theirs, Unverified
from privfl.learn import BoundData, Task
from privfl.ring import Int64Array
from privfl.runtime.post import Adverts, Contributions, Invitation, Joining, OpenEpoch, Post, Received, Refusal, Unmet
from privfl.runtime.terms import Account, Terms
from privfl.secagg import Announcement, Ask, RolledBack, SiteMachine, SlotEntropy, Unconfirmed, Upload, check_degree
from privfl.secagg.messages import join
from privfl.secagg.party import Party
from privfl.wires import Mailbox

__all__ = ["MemorySiteStore", "SiteNode", "SiteStore", "inputs_hash"]

log = logging.getLogger("privfl.site")
KEPT_REPLIES = 8


def inputs_hash(inputs: bytes) -> bytes:
    """Names the model (or other input) that a slot's announcement is about."""
    return content_digest(Label.INPUTS, inputs)


class SiteStore(Protocol):
    """A site's durable state. Each call has happened, or has not, after a crash."""

    def load(self) -> bytes | None:
        """The last saved machine state."""
        ...

    def save(self, dump: bytes) -> None:
        """Make the machine state durable."""
        ...

    def save_outbox(self, dump: bytes, upload: bytes, body: bytes) -> None:
        """Make state and outgoing bytes durable together."""
        ...

    def outbox(self) -> tuple[bytes, bytes] | None:
        """The last upload and its body."""
        ...


class MemorySiteStore:
    """A store that outlives the node but not the process."""

    def __init__(self) -> None:
        self._dump: bytes | None = None
        self._outbox: tuple[bytes, bytes] | None = None

    def load(self) -> bytes | None:
        """See :class:`SiteStore`."""
        return self._dump

    def save(self, dump: bytes) -> None:
        """See :class:`SiteStore`."""
        self._dump = dump

    def save_outbox(self, dump: bytes, upload: bytes, body: bytes) -> None:
        """See :class:`SiteStore`."""
        self._dump, self._outbox = dump, (upload, body)

    def outbox(self) -> tuple[bytes, bytes] | None:
        """See :class:`SiteStore`."""
        return self._outbox


class SiteNode:
    """One site: its machine, data, terms and account behind a mailbox.

    ``checkpoint`` is called by name after each step of a slot; tests and the demo crash a site there.
    ``report`` counts what was odd about the rows, for the operator of this site alone. ``rolled_back`` is the
    alarm after which the site answers nothing any more. Refused for a roster whose graph is too sparse.
    """

    def __init__(
        self,
        party: Party,
        terms: Terms,
        account: Account,
        bound: BoundData,
        store: SiteStore,
        mailbox: Mailbox,
        clock: Clock,
        entropy: Entropy,
        checkpoint: Callable[[str, int], None] = lambda name, round_: None,
    ) -> None:
        self.party, self.terms, self.account, self.bound = party, terms, account, bound
        self._store, self._clock, self._entropy, self._checkpoint = store, clock, entropy, checkpoint
        check_degree(len(party.roster.site_ids), party.roster.corrupt_bound, party.roster.degree)
        dump = store.load()
        rules = terms.rules()
        self.machine = (
            SiteMachine(party, rules, entropy)
            if dump is None
            else SiteMachine.load(party, rules, entropy, dump, restarted=True)
        )
        self._post = Post(party, mailbox, entropy, peer_role="coordinator")
        self.report = LocalReport()
        self.rolled_back: RolledBack | None = None
        self._tasks: dict[bytes, Task] = {}
        self._replies: dict[bytes, tuple[str, bytes]] = {}
        self._handlers: dict[str, Callable[[Received], tuple[str, Record, list[bytes]]]] = {
            "open-epoch": self._open_epoch,
            "adverts": self._adverts,
            "contributions": self._contributions,
            "record": self._record,
            "announce": self._announce,
            "ask-vote": self._vote,
            "ask-abort": self._abort,
            "ask-release": self._release,
        }

    def serve(self, wait_ms: int = 0) -> int:
        """Answer what has arrived; returns how many messages there were."""
        return self._post.receive(wait_ms, self._answer)

    def _answer(self, received: Received) -> None:
        known = self._replies.get(received.id)
        if known is not None:  # delivered twice: the same answer, or the second would contradict the first
            self._post.send(received.sender, *known, reply_to=received.id)
            return
        handler = self._handlers.get(received.kind)
        try:
            if handler is None:
                raise Unverified(f"there is no request of kind {received.kind!a}")
            if self.rolled_back is not None:
                raise Refused("this site has stopped: its store is an older copy; its operator was told what to do")
            kind, reply, bodies = handler(received)
        except PrivflError as error:
            if isinstance(error, RolledBack):
                self.rolled_back = error
                log.critical("%s", error)
            else:
                log.warning("refused %a: %s", received.kind, error)
            kind, reply, bodies = "refused", Refusal(str(error)[:2000]), []
        payload = reply.encode()
        if not bodies:  # an upload lies in the outbox
            self._replies[received.id] = (kind, payload)
            if len(self._replies) > KEPT_REPLIES:
                del self._replies[next(iter(self._replies))]
        self._post.send(received.sender, kind, payload, reply_to=received.id, bodies=bodies)

    def _saved(self) -> None:
        self._store.save(self.machine.dump())

    def _open_epoch(self, received: Received) -> tuple[str, Record, list[bytes]]:
        advert = self.machine.advertise(OpenEpoch.decode(received.payload).epoch)
        self._saved()
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
        repeated = self._repeat(a, now)
        if repeated is not None:
            return repeated
        task = self._check(invitation, now)
        cost = self.terms.price(self.party.roster, a, task)
        head = self.account.reserve(a.h0, cost)
        self._checkpoint("reserved", a.round)
        self.machine.accept(a, now=now, ledger_head=head)
        self._saved()
        self._checkpoint("accepted", a.round)
        vector = self._vector(task, invitation.inputs, a)
        out = self.machine.upload(a, vector, now=self._clock.now())
        del vector
        self._checkpoint("computed", a.round)
        self._store.save_outbox(self.machine.dump(), out.message.encode(), out.body)
        self._checkpoint("stored", a.round)
        return "upload", out.message, [out.body]

    def _vector(self, task: Task, inputs: bytes, a: Announcement) -> Int64Array:
        """The site's noised vector; once charged, nothing in a row may change whether and what a site sends.

        So a fault while computing (out of memory, a local fit that breaks) makes a zero contribution with
        the same noise. Only the kind of fault is logged: its text could hold a value.
        """
        entropy = SlotEntropy(self._entropy, Label.NOISE, a.h0, self.party.id)
        try:
            return task.upload(inputs, self.bound, entropy, report=self.report)
        except Exception as error:
            log.error("round %d: computing failed (%s); this site contributes zero", a.round, type(error).__name__)
        zero = np.zeros(task.length, dtype=np.int64)
        return zero if task.release is None else noised(zero, task.release, entropy)

    def _repeat(self, a: Announcement, now: int) -> tuple[str, Record, list[bytes]] | None:
        """The stored upload of this very slot, if there is one: repeats send identical bytes."""
        stored = self._store.outbox()
        if stored is None:
            return None
        message = Upload.decode(stored[0])
        if message.header.h0 != a.h0:
            return None
        self.machine.check_resend(message)
        if now > a.deadline:
            raise Refused("the deadline has passed by this site's clock; nothing is uploaded")
        return "upload", message, [stored[1]]

    def _check(self, invitation: Invitation, now: int) -> Task:
        """Everything that may cause a refusal, before anything is charged; only public things decide."""
        a = invitation.announcement
        self.machine.examine(a, now=now)
        if inputs_hash(invitation.inputs) != a.inputs:
            raise Unverified("the model is not the one that the announcement names")
        if digest(Label.TASK, invitation.task) != a.task:
            raise Unverified("the task is not the one that the announcement names")
        task = self._tasks.get(a.task)
        if task is None:
            task = Task.from_descriptor(invitation.task)
            self._tasks = {a.task: task}
        task.read_model(invitation.inputs)
        try:
            task.check(self.bound)
        except DataError as error:
            # the operator reads the reason here; the coordinator learns only that the schema is another
            log.warning("the task does not fit the bound data: %s", error)
            raise Theirs("the task is made for another schema than the one this site's data is bound to") from None
        return task

    def _vote(self, received: Received) -> tuple[str, Record, list[bytes]]:
        vote = self.machine.vote(Ask.decode(received.payload), now=self._clock.now())
        self._saved()
        return "vote", vote, []

    def _abort(self, received: Received) -> tuple[str, Record, list[bytes]]:
        vote = self.machine.vote_abort(Announcement.decode(received.payload))
        self._saved()
        return "vote", vote, []

    def _release(self, received: Received) -> tuple[str, Record, list[bytes]]:
        release = self.machine.release(Ask.decode(received.payload), now=self._clock.now())
        self._saved()
        return "release", release, []

    def __repr__(self) -> str:
        return f"SiteNode({self.party!r})"
