"""What a site or a coordinator believes: the authority it pinned, the roster in force, the policy in force.

Everything that arrives is verified against what is kept before any of it is kept. What is kept lies in the
folder's sealed state, so that neither roster nor policy can be turned back.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import ClassVar, Final

from privfl_keys import Identity, Roster, RosterBook, SignedRoster, VerifyKey

from privfl.budget import Policy, SignedPolicy, check_succession
from privfl.codec import Bytes32, Record, Uint32
from privfl.errors import Malformed, Misuse, Unverified
from privfl.homes.config import Config
from privfl.homes.files import read_bytes
from privfl.homes.rosters import accept_chain, read_authority, read_rosters
from privfl.homes.state import Items

__all__ = ["POLICY", "ROSTERS", "Membership", "read_policy", "recall", "verify_join"]

ROSTERS: Final = "rosters"  # names in the sealed state
POLICY: Final = "policy"


@dataclass(frozen=True)
class _KnownPolicy(Record):
    TAG: ClassVar[str] = "accepted policy"

    version: Uint32
    hash: Bytes32
    signed: SignedPolicy


@dataclass(frozen=True)
class Membership:
    """What was verified together: book, roster, policy. ``chain`` is what a join was given, else empty."""

    book: RosterBook
    roster: Roster
    signed_policy: SignedPolicy
    policy: Policy
    chain: tuple[SignedRoster, ...] = ()

    @property
    def signed_roster(self) -> SignedRoster:
        """The roster in force with the authority's signature."""
        latest = self.book.latest(self.roster.federation)
        assert latest is not None
        return latest

    @property
    def authority(self) -> VerifyKey:
        """The authority that is pinned."""
        return self.book.authority(self.roster.federation)

    def items(self) -> dict[str, bytes | None]:
        """What the sealed state keeps of it."""
        known = _KnownPolicy(self.policy.version, self.policy.hash, self.signed_policy)
        return {ROSTERS: self.book.dump(), POLICY: known.encode()}


def read_policy(path: Path) -> SignedPolicy:
    """Read a signed policy; raises Misuse if there is none, Malformed if it is none."""
    data = read_bytes(path, "the policy, as privfl policy sign wrote it")
    try:
        return SignedPolicy.decode(data)
    except Malformed:
        raise Malformed(
            f"{path} is damaged or no signed policy; have the officer sign it with privfl policy sign, and fetch that"
        ) from None


def recall(state: Items, config: Config, identity: Identity, now: int) -> Membership:
    """What was joined with, verified again for ``now`` (milliseconds since 1970).

    Raises:
        Misuse: nothing was joined yet.
        Unverified: the roster is not valid now, or no longer lists this key. Refused: the policy expired.
    """
    known = _policy(state)
    if known is None:
        raise Misuse(
            f"this {config.role} has not joined yet; run: privfl {config.role} join --help, which names what it needs"
        )
    book = _book(state)
    roster = _dated(lambda: book.current(config.federation, now), now)
    _check_listed(roster, config, identity)
    policy = known.signed.verify(roster, now)
    policy.agrees_with(roster)
    return Membership(book, roster, known.signed, policy)


def verify_join(
    state: Items,
    config: Config,
    identity: Identity,
    now: int,
    *,
    rosters: Path | None,
    authority: str | None,
    policy: Path | None,
) -> Membership:
    """Verify what an operator brought, together with what is known; only proof against an authority is kept already.

    Args:
        rosters: the authority's file; None keeps the roster that is known.
        authority: as :func:`privfl.homes.rosters.read_authority`; needed the first time.
        policy: signed by the officer; None keeps the one that is known.
        now: milliseconds since 1970.

    Raises:
        Misuse: something is missing, or another authority was pinned. Malformed: a damaged file.
        Unverified: wrong authority, rollback, fork, not valid now, this key is not listed, a policy nobody signed.
        Refused: a policy that is foreign, expired, downgraded, or does not agree with the roster.
    """
    book, known = _book(state), _policy(state)
    chain: tuple[SignedRoster, ...] = ()
    if rosters is not None:
        chain = read_rosters(rosters)
        roster = _accept(state, book, config, now, chain, authority, rosters.parent)
    elif book.latest(config.federation) is None:
        raise Misuse(
            "no roster is known here yet; give the authority's file with --roster, and, the first time, --authority, "
            "--policy and --wire as well"
        )
    else:
        if authority is not None and read_authority(authority, Path()) != book.authority(config.federation):
            raise Misuse("another authority is pinned here; a new authority is a new federation")
        roster = _dated(lambda: book.current(config.federation, now), now)
    _check_listed(roster, config, identity)
    if policy is not None:
        signed = read_policy(policy)
    elif known is not None:
        signed = known.signed
    else:
        raise Misuse("no policy is known here yet; give the one that compliance signed with --policy")
    found = signed.verify(roster, now)
    found.agrees_with(roster)
    check_succession(None if known is None else (known.version, known.hash), found)
    return Membership(book, roster, signed, found, chain)


def _accept(
    state: Items,
    book: RosterBook,
    config: Config,
    now: int,
    chain: Sequence[SignedRoster],
    authority: str | None,
    beside: Path,
) -> Roster:
    federation = chain[0].roster.federation
    if federation != config.federation:
        raise Unverified(
            f"this is the roster of {federation!a:.80}, and this folder is for {config.federation!a}; fetch that one"
        )
    if authority is not None or book.latest(federation) is None:
        book.pin(federation, read_authority(authority, beside))
    proofs = len(book.evidence)
    try:
        return _dated(lambda: accept_chain(book, chain, now), now)
    except Unverified:
        if len(book.evidence) > proofs:
            state.put({ROSTERS: book.dump()})  # the page is as before; the proof must not be lost
        raise


def _dated(find: Callable[[], Roster], now: int) -> Roster:
    """A roster outside its validity may be the clock's fault as well, so say what the clock shows."""
    try:
        return find()
    except Unverified as error:
        if "not valid yet" in str(error) or "has expired" in str(error):
            words = f"it shows {_moment(now)}"
            about = f" ({words})" if "clock" in str(error) else f", or set this machine's clock right: {words}"
            raise Unverified(f"{error}{about}") from None
        raise


def _moment(now: int) -> str:
    try:
        return f"{datetime.fromtimestamp(now / 1000, UTC):%Y-%m-%d %H:%M} UTC"
    except (OverflowError, ValueError, OSError):
        return f"{now} ms since 1970"


def _check_listed(roster: Roster, config: Config, identity: Identity) -> None:
    where = f"roster version {roster.version} of {roster.federation!a}"
    if identity.site_id in roster.revoked:
        raise Unverified(f"{where} revoked this key; make a new folder and enrol under a new name")
    try:
        member = roster.member(identity.site_id)
    except Unverified:
        raise Unverified(
            f"{where} does not list this key (fingerprint {identity.fingerprint}); ask the authority to approve the "
            "request in this folder and to sign a roster, and fetch that one"
        ) from None
    if config.role not in member.roles:
        raise Unverified(f"{where} lists this key as {', '.join(member.roles)} and not as {config.role}")
    if member.name != config.name:
        raise Unverified(f"{where} lists this key as {member.name!a} and not as {config.name!a}; ask the authority why")


def _book(state: Items) -> RosterBook:
    data = state.get(ROSTERS)
    return RosterBook() if data is None else RosterBook.load(data)


def _policy(state: Items) -> _KnownPolicy | None:
    data = state.get(POLICY)
    return None if data is None else _KnownPolicy.decode(data)
