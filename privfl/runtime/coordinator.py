"""The coordinator at work: opens epochs, runs rounds to an opened sum, retries, and never waits for one site.

It holds no privacy: everything it asks for is checked by each site against the site's own terms.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from privfl_keys import SignedRoster

from privfl.clock import Clock
from privfl.codec import Record
from privfl.entropy import Entropy
from privfl.errors import PrivflError, Refused, RoundAborted, WireError
from privfl.learn import Task
from privfl.ring import Ring, packed_size
from privfl.runtime.post import Adverts, Contributions, Invitation, Joining, OpenEpoch, Post, Received, Refusal, Unmet
from privfl.runtime.site import inputs_hash
from privfl.secagg import (
    Advert,
    Announcement,
    Blame,
    Confirmations,
    CoordinatorMachine,
    Equivocation,
    OpenedSum,
    Release,
    Shelf,
    SlotPlan,
    TooFewShares,
    Transcript,
    Upload,
    Vote,
)
from privfl.secagg.messages import split
from privfl.secagg.party import Party
from privfl.secagg.record import merge_disputes
from privfl.wires import Mailbox

__all__ = ["CoordinatorNode", "MemoryShelf", "RoundResult"]

log = logging.getLogger("privfl.coordinator")


class MemoryShelf:
    """The coordinator's store in memory; first write of a name wins."""

    def __init__(self) -> None:
        self._items: dict[str, bytes] = {}

    def put(self, name: str, data: bytes | memoryview) -> None:
        """Store a copy."""
        self._items.setdefault(name, bytes(data))

    def get(self, name: str) -> bytes:
        """Return what was stored; raises KeyError."""
        return self._items[name]

    def bodies(self, h0: bytes) -> dict[str, bytes]:
        """The packed vectors received in a slot, by site id in hex: all that the coordinator sees of them."""
        ends = {name: name.split("/") for name in self._items if name.endswith("/body")}
        return {parts[1]: self._items[name] for name, parts in ends.items() if parts[0] == h0.hex()}

    def clear(self) -> None:
        """Forget the bodies, blobs and releases of finished slots."""
        self._items.clear()


@dataclass(frozen=True)
class RoundResult:
    """One opened round.

    Attributes:
        total: int64, the sum over the survivors.
        survivors, dropped: site ids. refusals: reasons by site id.
        attempts: how many it took. upload_bytes: of header, blobs and vector, by site id.
    """

    total: npt.NDArray[np.int64]
    opened: OpenedSum
    transcript: Transcript
    survivors: tuple[bytes, ...]
    dropped: tuple[bytes, ...]
    refusals: Mapping[bytes, str]
    attempts: int
    upload_bytes: Mapping[bytes, int]


@dataclass
class _Inbox:
    """Replies to the requests of one phase, first one per site."""

    requests: dict[bytes, bytes] = field(default_factory=dict)  # message id -> site
    replies: dict[bytes, Received] = field(default_factory=dict)


