"""What attackers do with the keys they hold: sign again what they changed, ask whom they like for what they like.

Nothing here re-implements a check: messages are built by the real machines, changed, and signed again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from privfl_keys import Label, Roster, SealingKey, SigningKey, derive

from privfl.errors import PrivflError
from privfl.ring import to_words, unpack
from privfl.secagg import ABORT, CoordinatorMachine, Rules, SiteMachine
from privfl.secagg.masks import apply_masks
from privfl.secagg.messages import Announcement, Ask, Confirmations, EpochRecord, Header, Release, Vote, survivors_hash
from privfl.secagg.party import Party
from privfl.secagg.reconstruct import Layout, OpenedRelease, open_release
from privfl.secagg.site import Outgoing
from privfl.secagg.site_machine import SiteState
from privfl.secagg.slot import mask_key, ring_of
from tests.harness import LEDGER, NOW, POLICY, Harness, MemoryShelf

BLANK = bytes(64)


def noiseless(least: int) -> Rules:
    """Rules of a federation without noise."""
    return Rules(POLICY, least, noiseless=True)


def ready(n: int = 5, **options: Any) -> Harness:
    """A federation with an open epoch."""
    h = Harness.make(n, **options)
    h.open_epoch()
    return h


def forged(h: Harness, base: Announcement, key: SigningKey | None = None, **changes: Any) -> Announcement:
    """``base`` with changes, signed again with the coordinator's key (or another)."""
    body = replace(base, **changes)
    return replace(body, signature=(key or h.coordinator_key).sign(Label.ANNOUNCEMENT, body.h0))


def resigned(h: Harness, header: Header, key: SigningKey | None = None, **changes: Any) -> Header:
    """``header`` with changes, signed again by its site, a colluder."""
    body = replace(header, **changes)
    signer = key or h.keys[body.site]
    return replace(body, signature=signer.sign(Label.HEADER, body.digest, body.ledger_head))


def signed_vote(h: Harness, member: bytes, a: Announcement, choice: bytes = ABORT, **changes: Any) -> Vote:
    """A vote by a corrupt member, whose key the attacker holds."""
    body = replace(Vote(a.scope, a.round, a.attempt, a.h0, member, choice, b"", BLANK), **changes)
    return replace(body, signature=h.keys[member].sign(Label.VOTE, *body.binding()))


def upload(h: Harness, site: bytes, a: Announcement, vector: npt.NDArray[np.int64]) -> Outgoing:
    """One site accepts and uploads; the attacker keeps what left."""
    h.sites[site].accept(a, now=NOW, ledger_head=LEDGER)
    return h.sites[site].upload(a, vector, now=NOW)


@dataclass
class Slot:
    """What a coordinator that follows no rule has in hand after S1."""

    h: Harness
    a: Announcement
    out: dict[bytes, Outgoing]
    vectors: dict[bytes, npt.NDArray[np.int64]]

    @classmethod
    def run(cls, h: Harness, slot: tuple[int, int] = (1, 0), sites: Iterable[bytes] | None = None, **plan: Any) -> Slot:
        """Announce, and gather the uploads of ``sites`` (default: the cohort)."""
        a = h.coordinator.announce(h.plan(**plan), slot)
        return cls.of(h, a, sites)

    @classmethod
    def of(cls, h: Harness, a: Announcement, sites: Iterable[bytes] | None = None) -> Slot:
        """Gather the uploads for an announcement already made."""
        vectors = h.vectors(a)
        chosen = sorted(a.sites if sites is None else sites)
        return cls(h, a, {site: upload(h, site, a, vectors[site]) for site in chosen}, vectors)

    def headers(self, sites: Iterable[bytes]) -> tuple[Header, ...]:
        """Headers of ``sites``, in order."""
        return tuple(self.out[site].message.header for site in sorted(sites))

    def choice(self, sites: Iterable[bytes]) -> bytes:
        """H(U) of ``sites``."""
        return survivors_hash(self.a.h0, self.headers(sites))

    def ask(self, member: bytes, sites: Iterable[bytes], votes: Sequence[Vote] = ()) -> Ask:
        """The request about ``sites`` that ``member`` gets."""
        at, chosen = self.h.coordinator.record.members.index(member), sorted(sites)
        blobs = tuple(self.out[site].message.blobs[at] for site in chosen)
        return Ask(self.a, self.headers(chosen), blobs, tuple(votes))

    def vote(self, member: bytes, sites: Iterable[bytes]) -> Vote:
        """Have an honest member vote."""
        return self.h.sites[member].vote(self.ask(member, sites), now=NOW)

    def votes(self, sites: Iterable[bytes], members: Iterable[bytes]) -> tuple[Vote, ...]:
        """Have honest members vote for ``sites``."""
        chosen = list(sites)
        return tuple(self.vote(member, chosen) for member in members)

    def release(self, member: bytes, sites: Iterable[bytes], votes: Sequence[Vote] = ()) -> Release:
        """Have an honest member release."""
        return self.h.sites[member].release(self.ask(member, sites, votes), now=NOW)

    def layout(self, sites: Iterable[bytes]) -> Layout:
        """Where which share stands."""
        return Layout(self.h.coordinator.topology(), self.a, self.headers(sites))

    def opened(self, message: Release, sites: Iterable[bytes]) -> OpenedRelease:
        """Open a release with the coordinator's key of the slot."""
        chosen = list(sites)
        return open_release(self.layout(chosen), self.choice(chosen), reply_key(self.h), message)

    def words(self, site: bytes) -> npt.NDArray[Any]:
        """The masked vector of ``site`` as words."""
        return unpack(self.out[site].body, ring_of(self.a), self.a.length)

    def plain_words(self, site: bytes) -> npt.NDArray[Any]:
        """Its vector before masking, cut to the ring."""
        ring = ring_of(self.a)
        words: npt.NDArray[Any] = to_words(self.vectors[site], ring) & ring.dtype.type(ring.mask)
        return words


