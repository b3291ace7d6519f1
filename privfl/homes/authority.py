"""The authority's folder: its key, whom it approved, and every roster that it signed.

Approvals and the chain of rosters lie in the sealed state, so nobody without the passphrase slips a member in.
A version is signed once: it is in the state before the file that is handed out, and the file is made again
from the state after a crash. If the state is an older copy than the file, the file is believed, for this key signed it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Final, Self

from privfl_keys import (
    EnrolmentRequest,
    Identity,
    Member,
    Roster,
    RosterBook,
    ScryptCost,
    SignedRoster,
    VerifyKey,
    fingerprint,
)

from privfl.codec import Bounds, Record, Uint64
from privfl.entropy import SYSTEM, Entropy
from privfl.errors import Malformed, Misuse, Theirs, Unverified
from privfl.homes.config import AuthorityConfig, KmsConfig
from privfl.homes.drafting import RosterTerms, draft, same_substance
from privfl.homes.files import check_writable, read_bytes, write_file
from privfl.homes.folder import check_founder, found, found_state, open_state, open_store
from privfl.homes.rosters import AUTHORITY, Chain, read_rosters, write_rosters
from privfl.homes.state import State

__all__ = ["ROSTERS", "AuthorityHome", "Listed", "read_request"]

ROSTERS: Final = "rosters"
_CHAIN, _MEMBER, _STRUCK = "chain", "member/", "struck/"


@dataclass(frozen=True)
class _Approved(Record):
    TAG: ClassVar[str] = "approved member"

    member: Member
    approved_at: Uint64


@dataclass(frozen=True)
class _Struck(Record):
    TAG: ClassVar[str] = "revoked member"

    name: Annotated[str, Bounds(1, 64)]
    why: Annotated[str, Bounds(1, 500)]
    revoked_at: Uint64


@dataclass(frozen=True)
class Listed:
    """One line of the authority's list; ``standing`` is in words."""

    name: str
    roles: tuple[str, ...]
    fingerprint: str
    standing: str


