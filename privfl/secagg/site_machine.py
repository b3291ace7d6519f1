"""The site's machine: its epoch keys, its slots, and its seat on the committee.

It holds one state that is a value. A method computes the next state and what to send, then takes the
state; the driver stores ``dump()`` before it sends anything, and after a crash goes on from the last
stored dump. The machine knows no wire, no clock and no file.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from privfl.entropy import Entropy
from privfl.errors import Refused
from privfl.secagg import committee, site
from privfl.secagg import epoch as epochs
from privfl.secagg.messages import (
    Advert,
    Announcement,
    Ask,
    Confirmations,
    Contribution,
    EpochRecord,
    Release,
    Scope,
    SeenHead,
    Upload,
    Vote,
    split,
)
from privfl.secagg.party import Party, Rules, SecretRecord

__all__ = ["SiteMachine", "SiteState"]

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
    def used(self) -> bytes:
        """used(H0): the last slot that was accepted in the present epoch, 32 bytes; empty if there was none."""
        return self._state.slot.h0

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

    @property
    def in_epoch(self) -> bool:
        """Whether there are keys of an epoch to erase."""
        return self._state.epoch is not None and self._state.epoch.stage != "erased"

    def expired(self, now: int) -> bool:
        """Whether the active epoch is so old that this site would refuse every slot in it."""
        epoch = self._state.epoch
        return epoch is not None and epoch.stage == "active" and now - epoch.joined_at > epochs.MAX_AGE_MS

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

    def acknowledge(self, head: SeenHead, *, leave: bool = True) -> None:
        """After :class:`RolledBack`, once people have settled the loss: leave the epoch, know this head from now on.

        The epoch is left because an old store may have voted or uploaded in it what it no longer knows; ``leave``
        is False only for an epoch that was joined after the loss was found.
        """
        state, epoch = self._state, self._state.epoch
        slot = site.acknowledge(self.party.key.verify_key, state.slot, head)
        if leave and epoch is not None and epoch.stage != "erased":
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