def reply_key(h: Harness) -> SealingKey:
    """The key of the slot, which the coordinator holds."""
    return SealingKey.from_secret_bytes(h.coordinator.slot.reply_secret)


def state_of(machine: SiteMachine) -> SiteState:
    """A site's whole state, as a thief or a colluder reads it."""
    return SiteState.decode(machine.dump())


def pair_keys(machine: SiteMachine) -> dict[bytes, bytes]:
    """Pair keys in a colluder's state, by peer."""
    epoch = state_of(machine).epoch
    assert epoch is not None
    return {pair.peer: pair.key for pair in epoch.pairs}


def pair_seed(key: bytes, h0: bytes, one: bytes, other: bytes) -> bytes:
    """s_ij from a pair key that stands at the slot's seq."""
    low, high = sorted((one, other))
    return derive(key, Label.PAIR_SEED, h0, low, high)


def without_pair_masks(slot: Slot, site: bytes, seeds: dict[bytes, bytes]) -> npt.NDArray[Any]:
    """The upload of ``site`` after taking out the pair masks whose seeds are known, by peer."""
    words, h0, ring = slot.words(site), slot.a.h0, ring_of(slot.a)
    keys = {peer: mask_key(seed, h0, *sorted((site, peer))) for peer, seed in seeds.items()}
    minus = [key for peer, key in keys.items() if site < peer]
    plus = [key for peer, key in keys.items() if peer < site]
    apply_masks(words, plus, minus)
    out: npt.NDArray[Any] = words & ring.dtype.type(ring.mask)
    return out


def chi_square(words: npt.NDArray[Any], bits: int, shift: int, width: int = 8) -> float:
    """Chi-square statistic of ``width`` bits at ``shift`` against the uniform distribution."""
    assert shift + width <= bits
    found = (words.astype(np.uint64) >> np.uint64(shift)) & np.uint64((1 << width) - 1)
    counts = np.bincount(found.astype(np.int64), minlength=1 << width)
    expected = len(words) / (1 << width)
    return float(((counts - expected) ** 2 / expected).sum())


# chi-square with 255 degrees of freedom lies outside these with probability below 1e-9
UNIFORM = (145.0, 410.0)


def uniform(words: npt.NDArray[Any], bits: int) -> bool:
    """Whether the low, middle and high bytes of b-bit values all look uniform."""
    shifts = {0, (bits - 8) // 2, bits - 8}
    return all(UNIFORM[0] < chi_square(words, bits, shift) < UNIFORM[1] for shift in shifts)


def refused(
    machine: Any,
    error: type[PrivflError] | tuple[type[PrivflError], ...],
    match: str | None,
    call: Callable[..., Any],
    *args: Any,
    **kwargs: Any,
) -> PrivflError:
    """``call`` raises, and the machine's durable state is the same as before; returns the error."""
    before = machine.dump()
    with pytest.raises(error, match=match) as caught:
        call(*args, **kwargs)
    assert machine.dump() == before
    return caught.value


def turned_away(h: Harness, site: bytes, a: Announcement, error: type[PrivflError], match: str | None) -> None:
    """``site`` does not accept ``a``; nothing is recorded and nothing sent."""
    machine = h.sites[site]
    refused(machine, error, match, machine.accept, a, now=NOW, ledger_head=LEDGER)


def with_roster(h: Harness, roster: Roster) -> Harness:
    """The same keys and machines under another roster; sites go on from their stored states."""
    other = replace(h, roster=roster, signed=roster.sign(h.authority), sites={}, shelf=MemoryShelf())
    for site, machine in h.sites.items():
        party = Party(h.keys[site], roster)
        other.sites[site] = SiteMachine.load(party, h.rules, h.entropy, machine.dump(), restarted=False)
    other.coordinator = CoordinatorMachine(Party(h.coordinator_key, roster), other.signed, h.entropy, other.shelf)
    return other


def confirmed(h: Harness) -> tuple[EpochRecord, tuple[Confirmations, ...]]:
    """E0 to E2 and the record, which no site has joined yet."""
    scope = h.coordinator.start_epoch()
    for site in h.ids:
        h.coordinator.receive_advert(h.sites[site].advertise(scope.epoch))
    for site in h.ids:
        h.coordinator.receive_contributions(h.sites[site].contribute(h.coordinator.adverts)[0])
    for site in h.ids:
        h.coordinator.receive_confirmations(h.sites[site].confirm(h.coordinator.contributions_for(site))[0])
    return h.coordinator.fix_record()
