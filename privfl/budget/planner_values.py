"""A plan as plain values, for programs."""

from __future__ import annotations

import math
from typing import Any

from privfl.budget.charge import Purpose
from privfl.budget.planner import Room
from privfl.budget.planner_counts import Counts
from privfl.budget.planner_report import Plan
from privfl.budget.planner_runs import Run
from privfl.dp import Cost, Trust, epsilon_of_cost

__all__ = ["plan_values"]


def plan_values(plan: Plan) -> dict[str, Any]:
    """The plan for JSON; what is infinite or impossible is None, costs are [μ², δ′] as exact decimals."""
    policy = plan.policy
    return {
        "federation": policy.federation,
        "version": policy.version,
        "hash": policy.hash.hex(),
        "now": plan.now,
        "unit": str(policy.unit),
        "trust": str(policy.trust),
        "epsilon": policy.epsilon,
        "delta": policy.delta,
        "sites": plan.cohort.sites,
        "spent": None if plan.spent is None else list(plan.spent.to_decimals()),
        "rooms": [_room(room, policy.trust) for room in plan.rooms],
        "largest_runs": [_pair(first, reserved) for first, reserved in plan.largest],
        "runs": [_pair(first, reserved) for first, reserved in plan.runs],
        "counts": [_counts(purpose, queries, trust, found) for purpose, queries, trust, found in plan.counts],
        "counts_within": [
            {"purpose": str(purpose), "people": people, "trust": str(trust), "queries": number}
            for purpose, people, trust, number in plan.within
        ],
        "curve": [{"delta": delta, "budget": whole, "spent": used} for delta, whole, used in plan.curve],
        "epsilon_if_all_others_collude": plan.fallback,
        "window": None if plan.window is None else {**vars(plan.window), "ahead": [*map(list, plan.window.ahead)]},
        "notes": list(plan.notes),
    }


def _room(room: Room, trust: Trust) -> dict[str, Any]:
    delta = room.budget.delta
    return {
        "purpose": str(room.purpose),
        "analyst": room.analyst,
        "left": list(room.left.to_decimals()),
        "epsilon_left": room.epsilon_left(trust),
        "binding": room.binding,
        "ceilings": [
            {"name": one.name, "epsilon": _at(one.whole, delta), "left": list(one.left.to_decimals())}
            for one in room.ceilings
        ],
    }


def _at(cost: Cost, delta: float) -> float | None:
    return epsilon_of_cost(cost, delta) if cost.delta < delta else None


def _pair(first: Run, reserved: Run) -> dict[str, Any]:
    def one(run: Run) -> dict[str, Any]:
        multiplier = run.multiplier if run.multiplier < math.inf else None
        cost = list(run.cost.to_decimals()) if run.epsilon else None
        return {"epsilon": run.epsilon, "multiplier": multiplier, "cost": cost, "fits": run.fits}

    attempts = {"attempts": reserved.attempts, **one(reserved)}
    return {"rounds": first.rounds, "first_attempts": one(first), "all_attempts": attempts}


def _counts(purpose: Purpose, queries: int, trust: Trust, found: Counts | None) -> dict[str, Any]:
    words: dict[str, Any] = {"purpose": str(purpose), "queries": queries, "trust": str(trust)}
    if found is None:
        return {**words, "error": None}
    return {
        **words,
        "error": found.error,
        "within": found.within,
        "sigma": found.release.blocks[0].sigma,
        "cost": list(found.price.to_decimals()),
        "epsilon": found.epsilon,
        "epsilon_if_all_others_collude": found.fallback,
    }
