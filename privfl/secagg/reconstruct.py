"""S4: from the committee's releases to the seeds of U, naming whoever lied and nobody else.

Optimistic: any t releases are put together and every seed is held against its commitment. Only where
that fails are Merkle proofs opened, wrong shares treated as erasures, and blame assigned.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import ClassVar, NamedTuple

import numpy as np
import numpy.typing as npt
from privfl_keys import SEAL_OVERHEAD, Label, SealingKey, content_digest

from privfl.codec import Record, decode
from privfl.errors import Malformed, RoundAborted, Theirs, Unverified
from privfl.secagg import merkle, shamir
from privfl.secagg.committee import SHARE_BYTES, wanted
from privfl.secagg.messages import Announcement, Header, Release, release_part, split, survivors_hash
from privfl.secagg.slot import Topology, commitment, mask_key

__all__ = ["Blame", "Layout", "OpenedRelease", "TooFewShares", "UnmaskKeys", "open_release", "reconstruct"]

CHUNK = 256  # secrets recovered at a time: bounds working memory at any number of sites


class TooFewShares(RoundAborted):
    """Not enough valid shares for some seed yet; another member's release may help."""

    def __init__(self, message: str, blames: tuple[Blame, ...]) -> None:
        super().__init__(message)
        self.blames = blames


@dataclass(frozen=True)
class Blame(Record):
    """Who misbehaved and how; ``evidence`` are the signed bytes that show it to a third party."""

    TAG: ClassVar[str] = "blame"
    kind: str  # "member", "dealer" or "pair"
    sites: tuple[bytes, ...]
    reason: str
    evidence: tuple[bytes, ...]

    def __repr__(self) -> str:
        # the evidence against a member holds the shares it released
        return f"Blame({self.kind}, {[site.hex()[:8] for site in self.sites]}, {self.reason!r})"


@dataclass(frozen=True)
class Layout:
    """Which secret stands where in every release of one U."""

    topology: Topology
    announcement: Announcement
    headers: tuple[Header, ...]
    rows: list[npt.NDArray[np.intp]] = field(init=False)
    starts: npt.NDArray[np.intp] = field(init=False)

    def __post_init__(self) -> None:
        rows = wanted(self.topology, [header.site for header in self.headers])
        object.__setattr__(self, "rows", rows)
        object.__setattr__(self, "starts", np.cumsum([0, *(len(row) for row in rows)]))

    @cached_property
    def choice(self) -> bytes:
        """H(U)."""
        return survivors_hash(self.announcement.h0, self.headers)

    @property
    def total(self) -> int:
        """Number of secrets to reconstruct."""
        return int(self.starts[-1])

    def pair_of(self, dealer: int, row: int) -> tuple[bytes, bytes | None]:
        """(lo, hi) of a dealer's pair secret, or (dealer, None) for its own mask."""
        site = self.headers[dealer].site
        if row == 0:
            return site, None
        peer = self.headers[dealer].neighbours[32 * (row - 1) : 32 * row]
        return (site, peer) if site < peer else (peer, site)


@dataclass(frozen=True)
class OpenedRelease:
    """One verified release: who has which dealer's shares, uint32 of shape (total, 9)."""

    x: int
    member: bytes
    plain: bytes
    present: npt.NDArray[np.bool_]
    salts: tuple[bytes, ...]
    shares: npt.NDArray[np.uint32]

    def __repr__(self) -> str:
        return f"OpenedRelease({self.member.hex()[:8]}, <redacted>)"


@dataclass(frozen=True)
class UnmaskKeys:
    """Mask keys that turn the masked sum of U into the sum; and a hash per seed for the transcript."""

    plus: list[bytes]
    minus: list[bytes]
    seed_hashes: bytes
    blames: tuple[Blame, ...]

    def __repr__(self) -> str:
        return "UnmaskKeys(<redacted>)"