class CoordinatorNode:
    """Drives a :class:`~privfl.secagg.CoordinatorMachine` over a mailbox.

    Args:
        patience_ms: how long a phase may wait for the last sites, by the coordinator's clock.
        quiet: whether an empty mailbox ends a phase early; true for wires on which nothing is in
            flight once nobody works (the memory wire).
    """

    def __init__(
        self,
        party: Party,
        roster: SignedRoster,
        mailbox: Mailbox,
        shelf: Shelf,
        clock: Clock,
        entropy: Entropy,
        *,
        patience_ms: int = 60_000,
        quiet: bool = False,
    ) -> None:
        self.machine = CoordinatorMachine(party, roster, entropy, shelf)
        self._post = Post(party, mailbox, entropy, peer_role="site")
        self._clock, self._patience, self._quiet = clock, patience_ms, quiet
        self.evidence: list[tuple[bytes, bytes]] = []
        self.convicted: dict[bytes, str] = {}  # dealers whose own shares contradict their header, and how

    # -- one phase ----------------------------------------------------------------------------------

    def _exchange(
        self,
        kind: str,
        requests: Mapping[bytes, Record],
        take: Callable[[Received], bool],
    ) -> dict[bytes, str]:
        """Send one request to each site and hand replies to ``take`` until it returns true or time is up.

        Returns the reasons of those that refused, and why a reply was not taken.
        """
        pending = {self._post.send(site, kind, body.encode()): site for site, body in requests.items()}
        reasons: dict[bytes, str] = {}
        enough = False
        until = self._clock.now() + self._patience

        def handle(received: Received) -> None:
            nonlocal enough
            site = pending.get(received.reply_to)
            if site is None or site != received.sender:
                return  # a late or repeated reply of an earlier phase
            try:
                if received.kind == "refused":
                    reasons[site] = Refusal.decode(received.payload).reason
                elif not enough:  # replies beyond what was needed change nothing any more
                    enough = take(received)
            except WireError:
                raise  # its body is on the way: the message comes again
            except PrivflError as error:
                log.warning("%s from %s is not taken: %s", kind, site.hex()[:8], error)
                reasons[site] = str(error)
                if isinstance(error, Equivocation):
                    self.evidence.append(error.evidence)
            del pending[received.reply_to]

        while pending and not enough and self._clock.now() < until:
            if not self._post.receive(1000, handle) and self._quiet:
                break
        return reasons

    # -- epoch --------------------------------------------------------------------------------------

    def open_epoch(self, sites: Sequence[bytes]) -> dict[bytes, str]:
        """Set up pair keys among ``sites``; returns why each that is not in the epoch was left out.

        Raises:
            Refused: too few sites confirmed one another.
        """
        here, reasons = tuple(sites), dict[bytes, str]()
        while True:
            unmet: list[tuple[bytes, bytes]] = []
            reasons |= self._set_up(here, unmet)
            # only the two ends can tell a false confirmation: whom too many name goes, else both ends of a pair
            out = merge_disputes(unmet, self.machine.party.roster.corrupt_bound)
            if not out:
                return reasons
            reasons |= dict.fromkeys(out, "no pair key with another site, by what one of the two says")
            here = tuple(site for site in here if site not in out)

    def _set_up(self, sites: Sequence[bytes], unmet: list[tuple[bytes, bytes]]) -> dict[bytes, str]:
        """One try at an epoch; adds to ``unmet`` the pairs of sites of which one says that they share no key."""
        machine, reasons = self.machine, dict[bytes, str]()
        scope = machine.start_epoch()

        def advert(received: Received) -> bool:
            machine.receive_advert(Advert.decode(received.payload))
            return False

        def contributions(received: Received) -> bool:
            machine.receive_contributions(Contributions.decode(received.payload).contributions)
            return False

        def confirmations(received: Received) -> bool:
            machine.receive_confirmations(Confirmations.decode(received.payload))
            return False

        reasons |= self._exchange("open-epoch", {site: OpenEpoch(scope.epoch) for site in sites}, advert)
        here = [one.site for one in machine.adverts]
        reasons |= self._exchange("adverts", {site: Adverts(machine.adverts) for site in here}, contributions)
        boxes = {site: Contributions(machine.contributions_for(site)) for site in here}
        reasons |= self._exchange("contributions", boxes, confirmations)
        record, confirmed = machine.fix_record()
        joining = Joining(record, confirmed)

        def joined(received: Received) -> bool:
            if received.kind == "unmet":
                inside = set(split(Unmet.decode(received.payload).peers)) & set(record.sites) - {received.sender}
                pairs = {(min(peer, received.sender), max(peer, received.sender)) for peer in inside}
                unmet.extend(pairs.difference(unmet))
            return False

        reasons |= self._exchange("record", dict.fromkeys(record.sites, joining), joined)
        for site in sites:
            if site not in record.sites:
                reasons.setdefault(site, "did not answer in time")
        return reasons

    # -- round --------------------------------------------------------------------------------------

    def run_round(
        self,
        task: Task,
        inputs: bytes,
        policy: bytes,
        number: int,
        *,
        complete: bool,
        min_survivors: int,
        attempts: int = 1,
        on_attempt: Callable[[int], None] = lambda attempt: None,
    ) -> RoundResult:
        """Run one round to an opened sum, with up to ``attempts`` tries; each try is charged at the sites.

        Raises:
            RoundAborted: no attempt could be opened; the message says what was missing in the last.
            Refused: every site refused, with the first reason.
        """
        for attempt in range(attempts):
            on_attempt(attempt)
            cohort = self._cohort(complete, min_survivors)
            deadline = self._clock.now() + 10 * self._patience
            plan = SlotPlan(
                task.id,
                inputs_hash(inputs),
                policy,
                task.ring.bits,
                task.ring.word,
                task.length,
                cohort,
                complete,
                min_survivors,
                deadline,
            )
            announcement = self.machine.announce(plan, (number, attempt))
            try:
                return self._attempt(task, inputs, announcement, attempt)
            except (RoundAborted, TooFewShares) as error:
                last = error
                log.warning("round %d, attempt %d: %s", number, attempt, error)
                self._give_up(announcement, votes=not complete or task.release is None)
        raise RoundAborted(f"round {number} was given up after {attempts} attempt(s): {last}")

    def _cohort(self, complete: bool, least: int) -> tuple[bytes, ...]:
        """Everyone usable but convicted dealers, who would spoil every round; while enough are left."""
        sites = self.machine.usable
        honest = tuple(site for site in sites if site not in self.convicted)
        return sites if complete or len(honest) < least else honest

    def _attempt(self, task: Task, inputs: bytes, a: Announcement, attempt: int) -> RoundResult:
        sizes: dict[bytes, int] = {}
        reasons = self._collect(Invitation(a, task.descriptor(), inputs), sizes)
        if len(reasons) == len(a.sites):
            self._give_up(a, votes=not a.complete or task.release is None)
            raise Refused(f"every site refused round {a.round}: {next(iter(reasons.values()))}")
        try:
            self.machine.close()
        except RoundAborted as error:
            why = "; ".join(sorted(set(reasons.values())))
            raise RoundAborted(f"{error}{'; refusals: ' + why if why else ''}") from None
        if not a.complete:
            self._certify(a)
        opened, transcript = self._open()
        survivors = tuple(header.site for header in transcript.headers)
        dropped = tuple(site for site in a.sites if site not in survivors)
        return RoundResult(opened.array(), opened, transcript, survivors, dropped, reasons, attempt + 1, sizes)

    def _collect(self, invitation: Invitation, sizes: dict[bytes, int]) -> dict[bytes, str]:
        a = invitation.announcement
        sites, size = a.sites, packed_size(a.length, Ring(a.bits, a.word))

        def upload(received: Received) -> bool:
            message, body = Upload.decode(received.payload), received.body(size=size)
            self.machine.receive(message, body)
            sizes[received.sender] = len(received.payload) + len(body)
            return False

        return self._exchange("announce", dict.fromkeys(sites, invitation), upload)

    def _certify(self, a: Announcement) -> None:
        def vote(received: Received) -> bool:
            return self.machine.receive_vote(Vote.decode(received.payload))

        reasons = self._exchange("ask-vote", self._asks(), vote)
        if not self.machine.slot.certified:
            why = "; ".join(sorted(set(reasons.values()))) or "the others did not answer"
            raise RoundAborted(f"fewer than {a.threshold} committee members voted: {why}")

    def _open(self) -> tuple[OpenedSum, Transcript]:
        found: tuple[OpenedSum, Transcript] | None = None

        def release(received: Received) -> bool:
            nonlocal found
            if self.machine.receive_release(Release.decode(received.payload)) and found is None:
                try:
                    found = self.machine.finish()
                except TooFewShares as error:
                    log.warning("waiting for more members: %s", error)
                    for blame in error.blames:
                        if blame.kind == "dealer":
                            self._convict(blame)
            return found is not None

        reasons = self._exchange("ask-release", self._asks(), release)
        if found is None:
            why = "; ".join(sorted(set(reasons.values()))) or "the others did not answer"
            raise RoundAborted(f"too few committee members released their shares: {why}")
        return found

    def _convict(self, blame: Blame) -> None:
        for site in blame.sites:
            if site not in self.convicted:
                log.error("site %s is left out from now on: %s", site.hex()[:8], blame.reason)
                self.convicted[site] = blame.reason

    def _asks(self) -> dict[bytes, Record]:
        present = set(self.machine.record.sites)
        return {member: self.machine.ask(member) for member in self.machine.record.members if member in present}

    def _give_up(self, a: Announcement, *, votes: bool) -> None:
        """Abandon the slot, and gather ABORT votes, which a retry without noise must carry."""
        self.machine.abandon()
        if not votes:
            return

        def vote(received: Received) -> bool:
            self.machine.receive_vote(Vote.decode(received.payload))
            return False

        members = set(self.machine.record.members) & set(self.machine.record.sites)
        self._exchange("ask-abort", dict.fromkeys(sorted(members), a), vote)
