"""What a run of an app's training cost, in the unit that its epsilon speaks of."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from fractions import Fraction

from privfl.dp import Cost, Release, Unit, epsilon_of_cost
from privfl.learn.update_spec import shorter
from privfl.learn.updates import UpdateQuestion
from privfl.runtime.fit import PrivacyReport, several_sites
from privfl.runtime.run import Stage

__all__ = ["releases_of", "report_of"]


def releases_of(question: UpdateQuestion, charges: Mapping[int, int]) -> list[tuple[Release | None, int]]:
    """(release of one upload, uploads): of rounds, and of the slot of metrics alone."""
    last = charges.get(question.rounds + 1, 0)
    whole = [(question.release, sum(charges.values()) - last)]
    if not last:
        return whole
    return [*whole, (None if question.release is None else shorter(question.release), last)]


def report_of(question: UpdateQuestion, releases: Sequence[tuple[Release | None, int]], stage: Stage) -> PrivacyReport:
    """What the run cost, in the unit that its epsilon speaks of."""
    uploads, plan, spent = sum(times for _, times in releases), question.plan, stage.spent()
    runs = 1 + len(stage.past)
    if plan.release is None or plan.delta is None:
        text = "No noise was added: the result itself carries no differential privacy."
        return PrivacyReport(math.inf, 0.0, uploads, plan.rounds, "none", "none", math.inf, math.inf, spent, text, runs)
    total, worst = Cost(0), Cost(0)
    for release, times in releases:
        assert release is not None
        total += times * release.cost_in(plan.unit)
        factor = release.cost_in(plan.unit).mu2 / release.mu2
        worst += Cost(times * factor * Fraction(release.fallback_mu) ** 2, times * release.delta)
    epsilon, fallback = epsilon_of_cost(total, plan.delta), epsilon_of_cost(worst, plan.delta)
    words = (
        f"{uploads} upload(s): epsilon {epsilon:.3f} at delta {plan.delta:g} per {plan.unit}.\n"
        f"Unit {plan.unit}: {plan.unit.neighbours}.\n"
        f"Trust {plan.release.trust}: {plan.release.trust.assumption}.\n"
        f"If all other sites collude, epsilon is {fallback:.3f}.\n"
        "No noise covers what an app's code does with rows beside this, such as writing them to a log."
    )
    words += several_sites(total, plan.release.trust, plan.delta, stage.sites_per_subject)
    lifetime = epsilon
    if stage.past:
        lifetime, unit = _together([*stage.past, *releases], plan.unit, plan.delta)
        words += f"\nAll {runs} runs together: epsilon {lifetime:.3f} at delta {plan.delta:g} per {unit}."
    trust, mu = str(plan.release.trust), math.sqrt(float(total.mu2))
    return PrivacyReport(
        epsilon, plan.delta, uploads, plan.rounds, str(plan.unit), trust, mu, fallback, spent, words, runs, lifetime
    )


def _together(runs: Sequence[tuple[Release | None, int]], unit: Unit, delta: float) -> tuple[float, Unit]:
    """ε of all runs, in the smallest of their units and this run's own; infinite after a run without noise.

    An app's release is bounded for its site whatever its epsilon counts, so that the releases alone would not tell.
    """
    units = [release.unit for release, _ in runs if release is not None]
    unit = next(one for one in Unit if one is unit or one in units)
    total = Cost(0)
    for release, times in runs:
        if release is None:
            return math.inf, unit
        total += times * release.cost_in(unit)
    return (epsilon_of_cost(total, delta) if total.delta < Fraction(delta) else math.inf), unit
