"""Holding a request against a policy: every reason to refuse it is a function of public things.

A site runs this on the announcement, before it reads a row, so a refusal tells nothing about its data and its
reasons may be sent back as they are.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from privfl.budget.charge import Charge, ColumnUse, Proposal, Purpose
from privfl.budget.policy_parts import AllowedColumn
from privfl.dp import Cost, Release, Trust, epsilon_of_cost
from privfl.errors import Misuse, Refused

if TYPE_CHECKING:
    from privfl.budget.policy import Policy

__all__ = ["check_expiry", "check_in_force", "examine"]

MAX_REASONS = 6


def examine(policy: Policy, proposal: Proposal, now: int) -> None:
    """Refuse what ``policy`` does not permit at ``now`` (milliseconds since 1970).

    Raises:
        Refused: with every reason (the first six): what is forbidden, and what is allowed.
    """
    check_in_force(policy, now)
    reasons = [
        *_whose(policy, proposal),
        *_what(policy, proposal),
        *_columns(policy, proposal),
        *_cohort(policy, proposal),
        *_noise(policy, proposal),
    ]
    if reasons:
        more = [f"and {len(reasons) - MAX_REASONS} more reasons"] if len(reasons) > MAX_REASONS else []
        raise Refused(
            f"policy version {policy.version} does not allow this: " + "; ".join(reasons[:MAX_REASONS] + more)
        )


def check_in_force(policy: Policy, now: int) -> None:
    """Raise Refused before the policy is valid and from its expiry on."""
    if now < policy.valid_from_at:
        raise Refused(
            f"policy version {policy.version} is valid from {_day(policy.valid_from_at)} on and this machine's clock "
            f"says {_day(now)}; wait, or correct the clock"
        )
    check_expiry(policy, now)


def check_expiry(policy: Policy, now: int) -> None:
    """Raise Refused from the policy's expiry on."""
    if now >= policy.expires_at:
        raise Refused(
            f"policy version {policy.version} expired on {_day(policy.expires_at)} and this machine's clock says "
            f"{_day(now)}; ask compliance for the next version, or correct the clock"
        )


def _day(now: int) -> str:
    try:
        return datetime.fromtimestamp(now / 1000, UTC).strftime("%Y-%m-%d %H:%M UTC")
    except (OverflowError, ValueError, OSError):
        return f"{now} ms since 1970"


def _listed(names: object) -> str:
    items = [str(name) for name in names]  # type: ignore[attr-defined]
    return ", ".join(items[:20]) + (f" and {len(items) - 20} more" if len(items) > 20 else "") or "nothing"


def _whose(policy: Policy, proposal: Proposal) -> Iterator[str]:
    if proposal.federation != policy.federation:
        yield f"federation {proposal.federation!a:.80}; allowed: {policy.federation}"
    if not policy.shares.get(proposal.purpose):
        allowed = _listed(purpose for purpose, share in policy.shares.items() if share)
        yield f"purpose {proposal.purpose}, which has no share; allowed: {allowed}"
    if policy.analysts and not policy.analysts.get(proposal.analyst):
        yield f"analyst {proposal.analyst!a:.80}, who is not listed; allowed: {_listed(policy.analysts)}"
    if proposal.schema != (policy.dataset, policy.schema_version):
        name, version = proposal.schema
        yield f"schema {name!a:.80} version {version}; allowed: {policy.dataset!r} version {policy.schema_version}"
    elif policy.schema_digest is not None and proposal.schema_digest.hex() != policy.schema_digest:
        told = proposal.schema_digest.hex()[:16] or "none"
        yield f"another schema of that name and version (digest {told}); allowed: {policy.schema_digest[:16]}"


def _what(policy: Policy, proposal: Proposal) -> Iterator[str]:
    if proposal.statistics:
        yield from _study(policy, proposal)
        return
    tasks = {str(kind): task for kind, task in policy.tasks.items()}
    task = tasks.get(proposal.kind)
    if task is None:
        yield f"kind {proposal.kind!a:.80}; allowed: {_listed(tasks)}"
        return
    if proposal.purpose is not Purpose.TRAINING:
        yield f"training a model ({proposal.kind}) for {proposal.purpose}; allowed: for training only"
    if proposal.clip is None or not 0 < proposal.clip <= task.clip:  # a NaN is refused as well
        yield f"clip {proposal.clip} for {proposal.kind}; allowed: above 0 and at most {task.clip:g}"


def _study(policy: Policy, proposal: Proposal) -> Iterator[str]:
    for name in dict.fromkeys(proposal.statistics):
        if name not in policy.statistics:
            yield f"statistic {name!a:.80}; allowed: {_listed(policy.statistics)}"
    if proposal.purpose is Purpose.TRAINING:
        yield "statistics for training; allowed: for analytics or monitoring"
    if proposal.clip is not None or proposal.kind in policy.tasks:
        yield f"statistics within a task of kind {proposal.kind!a:.80}; allowed: a study by itself, without a clip"