class AuthorityHome:
    """The opened folder, locked to this process until :meth:`close`."""

    def __init__(self, folder: Path, config: AuthorityConfig, identity: Identity, state: State) -> None:
        """Internal; use :meth:`open`."""
        self.folder, self.config = folder, config
        self._identity, self._state = identity, state
        self._chain = self._reconciled()

    @classmethod
    def init(
        cls,
        folder: Path,
        federation: str,
        passphrase: str,
        *,
        cost: ScryptCost | None = None,
        entropy: Entropy = SYSTEM,
        kms: KmsConfig | None = None,
    ) -> AuthorityConfig:
        """Make the folder with the federation's signing key, or finish one that was begun; returns its configuration.

        With ``kms`` that keeps the keys, and the passphrase is not looked at.

        Raises:
            Misuse: the folder belongs to someone else. KeyStoreError: a wrong or too short passphrase.
            StorageError: the disk does not take it.
        """
        known = check_founder(folder, AuthorityConfig, federation, "authority")
        finished, kms = known is not None, known.kms if known is not None and kms is None else kms
        with found(
            folder, "authority", passphrase, finished=finished, entropy=entropy, cost=cost, kms=kms,
            federation=federation,
        ) as (store, identity):  # fmt: skip
            found_state(folder, store, identity, finished=finished, entropy=entropy)
            config = AuthorityConfig(federation=federation, fingerprint=identity.fingerprint, kms=kms)
            write_file(folder / AUTHORITY, identity.verify_key.raw.hex().encode() + b"\n", mode=0o644)
            config.write(folder)
            return config

    @classmethod
    def open(cls, folder: Path, passphrase: str) -> Self:
        """Open the folder.

        Raises:
            Misuse: no such folder, or another process works in it. KeyStoreError: a wrong passphrase.
            Unverified: the roster file contradicts what was signed here.
        """
        config = AuthorityConfig.read(folder)
        with open_store(folder, passphrase) as (store, identity):
            check_writable(folder)
            state = open_state(folder, store, identity)
        try:
            return cls(folder, config, identity, state)
        except BaseException:
            state.close()
            raise

    @property
    def verify_key(self) -> VerifyKey:
        """What every member pins."""
        return self._identity.verify_key

    @property
    def chain(self) -> tuple[SignedRoster, ...]:
        """Every roster that was signed, oldest first; empty before the first."""
        return self._chain

    @property
    def latest(self) -> Roster | None:
        """The roster signed last."""
        return self._chain[-1].roster if self._chain else None

    def approve(self, request: EnrolmentRequest, spoken: str, now: int) -> Member:
        """File a member for the next roster, after the telephone call; approving twice is harmless.

        Args:
            request: as it arrived. spoken: the fingerprint that was read aloud. now: milliseconds since 1970.

        Raises:
            Unverified: signature, federation or fingerprint does not fit.
            Misuse: the name or the key belongs to another member, was revoked, or is the authority's own.
        """
        member = request.admit(self.config.federation, spoken)
        self._check_free(member)
        self._state.put({_MEMBER + member.site_id.hex(): _Approved(member, now).encode()})
        return member

    def revoke(self, name: str, why: str, now: int) -> Member:
        """Strike a member off: at once if no roster lists it yet, else with the next roster.

        Raises:
            Misuse: nobody is called ``name``, or no reason is given.
        """
        if not 1 <= len(why.strip()) <= 500:
            raise Misuse("give a reason of 1 to 500 characters; people will ask for it")
        members = {**self._listed(), **{member.site_id: member for member in self._approved()}}
        member = next((one for one in members.values() if one.name.casefold() == name.casefold()), None)
        if member is None:
            known = ", ".join(sorted(one.name for one in members.values())) or "nobody"
            raise Misuse(f"there is no member {name!a:.80}; listed or approved are: {known}")
        items: dict[str, bytes | None] = {_MEMBER + member.site_id.hex(): None}
        if member.site_id in self._listed() and member.site_id not in self._struck():
            items[_STRUCK + member.site_id.hex()] = _Struck(member.name, why.strip(), now).encode()
        self._state.put(items)
        return member

    def sign_roster(
        self, now: int, terms: RosterTerms | None = None, *, renew: bool = False, entropy: Entropy = SYSTEM
    ) -> tuple[Roster, bool]:
        """Sign the next roster, and write the file of all of them.

        Args:
            now: milliseconds since 1970. terms: dates and numbers; by default a year and the protocol's own.
            renew: sign another version although nothing but the dates changes.

        Returns:
            The latest roster, and whether it was signed just now.

        Raises:
            Misuse: nobody is approved, or the numbers break a rule of the protocol. Refused: too small a degree.
        """
        latest, struck = self.latest, self._struck()
        members = {**self._listed(), **{member.site_id: member for member in self._approved()}}
        members = {site_id: member for site_id, member in members.items() if site_id not in struck}
        leaving = [site_id for site_id in struck if site_id in self._listed()]
        federation = self.config.federation
        roster = draft(federation, latest, members, leaving, terms or RosterTerms(), now, entropy)
        if latest is not None and not renew and now < latest.valid_until and same_substance(roster, latest):
            self._publish()
            return latest, False
        chain = (*self._chain, roster.sign(self._identity.key))
        taken_over = {_MEMBER + site_id.hex(): None for site_id in members}
        self._state.put({_CHAIN: Chain(chain).encode(), **taken_over})
        self._chain = chain
        self._publish()
        return roster, True

    def status(self) -> tuple[Listed, ...]:
        """Everyone who is or was listed or approved, by name."""
        struck, listed, latest = self._struck(), self._listed(), self.latest
        lines = [
            _line(member, f"revoked: leaves with the next roster ({struck[site_id].why})")
            if site_id in struck
            else _line(member, f"in roster version {latest.version if latest else 0}")
            for site_id, member in listed.items()
        ]
        for member in self._approved():
            known = listed.get(member.site_id)
            if known is None:
                lines.append(_line(member, "approved; waits for the next roster"))
            elif known.roles != member.roles:
                lines.append(_line(member, "approved with other roles; waits for the next roster"))
        past = {member.site_id: member for signed in self._chain for member in signed.roster.members}
        lines += [
            _line(member, f"revoked ({struck[site_id].why})" if site_id in struck else "revoked")
            for site_id, member in past.items()
            if site_id not in listed
        ]
        return tuple(sorted(lines, key=lambda line: line.name.casefold()))

    def close(self) -> None:
        """Let the folder go; twice is harmless."""
        self._state.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # -- members ------------------------------------------------------------------------------------

    def _listed(self) -> dict[bytes, Member]:
        return {member.site_id: member for member in (self.latest.members if self.latest else ())}

    def _values(self, prefix: str) -> Iterator[tuple[bytes, bytes]]:
        for name in self._state.names():
            if name.startswith(prefix):
                yield bytes.fromhex(name.removeprefix(prefix)), self._state.get(name) or b""

    def _approved(self) -> list[Member]:
        return [_Approved.decode(data).member for _, data in self._values(_MEMBER)]

    def _struck(self) -> dict[bytes, _Struck]:
        return {site_id: _Struck.decode(data) for site_id, data in self._values(_STRUCK)}

    def _check_free(self, member: Member) -> None:
        if member.site_id == self._identity.site_id:
            raise Misuse("the authority's own key is no member; its holder enrols under another key")
        if member.site_id in self._struck() or (self.latest and member.site_id in self.latest.revoked):
            raise Misuse(f"the key of {member.name!a} was revoked; it enrols again with a new key and a new name")
        everyone = [one for signed in self._chain for one in signed.roster.members]
        for other in [*everyone, *self._approved()]:
            if other.name.casefold() == member.name.casefold() and other.site_id != member.site_id:
                raise Misuse(
                    f"{other.name!a} has another key already; a site that lost its key enrols under a new name "
                    "(an approval that no roster lists yet can be taken back with: privfl authority revoke)"
                )
            if other.site_id == member.site_id and other.name.casefold() != member.name.casefold():
                raise Misuse(f"this key is that of {other.name!a}; a second name needs a key of its own")

    # -- rosters ------------------------------------------------------------------------------------

    def _reconciled(self) -> tuple[SignedRoster, ...]:
        """The chain: what the state holds, or the file where it goes further."""
        stored = self._state.get(_CHAIN)
        known = () if stored is None else Chain.decode(stored).rosters
        path = self.folder / ROSTERS
        try:
            handed_out = read_rosters(path) if path.exists() else ()
        except Theirs:
            return known  # a damaged file is written anew with the next roster
        with _contradiction(path):
            for signed in handed_out:
                signed.verify(self.verify_key)
            if any(ours.roster.hash != theirs.roster.hash for ours, theirs in zip(known, handed_out, strict=False)):
                raise Unverified("two rosters of one version")
            if len(handed_out) > len(known):
                book = RosterBook()
                book.pin(self.config.federation, self.verify_key)
                book.accept(*handed_out, now=handed_out[-1].roster.valid_from)
                self._state.put({_CHAIN: Chain(handed_out).encode()})
                return handed_out
        return known

    def _publish(self) -> None:
        write_rosters(self.folder / ROSTERS, self._chain)


@contextmanager
def _contradiction(path: Path) -> Iterator[None]:
    try:
        yield
    except Unverified as error:
        raise Unverified(
            f"{path} is not what this folder signed ({error}); remove the file if it is foreign, and find out who put "
            "it there"
        ) from None


def read_request(path: Path) -> EnrolmentRequest:
    """Read a request file; raises Misuse if there is none, Malformed or Unverified for another file."""
    data = read_bytes(path, "a request file, as an init command wrote it")
    try:
        return EnrolmentRequest.decode(data)
    except Malformed:
        raise Malformed(f"{path} is damaged or no request; have it sent again") from None
    except Unverified as error:
        raise Unverified(f"{path}: {error}; have it sent again") from None


def _line(member: Member, standing: str) -> Listed:
    return Listed(member.name, member.roles, fingerprint(member.key), standing)
