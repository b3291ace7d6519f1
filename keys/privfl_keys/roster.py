"""The roster: who belongs to a federation, in which roles, until when, and what may go wrong.

The authority signs it; nothing the coordinator sends can change it. What a site remembers between
rosters, and refuses, is in :mod:`privfl_keys.book`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Annotated, ClassVar, Final, Literal, Self

from privfl_keys import quorum
from privfl_keys.checked import Checked
from privfl_keys.encoding import Bounds, Bytes32, Bytes64, Record, Uint32, Uint64
from privfl_keys.errors import Misuse, Theirs, Unverified
from privfl_keys.identity import Name, Rotation, check_name
from privfl_keys.labels import Label, digest
from privfl_keys.member import Member
from privfl_keys.quorum import NO_SITE_COLLUDES
from privfl_keys.signing import SigningKey, VerifyKey

__all__ = ["GENESIS", "Roster", "SignedRoster"]

GENESIS: Final = bytes(32)  # what the first roster of a federation gives as ``previous``


@dataclass(frozen=True)
class Roster(Checked):
    """One version of a federation's membership. Build it with :meth:`create` or :meth:`succeed`.

    Raises:
        Misuse: built in code with contents that no site would accept.
        Unverified: decoded with such contents (duplicate keys or names, numbers outside the rules).
    """

    TAG: ClassVar[str] = "roster"

    federation: Name
    version: Annotated[int, Bounds(1, 2**32 - 1)]
    members: Annotated[tuple[Member, ...], Bounds(1, 100_000)]  # by site_id, strictly rising
    committee: tuple[Bytes32, ...]  # site_ids, strictly rising; empty means every site, up to 64
    corrupt_bound: Uint32  # c
    committee_corrupt: Uint32  # c_L
    graph_seed: Bytes32
    valid_from: Uint64  # milliseconds since 1970, included
    valid_until: Uint64  # excluded
    revoked: tuple[Bytes32, ...] = ()  # site_ids, strictly rising; never come back
    previous: Bytes32 = GENESIS
    rotations: tuple[Rotation, ...] = ()  # since the previous version
    assumption: Annotated[str, Bounds(0, 64)] = field(default="")  # NO_SITE_COLLUDES exactly when c = 0
    degree: Uint32 = 0  # neighbours of a site on the sparse masking graph; 0 is the complete graph

    def check(self) -> None:
        """The rules of docs/protocol.md that one roster can break; see :class:`privfl_keys.checked.Checked`."""
        check_name(self.federation)
        if self.valid_from >= self.valid_until:
            raise Misuse("a roster is valid from before it is valid until; correct the dates")
        if (self.version == 1) != (self.previous == GENESIS):
            raise Misuse("version 1, and no other, has no previous roster; set previous to the hash of the one before")
        self._check_members()
        quorum.check_bounds(self.site_ids, self.committee, self.corrupt_bound, self.committee_corrupt, self.assumption)

    def _check_members(self) -> None:
        ids = [member.site_id for member in self.members]
        names = [member.name.casefold() for member in self.members]
        if not quorum.rising(ids) or not quorum.rising(self.revoked):
            raise Misuse("members are sorted by site id, and no key appears twice; neither do revoked ids")
        if len(set(names)) != len(names):
            raise Misuse("two members share a name; each key is a member of its own")
        if set(ids) & set(self.revoked):
            raise Misuse("a revoked key is a member; a revoked site enrols again with a new key and a new name")

    @classmethod
    def create(
        cls,
        federation: str,
        members: Iterable[Member],
        *,
        graph_seed: bytes,
        valid_from: int,
        valid_until: int,
        corrupt_bound: int | Literal["no site colludes"] | None = None,
        committee: Iterable[bytes] = (),
        committee_corrupt: int | None = None,
        version: int = 1,
        previous: bytes = GENESIS,
        revoked: Iterable[bytes] = (),
        rotations: Iterable[Rotation] = (),
        degree: int = 0,
    ) -> Self:
        """Build a roster with its lists sorted and its bounds defaulted.

        Args:
            federation: the name that every message of it carries.
            members: enrolled keys, in any order.
            graph_seed: 32 fresh random bytes, drawn by the authority after the members are fixed.
            valid_from: milliseconds since 1970.
            valid_until: milliseconds since 1970, excluded.
            corrupt_bound: c; None for ⌊(N − 1)/3⌋ (1 for N = 3); ``"no site colludes"`` for 0.
            committee: site ids, for more than 64 sites; empty for everyone.
            committee_corrupt: c_L; None for min(c, L) or ⌊(L − 1)/3⌋.
            version: one more than the previous roster's.
            previous: hash of the previous roster, 32 bytes.
            revoked: ids that never come back.
            rotations: proofs for every member whose key changed.
            degree: neighbours per site on the sparse graph (``privfl.secagg`` tabulates it); 0 for all pairs.

        Raises:
            Misuse: what results breaks a rule of the protocol; the message names it.
        """
        ordered = tuple(sorted(members, key=lambda member: member.site_id))
        sites = sum("site" in member.roles for member in ordered)
        seats = tuple(sorted(committee))
        if corrupt_bound is None:
            c = quorum.default_corrupt_bound(sites)
        else:
            c = 0 if corrupt_bound == NO_SITE_COLLUDES else int(corrupt_bound)
        if committee_corrupt is None:
            committee_corrupt = quorum.default_committee_corrupt(len(seats) or sites, c, everyone=not seats)
        return cls(
            federation=federation,
            version=version,
            members=ordered,
            committee=seats,
            corrupt_bound=c,
            committee_corrupt=committee_corrupt,
            graph_seed=graph_seed,
            valid_from=valid_from,
            valid_until=valid_until,
            revoked=tuple(sorted(revoked)),
            previous=previous,
            rotations=tuple(rotations),
            assumption=NO_SITE_COLLUDES if corrupt_bound == NO_SITE_COLLUDES else "",
            degree=degree,
        )

    def succeed(
        self,
        *,
        graph_seed: bytes,
        valid_from: int,
        valid_until: int,
        members: Iterable[Member] | None = None,
        revoke: Iterable[bytes] = (),
        rotations: Iterable[Rotation] = (),
        corrupt_bound: int | Literal["no site colludes"] | None = None,
        committee: Iterable[bytes] | None = None,
        committee_corrupt: int | None = None,
        degree: int | None = None,
    ) -> Self:
        """Build the next version: the same members where not told otherwise, ids only ever added to ``revoked``.

        ``rotations`` replace the keys of the members they name; ``revoke`` strikes members off. Bounds
        that are not given are defaulted again from the new number of sites, not carried over.

        Raises:
            Misuse: as :meth:`create`, or a rotation or revocation of a key that is no member.
            Unverified: a rotation that does not verify.
        """
        rotations, struck = tuple(rotations), set(revoke)
        book = {member.site_id: member for member in (self.members if members is None else members)}
        for rotation in rotations:
            rotation.verify()
            old, new = VerifyKey(rotation.old_key), VerifyKey(rotation.new_key)
            member = self.member(old.site_id)
            book.pop(old.site_id, None)
            book[new.site_id] = replace(member, verify_key=rotation.new_key)
            struck.add(old.site_id)
        if unknown := struck - {member.site_id for member in self.members} - set(self.revoked):
            raise Misuse(f"{unknown.pop().hex()[:16]} is no member of version {self.version} and cannot be revoked")
        return self.create(
            self.federation,
            [member for site_id, member in book.items() if site_id not in struck],
            graph_seed=graph_seed,
            valid_from=valid_from,
            valid_until=valid_until,
            corrupt_bound=corrupt_bound,
            committee=self.committee if committee is None else committee,
            committee_corrupt=committee_corrupt,
            version=self.version + 1,
            previous=self.hash,
            revoked=set(self.revoked) | struck,
            rotations=rotations,
            degree=self.degree if degree is None else degree,
        )

    @cached_property
    def hash(self) -> bytes:
        """32 bytes that stand for exactly this roster in every epoch."""
        return digest(Label.ROSTER, self.to_value())

    @cached_property
    def _by_id(self) -> dict[bytes, Member]:
        return {member.site_id: member for member in self.members}

    @cached_property
    def site_ids(self) -> tuple[bytes, ...]:
        """Ids of the N members with role ``site``, rising."""
        return tuple(member.site_id for member in self.members if "site" in member.roles)

    @property
    def committee_ids(self) -> tuple[bytes, ...]:
        """Ids of the L committee members, rising; Shamir's x is 1 + the position here."""
        return self.committee or self.site_ids

    @property
    def committee_size(self) -> int:
        """L."""
        return len(self.committee_ids)

    def threshold(self, complete: bool) -> int:
        """t of a slot in complete mode (survivors = cohort) or in voted mode."""
        rule = quorum.complete_threshold if complete else quorum.voted_threshold
        return rule(self.committee_size, self.committee_corrupt)

    @property
    def default_min_survivors(self) -> int:
        """max(N − c, c + 2)."""
        return quorum.default_min_survivors(len(self.site_ids), self.corrupt_bound)

    def member(self, site_id: bytes) -> Member:
        """Return the member with this id; raises Unverified if there is none."""
        try:
            return self._by_id[site_id]
        except KeyError:
            what = "was revoked in" if site_id in self.revoked else "is not in"
            raise Unverified(
                f"{site_id.hex()[:16]} {what} roster {self.federation!a} version {self.version}; refuse its messages"
            ) from None

    def holding(self, role: str) -> tuple[Member, ...]:
        """Members with ``role``, by id."""
        return tuple(member for member in self.members if role in member.roles)

    def require(self, site_id: bytes, role: str) -> VerifyKey:
        """Return the key of the member with this id and role; raises Unverified if there is none."""
        member = self.member(site_id)
        if role not in member.roles:
            raise Unverified(f"{member.name!a} does not hold the role {role}; refuse the message")
        return member.key

    def check_validity(self, now: int) -> None:
        """Raise Unverified unless ``now`` (milliseconds since 1970) is within the roster's validity."""
        if now < self.valid_from:
            raise Unverified(f"roster version {self.version} is not valid yet; check this machine's clock")
        if now >= self.valid_until:
            raise Unverified(f"roster version {self.version} has expired; fetch its successor from the authority")

    def sign(self, authority: SigningKey) -> SignedRoster:
        """Sign this roster, after making sure that every site can load it.

        Raises:
            Misuse: the authority's key is a member, or a field is outside its bounds.
        """
        if authority.verify_key.site_id in self._by_id:
            raise Misuse("the authority's key stays offline and is no member; enrol its holder under another key")
        try:
            faithful = Roster.decode(self.encode()) == self
        except Theirs as error:
            raise Misuse(f"no site could load this roster: {error}") from None
        if not faithful:
            raise Misuse("a field of this roster has another type than its encoding; use plain ints, bytes and tuples")
        return SignedRoster(self, authority.sign(Label.ROSTER_SIGNED, self.hash))


@dataclass(frozen=True)
class SignedRoster(Record):
    """A roster with its authority's signature."""

    TAG: ClassVar[str] = "signed roster"

    roster: Roster
    signature: Bytes64

    def verify(self, authority: VerifyKey) -> Roster:
        """Return the roster if ``authority`` signed it; raises Unverified if not.

        What this cannot see (rollback, equivocation, missing rotations) a
        :class:`privfl_keys.book.RosterBook` does.
        """
        authority.verify(self.signature, Label.ROSTER_SIGNED, self.roster.hash)
        if any(member.verify_key == authority.raw for member in self.roster.members):
            raise Unverified("this roster lists its own authority as a member; refuse it")
        return self.roster
