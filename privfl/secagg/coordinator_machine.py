"""The coordinator's machine: relays an epoch's set-up, runs slots, adds up, publishes transcripts.

Its state is a value that the driver stores before it sends; what is too large for a state (bodies,
blobs, releases) lies on a :class:`Shelf` under names that carry a digest.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Protocol

from privfl_keys import SignedRoster

from privfl.entropy import Entropy
from privfl.errors import Misuse
from privfl.secagg import coordinator
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
    Upload,
    Vote,
)
from privfl.secagg.party import Equivocation, Party, SecretRecord
from privfl.secagg.reconstruct import Layout
from privfl.secagg.record import build_record, mutually_confirmed
from privfl.secagg.slot import Topology, check_announcement, ring_of
from privfl.secagg.transcript import OpenedSum, ReleaseStub, Transcript, seal_sum

__all__ = ["CoordinatorMachine", "CoordinatorWhole", "Shelf", "release_name", "shelf_name"]


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
    def has_record(self) -> bool:
        """Whether an epoch is set up."""
        return self._state.record is not None

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
