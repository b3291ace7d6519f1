"""What a site has agreed to: the questions that it asks of every announcement, before anything is charged.

:class:`PolicyTerms` answers them from the policy that the compliance officer signed; :class:`Terms` are the
same questions asked of values, for federations in one process.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import ClassVar, Protocol

from privfl_keys import Label, Roster, digest

from privfl.budget import Budget, Charge, Limits, Mandate, Policy, Proposal, Purpose
from privfl.codec import Record
from privfl.dp import ZERO_COST, Release, Trust, Unit
from privfl.errors import BudgetExceeded, Refused, Unverified
from privfl.secagg import Announcement, Rules
from privfl.tasks import Question, Sum, column_uses, costs_of

__all__ = ["Permission", "PolicyTerms", "Terms", "check_share", "costs_of", "proposal_of"]


class Permission(Protocol):
    """What one site allows; a request may tighten it, never loosen it."""

    def rules(self) -> Rules:
        """What the secure-aggregation machine enforces of it."""
        ...

    def permit(
        self, roster: Roster, announcement: Announcement, question: Question, inputs: bytes, mandate: bytes, now: int
    ) -> Charge:
        """Check a question against everything that was agreed and return what one upload is charged for.

        Raises:
            Refused: not allowed; the reason is a function of public things.
            Theirs: the question, its inputs or the mandate are not what the announcement names.
        """
        ...


def check_shape(a: Announcement, question: Question, total: Sum, roster: Roster) -> None:
    """The question is the one announced, and its vector fits the announced ring; raises Unverified or Refused."""
    if question.id != a.task:
        raise Unverified("the task is not the one that the announcement names")
    if (a.bits, a.word, a.length) != (total.ring.bits, total.ring.word, total.length):
        raise Refused("the announced ring or length is not that of the task")
    if len(a.sites) > question.sites:
        raise Refused(f"the task's ring holds {question.sites} sites and the cohort has {len(a.sites)}")
    if total.own and total.own < len(roster.site_ids):  # a site's place is that in the roster
        raise Refused(f"the task has room for {total.own} sites' own answers and the roster has {len(roster.site_ids)}")


def check_release(release: Release, a: Announcement, roster: Roster) -> None:
    """What distributed noise rests on must hold in this slot; raises Refused."""
    if release.trust is not Trust.DISTRIBUTED:
        return
    if release.min_survivors > a.min_survivors:
        raise Refused(
            f"the noise rests on {release.min_survivors} survivors and the slot may open with {a.min_survivors}"
        )
    if max(1, release.colluders) < max(1, roster.corrupt_bound):
        raise Refused(
            f"the task counts {release.colluders} colluding sites and the roster bounds them by {roster.corrupt_bound}"
        )


def words_of(question: Question, a: Announcement) -> str:
    """What a slot is about, in public words for the ledger."""
    return f"{question.title}, epoch {a.scope.epoch}, round {a.round}, attempt {a.attempt}"


@dataclass(frozen=True)
class Terms(Record):
    """Privacy terms as plain values.

    Attributes:
        epsilon, delta: total budget, as the shortest text that reads back the same; empty for a federation
            that runs without noise, which must be asked for by name.
        unit, trust: what is protected, and on whose noise it may rest. ``local`` is stricter than
            ``distributed`` and is accepted by either.
        min_survivors: least number of sites in any opened sum.
        allow_voted, allow_complete: modes of opening a sum.
    """

    TAG: ClassVar[str] = "terms"
    epsilon: str
    delta: str
    unit: str
    trust: str
    min_survivors: int
    allow_voted: bool
    allow_complete: bool

    @property
    def hash(self) -> bytes:
        """32 bytes that every announcement names."""
        return digest(Label.POLICY, *self.to_value())

    @property
    def noiseless(self) -> bool:
        """Whether sums without noise were agreed to."""
        return not self.epsilon

    def limits(self) -> Limits:
        """The whole budget for whatever is asked, for life."""
        shares = dict.fromkeys(Purpose, Fraction(1))
        if self.noiseless:
            return Limits(Unit(self.unit), None, shares, {}, noiseless=True)
        return Limits(Unit(self.unit), Budget.from_epsilon_delta(float(self.epsilon), float(self.delta)), shares, {})

    def rules(self) -> Rules:
        """See :class:`Permission`."""
        return Rules(self.hash, self.min_survivors, self.allow_voted, self.allow_complete, self.noiseless)

    def permit(
        self, roster: Roster, announcement: Announcement, question: Question, inputs: bytes, mandate: bytes, now: int
    ) -> Charge:
        """See :class:`Permission`."""
        a, total = announcement, question.sum_of(inputs)
        release = total.release
        check_shape(a, question, total, roster)
        what = words_of(question, a)
        if release is None:
            if not self.noiseless:
                raise Refused("the task has no noise and this site's terms do not allow that")
            return Charge(a.h0, question.purpose, "", what=what, policy=self.hash)
        if self.noiseless:
            raise Refused("this site's terms name no budget; a task with noise needs one")
        if release.trust is not Trust.LOCAL and self.trust != release.trust:
            raise Refused(f"the task asks for trust {release.trust} and this site's terms are {self.trust}")
        check_release(release, a, roster)
        release.cost_in(Unit(self.unit))
        return Charge(a.h0, question.purpose, "", question.costs(inputs), release.trust, what, self.hash)


class PolicyTerms:
    """A site's terms by its own signed policy, which was verified when it was opened."""

    def __init__(self, policy: Policy) -> None:
        self.policy = policy

    def rules(self) -> Rules:
        """See :class:`Permission`."""
        p = self.policy
        return Rules(p.hash, p.min_survivors, p.allow_voted, p.allow_complete, p.noiseless, p.expires_at)

    def permit(
        self, roster: Roster, announcement: Announcement, question: Question, inputs: bytes, mandate: bytes, now: int
    ) -> Charge:
        """See :class:`Permission`."""
        a, total = announcement, question.sum_of(inputs)
        check_shape(a, question, total, roster)
        analyst, under = roster.member(a.coordinator).name, None
        if mandate:
            signed = Mandate.decode(mandate)
            analyst, purpose = signed.verify(roster, a.task, now)
            under = signed.nonce, question.uploads  # for one run, however often a coordinator begins it anew
            if purpose is not question.purpose:
                raise Refused(f"the mandate is for {purpose} and the task is one of {question.purpose}")
        self.policy.examine(proposal_of(roster, a, question, total, inputs, analyst), now)
        release = total.release
        if release is not None:
            check_release(release, a, roster)
        trust = release.trust if release else None
        costs, words = question.costs(inputs), words_of(question, a)
        return Charge(a.h0, question.purpose, analyst, costs, trust, words, self.policy.hash, under)


