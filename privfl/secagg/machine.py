"""The two machines of the protocol: a site (with its committee seat) and the coordinator.

Each holds one state that is a value. A method computes the next state and what to send, then takes
the state; the driver stores ``dump()`` before it sends anything, and after a crash goes on from the
last stored dump. Neither machine knows a wire, a clock or a file.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Protocol

import numpy as np
import numpy.typing as npt
from privfl_keys import SignedRoster

from privfl.entropy import Entropy
from privfl.errors import Misuse, Refused
from privfl.secagg import committee, coordinator, site
from privfl.secagg import epoch as epochs
from privfl.secagg.accumulate import Accumulator
from privfl.secagg.messages import (
    Advert,
    Announcement,
    Ask,
    Confirmations,
    Contribution,
    EpochRecord,
    Header,
    Release,
    Scope,
    SeenHead,
    Upload,
    Vote,
    join,
    split,
)
from privfl.secagg.party import Equivocation, Party, Rules, SecretRecord
from privfl.secagg.reconstruct import Layout
from privfl.secagg.record import build_record, mutually_confirmed
from privfl.secagg.slot import Topology, check_announcement, ring_of
from privfl.secagg.transcript import OpenedSum, ReleaseStub, Transcript, seal_sum

__all__ = ["CoordinatorMachine", "Shelf", "SiteMachine"]

MAX_EPOCH_GAP = 1024


@dataclass(frozen=True, repr=False)
class SiteState(SecretRecord):
    """All that a site remembers of the protocol."""

    TAG: ClassVar[str] = "site state"
    last_epoch: int
    epoch: epochs.EpochState | None
    slot: site.SlotState
    member: committee.MemberState


class SiteMachine:
    """One site: its epoch keys, its slots, and its seat on the committee if it has one.

    Args:
        party: identity key and roster. rules: from the site's own signed policy.
        entropy: the operating system's, except in tests.
    """

    def __init__(self, party: Party, rules: Rules, entropy: Entropy, state: SiteState | None = None) -> None:
        self.party, self.rules, self._entropy = party, rules, entropy
        self._state = state or SiteState(0, None, site.fresh_slot_state(), committee.fresh_member_state())

    @classmethod
    def load(cls, party: Party, rules: Rules, entropy: Entropy, dump: bytes, *, restarted: bool) -> SiteMachine:
        """Take up a stored state; ``restarted`` after a crash, where a half-done slot is given up in silence."""
        state = SiteState.decode(dump)
        if restarted:
            state = replace(state, slot=site.restart(state.slot))
        return cls(party, rules, entropy, state)

    def dump(self) -> bytes:
        """The whole state as bytes, secrets included; for a sealed store only."""
        return self._state.encode()

    @property
    def epoch(self) -> int:
        """The last epoch that this site has advertised for."""
        return self._state.last_epoch

    @property
    def record(self) -> EpochRecord:
        """The record of the active epoch; raises Refused if there is none."""
        return self._epoch().active()

    def _epoch(self) -> epochs.EpochState:
        if self._state.epoch is None:
            raise Refused("this site has joined no epoch yet; wait for the coordinator to open one")
        return self._state.epoch

    def advertise(self, number: int) -> Advert:
        """E0; ends the epoch before, whose keys are erased. The same number again repeats the advert."""
        known = self._state.epoch
        if known is not None and number == self._state.last_epoch and known.stage == "advertised" and known.advert:
            return known.advert
        if not self._state.last_epoch < number <= self._state.last_epoch + MAX_EPOCH_GAP:
            raise Refused(f"epoch {number} does not follow epoch {self._state.last_epoch}")
        scope = Scope(self.party.roster.federation, self.party.roster.hash, number)
        fresh = epochs.advertise(self.party, scope, self._entropy)
        self._state = replace(self._state, last_epoch=number, epoch=fresh)
        assert fresh.advert is not None
        return fresh.advert

    def contribute(self, adverts: Sequence[Advert]) -> tuple[tuple[Contribution, ...], tuple[epochs.Excluded, ...]]:
        """E1."""
        moved, out, excluded = epochs.contribute(self.party, self._epoch(), adverts, self._entropy)
        self._state = replace(self._state, epoch=moved)
        return out, excluded

    def confirm(self, contributions: Sequence[Contribution]) -> tuple[Confirmations, tuple[epochs.Excluded, ...]]:
        """E2."""
        moved, out, excluded = epochs.confirm(self.party, self._epoch(), contributions)
        self._state = replace(self._state, epoch=moved)
        return out, excluded

    def join(
        self, record: EpochRecord, confirmations: Sequence[Confirmations], *, now: int
    ) -> tuple[epochs.Excluded, ...]:
        """Accept the record; slots of earlier epochs are over, their ballots forgotten."""
        moved, excluded = epochs.join_epoch(self.party, self._epoch(), record, confirmations, now)
        old = self._state.slot
        fresh = replace(site.fresh_slot_state(), heads=old.heads, answered=old.answered, censored=old.censored)
        self._state = SiteState(self._state.last_epoch, moved, fresh, committee.fresh_member_state())
        return excluded

    def close_epoch(self) -> None:
        """Erase the epoch's keys."""
        self._state = replace(self._state, epoch=epochs.close(self._epoch()))

    def examine(self, announcement: Announcement, *, now: int) -> None:
        """Would :meth:`accept` take this announcement? Raises what it would raise; changes nothing."""
        state = self._state
        site.accept(self.party, self.rules, self._epoch(), state.slot, announcement, now=now, ledger_head=site.GENESIS)

    def accept(self, announcement: Announcement, *, now: int, ledger_head: bytes) -> None:
        """S0, after the budget is reserved; store the dump before computing."""
        state = self._state
        moved, slot = site.accept(
            self.party, self.rules, self._epoch(), state.slot, announcement, now=now, ledger_head=ledger_head
        )
        member = committee.note_accepted(state.member, announcement.slot)
        self._state = replace(state, epoch=moved, slot=slot, member=member)

    def upload(self, announcement: Announcement, vector: npt.NDArray[np.int64], *, now: int) -> site.Outgoing:
        """S1; store the dump and the outgoing bytes before sending."""
        moved, slot, out = site.upload(
            self.party, self._epoch(), self._state.slot, announcement, vector, self._entropy, now=now
        )
        self._state = replace(self._state, epoch=moved, slot=slot)
        return out

    def check_resend(self, message: Upload) -> None:
        """Raise Refused unless these are the bytes of the last upload."""
        site.check_resend(self._state.slot, message)

    def acknowledge(self, head: SeenHead) -> None:
        """After :class:`RolledBack`, once people have settled the loss: leave the epoch, know this head from now on.

        The epoch is left because an old store may have voted or uploaded in it what it no longer knows.
        """
        state, epoch = self._state, self._state.epoch
        slot = site.acknowledge(self.party.key.verify_key, state.slot, head)
        if epoch is not None and epoch.stage != "erased":
            epoch = epochs.close(epoch)
        self._state = replace(state, epoch=epoch, slot=slot)

    def vote(self, ask: Ask, *, now: int) -> Vote:
        """S2; store the dump before sending."""
        moved, out = committee.vote(self.party, self.rules, self._epoch(), self._state.member, ask, now=now)
        slot = site.note_survivors(self._state.slot, self.party.id, ask.announcement, ask.headers)
        self._state = replace(self._state, member=moved, slot=slot)
        return out

    @property
    def censored(self) -> tuple[bytes, ...]:
        """H0 of slots in which this site uploaded and was then, as a member, shown a survivor set without it."""
        return split(self._state.slot.censored)

    def vote_abort(self, announcement: Announcement) -> Vote:
        """S2, against opening anything; store the dump before sending."""
        moved, out = committee.abort(self.party, self.rules, self._epoch(), self._state.member, announcement)
        self._state = replace(self._state, member=moved)
        return out

    def release(self, ask: Ask, *, now: int) -> Release:
        """S3; store the dump before sending."""
        moved, out = committee.release(self.party, self.rules, self._epoch(), self._state.member, ask, now=now)
        self._state = replace(self._state, member=moved)
        return out

    def __repr__(self) -> str:
        return f"SiteMachine({self.party!r}, epoch {self._state.last_epoch})"


