"""What every party recomputes about a slot: is the announcement lawful, are the headers of U sound?

Shared by the site, the committee member, the coordinator and the transcript verifier, so that all of
them hold the same opinion. None of these functions takes a secret, except the seed derivations.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand
from privfl_keys import Label, Roster, SealingPublicKey, context, derive

from privfl.codec import encode
from privfl.errors import Refused, Unverified
from privfl.ring import Ring
from privfl.secagg import graph
from privfl.secagg.messages import ABORT, Announcement, EpochRecord, Header, Slot, Vote, join, split
from privfl.secagg.party import Rules
from privfl.secagg.record import full_neighbours, sparse_graph

__all__ = [
    "Topology",
    "check_announcement",
    "check_certificate",
    "check_gap",
    "check_headers",
    "check_own_rules",
    "check_vote",
    "commitment",
    "complete_threshold",
    "disputes",
    "mask_key",
    "verify_header",
]

MAX_BODY_BYTES = 2**34
MAX_GAP = 1024


def complete_threshold(committee_corrupt: int) -> int:
    """t in complete mode: one more than the corrupt members, and never fewer than two."""
    return max(2, committee_corrupt + 1)


@dataclass(frozen=True)
class Topology:
    """Who is whose neighbour inside one cohort, computed by each party itself."""

    roster: Roster
    record: EpochRecord
    cohort: tuple[bytes, ...]

    @cached_property
    def _members(self) -> frozenset[bytes]:
        return frozenset(self.cohort)

    @cached_property
    def _near(self) -> dict[bytes, tuple[bytes, ...]]:
        return {}

    def neighbours(self, site: bytes) -> tuple[bytes, ...]:
        """N(site) ∩ cohort, sorted."""
        known = self._near.get(site)
        if known is None:
            full = full_neighbours(self.roster, self.record.scope, site)
            known = tuple(other for other in (self.cohort if full is None else full) if other in self._members)
            known = tuple(other for other in known if other != site)
            self._near[site] = known
        return known

    def check_survivors(self, survivors: Iterable[bytes], least: int) -> None:
        """Raise Refused unless ``survivors`` is an admissible U: large enough, and dense enough if sparse."""
        graph.admissible(tuple(survivors), self.full_graph(), self.record.degree or None, least)

    def prune(self, survivors: Iterable[bytes], least: int) -> tuple[bytes, ...]:
        """The largest admissible subset of ``survivors``; raises Refused if there is none."""
        return graph.prune(tuple(survivors), self.full_graph(), self.record.degree or None, least)

    def full_graph(self) -> Mapping[bytes, tuple[bytes, ...]]:
        """The roster-wide sparse graph; on the complete graph just the cohort, as size is the whole rule there."""
        sparse = sparse_graph(self.roster, self.record.scope)
        return dict.fromkeys(self.cohort, ()) if sparse is None else sparse


def check_announcement(roster: Roster, record: EpochRecord, announcement: Announcement) -> Topology:
    """Check an announcement against roster and epoch record, without anybody's private rules.

    Raises:
        Refused: cohort, threshold, survivors or ring break a rule of the protocol.
        Unverified: it is not signed by a coordinator of the roster, or nothing can be sealed to its key.
    """
    a = announcement
    roster.require(a.coordinator, "coordinator").verify(a.signature, Label.ANNOUNCEMENT, a.h0)
    if record.scope.roster != roster.hash:
        raise Refused("the epoch is one of another roster; a change of roster starts a new epoch")
    SealingPublicKey(a.reply_key)
    if a.scope != record.scope or a.record != record.digest:
        raise Refused("the announcement names another epoch record than the one in force here")
    if list(a.sites) != sorted(set(a.sites)) or not set(a.sites) <= set(record.sites):
        raise Refused("the announced cohort is unsorted, has duplicates, or holds sites outside the epoch")
    if a.word not in (16, 32, 64) or a.bits > a.word or a.length * a.word // 8 > MAX_BODY_BYTES:
        raise Refused("the announced ring or length is not possible")
    least = record.corrupt + 2
    if record.degree:
        least = max(least, -(-2 * len(roster.site_ids) // 3))
    if not least <= a.min_survivors <= len(a.sites):
        raise Refused(f"min_survivors {a.min_survivors} is outside [{least}, {len(a.sites)}]")
    if a.complete and a.min_survivors != len(a.sites):
        raise Refused("complete mode opens the whole cohort or nothing: min_survivors must be its size")
    expected = complete_threshold(record.committee_corrupt) if a.complete else record.threshold
    if a.threshold != expected or not 2 <= a.threshold <= len(record.members):
        raise Refused(f"threshold {a.threshold} is not the {expected} that the epoch record gives")
    return Topology(roster, record, a.sites)


def check_own_rules(announcement: Announcement, rules: Rules, now: int) -> None:
    """Check an announcement against a party's own signed rules and its own clock; raises Refused."""
    a = announcement
    if a.policy != rules.policy:
        raise Refused(
            "the announcement is made under another policy than this site's; next step: the site, or the coordinator, "
            "joins with the version that it lacks"
        )
    if a.min_survivors < rules.min_survivors:
        raise Refused(f"min_survivors {a.min_survivors} is below this site's policy ({rules.min_survivors})")
    if not (rules.allow_complete if a.complete else rules.allow_voted):
        raise Refused(f"this site's policy does not allow {'complete' if a.complete else 'voted'} mode")
    if rules.expires is not None and now >= rules.expires:
        raise Refused("this site's policy has expired; ask compliance for the next version")
    if now > a.deadline:
        raise Refused("the announcement's deadline has passed by this site's clock")


