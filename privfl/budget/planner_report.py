"""A whole plan as one value: rooms, training, counts, the ε-over-δ curve, windows, what to mind."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from privfl.budget.charge import Purpose
from privfl.budget.planner import Room, epsilon_to_ask, epsilons, rooms
from privfl.budget.planner_counts import Cohort, Counts, counts_for, counts_within
from privfl.budget.planner_runs import Run, largest_run, run_for
from privfl.budget.policy import Policy
from privfl.budget.policy_words import figures
from privfl.budget.tally import Tally
from privfl.dp import ZERO_COST, Cost, Trust, Unit

__all__ = ["Asked", "Plan", "Window", "make_plan"]

ROUNDS = (10, 30, 100)
EPSILONS = (8.0, 4.0, 2.0, 1.0, 0.5)
QUERIES = (1, 10, 30, 100, 300, 1000)
PEOPLE = (5.0, 10.0, 20.0, 50.0, 100.0)
#: At which δ the curve is shown, besides the policy's own.
DELTAS = tuple(10.0**-power for power in range(3, 11))


@dataclass(frozen=True)
class Asked:
    """What the planning person has in mind.

    Attributes:
        rounds, epsilons: of training runs. queries, people: of counts, how many and within ± how many people.
        sites: in a published sum; by default the policy's fewest. analyst: whose cap counts. length: of an upload.
    """

    rounds: Sequence[int] = ROUNDS
    epsilons: Sequence[float] = EPSILONS
    queries: Sequence[int] = QUERIES
    people: Sequence[float] = PEOPLE
    sites: int | None = None
    analyst: str | None = None
    length: int = 1000


@dataclass(frozen=True)
class Window:
    """A budget that comes back.

    Attributes:
        days: of the window. windows: that the validity can hold. mu, epsilon: all of them together, at the
            lifetime's δ. whole: how many of them the lifetime cap lets be used to the full, as much as is left of it.
        ahead: (milliseconds since 1970, ε of the total that would be left then) if nothing more is charged.
    """

    days: int
    windows: int
    mu: float
    epsilon: float
    lifetime_epsilon: float
    lifetime_delta: float
    whole: int
    ahead: tuple[tuple[int, float], ...]


@dataclass(frozen=True)
class Plan:
    """Everything that ``privfl policy plan`` shows.

    Attributes:
        largest: by rounds, the largest run that fits, with one attempt for each round and with all of them.
        runs: by rounds and ε, the same pair; ``fits`` says how many.
        counts: by purpose and query, with one attempt; None where no noise is enough. within: by purpose, people
            and trust, how many counts fit.
        spent: in the window if there is one, None if it has no finite cost.
        curve: (δ, ε of the budget, ε of ``spent``).
        fallback: ε of the whole budget if all other sites collude; None under trust ``local``.
    """

    policy: Policy
    now: int
    cohort: Cohort
    rooms: tuple[Room, ...]
    largest: tuple[tuple[Run, Run], ...]
    runs: tuple[tuple[Run, Run], ...]
    counts: tuple[tuple[Purpose, int, Trust, Counts | None], ...]
    within: tuple[tuple[Purpose, float, Trust, int], ...]
    spent: Cost | None
    curve: tuple[tuple[float, float | None, float | None], ...]
    fallback: float | None
    window: Window | None
    notes: tuple[str, ...]


def make_plan(policy: Policy, tally: Tally, now: int, asked: Asked | None = None) -> Plan:
    """Plan under ``policy`` with what ``tally`` holds already; an empty tally plans from the start.

    Args:
        now: milliseconds since 1970.

    Raises:
        Misuse: the policy has no budget, or ``asked`` names what cannot be.
    """
    asked = asked or Asked()
    found = rooms(policy.limits(), tally, now, analyst=asked.analyst)
    budget = found[0].budget
    cohort = Cohort(
        asked.sites if asked.sites is not None else policy.min_sites, policy.min_survivors, policy.colluders
    )
    training = next(room for room in found if room.purpose is Purpose.TRAINING)
    counting = [room for room in found if room.purpose is not Purpose.TRAINING and policy.shares.get(room.purpose)]
    counting = [] if policy.unit is Unit.SITE else counting
    trusts = (Trust.DISTRIBUTED, Trust.LOCAL) if policy.trust is Trust.DISTRIBUTED else (Trust.LOCAL,)
    spent = _spent(policy, tally, now)
    deltas = sorted({*DELTAS, budget.delta}, reverse=True)
    whole = epsilons(budget.part(1), deltas)
    used = epsilons(spent, deltas) if spent is not None else tuple((delta, None) for delta in deltas)
    return Plan(
        policy,
        now,
        cohort,
        found,
        tuple(_attempted(policy, asked, partial(largest_run, training, each)) for each in asked.rounds),
        tuple(
            _attempted(policy, asked, partial(run_for, training, epsilon, each))
            for each in asked.rounds
            for epsilon in asked.epsilons
        ),
        tuple(
            (room.purpose, queries, trust, counts_for(room, cohort, queries, trust))
            for room in counting
            for queries in asked.queries
            for trust in trusts
        ),
        tuple(
            (room.purpose, people, trust, counts_within(room, cohort, people, trust))
            for room in counting
            for people in asked.people
            for trust in trusts
        ),
        spent,
        tuple((delta, total, part) for (delta, total), (_, part) in zip(whole, used, strict=True)),
        figures(policy).get("epsilon_if_all_others_collude"),
        _window(policy, tally, now, training.factor(policy.trust)),
        tuple(_notes(policy, found, tally, asked, now)),
    )


def _attempted(policy: Policy, asked: Asked, make: Callable[..., Run]) -> tuple[Run, Run]:
    """With one attempt for each round, and with as many as the policy allows."""
    each = partial(make, trust=policy.trust, length=asked.length, most=policy.max_epsilon_per_upload)
    return each(attempts=1), each(attempts=policy.attempts_per_round)


def _spent(policy: Policy, tally: Tally, now: int) -> Cost | None:
    k = policy.max_sites_per_subject
    return None if tally.life.endless(policy.unit) else tally.within(now).total(policy.unit, sites_per_subject=k)


def _window(policy: Policy, tally: Tally, now: int, factor: int) -> Window | None:
    limits, life, budget = policy.limits(), policy.lifetime, policy.budget
    if policy.window is None or limits.window_ms is None or life is None or budget is None:
        return None
    found, length = figures(policy), limits.window_ms
    spent = tally.life.total(policy.unit, sites_per_subject=policy.max_sites_per_subject)
    left = ZERO_COST
    if spent is not None and spent.mu2 <= life.mu2 and spent.delta <= life.slack:
        left = Cost(life.mu2 - spent.mu2, life.slack - spent.delta)
    ahead = []
    for quarter in range(5):
        then = now + quarter * length // 4
        ahead.append((then, _epsilon(limits.left(tally, then), factor, budget.delta)))
    return Window(
        policy.window.days,
        found["windows"],
        found["mu_of_all_windows"],
        found["epsilon_of_all_windows"],
        life.epsilon,
        life.delta,
        min(found["windows"], int(left.mu2 // budget.mu2)),
        tuple(ahead),
    )


def _epsilon(left: Cost | None, factor: int, delta: float) -> float:
    return 0.0 if left is None else epsilon_to_ask(left.mu2 / factor, delta)


def _notes(policy: Policy, found: Sequence[Room], tally: Tally, asked: Asked, now: int) -> Iterator[str]:
    if now >= policy.expires_at:
        yield "this policy has expired; sites refuse everything that is asked under it"
    elif now < policy.valid_from_at:
        yield "this policy is not in force yet; charges until then change what is left"
    if tally.life.endless(policy.unit):
        yield f"earlier charges in the ledger have no finite cost per {policy.unit}: nothing can be admitted any more"
    if policy.analysts and asked.analyst is None:
        yield "caps of single analysts are left out; name one to plan within it"
    if policy.unit is Unit.SITE:
        yield "counts of people have no bound per site and are not planned; only models that clip whole sites are"
    if not policy.tasks:
        yield "no kind of training is allowed; the tables of runs are figures only"
    if not policy.statistics:
        yield "no statistic is allowed; the tables of counts are figures only"
    tight = [str(room.purpose) for room in found if room.left.mu2 and not room.binding.startswith("the share")]
    if tight:
        yield f"for {' and '.join(tight)} the total, a cap or the lifetime budget is tighter than the share"