class Shelf(Protocol):
    """Where the coordinator keeps what is too large for its state. First write of a name wins."""

    def put(self, name: str, data: bytes | memoryview) -> None:
        """Store ``data``."""
        ...

    def get(self, name: str) -> bytes:
        """Return what was stored; raises KeyError."""
        ...


@dataclass(frozen=True, repr=False)
class CoordinatorWhole(SecretRecord):
    """All that the coordinator remembers."""

    TAG: ClassVar[str] = "coordinator whole"
    epoch: int
    adverts: tuple[Advert, ...]
    contributions: tuple[Contribution, ...]
    confirmations: tuple[Confirmations, ...]
    record: EpochRecord | None
    slot: coordinator.CoordinatorState


class CoordinatorMachine:
    """The coordinator: relays an epoch's set-up, runs slots, adds up, publishes transcripts."""

    def __init__(
        self,
        party: Party,
        signed_roster: SignedRoster,
        entropy: Entropy,
        shelf: Shelf,
        state: CoordinatorWhole | None = None,
    ) -> None:
        self.party, self.signed_roster, self._entropy, self._shelf = party, signed_roster, entropy, shelf
        self._state = state or CoordinatorWhole(0, (), (), (), None, coordinator.fresh_coordinator_state())
        self._sum: Accumulator | None = None
        self._inboxes: dict[bytes, dict[bytes, Contribution]] | None = None
        self._topology: Topology | None = None
        self._opening: coordinator.Opening | None = None

    @classmethod
    def load(
        cls, party: Party, signed_roster: SignedRoster, entropy: Entropy, shelf: Shelf, dump: bytes
    ) -> CoordinatorMachine:
        """Take up a stored state; the running sum is added up again from the shelf when it is needed."""
        return cls(party, signed_roster, entropy, shelf, CoordinatorWhole.decode(dump))

    def _fetch(self, name: str) -> bytes:
        try:
            return self._shelf.get(name)
        except KeyError:
            raise Misuse(f"the coordinator's store lacks '{name}', which it had taken in; abandon this slot") from None

    def dump(self) -> bytes:
        """The whole state as bytes; it holds the key that this slot's releases are sealed to."""
        return self._state.encode()

    @property
    def slot(self) -> coordinator.CoordinatorState:
        """The slot in hand."""
        return self._state.slot

    @property
    def record(self) -> EpochRecord:
        """The record of the running epoch; raises Misuse before there is one."""
        if self._state.record is None:
            raise Misuse("no epoch is open; gather adverts, contributions and confirmations first")
        return self._state.record

    def start_epoch(self, number: int | None = None) -> Scope:
        """Begin the next epoch; what was gathered for the last one is dropped."""
        number = self._state.epoch + 1 if number is None else number
        self._state = replace(self._state, epoch=number, adverts=(), contributions=(), confirmations=(), record=None)
        self._inboxes = None
        return self._scope()

    def _scope(self) -> Scope:
        return Scope(self.party.roster.federation, self.party.roster.hash, self._state.epoch)

    def receive_advert(self, advert: Advert) -> None:
        """E0; raises Theirs if it does not verify, Equivocation for a second one."""
        epochs.verify_advert(self.party, self._scope(), advert)
        known = next((one for one in self._state.adverts if one.site == advert.site), None)
        if known is not None and known.encode() != advert.encode():
            raise self._kept(Equivocation("a site signed two adverts in one epoch", known, advert))
        if known is None:
            adverts = tuple(sorted((*self._state.adverts, advert), key=lambda one: one.site))
            self._state = replace(self._state, adverts=adverts)

    @property
    def adverts(self) -> tuple[Advert, ...]:
        """What every site of the epoch is shown before E1."""
        return self._state.adverts

    def receive_contributions(self, messages: Sequence[Contribution]) -> None:
        """E1: keep them for their recipients; the first of each pair stands.

        Recipients verify them as well. Here it keeps a site from filing rubbish under the name of another,
        whose own contributions would then come too late.

        Raises:
            Theirs: one is not its sender's, or is for another epoch or advert; none is kept.
        """
        adverts, fresh = {one.site: one.digest for one in self._state.adverts}, []
        for message in messages:
            if message.sender not in self._boxes().get(message.recipient, {}):
                epochs.verify_contribution(self.party, self._scope(), adverts, message)
                fresh.append(message)
        kept = [m for m in fresh if self._boxes().setdefault(m.recipient, {}).setdefault(m.sender, m) is m]
        self._state = replace(self._state, contributions=(*self._state.contributions, *kept))

    def _boxes(self) -> dict[bytes, dict[bytes, Contribution]]:
        if self._inboxes is None:
            self._inboxes = {}
            for one in self._state.contributions:
                self._inboxes.setdefault(one.recipient, {})[one.sender] = one
        return self._inboxes

    def contributions_for(self, site_id: bytes) -> tuple[Contribution, ...]:
        """What one site is shown before E2."""
        return tuple(self._boxes().get(site_id, {}).values())

    def receive_confirmations(self, message: Confirmations) -> None:
        """E2; raises Theirs if the signature does not verify."""
        epochs.verify_confirmations(self.party.site_key(message.site), self._scope(), message)
        # once the record is fixed, what comes late is of a site outside it, and belongs in no transcript
        if self._state.record is None and message.site not in {one.site for one in self._state.confirmations}:
            self._state = replace(self._state, confirmations=(*self._state.confirmations, message))

    def fix_record(self) -> tuple[EpochRecord, tuple[Confirmations, ...]]:
        """Fix the epoch record; returns it with the confirmations that the sites check it against."""
        state = self._state
        record = state.record or build_record(self.party.roster, self._scope(), state.adverts, state.confirmations)
        inside = tuple(sorted((c for c in state.confirmations if c.site in record.sites), key=lambda c: c.site))
        self._state = replace(state, record=record, confirmations=inside, contributions=())
        self._inboxes = None
        return record, inside

    @property
    def usable(self) -> tuple[bytes, ...]:
        """Sites of the record that can work together: on a sparse graph without those that silence neighbours."""
        state, record = self._state, self.record
        return mutually_confirmed(self.party.roster, record.scope, record.sites, state.confirmations)

    def announce(self, plan: coordinator.SlotPlan, slot: tuple[int, int]) -> Announcement:
        """S0; store the dump before sending."""
        moved, out = coordinator.announce(self.party, self.record, self.slot, plan, slot, self._entropy)
        self._state = replace(self._state, slot=moved)
        self._sum, self._topology, self._opening = Accumulator(ring_of(out), out.length), None, None
        return out

    def topology(self) -> Topology:
        """The graph of the slot in hand."""
        if self._topology is None:
            self._topology = check_announcement(self.party.roster, self.record, self.slot.current())
        return self._topology

    def _opening_of(self) -> coordinator.Opening:
        if self._opening is None:
            self._opening = coordinator.Opening(self.topology(), self.slot)
        return self._opening

    def receive(self, message: Upload, body: bytes | memoryview) -> bool:
        """S1: verify, shelve blobs and body, add the body to the sum; returns whether it was new.

        Raises:
            Theirs: the header, a blob or the body does not verify; nothing was added or stored.
        """
        running = self._running_sum()
        try:
            moved, new = coordinator.receive(self.topology(), self.slot, message)
        except Equivocation as error:
            raise self._kept(error) from None
        if not new:
            return False
        running.add(message.header, body)
        self._sum = None  # a shelf that fails must not leave a vector in the sum that the state does not know
        name = shelf_name(message.header)
        self._shelf.put(f"{name}/body", body)
        for at, blob in enumerate(message.blobs):
            self._shelf.put(f"{name}/blob/{at}", blob)
        self._state, self._sum = replace(self._state, slot=moved), running
        return True

    def _running_sum(self) -> Accumulator:
        if self._sum is None:
            a = self.slot.current()
            running = Accumulator(ring_of(a), a.length)
            inside = self.slot.inside() if self.slot.survivors else self.slot.headers
            for header in inside:
                running.add(header, self._fetch(f"{shelf_name(header)}/body"))
            self._sum = running  # only once it is whole
        return self._sum

    def close(self) -> tuple[bytes, ...]:
        """Fix U and take the vectors of sites outside it back out of the sum; returns those sites.

        Raises:
            RoundAborted: no admissible U; call :meth:`abandon`.
        """
        running = self._running_sum()
        moved, out = coordinator.close(self.topology(), self.slot)
        self._sum = None  # added up again if one of the vectors cannot be read back and taken out
        for header in self.slot.headers:
            if header.site in out:
                running.subtract(header, self._fetch(f"{shelf_name(header)}/body"))
        self._state, self._sum, self._opening = replace(self._state, slot=moved), running, None
        return out

    def abandon(self) -> None:
        """Give the slot up."""
        self._state = replace(self._state, slot=coordinator.abandon(self.slot))
        self._sum = self._opening = None

    def ask(self, member: bytes) -> Ask:
        """S2, or S3 once certified: the request for one member."""
        at = self.record.members.index(member) if member in self.record.members else -1
        return coordinator.ask(
            self._opening_of(), self.slot, member, lambda header: self._fetch(f"{shelf_name(header)}/blob/{at}")
        )

    def receive_vote(self, vote: Vote) -> bool:
        """S2; returns whether the slot is certified now."""
        choice = self._opening_of().layout.choice if self.slot.stage == "voting" else b""
        try:
            moved = coordinator.receive_vote(self.topology(), self.slot, vote, choice)
            self._state = replace(self._state, slot=moved)
        except Equivocation as error:
            raise self._kept(error) from None
        return self.slot.certified

    def _kept(self, error: Equivocation) -> Equivocation:
        """Keep the evidence for the transcripts, once per message that was contradicted."""
        known = self.slot.evidence
        if all(first != error.evidence[0] for first, _ in known):
            self._state = replace(self._state, slot=replace(self.slot, evidence=(*known, error.evidence)))
        return error

    def receive_release(self, message: Release) -> bool:
        """S3; returns whether t releases have come in."""
        encoded = message.encode()
        moved, new = coordinator.receive_release(self._opening_of(), self.slot, message, encoded)
        if new:
            self._shelf.put(release_name(moved.current(), moved.releases[-1]), encoded)
        self._state = replace(self._state, slot=moved)
        return len(moved.releases) >= moved.current().threshold

    def finish(self) -> tuple[OpenedSum, Transcript]:
        """S4: the sum over U and its transcript.

        Raises:
            TooFewShares: ask further members for releases and call again.
        """
        running = self._running_sum()
        a, opening = self.slot.current(), self._opening_of()
        moved, keys, stubs = coordinator.open_sum(opening, self.slot, lambda note: self._fetch(release_name(a, note)))
        self._sum = None  # unmasking spends it, whatever fails after
        opening.opened.clear()  # the shares are not needed any more, and lie in memory beside the sum
        opened = seal_sum(running.unmask(keys.plus, keys.minus), self._entropy.draw(32))
        transcript = self._transcript(moved, opening.layout, keys.seed_hashes, opened, stubs)
        self._state, self._opening = replace(self._state, slot=moved), None
        return opened, transcript

    def _transcript(
        self,
        state: coordinator.CoordinatorState,
        layout: Layout,
        seeds: bytes,
        opened: OpenedSum,
        stubs: tuple[ReleaseStub, ...],
    ) -> Transcript:
        bare = Transcript(
            self.signed_roster,
            self.record,
            self._state.confirmations,
            state.current(),
            layout.headers,
            tuple(sorted(state.votes, key=lambda vote: vote.member)),
            stubs,
            seeds,
            bytes(32),
            tuple(replace(blame, evidence=()) for blame in state.blames),
            state.evidence,
            bytes(64),
        )
        commitment = opened.commitment(state.current().h0, layout.choice)
        return replace(bare, sum_commitment=commitment).signed(self.party.key)

    def __repr__(self) -> str:
        return f"CoordinatorMachine({self.party!r}, epoch {self._state.epoch}, {self.slot.stage})"


def shelf_name(header: Header) -> str:
    """Where an upload lies on the shelf; names its bytes, so that one left by a crash hides no other."""
    return f"{header.h0.hex()}/{header.site.hex()}/{header.digest.hex()}"


def release_name(announcement: Announcement, note: coordinator.ReleaseNote) -> str:
    """Where a release lies on the shelf; names its bytes as well."""
    return f"{announcement.h0.hex()}/release/{note.member.hex()}/{note.digest.hex()}"


def ids(*sites: bytes) -> bytes:
    """Concatenate ids in order; for callers that build cohorts."""
    return join(sorted(sites))