def open_release(layout: Layout, choice: bytes, key: SealingKey, message: Release) -> OpenedRelease:
    """Verify and open one release; raises Theirs if it is not a committee member's for this H(U)."""
    record, a = layout.topology.record, layout.announcement
    if message.member not in record.members or (message.h0, message.survivors) != (a.h0, choice):
        raise Unverified("a release of someone outside the committee, or for another slot or survivor set")
    # a proof has fewer nodes than its tree has leaves, one for each commitment; the shares are counted below
    if len(message.sealed_proofs) > SEAL_OVERHEAD + 5 + sum(len(header.commits) + 5 for header in layout.headers):
        raise Malformed("a release whose proofs are longer than its trees are large")
    verify = layout.topology.roster.require(message.member, "site").verify
    verify(message.signature, Label.RELEASE, *message.binding())
    plain = key.open(message.sealed_shares, Label.RELEASE_SEAL, a.h0, choice, message.member, "shares")
    if release_part(plain, "shares") != message.shares_hash:
        raise Unverified("a release that does not hold what its signature names")
    sites = len(layout.headers)
    if len(plain) != sites * 33 + layout.total * SHARE_BYTES:
        raise Malformed("a release of the wrong size")
    flags = np.frombuffer(plain, np.uint8, sites)
    if flags.max(initial=0) > 1:
        raise Malformed("a release with a presence byte other than 0 and 1")
    shares = np.frombuffer(plain, "<u4", offset=sites * 33).reshape(-1, shamir.LIMBS).astype(np.uint32, copy=False)
    x = record.members.index(message.member) + 1
    return OpenedRelease(x, message.member, plain, flags == 1, split(plain[sites : sites * 33]), shares)


def reconstruct(
    layout: Layout, releases: Sequence[OpenedRelease], key: SealingKey, proofs_of: Callable[[bytes], Release]
) -> UnmaskKeys:
    """Recover every released seed of U and derive the mask keys.

    Args:
        releases: at least t, of distinct members.
        key: the coordinator's sealing key of the slot, to open proofs where they are needed.
        proofs_of: returns a member's whole release again; called only where a share is wrong.

    Raises:
        TooFewShares: more releases are needed, or a dealer dealt inconsistently; ``blames`` says who.
    """
    threshold = layout.announcement.threshold
    if len(releases) < threshold:
        raise TooFewShares(f"{len(releases)} releases of the {threshold} needed", ())
    first = releases[:threshold]
    seeds = np.empty((layout.total, 32), np.uint8)
    good = np.zeros(layout.total, bool)
    for start in range(0, layout.total, CHUNK):
        end = min(start + CHUNK, layout.total)
        stack = np.stack([opened.shares[start:end] for opened in first])
        seeds[start:end], good[start:end] = shamir.recover_checked([opened.x for opened in first], stack)
    out = _Keys(layout)
    suspects = [
        place for place in _places(layout) if not (good[place.at] and out.take(place, seeds[place.at].tobytes()))
    ]
    judge = _Judge(layout, releases, key, proofs_of)
    for place in suspects:
        dealer = place.dealer
        if not out.take(place, judge.recover(dealer, place.at)):
            judge.blame_dealer(dealer, "its t root-valid shares do not give the seed it committed to")
    judge.blame_complaints()
    if out.missing():
        raise TooFewShares("a dealer's shares are inconsistent; this slot cannot be opened", tuple(judge.blames))
    return UnmaskKeys(out.plus, out.minus, out.hashes(), tuple(judge.blames))


class _Place(NamedTuple):
    """One secret: who dealt it, as which of its secrets, and where it stands in every release."""

    dealer: int
    row: int
    at: int


def _places(layout: Layout) -> Iterator[_Place]:
    at = 0
    for dealer, rows in enumerate(layout.rows):
        for row in rows.tolist():
            yield _Place(dealer, row, at)
            at += 1


class _Keys:
    """Collects mask keys from seeds that match their commitments."""

    def __init__(self, layout: Layout) -> None:
        self.layout, self.plus, self.minus = layout, list[bytes](), list[bytes]()
        self._hashes: dict[int, bytes] = {}

    def take(self, place: _Place, seed: bytes | None) -> bool:
        """Accept a seed if it is the one the dealer committed to."""
        layout, (dealer, row, at) = self.layout, place
        header, h0 = layout.headers[dealer], layout.announcement.h0
        low, high = layout.pair_of(dealer, row)
        if seed is None or commitment(seed, h0, low, high) != header.commits[32 * row : 32 * row + 32]:
            return False
        # the survivor added the pair mask if its id is the lower one; b_u was always added
        added = high is None or header.site == low
        (self.minus if added else self.plus).append(mask_key(seed, h0, low, high))
        self._hashes[at] = content_digest(Label.SEED_HASH, seed)
        return True

    def missing(self) -> int:
        """How many seeds are still unknown."""
        return self.layout.total - len(self._hashes)

    def hashes(self) -> bytes:
        """SHA-256 of every seed, concatenated in layout order."""
        return b"".join(self._hashes[at] for at in range(self.layout.total))