def proposal_of(
    roster: Roster, a: Announcement, question: Question, total: Sum, inputs: bytes, analyst: str
) -> Proposal:
    """Everything public about a slot, for a policy to look at."""
    return Proposal(
        federation=roster.federation,
        purpose=question.purpose,
        analyst=analyst,
        kind=question.kind,
        schema=(question.schema.name, question.schema.version),
        columns=column_uses(question.schema, question.columns),
        clip=question.clip,
        release=total.release,
        sites=len(a.sites),
        min_survivors=a.min_survivors,
        complete=a.complete,
        roster_sites=len(roster.site_ids),
        corrupt_bound=roster.corrupt_bound,
        committee=roster.committee_size,
        committee_corrupt=roster.committee_corrupt,
        round=a.round,
        attempt=a.attempt,
        statistics=question.statistics,
        schema_digest=question.schema.digest,
        costs=question.costs(inputs),
    )


def check_share(question: Question, policy: Policy) -> None:
    """Raise BudgetExceeded unless all of it fits what the policy gives to its purpose.

    What the ledgers have left, only the sites know.
    """
    limits = policy.limits()
    if limits.budget is None:
        return
    share, total = limits.budget.part(limits.shares.get(question.purpose, Fraction(0))), ZERO_COST
    for price in question.prices():
        one = limits.price(Charge(bytes(32), question.purpose, "", price.costs, price.trust))
        total += price.times * one
    if total.mu2 > share.mu2 or total.delta > share.delta:
        raise BudgetExceeded(
            f"{question.title}: {sum(price.times for price in question.prices())} upload(s) of each site are more than "
            f"the policy gives to {question.purpose}; what fits, says: privfl policy plan POLICY"
        )
