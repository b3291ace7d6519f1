"""The coordinator at work: opens epochs, runs rounds to an opened sum, retries, and never waits for one site.

It holds no privacy: everything it asks for is checked by each site against the site's own terms.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from privfl_keys import SignedRoster

from privfl.clock import Clock
from privfl.codec import Record
from privfl.entropy import Entropy
from privfl.errors import Refused, RoundAborted
from privfl.homes.state import Items
from privfl.ring import Ring, packed_size
from privfl.runtime.desk import Desk, View
from privfl.runtime.logs import where
from privfl.runtime.post import (
    Adverts,
    Contributions,
    Invitation,
    Joining,
    OpenEpoch,
    Post,
    Received,
    Unmet,
)
from privfl.runtime.site import inputs_hash
from privfl.runtime.words import by_reason
from privfl.secagg import (
    Advert,
    Announcement,
    Blame,
    Confirmations,
    CoordinatorMachine,
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
from privfl.tasks import Question
from privfl.wires import Mailbox

__all__ = ["CoordinatorNode", "RoundResult"]

log = logging.getLogger("privfl.coordinator")
_FIGURES = re.compile(r"\d[\d.,:e+-]*")
PHASES = 3  # a slot may take: uploads, votes, releases


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


class _Asks(Mapping[bytes, Record]):
    """The request to each member, made when it is sent: together they hold every site's blob for every member."""

    def __init__(self, machine: CoordinatorMachine, members: Sequence[bytes]) -> None:
        self._machine, self._members = machine, members

    def __getitem__(self, member: bytes) -> Record:
        return self._machine.ask(member)

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._members)

    def __len__(self) -> int:
        return len(self._members)


