"""What a site has agreed to: the questions that it asks of every announcement, before anything is charged.

:class:`PolicyTerms` answers them from the policy that the compliance officer signed; :class:`Terms` are the
same questions asked of values, for federations in one process.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import ClassVar, Protocol

from privfl_keys import Label, Roster, digest

from privfl.budget import Budget, Charge, ColumnUse, Limits, Mandate, Policy, Proposal, Purpose
from privfl.codec import Record
from privfl.dp import Cost, Release, Trust, Unit
from privfl.errors import Refused, Unverified
from privfl.learn import Schema, Task
from privfl.secagg import Announcement, Rules

__all__ = ["Permission", "PolicyTerms", "Terms", "proposal_of"]


class Permission(Protocol):
    """What one site allows; a request may tighten it, never loosen it."""

    def rules(self) -> Rules:
        """What the secure-aggregation machine enforces of it."""
        ...

    def permit(self, roster: Roster, announcement: Announcement, task: Task, mandate: bytes, now: int) -> Charge:
        """Check a task against everything that was agreed and return what one upload is charged for.

        Raises:
            Refused: not allowed; the reason is a function of public things.
            Theirs: the task or the mandate is not what the announcement names.
        """
        ...


def check_shape(a: Announcement, task: Task) -> None:
    """The task is the one announced, and its vector fits the announced ring; raises Unverified or Refused."""
    if task.id != a.task:
        raise Unverified("the task is not the one that the announcement names")
    if (a.bits, a.word, a.length) != (task.ring.bits, task.ring.word, task.length):
        raise Refused("the announced ring or length is not that of the task")
    if len(a.sites) > task.plan.sites:
        raise Refused(f"the task's ring holds {task.plan.sites} sites and the cohort has {len(a.sites)}")


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


def costs_of(release: Release | None) -> dict[Unit, Cost]:
    """The cost of one upload by every unit in which it is finite."""
    costs: dict[Unit, Cost] = {}
    for unit in Unit if release is not None else ():
        try:
            costs[unit] = release.cost_in(unit)  # type: ignore[union-attr]
        except Refused:
            continue
    return costs


def words_of(task: Task, a: Announcement) -> str:
    """What a slot is about, in public words for the ledger."""
    return f"{task.kind} {task.spec.label!a}, epoch {a.scope.epoch}, round {a.round}, attempt {a.attempt}"


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
        """The whole budget for training, for life."""
        shares = {Purpose.TRAINING: Fraction(1)}
        if self.noiseless:
            return Limits(Unit(self.unit), None, shares, {}, noiseless=True)
        return Limits(Unit(self.unit), Budget.from_epsilon_delta(float(self.epsilon), float(self.delta)), shares, {})

    def rules(self) -> Rules:
        """See :class:`Permission`."""
        return Rules(self.hash, self.min_survivors, self.allow_voted, self.allow_complete, self.noiseless)

    def permit(self, roster: Roster, announcement: Announcement, task: Task, mandate: bytes, now: int) -> Charge:
        """See :class:`Permission`."""
        a, release = announcement, task.release
        check_shape(a, task)
        what = words_of(task, a)
        if release is None:
            if not self.noiseless:
                raise Refused("the task has no noise and this site's terms do not allow that")
            return Charge(a.h0, Purpose.TRAINING, "", what=what, policy=self.hash)
        if self.noiseless:
            raise Refused("this site's terms name no budget; a task with noise needs one")
        if release.trust is not Trust.LOCAL and self.trust != release.trust:
            raise Refused(f"the task asks for trust {release.trust} and this site's terms are {self.trust}")
        check_release(release, a, roster)
        release.cost_in(Unit(self.unit))
        return Charge(a.h0, Purpose.TRAINING, "", costs_of(release), release.trust, what, self.hash)


class PolicyTerms:
    """A site's terms by its own signed policy, which was verified when it was opened."""

    def __init__(self, policy: Policy) -> None:
        self.policy = policy

    def rules(self) -> Rules:
        """See :class:`Permission`."""
        p = self.policy
        return Rules(p.hash, p.min_survivors, p.allow_voted, p.allow_complete, p.noiseless, p.expires_at)

    def permit(self, roster: Roster, announcement: Announcement, task: Task, mandate: bytes, now: int) -> Charge:
        """See :class:`Permission`."""
        a = announcement
        check_shape(a, task)
        analyst, purpose, under = roster.member(a.coordinator).name, Purpose.TRAINING, None
        if mandate:
            signed = Mandate.decode(mandate)
            analyst, purpose = signed.verify(roster, a.task, now)
            under = signed.nonce, task.uploads  # for one run, however often a coordinator begins it anew
        if purpose is not Purpose.TRAINING:
            raise Refused(f"the mandate is for {purpose} and the task is one of training")
        self.policy.examine(proposal_of(roster, a, task, purpose, analyst), now)
        if task.release is not None:
            check_release(task.release, a, roster)
        trust = task.release.trust if task.release else None
        words = words_of(task, a)
        return Charge(a.h0, purpose, analyst, costs_of(task.release), trust, words, self.policy.hash, under)


def proposal_of(roster: Roster, a: Announcement, task: Task, purpose: Purpose, analyst: str) -> Proposal:
    """Everything public about a slot of training, for a policy to look at."""
    names = (*task.features, task.spec.label)
    return Proposal(
        federation=roster.federation,
        purpose=purpose,
        analyst=analyst,
        kind=task.spec.kind,
        schema=(task.schema.name, task.schema.version),
        columns=column_uses(task.schema, names),
        clip=getattr(task.spec, "clip", None),
        release=task.release,
        sites=len(a.sites),
        min_survivors=a.min_survivors,
        complete=a.complete,
        roster_sites=len(roster.site_ids),
        corrupt_bound=roster.corrupt_bound,
        committee=roster.committee_size,
        committee_corrupt=roster.committee_corrupt,
        round=a.round,
        attempt=a.attempt,
    )


def column_uses(schema: Schema, names: tuple[str, ...]) -> Mapping[str, ColumnUse]:
    """Public bounds or classes of the columns that are read."""
    numeric = set(schema.numeric)
    uses = {}
    for name in names:
        column = schema.columns[name]
        uses[name] = (
            ColumnUse(column.lower, column.upper)  # type: ignore[union-attr]
            if name in numeric
            else ColumnUse(classes=column.classes)  # type: ignore[union-attr]
        )
    return uses
