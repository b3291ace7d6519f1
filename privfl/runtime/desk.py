"""The coordinator's desk: one request to each of many sites, their replies, and how long anyone is waited for."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from privfl_keys import Roster

from privfl.clock import Clock
from privfl.codec import Record
from privfl.errors import Malformed, PrivflError, StorageError, WireError
from privfl.runtime.plain import visible
from privfl.runtime.post import Hello, Ping, Post, Received, Refusal
from privfl.secagg import Equivocation

__all__ = ["Desk", "Take", "View"]

log = logging.getLogger("privfl.coordinator")

MAX_REASON = 2000  # characters of a site's reason

#: Takes one reply in; returns whether no more are needed. Raises PrivflError for one that is not taken.
Take = Callable[[Received], bool]


@dataclass
class View:
    """What the coordinator is at, for people who look on; public things only.

    Attributes:
        phase: "idle", "epoch", "collecting", "voting" or "releasing"; round, attempt and deadline of the slot.
        asked, answered: sites of the running phase. refused: site → reason. sizes: bytes of an upload by site.
        seen: when each site was last heard of, milliseconds since 1970.
        hello: sites that said so and are waiting for the next epoch.
        apart: sites that run under another roster or policy than the coordinator, and which.
    """

    phase: str = "idle"
    round: int = 0
    attempt: int = 0
    deadline: int = 0
    asked: tuple[bytes, ...] = ()
    answered: set[bytes] = field(default_factory=set)
    refused: dict[bytes, str] = field(default_factory=dict)
    sizes: dict[bytes, int] = field(default_factory=dict)
    seen: dict[bytes, int] = field(default_factory=dict)
    hello: set[bytes] = field(default_factory=set)
    apart: dict[bytes, str] = field(default_factory=dict)


@dataclass
class Desk:
    """Asks sites and waits for them, but never long for one.

    Args:
        patience_ms: how long a phase may wait for the last sites. grace_ms: once as many have answered as are
            needed, the others get this long, or as long as those took.
        quiet: whether an empty mailbox ends a phase early.
        roster: in force here, to tell sites that run under another.
        commit: makes what was taken in durable, before it is acknowledged. changed: called when the view has.
    """

    post: Post
    clock: Clock
    patience_ms: int
    grace_ms: int
    quiet: bool
    commit: Callable[[], None]
    changed: Callable[[], None]
    roster: Roster | None = None
    view: View = field(default_factory=View)
    evidence: list[tuple[bytes, bytes]] = field(default_factory=list)
    _silent: set[bytes] = field(default_factory=set)  # did not answer the last time: nobody waits for them
    _late: dict[tuple[str, bytes], tuple[int, int]] = field(default_factory=dict)  # see :meth:`_missed`

    def listen(self, wait_ms: int) -> int:
        """Take in what is not an answer to anything: who is up. Returns how many messages there were."""
        return self.post.receive(wait_ms, self._heard)

    def gather(self, sites: Sequence[bytes], wait_ms: int) -> tuple[bytes, ...]:
        """Ask who is up; returns those that answered, or said so by themselves, within ``wait_ms``."""
        self.view.phase = "waiting"
        self.exchange("ping", dict.fromkeys(sites, Ping()), lambda received: False, patience=wait_ms)
        present = self.view.answered | self.view.hello
        return tuple(site for site in sites if site in present)

    def _heard(self, received: Received) -> None:
        self.view.seen[received.sender] = self.clock.now()
        self._silent.discard(received.sender)
        if received.kind == "hello":
            self.view.hello.add(received.sender)
            self._compared(received)
            self._late = {key: value for key, value in self._late.items() if key[1] != received.sender}

    def _missed(self, kind: str, site: bytes) -> None:
        """A site has not answered in time: the next 4 times it is not waited for, then, after one more grace, 16, 64.

        Without this a site that lives and is always slower than the grace would cost every round that grace: its
        answer to the round before shows that it is not silent. Kept by kind of request, for a slow computer may
        well vote at once. An answer in time, or a fresh start, makes up for it.
        """
        times, left = self._late.get((kind, site), (0, 0))
        if left:
            self._late[kind, site] = times, left - 1
        elif site not in self._silent:
            self._late[kind, site] = times + 1, 4 ** min(times + 1, 3)

    def _excused(self, kind: str, site: bytes) -> bool:
        """Whether nobody waits for this site; asked anew each time, for it may have started again meanwhile."""
        return site in self._silent or self._late.get((kind, site), (0, 0))[1] > 0

    def _compared(self, received: Received) -> None:
        """Say once of a site that it runs under another roster; nothing that it then sends can be used."""
        site, own = received.sender, self.roster
        try:
            theirs = Hello.decode(received.payload)
        except Malformed:
            return
        if own is None or theirs.roster == own.hash:
            self.view.apart.pop(site, None)
        elif site not in self.view.apart:
            self.view.apart[site] = f"runs under another roster than version {own.version}; it needs: privfl site join"
            log.warning("site %s %s", own.member(site).name, self.view.apart[site])

    def exchange(
        self,
        kind: str,
        requests: Mapping[bytes, Record],
        take: Take,
        *,
        least: int | None = None,
        patience: int | None = None,
    ) -> dict[bytes, str]:
        """Send one request to each site and hand replies to ``take`` until it returns true or time is up.

        Args:
            least: once so many have been taken, the rest are waited for a little longer only, and those that
                were silent in the last phase, or late again and again, not at all.
            patience: in milliseconds, if another than the desk's own.

        Returns the reasons of those that refused, and why a reply was not taken.
        """
        self.view.asked, self.view.answered = tuple(requests), set()
        sent = {self.post.send(site, kind, body.encode()): site for site, body in requests.items()}
        phase = _Phase(self, kind, sent, take)
        began = self.clock.now()
        until, hurried = began + (self.patience_ms if patience is None else patience), False
        self.changed()
        while phase.pending and not phase.enough and self.clock.now() < until:
            wait = min(1000, max(1, until - self.clock.now()))
            if self.post.receive(wait, phase.handle, commit=self.commit):
                self.changed()
            elif self.quiet:
                break
            if least is not None and phase.taken >= least and not hurried:
                hurried, now = True, self.clock.now()
                until = min(until, now + max(self.grace_ms, now - began))
            if hurried and all(self._excused(kind, site) for site in phase.pending.values()):
                break
        if not phase.enough:
            for site in phase.pending.values() if hurried else ():
                self._missed(kind, site)
            self._silent.update(phase.pending.values())
        self.changed()
        return phase.reasons


class _Phase:
    """The replies to one request that went to many."""

    def __init__(self, desk: Desk, kind: str, pending: dict[bytes, bytes], take: Take) -> None:
        self._desk, self._kind, self._take = desk, kind, take
        self.pending = pending  # message id → site
        self.reasons: dict[bytes, str] = {}
        self.taken, self.enough = 0, False

    def handle(self, received: Received) -> None:
        """Take one message in; raises WireError if its body is not there yet, StorageError if the disk fails."""
        desk = self._desk
        desk._heard(received)
        site = self.pending.get(received.reply_to)
        if site is None or site != received.sender:
            return  # a late or repeated reply of an earlier phase
        try:
            if received.kind == "refused":
                # a site's words reach people's terminals and logs by many ways
                said = visible(Refusal.decode(received.payload).reason[:MAX_REASON])
                self.reasons[site] = desk.view.refused[site] = said
            elif not self.enough:  # replies beyond what was needed change nothing any more
                self.enough = self._take(received)
                self.taken += 1
                desk.view.answered.add(site)
        except (WireError, StorageError):
            raise  # the message comes again
        except PrivflError as error:
            log.warning("%s from %s is not taken: %s", self._kind, site.hex()[:8], error)
            self.reasons[site] = str(error)
            if isinstance(error, Equivocation):
                desk.evidence.append(error.evidence)
        desk._late.pop((self._kind, site), None)
        del self.pending[received.reply_to]