class _Judge:
    """Opens proofs where shares are wrong; a share off its dealer's root is an erasure and names the member."""

    def __init__(
        self,
        layout: Layout,
        releases: Sequence[OpenedRelease],
        key: SealingKey,
        proofs_of: Callable[[bytes], Release],
    ) -> None:
        self.layout, self.releases, self.key, self.proofs_of = layout, releases, key, proofs_of
        self.blames: list[Blame] = []
        self._proofs: dict[bytes, tuple[bytes, tuple[bytes, ...]] | None] = {}
        self._verdicts: dict[tuple[bytes, int], bool] = {}

    def recover(self, dealer: int, at: int) -> bytes | None:
        """The seed from the first t root-valid shares; None if their limbs are no 32-byte value."""
        valid = [opened for opened in self.releases if opened.present[dealer] and self._on_root(opened, dealer)]
        threshold = self.layout.announcement.threshold
        if len(valid) < threshold:
            self.blame_complaints()
            raise TooFewShares(
                f"only {len(valid)} valid shares of the {threshold} needed for one seed; waiting for more members",
                tuple(self.blames),
            )
        chosen = valid[:threshold]
        stack = np.stack([opened.shares[at : at + 1] for opened in chosen])
        seed, good = shamir.recover_checked([opened.x for opened in chosen], stack)
        return seed[0].tobytes() if good[0] else None

    def _on_root(self, opened: OpenedRelease, dealer: int) -> bool:
        known = self._verdicts.get((opened.member, dealer))
        if known is None:
            told = self._proof(opened)
            # proofs that are not what the member signed may have been damaged on the way: an erasure, no lie
            known = told is not None
            if told is not None:
                plain, proofs = told
                try:
                    check_rows(self.layout, opened, dealer, proofs[dealer])
                except (Theirs, IndexError) as error:
                    known = False
                    self._blame_member(opened, dealer, plain, str(error))
            self._verdicts[opened.member, dealer] = known
        return known

    def _proof(self, opened: OpenedRelease) -> tuple[bytes, tuple[bytes, ...]] | None:
        if opened.member not in self._proofs:
            message, a = self.proofs_of(opened.member), self.layout.announcement
            info = (a.h0, message.survivors, opened.member, "proofs")
            plain = open_proofs(self.key, message, info)
            self._proofs[opened.member] = None if plain is None else (plain, read_proofs(plain))
        return self._proofs[opened.member]

    def _blame_member(self, opened: OpenedRelease, dealer: int, proofs: bytes, why: str) -> None:
        header = self.layout.headers[dealer]
        if any(blame.kind == "member" and blame.sites == (opened.member,) for blame in self.blames):
            return
        reason = f"released a share that is not under the root of dealer {header.site.hex()[:8]}: {why}"
        evidence = (header.encode(), self.proofs_of(opened.member).encode(), opened.plain, proofs)
        self.blames.append(Blame("member", (opened.member,), reason, evidence))

    def blame_dealer(self, dealer: int, reason: str) -> None:
        """Name a dealer, once, with its signed header."""
        header = self.layout.headers[dealer]
        if not any(blame.sites == (header.site,) for blame in self.blames):
            self.blames.append(Blame("dealer", (header.site,), reason, (header.encode(),)))

    def blame_complaints(self) -> None:
        """Name dealers of whom more members complain than can be corrupt."""
        bound = self.layout.topology.record.committee_corrupt
        absent = np.sum([~opened.present for opened in self.releases], axis=0)
        for dealer in np.flatnonzero(absent > bound):
            self.blame_dealer(int(dealer), f"{int(absent[dealer])} members could not open its blob")


def open_proofs(key: SealingKey, message: Release, info: Sequence[object]) -> bytes | None:
    """Open the proof part of a release; None if it is not the part whose hash the member signed."""
    try:
        plain = key.open(message.sealed_proofs, Label.RELEASE_SEAL, *info)
    except Theirs:
        return None
    return plain if release_part(plain, "proofs") == message.proofs_hash else None


def read_proofs(plain: bytes) -> tuple[bytes, ...]:
    """One concatenated multiproof per survivor; empty if the member signed something else."""
    try:
        value = decode(plain)
    except Theirs:
        return ()
    return tuple(item if isinstance(item, bytes) else b"" for item in value) if isinstance(value, tuple) else ()


def check_rows(layout: Layout, opened: OpenedRelease, dealer: int, proof: bytes) -> None:
    """Hold one member's shares of one dealer against the dealer's root; raises Unverified."""
    header, a = layout.headers[dealer], layout.announcement
    key = merkle.leaf_key(a.h0, header.site, opened.member, opened.salts[dealer])
    start = int(layout.starts[dealer])
    leaves: Mapping[int, bytes] = {
        int(row): merkle.leaf(key, int(row), opened.shares[start + at]) for at, row in enumerate(layout.rows[dealer])
    }
    root = header.roots[32 * (opened.x - 1) : 32 * opened.x]
    merkle.verify_multi(root, len(header.commits) // 32, leaves, split(proof))
