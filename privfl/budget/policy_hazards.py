"""The hazards of NIST SP 800-226 that apply to a policy, and what no policy covers, in sentences."""

from __future__ import annotations

import math
from collections.abc import Iterator
from decimal import ROUND_CEILING, Context, Decimal

from privfl.budget.filter import Budget
from privfl.budget.policy import Policy
from privfl.dp import Cost, Unit, epsilon_of_cost
from privfl.dp.accounting import delta_curve, root_up

__all__ = ["failure", "hazards", "not_covered", "up"]


def up(value: float, digits: int = 3) -> str:
    """A bound for people, rounded up to so many digits: what is said to be at most this is so.

    >>> up(148.41), up(0.3), up(1e-5)
    ('149', '0.3', '1e-05')
    """
    if Decimal(repr(value)) == Decimal(f"{value:.{digits}g}"):
        return f"{value:.{digits}g}"
    return f"{float(Context(prec=digits, rounding=ROUND_CEILING).create_decimal(repr(value))):.{digits}g}"


def failure(budget: Budget) -> float:
    """How likely the odds change by more than e^ε, at most: under a Gaussian curve it is several times δ.

    For any e < ε, δ(e) is at least (1 − e^(e−ε))·P[loss > ε]; the least such bound over a grid of e is taken, and
    e^−ε of it added for odds that fall.
    """
    import numpy as np  # noqa: PLC0415

    below = budget.epsilon * np.linspace(0.0, 1.0, 2001)[:-1]
    curve = delta_curve(below, root_up(budget.mu2)) + float(budget.slack)
    found = float(np.min(curve / -np.expm1(below - budget.epsilon)))
    return min(1.0, found * (1 + math.exp(-budget.epsilon)) * (1 + 1e-9))


def hazards(policy: Policy) -> Iterator[str]:
    """What a reader of this very policy could take for more than it is."""
    budget = policy.budget
    if budget is None:
        yield "Exact sums can be subtracted from each other; small groups and rare values are then read off directly."
    else:
        worst = policy.lifetime or budget  # what comes back is learnt all the same
        yield _size_of(worst.epsilon, " for life" if policy.window is not None else "")
        yield from _gaps(policy, worst)
        yield (
            f"Delta {worst.delta:g} is not the chance that the bound on the odds fails: that is at most "
            f"{up(failure(worst), 2)}. An epsilon at another delta is another statement: compare figures at the same "
            "delta only."
        )
    if policy.window is not None:
        yield (
            "The window resets. Who reads 'epsilon per window' as the whole promise is mistaken: what leaves in one "
            "window is not forgotten in the next, and only the lifetime figures bound the sum."
        )
    if not policy.noiseless:
        yield (
            "Noise weighs most on small groups: their figures are the least accurate, clipping moves rare large "
            "values towards the rest, and a model may serve them worse. Check results by group before acting on them."
        )
        yield (
            "Noise is drawn and added in exact integers, so rounding of floating-point numbers leaves no trace in it. "
            "Times are another channel: how long a site computes is not hidden from who watches its machine."
        )
    yield (
        "Bounds, classes and bins are public and outside the promise. They must come from knowledge of the field, "
        "not from these rows: a bound read off the data gives away its largest value."
    )


def _size_of(epsilon: float, when: str) -> str:
    if epsilon <= 1:
        return f"Epsilon {epsilon:g}{when} is small: little more is learnt about anyone than without that one's data."
    if epsilon <= 3:
        return f"Epsilon {epsilon:g}{when} is moderate: a strong suspicion about one contribution is not ruled out."
    return (
        f"Epsilon {epsilon:g}{when} is large: the worst case that it does not rule out is near-certainty about one "
        "contribution. Attacks known today stay below that bound, but the bound is all that is promised."
    )


def _gaps(policy: Policy, budget: Budget) -> Iterator[str]:
    double = epsilon_of_cost(Cost(4 * budget.mu2, budget.slack), budget.delta)
    if policy.unit is Unit.RECORD:
        yield (
            f"The unit is one row. A person with two rows is protected at about epsilon {up(double)}, with "
            "more rows less still; relatives and others who resemble him are not part of the unit."
        )
    elif policy.unit is Unit.SUBJECT:
        yield (
            "The unit is one person by id. Someone with two ids, or known under another id at another site, is "
            "protected less; relatives and others who resemble him are not part of the unit."
        )
    else:
        yield (
            f"The unit is a site's whole contribution. For a single row in it the bound is about epsilon {up(double)}, "
            "since changing a row can turn the site's vector from one clipped value into another."
        )


def not_covered() -> Iterator[str]:
    """What the promise does not speak about."""
    yield (
        "Whatever else was or will be published from the same data without this ledger: exact tables, models trained "
        "elsewhere, releases for another population's name. Together with it the promise is weaker than stated."
    )
    yield "Conclusions that hold for anybody, such as 'smoking harms': they follow without a person's own data."
    yield "That a site takes part, its name, its schema, this policy and the times of rounds are public."
    yield "The correctness of results: sites may contribute wrong numbers, and signatures do not make them true."