class CoordinatorNode:
    """Drives a :class:`~privfl.secagg.CoordinatorMachine` over a mailbox.

    With a ``state`` it goes on where it was after a restart: everything that came in is durable before it is
    acknowledged, and a slot that was open is taken up in the phase it was in.

    Args:
        patience_ms: how long a phase may wait for the last sites, by the coordinator's clock.
        grace_ms: once as many have answered as are needed, the others get this long, or as long as those took.
        quiet: whether an empty mailbox ends a phase early; true for wires on which nothing is in
            flight once nobody works (the memory wire).
        changed: called whenever :attr:`view` has changed.
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
        grace_ms: int = 2_000,
        quiet: bool = False,
        state: Items | None = None,
        changed: Callable[[], None] = lambda: None,
    ) -> None:
        dump = state.get("machine") if state is not None else None
        self.machine = (
            CoordinatorMachine(party, roster, entropy, shelf)
            if dump is None
            else CoordinatorMachine.load(party, roster, entropy, shelf, dump)
        )
        self._state, self._clock, self._patience = state, clock, patience_ms
        self._post = Post(party, mailbox, entropy, peer_role="site", clock=clock)
        self.desk = Desk(self._post, clock, patience_ms, grace_ms, quiet, self._commit, changed, party.roster)
        self._unopened: bytes | None = None  # the machine before it opened a sum that nobody has taken yet
        self.last_abort = ""
        self.convicted: dict[bytes, str] = {}  # dealers whose own shares contradict their header, and how

    @property
    def view(self) -> View:
        """What the coordinator is at, for people who look on."""
        return self.desk.view

    @property
    def evidence(self) -> list[tuple[bytes, bytes]]:
        """Pairs of messages that contradict each other, each signed by one site."""
        return self.desk.evidence

    def save(self, more: Mapping[str, bytes | None] | None = None) -> None:
        """Make the machine's state durable, together with ``more``."""
        self._unopened = None
        if self._state is not None:
            self._state.put({"machine": self.machine.dump(), **(more or {})})

    def _commit(self) -> None:
        """Make what came in durable; a sum that was just opened counts as unopened until whoever takes it saves."""
        if self._state is not None:
            self._state.put({"machine": self.machine.dump() if self._unopened is None else self._unopened})

    # -- epoch --------------------------------------------------------------------------------------

    def open_epoch(self, sites: Sequence[bytes]) -> dict[bytes, str]:
        """Set up pair keys among ``sites``; returns why each that is not in the epoch was left out.

        Raises:
            Refused: too few sites confirmed one another.
        """
        here, reasons = tuple(sites), dict[bytes, str]()
        if self.slot_open:
            self.machine.abandon()
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
        scope, least = machine.start_epoch(), machine.party.roster.default_min_survivors
        self.view.phase = "epoch"
        self.save()

        def advert(received: Received) -> bool:
            machine.receive_advert(Advert.decode(received.payload))
            return False

        def contributions(received: Received) -> bool:
            machine.receive_contributions(Contributions.decode(received.payload).contributions)
            return False

        def confirmations(received: Received) -> bool:
            machine.receive_confirmations(Confirmations.decode(received.payload))
            return False

        reasons |= self.desk.exchange(
            "open-epoch", {site: OpenEpoch(scope.epoch) for site in sites}, advert, least=least
        )
        here = [one.site for one in machine.adverts]
        reasons |= self.desk.exchange(
            "adverts", {site: Adverts(machine.adverts) for site in here}, contributions, least=least
        )
        boxes = {site: Contributions(machine.contributions_for(site)) for site in here}
        reasons |= self.desk.exchange("contributions", boxes, confirmations, least=least)
        record, confirmed = machine.fix_record()
        self.save()
        joining = Joining(record, confirmed)

        def joined(received: Received) -> bool:
            if received.kind == "unmet":
                inside = set(split(Unmet.decode(received.payload).peers)) & set(record.sites) - {received.sender}
                pairs = {(min(peer, received.sender), max(peer, received.sender)) for peer in inside}
                unmet.extend(pairs.difference(unmet))
            return False

        reasons |= self.desk.exchange("record", dict.fromkeys(record.sites, joining), joined, least=least)
        self.view.hello.clear()
        for site in sites:
            if site not in record.sites:
                reasons.setdefault(site, "did not answer in time")
        return reasons

    def end_epoch(self) -> None:
        """Tell the sites that nothing more will be asked in this epoch, so that they erase its keys; best effort."""
        if self.machine.has_record and not self.slot_open:
            scope = self.machine.record.scope
            for site in self.machine.record.sites:
                self._post.send(site, "end-epoch", OpenEpoch(scope.epoch).encode())

    @property
    def epoch_open(self) -> bool:
        """Whether there is an epoch of the present roster to run rounds in."""
        return self.machine.has_record and self.machine.record.scope.roster == self.machine.party.roster.hash

    @property
    def slot_open(self) -> bool:
        """Whether a slot waits to be taken up again."""
        return self.machine.slot.stage in ("collecting", "voting", "releasing")

    # -- round --------------------------------------------------------------------------------------

    def run_round(
        self,
        task: Question,
        inputs: bytes,
        policy: bytes,
        number: int,
        *,
        complete: bool,
        min_survivors: int,
        attempts: int = 1,
        first: int = 0,
        mandate: bytes = b"",
        on_attempt: Callable[[int], Mapping[str, bytes | None] | None] = lambda attempt: None,
    ) -> RoundResult:
        """Run one round to an opened sum, with up to ``attempts`` tries; each try is charged at the sites.

        A slot of this very question that was open when the coordinator stopped is taken up first. The state
        after the sum is opened is *not* saved: whoever takes the sum saves both together (:meth:`save`), or
        opens it once more after a crash.

        Args:
            number, first: the slot; ``first`` is the number of the first new attempt.
            mandate: of the analyst who asks, if it is not the coordinator itself.
            on_attempt: called before each new attempt; what it returns is saved with the announcement.

        Raises:
            RoundAborted: no attempt could be opened; the message says what was missing in the last.
            Refused: every site refused, with the reason, or with each site's own where they differ.
        """
        last: Exception = RoundAborted("no attempt was left")
        announcement, tries = self._unfinished(task, inputs, policy, number), attempts
        while announcement is not None or tries > 0:
            if announcement is None:
                attempt, tries = first + attempts - tries, tries - 1
                announcement = self._announced(
                    task, inputs, policy, (number, attempt), complete, min_survivors, on_attempt(attempt)
                )
            a, announcement = announcement, None
            with where(epoch=a.scope.epoch, round=a.round, attempt=a.attempt):
                try:
                    return self._attempt(task, inputs, a, mandate)
                except (RoundAborted, TooFewShares) as error:
                    last, self.last_abort = error, str(error)
                    log.warning("round %d, attempt %d: %s", number, a.attempt, error)
                    self._give_up(a, votes=not a.complete or task.sum_of(inputs).release is None)
        raise RoundAborted(f"round {number} was given up after {attempts} attempt(s): {last}")

    def _unfinished(self, task: Question, inputs: bytes, policy: bytes, number: int) -> Announcement | None:
        """The announcement of a slot that was open when this coordinator stopped, if it asks the same."""
        slot = self.machine.slot
        if not self.slot_open:
            return None
        a = slot.current()
        same = (a.task, a.inputs, a.policy, a.round) == (task.id, inputs_hash(inputs), policy, number)
        if same and self.epoch_open and a.record == self.machine.record.digest and self._clock.now() < a.deadline:
            log.info("round %d, attempt %d is taken up again: %s", a.round, a.attempt, slot.stage)
            return a
        log.warning("round %d, attempt %d cannot be taken up again and is given up", a.round, a.attempt)
        self.machine.abandon()
        self.save()
        return None

    def _announced(
        self,
        task: Question,
        inputs: bytes,
        policy: bytes,
        slot: tuple[int, int],
        complete: bool,
        least: int,
        more: Mapping[str, bytes | None] | None,
    ) -> Announcement:
        total = task.sum_of(inputs)
        plan = SlotPlan(
            task.id,
            inputs_hash(inputs),
            policy,
            total.ring.bits,
            total.ring.word,
            total.length,
            self._cohort(complete, least),
            complete,
            least,
            self._clock.now() + PHASES * self._patience,
        )
        announcement = self.machine.announce(plan, slot)
        self.save(more)
        return announcement

    def _cohort(self, complete: bool, least: int) -> tuple[bytes, ...]:
        """Everyone usable but convicted dealers, who would spoil every round; while enough are left."""
        sites = self.machine.usable
        honest = tuple(site for site in sites if site not in self.convicted)
        return sites if complete or len(honest) < least else honest

    def _said(self, reasons: Mapping[bytes, str]) -> str:
        """One reason where all give the same, whatever its figures; otherwise who gives which."""
        roster = self.machine.party.roster
        if len({_FIGURES.sub("", why) for why in reasons.values()}) == 1:  # ledgers differ by a moment or a rest
            return next(iter(reasons.values()))
        return "; ".join(by_reason({roster.member(site).name: why for site, why in reasons.items()}))

    def _attempt(self, task: Question, inputs: bytes, a: Announcement, mandate: bytes) -> RoundResult:
        view, reasons = self.view, dict[bytes, str]()
        view.round, view.attempt, view.deadline = a.round, a.attempt, a.deadline
        view.refused, view.sizes = {}, {}
        if self.machine.slot.stage == "collecting":
            view.phase = "collecting"
            reasons = self._collect(Invitation(a, task.descriptor(), inputs, mandate), view.sizes)
            if len(reasons) == len(a.sites):
                self._give_up(a, votes=not a.complete or task.sum_of(inputs).release is None)
                raise Refused(f"every site refused round {a.round}: {self._said(reasons)}")
            try:
                self.machine.close()
            except RoundAborted as error:
                why = "; ".join(sorted(set(reasons.values())))
                raise RoundAborted(f"{error}{'; refusals: ' + why if why else ''}") from None
            self.save()
        if self.machine.slot.stage == "voting":
            view.phase = "voting"
            self._certify(a)
        view.phase = "releasing"
        opened, transcript = self._open()
        self._post.drop_bodies()
        survivors = tuple(header.site for header in transcript.headers)
        dropped = tuple(site for site in a.sites if site not in survivors)
        view.phase = "idle"
        names = [self.machine.party.roster.member(site).name for site in dropped]
        log.info("opened with %d of %d sites, without %s", len(survivors), len(a.sites), ", ".join(names) or "none")
        return RoundResult(
            opened.array(), opened, transcript, survivors, dropped, reasons, a.attempt + 1, dict(view.sizes)
        )

    def _collect(self, invitation: Invitation, sizes: dict[bytes, int]) -> dict[bytes, str]:
        a = invitation.announcement
        sites, size = a.sites, packed_size(a.length, Ring(a.bits, a.word))

        def upload(received: Received) -> bool:
            message, body = Upload.decode(received.payload), received.body(size=size)
            self.machine.receive(message, body)
            sizes[received.sender] = len(received.payload) + len(body)
            return False

        missing = [site for site in sites if self.machine.slot.header_of(site) is None]
        least = max(0, a.min_survivors - (len(sites) - len(missing)))
        return self.desk.exchange("announce", dict.fromkeys(missing, invitation), upload, least=least)

    def _certify(self, a: Announcement) -> None:
        def vote(received: Received) -> bool:
            return self.machine.receive_vote(Vote.decode(received.payload))

        reasons = self.desk.exchange("ask-vote", self._asks(), vote)
        if not self.machine.slot.certified:
            why = "; ".join(sorted(set(reasons.values()))) or "the others did not answer"
            raise RoundAborted(f"fewer than {a.threshold} committee members voted: {why}")

    def _open(self) -> tuple[OpenedSum, Transcript]:
        found: tuple[OpenedSum, Transcript] | None = None

        def release(received: Received) -> bool:
            nonlocal found
            if self.machine.receive_release(Release.decode(received.payload)) and found is None:
                before = self.machine.dump() if self._state is not None else None
                try:
                    found = self.machine.finish()
                    self._unopened = before
                except TooFewShares as error:
                    log.warning("waiting for more members: %s", error)
                    for blame in error.blames:
                        if blame.kind == "dealer":
                            self._convict(blame)
            return found is not None

        slot = self.machine.slot
        if len(slot.releases) >= slot.current().threshold:  # they had come in before a restart
            return self.machine.finish()
        reasons = self.desk.exchange("ask-release", self._asks(), release)
        if found is None:
            why = "; ".join(sorted(set(reasons.values()))) or "the others did not answer"
            raise RoundAborted(f"too few committee members released their shares: {why}")
        return found

    def _convict(self, blame: Blame) -> None:
        for site in blame.sites:
            if site not in self.convicted:
                log.error("site %s is left out from now on: %s", site.hex()[:8], blame.reason)
                self.convicted[site] = blame.reason

    def _asks(self) -> Mapping[bytes, Record]:
        present = set(self.machine.record.sites)
        return _Asks(self.machine, [member for member in self.machine.record.members if member in present])

    def _give_up(self, a: Announcement, *, votes: bool) -> None:
        """Abandon the slot, and gather ABORT votes, which a retry without noise must carry."""
        self.machine.abandon()
        self.save()
        self._post.drop_bodies()
        if not votes:
            return

        def vote(received: Received) -> bool:
            self.machine.receive_vote(Vote.decode(received.payload))
            return False

        members = set(self.machine.record.members) & set(self.machine.record.sites)
        self.desk.exchange("ask-abort", dict.fromkeys(sorted(members), a), vote, least=a.threshold)