def check_gap(announcement: Announcement, last: Slot) -> None:
    """Raise Refused for a slot so far ahead of the last one that taking it up would lock a party out."""
    round_, attempt = announcement.slot
    gap = attempt - last[1] if round_ == last[0] else max(round_ - last[0], attempt)
    if gap > MAX_GAP:
        raise Refused(f"slot {announcement.slot} jumps more than {MAX_GAP} ahead of {last}")


def verify_header(topology: Topology, announcement: Announcement, header: Header) -> None:
    """Check one header: slot, membership, recomputed neighbour list, shape, signature; raises Theirs/Refused."""
    if header.h0 != announcement.h0:
        raise Unverified("a header of another slot")
    if header.site not in topology._members:
        raise Unverified("a header of a site outside the cohort")
    if header.neighbours != b"".join(topology.neighbours(header.site)):
        raise Unverified(f"site {header.site.hex()[:8]} states a neighbour list that the graph does not give")
    members = len(topology.record.members)
    shape = (len(header.commits), len(header.blobs), len(header.roots))
    if shape != (len(header.neighbours) + 32, 32 * members, 32 * members):
        raise Unverified(f"site {header.site.hex()[:8]} signed a header of the wrong shape")
    key = topology.roster.require(header.site, "site")
    key.verify(header.signature, Label.HEADER, header.digest, header.ledger_head)


