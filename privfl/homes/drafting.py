"""The next roster as a draft: who is in it, which numbers hold, what is new. Nothing is signed here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final, Literal

from privfl_keys import Member, Roster

from privfl.entropy import Entropy
from privfl.errors import Misuse

__all__ = ["RosterTerms", "draft", "same_substance"]

DAY_MS: Final = 86_400_000
SKEW_MS: Final = 600_000  # a roster counts from a little before it was signed: no site's clock is exact


@dataclass(frozen=True)
class RosterTerms:
    """What the authority decides beside the members.

    Args:
        days: of validity. colluders, committee_corrupt, degree: as :meth:`privfl_keys.Roster.create`.
        committee: number of seats, drawn at random; only above 64 sites.
    """

    days: int = 365
    colluders: int | Literal["no site colludes"] | None = None
    committee: int | None = None
    committee_corrupt: int | None = None
    degree: int = 0


def draft(
    federation: str,
    latest: Roster | None,
    members: Mapping[bytes, Member],
    struck: Iterable[bytes],
    terms: RosterTerms,
    now: int,
    entropy: Entropy,
) -> Roster:
    """Build version 1, or what follows ``latest``.

    Args:
        members: by id, without those struck. struck: ids to revoke, members of ``latest``.
        now: milliseconds since 1970. entropy: for the seats and the graph seed, drawn when the members are fixed.

    Raises:
        Misuse: nobody, or numbers that break a rule of the protocol. Refused: too small a degree.
    """
    if not 1 <= terms.days <= 3650:
        raise Misuse(f"a roster is valid for 1 to 3650 days, not {terms.days}")
    if not members:
        raise Misuse("nobody is approved yet; approve the requests of coordinator, officer and sites first")
    seats = _seats(members, latest, terms.committee, entropy)
    valid_from, valid_until = max(0, now - SKEW_MS), now + terms.days * DAY_MS
    if latest is None:
        roster = Roster.create(
            federation,
            members.values(),
            graph_seed=entropy.draw(32),
            valid_from=valid_from,
            valid_until=valid_until,
            corrupt_bound=terms.colluders,
            committee=seats,
            committee_corrupt=terms.committee_corrupt,
            degree=terms.degree,
        )
    else:
        roster = latest.succeed(
            members=members.values(),
            revoke=struck,
            graph_seed=entropy.draw(32),
            valid_from=valid_from,
            valid_until=valid_until,
            corrupt_bound=terms.colluders,
            committee=seats,
            committee_corrupt=terms.committee_corrupt,
            degree=terms.degree,
        )
    if terms.degree:
        from privfl.secagg.graph import check_degree  # noqa: PLC0415 - brings numpy

        check_degree(len(roster.site_ids), roster.corrupt_bound, terms.degree)
    return roster


def same_substance(one: Roster, other: Roster) -> bool:
    """Whether two versions differ in dates and seed only."""
    return _substance(one) == _substance(other)


def _substance(roster: Roster) -> tuple[object, ...]:
    numbers = (roster.corrupt_bound, roster.committee_corrupt, roster.degree, roster.assumption)
    return (roster.members, roster.committee, roster.revoked, *numbers)


def _seats(
    members: Mapping[bytes, Member], latest: Roster | None, wanted: int | None, entropy: Entropy
) -> tuple[bytes, ...]:
    if wanted is None:
        return ()
    sites = [site_id for site_id, member in members.items() if "site" in member.roles]
    if not 1 <= wanted <= len(sites):
        raise Misuse(f"a committee has 1 to {len(sites)} seats here, not {wanted}")
    if latest is not None and set(latest.site_ids) == set(sites) and len(latest.committee) == wanted:
        return latest.committee
    return tuple(sorted(sites, key=lambda _: entropy.draw(16))[:wanted])
