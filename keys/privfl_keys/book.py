"""What a machine remembers about rosters, so that no one can turn back or split its view.

A book pins one authority per federation and keeps the highest roster it has accepted. The next one
has to continue it exactly; a second roster with the same version is evidence against the authority.
Write :meth:`RosterBook.dump` durably before acting on a roster: a book restored from an old backup
forgets what it had seen since.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Self

from privfl_keys.checked import Checked
from privfl_keys.encoding import Bytes32, Record
from privfl_keys.errors import Malformed, Misuse, Unverified
from privfl_keys.identity import Name, Rotation, check_name
from privfl_keys.roster import Roster, SignedRoster
from privfl_keys.signing import VerifyKey

__all__ = ["Equivocation", "RosterBook"]


@dataclass(frozen=True)
class Equivocation(Record):
    """Two rosters of one version, both signed by the authority: transferable proof against it."""

    TAG: ClassVar[str] = "roster equivocation"

    first: SignedRoster
    second: SignedRoster

    def verify(self, authority: VerifyKey) -> None:
        """Raise Unverified unless this proves that ``authority`` signed two rosters of one version."""
        first, second = self.first.verify(authority), self.second.verify(authority)
        same = (first.federation, first.version) == (second.federation, second.version)
        if not same or first.hash == second.hash:
            raise Unverified("these two rosters do not contradict each other; nobody is to blame")


@dataclass(frozen=True)
class _Page(Checked):
    TAG: ClassVar[str] = "roster page"

    federation: Name
    authority: Bytes32
    latest: SignedRoster | None
    owners: tuple[tuple[str, Bytes32], ...]  # every name ever seen, folded, and the id that had it last

    def check(self) -> None:
        check_name(self.federation)


@dataclass(frozen=True)
class _Book(Record):
    TAG: ClassVar[str] = "roster book"

    pages: tuple[_Page, ...]
    evidence: tuple[Equivocation, ...]


class RosterBook:
    """The rosters one machine has accepted, per federation, and evidence of double-signing."""

    def __init__(self) -> None:
        self._pages: dict[str, _Page] = {}
        self._evidence: list[Equivocation] = []

    def pin(self, federation: str, authority: VerifyKey) -> None:
        """Trust ``authority`` for ``federation``, after its fingerprint was compared out of band.

        Raises:
            Misuse: another authority is pinned already; a new authority means a new federation.
        """
        page = self._pages.setdefault(check_name(federation), _Page(federation, authority.raw, None, ()))
        if page.authority != authority.raw:
            raise Misuse(f"{federation!a} has another authority in this book; a new authority is a new federation")

    def accept(self, *signed: SignedRoster, now: int) -> Roster:
        """Accept one roster, or the unbroken run of rosters since the last one known.

        Nothing is remembered of a run with a bad roster in it, except evidence of equivocation.
        The first roster of a federation may have any version; its history is the authority's word.

        Args:
            signed: consecutive versions, oldest first.
            now: milliseconds since 1970; only the last roster has to be valid at that time.

        Returns:
            The last roster.

        Raises:
            Misuse: no roster given.
            Unverified: unknown federation, wrong authority, rollback, equivocation, a gap or a fork
                in the chain, a revoked key that comes back, a key changed without proof, a stale
                graph seed, or a last roster that is not valid now.
        """
        if not signed:
            raise Misuse("no roster was given")
        page = self._page(signed[0].roster.federation)
        for item in signed:
            page = self._turn(page, item)
        last = signed[-1].roster
        last.check_validity(now)
        self._pages[page.federation] = page
        return last

    def current(self, federation: str, now: int) -> Roster:
        """Return the highest roster accepted; raises Unverified if there is none or it is not valid now."""
        latest = self._page(federation).latest
        if latest is None:
            raise Unverified(f"no roster of {federation!a} was accepted yet; fetch it from the authority")
        latest.roster.check_validity(now)
        return latest.roster

    def latest(self, federation: str) -> SignedRoster | None:
        """Return the highest roster accepted, valid now or not; None if there is none, or no authority is pinned."""
        page = self._pages.get(federation)
        return None if page is None else page.latest

    def authority(self, federation: str) -> VerifyKey:
        """Return the pinned authority; raises Unverified if there is none."""
        return VerifyKey(self._page(federation).authority)

    @property
    def evidence(self) -> tuple[Equivocation, ...]:
        """Proofs that an authority signed two rosters of one version, oldest first; one per version."""
        return tuple(self._evidence)

    def dump(self) -> bytes:
        """Return the whole book as canonical bytes."""
        return _Book(tuple(page for _, page in sorted(self._pages.items())), self.evidence).encode()

    @classmethod
    def load(cls, data: bytes) -> Self:
        """Read a dumped book and check every signature in it again.

        Raises:
            Malformed: not a dumped book.
            Unverified: its rosters do not verify; restore the file it came from, or start anew.
        """
        stored, book = _Book.decode(data), cls()
        for page in stored.pages:
            VerifyKey(page.authority)
            if page.latest is not None and page.latest.verify(VerifyKey(page.authority)).federation != page.federation:
                raise Unverified(f"the page of {page.federation!a} holds a roster of another federation")
            book._pages[page.federation] = page
        for proof in stored.evidence:
            proof.verify(book.authority(proof.first.roster.federation))
        book._evidence = list(stored.evidence)
        if book.dump() != data:
            raise Malformed("this roster book has its pages twice or out of order; restore the file it came from")
        return book

    def _page(self, federation: str) -> _Page:
        try:
            return self._pages[federation]
        except KeyError:
            raise Unverified(f"no authority is pinned for {federation!a}; compare its fingerprint and pin it") from None

    def _turn(self, page: _Page, signed: SignedRoster) -> _Page:
        roster = signed.verify(VerifyKey(page.authority))
        if roster.federation != page.federation:
            raise Unverified(f"this roster is of {roster.federation!a}, not of {page.federation!a}")
        if page.latest is not None:
            known = page.latest.roster
            if roster.version == known.version and roster.hash == known.hash:
                return page
            if roster.version == known.version:
                self._keep(Equivocation(page.latest, signed))
                raise Unverified(
                    f"the authority signed two rosters with version {roster.version} of {roster.federation!a}; "
                    "both are kept as evidence: stop, and call the authority"
                )
            _check_successor(known, roster)
        owners = _check_owners(page, roster)
        return replace(page, latest=signed, owners=owners)

    def _keep(self, proof: Equivocation) -> None:
        at = (proof.first.roster.federation, proof.first.roster.version)
        if at not in [(old.first.roster.federation, old.first.roster.version) for old in self._evidence]:
            self._evidence.append(proof)


def _check_successor(known: Roster, roster: Roster) -> None:
    if roster.version < known.version:
        raise Unverified(
            f"roster version {roster.version} is older than {known.version}, which was accepted before; refuse it"
        )
    if roster.version > known.version + 1:
        raise Unverified(
            f"rosters {known.version + 1} to {roster.version - 1} are missing; fetch them and accept all in order"
        )
    if roster.previous != known.hash:
        raise Unverified(f"roster {roster.version} does not continue version {known.version} as known here; refuse it")
    if not set(known.revoked) <= set(roster.revoked):
        raise Unverified(f"roster {roster.version} forgets a revocation; the authority must sign it again")
    if roster.graph_seed == known.graph_seed:
        raise Unverified(f"roster {roster.version} reuses its graph seed; the authority must draw a fresh one")
    for rotation in roster.rotations:
        if VerifyKey(rotation.old_key).site_id in known.revoked:
            raise Unverified(f"the old key of {rotation.name!a} was revoked before it rotated; enrol the site anew")


def _check_owners(page: _Page, roster: Roster) -> tuple[tuple[str, bytes], ...]:
    """Every name keeps its key, or proves a rotation; every key keeps its name."""
    moves = {(rotation.name, *_ends(rotation, roster)) for rotation in roster.rotations}
    owners = dict(page.owners)
    names = {site_id: name for name, site_id in owners.items()}
    for member in roster.members:
        name, site_id = member.name.casefold(), member.site_id
        owner = owners.get(name)
        if owner not in (None, site_id) and (member.name, owner, site_id) not in moves:
            raise Unverified(
                f"{member.name!a} has another key than before and no rotation proves it; ask the authority why"
            )
        if names.get(site_id, name) != name:
            raise Unverified(f"the key of {member.name!a} was listed under another name before; refuse the roster")
        owners[name] = site_id
    return tuple(sorted(owners.items()))


def _ends(rotation: Rotation, roster: Roster) -> tuple[bytes, bytes]:
    rotation.verify()
    old, new = VerifyKey(rotation.old_key).site_id, VerifyKey(rotation.new_key).site_id
    if old not in roster.revoked or roster.member(new).name != rotation.name:
        raise Unverified(f"the rotation of {rotation.name!a} is not carried out: old key revoked, new key listed")
    return old, new