def disputes(headers: Sequence[Header]) -> list[tuple[bytes, bytes]]:
    """Pairs (lo, hi) inside ``headers``, verified and sorted, whose commitments to their common seed differ."""
    places, count = {header.site: at for at, header in enumerate(headers)}, len(headers)
    degrees = [len(header.neighbours) // 32 for header in headers]
    ours = np.repeat(np.arange(count), np.array(degrees, dtype=np.int64))
    theirs = np.array([places.get(peer, -1) for header in headers for peer in split(header.neighbours)], dtype=np.int64)
    commits = np.frombuffer(join(header.commits[32:] for header in headers), np.uint64).reshape(-1, 4)
    # both ends of a pair get one key, so that their commitments come to lie side by side
    keys = np.maximum(ours, theirs) * count + np.minimum(ours, theirs)
    order = np.argsort(keys, kind="stable")
    order = order[theirs[order] >= 0]
    keys, commits = keys[order], commits[order]
    differ = (keys[1:] == keys[:-1]) & (commits[1:] != commits[:-1]).any(axis=1)
    return [(headers[key % count].site, headers[key // count].site) for key in keys[1:][differ].tolist()]


def check_headers(topology: Topology, announcement: Announcement, headers: Sequence[Header]) -> None:
    """Check the headers of a proposed U as a whole: order, each header, agreement, admissibility.

    Raises:
        Refused: U is not admissible, or two commitments inside U disagree.
        Unverified: a header is not sound.
    """
    sites = [header.site for header in headers]
    if sites != sorted(set(sites)):
        raise Refused("the survivor list is unsorted or names a site twice")
    if announcement.complete and tuple(sites) != announcement.sites:
        raise Refused("complete mode: only the whole cohort may be opened")
    for header in headers:
        verify_header(topology, announcement, header)
    topology.check_survivors(sites, announcement.min_survivors)
    if disputes(headers):
        raise Refused("two survivors commit to different seeds for their pair; such a U must not be opened")


def check_vote(roster: Roster, record: EpochRecord, vote: Vote) -> None:
    """Check that a vote is a committee member's signed vote in this epoch; raises Unverified."""
    if vote.member not in record.members or vote.scope != record.scope:
        raise Unverified("a vote of someone outside the committee, or of another epoch")
    roster.require(vote.member, "site").verify(vote.signature, Label.VOTE, *vote.binding())


def check_certificate(
    roster: Roster, record: EpochRecord, announcement: Announcement, choice: bytes, votes: Sequence[Vote]
) -> None:
    """Check ≥ t votes of distinct committee members for ``choice`` in this very slot; raises Unverified."""
    voters = set()
    for vote in votes:
        check_vote(roster, record, vote)
        slot = (vote.round, vote.attempt, vote.h0, vote.choice)
        if slot != (*announcement.slot, announcement.h0, choice):
            raise Unverified("a certificate holds a vote for another slot or another survivor set")
        voters.add(vote.member)
    if len(voters) < announcement.threshold or len(voters) != len(votes):
        raise Unverified(f"{len(voters)} distinct votes do not make the quorum of {announcement.threshold}")


def check_abort_certificate(roster: Roster, record: EpochRecord, announcement: Announcement) -> None:
    """For a retry without noise: t signed ABORT votes for the attempt before; raises Refused."""
    voters = set()
    for vote in announcement.aborts:
        check_vote(roster, record, vote)
        if (vote.round, vote.attempt, vote.choice) == (announcement.round, announcement.attempt - 1, ABORT):
            voters.add(vote.member)
    if len(voters) < record.threshold:
        raise Refused(
            f"a retry without noise needs {record.threshold} ABORT votes for attempt {announcement.attempt - 1}; "
            f"the announcement carries {len(voters)}"
        )


_ID_PREFIX = encode(bytes(32))[:-32]


@lru_cache(maxsize=8)
def _before_pair(label: Label, h0: bytes) -> bytes:
    """``context(label, h0, low, high)`` up to the two ids: a slot of a thousand sites derives 20 000 times."""
    return context(label, h0, bytes(32), bytes(32))[: -2 * (len(_ID_PREFIX) + 32)]


def _derived(seed: bytes, label: Label, h0: bytes, low: bytes, high: bytes | None) -> bytes:
    if high is None or (len(seed), len(low), len(high)) != (32, 32, 32):
        return derive(seed, label, h0, low, "self" if high is None else high)
    info = b"".join((_before_pair(label, h0), _ID_PREFIX, low, _ID_PREFIX, high))
    return HKDFExpand(SHA256(), 32, info).derive(seed)


def commitment(seed: bytes, h0: bytes, low: bytes, high: bytes | None = None) -> bytes:
    """Commitment to a seed: of a pair (lo, hi), or of one site's own mask (``high`` None)."""
    return _derived(seed, Label.COMMIT, h0, low, high)


def mask_key(seed: bytes, h0: bytes, low: bytes, high: bytes | None = None) -> bytes:
    """AES key of the mask that a seed stands for; independent of the commitment."""
    return _derived(seed, Label.MASK, h0, low, high)


def ring_of(announcement: Announcement) -> Ring:
    """The announced ring."""
    return Ring(announcement.bits, announcement.word)
