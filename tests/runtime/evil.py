"""A coordinator that signs whatever a test wants, against honest sites of a real federation."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from privfl_keys import Label, SigningKey

from privfl.learn import Spec, Task
from privfl.runtime import Federation, SiteNode, Terms
from privfl.runtime.post import Invitation, Post, Received, Refusal
from privfl.runtime.site import inputs_hash
from privfl.secagg import Announcement, SlotPlan
from tests.runtime.support import SPEC, FixedClock, charged, federation

DEADLINE = 600_000


@dataclass
class Evil:
    """An open epoch of real sites, and the coordinator's key and post in the test's hands."""

    fed: Federation
    task: Task
    terms: Terms
    complete: bool

    @classmethod
    def make(cls, sites: int = 5, spec: Spec = SPEC, *, complete: bool = False, **options: Any) -> Evil:
        """Sites under the terms of ``spec`` compiled with ``options``, joined in one epoch."""
        fed = federation(sites, clock=FixedClock())
        least = sites if complete else fed.roster.default_min_survivors
        task = compiled(fed, spec, min_survivors=least, **options)
        terms = fed._terms(task, least, complete)
        fed._start_nodes(terms)
        made = cls(fed, task, terms, complete)
        left_out = fed._coordinator.open_epoch(sorted(fed._sites))
        assert left_out == {}
        return made

    @property
    def key(self) -> SigningKey:
        """The coordinator's identity key."""
        return self.fed._coordinator.machine.party.key

    @property
    def ids(self) -> list[bytes]:
        """The sites, sorted."""
        return sorted(self.fed._sites)

    def node(self, at: int = 0) -> SiteNode:
        """A site at work."""
        node = self.fed._sites[self.ids[at]].node
        assert node is not None
        return node

    def plan(self, of: Task | None = None, model: bytes | None = None, **changes: Any) -> SlotPlan:
        """An honest plan for a task, then changed."""
        task = of or self.task
        model = model if model is not None else self.model(task)
        cohort = self.fed._coordinator.machine.record.sites
        deadline = self.fed._clock.now() + DEADLINE
        honest = SlotPlan(
            task.id,
            inputs_hash(model),
            self.terms.hash,
            task.ring.bits,
            task.ring.word,
            task.length,
            cohort,
            self.complete,
            self.terms.min_survivors,
            deadline,
        )
        return replace(honest, **changes)

    def model(self, task: Task | None = None) -> bytes:
        """The first model of a task."""
        task = task or self.task
        return task.model_bytes(task.initial_state())

    def announce(self, slot: tuple[int, int] = (1, 0), plan: SlotPlan | None = None, **changes: Any) -> Announcement:
        """Announce through the real machine; it gives up the slot it had open."""
        machine = self.fed._coordinator.machine
        if machine.slot.stage in ("collecting", "voting", "releasing"):
            machine.abandon()
        return machine.announce(plan or self.plan(**changes), slot)

    def forge(self, announcement: Announcement, key: SigningKey | None = None, **changes: Any) -> Announcement:
        """Change an announcement behind the machine's back and sign it again."""
        key = key or self.key
        body = replace(announcement, **changes)
        return replace(body, signature=key.sign(Label.ANNOUNCEMENT, body.h0))

    def invite(
        self, announcement: Announcement, task: bytes | None = None, model: bytes | None = None, at: int = 0
    ) -> Received | None:
        """Send an invitation to one site and return its reply, None if there is none."""
        task = self.task.descriptor() if task is None else task
        model = self.model() if model is None else model
        return self.ask("announce", Invitation(announcement, task, model).encode(), at)

    def ask(self, kind: str, payload: bytes, at: int = 0) -> Received | None:
        """Send any request to one site and return its reply."""
        post: Post = self.fed._coordinator._post
        sent = post.send(self.ids[at], kind, payload)
        self.node(at).serve()
        found: list[Received] = []
        post.receive(0, found.append)
        replies = [one for one in found if one.reply_to == sent]
        return replies[-1] if replies else None

    def refused(self, *words: str, **invitation: Any) -> str:
        """The reason of a refusal that named all ``words``, after checking that nothing was spent or computed."""
        before, dump = charged(self.fed), self.node().machine.dump()
        reply = self.invite(**invitation)
        assert reply is not None
        assert reply.kind == "refused", f"the site answered with {reply.kind}"
        assert reply.refs == (), "a refusal carries no vector"
        assert charged(self.fed) == before, "a refusal cost budget"
        assert self.node().machine.dump() == dump, "a refusal changed the site's state"
        reason = Refusal.decode(reply.payload).reason
        assert all(word in reason for word in words), reason
        return reason


def compiled(fed: Federation, spec: Spec = SPEC, **options: Any) -> Task:
    """A task for the federation's schema; ``options`` win over its defaults."""
    honest: dict[str, Any] = {
        "epsilon": 8.0,
        "delta": 1e-5,
        "rounds": 4,
        "sites": len(fed.names),
        "min_survivors": fed.roster.default_min_survivors,
        "colluders": fed.roster.corrupt_bound,
    }
    return spec.compile(options.pop("schema", fed.schema), **{**honest, **options})
