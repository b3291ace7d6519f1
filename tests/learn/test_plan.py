"""Compiling: what is charged, what is refused before anything is spent, and when training stops."""

from __future__ import annotations

import math

import pytest

from privfl.budget.filter import Budget, Filter
from privfl.dp import Trust, epsilon_of_mu
from privfl.errors import BudgetExceeded, DataError, Misuse, PrivflError, Refused
from privfl.learn import Category, Linear, Logistic, Numeric
from privfl.learn.datasets import breast_cancer_schema
from tests.learn.support import schema_with

SCHEMA = schema_with(Category(classes=(False, True)), records=500)
TERMS = {"epsilon": 2.0, "delta": 1e-5, "sites": 5, "rounds": 30}


def compiled(**changes: object):  # type: ignore[no-untyped-def]
    """A logistic task with some terms or settings changed."""
    settings = {key: changes.pop(key) for key in list(changes) if key in Logistic.model_fields}
    return Logistic(**{"label": "y", **settings}).compile(SCHEMA, **{**TERMS, **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize("trust", list(Trust))
@pytest.mark.parametrize("epsilon", [0.5, 2.0, 8.0])
def test_the_budget_admits_exactly_the_planned_rounds(trust: Trust, epsilon: float) -> None:
    """A filter of the same (ε, δ) takes every planned upload and refuses one more."""
    task = compiled(epsilon=epsilon, trust=trust)
    spent = Filter(Budget.from_epsilon_delta(epsilon, 1e-5))
    for _ in range(30):
        spent = spent.admit(task.release.cost) or spent
    with pytest.raises(BudgetExceeded):
        spent.admit(task.release.cost)
    assert task.epsilon_after(30) <= epsilon
    assert task.epsilon_after(30) > 0.97 * epsilon


def test_metrics_take_their_share_of_a_round() -> None:
    """Five per cent of μ² by default, nothing if they are left out, and Δ² = 3 scaled units."""
    task, without = compiled(), compiled(metrics=0.0)
    gradient, metrics = task.release.blocks
    assert metrics.delta2 == 3 * (1 << 12) ** 2
    share = metrics.delta2 / (metrics.sigma**2 - 4) / float(task.release.mu2)
    assert share == pytest.approx(0.05, rel=1e-3)
    assert [block.name for block in without.release.blocks] == ["gradient"]
    assert without.release.blocks[0].sigma < gradient.sigma
    assert without.release.mu2 == pytest.approx(task.release.mu2, rel=1e-6)


def test_distributed_noise_is_shared_among_honest_survivors() -> None:
    """σ at a site is σ/√h with h the survivors less the colluders; local trust has no such help."""
    shared, alone = compiled(min_survivors=5, colluders=1), compiled(trust="local")
    block = shared.release.blocks[0]
    assert shared.release.honest == 4
    assert shared.release.sigma_site(block) == pytest.approx(block.sigma / 2, rel=1e-4)
    assert alone.release.sigma_site(alone.release.blocks[0]) == pytest.approx(block.sigma, rel=1e-4)
    assert epsilon_of_mu(shared.release.fallback_mu, 1e-5) > epsilon_of_mu(shared.release.mu, 1e-5)


@pytest.mark.parametrize(
    ("changes", "error", "says"),
    [
        ({"label": "malignant"}, DataError, "no label 'malignant'"),
        ({"label": "a"}, DataError, "must be a category"),
        ({"features": ("a", "q")}, DataError, "'q'"),
        ({"features": ("a", "y")}, DataError, "'y'"),
        ({"features": ()}, DataError, "at least one"),
        ({"sites": 1, "min_survivors": 1}, Misuse, "one site only"),
        ({"rounds": 0}, Misuse, "rounds"),
        ({"epsilon": None}, Misuse, "epsilon"),
        ({"epsilon": -1.0}, Misuse, "epsilon"),
        ({"delta": 1.0}, Misuse, "delta"),
        ({"epsilon": 0.001}, BudgetExceeded, "too small for one round"),
        ({"min_survivors": 6}, Misuse, "5 sites"),
        ({"min_survivors": 2, "colluders": 1}, Refused, "honest"),
        ({"sites": 2}, Refused, "honest"),
        ({"unit": "site"}, Refused, "record"),
        ({"trust": "blind"}, Misuse, "trust"),
        ({"bits": 16}, Refused, "ring too small"),
        ({"feature_bits": 1, "residual_bits": 1, "epsilon": 8.0}, Refused, "integer units"),
    ],
)
def test_bad_input_is_refused_before_anything_is_spent(
    changes: dict[str, object], error: type[PrivflError], says: str
) -> None:
    """Each mistake has a typed error whose message names the cause."""
    with pytest.raises(error, match=says):
        compiled(**changes)


@pytest.mark.parametrize("settings", [{"clip": 0}, {"l2": -1}, {"metrics": 1}, {"optimiser": "lbfgs"}, {"clips": 1}])
def test_bad_settings_are_misuse(settings: dict[str, object]) -> None:
    """Specifications complain in the house's own error tree."""
    with pytest.raises(Misuse):
        Logistic(label="y", **settings)


def test_a_number_is_no_label_for_classes_and_the_other_way_round() -> None:
    """The kind of label decides the task."""
    with pytest.raises(DataError, match="must be a number"):
        Linear(label="y").compile(SCHEMA, **TERMS)  # type: ignore[arg-type]


def test_a_ring_can_be_asked_for_if_it_is_wide_enough() -> None:
    """A wider ring is taken as asked; the default is the least that holds every block."""
    least = compiled().ring.bits
    assert compiled(bits=least).ring.bits == least
    assert compiled(bits=40).ring.bits == 40
    with pytest.raises(Refused, match=str(least)):
        compiled(bits=least - 1)


def test_the_rate_follows_from_public_numbers_only() -> None:
    """Classes, clip, rounds, declared size and noise fix the step; it is capped where noise is no limit."""
    task = compiled()
    release, gradient = task.release, task.release.blocks[0]
    noise = release.sigma_site(gradient) * math.sqrt(5 * gradient.length)
    signal = math.sqrt(30) * 500 * math.sqrt(gradient.delta2) / noise
    assert dict(task.strategy.settings)["rate"] == pytest.approx(2 * min(signal, 100) / (30 * 0.3))
    capped = breast_cancer_schema(10**7)
    free = Logistic(label="malignant").compile(capped, **TERMS)  # type: ignore[arg-type]
    assert dict(free.strategy.settings)["rate"] == pytest.approx(2 * 100 / (30 * 0.3))


def test_optimisers_can_be_chosen() -> None:
    """Adam and plain descent are one word away, and a declared rate is taken as it is."""
    assert compiled(optimiser="adam").strategy.name == "adam"
    assert dict(compiled(optimiser="sgd", rate=0.25, average=0.0).strategy.settings) == {"rate": 0.25}


def test_reprs_say_what_matters() -> None:
    """Task and specification read well in a notebook."""
    text = repr(compiled())
    assert all(part in text for part in ("logistic", "'y'", "30 rounds", "5 sites", "epsilon 2", "distributed"))
    assert repr(Logistic(clip=0.5, label="y")) == "Logistic(label='y', clip=0.5)"
    number = schema_with(Numeric(lower=0, upper=1))
    assert "linear" in repr(Linear(label="y").compile(number, **TERMS))  # type: ignore[arg-type]