def _columns(policy: Policy, proposal: Proposal) -> Iterator[str]:
    for name, use in proposal.columns.items():
        allowed = policy.columns.get(name)
        if allowed is None:
            yield f"column {name!a:.80}; allowed: {_listed(policy.columns)}"
        elif (why := _outside(allowed, use)) is not None:
            yield f"column {name!a:.80} {why}"


def _outside(allowed: AllowedColumn, use: ColumnUse) -> str | None:
    if allowed.max_length is not None:
        if use.text is None or use.classes or (use.lower, use.upper) != (None, None):
            return f"as something else than text; allowed: text of up to {allowed.max_length} characters"
        if not 1 <= use.text <= allowed.max_length:
            return f"with {use.text} characters; allowed: {allowed.max_length} or fewer"
        return None
    if use.text is not None:
        return f"as text; allowed: {'its classes' if allowed.classes else 'numbers within its bounds'}"
    if allowed.classes:
        asked = {(type(item), item) for item in use.classes}
        if use.lower is not None or use.upper is not None or not asked or not asked <= allowed.kinds:
            return f"with other classes; allowed: {_listed(map(repr, allowed.classes))}"
        return None
    low, high = allowed.lower, allowed.upper
    assert low is not None
    assert high is not None
    if use.lower is None or use.upper is None or use.classes:
        return f"without bounds; allowed: numbers within [{low:g}, {high:g}]"
    if not low <= use.lower < use.upper <= high:
        return f"with bounds [{use.lower!r}, {use.upper!r}]; allowed: within [{low!r}, {high!r}]"
    return None


def _cohort(policy: Policy, proposal: Proposal) -> Iterator[str]:
    for value, least, what in (
        (proposal.sites, policy.min_sites, "site(s) in the cohort"),
        (proposal.min_survivors, policy.min_survivors, "survivor(s) in an opened sum"),
        (proposal.corrupt_bound, policy.colluders, "colluder(s) as the roster's bound c"),
        (proposal.committee, policy.min_committee, "committee member(s)"),
    ):
        if value < least:
            yield f"{value} {what}; allowed: {least} or more"
    if not (policy.allow_complete if proposal.complete else policy.allow_voted):
        yield f"{'complete' if proposal.complete else 'voted'} mode; allowed: {_listed(policy.modes)}"
    if not 0 <= proposal.attempt < policy.attempts_per_round:
        yield f"attempt {proposal.attempt} (counted from 0) of one round; allowed: {policy.attempts_per_round} attempts"


def _noise(policy: Policy, proposal: Proposal) -> Iterator[str]:
    release = proposal.release
    if release is None:
        if not policy.noiseless:
            yield "a sum without noise; allowed: releases with a finite cost only"
        return
    if policy.noiseless:
        yield "a release with noise, as the policy names no budget to charge; allowed: sums without noise"
        return
    if release.trust is not Trust.LOCAL:
        if release.trust is not policy.trust:
            yield f"trust {release.trust}; allowed: {policy.trust}"
        if release.min_survivors > proposal.min_survivors:
            yield (
                f"noise that rests on {release.min_survivors} survivors in a slot that may open with "
                f"{proposal.min_survivors}; allowed: noise for {proposal.min_survivors} or fewer"
            )
        least = max(1, proposal.corrupt_bound, policy.colluders)
        if max(1, release.colluders) < least:
            yield f"noise that counts on {release.colluders} colluder(s); allowed: {least} or more"
    try:
        cost = policy.limits().price(
            Charge(
                bytes(32),
                proposal.purpose,
                proposal.analyst,
                {policy.unit: _cost(policy, proposal, release)},
                release.trust,
            )
        )
    except Refused as error:
        yield f"a release per {release.unit} ({error}); allowed: releases with a finite cost per {policy.unit}"
        return
    yield from _dear(policy, cost)


def _cost(policy: Policy, proposal: Proposal, release: Release) -> Cost:
    if not proposal.costs:
        return release.cost_in(policy.unit)
    if policy.unit not in proposal.costs:
        raise Refused(f"its parts have no finite cost for the unit {policy.unit}; bound them for that unit")
    return proposal.costs[policy.unit]


def _dear(policy: Policy, cost: Cost) -> Iterator[str]:
    most = policy.max_epsilon_per_upload
    if most is None:
        return
    assert policy.delta is not None
    try:
        epsilon = epsilon_of_cost(cost, policy.delta)
    except Misuse:  # its δ′ alone is above δ
        yield f"an upload whose delta' of {float(cost.delta):.3g} is above delta {policy.delta:g}; allowed: more noise"
        return
    if epsilon > most:
        yield f"epsilon {epsilon:.4g} for one upload at delta {policy.delta:g}; allowed: {most:g}, by more noise"
